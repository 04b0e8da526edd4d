// What the set says of an asset's ledger: reserved with the data keys, final with the decision.
#include <gtest/gtest.h>

#include "broker/testing.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::BrokerWorld;
using gbx::testing::clean_verdict;
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
  EXPECT_EQ(s.body.entries[0].free_bits, 200);
  EXPECT_EQ(s.body.entries[0].verified_bits, 0);  // the plan has none
  EXPECT_EQ(s.body.entries[0].time, kNow + 5);
  EXPECT_EQ(s.body.total_free_bits, 200);
  EXPECT_EQ(s.body.total_verified_bits, 0);
  EXPECT_EQ(s.body.period_free_bits, 200);
  w.clock.advance(86'401'000);
  EXPECT_EQ(ask().body.period_free_bits, 0);
  EXPECT_EQ(ask().body.total_free_bits, 200);
  EXPECT_EQ(w.core->log_size(), size) << "asking is logged";
}

TEST_F(LedgerOf, RejectedAndCancelledJobsCostWhatTheyTold) {
  GateVerdict bad = clean_verdict();
  bad.recommendation = Recommendation::kReject;
  bad.cause = GateCause::kMalformed;
  const auto rejected = w.run_until_sealed(w.submission(), bad);
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
  EXPECT_EQ(own.total_free_bits, 200);
  EXPECT_EQ(ask(Hash32{1}).body.count, 0);
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
  // It is one owner's, whose keys cannot be copied: so one asset becomes each of its versions.
  auto version = [&](std::int64_t number) {
    w.data.record.version = number;
    w.data.policy.asset_version_id = w.data.version_id();
    w.data.policy.serial = 1;
    w.data.policy.prev = {};
  };
  auto next = [&] { gbx::testing::next_policy(w.data); };
  version(3);
  EXPECT_EQ(publish(300), 300);
  const Policy third = w.data.policy;
  version(2);
  EXPECT_EQ(publish(200), 300);
  const Policy second = w.data.policy;
  version(3);
  w.data.policy = third;
  next();
  EXPECT_EQ(publish(301), 301);
  version(2);
  w.data.policy = second;
  next();
  EXPECT_EQ(publish(201), 301);
  version(10);
  EXPECT_EQ(publish(1'000), 1'000);
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

}  // namespace
}  // namespace gbx::broker
