// The broker dies at every append, before and after it became durable, and everybody sends again
// what was not answered. And: random operations from a seed, with the state folded again after each
// crash.
#include <gtest/gtest.h>

#include <set>

#include "broker/testing.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::BrokerWorld;
using gbx::testing::clean_verdict;
using gbx::testing::FakeAgent;
using gbx::testing::kJobBits;
using gbx::testing::kNow;
using gbx::testing::make_agent;
using gbx::testing::must;
using gbx::testing::next_policy;

// Fails the n-th append from now, having stored it or not.
class CrashingStore final : public LogStore {
 public:
  void crash_at(std::int64_t appends, bool after) {
    left_ = appends;
    after_ = after;
  }
  bool crashed() const { return crashed_; }
  void revive() {
    crashed_ = false;
    left_ = -1;
  }
  Status append(std::uint64_t first, const std::vector<StoredEntry>& entries,
                const std::vector<translog::Node>& nodes) override {
    if (crashed_) return fail(Reason::kIo, "crashed");
    if (left_ > 0 && --left_ == 0) {
      crashed_ = true;
      if (after_) GBX_TRY(memory_.append(first, entries, nodes));
      return fail(Reason::kIo, "crashed");
    }
    return memory_.append(first, entries, nodes);
  }
  Result<std::uint64_t> size() const override { return memory_.size(); }
  Result<StoredEntry> entry(std::uint64_t index) const override { return memory_.entry(index); }
  Result<Hash32> node(translog::NodeId id) const override { return memory_.node(id); }

 private:
  MemoryStore memory_;
  std::int64_t left_ = -1;
  bool after_ = false;
  bool crashed_ = false;
};

// Was it stored? Reads each entry once: the log only grows.
class LogText {
 public:
  explicit LogText(const LogStore& store) : store_(store) {}
  bool holds(const Bytes& sealed) {
    for (; read_ < must(store_.size()); ++read_) text_ += must(store_.entry(read_)).entry + "\n";
    return text_.find(to_base64url(sealed)) != std::string::npos;
  }

 private:
  const LogStore& store_;
  std::uint64_t read_ = 0;
  std::string text_;
};
// One folded state for one log, whoever folds it. The number of boots is not compared.
void expect_same_fold(const BrokerWorld& w, LogStore& store) {
  SeededRandom random(1);
  auto folded = must(Log::open(store, random));
  EXPECT_EQ(canonical(folded->state().snapshot()), canonical(w.core->state().snapshot()));
  EXPECT_EQ(folded->root(), must(translog::root_at(store, folded->size())));
}

// The parts of a job that its participants keep over a crash of the broker.
struct Participants {
  explicit Participants(BrokerWorld& w) : agent(make_agent(w.random)), submission(w.submission()) {
    publications = {make_publish(w.set, w.data, w.random), make_publish(w.set, w.image, w.random)};
  }
  std::vector<Publish> publications;
  FakeAgent agent;
  SignedSubmission submission;
  std::optional<BrokerWorld::Sealed> sealed;
  std::optional<Signed<KeyRequest>> request;
  // What left the broker, by what it answers.
  std::map<std::string, std::string> replies;
};

// Sends everything from the start; what was answered before must be answered by the same bytes.
// False after a crash.
bool whole_job(BrokerWorld& w, LogText log, Participants& p, std::int64_t* final_state) {
  const auto got = [&](const std::string& what, auto result) {
    if (!result.ok()) return false;
    const std::string bytes = canonical(to_json(*result));
    const auto [it, fresh] = p.replies.emplace(what, bytes);
    EXPECT_EQ(it->second, bytes) << what;
    return true;
  };
  for (std::size_t i = 0; i < p.publications.size(); ++i) {
    if (!got("publish" + std::to_string(i),
             w.call<Signed<PublishAck>>(method::kPublish, p.publications[i]))) {
      return false;
    }
  }
  auto plan = w.authorise(p.submission);
  if (!got("plan", plan)) return false;
  auto credential = w.credential(plan->body.job_id, 1);
  if (!got("credential", credential)) return false;
  const auto connection = w.connect(p.agent);
  auto evidence = w.attest(p.agent, *credential, connection);
  if (!evidence.ok()) return false;
  for (std::int64_t stage = 1; stage <= 2; ++stage) {
    const auto sent = static_cast<std::int64_t>(p.agent.sent.size());
    const auto request = sent >= stage ? p.agent.sent[static_cast<std::size_t>(stage) - 1]
                                       : w.key_request(p.agent, credential->body, *evidence, stage);
    if (sent < stage) p.agent.sent.push_back(request);
    auto reply = w.call<KeyReply>(method::kKey, request, connection);
    if (!got("key" + std::to_string(stage), reply)) return false;
    EXPECT_TRUE(log.holds(reply->sealed)) << "a key left that the log does not hold";
  }
  if (!p.sealed) {
    p.sealed = w.make_seal(p.agent, p.submission, *plan, 1, *evidence, clean_verdict());
  }
  if (!got("seal", w.seal(p.sealed->seal, connection))) return false;
  auto j = w.judge(plan->body.job_id);
  if (!got("judge", j)) return false;
  for (const auto& k : j->release->outer_keys) {
    EXPECT_TRUE(log.holds(k)) << "an outer key left that the log does not hold";
  }
  *final_state =
      w.core->state().spent(plan->body.charges[0], w.consumer.id(), 0, Hash32{}).total_free_bits;
  return true;
}

TEST(BrokerCrash, AtEveryAppendBeforeAndAfter) {
  std::int64_t crashes = 0;
  for (const bool after : {false, true}) {
    for (std::int64_t n = 1;; ++n) {
      CrashingStore store;
      BrokerWorld w(60, &store);
      must(w.start());
      Participants p(w);
      std::int64_t spent = 0;
      store.crash_at(n, after);
      bool done = whole_job(w, LogText(store), p, &spent);
      const bool crashed = store.crashed();
      if (crashed) {
        ++crashes;
        EXPECT_FALSE(done);
        // Nothing is answered by a broker that does not know what is durable.
        EXPECT_EQ(w.publish(w.data).reason(), Reason::kUnavailable);
        EXPECT_EQ(w.call<InfoReply>(method::kInfo, InfoRequest{}).reason(), Reason::kUnavailable);
        store.revive();
        must(w.start());
        done = whole_job(w, LogText(store), p, &spent);
      }
      ASSERT_TRUE(done) << "append " << n << (after ? " after" : " before");
      EXPECT_EQ(spent, kJobBits);  // charged once
      expect_same_fold(w, store);
      if (!crashed) break;
    }
  }
  // two publications, plan, credential, evidence, two keys, seal, decision
  EXPECT_EQ(crashes, 2 * 9);
}

// A job of two attempts that both had the data, whose output is held, ruled on, and given up by its
// consumer before its slot: step by step, and what was not answered is sent again.
class HeldAndCancelled {
 public:
  explicit HeldAndCancelled(BrokerWorld& w) : w_(w), submission_(w.submission()) {
    publications_ = {make_publish(w.set, w.data, w.random), make_publish(w.set, w.image, w.random)};
  }
  // Until the end, or until the broker does not answer.
  bool go_on() {
    while (at_ < std::size(kSteps)) {
      const Status s = (this->*kSteps[at_])();
      if (!s.ok()) return said_ = s.error().line(), false;
      ++at_;
    }
    return true;
  }
  void broker_started() { connection_.reset(); }
  std::size_t at() const { return at_; }
  bool cancelling() const { return at_ + 1 == std::size(kSteps); }
  const std::string& said() const { return said_; }
  const RunPlan& plan() const { return plan_->body; }

 private:
  using Step = Status (HeldAndCancelled::*)();
  Status publish_data() {
    return status(w_.call<Signed<PublishAck>>(method::kPublish, publications_[0]));
  }
  Status publish_image() {
    return status(w_.call<Signed<PublishAck>>(method::kPublish, publications_[1]));
  }
  Status authorise() {
    GBX_ASSIGN(plan_, w_.authorise(submission_));
    return ok_status();
  }
  Status attempt() {
    GBX_ASSIGN(auto credential, w_.credential(plan().job_id, attempt_ + 1));
    ++attempt_;
    credential_ = credential;
    agent_ = make_agent(w_.random);
    connection_.reset();
    return ok_status();
  }
  Status attest() {
    const auto c = w_.connect(*agent_);
    GBX_ASSIGN(evidence_, w_.attest(*agent_, *credential_, c));
    connection_ = c;
    return ok_status();
  }
  Status connected() { return connection_ ? ok_status() : attest(); }
  Status key() {
    GBX_TRY(connected());
    const auto stage = static_cast<std::int64_t>(agent_->sent.size()) + 1;
    if (!request_) request_ = w_.key_request(*agent_, credential_->body, evidence_, stage);
    GBX_TRY(status(w_.call<KeyReply>(method::kKey, *request_, *connection_)));
    agent_->sent.push_back(*request_);
    request_.reset();
    return ok_status();
  }
  Status seal() {
    GBX_TRY(connected());
    GateVerdict v = clean_verdict();
    v.recommendation = Recommendation::kHold;
    if (!sealed_) sealed_ = w_.make_seal(*agent_, submission_, *plan_, attempt_, evidence_, v);
    GBX_TRY(status(w_.seal(sealed_->seal, *connection_)));
    w_.clock.advance(60'000);
    return ok_status();
  }
  Status judge() {
    GBX_ASSIGN(Judgement j, w_.judge(plan().job_id));
    EXPECT_EQ(j.state, JudgementState::kHeld);
    notice_ = j.hold_notice->body;
    return ok_status();
  }
  Status rule() {
    return status(w_.rule(w_.reviewer, *notice_, plan().policies[0].policy_hash,
                          RulingDecision::kReject, 0, {"small-cells", "identifiers"}));
  }
  Status cancel() {
    const auto c =
        must(sign(w_.set.id(), Cancel{plan().job_id, w_.consumer.id(), kNow}, w_.consumer.key));
    GBX_TRY(status(w_.call<Empty>(method::kCancel, CancelRequest{w_.consumer.chain, c})));
    EXPECT_TRUE(w_.core->state().job(plan().job_id)->decision) << "cancelled, and never decided";
    return ok_status();
  }
  template <class T>
  static Status status(const Result<T>& r) {
    return r.ok() ? ok_status() : Status(r.error());
  }
  using H = HeldAndCancelled;
  static constexpr Step kSteps[] = {&H::publish_data, &H::publish_image, &H::authorise, &H::attempt,
                                    &H::attest,       &H::key,           &H::key,       &H::attempt,
                                    &H::attest,       &H::key,           &H::key,       &H::seal,
                                    &H::judge,        &H::rule,          &H::cancel};

  BrokerWorld& w_;
  SignedSubmission submission_;
  std::vector<Publish> publications_;
  std::size_t at_ = 0;
  std::string said_;
  std::optional<Signed<RunPlan>> plan_;
  std::int64_t attempt_ = 0;
  std::optional<FakeAgent> agent_;
  std::optional<Signed<Credential>> credential_;
  std::optional<ConnectionContext> connection_;
  Hash32 evidence_{};
  std::optional<Signed<KeyRequest>> request_;
  std::optional<BrokerWorld::Sealed> sealed_;
  std::optional<HoldNotice> notice_;
};

TEST(BrokerCrash, AtEveryAppendOfAJobThatIsHeldRuledOnAndCancelled) {
  std::int64_t crashes = 0;
  for (const bool after : {false, true}) {
    for (std::int64_t n = 1;; ++n) {
      SCOPED_TRACE("append " + std::to_string(n) + (after ? " after" : " before"));
      CrashingStore store;
      BrokerWorld w(61, &store);
      for (auto* a : {&w.data, &w.image}) a->policy.clauses.gate.release_slot_seconds = 60;
      must(w.start());
      HeldAndCancelled job(w);
      const auto spent = [&] {
        return w.core->state().spent(job.plan().charges[0], w.consumer.id(), 0, Hash32{});
      };
      const auto told = [&] {
        return policy::rejection_bits(job.plan(), 2) + 2 * policy::kReviewReasonBits;
      };
      store.crash_at(n, after);
      bool done = job.go_on();
      const bool crashed = store.crashed();
      if (crashed) {
        ++crashes;
        EXPECT_FALSE(done);
        store.revive();
        must(w.start());
        job.broker_started();
        if (job.cancelling()) {
          const JobState* state = w.core->state().job(job.plan().job_id);
          if (state->cancelled) {
            EXPECT_EQ(spent().total_free_bits, told()) << "before it is decided";
          }
        }
        done = job.go_on();
      }
      ASSERT_TRUE(done) << "step " << job.at() << ": " << job.said();
      EXPECT_EQ(spent().total_free_bits, told());
      expect_same_fold(w, store);
      if (!crashed) break;
    }
  }
  // two publications, plan; credential, evidence and two keys, twice; seal, hold, ruling, and the
  // two of the cancellation
  EXPECT_EQ(crashes, 2 * (3 + 8 + 5));
}

// ---- random operations ----
class Chaos {
 public:
  explicit Chaos(std::uint64_t seed) : world_(seed, &store_), dice_(seed * 7919 + 1) {
    if (seed % 2 == 0) world_.awake = {};
    for (auto* a : {&world_.data, &world_.image}) {
      a->policy.clauses.gate.release_slot_seconds = dice_.below(2) == 0 ? 0 : 60;
    }
    must(world_.start());
  }
  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      if (dice_.below(12) == 0) {
        store_.crash_at(1 + static_cast<std::int64_t>(dice_.below(2)), dice_.below(2) == 0);
      }
      step();
      if (store_.crashed() || dice_.below(40) == 0) restart();
      world_.clock.advance(static_cast<std::int64_t>(dice_.below(3000)));
    }
    if (store_.crashed()) restart();
    check();
  }

 private:
  struct Job {
    SignedSubmission submission;
    Hash32 id{};
    std::int64_t attempt = 0;
    FakeAgent agent;
    std::optional<Signed<Credential>> credential;
    std::optional<ConnectionContext> connection;
    Hash32 evidence{};
    std::optional<BrokerWorld::Sealed> sealed;
  };
  void restart() {
    store_.revive();
    must(world_.start());
    for (auto& j : jobs_) j.connection.reset();
    expect_same_fold(world_, store_);
  }
  void step() {
    const auto what = dice_.below(16);
    if (jobs_.empty() || (what == 0 && jobs_.size() < 2)) return submit();
    Job& j = jobs_[dice_.below(jobs_.size())];
    if (what == 1) return publish();
    if (what <= 3) return credential(j);
    if (what <= 5) return attest(j);
    if (what <= 9) return key(j);
    if (what == 10 || what >= 14) return seal(j);
    if (what == 11) return rule(j);
    if (what == 12 && dice_.below(25) == 0) return cancel(j);
    (void)world_.judge(j.id).ok();
  }
  void publish() {
    auto& asset = dice_.below(2) == 0 ? world_.data : world_.image;
    const auto before = asset.policy;
    const bool fresh = world_.core->state().current_policy(asset.version_id()) == nullptr;
    if (!fresh && dice_.below(30) == 0) {
      next_policy(asset);
      asset.policy.revoked = dice_.below(3) == 0;
    }
    if (!world_.publish(asset).ok()) {
      // Unknown whether it is in the log: what is there after the restart counts.
      restart();
      const PolicyState* current = world_.core->state().current_policy(asset.version_id());
      asset.policy = current == nullptr ? before : current->publish.policy.body;
    }
  }
  void submit() {
    if (!world_.publish(world_.data).ok() || !world_.publish(world_.image).ok()) return;
    SignedSubmission s = world_.submission();
    const Hash32 id = s.submission.body.job_id();
    jobs_.push_back({s, id, 0, make_agent(world_.random), {}, {}, {}, {}});
    (void)world_.authorise(s).ok();
  }
  void credential(Job& j) {
    if (world_.core->state().job(j.id) == nullptr || dice_.below(3) == 0) {
      (void)world_.authorise(j.submission).ok();
    }
    const bool next = j.attempt == 0 || dice_.below(12) == 0;
    auto c = world_.credential(j.id, next ? j.attempt + 1 : j.attempt);
    // A credential that was given before a crash and never arrived has superseded the one at hand.
    const bool lost = !c.ok() && c.reason() == Reason::kCredentialSuperseded;
    if (lost || (c.ok() && next)) {
      ++j.attempt;
      j.agent = make_agent(world_.random);
      j.connection.reset();
      j.credential.reset();
    }
    if (c.ok()) j.credential = *c;
  }
  void attest(Job& j) {
    if (!j.credential || (j.connection && dice_.below(5) != 0)) return;
    const auto c = world_.connect(j.agent);
    auto e = world_.attest(j.agent, *j.credential, c);
    if (!e.ok()) return;
    j.connection = c;
    j.evidence = *e;
  }
  void key(Job& j) {
    if (!j.connection) return;
    const bool replay = !j.agent.sent.empty() && (j.agent.sent.size() == 2 || dice_.below(3) == 0);
    const auto request =
        replay ? j.agent.sent[dice_.below(j.agent.sent.size())]
               : world_.key_request(j.agent, j.credential->body, j.evidence,
                                    static_cast<std::int64_t>(j.agent.sent.size()) + 1);
    auto reply = world_.call<KeyReply>(method::kKey, request, *j.connection);
    if (!reply.ok()) return;
    EXPECT_TRUE(log_.holds(reply->sealed));
    const std::string name = to_hex(request.hash());
    const auto [it, fresh] = key_replies_.emplace(name, to_base64url(reply->sealed));
    EXPECT_EQ(it->second, to_base64url(reply->sealed));
    if (!replay) j.agent.sent.push_back(request);
  }
  void seal(Job& j) {
    if (!j.connection || j.agent.sent.size() < 2) return;
    const JobState* state = world_.core->state().job(j.id);
    if (state == nullptr) return;
    GateVerdict v = clean_verdict();
    if (dice_.below(2) == 0) v.recommendation = Recommendation::kHold;
    if (!j.sealed || dice_.below(4) == 0) {
      j.sealed = world_.make_seal(j.agent, j.submission, state->plan, j.attempt, j.evidence, v);
    }
    (void)world_.seal(j.sealed->seal, *j.connection).ok();
  }
  void rule(Job& j) {
    auto held = world_.judge(j.id);
    if (!held.ok() || !held->hold_notice) return;
    const JobState* state = world_.core->state().job(j.id);
    const auto& policies = state->plan.body.policies;
    const bool rejects = dice_.below(3) == 0;
    const auto decision = rejects ? RulingDecision::kReject : RulingDecision::kApprove;
    std::vector<std::string> reasons;
    if (rejects && dice_.below(2) == 0) reasons = {"small-cells"};
    (void)world_
        .rule(world_.reviewer, held->hold_notice->body,
              policies[dice_.below(policies.size())].policy_hash, decision, 0, std::move(reasons))
        .ok();
  }
  void cancel(Job& j) {
    auto c =
        must(sign(world_.set.id(), Cancel{j.id, world_.consumer.id(), kNow}, world_.consumer.key));
    (void)world_.call<Empty>(method::kCancel, CancelRequest{world_.consumer.chain, c}).ok();
  }

  // One decision, one seal, one charge for each job; outer keys exactly where the decision is a
  // release; and the ledger is the sum of what the log committed.
  void check() {
    expect_same_fold(world_, store_);
    std::map<std::string, std::map<std::string, int>> count;
    const auto size = must(store_.size());
    for (std::uint64_t i = 0; i < size; ++i) {
      const auto e = must(from_json_text<LogEntry>(must(store_.entry(i)).entry));
      const Json* id = e.body.find("jobId");
      if (id != nullptr) ++count[e.kind][*id->string()];
      if (e.kind == "seal") {
        ++count[e.kind][*e.body.find("seal")
                             ->find("statement")
                             ->find("body")
                             ->find("manifest")
                             ->find("context")
                             ->find("jobId")
                             ->string()];
      }
    }
    std::int64_t committed = 0;
    std::int64_t reserved = 0;
    for (const auto& [id, job] : world_.core->state().jobs()) {
      for (const char* once : {"seal", "release", "deliver", "hold"}) {
        EXPECT_LE(count[once][id], 1) << once;
      }
      EXPECT_EQ(count["deliver"][id] == 1,
                job.decision && job.decision->entry.decision == ReleaseDecision::kRelease);
      if (job.decision) {
        committed += job.decision->entry.charges[0].free_bits;
        ++decided_;
      } else if (!job.reserved.empty()) {
        std::vector<Ruling> rulings;
        for (const auto& r : world_.core->state().standing_rulings(job)) {
          rulings.push_back(r.ruling.body);
        }
        const std::int64_t rejected =
            policy::rejection_bits(job.plan.body, job.attempts_with_data()) +
            policy::ruling_bits(rulings);
        reserved += job.cancelled ? rejected : job.reserved[0].free_bits;
      }
    }
    const PlanCharge data{world_.owner.id(), world_.data.record.asset_id, 0, 0};
    EXPECT_EQ(world_.core->state().spent(data, world_.consumer.id(), 0, Hash32{}).total_free_bits,
              committed + reserved);
  }

 public:
  std::int64_t decided() const { return decided_; }

 private:
  CrashingStore store_;
  LogText log_{store_};
  BrokerWorld world_;
  SeededRandom dice_;
  std::vector<Job> jobs_;
  std::map<std::string, std::string> key_replies_;
  std::int64_t decided_ = 0;
};

TEST(BrokerCrash, RandomOperationsFromSeeds) {
  const char* more = std::getenv("GBX_SIM_SEEDS");
  const std::uint64_t seeds = more != nullptr ? std::strtoull(more, nullptr, 10) : 100;
  std::int64_t decided = 0;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    if (more != nullptr && seed % 50 == 0) {
      std::printf("seed %llu of %llu\n", static_cast<unsigned long long>(seed),
                  static_cast<unsigned long long>(seeds));
      std::fflush(stdout);
    }
    Chaos chaos(seed);
    chaos.run(180);
    decided += chaos.decided();
    if (::testing::Test::HasFailure()) {
      std::printf("first failing seed: %llu\n", static_cast<unsigned long long>(seed));
      return;
    }
  }
  // The walk gets somewhere: otherwise it proves nothing.
  EXPECT_GT(decided, static_cast<std::int64_t>(seeds) / 2);
}

}  // namespace
}  // namespace gbx::broker
