// Who may run what, on which asset, in which environment: pure functions over signed records, used
// by the broker before it signs a plan, by `job plan`, and by whoever verifies a receipt. Facts
// come from the caller's log; the submission is untrusted. Several owners are a conjunction: every
// policy must allow, the strictest value counts, and what cannot be merged is denied. Default:
// deny.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "records/messages.h"

namespace gbx::policy {

// The most that a job of this spec can tell when it is released, known before the run. Free bits,
// control channel and logs included, are chosen by code that nobody trusts; verified ones are of
// tables that the gate computes itself, by recipes that name files which their owners allow. It is
// the gate's own reckoning (gate/schema.h), which charges by the same function.
struct JobBits {
  std::int64_t free_bits = 0;
  std::int64_t verified_bits = 0;
};
// By the input's name: what its owner lets recipes read.
using InputTables = std::map<std::string, std::vector<records::TableRule>>;
using Capacity = std::function<Result<JobBits>(const records::SpecBody&, const InputTables&)>;

// One published asset version. `policy` is the one in force: the last serial that the broker
// accepted.
struct AssetFacts {
  records::IdentityChain owner;
  records::Signed<records::VersionRecord> record;
  records::Signed<records::Policy> policy;
  // When the owner last stood by it: its publication, or a later beacon.
  std::int64_t confirmed_at = 0;
};
// Free bits that other jobs have spent or reserved on an asset.
struct Spent {
  std::int64_t period_free_bits = 0;  // by this consumer within the policy's period
  std::int64_t total_free_bits = 0;   // by everybody, for ever
};

// Do `bits` more fit into what the clause gives this consumer in its period, and everybody for
// ever? Asked before a job is allowed, before the data key leaves and before a release.
// kBudgetExceeded.
Status within_budget(const Spent& spent, const records::GateClause& gate, std::int64_t bits);

struct PolicyInputs {
  records::SetId set_id{};
  records::Custody custody = records::Custody::kOperator;
  bool witnessed = false;  // are log heads cosigned by witnesses
  std::int64_t now = 0;    // unix seconds
  records::SignedSubmission submission;
  // Empty when this version was never published.
  std::function<std::optional<AssetFacts>(const Hash32& version_id)> asset;
  // The lease among the submission's that covers this asset. Errors: kLeaseMissing, kLeaseExpired,
  // kLeaseExhausted.
  std::function<Result<Id16>(const AssetFacts&)> lease;
  std::function<Spent(const AssetFacts&)> spent;
  // The key that an identity signs with now. Errors: kChainBroken, kBadSignature.
  std::function<Result<crypto::PublicKey>(const records::IdentityChain&)> current_key;
  Capacity capacity;
};

struct LeaseUse {
  Id16 lease_id{};
  Id16 asset_id{};
  bool operator==(const LeaseUse&) const = default;
};
// Every check of every owner, whatever the others said, and the plan when all allow.
struct Judged {
  records::Explanation explanation;
  std::vector<LeaseUse> leases;  // that this job uses up, each once
};
Judged judge(const PolicyInputs& inputs);
inline records::Explanation explain(const PolicyInputs& inputs) {
  return judge(inputs).explanation;
}
// The first denied check as an error; ok when the explanation allows.
Status denial(const records::Explanation& explanation);

// Does a job of this consumer need, and use up, a lease? Whom the policy names needs none.
bool needs_lease(const records::Clauses& clauses, const Hash32& consumer);

// May an asset of this owner be in one job with the one that has these clauses: is either named?
bool may_meet(const records::Clauses& clauses, const Id16& asset, const Hash32& owner);

// May a job run now what `facts.policy` says: revoked, expired, older than freshFor.
// kPolicyRevoked, kPolicyExpired, kPolicyNotFresh.
Status in_force(const AssetFacts& facts, std::int64_t now);

// The record is the owner's, the policy is the owner's and is about that record. Signatures may be
// by any key that the identity ever had: the broker's log holds the order. Errors: kWrongOwner,
// kWrongAsset, kBadCommitment, kBadSignature.
Status verify_asset(const records::SetId& set_id, const AssetFacts& facts);

// Does one of the rules allow an environment with this verdict? Only checks that passed count; "not
// checked" is no pass. `none` and `sim` count only under a rule that names their root.
// kTeeNotAllowed.
Status verdict_allowed(const std::vector<records::PlatformRule>& rules,
                       const records::Verdict& verdict);

// The strictest of all: kPolicyUnmergeable where there is no value that suits every owner.
Result<records::GateClause> merge_gates(const std::vector<records::GateClause>& gates);
// What merge_gates() may find nothing common in, of one clause, in words.
std::string gate_terms(const records::GateClause& gate);
// Platforms that every owner allows.
std::vector<records::PlatformRule> merge_platforms(const std::vector<records::PlatformRule>& a,
                                                   const std::vector<records::PlatformRule>& b);

// Who may rule on a held output under one policy: its reviewers whom every owner lets preview, by
// id and both keys, never the consumer.
std::vector<records::Reviewer> eligible_reviewers(const records::Policy& policy,
                                                  const std::vector<records::Reviewer>& may_preview,
                                                  const records::SignedSubmission& submission);
// An owner who is the consumer has agreed by signing the submission, so this policy asks nobody
// else.
bool needs_rulings(const records::Policy& policy, const records::Submission& submission);

// Extra bits of the n-th attempt: a node can pick the attempt that it likes. ceil(log2 n).
std::int64_t attempt_bits(std::int64_t attempt);
// How long a run may last, and the owners' common release slot.
struct TimedRun {
  std::int64_t run_seconds = 0;
  std::int64_t slot_seconds = 0;
};
// When a run ends is the container's choice, and its author is told the slot of it: log2 of the
// slots in which a run of this length, judged by the gate and destroyed, can end, rounded up. 0 for
// decisions at once: that time has no grid on which it could be counted (docs/gate.md).
std::int64_t slot_bits(const TimedRun& run);
inline constexpr std::int64_t kGateSeconds = 600;     // the gate's deadline
inline constexpr std::int64_t kDestroySeconds = 600;  // the node's, after the seal
// What attempts that had the data tell beside the last one's control channel: how many they were,
// and the slot in which each of them ended.
std::int64_t attempts_bits(const TimedRun& run, std::int64_t attempts);
// The control channel (docs/gate.md): exit class (2), duration bucket (4), the decision and its
// cause (2). Every job tells as much once it has had the data, however it ends: a release tells its
// outputs besides, a rejection or a cancellation nothing. What its attempts tell (attempts_bits)
// comes on top.
inline constexpr std::int64_t kControlBits = 8;
// The codes by which bits are reckoned (docs/gate.md): declared schemas, and the control channel
// alone.
inline constexpr char kSchemaCode[] = "schema-1";
inline constexpr char kControlCode[] = "control-1";

// Every control that an environment must enforce (docs/sandbox.md), in the order of the plan.
const std::vector<std::string>& mandatory_controls();

// The policy in plain sentences: who could read what, when, and how much. An image's own policy
// judges no code: the policies of the data do.
std::vector<std::string> explain_policy(const records::Policy& policy, records::AssetKind kind);
// One asset of a job that somebody thinks of, and how people call it.
struct NamedPolicy {
  std::string name;
  records::AssetKind kind = records::AssetKind::kDataset;
  std::string content_digest;  // of an image
  std::string signer;          // the key that signed its version record
  records::Policy policy;
};
// What all of them allow in one job, in plain sentences; and, a sentence each, what keeps them from
// being in one at all, with each owner's side of it. The job's own spec is not known here: `job
// plan` asks the broker about that.
struct Together {
  std::vector<std::string> lines;
  std::vector<std::string> obstacles;
};
Together explain_together(const std::vector<NamedPolicy>& assets, std::int64_t now);
// Why no job can ever run under this policy, a sentence each, with the member to change; empty
// where some job could.
std::vector<std::string> dead_ends(const records::Policy& policy, records::AssetKind kind,
                                   std::int64_t now);

}  // namespace gbx::policy
