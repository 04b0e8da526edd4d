// A plane's core against a broker's core, without a network, and what people, nodes and agents do
// with both. Not part of any program.
#pragma once

#include <stdlib.h>

#include <functional>
#include <stdexcept>
#include <utility>

#include "base/os.h"
#include "broker/testing.h"
#include "plane/core/core.h"
#include "plane/core/testing.h"
#include "plane/store/sqlite_store.h"

namespace gbx::plane {

using namespace records;

// Stops the "process" at one commit: before it is written, or after.
struct Stop {};
// What testing::must() is to a fixture, where a refusal may be what the test is about.
template <class T>
T need(Result<T> r) {
  if (!r.ok()) throw std::runtime_error(r.error().line());
  return std::move(r).value();
}
inline void need(const Status& s) {
  if (!s.ok()) throw std::runtime_error(s.error().line());
}
class StoppingStore final : public machines::Store {
 public:
  explicit StoppingStore(std::unique_ptr<machines::Store> inner) : inner_(std::move(inner)) {}
  Status commit(const machines::Transaction& t) override {
    const std::int64_t n = ++commits;
    if (stop_at == 2 * n) throw Stop{};
    if (full_at == n) return fail(Reason::kIo, "the disk is full");
    GBX_TRY(inner_->commit(t));
    if (stop_at == 2 * n + 1) throw Stop{};
    return ok_status();
  }
  Result<std::optional<Machine>> machine(const std::string& id) override {
    return inner_->machine(id);
  }
  Result<std::vector<Machine>> machines(const machines::MachineQuery& q) override {
    return inner_->machines(q);
  }
  Result<std::int64_t> count(const machines::MachineQuery& q) override { return inner_->count(q); }
  Result<std::vector<machines::TransitionRow>> history(const std::string& m, std::int64_t a,
                                                       std::size_t l) override {
    if (const auto now = std::exchange(before_history, {})) now();
    return inner_->history(m, a, l);
  }
  Result<std::optional<machines::Record>> record(const std::string& k,
                                                 const std::string& i) override {
    return inner_->record(k, i);
  }
  Result<std::vector<machines::Record>> records(const machines::RecordQuery& q) override {
    auto found = inner_->records(q);
    const std::size_t n = found.ok() ? found->size() : 0;
    rows += n;
    most_rows = std::max(most_rows, n);
    return found;
  }
  Result<std::vector<machines::Effect>> due(std::int64_t now, std::size_t l) override {
    return inner_->due(now, l);
  }
  Result<std::optional<std::int64_t>> next_due_ms() override { return inner_->next_due_ms(); }
  std::int64_t commits = 0;
  std::function<void()> before_history;  // once: what another thread does meanwhile
  std::int64_t stop_at = 0;              // 2n: before the n-th commit; 2n + 1: after it
  std::int64_t full_at = 0;              // the n-th commit is refused
  std::size_t rows = 0;                  // of records that lists were made of
  std::size_t most_rows = 0;             // of these, in one answer

 private:
  std::unique_ptr<machines::Store> inner_;
};

// While an output is written, something else can be done to the plane.
class TestShelf final : public OutputShelf {
 public:
  Status put(const std::string& name, ByteView content) override {
    if (const auto meanwhile = std::exchange(during_put, nullptr)) meanwhile();
    return kept_.put(name, content);
  }
  Result<Bytes> get(const std::string& name) override { return kept_.get(name); }
  std::function<void()> during_put;  // once

 private:
  MemoryShelf kept_;
};

class Plane {
 public:
  explicit Plane(bool sqlite, std::uint64_t seed = 1) : b(seed), sqlite_(sqlite) {
    std::string name = "/tmp/gbx-core-XXXXXX";
    directory_ = mkdtemp(name.data());
    testing::must(b.start());
    config.set = b.set.chain;
    config.set_id = b.set.id();
    config.lease_seconds = 30;
    start();
  }
  ~Plane() {
    core.reset();
    store.reset();
    (void)remove_tree(directory_);
  }
  void start() {
    core.reset();
    std::unique_ptr<machines::Store> inner;
    if (sqlite_) {
      store.reset();
      inner = testing::must(SqliteStore::open(directory_ + "/plane.db"));
    } else {
      inner = std::make_unique<machines::MemoryStore>();
    }
    store = std::make_unique<StoppingStore>(std::move(inner));
    core = testing::must(Core::create(*store, shelf, *clock, config));
  }
  plane::Caller consumer() { return {b.consumer.id(), {Role::kConsumer}}; }
  plane::Caller owner() { return {b.owner.id(), {Role::kOwner}}; }
  plane::Caller reviewer() { return {b.reviewer.id(), {Role::kReviewer}}; }
  crypto::PublicKey node() { return b.node.public_key(); }

  void enrol(const testing::Person& who, const std::string& name, Role role) {
    testing::must(testing::enrol(*core, who.chain, who.key.public_key(), name, role));
  }
  void populate() {
    enrol(b.owner, "owner", Role::kOwner);
    enrol(b.consumer, "consumer", Role::kConsumer);
    for (const testing::Asset* a : {&b.data, &b.image}) {
      if (published_.count(a->version_id()) == 0) {
        published_[a->version_id()] = testing::make_publish(b.set, *a, b.random);
      }
      const Publish& p = published_[a->version_id()];
      testing::must(core->check_publish(owner(), p));
      testing::must(
          core->accept_publish(p, testing::must(b.call<Signed<PublishAck>>(method::kPublish, p))));
    }
    testing::must(core->enrol_node("n", node().text()));
    testing::must(core->register_node(node(), info()));
  }
  // A second node, which the policies have to name before they are published.
  void add_node(const crypto::SigningKey& key, const std::string& name) {
    testing::must(core->enrol_node(name, key.public_key().text()));
    NodeInfo other = info();
    other.name = name;
    other.key = key.public_key().text();
    testing::must(core->register_node(key.public_key(), other));
  }
  void allow_node(const crypto::SigningKey& key) {
    for (testing::Asset* a : {&b.data, &b.image}) {
      PlatformRule rule = a->policy.clauses.tee.at(0);
      rule.root = "none:" + to_hex(key.public_key().fingerprint());
      a->policy.clauses.tee.push_back(rule);
    }
  }
  NodeInfo info() {
    return {"n", node().text(), {Technology::kNone}, 8, std::int64_t{8} << 30, 1, "test", kMaxPids,
            {}};
  }
  // Everything that is due, with the real broker.
  void pump() {
    for (int i = 0; i < 20; ++i) {
      const auto due = need(core->due(32));
      if (due.empty()) return;
      for (const auto& effect : due) {
        const auto call = need(core->prepare(effect));
        if (call) {
          need(core->finish(effect,
                            b.core->handle(call->method, call->body, b.plane(), b.clock.now())));
        }
      }
    }
    throw std::runtime_error("the outbox never empties");
  }
  Hash32 submit() { return submit(b.submission()); }
  Hash32 submit(const SignedSubmission& s, std::optional<std::string> key = std::nullopt) {
    return need(core->submit(consumer(), s, key)).job_id;
  }
  api::JobView job(const Hash32& id) { return testing::must(core->job(consumer(), id)); }
  std::optional<LaunchBundle> take() { return take(node()); }
  std::optional<LaunchBundle> take(const crypto::PublicKey& by) {
    auto first = need(core->poll(by));
    if (first) return first;
    pump();
    return need(core->poll(by));
  }
  // What the agent does, up to the seal.
  struct Done {
    testing::BrokerWorld::Sealed sealed;
    Signed<SealAck> ack;
  };
  Done work(const LaunchBundle& w, const GateVerdict& verdict = testing::clean_verdict()) {
    testing::FakeAgent agent = testing::make_agent(b.random);
    const auto connection = b.connect(agent);
    const Hash32 evidence = testing::must(b.attest(agent, w.credential, connection));
    for (std::int64_t stage = 1; stage <= 2; ++stage) {
      testing::must(b.key(agent, w.credential.body, evidence, stage, connection));
    }
    auto sealed =
        b.make_seal(agent, w.submission, w.plan, w.credential.body.attempt, evidence, verdict);
    auto ack = testing::must(b.seal(sealed.seal, connection));
    return {std::move(sealed), std::move(ack)};
  }
  OutputUpload upload(const LaunchBundle& w, const Done& done) {
    return {w.credential.body.job_id, w.credential.body.attempt, done.ack, done.sealed.output};
  }
  Signed<DestroyedClaim> claim(const LaunchBundle& w) {
    const std::int64_t slot = w.plan.body.gate.release_slot_seconds * 1000;
    return testing::must(sign(b.set.id(),
                              DestroyedClaim{w.credential.body.job_id,
                                             w.credential.body.attempt,
                                             slot_end(b.clock.now().ms, slot) / 1000,
                                             {}},
                              b.node));
  }
  // A job whose output the gate holds, up to the broker's answer; its id.
  Hash32 held_job() {
    const Hash32 id = submit();
    pump();
    const auto w = take();
    GateVerdict verdict = testing::clean_verdict();
    verdict.recommendation = Recommendation::kHold;
    testing::must(core->output(node(), upload(*w, work(*w, verdict))));
    testing::must(core->destroyed(node(), claim(*w)));
    pump();
    return id;
  }
  PhaseReport phase(const LaunchBundle& w, EnvironmentPhase p, std::string reason = {}) {
    return {w.credential.body.job_id, w.credential.body.attempt, p, std::move(reason), {}};
  }

  testing::BrokerWorld b;
  CoreConfig config;
  TestShelf shelf;
  std::unique_ptr<StoppingStore> store;
  const Clock* clock = &b.clock;
  std::unique_ptr<Core> core;

 private:
  const bool sqlite_;
  std::string directory_;
  std::map<Hash32, Publish> published_;
};

}  // namespace gbx::plane
