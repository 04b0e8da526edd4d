#include "policy/decision.h"

#include <algorithm>

namespace gbx::policy {

using records::Recommendation;

const std::vector<std::string>& rejection_reasons() {
  static const std::vector<std::string> kReasons = {
      reason::kMalformed,  reason::kCopies,    reason::kPolicyRevoked,  reason::kPolicyExpired,
      reason::kNoReviewer, reason::kDeclined,  reason::kPolicyNotFresh, reason::kHoldExpired,
      reason::kCancelled,  reason::kKeyRotated};
  return kReasons;
}

namespace {
constexpr ReviewReason kReviewReasons[] = {
    {"small-cells", "figures stand for too few people: use larger groups, or leave small ones out"},
    {"dominance", "one person makes up most of a figure: use larger groups"},
    {"differencing", "together with an earlier release it tells about few people"},
    {"group-disclosure", "everybody of a group has one value: do not show it"},
    {"identifiers", "it holds ids, names or other things that point at a person"},
    {"too-detailed", "more rows, columns or digits than the purpose needs"},
    {"not-rounded", "round counts and figures as the owner asks"},
    {"model-memorises", "a model can hold rows of the data: make it smaller or train it privately"},
    {"unexplained-content", "nobody can say what these bytes are: declare a typed output"},
    {"missing-context", "say what was computed, over whom, and how"},
    {"wrong-format", "another type or schema of output is wanted"},
    {"off-purpose", "it is not what the job's purpose says"},
    {"ask-owner", "the owner tells you more"},
};
static_assert(std::size(kReviewReasons) <= 1U << kReviewReasonBits);
// a release statement names them all beside its own
static_assert(std::size(kReviewReasons) < 16);

Status check_reasons(const records::Ruling& r) {
  const auto n = static_cast<std::int64_t>(r.reasons.size());
  const bool approves = r.decision == records::RulingDecision::kApprove;
  const bool changes = r.decision == records::RulingDecision::kRequestChanges;
  if (n > (approves ? 0 : kMaxRulingReasons) || (changes && n == 0)) {
    return fail(Reason::kBadValue, "reasons of the ruling")
        .with(approves  ? "none with an approval"
              : changes ? "1 to " + std::to_string(kMaxRulingReasons)
                        : "at most " + std::to_string(kMaxRulingReasons),
              std::to_string(n));
  }
  for (const std::string& code : r.reasons) {
    const bool known = std::any_of(std::begin(kReviewReasons), std::end(kReviewReasons),
                                   [&](const auto& k) { return k.code == code; });
    if (!known || std::count(r.reasons.begin(), r.reasons.end(), code) > 1) {
      return fail(Reason::kBadValue, "reason of the ruling")
          .with("a code of the closed list, once", code.substr(0, 64))
          .hint("glovebox review request-changes --help lists them");
    }
  }
  return ok_status();
}
}  // namespace

std::span<const ReviewReason> review_reasons() { return kReviewReasons; }

std::int64_t ruling_bits(const std::vector<records::Ruling>& rulings) {
  std::int64_t reasons = 0;
  for (const auto& r : rulings) reasons += static_cast<std::int64_t>(r.reasons.size());
  return reasons * kReviewReasonBits;
}

std::vector<std::string> declined_reasons(const std::vector<records::Ruling>& rulings) {
  std::vector<std::string> out{reason::kDeclined};
  for (const ReviewReason& known : kReviewReasons) {
    const bool given = std::any_of(rulings.begin(), rulings.end(), [&](const auto& r) {
      return std::count(r.reasons.begin(), r.reasons.end(), known.code) > 0;
    });
    if (given) out.emplace_back(known.code);
  }
  return out;
}

const char* gate_reason(records::GateCause cause) {
  return cause == records::GateCause::kCopies ? reason::kCopies : reason::kMalformed;
}

std::int64_t release_bits(const records::RunPlan& plan, const records::GateVerdict& verdict,
                          std::int64_t attempts_with_data) {
  const std::int64_t output = std::max(verdict.charge.free_bits, kControlBits) - kControlBits;
  return output + rejection_bits(plan, attempts_with_data);
}

std::int64_t rejection_bits(const records::RunPlan& plan, std::int64_t attempts_with_data) {
  const TimedRun run{plan.controls.run_seconds, plan.gate.release_slot_seconds};
  return kControlBits + attempts_bits(run, attempts_with_data);
}

namespace {

// What the gate charges when it hands on content.
Result<records::GateCharge> content_charge(const records::RunPlan& plan,
                                           const records::SpecBody& spec, records::JobExit exit,
                                           const Capacity& capacity) {
  records::GateCharge due;
  due.code_id = kControlCode;
  if (exit != records::JobExit::kOk) {
    records::SpecBody silent = spec;
    silent.outputs.clear();
    GBX_ASSIGN(const JobBits told, capacity(silent, {}));
    due.free_bits = told.free_bits;
    return due;
  }
  if (plan.charges.empty()) return fail(Reason::kOutputInvalid, "a plan that charges nobody");
  // Each owner is reserved the same.
  const auto& reserved = plan.charges.front();
  const TimedRun run{plan.controls.run_seconds, plan.gate.release_slot_seconds};
  due.free_bits = reserved.free_bits - attempts_bits(run, plan.attempts);
  due.verified_bits = reserved.verified_bits;
  if (!spec.outputs.empty()) due.code_id = kSchemaCode;
  return due;
}

std::string in_words(const records::GateCharge& c) {
  return std::to_string(c.free_bits) + " free and " + std::to_string(c.verified_bits) +
         " verified bits by " + c.code_id;
}

}  // namespace

Status check_charge(const records::RunPlan& plan, const records::Submission& submission,
                    const records::GateVerdict& verdict, const Capacity& capacity) {
  const auto says = [&](const records::GateCharge& due) {
    const auto& c = verdict.charge;
    return c.free_bits == due.free_bits && c.verified_bits == due.verified_bits &&
           c.code_id == due.code_id;
  };
  records::GateCharge due;
  due.free_bits = kControlBits;
  due.code_id = kControlCode;
  const bool may_be_empty = verdict.recommendation != Recommendation::kRelease;
  if (may_be_empty && says(due)) return ok_status();
  if (verdict.recommendation != Recommendation::kReject) {
    GBX_ASSIGN(due, content_charge(plan, submission.spec.spec, verdict.exit_class, capacity));
    if (says(due)) return ok_status();
  }
  return fail(Reason::kOutputInvalid, "charge of the verdict")
      .with(in_words(due), in_words(verdict.charge));
}

std::set<std::string> hold_reasons(const records::Submission& submission,
                                   const records::GateVerdict& verdict) {
  std::set<std::string> out;
  if (verdict.recommendation != Recommendation::kRelease) out.insert(reason::kGateHolds);
  for (const auto& o : submission.spec.spec.outputs) {
    if (o.type == records::OutputType::kOpaque) out.insert(reason::kOpaqueOutput);
    // docs/gate.md: text without a word list is bounded by nothing, whatever an agent says of it
    const bool words = o.schema && o.schema->find("enum") != nullptr;
    if (o.type == records::OutputType::kText && !words) out.insert(reason::kGateHolds);
  }
  return out;
}

std::set<std::string> hold_reasons(const records::Policy& policy,
                                   const records::GateVerdict& verdict, std::int64_t free_bits) {
  const auto& gate = policy.clauses.gate;
  std::set<std::string> out;
  if (free_bits > gate.auto_clear_free_bits) out.insert(reason::kFreeBits);
  // in a currency in which no policy gives any yet
  if (verdict.charge.zcdp_micro > 0) out.insert(reason::kBudget);
  if (verdict.charge.verified_bits > gate.auto_clear_verified_bits) {
    out.insert(reason::kVerifiedBits);
  }
  return out;
}

bool reviewable(const Panel& panel) {
  return std::all_of(panel.policies.begin(), panel.policies.end(), [&](const auto& p) {
    if (!needs_rulings(p.body, panel.submission.submission.body)) return true;
    const auto who = eligible_reviewers(p.body, panel.may_preview, panel.submission);
    return static_cast<std::int64_t>(who.size()) >= p.body.clauses.reviewers_needed;
  });
}

Tally tally(const Panel& panel) {
  bool all = true;
  for (const auto& p : panel.policies) {
    if (!needs_rulings(p.body, panel.submission.submission.body)) continue;
    const Hash32 hash = p.hash();
    std::int64_t approved = 0;
    std::int64_t declined = 0;
    for (const auto& r : panel.rulings) {
      if (r.owner_policy_hash == hash) {
        ++(r.decision == records::RulingDecision::kApprove ? approved : declined);
      }
    }
    const auto who = eligible_reviewers(p.body, panel.may_preview, panel.submission);
    if (static_cast<std::int64_t>(who.size()) - declined < p.body.clauses.reviewers_needed) {
      return Tally::kDeclined;
    }
    if (approved < p.body.clauses.reviewers_needed) all = false;
  }
  return all ? Tally::kApproved : Tally::kOpen;
}

Status verify_ruling(const records::SetId& set_id, const Panel& panel,
                     const records::HoldNotice& notice,
                     const records::Signed<records::Ruling>& ruling, const RulingBy& by) {
  const auto& body = ruling.body;
  if (body.hold_notice != records::hash_of(notice) || body.manifest != notice.manifest ||
      body.ciphertext != notice.ciphertext) {
    return fail(Reason::kPlanMismatch, "the ruling is about another output");
  }
  const auto policy =
      std::find_if(panel.policies.begin(), panel.policies.end(),
                   [&](const auto& p) { return p.hash() == body.owner_policy_hash; });
  if (policy == panel.policies.end()) {
    return fail(Reason::kPolicyMismatch, "the ruling names a policy that the plan does not");
  }
  const auto who = eligible_reviewers(policy->body, panel.may_preview, panel.submission);
  const bool eligible = std::any_of(who.begin(), who.end(), [&](const auto& e) {
    return e.identity_id == by.reviewer.id() && e.key == by.key.text();
  });
  if (!eligible) return fail(Reason::kWrongRole, "not a reviewer of this output under this policy");
  const std::int64_t from = held_at(notice);
  if (body.time < from - kReviewerSkewSeconds || body.time > by.until + kReviewerSkewSeconds) {
    return fail(Reason::kBadValue, "time of the ruling")
        .with("from " + format_time(from) + " to " + format_time(by.until), format_time(body.time))
        .hint("set the reviewer's clock");
  }
  GBX_TRY(check_reasons(body));
  return ruling.verify(set_id, by.key);
}

}  // namespace gbx::policy
