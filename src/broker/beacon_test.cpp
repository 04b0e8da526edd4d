// freshForSeconds: who may confirm a policy, what for, and that nothing leaves when nobody did.
#include <gtest/gtest.h>

#include "broker/testing.h"
#include "policy/receipt_verify.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::Asset;
using gbx::testing::BrokerWorld;
using gbx::testing::clean_verdict;
using gbx::testing::kNow;
using gbx::testing::must;
using gbx::testing::next_policy;
using gbx::testing::Person;

constexpr std::int64_t kFresh = 600;

class Beacons : public ::testing::Test {
 protected:
  Beacons() : w(90) {
    w.data.policy.clauses.fresh_for_seconds = kFresh;
    w.start_and_publish();
  }
  BeaconRequest request(const Asset& a, std::int64_t time) const {
    return {
        w.owner.chain,
        must(sign(w.set.id(), OwnerBeacon{w.owner.id(), a.version_id(), hash_of(a.policy), time},
                  w.owner.key))};
  }
  Result<Signed<BeaconAck>> send(const BeaconRequest& r) {
    return w.call<Signed<BeaconAck>>(method::kBeacon, r);
  }
  Result<Signed<BeaconAck>> confirm() { return send(request(w.data, w.clock.now().seconds())); }
  void pass(std::int64_t seconds) { w.clock.advance(seconds * 1000); }
  // Refused when nobody confirmed in time, allowed after a beacon.
  template <class Ask>
  void needs_a_beacon(const char* stage, Ask ask) {
    SCOPED_TRACE(stage);
    pass(kFresh + 1);
    EXPECT_EQ(ask().reason(), Reason::kPolicyNotFresh);
    must(confirm());
    const Status s = ask();
    EXPECT_TRUE(s.ok()) << s.error().line();
  }
  template <class T>
  static Status status(const Result<T>& r) {
    return r.ok() ? ok_status() : Status(r.error());
  }
  BrokerWorld w;
};

TEST_F(Beacons, EachStageThatGivesSomethingAsks) {
  const SignedSubmission s = w.submission();
  std::optional<Signed<RunPlan>> plan;
  needs_a_beacon("plan", [&] {
    auto p = w.authorise(s);
    if (p.ok()) plan = *p;
    return status(p);
  });
  ASSERT_TRUE(plan.has_value());
  std::optional<Signed<Credential>> credential;
  needs_a_beacon("credential", [&] {
    auto c = w.credential(plan->body.job_id, 1);
    if (c.ok()) credential = *c;
    return status(c);
  });
  ASSERT_TRUE(credential.has_value());
  auto agent = gbx::testing::make_agent(w.random);
  const auto connection = w.connect(agent);
  const Hash32 evidence = must(w.attest(agent, *credential, connection));
  for (const std::int64_t stage : {1, 2}) {
    needs_a_beacon(stage == 1 ? "image key" : "data keys", [&] {
      return status(w.key(agent, credential->body, evidence, stage, connection));
    });
  }
}

// A rejection is final, as one for an expired policy is.
TEST_F(Beacons, NothingIsReleasedWithoutOne) {
  const auto run = w.run_until_sealed(w.submission());
  pass(kFresh + 1);
  const auto j = must(w.judge(run.job_id()));
  ASSERT_EQ(j.state, JudgementState::kRejected);
  EXPECT_EQ(j.release->statement.body.reasons,
            std::vector<std::string>{std::string(reason_code(Reason::kPolicyNotFresh))});
  EXPECT_TRUE(j.release->outer_keys.empty());
}

TEST_F(Beacons, TheReceiptHasTheLastOneByTheDecision) {
  const auto run = w.run_until_sealed(w.submission());
  pass(kFresh - 1);
  const BeaconRequest last = request(w.data, w.clock.now().seconds());
  must(send(last));
  pass(kFresh - 1);
  ASSERT_EQ(must(w.judge(run.job_id())).state, JudgementState::kReleased);
  pass(10);
  must(confirm());
  must(w.authorise(w.submission()));  // the first job is read from the log again from here on
  for (const bool again : {false, true}) {
    if (again) must(w.start());
    const Receipt r = must(w.call<Receipt>(method::kReceipt, JobRequest{run.job_id()}));
    ASSERT_EQ(r.beacons.size(), 1u);
    EXPECT_EQ(r.beacons[0].hash(), last.beacon.hash());
    const auto report =
        policy::verify_receipt(r, w.set.id(), {w.clock.now().seconds(), w.capacity});
    EXPECT_TRUE(report.valid) << report.first_failure().line();
  }
}

TEST_F(Beacons, CountsFromItsOwnTimeAndIsAcknowledgedOnce) {
  pass(500);
  const BeaconRequest held_back = request(w.data, kNow + 100);
  const auto ack = must(send(held_back));
  EXPECT_EQ(ack.body.fresh_until, kNow + 100 + kFresh);
  EXPECT_EQ(ack.body.beacon, held_back.beacon.hash());
  EXPECT_EQ(ack.body.time, kNow + 500);
  const auto size = w.core->log_size();
  EXPECT_EQ(canonical(to_json(must(send(held_back)))), canonical(to_json(ack)));
  EXPECT_EQ(w.core->log_size(), size);
  pass(201);
  EXPECT_EQ(w.authorise(w.submission()).reason(), Reason::kPolicyNotFresh);
  // One from before the publication takes nothing away from it.
  next_policy(w.data);
  must(w.publish(w.data));
  EXPECT_EQ(must(send(request(w.data, kNow))).body.fresh_until, w.clock.now().seconds() + kFresh);
}

TEST_F(Beacons, OnlyTheOwnersWordOnThePolicyInForceCounts) {
  pass(10);
  const auto now = w.clock.now().seconds();
  const auto refused = [&](const BeaconRequest& r) {
    const auto size = w.core->log_size();
    const Reason reason = send(r).reason();
    EXPECT_EQ(w.core->log_size(), size);
    return reason;
  };
  BeaconRequest r = request(w.data, now);
  r.beacon.signature[5] ^= 1;
  EXPECT_EQ(refused(r), Reason::kBadSignature);
  OwnerBeacon body = request(w.data, now).beacon.body;
  EXPECT_EQ(refused({w.owner.chain, must(sign(w.set.id(), body, w.consumer.key))}),
            Reason::kBadSignature);
  EXPECT_EQ(refused({w.consumer.chain, must(sign(w.set.id(), body, w.consumer.key))}),
            Reason::kWrongOwner);
  body.owner_id = w.consumer.id();
  EXPECT_EQ(refused({w.consumer.chain, must(sign(w.set.id(), body, w.consumer.key))}),
            Reason::kWrongOwner);
  body = request(w.data, now).beacon.body;
  body.asset_version_id[0] ^= 1;
  EXPECT_EQ(refused({w.owner.chain, must(sign(w.set.id(), body, w.owner.key))}),
            Reason::kPolicyMissing);
  // of the image's version, which asks for none
  EXPECT_EQ(refused(request(w.image, now)), Reason::kWrongState);
  const auto other = gbx::testing::make_key_set(w.random);
  EXPECT_EQ(refused({w.owner.chain,
                     must(sign(other.id(), request(w.data, now).beacon.body, w.owner.key))}),
            Reason::kBadSignature);
  EXPECT_EQ(refused(request(w.data, now + 121)), Reason::kBadValue);
  must(send(request(w.data, now + 120)));
  EXPECT_EQ(refused(request(w.data, now + 119)), Reason::kReplayed);
  EXPECT_EQ(refused(request(w.data, now)), Reason::kReplayed);
  const BeaconRequest before = request(w.data, now + 130);
  next_policy(w.data);
  must(w.publish(w.data));
  EXPECT_EQ(refused(before), Reason::kPolicyStale);
  next_policy(w.data);
  w.data.policy.revoked = true;
  must(w.publish(w.data));
  EXPECT_EQ(refused(request(w.data, now + 130)), Reason::kPolicyRevoked);
}

TEST_F(Beacons, AKeyThatWasRotatedAwayConfirmsNothing) {
  const auto newer =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, w.random));
  const auto rotation = must(
      sign(w.set.id(), Rotation{w.owner.id(), 1, newer.public_key().text()}, w.owner.recovery));
  must(w.call<Empty>(method::kRotate, RotateRequest{w.owner.chain.identity, rotation}));
  BeaconRequest r = request(w.data, kNow);
  EXPECT_EQ(send(r).reason(), Reason::kChainBroken);
  r.owner.rotations = {rotation};
  EXPECT_EQ(send(r).reason(), Reason::kBadSignature);
  r.beacon = must(sign(w.set.id(), r.beacon.body, newer));
  EXPECT_TRUE(send(r).ok());
}

TEST_F(Beacons, SurviveARestart) {
  pass(kFresh - 1);
  must(confirm());
  must(w.start());
  pass(kFresh - 1);
  EXPECT_TRUE(w.authorise(w.submission()).ok());
}

}  // namespace
}  // namespace gbx::broker
