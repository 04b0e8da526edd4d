#include "agent/worker.h"

#include <unistd.h>

#include <algorithm>

#include "agent/broker_link.h"
#include "agent/ipc.h"
#include "agent/memory_bound.h"
#include "agent/operations.h"
#include "asset/prefetch.h"
#include "attest/attester.h"
#include "base/bundle_size.h"
#include "records/sealing.h"

namespace gbx::agent {

using namespace records;

namespace {

constexpr std::int64_t kNodeTimeoutMs = 30'000;
// What the node carries to the plane, for which it waits five minutes and a try where the plane is
// away.
constexpr std::int64_t kCarriedTimeoutMs = 600'000;
constexpr SecretAccess kAccess{};

Result<OwnKeys> make_keys(Random& random) {
  GBX_ASSIGN(auto tls, crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
  GBX_ASSIGN(auto hpke, crypto::HpkeKeyPair::generate(random));
  GBX_ASSIGN(auto sig, crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
  return OwnKeys{std::move(tls), std::move(hpke), std::move(sig)};
}

template <class Reply, class Request>
Result<Reply> ask(int supervisor, std::string_view operation, const Request& request, int fd = -1) {
  GBX_ASSIGN(Packet p, call(supervisor, operation, to_json(request), fd));
  return from_json<Reply>(p.body);
}

gate::GatePolicy gate_policy(const GateClause& c) {
  gate::GatePolicy p;
  p.autoClearFreeBits = c.auto_clear_free_bits;
  p.autoClearVerifiedBits = c.auto_clear_verified_bits;
  p.maxOutputBytes = std::min(c.max_output_bytes, gate::kHardMaxOutputBytes);
  p.maxRows = std::min(c.max_rows, gate::kHardMaxRows);
  p.maxConsumerLogBytes =
      c.logs == LogVisibility::kConsumer ? std::min(c.log_bytes, gate::kHardMaxLogBytes) : 0;
  p.scoreThreshold = c.hold_score;
  p.copyCheck = c.copy_check;
  p.cellSubjects = c.least_subjects();
  p.allowedTypes.clear();
  for (OutputType t : c.output_types) {
    auto word = enum_from<gate::OutputType>(enum_name(t));
    if (word.ok()) p.allowedTypes.push_back(*word);
  }
  return p;
}

// The gate's answer in the words of the records, as anybody may read it; an unknown word holds.
GateVerdict verdict_of(const gate::GateResult& r) {
  GateVerdict v;
  v.recommendation = r.recommendation == gate::Recommendation::kRelease  ? Recommendation::kRelease
                     : r.recommendation == gate::Recommendation::kReject ? Recommendation::kReject
                                                                         : Recommendation::kHold;
  if (v.recommendation == Recommendation::kReject) {
    const bool copies = std::any_of(r.analysers.begin(), r.analysers.end(), [](const auto& a) {
      return a.rule == gate::RuleId::kCopies && a.status == gate::RuleStatus::kFail;
    });
    v.cause = copies ? GateCause::kCopies : GateCause::kMalformed;
  }
  v.charge = {r.charge.freeBits, r.charge.verifiedBits, r.charge.zcdpMicro,
              std::string(enum_name(r.charge.code))};
  v.exit_class = r.exitClass == gate::RunExit::kOk        ? JobExit::kOk
                 : r.exitClass == gate::RunExit::kKilled  ? JobExit::kKilled
                 : r.exitClass == gate::RunExit::kTimeout ? JobExit::kTimeout
                                                          : JobExit::kFailed;
  v.duration_bucket = r.durationBucket;
  return v;
}
// What only reviewers read of it.
GateReview review_of(const gate::GateResult& r) {
  GateReview v;
  v.score = r.score;
  for (const auto& s : r.scoreReasons) {
    v.score_reasons.push_back({std::string(enum_name(s.reason)), s.points});
  }
  for (const auto& a : r.analysers) {
    if (v.findings.size() == 256) break;
    GateFinding f;
    f.rule = enum_name(a.rule);
    f.status = a.status == gate::RuleStatus::kPass            ? AnalyserStatus::kPass
               : a.status == gate::RuleStatus::kFail          ? AnalyserStatus::kFail
               : a.status == gate::RuleStatus::kNotApplicable ? AnalyserStatus::kNotApplicable
                                                              : AnalyserStatus::kError;
    f.reason = enum_name(a.reason);
    for (const auto& e : a.evidence) {
      f.refs.push_back(e.output + (e.row >= 0 ? ":" + std::to_string(e.row) : "") +
                       (e.column >= 0 ? ":" + std::to_string(e.column) : ""));
    }
    v.findings.push_back(std::move(f));
  }
  return v;
}

std::int64_t padded(std::int64_t bytes) {
  std::int64_t p = 1;
  while (p < bytes) p *= 2;
  return p;
}

class Attempt {
 public:
  Attempt(const WorkerOptions& o, channel::RpcClient& node) : o_(o), node_(node) {}

  // Ends with a SealAck, or with the reason why there is none.
  Result<Hash32> run() {
    GBX_ASSIGN(LaunchBundle bundle,
               rpc<LaunchBundle>(node_, method::kLaunch, to_json(Empty{}), kNodeTimeoutMs));
    GBX_ASSIGN(job_, checked(std::move(bundle)));
    GBX_TRY(check_launch());
    GBX_TRY(bound_memory());
    GBX_ASSIGN(keys_, made());
    GBX_TRY(report(EnvironmentPhase::kBooting));
    broker_.emplace(o_, node_, *job_, *keys_);
    GBX_TRY(broker_->open());
    GBX_TRY(report(EnvironmentPhase::kAttested));
    GBX_TRY(load_image());
    GBX_TRY(load_data());
    GBX_TRY(report(EnvironmentPhase::kLoaded));
    // the time limit for starting ends here, not with the container
    GBX_TRY(report(EnvironmentPhase::kWorking));
    GBX_TRY(work());
    GBX_ASSIGN(ResultSealed sealed, pass_gate());
    return hand_over(sealed);
  }

 private:
  Result<std::optional<CheckedJob>> checked(LaunchBundle bundle) {
    GBX_ASSIGN(CheckedJob job, check_bundle(std::move(bundle), o_.clock->now().seconds()));
    return std::optional<CheckedJob>(std::move(job));
  }
  Result<std::optional<OwnKeys>> made() {
    GBX_ASSIGN(OwnKeys keys, make_keys(*o_.random));
    return std::optional<OwnKeys>(std::move(keys));
  }
  // The platform says which configuration this machine was started for; a broker of another one is
  // not spoken to.
  Status check_launch() {
    if (o_.technology == Technology::kNone) return ok_status();
    GBX_ASSIGN(const QuoteReply quote, own_quote(o_, {}));
    GBX_ASSIGN(const Hash32 started, attest::own_launch_hash(o_.technology, quote.quote));
    const Hash32 told = hash_of(job_->bundle.launch_config);
    if (started == told) return ok_status();
    return fail(Reason::kLaunchConfigMismatch, "the launch configuration")
        .with(to_hex(started), to_hex(told));
  }
  // Before any key is asked for: what does not fit costs the consumer nothing.
  Status bound_memory() {
    GBX_ASSIGN(const MemoryFacts facts, memory_facts());
    GBX_TRY(check_controls(facts, bundle().plan.body.controls));
    if (bundle().plan.body.controls.access == Access::kDirect) return ok_status();
    prefetch_left_ = prefetch_bound(facts, bundle().plan.body.controls);
    return check_prefetch(bundle(), job_->image, job_->inputs, prefetch_left_);
  }
  // The share of one asset, which check_prefetch() found to be there.
  Reading reading(const VersionRecord& record) {
    Reading r;
    r.access = bundle().plan.body.controls.access;
    if (r.access == Access::kDirect) return r;
    const std::uint64_t share = std::min(prefetch_left_, asset::prefetch_bytes(record));
    prefetch_left_ -= share;
    r.prefetch_limit = static_cast<std::int64_t>(share);
    return r;
  }
  const LaunchBundle& bundle() const { return job_->bundle; }
  const SpecBody& spec() const { return bundle().submission.submission.body.spec.spec; }
  std::int64_t attempt() const { return bundle().credential.body.attempt; }

  Status report(EnvironmentPhase phase) {
    const PhaseReport r{job_->job_id, attempt(), phase, "", ""};
    GBX_ASSIGN(PhaseReply reply,
               rpc<PhaseReply>(node_, method::kAgentPhase, to_json(r), kCarriedTimeoutMs));
    if (reply.stop) return fail(Reason::kJobCancelled, "the node asks to stop");
    return ok_status();
  }

  Result<std::vector<BundledKey>> request_keys(KeyRequest request) {
    request.job_id = job_->job_id;
    request.attempt = attempt();
    request.seq = ++seq_;
    request.prev = last_request_;
    request.evidence = broker_->evidence();
    GBX_ASSIGN(auto signed_request, sign(job_->set.set_id, request, keys_->sig));
    last_request_ = signed_request.hash();
    GBX_ASSIGN(KeyReply reply, broker_->call<KeyReply>(method::kKey, to_json(signed_request)));
    GBX_TRY(check_key_context(*job_, broker_->evidence(), request, reply.context));
    return open_key_bundle(keys_->hpke, reply.context, reply.sealed);
  }

  // A pipe for DecryptFS; the key is wiped here as soon as it is in there.
  Result<Fd> key_pipe(std::vector<BundledKey>& keys, const VersionRecord& record) {
    const Hash32 id = record.id();
    for (auto& k : keys) {
      if (k.version_id != id) continue;
      if (dataset_key_commitment(record.asset_id, k.key) != record.commit_dk) {
        return fail(Reason::kBadCommitment, "key for " + record.name);
      }
      return pipe_with(k.key.view(kAccess));
    }
    return fail(Reason::kEvidenceMissing, "the broker released no key for " + record.name);
  }

  Status load_image() {
    KeyRequest request;
    request.stage = 1;
    GBX_ASSIGN(auto keys, request_keys(request));
    const VersionRecord& image = bundle().versions[job_->image].body;
    GBX_ASSIGN(Fd pipe, key_pipe(keys, image));
    const UnpackRequest unpack{image, bundle().submission.submission.body.image_digest,
                               reading(image), bundle().plan.body.controls.image_bytes,
                               spec().command[0]};
    image_opened_ = image.owner_id != bundle().submission.submission.body.consumer_id;
    GBX_ASSIGN(image_, ask<UnpackReply>(o_.supervisor, operation::kUnpack, unpack, pipe.get()));
    pageable_ = image_.pageable;
    return ok_status();
  }

  Status load_data() {
    KeyRequest request;
    request.stage = 2;
    request.image_digest = image_.image_digest;
    request.unpacked_root_hash = image_.root_hash;
    data_opened_ = true;
    GBX_ASSIGN(auto keys, request_keys(request));
    for (std::size_t i = 0; i < job_->inputs.size(); ++i) {
      const VersionRecord& record = bundle().versions[job_->inputs[i]].body;
      GBX_ASSIGN(Fd pipe, key_pipe(keys, record));
      const MountRequest mount{spec().inputs[i].name, spec().inputs[i].mount, record,
                               reading(record)};
      GBX_ASSIGN(const MountReply mounted,
                 ask<MountReply>(o_.supervisor, operation::kMount, mount, pipe.get()));
      pageable_ = pageable_ || mounted.pageable;
    }
    return ok_status();
  }

  Status work() {
    RunRequest request;
    request.argv = spec().command;
    request.argv.insert(request.argv.end(), spec().args.begin(), spec().args.end());
    request.env = spec().env;
    request.controls = bundle().plan.body.controls;
    request.runtime = spec().sandbox.runtime;
    request.log_bytes = spec().logs.max_bytes;
    GBX_ASSIGN(run_, ask<RunReply>(o_.supervisor, operation::kRun, request));
    return require_controls(request.controls, run_.controls);
  }

  // What the version's owner lets recipes read.
  std::vector<gate::GateTable> tables_of(const Hash32& version) const {
    std::vector<gate::GateTable> out;
    for (const auto& p : bundle().policies) {
      if (p.body.asset_version_id != version || !p.body.clauses.tables) continue;
      for (const auto& t : *p.body.clauses.tables) {
        gate::GateTable& table = out.emplace_back(gate::GateTable{t.file, t.subject, {}});
        if (!t.structural_zeros) continue;
        for (const auto& z : *t.structural_zeros) {
          table.structuralZeros.push_back({z.columns, z.words});
        }
      }
      return out;
    }
    return out;
  }

  gate::GateRequest gate_request() const {
    gate::GateRequest g;
    g.jobId = to_hex(job_->job_id);
    g.attempt = attempt();
    g.planHash = job_->plan_hash;
    g.purpose = spec().purpose;
    g.imageDigest = image_.image_digest;
    g.salt = o_.random->fixed<32>();
    g.policy = gate_policy(bundle().plan.body.gate);
    g.exitClass = run_.exit;
    g.durationSeconds = run_.duration_ms / 1000;
    g.logs.visibility = spec().logs.visibility == LogVisibility::kConsumer
                            ? gate::LogVisibility::kConsumer
                            : gate::LogVisibility::kNone;
    g.logs.maxBytes = spec().logs.max_bytes;
    for (const auto& out : spec().outputs) {
      gate::OutputDeclaration d;
      d.name = out.name;
      d.path = out.path;
      auto type = enum_from<gate::OutputType>(enum_name(out.type));
      d.type = type.ok() ? *type : gate::OutputType::kOpaque;
      if (out.schema) d.schema = *out.schema;
      d.maxBytes = std::min(out.max_bytes, gate::kHardMaxOutputBytes);
      g.outputs.push_back(std::move(d));
    }
    for (std::size_t i = 0; i < spec().inputs.size(); ++i) {
      gate::GateInput in;
      in.name = spec().inputs[i].name;
      in.mount = spec().inputs[i].mount;
      in.versionId = to_hex(bundle().versions[job_->inputs[i]].body.id());
      in.assetId = to_hex(bundle().versions[job_->inputs[i]].body.asset_id);
      in.fd = static_cast<std::int64_t>(4 + i);  // run_gate() fills in the real ones
      in.tables = tables_of(bundle().versions[job_->inputs[i]].body.id());
      g.inputs.push_back(std::move(in));
    }
    return g;
  }

  // One digest for each declared output of a run that delivered, none for any other: which files a
  // container wrote, and how long they are, would be its words in the clear.
  Result<std::vector<OutputDigest>> digests(const gate::GateResult& result,
                                            const GateVerdict& verdict) const {
    std::vector<OutputDigest> out;
    if (verdict.recommendation == Recommendation::kReject || verdict.exit_class != JobExit::kOk) {
      return out;
    }
    for (const auto& declared : spec().outputs) {
      const auto found = std::find_if(result.manifest.begin(), result.manifest.end(),
                                      [&](const auto& m) { return m.name == declared.name; });
      if (found != result.manifest.end()) {
        out.push_back({declared.name, found->digest, padded(declared.max_bytes)});
      }
    }
    if (out.size() != spec().outputs.size() && verdict.recommendation == Recommendation::kRelease) {
      return fail(Reason::kOutputInvalid, "the gate releases without every declared output");
    }
    if (out.size() != spec().outputs.size()) out.clear();
    return out;
  }

  Result<ResultSealed> pass_gate() {
    const gate::GateRequest request = gate_request();
    GBX_ASSIGN(Packet p, call(o_.supervisor, operation::kGate, to_json(request)));
    GBX_ASSIGN(GateReply reply, from_json<GateReply>(p.body));
    if (reply.result.jobId != request.jobId || reply.result.attempt != request.attempt) {
      return fail(Reason::kOutputInvalid, "the gate judged another job");
    }
    GBX_ASSIGN(Bytes bundle_bytes, read_all(p.fd.get(), static_cast<std::size_t>(kMaxBundleBytes)));
    // It crashed, hung or answered nonsense. Held, this would be nothing that anybody can open: not
    // a reviewer, and not a consumer whose own policies ask nobody.
    if (reply.result.recommendation != gate::Recommendation::kReject && bundle_bytes.empty()) {
      return fail(Reason::kOutputInvalid, "the gate did not come to an end with this output");
    }
    ResultInput in;
    in.job_id = job_->job_id;
    in.attempt = attempt();
    in.plan_hash = job_->plan_hash;
    in.verdict = verdict_of(reply.result);
    in.review = review_of(reply.result);
    GBX_ASSIGN(in.outputs, digests(reply.result, in.verdict));
    // The salt travels inside, so that the digests in the clear say nothing before the release.
    const Bytes plain = concat({request.salt, bundle_bytes});
    in.bundle = plain;
    in.result_keys = job_->result_keys;
    in.reviewers = job_->reviewers;
    GBX_ASSIGN(DestroyReply gone, ask<DestroyReply>(o_.supervisor, operation::kDestroy, Empty{}));
    residue_ = gone.residue;
    return seal_result(in, job_->set.kek, *o_.random);
  }

  Result<Hash32> hand_over(const ResultSealed& sealed) {
    RunStatement statement;
    statement.manifest = sealed.manifest;
    statement.evidence = broker_->evidence();
    statement.controls = bundle().plan.body.controls;
    statement.runtime = run_.runtime;
    statement.image_digest = image_.image_digest;
    statement.unpacked_root_hash = image_.root_hash;
    statement.residual_channels = bundle().plan.body.residual_channels;
    const auto remains = [&](const char* channel) {
      if (statement.residual_channels.size() < 32) statement.residual_channels.push_back(channel);
    };
    if (pageable_) remains("paging");
    if (run_.listed) remains("process-list");
    Seal seal;
    GBX_ASSIGN(seal.statement, sign(job_->set.set_id, statement, keys_->sig));
    seal.release_keys = sealed.release_keys;
    GBX_ASSIGN(auto ack, broker_->call<Signed<SealAck>>(method::kSeal, to_json(seal)));
    GBX_TRY(ack.verify(job_->set.set_id, job_->set.signing));
    const Hash32 manifest = hash_of(sealed.manifest);
    if (ack.body.manifest != manifest) {
      return fail(Reason::kBrokerUntrusted, "acknowledgement of another output");
    }
    const OutputUpload upload{job_->job_id, attempt(), ack, sealed.output};
    broker_->end();
    GBX_TRY(rpc<Empty>(node_, method::kAgentOutput, to_json(upload), kCarriedTimeoutMs));
    GBX_TRY(report(EnvironmentPhase::kSealed));
    return manifest;
  }

 public:
  const std::vector<std::string>& residue() const { return residue_; }
  // What the job's author is told of an attempt that failed: everything before somebody else's
  // bytes were opened; of another's image one reason, whatever it was; over data a reason of the
  // closed list (docs/decisions/0020).
  AgentEnd told(const Error& why) const {
    AgentEnd end;
    const bool image_only = image_opened_ && !data_opened_;
    end.reason = reason_code(image_only ? Reason::kImageRefused : why.reason);
    if (!image_opened_ && !data_opened_) end.detail = why.detail().substr(0, 500);
    return end;
  }

 private:
  const WorkerOptions& o_;
  channel::RpcClient& node_;
  std::optional<CheckedJob> job_;
  std::optional<OwnKeys> keys_;
  std::optional<BrokerLink> broker_;
  Hash32 last_request_{};
  std::int64_t seq_ = 0;
  std::uint64_t prefetch_left_ = 0;
  bool pageable_ = false;
  UnpackReply image_;
  bool image_opened_ = false;  // of another owner than the consumer
  bool data_opened_ = false;   // keys of data were asked for
  RunReply run_;
  std::vector<std::string> residue_;
};

}  // namespace

Status require_controls(const PlanControls& plan, const std::vector<std::string>& in_force) {
  for (const auto& control : plan.mandatory) {
    if (std::find(in_force.begin(), in_force.end(), control) == in_force.end()) {
      return fail(Reason::kSandboxSetup, "a mandatory control was not in force")
          .with(control, "absent");
    }
  }
  return ok_status();
}

Status run_worker(const WorkerOptions& o) {
  channel::RpcClient node(o.mux->stream(channel::kMuxControl), *o.clock, kSealedBundleFrameBytes);
  AgentEnd end;
  Status status = ok_status();
  {
    Attempt attempt(o, node);
    auto manifest = attempt.run();
    if (manifest.ok()) {
      end.sealed = true;
      end.manifest = *manifest;
    } else {
      status = manifest.error();
      end = attempt.told(manifest.error());
    }
    end.residue = attempt.residue();
  }  // every key of the attempt is gone here
  if (!end.sealed) {
    auto gone = ask<DestroyReply>(o.supervisor, operation::kDestroy, Empty{});
    if (gone.ok()) end.residue = gone->residue;
  }
  if (!node.broken()) {
    auto told = rpc<Empty>(node, method::kAgentEnd, to_json(end), kNodeTimeoutMs);
    if (!told.ok() && status.ok()) status = told.error();
  }
  return status;
}

}  // namespace gbx::agent
