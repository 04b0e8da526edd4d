// The worker among liars: a real broker in memory behind a real mux and TLS, a node and a
// privileged half that do as each test says. Whatever they do, the attempt ends with its reason,
// and nothing happens that should not have happened first.
#include "agent/worker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <mutex>
#include <set>
#include <thread>

#include "agent/ipc.h"
#include "agent/operations.h"
#include "broker/testing.h"
#include "channel/rpc.h"
#include "channel/tls.h"

namespace gbx::agent {
namespace {

using namespace records;
using gbx::testing::BrokerWorld;
using gbx::testing::must;

// What somebody answers instead of the truth; returns the answer to give.
using Lie = std::function<Result<Json>(std::string_view call, Json truth)>;

// An answer whose record was changed.
template <class Record>
Json changed(const Json& truth, const std::function<void(Record&)>& change) {
  auto record = must(from_json<Record>(truth));
  change(record);
  return to_json(record);
}
// A lie in one answer, the truth in all others.
template <class Record>
Lie lie_in(std::string_view which, std::function<void(Record&)> change) {
  return [which, change](std::string_view call, Json truth) -> Result<Json> {
    return call == which ? changed<Record>(truth, change) : std::move(truth);
  };
}

struct Outcome {
  Status status = ok_status();
  AgentEnd end;
  std::vector<std::string> calls;  // of all three, in the order in which they came
  std::vector<DatasetKey> keys;    // that reached DecryptFS
  std::size_t count(const std::string& call) const {
    return static_cast<std::size_t>(std::count(calls.begin(), calls.end(), call));
  }
};

class WorkerTest : public ::testing::Test {
 protected:
  WorkerTest() {
    world_.data.policy.clauses.tables =
        std::vector<records::TableRule>{{"visits.csv", "patient"}, {"others.csv", "who"}};
    for (auto* a : {&world_.data, &world_.image}) a->policy.clauses.gate.cell_subjects = 15;
    world_.start_and_publish();
    const SignedSubmission submission = world_.submission();
    bundle_.launch_config = world_.launch();
    bundle_.set = world_.set.chain;
    bundle_.submission = submission;
    bundle_.plan = must(world_.authorise(submission));
    bundle_.credential = must(world_.credential(bundle_.plan.body.job_id, 1));
    bundle_.owners = {world_.owner.chain};
    for (const auto* a : {&world_.data, &world_.image}) {
      bundle_.versions.push_back(must(sign(world_.set.id(), a->record, a->owner.key)));
      bundle_.policies.push_back(must(sign(world_.set.id(), a->policy, a->owner.key)));
    }
  }

  Outcome run() {
    auto [agent_end, node_end] = channel::make_memory_pipe();
    auto pair = must(make_packet_pair());
    std::thread privileged([&] { supervise(pair.second.get()); });
    {
      channel::Mux node_mux(*node_end, world_.clock);
      std::thread node([&] {
        (void)channel::serve(node_mux.stream(channel::kMuxControl), node_answers(), {},
                             world_.clock);
      });
      node_mux_ = &node_mux;
      {
        channel::Mux agent_mux(*agent_end, world_.clock);
        WorkerOptions o;
        o.clock = &world_.clock;
        o.random = &random_;
        o.supervisor = pair.first.get();
        o.mux = &agent_mux;
        o.broker_tries = broker_tries_;
        o.broker_pause_ms = 1;
        outcome_.status = run_worker(o);
      }
      node_mux.close();
      node.join();
      if (broker_.joinable()) broker_.join();
    }
    pair.first.reset();
    privileged.join();
    return std::move(outcome_);
  }
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

  // The dataset's key under that name, sealed as a genuine release is.
  Bytes released(const KeyReply& r, const Hash32& version) {
    std::vector<BundledKey> keys;
    keys.push_back({version, world_.data.key.clone()});
    return must(seal_key_bundle(must(crypto::HpkePublicKey::from_text(agent_keys_.hpke)), r.context,
                                keys, world_.random));
  }

  BrokerWorld world_{77};
  SeededRandom random_{78};
  LaunchBundle bundle_;
  const crypto::SigningKey* broker_tls_ = &world_.set.tls;
  Lie broker_lie_ = truth();
  Lie supervisor_lie_ = truth();
  AgentKeys agent_keys_;             // as the broker was told them
  std::multiset<std::string> lost_;  // answers that do not arrive, one each
  int broker_tries_ = 200;
  int broker_away_ = 0;                // so many times nobody listens
  int broker_breaks_ = 0;              // so many connections end as soon as they are there
  std::vector<std::string> requests_;  // for keys, and seals, as the broker got them

 private:
  static Lie truth() {
    return [](std::string_view, Json answer) -> Result<Json> { return answer; };
  }
  void saw(const std::string& call) {
    const std::lock_guard lock(mutex_);
    outcome_.calls.push_back(call);
  }

  channel::Dispatch node_answers() {
    return [this](std::string_view m, const Json& body) -> Result<Json> {
      saw("node " + std::string(m));
      if (m == method::kLaunch) return to_json(bundle_);
      if (m == method::kIntroduce) {
        GBX_ASSIGN(auto r, from_json<IntroduceRequest>(body));
        const NodeIntroduction intro{r.report_data, r.launch_config, bundle_.plan.body.job_id, 1,
                                     world_.clock.now().seconds()};
        GBX_ASSIGN(auto signed_intro, sign(world_.set.id(), intro, world_.node));
        return to_json(signed_intro);
      }
      if (m == method::kAgentBroker) return connect_broker();
      if (m == method::kAgentPhase) return to_json(PhaseReply{});
      if (m == method::kAgentEnd) {
        GBX_ASSIGN(outcome_.end, from_json<AgentEnd>(body));
      }
      return to_json(Empty{});
    };
  }

  Result<Json> connect_broker() {
    if (broker_away_ > 0) {
      --broker_away_;
      return fail(Reason::kUnavailable, "broker");
    }
    if (broker_.joinable()) {
      node_mux_->stream(channel::kMuxBroker).close();
      broker_.join();
    }
    GBX_ASSIGN(channel::MuxStream * stream, node_mux_->fresh(channel::kMuxBroker));
    broker_ = std::thread([this, stream, number = ++connections_] {
      if (number > broker_breaks_) return serve_broker(*stream, static_cast<std::uint64_t>(number));
      Bytes hello(1);
      (void)stream->read(hello, channel::Deadline::after_ms(world_.clock, 20'000));
      stream->close();
    });
    return to_json(BrokerStream{channel::kMuxBroker});
  }
  void serve_broker(channel::ByteStream& stream, std::uint64_t connection) {
    channel::TlsOptions tls;
    tls.clock = &world_.clock;
    tls.key = broker_tls_;
    tls.peer = channel::PeerPolicy::any_key_or_none();
    auto opened = channel::TlsChannel::server(stream, tls);
    if (!opened.ok()) return stream.close();
    const broker::ConnectionContext context{connection, opened->peer_key(),
                                            must(opened->exporter(kExporterLabel, {})),
                                            broker::Peer::kStranger};
    const auto answer = [&](std::string_view m, const Json& body) -> Result<Json> {
      saw("broker " + std::string(m));
      if (m == method::kKey || m == method::kSeal) requests_.push_back(canonical(body));
      if (m == method::kAttest) {
        GBX_ASSIGN(const auto request, from_json<AttestRequest>(body));
        agent_keys_ = request.agent_keys;
      }
      GBX_ASSIGN(Json reply, world_.core->handle(m, body, context, world_.clock.now()));
      if (const auto lost = lost_.find(std::string(m)); lost != lost_.end()) {
        lost_.erase(lost);
        stream.close();  // the broker has done it, and nobody hears of it
      }
      return broker_lie_(m, std::move(reply));
    };
    (void)channel::serve(*opened, answer, {}, world_.clock);
  }

  void supervise(int socket) {
    for (;;) {
      auto packet = receive_packet(socket);
      if (!packet.ok() || !packet->has_value()) return;
      const std::string op = *(*packet)->body.find("op")->string();
      saw(op);
      Fd file;
      auto reply = perform(op, *(*packet)->body.find("body"), (*packet)->fd, file);
      if (reply.ok()) reply = supervisor_lie_(op, std::move(*reply));
      Json answer;
      if (reply.ok()) {
        answer["body"] = std::move(*reply);
      } else {
        answer["error"] = channel::error_to_json(reply.error());
      }
      if (!send_packet(socket, answer, file.get()).ok()) return;
    }
  }
  Result<Json> perform(const std::string& op, const Json& body, const Fd& in, Fd& out) {
    if (op == operation::kUnpack || op == operation::kMount) {
      GBX_ASSIGN(const Bytes key, read_all(in.get(), 64));
      outcome_.keys.push_back(DatasetKey::copy_of(key));
      if (op == operation::kMount) return to_json(MountReply{});
      return to_json(UnpackReply{gbx::testing::kImageDigest, Hash32{7}, false});
    }
    if (op == operation::kRun) {
      return to_json(
          RunReply{gate::RunExit::kOk, 1500, "crun 1.8", bundle_.plan.body.controls.mandatory});
    }
    if (op == operation::kGate) {
      GBX_ASSIGN(const auto request, from_json<gate::GateRequest>(body));
      GBX_ASSIGN(out, memory_file(as_bytes("the checked output")));
      asked_ = request;
      return to_json(judged(request));
    }
    return to_json(DestroyReply{});
  }
  static GateReply judged(const gate::GateRequest& r) {
    GateReply g;
    g.result.jobId = r.jobId;
    g.result.attempt = r.attempt;
    g.result.verdict = gate::RuleStatus::kPass;
    g.result.charge = {200, 0, 0, gate::CodeId::kSchema};
    g.result.manifest = {{"metrics", "metrics.json", Hash32{9}, 16}};
    g.result.exitClass = gate::RunExit::kOk;
    g.result.recommendation = gate::Recommendation::kRelease;
    return g;
  }

  channel::Mux* node_mux_ = nullptr;
  std::thread broker_;  // the connection that there is
  int connections_ = 0;
  std::mutex mutex_;
  Outcome outcome_;  // calls guarded by mutex_; the rest is read after the threads ended

 protected:
  gate::GateRequest asked_;  // of the gate; read after the threads ended
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
  EXPECT_EQ(asked_.inputs[0].tables[1].file, "others.csv");
  EXPECT_EQ(asked_.policy.cellSubjects, 15);
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
