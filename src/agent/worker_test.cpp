// The worker among liars: a real broker in memory behind a real mux and TLS, a node and a
// privileged half that do as each test says. Whatever they do, the attempt ends with its reason,
// and nothing happens that should not have happened first.
#include <gtest/gtest.h>

#include "agent/testing.h"
#include "gate/gate.h"

namespace gbx::agent {
namespace {

using namespace records;
using gbx::testing::must;

class WorkerTest : public ::testing::Test, public WorkerWorld {
 protected:
  // The attempt ends with this reason, both for the node and for the exit code, and hands out
  // nothing.
  Outcome refused(Reason reason, const std::string& what) {
    Outcome o = run();
    EXPECT_EQ(o.status.reason(), reason) << (o.status.ok() ? "accepted" : o.status.error().line());
    if (!o.status.ok()) {
      EXPECT_NE(o.status.error().line().find(what), std::string::npos) << o.status.error().line();
    }
    EXPECT_FALSE(o.end.sealed);
    EXPECT_EQ(o.end.reason, reason_code(reason));
    EXPECT_EQ(o.count("node output"), 0U);
    // whatever happened, the container's world goes
    EXPECT_EQ(o.calls[o.calls.size() - 2], "destroy");
    return o;
  }
};

TEST_F(WorkerTest, DestroysBeforeItSealsAndSealsBeforeItHandsOver) {
  const Outcome o = run();
  ASSERT_TRUE(o.status.ok()) << o.status.error().line();
  const std::vector<std::string> expected{
      "node launch", "node phase",  // booting
      // attested
      "node broker", "broker agent.hello", "node introduce", "broker agent.attest", "node phase",
      // loaded, working
      "broker agent.key", "unpack", "broker agent.key", "mount", "node phase", "node phase", "run",
      "gate", "destroy", "broker agent.seal", "node output", "node phase", "node end"};
  EXPECT_EQ(o.calls, expected);
  EXPECT_TRUE(o.end.sealed);
  EXPECT_EQ(o.end.reason, "");
  ASSERT_EQ(o.keys.size(), 2U);  // each key went to the mount of its own version
  EXPECT_TRUE(o.keys[0] == world_.image.key);
  EXPECT_TRUE(o.keys[1] == world_.data.key);
}

// What recipes may read is the word of each input's owner, and of nobody else.
TEST_F(WorkerTest, TheGateLearnsWhatTheOwnerLetsRecipesRead) {
  ASSERT_TRUE(run().status.ok());
  ASSERT_EQ(asked_.inputs.size(), 1U);
  ASSERT_EQ(asked_.inputs[0].tables.size(), 2U);
  EXPECT_EQ(asked_.inputs[0].tables[0].file, "visits.csv");
  EXPECT_EQ(asked_.inputs[0].tables[0].subject, "patient");
  EXPECT_TRUE(asked_.inputs[0].tables[0].structuralZeros.empty());
  EXPECT_EQ(asked_.inputs[0].tables[1].file, "others.csv");
  ASSERT_EQ(asked_.inputs[0].tables[1].structuralZeros.size(), 1U);
  EXPECT_EQ(asked_.inputs[0].tables[1].structuralZeros[0].columns[0], "sex");
  EXPECT_EQ(asked_.inputs[0].tables[1].structuralZeros[0].words[0], "none");
  EXPECT_EQ(asked_.policy.cellSubjects, 15);
  EXPECT_EQ(asked_.inputs[0].assetId, to_hex(world_.data.record.asset_id));
}

// Each answer is lost once, and the broker is away for a while: every request comes again as it
// was, and counts once.
TEST_F(WorkerTest, ALostReplyIsAskedForAgainOverANewConnection) {
  lost_ = {std::string(method::kHello), std::string(method::kAttest), std::string(method::kKey),
           std::string(method::kKey), std::string(method::kSeal)};
  broker_away_ = 2;
  const Outcome o = run();
  ASSERT_TRUE(o.status.ok()) << o.status.error().line();
  EXPECT_TRUE(o.end.sealed);
  EXPECT_EQ(o.keys.size(), 2U);
  EXPECT_EQ(o.count("run"), 1U);
  EXPECT_EQ(o.count("node output"), 1U);
  EXPECT_EQ(o.count("broker agent.hello"), 6U);
  EXPECT_EQ(o.count("broker agent.attest"), 5U);
  ASSERT_EQ(requests_.size(), 6U);
  EXPECT_EQ(requests_[0], requests_[1]);  // for the image's key, thrice
  EXPECT_EQ(requests_[1], requests_[2]);
  EXPECT_NE(requests_[2], requests_[3]);
  EXPECT_EQ(requests_[4], requests_[5]);  // the seal
  EXPECT_TRUE(lost_.empty());
}

class MeasuredWorker : public ::testing::Test, public WorkerWorld {
 protected:
  MeasuredWorker() : WorkerWorld(78, true) {}
  void expect_delivered_once(const Outcome& o) {
    ASSERT_TRUE(o.status.ok()) << o.status.error().line();
    EXPECT_TRUE(o.end.sealed);
    EXPECT_EQ(o.count("run"), 1U);
    EXPECT_EQ(o.count("destroy"), 1U);
    EXPECT_EQ(o.count("node output"), 1U);
    EXPECT_TRUE(world_.core->state().job(bundle_.plan.body.job_id)->seal.has_value());
  }
};

TEST_F(MeasuredWorker, ProvesItselfByAQuote) {
  const Outcome o = run();
  expect_delivered_once(o);
  EXPECT_EQ(o.count("quote"), 2U);  // its own launch, and for the broker
  EXPECT_EQ(o.count("node introduce"), 0U);
}

// The container's world is gone by then; a finished job must not be lost for it.
TEST_F(MeasuredWorker, ABrokerThatGoesAtTheSealIsAttestedToAgainAndGetsIt) {
  unheard_ = {std::string(method::kSeal)};
  lost_ = {std::string(method::kSeal)};
  const Outcome o = run();
  expect_delivered_once(o);
  EXPECT_EQ(o.count("quote"), 4U);
  EXPECT_EQ(o.count("broker agent.seal"), 3U);
  ASSERT_EQ(requests_.size(), 4U);  // two for keys
  EXPECT_EQ(requests_[2], requests_[3]);
}

TEST_F(MeasuredWorker, APlatformThatIsLateIsAskedAgain) {
  late_quotes_ = 5;
  const Outcome o = run();
  expect_delivered_once(o);
  EXPECT_EQ(o.count("quote"), 7U);
}
TEST_F(MeasuredWorker, ButNotForEver) {
  late_quotes_ = 1'000;
  broker_tries_ = 4;
  const Outcome o = run();
  EXPECT_EQ(o.status.reason(), Reason::kUnavailable);
  EXPECT_EQ(o.end.reason, "unavailable");
  EXPECT_EQ(o.count("quote"), 4U);
  EXPECT_EQ(o.count("node broker"), 0U);
}

// What the plane is told when the privileged half answers the order to unpack like this.
std::string told_of(WorkerWorld& w, const Error& why) {
  w.supervisor_lie_ = [&](std::string_view call, Json truth) -> Result<Json> {
    if (call == operation::kUnpack) return why;
    return truth;
  };
  const Outcome o = w.run();
  EXPECT_EQ(o.status.reason(), why.reason);
  EXPECT_EQ(o.count("mount"), 0U);
  return o.end.reason + "|" + o.end.detail;
}
Error no_such_program(const std::string& program) {
  return fail(Reason::kNotFound, "spec.command[0]")
      .with("an executable file in the image", program);
}

// Room for the image is the consumer's to choose, and so is the program: each attempt would name a
// file of somebody else's encrypted image, or say what is there.
TEST(AnothersImage, OneReasonIsToldAndNoText) {
  std::set<std::string> told;
  for (const std::string file : {"app/secret-model.bin", "etc/passwd"}) {
    const Error full = fail(Reason::kImageRefused, "No space left").with("4096", "8192");
    for (const Error& why : {Error(full).at(file), Error(fail(Reason::kIo, file)),
                             Error(fail(Reason::kTooLarge, file)), no_such_program("/" + file)}) {
      WorkerWorld w;
      told.insert(told_of(w, why));
    }
  }
  EXPECT_EQ(told, std::set<std::string>{"image-refused|"});
}
TEST(OwnImage, ItsAuthorIsToldWhatIsWrong) {
  WorkerWorld w;
  w.world_.image = gbx::testing::make_asset(copy(w.world_.consumer), AssetKind::kImage,
                                            w.world_.image_clauses(), w.world_.random);
  w.world_.image.policy.clauses.gate.cell_subjects = 15;
  must(w.world_.publish(w.world_.image));
  w.take(w.world_.submission());
  const std::string told = told_of(w, no_such_program("/bin/nope"));
  EXPECT_EQ(told, "not-found|spec.command[0]");
}

// More often than a node has streams: what breaks is no answer, however it breaks.
TEST_F(WorkerTest, ConnectionsThatBreakAtOnceAreTriedAgain) {
  broker_breaks_ = 40;
  const Outcome o = run();
  ASSERT_TRUE(o.status.ok()) << o.status.error().line();
  EXPECT_TRUE(o.end.sealed);
  EXPECT_EQ(o.count("node broker"), 41U);
}

TEST_F(WorkerTest, ABrokerThatDoesNotComeBackEndsTheAttempt) {
  broker_away_ = 1'000;
  broker_tries_ = 3;
  const Outcome o = refused(Reason::kUnavailable, "broker");
  EXPECT_EQ(o.count("node broker"), 3U);
}

TEST_F(WorkerTest, SpeaksToNoBrokerButThatOfItsKeySet) {
  broker_tls_ = &world_.owner.key;
  const Outcome o = refused(Reason::kBrokerUntrusted, "");
  EXPECT_EQ(o.count("broker agent.hello"), 0U);
}

TEST_F(WorkerTest, AsksForNothingBeforeTheBundleIsChecked) {
  bundle_.plan.body.controls.memory_bytes += 1;
  const Outcome o = refused(Reason::kBadSignature, "");
  EXPECT_EQ(o.count("broker agent.hello"), 0U);
  EXPECT_TRUE(o.keys.empty());
}

TEST_F(WorkerTest, ABrokerThatTookOtherEvidenceGetsNoRequestForKeys) {
  broker_lie_ = lie_in<AttestReply>(method::kAttest, [](AttestReply& r) { r.evidence[0] ^= 1; });
  const Outcome o = refused(Reason::kBrokerUntrusted, "the broker names other evidence");
  EXPECT_EQ(o.count("broker agent.key"), 0U);
}

TEST_F(WorkerTest, AKeyReleaseForAnotherRequestIsNotOpened) {
  broker_lie_ = lie_in<KeyReply>(method::kKey, [](KeyReply& r) { r.context.seq += 1; });
  const Outcome o = refused(Reason::kBrokerUntrusted, "key release for another request");
  EXPECT_EQ(o.count("unpack"), 0U);
}

TEST_F(WorkerTest, AKeyThatTheRecordDoesNotCommitToReachesNoMount) {
  broker_lie_ = lie_in<KeyReply>(
      method::kKey, [this](KeyReply& r) { r.sealed = released(r, world_.image.version_id()); });
  const Outcome o = refused(Reason::kBadCommitment, "key for asset");
  EXPECT_EQ(o.count("unpack"), 0U);
  EXPECT_TRUE(o.keys.empty());
}

TEST_F(WorkerTest, AKeyForAnotherVersionReachesNoMount) {
  broker_lie_ = lie_in<KeyReply>(
      method::kKey, [this](KeyReply& r) { r.sealed = released(r, world_.data.version_id()); });
  const Outcome o = refused(Reason::kEvidenceMissing, "the broker released no key for asset");
  EXPECT_EQ(o.count("unpack"), 0U);
}

TEST_F(WorkerTest, ARunWithoutAMandatoryControlHasNoOutput) {
  supervisor_lie_ = lie_in<RunReply>(operation::kRun, [](RunReply& r) { r.controls.pop_back(); });
  const Outcome o = refused(Reason::kSandboxSetup, bundle_.plan.body.controls.mandatory.back());
  EXPECT_EQ(o.count("run"), 1U);
  EXPECT_EQ(o.count("gate"), 0U);
  EXPECT_EQ(o.count("broker agent.seal"), 0U);
}

TEST_F(WorkerTest, AVerdictAboutAnotherJobIsNotSealed) {
  supervisor_lie_ = lie_in<GateReply>(operation::kGate, [](GateReply& g) { g.result.attempt = 2; });
  const Outcome o = refused(Reason::kOutputInvalid, "the gate judged another job");
  EXPECT_EQ(o.count("broker agent.seal"), 0U);
}

// As a gate that was killed is answered for: held, and nothing there to open.
TEST_F(WorkerTest, WhatTheGateDidNotJudgeIsNotSealed) {
  bundle_of_gate_.clear();
  supervisor_lie_ = lie_in<GateReply>(operation::kGate, [this](GateReply& g) {
    g.result = gate::held_result(asked_, gate::GateReason::kGateCrashed);
  });
  const Outcome o = refused(Reason::kOutputInvalid, "did not come to an end");
  EXPECT_EQ(o.count("destroy"), 1U);
  EXPECT_EQ(o.count("broker agent.seal"), 0U);
  EXPECT_EQ(o.end.reason, "output-invalid");
}

TEST_F(WorkerTest, AReleaseWithoutEveryDeclaredOutputIsNotSealed) {
  supervisor_lie_ =
      lie_in<GateReply>(operation::kGate, [](GateReply& g) { g.result.manifest.clear(); });
  const Outcome o = refused(Reason::kOutputInvalid, "without every declared output");
  EXPECT_EQ(o.count("broker agent.seal"), 0U);
}

TEST_F(WorkerTest, NothingIsHandedOverWithoutTheBrokersSignedAcknowledgement) {
  broker_lie_ = lie_in<Signed<SealAck>>(method::kSeal, [](auto& ack) { ack.signature[0] ^= 1; });
  const Outcome o = refused(Reason::kBadSignature, "");
  EXPECT_EQ(o.count("broker agent.seal"), 1U);
}

TEST_F(WorkerTest, AnAcknowledgementOfAnotherOutputIsNone) {
  broker_lie_ = lie_in<Signed<SealAck>>(method::kSeal, [this](auto& ack) {
    SealAck other = ack.body;
    other.manifest[0] ^= 1;
    ack = must(sign(world_.set.id(), other, world_.set.signing));
  });
  const Outcome o = refused(Reason::kBrokerUntrusted, "acknowledgement of another output");
  EXPECT_EQ(o.count("broker agent.seal"), 1U);
}

}  // namespace
}  // namespace gbx::agent
