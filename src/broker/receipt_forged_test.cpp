// Receipts that are signed throughout and false in one place: the verifier must name that place and
// no other. Every claim of `receipt verify` has a case here, so that no check can be lost without a
// test that fails.
#include <gtest/gtest.h>

#include "broker/receipt_testing.h"
#include "policy/receipt_verify.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::BrokerWorld;
using gbx::testing::Ending;
using gbx::testing::kNow;
using gbx::testing::make_person;
using gbx::testing::must;
using gbx::testing::ReceiptForge;
using policy::ClaimState;

// A claim as the verifier prints it, or its beginning.
struct Failure {
  std::string claim;
  Reason reason;
};
const char kAllows[] = "every owner's policy allows this job";
const Failure kCharge{"the gate's charge is what was declared", Reason::kOutputInvalid};
const char kSamePlan[] = "the plan is the one that these policies give";

std::vector<Failure> failures(const Receipt& r, const BrokerWorld& w) {
  const auto report =
      policy::verify_receipt(r, r.set.charter.set_id(), {kNow + 2'000'000, w.capacity});
  std::vector<Failure> out;
  for (const auto& group : report.checks) {
    for (const auto& c : group.parts) {
      if (c.state != ClaimState::kFailed) continue;
      Failure f{c.claim, Reason::kUninitialised};
      EXPECT_TRUE(reason_from_code(c.reason, &f.reason)) << c.claim << " " << c.reason;
      out.push_back(std::move(f));
    }
  }
  EXPECT_EQ(report.valid, out.empty());
  return out;
}
void expect_failures(const ReceiptForge& forge, const Receipt& r,
                     const std::vector<Failure>& expected) {
  const std::vector<Failure> actual = failures(r, forge.w);
  std::string list;
  bool same = actual.size() == expected.size();
  for (std::size_t i = 0; i < actual.size(); ++i) {
    list += "  " + actual[i].claim + ": " + std::string(reason_code(actual[i].reason)) + "\n";
    same = same && actual[i].claim.rfind(expected[i].claim, 0) == 0 &&
           actual[i].reason == expected[i].reason;
  }
  EXPECT_TRUE(same) << (expected.empty() ? "valid" : expected[0].claim)
                    << " was expected; failed:\n"
                    << list;
}

void add_identity(Receipt& r, const IdentityChain& chain) {
  r.identities.push_back(chain);
  std::sort(r.identities.begin(), r.identities.end(),
            [](const auto& a, const auto& b) { return a.id() < b.id(); });
}

class Forged : public ::testing::Test {
 protected:
  template <class... Changes>
  void fails(ReceiptForge& forge, const std::vector<Failure>& expected, Changes... changes) {
    expect_failures(forge, forge.with(changes...), expected);
  }
  template <class... Changes>
  void released_fails(const std::vector<Failure>& expected, Changes... changes) {
    fails(released, expected, changes...);
  }
  template <class... Changes>
  void held_fails(const std::vector<Failure>& expected, Changes... changes) {
    if (!held) held = std::make_unique<ReceiptForge>(Ending::kHeldAndReleased);
    fails(*held, expected, changes...);
  }
  // The same body under another key.
  template <class Body>
  auto signed_by(const crypto::SigningKey& key) {
    return [&key, set = released.w.set.id()](Signed<Body>& s) { s = must(sign(set, s.body, key)); };
  }

  ReceiptForge released{Ending::kReleased};
  std::unique_ptr<ReceiptForge> held;
};

TEST_F(Forged, NothingFailsWhereNothingWasChanged) {
  for (const Ending ending : {Ending::kReleased, Ending::kHeldAndReleased, Ending::kRejected}) {
    ReceiptForge forge(ending);
    expect_failures(forge, forge.receipt, {});
    const Receipt again = forge.with();
    expect_failures(forge, again, {});
    // Made again is the same, but for the log that the forge makes up.
    EXPECT_EQ(canonical(to_json(again.run_statement)),
              canonical(to_json(forge.receipt.run_statement)));
    EXPECT_EQ(canonical(to_json(again.log_entry)), canonical(to_json(forge.receipt.log_entry)));
    EXPECT_EQ(canonical(to_json(again.release.body.rulings)),
              canonical(to_json(forge.receipt.release.body.rulings)));
    EXPECT_EQ(canonical(to_json(*again.destroyed)), canonical(to_json(*forge.receipt.destroyed)));
  }
}

// ---- key set ----
TEST_F(Forged, KeySet) {
  const auto& owner = released.w.owner.key;
  released_fails({{"the chain leads from the pinned set id", Reason::kBadSignature}},
                 signed_by<EpochKeys>(owner));
  released_fails({{"format", Reason::kBadVersion}}, [](Receipt& r) { r.format = "gbx-receipt/2"; });
  released_fails({{"broker evidence is signed by the set", Reason::kBadSignature}},
                 signed_by<BrokerEvidence>(owner));
}
TEST_F(Forged, BrokerEvidence) {
  const std::vector<Failure> names{
      {"broker evidence names these keys and this job", Reason::kBrokerUntrusted}};
  released_fails(names, [](BrokerEvidence& e) { e.set_key = e.kek; });
  released_fails(names, [](BrokerEvidence& e) { e.kek = e.set_key; });
  released_fails(names, [](BrokerEvidence& e) { ++e.epoch; });
  released_fails(names, [](BrokerEvidence& e) { e.nonce[0] ^= 1; });
  released_fails(names, [](BrokerEvidence& e) { e.custody = Custody::kTee; });
}
TEST_F(Forged, HardwareEvidenceOfTheBrokerIsNotTakenOnTrust) {
  const std::vector<Failure> custody{
      {"custody needs no hardware evidence of the broker", Reason::kUnsupported}};
  released_fails(custody, [](BrokerEvidence& e) {
    e.quote = BrokerQuote{Technology::kTdx, "broker-1", Bytes{1}, {}};
  });
  released_fails(
      custody, [](Receipt& r) { r.set.charter.custody = Custody::kTee; },
      [](Policy& p) { p.clauses.custody = {Custody::kTee}; },
      [](RunPlan& p) { p.custody = Custody::kTee; });
}
TEST_F(Forged, Witnesses) {
  SeededRandom random(61);
  for (int i = 0; i < 3; ++i) {
    released.witnesses.push_back(
        must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random)));
  }
  const auto set_with = [&](std::int64_t threshold, std::size_t signatures) {
    return [this, threshold, signatures](Receipt& r) {
      for (const auto& w : released.witnesses) {
        r.set.charter.witnesses.push_back(w.public_key().text());
      }
      r.set.charter.witness_threshold = threshold;
      r.cosignatures.resize(signatures);
    };
  };
  const auto policies = [](Policy& p) { p.clauses.rollback = "witnessed"; };
  const auto plan = [](RunPlan& p) { p.rollback = "witnessed"; };
  released_fails({}, set_with(2, 2), policies, plan);
  released_fails({}, set_with(0, 1));  // more than was asked for
  const Failure most{"most witnesses cosigned the log", Reason::kRollbackNotAllowed};
  released_fails({most}, set_with(2, 1), policies, plan);
  released_fails({most}, set_with(1, 1), policies, plan);  // a minority could cosign two histories
  const auto second = [](auto change) {
    return [change](Cosignature& c, std::size_t i) {
      if (i == 1) change(c);
    };
  };
  const Failure state{"cosigned by a witness", Reason::kBadInclusion};
  released_fails({state}, set_with(2, 2), policies, plan,
                 second([](Cosignature& c) { ++c.epoch; }));
  released_fails({state}, set_with(2, 2), policies, plan,
                 second([](Cosignature& c) { ++c.tree_size; }));
  released_fails({state}, set_with(2, 2), policies, plan,
                 second([](Cosignature& c) { c.tree_root[0] ^= 1; }));
  const auto third = [](auto change) {
    return [change](Signed<Cosignature>& c, std::size_t i) {
      if (i == 2) change(c);
    };
  };
  released_fails({{"cosigned by a witness", Reason::kBadSignature}}, set_with(2, 3), policies, plan,
                 third([](Signed<Cosignature>& c) { c.signature[0] ^= 1; }));
  released_fails({{"cosigned by a witness", Reason::kWrongRole}}, set_with(2, 3), policies, plan,
                 third([this](Signed<Cosignature>& c) {
                   c = must(sign(Hash32{}, c.body, released.w.owner.key));
                 }));
  Receipt twice = released.with(set_with(2, 2), policies, plan);
  twice.cosignatures.push_back(twice.cosignatures[0]);
  const Failure order{"cosignatures in the order of the charter's witnesses, each once",
                      Reason::kConflict};
  expect_failures(released, twice, {order});
  twice.cosignatures.erase(twice.cosignatures.begin() + 1);
  expect_failures(released, twice, {order, most});
  Receipt swapped = released.with(set_with(2, 2), policies, plan);
  std::swap(swapped.cosignatures[0], swapped.cosignatures[1]);
  expect_failures(released, swapped, {order});
}

// ---- identities, assets and policies ----
TEST_F(Forged, Identities) {
  SeededRandom random(62);
  const auto stranger = make_person(random);
  // The reviewer's key, rotated by somebody else.
  const auto rotated = [&](Receipt& r) {
    auto& chain = *std::find_if(r.identities.begin(), r.identities.end(),
                                [&](const auto& c) { return c.id() == held->w.reviewer.id(); });
    chain.rotations = {
        must(sign(released.w.set.id(), Rotation{chain.id(), 1, stranger.key.public_key().text()},
                  stranger.key))};
  };
  held_fails({{"no key after the last one that signed here", Reason::kBadStructure},
              {"keys of a reviewer (", Reason::kBadSignature},
              {"has a part in this job", Reason::kBadStructure},
              {"ruling for data@1: approve", Reason::kWrongRole},
              {"ruling for image@1: approve", Reason::kWrongRole}},
             rotated);
  const Failure order{"in the order of their ids, each once", Reason::kBadStructure};
  released_fails({order}, [](Receipt& r) { r.identities.push_back(r.identities[0]); });
  released_fails({order}, [](Receipt& r) { std::swap(r.identities[0], r.identities[1]); });
  released_fails({{"has a part in this job", Reason::kBadStructure}},
                 [&](Receipt& r) { add_identity(r, stranger.chain); });
}
TEST_F(Forged, AssetsAreTheOwners) {
  const auto& consumer = released.w.consumer.key;
  const auto by_consumer = signed_by<VersionRecord>(consumer);
  const auto policy_by_consumer = signed_by<Policy>(consumer);
  const std::vector<std::string> names{"data@1", "image@1"};
  for (std::size_t asset = 0; asset < names.size(); ++asset) {
    const std::vector<Failure> owners{
        {names[asset] + " and its policy are signed by the owner of ", Reason::kBadSignature},
        {kAllows, Reason::kBadSignature}};
    released_fails(owners, [&](Signed<VersionRecord>& s, std::size_t i) {
      if (i == asset) by_consumer(s);
    });
    released_fails(owners, [&](Signed<Policy>& s, std::size_t i) {
      if (i == asset) policy_by_consumer(s);
    });
  }
  Receipt fewer = released.with();
  fewer.versions.pop_back();
  expect_failures(released, fewer,
                  {{"one record and one policy for each", Reason::kPolicyMismatch},
                   {kAllows, Reason::kPolicyMissing}});
}
TEST_F(Forged, ThePlanRestsOnThesePolicies) {
  const std::vector<Failure> rests{{"the plan rests on this policy", Reason::kPolicyMismatch},
                                   {kSamePlan, Reason::kPlanMismatch}};
  released_fails(rests, [](RunPlan& p) { p.policies[0].policy_hash[0] ^= 1; });
  released_fails(rests, [](RunPlan& p) { ++p.policies[0].serial; });
  released_fails(rests, [](RunPlan& p) { p.policies[0].owner_id[0] ^= 1; });
  released_fails(rests, [](RunPlan& p) { p.policies[0].asset_version_id[0] ^= 1; });
}
TEST_F(Forged, Beacons) {
  const auto one = [](Receipt& r) { r.beacons.resize(1); };
  released_fails({}, one, [](OwnerBeacon& b) { b.time = kNow; });
  const char still[] = "the owner still stood by the policy";
  released_fails({{still, Reason::kBadValue}}, one, [](OwnerBeacon& b) { b.time = kNow + 1; });
  released_fails({{still, Reason::kPolicyMismatch}}, one,
                 [](OwnerBeacon& b) { b.policy_hash[0] ^= 1; });
  released_fails({{still, Reason::kPolicyMismatch}}, one,
                 [](OwnerBeacon& b) { b.asset_version_id[0] ^= 1; });
  released_fails({{still, Reason::kPolicyMismatch}}, one,
                 [this](OwnerBeacon& b) { b.owner_id = released.w.consumer.id(); });
  released_fails({{still, Reason::kBadSignature}}, one,
                 signed_by<OwnerBeacon>(released.w.consumer.key));
}

// ---- submission, plan, credential ----
TEST_F(Forged, Submission) {
  released_fails(
      {{"signed by the consumer", Reason::kBadSignature}, {kAllows, Reason::kBadSignature}},
      signed_by<Submission>(released.w.owner.key));
  released_fails({{"the job spec is valid", Reason::kBadValue}, {kAllows, Reason::kBadValue}},
                 [](Submission& s) { s.spec.kind = "Pod"; });
}
TEST_F(Forged, Leases) {
  released_fails({{"lease ", Reason::kLeaseExpired}, {kAllows, Reason::kLeaseExpired}},
                 [](Lease& l) { l.not_after = kNow - 1; });
  released_fails({{"lease ", Reason::kLeaseMissing}, {kAllows, Reason::kLeaseMissing}},
                 [](Lease& l) { l.consumer_id[0] ^= 1; });
  released_fails({{"lease ", Reason::kLeaseMissing}, {kAllows, Reason::kLeaseMissing}},
                 signed_by<Lease>(released.w.consumer.key));
  // A second one: that the consumer never named, that the job did not use, and of an asset that is
  // not in the job.
  const auto second = [](Receipt& r) {
    r.leases.push_back(r.leases[0]);
    r.leases[1].body.lease_id = Id16{2};
  };
  const Failure unused{"no lease but those that the job used", Reason::kBadStructure};
  released_fails({{"lease ", Reason::kLeaseMissing}, unused}, second);
  released_fails({unused}, second, [](Submission& s) { s.leases.push_back(Id16{2}); });
  released_fails(
      {{"lease ", Reason::kLeaseMissing}, unused}, second,
      [](Submission& s) { s.leases.push_back(Id16{2}); },
      [](Lease& l, std::size_t i) {
        if (i == 1) l.asset_id[0] ^= 1;
      });
}
TEST_F(Forged, Plan) {
  released_fails({{"run plan is signed by the set", Reason::kBadSignature}},
                 signed_by<RunPlan>(released.w.owner.key));
  released_fails({{kAllows, Reason::kPurposeNotAllowed}},
                 [](Policy& p) { p.clauses.purposes = {"teaching"}; });
  const std::vector<Failure> other{{kSamePlan, Reason::kPlanMismatch}};
  released_fails(other, [](RunPlan& p) { ++p.attempts; });
  released_fails(other, [](RunPlan& p) { ++p.gate.hold_score; });
  released_fails(other, [](RunPlan& p) { p.controls.mandatory.pop_back(); });
  released_fails({other[0], kCharge}, [](RunPlan& p) { --p.charges[0].free_bits; });
  released_fails(other, [](RunPlan& p) { p.charges[0].code_id = "other-1"; });
  released_fails(other, [](RunPlan& p) { p.residual_channels.pop_back(); });
  released_fails(other, [](RunPlan& p) { ++p.reviewers_needed; });
}
TEST_F(Forged, Credential) {
  released_fails({{"credential is signed by the set", Reason::kBadSignature}},
                 signed_by<Credential>(released.w.owner.key));
  released_fails({{"for this job and plan", Reason::kCredentialForeign}},
                 [](Credential& c) { c.job_id[0] ^= 1; });
  released_fails({{"for this job and plan", Reason::kCredentialForeign}},
                 [](Credential& c) { c.plan_hash[0] ^= 1; });
  released_fails({{"given after the plan", Reason::kCredentialExpired}},
                 [](Credential& c) { c.expires = kNow - 1; });
}

// ---- environment and run ----
TEST_F(Forged, Environment) {
  const Failure binds{"evidence binds nonce", Reason::kEvidenceRejected};
  released_fails({binds}, [](NodeIntroduction& n) { n.report_data[0] ^= 1; });
  released_fails({binds}, [](NodeIntroduction& n) { n.launch_config[0] ^= 1; });
  released_fails({{"introduced for this attempt", Reason::kEvidenceRejected}},
                 [](NodeIntroduction& n) { n.job_id[0] ^= 1; });
  released_fails({{"introduced for this attempt", Reason::kEvidenceRejected}},
                 [](NodeIntroduction& n) { ++n.attempt; });
  // A node that no owner names.
  const auto& stranger = released.w.owner.key;
  released_fails({{"every owner allows this platform", Reason::kTeeNotAllowed}},
                 signed_by<NodeIntroduction>(stranger), signed_by<DestroyedClaim>(stranger));
}
TEST_F(Forged, RunIsOfThisAttempt) {
  released_fails({{"signed by the agent", Reason::kBadSignature}},
                 signed_by<RunStatement>(released.w.node));
  const std::vector<Failure> attempt{{"of this attempt", Reason::kPlanMismatch}};
  released_fails(attempt, [](RunStatement& s) { s.manifest.context.job_id[0] ^= 1; });
  released_fails(attempt, [](RunStatement& s) { ++s.manifest.context.attempt; });
  released_fails(attempt, [](RunStatement& s) { s.manifest.context.plan_hash[0] ^= 1; });
  released_fails(attempt, [](RunStatement& s) { s.evidence[0] ^= 1; });
}
TEST_F(Forged, RunIsWhatWasPlanned) {
  released_fails({{"the image is the one that was submitted", Reason::kImageDigestMismatch}},
                 [](RunStatement& s) { s.image_digest = "sha256:" + std::string(64, 'b'); });
  released_fails({{"the plan's controls", Reason::kPlanMismatch}},
                 [](RunStatement& s) { ++s.controls.pids; });
  released_fails({{"names the plan's residual channels", Reason::kPlanMismatch}},
                 [](RunStatement& s) { s.residual_channels.pop_back(); });
  const std::vector<Failure> recipients{
      {"one sealed key for each result key and each reviewer", Reason::kWrongRecipient}};
  released_fails(recipients, [](RunStatement& s) { s.manifest.wrapped_content.push_back({}); });
  released_fails(recipients, [](RunStatement& s) { s.manifest.wrapped_preview.push_back({}); });
  released_fails(recipients, [](RunStatement& s) { s.manifest.context.review.reset(); });
  released_fails({{"the gate's verdict is one that it can give", Reason::kOutputInvalid}},
                 [](RunStatement& s) { s.manifest.context.verdict.cause = GateCause::kCopies; });
}
TEST_F(Forged, SealAcknowledgement) {
  released_fails({{"seal acknowledgement is signed by the set", Reason::kBadSignature}},
                 signed_by<SealAck>(released.w.owner.key));
  released_fails({{"acknowledges this output", Reason::kBadHash}},
                 [](SealAck& a) { a.manifest[0] ^= 1; });
  released_fails({{"acknowledges this output", Reason::kBadHash}},
                 [](SealAck& a) { a.job_id[0] ^= 1; });
  released_fails({{"acknowledges this output", Reason::kBadHash}},
                 [](SealAck& a) { a.attempt += 1; });
}

// ---- review ----
TEST_F(Forged, ReleasedWithoutAPerson) {
  const std::vector<Failure> person{
      {"every owner's gate clause releases this without a person", Reason::kHeld}};
  released_fails(person, [](RunStatement& s) {
    s.manifest.context.verdict.recommendation = Recommendation::kHold;
  });
  const auto charged = [](auto change) {
    return [change](ReleaseStatement& s) {
      for (auto& c : s.charges) change(c);
    };
  };
  // The charge follows from the declaration, whatever the agent says and the set signs.
  released_fails(
      {person[0], kCharge},
      [](RunStatement& s) { s.manifest.context.verdict.charge.free_bits = 2049; },
      charged([](PlanCharge& c) { c.free_bits = 2049; }));
  released_fails(
      {kCharge}, [](RunStatement& s) { --s.manifest.context.verdict.charge.free_bits; },
      charged([](PlanCharge& c) { --c.free_bits; }));
  released_fails(
      {kCharge}, [](RunStatement& s) { s.manifest.context.verdict.exit_class = JobExit::kFailed; },
      [](ReleaseStatement&) {});
  released_fails(
      {person[0], kCharge},
      [](RunStatement& s) { s.manifest.context.verdict.charge.verified_bits = 65537; },
      charged([](PlanCharge& c) { c.verified_bits = 65537; }));
  released_fails(
      {kCharge}, [](RunStatement& s) { s.manifest.context.verdict.charge.verified_bits = 1; },
      charged([](PlanCharge& c) { c.verified_bits = 1; }));
  released_fails(
      person, [](RunStatement& s) { s.manifest.context.verdict.charge.zcdp_micro = 1; },
      charged([](PlanCharge& c) { c.zcdp_micro = 1; }));
  // What the second attempt costs counts, too.
  ReceiptForge full(Ending::kReleased, [](BrokerWorld& w) { w.free_bits = 2048; });
  fails(full, person, charged([](PlanCharge& c) { c.free_bits = 2049; }),
        [](Credential& c) { c.attempt = 2; });
  released_fails(
      person, [](Policy& p) { p.clauses.gate.output_types.push_back(OutputType::kOpaque); },
      [](RunPlan& p) { p.gate.output_types.push_back(OutputType::kOpaque); },
      [](Submission& s) {
        s.spec.spec.outputs[0].type = OutputType::kOpaque;
        s.spec.spec.outputs[0].schema.reset();
      });
  // A ruling about something that was never held.
  released_fails({{"never held, so nobody ruled", Reason::kWrongState}}, [this](Receipt& r) {
    add_identity(r, released.w.reviewer.chain);
    r.rulings.resize(1);
  });
}
TEST_F(Forged, HoldNotice) {
  held_fails({{"hold notice is signed by the set", Reason::kBadSignature}},
             signed_by<HoldNotice>(released.w.owner.key));
  const std::vector<Failure> about{
      {"is about this output and these policies", Reason::kPlanMismatch}};
  held_fails(about, [](HoldNotice& n) { n.manifest[0] ^= 1; });
  held_fails(about, [](HoldNotice& n) { n.ciphertext[0] ^= 1; });
  held_fails(about, [](HoldNotice& n) { std::swap(n.policy_hashes[0], n.policy_hashes[1]); });
  // Its time follows from the one at which it expires.
  const std::vector<Failure> order{
      {"held after the seal and before the decision", Reason::kBadValue}};
  held_fails(order, [](HoldNotice& n) { --n.expires; });
  held_fails(order, [](HoldNotice& n) { ++n.expires; });
  const auto long_policy = [](Policy& p) { p.clauses.not_after = kNow + 2'000'000; };
  held_fails(
      {}, [](ReleaseStatement& s) { s.time = kNow + policy::kHoldSeconds; }, long_policy);
  held_fails(
      {{"released before the hold expired", Reason::kExpired}},
      [](ReleaseStatement& s) { s.time = kNow + policy::kHoldSeconds + 1; }, long_policy);
}
TEST_F(Forged, Rulings) {
  const auto first = [](auto change) {
    return [change](Ruling& r, std::size_t i) {
      if (i == 0) change(r);
    };
  };
  const Failure enough{"enough reviewers of every owner approved", Reason::kHeld};
  const std::string approve = "ruling for data@1: approve";
  held_fails({{approve, Reason::kPlanMismatch}}, first([](Ruling& r) { r.hold_notice[0] ^= 1; }));
  held_fails({{approve, Reason::kPlanMismatch}}, first([](Ruling& r) { r.manifest[0] ^= 1; }));
  held_fails({{approve, Reason::kPlanMismatch}}, first([](Ruling& r) { r.ciphertext[0] ^= 1; }));
  held_fails({{"ruling for an unknown policy: approve", Reason::kPolicyMismatch}, enough},
             first([](Ruling& r) { r.owner_policy_hash[0] ^= 1; }));
  held_fails({{approve, Reason::kBadValue}},
             first([](Ruling& r) { r.time = kNow - policy::kReviewerSkewSeconds - 1; }));
  held_fails({{approve, Reason::kBadValue}},
             first([](Ruling& r) { r.time = kNow + policy::kReviewerSkewSeconds + 1; }));
  held_fails({}, [](Ruling& r, std::size_t i) {
    r.time = kNow + (i == 0 ? 1 : -1) * policy::kReviewerSkewSeconds;
  });
  // By the owner, who is in the receipt and no reviewer.
  const auto by_owner = signed_by<Ruling>(released.w.owner.key);
  held_fails({{approve, Reason::kWrongRole}}, [&](Signed<Ruling>& s, std::size_t i) {
    if (i == 0) by_owner(s);
  });
  held_fails({{"one ruling for each reviewer and policy", Reason::kConflict}},
             [](Receipt& r) { r.rulings.push_back(r.rulings[0]); });
  held_fails({enough}, [](Receipt& r) { r.rulings.pop_back(); });
  held_fails({enough}, first([](Ruling& r) { r.decision = RulingDecision::kReject; }));
  // Reasons are told, so they are of the closed list and charged.
  const Failure unpaid{"every owner was charged in full", Reason::kBudgetExceeded};
  held_fails({{approve, Reason::kBadValue}, unpaid},
             first([](Ruling& r) { r.reasons = {"small-cells"}; }));
  held_fails({enough, unpaid}, first([](Ruling& r) {
               r.decision = RulingDecision::kReject;
               r.reasons = {"small-cells"};
             }));
}

// ---- decision, log, destruction ----
TEST_F(Forged, DecisionIsOfThisRun) {
  released_fails({{"release statement is signed by the set", Reason::kBadSignature}},
                 signed_by<ReleaseStatement>(released.w.owner.key));
  const Failure run{"of this run", Reason::kPlanMismatch};
  // The evidence's nonce follows the statement, so it is about another job too.
  released_fails({run}, [](ReleaseStatement& s) { s.run_statement[0] ^= 1; });
  released_fails({run}, [](ReleaseStatement& s) { s.manifest[0] ^= 1; });
  released_fails({run}, [](ReleaseStatement& s) { ++s.verdict.duration_bucket; });
  released_fails({{"broker evidence names these keys and this job", Reason::kBrokerUntrusted}, run},
                 [](ReleaseStatement& s) { s.job_id[0] ^= 1; });
  held_fails({{"names these rulings", Reason::kBadHash}},
             [](ReleaseStatement& s) { s.rulings.pop_back(); });
  held_fails({{"every owner was charged in full", Reason::kBudgetExceeded},
              {"the gate had not rejected it", Reason::kRejected}},
             [](RunStatement& s) {
               s.manifest.context.verdict = gbx::testing::rejection(GateCause::kMalformed);
             });
}
TEST_F(Forged, ChargedInFull) {
  const std::vector<Failure> charged{{"every owner was charged in full", Reason::kBudgetExceeded}};
  const auto first = [&](auto change) {
    released_fails(charged, [change](ReleaseStatement& s) { change(s.charges[0]); });
  };
  first([](PlanCharge& c) { --c.free_bits; });
  first([](PlanCharge& c) { ++c.free_bits; });
  first([](PlanCharge& c) { ++c.verified_bits; });
  first([](PlanCharge& c) { ++c.zcdp_micro; });
  first([](PlanCharge& c) { c.code_id = "control-1"; });
  first([](PlanCharge& c) { c.subject = Hash32{1}; });
  first([](PlanCharge& c) { c.owner_id[0] ^= 1; });
  first([](PlanCharge& c) { c.asset_id[0] ^= 1; });
  released_fails(charged, [](ReleaseStatement& s) { s.charges.pop_back(); });
  // Of eight attempts three may have had the data, by the plan: two bits. The same for every owner.
  const auto eighth = [](Credential& c) { c.attempt = 8; };
  const auto more = [](std::int64_t bits, std::int64_t to_second) {
    return [bits, to_second](ReleaseStatement& s) {
      s.charges[0].free_bits += bits;
      s.charges[1].free_bits += to_second;
    };
  };
  released_fails({}, eighth, more(2, 2));
  released_fails(charged, eighth, more(3, 3));
  released_fails(charged, eighth, more(2, 1));
  released_fails(charged, more(1, 1));  // the first attempt of a job
  ReceiptForge rejected(Ending::kRejected);
  fails(rejected, charged, [](ReleaseStatement& s) { s.charges[0].free_bits = 1; });
  fails(rejected, charged, [](ReleaseStatement& s) { s.charges[0].code_id = policy::kSchemaCode; });
}
TEST_F(Forged, ReasonsAndTimes) {
  const std::vector<Failure> reasons{{"reasons", Reason::kBadValue}};
  released_fails(reasons, [](ReleaseStatement& s) { s.reasons = {"output-malformed"}; });
  ReceiptForge rejected(Ending::kRejected);
  fails(rejected, reasons, [](ReleaseStatement& s) { s.reasons.clear(); });
  fails(rejected, reasons, [](ReleaseStatement& s) { s.reasons = {"row-1119"}; });
  const std::vector<Failure> times{{"times are in order", Reason::kBadValue}};
  released_fails(times, [](SealAck& a) { a.time = kNow - 1; });
  released_fails(times, [](SealAck& a) { a.time = kNow + 1; });
  released_fails(times, [](BrokerEvidence& e) { ++e.time; });
  released_fails(
      times, [](ReleaseStatement& s) { s.time = kNow + 2'000'001; },
      // later than the verifier's clock
      [](Policy& p) { p.clauses.not_after = kNow + 3'000'000; });
  released_fails(
      {{"the policy of data@1 had not expired", Reason::kPolicyExpired}},
      [](ReleaseStatement& s) { s.time = kNow + 6; },
      [](Policy& p, std::size_t i) {
        if (i == 0) p.clauses.not_after = kNow + 5;
      });
}
TEST_F(Forged, Log) {
  released_fails({{"the entry says what the statement says", Reason::kBadStructure}},
                 [](Json& entry) { entry["body"]["holdNotice"] = std::string(64, '1'); });
  const std::vector<Failure> in_log{{"the entry is in the set's log", Reason::kBadInclusion}};
  released_fails(in_log, [](Inclusion& in) { in.leaf_salt[0] ^= 1; });
  released_fails(in_log, [](Inclusion& in) { in.path.pop_back(); });
  // also that of the broker's evidence
  released_fails(in_log, [](Inclusion& in) { in.root[0] ^= 1; });
  released_fails(in_log, [](BrokerEvidence& e) { e.tree_root[0] ^= 1; });
  released_fails(in_log, [](BrokerEvidence& e) { ++e.tree_size; });
}
TEST_F(Forged, Destruction) {
  released_fails({{"signed by the node", Reason::kBadSignature}},
                 signed_by<DestroyedClaim>(released.w.owner.key));
  released_fails({{"about this attempt", Reason::kPlanMismatch}},
                 [](DestroyedClaim& d) { d.job_id[0] ^= 1; });
  released_fails({{"about this attempt", Reason::kPlanMismatch}},
                 [](DestroyedClaim& d) { ++d.attempt; });
}

}  // namespace
}  // namespace gbx::broker
