// Core: held outputs, and what their reviewers do with them. Who may rule is in the signed plan;
// the broker counts, the plane passes on and shows.
#include <algorithm>

#include "plane/core/page.h"
#include "policy/decision.h"

namespace gbx::plane {

using machines::Machine;
using machines::OutputState;
using machines::Record;
using machines::RecordQuery;
using machines::RecordWrite;

namespace {

constexpr char kDesk[] = "desk";
std::string desk_id(const Hash32& job_id, const Hash32& reviewer) {
  return to_hex(job_id) + "/" + to_hex(reviewer);
}
// The same for a job that does not exist, one that is not held and one that others review.
Error nothing_held() { return fail(Reason::kNotFound, "held output").hint("glovebox review list"); }

Status still_held(const Machine& output) {
  if (output.state == enum_name(OutputState::kHeld)) return ok_status();
  return fail(Reason::kWrongState, "this output is no longer held")
      .with(std::string(enum_name(OutputState::kHeld)), output.state)
      .hint("glovebox review list shows what waits for you");
}

// Places among the plan's reviewers, which are those of what is sealed to them: several where
// policies name different keys of one person.
std::vector<std::size_t> places_of(const records::RunPlan& plan, const Hash32& identity) {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < plan.reviewers.size(); ++i) {
    if (plan.reviewers[i].identity_id == identity) out.push_back(i);
  }
  return out;
}
// One desk for each person, however many places are theirs.
std::set<Hash32> people_of(const records::RunPlan& plan) {
  std::set<Hash32> out;
  for (const auto& r : plan.reviewers) out.insert(r.identity_id);
  return out;
}

struct Ruler {
  Hash32 identity{};
  std::string key;  // that stands
};
api::ReviewTally tally_of(const records::Signed<records::Policy>& policy, const JobBody& job,
                          const OutputBody& out, const Ruler& caller) {
  const auto who =
      policy::eligible_reviewers(policy.body, job.plan->body.may_preview, job.submission);
  api::ReviewTally t;
  t.policy_hash = policy.hash();
  t.owner_id = policy.body.owner_id;
  t.reviewers = static_cast<std::int64_t>(who.size());
  t.needed = policy.body.clauses.reviewers_needed;
  t.row_bits = policy.body.clauses.row_bits;
  t.mine = std::any_of(who.begin(), who.end(), [&](const auto& r) {
    return r.identity_id == caller.identity && r.key == caller.key;
  });
  for (const api::KeptRuling& kept : out.rulings) {
    if (!kept.taken || kept.ruling.body.owner_policy_hash != t.policy_hash) continue;
    ++(kept.ruling.body.decision == records::RulingDecision::kApprove ? t.approved : t.declined);
    t.ruled = t.ruled || kept.reviewer == caller.identity;
  }
  return t;
}

}  // namespace

// On the desk of everybody who may rule, in the transaction that holds the output, and off it in
// the one that ends that.
Status Core::lay_out(Transaction& t, const OutputBody& out) {
  GBX_ASSIGN(const Machine job, need_machine(job_machine(out.job_id), "job"));
  GBX_ASSIGN(const JobBody body, from_json<JobBody>(job.body));
  if (!body.plan) return fail(Reason::kInternal, "held without a plan");
  for (const Hash32& person : people_of(body.plan->body)) {
    RecordWrite w;
    w.record = {kDesk, desk_id(out.job_id, person),  to_hex(person), "", now_ms(),
                0,     to_json(DeskBody{out.job_id})};
    t.records.push_back(std::move(w));
  }
  return ok_status();
}

Status Core::clear_desks(Transaction& t, const OutputBody& out) {
  if (!out.hold_notice) return ok_status();
  GBX_ASSIGN(const Machine job, need_machine(job_machine(out.job_id), "job"));
  GBX_ASSIGN(const JobBody body, from_json<JobBody>(job.body));
  if (!body.plan) return ok_status();
  for (const Hash32& person : people_of(body.plan->body)) {
    GBX_ASSIGN(std::optional<Record> record, store_.record(kDesk, desk_id(out.job_id, person)));
    if (!record || record->owner.empty()) continue;
    record->owner.clear();  // nobody's: no list finds it any more
    t.records.push_back({record->revision, std::move(*record)});
  }
  return ok_status();
}

Result<Core::HeldOutput> Core::held_for(const Caller& who, const Hash32& job_id) {
  GBX_ASSIGN(std::optional<Machine> out, store_.machine(output_machine(job_id)));
  if (!out) return nothing_held();
  HeldOutput h;
  GBX_ASSIGN(h.out, from_json<OutputBody>(out->body));
  GBX_ASSIGN(const Machine job, need_machine(job_machine(job_id), "job"));
  GBX_ASSIGN(h.job, from_json<JobBody>(job.body));
  if (!h.out.hold_notice || !h.job.plan) return nothing_held();
  h.places = places_of(h.job.plan->body, who.identity);
  if (h.places.empty()) return nothing_held();
  h.machine = std::move(*out);
  return h;
}

Result<std::string> Core::standing_key(const Hash32& identity) {
  GBX_ASSIGN(const auto found, find_identity(identity));
  if (!found) return std::string();
  GBX_ASSIGN(const crypto::PublicKey key, found->second.chain.current_key(config_.set_id));
  return key.text();
}

Result<api::ReviewView> Core::review_view(const Caller& who, const HeldOutput& h) {
  const records::Submission& submission = h.job.submission.submission.body;
  const records::RunPlan& plan = h.job.plan->body;
  if (!h.out.run_statement) return fail(Reason::kInternal, "held without a run statement");
  const records::SealContext& context = h.out.run_statement->body.manifest.context;
  api::ReviewView v;
  v.job_id = h.out.job_id;
  v.name = submission.spec.metadata.name;
  v.consumer_id = submission.consumer_id;
  v.hold_notice = *h.out.hold_notice;
  v.free_bits = policy::release_bits(plan, context.verdict, context.attempt);
  v.verified_bits = context.verdict.charge.verified_bits;
  v.held_since_ms = h.machine.updated_ms;
  Ruler ruler{who.identity, {}};
  GBX_ASSIGN(ruler.key, standing_key(who.identity));
  std::set<std::string> reasons = policy::hold_reasons(submission, context.verdict);
  for (const auto& named : plan.policies) {
    GBX_ASSIGN(const api::PolicyView p, policy(named.policy_hash));
    reasons.merge(policy::hold_reasons(p.policy.body, context.verdict, v.free_bits));
    if (!policy::needs_rulings(p.policy.body, submission)) continue;
    v.policies.push_back(tally_of(p.policy, h.job, h.out, ruler));
  }
  // What is left is the ledger's matter, which the broker alone knows.
  if (reasons.empty()) reasons.insert(policy::reason::kBudget);
  v.reasons = {reasons.begin(), reasons.end()};
  return v;
}

Result<api::ReviewList> Core::reviews(const Caller& who, const Page& page) {
  RecordQuery q;
  q.kind = kDesk;
  q.owner = to_hex(who.identity);
  const auto entry = [&](const Record& row) -> Result<std::optional<api::ReviewView>> {
    GBX_ASSIGN(const DeskBody desk, from_json<DeskBody>(row.body));
    GBX_ASSIGN(const HeldOutput h, held_for(who, desk.job_id));
    std::optional<api::ReviewView> view;
    // Another thread may have decided since the desk was read.
    if (h.machine.state != enum_name(OutputState::kHeld)) return view;
    GBX_ASSIGN(view, review_view(who, h));
    return view;
  };
  return page_of<api::ReviewList>(store_, std::move(q), page, entry);
}

Status Core::check_held(const Caller& who, const Hash32& job_id) {
  GBX_ASSIGN(const HeldOutput h, held_for(who, job_id));
  return still_held(h.machine);
}

Result<api::ReviewDetail> Core::review(const Caller& who, const Hash32& job_id) {
  GBX_ASSIGN(HeldOutput h, held_for(who, job_id));
  GBX_TRY(still_held(h.machine));
  api::ReviewDetail d;
  GBX_ASSIGN(d.review, review_view(who, h));
  GBX_ASSIGN(records::LaunchBundle b, bundle(h.job, {}));
  d.submission = std::move(b.submission);
  d.submission.leases.clear();
  d.plan = std::move(b.plan);
  d.owners = std::move(b.owners);
  d.versions = std::move(b.versions);
  d.policies = std::move(b.policies);
  d.run_statement = *h.out.run_statement;
  d.rulings = std::move(h.out.rulings);
  for (const std::size_t place : h.places) {
    if (place >= h.out.preview_keys.size()) {
      return fail(Reason::kInternal, "no preview key for this reviewer");
    }
    d.preview_keys.push_back(std::move(h.out.preview_keys[place]));
  }
  GBX_ASSIGN(d.output, stored_output(h.out));
  return d;
}

Status Core::check_ruling(const Caller& who, const Hash32& job_id,
                          const records::RulingRequest& ruling) {
  if (ruling.reviewer.id() != who.identity) {
    return fail(Reason::kWrongOwner, "a ruling is sent by its own reviewer");
  }
  GBX_ASSIGN(crypto::PublicKey key, ruling.reviewer.current_key(config_.set_id));
  GBX_TRY(ruling.ruling.verify(config_.set_id, key));
  GBX_ASSIGN(const HeldOutput h, held_for(who, job_id));
  if (h.out.hold_notice->hash() != ruling.ruling.body.hold_notice) {
    return fail(Reason::kNotFound, "this hold notice is not of this job")
        .hint("glovebox review show " + to_hex(job_id).substr(0, 16));
  }
  return ok_status();
}

Status Core::begin_ruling(const Caller& who, const Hash32& job_id,
                          const records::RulingRequest& request) {
  const Lock lock(mutex_);
  GBX_TRY(check_ruling(who, job_id, request));
  GBX_ASSIGN(HeldOutput h, held_for(who, job_id));
  const auto& body = request.ruling.body;
  // The broker refuses whatever is not kept here: one for each reviewer and policy of the plan.
  const auto& policies = h.out.hold_notice->body.policy_hashes;
  if (h.machine.state != enum_name(OutputState::kHeld) ||
      std::count(policies.begin(), policies.end(), body.owner_policy_hash) == 0) {
    return ok_status();
  }
  for (const api::KeptRuling& kept : h.out.rulings) {
    if (kept.reviewer == who.identity &&
        kept.ruling.body.owner_policy_hash == body.owner_policy_hash) {
      return ok_status();
    }
  }
  h.out.rulings.push_back({who.identity, false, request.ruling});
  return touch(std::move(h));
}

Status Core::end_ruling(const Caller& who, const Hash32& job_id,
                        const records::RulingRequest& request,
                        const Result<records::Judgement>& reply) {
  if (!reply.ok() && passing(reply.reason())) return ok_status();  // it may have taken it
  {
    const Lock lock(mutex_);
    GBX_ASSIGN(HeldOutput h, held_for(who, job_id));
    auto& all = h.out.rulings;
    const auto same = std::find_if(all.begin(), all.end(), [&](const api::KeptRuling& kept) {
      return kept.reviewer == who.identity &&
             kept.ruling.body.owner_policy_hash == request.ruling.body.owner_policy_hash;
    });
    if (same != all.end() && reply.ok()) {
      *same = {who.identity, true, request.ruling};
      GBX_TRY(touch(std::move(h)));
    } else if (same != all.end() && !same->taken && same->ruling.hash() == request.ruling.hash()) {
      all.erase(same);
      GBX_TRY(touch(std::move(h)));
    }
  }
  return reply.ok() ? apply_judgement(job_id, *reply) : ok_status();
}

Status Core::touch(HeldOutput h) {
  h.machine.body = to_json(h.out);
  Transaction t;
  t.touches.push_back({h.machine.seq, std::move(h.machine)});
  return commit(t);
}

}  // namespace gbx::plane
