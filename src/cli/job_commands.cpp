// job
#include <algorithm>

#include "base/figures.h"
#include "base/log.h"
#include "base/os.h"
#include "base/schema.h"
#include "cli/catalogue.h"
#include "cli/commands.h"
#include "cli/delivery.h"
#include "cli/submission.h"
#include "cli/texts.h"
#include "cli/watch.h"
#include "cli/wording.h"
#include "gate/recipe.h"
#include "policy/decision.h"

namespace gbx::cli {

namespace {

std::string bits_text(const records::PlanCharge& c) {
  std::string o = std::to_string(c.free_bits) + " free bits";
  if (c.verified_bits > 0) o += " and " + std::to_string(c.verified_bits) + " verified bits";
  return o;
}

constexpr std::size_t kMaxIdempotencyKey = 128;

Json job_json(const api::JobView& v) {
  Json j = to_json(v);
  j["phase"] = phase_text(v);
  j["created"] = format_time(v.created_ms / 1000);
  j["updated"] = format_time(v.updated_ms / 1000);
  return j;
}
std::string job_text(const api::JobView& v) {
  std::string o = "job       " + to_hex(v.job_id) + "\nname      " + printable(v.name) +
                  "\nphase     " + phase_text(v) + "\n";
  o += "created   " + format_time(v.created_ms / 1000) + "\nupdated   " +
       format_time(v.updated_ms / 1000) + "\n";
  for (const auto& e : v.environments) {
    o += "attempt " + std::to_string(e.attempt) + " " + printable(e.state) + " on " +
         (e.node.empty() ? "-" : printable(e.node));
    const std::string detail = without_code(e.reason, e.detail);
    if (!e.reason.empty()) {
      o += ", " + printable(e.reason) + (detail.empty() ? "" : ": " + printable(detail));
    }
    if (e.destroyed_claim) o += ", the node claims that it is destroyed";
    o += "\n";
  }
  if (v.output && v.output->decide_at > 0 && !v.ended) {
    o += held(v) ? "decision  by reviewers; rejected if they release nothing by " : "decision  at ";
    o += format_time(v.output->decide_at) + "\n";
  }
  if (!v.outcome.reason.empty()) {
    const std::string what = without_code(v.outcome.reason, v.outcome.what);
    o += "reason    " + printable(v.outcome.reason) + ": " + printable(what, 1000) + "\n";
    if (!v.outcome.expected.empty()) o += "expected  " + printable(v.outcome.expected, 1000) + "\n";
    if (!v.outcome.actual.empty()) o += "actual    " + printable(v.outcome.actual, 1000) + "\n";
    if (!v.outcome.next.empty()) o += "next      " + printable(v.outcome.next, 1000) + "\n";
  }
  return o;
}

Status job_validate(Session& s, const Invocation& in) {
  GBX_ASSIGN(records::JobSpec spec, read_job_spec(in.text("file")));
  const Hash32 hash = crypto::sha256(as_bytes(canonical(to_json(spec))));
  Json j;
  j["valid"] = true;
  j["name"] = spec.metadata.name;
  j["specHash"] = to_hex(hash);
  s.print(j, "valid: " + spec.metadata.name + " (spec hash " + to_hex(hash).substr(0, 16) + "…)\n");
  return ok_status();
}

Status job_schema(Session& s, const Invocation&) {
  const Json schema = job_spec_schema();
  s.print(schema, pretty(schema));
  return ok_status();
}

std::string platform_line(const records::PlatformRule& t) {
  const std::string root = t.root.empty() ? "" : " " + printable(t.root);
  if (t.technology == records::Technology::kNone) {
    return "where     NO TEE," + root + ": whoever runs that node can read everything\n";
  }
  if (t.technology == records::Technology::kSim) {
    return "where     SIMULATED TEE," + root + ": whoever runs that machine can read everything\n";
  }
  return "where     " + std::string(enum_name(t.technology)) + root + "\n";
}

// Allowed lines that say something: `placement` of what waits for a node, `clearance` of what will
// not be released without a person.
bool is_clearance(const records::PlanCheck& c) { return c.allowed && c.check == "clearance"; }
bool would_be_rejected(const records::Explanation& e) {
  return std::any_of(e.checks.begin(), e.checks.end(), [](const auto& c) {
    return is_clearance(c) && c.reason == policy::reason::kNoReviewer;
  });
}
std::string check_result(const records::PlanCheck& c, bool rejected) {
  if (!c.allowed) return "DENIED";
  if (is_clearance(c)) return rejected ? "REJECTED" : "HELD";
  return c.reason.empty() ? "allowed" : "WAITS";
}
Json check_row(const records::PlanCheck& c, bool rejected) {
  Json j;
  j["check"] = c.check;
  j["asset"] = c.asset;
  j["result"] = check_result(c, rejected);
  std::string why = c.reason.empty() ? c.what : c.reason + ": " + c.what;
  if ((!c.allowed || is_clearance(c)) && !c.expected.empty()) {
    why += " (expected " + c.expected + ", actual " + c.actual + ")";
  }
  if (is_clearance(c) && !c.next.empty()) why += "; " + c.next;
  j["why"] = why;
  return j;
}

}  // namespace

// Checks that passed are many and say nothing that must be acted on: they are counted, and shown to
// who asks.
std::string plan_text(const records::Explanation& e, bool every) {
  JsonArray rows;
  std::size_t passed = 0;
  const bool rejected = would_be_rejected(e);
  for (const auto& c : e.checks) {
    const bool plain = c.allowed && c.reason.empty();
    if (plain) ++passed;
    if (!plain || every) rows.push_back(check_row(c, rejected));
  }
  std::string o;
  if (!rows.empty()) {
    o = table({{"CHECK", "check"}, {"FOR", "asset"}, {"RESULT", "result"}, {"WHY", "why"}}, rows,
              "");
  }
  if (!every) {
    o += std::to_string(passed) + " of " + std::to_string(e.checks.size()) +
         " checks passed (--all shows them)\n";
  }
  if (!e.plan) return o;
  const auto& p = *e.plan;
  o += rejected ? "\nallowed, but every run that succeeds would end rejected (no-reviewer)."
                : "\nallowed.";
  o += " The broker would sign this plan:\n";
  for (const auto& t : p.tee) o += "  " + platform_line(t);
  for (const auto& c : p.charges) {
    o += "  charge    at most " + bits_text(c) + " of asset " + to_hex(c.asset_id).substr(0, 16) +
         "\n";
  }
  o += "  decision  " +
       (p.gate.release_slot_seconds == 0
            ? std::string("at once")
            : "on multiples of " + std::to_string(p.gate.release_slot_seconds) + " s");
  o += p.reviewers.empty() || rejected
           ? "; what is held is rejected, for nobody may review it\n"
           : "; what is held waits for " + counted(p.reviewers_needed, "reviewer") + "\n";
  o += "  access    " + std::string(enum_name(p.controls.access)) +
       (p.controls.access == records::Access::kDirect
            ? ": the host sees which blocks are read\n"
            : ": every asset is read whole before the program starts\n");
  o += "  custody   " + std::string(enum_name(p.custody)) + ", rollback " + printable(p.rollback) +
       "\n  channels  ";
  for (std::size_t i = 0; i < p.residual_channels.size(); ++i) {
    o += (i > 0 ? ", " : "") + printable(p.residual_channels[i]);
  }
  return o +
         "; and paging, where the node could not lock what is decrypted into memory: the receipt "
         "says so\n";
}

namespace {

// What is about the job itself is nobody's check: no owner stands there.
Json plan_json(const records::Explanation& e) {
  Json j = to_json(e);
  for (std::size_t i = 0; i < e.checks.size(); ++i) {
    if (e.checks[i].owner_id == Hash32{}) (*j["checks"].array())[i].object()->erase("ownerId");
  }
  return j;
}

Status job_plan(Session& s, const Invocation& in) {
  GBX_ASSIGN(records::JobSpec spec, read_job_spec(in.text("file")));
  GBX_ASSIGN(SignedJob job, sign_job(s, std::move(spec)));
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(records::Explanation e, plane->explain(job.submission));
  s.print(plan_json(e), plan_text(e, in.has("all")));
  s.exit_as(ExitClass::kDenied);
  Status denied = policy::denial(e);
  // What stands for these reasons elsewhere names this very command.
  if (!denied.ok() && denied.error().next.empty() &&
      default_next(denied.reason()).find("job plan") != std::string::npos) {
    denied.error().hint(
        "change the job where a check is DENIED, or ask the owner whose check it is");
  }
  return denied;
}

// What the answer says beside the job, for people and programs.
std::vector<std::string> notes_of(const SignedJob& job) {
  std::vector<std::string> notes;
  for (const auto& a : job.assets) {
    notes.push_back("uses " + printable(a.record.body.name) + "@" +
                    std::to_string(a.record.body.version) + " of owner " +
                    short_id(a.record.body.owner_id) + ", version " + short_id(a.version_id));
  }
  for (const auto t : job.submission.submission.body.spec.spec.tee.any_of) {
    const char* what = t == records::Technology::kNone  ? "NO TEE"
                       : t == records::Technology::kSim ? "SIMULATED TEE"
                                                        : "";
    if (*what != 0) {
      notes.push_back(std::string(what) +
                      ": this job may run where the machine's operator can read everything");
    }
  }
  return notes;
}
Json with_notes(Json j, const std::vector<std::string>& notes) {
  j["notes"] = Json(JsonArray(notes.begin(), notes.end()));
  return j;
}

Status finish_waiting(Session& s, const api::JobView& v, const std::vector<std::string>& notes) {
  s.print(notes.empty() ? job_json(v) : with_notes(job_json(v), notes), job_text(v));
  s.exit_as(class_of_end(v));
  return outcome_of(v);
}

Result<WatchOptions> watch_options(const Invocation& in) {
  WatchOptions o;
  o.through_hold = in.has("through-hold");
  GBX_ASSIGN(const std::int64_t seconds, in.integer("timeout", 0, Bound{1, 30 * 86400}));
  o.timeout_ms = seconds * 1000;
  return o;
}

Status check_submit_options(const Invocation& in) {
  for (const char* name : {"timeout", "through-hold"}) {
    if (in.has(name) && !in.has("wait")) {
      return fail(Reason::kUsage, std::string("--") + name)
          .with("together with --wait", "without it");
    }
  }
  if (in.has("idempotency-key")) {
    const std::string& key = in.text("idempotency-key");
    const bool plain =
        std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7f; });
    if (key.empty() || key.size() > kMaxIdempotencyKey || !plain) {
      return fail(Reason::kUsage, "--idempotency-key")
          .with("1 to " + std::to_string(kMaxIdempotencyKey) + " visible ASCII characters",
                key.empty() ? "nothing" : printable(key, 80));
    }
  }
  GBX_TRY(watch_options(in));  // before any effect: nothing is submitted under a mistake
  return ok_status();
}

Status job_submit(Session& s, const Invocation& in) {
  GBX_TRY(check_submit_options(in));
  GBX_ASSIGN(records::JobSpec spec, read_job_spec(in.text("file")));
  GBX_ASSIGN(SignedJob job, sign_job(s, std::move(spec)));
  std::vector<std::string> notes = notes_of(job);
  for (const auto& n : notes) s.note(n);
  GBX_ASSIGN(Plane * plane, s.plane());
  const std::string key = in.text("idempotency-key");
  GBX_ASSIGN(api::JobView v, plane->submit(job.submission, key));
  if (v.job_id != job.job_id) {
    if (key.empty()) {
      return fail(Reason::kBadHash, "the plane answers with another job")
          .with(to_hex(job.job_id), to_hex(v.job_id));
    }
    notes.push_back("this idempotency key was used before: it is job " + short_id(v.job_id));
    s.note(notes.back());
  }
  if (!in.has("wait")) {
    s.print(
        with_notes(job_json(v), notes),
        "submitted " + to_hex(v.job_id) + "\nNext: glovebox job wait " + short_id(v.job_id) + "\n");
    return ok_status();
  }
  s.note("submitted " + to_hex(v.job_id));
  GBX_ASSIGN(WatchOptions o, watch_options(in));
  GBX_ASSIGN(api::JobView last, watch_job(s, std::move(v), o));
  return finish_waiting(s, last, notes);
}

// Where a job is, is the plane's word; of which job is not.
Result<api::JobView> asked_for(const Hash32& id, Result<api::JobView> answer) {
  if (!answer.ok() || answer->job_id == id) return answer;
  return fail(Reason::kBadHash, "the plane answers with another job")
      .with(to_hex(id), to_hex(answer->job_id));
}

Status job_wait(Session& s, const Invocation& in) {
  GBX_ASSIGN(const Hash32 id, resolve_job(s, in.text("id")));
  GBX_ASSIGN(WatchOptions o, watch_options(in));
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(api::JobView v, asked_for(id, plane->job(id)));
  GBX_ASSIGN(api::JobView last, watch_job(s, std::move(v), o));
  return finish_waiting(s, last, {});
}

Status job_get(Session& s, const Invocation& in) {
  GBX_ASSIGN(const Hash32 id, resolve_job(s, in.text("id")));
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(api::JobView v, asked_for(id, plane->job(id)));
  s.print(job_json(v), job_text(v));
  return ok_status();
}

Status job_list(Session& s, const Invocation& in) {
  GBX_ASSIGN(const std::int64_t limit, in.integer("limit", 50, Bound{1, 10'000}));
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(std::vector<api::JobView> jobs,
             plane->jobs(in.text("state"), static_cast<std::size_t>(limit)));
  JsonArray rows;
  JsonArray shown;
  for (const auto& v : jobs) {
    Json j = job_json(v);
    rows.push_back(j);
    j["jobId"] = short_id(v.job_id);
    shown.push_back(std::move(j));
  }
  Json j;
  j["items"] = Json(std::move(rows));
  s.print(j, table({{"JOB", "jobId"},
                    {"NAME", "name"},
                    {"PHASE", "phase"},
                    {"REASON", "outcome.reason"},
                    {"CREATED", "created"},
                    {"UPDATED", "updated"}},
                   shown, "no jobs"));
  return ok_status();
}

}  // namespace

std::string detail_text(const api::JobDetail& d) {
  const auto& body = d.submission.submission.body;
  std::string o = job_text(d.job) + "\npurpose   " + printable(body.spec.spec.purpose) +
                  "\nimage     " + printable(body.image_digest) + "\n";
  for (const auto& a : body.assets) {
    o += "input     " + printable(a.name) + " = version " + short_id(a.version_id) + " of asset " +
         to_hex(a.asset_id) + "\n";
  }
  if (!d.plan) return o;
  o += "plan      " + to_hex(d.plan->hash()) + "\n";
  for (const auto& t : d.plan->body.tee) o += platform_line(t);
  for (const auto& p : d.plan->body.policies) {
    o += "policy    " + short_id(p.policy_hash) + " serial " + std::to_string(p.serial) +
         " of owner " + short_id(p.owner_id) + "\n";
  }
  for (const auto& c : d.plan->body.charges) {
    o += "charge    at most " + bits_text(c) + " of asset " + to_hex(c.asset_id) + "\n";
  }
  return o;
}

namespace {

Status job_describe(Session& s, const Invocation& in) {
  GBX_ASSIGN(const Hash32 id, resolve_job(s, in.text("id")));
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(records::SetChain::Keys set, s.set());
  GBX_ASSIGN(api::JobDetail d, plane->job_detail(id));
  GBX_TRY(asked_for(id, d.job));
  GBX_TRY(verify_job(set, id, d.submission, d.plan ? &*d.plan : nullptr));
  GBX_ASSIGN(api::JobEvents events, plane->job_events(id));
  std::string o = detail_text(d);
  JsonArray rows;
  const std::int64_t start = d.job.created_ms;
  for (const auto& e : events.events) {
    Json j;
    const std::int64_t ms = std::max<std::int64_t>(0, e.time_ms - start);
    const std::string fraction = std::to_string(1000 + ms % 1000).substr(1);
    j["at"] = std::to_string(ms / 1000) + "." + fraction + " s";
    j["machine"] = e.machine.substr(0, e.machine.find('/'));
    j["event"] = e.event;
    j["to"] = e.to;
    j["why"] = e.reason.empty()
                   ? ""
                   : e.reason + (e.detail.empty() ? "" : ": " + without_code(e.reason, e.detail));
    rows.push_back(std::move(j));
  }
  o += "\n" + table({{"AFTER", "at"},
                     {"WHAT", "machine"},
                     {"EVENT", "event"},
                     {"STATE", "to"},
                     {"WHY", "why"}},
                    rows, "no events");
  Json j = to_json(d);
  j["events"] = *to_json(events).find("events");
  s.print(j, o);
  return ok_status();
}

Status job_cancel(Session& s, const Invocation& in) {
  GBX_ASSIGN(Keys * keys, s.keys());
  GBX_ASSIGN(const Hash32 id, resolve_job(s, in.text("id")));
  GBX_ASSIGN(records::SetChain::Keys set, s.set());
  records::CancelRequest r;
  r.consumer = keys->file.chain;
  GBX_ASSIGN(r.cancel,
             records::sign(set.set_id, records::Cancel{id, keys->id, s.now()}, *keys->signing));
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(api::JobView v, asked_for(id, plane->cancel(r)));
  s.print(job_json(v), job_text(v));
  return ok_status();
}

Status container_status(const Delivered& d) {
  if (d.status.exitClass == gate::RunExit::kOk) return ok_status();
  return fail(
             d.status.exitClass == gate::RunExit::kTimeout ? Reason::kTimedOut : Reason::kJobFailed,
             "how the container ended")
      .with("ok", std::string(enum_name(d.status.exitClass)))
      .hint("glovebox job logs " + d.status.jobId.substr(0, 16));
}

Status job_result(Session& s, const Invocation& in) {
  GBX_ASSIGN(const Hash32 id, resolve_job(s, in.text("id")));
  const std::string out = in.text("out");
  GBX_ASSIGN(Delivered d, fetch_result(s, id, in.has("recovery")));
  GBX_TRY(write_files(out, d, in.has("force")));
  Json j;
  j["jobId"] = to_hex(id);
  j["exitClass"] = enum_name(d.status.exitClass);
  j["attempt"] = d.status.attempt;
  JsonArray files;
  std::string text = "result of job " + short_id(id) +
                     ", verified: your submission, the plan, the agent's statement, the broker's "
                     "release and its place in the log\n";
  for (const auto& f : d.files) {
    Json e;
    e["path"] = out + "/" + f.path;
    e["bytes"] = static_cast<std::int64_t>(f.content.size());
    files.push_back(std::move(e));
    text += "  " + out + "/" + f.path + "  " + human_bytes(f.content.size()) + "\n";
  }
  if (d.log) text += "  " + out + "/job.log  " + human_bytes(d.log->size()) + "\n";
  text += wrap(printable(d.protection, 1000), 0, 100);
  j["protection"] = d.protection;
  j["files"] = Json(std::move(files));
  j["log"] = d.log.has_value();
  s.print(j, text);
  return container_status(d);
}

Status job_logs(Session& s, const Invocation& in) {
  GBX_ASSIGN(const Hash32 id, resolve_job(s, in.text("id")));
  GBX_ASSIGN(Delivered d, fetch_result(s, id, in.has("recovery")));
  const std::string log = d.log ? std::string(as_text(*d.log)) : "";
  Json j;
  j["jobId"] = to_hex(id);
  j["exitClass"] = enum_name(d.status.exitClass);
  j["log"] = log;
  if (!d.log) {
    s.note(
        "no logs: the spec's logs.visibility or an owner's policy says none, or the container "
        "wrote nothing");
  }
  s.print(j, log);
  return ok_status();
}

void add_job_results(CommandTree& t, const Argument& id) {
  const Argument recovery = flag("recovery", "open with the recovery key");
  t.add("job", {"result",
                "fetch, verify and decrypt a result",
                "Nothing is written unless the whole chain holds. Files appear whole; none is "
                "replaced without --force. Exit status 8 when the container itself had failed.",
                {id},
                {required(option("out", "DIR", "where the files go", ArgKind::kDirectory)),
                 flag("force", "replace files that are there"), recovery},
                {{"glovebox job result 3f9a --out results", "the result of a completed job"}},
                job_result,
                {}});
  t.add("job", {"logs",
                "the logs that the gate let out",
                "Logs travel with the result, so they are there once it is released.",
                {id},
                {recovery},
                {},
                job_logs,
                {}});
}

}  // namespace

Json job_spec_schema() {
  Json s =
      json_schema_document<records::JobSpec>("https://glovebox.invalid/schemas/jobspec-v1.json",
                                             "Glovebox job spec, apiVersion glovebox/v1");
  // To the records an output's schema is any JSON; the gate reads it, and of a recipe says how.
  Json& output = s["properties"]["spec"]["properties"]["outputs"]["items"]["properties"]["schema"];
  output["properties"]["recipe"] = json_schema<gate::Recipe>();
  return s;
}

void add_jobs(CommandTree& t) {
  const Argument file = positional("file", "job spec, YAML or JSON", ArgKind::kFile);
  const Argument id = positional("id", "job id, or its first 4 or more digits");
  const Argument through = flag("through-hold", "wait on while a reviewer has to decide");
  const Argument timeout = option("timeout", "SECONDS",
                                  "stop waiting after so long; the job goes on", ArgKind::kInteger);
  t.add({"job", "run a study and get its result", "", {}, {}, {}, {}, {}});
  t.add("job", {"validate", "check a job spec, offline", "", {file}, {}, {}, job_validate, {}});
  t.add("job", {"schema", "print the JSON Schema of job specs", "", {}, {}, {}, job_schema, {}});
  t.add("job", {"plan",
                "what would be allowed or denied, and why, before anything runs",
                "The broker checks the signed job against every owner's policy and logs nothing. "
                "Exit status 3 when it would be denied.",
                {file},
                {flag("all", "also the checks that passed, one by one")},
                {},
                job_plan,
                {}});
  t.add("job", {"submit",
                "sign a job and send it",
                "Names become version ids before signing, so what you sign cannot come to mean "
                "something else. With --wait the exit status tells how the job ended: 0 completed, "
                "3 denied or rejected, 5 held for a reviewer, 8 failed; 6 when --timeout ran out "
                "first, and the job goes on.",
                {file},
                {flag("wait", "show progress until the job ends"), through, timeout,
                 option("idempotency-key", "KEY", "the same key never makes a second job")},
                {{"glovebox job submit job.yaml --wait", "run a study and watch it"}},
                job_submit,
                {}});
  Argument state = option("state", "STATE", "only jobs in this state", ArgKind::kChoice);
  state.choices = {"Submitted", "Authorized", "Running",   "Reviewing", "Completed", "Denied",
                   "Failed",    "Rejected",   "Cancelled", "Expired",   "Revoked"};
  Argument limit = option("limit", "N", "at most so many", ArgKind::kInteger);
  limit.standard = "50";
  t.add("job", {"list", "your jobs, newest first", "", {}, {state, limit}, {}, job_list, {}});
  t.add("job", {"get", "where a job is", "", {id}, {}, {}, job_get, {}});
  t.add("job", {"describe",
                "everything about a job: inputs, plan, every transition",
                "",
                {id},
                {},
                {},
                job_describe,
                {}});
  t.add("job", {"wait",
                "show progress until a job ends",
                "Exit status as for `job submit --wait`.",
                {id},
                {through, timeout},
                {},
                job_wait,
                {}});
  t.add("job", {"cancel",
                "end a job",
                "Signs the wish; the broker then releases no more keys for it. An operator may end "
                "anybody's job that waits or runs; its consumer reads who did.",
                {id},
                {},
                {},
                job_cancel,
                {}});
  add_job_results(t, id);
}

}  // namespace gbx::cli
