// A ruling counts for the one output that its reviewer opened.
#include "policy/decision.h"

#include <gtest/gtest.h>

#include "policy/testing.h"

namespace gbx::policy {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::kNow;
using gbx::testing::make_asset;
using gbx::testing::make_clauses;
using gbx::testing::make_person;
using gbx::testing::must;

TEST(RulingDenied, AboutAnotherOutputPolicyOrByAnother) {
  SeededRandom random(30);
  const auto set = gbx::testing::make_key_set(random);
  const auto reviewer = make_person(random);
  const auto consumer = make_person(random);
  const auto data = make_asset(make_person(random), AssetKind::kDataset,
                               make_clauses(consumer.key.public_key(), {&reviewer}), random);
  Panel panel;
  panel.policies = {must(sign(set.id(), data.policy, data.owner.key))};
  panel.may_preview = {gbx::testing::as_reviewer(reviewer)};
  panel.submission.consumer = consumer.chain;
  panel.submission.submission.body.consumer_id = consumer.id();
  const HoldNotice notice{
      Hash32{1}, Hash32{2}, {panel.policies[0].hash()}, Hash32{3}, kNow + kHoldSeconds};
  const Ruling good{hash_of(notice),
                    notice.manifest,
                    notice.ciphertext,
                    panel.policies[0].hash(),
                    RulingDecision::kApprove,
                    {},
                    kNow};
  const auto reason = [&](const Ruling& body, const gbx::testing::Person& by) {
    return verify_ruling(set.id(), panel, notice, must(sign(set.id(), body, by.key)),
                         {by.chain, by.key.public_key(), kNow + 10})
        .reason();
  };
  EXPECT_EQ(reason(good, reviewer), Reason::kUninitialised);
  EXPECT_EQ(reason(good, consumer), Reason::kWrongRole);
  const auto changed = [&](auto change) {
    Ruling other = good;
    change(other);
    return reason(other, reviewer);
  };
  EXPECT_EQ(changed([](Ruling& r) { r.hold_notice[0] ^= 1; }), Reason::kPlanMismatch);
  EXPECT_EQ(changed([](Ruling& r) { r.manifest[0] ^= 1; }), Reason::kPlanMismatch);
  EXPECT_EQ(changed([](Ruling& r) { r.ciphertext[0] ^= 1; }), Reason::kPlanMismatch);
  EXPECT_EQ(changed([](Ruling& r) { r.owner_policy_hash[0] ^= 1; }), Reason::kPolicyMismatch);
  // Neither from before the notice nor from after its use, but for what clocks may differ.
  EXPECT_EQ(changed([](Ruling& r) { r.time = kNow - kReviewerSkewSeconds; }),
            Reason::kUninitialised);
  EXPECT_EQ(changed([](Ruling& r) { r.time = kNow - kReviewerSkewSeconds - 1; }),
            Reason::kBadValue);
  EXPECT_EQ(changed([](Ruling& r) { r.time = kNow + 10 + kReviewerSkewSeconds; }),
            Reason::kUninitialised);
  EXPECT_EQ(changed([](Ruling& r) { r.time = kNow + 11 + kReviewerSkewSeconds; }),
            Reason::kBadValue);
  // What the consumer will read of it is of the closed list: nothing else travels in a ruling.
  const auto says = [&](RulingDecision how, std::vector<std::string> reasons) {
    return changed([&](Ruling& r) {
      r.decision = how;
      r.reasons = std::move(reasons);
    });
  };
  const std::vector<std::string> four{"small-cells", "dominance", "not-rounded", "ask-owner"};
  EXPECT_EQ(says(RulingDecision::kReject, four), Reason::kUninitialised);
  EXPECT_EQ(says(RulingDecision::kReject, {}), Reason::kUninitialised);
  EXPECT_EQ(says(RulingDecision::kRequestChanges, four), Reason::kUninitialised);
  EXPECT_EQ(says(RulingDecision::kRequestChanges, {}), Reason::kBadValue);
  EXPECT_EQ(says(RulingDecision::kApprove, {"small-cells"}), Reason::kBadValue);
  EXPECT_EQ(says(RulingDecision::kReject, {"Mrs Smith"}), Reason::kBadValue);
  EXPECT_EQ(says(RulingDecision::kReject, {"dominance", "dominance"}), Reason::kBadValue);
  const auto forged = must(sign(set.id(), good, consumer.key));
  EXPECT_EQ(verify_ruling(set.id(), panel, notice, forged,
                          {reviewer.chain, reviewer.key.public_key(), kNow})
                .reason(),
            Reason::kBadSignature);
}

TEST(HoldReasons, ACurrencyInWhichNoPolicyGives) {
  GateVerdict v;
  v.recommendation = Recommendation::kRelease;
  v.charge.free_bits = 100;
  EXPECT_TRUE(hold_reasons(Policy{}, v, 100).empty());
  v.charge.zcdp_micro = 1;
  EXPECT_EQ(hold_reasons(Policy{}, v, 100), std::set<std::string>{reason::kBudget});
}

}  // namespace
}  // namespace gbx::policy
