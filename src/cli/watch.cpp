#include "cli/watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/log.h"
#include "cli/interrupt.h"
#include "machines/machines.h"

namespace gbx::cli {

namespace {

constexpr std::int64_t kLiveWaitMs = 500;
constexpr std::int64_t kQuietWaitMs = 20'000;
constexpr std::int64_t kPauseMs = 1'000;
constexpr const char* kSpinner[] = {"|", "/", "-", "\\"};

// Reason where the outcome has none, by the state in which the job ended.
Reason reason_of_state(const std::string& state) {
  static constexpr std::pair<const char*, Reason> kStates[] = {
      {"Denied", Reason::kPolicyMismatch}, {"Failed", Reason::kJobFailed},
      {"Rejected", Reason::kRejected},     {"Cancelled", Reason::kJobCancelled},
      {"Expired", Reason::kTimedOut},      {"Revoked", Reason::kPolicyRevoked}};
  for (const auto& [name, reason] : kStates) {
    if (state == name) return reason;
  }
  return Reason::kBadValue;  // the plane names a state that there is not
}

class Watch {
 public:
  Watch(Session& session, WatchOptions options)
      : session_(session), o_(options), start_ms_(now()) {}

  Result<api::JobView> run(api::JobView job) {
    GBX_ASSIGN(Plane * plane, session_.plane());
    show(job);
    while (!job.ended && (o_.through_hold || !held(job))) {
      const std::int64_t left =
          o_.timeout_ms == 0 ? kQuietWaitMs : o_.timeout_ms - (now() - start_ms_);
      if (left <= 0) {
        session_.clear_status_line();
        // Not `timed-out`: that is how a job ends. This one goes on.
        return fail(Reason::kUnavailable,
                    "job " + to_hex(job.job_id).substr(0, 16) + " did not end within --timeout")
            .with("its end", phase_text(job))
            .hint("glovebox job wait " + to_hex(job.job_id).substr(0, 16));
      }
      const std::int64_t wait =
          std::min(session_.live_display() ? kLiveWaitMs : kQuietWaitMs, left);
      const std::int64_t asked_ms = now();
      auto next = plane->job_after(job.job_id, job.version, wait);
      if (!next.ok()) {
        session_.clear_status_line();
        return next.error();
      }
      if (next->job_id != job.job_id) {
        return fail(Reason::kBadStructure, "the plane answers about another job");
      }
      // A plane where too many wait already answers at once: then the waiting is done here.
      if (next->version == job.version && !next->ended && now() - asked_ms < wait / 2) {
        std::this_thread::sleep_for(std::chrono::milliseconds(std::min(wait, kPauseMs)));
      }
      job = std::move(*next);
      show(job);
    }
    session_.clear_status_line();
    return job;
  }

 private:
  std::int64_t now() const { return session_.clock().steady_ms(); }

  void show(const api::JobView& job) {
    const std::string phase = phase_text(job);
    if (phase != phase_) {
      if (!phase_.empty()) finish_phase();
      phase_ = phase;
      phase_ms_ = now();
      if (!session_.live_display()) {
        session_.note(fmt::format("[{:7.1f} s] {}", seconds(start_ms_), phase));
      }
    }
    if (!session_.live_display()) return;
    std::string line = fmt::format("{} {}  {:.0f} s", kSpinner[turn_++ % std::size(kSpinner)],
                                   phase_, seconds(phase_ms_));
    if (job.output && job.output->decide_at > 0 && !job.ended) {
      line += held(job) ? ", reviewers decide by " : ", decision at ";
      line += format_time(job.output->decide_at);
    }
    session_.status_line(line);
  }
  // What is over stays on the screen with its seconds.
  void finish_phase() {
    if (!session_.live_display()) return;
    session_.clear_status_line();
    session_.note(fmt::format("  {:<24} {:6.1f} s", phase_, seconds(phase_ms_)));
  }
  double seconds(std::int64_t since_ms) const {
    return static_cast<double>(now() - since_ms) / 1000.0;
  }

  Session& session_;
  const WatchOptions o_;
  const std::int64_t start_ms_;
  std::string phase_;
  std::int64_t phase_ms_ = 0;
  std::size_t turn_ = 0;
};

}  // namespace

bool held(const api::JobView& v) {
  return !v.ended && v.output && v.output->state == enum_name(machines::OutputState::kHeld);
}

std::string phase_text(const api::JobView& v) {
  std::string s = printable(v.state, 32);
  if (v.ended) return s;
  if (v.state == "Running" && !v.environments.empty()) {
    s += ": " + printable(v.environments.back().state, 32);
  }
  if (v.state == "Reviewing" && v.output) s += ": " + printable(v.output->state, 32);
  if (v.environments.size() > 1) {
    s += " (attempt " + std::to_string(v.environments.back().attempt) + ")";
  }
  return s;
}

ExitClass class_of_end(const api::JobView& v) {
  if (held(v)) return ExitClass::kHeld;
  if (v.state == "Completed") return ExitClass::kOk;
  const bool failed = v.state == "Failed" || v.state == "Cancelled" || v.state == "Expired";
  return failed ? ExitClass::kFailed : ExitClass::kDenied;
}

Result<api::JobView> watch_job(Session& session, api::JobView job, WatchOptions options) {
  const std::string go_on = session.command({"job", "wait", to_hex(job.job_id).substr(0, 16)});
  const bool plain = session.format() == Format::kTable;
  const Interruptible guard(plain ? std::string(session.live_display() ? "\r\033[K" : "\n") +
                                        "stopped waiting; the job goes on. Next: " + go_on + "\n"
                                  : std::string());
  return Watch(session, options).run(std::move(job));
}

Status outcome_of(const api::JobView& v) {
  const std::string id = to_hex(v.job_id).substr(0, 16);
  if (held(v)) {
    return fail(Reason::kHeld, "the output of job " + id + " waits for a reviewer")
        .hint("glovebox job wait " + id + " --through-hold");
  }
  if (!v.ended) {
    return fail(Reason::kWrongState, "job " + id)
        .with("its end", phase_text(v))
        .hint("glovebox job wait " + id);
  }
  if (v.state == "Completed") return ok_status();
  Error e(reason_of_state(v.state), v.outcome.what.empty()
                                        ? "job " + id + " ended as " + printable(v.state, 32)
                                        : printable(v.outcome.what, 2000));
  Reason told;
  if (reason_from_code(v.outcome.reason, &told) && exit_class(told) != ExitClass::kOk) {
    e.reason = told;
  }
  e.with(v.outcome.expected, v.outcome.actual);
  e.hint(v.outcome.next.empty() ? "glovebox job describe " + id : v.outcome.next);
  return unfolded(std::move(e));
}

}  // namespace gbx::cli
