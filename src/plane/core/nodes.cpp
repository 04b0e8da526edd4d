// Core: what nodes do: register, stay alive, take work, report, hand outputs in.
#include <algorithm>
#include <functional>
#include <iterator>
#include <limits>

#include "base/log.h"
#include "plane/core/page.h"

namespace gbx::plane {

using machines::EnvironmentEvent;
using machines::EnvironmentState;
using machines::JobEvent;
using machines::JobState;
using machines::MachineQuery;
using machines::Record;
using machines::RecordWrite;

namespace {
constexpr std::int64_t kHandAgainMs = 5'000;         // the answer to a poll may have been lost
constexpr std::int64_t kLongestSlotMs = 86'400'000;  // Gate::release_slot_seconds
constexpr std::size_t kPlacementWindow = 64;  // queued jobs that are looked at under one lock
constexpr std::size_t kPlacementBytes = 256U << 10;  // and of their documents
// Of the documents of what is overdue, seen to under one lock.
constexpr std::size_t kTickBytes = 1U << 20;
// that one poll looks at; the next one goes on from there
constexpr int kPlacementPages = 1'000;

std::optional<EnvironmentEvent> event_of(records::EnvironmentPhase phase) {
  switch (phase) {
    case records::EnvironmentPhase::kRequested:
      return std::nullopt;
    case records::EnvironmentPhase::kBooting:
      return EnvironmentEvent::kBoot;
    case records::EnvironmentPhase::kAttested:
      return EnvironmentEvent::kAttest;
    case records::EnvironmentPhase::kLoaded:
      return EnvironmentEvent::kLoad;
    case records::EnvironmentPhase::kWorking:
      return EnvironmentEvent::kWork;
    case records::EnvironmentPhase::kSealed:
      return EnvironmentEvent::kSeal;
    case records::EnvironmentPhase::kDestroyed:
      return EnvironmentEvent::kDestroy;
    case records::EnvironmentPhase::kLost:
      return EnvironmentEvent::kLose;
  }
  return std::nullopt;
}
}  // namespace

Result<std::pair<Record, NodeBody>> Core::find_node(const crypto::PublicKey& key) {
  GBX_ASSIGN(std::optional<Record> record, store_.record("node", key.text()));
  if (!record) {
    return fail(Reason::kUnauthenticated, "this node is not enrolled")
        .with("an enrolled key", key.text())
        .hint("glovebox node enrol --name NAME --key KEY, as an operator");
  }
  GBX_ASSIGN(NodeBody body, from_json<NodeBody>(record->body));
  return std::pair(std::move(*record), std::move(body));
}

Status Core::check_node(const crypto::PublicKey& key) {
  GBX_TRY(find_node(key));
  return ok_status();
}

Status Core::enrol_node(const std::string& name, const std::string& key) {
  const Lock lock(mutex_);
  GBX_ASSIGN(crypto::PublicKey parsed, crypto::PublicKey::from_text(key));
  GBX_ASSIGN(std::optional<Record> old, store_.record("node", parsed.text()));
  if (old) {
    if (old->name == name) return ok_status();
    return fail(Reason::kAlreadyExists, "this key is enrolled under another name")
        .with(old->name, name);
  }
  machines::RecordQuery taken;
  taken.kind = "node";
  taken.name = name;
  taken.limit = 1;
  GBX_ASSIGN(const std::vector<Record> namesakes, store_.records(taken));
  if (!namesakes.empty()) {
    return fail(Reason::kAlreadyExists, "another node has this name")
        .with(namesakes[0].id, parsed.text())
        .hint("choose another name");
  }
  RecordWrite w;
  w.record = {"node", parsed.text(), "", name, now_ms(), 0, to_json(NodeBody{name, std::nullopt})};
  Transaction t;
  t.records.push_back(std::move(w));
  return commit(t);
}

Result<api::NodeList> Core::nodes(const Caller& who, const Page& page) {
  const Lock lock(mutex_);
  machines::RecordQuery q;
  q.kind = "node";
  const auto entry = [&](const Record& row) -> Result<std::optional<api::NodeView>> {
    GBX_ASSIGN(NodeBody body, from_json<NodeBody>(row.body));
    api::NodeView v{body.name, row.id, body.info, std::nullopt, std::nullopt, std::nullopt};
    if (sees_all(who)) {
      const auto seen = last_seen_ms_.find(row.id);
      v.last_seen_ms = seen == last_seen_ms_.end() ? 0 : now_ms() - (patience_ms() - seen->second);
      v.alive = seen != last_seen_ms_.end() && alive(seen->second);
      MachineQuery live;
      live.kind = "env";
      live.node = row.id;
      live.live = true;
      GBX_ASSIGN(v.running, store_.count(live));
    }
    return std::optional(std::move(v));
  };
  return page_of<api::NodeList>(store_, std::move(q), page, entry);
}

Result<records::NodeLease> Core::lease_for(const std::string& node,
                                           const std::vector<records::RunningAttempt>& running) {
  last_seen_ms_[node] = patience_ms();
  records::NodeLease lease;
  lease.lease_seconds = config_.lease_seconds;
  for (const auto& r : running) {
    GBX_ASSIGN(std::optional<Machine> env,
               store_.machine(environment_machine(r.job_id, r.attempt)));
    bool stop = !env || env->node != node;
    if (!stop) {
      GBX_ASSIGN(stop, superfluous(*env));
    }
    if (stop) lease.stop.push_back(r);
  }
  return lease;
}

// Whether nothing of this attempt can be of use any more, so that its node ends it. One that was
// lost to silence may seal until the broker has given the next one its credential, and then nobody
// but this node holds the output: it is told to stop when that credential is here, or when it has
// had as long as a run may take.
Result<bool> Core::superfluous(const Machine& env) {
  if (env.state == enum_name(EnvironmentState::kSealed)) return false;
  GBX_ASSIGN(const EnvironmentBody e, from_json<EnvironmentBody>(env.body));
  GBX_ASSIGN(const Machine job, need_machine(job_machine(e.job_id), "job"));
  if (env.live || !job.live) return !job.live;
  GBX_ASSIGN(const JobBody body, from_json<JobBody>(job.body));
  const bool waits = job.state == enum_name(JobState::kAuthorized);
  if (waits && body.awaiting_output) return false;
  const std::int64_t run =
      body.submission.submission.body.spec.spec.timeouts.run + config_.run_grace_seconds;
  const bool in_time = patience_ms() - e.ended_ms.value_or(0) <= run * 1000;
  if (e.reason != reason_code(Reason::kLost) || !in_time) return true;
  if (waits) return body.attempts != e.attempt;
  if (job.state != enum_name(JobState::kRunning) || body.attempts != e.attempt + 1) return true;
  GBX_ASSIGN(const Machine next,
             need_machine(environment_machine(e.job_id, body.attempts), "environment"));
  GBX_ASSIGN(const EnvironmentBody follower, from_json<EnvironmentBody>(next.body));
  return follower.credential.has_value();
}

Result<records::NodeLease> Core::register_node(const crypto::PublicKey& key,
                                               const records::NodeInfo& info) {
  const Lock lock(mutex_);
  GBX_ASSIGN(auto found, find_node(key));
  auto& [record, body] = found;
  if (info.key != key.text()) {
    return fail(Reason::kUnauthenticated, "a node registers the key that it connects with")
        .with(key.text(), info.key);
  }
  if (!body.info || canonical(to_json(*body.info)) != canonical(to_json(info))) {
    body.info = info;
    record.body = to_json(body);
    passed_.erase(key.text());  // what did not fit may fit now
    Transaction t;
    t.records.push_back({record.revision, record});
    GBX_TRY(commit(t));
  }
  return lease_for(key.text(), {});
}

Result<records::NodeLease> Core::heartbeat(const crypto::PublicKey& key,
                                           const records::Heartbeat& beat) {
  const Lock lock(mutex_);
  GBX_TRY(find_node(key));
  GBX_TRY(find_missing(key.text(), beat.running));
  return lease_for(key.text(), beat.running);
}

// A node that was started again is alive and has nothing of what it ran before.
Status Core::find_missing(const std::string& node,
                          const std::vector<records::RunningAttempt>& running) {
  MachineQuery q;
  q.kind = "env";
  q.node = node;
  q.live = true;
  q.limit = 4096;
  GBX_ASSIGN(std::vector<Machine> live, store_.machines(q));
  for (const Machine& env : live) {
    // not begun, or its first word was lost
    if (env.state == enum_name(EnvironmentState::kRequested)) continue;
    const bool named = std::any_of(running.begin(), running.end(), [&](const auto& r) {
      return environment_machine(r.job_id, r.attempt) == env.id;
    });
    if (named) {
      missing_ms_.erase(env.id);
      continue;
    }
    const std::int64_t since = missing_ms_.try_emplace(env.id, patience_ms()).first->second;
    if (patience_ms() - since >= config_.missing_seconds * 1000) {
      GBX_TRY(lose(env, Reason::kLost, "the node no longer runs it"));
    }
  }
  return ok_status();
}

Result<records::LaunchBundle> Core::bundle(const JobBody& job,
                                           const Signed<records::Credential>& credential) {
  records::LaunchBundle b;
  b.launch_config = {config_.set_id, keys_.set_key.text()};
  b.set = config_.set;
  b.submission = job.submission;
  b.plan = *job.plan;
  b.credential = credential;
  std::set<Hash32> owners;
  for (const auto& p : job.plan->body.policies) {
    GBX_ASSIGN(std::optional<Record> record, store_.record("asset", to_hex(p.asset_version_id)));
    if (!record) return fail(Reason::kNotFound, "asset version of the plan");
    GBX_ASSIGN(AssetBody asset, from_json<AssetBody>(record->body));
    b.versions.push_back(asset.record);
    GBX_ASSIGN(const records::IdentityChain owner, newest_chain(asset.owner));
    if (owners.insert(owner.id()).second) b.owners.push_back(owner);
    GBX_ASSIGN(api::PolicyView policy_view, policy(p.policy_hash));
    b.policies.push_back(policy_view.policy);
  }
  return b;
}

Result<std::optional<records::LaunchBundle>> Core::ready_assignment(const std::string& node) {
  MachineQuery q;
  q.kind = "env";
  q.node = node;
  q.live = true;
  q.state = std::string(enum_name(EnvironmentState::kRequested));
  q.limit = 1024;
  GBX_ASSIGN(std::vector<Machine> rows, store_.machines(q));
  for (const Machine& env : rows) {
    GBX_ASSIGN(EnvironmentBody e, from_json<EnvironmentBody>(env.body));
    if (!e.credential) continue;
    const auto handed = handed_ms_.find(env.id);
    if (handed != handed_ms_.end() && patience_ms() - handed->second < kHandAgainMs) continue;
    GBX_ASSIGN(Machine job, need_machine(job_machine(e.job_id), "job"));
    if (!job.live) continue;  // its start deadline ends it
    GBX_ASSIGN(JobBody body, from_json<JobBody>(job.body));
    GBX_ASSIGN(records::LaunchBundle b, bundle(body, *e.credential));
    handed_ms_[env.id] = patience_ms();
    return std::optional<records::LaunchBundle>(std::move(b));
  }
  return std::optional<records::LaunchBundle>();
}

Status Core::begin_attempt(Machine job, JobBody body, const std::string& node,
                           const std::string& node_name) {
  body.attempts += 1;
  const Hash32 job_id = body.submission.submission.body.job_id();
  Transaction t;
  GBX_TRY(step_job(t, job, body, JobEvent::kPlace, nullptr));
  EnvironmentBody e;
  e.job_id = job_id;
  e.attempt = body.attempts;
  e.node_name = node_name;
  Machine env;
  env.id = environment_machine(job_id, e.attempt);
  env.kind = "env";
  env.owner = job.owner;
  env.node = node;
  env.deadline_ms = patience_ms() + body.submission.submission.body.spec.spec.timeouts.start * 1000;
  env.body = to_json(e);
  const auto first = machines::begin_environment();
  machines::add_begin(t, env, enum_name(first.state), first.effects, now_ms());
  return commit(t);
}

// Whether a node could ever run a job changes only with what the node registers: so no poll looks
// at a misfit twice.
Result<bool> Core::place(const std::string& node, const NodeBody& node_body) {
  GBX_ASSIGN(std::vector<Machine> here, occupants(node));
  const records::NodeInfo& lends = *node_body.info;
  if (std::count_if(here.begin(), here.end(), [](const Machine& env) { return env.live; }) >=
      lends.slots) {
    return false;
  }
  MachineQuery queue;
  queue.kind = "job";
  queue.state = std::string(enum_name(JobState::kAuthorized));
  queue.limit = kPlacementWindow;
  queue.max_bytes = kPlacementBytes;
  if (const auto passed = passed_.find(node); passed != passed_.end()) queue.after = passed->second;
  GBX_ASSIGN(std::vector<Machine> waiting, store_.machines(queue));
  for (Machine& job : waiting) {
    GBX_ASSIGN(JobBody body, from_json<JobBody>(job.body));
    bool fit = !body.awaiting_output && body.plan;
    std::int64_t bytes = 0;
    if (fit) {
      GBX_ASSIGN(const Need need, planned_need(lends, body));
      fit = fits(lends, node, need).ok();
      bytes = taken_bytes(lends, need);
    }
    if (!fit) {
      passed_[node] = {job.created_ms, job.id};
      continue;
    }
    // A further attempt may take the room of the one before, which is not told of either.
    const Hash32 id = body.submission.submission.body.job_id();
    std::erase_if(here, [&](const Machine& env) {
      return !env.live && body.attempts > 0 && env.id == environment_machine(id, body.attempts);
    });
    GBX_ASSIGN(const std::int64_t in_use, memory_of(lends, here));
    // It waits for what runs here to end; younger jobs do not overtake it for ever.
    if (static_cast<std::int64_t>(here.size()) >= lends.slots ||
        bytes > lends.memory_bytes - in_use) {
      return false;
    }
    GBX_TRY(begin_attempt(std::move(job), std::move(body), node, node_body.name));
    return false;
  }
  return !waiting.empty();
}

void Core::look_again_at(const Machine& job) {
  for (auto& [node, passed] : passed_) {
    passed = std::min(passed, std::pair(job.created_ms, std::string()));
  }
}

Result<std::optional<records::LaunchBundle>> Core::poll(const crypto::PublicKey& key) {
  const std::string node = key.text();
  for (int page = 0; page < kPlacementPages; ++page) {
    const Lock lock(mutex_);  // anew for each page: a long queue keeps nobody else waiting
    GBX_ASSIGN(auto found, find_node(key));
    if (!found.second.info) {
      return fail(Reason::kWrongState, "a node registers before it asks for work");
    }
    last_seen_ms_[node] = patience_ms();
    GBX_ASSIGN(std::optional<records::LaunchBundle> ready, ready_assignment(node));
    if (ready) return ready;
    GBX_ASSIGN(const bool more, place(node, found.second));
    if (!more) break;
  }
  return std::optional<records::LaunchBundle>();
}

Result<std::vector<Machine>> Core::occupants(const std::string& node) {
  MachineQuery q;
  q.kind = "env";
  q.node = node;
  q.live = true;
  q.limit = 4096;
  GBX_ASSIGN(std::vector<Machine> out, store_.machines(q));
  GBX_ASSIGN(std::vector<Machine> ended, held(q));
  std::move(ended.begin(), ended.end(), std::back_inserter(out));
  return out;
}

Result<std::vector<Machine>> Core::held(MachineQuery q) {
  q.live = false;
  q.deadline_until_ms = std::numeric_limits<std::int64_t>::max();
  q.limit = 4096;
  GBX_ASSIGN(std::vector<Machine> ended, store_.machines(q));
  // What is further ahead than any slot was written by a clock that has been set back since.
  std::erase_if(ended, [now = now_ms()](const Machine& m) {
    return m.deadline_ms <= now || m.deadline_ms > now + kLongestSlotMs;
  });
  return ended;
}

std::int64_t Core::told_at_ms(const JobBody& job) const {
  const std::int64_t slot = job.plan ? job.plan->body.gate.release_slot_seconds : 0;
  return slot == 0 ? 0 : slot_end(now_ms(), slot * 1000);
}

Result<std::optional<std::int64_t>> Core::room_at_ms(const crypto::PublicKey& key) {
  const Lock lock(mutex_);
  GBX_ASSIGN(const std::vector<Machine> here, occupants(key.text()));
  std::optional<std::int64_t> first;
  for (const Machine& env : here) {
    if (!env.live && (!first || env.deadline_ms < *first)) first = env.deadline_ms;
  }
  return first;
}

// From the moment a container could read data, its end is its own choice. Who waits for the room
// would see it: the consumer, in another job of theirs. So the room is free at the end of the
// owners' release slot, whoever ended the run.
Result<std::int64_t> Core::room_until_ms(const Machine& env, const JobBody& job) const {
  GBX_ASSIGN(const EnvironmentState state, enum_from<EnvironmentState>(env.state));
  const bool loaded = state == EnvironmentState::kLoaded || state == EnvironmentState::kWorking ||
                      state == EnvironmentState::kSealed;
  return loaded ? told_at_ms(job) : 0;
}

Result<Machine> Core::own_environment(const std::string& node, const Hash32& job_id,
                                      std::int64_t attempt) {
  GBX_ASSIGN(std::optional<Machine> env, store_.machine(environment_machine(job_id, attempt)));
  // Another node's attempt and none at all are the same to this one.
  if (!env || env->node != node) return fail(Reason::kNotFound, "this node has no such attempt");
  return std::move(*env);
}

Status Core::end_environment(Transaction& t, Machine& env, EnvironmentEvent event, Reason reason,
                             const std::string& detail) {
  GBX_ASSIGN(EnvironmentBody e, from_json<EnvironmentBody>(env.body));
  GBX_ASSIGN(const Machine job, need_machine(job_machine(e.job_id), "job"));
  GBX_ASSIGN(const JobBody job_body, from_json<JobBody>(job.body));
  e.reason = std::string(reason_code(reason));
  e.detail = detail;
  e.ended_ms = patience_ms();
  env.body = to_json(e);
  return step_environment(t, env, job_body, event, e.reason, detail);
}

Status Core::step_environment(Transaction& t, Machine& env, const JobBody& job,
                              EnvironmentEvent event, const std::string& reason,
                              const std::string& detail) {
  GBX_ASSIGN(const EnvironmentState state, enum_from<EnvironmentState>(env.state));
  GBX_ASSIGN(auto next, machines::step(state, event));
  const bool over = machines::terminal(next.state);
  if (over) {
    GBX_ASSIGN(env.deadline_ms, room_until_ms(env, job));
    handed_ms_.erase(env.id);
    missing_ms_.erase(env.id);
  }
  machines::add_step(t, env, enum_name(event), enum_name(next.state), !over, next.effects, now_ms(),
                     reason, detail);
  return ok_status();
}

// The attempt is over without an output. Only the job's present attempt moves the job.
Status Core::end_attempt(Transaction& t, Machine& env, EnvironmentEvent event, Reason reason,
                         std::string detail) {
  GBX_TRY(end_environment(t, env, event, reason, detail));
  GBX_ASSIGN(const EnvironmentBody e, from_json<EnvironmentBody>(env.body));
  GBX_ASSIGN(Machine job, need_machine(job_machine(e.job_id), "job"));
  GBX_ASSIGN(JobBody body, from_json<JobBody>(job.body));
  if (job.state != enum_name(JobState::kRunning) || body.attempts != e.attempt) return ok_status();
  const std::int64_t allowed = std::min(body.submission.submission.body.spec.spec.attempts,
                                        body.plan ? body.plan->body.attempts : 1);
  // A node that died with its agent's attestation behind it and started again offers the same
  // credential: spent for this attempt, and another attempt gets its own.
  const bool again = passing(reason) || reason == Reason::kCredentialUsed;
  if (again && e.attempt < allowed) return step_job(t, job, body, JobEvent::kRetry, nullptr);
  if (detail.empty()) {
    detail = reason == Reason::kOutputInvalid
                 ? "the gate failed: it gave no verdict that holds, so no output was sealed"
                 : "the attempt ended without an output";
  }
  const Error why = fail(reason, detail);
  return step_job(t, job, body,
                  reason == Reason::kPolicyRevoked ? JobEvent::kRevoke : JobEvent::kFail, &why);
}

Status Core::lose(const Machine& env, Reason reason, std::string detail) {
  Machine copy = env;
  Transaction t;
  GBX_TRY(end_attempt(t, copy, EnvironmentEvent::kLose, reason, std::move(detail)));
  return commit(t);
}

Result<records::PhaseReply> Core::phase(const crypto::PublicKey& key,
                                        const records::PhaseReport& report) {
  const Lock lock(mutex_);
  const std::string node = key.text();
  GBX_TRY(find_node(key));
  last_seen_ms_[node] = patience_ms();
  GBX_ASSIGN(Machine env, own_environment(node, report.job_id, report.attempt));
  GBX_ASSIGN(Machine job, need_machine(job_machine(report.job_id), "job"));
  if (!env.live) {
    GBX_ASSIGN(const bool stop, superfluous(env));
    return records::PhaseReply{stop};
  }
  const std::optional<EnvironmentEvent> event = event_of(report.phase);
  GBX_ASSIGN(const EnvironmentState state, enum_from<EnvironmentState>(env.state));
  const auto next = event ? machines::step(state, *event) : fail(Reason::kWrongState);
  const bool sealed = state == EnvironmentState::kSealed;
  // late or doubled: said before
  if (!event || !next.ok()) return records::PhaseReply{!job.live && !sealed};
  Transaction t;
  // Destroyed before its output got here: the node goes on trying to hand it in.
  const bool awaited =
      job.state == enum_name(JobState::kRunning) || job.state == enum_name(JobState::kAuthorized);
  if (*event == EnvironmentEvent::kDestroy && sealed && awaited && report.reason.empty()) {
    return records::PhaseReply{false};
  }
  const bool over = *event == EnvironmentEvent::kDestroy || *event == EnvironmentEvent::kLose;
  if (over) {
    Reason reason = Reason::kJobFailed;
    if (!reason_from_code(report.reason, &reason)) {
      reason = sealed ? Reason::kLost : Reason::kJobFailed;
    }
    GBX_TRY(end_attempt(t, env, *event, reason, printable(report.detail, 400)));
  } else {
    GBX_ASSIGN(JobBody body, from_json<JobBody>(job.body));
    if (*event == EnvironmentEvent::kWork) {
      const std::int64_t run =
          body.submission.submission.body.spec.spec.timeouts.run + config_.run_grace_seconds;
      env.deadline_ms = patience_ms() + run * 1000;
    }
    if (*event == EnvironmentEvent::kSeal) {
      env.deadline_ms = patience_ms() + config_.run_grace_seconds * 1000;
    }
    machines::add_step(t, env, enum_name(*event), enum_name(next->state), true, next->effects,
                       now_ms(), {}, {});
  }
  GBX_TRY(commit(t));
  return records::PhaseReply{!job.live && *event != EnvironmentEvent::kSeal};
}

Status Core::accept_output(const records::OutputUpload& upload, const Machine& env_row, Machine job,
                           std::int64_t size, const Hash32& content) {
  GBX_ASSIGN(JobBody body, from_json<JobBody>(job.body));
  Transaction t;
  GBX_TRY(step_job(t, job, body, JobEvent::kSeal, nullptr));
  Machine env = env_row;
  if (env.live) {
    env.deadline_ms = patience_ms() + config_.destroy_seconds * 1000;
    GBX_ASSIGN(const EnvironmentState state, enum_from<EnvironmentState>(env.state));
    GBX_ASSIGN(EnvironmentBody e, from_json<EnvironmentBody>(env.body));
    const EnvironmentEvent event =
        e.destroyed ? EnvironmentEvent::kDestroy : EnvironmentEvent::kSeal;
    if (machines::step(state, event).ok()) {
      GBX_TRY(step_environment(t, env, body, event));
    } else {
      t.touches.push_back({env.seq, env});
    }
  }
  // An attempt begun meanwhile is superfluous: the broker takes one seal only.
  for (std::int64_t n = upload.attempt + 1; n <= body.attempts; ++n) {
    GBX_ASSIGN(std::optional<Machine> other, store_.machine(environment_machine(upload.job_id, n)));
    if (!other || !other->live) continue;
    GBX_TRY(end_environment(t, *other, EnvironmentEvent::kLose, Reason::kCredentialSuperseded,
                            "another attempt had sealed its output"));
  }
  OutputBody o;
  o.job_id = upload.job_id;
  o.attempt = upload.attempt;
  o.manifest = upload.ack.body.manifest;
  o.content = content;
  o.size_bytes = size;
  o.sealed_at = upload.ack.body.time;
  Machine out;
  out.id = output_machine(upload.job_id);
  out.kind = "out";
  out.owner = job.owner;
  out.body = to_json(o);
  const auto first = machines::begin_output();
  machines::add_begin(t, out, enum_name(first.state), first.effects, now_ms());
  return commit(t);
}

Status Core::output(const crypto::PublicKey& key, const records::OutputUpload& upload) {
  // A node's own word would end the attempt that another node has begun since.
  const records::SealAck& ack = upload.ack.body;
  GBX_TRY(upload.ack.verify(config_.set_id, keys_.signing));
  if (ack.job_id != upload.job_id || ack.attempt != upload.attempt) {
    return fail(Reason::kOutputRefused, "the broker acknowledged the seal of another attempt")
        .with(environment_machine(upload.job_id, upload.attempt),
              environment_machine(ack.job_id, ack.attempt));
  }
  const std::string stored = canonical(to_json(upload.output));
  const Hash32 content = crypto::sha256(as_bytes(stored));
  // Everybody waits for the lock, and a disk can take seconds for 22 MiB: they are written between
  // two looks, the second of which counts. What is refused then stays on the shelf, of which there
  // can be as much as this node has attempts, times the calls that it makes at one time.
  {
    const Lock lock(mutex_);
    GBX_ASSIGN(const OutputPlace place, place_for(key, upload, content));
    if (place.there) return ok_status();
  }
  GBX_TRY(shelf_.put(to_hex(content), as_bytes(stored)));
  const Lock lock(mutex_);
  GBX_ASSIGN(OutputPlace place, place_for(key, upload, content));
  if (place.there) return ok_status();
  return accept_output(upload, place.env, std::move(place.job),
                       static_cast<std::int64_t>(stored.size()), content);
}

Result<Core::OutputPlace> Core::place_for(const crypto::PublicKey& key,
                                          const records::OutputUpload& upload,
                                          const Hash32& content) {
  const std::string node = key.text();
  GBX_TRY(find_node(key));
  last_seen_ms_[node] = patience_ms();
  OutputPlace place;
  GBX_ASSIGN(place.env, own_environment(node, upload.job_id, upload.attempt));
  GBX_ASSIGN(place.job, need_machine(job_machine(upload.job_id), "job"));
  GBX_ASSIGN(std::optional<Machine> existing, store_.machine(output_machine(upload.job_id)));
  if (existing) {
    GBX_ASSIGN(OutputBody o, from_json<OutputBody>(existing->body));
    place.there = o.attempt == upload.attempt && o.content == content &&
                  o.manifest == upload.ack.body.manifest;
    if (place.there) return place;
    return fail(Reason::kConflict, "this job has an output already");
  }
  const std::string& state = place.job.state;
  if (state != enum_name(JobState::kRunning) && state != enum_name(JobState::kAuthorized)) {
    return fail(Reason::kWrongState, "this job takes no output any more").with("Running", state);
  }
  return place;
}

// A claim goes into the receipt, beside the acknowledged seal and a decision that is asked for at
// the end of the slot in which it came (judge_at_ms). A claim for another slot would tell its
// reader near which end of a slot the run ended: signed before that end and here after it, or by a
// clock that differs from this one or, of the seal, the broker's.
Status Core::same_slot(const records::DestroyedClaim& claim) {
  GBX_ASSIGN(const Machine job, need_machine(job_machine(claim.job_id), "job"));
  GBX_ASSIGN(const JobBody body, from_json<JobBody>(job.body));
  std::int64_t slot = told_at_ms(body) / 1000;
  if (slot == 0) return ok_status();
  GBX_ASSIGN(const auto out, store_.machine(output_machine(claim.job_id)));
  if (out) {
    GBX_ASSIGN(const OutputBody o, from_json<OutputBody>(out->body));
    if (o.attempt == claim.attempt) slot = std::max(slot, o.sealed_at);
  }
  if (slot == claim.time) return ok_status();
  return fail(Reason::kUnavailable, "the claim of destruction is for another release slot")
      .with(format_time(slot), format_time(claim.time))
      .hint("the node signs it again; if that goes on, set the clocks of node, plane and broker");
}

Status Core::destroyed(const crypto::PublicKey& key, const Signed<records::DestroyedClaim>& claim) {
  const Lock lock(mutex_);
  const std::string node = key.text();
  GBX_TRY(find_node(key));
  last_seen_ms_[node] = patience_ms();
  GBX_TRY(claim.verify(config_.set_id, key));
  GBX_ASSIGN(Machine env, own_environment(node, claim.body.job_id, claim.body.attempt));
  GBX_ASSIGN(EnvironmentBody e, from_json<EnvironmentBody>(env.body));
  if (e.destroyed) return ok_status();
  GBX_TRY(same_slot(claim.body));
  e.destroyed = claim;
  env.body = to_json(e);
  Transaction t;
  if (!env.live) {
    t.touches.push_back({env.seq, env});
  } else {
    GBX_ASSIGN(Machine job, need_machine(job_machine(claim.body.job_id), "job"));
    GBX_ASSIGN(const EnvironmentState state, enum_from<EnvironmentState>(env.state));
    const bool delivered =
        state == EnvironmentState::kSealed && job.state != enum_name(JobState::kRunning);
    if (delivered) {
      GBX_ASSIGN(const JobBody body, from_json<JobBody>(job.body));
      GBX_TRY(step_environment(t, env, body, EnvironmentEvent::kDestroy));
    } else if (state == EnvironmentState::kSealed) {
      t.touches.push_back({env.seq, env});  // the output is still on its way
    } else {
      GBX_TRY(end_attempt(t, env, EnvironmentEvent::kDestroy, Reason::kJobFailed,
                          "destroyed without a sealed output"));
    }
  }
  return commit(t);
}

// What ended and held its place until that could be told holds it no longer.
Status Core::forget_holds(const char* kind) {
  MachineQuery over;
  over.kind = kind;
  over.live = false;
  over.deadline_until_ms = now_ms();
  over.max_bytes = kTickBytes;
  GBX_ASSIGN(std::vector<Machine> ended, store_.machines(over));
  Transaction t;
  for (Machine& m : ended) {
    m.deadline_ms = 0;
    t.touches.push_back({m.seq, std::move(m)});
  }
  return commit(t);
}

void Core::was_away() {
  const Lock lock(mutex_);
  listening_since_ms_ = patience_ms();
}

namespace {

// The first failure of several steps, of which none keeps the others from being tried.
class FirstFailure {
 public:
  void of(const Status& s) {
    if (!s.ok() && first_.ok()) first_ = s;
  }
  const Status& status() const { return first_; }

 private:
  Status first_ = ok_status();
};

}  // namespace

// Each of what `q` finds on its own. A page of nothing but failures would stand before all others
// for ever: so where one failed, the next page is looked at, too.
Status Core::for_each(MachineQuery q, const std::function<Status(Machine&)>& step) {
  FirstFailure failure;
  for (;;) {
    const auto found = store_.machines(q);
    failure.of(found.ok() ? ok_status() : Status(found.error()));
    if (!found.ok()) return failure.status();
    bool failed = false;
    for (Machine m : *found) {
      q.after = std::pair(q.deadline_until_ms ? m.deadline_ms : m.created_ms, m.id);
      const std::string id = m.id;
      Status s = step(m);
      if (s.ok()) continue;
      failed = true;
      failure.of(s.error().at(id));
    }
    if (!failed || found->empty()) return failure.status();
  }
}

Status Core::expire_job(Machine& job, bool nodes_may_report) {
  GBX_ASSIGN(JobBody body, from_json<JobBody>(job.body));
  if (body.awaiting_output && !nodes_may_report) return ok_status();
  const Error why =
      body.awaiting_output
          ? fail(Reason::kLost, "an attempt sealed its output, and its node never handed it in")
          : fail(Reason::kTimedOut, "no node took the job in time")
                .hint("raise spec.timeouts.queue, or look at: glovebox node list");
  Transaction t;
  GBX_TRY(step_job(t, job, body, JobEvent::kExpire, &why));
  return commit(t);
}

Status Core::lose_late(const Machine& env) {
  return lose(env, Reason::kTimedOut,
              env.state == enum_name(EnvironmentState::kSealed) ? "no claim of destruction"
              : env.state == enum_name(EnvironmentState::kWorking)
                  ? "ran longer than spec.timeouts.run"
                  : "did not start within spec.timeouts.start");
}

Status Core::lose_silent(const Machine& env) {
  const auto seen = last_seen_ms_.find(env.node);
  const std::int64_t last =
      std::max(seen == last_seen_ms_.end() ? 0 : seen->second, listening_since_ms_);
  if (patience_ms() - last <= config_.lease_seconds * 1000) return ok_status();
  return lose(env, Reason::kLost, "the node is silent");
}

// Whatever fails keeps nothing else waiting: one row that cannot be read would stop all deadlines.
Status Core::tick() {
  const Lock lock(mutex_);
  FirstFailure failure;
  failure.of(remember());
  const std::int64_t now = patience_ms();
  // While this plane was away nobody could hand anything in: what nodes owe is not late before they
  // had a lease's time.
  const bool nodes_may_report = now - listening_since_ms_ >= config_.lease_seconds * 1000;
  MachineQuery overdue;
  overdue.kind = "job";
  overdue.live = true;
  overdue.deadline_until_ms = now;
  overdue.max_bytes = kTickBytes;  // what is left then is seen to a second later
  failure.of(for_each(overdue, [&](Machine& job) { return expire_job(job, nodes_may_report); }));
  overdue.kind = "env";
  if (nodes_may_report) failure.of(for_each(overdue, [&](Machine& env) { return lose_late(env); }));
  for (const char* kind : {"job", "env"}) failure.of(forget_holds(kind));
  MachineQuery live;
  live.kind = "env";
  live.live = true;
  live.max_bytes = kTickBytes;
  // These stay in the query, so it is read to its end.
  for (bool more = true; more;) {
    more = false;
    failure.of(for_each(live, [&](Machine& env) {
      more = true;
      live.after = std::pair(env.created_ms, env.id);
      return lose_silent(env);
    }));
  }
  return failure.status();
}

}  // namespace gbx::plane
