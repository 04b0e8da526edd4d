#include "broker/core.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <regex>
#include <set>

#include "base/os.h"
#include "broker/testing.h"
#include "policy/receipt_verify.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::BrokerWorld;
using gbx::testing::clean_verdict;
using gbx::testing::copy;
using gbx::testing::FakeAgent;
using gbx::testing::KeySet;
using gbx::testing::kJobBits;
using gbx::testing::kNow;
using gbx::testing::rejection;

using gbx::testing::make_agent;
using gbx::testing::make_asset;
using gbx::testing::make_key_set;
using gbx::testing::make_publish;
using gbx::testing::must;
using gbx::testing::next_policy;
using gbx::testing::resign;

TEST(Broker, AWholeJob) {
  BrokerWorld w(1);
  w.start_and_publish();
  auto run = w.run_until_sealed(w.submission());
  // The agent opens what it was sent: the image key first, then the data key.
  auto image = open_key_bundle(run.agent.hpke, run.keys[0].context, run.keys[0].sealed);
  auto data = open_key_bundle(run.agent.hpke, run.keys[1].context, run.keys[1].sealed);
  ASSERT_TRUE(image.ok() && data.ok());
  ASSERT_EQ(image->size(), 1u);
  ASSERT_EQ(data->size(), 1u);
  EXPECT_TRUE((*image)[0].key == w.image.key);
  EXPECT_TRUE((*data)[0].key == w.data.key);
  EXPECT_EQ((*data)[0].version_id, w.data.version_id());
  // Released at once: the policies' slot is 0.
  auto j = w.judge(run.job_id());
  ASSERT_TRUE(j.ok()) << j.error().line();
  ASSERT_EQ(j->state, JudgementState::kReleased);
  ASSERT_EQ(j->release->outer_keys.size(), 1u);
  auto plain = open_result(w.consumer.hpke, 0, run.sealed.seal.statement.body.manifest,
                           run.sealed.output, j->release->outer_keys[0]);
  ASSERT_TRUE(plain.ok()) << plain.error().line();
  EXPECT_EQ(as_text(plain->view(SecretAccess{})), "the checked output");
  EXPECT_TRUE(j->release->statement.verify(w.set.id(), w.set.signing.public_key()).ok());
  EXPECT_EQ(j->release->statement.body.charges.size(), 2u);  // data and image
  EXPECT_EQ(j->release->statement.body.charges[0].free_bits, kJobBits);
  // Asking again gives the same bytes, also after a restart.
  const std::string first = canonical(to_json(*j));
  EXPECT_EQ(canonical(to_json(*w.judge(run.job_id()))), first);
  const std::string before = canonical(w.core->state().snapshot());
  ASSERT_TRUE(w.start().ok());
  EXPECT_EQ(canonical(to_json(*w.judge(run.job_id()))), first);
  Json after = w.core->state().snapshot();
  EXPECT_EQ(*after.find("boots")->integer(), 2);
  after["boots"] = 1;
  EXPECT_EQ(canonical(after), before);
  auto receipt = w.call<Receipt>(method::kReceipt, JobRequest{run.job_id()});
  ASSERT_TRUE(receipt.ok()) << receipt.error().line();
}

// ---- publishing ----
TEST(BrokerPublish, IsIdempotentAndProved) {
  BrokerWorld w(2);
  must(w.start());
  const Publish p = make_publish(w.set, w.data, w.random);
  const auto ack = must(w.call<Signed<PublishAck>>(method::kPublish, p));
  EXPECT_TRUE(ack.verify(w.set.id(), w.set.signing.public_key()).ok());
  Json entry;
  entry["kind"] = "publish";
  entry["time"] = ack.body.time;
  entry["body"]["publish"] = to_json(p);
  EXPECT_TRUE(translog::verify(ack.body.inclusion, as_bytes(canonical(entry))).ok());
  const auto size = w.core->log_size();
  w.clock.advance(5000);
  // A second wrapping of the same policy is the same publication.
  EXPECT_EQ(canonical(to_json(must(w.publish(w.data)))), canonical(to_json(ack)));
  // By another key it is not what the acknowledgement proves.
  Publish other = p;
  other.policy = must(sign(w.set.id(), p.policy.body, w.owner.recovery));
  EXPECT_EQ(w.call<Signed<PublishAck>>(method::kPublish, other).reason(), Reason::kPolicyStale);
  EXPECT_EQ(w.core->log_size(), size);
}

TEST(BrokerPublish, RefusesWithTheReason) {
  BrokerWorld w(3);
  w.start_and_publish();
  const auto refuse = [&](const Publish& p, Reason reason) {
    const auto size = w.core->log_size();
    EXPECT_EQ(w.call<Signed<PublishAck>>(method::kPublish, p).reason(), reason);
    EXPECT_EQ(w.core->log_size(), size);
  };
  next_policy(w.data);
  Publish p = make_publish(w.set, w.data, w.random);
  p.policy.body.clauses.any_command = true;  // tampered after signing
  refuse(p, Reason::kBadSignature);
  p = make_publish(w.set, w.data, w.random);
  p.wrapped_key = must(wrap_dataset_key(must(crypto::HpkeKeyPair::generate(w.random)).public_key(),
                                        w.data.policy, w.data.key, w.random));
  refuse(p, Reason::kWrongRecipient);
  p = make_publish(w.set, w.data, w.random);
  p.wrapped_key = must(wrap_dataset_key(w.set.kek.public_key(), w.data.policy,
                                        w.random.secret<DatasetKey>(32), w.random));
  refuse(p, Reason::kBadCommitment);
  auto skipped = w.data.policy;
  ++w.data.policy.serial;
  refuse(make_publish(w.set, w.data, w.random), Reason::kPolicyStale);
  w.data.policy = skipped;
  w.data.policy.prev = Hash32{9};
  refuse(make_publish(w.set, w.data, w.random), Reason::kChainBroken);
  w.data.policy = skipped;
  w.data.policy.kek_epoch = 2;
  refuse(make_publish(w.set, w.data, w.random), Reason::kPolicyMismatch);
  w.data.policy = skipped;
  w.data.policy.commit_dk = Hash32{9};
  refuse(make_publish(w.set, w.data, w.random), Reason::kBadCommitment);
  // A text that would move a reader's cursor, and no key where one is needed.
  w.data.policy = skipped;
  w.data.policy.clauses.purposes = {"x\n- Where: tdx"};
  refuse(make_publish(w.set, w.data, w.random), Reason::kBadValue);
  w.data.policy = skipped;
  p = make_publish(w.set, w.data, w.random);
  p.wrapped_key.reset();
  refuse(p, Reason::kMissingField);
  // Reviewers who could neither rule nor look.
  for (auto member : {&Reviewer::key, &Reviewer::hpke}) {
    w.data.policy = skipped;
    w.data.policy.clauses.reviewers[0].*member = "ed25519:00";
    refuse(make_publish(w.set, w.data, w.random), Reason::kBadEncoding);
  }
}

// Each of what names asset, version and owner, as another asset's policy of the same owner has it.
TEST(BrokerPublish, APolicyOfAnotherAssetIsRefused) {
  BrokerWorld w(3);
  w.start_and_publish();
  next_policy(w.data);
  const auto size = w.core->log_size();
  const auto mine = w.data.policy;
  const auto refuse = [&](auto change, Reason reason) {
    w.data.policy = mine;
    change(w.data.policy);
    const Publish p = make_publish(w.set, w.data, w.random);
    EXPECT_EQ(w.call<Signed<PublishAck>>(method::kPublish, p).reason(), reason);
    EXPECT_EQ(w.core->log_size(), size);
  };
  refuse([&](Policy& p) { p.asset_id = w.image.record.asset_id; }, Reason::kWrongAsset);
  refuse([&](Policy& p) { p.asset_version_id = w.image.record.id(); }, Reason::kWrongAsset);
  refuse(
      [&](Policy& p) {
        p.asset_id = w.image.record.asset_id;
        p.asset_version_id = w.image.record.id();
      },
      Reason::kWrongAsset);
  refuse([&](Policy& p) { p.owner_id = w.consumer.id(); }, Reason::kWrongOwner);
}

TEST(BrokerPublish, AnAssetBelongsToWhoPublishedItFirst) {
  BrokerWorld w(4);
  w.start_and_publish();
  gbx::testing::Asset stolen =
      make_asset(copy(w.consumer), AssetKind::kDataset, w.clauses(), w.random);
  stolen.record.asset_id = w.data.record.asset_id;
  stolen.record.commit_dk = dataset_key_commitment(stolen.record.asset_id, stolen.key);
  stolen.policy.asset_id = stolen.record.asset_id;
  stolen.policy.commit_dk = stolen.record.commit_dk;
  stolen.policy.asset_version_id = stolen.record.id();
  EXPECT_EQ(w.publish(stolen).reason(), Reason::kWrongOwner);
  // Nor can somebody else sign the next policy of the version itself.
  next_policy(w.data);
  Publish p = make_publish(w.set, w.data, w.random);
  p.policy = must(sign(w.set.id(), w.data.policy, w.consumer.key));
  EXPECT_EQ(w.call<Signed<PublishAck>>(method::kPublish, p).reason(), Reason::kBadSignature);
  p.owner = w.consumer.chain;
  EXPECT_EQ(w.call<Signed<PublishAck>>(method::kPublish, p).reason(), Reason::kWrongOwner);
}

TEST(BrokerPublish, AnOldPolicyIsNotAcknowledgedAgain) {
  BrokerWorld w(5);
  must(w.start());
  const Publish first = make_publish(w.set, w.data, w.random);
  must(w.call<Signed<PublishAck>>(method::kPublish, first));
  next_policy(w.data);
  w.data.policy.revoked = true;
  must(w.publish(w.data));
  EXPECT_EQ(w.call<Signed<PublishAck>>(method::kPublish, first).reason(), Reason::kPolicyStale);
}

TEST(BrokerPublish, RevokingNeedsNoKeyAndReinstatingDoes) {
  BrokerWorld w(5);
  w.start_and_publish();
  auto running = w.run_until_attested(w.submission());
  next_policy(w.data);
  w.data.policy.revoked = true;
  Publish p = make_publish(w.set, w.data, w.random);
  EXPECT_FALSE(p.wrapped_key);
  // A key would stay in the log for nothing.
  p.wrapped_key =
      must(wrap_dataset_key(w.set.kek.public_key(), w.data.policy, w.data.key, w.random));
  EXPECT_EQ(w.call<Signed<PublishAck>>(method::kPublish, p).reason(), Reason::kBadValue);
  EXPECT_EQ(must(w.publish(w.data)).body.serial, 2);
  EXPECT_EQ(w.authorise(w.submission()).reason(), Reason::kPolicyRevoked);
  EXPECT_EQ(w.key(running.agent, running.credential.body, running.evidence, 1, running.connection)
                .reason(),
            Reason::kPolicyRevoked);
  next_policy(w.data);
  w.data.policy.revoked = false;
  p = make_publish(w.set, w.data, w.random);
  Publish keyless = p;
  keyless.wrapped_key.reset();
  EXPECT_EQ(w.call<Signed<PublishAck>>(method::kPublish, keyless).reason(), Reason::kMissingField);
  must(w.call<Signed<PublishAck>>(method::kPublish, p));
  EXPECT_TRUE(w.authorise(w.submission()).ok());
}

TEST(BrokerIdentity, OnlyTheNewestKeySigns) {
  BrokerWorld w(6);
  w.start_and_publish();
  auto newer = must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, w.random));
  const auto rotation = must(sign(
      w.set.id(), Rotation{w.consumer.id(), 1, newer.public_key().text()}, w.consumer.recovery));
  SignedSubmission s = w.submission();
  SignedSubmission early = s;
  early.consumer.rotations = {rotation};
  EXPECT_EQ(w.authorise(early).reason(), Reason::kChainBroken);  // the log does not hold it yet
  const RotateRequest request{w.consumer.chain.identity, rotation};
  must(w.call<Empty>(method::kRotate, request));
  must(w.call<Empty>(method::kRotate, request));
  EXPECT_EQ(w.authorise(s).reason(), Reason::kChainBroken);  // the old key's chain
  EXPECT_EQ(w.authorise(early).reason(), Reason::kBadSignature);
  s.consumer.rotations = {rotation};
  s.submission = must(sign(w.set.id(), s.submission.body, newer));
  EXPECT_TRUE(w.authorise(s).ok());
  const auto thief =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, w.random));
  const RotateRequest forged{
      w.consumer.chain.identity,
      must(sign(w.set.id(), Rotation{w.consumer.id(), 2, thief.public_key().text()},
                w.consumer.key))};
  EXPECT_EQ(w.call<Empty>(method::kRotate, forged).reason(), Reason::kBadSignature);
}

// The owner's old key is stolen and rotated away: what the thief signs with it counts nowhere.
class RotatedAway : public ::testing::Test {
 protected:
  RotatedAway() : w(15) { w.start_and_publish(); }
  static crypto::SigningKey new_key(Random& random) {
    return must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
  }
  // Of a person, by the recovery key.
  Signed<Rotation> rotate(const gbx::testing::Person& who) {
    const auto rotation =
        must(sign(w.set.id(), Rotation{who.id(), 1, newer.public_key().text()}, who.recovery));
    must(w.call<Empty>(method::kRotate, RotateRequest{who.chain.identity, rotation}));
    return rotation;
  }
  BrokerWorld w;
  const crypto::SigningKey newer = new_key(w.random);
};

// A thief of the signing key rotates as often as he may: the recovery key still drives him out.
TEST_F(RotatedAway, AThiefCannotUseUpTheRotations) {
  crypto::SigningKey stolen = gbx::testing::copy(w.owner).key;
  IdentityChain chain = w.owner.chain;
  const auto next = [&](const crypto::SigningKey& by, const crypto::SigningKey& to) {
    const auto n = static_cast<std::int64_t>(chain.rotations.size()) + 1;
    auto r = must(sign(w.set.id(), Rotation{chain.id(), n, to.public_key().text()}, by));
    const auto answer = w.call<Empty>(method::kRotate, RotateRequest{chain.identity, r});
    if (answer.ok()) chain.rotations.push_back(std::move(r));
    return answer.ok() ? ok_status() : Status(answer.error());
  };
  for (std::size_t i = 0; i < kOwnRotations; ++i) {
    crypto::SigningKey his = new_key(w.random);
    ASSERT_TRUE(next(stolen, his).ok()) << i;
    stolen = std::move(his);
  }
  EXPECT_EQ(next(stolen, newer).reason(), Reason::kTooLarge);
  ASSERT_TRUE(next(w.owner.recovery, newer).ok());
  next_policy(w.data);
  w.data.policy.revoked = true;
  Publish p = make_publish(w.set, w.data, w.random);
  p.owner.rotations = chain.rotations;
  p.policy = must(sign(w.set.id(), p.policy.body, stolen));
  EXPECT_EQ(w.call<Signed<PublishAck>>(method::kPublish, p).reason(), Reason::kBadSignature);
  p.policy = must(sign(w.set.id(), p.policy.body, newer));
  EXPECT_TRUE(w.call<Signed<PublishAck>>(method::kPublish, p).ok());
  // It has as many left, and not more.
  for (std::size_t i = kOwnRotations + 1; i < kRotations; ++i) {
    ASSERT_TRUE(next(w.owner.recovery, newer).ok()) << i;
  }
  EXPECT_EQ(next(w.owner.recovery, newer).reason(), Reason::kTooLarge);
}

TEST_F(RotatedAway, SignsNoLease) {
  const SignedSubmission before = w.submission();
  auto running = w.run_until_attested(w.submission());
  rotate(w.owner);
  EXPECT_EQ(w.authorise(before).reason(), Reason::kLeaseMissing);
  // What was authorised by such a lease gets no key any more.
  EXPECT_EQ(w.key(running.agent, running.credential.body, running.evidence, 1, running.connection)
                .reason(),
            Reason::kLeaseMissing);
  SignedSubmission after = before;
  after.leases[0] = must(sign(w.set.id(), before.leases[0].body, newer));
  EXPECT_TRUE(w.authorise(after).ok());
}

TEST_F(RotatedAway, SignsNoRecordAndNoPolicy) {
  const Publish old_policy = [&] {
    auto next = make_asset(copy(w.owner), AssetKind::kDataset, w.clauses(), w.random);
    return make_publish(w.set, next, w.random);
  }();
  const auto rotation = rotate(w.owner);
  EXPECT_EQ(w.call<Signed<PublishAck>>(method::kPublish, old_policy).reason(),
            Reason::kChainBroken);
  Publish p = old_policy;
  p.owner.rotations = {rotation};
  EXPECT_EQ(w.call<Signed<PublishAck>>(method::kPublish, p).reason(), Reason::kBadSignature);
  p.policy = must(sign(w.set.id(), p.policy.body, newer));
  // the record is the thief's
  EXPECT_EQ(w.call<Signed<PublishAck>>(method::kPublish, p).reason(), Reason::kBadSignature);
  p.record = must(sign(w.set.id(), p.record.body, newer));
  EXPECT_TRUE(w.call<Signed<PublishAck>>(method::kPublish, p).ok());
  // The next policy of a version from before: its record stays as it was accepted.
  next_policy(w.data);
  Publish later = make_publish(w.set, w.data, w.random);
  later.owner.rotations = {rotation};
  later.policy = must(sign(w.set.id(), later.policy.body, newer));
  EXPECT_TRUE(w.call<Signed<PublishAck>>(method::kPublish, later).ok());
}

TEST_F(RotatedAway, SignsNoRulingAndNoCancellation) {
  GateVerdict v = clean_verdict();
  v.recommendation = Recommendation::kHold;
  const auto run = w.run_until_sealed(w.submission(), v);
  const auto held = must(w.judge(run.job_id()));
  ASSERT_EQ(held.state, JudgementState::kHeld);
  const Hash32 policy = run.plan.body.policies[0].policy_hash;
  gbx::testing::Person reviewer = copy(w.reviewer);
  reviewer.chain.rotations = {rotate(w.reviewer)};
  EXPECT_EQ(w.rule(w.reviewer, held.hold_notice->body, policy, RulingDecision::kApprove).reason(),
            Reason::kChainBroken);
  EXPECT_EQ(w.rule(reviewer, held.hold_notice->body, policy, RulingDecision::kApprove).reason(),
            Reason::kWrongRole);
  const Cancel wish{run.job_id(), w.consumer.id(), kNow};
  CancelRequest cancel{w.consumer.chain, must(sign(w.set.id(), wish, w.consumer.key))};
  cancel.consumer.rotations = {rotate(w.consumer)};
  EXPECT_EQ(w.call<Empty>(method::kCancel, cancel).reason(), Reason::kBadSignature);
  // A receipt of what was decided under the old keys holds.
  cancel.cancel = must(sign(w.set.id(), wish, newer));
  must(w.call<Empty>(method::kCancel, cancel));
  const auto receipt = must(w.call<Receipt>(method::kReceipt, JobRequest{run.job_id()}));
  const auto report = policy::verify_receipt(receipt, w.set.id());
  EXPECT_TRUE(report.valid) << report.first_failure().line();
  EXPECT_EQ(receipt.leases.size(), 1u);
  // It holds no key that signed nothing in it, so there is one way to write it: whoever adds a
  // later rotation changes it.
  Receipt longer = receipt;
  for (auto& chain : longer.identities) {
    EXPECT_TRUE(chain.rotations.empty());
    if (chain.id() == w.consumer.id()) chain.rotations = cancel.consumer.rotations;
  }
  EXPECT_EQ(policy::verify_receipt(longer, w.set.id()).first_failure().reason,
            Reason::kBadStructure);
}

// The consumer's: a job that was submitted with it gets nothing more, wherever it stands.
TEST_F(RotatedAway, TakesItsSubmissionsAlong) {
  const auto submission = w.submission();
  auto waiting = w.run_until_attested(w.submission());
  auto loading = w.run_until_attested(w.submission());
  must(w.key(loading.agent, loading.credential.body, loading.evidence, 1, loading.connection));
  const auto sealed = w.run_until_sealed(w.submission());
  const auto held = [&] {
    GateVerdict v = clean_verdict();
    v.recommendation = Recommendation::kHold;
    return w.run_until_sealed(w.submission(), v);
  }();
  const auto notice = must(w.judge(held.job_id())).hold_notice->body;
  const auto plan = must(w.authorise(submission));
  rotate(w.consumer);
  EXPECT_EQ(w.credential(plan.body.job_id, 1).reason(), Reason::kChainBroken);
  EXPECT_EQ(w.key(waiting.agent, waiting.credential.body, waiting.evidence, 1, waiting.connection)
                .reason(),
            Reason::kChainBroken);
  EXPECT_EQ(w.key(loading.agent, loading.credential.body, loading.evidence, 2, loading.connection)
                .reason(),
            Reason::kChainBroken);
  for (const auto& named : held.plan.body.policies) {
    must(w.rule(w.reviewer, notice, named.policy_hash, RulingDecision::kApprove));
  }
  for (const auto* run : {&sealed, &held}) {
    const auto j = must(w.judge(run->job_id()));
    ASSERT_EQ(j.state, JudgementState::kRejected);
    EXPECT_EQ(j.release->statement.body.reasons, std::vector<std::string>{"key-rotated"});
    const auto receipt = must(w.call<Receipt>(method::kReceipt, JobRequest{run->job_id()}));
    const auto report = policy::verify_receipt(receipt, w.set.id());
    EXPECT_TRUE(report.valid) << report.first_failure().line();
  }
}

// ---- authorising ----
TEST(BrokerAuthorise, TamperingAndTime) {
  BrokerWorld w(7);
  w.start_and_publish();
  SignedSubmission s = w.submission();
  SignedSubmission bad = s;
  bad.submission.body.spec.spec.args = {"--all"};
  EXPECT_EQ(w.authorise(bad).reason(), Reason::kBadSignature);
  bad = s;
  bad.leases[0].body.jobs = 1000;
  EXPECT_EQ(w.authorise(bad).reason(), Reason::kBadSignature);
  const auto plan = must(w.authorise(s));
  EXPECT_EQ(canonical(to_json(must(w.authorise(s)))), canonical(to_json(plan)));
  EXPECT_TRUE(plan.verify(w.set.id(), w.set.signing.public_key()).ok());
  EXPECT_EQ(plan.body.charges[0].free_bits, 608 + 2);  // three attempts: two bits more
  // The one job of the lease is used.
  SignedSubmission again = s;
  again.submission.body.nonce = Nonce32{1};
  resign(again, w.set.id(), w.consumer);
  EXPECT_EQ(w.authorise(again).reason(), Reason::kLeaseExhausted);
  SignedSubmission late = w.submission();
  w.clock.advance(10'001'000);
  EXPECT_EQ(w.authorise(late).reason(), Reason::kExpired);
  SignedSubmission expired = w.submission();
  w.clock.advance(100'000'000);
  expired.submission.body.not_after = kNow + 1'000'000;
  resign(expired, w.set.id(), w.consumer);
  EXPECT_EQ(w.authorise(expired).reason(), Reason::kLeaseExpired);
}

TEST(BrokerAuthorise, ExplainLogsNothing) {
  BrokerWorld w(8);
  w.start_and_publish();
  const auto size = w.core->log_size();
  SignedSubmission s = w.submission();
  auto e = must(w.call<Explanation>(method::kExplain, s));
  EXPECT_TRUE(e.allowed);
  ASSERT_TRUE(e.plan.has_value());
  s.submission.body.spec.spec.purpose = "curiosity";
  resign(s, w.set.id(), w.consumer);
  e = must(w.call<Explanation>(method::kExplain, s));
  EXPECT_FALSE(e.allowed);
  EXPECT_FALSE(e.plan.has_value());
  EXPECT_EQ(w.core->log_size(), size);
}

TEST(BrokerCancel, EndsAJobForGood) {
  BrokerWorld w(9);
  w.start_and_publish();
  auto run = w.run_until_attested(w.submission());
  const auto cancel = [&](const gbx::testing::Person& who) {
    return w.call<Empty>(
        method::kCancel,
        CancelRequest{who.chain,
                      must(sign(w.set.id(), Cancel{run.job_id(), who.id(), kNow}, who.key))});
  };
  EXPECT_EQ(cancel(w.owner).reason(), Reason::kWrongOwner);
  EXPECT_TRUE(cancel(w.consumer).ok());
  EXPECT_TRUE(cancel(w.consumer).ok());
  EXPECT_EQ(w.key(run.agent, run.credential.body, run.evidence, 1, run.connection).reason(),
            Reason::kJobCancelled);
  EXPECT_EQ(w.credential(run.job_id(), 2).reason(), Reason::kJobCancelled);
  EXPECT_EQ(w.authorise(run.submission).reason(), Reason::kJobCancelled);
}

TEST(BrokerCancel, ComesTooLateAfterTheDecision) {
  BrokerWorld w(18);
  w.start_and_publish();
  auto run = w.run_until_sealed(w.submission());
  EXPECT_EQ(must(w.judge(run.job_id())).state, JudgementState::kReleased);
  const auto spent = [&] {
    return w.core->state()
        .spent(run.plan.body.charges[0], w.consumer.id(), 0, Hash32{})
        .total_free_bits;
  };
  EXPECT_EQ(spent(), kJobBits);
  const auto size = w.core->log_size();
  const Cancel wish{run.job_id(), w.consumer.id(), kNow};
  EXPECT_EQ(
      w.call<Empty>(method::kCancel,
                    CancelRequest{w.consumer.chain, must(sign(w.set.id(), wish, w.consumer.key))})
          .reason(),
      Reason::kWrongState);
  EXPECT_EQ(spent(), kJobBits);
  EXPECT_EQ(w.core->log_size(), size);
}

// The data keys left: what the control channel tells is told, whatever follows.
TEST(BrokerCancel, CostsTheControlChannelOnceTheDataKeysLeft) {
  for (const bool data_keys : {false, true}) {
    BrokerWorld w(16);
    w.start_and_publish();
    auto run = w.run_until_attested(w.submission());
    const auto spent = [&](std::size_t i) {
      return w.core->state().spent(run.plan.body.charges[i], w.consumer.id(), 0, Hash32{});
    };
    for (std::int64_t stage = 1; stage <= (data_keys ? 2 : 1); ++stage) {
      must(w.key(run.agent, run.credential.body, run.evidence, stage, run.connection));
    }
    EXPECT_EQ(spent(0).total_free_bits, data_keys ? run.plan.body.charges[0].free_bits : 0);
    must(w.call<Empty>(
        method::kCancel,
        CancelRequest{
            w.consumer.chain,
            must(sign(w.set.id(), Cancel{run.job_id(), w.consumer.id(), kNow}, w.consumer.key))}));
    for (const std::size_t i : {0U, 1U}) {
      EXPECT_EQ(spent(i).total_free_bits, data_keys ? policy::kControlBits : 0);
      EXPECT_EQ(spent(i).period_free_bits, data_keys ? policy::kControlBits : 0);
    }
    const std::string before = canonical(*w.core->state().snapshot().find("ledger"));
    ASSERT_TRUE(w.start().ok());
    EXPECT_EQ(canonical(*w.core->state().snapshot().find("ledger")), before);
  }
}

// An attempt that is lost after it had the data keeps the whole reservation: what left with it is
// unknown.
TEST(BrokerCancel, ALostAttemptKeepsItsReservation) {
  BrokerWorld w(17);
  w.start_and_publish();
  auto run = w.run_until_attested(w.submission());
  for (const std::int64_t stage : {1, 2}) {
    must(w.key(run.agent, run.credential.body, run.evidence, stage, run.connection));
  }
  must(w.credential(run.job_id(), 2));  // the plane gave the first attempt up
  const auto& charge = run.plan.body.charges[0];
  EXPECT_EQ(w.core->state().spent(charge, w.consumer.id(), 0, Hash32{}).total_free_bits,
            charge.free_bits);
  EXPECT_GE(charge.free_bits, policy::kControlBits);
}

TEST(BrokerCancel, RejectsWhatWasSealedAndFreesTheBudget) {
  BrokerWorld w(10);
  for (auto* a : {&w.data, &w.image}) a->policy.clauses.gate.release_slot_seconds = 900;
  w.start_and_publish();
  w.clock.advance(1000);
  auto run = w.run_until_sealed(w.submission());
  EXPECT_EQ(must(w.judge(run.job_id())).state, JudgementState::kPending);
  must(w.call<Empty>(
      method::kCancel,
      CancelRequest{
          w.consumer.chain,
          must(sign(w.set.id(), Cancel{run.job_id(), w.consumer.id(), kNow}, w.consumer.key))}));
  const auto j = must(w.judge(run.job_id()));
  EXPECT_EQ(j.state, JudgementState::kRejected);
  EXPECT_EQ(j.release->statement.body.reasons, std::vector<std::string>{"cancelled"});
  EXPECT_TRUE(j.release->outer_keys.empty());
  const auto spent = w.core->state().spent(run.plan.body.charges[0], w.consumer.id(), 0, Hash32{});
  EXPECT_EQ(spent.total_free_bits, policy::kControlBits + policy::slot_bits({3600, 900}));
}

// ---- attempts ----
TEST(BrokerAttempt, CredentialsOfOtherJobsAndSetsAndTimes) {
  BrokerWorld w(20);
  w.start_and_publish();
  const auto s = w.submission();
  const auto plan = must(w.authorise(s));
  const auto other_plan = must(w.authorise(w.submission()));
  const auto credential = must(w.credential(plan.body.job_id, 1));
  const auto other = must(w.credential(other_plan.body.job_id, 1));
  EXPECT_EQ(canonical(to_json(must(w.credential(plan.body.job_id, 1)))),
            canonical(to_json(credential)));
  const auto agent = make_agent(w.random);
  const auto c = w.connect(agent);
  const Nonce32 nonce = must(w.hello(plan.body.job_id, 1, c));
  const auto refuse = [&](AttestRequest r, Reason reason) {
    EXPECT_EQ(w.call<AttestReply>(method::kAttest, r, c).reason(), reason);
  };
  // Made by nobody's set; of another job than the nonce's.
  auto forged = credential;
  forged.body.expires += 1000;
  refuse(w.attest_request(agent, forged, nonce, c), Reason::kCredentialForeign);
  const auto node_made = must(sign(w.set.id(), credential.body, w.node));
  refuse(w.attest_request(agent, node_made, nonce, c), Reason::kCredentialForeign);
  refuse(w.attest_request(agent, other, nonce, c), Reason::kNonceMismatch);
  EXPECT_EQ(w.credential(plan.body.job_id, 3).reason(), Reason::kSequenceMismatch);
  w.clock.advance(301'000);
  refuse(w.attest_request(agent, credential, nonce, c), Reason::kCredentialExpired);
}

TEST(BrokerAttempt, OneAgentForEachCredential) {
  BrokerWorld w(21);
  w.start_and_publish();
  auto run = w.run_until_attested(w.submission());
  const auto other = make_agent(w.random);
  EXPECT_EQ(w.attest(other, run.credential, w.connect(other)).reason(), Reason::kCredentialUsed);
  // The same agent comes back on a new connection, even late; its requests keep the first evidence.
  w.clock.advance(3'000'000);
  const auto again = w.connect(run.agent);
  EXPECT_EQ(must(w.attest(run.agent, run.credential, again)), run.evidence);
  EXPECT_TRUE(w.key(run.agent, run.credential.body, run.evidence, 1, again).ok());
}

TEST(BrokerAttempt, NonceKeyAndConnectionAreBound) {
  BrokerWorld w(22);
  w.start_and_publish();
  const auto plan = must(w.authorise(w.submission()));
  const auto credential = must(w.credential(plan.body.job_id, 1));
  const auto agent = make_agent(w.random);
  const auto c = w.connect(agent);
  const auto attest = [&](const AttestRequest& r, const ConnectionContext& on) {
    return w.call<AttestReply>(method::kAttest, r, on).reason();
  };
  EXPECT_EQ(attest(w.attest_request(agent, credential, Nonce32{}, c), c), Reason::kNonceMismatch);
  const Nonce32 old = must(w.hello(plan.body.job_id, 1, c));
  const Nonce32 fresh = must(w.hello(plan.body.job_id, 1, c));
  EXPECT_EQ(attest(w.attest_request(agent, credential, old, c), c), Reason::kNonceMismatch);
  EXPECT_EQ(attest(w.attest_request(agent, credential, Nonce32{5}, c), c),
            Reason::kEvidenceRejected);
  // A relay: evidence made for this connection, shown on another.
  const auto thief = make_agent(w.random);
  const auto elsewhere = w.connect(thief);
  must(w.hello(plan.body.job_id, 1, elsewhere));
  EXPECT_EQ(attest(w.attest_request(agent, credential, fresh, c), elsewhere),
            Reason::kAgentKeyMismatch);
  ConnectionContext same_key = w.connect(agent);
  must(w.hello(plan.body.job_id, 1, same_key));
  EXPECT_EQ(attest(w.attest_request(agent, credential, fresh, c), same_key),
            Reason::kEvidenceRejected);
  // A node that the owner does not name.
  auto stranger =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, w.random));
  auto r = w.attest_request(agent, credential, fresh, c);
  r.evidence.node = must(sign(w.set.id(), r.evidence.node->body, stranger));
  EXPECT_EQ(attest(r, c), Reason::kTeeNotAllowed);
  r = w.attest_request(agent, credential, fresh, c);
  r.evidence.technology = Technology::kTdx;
  EXPECT_EQ(attest(r, c), Reason::kEvidenceRejected);
  EXPECT_EQ(w.call<KeyReply>(method::kKey, w.key_request(agent, credential.body, Hash32{}, 1), c)
                .reason(),
            Reason::kUnauthenticated);
  const auto good = w.attest_request(agent, credential, fresh, c);
  const auto first = must(w.call<AttestReply>(method::kAttest, good, c));
  // a doubled message
  EXPECT_EQ(must(w.call<AttestReply>(method::kAttest, good, c)).evidence, first.evidence);
  // signed again, the same bytes
  EXPECT_EQ(attest(w.attest_request(agent, credential, fresh, c), c), Reason::kUninitialised);
}

TEST(BrokerAttempt, ACredentialLivesAnHourAtMost) {
  BrokerWorld w(34);
  w.start_and_publish();
  for (const auto& [start, lives] :
       {std::pair<std::int64_t, std::int64_t>{300, 300}, {86400, 3600}}) {
    SignedSubmission s = w.submission();
    s.submission.body.spec.spec.timeouts.start = start;
    resign(s, w.set.id(), w.consumer);
    const auto plan = must(w.authorise(s));
    EXPECT_EQ(must(w.credential(plan.body.job_id, 1)).body.expires - kNow, lives);
  }
}

TEST(BrokerAttempt, OneConnectionServesOneAttempt) {
  BrokerWorld w(35);
  w.start_and_publish();
  const auto plan = must(w.authorise(w.submission()));
  const auto other = must(w.authorise(w.submission()));
  for (const auto& p : {plan, other}) must(w.credential(p.body.job_id, 1));
  const auto c = w.connect(make_agent(w.random));
  must(w.hello(plan.body.job_id, 1, c));
  EXPECT_EQ(w.hello(other.body.job_id, 1, c).reason(), Reason::kWrongState);
  must(w.credential(plan.body.job_id, 2));
  EXPECT_EQ(w.hello(plan.body.job_id, 2, c).reason(), Reason::kWrongState);
}

TEST(BrokerAttempt, GreetingsAreLimited) {
  BrokerWorld w(23);
  w.start_and_publish();
  const auto plan = must(w.authorise(w.submission()));
  must(w.credential(plan.body.job_id, 1));
  const auto c = w.connect(make_agent(w.random));
  for (std::size_t i = 0; i < kHellosPerConnection; ++i) must(w.hello(plan.body.job_id, 1, c));
  EXPECT_EQ(w.hello(plan.body.job_id, 1, c).reason(), Reason::kRateLimited);
  w.core->closed(c.id);
  EXPECT_TRUE(w.hello(plan.body.job_id, 1, c).ok());
}

TEST(BrokerKeys, ReplaysGetTheSameBytesAndForksKill) {
  BrokerWorld w(24);
  w.start_and_publish();
  auto run = w.run_until_attested(w.submission());
  const auto& credential = run.credential.body;
  const auto send = [&](const Signed<KeyRequest>& r) {
    return w.call<KeyReply>(method::kKey, r, run.connection);
  };
  auto early = w.key_request(run.agent, credential, run.evidence, 2);
  EXPECT_EQ(send(early).reason(), Reason::kSequenceMismatch);  // stage 2 first
  auto foreign = w.key_request(run.agent, credential, Hash32{3}, 1);
  EXPECT_EQ(send(foreign).reason(), Reason::kEvidenceRejected);
  auto unsigned_request = w.key_request(run.agent, credential, run.evidence, 1);
  unsigned_request.signature[0] ^= 1;
  EXPECT_EQ(send(unsigned_request).reason(), Reason::kBadSignature);
  const auto reply = must(w.key(run.agent, credential, run.evidence, 1, run.connection));
  EXPECT_EQ(canonical(to_json(must(send(run.agent.sent[0])))), canonical(to_json(reply)));
  auto second = w.key_request(run.agent, credential, run.evidence, 2);
  second.body.prev = Hash32{1};
  EXPECT_EQ(send(must(sign(w.set.id(), second.body, run.agent.sig))).reason(),
            Reason::kSequenceMismatch);
  auto skipped = w.key_request(run.agent, credential, run.evidence, 2);
  skipped.body.seq = 3;
  EXPECT_EQ(send(must(sign(w.set.id(), skipped.body, run.agent.sig))).reason(),
            Reason::kSequenceMismatch);
  EXPECT_TRUE(send(run.agent.sent[0]).ok());  // none of that was a second message with one number
  auto fork = run.agent.sent[0].body;
  fork.unpacked_root_hash = Hash32{1};
  EXPECT_EQ(send(must(sign(w.set.id(), fork, run.agent.sig))).reason(), Reason::kSequenceMismatch);
  EXPECT_EQ(send(run.agent.sent[0]).reason(), Reason::kCredentialSuperseded);
  EXPECT_EQ(w.key(run.agent, credential, run.evidence, 2, run.connection).reason(),
            Reason::kCredentialSuperseded);
}

TEST(BrokerKeys, AnotherImageGetsNoData) {
  BrokerWorld w(25);
  w.start_and_publish();
  auto run = w.run_until_attested(w.submission());
  must(w.key(run.agent, run.credential.body, run.evidence, 1, run.connection));
  auto r = w.key_request(run.agent, run.credential.body, run.evidence, 2).body;
  r.image_digest = "sha256:" + std::string(64, 'b');
  EXPECT_EQ(w.call<KeyReply>(method::kKey, must(sign(w.set.id(), r, run.agent.sig)), run.connection)
                .reason(),
            Reason::kImageDigestMismatch);
  EXPECT_TRUE(w.key(run.agent, run.credential.body, run.evidence, 2, run.connection).ok());
}

TEST(BrokerKeys, AnImageNamedByItsDigestIsTheAssetThatHoldsIt) {
  BrokerWorld w(26);
  w.start_and_publish();
  auto run = w.run_until_sealed(w.submission(false));
  const auto keys = must(open_key_bundle(run.agent.hpke, run.keys[0].context, run.keys[0].sealed));
  ASSERT_EQ(keys.size(), 1u);
  EXPECT_EQ(keys[0].version_id, w.image.version_id());
  EXPECT_EQ(must(w.judge(run.job_id())).state, JudgementState::kReleased);
}

TEST(BrokerKeys, RevokedOrChangedBetweenStages) {
  for (const bool revoke : {true, false}) {
    BrokerWorld w(27);
    w.start_and_publish();
    auto run = w.run_until_attested(w.submission());
    must(w.key(run.agent, run.credential.body, run.evidence, 1, run.connection));
    next_policy(w.data);
    w.data.policy.revoked = revoke;
    must(w.publish(w.data));
    const Reason reason = revoke ? Reason::kPolicyRevoked : Reason::kPolicyStale;
    EXPECT_EQ(w.key(run.agent, run.credential.body, run.evidence, 2, run.connection).reason(),
              reason);
    EXPECT_EQ(w.credential(run.job_id(), 2).reason(), reason);
  }
}

// A node that cuts the connection may have kept the reply from the agent: what comes again is the
// same bytes, and nothing once the owner's acknowledged word is another.
TEST(BrokerKeys, AReplayIsAskedAsTheFirstRequestWas) {
  BrokerWorld w(36);
  w.data.policy.clauses.fresh_for_seconds = 600;
  w.start_and_publish();
  auto run = w.run_until_attested(w.submission());
  for (const std::int64_t stage : {1, 2}) {
    run.keys.push_back(
        must(w.key(run.agent, run.credential.body, run.evidence, stage, run.connection)));
  }
  const auto again = [&](std::size_t i) {
    return w.call<KeyReply>(method::kKey, run.agent.sent[i], run.connection);
  };
  for (const std::size_t i : {0U, 1U}) {
    EXPECT_EQ(canonical(to_json(must(again(i)))), canonical(to_json(run.keys[i])));
  }
  w.clock.advance(601'000);
  for (const std::size_t i : {0U, 1U}) EXPECT_EQ(again(i).reason(), Reason::kPolicyNotFresh);
  next_policy(w.data);
  w.data.policy.revoked = true;
  must(w.publish(w.data));
  const auto size = w.core->log_size();
  for (const std::size_t i : {0U, 1U}) EXPECT_EQ(again(i).reason(), Reason::kPolicyRevoked);
  EXPECT_EQ(w.core->log_size(), size);
}

TEST(BrokerKeys, ExpiredOrStaleBetweenStages) {
  BrokerWorld w(28);
  w.data.policy.clauses.fresh_for_seconds = 600;
  w.start_and_publish();
  auto run = w.run_until_attested(w.submission());
  must(w.key(run.agent, run.credential.body, run.evidence, 1, run.connection));
  w.clock.advance(601'000);
  EXPECT_EQ(w.key(run.agent, run.credential.body, run.evidence, 2, run.connection).reason(),
            Reason::kPolicyNotFresh);
  w.clock.advance(2'000'000'000);
  EXPECT_EQ(w.key(run.agent, run.credential.body, run.evidence, 2, run.connection).reason(),
            Reason::kPolicyExpired);
}

// The lease is looked at again before every key, not only when the job is authorised.
TEST(BrokerKeys, AnExpiredLeaseGetsNoCredentialAndNoKey) {
  constexpr std::int64_t kPastTheLease = 100'001'000;
  const auto long_job = [](BrokerWorld& w) {
    SignedSubmission s = w.submission();
    s.submission.body.not_after = kNow + 900'000;
    resign(s, w.set.id(), w.consumer);
    return s;
  };
  BrokerWorld w(32);
  w.start_and_publish();
  const auto plan = must(w.authorise(long_job(w)));
  auto run = w.run_until_attested(long_job(w));
  auto loaded = w.run_until_attested(long_job(w));
  must(w.key(loaded.agent, loaded.credential.body, loaded.evidence, 1, loaded.connection));
  w.clock.advance(kPastTheLease);
  EXPECT_EQ(w.credential(plan.body.job_id, 1).reason(), Reason::kLeaseExpired);
  EXPECT_EQ(w.key(run.agent, run.credential.body, run.evidence, 1, run.connection).reason(),
            Reason::kLeaseExpired);
  EXPECT_EQ(
      w.key(loaded.agent, loaded.credential.body, loaded.evidence, 2, loaded.connection).reason(),
      Reason::kLeaseExpired);
  // A consumer whom the policy lists needs none.
  BrokerWorld listed(33);
  listed.data.policy.clauses.consumers = {listed.consumer.id()};
  listed.start_and_publish();
  const auto free_plan = must(listed.authorise(long_job(listed)));
  listed.clock.advance(kPastTheLease);
  EXPECT_TRUE(listed.credential(free_plan.body.job_id, 1).ok());
}

TEST(BrokerAttempt, TheNextAttemptBuriesTheLast) {
  BrokerWorld w(29);
  w.start_and_publish();
  const auto s = w.submission();
  auto run = w.run_until_attested(s);
  for (const int stage : {1, 2}) {
    must(w.key(run.agent, run.credential.body, run.evidence, stage, run.connection));
  }
  const auto late = w.make_seal(run.agent, s, run.plan, 1, run.evidence, clean_verdict());
  const auto second = must(w.credential(run.job_id(), 2));
  EXPECT_EQ(w.seal(late.seal, run.connection).reason(), Reason::kCredentialSuperseded);
  EXPECT_EQ(w.hello(run.job_id(), 1, w.connect(run.agent)).reason(), Reason::kCredentialSuperseded);
  EXPECT_EQ(w.credential(run.job_id(), 1).reason(), Reason::kCredentialSuperseded);
  auto agent = make_agent(w.random);
  const auto c = w.connect(agent);
  const Hash32 evidence = must(w.attest(agent, second, c));
  for (const int stage : {1, 2}) must(w.key(agent, second.body, evidence, stage, c));
  must(w.seal(w.make_seal(agent, s, run.plan, 2, evidence, clean_verdict()).seal, c));
  const auto j = must(w.judge(run.job_id()));
  ASSERT_EQ(j.state, JudgementState::kReleased);
  // the second attempt with the data: one bit more
  EXPECT_EQ(j.release->statement.body.charges[0].free_bits, kJobBits + 1);
  EXPECT_EQ(w.credential(run.job_id(), 3).reason(), Reason::kWrongState);
}

TEST(BrokerAttempt, OnlySoManyAttemptsGetKeys) {
  BrokerWorld w(30);
  w.start_and_publish();
  SignedSubmission s = w.submission();
  s.submission.body.spec.spec.attempts = 1;
  resign(s, w.set.id(), w.consumer);
  const auto plan = must(w.authorise(s));
  // Attempts that never got a key cost nothing.
  for (const int n : {1, 2}) must(w.credential(plan.body.job_id, n));
  auto agent = make_agent(w.random);
  const auto c = w.connect(agent);
  const auto credential = must(w.credential(plan.body.job_id, 3));
  const Hash32 evidence = must(w.attest(agent, credential, c));
  must(w.key(agent, credential.body, evidence, 1, c));
  EXPECT_EQ(w.credential(plan.body.job_id, 4).reason(), Reason::kAttemptsExceeded);
}

TEST(BrokerAttempt, AttemptsThatGetNoKeysHaveAnEndToo) {
  BrokerWorld w(30);
  w.start_and_publish();
  const auto plan = must(w.authorise(w.submission())).body;
  const std::int64_t most = plan.attempts + kKeylessAttempts;
  for (std::int64_t n = 1; n <= most; ++n) must(w.credential(plan.job_id, n));
  EXPECT_EQ(w.credential(plan.job_id, most + 1).reason(), Reason::kAttemptsExceeded);
  EXPECT_TRUE(w.credential(plan.job_id, most).ok()) << "the last one is what it was";
}

// Whoever made himself a key and knows the ids of jobs: none of them is read for him.
TEST(BrokerAttempt, AStrangerWakesNoJob) {
  BrokerWorld w(34);
  w.start_and_publish();
  auto run = w.run_until_attested(w.submission());
  must(w.key(run.agent, run.credential.body, run.evidence, 1, run.connection));
  for (int i = 0; i < 3; ++i) must(w.authorise(w.submission()));
  w.awake = {0, 0};
  must(w.start());
  const FakeAgent stranger = make_agent(w.random);
  const auto c = w.connect(stranger);
  EXPECT_EQ(w.hello(Hash32{1}, 1, c).reason(), Reason::kNotFound);
  EXPECT_EQ(w.hello(run.job_id(), 2, c).reason(), Reason::kCredentialForeign);
  EXPECT_TRUE(w.hello(run.job_id(), 1, c).ok());
  EXPECT_EQ(w.core->state().awake(), 0U);
  EXPECT_EQ(w.call<KeyReply>(method::kKey, run.agent.sent[0], c).reason(),
            Reason::kUnauthenticated);
  EXPECT_EQ(w.core->state().awake(), 0U);
  const auto output =
      w.make_seal(run.agent, run.submission, run.plan, 1, run.evidence, clean_verdict());
  EXPECT_EQ(w.seal(output.seal, c).reason(), Reason::kUnauthenticated);
  EXPECT_EQ(w.core->state().awake(), 0U);
  auto forged = w.attest_request(stranger, run.credential, Nonce32{}, c);
  forged.credential.body.expires += 1;
  EXPECT_EQ(w.call<AttestReply>(method::kAttest, forged, c).reason(), Reason::kCredentialForeign);
  EXPECT_EQ(w.core->state().awake(), 0U);
  // A genuine credential is of no use without a nonce of this connection for it.
  const auto other = w.connect(stranger);
  const auto stolen = w.attest_request(stranger, run.credential, Nonce32{}, other);
  EXPECT_EQ(w.call<AttestReply>(method::kAttest, stolen, other).reason(), Reason::kNonceMismatch);
  EXPECT_EQ(w.core->state().awake(), 0U);
}

TEST(BrokerKeys, BudgetIsReservedBeforeTheDataKey) {
  BrokerWorld w(31);
  w.data.policy.clauses.gate.period_free_bits = 1000;  // room for one job of 610
  w.start_and_publish();
  auto first = w.run_until_attested(w.submission());
  auto second = w.run_until_attested(w.submission());
  for (auto* r : {&first, &second}) {
    must(w.key(r->agent, r->credential.body, r->evidence, 1, r->connection));
  }
  must(w.key(first.agent, first.credential.body, first.evidence, 2, first.connection));
  EXPECT_EQ(
      w.key(second.agent, second.credential.body, second.evidence, 2, second.connection).reason(),
      Reason::kBudgetExceeded);
  EXPECT_EQ(w.authorise(w.submission()).reason(), Reason::kBudgetExceeded);
  // What the first did not need is free again once it is decided; the second fits then.
  const auto verdict = rejection(GateCause::kCopies);
  must(w.seal(
      w.make_seal(first.agent, first.submission, first.plan, 1, first.evidence, verdict).seal,
      first.connection));
  EXPECT_EQ(must(w.judge(first.job_id())).state, JudgementState::kRejected);
  EXPECT_TRUE(
      w.key(second.agent, second.credential.body, second.evidence, 2, second.connection).ok());
}

SignedSubmission submission_of(BrokerWorld& w, const gbx::testing::Person& consumer) {
  gbx::testing::SubmissionParts parts{gbx::testing::make_spec(true), {&w.data}, &w.image, {}};
  parts.leases = {gbx::testing::make_lease(w.set.id(), w.data, consumer, 1, w.random)};
  SignedSubmission s = gbx::testing::make_submission(w.set.id(), consumer, parts, w.random);
  s.submission.body.not_after = kNow + 100'000;
  resign(s, w.set.id(), consumer);
  return s;
}

// What all consumers together may learn, as much as what one may.
TEST(BrokerKeys, TheBudgetOfAllIsReservedBeforeTheDataKey) {
  BrokerWorld w(36);
  w.data.policy.clauses.gate.total_free_bits = 1000;  // room for one job of 610
  w.start_and_publish();
  const auto other = gbx::testing::make_person(w.random);
  auto first = w.run_until_attested(w.submission());
  auto second = w.run_until_attested(submission_of(w, other));
  for (auto* r : {&first, &second}) {
    must(w.key(r->agent, r->credential.body, r->evidence, 1, r->connection));
  }
  must(w.key(first.agent, first.credential.body, first.evidence, 2, first.connection));
  EXPECT_EQ(
      w.key(second.agent, second.credential.body, second.evidence, 2, second.connection).reason(),
      Reason::kBudgetExceeded);
}

TEST(BrokerLedger, PeriodIsPerConsumerAndEnds) {
  BrokerWorld w(37);
  auto& gate = w.data.policy.clauses.gate;
  gate.period_free_bits = 1000;  // room for one job of 610
  gate.period_days = 1;
  w.start_and_publish();
  const auto other = gbx::testing::make_person(w.random);
  auto run = w.run_until_attested(w.submission());
  for (const std::int64_t stage : {1, 2}) {
    must(w.key(run.agent, run.credential.body, run.evidence, stage, run.connection));
  }
  EXPECT_EQ(w.authorise(submission_of(w, w.consumer)).reason(), Reason::kBudgetExceeded);
  EXPECT_TRUE(w.authorise(submission_of(w, other)).ok());
  w.clock.advance(86'400'000);
  // the period's last second
  EXPECT_EQ(w.authorise(submission_of(w, w.consumer)).reason(), Reason::kBudgetExceeded);
  w.clock.advance(1000);
  EXPECT_TRUE(w.authorise(submission_of(w, w.consumer)).ok());
}

// ---- the seal and after ----
TEST(BrokerSeal, MustBeWhatThePlanSays) {
  BrokerWorld w(40);
  w.start_and_publish();
  auto run = w.run_until_attested(w.submission());
  must(w.key(run.agent, run.credential.body, run.evidence, 1, run.connection));
  auto sealed = w.make_seal(run.agent, run.submission, run.plan, 1, run.evidence, clean_verdict());
  EXPECT_EQ(w.seal(sealed.seal, run.connection).reason(), Reason::kWrongState);  // no data keys yet
  must(w.key(run.agent, run.credential.body, run.evidence, 2, run.connection));
  const auto refuse = [&](auto change, Reason reason) {
    Seal s = sealed.seal;
    change(s.statement.body);
    s.statement = must(sign(w.set.id(), s.statement.body, run.agent.sig));
    EXPECT_EQ(w.seal(s, run.connection).reason(), reason);
  };
  refuse([](RunStatement& s) { s.controls.mandatory.pop_back(); }, Reason::kPlanMismatch);
  refuse([](RunStatement& s) { s.manifest.context.plan_hash[0] ^= 1; }, Reason::kPlanMismatch);
  refuse([](RunStatement& s) { s.evidence[0] ^= 1; }, Reason::kEvidenceRejected);
  refuse([](RunStatement& s) { s.unpacked_root_hash[0] ^= 1; }, Reason::kImageDigestMismatch);
  refuse([](RunStatement& s) { s.manifest.wrapped_content.push_back({}); },
         Reason::kWrongRecipient);
  refuse([](RunStatement& s) { s.manifest.wrapped_preview.clear(); }, Reason::kWrongRecipient);
  refuse([](RunStatement& s) { s.residual_channels.clear(); }, Reason::kPlanMismatch);
  // The charge follows from the declaration: less is a charge that is lost, more is one that nobody
  // reserved, and the submission has no table that a recipe explains.
  const auto charge = [&](std::int64_t free, std::int64_t verified, const char* code,
                          JobExit exit = JobExit::kOk) {
    refuse(
        [&](RunStatement& s) {
          s.manifest.context.verdict.charge = {free, verified, 0, code};
          s.manifest.context.verdict.exit_class = exit;
        },
        Reason::kOutputInvalid);
  };
  const char* schema = policy::kSchemaCode;
  charge(kJobBits, 1, schema);
  charge(kJobBits - 1, 0, schema);
  charge(kJobBits + 1, 0, schema);
  charge(kJobBits, 0, policy::kControlCode);
  charge(policy::kControlBits, 0, policy::kControlCode);
  charge(kJobBits, 0, schema, JobExit::kFailed);
  refuse(
      [](RunStatement& s) {
        s.manifest.context.verdict = rejection(GateCause::kCopies);
        s.manifest.context.verdict.charge.free_bits += 1;
      },
      Reason::kOutputInvalid);
  // the release keys are bound to M
  refuse([](RunStatement& s) { s.manifest.context.verdict.duration_bucket = 9; }, Reason::kBadTag);
  Seal unsigned_seal = sealed.seal;
  unsigned_seal.statement.signature[9] ^= 1;
  EXPECT_EQ(w.seal(unsigned_seal, run.connection).reason(), Reason::kBadSignature);
  const auto ack = must(w.seal(sealed.seal, run.connection));
  EXPECT_EQ(canonical(to_json(must(w.seal(sealed.seal, run.connection)))), canonical(to_json(ack)));
  const auto another =
      w.make_seal(run.agent, run.submission, run.plan, 1, run.evidence, clean_verdict());
  EXPECT_EQ(w.seal(another.seal, run.connection).reason(), Reason::kWrongState);
  // The acknowledgement got lost: a new connection of the same agent gets it.
  const auto again = w.connect(run.agent);
  must(w.attest(run.agent, run.credential, again));
  EXPECT_EQ(canonical(to_json(must(w.seal(sealed.seal, again)))), canonical(to_json(ack)));
}

TEST(BrokerDecision, FallsOnTheSlotOfEveryOwner) {
  BrokerWorld w(41);
  w.data.policy.clauses.gate.release_slot_seconds = 600;
  w.image.policy.clauses.gate.release_slot_seconds = 900;
  w.start_and_publish();
  w.clock.advance(1000);
  auto run = w.run_until_sealed(w.submission());
  // When a run ended is the container's choice; its author is told the slot.
  const auto ack = must(w.seal(run.sealed.seal, run.connection));
  EXPECT_EQ(ack.body.time % 1800, 0);
  EXPECT_NE(w.clock.now().seconds() % 1800, 0);
  auto j = must(w.judge(run.job_id()));
  EXPECT_EQ(j.state, JudgementState::kPending);
  EXPECT_EQ(j.decide_at % 1800, 0);
  EXPECT_GT(j.decide_at, kNow);
  w.clock.advance((j.decide_at - w.clock.now().seconds()) * 1000 - 1000);
  EXPECT_EQ(must(w.judge(run.job_id())).state, JudgementState::kPending);
  w.clock.advance(1000);
  j = must(w.judge(run.job_id()));
  EXPECT_EQ(j.state, JudgementState::kReleased);
  // the slot is told, and so it is charged
  EXPECT_EQ(policy::slot_bits({3600, 1800}), 2);
  for (const auto& c : j.release->statement.body.charges) {
    EXPECT_EQ(c.free_bits, clean_verdict().charge.free_bits + 2);
  }
  const auto receipt = must(w.call<Receipt>(method::kReceipt, JobRequest{run.job_id()}));
  const auto report = policy::verify_receipt(receipt, w.set.id(), {std::nullopt, w.capacity});
  EXPECT_TRUE(report.valid) << report.first_failure().line();
}

// Of the last judgement in the log.
std::vector<std::string> judged_reasons(const MemoryStore& store) {
  for (std::uint64_t i = must(store.size()); i-- > 0;) {
    const auto entry = must(from_json_text<LogEntry>(must(store.entry(i)).entry));
    if (entry.kind == JudgeEntry::kKind) return must(from_json<JudgeEntry>(entry.body)).reasons;
  }
  return {};
}

template <class Entry>
std::size_t entries_of(const MemoryStore& store) {
  std::size_t found = 0;
  for (std::uint64_t i = 0; i < must(store.size()); ++i) {
    const auto entry = must(from_json_text<LogEntry>(must(store.entry(i)).entry));
    found += entry.kind == Entry::kKind ? 1U : 0U;
  }
  return found;
}

struct HoldCase {
  const char* reason;
  void (*verdict)(GateVerdict&);
  void (*world)(BrokerWorld&) = [](BrokerWorld&) {};
  void (*spec)(SpecBody&) = [](SpecBody&) {};
};
// Each for its own reason alone, which the log holds.
TEST(BrokerDecision, WhatWaitsForAPerson) {
  // room for the job's 610
  const auto budget = [](BrokerWorld& w) { w.data.policy.clauses.gate.total_free_bits = 650; };
  const auto opaque = [](BrokerWorld& w) {
    for (auto* a : {&w.data, &w.image}) {
      a->policy.clauses.gate.output_types.push_back(OutputType::kOpaque);
    }
  };
  const auto unparsed = [](SpecBody& s) {
    s.outputs[0].type = OutputType::kOpaque;
    s.outputs[0].schema.reset();
  };
  const auto text = [](BrokerWorld& w) {
    for (auto* a : {&w.data, &w.image}) {
      a->policy.clauses.gate.output_types.push_back(OutputType::kText);
    }
  };
  // text without a word list, whatever the agent says of it
  const auto unlisted = [](SpecBody& s) {
    s.outputs[0].type = OutputType::kText;
    s.outputs[0].schema = must(parse_json("{}"));
  };
  const HoldCase cases[] = {
      {"free-bits", [](GateVerdict& v) { v.charge.free_bits = 2049; },
       [](BrokerWorld& w) { w.free_bits = 2049; }},
      {"verified-bits", [](GateVerdict& v) { v.charge.verified_bits = 65537; },
       [](BrokerWorld& w) { w.verified_bits = 65537; }},
      {"gate-holds", [](GateVerdict& v) { v.recommendation = Recommendation::kHold; }},
      {"budget", [](GateVerdict& v) { v.charge.zcdp_micro = 1; }},
      {"opaque-output", [](GateVerdict&) {}, opaque, unparsed},
      {"gate-holds", [](GateVerdict&) {}, text, unlisted},
      {"", [](GateVerdict&) {}, budget}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.reason);
    MemoryStore store;
    BrokerWorld w(42, &store);
    c.world(w);
    w.start_and_publish();
    GateVerdict v = clean_verdict();
    c.verdict(v);
    SignedSubmission s = w.submission();
    c.spec(s.submission.body.spec.spec);
    resign(s, w.set.id(), w.consumer);
    auto run = w.run_until_sealed(s, v);
    const auto j = must(w.judge(run.job_id()));
    if (*c.reason == 0) {
      EXPECT_EQ(j.state, JudgementState::kReleased);
      continue;
    }
    ASSERT_EQ(j.state, JudgementState::kHeld);
    EXPECT_EQ(judged_reasons(store), std::vector<std::string>{c.reason});
    ASSERT_EQ(j.preview_keys.size(), 1u);
    const auto& m = run.sealed.seal.statement.body.manifest;
    auto preview = open_preview(w.reviewer.hpke, 0, m, run.sealed.output, j.hold_notice->hash(),
                                j.preview_keys[0]);
    EXPECT_TRUE(preview.ok());
    EXPECT_FALSE(j.release.has_value());
  }
}

// What reviewers may open leaves with a hold and no other way: not while the slot is waited for,
// not with what went out or was refused without them.
TEST(BrokerDecision, OnlyAHoldGivesPreviews) {
  struct Case {
    const char* what;
    std::function<void(BrokerWorld&)> world;
    std::function<void(GateVerdict&)> verdict;
    JudgementState ends;
  };
  const auto as_it_is = [](auto&) {};
  const auto holds = [](GateVerdict& v) { v.recommendation = Recommendation::kHold; };
  const auto rejects = [](GateVerdict& v) { v = rejection(GateCause::kCopies); };
  const auto slotted = [](BrokerWorld& w) {
    for (auto* a : {&w.data, &w.image}) a->policy.clauses.gate.release_slot_seconds = 900;
  };
  const auto two_asked = [](BrokerWorld& w) { w.data.policy.clauses.reviewers_needed = 2; };
  constexpr auto kReleased = JudgementState::kReleased;
  constexpr auto kRejected = JudgementState::kRejected;
  const Case cases[] = {{"released", as_it_is, as_it_is, kReleased},
                        {"the gate rejects", as_it_is, rejects, kRejected},
                        {"fewer reviewers than are asked", two_asked, holds, kRejected},
                        {"released at its slot", slotted, as_it_is, kReleased},
                        {"rejected at its slot", slotted, rejects, kRejected},
                        {"held at its slot", slotted, holds, JudgementState::kHeld}};
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    MemoryStore store;
    BrokerWorld w(45, &store);
    c.world(w);
    w.start_and_publish();
    GateVerdict v = clean_verdict();
    c.verdict(v);
    const auto run = w.run_until_sealed(w.submission(), v);
    ASSERT_EQ(run.plan.body.reviewers.size(), 1U) << "nobody could open a preview";
    Judgement j = must(w.judge(run.job_id()));
    if (j.state == JudgementState::kPending) {
      EXPECT_TRUE(j.preview_keys.empty() && !j.hold_notice);
      w.clock.advance((j.decide_at - w.clock.now().seconds()) * 1000);
      j = must(w.judge(run.job_id()));
    }
    ASSERT_EQ(j.state, c.ends);
    const bool held = c.ends == JudgementState::kHeld;
    EXPECT_EQ(j.preview_keys.size(), held ? 1U : 0U);
    EXPECT_EQ(j.hold_notice.has_value(), held);
    EXPECT_EQ(entries_of<HoldEntry>(store), held ? 1U : 0U);
  }
}

// How a job ended is told by every release, also by one that delivers no file; and bits that the
// gate verified open no way round.
TEST(BrokerDecision, NothingGoesAloneWhereTheOwnerClearsNoFreeBits) {
  const auto usual = [](BrokerWorld&, GateVerdict&) {};
  const auto least = [](BrokerWorld& w, GateVerdict& v) {
    w.free_bits = v.charge.free_bits = policy::kControlBits;
  };
  const auto failed = [](BrokerWorld&, GateVerdict& v) {
    v.charge = {policy::kControlBits, 0, 0, policy::kControlCode};
    v.exit_class = JobExit::kFailed;
  };
  const auto verified = [](BrokerWorld& w, GateVerdict& v) {
    w.free_bits = v.charge.free_bits = policy::kControlBits;
    w.verified_bits = v.charge.verified_bits = 60;
  };
  const std::function<void(BrokerWorld&, GateVerdict&)> ends[] = {usual, least, failed, verified};
  for (const bool reviewed : {true, false}) {
    for (const auto& end : ends) {
      BrokerWorld w(42);
      GateVerdict v = clean_verdict();
      end(w, v);
      w.data.policy.clauses.gate.auto_clear_free_bits = 0;  // one owner's word is enough
      if (!reviewed) {
        for (auto* a : {&w.data, &w.image}) {
          a->policy.clauses.reviewers.clear();
          a->policy.clauses.may_preview.clear();
        }
      }
      w.start_and_publish();
      const auto j = must(w.judge(w.run_until_sealed(w.submission(), v).job_id()));
      if (reviewed) {
        EXPECT_EQ(j.state, JudgementState::kHeld);
        EXPECT_FALSE(j.release.has_value());
        continue;
      }
      ASSERT_EQ(j.state, JudgementState::kRejected);
      EXPECT_EQ(j.release->statement.body.reasons, std::vector<std::string>{"no-reviewer"});
      EXPECT_TRUE(j.release->outer_keys.empty());
    }
  }
}

TEST(BrokerDecision, ARejectionCostsTheControlChannel) {
  BrokerWorld w(43);
  w.start_and_publish();
  const GateVerdict v = rejection(GateCause::kCopies);
  auto run = w.run_until_sealed(w.submission(), v);
  const auto j = must(w.judge(run.job_id()));
  EXPECT_EQ(j.state, JudgementState::kRejected);
  EXPECT_TRUE(j.release->outer_keys.empty());
  // docs/gate.md
  for (const auto& c : j.release->statement.body.charges) EXPECT_EQ(c.free_bits, 8);
}

TEST(BrokerDecision, WithoutReviewersAHoldIsARejection) {
  BrokerWorld w(44);
  w.image.policy.clauses.may_preview.clear();  // one owner lets nobody look
  w.start_and_publish();
  GateVerdict v = clean_verdict();
  v.recommendation = Recommendation::kHold;
  auto run = w.run_until_sealed(w.submission(), v);
  const auto j = must(w.judge(run.job_id()));
  EXPECT_EQ(j.state, JudgementState::kRejected);
  EXPECT_EQ(j.release->statement.body.reasons, std::vector<std::string>{"no-reviewer"});
}

TEST(BrokerDecision, RevokedOrExpiredWhileHeld) {
  for (const bool revoke : {true, false}) {
    BrokerWorld w(45);
    if (!revoke) w.data.policy.clauses.not_after = kNow + 100;
    w.start_and_publish();
    GateVerdict v = clean_verdict();
    v.recommendation = Recommendation::kHold;
    auto run = w.run_until_sealed(w.submission(), v);
    const auto held = must(w.judge(run.job_id()));
    ASSERT_EQ(held.state, JudgementState::kHeld);
    if (revoke) {
      next_policy(w.data);
      w.data.policy.revoked = true;
      must(w.publish(w.data));
    } else {
      w.clock.advance(101'000);
    }
    for (const auto& p : run.plan.body.policies) {
      must(w.rule(w.reviewer, held.hold_notice->body, p.policy_hash, RulingDecision::kApprove));
    }
    const auto j = must(w.judge(run.job_id()));
    EXPECT_EQ(j.state, JudgementState::kRejected);
    EXPECT_EQ(j.release->statement.body.reasons[0], revoke ? "policy-revoked" : "policy-expired");
  }
}

void slow(BrokerWorld& w, std::int64_t slot) {
  for (auto* a : {&w.data, &w.image}) {
    a->policy.clauses.gate.release_slot_seconds = slot;
    a->policy.clauses.not_after = kNow + 100 * 86400;
  }
}
BrokerWorld::Run held_job(BrokerWorld& w, Judgement& held) {
  GateVerdict v = clean_verdict();
  v.recommendation = Recommendation::kHold;
  auto run = w.run_until_sealed(w.submission(), v);
  held = must(w.judge(run.job_id()));
  EXPECT_EQ(held.state, JudgementState::kHeld);
  return run;
}

struct Held {
  BrokerWorld::Run run;
  HoldNotice notice;
};
// By owners whose decisions fall on slots; asked for `late` seconds after one.
Held held_on_the_slot(BrokerWorld& w, std::int64_t late = 0) {
  GateVerdict v = clean_verdict();
  v.recommendation = Recommendation::kHold;
  auto run = w.run_until_sealed(w.submission(), v);
  const auto pending = must(w.judge(run.job_id()));
  w.clock.advance((pending.decide_at + late - w.clock.now().seconds()) * 1000);
  const auto held = must(w.judge(run.job_id()));
  EXPECT_EQ(held.state, JudgementState::kHeld);
  return {std::move(run), held.hold_notice->body};
}
void approve_all(BrokerWorld& w, const gbx::testing::Person& reviewer, const Held& held) {
  for (const auto& p : held.run.plan.body.policies) {
    must(w.rule(reviewer, held.notice, p.policy_hash, RulingDecision::kApprove));
  }
}

TEST(BrokerRuling, EveryPolicyMustBeApproved) {
  BrokerWorld w(46);
  w.start_and_publish();
  Judgement held;
  auto run = held_job(w, held);
  const auto& notice = held.hold_notice->body;
  const Hash32 data = run.plan.body.policies[0].policy_hash;
  const Hash32 image = run.plan.body.policies[1].policy_hash;
  EXPECT_EQ(w.rule(w.consumer, notice, data, RulingDecision::kApprove).reason(),
            Reason::kWrongRole);
  EXPECT_EQ(w.rule(w.owner, notice, data, RulingDecision::kApprove).reason(), Reason::kWrongRole);
  EXPECT_EQ(w.rule(w.reviewer, notice, Hash32{1}, RulingDecision::kApprove).reason(),
            Reason::kPolicyMismatch);
  HoldNotice other = notice;
  other.manifest = Hash32{1};
  EXPECT_EQ(w.rule(w.reviewer, other, data, RulingDecision::kApprove).reason(), Reason::kNotFound);
  EXPECT_EQ(must(w.rule(w.reviewer, notice, data, RulingDecision::kApprove)).state,
            JudgementState::kHeld);
  // sent twice
  EXPECT_EQ(must(w.rule(w.reviewer, notice, data, RulingDecision::kApprove)).state,
            JudgementState::kHeld);
  EXPECT_EQ(w.rule(w.reviewer, notice, data, RulingDecision::kReject).reason(), Reason::kConflict);
  const auto j = must(w.rule(w.reviewer, notice, image, RulingDecision::kApprove));
  EXPECT_EQ(j.state, JudgementState::kReleased);
  EXPECT_EQ(j.release->statement.body.rulings.size(), 2u);
  const auto& m = run.sealed.seal.statement.body.manifest;
  EXPECT_TRUE(open_result(w.consumer.hpke, 0, m, run.sealed.output, j.release->outer_keys[0]).ok());
}

TEST(BrokerRuling, DeclinedOrNeverAnswered) {
  for (const bool answered : {true, false}) {
    BrokerWorld w(47);
    for (auto* a : {&w.data, &w.image}) a->policy.clauses.not_after = kNow + 100 * 86400;
    w.start_and_publish();
    Judgement held;
    auto run = held_job(w, held);
    if (answered) {
      must(w.rule(w.reviewer, held.hold_notice->body, run.plan.body.policies[0].policy_hash,
                  RulingDecision::kRequestChanges, 0, {"small-cells"}));
    } else {
      w.clock.advance((kHoldSeconds + 1) * 1000);
      EXPECT_EQ(w.rule(w.reviewer, held.hold_notice->body, run.plan.body.policies[0].policy_hash,
                       RulingDecision::kApprove)
                    .reason(),
                Reason::kExpired);
    }
    const auto j = must(w.judge(run.job_id()));
    EXPECT_EQ(j.state, JudgementState::kRejected);
    EXPECT_EQ(j.release->statement.body.reasons[0],
              answered ? "reviewers-declined" : "hold-expired");
  }
}

// A decision of people falls on the slot, too.
TEST(BrokerRuling, DecidesOnTheSlot) {
  BrokerWorld w(57);
  slow(w, 900);
  w.start_and_publish();
  const auto held = held_on_the_slot(w);
  w.clock.advance(1000);
  approve_all(w, w.reviewer, held);
  const auto j = must(w.judge(held.run.job_id()));
  ASSERT_EQ(j.state, JudgementState::kPending);
  EXPECT_EQ(j.decide_at, slot_end(w.clock.now().seconds(), 900));
  w.clock.advance((j.decide_at - w.clock.now().seconds()) * 1000 - 1000);
  EXPECT_EQ(must(w.judge(held.run.job_id())).state, JudgementState::kPending);
  w.clock.advance(1000);
  EXPECT_EQ(must(w.judge(held.run.job_id())).state, JudgementState::kReleased);
}

TEST(BrokerRuling, IsOfItsTime) {
  BrokerWorld w(58);
  w.start_and_publish();
  Judgement held;
  const auto run = held_job(w, held);
  const auto& notice = held.hold_notice->body;
  w.clock.advance(1000'000);
  const auto rule = [&](std::size_t policy, std::int64_t ahead) {
    return w.rule(w.reviewer, notice, run.plan.body.policies[policy].policy_hash,
                  RulingDecision::kApprove, ahead);
  };
  EXPECT_EQ(rule(0, policy::kReviewerSkewSeconds + 1).reason(), Reason::kBadValue);
  // before there was a notice
  EXPECT_EQ(rule(0, -1000 - policy::kReviewerSkewSeconds - 1).reason(), Reason::kBadValue);
  EXPECT_TRUE(rule(0, policy::kReviewerSkewSeconds).ok());
  EXPECT_EQ(must(rule(1, -1000 - policy::kReviewerSkewSeconds)).state, JudgementState::kReleased);
  const auto receipt = must(w.call<Receipt>(method::kReceipt, JobRequest{run.job_id()}));
  EXPECT_TRUE(policy::verify_receipt(receipt, w.set.id()).valid);
}

// Nothing is released after its hold: neither by a ruling whose slot ends later nor because nobody
// asked in time.
TEST(BrokerRuling, ReleasesNothingAfterTheHold) {
  for (const bool ruled_in_time : {false, true}) {
    BrokerWorld w(59);
    slow(w, 900);
    w.start_and_publish();
    const auto held = held_on_the_slot(w, 1);
    const auto advance_to = [&](std::int64_t time) {
      w.clock.advance((time - w.clock.now().seconds()) * 1000);
    };
    advance_to(held.notice.expires - 900);
    if (ruled_in_time) approve_all(w, w.reviewer, held);
    advance_to(held.notice.expires);
    if (!ruled_in_time) {
      const Hash32 policy = held.run.plan.body.policies[0].policy_hash;
      EXPECT_EQ(w.rule(w.reviewer, held.notice, policy, RulingDecision::kApprove).reason(),
                Reason::kExpired);
      EXPECT_EQ(must(w.judge(held.run.job_id())).state, JudgementState::kHeld);
    }
    advance_to(held.notice.expires + 1);
    const auto j = must(w.judge(held.run.job_id()));
    ASSERT_EQ(j.state, JudgementState::kRejected);
    EXPECT_EQ(j.release->statement.body.reasons, std::vector<std::string>{"hold-expired"});
    EXPECT_TRUE(j.release->outer_keys.empty());
  }
}

// A stolen key approves, and its owner rotates it away before the slot: others decide.
TEST(BrokerRuling, CountsOnlyWhileItsKeyStands) {
  BrokerWorld w(63);
  slow(w, 900);
  const auto second = gbx::testing::make_person(w.random);
  for (auto* a : {&w.data, &w.image}) {
    a->policy.clauses.reviewers.push_back(gbx::testing::as_reviewer(second));
    a->policy.clauses.may_preview.push_back(gbx::testing::as_reviewer(second));
  }
  w.start_and_publish();
  const auto held = held_on_the_slot(w);
  w.clock.advance(1000);
  approve_all(w, w.reviewer, held);
  EXPECT_EQ(must(w.judge(held.run.job_id())).state, JudgementState::kPending);
  const auto newer =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, w.random));
  const auto rotation = must(sign(
      w.set.id(), Rotation{w.reviewer.id(), 1, newer.public_key().text()}, w.reviewer.recovery));
  must(w.call<Empty>(method::kRotate, RotateRequest{w.reviewer.chain.identity, rotation}));
  w.clock.advance(900'000);
  EXPECT_EQ(must(w.judge(held.run.job_id())).state, JudgementState::kHeld);
  approve_all(w, second, held);
  w.clock.advance(900'000);
  EXPECT_EQ(must(w.judge(held.run.job_id())).state, JudgementState::kReleased);
  const auto receipt = must(w.call<Receipt>(method::kReceipt, JobRequest{held.run.job_id()}));
  ASSERT_EQ(receipt.rulings.size(), 2u);
  for (const auto& r : receipt.rulings) EXPECT_EQ(r.key, second.key.public_key().text());
  // The same when the job was read again from the log.
  for (int i = 0; i < 2; ++i) must(w.authorise(w.submission()));
  const auto again = must(w.call<Receipt>(method::kReceipt, JobRequest{held.run.job_id()}));
  EXPECT_EQ(canonical(to_json(again)), canonical(to_json(receipt)));
  const auto report = policy::verify_receipt(receipt, w.set.id());
  EXPECT_TRUE(report.valid) << report.first_failure().line();
}

// What people say is told to the consumer in codes alone, and each is paid for.
TEST(BrokerRuling, ReasonsAreOfTheClosedListAndCharged) {
  BrokerWorld w(64);
  w.start_and_publish();
  Judgement held;
  const auto run = held_job(w, held);
  const Hash32 data = run.plan.body.policies[0].policy_hash;
  const auto rule = [&](RulingDecision how, std::vector<std::string> reasons) {
    return w.rule(w.reviewer, held.hold_notice->body, data, how, 0, std::move(reasons));
  };
  for (const auto how : {RulingDecision::kReject, RulingDecision::kRequestChanges}) {
    EXPECT_EQ(rule(how, {"row 17 is Mrs Smith"}).reason(), Reason::kBadValue);
    EXPECT_EQ(rule(how, {"dominance", "dominance"}).reason(), Reason::kBadValue);
    EXPECT_EQ(
        rule(how, {"dominance", "small-cells", "identifiers", "not-rounded", "ask-owner"}).reason(),
        Reason::kBadValue);
  }
  EXPECT_EQ(rule(RulingDecision::kRequestChanges, {}).reason(), Reason::kBadValue);
  EXPECT_EQ(rule(RulingDecision::kApprove, {"dominance"}).reason(), Reason::kBadValue);
  EXPECT_EQ(must(w.judge(run.job_id())).state, JudgementState::kHeld) << "nothing was taken";
  const auto j = must(rule(RulingDecision::kRequestChanges, {"small-cells", "dominance"}));
  ASSERT_EQ(j.state, JudgementState::kRejected);
  const std::vector<std::string> said{"reviewers-declined", "small-cells", "dominance"};
  EXPECT_EQ(j.release->statement.body.reasons, said);
  for (const auto& c : j.release->statement.body.charges) EXPECT_EQ(c.free_bits, 8 + 2 * 4);
  Receipt receipt = must(w.call<Receipt>(method::kReceipt, JobRequest{run.job_id()}));
  const auto report = policy::verify_receipt(receipt, w.set.id());
  EXPECT_TRUE(report.valid) << report.first_failure().line();
}

// Told in every receipt, also where others approved.
TEST(BrokerRuling, ReasonsAreReservedWithTheRulingOrRefused) {
  constexpr std::int64_t kPlanned = 608 + 2;  // and which of three attempts
  for (const bool fits : {true, false}) {
    BrokerWorld w(65);
    const auto second = gbx::testing::make_person(w.random);
    for (auto* a : {&w.data, &w.image}) {
      a->policy.clauses.reviewers.push_back(gbx::testing::as_reviewer(second));
      a->policy.clauses.may_preview.push_back(gbx::testing::as_reviewer(second));
      a->policy.clauses.gate.period_free_bits = kPlanned + (fits ? 8 : 7);
    }
    w.start_and_publish();
    Judgement held;
    const auto run = held_job(w, held);
    const auto& policies = run.plan.body.policies;
    const auto& notice = held.hold_notice->body;
    const std::vector<std::string> two{"too-detailed", "not-rounded"};
    const auto against =
        w.rule(second, notice, policies[0].policy_hash, RulingDecision::kReject, 0, two);
    const auto reserved = [&] {
      return w.core->state()
          .spent(run.plan.body.charges[0], w.consumer.id(), 0, Hash32{})
          .total_free_bits;
    };
    EXPECT_EQ(against.reason(), fits ? Reason::kUninitialised : Reason::kBudgetExceeded);
    EXPECT_EQ(reserved(), kPlanned + (fits ? 8 : 0));
    if (!fits) {
      EXPECT_TRUE(w.rule(second, notice, policies[0].policy_hash, RulingDecision::kReject).ok());
    }
    Judgement j;
    for (const auto& p : policies) {
      j = must(w.rule(w.reviewer, notice, p.policy_hash, RulingDecision::kApprove));
    }
    ASSERT_EQ(j.state, JudgementState::kReleased);
    EXPECT_EQ(j.release->statement.body.rulings.size(), 3U);
    for (const auto& c : j.release->statement.body.charges) {
      EXPECT_EQ(c.free_bits, reserved());
    }
    const auto receipt = must(w.call<Receipt>(method::kReceipt, JobRequest{run.job_id()}));
    const auto report = policy::verify_receipt(receipt, w.set.id());
    EXPECT_TRUE(report.valid) << report.first_failure().line();
  }
}

// Two owners: two of three for the data's, one of two for the image's, who shares one with it.
class TwoOwners : public ::testing::Test {
 protected:
  TwoOwners() : w(66), other(gbx::testing::make_person(w.random)) {
    for (int i = 0; i < 4; ++i) people.push_back(gbx::testing::make_person(w.random));
    w.image = gbx::testing::make_asset(gbx::testing::copy(other), AssetKind::kImage,
                                       w.image.policy.clauses, w.random);
    const auto name = [&](Clauses& c, std::vector<int> who, std::int64_t needed) {
      c.reviewers.clear();
      c.may_preview.clear();
      for (const int i : who) c.reviewers.push_back(gbx::testing::as_reviewer(people[at(i)]));
      for (const auto& p : people) c.may_preview.push_back(gbx::testing::as_reviewer(p));
      c.reviewers_needed = needed;
    };
    name(w.data.policy.clauses, {0, 1, 2}, 2);
    name(w.image.policy.clauses, {2, 3}, 1);
    w.data.policy.clauses.join_owners = {other.id()};
    w.image.policy.clauses.join_owners = {w.owner.id()};
  }
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
  void hold() {
    w.start_and_publish();
    run = held_job(w, held);
    for (const auto& p : run->plan.body.policies) {
      (p.owner_id == other.id() ? image : data) = p.policy_hash;
    }
  }
  Result<Judgement> rule(int who, const Hash32& policy, RulingDecision how) {
    return w.rule(people[at(who)], held.hold_notice->body, policy, how);
  }
  void all_verify() {
    const auto receipt = must(w.call<Receipt>(method::kReceipt, JobRequest{run->job_id()}));
    const auto report = policy::verify_receipt(receipt, w.set.id());
    EXPECT_TRUE(report.valid) << report.first_failure().line();
  }
  BrokerWorld w;
  gbx::testing::Person other;
  std::vector<gbx::testing::Person> people;
  std::optional<BrokerWorld::Run> run;
  Judgement held;
  Hash32 data{};
  Hash32 image{};
};

TEST_F(TwoOwners, EachHasItsOwnReviewersAndNumber) {
  hold();
  constexpr auto kApprove = RulingDecision::kApprove;
  EXPECT_EQ(run->plan.body.reviewers.size(), 4U);
  EXPECT_EQ(held.preview_keys.size(), 4U);
  // Nobody rules for an owner who does not name them.
  EXPECT_EQ(rule(3, data, kApprove).reason(), Reason::kWrongRole);
  EXPECT_EQ(rule(0, image, kApprove).reason(), Reason::kWrongRole);
  EXPECT_EQ(must(rule(0, data, kApprove)).state, JudgementState::kHeld);
  // The same person again is no second one, and cannot take it back.
  EXPECT_EQ(must(rule(0, data, kApprove)).state, JudgementState::kHeld);
  w.clock.advance(1000);
  EXPECT_EQ(rule(0, data, kApprove).reason(), Reason::kConflict) << "another time, another ruling";
  EXPECT_EQ(rule(0, data, RulingDecision::kReject).reason(), Reason::kConflict);
  // Whom both owners name rules for each of them by itself.
  EXPECT_EQ(must(rule(2, image, kApprove)).state, JudgementState::kHeld);
  EXPECT_EQ(must(rule(1, data, RulingDecision::kReject)).state, JudgementState::kHeld);
  const auto j = must(rule(2, data, kApprove));
  EXPECT_EQ(j.state, JudgementState::kReleased);
  EXPECT_EQ(j.release->statement.body.rulings.size(), 4U);
  EXPECT_EQ(rule(3, image, kApprove).reason(), Reason::kWrongState) << "decided already";
  all_verify();
}

TEST_F(TwoOwners, ARulingIsAboutTheseBytesAndByANamedKey) {
  hold();
  const auto with = [&](auto change, const crypto::SigningKey& key, const IdentityChain& chain) {
    const HoldNotice& notice = held.hold_notice->body;
    Ruling r{hash_of(notice),          notice.manifest,
             notice.ciphertext,        data,
             RulingDecision::kApprove, {},
             w.clock.now().seconds()};
    change(r);
    return w.call<Judgement>(method::kRuling, RulingRequest{chain, must(sign(w.set.id(), r, key))});
  };
  const auto& anna = people[0];
  const auto refused = [&](auto change) { return with(change, anna.key, anna.chain).reason(); };
  EXPECT_EQ(refused([](Ruling& r) { r.hold_notice[0] ^= 1; }), Reason::kNotFound);
  EXPECT_EQ(refused([](Ruling& r) { r.manifest[0] ^= 1; }), Reason::kPlanMismatch);
  EXPECT_EQ(refused([](Ruling& r) { r.ciphertext[0] ^= 1; }), Reason::kPlanMismatch);
  EXPECT_EQ(refused([](Ruling& r) { r.owner_policy_hash[0] ^= 1; }), Reason::kPolicyMismatch);
  const auto as_it_is = [](Ruling&) {};
  EXPECT_EQ(with(as_it_is, people[1].key, anna.chain).reason(), Reason::kBadSignature);
  // Rotated: the old key is nobody's any more, and the policy does not name the new one.
  const auto newer =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, w.random));
  const auto rotation =
      must(sign(w.set.id(), Rotation{anna.id(), 1, newer.public_key().text()}, anna.recovery));
  must(w.call<Empty>(method::kRotate, RotateRequest{anna.chain.identity, rotation}));
  IdentityChain chain = anna.chain;
  chain.rotations.push_back(rotation);
  EXPECT_EQ(with(as_it_is, anna.key, chain).reason(), Reason::kWrongRole);
  EXPECT_EQ(with(as_it_is, newer, chain).reason(), Reason::kWrongRole);
  EXPECT_EQ(must(w.judge(run->job_id())).state, JudgementState::kHeld);
  EXPECT_TRUE(w.core->state().job(run->job_id())->hold->rulings.empty());
}

// Owners follow a rotation at different times. A person is one for each owner, with the key that
// this owner names, as long as that key stands.
TEST_F(TwoOwners, EachNamesTheKeyOfOnePersonThatItKnows) {
  const auto newer = gbx::testing::make_person(w.random);
  gbx::testing::Person cara = gbx::testing::copy(people[2]);
  cara.key = gbx::testing::copy(newer).key;
  const auto rotation =
      must(sign(w.set.id(), Rotation{cara.id(), 1, cara.key.public_key().text()}, cara.recovery));
  cara.chain.rotations.push_back(rotation);
  for (Reviewer& r : w.image.policy.clauses.reviewers) {
    if (r.identity_id == cara.id()) r.key = cara.key.public_key().text();
  }
  // Each lets her look with either key.
  for (auto* a : {&w.data, &w.image}) {
    a->policy.clauses.may_preview.push_back(gbx::testing::as_reviewer(cara));
  }
  w.image.policy.clauses.reviewers_needed = 2;
  hold();
  EXPECT_EQ(run->plan.body.reviewers.size(), 5U) << "four people, one of them with two keys";
  EXPECT_EQ(held.preview_keys.size(), 5U);
  constexpr auto kApprove = RulingDecision::kApprove;
  const auto by_cara = [&](const Hash32& policy) {
    return w.rule(cara, held.hold_notice->body, policy, kApprove);
  };
  // Before the rotation she rules for the owner who names the old key; that counts until she
  // rotates, and under the new one she is nobody to this owner.
  EXPECT_EQ(rule(2, image, kApprove).reason(), Reason::kWrongRole);
  EXPECT_EQ(must(rule(2, data, kApprove)).state, JudgementState::kHeld);
  must(w.call<Empty>(method::kRotate, RotateRequest{cara.chain.identity, rotation}));
  w.clock.advance(1000);
  EXPECT_EQ(by_cara(data).reason(), Reason::kConflict) << "she has ruled already";
  EXPECT_EQ(must(by_cara(image)).state, JudgementState::kHeld);
  EXPECT_EQ(must(rule(3, image, kApprove)).state, JudgementState::kHeld) << "data: none counts";
  EXPECT_EQ(must(rule(0, data, kApprove)).state, JudgementState::kHeld);
  EXPECT_EQ(must(rule(1, data, kApprove)).state, JudgementState::kReleased);
  all_verify();
}

// Two rulings of one second say the same; one falls with its key, and the receipt has the other.
TEST_F(TwoOwners, ARulingThatFellIsInNoReceipt) {
  hold();
  constexpr auto kApprove = RulingDecision::kApprove;
  EXPECT_EQ(must(rule(0, data, kApprove)).state, JudgementState::kHeld);
  const auto& anna = people[0];
  const auto newer = gbx::testing::make_person(w.random);
  const auto rotation =
      must(sign(w.set.id(), Rotation{anna.id(), 1, newer.key.public_key().text()}, anna.recovery));
  must(w.call<Empty>(method::kRotate, RotateRequest{anna.chain.identity, rotation}));
  must(rule(3, image, kApprove));
  EXPECT_EQ(must(rule(2, data, kApprove)).state, JudgementState::kHeld) << "one of two";
  EXPECT_EQ(must(rule(1, data, kApprove)).state, JudgementState::kReleased);
  const auto receipt = must(w.call<Receipt>(method::kReceipt, JobRequest{run->job_id()}));
  ASSERT_EQ(receipt.rulings.size(), 3U);
  for (const auto& r : receipt.rulings) EXPECT_NE(r.key, anna.key.public_key().text());
  all_verify();
}

TEST_F(TwoOwners, OneOwnersReviewersDeclineForAll) {
  hold();
  EXPECT_EQ(must(rule(0, data, RulingDecision::kApprove)).state, JudgementState::kHeld);
  EXPECT_EQ(must(rule(2, data, RulingDecision::kApprove)).state, JudgementState::kHeld);
  EXPECT_EQ(must(rule(2, image, RulingDecision::kReject)).state, JudgementState::kHeld);
  EXPECT_EQ(must(rule(3, image, RulingDecision::kReject)).state, JudgementState::kRejected);
  all_verify();
}

// A reviewer of one owner whom the other lets see nothing does not count for either.
TEST_F(TwoOwners, OnlyWhomBothLetPreviewMayRule) {
  auto& lets = w.image.policy.clauses.may_preview;
  lets.erase(lets.begin());  // 0
  hold();
  EXPECT_EQ(run->plan.body.reviewers.size(), 3U);
  EXPECT_EQ(rule(0, data, RulingDecision::kApprove).reason(), Reason::kWrongRole);
  EXPECT_EQ(must(rule(1, data, RulingDecision::kReject)).state, JudgementState::kRejected)
      << "two of three are two of two now";
  all_verify();
}

TEST(BrokerRuling, TheConsumerNeverRulesOnHisOwnOutput) {
  BrokerWorld w(48);
  for (auto* a : {&w.data, &w.image}) {
    a->policy.clauses.reviewers = {gbx::testing::as_reviewer(w.consumer)};
    a->policy.clauses.may_preview = {gbx::testing::as_reviewer(w.consumer)};
  }
  w.start_and_publish();
  GateVerdict v = clean_verdict();
  v.recommendation = Recommendation::kHold;
  auto run = w.run_until_sealed(w.submission(), v);
  EXPECT_TRUE(run.plan.body.reviewers.empty());
  EXPECT_EQ(must(w.judge(run.job_id())).state, JudgementState::kRejected);
}

// ---- the program's edges ----
TEST(Broker, RefusesWhatItDoesNotKnow) {
  BrokerWorld w(50);
  w.start_and_publish();
  EXPECT_EQ(w.core->handle("broker.delete", Json(JsonObject{}), w.plane(), w.clock.now()).reason(),
            Reason::kNotFound);
  Json extra;
  extra["jobId"] = std::string(64, '0');
  extra["force"] = true;
  EXPECT_EQ(w.core->handle(method::kJudge, extra, w.plane(), w.clock.now()).reason(),
            Reason::kUnknownField);
  EXPECT_EQ(w.judge(Hash32{}).reason(), Reason::kNotFound);
  EXPECT_EQ(w.credential(Hash32{}, 1).reason(), Reason::kNotFound);
  EXPECT_EQ(w.call<Receipt>(method::kReceipt, JobRequest{Hash32{}}).reason(), Reason::kNotFound);
}

// Every method of the broker that a header of src/records names.
std::set<std::string> methods_of_the_contract() {
  const char* root = std::getenv("GBX_SOURCE_DIR");
  const std::string folder = std::string(root == nullptr ? "." : root) + "/src/records";
  static const std::regex kMethod("string_view k\\w+ = \"(broker\\.[\\w.-]+)\"");
  std::set<std::string> out;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    if (file.path().extension() != ".h") continue;
    const std::string text = must(read_text_file(file.path().string(), 1U << 20));
    for (std::sregex_iterator m(text.begin(), text.end(), kMethod), end; m != end; ++m) {
      out.insert((*m)[1]);
    }
  }
  return out;
}

TEST(Broker, OnlyThePlanePassesOn) {
  BrokerWorld w(55);
  w.start_and_publish();
  const auto run = w.run_until_sealed(w.submission());
  must(w.judge(run.job_id()));
  const auto size = w.core->log_size();
  // What they would get with a body that is right; who asks is looked at before any body.
  std::map<std::string, Json> asked = {
      {std::string(method::kPublish), to_json(make_publish(w.set, w.data, w.random))},
      {std::string(method::kExplain), to_json(w.submission())},
      {std::string(method::kAuthorise), to_json(w.submission())},
      {std::string(method::kCredential), to_json(CredentialRequest{run.job_id(), 2})},
      {std::string(method::kJudge), to_json(JobRequest{run.job_id()})},
      {std::string(method::kReceipt), to_json(JobRequest{run.job_id()})},
      {std::string(method::kLedger),
       to_json(LedgerRequest{w.data.record.asset_id, {}, w.data.record.owner_id, 0})},
      {std::string(method::kResume), to_json(ResumeRequest{})},
      {"broker.delete", Json(JsonObject{})}};
  for (const std::string& m : methods_of_the_contract()) asked.try_emplace(m, JsonObject{});
  asked.erase(std::string(method::kInfo));
  ASSERT_GE(asked.size(), 15U);
  // Nobody, a stranger with a key, and the agent that attested on its own connection.
  for (const auto& who : {ConnectionContext{}, w.connect(make_agent(w.random)), run.connection}) {
    for (const auto& [m, body] : asked) {
      EXPECT_EQ(w.core->handle(m, body, who, w.clock.now()).reason(), Reason::kUnauthenticated)
          << m;
    }
    EXPECT_TRUE(w.core->handle(method::kInfo, to_json(InfoRequest{}), who, w.clock.now()).ok());
  }
  for (const auto m : {method::kHello, method::kAttest, method::kKey, method::kSeal}) {
    EXPECT_EQ(w.core->handle(m, Json(JsonObject{}), {}, w.clock.now()).reason(),
              Reason::kUnauthenticated)
        << m;
  }
  EXPECT_EQ(w.core->log_size(), size);
}

TEST(Broker, LargeRequestsAreRefusedAndTheLogStaysReadable) {
  BrokerWorld w(56);
  w.start_and_publish();
  const auto size = w.core->log_size();
  SignedSubmission s = w.submission();
  s.submission.body.spec.spec.purpose = std::string(5U << 20, 'x');
  resign(s, w.set.id(), w.consumer);
  EXPECT_EQ(w.authorise(s).reason(), Reason::kTooLarge);
  s = w.submission();
  s.submission.body.spec.metadata.labels =
      std::map<std::string, std::string>{{"a", std::string(100'000, 'x')}};
  resign(s, w.set.id(), w.consumer);
  EXPECT_EQ(w.authorise(s).reason(), Reason::kBadValue);  // one text above its bound
  // Every part within its bound, the whole above: 300 KiB are no policy, and 600 KiB no request.
  next_policy(w.data);
  for (const std::size_t kib : {300U, 600U}) {
    w.data.policy.clauses.commands.assign(
        kib / 60, {std::vector<std::string>(15, std::string(4096, 'a')), {}});
    EXPECT_EQ(w.publish(w.data).reason(), Reason::kTooLarge) << kib;
  }
  w.data.policy.clauses.commands.resize(4);
  EXPECT_TRUE(w.publish(w.data).ok());
  EXPECT_EQ(w.core->log_size(), size + 1);
  EXPECT_TRUE(w.core->healthy());
  EXPECT_TRUE(w.start().ok());
}

TEST(Broker, EvidenceAnswersTheNonce) {
  BrokerWorld w(51);
  must(w.start());
  const auto r = must(w.call<InfoReply>(method::kInfo, InfoRequest{Nonce32{7}}));
  auto keys = must(r.set.verify(w.set.id()));
  EXPECT_TRUE(r.evidence.verify(w.set.id(), keys.signing).ok());
  EXPECT_EQ(r.evidence.body.nonce, Nonce32{7});
}

// The log grows at the moment of a seal, which is told at the owners' slot only.
TEST(Broker, EvidenceDoesNotTellThatTheLogGrew) {
  BrokerWorld w(55);
  must(w.start());
  const auto ask = [&](const ConnectionContext& who) {
    const Json reply =
        must(w.core->handle(method::kInfo, to_json(InfoRequest{Nonce32{7}}), who, w.clock.now()));
    return must(from_json<InfoReply>(reply)).evidence.body;
  };
  for (int round = 0; round < 2; ++round) {
    for (const auto& who : {ConnectionContext{}, BrokerWorld::plane()}) {
      EXPECT_EQ(ask(who).tree_size, 0);
      EXPECT_EQ(ask(who).tree_root, Hash32{});
    }
    if (round == 0) {
      must(w.call<Signed<PublishAck>>(method::kPublish, make_publish(w.set, w.data, w.random)));
    }
  }
}

TEST(Broker, TimeNeverFalls) {
  BrokerWorld w(52);
  w.start_and_publish();
  auto behind = TimeMs{(kNow - 10'000'000) * 1000};
  const Json reply = must(w.core->handle(method::kInfo, to_json(InfoRequest{}), {}, behind));
  EXPECT_EQ(*reply.find("evidence")->find("body")->find("time")->integer(), kNow);
}

TEST(Broker, KeysThatTheSetKeyDidNotSignAreRefused) {
  BrokerWorld w(64);
  MemoryStore store;
  const auto open = [&](auto change) {
    BrokerKeys keys = gbx::testing::broker_keys(w.set);
    change(keys);
    return Core::open(std::move(keys), store, w.random, w.capacity);
  };
  EXPECT_EQ(
      open([&](BrokerKeys& k) { k.kek = must(crypto::HpkeKeyPair::generate(w.random)); }).reason(),
      Reason::kWrongSet);
  EXPECT_EQ(open([&](BrokerKeys& k) {
              k.signing = must(
                  crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, w.random));
            }).reason(),
            Reason::kWrongSet);
  EXPECT_EQ(must(store.size()), 0u);
  EXPECT_TRUE(open([](BrokerKeys&) {}).ok());
}

// A set whose charter promises what this version does not do would answer without it.
TEST(Broker, ACharterThatCannotBeKeptIsRefused) {
  const auto start = [](auto change) {
    BrokerWorld w(65);
    change(w.set.chain.charter);
    w.set.chain.epoch = must(sign(w.set.id(), w.set.chain.epoch.body, w.set.set_key));
    return w.start();
  };
  const auto witness = [](Charter& c) { c.witnesses = {c.genesis_set_key}; };
  EXPECT_TRUE(start(witness).ok());  // named, and not asked for
  EXPECT_EQ(start([&](Charter& c) { witness(c), c.witness_threshold = 1; }).reason(),
            Reason::kUnsupported);
  EXPECT_EQ(start([](Charter& c) { c.custody = Custody::kTee; }).reason(), Reason::kUnsupported);
}

// ---- the plane's copy of the log's head ----

// A broker that was started over a store and waits. Stores can be copied: an old copy is a
// rollback.
struct Waiting {
  explicit Waiting(MemoryStore log) : store(std::move(log)), w(80, &store) { must(w.open()); }
  MemoryStore store;
  BrokerWorld w;
};
// Three copies of one log, the first without its last entry, and the heads of the two.
struct Copies {
  Copies() : w(80, &newest) {
    w.start_and_publish();
    older = newest;
    older_head = w.head();
    next_policy(w.data);
    must(w.publish(w.data));
    newest_head = w.head();
  }
  MemoryStore newest;
  MemoryStore older;
  BrokerWorld w;
  Signed<LogHead> older_head;
  Signed<LogHead> newest_head;
};

TEST(BrokerResume, NothingIsAnsweredBeforeThePlaneHasShownItsHead) {
  Copies c;
  Waiting again(c.newest);
  BrokerWorld& w = again.w;
  const auto size = w.core->log_size();
  const FakeAgent agent = make_agent(w.random);
  const auto asked = w.connect(agent);
  for (const auto m : {method::kHello, method::kAttest, method::kKey, method::kSeal}) {
    EXPECT_EQ(w.core->handle(m, Json(JsonObject{}), asked, w.clock.now()).reason(),
              Reason::kUnavailable)
        << m;
  }
  for (const auto m : {method::kPublish, method::kAuthorise, method::kCredential, method::kJudge,
                       method::kReceipt, method::kHead, method::kExplain}) {
    EXPECT_EQ(w.core->handle(m, Json(JsonObject{}), w.plane(), w.clock.now()).reason(),
              Reason::kUnavailable)
        << m;
  }
  // Evidence is anybody's; the head and the way to go on are the plane's.
  EXPECT_TRUE(w.core->handle(method::kInfo, to_json(InfoRequest{}), {}, w.clock.now()).ok());
  for (const auto& who : {ConnectionContext{}, asked}) {
    for (const auto m : {method::kResume, method::kHead}) {
      EXPECT_EQ(w.core->handle(m, Json(JsonObject{}), who, w.clock.now()).reason(),
                Reason::kUnauthenticated);
    }
  }
  EXPECT_EQ(w.core->log_size(), size);  // nothing was written either
  must(w.resume(c.newest_head));
  EXPECT_EQ(w.core->log_size(), size + 1);
  must(w.resume(c.newest_head));  // each connection of the plane begins so
  EXPECT_EQ(w.core->log_size(), size + 1);
  EXPECT_EQ(w.judge(Hash32{}).reason(), Reason::kNotFound);
}

TEST(BrokerResume, AnOlderLogEndsTheBroker) {
  Copies c;
  Waiting again(c.older);
  const Status s = again.w.resume(c.newest_head);
  EXPECT_EQ(s.reason(), Reason::kLogRolledBack);
  EXPECT_EQ(s.error().expected, std::to_string(c.newest_head.body.tree_size) + " entries or more");
  EXPECT_EQ(s.error().actual, std::to_string(c.older_head.body.tree_size));
  EXPECT_NE(s.error().next, "");
  EXPECT_FALSE(again.w.core->healthy());
  EXPECT_EQ(again.w.core->ended_by().reason(), Reason::kLogRolledBack);
  EXPECT_EQ(must(again.store.size()), must(c.older.size()));
  // Once is for ever: no other copy, and none at all, lets this process go on.
  EXPECT_EQ(again.w.resume(c.older_head).reason(), Reason::kUnavailable);
  EXPECT_EQ(again.w.resume().reason(), Reason::kUnavailable);
  // With the head of its own time it cannot tell, nor with none: the threat model says so.
  Waiting fooled(c.older);
  must(fooled.w.resume(c.older_head));
  Waiting trusting(c.older);
  must(trusting.w.resume());
}

// An old copy that went on by itself, perhaps further than the newest: two logs of one set.
TEST(BrokerResume, AnotherLogOfTheSetEndsTheBroker) {
  Copies c;
  Waiting again(c.older);
  must(again.w.resume(c.older_head));
  for (int i = 0; i < 3; ++i) must(again.w.resume()), must(again.w.open());
  must(again.w.resume());
  ASSERT_GE(again.w.core->log_size(), c.newest.size().value());
  // Also while it runs: the plane shows what it holds on each of its connections.
  EXPECT_EQ(again.w.resume(c.newest_head).reason(), Reason::kLogRolledBack);
  EXPECT_FALSE(again.w.core->healthy());
}

TEST(BrokerResume, OnlyTheSetsOwnWordCounts) {
  Copies c;
  Waiting again(c.newest);
  BrokerWorld& w = again.w;
  const auto refused = [&](const Signed<LogHead>& head) {
    const Status s = w.resume(head);
    EXPECT_TRUE(w.core->healthy());
    EXPECT_EQ(w.judge(Hash32{}).reason(), Reason::kUnavailable);  // it waits on
    return s.reason();
  };
  Signed<LogHead> tampered = c.newest_head;
  tampered.body.tree_size -= 1;
  EXPECT_EQ(refused(tampered), Reason::kBadSignature);
  const KeySet other = make_key_set(w.random);
  EXPECT_EQ(refused(must(sign(other.id(), c.newest_head.body, other.signing))),
            Reason::kBadSignature);
  EXPECT_EQ(refused(must(sign(other.id(), c.newest_head.body, w.set.signing))),
            Reason::kBadSignature);
  LogHead later = c.newest_head.body;
  later.epoch += 1;
  EXPECT_EQ(refused(must(sign(w.set.id(), later, w.set.signing))), Reason::kWrongSet);
  must(w.resume(c.newest_head));
}

TEST(BrokerResume, OneStateOfTheLogHasOneHead) {
  Copies c;
  c.w.clock.advance(60'000);
  EXPECT_EQ(canonical(to_json(c.w.head())), canonical(to_json(c.newest_head)));
  EXPECT_EQ(c.newest_head.body.tree_size, static_cast<std::int64_t>(c.w.core->log_size()));
}

TEST(Broker, ALogOfAnotherSetIsRefused) {
  MemoryStore store;
  BrokerWorld a(53, &store);
  must(a.start());
  BrokerWorld b(54, &store);
  EXPECT_EQ(b.start().reason(), Reason::kWrongSet);
}

}  // namespace
}  // namespace gbx::broker
