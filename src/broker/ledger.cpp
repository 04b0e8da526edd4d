// What jobs cost an asset, signed for its owner and, each for itself, for its consumers. The plane
// says whom it asks for; it knows all of it anyway, and can change nothing.
#include "broker/core.h"

namespace gbx::broker {

using namespace records;  // NOLINT: the contract's names are this file's vocabulary

Result<Signed<LedgerStatement>> Core::ledger(const LedgerRequest& r, const Call& c) {
  const PolicyState* newest = state().newest_policy(r.asset_id);
  if (newest == nullptr) return fail(Reason::kNotFound, "asset").with("", to_hex(r.asset_id));
  const Policy& policy = newest->publish.policy.body;
  LedgerStatement s;
  s.asset_id = r.asset_id;
  s.owner_id = policy.owner_id;
  s.nonce = r.nonce;
  s.consumer = r.consumer;
  s.limits = policy.clauses.gate;
  s.row_bits = policy.clauses.row_bits;
  s.time = c.now;
  const LedgerSums& sums = state().told_sums(s.owner_id, s.asset_id, r.consumer);
  s.count = sums.count();
  s.total_free_bits = sums.free_bits();
  s.total_verified_bits = sums.verified_bits();
  s.period_free_bits = sums.free_bits_since(c.now - s.limits.period_days * 86400);
  for (const Hash32& job_id : sums.page(r.after, kMaxLedgerPage)) {
    const LedgerLine& line = state().ledger(s.owner_id, s.asset_id)->at(to_hex(job_id));
    s.entries.push_back({job_id, line.consumer_id, line.state, line.told_bits, line.verified_bits,
                         line.told_since});
  }
  return sign(std::move(s));
}

}  // namespace gbx::broker
