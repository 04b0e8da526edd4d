// What owners' gate clauses and reviewers' rulings say about a sealed output: pure functions, used by the broker to
// decide and by whoever verifies a receipt to decide again.
#pragma once

#include <set>
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
inline constexpr char kNoReviewer[] = "no-reviewer";
inline constexpr char kDeclined[] = "reviewers-declined";
inline constexpr char kHoldExpired[] = "hold-expired";
inline constexpr char kCancelled[] = "cancelled";
}  // namespace reason
// The gate's cause of a rejection in these words.
const char* gate_reason(records::GateCause cause);
const std::vector<std::string>& rejection_reasons();  // those that a rejection may give

// What a release costs each owner in full: what the gate charged (exit class, duration and decision are in it), and the
// choice among the attempts that had the data.
std::int64_t release_bits(const records::GateVerdict& verdict, std::int64_t attempts_with_data);

// Why an output must wait for a person, whatever the policy; and under one policy. Empty: it need not. Budgets are the
// ledger's matter.
std::set<std::string> hold_reasons(const records::Submission& submission, const records::GateVerdict& verdict);
std::set<std::string> hold_reasons(const records::Policy& policy, const records::GateVerdict& verdict, std::int64_t free_bits);

// The policies of a plan with their rulings.
struct Panel {
  std::vector<records::Signed<records::Policy>> policies;
  std::vector<Hash32> may_preview;
  records::SignedSubmission submission;
  std::vector<records::Ruling> rulings;  // signatures checked, one for each reviewer and policy
};
enum class Tally { kOpen, kApproved, kDeclined };
// Approved: k of n for every policy that asks for rulings. Declined: for one of them k can no longer come.
Tally tally(const Panel& panel);
// Enough people may rule under every policy that asks for rulings.
bool reviewable(const Panel& panel);

// Signed by a reviewer who may rule on this output under the policy that the ruling names. `key` is the one that the
// reviewer's identity signs with. Errors: kPlanMismatch, kPolicyMismatch, kWrongRole, kBadSignature.
Status verify_ruling(const records::SetId& set_id, const Panel& panel, const records::HoldNotice& notice,
                     const records::Signed<records::Ruling>& ruling, const records::IdentityChain& reviewer,
                     const crypto::PublicKey& key);

}  // namespace gbx::policy
