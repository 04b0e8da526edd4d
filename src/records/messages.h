// Requests between programs, by method name. Bodies that matter are signed records; the rest is
// routing, and a lie in it can only refuse service. Method names are what travels in a channel
// frame.
#pragma once

#include "records/output.h"

namespace gbx::records {

struct Empty {
  template <class F>
  void fields(F&) {}
};

// ---- anyone -> broker ----
namespace method {
inline constexpr std::string_view kInfo = "broker.info";  // InfoRequest -> InfoReply
// Publish -> Signed<PublishAck>; idempotent
inline constexpr std::string_view kPublish = "broker.publish";
inline constexpr std::string_view kRotate = "broker.rotate";  // RotateRequest -> Empty
// SignedSubmission -> Explanation; logs nothing
inline constexpr std::string_view kExplain = "broker.explain";
// SignedSubmission -> Signed<RunPlan>; idempotent
inline constexpr std::string_view kAuthorise = "broker.authorise";
inline constexpr std::string_view kCancel = "broker.cancel";  // CancelRequest -> Empty
// CredentialRequest -> Signed<Credential>; idempotent
inline constexpr std::string_view kCredential = "broker.credential";
inline constexpr std::string_view kJudge = "broker.judge";      // JobRequest -> Judgement
inline constexpr std::string_view kRuling = "broker.ruling";    // RulingRequest -> Judgement
inline constexpr std::string_view kReceipt = "broker.receipt";  // JobRequest -> Receipt
// BeaconRequest -> Signed<BeaconAck>; idempotent
inline constexpr std::string_view kBeacon = "broker.beacon";
// LedgerRequest -> Signed<LedgerStatement>; logs nothing
inline constexpr std::string_view kLedger = "broker.ledger";
// ResumeRequest -> Signed<LogHead>; the first request of a plane after the broker's start
inline constexpr std::string_view kResume = "broker.resume";
inline constexpr std::string_view kHead = "broker.head";  // Empty -> Signed<LogHead>
// ---- agent -> broker, on one TLS connection per environment ----
inline constexpr std::string_view kHello = "agent.hello";    // CredentialRequest -> HelloReply
inline constexpr std::string_view kAttest = "agent.attest";  // AttestRequest -> AttestReply
// Signed<KeyRequest> -> KeyReply; identical replay = same reply
inline constexpr std::string_view kKey = "agent.key";
inline constexpr std::string_view kSeal = "agent.seal";  // Seal -> Signed<SealAck>
// ---- node -> plane; the node is known by its TLS client key ----
inline constexpr std::string_view kNodeRegister = "node.register";    // NodeInfo -> NodeLease
inline constexpr std::string_view kNodeHeartbeat = "node.heartbeat";  // Heartbeat -> NodeLease
// PollRequest -> PollReply (waits up to wait_ms)
inline constexpr std::string_view kNodePoll = "node.poll";
inline constexpr std::string_view kNodePhase = "node.phase";  // PhaseReport -> PhaseReply
// OutputUpload -> Empty; idempotent
inline constexpr std::string_view kNodeOutput = "node.output";
// Signed<DestroyedClaim> -> Empty
inline constexpr std::string_view kNodeDestroyed = "node.destroyed";
// ---- agent <-> node, on the control stream of the mux ----
inline constexpr std::string_view kLaunch = "launch";  // node -> agent: LaunchBundle
// agent -> node: IntroduceRequest -> Signed<NodeIntroduction>
inline constexpr std::string_view kIntroduce = "introduce";
inline constexpr std::string_view kRelease = "release";  // agent -> node: Empty -> ReleaseReply
// agent -> node: Empty -> BrokerStream; ends the one before
inline constexpr std::string_view kAgentBroker = "broker";
inline constexpr std::string_view kAgentPhase = "phase";  // agent -> node: PhaseReport
// agent -> node: SealedOutput, after the SealAck
inline constexpr std::string_view kAgentOutput = "output";
inline constexpr std::string_view kAgentEnd = "end";  // agent -> node: AgentEnd
}  // namespace method

struct InfoRequest {
  Nonce32 nonce{};
  template <class F>
  void fields(F& f) {
    f("nonce", nonce);
  }
};
struct InfoReply {
  SetChain set;
  Signed<BrokerEvidence> evidence;
  template <class F>
  void fields(F& f) {
    f("set", set);
    f("evidence", evidence);
  }
};
struct RotateRequest {
  Identity identity;
  Signed<Rotation> rotation;
  template <class F>
  void fields(F& f) {
    f("identity", identity);
    f("rotation", rotation);
  }
};
struct CredentialRequest {
  Hash32 job_id{};
  std::int64_t attempt = 1;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("attempt", attempt, Bound{1, kMaxAttempt});
  }
};
struct JobRequest {
  Hash32 job_id{};
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
  }
};
// A consumer's signed wish to end a job; the broker then releases no key and accepts no seal for
// it.
struct Cancel {
  static constexpr std::string_view kType = "cancel";
  static constexpr bool kBindsSet = true;
  Hash32 job_id{};
  Hash32 consumer_id{};
  std::int64_t time = 0;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("consumerId", consumer_id);
    f("time", time);
  }
};
struct CancelRequest {
  IdentityChain consumer;
  Signed<Cancel> cancel;
  template <class F>
  void fields(F& f) {
    f("consumer", consumer);
    f("cancel", cancel);
  }
};

// One line of `job plan`: a check by one owner's policy (or by the set), with its result.
struct PlanCheck {
  std::string check;  // "consumer", "purpose", "image", …
  std::string asset;  // name of the input, or "job"
  Hash32 owner_id{};
  bool allowed = false;
  std::string reason;  // reason code when denied
  std::string what;
  std::string expected;
  std::string actual;
  std::string next;
  template <class F>
  void fields(F& f) {
    f("check", check, Bound{1, 64});
    f("asset", asset, Bound{1, 63});
    f("ownerId", owner_id);
    f("allowed", allowed);
    f("reason", reason, Bound{0, 64});
    f("what", what, Bound{0, 1024});
    f("expected", expected, Bound{0, 1024});
    f("actual", actual, Bound{0, 1024});
    f("next", next, Bound{0, 1024});
  }
};
struct Explanation {
  bool allowed = false;
  std::vector<PlanCheck> checks;
  std::optional<RunPlan> plan;  // when allowed: what would be signed
  template <class F>
  void fields(F& f) {
    f("allowed", allowed);
    f("checks", checks, Bound{0, 1024});
    f("plan", plan);
  }
};

struct HelloReply {
  Nonce32 nonce{};
  template <class F>
  void fields(F& f) {
    f("nonce", nonce);
  }
};
struct AttestRequest {
  Signed<Credential> credential;
  AgentKeys agent_keys;
  Evidence evidence;
  template <class F>
  void fields(F& f) {
    f("credential", credential);
    f("agentKeys", agent_keys);
    f("evidence", evidence);
  }
};
struct AttestReply {
  Hash32 evidence{};  // hash of the attempt's first evidence, which later requests name
  template <class F>
  void fields(F& f) {
    f("evidence", evidence);
  }
};
struct KeyReply {
  KeyContext context;
  Bytes sealed;
  template <class F>
  void fields(F& f) {
    f("context", context);
    f("sealed", sealed, Bound{48, 8192});
  }
};

enum class JudgementState { kNone, kPending, kHeld, kReleased, kRejected };
std::span<const EnumName<JudgementState>> enum_names(JudgementState);
struct Judgement {
  JudgementState state = JudgementState::kNone;
  std::int64_t decide_at = 0;  // pending: the release slot, unix seconds
  std::optional<Signed<HoldNotice>> hold_notice;
  std::vector<Bytes> preview_keys;  // E(reviewer, aad = H(HoldNotice), Kp)
  // with the hold notice: what reviewers open previews with
  std::optional<Signed<RunStatement>> run_statement = {};
  std::optional<Release> release;
  template <class F>
  void fields(F& f) {
    f("state", state);
    f("decideAt", decide_at);
    f("holdNotice", hold_notice);
    f("previewKeys", preview_keys, Bound{0, kMaxReviewers, 512});
    f("runStatement", run_statement);
    f("release", release);
  }
};
struct RulingRequest {
  IdentityChain reviewer;
  Signed<Ruling> ruling;
  template <class F>
  void fields(F& f) {
    f("reviewer", reviewer);
    f("ruling", ruling);
  }
};

// The newest head that the plane holds; absent: it holds none.
struct ResumeRequest {
  std::optional<Signed<LogHead>> head;
  template <class F>
  void fields(F& f) {
    f("head", head);
  }
};

// What jobs cost an asset: for its owner everything, for a consumer the own part.
struct LedgerRequest {
  Id16 asset_id{};
  Nonce32 nonce{};
  std::optional<Hash32> consumer;  // only this one's
  std::int64_t after = 0;          // how many entries to leave out, the oldest first
  template <class F>
  void fields(F& f) {
    f("assetId", asset_id);
    f("nonce", nonce);
    f("consumer", consumer);
    f("after", after, Bound{0, kMaxTreeSize});
  }
};
// Reserved: keys left, the decision is to come. The others are final.
enum class LedgerState { kReserved, kReleased, kRejected, kCancelled };
std::span<const EnumName<LedgerState>> enum_names(LedgerState);
struct LedgerEntry {
  Hash32 job_id{};
  Hash32 consumer_id{};
  LedgerState state = LedgerState::kReserved;
  std::int64_t free_bits = 0;
  std::int64_t verified_bits = 0;
  std::int64_t time = 0;  // of the reservation, or of what made it final
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("consumerId", consumer_id);
    f("state", state);
    f("freeBits", free_bits, Bound{0, kMaxBits});
    f("verifiedBits", verified_bits, Bound{0, kMaxBits});
    f("time", time);
  }
};
// The set's word on an asset's ledger (owner, asset with all its versions, consumer, period),
// answering a nonce: the plane can withhold it and nothing else.
struct LedgerStatement {
  static constexpr std::string_view kType = "ledger-statement";
  static constexpr bool kBindsSet = true;
  Id16 asset_id{};
  Hash32 owner_id{};
  Nonce32 nonce{};
  std::optional<Hash32> consumer;
  // Of the newest policy of the asset's newest version: what new jobs are held to.
  GateClause limits;
  std::optional<std::int64_t> row_bits;
  // Reserved and spent: within the period by each consumer, and by everybody for ever. With
  // `consumer` the totals are that one's own.
  std::int64_t period_free_bits = 0;
  std::int64_t total_free_bits = 0;
  std::int64_t total_verified_bits = 0;
  std::int64_t count = 0;            // of all entries
  std::vector<LedgerEntry> entries;  // by time, from `after` on
  std::int64_t time = 0;
  template <class F>
  void fields(F& f) {
    f("assetId", asset_id);
    f("ownerId", owner_id);
    f("nonce", nonce);
    f("consumer", consumer);
    f("limits", limits);
    f("rowBits", row_bits, Bound{1, 1'000'000'000});
    f("periodFreeBits", period_free_bits);
    f("totalFreeBits", total_free_bits);
    f("totalVerifiedBits", total_verified_bits);
    f("count", count);
    f("entries", entries, Bound{0, kMaxLedgerPage});
    f("time", time);
  }
};

// ---- node <-> plane ----
// A platform with a name or a release of its own that a node starts environments on. `none` has
// neither: its name is the hash of the node's key.
struct NodePlatform {
  Technology technology = Technology::kSim;
  std::string root;     // "sim:<root SPKI hash>"; empty for hardware
  std::string release;  // name of the guest release that it boots
  template <class F>
  void fields(F& f) {
    f("technology", technology);
    f("root", root, Bound{0, 80});
    f("release", release, Bound{1, 64});
  }
};
struct NodeInfo {
  std::string name;
  std::string key;  // public key text: signs introductions and destruction claims
  std::vector<Technology> technologies;
  std::int64_t cpu = 1;
  // lent to all attempts at a time together, for memory, scratch and unpacked images
  std::int64_t memory_bytes = 0;
  std::int64_t slots = 1;
  std::string version;
  std::optional<std::int64_t> pids;  // most processes of one job; absent: the node takes none
  std::optional<std::vector<NodePlatform>> platforms;  // of its technologies; none needs no entry
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 63});
    f("key", key, Bound{1, 256});
    f("technologies", technologies, Bound{1, 8});
    f("cpu", cpu, Bound{1, 4096});
    f("memoryBytes", memory_bytes, Bound{0, kMaxLentBytes});
    f("slots", slots, Bound{1, 1024});
    f("version", version, Bound{1, 64});
    f("pids", pids, Bound{1, kMaxPids});
    f("platforms", platforms, Bound{1, 8});
  }
};
struct RunningAttempt {
  Hash32 job_id{};
  std::int64_t attempt = 1;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("attempt", attempt, Bound{1, kMaxAttempt});
  }
  auto operator<=>(const RunningAttempt&) const = default;
};
struct NodeLease {
  // without a heartbeat in this time its environments count as lost
  std::int64_t lease_seconds = 30;
  // of those that it said it runs; not the job, which may be here again
  std::vector<RunningAttempt> stop;
  template <class F>
  void fields(F& f) {
    f("leaseSeconds", lease_seconds, Bound{1, kMaxLeaseSeconds});
    f("stop", stop, Bound{0, 1024});
  }
};
struct Heartbeat {
  std::string name;
  std::vector<RunningAttempt> running;
  // the answer may take so long, but comes at once when there is something to cancel
  std::int64_t wait_ms = 0;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 63});
    f("running", running, Bound{0, 1024});
    f("waitMs", wait_ms, Bound{0, 30000});
  }
};
struct PollRequest {
  std::string name;
  std::int64_t wait_ms = 0;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 63});
    f("waitMs", wait_ms, Bound{0, 30000});
  }
};
// Everything that one attempt needs, all of it checked again by the agent.
struct LaunchBundle {
  LaunchConfig launch_config;
  SetChain set;
  SignedSubmission submission;
  Signed<RunPlan> plan;
  Signed<Credential> credential;
  std::vector<IdentityChain> owners;
  std::vector<Signed<VersionRecord>> versions;  // of the image (if an asset) and of every input
  std::vector<Signed<Policy>> policies;
  template <class F>
  void fields(F& f) {
    f("launchConfig", launch_config);
    f("set", set);
    f("submission", submission);
    f("plan", plan);
    f("credential", credential);
    f("owners", owners, Bound{1, kMaxAssets});
    f("versions", versions, Bound{1, kMaxAssets});
    f("policies", policies, Bound{1, kMaxAssets});
  }
};
struct PollReply {
  std::optional<LaunchBundle> assignment;
  template <class F>
  void fields(F& f) {
    f("assignment", assignment);
  }
};

enum class EnvironmentPhase {
  kRequested,
  kBooting,
  kAttested,
  kLoaded,
  kWorking,
  kSealed,
  kDestroyed,
  kLost
};
std::span<const EnumName<EnvironmentPhase>> enum_names(EnvironmentPhase);
// Coarse on purpose: what the host may see and the consumer is shown.
struct PhaseReport {
  Hash32 job_id{};
  std::int64_t attempt = 1;
  EnvironmentPhase phase = EnvironmentPhase::kBooting;
  std::string reason;  // reason code when the attempt ended without a sealed output
  std::string detail;  // for people; never from inside the container
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("attempt", attempt, Bound{1, kMaxAttempt});
    f("phase", phase);
    f("reason", reason, Bound{0, 64});
    f("detail", detail, Bound{0, 500});
  }
};
struct PhaseReply {
  bool stop = false;  // the job was cancelled or given to another attempt
  template <class F>
  void fields(F& f) {
    f("stop", stop);
  }
};
struct OutputUpload {
  Hash32 job_id{};
  std::int64_t attempt = 1;
  // the broker's word that this attempt sealed it: a node's own would end other attempts
  Signed<SealAck> ack;
  SealedOutput output;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("attempt", attempt, Bound{1, kMaxAttempt});
    f("ack", ack);
    f("output", output);
  }
};
// A fresh connection to the broker. kUnavailable while nobody listens there.
struct BrokerStream {
  // of the mux, started anew (Mux::fresh); opaque bytes of TLS, relayed by the node
  std::int64_t stream = 1;
  template <class F>
  void fields(F& f) {
    f("stream", stream, Bound{1, 15});
  }
};
// What the node boots, for the evidence: its signature says whose word it is, not the node's.
struct ReleaseReply {
  Signed<GuestRelease> release;
  template <class F>
  void fields(F& f) {
    f("release", release);
  }
};
struct IntroduceRequest {
  FixedBytes<64> report_data{};
  Hash32 launch_config{};
  template <class F>
  void fields(F& f) {
    f("reportData", report_data);
    f("launchConfig", launch_config);
  }
};
struct AgentEnd {
  bool sealed = false;
  Hash32 manifest{};
  std::string reason;  // reason code when not sealed
  std::string detail;
  std::vector<std::string> residue;
  template <class F>
  void fields(F& f) {
    f("sealed", sealed);
    f("manifest", manifest);
    f("reason", reason, Bound{0, 64});
    f("detail", detail, Bound{0, 500});
    f("residue", residue, Bound{0, 64, 500});
  }
};

}  // namespace gbx::records
