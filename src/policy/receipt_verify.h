// Repeats every check of docs/protocol.md offline, from a receipt and a pinned set id, and says
// what is proved by signatures and hashes, what somebody merely claims, and what failed. The
// receipt is untrusted.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "policy/policy.h"
#include "records/evidence_check.h"

namespace gbx::policy {

enum class ClaimState { kFailed, kClaimed, kProved };
std::span<const EnumName<ClaimState>> enum_names(ClaimState);

// A node of the tree. A group is as good as its worst part.
struct ReceiptCheck {
  std::string claim;
  ClaimState state = ClaimState::kFailed;
  std::string detail;  // for a person: names, times, who claims it, or what the error is about
  std::string reason;  // reason code when failed
  std::string expected = {};  // of the error, where it says so
  std::string actual = {};
  std::vector<ReceiptCheck> parts;
  template <class F>
  void fields(F& f) {
    f("claim", claim);
    f("state", state);
    f("detail", detail);
    f("reason", reason);
    f("expected", expected);
    f("actual", actual);
    f("parts", parts);
  }
};

struct ReceiptReport {
  bool valid = false;  // nothing failed
  Hash32 job_id{};
  std::string decision;              // "release" or "reject"
  std::string protection;            // "NO TEE: …" in plain words
  std::vector<ReceiptCheck> checks;  // one group per step of the protocol
  std::vector<std::string> residual_channels;
  std::vector<std::string> claims;  // what nothing but somebody's word stands for
  template <class F>
  void fields(F& f) {
    f("valid", valid);
    f("jobId", job_id);
    f("decision", decision);
    f("protection", protection);
    f("checks", checks);
    f("residualChannels", residual_channels);
    f("claims", claims);
  }
  Error first_failure() const;  // kUninitialised when there is none
};

struct ReceiptOptions {
  std::optional<std::int64_t> now;  // refuses times later than this
  // with it the planned charges are reckoned again, else they are the set's word
  Capacity capacity;
  // without it only receipts of technology `none` hold
  records::EvidenceCheck evidence = {};
};
ReceiptReport verify_receipt(const records::Receipt& receipt, const records::SetId& pinned,
                             const ReceiptOptions& options);
inline ReceiptReport verify_receipt(const records::Receipt& receipt, const records::SetId& pinned,
                                    std::optional<std::int64_t> now = {}) {
  return verify_receipt(receipt, pinned, ReceiptOptions{now, nullptr, nullptr});
}

}  // namespace gbx::policy
