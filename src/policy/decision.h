// What owners' gate clauses and reviewers' rulings say about a sealed output: pure functions, used
// by the broker to decide and by whoever verifies a receipt to decide again.
#pragma once

#include <set>
#include <span>
#include <string>
#include <vector>

#include "policy/policy.h"

namespace gbx::policy {

// The closed list of reasons that a consumer is told (docs/broker.md).
namespace reason {
inline constexpr char kMalformed[] = "output-malformed";
inline constexpr char kCopies[] = "output-copies-inputs";
inline constexpr char kGateHolds[] = "gate-holds";
inline constexpr char kFreeBits[] = "free-bits";
inline constexpr char kVerifiedBits[] = "verified-bits";
inline constexpr char kBudget[] = "budget";
inline constexpr char kOpaqueOutput[] = "opaque-output";
inline constexpr char kPolicyRevoked[] = "policy-revoked";
inline constexpr char kPolicyExpired[] = "policy-expired";
inline constexpr char kPolicyNotFresh[] = "policy-not-fresh";
inline constexpr char kKeyRotated[] = "key-rotated";
inline constexpr char kNoReviewer[] = "no-reviewer";
inline constexpr char kDeclined[] = "reviewers-declined";
inline constexpr char kHoldExpired[] = "hold-expired";
inline constexpr char kCancelled[] = "cancelled";
}  // namespace reason
// The gate's cause of a rejection in these words.
const char* gate_reason(records::GateCause cause);
const std::vector<std::string>& rejection_reasons();  // those that a rejection may give

// Why reviewers let nothing out, as far as the consumer is told: a closed list of at most 16, so
// that each told costs 4 bits, and never free text (docs/decisions/0019).
struct ReviewReason {
  const char* code;
  const char* meaning;  // what to change, for people
};
std::span<const ReviewReason> review_reasons();
inline constexpr std::int64_t kMaxRulingReasons = 4;
inline constexpr std::int64_t kReviewReasonBits = 4;
// What the reasons of these rulings tell: the receipt holds them all, however it ends.
std::int64_t ruling_bits(const std::vector<records::Ruling>& rulings);
// What a rejection by these rulings says: kDeclined, and each of their reasons once.
std::vector<std::string> declined_reasons(const std::vector<records::Ruling>& rulings);

// What a release costs each owner in full: what the gate charged (exit class, duration and decision
// are in it), and what the attempts that had the data tell.
std::int64_t release_bits(const records::RunPlan& plan, const records::GateVerdict& verdict,
                          std::int64_t attempts_with_data);
// The same of a job that had the data and delivers nothing.
std::int64_t rejection_bits(const records::RunPlan& plan, std::int64_t attempts_with_data);

// The gate's charge follows from what was signed before the run and from how it ended, so nobody
// takes the agent's word for it: what the plan reserved for the outputs of a run that ended well
// (attempts aside); the log's part of that (`capacity`, not asked otherwise) of one that did not;
// the control channel alone for a rejection, and for a hold that has no content. Its third currency
// is nobody's yet (hold_reasons). Errors: kOutputInvalid; those of `capacity`.
Status check_charge(const records::RunPlan& plan, const records::Submission& submission,
                    const records::GateVerdict& verdict, const Capacity& capacity);

// Why an output must wait for a person, whatever the policy: by what the submission declares, and
// by what the gate says of it; and under one policy. Empty: it need not. Budgets are the ledger's
// matter.
std::set<std::string> hold_reasons(const records::Submission& submission,
                                   const records::GateVerdict& verdict);
std::set<std::string> hold_reasons(const records::Policy& policy,
                                   const records::GateVerdict& verdict, std::int64_t free_bits);

// A held output is rejected when so much time has passed since its notice without a release.
inline constexpr std::int64_t kHoldSeconds = 14 * 86400;
// A reviewer's clock may differ from the set's by as much as that of whoever signs a request
// (httpsig).
inline constexpr std::int64_t kReviewerSkewSeconds = 120;
inline std::int64_t held_at(const records::HoldNotice& notice) {
  return notice.expires - kHoldSeconds;
}

// The policies of a plan with their rulings.
struct Panel {
  std::vector<records::Signed<records::Policy>> policies;
  std::vector<records::Reviewer> may_preview;
  records::SignedSubmission submission;
  std::vector<records::Ruling> rulings;  // signatures checked, one for each reviewer and policy
};
enum class Tally { kOpen, kApproved, kDeclined };
// Approved: k of n for every policy that asks for rulings. Declined: for one of them k can no
// longer come.
Tally tally(const Panel& panel);
// Enough people may rule under every policy that asks for rulings.
bool reviewable(const Panel& panel);

// Who ruled, with which of his keys, and when the set took or used it.
struct RulingBy {
  const records::IdentityChain& reviewer;
  const crypto::PublicKey& key;
  std::int64_t until = 0;
};
// Signed by a reviewer who may rule on this output under the policy that the ruling names, at a
// time between the notice and `until`, give or take the difference of clocks, for reasons of the
// closed list: none for an approval, one or more for changes. Errors: kPlanMismatch,
// kPolicyMismatch, kWrongRole, kBadValue (its time, its reasons), kBadSignature.
Status verify_ruling(const records::SetId& set_id, const Panel& panel,
                     const records::HoldNotice& notice,
                     const records::Signed<records::Ruling>& ruling, const RulingBy& by);

}  // namespace gbx::policy
