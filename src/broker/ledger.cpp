// What jobs cost an asset, signed for its owner and, each for itself, for its consumers. The plane
// says whom it asks for; it knows all of it anyway, and can change nothing.
#include <algorithm>

#include "broker/core.h"

namespace gbx::broker {

using namespace records;  // NOLINT: the contract's names are this file's vocabulary

namespace {

LedgerState state_of(const LedgerLine& line, const JobState& job) {
  if (!line.committed) return LedgerState::kReserved;
  if (job.cancelled) return LedgerState::kCancelled;
  const bool released = job.decision && job.decision->entry.decision == ReleaseDecision::kRelease;
  return released ? LedgerState::kReleased : LedgerState::kRejected;
}

}  // namespace

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
  std::vector<LedgerEntry> all;
  const std::int64_t period = c.now - s.limits.period_days * 86400;
  if (const auto* lines = state().ledger(s.owner_id, s.asset_id)) {
    for (const auto& [job_hex, line] : *lines) {
      if (r.consumer && line.consumer_id != *r.consumer) continue;
      GBX_ASSIGN(const Hash32 job_id, fixed_from_hex<32>(job_hex));
      const LedgerState state_now = state_of(line, *state().job(job_id));
      const std::int64_t told = line.committed ? line.time : line.since;
      all.push_back(
          {job_id, line.consumer_id, state_now, line.free_bits, line.verified_bits, told});
      s.total_free_bits += line.free_bits;
      s.total_verified_bits += line.verified_bits;
      if (line.time >= period) s.period_free_bits += line.free_bits;
    }
  }
  s.count = static_cast<std::int64_t>(all.size());
  std::sort(all.begin(), all.end(), [](const LedgerEntry& a, const LedgerEntry& b) {
    return std::tie(a.time, a.job_id) < std::tie(b.time, b.job_id);
  });
  const auto from = static_cast<std::size_t>(std::min(r.after, s.count));
  const std::size_t end = std::min(all.size(), from + static_cast<std::size_t>(kMaxLedgerPage));
  s.entries.assign(all.begin() + static_cast<std::ptrdiff_t>(from),
                   all.begin() + static_cast<std::ptrdiff_t>(end));
  return sign(std::move(s));
}

}  // namespace gbx::broker
