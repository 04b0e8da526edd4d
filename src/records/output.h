// The sealed output, what the broker decides about it, and the receipt.
#pragma once

#include "records/evidence.h"

namespace gbx::records {

enum class JobExit { kOk, kFailed, kKilled, kTimeout };  // kKilled: by the limit on memory
std::span<const EnumName<JobExit>> enum_names(JobExit);
enum class AnalyserStatus { kPass, kFail, kNotApplicable, kError };
std::span<const EnumName<AnalyserStatus>> enum_names(AnalyserStatus);
enum class Recommendation { kHold, kRelease, kReject };
std::span<const EnumName<Recommendation>> enum_names(Recommendation);
// Why the gate rejected, as far as a consumer learns it: the output was not what the spec declares,
// or held what the inputs hold. With the recommendation it makes four cases, the 2 bits of the
// control channel that are charged for it.
enum class GateCause { kNone, kMalformed, kCopies };
std::span<const EnumName<GateCause>> enum_names(GateCause);

struct GateFinding {
  std::string rule;
  AnalyserStatus status = AnalyserStatus::kError;
  std::string reason;             // from a closed list, never plaintext
  std::vector<std::string> refs;  // names of outputs and positions, no values
  template <class F>
  void fields(F& f) {
    f("rule", rule, Bound{1, 64});
    f("status", status);
    f("reason", reason, Bound{0, 64});
    f("refs", refs, Bound{0, 64, 256});
  }
};
struct GateCharge {
  std::int64_t free_bits = 0;      // the container's choice
  std::int64_t verified_bits = 0;  // recomputed by trusted code
  std::int64_t zcdp_micro = 0;     // differential privacy, millionths of rho
  std::string code_id;             // which prefix-free code was charged
  template <class F>
  void fields(F& f) {
    f("freeBits", free_bits, Bound{0, kMaxBits / 2});  // the attempts' bits are added to it
    f("verifiedBits", verified_bits, Bound{0, kMaxBits});
    f("zcdpMicro", zcdp_micro, Bound{0, kMaxBits});
    f("codeId", code_id, Bound{1, 64});
  }
};
// What everybody may read of the gate's judgement. The container can choose every value here, so
// each is of a small closed set and paid for: recommendation and cause 2 bits, exitClass 2,
// durationBucket 4. The charge follows from the declaration.
struct GateVerdict {
  Recommendation recommendation = Recommendation::kHold;
  GateCause cause = GateCause::kNone;  // other than none exactly for a rejection
  GateCharge charge;
  JobExit exit_class = JobExit::kFailed;
  std::int64_t duration_bucket = 0;
  bool well_formed() const {
    return (recommendation == Recommendation::kReject) == (cause != GateCause::kNone);
  }
  template <class F>
  void fields(F& f) {
    f("recommendation", recommendation);
    f("cause", cause);
    f("charge", charge);
    f("exitClass", exit_class);
    f("durationBucket", duration_bucket, Bound{0, 15});
  }
};
// What only the reviewers of a held output read, sealed to them: rules, positions and the score
// depend on the output, and whoever writes the output would write them too.
struct ScoreReason {
  std::string reason;  // from the gate's closed list
  std::int64_t points = 0;
  template <class F>
  void fields(F& f) {
    f("reason", reason, Bound{1, 64});
    f("points", points, Bound{0, 100});
  }
};
struct GateReview {
  std::vector<GateFinding> findings;
  std::int64_t score = 100;
  std::vector<ScoreReason> score_reasons;  // they add up to the score, or to more than 100
  template <class F>
  void fields(F& f) {
    f("findings", findings, Bound{0, 256});
    f("score", score, Bound{0, 100});
    f("scoreReasons", score_reasons, Bound{0, 64});
  }
};
struct OutputDigest {
  std::string name;
  Hash32 salted_digest{};  // SHA-256(salt ‖ bytes); the salt is inside the sealed output
  // of what the spec allows (maxBytes), so that it says nothing about the content
  std::int64_t padded_size = 0;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 63});
    f("saltedDigest", salted_digest);
    f("paddedSize", padded_size, Bound{0, kMaxOutputBytes});
  }
};
// Bound into every layer of the sealed result as associated data.
struct SealContext {
  static constexpr std::string_view kType = "seal-context";
  static constexpr bool kBindsSet = false;
  Hash32 job_id{};
  std::int64_t attempt = 1;
  Hash32 plan_hash{};
  Hash32 ciphertext{};  // H(C)
  Hash32 commit_cek{};
  std::vector<OutputDigest> outputs;
  GateVerdict verdict;
  std::optional<Hash32> review;  // H of the sealed GateReview, where there are reviewers
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("attempt", attempt, Bound{1, kMaxAttempt});
    f("planHash", plan_hash);
    f("ciphertext", ciphertext);
    f("commitCek", commit_cek);
    f("outputs", outputs, Bound{0, 32});
    f("verdict", verdict);
    f("review", review);
  }
};
// M of the protocol. wrapped_content: Wc, one layer per result key; wrapped_preview: Wp, one per
// reviewer.
struct OutputManifest {
  static constexpr std::string_view kType = "output-manifest";
  static constexpr bool kBindsSet = true;
  SealContext context;
  std::vector<Hash32> wrapped_content;
  std::vector<Hash32> wrapped_preview;
  template <class F>
  void fields(F& f) {
    f("context", context);
    f("wrappedContent", wrapped_content, Bound{1, 8});
    f("wrappedPreview", wrapped_preview, Bound{0, kMaxReviewers});
  }
};
struct RunStatement {
  static constexpr std::string_view kType = "run-statement";
  static constexpr bool kBindsSet = true;
  OutputManifest manifest;
  Hash32 evidence{};
  PlanControls controls;
  std::string runtime;  // name and version of the OCI runtime
  std::string image_digest;
  Hash32 unpacked_root_hash{};
  std::vector<std::string> residual_channels;
  template <class F>
  void fields(F& f) {
    f("manifest", manifest);
    f("evidence", evidence);
    f("controls", controls);
    f("runtime", runtime, Bound{0, 64});
    f("imageDigest", image_digest, Bound{71, 71});
    f("unpackedRootHash", unpacked_root_hash);
    f("residualChannels", residual_channels, Bound{0, 32, 64});
  }
};
// Message 8: what the agent hands to the broker. The ciphertexts themselves go to storage through
// the node.
struct Seal {
  Signed<RunStatement> statement;
  Bytes release_keys;  // E(kek, aad = H(M), Kr ‖ Kp)
  template <class F>
  void fields(F& f) {
    f("statement", statement);
    f("releaseKeys", release_keys, Bound{32, 512});
  }
};
struct SealAck {
  static constexpr std::string_view kType = "seal-ack";
  static constexpr bool kBindsSet = true;
  // Both are in M too, but the plane, which holds the node's upload against this, never sees M
  // before the decision.
  Hash32 job_id{};
  std::int64_t attempt = 1;
  Hash32 manifest{};      // H(M)
  std::int64_t time = 0;  // end of the owners' release slot in which the seal came
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("attempt", attempt, Bound{1, kMaxAttempt});
    f("manifest", manifest);
    f("time", time);
  }
};
// What storage holds of one output: opaque to everybody but the holders of keys.
struct SealedOutput {
  // C = AEAD(CEK, aad = "", bundle); small in v1, bounded by the plan
  Bytes ciphertext;
  std::vector<Bytes> wrapped_content;  // Wc = AEAD(Kr, E(resultKey, aad = hash(SealContext), CEK))
  // Wp = AEAD(Kp, E(reviewer, aad = hash(SealContext), CEK ‖ review key))
  std::vector<Bytes> wrapped_preview;
  std::optional<Bytes> review;  // AEAD(review key, GateReview), padded to a power of two
  template <class F>
  void fields(F& f) {
    f("ciphertext", ciphertext, Bound{16, 64 << 20});
    f("wrappedContent", wrapped_content, Bound{1, 8, 512});
    f("wrappedPreview", wrapped_preview, Bound{0, kMaxReviewers, 512});
    f("review", review, Bound{16, 16 << 20});
  }
};

struct HoldNotice {
  static constexpr std::string_view kType = "hold-notice";
  static constexpr bool kBindsSet = true;
  Hash32 manifest{};
  Hash32 ciphertext{};
  std::vector<Hash32> policy_hashes;
  Hash32 ledger_entry{};
  std::int64_t expires = 0;
  template <class F>
  void fields(F& f) {
    f("manifest", manifest);
    f("ciphertext", ciphertext);
    f("policyHashes", policy_hashes, Bound{1, kMaxAssets});
    f("ledgerEntry", ledger_entry);
    f("expires", expires);
  }
};
enum class RulingDecision { kReject, kApprove, kRequestChanges };
std::span<const EnumName<RulingDecision>> enum_names(RulingDecision);
struct Ruling {
  static constexpr std::string_view kType = "ruling";
  static constexpr bool kBindsSet = true;
  Hash32 hold_notice{};
  Hash32 manifest{};
  Hash32 ciphertext{};
  Hash32 owner_policy_hash{};
  RulingDecision decision = RulingDecision::kReject;
  std::vector<std::string> reasons;  // closed list
  std::int64_t time = 0;
  template <class F>
  void fields(F& f) {
    f("holdNotice", hold_notice);
    f("manifest", manifest);
    f("ciphertext", ciphertext);
    f("ownerPolicyHash", owner_policy_hash);
    f("decision", decision);
    f("reasons", reasons, Bound{0, 16, 200});
    f("time", time);
  }
};
enum class ReleaseDecision { kReject, kRelease };
std::span<const EnumName<ReleaseDecision>> enum_names(ReleaseDecision);
struct ReleaseStatement {
  static constexpr std::string_view kType = "release-statement";
  static constexpr bool kBindsSet = true;
  Hash32 job_id{};
  Hash32 run_statement{};
  Hash32 manifest{};
  GateVerdict verdict;  // the manifest's, on which the owners' clauses were applied
  ReleaseDecision decision = ReleaseDecision::kReject;
  std::vector<std::string> reasons;  // closed list, for the consumer
  std::vector<Hash32> rulings;
  std::vector<PlanCharge> charges;  // committed
  std::int64_t time = 0;
  Inclusion inclusion;  // of the log entry that committed it
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("runStatement", run_statement);
    f("manifest", manifest);
    f("verdict", verdict);
    f("decision", decision);
    f("reasons", reasons, Bound{0, 16, 64});
    f("rulings", rulings, Bound{0, kMaxRulings});
    f("charges", charges, Bound{0, kMaxAssets});
    f("time", time);
    f("inclusion", inclusion);
  }
};
// Message 11. One sealed outer key per result key: E(resultKey, aad = H(M), Kr).
struct Release {
  Signed<ReleaseStatement> statement;
  std::vector<Bytes> outer_keys;
  template <class F>
  void fields(F& f) {
    f("statement", statement);
    f("outerKeys", outer_keys, Bound{0, 8, 512});
  }
};
// A claim of the node, worded as one.
struct DestroyedClaim {
  static constexpr std::string_view kType = "destroyed-claim";
  static constexpr bool kBindsSet = true;
  Hash32 job_id{};
  std::int64_t attempt = 1;
  std::int64_t time = 0;
  std::vector<std::string> residue;  // what was found left behind; empty is the claim
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("attempt", attempt, Bound{1, kMaxAttempt});
    f("time", time);
    f("residue", residue, Bound{0, 64, 500});
  }
};

// Message 12: everything that a stranger needs to repeat every check offline, starting from a
// pinned setId.
struct Receipt {
  std::string format = "gbx-receipt/1";
  SetChain set;
  std::vector<IdentityChain> identities;  // owners, consumer, reviewers
  std::vector<Signed<VersionRecord>> versions;
  std::vector<Signed<Policy>> policies;
  std::vector<Signed<OwnerBeacon>> beacons;  // newer than the policies, where owners sent any
  std::vector<Signed<Lease>> leases;
  Signed<Submission> submission;
  Signed<RunPlan> plan;
  Signed<Credential> credential;
  Nonce32 nonce{};
  Hash32 exporter{};
  AgentKeys agent_keys;
  Evidence evidence;
  Signed<BrokerEvidence> broker_evidence;
  // of the tree that the broker's evidence names, by witnesses
  std::vector<Signed<Cosignature>> cosignatures;
  Signed<RunStatement> run_statement;
  Signed<SealAck> seal_ack;
  std::optional<Signed<HoldNotice>> hold_notice;
  std::vector<Signed<Ruling>> rulings;
  Signed<ReleaseStatement> release;
  Json log_entry;  // the entry that `release.inclusion` proves
  std::optional<Signed<DestroyedClaim>> destroyed;
  template <class F>
  void fields(F& f) {
    f("format", format, Bound{1, 32});
    f("set", set);
    f("identities", identities, Bound{1, 128});
    f("versions", versions, Bound{1, kMaxAssets});
    f("policies", policies, Bound{1, kMaxAssets});
    f("beacons", beacons, Bound{0, kMaxAssets});
    f("leases", leases, Bound{0, 32});
    f("submission", submission);
    f("plan", plan);
    f("credential", credential);
    f("nonce", nonce);
    f("exporter", exporter);
    f("agentKeys", agent_keys);
    f("evidence", evidence);
    f("brokerEvidence", broker_evidence);
    f("cosignatures", cosignatures, Bound{0, 32});
    f("runStatement", run_statement);
    f("sealAck", seal_ack);
    f("holdNotice", hold_notice);
    f("rulings", rulings, Bound{0, kMaxRulings});
    f("release", release);
    f("logEntry", log_entry, Bound{2, kMaxRequestBytes});
    f("destroyed", destroyed);
  }
};

}  // namespace gbx::records
