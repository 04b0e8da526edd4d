// Core: the outbox. Each effect is a question to the broker; each answer is a step, checked against
// the state as it is when the answer comes, so that doubled, late and repeated answers change
// nothing.
#include <algorithm>
#include <map>

#include "base/log.h"
#include "plane/core/core.h"
#include "policy/decision.h"

namespace gbx::plane {

using machines::Effect;
using machines::EffectKind;
using machines::EnvironmentEvent;
using machines::EnvironmentState;
using machines::JobEvent;
using machines::JobState;
using machines::OutputEvent;
using machines::OutputState;
using machines::Record;
using machines::RecordWrite;

namespace {
constexpr std::int64_t kFirstRetryMs = 100;
constexpr std::int64_t kLastRetryMs = 30'000;
constexpr std::int64_t kLookAgainMs = 60'000;
// after a hold ran out and the broker still says held
constexpr std::int64_t kHoldOverdueMs = 60'000;

Effect at(Effect effect, std::int64_t due_ms) {
  effect.due_ms = due_ms;
  return effect;
}

bool has_reason(const records::Release& release, Reason reason) {
  const auto& reasons = release.statement.body.reasons;
  return std::count(reasons.begin(), reasons.end(), std::string(reason_code(reason))) != 0;
}
}  // namespace

Result<std::vector<Effect>> Core::due(std::size_t limit) {
  return store_.due(patience_ms(), limit);
}
Result<std::optional<std::int64_t>> Core::next_due_ms() { return store_.next_due_ms(); }

Status Core::done(const Effect& effect) {
  Transaction t;
  t.done.push_back(effect.key);
  return commit(t);
}

Status Core::postpone(const Effect& effect) {
  const Lock lock(mutex_);
  return later(effect);
}

Status Core::later(const Effect& effect) {
  Transaction t;
  const std::int64_t shift = std::min<std::int64_t>(effect.tries, 10);
  t.postponed.push_back(at(effect, patience_ms() + std::min(kLastRetryMs, kFirstRetryMs << shift)));
  t.postponed.back().tries += 1;
  return commit(t);
}

// The first decision is told with the whole end of the run (sight.h): so it falls on the end of the
// slot in which the last of that came, the output or what ended the environment. 0: at once.
Result<std::int64_t> Core::judge_at_ms(const Machine& out, const OutputBody& o) {
  if (out.state != enum_name(OutputState::kSealed)) return 0;
  GBX_ASSIGN(const Machine job, need_machine(job_machine(o.job_id), "job"));
  GBX_ASSIGN(const JobBody body, from_json<JobBody>(job.body));
  const std::int64_t slot = body.plan ? body.plan->body.gate.release_slot_seconds : 0;
  if (slot == 0) return 0;
  GBX_ASSIGN(const Machine env,
             need_machine(environment_machine(o.job_id, o.attempt), "environment"));
  const std::int64_t ended = env.live ? now_ms() + 1 : env.updated_ms;
  return slot_end(std::max(ended, out.created_ms), slot * 1000);
}

Status Core::judge_later(const Effect& effect, Machine out, OutputBody o, std::int64_t at_ms) {
  o.decide_at = at_ms / 1000;
  out.body = to_json(o);
  Transaction t;
  t.touches.push_back({out.seq, std::move(out)});
  // To the millisecond, where that is to come: later would tell how much later the run had ended.
  // Until then it is looked at again and again, for the clock may be set.
  const std::int64_t wait =
      at_ms > now_ms() ? std::min(at_ms - now_ms(), kLookAgainMs) : kFirstRetryMs;
  t.postponed.push_back(at(effect, patience_ms() + wait));
  return commit(t);
}

Result<std::optional<BrokerCall>> Core::prepare(const Effect& effect) {
  const Lock lock(mutex_);
  using Call = std::optional<BrokerCall>;
  GBX_ASSIGN(Machine m, need_machine(effect.key.machine, "machine"));
  switch (effect.key.kind) {
    case EffectKind::kAskAuthorise: {
      if (m.state != enum_name(JobState::kSubmitted)) break;
      GBX_ASSIGN(JobBody body, from_json<JobBody>(m.body));
      return Call(BrokerCall{std::string(records::method::kAuthorise), to_json(body.submission)});
    }
    case EffectKind::kAskCredential: {
      GBX_ASSIGN(EnvironmentBody e, from_json<EnvironmentBody>(m.body));
      if (e.credential) break;
      // The broker counts attempts, too: of one that was lost before, it hears all the same.
      if (m.state != enum_name(EnvironmentState::kRequested)) {
        GBX_ASSIGN(const Machine job, need_machine(job_machine(e.job_id), "job"));
        if (!job.live) break;
      }
      const records::CredentialRequest request{e.job_id, e.attempt};
      return Call(BrokerCall{std::string(records::method::kCredential), to_json(request)});
    }
    case EffectKind::kAskJudge: {
      if (!m.live) break;
      GBX_ASSIGN(OutputBody o, from_json<OutputBody>(m.body));
      GBX_ASSIGN(const std::int64_t at, judge_at_ms(m, o));
      if (at > now_ms()) {
        GBX_TRY(judge_later(effect, std::move(m), std::move(o), at));
        return Call();
      }
      return Call(
          BrokerCall{std::string(records::method::kJudge), to_json(records::JobRequest{o.job_id})});
    }
    case EffectKind::kAskReceipt: {
      // For a job that was cancelled just before its decision came, too: it is charged for.
      GBX_ASSIGN(OutputBody o, from_json<OutputBody>(m.body));
      return Call(BrokerCall{std::string(records::method::kReceipt),
                             to_json(records::JobRequest{o.job_id})});
    }
    case EffectKind::kAskCancel: {
      GBX_ASSIGN(JobBody body, from_json<JobBody>(m.body));
      if (!body.cancel) break;
      return Call(BrokerCall{std::string(records::method::kCancel), to_json(*body.cancel)});
    }
    case EffectKind::kOffer:
      break;  // the commit below wakes whoever waits in wait()
  }
  GBX_TRY(done(effect));
  return Call();
}

Status Core::finish(const Effect& effect, const Result<Json>& reply) {
  const Lock lock(mutex_);
  // An answer to a question that was meanwhile settled still has to leave the outbox.
  switch (effect.key.kind) {
    case EffectKind::kAskAuthorise:
      return take_plan(effect, reply);
    case EffectKind::kAskCredential:
      return take_credential(effect, reply);
    case EffectKind::kAskJudge:
      return take_judgement(effect, reply);
    case EffectKind::kAskReceipt:
      return take_receipt(effect, reply);
    case EffectKind::kAskCancel:
      if (!reply.ok() && passing(reply.reason())) return later(effect);
      return done(effect);
    case EffectKind::kOffer:
      return done(effect);
  }
  return ok_status();
}

Status Core::take_plan(const Effect& effect, const Result<Json>& reply) {
  GBX_ASSIGN(Machine m, need_machine(effect.key.machine, "job"));
  if (m.state != enum_name(JobState::kSubmitted)) return done(effect);
  if (!reply.ok() && passing(reply.reason())) return later(effect);
  GBX_ASSIGN(JobBody body, from_json<JobBody>(m.body));
  Transaction t;
  t.done.push_back(effect.key);
  Error why = reply.error();
  if (reply.ok()) {
    auto plan = from_json<Signed<records::RunPlan>>(*reply);
    Status good = plan.ok() ? plan->verify(config_.set_id, keys_.signing) : Status(plan.error());
    if (good.ok() && plan->body.job_id != body.submission.submission.body.job_id()) {
      good = fail(Reason::kPlanMismatch, "the broker's plan is for another job");
    }
    if (good.ok()) {
      body.plan = std::move(*plan);
      GBX_TRY(step_job(t, m, body, JobEvent::kAuthorise, nullptr));
      return commit(t);
    }
    why = good.error().at("the broker's plan");
  }
  GBX_TRY(step_job(t, m, body,
                   why.reason == Reason::kPolicyRevoked ? JobEvent::kRevoke : JobEvent::kDeny,
                   &why));
  return commit(t);
}

Status Core::take_credential(const Effect& effect, const Result<Json>& reply) {
  GBX_ASSIGN(Machine env, need_machine(effect.key.machine, "environment"));
  GBX_ASSIGN(EnvironmentBody e, from_json<EnvironmentBody>(env.body));
  // Asked before the attempt ahead of it, whose question is still in the outbox.
  const bool too_early = reply.reason() == Reason::kSequenceMismatch;
  if (!reply.ok() && (too_early || passing(reply.reason()))) return later(effect);
  if (env.state != enum_name(EnvironmentState::kRequested) || e.credential) return done(effect);
  Transaction t;
  t.done.push_back(effect.key);
  GBX_ASSIGN(Machine job, need_machine(job_machine(e.job_id), "job"));
  GBX_ASSIGN(JobBody body, from_json<JobBody>(job.body));
  Error why = reply.error();
  if (reply.ok()) {
    auto credential = from_json<Signed<records::Credential>>(*reply);
    Status good = credential.ok() ? credential->verify(config_.set_id, keys_.signing)
                                  : Status(credential.error());
    if (good.ok() &&
        (credential->body.job_id != e.job_id || credential->body.attempt != e.attempt ||
         !body.plan || credential->body.plan_hash != body.plan->hash())) {
      good = fail(Reason::kCredentialForeign, "the broker's credential is for something else");
    }
    if (good.ok()) {
      e.credential = std::move(*credential);
      env.body = to_json(e);
      t.touches.push_back({env.seq, env});
      return commit(t);
    }
    why = good.error();
  }
  // A refusal of the broker ends the job, not just the attempt: asking again would be refused
  // again.
  GBX_TRY(end_environment(t, env, EnvironmentEvent::kLose, why.reason, printable(why.what, 400)));
  if (job.state == enum_name(JobState::kRunning) && body.attempts == e.attempt) {
    if (why.reason == Reason::kWrongState && e.attempt > 1) {
      // The attempt before, believed lost, had sealed: no further one can, but its node may still
      // hand the output in.
      body.awaiting_output = true;
      GBX_TRY(step_job(t, job, body, JobEvent::kRetry, nullptr));
      return commit(t);
    }
    const bool denied =
        exit_class(why.reason) == ExitClass::kDenied && why.reason != Reason::kWrongState;
    const JobEvent event = why.reason == Reason::kPolicyRevoked ? JobEvent::kRevoke
                           : denied                             ? JobEvent::kDeny
                                                                : JobEvent::kFail;
    GBX_TRY(step_job(t, job, body, event, &why));
  }
  return commit(t);
}

Status Core::fail_reviewing(const Effect& effect, const Hash32& job_id, const Error& why) {
  GBX_ASSIGN(Machine job, need_machine(job_machine(job_id), "job"));
  GBX_ASSIGN(Machine out, need_machine(output_machine(job_id), "output"));
  Transaction t;
  t.done.push_back(effect.key);
  if (out.live) {
    GBX_ASSIGN(const OutputBody o, from_json<OutputBody>(out.body));
    GBX_TRY(clear_desks(t, o));
    machines::add_step(t, out, enum_name(OutputEvent::kExpire), enum_name(OutputState::kExpired),
                       false, {}, now_ms(), std::string(reason_code(why.reason)), why.what);
  }
  if (job.live) {
    GBX_ASSIGN(JobBody body, from_json<JobBody>(job.body));
    GBX_TRY(step_job(t, job, body, JobEvent::kFail, &why));
  }
  return commit(t);
}

// One judgement upon one output. `t` holds what goes with it (the effect that asked).
Status Core::judge(const std::string& output_id, const records::Judgement& j, Transaction t) {
  GBX_ASSIGN(Machine out, need_machine(output_id, "output"));
  if (!out.live) return commit(t);
  GBX_ASSIGN(OutputBody o, from_json<OutputBody>(out.body));
  const auto reason = [](const char* what) { return fail(Reason::kOutputRefused, what); };
  if (j.state == records::JudgementState::kHeld) {
    if (out.state == enum_name(OutputState::kHeld)) return commit(t);
    if (!j.hold_notice) return fail(Reason::kBadStructure, "held without a notice");
    GBX_TRY(j.hold_notice->verify(config_.set_id, keys_.signing));
    if (j.hold_notice->body.manifest != o.manifest) {
      return reason("the broker holds another output than the node handed in");
    }
    if (!j.run_statement) return fail(Reason::kBadStructure, "held without a run statement");
    if (hash_of(j.run_statement->body.manifest) != o.manifest) {
      return reason("the broker's run statement is of another output");
    }
    o.hold_notice = j.hold_notice;
    o.preview_keys = j.preview_keys;
    o.run_statement = j.run_statement;
    GBX_TRY(lay_out(t, o));
    o.decide_at = j.hold_notice->body.expires;
    out.body = to_json(o);
    GBX_ASSIGN(auto next, machines::step(OutputState::kSealed, OutputEvent::kHold));
    machines::add_step(t, out, enum_name(OutputEvent::kHold), enum_name(next.state), true,
                       next.effects, now_ms(), {}, {});
    for (Effect& e : t.effects) e.due_ms = patience_ms() + config_.review_poll_seconds * 1000;
    return commit(t);
  }
  if (!j.release) return fail(Reason::kBadStructure, "decided without a statement");
  const auto& statement = j.release->statement;
  GBX_TRY(statement.verify(config_.set_id, keys_.signing));
  const bool release = j.state == records::JudgementState::kReleased;
  const auto decision =
      release ? records::ReleaseDecision::kRelease : records::ReleaseDecision::kReject;
  if (statement.body.job_id != o.job_id || statement.body.manifest != o.manifest ||
      statement.body.decision != decision) {
    return reason("the broker decided on another output than the node handed in");
  }
  o.release = j.release;
  GBX_TRY(clear_desks(t, o));
  out.body = to_json(o);
  GBX_ASSIGN(const OutputState state, enum_from<OutputState>(out.state));
  const OutputEvent event = release ? OutputEvent::kRelease : OutputEvent::kReject;
  GBX_ASSIGN(auto next, machines::step(state, event));
  const std::string why =
      statement.body.reasons.empty() ? std::string() : statement.body.reasons.front().substr(0, 64);
  machines::add_step(t, out, enum_name(event), enum_name(next.state), false, next.effects, now_ms(),
                     why, {});
  return commit(t);
}

Status Core::apply_judgement(const Hash32& job_id, const records::Judgement& j) {
  const Lock lock(mutex_);
  if (j.state == records::JudgementState::kNone || j.state == records::JudgementState::kPending) {
    return ok_status();
  }
  return judge(output_machine(job_id), j, {});
}

Status Core::take_judgement(const Effect& effect, const Result<Json>& reply) {
  GBX_ASSIGN(Machine out, need_machine(effect.key.machine, "output"));
  if (!out.live) return done(effect);
  GBX_ASSIGN(OutputBody o, from_json<OutputBody>(out.body));
  if (!reply.ok()) {
    return passing(reply.reason()) ? later(effect)
                                   : fail_reviewing(effect, o.job_id, reply.error());
  }
  auto parsed = from_json<records::Judgement>(*reply);
  if (!parsed.ok()) {
    return fail_reviewing(effect, o.job_id, parsed.error().at("the broker's judgement"));
  }
  const records::Judgement& j = *parsed;
  if (j.state == records::JudgementState::kNone) {
    return fail_reviewing(effect, o.job_id,
                          fail(Reason::kOutputRefused, "the broker took no seal for this output"));
  }
  if (j.state == records::JudgementState::kPending) {
    return judge_later(effect, std::move(out), std::move(o), j.decide_at * 1000);
  }
  Transaction t;
  if (j.state == records::JudgementState::kHeld && out.state == enum_name(OutputState::kHeld)) {
    // Not decideAt: it was the slot of rulings that no longer count, where the broker holds again.
    const std::int64_t until = o.hold_notice ? o.hold_notice->body.expires : o.decide_at;
    if (now_ms() < until * 1000 + kHoldOverdueMs) {
      // Rulings come in through any replica, and their answers may be lost: so the broker is asked,
      // not waited for.
      t.postponed.push_back(at(effect, patience_ms() + config_.review_poll_seconds * 1000));
      return commit(t);
    }
    t.done.push_back(effect.key);
    GBX_TRY(clear_desks(t, o));
    const Error why = fail(Reason::kExpired, "no reviewer ruled before the hold ran out");
    machines::add_step(t, out, enum_name(OutputEvent::kExpire), enum_name(OutputState::kExpired),
                       false, {}, now_ms(), std::string(reason_code(why.reason)), why.what);
    GBX_ASSIGN(Machine job, need_machine(job_machine(o.job_id), "job"));
    if (job.live) {
      GBX_ASSIGN(JobBody body, from_json<JobBody>(job.body));
      GBX_TRY(step_job(t, job, body, JobEvent::kExpire, &why));
    }
    return commit(t);
  }
  t.done.push_back(effect.key);
  const Status s = judge(effect.key.machine, j, std::move(t));
  if (s.ok() || passing(s.reason()) || s.reason() == Reason::kConflict) return s;
  return fail_reviewing(effect, o.job_id, s.error());
}

namespace {

// The exit class, which is charged for, in words. More is in the logs, if the owners let any out.
Error how_it_ended(records::JobExit exit) {
  switch (exit) {
    case records::JobExit::kTimeout:
      return fail(Reason::kTimedOut, "the container was stopped at spec.timeouts.run")
          .with("ok", "timeout");
    case records::JobExit::kKilled:
      return fail(Reason::kOutOfMemory, "the container was killed at spec.resources.memory")
          .with("ok", "killed");
    case records::JobExit::kFailed:
    case records::JobExit::kOk:
      break;
  }
  return fail(Reason::kJobFailed, "the container did not end well")
      .with("ok", std::string(enum_name(exit)));
}

// The words of the release statement (docs/broker.md has the closed list), which is the consumer's
// to read, and what a release would have needed. Nothing else of the output is known here.
Error not_released(Reason reason, const OutputBody& o) {
  static const std::map<std::string_view, const char*> kNeeded = {
      {"output-malformed", "outputs as the job declares them"},
      {"output-copies-inputs", "outputs without copies of the inputs"},
      {"policy-revoked", "policies in force"},
      {"policy-expired", "policies in force"},
      {"no-reviewer", "an output that needs no review, or policies that name reviewers"},
      {"reviewers-declined", "the reviewers' approval"},
      {"hold-expired", "the reviewers' approval in time"},
      {"key-rotated", "a submission under the consumer's standing key"},
  };
  const std::vector<std::string> reasons =
      o.release ? o.release->statement.body.reasons : std::vector<std::string>{};
  std::string said;
  for (const std::string& r : reasons) said += (said.empty() ? "" : ", ") + r;
  if (said.empty()) return fail(reason, "the output was not released");
  const auto needed = kNeeded.find(reasons.front());
  Error e = fail(reason, "the output was not released: " + said)
                .with(needed == kNeeded.end() ? "a release" : needed->second, said);
  std::string change;
  for (const policy::ReviewReason& known : policy::review_reasons()) {
    if (std::count(reasons.begin(), reasons.end(), known.code) == 0) continue;
    change += std::string(change.empty() ? "" : "; ") + known.code + ": " + known.meaning;
  }
  return change.empty() ? e : e.hint(change);
}

}  // namespace

Status Core::take_receipt(const Effect& effect, const Result<Json>& reply) {
  GBX_ASSIGN(Machine out, need_machine(effect.key.machine, "output"));
  GBX_ASSIGN(OutputBody o, from_json<OutputBody>(out.body));
  GBX_ASSIGN(Machine job, need_machine(job_machine(o.job_id), "job"));
  GBX_ASSIGN(const std::optional<Record> before, store_.record("receipt", to_hex(o.job_id)));
  if (before) return done(effect);  // a doubled answer
  if (!reply.ok() && passing(reply.reason())) return later(effect);
  auto receipt =
      reply.ok() ? from_json<records::Receipt>(*reply) : Result<records::Receipt>(reply.error());
  if (receipt.ok() && (receipt->submission.body.job_id() != o.job_id ||
                       receipt->run_statement.body.manifest.context.ciphertext == Hash32{} ||
                       hash_of(receipt->run_statement.body.manifest) != o.manifest)) {
    receipt = fail(Reason::kBadHash, "the receipt is of another output");
  }
  const bool released = out.state == enum_name(OutputState::kReleased);
  if (!receipt.ok() && released) {
    return fail_reviewing(effect, o.job_id, receipt.error().at("the broker's receipt"));
  }
  Transaction t;
  t.done.push_back(effect.key);
  if (receipt.ok()) {
    receipt->destroyed.reset();  // added when it is asked for: the claim may come later
    RecordWrite w;
    w.record = {"receipt", to_hex(o.job_id), job.owner, "", now_ms(), 0, to_json(*receipt)};
    t.records.push_back(std::move(w));
  }
  if (!job.live) return commit(t);  // cancelled while the broker decided
  GBX_ASSIGN(JobBody body, from_json<JobBody>(job.body));
  if (released) {
    // What the gate let out of a failed run is its exit class and permitted logs: delivered, but no
    // success.
    const records::JobExit exit = receipt->run_statement.body.manifest.context.verdict.exit_class;
    if (exit == records::JobExit::kOk) {
      GBX_TRY(step_job(t, job, body, JobEvent::kRelease, nullptr));
    } else {
      Error why = how_it_ended(exit);
      why.hint("glovebox job logs " + to_hex(o.job_id).substr(0, 16));
      GBX_TRY(step_job(t, job, body, JobEvent::kFail, &why));
    }
    return commit(t);
  }
  const bool revoked = o.release && has_reason(*o.release, Reason::kPolicyRevoked);
  const bool expired = o.release && has_reason(*o.release, Reason::kExpired);
  Reason reason = Reason::kRejected;
  if (o.release && !o.release->statement.body.reasons.empty()) {
    Reason named = Reason::kRejected;
    if (reason_from_code(o.release->statement.body.reasons.front(), &named)) reason = named;
  }
  const Error why = not_released(reason, o);
  GBX_TRY(step_job(t, job, body,
                   revoked   ? JobEvent::kRevoke
                   : expired ? JobEvent::kExpire
                             : JobEvent::kReject,
                   &why));
  return commit(t);
}

}  // namespace gbx::plane
