// After the seal: the owners' gate clauses, reviewers' rulings, the release and the receipt.
#include <algorithm>
#include <set>

#include "broker/core.h"
#include "lease/lease.h"

namespace gbx::broker {

using namespace records;  // NOLINT: the contract's names are this file's vocabulary
namespace reason = policy::reason;
using policy::Tally;

namespace {

std::int64_t decide_at(const JobState& job) {
  const std::int64_t from = job.hold ? job.hold->last_ruling_at : job.seal->time;
  return slot_end(from, job.plan.body.gate.release_slot_seconds);
}

}  // namespace

// The submission by the key now standing; revocation, expiry and freshness by the policy now in
// force, whose other clauses bind new jobs. Its reasons are those of policy::reason.
Status Core::release_allowed(const JobState& job, std::int64_t now) const {
  const Status stands = submission_stands(job);
  if (!stands.ok()) return fail(stands.reason(), reason::kKeyRotated);
  for (const auto& p : job.plan.body.policies) {
    const Status s = policy::in_force(facts(*state().current_policy(p.asset_version_id)), now);
    if (!s.ok()) return fail(s.reason(), std::string(reason_code(s.reason())));
  }
  return ok_status();
}

std::vector<PlanCharge> Core::final_charges(const JobState& job, ReleaseDecision decision) const {
  const auto& verdict = job.seal->manifest().context.verdict;
  const RunPlan& plan = job.plan.body;
  const std::int64_t tries = job.attempts_with_data();
  const bool released = decision == ReleaseDecision::kRelease;
  const std::int64_t told = policy::ruling_bits(panel(job).rulings);
  std::vector<PlanCharge> out = plan.charges;
  for (auto& c : out) {
    c.free_bits = told + (released ? policy::release_bits(plan, verdict, tries)
                                   : policy::rejection_bits(plan, tries));
    c.verified_bits = released ? verdict.charge.verified_bits : 0;
    c.zcdp_micro = released ? verdict.charge.zcdp_micro : 0;
    c.code_id = released ? verdict.charge.code_id : policy::kControlCode;
  }
  return out;
}

policy::Panel Core::panel(const JobState& job) const {
  policy::Panel p;
  for (const auto& named : job.plan.body.policies) {
    p.policies.push_back(state().policy(named.policy_hash)->publish.policy);
  }
  p.may_preview = job.plan.body.may_preview;
  p.submission = job.submission;
  for (const auto& r : state().standing_rulings(job)) p.rulings.push_back(r.ruling.body);
  return p;
}

Core::Outcome Core::weigh(const JobState& job, std::int64_t now) const {
  if (job.cancelled) return {Recommendation::kReject, {reason::kCancelled}};
  const Status allowed = release_allowed(job, now);
  if (!allowed.ok()) return {Recommendation::kReject, {allowed.error().what}};
  const auto& verdict = job.seal->manifest().context.verdict;
  if (verdict.recommendation == Recommendation::kReject) {
    return {Recommendation::kReject, {policy::gate_reason(verdict.cause)}};
  }
  const policy::Panel all = panel(job);
  std::set<std::string> holds = policy::hold_reasons(job.submission.submission.body, verdict);
  for (const auto& charge : final_charges(job, ReleaseDecision::kRelease)) {
    for (const auto& p : all.policies) {
      if (p.body.owner_id != charge.owner_id || p.body.asset_id != charge.asset_id) continue;
      holds.merge(policy::hold_reasons(p.body, verdict, charge.free_bits));
      if (!within_budget(job, p.body, charge, now).ok()) holds.insert(reason::kBudget);
    }
  }
  if (holds.empty()) return {Recommendation::kRelease, {}};
  if (!policy::reviewable(all)) return {Recommendation::kReject, {reason::kNoReviewer}};
  return {Recommendation::kHold, {holds.begin(), holds.end()}};
}

Status Core::hold(const Hash32& job_id, const JobState& job, const Outcome& outcome,
                  std::int64_t now) {
  const OutputManifest& manifest = job.seal->manifest();
  HoldNotice notice;
  notice.manifest = hash_of(manifest);
  notice.ciphertext = manifest.context.ciphertext;
  for (const auto& p : job.plan.body.policies) notice.policy_hashes.push_back(p.policy_hash);
  GBX_ASSIGN(notice.ledger_entry, log_->leaf_hash(job.reserved_leaf));
  notice.expires = now + kHoldSeconds;
  HoldEntry entry;
  entry.job_id = job_id;
  GBX_ASSIGN(ReleaseKeys keys, open_release_keys(keys_.kek, manifest, job.seal->seal.release_keys));
  for (const auto& r : job.plan.body.reviewers) {
    GBX_ASSIGN(crypto::HpkePublicKey to, crypto::HpkePublicKey::from_text(r.hpke));
    GBX_ASSIGN(Bytes sealed, seal_outer_key(to, hash_of(notice), keys.preview, random_));
    entry.preview_keys.push_back(std::move(sealed));
  }
  GBX_ASSIGN(entry.notice, sign(std::move(notice)));
  return log_->append(
      {make_entry(now, JudgeEntry{job_id, outcome.what, outcome.reasons}), make_entry(now, entry)});
}

// Commits decision and charges, and with them the sealed outer keys, before either can leave.
Status Core::decide(const Hash32& job_id, const JobState& job, const Outcome& outcome,
                    std::int64_t now) {
  const bool release = outcome.what == Recommendation::kRelease;
  const OutputManifest& manifest = job.seal->manifest();
  ReleaseEntry entry;
  entry.job_id = job_id;
  entry.run_statement = job.seal->seal.statement.hash();
  entry.manifest = hash_of(manifest);
  entry.verdict = manifest.context.verdict;
  entry.decision = release ? ReleaseDecision::kRelease : ReleaseDecision::kReject;
  entry.reasons = outcome.reasons;
  if (job.hold) {
    entry.hold_notice = job.hold->notice.hash();
    for (const auto& r : state().standing_rulings(job)) entry.rulings.push_back(r.ruling.hash());
  }
  entry.charges = final_charges(job, entry.decision);
  std::vector<LogEntry> entries{make_entry(now, JudgeEntry{job_id, outcome.what, outcome.reasons}),
                                make_entry(now, entry)};
  if (release) {
    DeliverEntry deliver;
    deliver.job_id = job_id;
    GBX_ASSIGN(ReleaseKeys keys,
               open_release_keys(keys_.kek, manifest, job.seal->seal.release_keys));
    for (const auto& k : job.submission.submission.body.result_keys) {
      GBX_ASSIGN(crypto::HpkePublicKey to, crypto::HpkePublicKey::from_text(k.hpke));
      GBX_ASSIGN(Bytes sealed, seal_outer_key(to, entry.manifest, keys.result, random_));
      deliver.outer_keys.push_back(std::move(sealed));
    }
    entries.push_back(make_entry(now, deliver));
  }
  return log_->append(entries);
}

// Takes whatever step is due. Called on every question about a job, so a crash between steps loses
// none.
Status Core::advance(const Hash32& job_id, std::int64_t now) {
  const JobState* job = state().job(job_id);
  if (job == nullptr || !job->seal || job->decision) return ok_status();
  if (job->cancelled) return decide(job_id, *job, weigh(*job, now), now);
  if (!job->hold) {
    if (now < decide_at(*job)) return ok_status();
    const Outcome outcome = weigh(*job, now);
    return outcome.what == Recommendation::kHold ? hold(job_id, *job, outcome, now)
                                                 : decide(job_id, *job, outcome, now);
  }
  const Tally t = policy::tally(panel(*job));
  if (t != Tally::kDeclined && now > job->hold->notice.body.expires) {
    return decide(job_id, *job, {Recommendation::kReject, {reason::kHoldExpired}}, now);
  }
  if (t == Tally::kOpen || now < decide_at(*job)) return ok_status();
  if (t == Tally::kDeclined) {
    const Outcome declined{Recommendation::kReject, policy::declined_reasons(panel(*job).rulings)};
    return decide(job_id, *job, declined, now);
  }
  const Status allowed = release_allowed(*job, now);
  if (!allowed.ok()) {
    return decide(job_id, *job, {Recommendation::kReject, {allowed.error().what}}, now);
  }
  return decide(job_id, *job, {Recommendation::kRelease, {}}, now);
}

Result<Release> Core::release_of(const JobState& job) const {
  const DecisionState& d = *job.decision;
  ReleaseStatement s;
  s.job_id = d.entry.job_id;
  s.run_statement = d.entry.run_statement;
  s.manifest = d.entry.manifest;
  s.verdict = d.entry.verdict;
  s.decision = d.entry.decision;
  s.reasons = d.entry.reasons;
  s.rulings = d.entry.rulings;
  s.charges = d.entry.charges;
  s.time = d.time;
  GBX_ASSIGN(s.inclusion, log_->inclusion(d.leaf));
  Release r;
  GBX_ASSIGN(r.statement, sign(std::move(s)));
  r.outer_keys = d.outer_keys;
  return r;
}

Result<Judgement> Core::judgement(const JobState& job, std::int64_t now) const {
  Judgement j;
  if (!job.seal) return j;
  if (job.hold) {
    j.hold_notice = job.hold->notice;
    j.preview_keys = job.hold->preview_keys;
    j.run_statement = job.seal->seal.statement;
  }
  if (job.decision) {
    j.state = job.decision->entry.decision == ReleaseDecision::kRelease ? JudgementState::kReleased
                                                                        : JudgementState::kRejected;
    GBX_ASSIGN(j.release, release_of(job));
    return j;
  }
  j.state = job.hold && policy::tally(panel(job)) == Tally::kOpen ? JudgementState::kHeld
                                                                  : JudgementState::kPending;
  if (j.state == JudgementState::kPending) j.decide_at = std::max(decide_at(job), now);
  return j;
}

Result<Judgement> Core::judge(const JobRequest& r, const Call& c) {
  if (state().job(r.job_id) == nullptr) return fail(Reason::kNotFound, "job");
  GBX_TRY(advance(r.job_id, c.now));
  return judgement(*state().job(r.job_id), c.now);
}

// The consumer reads the reasons, so they are reserved with the ruling, on top of the release that
// may follow all the same.
Status Core::reasons_fit(const JobState& job, const Ruling& ruling, std::int64_t now) const {
  const std::int64_t told = policy::ruling_bits({ruling});
  if (told == 0) return ok_status();
  for (PlanCharge charge : job.reserved) {
    charge.free_bits += told;
    for (const auto& named : job.plan.body.policies) {
      const Policy& policy = state().policy(named.policy_hash)->publish.policy.body;
      if (policy.owner_id != charge.owner_id || policy.asset_id != charge.asset_id) continue;
      const Status fits = within_budget(job, policy, charge, now);
      if (fits.ok()) continue;
      Error e = fits.error();
      return e.at("the reasons")
          .hint("reject without reasons: they cost " + std::to_string(policy::kReviewReasonBits) +
                " bits each, which this budget no longer has");
    }
  }
  return ok_status();
}

Result<Judgement> Core::ruling(const RulingRequest& r, const Call& c) {
  const Ruling& body = r.ruling.body;
  const JobState* job = state().held_under(body.hold_notice);
  if (job == nullptr) return fail(Reason::kNotFound, "no output is held under this notice");
  const Hash32 job_id = job->plan.body.job_id;
  for (const auto& known : job->hold->rulings) {
    if (known.ruling.body.owner_policy_hash != body.owner_policy_hash ||
        known.reviewer.id() != r.reviewer.id()) {
      continue;
    }
    if (known.ruling.hash() == r.ruling.hash()) return judge({job_id}, c);
    return fail(Reason::kConflict, "this reviewer has ruled already");
  }
  if (job->decision || policy::tally(panel(*job)) != Tally::kOpen) {
    return fail(Reason::kWrongState, "the output was decided already");
  }
  const HoldNotice& notice = job->hold->notice.body;
  GBX_ASSIGN(crypto::PublicKey key, standing(r.reviewer));
  GBX_TRY(policy::verify_ruling(set_id_, panel(*job), notice, r.ruling, {r.reviewer, key, c.now}));
  const std::int64_t decides = slot_end(c.now, job->plan.body.gate.release_slot_seconds);
  if (decides > notice.expires) {
    return fail(Reason::kExpired, "hold")
        .with("decided before " + format_time(notice.expires), format_time(decides));
  }
  GBX_TRY(reasons_fit(*job, body, c.now));
  GBX_TRY(log_->append({make_entry(c.now, RulingEntry{job_id, r})}));
  return judge({job_id}, c);
}

// A consumer may send along what proves nothing; the receipt holds what the plan rests on.
bool Core::lease_counts(const JobState& job, const Signed<Lease>& l) const {
  const auto& submission = job.submission.submission.body;
  const bool used = std::any_of(job.lease_uses.begin(), job.lease_uses.end(), [&](const auto& use) {
    return use.lease_id == l.body.lease_id && use.asset_id == l.body.asset_id;
  });
  if (!used) return false;
  return std::any_of(
      job.plan.body.policies.begin(), job.plan.body.policies.end(), [&](const PlanPolicy& named) {
        const Publish& publish = state().policy(named.policy_hash)->publish;
        const auto& p = publish.policy.body;
        const IdentityChain owner = state().chain(publish.owner.identity);
        return lease::verify_lease(
                   l, {set_id_, p.asset_id, submission.consumer_id, &owner,
                       &p.clauses.lease_issuers, job.plan.body.time, lease::Signer::kEver})
            .ok();
      });
}

namespace {

// Identities by rising id, each with its keys as far as one of them signed something in the
// receipt: then there is one way to write it, whenever it is asked for.
void shorten_chains(Receipt& r) {
  std::set<std::string> signers{r.submission.key};
  const auto add = [&signers](const auto& list) {
    for (const auto& s : list) signers.insert(s.key);
  };
  add(r.versions);
  add(r.policies);
  add(r.beacons);
  add(r.leases);
  add(r.rulings);
  for (IdentityChain& c : r.identities) {
    while (!c.rotations.empty() && signers.count(c.rotations.back().body.new_key) == 0) {
      c.rotations.pop_back();
    }
  }
  std::sort(r.identities.begin(), r.identities.end(),
            [](const auto& a, const auto& b) { return a.id() < b.id(); });
}

}  // namespace

// The slot of the seal and that of the first decision, where they differ, would tell the receipt's
// reader how near the end of a slot the run ended: so it was sealed by the decision's.
Result<Signed<SealAck>> Core::told_ack(const JobState& job) const {
  const std::int64_t slot = job.plan.body.gate.release_slot_seconds;
  const std::int64_t decided =
      job.hold ? policy::held_at(job.hold->notice.body) : job.decision->time;
  SealAck ack = job.seal->ack.body;
  if (slot == 0 || ack.time >= decided - decided % slot) return job.seal->ack;
  ack.time = decided - decided % slot;
  return sign(std::move(ack));
}

Result<Receipt> Core::receipt(const JobRequest& r, const Call&) {
  const JobState* job = state().job(r.job_id);
  if (job == nullptr) return fail(Reason::kNotFound, "job");
  if (!job->decision) return fail(Reason::kWrongState, "a receipt follows the decision");
  Receipt out;
  out.set = keys_.set;
  const auto add = [&](const IdentityChain& chain) {
    for (const auto& known : out.identities) {
      if (known.id() == chain.id()) return;
    }
    out.identities.push_back(state().chain(chain.identity));
  };
  add(job->submission.consumer);
  for (const auto& p : job->plan.body.policies) {
    const Publish& publish = state().policy(p.policy_hash)->publish;
    add(publish.owner);
    out.versions.push_back(publish.record);
    out.policies.push_back(publish.policy);
  }
  out.beacons = job->decision->beacons;
  for (const Id16& id : job->submission.submission.body.leases) {
    const auto known = [&id](const auto& l) { return l.body.lease_id == id; };
    if (std::any_of(out.leases.begin(), out.leases.end(), known)) continue;
    const auto& sent = job->submission.leases;
    const auto l = std::find_if(sent.begin(), sent.end(),
                                [&](const auto& s) { return known(s) && lease_counts(*job, s); });
    if (l != sent.end()) out.leases.push_back(*l);
  }
  out.submission = job->submission.submission;
  out.plan = job->plan;
  const AttemptState& attempt = job->attempts[static_cast<std::size_t>(job->seal->attempt) - 1];
  out.credential = attempt.credential;
  out.nonce = attempt.attest->nonce;
  out.exporter = attempt.attest->exporter;
  out.agent_keys = attempt.attest->agent_keys;
  out.evidence = attempt.attest->evidence;
  out.run_statement = job->seal->seal.statement;
  GBX_ASSIGN(out.seal_ack, told_ack(*job));
  if (job->hold) {
    out.hold_notice = job->hold->notice;
    for (const auto& ruling : job->decision->rulings) {
      add(ruling.reviewer);
      out.rulings.push_back(ruling.ruling);
    }
  }
  shorten_chains(out);
  GBX_ASSIGN(Release release, release_of(*job));
  out.release = release.statement;
  GBX_ASSIGN(out.log_entry, log_->entry(job->decision->leaf));
  const auto& inclusion = out.release.body.inclusion;
  GBX_ASSIGN(out.broker_evidence,
             sign(BrokerEvidence{set_key_, keys_.kek.public_key().text(), epoch_, r.job_id,
                                 keys_.set.charter.custody, job->decision->time,
                                 inclusion.tree_size, inclusion.root, std::nullopt}));
  return out;
}

}  // namespace gbx::broker
