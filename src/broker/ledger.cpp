// What jobs cost an asset, signed for its owner and, each for itself, for its consumers; and what a
// held output would add, for those who rule on it. The plane says whom it asks for; it knows all of
// it anyway, and can change nothing.
#include <algorithm>

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
  const LedgerSums& sums = state().sums(s.owner_id, s.asset_id, r.consumer);
  s.count = sums.order.count();
  s.total_free_bits = sums.told.free_bits();
  s.total_verified_bits = sums.told.verified_bits();
  s.period_free_bits = sums.told.free_bits_since(c.now - s.limits.period_days * 86400);
  for (const Hash32& job_id : sums.order.page(r.after, kMaxLedgerPage)) {
    const auto line = state().line(s.owner_id, s.asset_id, job_id);
    if (!line) return fail(Reason::kInternal, "a job without its line");
    const LedgerAmounts& a = line->amounts;
    s.entries.push_back(
        {job_id, line->consumer_id, a.state, a.told_bits, a.verified_bits, a.told_since});
  }
  return sign(std::move(s));
}

// One answer for every job that this identity has no held output of: there is none, another's, or
// one that was decided. Like every sum that is told it says nothing of what waits for a decision: a
// reviewer may be another job's consumer.
Result<Signed<HeldLedgerStatement>> Core::held_ledger(const HeldLedgerRequest& r, const Call& c) {
  const JobState* job = state().job(r.job_id);
  const auto asks = [&](const Reviewer& known) { return known.identity_id == r.reviewer; };
  if (job == nullptr || !job->hold || job->decision ||
      std::none_of(job->plan.body.reviewers.begin(), job->plan.body.reviewers.end(), asks)) {
    return fail(Reason::kNotFound, "held output").hint("glovebox review list");
  }
  const RunPlan& plan = job->plan.body;
  HeldLedgerStatement s;
  s.job_id = r.job_id;
  s.hold_notice = job->hold->notice.hash();
  s.reviewer = r.reviewer;
  s.nonce = r.nonce;
  s.time = c.now;
  const std::vector<PlanCharge> charges = final_charges(*job, ReleaseDecision::kRelease);
  for (const auto& named : plan.policies) {
    const Policy& policy = state().policy(named.policy_hash)->publish.policy.body;
    const auto charge = std::find_if(charges.begin(), charges.end(), [&](const PlanCharge& x) {
      return x.owner_id == policy.owner_id && x.asset_id == policy.asset_id;
    });
    if (charge == charges.end()) return fail(Reason::kInternal, "a policy without a charge");
    const policy::Spent spent =
        state().told_spent(*charge, job->submission.submission.body.consumer_id,
                           c.now - policy.clauses.gate.period_days * 86400, r.job_id);
    s.budgets.push_back(
        {named.policy_hash, spent.period_free_bits, spent.total_free_bits, charge->free_bits});
  }
  return sign(std::move(s));
}

}  // namespace gbx::broker
