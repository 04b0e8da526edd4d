#include "simulation.h"

#include <algorithm>

#include "audit.h"
#include "plane/core/testing.h"

namespace gbx::simulation {

using namespace records;
using world::Actor;
using world::Message;
using world::World;

namespace {

constexpr std::int64_t kSimulatedMs = 4'000'000;
constexpr std::int64_t kRetryMs = 1'500;
constexpr std::int64_t kRunSeconds = 60;
constexpr std::int64_t kGraceSeconds = 60;
constexpr std::int64_t kRoundMs = 100;
constexpr std::int64_t kBeatMs = 2'000;
constexpr std::int64_t kWatchMs = 1'000;
constexpr std::int64_t kShowHeadMs = 5'000;
constexpr std::int64_t kShowHeadAgainMs = 300;
constexpr std::int64_t kSettleMs = 200;
// and up to kFreezeMoreMs on top: longer than a node's lease
constexpr std::int64_t kFreezeMs = 12'000;
constexpr std::int64_t kFreezeMoreMs = 25'000;
constexpr std::int64_t kLeaseSeconds = 10;
// Longer than all that a job may take, and within the submission's and the leases' time.
constexpr std::int64_t kJumpMs = 9'000'000;
constexpr std::int64_t kFullMs = 15'000;
constexpr std::int64_t kAwayMs = 5'000;  // as the plane's dispatcher has it

// ---- what survives crashes ----

// Crashes may come before a commit (nothing is there) and after it (everything is, and nobody
// knows).
class CrashingStore final : public machines::MemoryStore {
 public:
  CrashingStore(World& world, std::string actor) : world_(world), actor_(std::move(actor)) {}
  Status commit(const machines::Transaction& t) override {
    world_.crash_point(actor_);
    if (world_.disk_refuses(actor_)) return fail(Reason::kIo, "the disk is full");
    world_.disk_waits(actor_);
    GBX_TRY(MemoryStore::commit(t));
    world_.crash_point(actor_);
    return ok_status();
  }

 private:
  World& world_;
  std::string actor_;
};

// The broker's log on a disk. A careful one is synced before append() returns; a careless one is
// not, and loses its tail.
class CrashingLog final : public broker::LogStore {
 public:
  CrashingLog(World& world, bool careless) : world_(world), careless_(careless) {}
  Status append(std::uint64_t first, const std::vector<broker::StoredEntry>& entries,
                const std::vector<translog::Node>& nodes) override {
    world_.crash_point("broker");
    if (world_.disk_refuses("broker")) return fail(Reason::kIo, "the disk is full");
    world_.disk_waits("broker");
    if (first != disk_.size()) return fail(Reason::kConflict, "log");
    disk_.push_back({entries, nodes});
    for (std::size_t i = 1; i < entries.size(); ++i) disk_.push_back({});
    if (!careless_) synced_ = disk_.size();
    world_.crash_point("broker");
    return ok_status();
  }
  Result<std::uint64_t> size() const override { return disk_.size(); }
  Result<broker::StoredEntry> entry(std::uint64_t index) const override {
    std::uint64_t first = index;
    while (first < disk_.size() && disk_[first].entries.empty() && first > 0) --first;
    if (index >= disk_.size() || index - first >= disk_[first].entries.size()) {
      return fail(Reason::kNotFound, "entry");
    }
    return disk_[first].entries[index - first];
  }
  Result<Hash32> node(translog::NodeId id) const override {
    for (const auto& group : disk_) {
      for (const auto& n : group.nodes) {
        if (n.id == id) return n.hash;
      }
    }
    return fail(Reason::kNotFound, "node");
  }
  void crash() {
    if (disk_.size() <= synced_) return;
    std::uint64_t keep = synced_ + world_.draw(disk_.size() - synced_ + 1);
    while (keep > 0 && keep < disk_.size() && disk_[keep].entries.empty()) --keep;
    disk_.resize(keep);
  }

 private:
  struct Group {
    std::vector<broker::StoredEntry> entries;
    std::vector<translog::Node> nodes;
  };
  World& world_;
  const bool careless_;
  std::vector<Group> disk_;
  std::uint64_t synced_ = 0;
};

struct Shared {
  Shared(const Scenario& s)
      : scenario(s),
        world(s.seed, s.faults, s.only),
        plane_store(world, "plane"),
        broker_log(world, s.careless_broker),
        everybody(s.seed, &broker_log) {}
  ~Shared() { world.stop(); }
  const Scenario& scenario;
  World world;
  CrashingStore plane_store;
  plane::MemoryShelf shelf;
  CrashingLog broker_log;
  testing::BrokerWorld everybody;  // keys, assets, and the broker's core
  std::vector<crypto::SigningKey> node_keys;
  std::vector<SignedSubmission> submissions;
  std::set<Hash32> accepted;  // submissions that the plane answered for
  std::set<Hash32> refused;
  std::uint64_t connections = 0;
  std::string violation;                           // seen while it runs
  std::map<Hash32, Signed<KeyRequest>> sent_keys;  // whose replies left the broker
  // by job, attempt and stage
  std::map<std::tuple<Hash32, std::int64_t, std::int64_t>, std::string> keys_of_stage;
  std::map<Hash32, Hash32> first_seal;             // job -> manifest that was acknowledged first
  std::map<Hash32, std::int64_t> sealed_by;        // job -> attempt whose seal was acknowledged
  std::map<std::string, std::size_t> turned_away;  // requests of attempts that are over, by method
  std::map<std::string, std::string> node_of_key;  // TLS key -> actor

  Random& random() { return everybody.random; }
  std::int64_t now_ms() { return world.clock().now().ms; }
  void violated(const std::string& what) {
    if (violation.empty()) violation = what;
    world.note("VIOLATION " + what);
  }
};

// ---- calls over the network ----

Json error_json(const Error& e) {
  Json j;
  j["reason"] = std::string(reason_code(e.reason));
  j["what"] = e.what;
  return j;
}
Result<Json> result_of(const Json& reply) {
  if (const Json* value = reply.find("value")) return *value;
  Error e(Reason::kInternal, "no answer");
  if (const Json* error = reply.find("error")) {
    (void)reason_from_code(*error->find("reason")->string(), &e.reason);
    e.what = *error->find("what")->string();
  }
  return e;
}

// An actor that asks others and is asked; answers are found by number, and only the latest question
// counts.
class Caller : public Actor {
 public:
  Caller(Shared& shared, std::string name) : s(shared), name_(std::move(name)) {}
  void receive(const std::string& from, const Message& m) override {
    const std::int64_t ref = *m.body.find("ref")->integer();
    if (m.kind == "answer") {
      const auto it = open_.find(ref);
      if (it == open_.end()) return;  // too late, or doubled
      const auto then = std::move(it->second);
      open_.erase(it);
      then(result_of(m.body));
      return;
    }
    answer_to_ = {from, ref};
    handle(from, m.kind, *m.body.find("body"), m.body);
  }

 protected:
  using Then = std::function<void(const Result<Json>&)>;
  virtual void handle(const std::string&, const std::string&, const Json&, const Json&) {}
  // Calls `then` with the answer, or with kTimedOut after kRetryMs.
  void ask(const std::string& to, std::string_view method, Json body, Then then, Json extra = {}) {
    const std::int64_t ref = static_cast<std::int64_t>(s.world.draw(1ULL << 50));
    open_[ref] = std::move(then);
    Json m;
    m["body"] = std::move(body);
    m["ref"] = ref;
    if (!extra.is_null()) m["connection"] = std::move(extra);
    s.world.send(name_, to, {std::string(method), std::move(m)});
    s.world.after(name_, kRetryMs, [this, ref] {
      const auto it = open_.find(ref);
      if (it == open_.end()) return;
      const Then give_up = std::move(it->second);
      open_.erase(it);
      give_up(fail(Reason::kUnavailable, "no answer in time"));
    });
  }
  struct Asker {
    std::string name;
    std::int64_t ref = 0;
  };
  Asker asker() const { return answer_to_; }
  void answer(const Asker& to, const Result<Json>& result) {
    Json m;
    m["ref"] = to.ref;
    if (result.ok()) {
      m["value"] = *result;
    } else {
      m["error"] = error_json(result.error());
    }
    s.world.send(name_, to.name, {"answer", std::move(m)});
  }
  void every(std::int64_t ms, const std::function<void()>& work) {
    s.world.after(name_, ms, [this, ms, work] {
      work();
      every(ms, work);
    });
  }

  Shared& s;
  const std::string name_;

 private:
  std::map<std::int64_t, Then> open_;
  Asker answer_to_;
};

// ---- the broker: the real core ----

class BrokerActor final : public Caller {
 public:
  explicit BrokerActor(Shared& shared) : Caller(shared, "broker") {
    s.broker_log.crash();
    sync_clock();
    const Status started = s.everybody.open();
    if (!started.ok()) s.world.note("broker does not start: " + started.error().line());
    if (started.reason() == Reason::kIo) throw world::Crash{"broker"};  // tried again
    testing::must(started);
    check_sent_keys();
  }
  ~BrokerActor() override { s.everybody.core.reset(); }

 private:
  void sync_clock() {
    s.everybody.clock.advance(s.world.clock_of("broker").now().ms - s.everybody.clock.now().ms);
  }

  void handle(const std::string&, const std::string& method, const Json& body,
              const Json& whole) override {
    sync_clock();
    broker::ConnectionContext connection = testing::BrokerWorld::plane();
    if (const Json* c = whole.find("connection")) {
      connection.peer = broker::Peer::kStranger;
      connection.id = static_cast<std::uint64_t>(*c->find("id")->integer());
      connection.peer_key = testing::must(crypto::PublicKey::from_text(*c->find("key")->string()));
      connection.exporter = crypto::sha256(as_bytes(std::to_string(connection.id)));
    }
    const Asker to = asker();
    const Result<Json> reply =
        s.everybody.core->handle(method, body, connection, s.everybody.clock.now());
    if (!reply.ok()) s.world.note("broker refuses " + method + ": " + reply.error().line());
    if (!reply.ok() && reply.reason() == Reason::kCredentialSuperseded) s.turned_away[method] += 1;
    if (reply.ok() && method == method::kKey) sent_keys(body, *reply);
    if (reply.ok() && method == method::kSeal) sealed(body);
    answer(to, reply);
    // What is in memory may not be on the disk: the program ends, and is started again.
    if (!s.everybody.core->healthy()) throw world::Crash{"broker"};
  }

  // Nothing for an attempt that another one has followed, or that the log calls dead: not even what
  // it got before.
  bool over(const Hash32& job_id, std::int64_t attempt) const {
    const broker::JobState* job = s.everybody.core->state().job(job_id);
    if (job == nullptr || attempt < 1) return true;
    const auto n = static_cast<std::size_t>(attempt);
    return job->cancelled || n != job->attempts.size() || !job->attempts[n - 1].dead.empty();
  }
  // No key leaves that the log does not hold: now, and whatever crashes later.
  void sent_keys(const Json& body, const Json& reply) {
    const auto request = testing::must(from_json<Signed<KeyRequest>>(body));
    const auto stage = std::tuple(request.body.job_id, request.body.attempt, request.body.seq);
    const std::string first = s.keys_of_stage.try_emplace(stage, canonical(reply)).first->second;
    if (first != canonical(reply)) s.violated("one stage of one attempt got two keys");
    if (over(request.body.job_id, request.body.attempt)) {
      s.violated("an attempt that is over got a key");
    }
    s.sent_keys.insert_or_assign(request.hash(), request);
    check_sent_keys();
  }

 public:
  void check_sent_keys() {
    for (const auto& [hash, request] : s.sent_keys) {
      const broker::JobState* job = s.everybody.core->state().job(request.body.job_id);
      const auto n = static_cast<std::size_t>(request.body.attempt);
      bool held = false;
      if (job != nullptr && job->attempts.size() >= n) {
        for (const auto& k : job->attempts[n - 1].keys) held = held || k.request.hash() == hash;
      }
      if (!held) s.violated("a key was sent that the log does not hold");
    }
  }

 private:
  void sealed(const Json& body) {
    const auto seal = testing::must(from_json<Seal>(body));
    const SealContext& ctx = seal.statement.body.manifest.context;
    const broker::JobState* job = s.everybody.core->state().job(ctx.job_id);
    if (job == nullptr || !job->seal) {
      return s.violated("a seal was acknowledged that the log does not hold");
    }
    if (hash_of(job->seal->manifest()) != hash_of(seal.statement.body.manifest)) {
      s.violated("two outputs were accepted");
    }
    if (over(ctx.job_id, ctx.attempt)) s.violated("an attempt that is over sealed");
    s.sealed_by[ctx.job_id] = ctx.attempt;
    Hash32& first = s.first_seal[ctx.job_id];
    const Hash32 manifest = hash_of(seal.statement.body.manifest);
    if (first == Hash32{}) {
      first = manifest;
    } else if (first != manifest) {
      s.violated("two outputs were accepted");
    }
  }
};

// ---- the plane: the real core ----

plane::CoreConfig plane_config(Shared& s) {
  plane::CoreConfig c;
  c.set = s.everybody.set.chain;
  c.set_id = s.everybody.set.id();
  c.lease_seconds = kLeaseSeconds;
  c.run_grace_seconds = kGraceSeconds;
  c.destroy_seconds = 60;
  c.review_poll_seconds = 5;
  return c;
}

class PlaneActor final : public Caller {
 public:
  explicit PlaneActor(Shared& shared) : Caller(shared, "plane") {
    core = testing::must(
        plane::Core::create(s.plane_store, s.shelf, s.world.clock_of("plane"), plane_config(s)));
    every(kRoundMs, [this] { round(); });
    every(kWatchMs, [this] { watch(); });
    show_head();
  }
  std::unique_ptr<plane::Core> core;

 private:
  plane::Caller consumer() const { return {s.everybody.consumer.id(), {plane::Role::kConsumer}}; }
  plane::Caller reviewer() const { return {s.everybody.reviewer.id(), {plane::Role::kReviewer}}; }

  void round() {
    if (s.now_ms() - last_round_ms_ > kAwayMs) {
      core->was_away();
      listening_since_ms_ = s.now_ms();
    }
    last_round_ms_ = s.now_ms();
    const auto due = testing::must(core->due(32));
    for (const auto& effect : due) {
      if (asked_.count(effect.key) == 0) perform(effect);
    }
    const Status ticked = core->tick();
    if (!ticked.ok()) return s.world.note("tick: " + ticked.error().line());
    look_at_deadlines();
  }
  void perform(const machines::Effect& effect) {
    const auto call = core->prepare(effect);
    if (!call.ok()) return put_off(effect, "prepare", call.error());
    if (!call->has_value()) return;
    asked_.insert(effect.key);
    ask("broker", (*call)->method, (*call)->body, [this, effect](const Result<Json>& reply) {
      asked_.erase(effect.key);
      const Status done = core->finish(effect, reply);
      if (!done.ok()) put_off(effect, "finish", done.error());
    });
  }
  // A disk that refuses this too leaves the effect where it was: due.
  void put_off(const machines::Effect& effect, const char* what, const Error& why) {
    s.world.note(std::string(what) + ": " + why.line());
    (void)core->postpone(effect);
  }
  // Right after a tick that the disk took. What nodes owe is not late before a plane that was away
  // has listened for a lease's time.
  void look_at_deadlines() {
    if (s.now_ms() - listening_since_ms_ < kLeaseSeconds * 1000) return;
    for (const char* kind : {"job", "env"}) {
      machines::MachineQuery late;
      late.kind = kind;
      late.live = true;
      late.deadline_until_ms = core->patience_ms();
      if (testing::must(s.plane_store.count(late)) != 0) {
        s.violated(std::string(kind) + " outlived its deadline");
      }
    }
  }
  // What the plane's link does on each connection and with its probe: the broker goes on once it
  // has seen the head, and no honest one ever refuses it. One question at a time, so that heads
  // come in order.
  void show_head() {
    const ResumeRequest request{testing::must(core->log_head())};
    ask("broker", method::kResume, to_json(request), [this](const Result<Json>& reply) {
      Status kept = reply.ok() ? ok_status() : Status(reply.error());
      if (reply.ok()) kept = core->keep_log_head(testing::must(from_json<Signed<LogHead>>(*reply)));
      if (kept.reason() == Reason::kLogRolledBack) {
        s.violated("the broker's log was rolled back: " + kept.error().line());
      }
      s.world.after(name_, kept.ok() ? kShowHeadMs : kShowHeadAgainMs, [this] { show_head(); });
    });
  }
  // Whoever is silent loses what it ran: when its lease is over, not when some deadline of the job
  // is.
  void watch() {
    if (s.world.disk_trouble("plane", kAwayMs)) return;
    machines::MachineQuery live;
    live.kind = "env";
    live.live = true;
    for (const auto& env : testing::must(s.plane_store.machines(live))) {
      const std::string& node = s.node_of_key.at(env.node);
      const auto silent = s.world.silent_since_ms(node);
      if (!silent) continue;
      // What it sent before may come later, and wait for a plane whose disk hangs.
      const std::int64_t heard =
          std::max({*silent, heard_ms_[node], began(env), listening_since_ms_});
      if (s.now_ms() - heard > kLeaseSeconds * 1000 + 2 * kRoundMs) {
        s.violated("an attempt outlived the lease of its silent node");
      }
    }
  }

  // In the world's time; the plane's own records show whatever its clock did.
  std::int64_t began(const machines::Machine& env) {
    return begun_.try_emplace(env.id, s.now_ms()).first->second;
  }

  template <class T>
  Result<Json> json(const Result<T>& r) {
    if (!r.ok()) return r.error();
    return to_json(*r);
  }
  Result<Json> json(const Status& r) {
    if (!r.ok()) return r.error();
    return to_json(Empty{});
  }

  void handle(const std::string& from, const std::string& method, const Json& body,
              const Json&) override {
    const Asker to = asker();
    heard_ms_[from] = s.now_ms();
    if (method == "submit") {
      const auto submission = testing::must(from_json<SignedSubmission>(body));
      return answer(to, json(core->submit(consumer(), submission, std::nullopt)));
    }
    if (method == "cancel") {
      return answer(to,
                    json(core->cancel(consumer(), testing::must(from_json<CancelRequest>(body)))));
    }
    if (method == "reviews") return answer(to, json(core->reviews(reviewer(), {})));
    if (method == "rule") return rule(to, body);
    const std::size_t n = static_cast<std::size_t>(from.back() - '0');
    answer(to, node_call(s.node_keys[n].public_key(), method, body));
  }
  void rule(const Asker& to, const Json& body) {
    const auto job = testing::must(fixed_from_hex<32>(*body.find("job")->string()));
    const auto ruling = testing::must(from_json<RulingRequest>(*body.find("ruling")));
    const Status good = core->check_ruling(reviewer(), job, ruling);
    if (!good.ok()) return answer(to, good.error());
    ask("broker", method::kRuling, to_json(ruling), [this, to, job](const Result<Json>& reply) {
      if (!reply.ok()) return answer(to, reply.error());
      answer(to, json(core->apply_judgement(job, testing::must(from_json<Judgement>(*reply)))));
    });
  }
  Result<Json> node_call(const crypto::PublicKey& key, const std::string& method,
                         const Json& body) {
    if (method == method::kNodeRegister) {
      return json(core->register_node(key, testing::must(from_json<NodeInfo>(body))));
    }
    if (method == method::kNodeHeartbeat) {
      return heartbeat(key, testing::must(from_json<Heartbeat>(body)));
    }
    if (method == method::kNodePoll) {
      GBX_ASSIGN(auto work, core->poll(key));
      return to_json(PollReply{std::move(work)});
    }
    if (method == method::kNodePhase) {
      return json(core->phase(key, testing::must(from_json<PhaseReport>(body))));
    }
    if (method == method::kNodeOutput) {
      return json(core->output(key, testing::must(from_json<OutputUpload>(body))));
    }
    return json(core->destroyed(key, testing::must(from_json<Signed<DestroyedClaim>>(body))));
  }
  // An output that the job waits for is not destroyed on the plane's own word, unless its agent has
  // had as long as a run may take and did nothing with it.
  Result<Json> heartbeat(const crypto::PublicKey& key, const Heartbeat& beat) {
    const auto lease = core->heartbeat(key, beat);
    if (!lease.ok()) return lease.error();
    for (const RunningAttempt& id : lease->stop) {
      const auto job = testing::must(s.plane_store.machine(plane::job_machine(id.job_id)));
      const auto env =
          testing::must(s.plane_store.machine(plane::environment_machine(id.job_id, id.attempt)));
      const auto sealed = s.sealed_by.find(id.job_id);
      const auto attempt = testing::must(from_json<plane::EnvironmentBody>(env->body));
      const bool in_time = core->patience_ms() - attempt.ended_ms.value_or(0) <=
                           (kRunSeconds + kGraceSeconds) * 1000;
      const bool lost = attempt.reason == reason_code(Reason::kLost) && in_time;
      const bool no_output_yet = job->state == "Authorized" || job->state == "Running";
      if (no_output_yet && lost && sealed != s.sealed_by.end() && sealed->second == id.attempt) {
        s.violated("the attempt that holds the only output was told to stop");
      }
    }
    return to_json(*lease);
  }
  std::set<machines::EffectKey> asked_;
  std::map<std::string, std::int64_t> begun_;     // environment -> when it was seen first
  std::map<std::string, std::int64_t> heard_ms_;  // actor -> when something of it came last
  std::int64_t listening_since_ms_ = s.now_ms();
  std::int64_t last_round_ms_ = s.now_ms();
};

// ---- a node with its agents ----

class NodeActor final : public Caller {
 public:
  NodeActor(Shared& shared, std::size_t number)
      : Caller(shared, "node" + std::to_string(number)), key_(s.node_keys[number]) {
    register_self();
    every(kBeatMs, [this] {
      Heartbeat beat;
      beat.name = name_;
      for (const auto& [id, a] : attempts_) beat.running.push_back(id);
      ask("plane", method::kNodeHeartbeat, to_json(beat), [this](const Result<Json>& r) {
        if (!r.ok()) return;
        for (const RunningAttempt& id : testing::must(from_json<NodeLease>(*r)).stop) stop(id);
      });
    });
    every(500, [this] {
      if (!attempts_.empty()) return;
      ask("plane", method::kNodePoll, to_json(PollRequest{name_, 0}),
          [this](const Result<Json>& r) {
            if (!r.ok()) return;
            auto reply = testing::must(from_json<PollReply>(*r));
            if (reply.assignment) begin(std::move(*reply.assignment));
          });
    });
  }
  bool idle() const { return attempts_.empty(); }

 private:
  enum class Stage { kHello, kAttest, kKey1, kKey2, kSeal, kUpload, kLost, kClaim };
  struct Attempt {
    Attempt(LaunchBundle b, testing::FakeAgent a) : bundle(std::move(b)), agent(std::move(a)) {}
    LaunchBundle bundle;
    testing::FakeAgent agent;
    Json connection;
    broker::ConnectionContext context;
    Stage stage = Stage::kHello;
    Stage resume = Stage::kKey1;  // after a new connection
    Nonce32 nonce{};
    Hash32 evidence{};
    std::optional<Signed<KeyRequest>> pending;
    std::optional<testing::BrokerWorld::Sealed> sealed;
    Signed<SealAck> ack;
    std::string failure;
    std::optional<Stage> hangs_at;  // the agent does nothing more from there on
  };

  void register_self() {
    NodeInfo info;
    info.name = name_;
    info.key = key_.public_key().text();
    info.technologies = {Technology::kNone};
    info.cpu = 8;
    info.memory_bytes = std::int64_t{8} << 30;
    info.pids = kMaxPids;
    info.version = "simulated";
    ask("plane", method::kNodeRegister, to_json(info), [this](const Result<Json>& r) {
      if (!r.ok()) register_self();
    });
  }
  static RunningAttempt id_of(const Attempt& a) {
    return {a.bundle.credential.body.job_id, a.bundle.credential.body.attempt};
  }
  void begin(LaunchBundle bundle) {
    const RunningAttempt id{bundle.credential.body.job_id, bundle.credential.body.attempt};
    if (!attempts_.empty() || attempts_.count(id) != 0) return;
    Attempt& a =
        attempts_.try_emplace(id, Attempt(std::move(bundle), testing::make_agent(s.random())))
            .first->second;
    if (s.scenario.varied && s.world.draw(10) == 0) {
      a.failure = s.world.draw(2) == 0 ? "sandbox-setup" : "job-failed";
    }
    if (s.world.inject(s.scenario.hang, "an agent of " + name_ + " will hang")) {
      // Running is the longest, and destroying waits for others.
      static constexpr Stage kStages[] = {
          Stage::kHello, Stage::kAttest, Stage::kKey1,   Stage::kKey2,  Stage::kSeal,
          Stage::kSeal,  Stage::kSeal,   Stage::kUpload, Stage::kClaim, Stage::kClaim};
      a.hangs_at = kStages[s.world.draw(std::size(kStages))];
    }
    report(a, EnvironmentPhase::kBooting);
    connect(a);
  }
  void report(const Attempt& a, EnvironmentPhase phase) {
    const RunningAttempt id = id_of(a);
    ask("plane", method::kNodePhase, to_json(PhaseReport{id.job_id, id.attempt, phase, {}, {}}),
        [this, id](const Result<Json>& r) {
          if (r.ok() && testing::must(from_json<PhaseReply>(*r)).stop) stop(id);
        });
  }
  void stop(const RunningAttempt& id) {
    const auto it = attempts_.find(id);
    if (it == attempts_.end()) return;
    Attempt& a = it->second;
    const bool hung = a.hangs_at == a.stage;
    a.hangs_at.reset();
    if (a.stage != Stage::kClaim && a.stage != Stage::kLost) return give_up(a, "job-cancelled");
    if (hung) attempts_.erase(it);
  }
  void give_up(Attempt& a, const std::string& reason) {
    a.failure = reason;
    a.stage = Stage::kLost;
    act(id_of(a));
  }
  // New TLS with the same agent keys: new nonce and evidence, then the request that had no answer.
  void connect(Attempt& a) {
    a.context.id = ++s.connections;
    a.context.peer_key = a.agent.tls.public_key();
    a.context.exporter = crypto::sha256(as_bytes(std::to_string(a.context.id)));
    Json c;
    c["id"] = static_cast<std::int64_t>(a.context.id);
    c["key"] = a.agent.tls.public_key().text();
    a.connection = std::move(c);
    a.stage = Stage::kHello;
    act(id_of(a));
  }
  void act(const RunningAttempt& id) {
    const auto it = attempts_.find(id);
    if (it == attempts_.end()) return;
    Attempt& a = it->second;
    if (a.hangs_at == a.stage) return;
    // With its request on the way, or before it: then it asks when it goes on, ahead of anything
    // that would stop it.
    if (freezes_by_chance() && s.world.draw(2) == 0) {
      return s.world.after(name_, 1, [this, id] { act(id); });
    }
    const Stage stage = a.stage;
    const std::uint64_t connection = a.context.id;
    const auto then = [this, id, stage, connection](const Result<Json>& r) {
      const auto found = attempts_.find(id);
      if (found == attempts_.end()) return;
      Attempt& now = found->second;
      if (now.stage != stage || now.context.id != connection) return;
      if (r.ok()) return advance(now, *r);
      failed(now, r.error());
    };
    const bool to_plane =
        stage == Stage::kUpload || stage == Stage::kLost || stage == Stage::kClaim;
    auto [method, body] = request(a);
    ask(to_plane ? "plane" : "broker", method, std::move(body), then,
        to_plane ? Json() : a.connection);
  }
  // The whole machine stops, with its agents, and later goes on where it was: by then others may do
  // its work.
  bool freezes_by_chance() {
    if (!s.world.inject(s.scenario.freeze, "freeze " + name_)) return false;
    s.world.freeze(name_, kFreezeMs + static_cast<std::int64_t>(s.world.draw(kFreezeMoreMs)));
    return true;
  }
  std::pair<std::string, Json> request(Attempt& a) {
    const RunningAttempt id = id_of(a);
    const Credential& credential = a.bundle.credential.body;
    switch (a.stage) {
      case Stage::kHello:
        return {std::string(method::kHello), to_json(CredentialRequest{id.job_id, id.attempt})};
      case Stage::kAttest:
        return {std::string(method::kAttest), to_json(attest_request(a))};
      case Stage::kKey1:
      case Stage::kKey2:
        if (!a.pending) {
          a.pending = s.everybody.key_request(a.agent, credential, a.evidence,
                                              a.stage == Stage::kKey1 ? 1 : 2);
        }
        return {std::string(method::kKey), to_json(*a.pending)};
      case Stage::kSeal:
        if (!a.sealed) {
          a.sealed = s.everybody.make_seal(a.agent, a.bundle.submission, a.bundle.plan, id.attempt,
                                           a.evidence, verdict());
        }
        return {std::string(method::kSeal), to_json(a.sealed->seal)};
      case Stage::kUpload:
        return {std::string(method::kNodeOutput),
                to_json(OutputUpload{id.job_id, id.attempt, a.ack, a.sealed->output})};
      case Stage::kLost:
        return {std::string(method::kNodePhase),
                to_json(PhaseReport{
                    id.job_id, id.attempt, EnvironmentPhase::kDestroyed, a.failure, {}})};
      case Stage::kClaim:
        break;
    }
    const std::int64_t time = s.world.clock_of(name_).now().ms / 1000;
    const DestroyedClaim claim{id.job_id, id.attempt, time, {}};
    return {std::string(method::kNodeDestroyed),
            to_json(testing::must(sign(s.everybody.set.id(), claim, key_)))};
  }
  AttestRequest attest_request(Attempt& a) {
    AttestRequest r = s.everybody.attest_request(a.agent, a.bundle.credential, a.nonce, a.context);
    r.evidence.node = testing::must(sign(s.everybody.set.id(), r.evidence.node->body, key_));
    return r;
  }
  GateVerdict verdict() {
    GateVerdict v = testing::clean_verdict();
    const std::uint64_t luck = s.scenario.varied ? s.world.draw(10) : 9;
    if (luck < 3) {
      v.recommendation = Recommendation::kHold;
    } else if (luck == 3) {
      v = testing::rejection(GateCause::kCopies);
    }
    return v;
  }
  void advance(Attempt& a, const Json& reply) {
    switch (a.stage) {
      case Stage::kHello:
        a.nonce = testing::must(from_json<HelloReply>(reply)).nonce;
        a.stage = Stage::kAttest;
        break;
      case Stage::kAttest:
        a.evidence = testing::must(from_json<AttestReply>(reply)).evidence;
        a.stage = a.resume;
        report(a, EnvironmentPhase::kAttested);
        break;
      case Stage::kKey1:
      case Stage::kKey2:
        a.agent.sent.push_back(*a.pending);
        a.pending.reset();
        report(a, a.stage == Stage::kKey1 ? EnvironmentPhase::kLoaded : EnvironmentPhase::kWorking);
        if (a.stage == Stage::kKey2 && !a.failure.empty()) return give_up(a, a.failure);
        a.stage = a.resume = a.stage == Stage::kKey1 ? Stage::kKey2 : Stage::kSeal;
        break;
      case Stage::kSeal:
        a.ack = testing::must(from_json<Signed<SealAck>>(reply));
        a.stage = Stage::kUpload;
        break;
      case Stage::kUpload:
      case Stage::kLost:
        a.stage = Stage::kClaim;
        break;
      case Stage::kClaim:
        attempts_.erase(id_of(a));
        return;
    }
    const RunningAttempt id = id_of(a);
    const bool long_run = s.scenario.varied && a.stage == Stage::kSeal && s.world.draw(4) == 0;
    s.world.after(name_, 5 + static_cast<std::int64_t>(s.world.draw(long_run ? 15'000 : 200)),
                  [this, id] { act(id); });
  }
  void failed(Attempt& a, const Error& e) {
    const bool again = exit_class(e.reason) == ExitClass::kInfrastructure;
    switch (a.stage) {
      case Stage::kHello:
      case Stage::kAttest:
      case Stage::kKey1:
      case Stage::kKey2:
      case Stage::kSeal:
        if (again || e.reason == Reason::kNonceMismatch) return connect(a);
        // The broker was started again and knows this connection no more.
        if (e.reason == Reason::kUnauthenticated && ++reconnects_ < 100) return connect(a);
        return give_up(a, std::string(reason_code(e.reason)));
      case Stage::kUpload:
      case Stage::kLost:
        if (!again) a.stage = Stage::kClaim;
        break;
      case Stage::kClaim:
        if (!again) {
          attempts_.erase(id_of(a));
          return;
        }
        break;
    }
    act(id_of(a));
  }

  const crypto::SigningKey& key_;
  int reconnects_ = 0;
  std::map<RunningAttempt, Attempt> attempts_;
};

// ---- people ----

class ConsumerActor final : public Caller {
 public:
  explicit ConsumerActor(Shared& shared) : Caller(shared, "consumer") {
    for (const auto& job : s.submissions) {
      const auto wait = static_cast<std::int64_t>(s.world.draw(3'000));
      s.world.after(name_, wait, [this, &job] { submit(job); });
      if (s.scenario.varied && s.world.draw(6) == 0) {
        s.world.after(name_, wait + static_cast<std::int64_t>(s.world.draw(8'000)),
                      [this, &job] { cancel(job); });
      }
    }
  }

 private:
  void submit(const SignedSubmission& job) {
    const Hash32 id = job.submission.body.job_id();
    ask("plane", "submit", to_json(job), [this, &job, id](const Result<Json>& r) {
      if (r.ok()) {
        s.accepted.insert(id);
      } else if (exit_class(r.reason()) == ExitClass::kInfrastructure) {
        s.world.after(name_, kRetryMs, [this, &job] { submit(job); });
      } else {
        s.refused.insert(id);
        // by a clock that is days ahead
        const bool late = r.reason() == Reason::kExpired && s.scenario.faults.jump != 0;
        if (!late) s.violated("submission refused: " + r.error().line());
      }
    });
  }
  void cancel(const SignedSubmission& job) {
    const Hash32 id = job.submission.body.job_id();
    const Cancel wish{id, s.everybody.consumer.id(), s.now_ms() / 1000};
    const CancelRequest request{
        s.everybody.consumer.chain,
        testing::must(sign(s.everybody.set.id(), wish, s.everybody.consumer.key))};
    ask("plane", "cancel", to_json(request), [this, &job](const Result<Json>& r) {
      if (r.ok()) return;
      if (exit_class(r.reason()) == ExitClass::kInfrastructure || r.reason() == Reason::kNotFound) {
        s.world.after(name_, kRetryMs, [this, &job] { cancel(job); });
      }
    });
  }
};

class ReviewerActor final : public Caller {
 public:
  explicit ReviewerActor(Shared& shared) : Caller(shared, "reviewer") {
    every(2'000, [this] {
      ask("plane", "reviews", Json(JsonObject{}), [this](const Result<Json>& r) {
        if (!r.ok()) return;
        for (const auto& held : testing::must(from_json<plane::api::ReviewList>(*r)).items) {
          rule(held);
        }
      });
    });
  }

 private:
  void rule(const plane::api::ReviewView& held) {
    auto& choice = choices_[held.job_id];
    if (choice == 0) choice = 1 + s.world.draw(2);
    Ruling r;
    r.hold_notice = held.hold_notice.hash();
    r.manifest = held.hold_notice.body.manifest;
    r.ciphertext = held.hold_notice.body.ciphertext;
    r.decision = choice == 1 ? RulingDecision::kApprove : RulingDecision::kReject;
    if (choice != 1 && held.job_id[0] % 2 == 0) r.reasons = {"small-cells"};  // some say why
    // The clock of the broker may be ahead.
    r.time = std::max(s.now_ms() / 1000, policy::held_at(held.hold_notice.body));
    for (const Hash32& policy : held.hold_notice.body.policy_hashes) {
      r.owner_policy_hash = policy;
      const RulingRequest request{
          s.everybody.reviewer.chain,
          testing::must(sign(s.everybody.set.id(), r, s.everybody.reviewer.key))};
      Json body;
      body["job"] = to_hex(held.job_id);
      body["ruling"] = to_json(request);
      ask("plane", "rule", std::move(body), [](const Result<Json>&) {});
    }
  }
  std::map<Hash32, std::uint64_t> choices_;
};

// One of several nodes may burn down at any time of the rough part, and is never seen again.
class FateActor final : public Caller {
 public:
  explicit FateActor(Shared& shared) : Caller(shared, "fate") {
    if (s.scenario.nodes < 2) return;
    const std::string victim = "node" + std::to_string(s.world.draw(s.scenario.nodes));
    s.world.after(name_, static_cast<std::int64_t>(s.world.draw(20'000)), [this, victim] {
      if (s.world.inject(s.scenario.death, "death of " + victim)) s.world.kill(victim);
    });
  }
};

// ---- set-up and invariants ----

void prepare(Shared& s) {
  // Both nodes' keys go into the policies.
  for (std::size_t n = 0; n < s.scenario.nodes; ++n) {
    s.node_keys.push_back(testing::must(
        crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, s.random())));
    s.node_of_key[s.node_keys.back().public_key().text()] = "node" + std::to_string(n);
  }
  // Data and image are two owners', who let them meet.
  testing::Asset& data = s.everybody.data;
  testing::Asset& image = s.everybody.image;
  image = testing::make_asset(testing::make_person(s.random()), AssetKind::kImage,
                              image.policy.clauses, s.random());
  image.policy.clauses.join_owners = {data.owner.id()};
  data.policy.clauses.join_owners = {image.owner.id()};
  for (testing::Asset* a : {&data, &image}) {
    a->policy.clauses.tee.clear();
    for (const auto& key : s.node_keys) {
      PlatformRule rule;
      rule.root = "none:" + to_hex(key.public_key().fingerprint());
      a->policy.clauses.tee.push_back(rule);
    }
    a->policy.clauses.gate.total_free_bits = 1'000'000;
    a->policy.clauses.gate.period_free_bits = 1'000'000;
  }
  for (std::size_t i = 0; i < s.scenario.jobs; ++i) {
    SignedSubmission job = s.everybody.submission();
    job.submission.body.spec.spec.timeouts = {300, 60, kRunSeconds};
    testing::resign(job, s.everybody.set.id(), s.everybody.consumer);
    s.submissions.push_back(std::move(job));
  }
}

void populate(Shared& s) {
  World& w = s.world;
  w.add(
      "broker", [&s] { return std::make_unique<BrokerActor>(s); }, true);
  w.add(
      "plane", [&s] { return std::make_unique<PlaneActor>(s); }, true);
  testing::must(s.everybody.resume());
  plane::Core& core = *static_cast<PlaneActor*>(w.actor("plane"))->core;
  const auto enrol = [&core](const testing::Person& who, const char* name, plane::Role role) {
    testing::must(testing::enrol(core, who.chain, who.key.public_key(), name, role));
  };
  enrol(s.everybody.data.owner, "owner", plane::Role::kOwner);
  enrol(s.everybody.image.owner, "maker", plane::Role::kOwner);
  enrol(s.everybody.consumer, "consumer", plane::Role::kConsumer);
  enrol(s.everybody.reviewer, "reviewer", plane::Role::kReviewer);
  for (std::size_t n = 0; n < s.node_keys.size(); ++n) {
    testing::must(core.enrol_node("node" + std::to_string(n), s.node_keys[n].public_key().text()));
  }
  for (const testing::Asset* a : {&s.everybody.data, &s.everybody.image}) {
    const Publish p = testing::make_publish(s.everybody.set, *a, s.random());
    testing::must(core.check_publish({a->owner.id(), {plane::Role::kOwner}}, p));
    const auto ack = testing::must(s.everybody.call<Signed<PublishAck>>(method::kPublish, p));
    testing::must(core.accept_publish(p, ack));
  }
  for (std::size_t n = 0; n < s.node_keys.size(); ++n) {
    w.add(
        "node" + std::to_string(n), [&s, n] { return std::make_unique<NodeActor>(s, n); }, true);
  }
  w.add(
      "reviewer", [&s] { return std::make_unique<ReviewerActor>(s); }, false);
  w.add(
      "consumer", [&s] { return std::make_unique<ConsumerActor>(s); }, false);
  w.add(
      "fate", [&s] { return std::make_unique<FateActor>(s); }, false);
}

std::vector<machines::Machine> all_machines(Shared& s, const std::string& kind) {
  machines::MachineQuery q;
  q.kind = kind;
  q.limit = 10'000;
  return testing::must(s.plane_store.machines(q));
}

// Who is frozen goes on later, with an agent that nobody waits for any more: what it then gets
// belongs to the run. And no node may keep an attempt that is over.
bool nodes_rest(Shared& s) {
  for (std::size_t n = 0; n < s.node_keys.size(); ++n) {
    const std::string name = "node" + std::to_string(n);
    const bool silent = s.world.silent_since_ms(name).has_value();
    if (!s.world.up(name) && silent) continue;  // dead for good
    if (!s.world.up(name) || silent || !static_cast<NodeActor*>(s.world.actor(name))->idle()) {
      return false;
    }
  }
  return true;
}

bool settled(Shared& s) {
  if (!s.violation.empty()) return true;
  if (s.accepted.size() + s.refused.size() < s.submissions.size() || !nodes_rest(s)) return false;
  for (const char* kind : {"job", "env", "out"}) {
    for (const auto& m : all_machines(s, kind)) {
      if (m.live) return false;
    }
  }
  return testing::must(s.plane_store.due(INT64_MAX, 1)).empty();
}

std::string check_history(Shared& s, const machines::Machine& m) {
  const auto rows = testing::must(s.plane_store.history(m.id, 0, 10'000));
  const Status chain = machines::verify_history(rows);
  if (!chain.ok()) return chain.error().line();
  if (rows.back().to != m.state || rows.back().seq != m.seq) {
    return m.id + " differs from its history";
  }
  std::size_t ends = 0;
  for (const auto& r : rows) {
    const auto job = enum_from<machines::JobState>(r.to);
    if (m.kind == "job" && job.ok() && machines::terminal(*job)) ++ends;
  }
  if (m.kind == "job" && ends != 1) {
    return m.id + " has " + std::to_string(ends) + " terminal phases";
  }
  return {};
}

// Where nothing goes wrong but one planned mishap, every job completes. One excuse: the only node
// that had the sealed output is gone with it.
std::string check_quiet(const Shared& s, const machines::Machine& job, bool output_lost) {
  const Scenario& q = s.scenario;
  if (q.varied || q.faults.crash != 0 || job.state == "Completed") return {};
  const bool excused =
      output_lost && q.planned_actor.rfind("node", 0) == 0 && q.mishap != Mishap::kFreeze;
  const auto body = testing::must(from_json<plane::JobBody>(job.body));
  if (excused && job.state == "Expired" && body.outcome.reason == reason_code(Reason::kLost)) {
    return {};
  }
  return "a job of the quiet world ended as " + job.state + ": " + body.outcome.reason + " " +
         body.outcome.what;
}

// After everything settled.
std::string check_end(Shared& s, Outcome& out) {
  const auto jobs = all_machines(s, "job");
  // One that was refused by a clock days ahead may have been on its way a second time, and taken
  // once the clock was right again.
  const auto refused = std::count_if(s.refused.begin(), s.refused.end(), [&](const Hash32& id) {
    return std::none_of(jobs.begin(), jobs.end(),
                        [&](const auto& job) { return job.id == plane::job_machine(id); });
  });
  if (jobs.size() + static_cast<std::size_t>(refused) != s.submissions.size()) {
    return "jobs lost or doubled: " + std::to_string(jobs.size());
  }
  for (const char* kind : {"job", "env", "out"}) {
    for (const auto& m : all_machines(s, kind)) {
      const std::string bad = check_history(s, m);
      if (!bad.empty()) return bad;
    }
  }
  for (const auto& m : jobs) {
    out.states[m.state] += 1;
    if (m.state != "Completed") {
      out.reasons[m.state + ": " +
                  testing::must(from_json<plane::JobBody>(m.body)).outcome.reason] += 1;
    }
    const auto id = testing::must(fixed_from_hex<32>(m.id.substr(4)));
    const broker::JobState* known = s.everybody.core->state().job(id);
    const auto output = testing::must(s.plane_store.machine(plane::output_machine(id)));
    if (m.state == "Completed") {
      if (known == nullptr || !known->decision ||
          known->decision->entry.decision != ReleaseDecision::kRelease) {
        return "completed without a release of the broker";
      }
      const auto body = testing::must(from_json<plane::OutputBody>(output->body));
      if (body.manifest != hash_of(known->seal->manifest())) {
        return "another output was delivered than was sealed";
      }
      if (!testing::must(s.plane_store.record("receipt", to_hex(id)))) {
        return "completed without a receipt";
      }
    }
    if (out.reasons.count("Failed: job-cancelled") != 0) {
      return "a job failed as cancelled that nobody cancelled";
    }
    if (m.state == "Rejected" && (known == nullptr || !known->decision)) {
      return "rejected without a decision of the broker";
    }
    const std::string bad = check_quiet(s, m, known != nullptr && known->seal && !output);
    if (!bad.empty()) return bad;
  }
  return audit_ledger(s.broker_log, s.everybody.core->state(), out.charges);
}

}  // namespace

namespace {

void plan_mishap(Shared& s) {
  const Scenario& q = s.scenario;
  if (q.planned_event != 0) {
    switch (q.mishap) {
      case Mishap::kCrash:
        s.world.crash_at_event(q.planned_actor, q.planned_event);
        break;
      case Mishap::kFreeze:
        s.world.at_event(q.planned_actor, q.planned_event,
                         [&s, &q] { s.world.freeze(q.planned_actor, kFreezeMs + kFreezeMoreMs); });
        break;
      case Mishap::kDeath:
        s.world.at_event(q.planned_actor, q.planned_event,
                         [&s, &q] { s.world.kill(q.planned_actor); });
        break;
      case Mishap::kClockForward:
      case Mishap::kClockBack:
        s.world.at_event(q.planned_actor, q.planned_event, [&s, &q] {
          s.world.set_clock(q.planned_actor,
                            q.mishap == Mishap::kClockForward ? kJumpMs : -kJumpMs);
        });
        break;
      case Mishap::kDiskFull:
        s.world.at_event(q.planned_actor, q.planned_event,
                         [&s, &q] { s.world.fill_disk(q.planned_actor, kFullMs); });
        break;
      case Mishap::kDiskSlow:
        s.world.at_event(q.planned_actor, q.planned_event,
                         [&s, &q] { s.world.stall(q.planned_actor, kFullMs); });
        break;
    }
  }
  if (q.planned_point != 0) s.world.crash_at_point(q.planned_actor, q.planned_point);
}

std::string stuck(Shared& s) {
  std::string out = "stuck";
  for (const char* kind : {"job", "env", "out"}) {
    for (const auto& m : all_machines(s, kind)) {
      if (m.live) out += "; " + m.id.substr(0, 12) + " " + m.state;
    }
  }
  return out;
}

// The broker is started again, so that what is judged is what its disk holds; the careless one is
// left to the crashes of its seed.
std::string judge(Shared& s, bool done, Outcome& out) {
  const bool careless = s.scenario.careless_broker;
  if (s.violation.empty() && !careless) s.world.restart("broker");
  if (!s.violation.empty()) return s.violation;
  const std::string bad = audit_log(s.broker_log);
  if (!bad.empty()) return bad;
  return done ? check_end(s, out) : stuck(s);
}

}  // namespace

Outcome run(const Scenario& scenario) {
  Shared s(scenario);
  prepare(s);
  populate(s);
  s.world.arm();
  plan_mishap(s);
  Outcome out;
  std::int64_t next_look = 0;
  const bool done = s.world.run(kSimulatedMs, [&s, &next_look] {
    if (!s.violation.empty()) return true;
    if (s.now_ms() < next_look) return false;
    next_look = s.now_ms() + kSettleMs;
    return settled(s);
  });
  out.failure = judge(s, done, out);
  out.report = s.world.report(std::getenv("GBX_SIM_TRACE") ? 1000000 : 400);
  out.injected = s.world.injected();
  out.turned_away = s.turned_away;
  for (const auto& env : all_machines(s, "env")) {
    out.ran_on.insert(s.node_of_key.at(env.node));
    const auto body = testing::must(from_json<plane::EnvironmentBody>(env.body));
    out.attempts[body.reason.empty() ? "well" : body.reason + ", " + body.detail] += 1;
  }
  for (const char* actor : {"plane", "broker", "node0", "node1"}) {
    out.events[actor] = s.world.events_of(actor);
    out.points[actor] = s.world.crash_points_of(actor);
  }
  return out;
}

}  // namespace gbx::simulation
