// review
#include <algorithm>

#include "base/figures.h"
#include "base/log.h"
#include "cli/catalogue.h"
#include "cli/commands.h"
#include "cli/review.h"
#include "cli/shown.h"
#include "cli/wording.h"
#include "policy/decision.h"
#include "policy/rows.h"

namespace gbx::cli {

using records::RulingDecision;

namespace {

constexpr std::size_t kMostReviews = 2000;

// Whether the user is still to rule on it: a closed word, for programs.
const char* stand_of(const api::ReviewView& v) {
  const auto any = [&](auto is) { return std::any_of(v.policies.begin(), v.policies.end(), is); };
  if (any([](const auto& p) { return p.mine && !p.ruled; })) return "asked";
  return any([](const auto& p) { return p.ruled; }) ? "ruled" : "not-asked";
}

Json review_item(const api::ReviewView& v, std::int64_t now) {
  Json j = to_json(v);
  const std::int64_t expires = v.hold_notice.body.expires;
  j["expires"] = expires;
  j["secondsLeft"] = std::max<std::int64_t>(0, expires - now);
  j["you"] = stand_of(v);
  return j;
}

// For people. What is said of each policy stands in one order in every column.
Json review_row(const api::ReviewView& v, std::int64_t now) {
  std::vector<std::string> owners;
  std::vector<std::string> rows;
  std::vector<std::string> rulings;
  for (const auto& p : v.policies) {
    owners.push_back(short_id(p.owner_id));
    const std::string r = policy::equivalent_rows(v.free_bits, p.row_bits);
    rows.push_back(r.empty() ? "-" : r);
    rulings.push_back(grouped(p.approved) + " of " + grouped(p.needed));
  }
  const std::string_view stand = stand_of(v);
  const std::int64_t left = v.hold_notice.body.expires - now;
  Json j;
  j["job"] = short_id(v.job_id);
  j["name"] = printable(v.name);
  j["owners"] = joined(owners, "; ");
  j["why"] = printable(joined(v.reasons, ", "), 400);
  j["bits"] = grouped(v.free_bits);
  j["rows"] = joined(rows, "; ");
  j["left"] = left > 0 ? rough_time(left) : "over";
  j["rulings"] = joined(rulings, "; ");
  j["you"] = stand == "asked" ? "waits for you" : stand == "ruled" ? "you ruled" : "not you";
  return j;
}

// What does not hold is named, and takes nothing of the rest away.
Status review_list(Session& s, const Invocation&) {
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(records::SetChain::Keys set, s.set());
  GBX_ASSIGN(std::vector<api::ReviewView> reviews, plane->reviews(kMostReviews));
  JsonArray items;
  JsonArray refused;
  JsonArray shown;
  std::string bad;
  Status end = ok_status();
  for (const auto& v : reviews) {
    const Status holds = v.hold_notice.verify(set.set_id, set.signing);
    if (holds.ok()) {
      items.push_back(review_item(v, s.now()));
      shown.push_back(review_row(v, s.now()));
      continue;
    }
    Error why = holds.error();
    why.at("the hold notice of job " + short_id(v.job_id));
    Json one;
    one["jobId"] = to_hex(v.job_id);
    one["reason"] = reason_code(why.reason);
    one["what"] = printable(why.what, 2000);
    refused.push_back(std::move(one));
    bad += "\nNOT SHOWN: job " + short_id(v.job_id) + ": " + printable(why.line(), 2000) + "\n";
    if (end.ok()) end = why;
  }
  Json j;
  j["items"] = Json(std::move(items));
  j["refused"] = Json(std::move(refused));
  const std::vector<Column> columns{
      {"JOB", "job"},      {"NAME", "name"},        {"OWNERS", "owners"},
      {"HELD FOR", "why"}, {"FREE BITS", "bits"},   {"AS MUCH AS", "rows"},
      {"LEFT", "left"},    {"APPROVED", "rulings"}, {"YOU", "you"}};
  const bool none = shown.empty() && !bad.empty();  // which is not to say that nothing waits
  s.print(j, none ? bad.substr(1) : table(columns, shown, "nothing waits for you") + bad);
  return end;
}

Result<ShownOutputs> shown_to(Session& s) {
  GBX_ASSIGN(Context * context, s.context());
  GBX_ASSIGN(Keys * keys, s.keys());
  return ShownOutputs(s.home(), context->set_id, keys->id);
}

ShownOutput shown_now(const ReviewInput& in) {
  const auto& notice = in.detail.review.hold_notice.body;
  return {in.job_id, notice.manifest, notice.expires};
}

// Where a beginning of an id is looked for: in the plane's list, for what is then shown whole; in
// what this home has shown, for what is ruled on unseen. Consumers make ids that begin alike, and
// the plane may list another of them than it listed for `review show`.
enum class Among { kWaiting, kShown };

// Whole, or the beginning of one.
Result<Hash32> resolve_review(Session& s, const std::string& text, Among among) {
  if (text.size() == 64) {
    const auto id = fixed_from_hex<32>(text);
    if (id.ok()) return id;
  }
  const bool hex = text.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!hex || text.size() < 4 || text.size() > 63) {
    return fail(Reason::kUsage, "job id")
        .with("4 to 64 hex digits, a to f in small letters", printable(text, 80))
        .hint("glovebox review list");
  }
  if (among == Among::kShown) {
    GBX_ASSIGN(const ShownOutputs memory, shown_to(s));
    GBX_ASSIGN(const std::vector<ShownOutput> shown, memory.all(s.now()));
    return choose_shown(text, shown);
  }
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(std::vector<api::ReviewView> reviews, plane->reviews(kMostReviews));
  std::vector<Hash32> ids;
  for (const auto& r : reviews) ids.push_back(r.job_id);
  return choose_id(text, ids, "held output", "glovebox review list");
}

// The plane says of nobody's job whose it is; one's own job is one's own to know.
Error refused(Session& s, const Hash32& id, Error e) {
  if (e.reason != Reason::kNotFound) return e;
  const auto plane = s.plane();
  const auto keys = s.keys();
  if (!plane.ok() || !keys.ok()) return e;
  const auto job = (*plane)->job(id);
  if (!job.ok() || job->consumer_id != (*keys)->id) return e;
  return fail(Reason::kWrongRole, "nobody reviews an output of their own job")
      .hint("the owners' other reviewers decide: glovebox job wait " + short_id(id) +
            " --through-hold");
}

struct Desk {
  ReviewInput in;
  OpenedReview opened;
};
// Fetches, checks and opens: whatever follows is about these bytes.
Result<Desk> open_desk(Session& s, const Invocation& invocation, Among among) {
  GBX_ASSIGN(Keys * keys, s.keys());
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(records::SetChain::Keys set, s.set());
  auto id = resolve_review(s, invocation.text("job"), among);
  if (!id.ok()) return id.error();
  auto detail = plane->review(*id);
  if (!detail.ok()) return refused(s, *id, detail.error());
  const Nonce32 nonce = s.random().fixed<32>();
  auto ledger = plane->review_ledger(*id, nonce);
  if (!ledger.ok()) return ledger.error().at("what is spent already");
  Desk d{{std::move(set), *id, keys->id, keys->signing->public_key(), std::move(*detail), nonce,
          std::move(*ledger), s.now()},
         {}};
  GBX_ASSIGN(const crypto::HpkeKeyPair own, s.result_key(false));
  GBX_ASSIGN(d.opened, open_review(d.in, own));
  return d;
}

Status review_show(Session& s, const Invocation& in) {
  if (in.has("force") && !in.has("out")) {
    return fail(Reason::kUsage, "--force")
        .with("--out DIR, whose files it lets replace", "no --out");
  }
  GBX_ASSIGN(const Desk d, open_desk(s, in, Among::kWaiting));
  Json j = review_json(d.in, d.opened);
  std::string text = review_text(d.in, d.opened);
  if (in.has("out")) {
    GBX_TRY(write_files(in.text("out"), d.opened.content, in.has("force")));
    j["out"] = in.text("out");
    text += "\nwrote " + printable(in.text("out"), 500) + "\n";
  }
  GBX_ASSIGN(const ShownOutputs memory, shown_to(s));
  GBX_TRY(memory.add(shown_now(d.in), s.now()));
  const std::string id = to_hex(d.in.job_id);
  s.print(j, text + "\nNext: glovebox review approve " + id + "\n   or glovebox review reject " +
                 id + "\n   or glovebox review request-changes " + id + " --reason CODE\n");
  return ok_status();
}

// The policies to rule under: those that ask this reviewer, and of one owner where that was said.
Result<std::vector<const ReviewPolicy*>> under(const Desk& d, const Invocation& in) {
  const std::string owner = in.text("owner");
  if (in.has("owner") && owner.size() < 4) {
    return fail(Reason::kUsage, "--owner").with("at least 4 digits of an identity", owner);
  }
  std::vector<const ReviewPolicy*> out;
  for (const auto& p : d.opened.checked.policies) {
    const bool chosen = to_hex(p.policy.owner_id).rfind(owner, 0) == 0;
    if (p.mine && chosen) out.push_back(&p);
  }
  for (const auto* p : out) {
    if (p->policy.owner_id == out[0]->policy.owner_id || !in.has("owner")) continue;
    return fail(Reason::kConflict, "several owners' ids begin with " + owner)
        .hint("write more digits");
  }
  if (!out.empty()) return out;
  return fail(Reason::kWrongRole, in.has("owner") ? "no policy of this owner asks you"
                                                  : "no policy of this job asks you")
      .hint("glovebox review show " + short_id(d.in.job_id) + " says who may rule");
}

// What was sent before is sent again as it was, for its answer may have been lost; another decision
// is for the broker to refuse, if it has one.
Result<std::optional<records::Signed<records::Ruling>>> next_ruling(const Desk& d, const Keys& keys,
                                                                    const ReviewPolicy& p,
                                                                    const RulingChoice& how) {
  using Signed = std::optional<records::Signed<records::Ruling>>;
  const bool same = p.own && p.own->ruling.body.decision == how.decision &&
                    p.own->ruling.body.reasons == how.reasons;
  if (p.own && p.own->taken && !same) {
    return fail(Reason::kConflict, "you have ruled already under the policy of " + p.asset)
        .with(std::string(enum_name(p.own->ruling.body.decision)),
              std::string(enum_name(how.decision)))
        .hint("a ruling stands; glovebox review show " + short_id(d.in.job_id));
  }
  if (same && p.own->taken) return Signed();
  if (same) return Signed(p.own->ruling);
  GBX_ASSIGN(auto fresh,
             records::sign(d.in.set.set_id, make_ruling(d.in, p.hash, how), *keys.signing));
  return Signed(std::move(fresh));
}

std::string after_ruling(const records::Judgement& j) {
  switch (j.state) {
    case records::JudgementState::kReleased:
      return "released: the consumer can fetch it";
    case records::JudgementState::kRejected:
      return "rejected";
    case records::JudgementState::kPending:
      return "decided; it takes effect at " + format_time(j.decide_at);
    case records::JudgementState::kHeld:
    case records::JudgementState::kNone:
      break;
  }
  return "held still: more rulings are needed\nNext: glovebox review list";
}

// That it is held still, or when it takes effect, is the plane's word; what was decided is the
// set's.
Status check_answer(const ReviewInput& in, const records::Judgement& j) {
  const bool released = j.state == records::JudgementState::kReleased;
  const bool decided = released || j.state == records::JudgementState::kRejected;
  if (decided != j.release.has_value()) {
    return fail(Reason::kBadStructure, "answer to the ruling")
        .with("a signed decision, or none", std::string(enum_name(j.state)));
  }
  if (!decided) return ok_status();
  const auto& r = j.release->statement;
  GBX_TRY(r.verify(in.set.set_id, in.set.signing));
  const bool same = (r.body.decision == records::ReleaseDecision::kRelease) == released;
  if (r.body.job_id == in.job_id && same) return ok_status();
  return fail(Reason::kBadHash, "the plane answers with another decision")
      .with(to_hex(in.job_id) + " " + std::string(enum_name(j.state)),
            to_hex(r.body.job_id) + " " + std::string(enum_name(r.body.decision)))
      .hint("the ruling was sent; glovebox review list");
}

// On a terminal, below the output itself.
Status ask_first(Session& s, const Desk& d, const std::string& verb, std::size_t policies) {
  s.note(review_text(d.in, d.opened));
  auto sure = s.confirm(verb + " this output under " + std::to_string(policies) +
                        (policies == 1 ? " policy?" : " policies?"));
  if (!sure.ok()) {
    return sure.error().hint("look at it first: glovebox review show " + short_id(d.in.job_id) +
                             "; then add --yes");
  }
  return *sure ? ok_status() : Status(fail(Reason::kUsage, "nothing was ruled"));
}

Status rule(Session& s, const Invocation& in, const RulingChoice& how) {
  const bool unseen = in.has("yes");
  GBX_ASSIGN(const Desk d, open_desk(s, in, unseen ? Among::kShown : Among::kWaiting));
  GBX_ASSIGN(const ShownOutputs memory, shown_to(s));
  GBX_ASSIGN(const std::vector<ShownOutput> shown, memory.all(s.now()));
  GBX_TRY(check_shown(shown_now(d.in), shown));
  GBX_ASSIGN(Keys * keys, s.keys());
  GBX_ASSIGN(const auto policies, under(d, in));
  const std::string verb(enum_name(how.decision));
  if (!unseen) GBX_TRY(ask_first(s, d, verb, policies.size()));
  GBX_ASSIGN(Plane * plane, s.plane());
  records::Judgement last;
  last.state = records::JudgementState::kHeld;
  std::int64_t sent = 0;
  for (const ReviewPolicy* p : policies) {
    GBX_ASSIGN(auto ruling, next_ruling(d, *keys, *p, how));
    if (!ruling) continue;
    GBX_ASSIGN(last, plane->rule(d.in.job_id, {keys->file.chain, *ruling}));
    GBX_TRY(check_answer(d.in, last));
    ++sent;
    // The first ruling against may have decided; so may the last one for.
    if (last.state != records::JudgementState::kHeld) break;
  }
  Json j;
  const Hash32 manifest = shown_now(d.in).manifest;
  j["jobId"] = to_hex(d.in.job_id);
  j["manifest"] = to_hex(manifest);
  j["decision"] = verb;
  j["rulings"] = sent;
  j["state"] = std::string(enum_name(last.state));
  if (last.state == records::JudgementState::kPending) j["decideAt"] = last.decide_at;
  s.print(j, verb + ": " + std::to_string(sent) + (sent == 1 ? " ruling" : " rulings") +
                 " signed and taken\n  job     " + to_hex(d.in.job_id) + "\n  output  " +
                 to_hex(manifest) + "\n" + (sent == 0 ? "you had ruled so already\n" : "") +
                 after_ruling(last) + "\n");
  return ok_status();
}

// Of the closed list, each once, in its order.
Result<std::vector<std::string>> reasons_of(const Invocation& in) {
  std::vector<std::string> out;
  const auto& given = in.list("reason");
  for (const auto& known : policy::review_reasons()) {
    if (std::count(given.begin(), given.end(), known.code) > 0) out.emplace_back(known.code);
  }
  if (static_cast<std::int64_t>(out.size()) > policy::kMaxRulingReasons) {
    return fail(Reason::kUsage, "--reason")
        .with("at most " + std::to_string(policy::kMaxRulingReasons) + " codes",
              std::to_string(out.size()))
        .hint("name what matters most; the owner can tell the consumer more");
  }
  return out;
}

Status review_approve(Session& s, const Invocation& in) {
  return rule(s, in, {RulingDecision::kApprove, {}});
}
Status review_reject(Session& s, const Invocation& in) {
  GBX_ASSIGN(std::vector<std::string> reasons, reasons_of(in));
  return rule(s, in, {RulingDecision::kReject, std::move(reasons)});
}
Status review_request_changes(Session& s, const Invocation& in) {
  GBX_ASSIGN(std::vector<std::string> reasons, reasons_of(in));
  return rule(s, in, {RulingDecision::kRequestChanges, std::move(reasons)});
}

std::string reason_details() {
  std::string o =
      "The consumer reads the codes when the job ends, and each costs the budgets 4 bits. Free "
      "text reaches no consumer: what else there is to say goes through the owner.";
  for (const auto& r : policy::review_reasons()) {
    o += "\n\n" + std::string(r.code) + ": " + r.meaning;
  }
  return o;
}

}  // namespace

void add_reviews(CommandTree& t) {
  const Argument job = positional("job", "job id, or its first 4 or more digits");
  const Argument ruled = positional(
      "job", "job id, or its first 4 or more digits; with --yes, of one that you were shown");
  const Argument yes = flag("yes", "do not ask");
  const Argument owner =
      option("owner", "ID", "only under policies of this owner, by 4 or more digits");
  Argument reason = many(option("reason", "CODE", "why, from the closed list", ArgKind::kChoice));
  for (const auto& r : policy::review_reasons()) reason.choices.emplace_back(r.code);
  t.add({"review", "rule on outputs that wait for a person", "", {}, {}, {}, {}, {}});
  t.add("review", {"list",
                   "outputs that wait for your ruling, the oldest first",
                   "Why each is held, what a release would cost each owner, and how many approved "
                   "already. The plane counts; `review show` checks.",
                   {},
                   {},
                   {},
                   review_list,
                   {}});
  t.add("review",
        {"show",
         "open one output with your key and print it",
         "Checks the set's notice, the job, the plan and the policies, opens the very bytes that a "
         "release would hand out, and prints what they are, what the gate found and what they "
         "cost. Text of the output is escaped: no line of it can pass for one of this program.",
         {job},
         {option("out", "DIR", "also write the files here", ArgKind::kDirectory),
          flag("force", "replace files that are there")},
         {{"glovebox review show 3f9a --out look", "look at the files with your own tools"}},
         review_show,
         {}});
  const std::string opens =
      "Fetches, checks and opens the output first, as `review show` does, and signs over these "
      "very "
      "bytes: what does not hold is not ruled on, nor other bytes than `review show` opened on "
      "this machine. With --yes nothing is shown: then the job is one that `review show` opened "
      "here, or its whole id is given. One ruling is signed for each policy that names you. A "
      "ruling stands.";
  t.add("review", {"approve",
                   "sign that these bytes may be released",
                   opens,
                   {ruled},
                   {owner, yes},
                   {},
                   review_approve,
                   {}});
  t.add("review", {"reject",
                   "sign that these bytes must not be released",
                   opens + "\n\n" + reason_details(),
                   {ruled},
                   {reason, owner, yes},
                   {},
                   review_reject,
                   {}});
  t.add("review",
        {"request-changes",
         "reject, and tell the consumer what to change",
         "The job ends as with `review reject`, and the consumer reads the codes: a changed study "
         "is a new job.\n\n" +
             opens + "\n\n" + reason_details(),
         {ruled},
         {required(reason), owner, yes},
         {{"glovebox review request-changes 3f9a --reason small-cells", "ask for larger cells"}},
         review_request_changes,
         {}});
}

}  // namespace gbx::cli
