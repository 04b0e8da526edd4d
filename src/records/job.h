// A job: what is asked for (spec), what the consumer signs (submission), what the broker allows
// (run plan, credential).
#pragma once

#include "records/asset.h"

namespace gbx::records {

// ---- the job spec: apiVersion glovebox/v1 (docs/jobspec.md) ----
struct SpecImage {
  std::optional<std::string> asset;  // an encrypted image asset, by name or version id
  // "name@sha256:…": the image asset that holds the image of this digest
  std::optional<std::string> ref;
  template <class F>
  void fields(F& f) {
    f("asset", asset, Bound{1, 128});
    f("ref", ref, Bound{1, 256});
  }
};
struct SpecInput {
  std::string name;
  std::string asset;
  std::string mount;  // "/data/<something>"
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 63});
    f("asset", asset, Bound{1, 128});
    f("mount", mount, Bound{7, 200});
  }
};
struct SpecOutput {
  std::string name;
  std::string path;  // relative to /out; parts as plain_path() has them
  OutputType type = OutputType::kOpaque;
  std::optional<Json> schema;
  std::int64_t max_bytes = 0;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 63});
    f("path", path, Bound{1, 200});
    f("type", type);
    f("schema", schema, Bound{2, kMaxSchemaBytes});
    f("maxBytes", max_bytes, Bound{1, kMaxOutputBytes});
  }
};
struct SpecResources {
  std::int64_t cpu = 1;  // cores
  std::string memory;    // "512MiB"
  std::string scratch;
  std::int64_t gpu = 0;
  // room for the unpacked image, which lies in memory; absent: kDefaultImageRoom
  std::optional<std::string> image = {};
  template <class F>
  void fields(F& f) {
    f("cpu", cpu, Bound{1, kMaxCpu});
    f("memory", memory, Bound{1, 16});
    f("scratch", scratch, Bound{1, 16});
    f("gpu", gpu, Bound{0, 64});
    f("image", image, Bound{1, 16});
  }
};
inline constexpr std::string_view kDefaultImageRoom = "1GiB";
// Where the receiving CLI writes delivered logs, beside the outputs.
inline constexpr std::string_view kLogFile = "job.log";
struct SpecTee {
  std::vector<Technology> any_of;
  std::vector<std::string> releases;
  template <class F>
  void fields(F& f) {
    f("anyOf", any_of, Bound{1, 8});
    f("releases", releases, Bound{0, 32, 64});
  }
};
// Most processes of one job, on any node.
inline constexpr std::int64_t kMaxPids = 4096;
inline constexpr std::int64_t kDefaultPids = 256;
struct SpecSandbox {
  std::optional<std::string> runtime;  // "crun" or "runc"; absent: the node's choice
  std::optional<std::int64_t> pids;
  template <class F>
  void fields(F& f) {
    f("runtime", runtime, Bound{1, 16});
    f("pids", pids, Bound{1, kMaxPids});
  }
};
struct SpecLogs {
  LogVisibility visibility = LogVisibility::kNone;
  std::int64_t max_bytes = 0;
  template <class F>
  void fields(F& f) {
    f("visibility", visibility);
    f("maxBytes", max_bytes, Bound{0, kMaxLogBytes});
  }
};
struct SpecTimeouts {  // seconds
  std::int64_t queue = 3600;
  std::int64_t start = 300;
  std::int64_t run = 3600;
  template <class F>
  void fields(F& f) {
    f("queue", queue, Bound{1, 604'800});
    f("start", start, Bound{1, 86400});
    f("run", run, Bound{1, kMaxRunSeconds});
  }
};
struct SpecBody {
  std::string purpose;
  SpecImage image;
  std::vector<std::string> command;
  std::vector<std::string> args;
  std::map<std::string, std::string> env;
  std::vector<SpecInput> inputs;
  std::vector<SpecOutput> outputs;
  SpecResources resources;
  SpecTee tee;
  SpecSandbox sandbox;
  SpecLogs logs;
  std::int64_t attempts = 1;
  SpecTimeouts timeouts;
  template <class F>
  void fields(F& f) {
    f("purpose", purpose, Bound{1, 200});
    f("image", image);
    f("command", command, Bound{1, 64, kMaxArgumentBytes});
    f("args", args, Bound{0, 256, kMaxArgumentBytes});
    f("env", env, Bound{0, 64, kMaxArgumentBytes});
    f("inputs", inputs, Bound{1, 32});
    f("outputs", outputs, Bound{1, kMaxOutputs});
    f("resources", resources);
    f("tee", tee);
    f("sandbox", sandbox);
    f("logs", logs);
    f("attempts", attempts, Bound{1, 100});
    f("timeouts", timeouts);
  }
};
struct SpecMetadata {
  std::string name;
  std::optional<std::map<std::string, std::string>> labels;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 63});
    f("labels", labels, Bound{0, 16, 128});
  }
};
struct JobSpec {
  std::string api_version;  // "glovebox/v1"
  std::string kind;         // "PrivateJob"
  SpecMetadata metadata;
  SpecBody spec;
  template <class F>
  void fields(F& f) {
    f("apiVersion", api_version, Bound{1, 32});
    f("kind", kind, Bound{1, 32});
    f("metadata", metadata);
    f("spec", spec);
  }
  // The checks that a schema cannot say: names, mounts, sizes, duplicates, and whatever the gate,
  // the agent or the receiving CLI would refuse once keys and charge are spent. `what` is the path
  // of the member.
  Status validate() const;
};
// "name@sha256:…" -> "sha256:…". kBadValue.
Result<std::string> image_ref_digest(std::string_view ref);
// "512MiB" -> bytes; suffixes KiB MiB GiB. kBadValue.
Result<std::int64_t> parse_size(std::string_view text);

struct AssetBinding {  // one input (or the image) after the CLI resolved its name
  std::string name;    // the input's name; "image" for the image
  Id16 asset_id{};
  Hash32 version_id{};
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 63});
    f("assetId", asset_id);
    f("versionId", version_id);
  }
};
struct ResultKey {
  std::string use;  // "primary" or "recovery"
  std::string hpke;
  template <class F>
  void fields(F& f) {
    f("use", use, Bound{1, 16});
    f("hpke", hpke, Bound{1, 256});
  }
};
struct Submission {
  static constexpr std::string_view kType = "submission";
  static constexpr bool kBindsSet = true;
  JobSpec spec;
  std::vector<AssetBinding> assets;
  std::string image_digest;
  std::vector<ResultKey> result_keys;
  Hash32 consumer_id{};
  std::vector<Id16> leases;
  Nonce32 nonce{};
  std::int64_t not_after = 0;
  template <class F>
  void fields(F& f) {
    f("spec", spec);
    f("assets", assets, Bound{1, kMaxAssets});
    f("imageDigest", image_digest, Bound{71, 71});
    f("resultKeys", result_keys, Bound{1, 8});
    f("consumerId", consumer_id);
    f("leases", leases, Bound{0, 32});
    f("nonce", nonce);
    f("notAfter", not_after);
  }
  // The spec's checks, a digest that is one, and names of bindings that are names of inputs.
  Status validate() const;
  // SHA-256("gbx/1/job" ‖ 0x00 ‖ JCS(body)).
  Hash32 job_id() const {
    return crypto::labelled_hash("gbx/1/job", as_bytes(canonical(to_json(*this))));
  }
};

// Message 2 as it travels: everything that the broker needs to judge it. The plane adds nothing
// that is trusted.
struct SignedSubmission {
  IdentityChain consumer;
  Signed<Submission> submission;
  std::vector<Signed<Lease>> leases;
  template <class F>
  void fields(F& f) {
    f("consumer", consumer);
    f("submission", submission);
    f("leases", leases, Bound{0, 32});
  }
};

struct PlanPolicy {
  Hash32 asset_version_id{};
  Hash32 owner_id{};
  Hash32 policy_hash{};
  std::int64_t serial = 0;
  template <class F>
  void fields(F& f) {
    f("assetVersionId", asset_version_id);
    f("ownerId", owner_id);
    f("policyHash", policy_hash);
    f("serial", serial, Bound{0, kMaxSerial});
  }
};
// What a machine lends to all containers together: the rest is for the page cache and the programs.
constexpr std::int64_t lent_memory_bytes(std::int64_t total_bytes) { return total_bytes / 10 * 8; }

struct PlanControls {  // what the environment must enforce; the agent refuses to run with less
  std::int64_t cpu = 1;
  std::int64_t memory_bytes = 0;
  std::int64_t scratch_bytes = 0;
  std::int64_t image_bytes = 0;
  std::int64_t pids = 256;
  std::int64_t run_seconds = 0;
  Access access = Access::kPrefetch;
  std::vector<std::string> mandatory;  // names of the controls, docs/sandbox.md
  // What the attempt may fill: /out, /tmp and the unpacked image are memory, too.
  std::int64_t footprint_bytes() const;
  template <class F>
  void fields(F& f) {
    f("cpu", cpu, Bound{1, kMaxCpu});
    f("memoryBytes", memory_bytes, Bound{0, kMaxRoomBytes});
    f("scratchBytes", scratch_bytes, Bound{0, kMaxRoomBytes});
    f("imageBytes", image_bytes, Bound{0, kMaxRoomBytes});
    f("pids", pids, Bound{1, kMaxPids});
    f("runSeconds", run_seconds, Bound{0, kMaxRunSeconds});
    f("access", access);
    f("mandatory", mandatory, Bound{0, 64, 64});
  }
};
// What a spec asks a node for, without what the policies add. kBadValue.
Result<PlanControls> controls_of(const SpecBody& spec);
struct PlanCharge {  // reserved per owner and asset before any key leaves
  Hash32 owner_id{};
  Id16 asset_id{};
  std::int64_t free_bits = 0;
  std::int64_t verified_bits = 0;
  // differential privacy, millionths of rho; no policy allows any yet
  std::int64_t zcdp_micro = 0;
  std::string code_id = {};            // which prefix-free code the bits were reckoned with
  std::optional<Hash32> subject = {};  // a ledger for one person; absent: the whole asset's
  template <class F>
  void fields(F& f) {
    f("ownerId", owner_id);
    f("assetId", asset_id);
    f("freeBits", free_bits, Bound{0, kMaxBits});
    f("verifiedBits", verified_bits, Bound{0, kMaxBits});
    f("zcdpMicro", zcdp_micro, Bound{0, kMaxBits});
    f("codeId", code_id, Bound{1, 64});
    f("subject", subject);
  }
};
struct RunPlan {
  static constexpr std::string_view kType = "run-plan";
  static constexpr bool kBindsSet = true;
  Hash32 job_id{};
  std::vector<PlanPolicy> policies;
  PlanControls controls;
  GateClause gate;  // the strictest of all owners
  std::vector<PlatformRule> tee;
  std::vector<Reviewer> reviewers;
  std::int64_t reviewers_needed = 1;
  std::vector<Reviewer> may_preview;  // whom every owner who is asked lets
  // the most that a release can cost, known before the run
  std::vector<PlanCharge> charges;
  std::int64_t attempts = 1;
  Custody custody = Custody::kOperator;
  std::string rollback;
  std::vector<std::string> residual_channels;
  std::int64_t time = 0;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("policies", policies, Bound{1, kMaxAssets});
    f("controls", controls);
    f("gate", gate);
    f("tee", tee, Bound{1, 16});
    f("reviewers", reviewers, Bound{0, kMaxReviewers});
    f("reviewersNeeded", reviewers_needed, Bound{0, kMaxReviewers});
    f("mayPreview", may_preview, Bound{0, kMaxReviewers});
    f("charges", charges, Bound{0, kMaxAssets});
    f("attempts", attempts, Bound{1, 100});
    f("custody", custody);
    f("rollback", rollback, Bound{1, 16});
    f("residualChannels", residual_channels, Bound{0, 32, 64});
    f("time", time);
  }
};
// One attempt of one job, minutes of life, no bearer power.
struct Credential {
  static constexpr std::string_view kType = "credential";
  static constexpr bool kBindsSet = true;
  Hash32 job_id{};
  std::int64_t attempt = 1;
  Hash32 plan_hash{};
  Nonce32 nonce{};
  std::int64_t expires = 0;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("attempt", attempt, Bound{1, kMaxAttempt});
    f("planHash", plan_hash);
    f("nonce", nonce);
    f("expires", expires);
  }
};

}  // namespace gbx::records
