// What a ruling on a held output rests on: what its owners' budgets have given already, as the set
// tells one of the output's reviewers. docs/protocol.md says who may ask and what is checked.
#pragma once

#include <vector>

#include "records/limits.h"
#include "records/signed.h"

namespace gbx::records {

namespace method {
// plane -> broker: HeldLedgerRequest -> Signed<HeldLedgerStatement>; logs nothing
inline constexpr std::string_view kHeldLedger = "broker.held-ledger";
}  // namespace method

struct HeldLedgerRequest {
  Hash32 job_id{};
  Hash32 reviewer{};
  Nonce32 nonce{};
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("reviewer", reviewer);
    f("nonce", nonce);
  }
};
// Of the asset of one policy: what other jobs have spent and reserved, whose they are unsaid.
struct HeldBudget {
  Hash32 policy_hash{};
  std::int64_t period_free_bits = 0;   // by the job's consumer within the policy's period
  std::int64_t total_free_bits = 0;    // by everybody, for ever
  std::int64_t release_free_bits = 0;  // that a release of this output would add to both
  template <class F>
  void fields(F& f) {
    f("policyHash", policy_hash);
    f("periodFreeBits", period_free_bits);
    f("totalFreeBits", total_free_bits);
    f("releaseFreeBits", release_free_bits, Bound{0, kMaxBits});
  }
};
// The set's word on it, answering a nonce of the reviewer whom it names.
struct HeldLedgerStatement {
  static constexpr std::string_view kType = "held-ledger-statement";
  static constexpr bool kBindsSet = true;
  Hash32 job_id{};
  Hash32 hold_notice{};
  Hash32 reviewer{};
  Nonce32 nonce{};
  std::vector<HeldBudget> budgets;  // of the plan's policies, in their order
  std::int64_t time = 0;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("holdNotice", hold_notice);
    f("reviewer", reviewer);
    f("nonce", nonce);
    f("budgets", budgets, Bound{1, kMaxAssets});
    f("time", time);
  }
};

}  // namespace gbx::records
