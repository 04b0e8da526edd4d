// A broker whose owners allow the simulated platform, and environments that are not what they say:
// another launch, another machine, another job, another connection, a second use. Evidence is made
// by a genuine SimPlatform each time; what differs is what a lying host would change. Each is
// refused, and with which words.
#include <gtest/gtest.h>

#include "broker/sim_testing.h"
#include "policy/receipt_verify.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::BrokerWorld;
using gbx::testing::FakeAgent;
using gbx::testing::make_agent;
using gbx::testing::must;
using gbx::testing::SimSide;

// One attempt of a job, before it has attested.
struct Attempt {
  Attempt(BrokerWorld& world, const SignedSubmission& s)
      : w(world),
        plan(must(w.authorise(s))),
        credential(must(w.credential(plan.body.job_id, 1))),
        agent(make_agent(w.random)),
        connection(w.connect(agent)),
        nonce(must(w.hello(plan.body.job_id, 1, connection))) {}
  AttestRequest request() { return w.attest_request(agent, credential, nonce, connection); }
  // The same with the members that the quote is over changed before it was made.
  AttestRequest over(const std::function<void(ReportData&)>& change) {
    AttestRequest r = request();
    ReportData report = w.report_data(agent, credential, nonce, connection);
    change(report);
    w.prove(r, report);
    return r;
  }
  Result<AttestReply> attest(const AttestRequest& r) {
    return w.call<AttestReply>(method::kAttest, r, connection);
  }
  BrokerWorld& w;
  Signed<RunPlan> plan;
  Signed<Credential> credential;
  FakeAgent agent;
  ConnectionContext connection;
  Nonce32 nonce;
};

struct Host {
  BrokerWorld w{90};
  SimSide sim{w};
  std::unique_ptr<Attempt> attempt;
  std::unique_ptr<Attempt> other;  // of another job
  Host() {
    w.start_and_publish();
    attempt = std::make_unique<Attempt>(w, w.submission());
    other = std::make_unique<Attempt>(w, w.submission());
  }
  AttestRequest booted(const std::function<void(attest::sim::SimLaunch&)>& change) {
    change(sim.forge.launch);
    return attempt->request();
  }
};

struct Lie {
  const char* name;
  std::function<Result<AttestReply>(Host&)> tell;
  Reason reason;
  const char* what;  // in the refusal
};
class MeasuredLies : public ::testing::TestWithParam<Lie> {};

TEST_P(MeasuredLies, AreRefusedWithTheirReasonWhereTheTruthIsTaken) {
  Host honest;
  ASSERT_TRUE(honest.attempt->attest(honest.attempt->request()).ok());
  Host host;
  const auto size = host.w.core->log_size();
  const auto refused = GetParam().tell(host);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.reason(), GetParam().reason) << refused.error().line();
  EXPECT_NE(refused.error().line().find(GetParam().what), std::string::npos)
      << refused.error().line();
  EXPECT_EQ(host.w.core->log_size(), size);
  // No key on that connection.
  EXPECT_EQ(host.w
                .key(host.attempt->agent, host.attempt->credential.body, Hash32{}, 1,
                     host.attempt->connection)
                .reason(),
            Reason::kUnauthenticated);
}

const std::vector<Lie>& lies() {
  static const std::vector<Lie> kLies = {
      {"Firmware",
       [](Host& h) { return h.attempt->attest(h.booted([](auto& l) { l.firmware[0] ^= 1; })); },
       Reason::kFirmwareMismatch, "firmware is not the release's"},
      {"Kernel",
       [](Host& h) { return h.attempt->attest(h.booted([](auto& l) { l.kernel[0] ^= 1; })); },
       Reason::kKernelMismatch, "kernel is not the release's"},
      {"Initrd",
       [](Host& h) { return h.attempt->attest(h.booted([](auto& l) { l.initrd[0] ^= 1; })); },
       Reason::kInitrdMismatch, "initrd is not the release's"},
      {"CommandLine",
       [](Host& h) { return h.attempt->attest(h.booted([](auto& l) { l.cmdline += " debug"; })); },
       Reason::kCmdlineMismatch, "command line is not the release's"},
      {"AnotherMachine",
       [](Host& h) { return h.attempt->attest(h.booted([](auto& l) { l.machine += " "; })); },
       Reason::kMachineMismatch, "no machine of this size and these devices"},
      {"LaunchConfigurationOfAnotherSet",
       [](Host& h) {
         h.sim.config = h.w.launch();
         h.sim.config->set_id[0] ^= 1;
         return h.attempt->attest(h.attempt->request());
       },
       Reason::kLaunchConfigMismatch, "MRCONFIGID"},
      {"LaunchConfigurationBesideTheMeasuredOne",
       [](Host& h) {
         AttestRequest r = h.attempt->request();
         r.evidence.launch_config.set_key += "0";
         return h.attempt->attest(r);
       },
       Reason::kLaunchConfigMismatch, "states another launch configuration"},
      // The other machine is genuine, and its agent made keys of its own.
      {"EvidenceOfAnotherVm",
       [](Host& h) {
         const FakeAgent other = make_agent(h.w.random);
         return h.attempt->attest(
             h.attempt->over([&](ReportData& d) { d.agent_keys = hash_of(other.keys()); }));
       },
       Reason::kEvidenceOtherAgent, "an agent with other keys"},
      {"EvidenceOfAnotherJob",
       [](Host& h) {
         return h.attempt->attest(
             h.attempt->over([&](ReportData& d) { d.job_id = h.other->plan.body.job_id; }));
       },
       Reason::kEvidenceOtherJob, "of another job"},
      {"EvidenceUnderAnotherPlan",
       [](Host& h) {
         return h.attempt->attest(h.attempt->over([](ReportData& d) { d.plan_hash[0] ^= 1; }));
       },
       Reason::kEvidenceOtherJob, "under another plan"},
      {"EvidenceOfAnotherAttempt",
       [](Host& h) {
         return h.attempt->attest(h.attempt->over([](ReportData& d) { d.attempt = 2; }));
       },
       Reason::kEvidenceOtherAttempt, "of another attempt"},
      {"EvidenceOverAnOlderNonce",
       [](Host& h) {
         const AttestRequest old = h.attempt->request();
         must(h.w.hello(h.attempt->plan.body.job_id, 1, h.attempt->connection));
         return h.attempt->attest(old);
       },
       Reason::kNonceMismatch, "nonce"},
      {"EvidenceForAnotherConnection",
       [](Host& h) {
         return h.attempt->attest(h.attempt->over([](ReportData& d) { d.exporter[0] ^= 1; }));
       },
       Reason::kEvidenceOtherAgent, "another connection: somebody is between"},
      {"AQuoteBesideOtherMembers",
       [](Host& h) {
         AttestRequest r = h.attempt->over([](ReportData& d) { d.nonce[0] ^= 1; });
         r.evidence.report_data = h.attempt->request().evidence.report_data;
         return h.attempt->attest(r);
       },
       Reason::kEvidenceRejected, "digest of the members"},
      {"AnotherInstallationsRoot",
       [](Host& h) {
         h.sim.forge.platform = attest::sim::SimPlatform::create(h.w.random).value();
         return h.attempt->attest(h.attempt->request());
       },
       Reason::kTeeNotAllowed, "no owner's rule names this root"},
      {"AReleaseThatNobodyAllowed",
       [](Host& h) {
         h.sim.forge.release.name = "guest-2";
         return h.attempt->attest(h.attempt->request());
       },
       Reason::kTeeNotAllowed, "no owner's rule names this release"},
      {"AReleaseOfAnotherSigner",
       [](Host& h) {
         h.sim.forge.signer = &h.w.owner.key;
         return h.attempt->attest(h.attempt->request());
       },
       Reason::kReleaseUnknown, "nobody whom this set's charter names"},
      {"ADebugGuest",
       [](Host& h) {
         h.sim.forge.body.td_attributes[0] = 1;
         return h.attempt->attest(h.attempt->request());
       },
       Reason::kDebugGuest, "debug"},
  };
  return kLies;
}
INSTANTIATE_TEST_SUITE_P(Of, MeasuredLies, ::testing::ValuesIn(lies()),
                         [](const auto& of) { return std::string(of.param.name); });

// The owner's word is about technologies: a job that asks for another than is allowed gets no plan,
// and evidence of another than was planned gets no key.
TEST(Measured, SimulationWhereTheOwnerDidNotAllowIt) {
  BrokerWorld w(91);
  SimSide sim(w);
  w.data.policy.clauses = w.clauses();
  w.image.policy.clauses = w.image_clauses();
  w.start_and_publish();
  EXPECT_EQ(w.authorise(w.submission()).reason(), Reason::kTeeNotAllowed);
  w.technology = Technology::kNone;
  Attempt attempt(w, w.submission());
  const auto refused = attempt.attest(attempt.request());
  ASSERT_EQ(refused.reason(), Reason::kTeeNotAllowed) << refused.error().line();
  EXPECT_NE(refused.error().line().find("no owner's rule allows this technology"),
            std::string::npos)
      << refused.error().line();
}

TEST(Measured, TwoAgentsWithOneCredential) {
  Host h;
  ASSERT_TRUE(h.attempt->attest(h.attempt->request()).ok());
  const FakeAgent other = make_agent(h.w.random);
  EXPECT_EQ(h.w.attest(other, h.attempt->credential, h.w.connect(other)).reason(),
            Reason::kCredentialUsed);
}

// A clone has the agent's keys and gets a quote and a nonce of its own. One of the two goes on: the
// one that attested last; the other's next word is refused, and it ends.
TEST(Measured, OfAGuestAndItsCloneOneGoesOn) {
  Host h;
  Attempt& a = *h.attempt;
  const auto& credential = a.credential.body;
  const Hash32 evidence = must(a.attest(a.request())).evidence;
  const auto elsewhere = h.w.connect(a.agent);
  EXPECT_EQ(must(h.w.attest(a.agent, a.credential, elsewhere)), evidence);
  const auto refused = h.w.key(a.agent, credential, evidence, 1, a.connection);
  ASSERT_EQ(refused.reason(), Reason::kCredentialUsed);
  EXPECT_NE(refused.error().line().find("another connection"), std::string::npos);
  for (std::int64_t stage = 1; stage <= 2; ++stage) {
    ASSERT_TRUE(h.w.key(a.agent, credential, evidence, stage, elsewhere).ok());
  }
  // The first comes back as after a break, at the state of then, and asks what the other has asked
  // in its own words: two requests of one number end the attempt for both.
  const auto again = h.w.connect(a.agent);
  must(h.w.attest(a.agent, a.credential, again));
  KeyRequest fork = a.agent.sent[1].body;
  fork.unpacked_root_hash = Hash32{8};
  EXPECT_EQ(
      h.w.call<KeyReply>(method::kKey, must(sign(h.w.set.id(), fork, a.agent.sig)), again).reason(),
      Reason::kSequenceMismatch);
  for (const auto& c : {again, elsewhere}) {
    EXPECT_FALSE(h.w.call<KeyReply>(method::kKey, a.agent.sent[1], c).ok());
  }
}

// A message that was on its way while the agent had connected again already.
TEST(Measured, AnOlderConnectionTakesNothingFromTheNewerOne) {
  Host h;
  Attempt& a = *h.attempt;
  const AttestRequest late = a.request();
  const auto newer = h.w.connect(a.agent);
  const Hash32 evidence = must(h.w.attest(a.agent, a.credential, newer));
  EXPECT_EQ(a.attest(late).reason(), Reason::kCredentialUsed);
  EXPECT_TRUE(h.w.key(a.agent, a.credential.body, evidence, 1, newer).ok());
}

// A guest that was restored from a snapshot on the connection of then: its nonce is used.
TEST(Measured, ANonceServesOnce) {
  Host h;
  Attempt& a = *h.attempt;
  const AttestRequest first = a.request();
  const AttestRequest fresh = a.request();
  ASSERT_NE(hash_of(first.evidence), hash_of(fresh.evidence));  // ECDSA draws a number
  const Hash32 evidence = must(a.attest(first)).evidence;
  EXPECT_EQ(must(a.attest(first)).evidence, evidence);  // a doubled message gets its answer
  EXPECT_EQ(a.attest(fresh).reason(), Reason::kNonceMismatch);
  AttestRequest other = a.request();
  other.evidence.collateral.pop_back();  // without the log: other bytes
  EXPECT_EQ(a.attest(other).reason(), Reason::kNonceMismatch);
}

// Evidence of a platform names no node, so a claim of destruction is the word of whoever signed it:
// the receipt holds, says so, and counts nothing about it as proved.
TEST(MeasuredReceipt, AClaimOfDestructionProvesNothing) {
  BrokerWorld w(92);
  SimSide sim(w);
  w.start_and_publish();
  const auto run = w.run_until_sealed(w.submission());
  must(w.judge(run.job_id()));
  Receipt r = must(w.call<Receipt>(method::kReceipt, JobRequest{run.job_id()}));
  const auto report = [&](const crypto::SigningKey& key) {
    r.destroyed =
        must(sign(w.set.id(), DestroyedClaim{run.job_id(), 1, gbx::testing::kNow, {}}, key));
    return policy::verify_receipt(r, w.set.id(),
                                  {gbx::testing::kNow + 5, w.capacity, attest::verify_evidence});
  };
  for (const auto* key : {&w.node, &w.consumer.key}) {
    const auto said = report(*key);
    EXPECT_TRUE(said.valid) << said.first_failure().line();
    EXPECT_TRUE(std::any_of(said.claims.begin(), said.claims.end(), [](const auto& c) {
      return c.find("destroyed: the word of whoever has a key that nothing else here names") !=
             std::string::npos;
    }));
    const auto group = std::find_if(said.checks.begin(), said.checks.end(),
                                    [](const auto& c) { return c.claim == "destruction"; });
    ASSERT_NE(group, said.checks.end());
    for (const auto& part : group->parts) {
      EXPECT_EQ(part.claim.find("signed"), std::string::npos) << part.claim;
    }
  }
  (void)report(w.node);
  r.destroyed->signature[0] ^= 1;
  const auto broken = policy::verify_receipt(
      r, w.set.id(), {gbx::testing::kNow + 5, w.capacity, attest::verify_evidence});
  EXPECT_EQ(broken.first_failure().reason, Reason::kBadSignature);
}

}  // namespace
}  // namespace gbx::broker
