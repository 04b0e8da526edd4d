// A worker among liars: a real broker in memory behind a real mux and TLS, a node and a privileged
// half that do as each test says. The privileged half keeps the order of the real one. Not part of
// any program.
#pragma once

#include <algorithm>
#include <functional>
#include <mutex>
#include <set>
#include <thread>

#include "agent/attempt_order.h"
#include "agent/ipc.h"
#include "agent/operations.h"
#include "agent/worker.h"
#include "broker/sim_testing.h"
#include "channel/rpc.h"
#include "channel/tls.h"

namespace gbx::agent {

using namespace records;

// What somebody answers instead of the truth; returns the answer to give.
using Lie = std::function<Result<Json>(std::string_view call, Json truth)>;

// An answer whose record was changed.
template <class Record>
Json changed(const Json& truth, const std::function<void(Record&)>& change) {
  auto record = gbx::testing::must(from_json<Record>(truth));
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

class WorkerWorld {
 public:
  // With `simulated` the environment is a machine of the simulated platform.
  explicit WorkerWorld(std::uint64_t seed = 77, bool simulated = false)
      : world_(seed), random_(seed + 1) {
    if (simulated) sim_ = std::make_unique<gbx::testing::SimSide>(world_);
    world_.data.policy.clauses.tables = std::vector<records::TableRule>{
        {"visits.csv", "patient"}, {"others.csv", "who", {{{{"sex"}, {"none"}}}}}};
    for (auto* a : {&world_.data, &world_.image}) a->policy.clauses.gate.cell_subjects = 15;
    world_.start_and_publish();
    take(world_.submission());
  }
  // The job of this submission is the one that is launched.
  void take(const SignedSubmission& submission) {
    bundle_ = {};
    bundle_.launch_config = world_.launch();
    bundle_.set = world_.set.chain;
    bundle_.submission = submission;
    bundle_.plan = gbx::testing::must(world_.authorise(submission));
    bundle_.credential = gbx::testing::must(world_.credential(bundle_.plan.body.job_id, 1));
    bundle_.owners = {world_.owner.chain};
    if (world_.image.owner.id() != world_.owner.id()) {
      bundle_.owners.push_back(world_.image.owner.chain);
    }
    for (const auto* a : {&world_.data, &world_.image}) {
      bundle_.versions.push_back(
          gbx::testing::must(sign(world_.set.id(), a->record, a->owner.key)));
      bundle_.policies.push_back(
          gbx::testing::must(sign(world_.set.id(), a->policy, a->owner.key)));
    }
  }

  Outcome run() {
    auto [agent_end, node_end] = channel::make_memory_pipe();
    auto pair = gbx::testing::must(make_packet_pair());
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
        if (sim_) o.technology = Technology::kSim;
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
  // The dataset's key under that name, sealed as a genuine release is.
  Bytes released(const KeyReply& r, const Hash32& version) {
    std::vector<BundledKey> keys;
    keys.push_back({version, world_.data.key.clone()});
    return gbx::testing::must(
        seal_key_bundle(gbx::testing::must(crypto::HpkePublicKey::from_text(agent_keys_.hpke)),
                        r.context, keys, world_.random));
  }

  gbx::testing::BrokerWorld world_;
  SeededRandom random_;  // of the worker
  LaunchBundle bundle_;
  const crypto::SigningKey* broker_tls_ = &world_.set.tls;
  Lie broker_lie_ = truth();
  Lie supervisor_lie_ = truth();
  Lie node_lie_ = truth();
  AgentKeys agent_keys_;                // as the broker was told them
  std::multiset<std::string> lost_;     // answers that do not arrive, one each
  std::multiset<std::string> unheard_;  // requests that do not, one each
  int late_quotes_ = 0;                 // so many times the platform has none yet
  std::unique_ptr<gbx::testing::SimSide> sim_;
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

  void did(const std::string& what, const Json& body) {
    const std::lock_guard lock(mutex_);
    deeds_.push_back(what + " " + canonical(body));
  }

  channel::Dispatch node_answers() {
    return [this](std::string_view m, const Json& body) -> Result<Json> {
      saw("node " + std::string(m));
      GBX_ASSIGN(Json answer, node_answer(m, body));
      return node_lie_(m, std::move(answer));
    };
  }
  Result<Json> node_answer(std::string_view m, const Json& body) {
    if (m == method::kLaunch) return to_json(bundle_);
    if (m == method::kIntroduce) {
      GBX_ASSIGN(auto r, from_json<IntroduceRequest>(body));
      const NodeIntroduction intro{r.report_data, r.launch_config, bundle_.plan.body.job_id, 1,
                                   world_.clock.now().seconds()};
      GBX_ASSIGN(auto signed_intro, sign(world_.set.id(), intro, world_.node));
      return to_json(signed_intro);
    }
    if (m == method::kRelease && sim_) return to_json(ReleaseReply{sim_->release()});
    if (m == method::kAgentBroker) return connect_broker();
    if (m == method::kAgentPhase) return to_json(PhaseReply{});
    if (m == method::kAgentOutput) did("output", body);
    if (m == method::kAgentEnd) {
      GBX_ASSIGN(outcome_.end, from_json<AgentEnd>(body));
    }
    return to_json(Empty{});
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
    const broker::ConnectionContext context{
        connection, opened->peer_key(), gbx::testing::must(opened->exporter(kExporterLabel, {})),
        broker::Peer::kStranger};
    const auto answer = [&](std::string_view m, const Json& body) -> Result<Json> {
      saw("broker " + std::string(m));
      if (const auto at = unheard_.find(std::string(m)); at != unheard_.end()) {
        unheard_.erase(at);
        stream.close();
        return fail(Reason::kConnectionClosed, "the broker has heard nothing");
      }
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
      did(op, *(*packet)->body.find("body"));
      Fd file;
      auto reply = in_order(op, *(*packet)->body.find("body"), (*packet)->fd, file);
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
  Result<Json> in_order(const std::string& op, const Json& body, const Fd& in, Fd& out) {
    GBX_ASSIGN(const Operation operation, enum_from<Operation>(op));
    GBX_TRY(order_.admit(operation));
    GBX_ASSIGN(Json reply, perform(op, body, in, out));
    order_.done(operation);
    return reply;
  }
  Result<Json> quote(const Json& body) {
    GBX_ASSIGN(const auto request, from_json<QuoteRequest>(body));
    if (!sim_) return fail(Reason::kUnsupported, "a quote");
    if (late_quotes_ > 0) {
      --late_quotes_;
      return fail(Reason::kUnavailable, "the platform has not answered yet");
    }
    QuoteReply reply;
    GBX_ASSIGN(reply.quote, sim_->forge.platform.quote(sim_->measured(), request.report_data));
    reply.collateral.push_back({std::string(attest::kEventLogCollateral), sim_->event_log()});
    return to_json(reply);
  }
  Result<Json> perform(const std::string& op, const Json& body, const Fd& in, Fd& out) {
    if (op == operation::kQuote) return quote(body);
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
      GBX_ASSIGN(out, memory_file(as_bytes(bundle_of_gate_)));
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
    g.result.charge = {gbx::testing::kJobBits, 0, 0, gate::CodeId::kSchema};
    g.result.manifest = {{"metrics", "metrics.json", Hash32{9}, 16}};
    g.result.exitClass = gate::RunExit::kOk;
    g.result.recommendation = gate::Recommendation::kRelease;
    return g;
  }

  channel::Mux* node_mux_ = nullptr;
  std::thread broker_;  // the connection that there is
  AttemptOrder order_;
  int connections_ = 0;
  std::mutex mutex_;
  Outcome outcome_;  // calls guarded by mutex_; the rest is read after the threads ended

 public:
  // Read after the threads ended.
  std::string bundle_of_gate_ = "the checked output";
  gate::GateRequest asked_;  // of the gate
  std::vector<std::string>
      deeds_;  // what the privileged half was asked for, and what was handed in
};

}  // namespace gbx::agent
