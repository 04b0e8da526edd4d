#include "cli/review.h"

#include <algorithm>
#include <set>

#include "base/figures.h"
#include "base/printable.h"
#include "cli/wording.h"
#include "policy/decision.h"
#include "policy/rows.h"
#include "records/sealing.h"

namespace gbx::cli {

using records::RulingDecision;

namespace {

constexpr SecretAccess kAccess{};
constexpr std::size_t kShownLines = 60;  // on the screen, of one file
constexpr std::size_t kShownColumns = 120;

Error other_bytes(const char* what, const Hash32& expected, const Hash32& actual) {
  return fail(Reason::kBadHash, what)
      .with(to_hex(expected), to_hex(actual))
      .hint(
          "the plane served something else than the set holds: rule nothing, and tell the "
          "operator and the owners");
}

const records::OutputManifest& manifest(const ReviewInput& in) {
  return in.detail.run_statement.body.manifest;
}

// Job, consumer and plan are those of the output, each signed by whom it must be.
Status check_job(const ReviewInput& in) {
  const auto& d = in.detail;
  const auto& s = d.submission.submission;
  GBX_TRY(verify_job(in.set, in.job_id, d.submission, &d.plan));
  if (s.body.consumer_id == in.self) {
    return fail(Reason::kWrongRole, "nobody reviews an output of their own job")
        .hint("the owners' other reviewers decide: glovebox job wait " +
              to_hex(in.job_id).substr(0, 16) + " --through-hold");
  }
  return ok_status();
}

// The set's notice names this manifest, the manifest this plan, job and ciphertext.
Status check_notice(const ReviewInput& in) {
  const auto& notice = in.detail.review.hold_notice;
  GBX_TRY(notice.verify(in.set.set_id, in.set.signing));
  const Hash32 m = records::hash_of(manifest(in));
  if (notice.body.manifest != m) {
    return other_bytes("manifest of the hold notice", notice.body.manifest, m);
  }
  const auto& context = manifest(in).context;
  if (notice.body.ciphertext != context.ciphertext) {
    return other_bytes("ciphertext of the hold notice", notice.body.ciphertext, context.ciphertext);
  }
  if (context.job_id != in.job_id) {
    return other_bytes("job of the output", in.job_id, context.job_id);
  }
  if (context.plan_hash != in.detail.plan.hash()) {
    return other_bytes("plan of the output", context.plan_hash, in.detail.plan.hash());
  }
  const Hash32 held = crypto::sha256(in.detail.output.ciphertext);
  if (held != context.ciphertext) {
    return other_bytes("the output is not the one that is held", context.ciphertext, held);
  }
  if (in.now > notice.body.expires) {
    return fail(Reason::kExpired, "the hold")
        .with("a ruling before " + format_time(notice.body.expires), format_time(in.now))
        .hint("what nobody released in time is rejected; the consumer may submit the job again");
  }
  return ok_status();
}

// The set says what is spent, for this job, notice, reviewer and question.
Status check_ledger(const ReviewInput& in) {
  GBX_TRY(in.ledger.verify(in.set.set_id, in.set.signing));
  const auto& l = in.ledger.body;
  if (l.nonce != in.nonce) {
    return fail(Reason::kNonceMismatch, "what is said of the budgets answers another question")
        .with(to_hex(in.nonce), to_hex(l.nonce));
  }
  if (l.job_id != in.job_id) return other_bytes("job of the budgets", in.job_id, l.job_id);
  const Hash32 notice = in.detail.review.hold_notice.hash();
  if (l.hold_notice != notice) {
    return other_bytes("hold notice of the budgets", notice, l.hold_notice);
  }
  if (l.reviewer != in.self) {
    return fail(Reason::kWrongOwner, "what is said of the budgets is for another reviewer")
        .with(to_hex(in.self), to_hex(l.reviewer));
  }
  return ok_status();
}

Result<ReviewPolicy> check_policy(const ReviewInput& in, std::size_t i) {
  const auto& d = in.detail;
  const auto& named = d.plan.body.policies[i];
  const auto& signed_policy = d.policies[i];
  ReviewPolicy p;
  p.hash = signed_policy.hash();
  if (p.hash != named.policy_hash || d.review.hold_notice.body.policy_hashes[i] != p.hash) {
    return other_bytes("policy of the plan", named.policy_hash, p.hash);
  }
  const auto owner = std::find_if(d.owners.begin(), d.owners.end(),
                                  [&](const auto& o) { return o.id() == named.owner_id; });
  if (owner == d.owners.end()) return fail(Reason::kWrongOwner, "the owner of a policy is missing");
  GBX_TRY(policy::verify_asset(in.set.set_id, {*owner, d.versions[i], signed_policy, 0}));
  p.policy = signed_policy.body;
  p.budget = in.ledger.body.budgets[i];
  if (p.budget.policy_hash != p.hash) {
    return other_bytes("policy of the budgets", p.hash, p.budget.policy_hash);
  }
  p.asset = d.versions[i].body.name + "@" + std::to_string(d.versions[i].body.version);
  p.asks = policy::needs_rulings(p.policy, d.submission.submission.body);
  const auto who = policy::eligible_reviewers(p.policy, d.plan.body.may_preview, d.submission);
  p.reviewers = static_cast<std::int64_t>(who.size());
  const auto me =
      std::find_if(who.begin(), who.end(), [&](const auto& r) { return r.identity_id == in.self; });
  p.mine = p.asks && me != who.end() && me->key == in.self_key.text();
  std::set<std::pair<Hash32, RulingDecision>> counted;  // the plane may list one of them twice
  for (const auto& kept : d.rulings) {
    const auto& r = kept.ruling;
    const auto by = std::find_if(who.begin(), who.end(), [&](const auto& w) {
      return w.identity_id == kept.reviewer && w.key == r.key;
    });
    const auto key = crypto::PublicKey::from_text(r.key);
    // What does not hold counts for nothing: the broker has taken no such ruling.
    if (by == who.end() || !key.ok() || r.body.owner_policy_hash != p.hash ||
        r.body.hold_notice != d.review.hold_notice.hash() || !r.verify(in.set.set_id, *key).ok()) {
      continue;
    }
    if (kept.reviewer == in.self) p.own = kept;
    if (!kept.taken || !counted.emplace(kept.reviewer, r.body.decision).second) continue;
    ++(r.body.decision == RulingDecision::kApprove ? p.approved : p.declined);
  }
  return p;
}

// Owners may follow a rotation at different times: the reviewer has a place for each of the keys
// that they name, and rules by the one that signs today.
Status check_reviewer(const ReviewInput& in, CheckedReview& out) {
  const auto& reviewers = in.detail.plan.body.reviewers;
  bool named = false;
  for (std::size_t i = 0; i < reviewers.size(); ++i) {
    if (reviewers[i].identity_id != in.self) continue;
    out.places.push_back(i);
    named = named || reviewers[i].key == in.self_key.text();
  }
  if (out.places.empty()) {
    return fail(Reason::kWrongRole, "you are no reviewer of this output")
        .hint("the policies that held for the job name its reviewers; ask the owner");
  }
  if (!named) {
    return fail(Reason::kWrongRole, "the owner's policy names another key of yours")
        .with(reviewers[out.places[0]].key, in.self_key.text())
        .hint("after a rotation the owner has to name the new key in a new policy, for later jobs");
  }
  if (in.detail.preview_keys.size() != out.places.size()) {
    return fail(Reason::kPlanMismatch, "keys of your previews")
        .with(std::to_string(out.places.size()), std::to_string(in.detail.preview_keys.size()));
  }
  return ok_status();
}

}  // namespace

Result<CheckedReview> check_review(const ReviewInput& in) {
  GBX_TRY(check_job(in));
  GBX_TRY(check_notice(in));
  CheckedReview out;
  GBX_TRY(check_reviewer(in, out));
  const auto& d = in.detail;
  const std::size_t n = d.plan.body.policies.size();
  GBX_TRY(check_ledger(in));
  if (d.policies.size() != n || d.versions.size() != n ||
      d.review.hold_notice.body.policy_hashes.size() != n || in.ledger.body.budgets.size() != n) {
    return fail(Reason::kPlanMismatch, "policies of the plan")
        .with(std::to_string(n), std::to_string(d.policies.size()));
  }
  const auto& context = manifest(in).context;
  const auto& submission = d.submission.submission.body;
  out.verified_bits = context.verdict.charge.verified_bits;
  std::set<std::string> reasons = policy::hold_reasons(submission, context.verdict);
  for (std::size_t i = 0; i < n; ++i) {
    GBX_ASSIGN(ReviewPolicy p, check_policy(in, i));
    const std::int64_t bits = p.budget.release_free_bits;
    reasons.merge(policy::hold_reasons(p.policy, context.verdict, bits));
    const policy::Spent spent{p.budget.period_free_bits, p.budget.total_free_bits};
    if (!policy::within_budget(spent, p.policy.clauses.gate, bits).ok()) {
      reasons.insert(policy::reason::kBudget);
    }
    out.policies.push_back(std::move(p));
  }
  // It was held, so something was spent then that is not told: a job that was cancelled since, or
  // bits that are reserved until another job's decision.
  if (reasons.empty()) reasons.insert(policy::reason::kBudget);
  out.reasons = {reasons.begin(), reasons.end()};
  return out;
}

Result<OpenedReview> open_review(const ReviewInput& in, const crypto::HpkeKeyPair& own) {
  OpenedReview out;
  GBX_ASSIGN(out.checked, check_review(in));
  const auto& places = out.checked.places;
  const auto& reviewers = in.detail.plan.body.reviewers;
  const auto mine = std::find_if(places.begin(), places.end(), [&](std::size_t place) {
    return reviewers[place].hpke == own.public_key().text();
  });
  if (mine == places.end()) {
    return fail(Reason::kWrongRecipient, "the preview is sealed to another key of yours")
        .with(reviewers[places[0]].hpke, own.public_key().text())
        .hint("use the home whose result key the owner's policy names");
  }
  const auto& key = in.detail.preview_keys[static_cast<std::size_t>(mine - places.begin())];
  GBX_ASSIGN(records::Preview preview,
             records::open_preview(own, *mine, manifest(in), in.detail.output,
                                   records::hash_of(in.detail.review.hold_notice.body), key));
  GBX_ASSIGN(out.content, take_bundle(manifest(in).context,
                                      in.detail.submission.submission.body.spec.spec.outputs,
                                      preview.bundle.view(kAccess)));
  out.review = std::move(preview.review);
  return out;
}

records::Ruling make_ruling(const ReviewInput& in, const Hash32& policy, const RulingChoice& how) {
  const auto& notice = in.detail.review.hold_notice;
  records::Ruling r;
  r.hold_notice = notice.hash();
  r.manifest = notice.body.manifest;
  r.ciphertext = notice.body.ciphertext;
  r.owner_policy_hash = policy;
  r.decision = how.decision;
  r.reasons = how.reasons;
  // A broker whose clock was set forward stays ahead; no ruling is older than the notice it names.
  r.time = std::max(in.now, policy::held_at(notice.body));
  return r;
}

namespace {

std::string words(const std::vector<std::string>& list, const char* between) {
  std::string out;
  for (const auto& w : list) out += (out.empty() ? "" : between) + printable_whole(w);
  return out;
}

// All of it, each word with its borders: what somebody else lets loose on the data.
std::string command_line(const records::SpecBody& spec) {
  std::string out;
  for (const auto* list : {&spec.command, &spec.args}) {
    for (const auto& w : *list) out += (out.empty() ? "" : " ") + shell_word(printable_whole(w));
  }
  return out;
}

std::string_view type_of(const ReviewInput& in, const std::string& path) {
  for (const auto& o : in.detail.submission.submission.body.spec.spec.outputs) {
    if (o.path == path) return enum_name(o.type);
  }
  return "log";
}

// What fits in one line of the screen, up to the end of a character.
std::size_t piece_of(std::string_view line) {
  if (line.size() <= kShownColumns) return line.size();
  std::size_t end = kShownColumns;
  for (int i = 0; i < 3 && (static_cast<unsigned char>(line[end]) & 0xC0) == 0x80; ++i) --end;
  return end;
}

// Lines of a file behind a mark of ours, escaped: so that none passes for a line of this program. A
// long one goes on behind another mark. Whatever is not shown is counted.
std::string rendered(const Bytes& content) {
  std::string out;
  std::string_view rest = as_text(content);
  bool goes_on = false;
  for (std::size_t n = 0; !rest.empty(); ++n) {
    if (n == kShownLines) {
      return out + "  … " + counted(static_cast<std::int64_t>(rest.size()), "more byte") +
             ": --out DIR writes the whole files\n";
    }
    const std::size_t line = std::min(rest.find('\n'), rest.size());
    const std::size_t end = piece_of(rest.substr(0, line));
    // An escaped byte takes four places.
    out += (goes_on ? "  + " : "  | ") + printable(rest.substr(0, end), 4 * kShownColumns) + "\n";
    goes_on = end < line;
    rest.remove_prefix(goes_on ? end : std::min(end + 1, rest.size()));
  }
  return out;
}

std::string files_text(const ReviewInput& in, const Delivered& content) {
  std::string o;
  const auto add = [&](const std::string& path, const Bytes& bytes) {
    const std::string_view type = type_of(in, path);
    o += "\nfile " + printable(path) + " (" + std::string(type) + ", " +
         std::to_string(bytes.size()) + " bytes)\n";
    o += type == "opaque" ? "  not shown: opaque bytes can hold anything; --out DIR writes them\n"
                          : rendered(bytes);
  };
  for (const auto& f : content.files) add(f.path, f.content);
  if (content.log) add("log", *content.log);
  if (content.files.empty()) o += "\nno outputs: the run delivered none\n";
  return o;
}

std::string in_rows(std::int64_t bits, const std::optional<std::int64_t>& row_bits) {
  const std::string rows = policy::equivalent_rows(bits, row_bits);
  return rows.empty() ? "" : " (" + rows + ")";
}
std::string bits_text(std::int64_t bits, const std::optional<std::int64_t>& row_bits) {
  return counted(bits, "free bit") + in_rows(bits, row_bits);
}

// One budget before and after a release, and whether it is kept.
std::string budget_line(const ReviewPolicy& p, const std::string& whose, std::int64_t spent,
                        std::int64_t limit) {
  const auto& row_bits = p.policy.clauses.row_bits;
  const std::int64_t after = spent + p.budget.release_free_bits;
  return "          spent " + whose + ": " + grouped(spent) + in_rows(spent, row_bits) + " now, " +
         grouped(after) + in_rows(after, row_bits) + " after a release, of " + grouped(limit) +
         in_rows(limit, row_bits) + " free bits" +
         (after > limit ? "; MORE THAN THE BUDGET by " + bits_text(after - limit, row_bits) : "") +
         "\n";
}

std::string policies_text(const CheckedReview& c) {
  std::string o;
  for (const auto& p : c.policies) {
    const auto& gate = p.policy.clauses.gate;
    const auto& row_bits = p.policy.clauses.row_bits;
    o += "policy    " + to_hex(p.hash).substr(0, 16) + " for " + printable(p.asset) + " of owner " +
         to_hex(p.policy.owner_id).substr(0, 16) + "\n";
    o += "          released without a person up to " +
         bits_text(gate.auto_clear_free_bits, row_bits) + "\n";
    o += "          a release costs " + bits_text(p.budget.release_free_bits, row_bits) + "\n";
    o += budget_line(p, "by this consumer in " + std::to_string(gate.period_days) + " days",
                     p.budget.period_free_bits, gate.period_free_bits);
    o +=
        budget_line(p, "by all consumers for ever", p.budget.total_free_bits, gate.total_free_bits);
    if (!p.asks) {
      o += "          asks nobody: its owner is the consumer\n";
      continue;
    }
    o += "          " + std::to_string(p.approved) + " of " +
         std::to_string(p.policy.clauses.reviewers_needed) + " approvals, " +
         std::to_string(p.declined) + " against, " + std::to_string(p.reviewers) + " may rule" +
         (p.own ? "; you: " + std::string(enum_name(p.own->ruling.body.decision)) +
                      (p.own->taken ? "" : " (not answered yet: send it again)")
          : p.mine ? "; you may"
                   : "; not you") +
         "\n";
  }
  return o;
}

}  // namespace

std::string review_text(const ReviewInput& in, const OpenedReview& r) {
  const auto& s = in.detail.submission.submission.body;
  const auto& notice = in.detail.review.hold_notice.body;
  const auto& context = manifest(in).context;
  std::string o = "job       " + to_hex(in.job_id) + "\noutput    " + to_hex(notice.manifest) +
                  "\nname      " + printable(s.spec.metadata.name) + "\nconsumer  " +
                  to_hex(s.consumer_id) + "\npurpose   " + printable_whole(s.spec.spec.purpose) +
                  "\nimage     " + printable_whole(s.image_digest) + "\ncommand   " +
                  command_line(s.spec.spec) + "\n";
  for (const auto& [name, value] : s.spec.spec.env) {
    o += "variable  " + printable_whole(name) + "=" + shell_word(printable_whole(value)) + "\n";
  }
  o += "held      " + words(r.checked.reasons, ", ") + "; until " + format_time(notice.expires) +
       "\nrun       ended " + std::string(enum_name(context.verdict.exit_class)) + ", attempt " +
       std::to_string(context.attempt) + "\nverified  " + std::to_string(r.checked.verified_bits) +
       " bits that trusted code computed again\n";
  o += policies_text(r.checked);
  o += "score     " + std::to_string(r.review.score) + " of 100";
  for (const auto& why : r.review.score_reasons) {
    o += ", " + printable(why.reason) + " " + std::to_string(why.points);
  }
  o += "\n";
  for (const auto& f : r.review.findings) {
    const bool says =
        f.status == records::AnalyserStatus::kFail || f.status == records::AnalyserStatus::kError;
    if (!says) continue;
    o += "finding   " + printable(f.rule) + ": " + std::string(enum_name(f.status)) + " " +
         printable(f.reason) + (f.refs.empty() ? "" : " at " + words(f.refs, ", ")) + "\n";
  }
  return o + files_text(in, r.content);
}

namespace {

Json budget_json(const ReviewPolicy& p) {
  const auto& gate = p.policy.clauses.gate;
  const std::int64_t more = p.budget.release_free_bits;
  const auto of = [&](std::int64_t spent, std::int64_t limit) {
    Json j;
    j["before"] = spent;
    j["after"] = spent + more;
    j["limit"] = limit;
    j["rowsAfter"] = policy::equivalent_rows(spent + more, p.policy.clauses.row_bits);
    return j;
  };
  Json j;
  j["release"] = more;
  j["releaseRows"] = policy::equivalent_rows(more, p.policy.clauses.row_bits);
  j["period"] = of(p.budget.period_free_bits, gate.period_free_bits);
  j["total"] = of(p.budget.total_free_bits, gate.total_free_bits);
  return j;
}

}  // namespace

Json review_json(const ReviewInput& in, const OpenedReview& r) {
  const auto& s = in.detail.submission.submission.body;
  Json j;
  j["jobId"] = to_hex(in.job_id);
  j["manifest"] = to_hex(in.detail.review.hold_notice.body.manifest);
  j["name"] = s.spec.metadata.name;
  j["consumerId"] = to_hex(s.consumer_id);
  j["purpose"] = s.spec.spec.purpose;
  j["imageDigest"] = s.image_digest;
  j["command"] = to_json(s.spec.spec.command);
  j["args"] = to_json(s.spec.spec.args);
  j["env"] = to_json(s.spec.spec.env);
  j["reasons"] = to_json(r.checked.reasons);
  j["expires"] = in.detail.review.hold_notice.body.expires;
  j["verdict"] = to_json(manifest(in).context.verdict);
  j["verifiedBits"] = r.checked.verified_bits;
  JsonArray policies;
  for (const auto& p : r.checked.policies) {
    Json one;
    one["policyHash"] = to_hex(p.hash);
    one["asset"] = p.asset;
    one["ownerId"] = to_hex(p.policy.owner_id);
    one["gate"] = to_json(p.policy.clauses.gate);
    one["budget"] = budget_json(p);
    one["needed"] = p.policy.clauses.reviewers_needed;
    one["reviewers"] = p.reviewers;
    one["approved"] = p.approved;
    one["declined"] = p.declined;
    one["asks"] = p.asks;
    one["mine"] = p.mine;
    one["ruled"] = p.own ? std::string(enum_name(p.own->ruling.body.decision)) : std::string();
    policies.push_back(std::move(one));
  }
  j["policies"] = Json(std::move(policies));
  j["review"] = to_json(r.review);
  JsonArray files;
  for (const auto& f : r.content.files) {
    Json one;
    one["path"] = f.path;
    one["type"] = std::string(type_of(in, f.path));
    one["bytes"] = static_cast<std::int64_t>(f.content.size());
    one["sha256"] = to_hex(crypto::sha256(f.content));
    files.push_back(std::move(one));
  }
  j["files"] = Json(std::move(files));
  return j;
}

}  // namespace gbx::cli
