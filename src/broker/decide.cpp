// After the seal: the owners' gate clauses, reviewers' rulings, the release and the receipt.
#include <algorithm>

#include "broker/core.h"
#include "records/sealing.h"

namespace gbx::broker {

using namespace records;  // NOLINT: the contract's names are this file's vocabulary

namespace {

// The closed list of what a consumer is told (docs/broker.md).
constexpr char kGateRejected[] = "gate-rejected";
constexpr char kFinding[] = "finding";
constexpr char kGateHolds[] = "gate-holds";
constexpr char kScore[] = "score";
constexpr char kFreeBits[] = "free-bits";
constexpr char kVerifiedBits[] = "verified-bits";
constexpr char kBudget[] = "budget";
constexpr char kOpaqueOutput[] = "opaque-output";
constexpr char kPolicyRevoked[] = "policy-revoked";
constexpr char kPolicyExpired[] = "policy-expired";
constexpr char kNoReviewer[] = "no-reviewer";
constexpr char kDeclined[] = "reviewers-declined";
constexpr char kHoldExpired[] = "hold-expired";
constexpr char kCancelled[] = "cancelled";

// The first multiple of the slot that is not before `time`.
std::int64_t slot_at(std::int64_t time, std::int64_t slot_seconds) {
  if (slot_seconds <= 0) return time;
  return (time + slot_seconds - 1) / slot_seconds * slot_seconds;
}
std::int64_t decide_at(const JobState& job) {
  const std::int64_t from = job.hold ? job.hold->last_ruling_at : job.seal->time;
  return slot_at(from, job.plan.body.gate.release_slot_seconds);
}

}  // namespace

// Revocation and expiry by the policy now in force; its other clauses bind new jobs.
Status Core::release_allowed(const JobState& job, std::int64_t now) const {
  for (const auto& p : job.plan.body.policies) {
    const auto& body = state().current_policy(p.asset_version_id)->publish.policy.body;
    if (body.revoked) return fail(Reason::kPolicyRevoked, kPolicyRevoked);
    if (now > body.clauses.not_after) return fail(Reason::kPolicyExpired, kPolicyExpired);
  }
  return ok_status();
}

// What the release costs each owner in full: what the gate charged (the envelope is in it), and the choice among the
// attempts that had the data.
std::vector<PlanCharge> Core::final_charges(const JobState& job, ReleaseDecision decision) const {
  const auto& charge = job.seal->manifest().context.verdict.charge;
  const auto tries = std::count_if(job.attempts.begin(), job.attempts.end(), [](const auto& a) { return a.keys.size() >= 2; });
  std::vector<PlanCharge> out = job.plan.body.charges;
  for (auto& c : out) {
    const bool released = decision == ReleaseDecision::kRelease;
    c.free_bits = released ? std::max(charge.free_bits, policy::kEnvelopeBits) + policy::attempt_bits(tries) : policy::kRejectionBits;
    c.verified_bits = released ? charge.verified_bits : 0;
  }
  return out;
}

void Core::weigh_policy(const JobState& job, const PolicyState& p, std::int64_t now, std::set<std::string>& holds) const {
  const auto& verdict = job.seal->manifest().context.verdict;
  const Policy& policy = p.publish.policy.body;
  const GateClause& gate = policy.clauses.gate;
  if (verdict.score >= gate.hold_score) holds.insert(kScore);
  if (verdict.charge.verified_bits > gate.auto_clear_verified_bits) holds.insert(kVerifiedBits);
  for (const auto& c : final_charges(job, ReleaseDecision::kRelease)) {
    if (c.owner_id != policy.owner_id || c.asset_id != policy.asset_id) continue;
    if (c.free_bits > gate.auto_clear_free_bits) holds.insert(kFreeBits);
    const auto& submission = job.submission.submission.body;
    const policy::Spent spent = state().spent(c, submission.consumer_id, now - gate.period_days * 86400, submission.job_id());
    if (spent.period_free_bits + c.free_bits > gate.period_free_bits || spent.total_free_bits + c.free_bits > gate.total_free_bits) {
      holds.insert(kBudget);
    }
  }
}

// Are there enough people who may rule, for every policy that asks for rulings?
bool Core::reviewable(const JobState& job) const {
  for (const auto& p : job.plan.body.policies) {
    const Policy& policy = state().policy(p.policy_hash)->publish.policy.body;
    if (!policy::needs_rulings(policy, job.submission.submission.body)) continue;
    const auto who = policy::eligible_reviewers(policy, job.plan.body.may_preview, job.submission);
    if (static_cast<std::int64_t>(who.size()) < policy.clauses.reviewers_needed) return false;
  }
  return true;
}

Core::Outcome Core::weigh(const JobState& job, std::int64_t now) const {
  if (job.cancelled) return {Recommendation::kReject, {kCancelled}};
  const Status allowed = release_allowed(job, now);
  if (!allowed.ok()) return {Recommendation::kReject, {allowed.error().what}};
  const auto& verdict = job.seal->manifest().context.verdict;
  if (verdict.recommendation == Recommendation::kReject) return {Recommendation::kReject, {kGateRejected}};
  std::set<std::string> holds;
  if (verdict.recommendation == Recommendation::kHold) holds.insert(kGateHolds);
  for (const auto& f : verdict.findings) {
    if (f.status == AnalyserStatus::kError || f.status == AnalyserStatus::kFail) holds.insert(kFinding);
  }
  for (const auto& o : job.submission.submission.body.spec.spec.outputs) {
    if (o.type == OutputType::kOpaque) holds.insert(kOpaqueOutput);
  }
  for (const auto& p : job.plan.body.policies) weigh_policy(job, *state().policy(p.policy_hash), now, holds);
  if (holds.empty()) return {Recommendation::kRelease, {}};
  if (!reviewable(job)) return {Recommendation::kReject, {kNoReviewer}};
  return {Recommendation::kHold, {holds.begin(), holds.end()}};
}

Core::Tally Core::tally(const JobState& job) const {
  bool all = true;
  for (const auto& p : job.plan.body.policies) {
    const Policy& policy = state().policy(p.policy_hash)->publish.policy.body;
    if (!policy::needs_rulings(policy, job.submission.submission.body)) continue;
    const auto who = policy::eligible_reviewers(policy, job.plan.body.may_preview, job.submission);
    std::int64_t approved = 0;
    std::int64_t declined = 0;
    for (const auto& r : job.hold->rulings) {
      if (r.ruling.body.owner_policy_hash != p.policy_hash) continue;
      ++(r.ruling.body.decision == RulingDecision::kApprove ? approved : declined);
    }
    const std::int64_t needed = policy.clauses.reviewers_needed;
    if (static_cast<std::int64_t>(who.size()) - declined < needed) return Tally::kDeclined;
    if (approved < needed) all = false;
  }
  return all ? Tally::kApproved : Tally::kOpen;
}

Status Core::hold(const Hash32& job_id, const JobState& job, const Outcome& outcome, std::int64_t now) {
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
  return log_->append({make_entry(now, JudgeEntry{job_id, outcome.what, outcome.reasons}), make_entry(now, entry)});
}

// Commits decision and charges, and with them the sealed outer keys, before either can leave.
Status Core::decide(const Hash32& job_id, const JobState& job, const Outcome& outcome, std::int64_t now) {
  const bool release = outcome.what == Recommendation::kRelease;
  const OutputManifest& manifest = job.seal->manifest();
  ReleaseEntry entry;
  entry.job_id = job_id;
  entry.run_statement = job.seal->seal.statement.hash();
  entry.manifest = hash_of(manifest);
  entry.decision = release ? ReleaseDecision::kRelease : ReleaseDecision::kReject;
  entry.reasons = outcome.reasons;
  if (job.hold) {
    entry.hold_notice = job.hold->notice.hash();
    for (const auto& r : job.hold->rulings) entry.rulings.push_back(r.ruling.hash());
  }
  entry.charges = final_charges(job, entry.decision);
  std::vector<LogEntry> entries{make_entry(now, JudgeEntry{job_id, outcome.what, outcome.reasons}), make_entry(now, entry)};
  if (release) {
    DeliverEntry deliver;
    deliver.job_id = job_id;
    GBX_ASSIGN(ReleaseKeys keys, open_release_keys(keys_.kek, manifest, job.seal->seal.release_keys));
    for (const auto& k : job.submission.submission.body.result_keys) {
      GBX_ASSIGN(crypto::HpkePublicKey to, crypto::HpkePublicKey::from_text(k.hpke));
      GBX_ASSIGN(Bytes sealed, seal_outer_key(to, entry.manifest, keys.result, random_));
      deliver.outer_keys.push_back(std::move(sealed));
    }
    entries.push_back(make_entry(now, deliver));
  }
  return log_->append(entries);
}

// Takes whatever step is due. Called on every question about a job, so a crash between steps loses none.
Status Core::advance(const Hash32& job_id, std::int64_t now) {
  const JobState* job = state().job(job_id);
  if (job == nullptr || !job->seal || job->decision) return ok_status();
  if (job->cancelled) return decide(job_id, *job, weigh(*job, now), now);
  if (!job->hold) {
    if (now < decide_at(*job)) return ok_status();
    const Outcome outcome = weigh(*job, now);
    return outcome.what == Recommendation::kHold ? hold(job_id, *job, outcome, now) : decide(job_id, *job, outcome, now);
  }
  const Tally t = tally(*job);
  if (t == Tally::kOpen) {
    if (now <= job->hold->notice.body.expires) return ok_status();
    return decide(job_id, *job, {Recommendation::kReject, {kHoldExpired}}, now);
  }
  if (now < decide_at(*job)) return ok_status();
  if (t == Tally::kDeclined) return decide(job_id, *job, {Recommendation::kReject, {kDeclined}}, now);
  const Status allowed = release_allowed(*job, now);
  if (!allowed.ok()) return decide(job_id, *job, {Recommendation::kReject, {allowed.error().what}}, now);
  return decide(job_id, *job, {Recommendation::kRelease, {}}, now);
}

Result<Release> Core::release_of(const JobState& job) const {
  const DecisionState& d = *job.decision;
  ReleaseStatement s;
  s.job_id = d.entry.job_id;
  s.run_statement = d.entry.run_statement;
  s.manifest = d.entry.manifest;
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
  }
  if (job.decision) {
    j.state = job.decision->entry.decision == ReleaseDecision::kRelease ? JudgementState::kReleased : JudgementState::kRejected;
    GBX_ASSIGN(j.release, release_of(job));
    return j;
  }
  j.state = job.hold && tally(job) == Tally::kOpen ? JudgementState::kHeld : JudgementState::kPending;
  if (j.state == JudgementState::kPending) j.decide_at = std::max(decide_at(job), now);
  return j;
}

Result<Judgement> Core::judge(const JobRequest& r, const Call& c) {
  if (state().job(r.job_id) == nullptr) return fail(Reason::kNotFound, "job");
  GBX_TRY(advance(r.job_id, c.now));
  return judgement(*state().job(r.job_id), c.now);
}

Result<RulingRequest> Core::check_ruling(const RulingRequest& r, const JobState& job, std::int64_t now) const {
  const Ruling& body = r.ruling.body;
  const HoldNotice& notice = job.hold->notice.body;
  if (body.manifest != notice.manifest || body.ciphertext != notice.ciphertext) {
    return fail(Reason::kPlanMismatch, "the ruling is about another output");
  }
  const PolicyState* policy = state().policy(body.owner_policy_hash);
  const auto& named = job.plan.body.policies;
  const bool of_plan = std::any_of(named.begin(), named.end(), [&](const auto& p) { return p.policy_hash == body.owner_policy_hash; });
  if (policy == nullptr || !of_plan) return fail(Reason::kPolicyMismatch, "the ruling names a policy that the plan does not");
  GBX_ASSIGN(crypto::PublicKey key, standing(r.reviewer));
  const auto who = policy::eligible_reviewers(policy->publish.policy.body, job.plan.body.may_preview, job.submission);
  const bool eligible = std::any_of(who.begin(), who.end(), [&](const Reviewer& e) {
    return e.identity_id == r.reviewer.id() && e.key == key.text();
  });
  if (!eligible) return fail(Reason::kWrongRole, "not a reviewer of this output under this policy");
  GBX_TRY(r.ruling.verify(set_id_, key));
  if (now > notice.expires) return fail(Reason::kExpired, "hold").with("before " + format_time(notice.expires), format_time(now));
  return r;
}

Result<Judgement> Core::ruling(const RulingRequest& r, const Call& c) {
  const Ruling& body = r.ruling.body;
  const JobState* job = nullptr;
  Hash32 job_id{};
  for (const auto& [id, j] : state().jobs()) {
    if (!j.hold || j.hold->notice.hash() != body.hold_notice) continue;
    job = &j;
    job_id = j.plan.body.job_id;
  }
  if (job == nullptr) return fail(Reason::kNotFound, "no output is held under this notice");
  for (const auto& known : job->hold->rulings) {
    if (known.ruling.body.owner_policy_hash != body.owner_policy_hash || known.reviewer.id() != r.reviewer.id()) continue;
    if (known.ruling.hash() == r.ruling.hash()) return judge({job_id}, c);
    return fail(Reason::kConflict, "this reviewer has ruled already");
  }
  if (job->decision || tally(*job) != Tally::kOpen) return fail(Reason::kWrongState, "the output was decided already");
  GBX_ASSIGN(RulingRequest checked, check_ruling(r, *job, c.now));
  GBX_TRY(log_->append({make_entry(c.now, RulingEntry{job_id, checked})}));
  return judge({job_id}, c);
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
  out.leases = job->submission.leases;
  out.submission = job->submission.submission;
  out.plan = job->plan;
  const AttemptState& attempt = job->attempts[static_cast<std::size_t>(job->seal->attempt) - 1];
  out.credential = attempt.credential;
  out.nonce = attempt.attest->nonce;
  out.exporter = attempt.attest->exporter;
  out.agent_keys = attempt.attest->agent_keys;
  out.evidence = attempt.attest->evidence;
  out.run_statement = job->seal->seal.statement;
  out.seal_ack = job->seal->ack;
  if (job->hold) {
    out.hold_notice = job->hold->notice;
    for (const auto& ruling : job->hold->rulings) {
      add(ruling.reviewer);
      out.rulings.push_back(ruling.ruling);
    }
  }
  GBX_ASSIGN(Release release, release_of(*job));
  out.release = release.statement;
  GBX_ASSIGN(out.log_entry, log_->entry(job->decision->leaf));
  const auto& inclusion = out.release.body.inclusion;
  GBX_ASSIGN(out.broker_evidence, sign(BrokerEvidence{set_key_, keys_.kek.public_key().text(), epoch_, r.job_id,
                                                      keys_.set.charter.custody, job->decision->time, inclusion.tree_size,
                                                      inclusion.root}));
  return out;
}

}  // namespace gbx::broker
