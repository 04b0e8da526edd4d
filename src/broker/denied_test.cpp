// Checks of the broker that no honest program ever meets, each with the reason that it gives.
#include <gtest/gtest.h>

#include "broker/testing.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::BrokerWorld;
using gbx::testing::clean_verdict;
using gbx::testing::kNow;
using gbx::testing::make_agent;
using gbx::testing::must;
using gbx::testing::next_policy;

TEST(BrokerDenied, CancellingUnderTheConsumersName) {
  BrokerWorld w(70);
  w.start_and_publish();
  auto run = w.run_until_attested(w.submission());
  const Cancel cancel{run.job_id(), w.consumer.id(), kNow};
  const CancelRequest forged{w.consumer.chain, must(sign(w.set.id(), cancel, w.owner.key))};
  EXPECT_EQ(w.call<Empty>(method::kCancel, forged).reason(), Reason::kBadSignature);
  CancelRequest claimed{w.consumer.chain, forged.cancel};
  claimed.cancel.key = w.consumer.key.public_key().text();
  EXPECT_EQ(w.call<Empty>(method::kCancel, claimed).reason(), Reason::kBadSignature);
  EXPECT_TRUE(w.key(run.agent, run.credential.body, run.evidence, 1, run.connection).ok());
}

TEST(BrokerDenied, ASealFromAConnectionThatNeverAttested) {
  BrokerWorld w(71);
  w.start_and_publish();
  auto run = w.run_until_attested(w.submission());
  for (const int stage : {1, 2}) {
    must(w.key(run.agent, run.credential.body, run.evidence, stage, run.connection));
  }
  const auto sealed =
      w.make_seal(run.agent, run.submission, run.plan, 1, run.evidence, clean_verdict());
  const auto elsewhere = w.connect(run.agent);
  EXPECT_EQ(w.seal(sealed.seal, elsewhere).reason(), Reason::kUnauthenticated);
  must(w.hello(run.job_id(), 1, elsewhere));
  // greeted is not attested
  EXPECT_EQ(w.seal(sealed.seal, elsewhere).reason(), Reason::kUnauthenticated);
  // Attested, but for another job.
  auto other = w.run_until_attested(w.submission());
  EXPECT_EQ(w.seal(sealed.seal, other.connection).reason(), Reason::kUnauthenticated);
  EXPECT_TRUE(w.seal(sealed.seal, run.connection).ok());
}

TEST(BrokerDenied, KeysAfterTheJobIsSealed) {
  BrokerWorld w(72);
  w.start_and_publish();
  auto run = w.run_until_sealed(w.submission());
  const auto size = w.core->log_size();
  for (const int stage : {1, 2}) {
    EXPECT_EQ(w.key(run.agent, run.credential.body, run.evidence, stage, run.connection).reason(),
              Reason::kWrongState);
  }
  EXPECT_EQ(w.core->log_size(), size);
}

TEST(BrokerDenied, ACredentialForASubmissionThatExpired) {
  BrokerWorld w(73);
  w.start_and_publish();
  const auto plan = must(w.authorise(w.submission()));
  w.clock.advance(10'000'000);
  must(w.credential(plan.body.job_id, 1));
  w.clock.advance(1000);
  EXPECT_EQ(w.credential(plan.body.job_id, 2).reason(), Reason::kExpired);
}

TEST(BrokerDenied, EvidenceAfterThePolicyChanged) {
  for (const bool revoke : {true, false}) {
    BrokerWorld w(74);
    w.start_and_publish();
    const auto plan = must(w.authorise(w.submission()));
    const auto credential = must(w.credential(plan.body.job_id, 1));
    next_policy(w.data);
    w.data.policy.revoked = revoke;
    must(w.publish(w.data));
    const auto agent = make_agent(w.random);
    EXPECT_EQ(w.attest(agent, credential, w.connect(agent)).reason(),
              revoke ? Reason::kPolicyRevoked : Reason::kPolicyStale);
    EXPECT_FALSE(w.core->state().job(plan.body.job_id)->attempts[0].attest.has_value());
  }
}

TEST(BrokerDenied, OneNonceForTwoPiecesOfEvidence) {
  BrokerWorld w(75);
  w.start_and_publish();
  const auto plan = must(w.authorise(w.submission()));
  const auto credential = must(w.credential(plan.body.job_id, 1));
  const auto agent = make_agent(w.random);
  const auto c = w.connect(agent);
  const Nonce32 nonce = must(w.hello(plan.body.job_id, 1, c));
  must(w.call<AttestReply>(method::kAttest, w.attest_request(agent, credential, nonce, c), c));
  w.clock.advance(1000);
  const auto second = w.attest_request(agent, credential, nonce, c);
  EXPECT_EQ(w.call<AttestReply>(method::kAttest, second, c).reason(), Reason::kNonceMismatch);
  // A new nonce is what it takes.
  const Nonce32 fresh = must(w.hello(plan.body.job_id, 1, c));
  EXPECT_TRUE(
      w.call<AttestReply>(method::kAttest, w.attest_request(agent, credential, fresh, c), c).ok());
}

TEST(BrokerDenied, AnIntroductionForAnotherAttemptOrJob) {
  BrokerWorld w(76);
  w.start_and_publish();
  const auto plan = must(w.authorise(w.submission()));
  const auto credential = must(w.credential(plan.body.job_id, 1));
  const auto agent = make_agent(w.random);
  const auto c = w.connect(agent);
  const Nonce32 nonce = must(w.hello(plan.body.job_id, 1, c));
  const auto introduce = [&](auto change) {
    auto r = w.attest_request(agent, credential, nonce, c);
    change(r.evidence.node->body);
    r.evidence.node = must(sign(w.set.id(), r.evidence.node->body, w.node));
    return w.call<AttestReply>(method::kAttest, r, c).reason();
  };
  EXPECT_EQ(introduce([](NodeIntroduction& n) { ++n.attempt; }), Reason::kEvidenceRejected);
  EXPECT_EQ(introduce([](NodeIntroduction& n) { n.job_id[0] ^= 1; }), Reason::kEvidenceRejected);
  EXPECT_EQ(introduce([](NodeIntroduction&) {}), Reason::kUninitialised);
}

}  // namespace
}  // namespace gbx::broker
