// Core: what consumers do with jobs.
#include <algorithm>

#include "base/log.h"
#include "plane/core/core.h"
#include "plane/core/page.h"

namespace gbx::plane {

using machines::JobEvent;
using machines::JobState;
using machines::MachineQuery;
using machines::OutputState;
using machines::Record;
using machines::RecordWrite;
using machines::TransitionRow;

namespace {

// What two submissions under one idempotency key must agree in: everything but nonce, time and
// result keys.
Hash32 fingerprint(const records::Submission& s) {
  JsonObject o;
  o["spec"] = to_json(s.spec);
  o["assets"] = to_json(s.assets);
  o["imageDigest"] = s.image_digest;
  o["consumerId"] = to_json(s.consumer_id);
  return crypto::labelled_hash("gbx/1/idempotency", as_bytes(canonical(Json(std::move(o)))));
}
constexpr std::int64_t kMaxEvents = 1000;

// How a job ended, as the answer to whoever asks for its result. Some reasons say of an answer that
// the service or the request is at fault; of a job, as its node or the broker named them, they say
// that the job failed.
Error told_as_result(const api::Outcome& outcome) {
  Error e = from_outcome(outcome);
  const ExitClass cls = exit_class(e.reason);
  const bool of_the_answer = cls == ExitClass::kInfrastructure || cls == ExitClass::kInternal ||
                             cls == ExitClass::kOk || e.reason == Reason::kRateLimited ||
                             e.reason == Reason::kQuotaExceeded ||
                             e.reason == Reason::kUnauthenticated || e.reason == Reason::kReplayed;
  if (!of_the_answer) return e;
  const std::string details = e.expected.empty() && e.actual.empty()
                                  ? std::string()
                                  : " (expected " + e.expected + ", actual " + e.actual + ")";
  Error failed = fail(Reason::kJobFailed, e.what + details)
                     .with("a result", std::string(reason_code(e.reason)));
  return e.next.empty() ? failed : failed.hint(e.next);
}

Status sent_by_its_consumer(const Caller& who, const records::SignedSubmission& s) {
  const Hash32& named = s.submission.body.consumer_id;
  if (s.consumer.id() == who.identity && named == who.identity) return ok_status();
  return fail(Reason::kWrongOwner, "a submission is sent by its own consumer")
      .with(to_hex(who.identity), to_hex(named));
}

}  // namespace

Status Core::check_submission(const Caller& who, const records::SignedSubmission& s) {
  GBX_TRY(sent_by_its_consumer(who, s));
  return check_own_submission(s);
}

Status Core::check_own_submission(const records::SignedSubmission& s) {
  const records::Submission& body = s.submission.body;
  GBX_ASSIGN(crypto::PublicKey key, s.consumer.current_key(config_.set_id));
  GBX_TRY(s.submission.verify(config_.set_id, key));
  GBX_TRY(body.validate());
  if (body.not_after <= now_ms() / 1000) {
    return fail(Reason::kExpired, "the submission's notAfter has passed");
  }
  for (const auto& binding : body.assets) {
    GBX_ASSIGN(std::optional<Record> record, store_.record("asset", to_hex(binding.version_id)));
    if (!record) {
      return fail(Reason::kNotFound, "asset of '" + binding.name + "'")
          .with("", to_hex(binding.version_id))
          .hint("glovebox asset list");
    }
    GBX_ASSIGN(AssetBody asset, from_json<AssetBody>(record->body));
    if (asset.delisted) {
      return fail(Reason::kNotFound, "asset of '" + binding.name + "' is no longer offered")
          .hint("glovebox asset list");
    }
    if (asset.record.body.asset_id != binding.asset_id) {
      return fail(Reason::kWrongAsset, binding.name)
          .with(to_hex(asset.record.body.asset_id), to_hex(binding.asset_id));
    }
  }
  return ok_status();
}

Result<api::JobView> Core::submit(const Caller& who, const records::SignedSubmission& s,
                                  const std::optional<std::string>& idempotency_key) {
  const Lock lock(mutex_);
  // First: whether this job is there already is told to nobody else.
  GBX_TRY(sent_by_its_consumer(who, s));
  const records::Submission& submission = s.submission.body;
  const Hash32 id = submission.job_id();
  const std::string owner = to_hex(who.identity);
  Transaction t;
  if (idempotency_key) {
    const std::string key = owner + "/" + to_hex(crypto::sha256(as_bytes(*idempotency_key)));
    GBX_ASSIGN(std::optional<Record> old, store_.record("idempotency", key));
    if (old) {
      GBX_ASSIGN(IdempotencyBody body, from_json<IdempotencyBody>(old->body));
      if (body.fingerprint != fingerprint(submission)) {
        return fail(Reason::kIdempotencyMismatch, "this idempotency key was used for another job")
            .with(to_hex(body.job_id), "another spec")
            .hint("use a new key, or the spec as it was");
      }
      GBX_ASSIGN(Machine first, need_machine(job_machine(body.job_id), "job"));
      return view(who, first);
    }
    RecordWrite w;
    w.record = {"idempotency",
                key,
                owner,
                "",
                now_ms(),
                0,
                to_json(IdempotencyBody{fingerprint(submission), id})};
    t.records.push_back(std::move(w));
  }
  GBX_ASSIGN(std::optional<Machine> existing, store_.machine(job_machine(id)));
  if (existing) return view(who, *existing);  // the very same signed submission
  GBX_TRY(check_own_submission(s));
  GBX_ASSIGN(const records::PlanCheck placed, judge_placement(submission));
  if (!placed.allowed) {
    return fail(Reason::kNoCapacity, placed.what)
        .with(placed.expected, placed.actual)
        .hint(placed.next);
  }
  GBX_ASSIGN(const std::int64_t running, jobs_at_one_time(owner));
  if (running >= config_.quotas.live_jobs) {
    return fail(Reason::kQuotaExceeded, "jobs at one time")
        .with(std::to_string(config_.quotas.live_jobs), std::to_string(running) + " live")
        .hint("wait for one to end, or cancel one");
  }
  GBX_TRY(count_today({"jobs-per-day", "jobs per day", config_.quotas.jobs_per_day}, who.identity,
                      false, t));
  // What was denied is kept as well as what ran, here and in the broker's log.
  GBX_TRY(count_today(
      {"job-bytes-per-day", "bytes of submissions per day", config_.quotas.job_bytes_per_day,
       static_cast<std::int64_t>(canonical(to_json(s)).size())},
      who.identity, false, t));
  std::int64_t declared = 0;
  for (const auto& o : submission.spec.spec.outputs) declared += o.max_bytes;
  GBX_TRY(count_today({"output-bytes-per-day", "bytes of declared outputs per day",
                       config_.quotas.output_bytes_per_day, declared},
                      who.identity, false, t));
  Machine m;
  m.id = job_machine(id);
  m.kind = "job";
  m.owner = owner;
  m.deadline_ms = patience_ms() + submission.spec.spec.timeouts.queue * 1000;
  JobBody body;
  body.submission = s;
  m.body = to_json(body);
  const auto first = machines::begin_job();
  machines::add_begin(t, m, enum_name(first.state), first.effects, now_ms());
  GBX_TRY(commit(t));
  return view(who, m);
}

// A job that ended counts for as long as its end is not told: the quota would answer earlier.
Result<std::int64_t> Core::jobs_at_one_time(const std::string& owner) {
  MachineQuery q;
  q.kind = "job";
  q.owner = owner;
  q.live = true;
  GBX_ASSIGN(const std::int64_t live, store_.count(q));
  GBX_ASSIGN(const std::vector<Machine> ended, held(q));
  return live + static_cast<std::int64_t>(ended.size());
}

Result<Machine> Core::visible_job(const Caller& who, const Hash32& id) {
  GBX_ASSIGN(Machine m, need_machine(job_machine(id), "job"));
  // The same answer as for a job that does not exist: ids of others' jobs are nobody's business.
  if (m.owner != to_hex(who.identity) && !sees_all(who)) return fail(Reason::kNotFound, "job");
  return m;
}

bool Core::sees_all(const Caller& who) {
  return who.has(Role::kOperator) || who.has(Role::kAuditor);
}

Result<Core::Seen> Core::seen(const Caller& who, const Machine& job) {
  Seen s;
  GBX_ASSIGN(s.body, from_json<JobBody>(job.body));
  const Hash32 id = s.body.submission.submission.body.job_id();
  std::vector<std::string> ids{job.id};
  for (std::int64_t n = 1; n <= s.body.attempts; ++n) ids.push_back(environment_machine(id, n));
  ids.push_back(output_machine(id));
  // Another thread may commit between two reads. Each machine is read before its rows, and what is
  // younger than the machine is left out: so no transition is told without the document that it
  // came with, and none of the document without its transition.
  std::vector<TransitionRow> rows;
  std::vector<Machine> read;
  for (const std::string& machine : ids) {
    GBX_ASSIGN(std::optional<Machine> m,
               machine == job.id ? Result<std::optional<Machine>>(job) : store_.machine(machine));
    if (!m) continue;
    GBX_ASSIGN(std::vector<TransitionRow> part, store_.history(machine, 0, kMaxEvents));
    std::erase_if(part, [&](const TransitionRow& row) { return row.seq > m->seq; });
    rows.insert(rows.end(), part.begin(), part.end());
    read.push_back(std::move(*m));
  }
  const std::int64_t slot =
      s.body.plan && !sees_all(who) ? s.body.plan->body.gate.release_slot_seconds : 0;
  s.sight = Sight(slot, now_ms(), rows);
  for (Machine& m : read) {
    SeenMachine part;
    for (const TransitionRow& row : rows) {
      if (row.machine != m.id) continue;
      part.whole = s.sight.shows(row);
      if (!part.whole) continue;
      part.last = s.sight.shown(row);
      s.rows.push_back(part.last);
    }
    if (part.last.machine.empty()) continue;  // nothing of it is told yet
    part.machine = std::move(m);
    s.machines.push_back(std::move(part));
  }
  std::stable_sort(s.rows.begin(), s.rows.end(),
                   [](const auto& a, const auto& b) { return a.time_ms < b.time_ms; });
  return s;
}

Result<api::JobView> Core::view(const Caller& who, const Machine& m) {
  GBX_ASSIGN(const Seen s, seen(who, m));
  return view(s);
}

bool Core::sealed(const Seen& s, std::int64_t attempt) {
  return std::any_of(s.machines.begin(), s.machines.end(), [&](const SeenMachine& part) {
    if (part.machine.kind != "out") return false;
    const auto o = from_json<OutputBody>(part.machine.body);
    return o.ok() && o->attempt == attempt;
  });
}

Result<api::JobView> Core::view(const Seen& s) {
  const records::Submission& submission = s.body.submission.submission.body;
  api::JobView v;
  v.job_id = submission.job_id();
  v.name = submission.spec.metadata.name;
  v.consumer_id = submission.consumer_id;
  for (const SeenMachine& part : s.machines) {
    const Machine& m = part.machine;
    v.updated_ms = std::max(v.updated_ms, part.last.time_ms);
    v.version += part.last.seq;
    if (m.kind == "job") {
      GBX_ASSIGN(const JobState state, enum_from<JobState>(part.last.to));
      v.state = part.last.to;
      v.ended = machines::terminal(state);
      if (part.whole) v.outcome = s.body.outcome;
      v.created_ms = m.created_ms;
    } else if (m.kind == "env") {
      GBX_ASSIGN(EnvironmentBody e, from_json<EnvironmentBody>(m.body));
      // Without a seal the claim is in no receipt, and comes after an end that is told already.
      const bool destroyed = part.whole && e.destroyed &&
                             s.sight.shows_claim(e.destroyed->body.time) &&
                             (s.sight.shows_everything() || sealed(s, e.attempt));
      v.environments.push_back({e.attempt, part.last.to, e.node_name, part.whole ? e.reason : "",
                                part.whole ? e.detail : "", destroyed});
      v.version += destroyed ? 1 : 0;
    } else {
      GBX_ASSIGN(OutputBody o, from_json<OutputBody>(m.body));
      v.output = api::OutputView{part.last.to, o.attempt, o.decide_at, o.size_bytes};
      v.version += o.decide_at != 0 ? 1 : 0;
    }
  }
  return v;
}

// A consumer's filter is held against what that consumer may see, so that asking tells no more than
// looking.
Result<api::JobList> Core::jobs(const Caller& who, const JobFilter& filter, const Page& page) {
  MachineQuery q;
  q.kind = "job";
  const bool all = sees_all(who);
  if (all) {
    q.state = filter.state;
    q.live = filter.live;
  }
  q.newest_first = true;
  const bool filtered = !all && (filter.state || filter.live);
  q.limit = filtered ? kLookEntries : std::min(page.limit + 1, kLookEntries);
  q.max_bytes = kLookBytes;
  q.owner = all ? filter.consumer : std::optional<std::string>(to_hex(who.identity));
  GBX_ASSIGN(q.after, parse_cursor(page.cursor));
  api::JobList out;
  PageBudget budget(page.limit);
  const auto ends_here = [&] {
    out.next = make_cursor(q.after->first, q.after->second);
    return out;
  };
  while (budget.look()) {
    GBX_ASSIGN(std::vector<Machine> rows, store_.machines(q));
    if (rows.empty()) return out;
    for (const Machine& row : rows) {
      if (!budget.look_at_entry()) return ends_here();
      GBX_ASSIGN(api::JobView v, view(who, row));
      const bool wanted =
          (!filter.state || v.state == *filter.state) && (!filter.live || v.ended != *filter.live);
      if (wanted) {
        if (out.items.size() == page.limit || !budget.take(to_json(v))) return ends_here();
        out.items.push_back(std::move(v));
      }
      q.after = std::pair(row.created_ms, row.id);
    }
  }
  return ends_here();
}

Result<api::JobView> Core::job(const Caller& who, const Hash32& id) {
  GBX_ASSIGN(Machine m, visible_job(who, id));
  return view(who, m);
}

Result<api::JobDetail> Core::detail(const Caller& who, const Hash32& id) {
  GBX_ASSIGN(Machine m, visible_job(who, id));
  GBX_ASSIGN(JobBody body, from_json<JobBody>(m.body));
  api::JobDetail d;
  GBX_ASSIGN(d.job, view(who, m));
  d.submission = std::move(body.submission);
  d.plan = std::move(body.plan);
  return d;
}

Result<api::JobEvents> Core::events(const Caller& who, const Hash32& id) {
  GBX_ASSIGN(Machine m, visible_job(who, id));
  GBX_ASSIGN(const Seen s, seen(who, m));
  api::JobEvents out;
  GBX_ASSIGN(out.job, view(s));
  for (const TransitionRow& r : s.rows) {
    out.events.push_back(
        {r.machine, r.seq, r.time_ms, r.from, r.event, r.to, r.reason, r.detail, r.prev, r.hash});
  }
  return out;
}

Status Core::step_job(Transaction& t, Machine& m, JobBody& body, JobEvent event, const Error* why) {
  GBX_ASSIGN(const JobState state, enum_from<JobState>(m.state));
  GBX_ASSIGN(auto next, machines::step(state, event));
  if (why != nullptr) body.outcome = to_outcome(*why);
  const std::int64_t now = now_ms();
  m.deadline_ms = 0;
  if (next.state == JobState::kAuthorized) {
    const records::Submission& s = body.submission.submission.body;
    // Its notAfter is the broker's to judge, when it is asked for the next credential.
    const std::int64_t patience =
        body.awaiting_output ? config_.run_grace_seconds : s.spec.spec.timeouts.queue;
    m.deadline_ms = patience_ms() + patience * 1000;
    look_again_at(m);
  }
  // An end that no decision brought is told when the slot is over.
  const bool untold =
      machines::terminal(next.state) && event != JobEvent::kCancel && state != JobState::kReviewing;
  if (untold && body.attempts > 0) m.deadline_ms = told_at_ms(body);
  m.body = to_json(body);
  machines::add_step(t, m, enum_name(event), enum_name(next.state), !machines::terminal(next.state),
                     next.effects, now,
                     why == nullptr ? std::string() : std::string(reason_code(why->reason)),
                     why == nullptr ? std::string() : why->what.substr(0, 500));
  return ok_status();
}

Result<api::JobView> Core::cancel(const Caller& who, const records::CancelRequest& request) {
  const Lock lock(mutex_);
  const records::Cancel& wish = request.cancel.body;
  GBX_ASSIGN(Machine m, need_machine(job_machine(wish.job_id), "job"));
  const bool own = m.owner == to_hex(who.identity);
  if (!own && !who.has(Role::kOperator)) return fail(Reason::kNotFound, "job");
  if (request.consumer.id() != who.identity || wish.consumer_id != who.identity) {
    return fail(Reason::kWrongOwner, "a wish is sent by whoever signed it");
  }
  GBX_ASSIGN(crypto::PublicKey key, request.consumer.current_key(config_.set_id));
  GBX_TRY(request.cancel.verify(config_.set_id, key));
  GBX_ASSIGN(JobBody body, from_json<JobBody>(m.body));
  if (m.state == enum_name(JobState::kCancelled)) {
    if (own) GBX_TRY(cancel_anew(m, body, request));
    return view(who, m);
  }
  Error why = fail(Reason::kJobCancelled, "cancelled by the consumer");
  if (own) {
    body.cancel = request;
  } else {
    // The broker heeds consumers alone. What an operator lends, and so takes back, is the queue and
    // the nodes.
    GBX_ASSIGN(const auto found, find_identity(who.identity));
    const std::string name = found ? printable(found->first.name, 64) : std::string();
    why = fail(Reason::kJobCancelled,
               "cancelled by the operator " + name + " (" + to_hex(who.identity) + ")");
    why.hint("ask the operator of this service");
  }
  Transaction t;
  const bool sealed = !own && m.state == enum_name(JobState::kReviewing);
  // A decision was charged for, and is told from the moment that the plane knows it (sight.h), so
  // refusing tells nothing more.
  GBX_ASSIGN(const std::optional<Machine> out, store_.machine(output_machine(wish.job_id)));
  const bool decided = m.live && out &&
                       (out->state == enum_name(OutputState::kReleased) ||
                        out->state == enum_name(OutputState::kRejected));
  Status s = sealed || decided ? Status(fail(Reason::kWrongState))
                               : step_job(t, m, body, JobEvent::kCancel, &why);
  if (!s.ok()) {
    const std::string found = !own      ? m.state
                              : decided ? "one whose output was decided"
                                        : "one that has ended";
    return fail(Reason::kWrongState, "this job can no longer be cancelled")
        .with("a job that waits or runs", found);
  }
  // A node that runs it learns it from its next report or heartbeat; one that has not begun shall
  // not begin.
  GBX_ASSIGN(std::optional<Machine> env,
             store_.machine(environment_machine(wish.job_id, body.attempts)));
  if (env && env->state == enum_name(machines::EnvironmentState::kRequested)) {
    GBX_TRY(end_environment(t, *env, machines::EnvironmentEvent::kLose, Reason::kJobCancelled,
                            why.what));
  }
  GBX_TRY(commit(t));
  return view(who, m);
}

// The broker refuses a wish whose key was rotated away before the broker had heard of it, and never
// had one of a job that an operator ended: another one, under the key that stands, takes its place.
// So there are no more of them than keys.
Status Core::cancel_anew(Machine& m, JobBody& body, const records::CancelRequest& request) {
  if (body.cancel && body.cancel->consumer.rotations.size() >= request.consumer.rotations.size()) {
    return ok_status();
  }
  body.cancel = request;
  Transaction t;
  GBX_TRY(step_job(t, m, body, JobEvent::kCancel, nullptr));
  return commit(t);
}

Result<api::JobResult> Core::result(const Caller& who, const Hash32& id) {
  GBX_ASSIGN(Machine m, visible_job(who, id));
  if (m.owner != to_hex(who.identity)) {
    return fail(Reason::kWrongOwner, "a result is fetched by its consumer");
  }
  GBX_ASSIGN(const api::JobView v, view(who, m));
  // A job that failed has a result too: its exit class, and the logs that the gate let out. Read
  // after the job: one that has ended has an output that is decided.
  GBX_ASSIGN(std::optional<Machine> sealed, store_.machine(output_machine(id)));
  const bool released = sealed && sealed->state == enum_name(OutputState::kReleased);
  if (m.live || !v.ended || !released) {
    if (v.ended) return told_as_result(v.outcome);
    const bool held = v.output && v.output->state == enum_name(machines::OutputState::kHeld);
    return fail(held ? Reason::kHeld : Reason::kWrongState,
                held ? "the output waits for a reviewer" : "the job has not ended")
        .with("Completed", v.state)
        .hint("glovebox job wait " + to_hex(id));
  }
  GBX_ASSIGN(Machine out, need_machine(output_machine(id), "output"));
  GBX_ASSIGN(OutputBody body, from_json<OutputBody>(out.body));
  api::JobResult r;
  GBX_ASSIGN(r.output, stored_output(body));
  if (!body.release) return fail(Reason::kInternal, "released output without a release");
  r.release = *body.release;
  GBX_ASSIGN(records::Receipt whole, receipt(who, id));
  r.run_statement = whole.run_statement;
  return r;
}

Result<records::SealedOutput> Core::stored_output(const OutputBody& out) {
  GBX_ASSIGN(Bytes stored, shelf_.get(to_hex(out.content)));
  if (crypto::sha256(stored) != out.content) {
    return fail(Reason::kBadHash, "the stored output was changed");
  }
  JsonLimits limits;
  limits.max_bytes = stored.size();
  return from_json_text<records::SealedOutput>(as_text(stored), limits);
}

Result<records::Receipt> Core::receipt(const Caller& who, const Hash32& id) {
  GBX_ASSIGN(Machine m, visible_job(who, id));
  GBX_ASSIGN(const Seen s, seen(who, m));
  GBX_ASSIGN(std::optional<Record> record, store_.record("receipt", to_hex(id)));
  if (!record) {
    GBX_ASSIGN(const api::JobView v, view(s));
    return fail(Reason::kWrongState, "a receipt exists once the output was decided")
        .with("", v.state);
  }
  GBX_ASSIGN(records::Receipt r, from_json<records::Receipt>(record->body));
  GBX_ASSIGN(Machine env,
             need_machine(environment_machine(id, r.credential.body.attempt), "environment"));
  GBX_ASSIGN(EnvironmentBody e, from_json<EnvironmentBody>(env.body));
  if (e.destroyed && s.sight.shows_claim(e.destroyed->body.time)) r.destroyed = e.destroyed;
  return r;
}

}  // namespace gbx::plane
