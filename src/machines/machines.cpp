#include "machines/machines.h"

#include <string>

namespace gbx::machines {

#define GBX_ENUM(Type, ...)                              \
  std::span<const EnumName<Type>> enum_names(Type) {     \
    using X = Type;                                      \
    static constexpr EnumName<Type> k[] = {__VA_ARGS__}; \
    return k;                                            \
  }
GBX_ENUM(EffectKind, {X::kAskAuthorise, "ask-authorise"}, {X::kOffer, "offer"},
         {X::kAskCredential, "ask-credential"}, {X::kAskJudge, "ask-judge"},
         {X::kAskReceipt, "ask-receipt"}, {X::kAskCancel, "ask-cancel"})
GBX_ENUM(JobState, {X::kSubmitted, "Submitted"}, {X::kAuthorized, "Authorized"},
         {X::kRunning, "Running"}, {X::kReviewing, "Reviewing"}, {X::kCompleted, "Completed"},
         {X::kDenied, "Denied"}, {X::kFailed, "Failed"}, {X::kRejected, "Rejected"},
         {X::kCancelled, "Cancelled"}, {X::kExpired, "Expired"}, {X::kRevoked, "Revoked"})
GBX_ENUM(JobEvent, {X::kAuthorise, "authorise"}, {X::kDeny, "deny"}, {X::kPlace, "place"},
         {X::kRetry, "retry"}, {X::kFail, "fail"}, {X::kSeal, "seal"}, {X::kRelease, "release"},
         {X::kReject, "reject"}, {X::kCancel, "cancel"}, {X::kExpire, "expire"},
         {X::kRevoke, "revoke"})
GBX_ENUM(EnvironmentState, {X::kRequested, "Requested"}, {X::kBooting, "Booting"},
         {X::kAttested, "Attested"}, {X::kLoaded, "Loaded"}, {X::kWorking, "Working"},
         {X::kSealed, "Sealed"}, {X::kDestroyed, "Destroyed"}, {X::kLost, "Lost"})
GBX_ENUM(EnvironmentEvent, {X::kBoot, "boot"}, {X::kAttest, "attest"}, {X::kLoad, "load"},
         {X::kWork, "work"}, {X::kSeal, "seal"}, {X::kDestroy, "destroy"}, {X::kLose, "lose"})
GBX_ENUM(OutputState, {X::kSealed, "Sealed"}, {X::kHeld, "Held"}, {X::kReleased, "Released"},
         {X::kRejected, "Rejected"}, {X::kExpired, "Expired"})
GBX_ENUM(OutputEvent, {X::kHold, "hold"}, {X::kRelease, "release"}, {X::kReject, "reject"},
         {X::kExpire, "expire"})
#undef GBX_ENUM

namespace {

template <class S, class E>
constexpr Transition<S, E> row(S from, E event, S to) {
  return {from, event, to, {}, 0};
}
template <class S, class E>
constexpr Transition<S, E> row(S from, E event, S to, EffectKind effect) {
  return {from, event, to, {effect}, 1};
}

using J = JobState;
using JE = JobEvent;
constexpr JobTransition kJob[] = {
    row(J::kSubmitted, JE::kAuthorise, J::kAuthorized, EffectKind::kOffer),
    row(J::kSubmitted, JE::kDeny, J::kDenied),
    row(J::kSubmitted, JE::kRevoke, J::kRevoked),
    row(J::kSubmitted, JE::kCancel, J::kCancelled, EffectKind::kAskCancel),
    row(J::kSubmitted, JE::kExpire, J::kExpired),
    row(J::kAuthorized, JE::kPlace, J::kRunning),
    // An attempt that was believed lost had sealed its output after all.
    row(J::kAuthorized, JE::kSeal, J::kReviewing),
    row(J::kAuthorized, JE::kCancel, J::kCancelled, EffectKind::kAskCancel),
    row(J::kAuthorized, JE::kExpire, J::kExpired),
    row(J::kRunning, JE::kRetry, J::kAuthorized, EffectKind::kOffer),
    row(J::kRunning, JE::kFail, J::kFailed),
    row(J::kRunning, JE::kDeny, J::kDenied),
    row(J::kRunning, JE::kRevoke, J::kRevoked),
    row(J::kRunning, JE::kExpire, J::kExpired),
    row(J::kRunning, JE::kSeal, J::kReviewing),
    row(J::kRunning, JE::kCancel, J::kCancelled, EffectKind::kAskCancel),
    // Refusing to cancel would tell that the run has ended, before the owners' slot does.
    row(J::kReviewing, JE::kCancel, J::kCancelled, EffectKind::kAskCancel),
    // The wish once more, signed by the key that stands, for a broker that could not take the
    // first.
    row(J::kCancelled, JE::kCancel, J::kCancelled, EffectKind::kAskCancel),
    row(J::kReviewing, JE::kRelease, J::kCompleted),
    row(J::kReviewing, JE::kReject, J::kRejected),
    row(J::kReviewing, JE::kFail, J::kFailed),
    row(J::kReviewing, JE::kExpire, J::kExpired),
    row(J::kReviewing, JE::kRevoke, J::kRevoked),
};

using N = EnvironmentState;
using NE = EnvironmentEvent;
constexpr EnvironmentTransition kEnvironment[] = {
    row(N::kRequested, NE::kBoot, N::kBooting),     row(N::kRequested, NE::kAttest, N::kAttested),
    row(N::kRequested, NE::kLoad, N::kLoaded),      row(N::kRequested, NE::kWork, N::kWorking),
    row(N::kRequested, NE::kSeal, N::kSealed),      row(N::kRequested, NE::kDestroy, N::kDestroyed),
    row(N::kRequested, NE::kLose, N::kLost),        row(N::kBooting, NE::kAttest, N::kAttested),
    row(N::kBooting, NE::kLoad, N::kLoaded),        row(N::kBooting, NE::kWork, N::kWorking),
    row(N::kBooting, NE::kSeal, N::kSealed),        row(N::kBooting, NE::kDestroy, N::kDestroyed),
    row(N::kBooting, NE::kLose, N::kLost),          row(N::kAttested, NE::kLoad, N::kLoaded),
    row(N::kAttested, NE::kWork, N::kWorking),      row(N::kAttested, NE::kSeal, N::kSealed),
    row(N::kAttested, NE::kDestroy, N::kDestroyed), row(N::kAttested, NE::kLose, N::kLost),
    row(N::kLoaded, NE::kWork, N::kWorking),        row(N::kLoaded, NE::kSeal, N::kSealed),
    row(N::kLoaded, NE::kDestroy, N::kDestroyed),   row(N::kLoaded, NE::kLose, N::kLost),
    row(N::kWorking, NE::kSeal, N::kSealed),        row(N::kWorking, NE::kDestroy, N::kDestroyed),
    row(N::kWorking, NE::kLose, N::kLost),          row(N::kSealed, NE::kDestroy, N::kDestroyed),
    row(N::kSealed, NE::kLose, N::kLost),
};

using O = OutputState;
using OE = OutputEvent;
constexpr OutputTransition kOutput[] = {
    // Asked again and again until the hold ends, so that nothing waits for ever.
    row(O::kSealed, OE::kHold, O::kHeld, EffectKind::kAskJudge),
    row(O::kSealed, OE::kRelease, O::kReleased, EffectKind::kAskReceipt),
    row(O::kSealed, OE::kReject, O::kRejected, EffectKind::kAskReceipt),
    row(O::kSealed, OE::kExpire, O::kExpired),
    row(O::kHeld, OE::kRelease, O::kReleased, EffectKind::kAskReceipt),
    row(O::kHeld, OE::kReject, O::kRejected, EffectKind::kAskReceipt),
    row(O::kHeld, OE::kExpire, O::kExpired),
};

template <class S, class E, std::size_t Count>
constexpr bool deterministic(const Transition<S, E> (&table)[Count]) {
  for (std::size_t i = 0; i < Count; ++i) {
    for (std::size_t k = i + 1; k < Count; ++k) {
      if (table[i].from == table[k].from && table[i].event == table[k].event) return false;
    }
  }
  return true;
}
static_assert(deterministic(kJob) && deterministic(kEnvironment) && deterministic(kOutput));

template <class S, class E>
Result<Step<S>> look_up(std::span<const Transition<S, E>> table, S state, E event) {
  for (const auto& t : table) {
    if (t.from != state || t.event != event) continue;
    return Step<S>{
        t.to, {t.effects.begin(), t.effects.begin() + static_cast<std::ptrdiff_t>(t.effect_count)}};
  }
  return fail(Reason::kWrongState, "no step '" + std::string(enum_name(event)) + "' from " +
                                       std::string(enum_name(state)));
}
template <class S, class E>
bool no_way_out(std::span<const Transition<S, E>> table, S state) {
  for (const auto& t : table) {
    if (t.from == state && t.to != state) return false;
  }
  return true;
}

}  // namespace

std::span<const JobTransition> job_table() { return kJob; }
std::span<const EnvironmentTransition> environment_table() { return kEnvironment; }
std::span<const OutputTransition> output_table() { return kOutput; }

Result<Step<JobState>> step(JobState state, JobEvent event) {
  return look_up(job_table(), state, event);
}
Result<Step<EnvironmentState>> step(EnvironmentState state, EnvironmentEvent event) {
  return look_up(environment_table(), state, event);
}
Result<Step<OutputState>> step(OutputState state, OutputEvent event) {
  return look_up(output_table(), state, event);
}

Step<JobState> begin_job() { return {JobState::kSubmitted, {EffectKind::kAskAuthorise}}; }
Step<EnvironmentState> begin_environment() {
  return {EnvironmentState::kRequested, {EffectKind::kAskCredential}};
}
Step<OutputState> begin_output() { return {OutputState::kSealed, {EffectKind::kAskJudge}}; }

bool terminal(JobState state) { return no_way_out(job_table(), state); }
bool terminal(EnvironmentState state) { return no_way_out(environment_table(), state); }
bool terminal(OutputState state) { return no_way_out(output_table(), state); }

}  // namespace gbx::machines
