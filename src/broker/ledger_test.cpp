// What the set says of an asset's ledger: reserved with the data keys, final with the decision.
#include <gtest/gtest.h>

#include "broker/testing.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::Asset;
using gbx::testing::BrokerWorld;
using gbx::testing::clean_verdict;
using gbx::testing::kJobBits;
using gbx::testing::kNow;
using gbx::testing::must;
using gbx::testing::Person;

constexpr std::int64_t kPlanned = 610;         // 608 of the outputs, and the attempts
constexpr std::int64_t kNothingDelivered = 8;  // how it ended; one attempt tells nothing more

class LedgerOf : public ::testing::Test {
 protected:
  LedgerOf() : w(91) {
    w.data.policy.clauses.row_bits = 100;
    w.data.policy.clauses.gate.period_days = 1;
    w.start_and_publish();
  }
  Signed<LedgerStatement> ask(std::optional<Hash32> consumer = std::nullopt,
                              std::int64_t after = 0) {
    return must(w.call<Signed<LedgerStatement>>(
        method::kLedger, LedgerRequest{w.data.record.asset_id, Nonce32{9}, consumer, after}));
  }
  SignedSubmission by(const Person& consumer) {
    gbx::testing::SubmissionParts parts{gbx::testing::make_spec(true), {&w.data}, &w.image, {}};
    parts.leases = {gbx::testing::make_lease(w.set.id(), w.data, consumer, 1, w.random)};
    return gbx::testing::make_submission(w.set.id(), consumer, parts, w.random);
  }
  // It is one owner's, whose keys cannot be copied: so one asset becomes each of its versions.
  void become_version(std::int64_t number) {
    w.data.record.version = number;
    w.data.policy.asset_version_id = w.data.version_id();
    w.data.policy.serial = 1;
    w.data.policy.prev = {};
  }
  void publish_version(std::int64_t number) {
    become_version(number);
    must(w.publish(w.data));
  }
  BrokerWorld w;
};

TEST_F(LedgerOf, AJobFromReservationToRelease) {
  EXPECT_EQ(ask().body.count, 0);
  auto run = w.run_until_attested(w.submission());
  must(w.key(run.agent, run.credential.body, run.evidence, 1, run.connection));
  EXPECT_EQ(ask().body.count, 0);  // no data has left
  must(w.key(run.agent, run.credential.body, run.evidence, 2, run.connection));
  auto s = ask();
  EXPECT_TRUE(s.verify(w.set.id(), w.set.signing.public_key()).ok());
  EXPECT_EQ(s.body.nonce, Nonce32{9});
  EXPECT_EQ(s.body.owner_id, w.owner.id());
  EXPECT_EQ(s.body.row_bits, 100);
  EXPECT_EQ(s.body.limits.period_days, 1);
  ASSERT_EQ(s.body.entries.size(), 1u);
  EXPECT_EQ(s.body.entries[0].state, LedgerState::kReserved);
  EXPECT_EQ(s.body.entries[0].job_id, run.job_id());
  EXPECT_EQ(s.body.entries[0].consumer_id, w.consumer.id());
  EXPECT_EQ(s.body.entries[0].free_bits, kPlanned);
  EXPECT_EQ(s.body.total_free_bits, kPlanned);
  w.clock.advance(5'000);
  const auto sealed =
      w.make_seal(run.agent, run.submission, run.plan, 1, run.evidence, clean_verdict());
  must(w.seal(sealed.seal, run.connection));
  ASSERT_EQ(must(w.judge(run.job_id())).state, JudgementState::kReleased);
  const auto size = w.core->log_size();
  s = ask();
  EXPECT_EQ(s.body.entries[0].state, LedgerState::kReleased);
  EXPECT_EQ(s.body.entries[0].free_bits, kJobBits);
  EXPECT_EQ(s.body.entries[0].verified_bits, 0);  // the plan has none
  EXPECT_EQ(s.body.entries[0].time, kNow + 5);
  EXPECT_EQ(s.body.total_free_bits, kJobBits);
  EXPECT_EQ(s.body.total_verified_bits, 0);
  EXPECT_EQ(s.body.period_free_bits, kJobBits);
  w.clock.advance(86'401'000);
  EXPECT_EQ(ask().body.period_free_bits, 0);
  EXPECT_EQ(ask().body.total_free_bits, kJobBits);
  EXPECT_EQ(w.core->log_size(), size) << "asking is logged";
}

TEST_F(LedgerOf, RejectedAndCancelledJobsCostWhatTheyTold) {
  const auto rejected =
      w.run_until_sealed(w.submission(), gbx::testing::rejection(GateCause::kMalformed));
  ASSERT_EQ(must(w.judge(rejected.job_id())).state, JudgementState::kRejected);
  auto cancelled = w.run_until_attested(w.submission());
  for (const std::int64_t stage : {1, 2}) {
    must(w.key(cancelled.agent, cancelled.credential.body, cancelled.evidence, stage,
               cancelled.connection));
  }
  w.clock.advance(1'000);
  must(w.call<Empty>(
      method::kCancel,
      CancelRequest{w.consumer.chain,
                    must(sign(w.set.id(), Cancel{cancelled.job_id(), w.consumer.id(), kNow + 1},
                              w.consumer.key))}));
  const auto s = ask().body;
  ASSERT_EQ(s.entries.size(), 2u);
  EXPECT_EQ(s.entries[0].state, LedgerState::kRejected);
  EXPECT_EQ(s.entries[1].state, LedgerState::kCancelled);
  for (const auto& e : s.entries) {
    EXPECT_EQ(e.free_bits, policy::rejection_bits(rejected.plan.body, 1));
    EXPECT_EQ(e.free_bits, kNothingDelivered);
  }
}

TEST_F(LedgerOf, AConsumersPartIsTheOwn) {
  const Person other = gbx::testing::make_person(w.random);
  for (const Person* p : {&std::as_const(w.consumer), &other}) {
    must(w.judge(w.run_until_sealed(by(*p)).job_id()));
  }
  EXPECT_EQ(ask().body.count, 2);
  const auto own = ask(other.id()).body;
  EXPECT_EQ(own.consumer, other.id());
  ASSERT_EQ(own.entries.size(), 1u);
  EXPECT_EQ(own.entries[0].consumer_id, other.id());
  EXPECT_EQ(own.total_free_bits, kJobBits);
  EXPECT_EQ(ask(Hash32{1}).body.count, 0);
}

// What it told of the old version it told of the asset: a new version opens no new budget, for the
// one consumer or for all.
TEST_F(LedgerOf, AVersionsJobsStayInTheLedgerOfTheNext) {
  auto& gate = w.data.policy.clauses.gate;
  gate.total_free_bits = 2 * kJobBits + kPlanned - 1;  // a bit less than three jobs take
  gate.period_free_bits = kJobBits + kPlanned - 1;     // a bit less than two
  publish_version(2);
  const auto first = w.run_until_sealed(by(w.consumer));
  must(w.judge(first.job_id()));
  publish_version(3);
  const auto s = ask().body;
  ASSERT_EQ(s.entries.size(), 1u);
  EXPECT_EQ(s.entries[0].job_id, first.job_id());
  EXPECT_EQ(s.total_free_bits, kJobBits);
  EXPECT_EQ(s.period_free_bits, kJobBits);
  EXPECT_EQ(ask(w.consumer.id()).body.total_free_bits, kJobBits);
  EXPECT_EQ(w.authorise(by(w.consumer)).error().what,
            "budget (in0): free bits of this consumer in 1 days");
  gate.period_free_bits += 1;
  publish_version(4);
  const auto second = w.run_until_sealed(by(w.consumer));
  must(w.judge(second.job_id()));
  EXPECT_EQ(ask().body.count, 2);
  EXPECT_EQ(ask().body.total_free_bits, 2 * kJobBits);
  publish_version(5);
  const Person other = gbx::testing::make_person(w.random);
  EXPECT_EQ(w.authorise(by(other)).error().what, "budget (in0): free bits of all consumers");
  must(w.start());  // the log says the same to a broker that is started again
  EXPECT_EQ(ask().body.total_free_bits, 2 * kJobBits);
  EXPECT_EQ(w.authorise(by(other)).reason(), Reason::kBudgetExceeded);
}

// Who changes keys stays the one who spent.
TEST_F(LedgerOf, ARotatedConsumerHasSpentWhatHeSpent) {
  w.data.policy.clauses.gate.period_free_bits = kJobBits + kPlanned - 1;  // a bit less than two
  publish_version(2);
  must(w.judge(w.run_until_sealed(by(w.consumer)).job_id()));
  const auto before = ask(w.consumer.id()).body;
  EXPECT_EQ(before.period_free_bits, kJobBits);
  Person renewed = gbx::testing::copy(w.consumer);
  renewed.key = must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, w.random));
  const auto rotation =
      must(sign(w.set.id(), Rotation{w.consumer.id(), 1, renewed.key.public_key().text()},
                w.consumer.recovery));
  must(w.call<Empty>(method::kRotate, RotateRequest{w.consumer.chain.identity, rotation}));
  renewed.chain.rotations = {rotation};
  ASSERT_EQ(renewed.id(), w.consumer.id());
  EXPECT_EQ(canonical(to_json(ask(renewed.id()).body)), canonical(to_json(before)));
  const auto denied = w.authorise(by(renewed));
  ASSERT_EQ(denied.reason(), Reason::kBudgetExceeded);
  EXPECT_EQ(denied.error().what, "budget (in0): free bits of this consumer in 1 days");
  EXPECT_TRUE(w.authorise(by(gbx::testing::make_person(w.random))).ok());
}

// Each owner of a job is charged for it, and nobody else: what one's data told takes nothing from
// another's budget, nor one asset's from another's of the same owner.
TEST(LedgerOfOwners, EachHasItsOwn) {
  BrokerWorld w(94);
  const Person other = gbx::testing::make_person(w.random);
  Clauses open = w.image_clauses();
  open.join_owners = {w.owner.id(), other.id()};
  w.image = gbx::testing::make_asset(gbx::testing::copy(other), AssetKind::kImage, open, w.random);
  Clauses tight = w.data.policy.clauses;
  tight.join_owners = {other.id()};
  tight.gate.total_free_bits = kJobBits + kPlanned - 1;  // a bit less than two jobs take
  w.data.policy.clauses = tight;
  const Asset theirs =
      gbx::testing::make_asset(gbx::testing::copy(other), AssetKind::kDataset, tight, w.random);
  w.start_and_publish();
  must(w.publish(theirs));
  const auto on = [&](const Asset& input) {
    gbx::testing::SubmissionParts parts{gbx::testing::make_spec(true), {&input}, &w.image, {}};
    parts.leases = {gbx::testing::make_lease(w.set.id(), input, w.consumer, 1, w.random)};
    return gbx::testing::make_submission(w.set.id(), w.consumer, parts, w.random);
  };
  const auto spent = [&](const Asset& asset) {
    const LedgerRequest r{asset.record.asset_id, Nonce32{9}, std::nullopt, 0};
    const auto s = must(w.call<Signed<LedgerStatement>>(method::kLedger, r)).body;
    EXPECT_EQ(s.owner_id, asset.owner.id());
    EXPECT_EQ(s.total_free_bits, s.count * kJobBits);
    return s.total_free_bits;
  };
  const auto run = w.run_until_sealed(on(w.data));
  const auto charges = must(w.judge(run.job_id())).release->statement.body.charges;
  ASSERT_EQ(charges.size(), 2u);
  EXPECT_NE(charges[0].owner_id, charges[1].owner_id);
  for (const auto& c : charges) EXPECT_EQ(c.free_bits, kJobBits);
  EXPECT_EQ(spent(w.data), kJobBits);
  EXPECT_EQ(spent(w.image), kJobBits);
  EXPECT_EQ(spent(theirs), 0);
  EXPECT_EQ(w.authorise(on(w.data)).reason(), Reason::kBudgetExceeded);
  must(w.judge(w.run_until_sealed(on(theirs)).job_id()));
  EXPECT_EQ(spent(w.data), kJobBits);
  EXPECT_EQ(spent(w.image), 2 * kJobBits);
  EXPECT_EQ(spent(theirs), kJobBits);
}

// The second attempt begins when the first has ended, which is told at the owners' slot.
TEST_F(LedgerOf, ALaterAttemptDoesNotMoveTheReservation) {
  auto run = w.run_until_attested(w.submission());
  for (const std::int64_t stage : {1, 2}) {
    must(w.key(run.agent, run.credential.body, run.evidence, stage, run.connection));
  }
  const auto before = ask().body;
  w.clock.advance(50'000);
  const auto second = must(w.credential(run.job_id(), 2));
  auto agent = gbx::testing::make_agent(w.random);
  const auto connection = w.connect(agent);
  const Hash32 evidence = must(w.attest(agent, second, connection));
  for (const std::int64_t stage : {1, 2}) {
    must(w.key(agent, second.body, evidence, stage, connection));
  }
  auto after = ask().body;
  ASSERT_EQ(after.entries.size(), 1u);
  after.time = before.time;  // of the question
  EXPECT_EQ(canonical(to_json(after)), canonical(to_json(before)));
  // Head and entries go by one time: the reservation leaves the period of a day as one.
  w.clock.advance(86'400'000 - 50'000);
  EXPECT_EQ(ask().body.period_free_bits, before.total_free_bits);
  w.clock.advance(1'000);
  EXPECT_EQ(ask().body.period_free_bits, 0);
}

// Whatever the order in which versions and their policies came.
TEST_F(LedgerOf, TheLimitsAreThoseOfTheNewestVersionsPolicyInForce) {
  auto publish = [&](std::int64_t row_bits) {
    w.data.policy.clauses.row_bits = row_bits;
    must(w.publish(w.data));
    return ask().body.row_bits;
  };
  auto next = [&] { gbx::testing::next_policy(w.data); };
  become_version(3);
  EXPECT_EQ(publish(300), 300);
  const Policy third = w.data.policy;
  become_version(2);
  EXPECT_EQ(publish(200), 300);
  const Policy second = w.data.policy;
  become_version(3);
  w.data.policy = third;
  next();
  EXPECT_EQ(publish(301), 301);
  become_version(2);
  w.data.policy = second;
  next();
  EXPECT_EQ(publish(201), 301);
  become_version(10);
  EXPECT_EQ(publish(1'000), 1'000);
}

// Its reasons are reserved at once, and told with the decision: neither the ledger nor a refused
// plan says before the owners' slot that somebody has ruled, or how.
TEST_F(LedgerOf, ARulingMovesNothingBeforeItsSlot) {
  BrokerWorld slotted(92);
  for (auto* a : {&slotted.data, &slotted.image}) {
    a->policy.clauses.gate.release_slot_seconds = 900;
    a->policy.clauses.gate.period_days = 1;
  }
  slotted.start_and_publish();
  GateVerdict v = clean_verdict();
  v.recommendation = Recommendation::kHold;
  const auto run = slotted.run_until_sealed(slotted.submission(), v);
  const auto until_slot = [&] {
    const auto at = must(slotted.judge(run.job_id())).decide_at;
    slotted.clock.advance((at - slotted.clock.now().seconds()) * 1000);
    return must(slotted.judge(run.job_id()));
  };
  const HoldNotice notice = until_slot().hold_notice->body;
  const auto told = [&] {
    const LedgerRequest r{slotted.data.record.asset_id, Nonce32{9}, slotted.consumer.id(), 0};
    const auto s = must(slotted.call<Signed<LedgerStatement>>(method::kLedger, r)).body;
    EXPECT_EQ(s.entries.size(), 1u);
    const auto& asset = run.plan.body.charges[0];
    const auto& state = slotted.core->state();
    const auto plan = state.told_spent(asset, slotted.consumer.id(), 0, Hash32{});
    EXPECT_EQ(plan.total_free_bits, s.total_free_bits);
    EXPECT_EQ(plan.period_free_bits, s.total_free_bits);
    return canonical(to_json(s.entries[0])) + std::to_string(s.total_free_bits) + " " +
           std::to_string(s.period_free_bits);
  };
  const std::string before = told();
  slotted.clock.advance(60'000);
  const Hash32 policy = run.plan.body.policies[0].policy_hash;
  must(slotted.rule(slotted.reviewer, notice, policy, RulingDecision::kReject, 0,
                    {"small-cells", "dominance"}));
  EXPECT_EQ(told(), before);
  const auto& asset = run.plan.body.charges[0];
  const auto reserved = [&] {
    return slotted.core->state().spent(asset, slotted.consumer.id(), 0, Hash32{}).total_free_bits;
  };
  EXPECT_EQ(reserved(), asset.free_bits + 2 * policy::kReviewReasonBits);
  ASSERT_EQ(until_slot().state, JudgementState::kRejected);
  EXPECT_NE(told(), before);
}

TEST_F(LedgerOf, PagesAreBoundedAndAnUnknownAssetHasNone) {
  must(w.judge(w.run_until_sealed(w.submission()).job_id()));
  EXPECT_EQ(ask(std::nullopt, 1).body.entries.size(), 0u);
  EXPECT_EQ(ask(std::nullopt, 1).body.count, 1);
  EXPECT_EQ(ask(std::nullopt, kMaxTreeSize).body.entries.size(), 0u);
  EXPECT_EQ(
      w.call<Signed<LedgerStatement>>(method::kLedger, LedgerRequest{Id16{1}, {}, {}, 0}).reason(),
      Reason::kNotFound);
  EXPECT_EQ(w.core
                ->handle(method::kLedger, to_json(LedgerRequest{w.data.record.asset_id, {}, {}, 0}),
                         w.connect(gbx::testing::make_agent(w.random)), w.clock.now())
                .reason(),
            Reason::kUnauthenticated);
}

// ---- for who must rule ----

class LedgerOfAHeldOutput : public LedgerOf {
 protected:
  BrokerWorld::Run held(const SignedSubmission& submission) {
    GateVerdict v = clean_verdict();
    v.recommendation = Recommendation::kHold;
    auto run = w.run_until_sealed(submission, v);
    EXPECT_EQ(must(w.judge(run.job_id())).state, JudgementState::kHeld);
    return run;
  }
  Result<Signed<HeldLedgerStatement>> ask_for(const Hash32& job, const Hash32& reviewer) {
    return w.call<Signed<HeldLedgerStatement>>(method::kHeldLedger,
                                               HeldLedgerRequest{job, reviewer, Nonce32{7}});
  }
  const HeldBudget& of(const Signed<HeldLedgerStatement>& s, const BrokerWorld::Run& run,
                       const gbx::testing::Asset& asset) {
    const auto& policies = run.plan.body.policies;
    EXPECT_EQ(s.body.budgets.size(), policies.size());
    std::size_t i = 0;
    while (policies[i].asset_version_id != asset.version_id()) ++i;
    EXPECT_EQ(s.body.budgets[i].policy_hash, policies[i].policy_hash);
    return s.body.budgets[i];
  }
};

// Another consumer's spending counts for all and not for this one; the job's own reservation is
// what it would be released for, and counted once.
TEST_F(LedgerOfAHeldOutput, SaysWhatOthersSpentAndWhatAReleaseAdds) {
  const Person other = gbx::testing::make_person(w.random);
  must(w.judge(w.run_until_sealed(by(other)).job_id()));
  must(w.judge(w.run_until_sealed(by(w.consumer)).job_id()));
  const auto run = held(by(w.consumer));
  const auto size = w.core->log_size();
  const auto s = must(ask_for(run.job_id(), w.reviewer.id()));
  EXPECT_TRUE(s.verify(w.set.id(), w.set.signing.public_key()).ok());
  EXPECT_EQ(s.body.job_id, run.job_id());
  EXPECT_EQ(s.body.reviewer, w.reviewer.id());
  EXPECT_EQ(s.body.nonce, Nonce32{7});
  EXPECT_EQ(s.body.hold_notice, must(w.judge(run.job_id())).hold_notice->hash());
  EXPECT_EQ(of(s, run, w.data).period_free_bits, kJobBits);
  EXPECT_EQ(of(s, run, w.data).total_free_bits, 2 * kJobBits);
  EXPECT_EQ(of(s, run, w.data).release_free_bits, kJobBits);
  w.clock.advance(86'401'000);  // the data's period is a day, the image's longer
  const auto later = must(ask_for(run.job_id(), w.reviewer.id()));
  EXPECT_EQ(of(later, run, w.data).period_free_bits, 0);
  EXPECT_EQ(of(later, run, w.data).total_free_bits, 2 * kJobBits);
  EXPECT_EQ(of(later, run, w.image).period_free_bits, kJobBits);
  EXPECT_EQ(w.core->log_size(), size) << "asking is logged";
}

// A reviewer of one job may be the consumer of another, whose own ledger says nothing of it either.
TEST(LedgerOfAHeldOutputInSlots, TellsNoOtherJobsRulings) {
  BrokerWorld w(93);
  for (auto* a : {&w.data, &w.image}) a->policy.clauses.gate.release_slot_seconds = 900;
  w.start_and_publish();
  GateVerdict v = clean_verdict();
  v.recommendation = Recommendation::kHold;
  const auto until_slot = [&](const Hash32& job) {
    const auto j = must(w.judge(job));
    if (j.state != JudgementState::kPending) return j;
    w.clock.advance((j.decide_at - w.clock.now().seconds()) * 1000);
    return must(w.judge(job));
  };
  const auto theirs = w.run_until_sealed(w.submission(), v);
  const HoldNotice notice = until_slot(theirs.job_id()).hold_notice->body;
  const auto run = w.run_until_sealed(w.submission(), v);
  ASSERT_EQ(until_slot(run.job_id()).state, JudgementState::kHeld);
  const auto told = [&] {
    const HeldLedgerRequest r{run.job_id(), w.reviewer.id(), Nonce32{7}};
    const auto s = must(w.call<Signed<HeldLedgerStatement>>(method::kHeldLedger, r));
    std::string text;
    for (const auto& b : s.body.budgets) text += canonical(to_json(b));
    return text;
  };
  const auto& asset = run.plan.body.charges[0];
  const auto reserved = [&] {
    return w.core->state().spent(asset, w.consumer.id(), 0, run.job_id()).period_free_bits;
  };
  const std::string before = told();
  const std::int64_t bits = reserved();
  w.clock.advance(60'000);
  must(w.rule(w.reviewer, notice, theirs.plan.body.policies[0].policy_hash, RulingDecision::kReject,
              0, {"small-cells"}));
  EXPECT_EQ(reserved(), bits + policy::kReviewReasonBits);
  EXPECT_EQ(told(), before);
  ASSERT_EQ(until_slot(theirs.job_id()).state, JudgementState::kRejected);
  EXPECT_NE(told(), before);
}

// Of a job that is not theirs to rule on, not held or decided, people hear what is said of none.
TEST_F(LedgerOfAHeldOutput, IsForItsReviewersWhileItIsHeld) {
  const auto run = held(by(w.consumer));
  const auto released = w.run_until_sealed(by(w.consumer));
  must(w.judge(released.job_id()));
  const Person stranger = gbx::testing::make_person(w.random);
  const auto none = ask_for(Hash32{1}, w.reviewer.id());
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.reason(), Reason::kNotFound);
  for (const auto& [job, who] : {std::pair{run.job_id(), stranger.id()},
                                 {run.job_id(), w.owner.id()},
                                 {run.job_id(), w.consumer.id()},
                                 {released.job_id(), w.reviewer.id()}}) {
    EXPECT_EQ(ask_for(job, who).error().line(), none.error().line());
  }
  ASSERT_TRUE(ask_for(run.job_id(), w.reviewer.id()).ok());
  must(w.rule(w.reviewer, must(w.judge(run.job_id())).hold_notice->body,
              run.plan.body.policies[0].policy_hash, RulingDecision::kReject));
  EXPECT_EQ(ask_for(run.job_id(), w.reviewer.id()).error().line(), none.error().line());
  EXPECT_EQ(w.core
                ->handle(method::kHeldLedger,
                         to_json(HeldLedgerRequest{run.job_id(), w.reviewer.id(), {}}),
                         w.connect(gbx::testing::make_agent(w.random)), w.clock.now())
                .reason(),
            Reason::kUnauthenticated);
}

}  // namespace
}  // namespace gbx::broker
