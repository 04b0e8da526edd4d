// What the log takes can be read again; what it refuses leaves no trace.
#include "broker/log.h"

#include <gtest/gtest.h>

#include "broker/testing.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::BrokerWorld;
using gbx::testing::clean_verdict;
using gbx::testing::kNow;
using gbx::testing::make_clauses;
using gbx::testing::make_person;
using gbx::testing::make_publish;
using gbx::testing::must;
using gbx::testing::Person;

// A log with a boot and one job that has been authorised.
struct Fixture {
  Fixture() : world(100, &store) {
    world.start_and_publish();
    submission = world.submission();
    plan = must(world.authorise(submission));
    log = must(Log::open(store, random));
  }
  std::string state() const { return canonical(log->state().snapshot()); }
  // Refused for `reason`, with nothing changed and the log as usable as before.
  void refused(const std::vector<LogEntry>& entries, Reason reason) {
    const std::string before = state();
    const Hash32 root = log->root();
    EXPECT_EQ(log->append(entries).reason(), reason);
    EXPECT_FALSE(log->broken());
    EXPECT_EQ(state(), before);
    EXPECT_EQ(log->root(), root);
    EXPECT_EQ(must(store.size()), log->size());
    const std::uint64_t size = log->size();
    EXPECT_TRUE(log->append({boot()}).ok());
    EXPECT_EQ(log->size(), size + 1);
    EXPECT_EQ(canonical(must(Log::open(store, random))->state().snapshot()), state());
  }
  LogEntry boot() const { return make_entry(kNow, BootEntry{world.set.id(), 1, {}}); }
  LogEntry credential(std::int64_t attempt) {
    Credential c;
    c.job_id = plan.body.job_id;
    c.attempt = attempt;
    return make_entry(kNow, CredentialEntry{must(sign(world.set.id(), c, world.set.signing))});
  }

  MemoryStore store;
  BrokerWorld world;
  SeededRandom random{7};
  SignedSubmission submission;
  Signed<RunPlan> plan;
  std::unique_ptr<Log> log;
};

// Gives the entries it was given, but another in the place of one.
struct Replaying {
  explicit Replaying(std::vector<LogEntry> all) : entries(std::move(all)) {}
  Result<LogEntry> operator()(std::int64_t leaf) const {
    return entries.at(static_cast<std::size_t>(leaf));
  }
  std::vector<LogEntry> entries;
};

// Whatever it is that keeps a job from being folded again, not only a disk that cannot be read.
TEST(BrokerLog, AJobThatDoesNotFoldAgainIsNotTakenForUnknown) {
  Fixture f;
  std::vector<LogEntry> all;
  for (std::uint64_t i = 0; i < must(f.store.size()); ++i) {
    all.push_back(must(from_json_text<LogEntry>(must(f.store.entry(i)).entry)));
  }
  std::vector<LogEntry> others(all.size(), f.boot());
  for (const bool same : {true, false}) {
    State state(Replaying(same ? all : others));
    std::int64_t leaf = 0;
    for (const LogEntry& e : all) ASSERT_TRUE(state.apply(e, leaf++, 0).ok());
    state.rest({0, 0});
    const Hash32 id = f.plan.body.job_id;
    EXPECT_EQ(state.job(id) != nullptr, same);
    EXPECT_EQ(state.unreadable(), !same);
    State counted(Replaying(same ? all : others));
    leaf = 0;
    for (const LogEntry& e : all) ASSERT_TRUE(counted.apply(e, leaf++, 0).ok());
    counted.rest({0, 0});
    EXPECT_EQ(counted.jobs().size(), same ? 1U : 0U);
    EXPECT_EQ(counted.unreadable(), !same);
  }
}

TEST(BrokerLog, RefusesWhatItCouldNotReadAgain) {
  Fixture f;
  // Each part of the policy within its bound.
  f.world.data.policy.clauses.commands.assign(
      64, {std::vector<std::string>(5, std::string(4096, 'a')), {}});
  f.refused(
      {make_entry(kNow, PublishEntry{make_publish(f.world.set, f.world.data, f.world.random)})},
      Reason::kTooLarge);
  LogEntry e = f.boot();
  e.time = kMaxJsonInteger + 1;
  f.refused({e}, Reason::kBadValue);
  e = f.boot();
  e.body["epoch"] = -1;
  f.refused({e}, Reason::kBadValue);
  e = f.boot();
  e.body["more"] = 1;
  f.refused({e}, Reason::kUnknownField);
  e = f.boot();
  e.body["nonce"] = "\xff";
  f.refused({e}, Reason::kBadJson);
  Json deep;
  for (int i = 0; i < 70; ++i) deep = Json(JsonArray{std::move(deep)});
  e.body = deep;
  f.refused({e}, Reason::kTooLarge);
  e = f.boot();
  e.kind = "gossip";
  f.refused({e}, Reason::kBadStructure);
}

TEST(BrokerLog, RefusesWhatCannotFollow) {
  Fixture f;
  LogEntry early = f.boot();
  early.time = kNow - 1;
  f.refused({early}, Reason::kBadStructure);
  f.refused({f.credential(2)}, Reason::kBadStructure);
  // What stood before it in the same append is undone with it.
  f.refused({f.boot(), f.credential(1), f.credential(3)}, Reason::kBadStructure);
  EXPECT_TRUE(f.log->append({f.boot(), f.credential(1), f.credential(2)}).ok());
}

// Seventeen reviewers under two policies: more rulings than one policy can have.
TEST(BrokerLog, HoldsTheRulingsOfEveryReviewerUnderEveryPolicy) {
  BrokerWorld w(101);
  std::vector<Person> people;
  for (int i = 0; i < 17; ++i) people.push_back(make_person(w.random));
  std::vector<const Person*> reviewers;
  for (const auto& p : people) reviewers.push_back(&p);
  Clauses clauses = make_clauses(w.node.public_key(), reviewers);
  clauses.reviewers_needed = 17;
  w.data.policy.clauses = clauses;
  clauses.images.clear();
  clauses.commands.clear();
  clauses.lease_required = false;
  clauses.join_owners = {w.owner.id()};
  w.image.policy.clauses = clauses;
  w.start_and_publish();
  GateVerdict v = clean_verdict();
  v.recommendation = Recommendation::kHold;
  const auto run = w.run_until_sealed(w.submission(), v);
  Judgement j = must(w.judge(run.job_id()));
  ASSERT_EQ(j.state, JudgementState::kHeld);
  for (const auto& policy : run.plan.body.policies) {
    for (const auto& p : people) {
      j = must(w.rule(p, j.hold_notice->body, policy.policy_hash, RulingDecision::kApprove));
    }
  }
  ASSERT_EQ(j.state, JudgementState::kReleased);
  EXPECT_EQ(j.release->statement.body.rulings.size(), 34u);
  EXPECT_TRUE(w.start().ok());
  const auto receipt = must(w.call<Receipt>(method::kReceipt, JobRequest{run.job_id()}));
  EXPECT_EQ(receipt.rulings.size(), 34u);
}

}  // namespace
}  // namespace gbx::broker
