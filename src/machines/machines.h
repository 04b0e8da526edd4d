// The three state machines of a job, each one table and a pure step(). What a transition asks of
// the outside is an effect; it is written with the transition and performed later, from the outbox,
// as often as it takes. Everything here is pure and thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/fields.h"

namespace gbx::machines {

enum class EffectKind {
  kAskAuthorise,   // broker.authorise for the job
  kOffer,          // wake the nodes that wait for work
  kAskCredential,  // broker.credential for the attempt
  kAskJudge,       // broker.judge; again at the time that the broker names
  kAskReceipt,     // broker.receipt, once the output is decided
  kAskCancel,      // broker.cancel with the consumer's signed wish
};
std::span<const EnumName<EffectKind>> enum_names(EffectKind);

enum class JobState {
  kSubmitted,
  kAuthorized,
  kRunning,
  kReviewing,
  kCompleted,
  kDenied,
  kFailed,
  kRejected,
  kCancelled,
  kExpired,
  kRevoked,
};
std::span<const EnumName<JobState>> enum_names(JobState);
enum class JobEvent {
  kAuthorise,  // the broker signed a plan
  kDeny,       // the broker refuses: plan or credential
  kPlace,      // an attempt was given to a node
  kRetry,      // the attempt ended without an output, and another is allowed
  kFail,       // … and no other is
  kSeal,       // a sealed output arrived
  kRelease,    // decided and receipt in hand
  kReject,
  kCancel,
  kExpire,  // waited longer than the spec allows, or the hold ran out
  kRevoke,  // an owner revoked a policy
};
std::span<const EnumName<JobEvent>> enum_names(JobEvent);

enum class EnvironmentState {
  kRequested,
  kBooting,
  kAttested,
  kLoaded,
  kWorking,
  kSealed,
  kDestroyed,
  kLost
};
std::span<const EnumName<EnvironmentState>> enum_names(EnvironmentState);
// Reports of a node may be lost, so a later one includes the earlier.
enum class EnvironmentEvent { kBoot, kAttest, kLoad, kWork, kSeal, kDestroy, kLose };
std::span<const EnumName<EnvironmentEvent>> enum_names(EnvironmentEvent);

enum class OutputState { kSealed, kHeld, kReleased, kRejected, kExpired };
std::span<const EnumName<OutputState>> enum_names(OutputState);
enum class OutputEvent { kHold, kRelease, kReject, kExpire };
std::span<const EnumName<OutputEvent>> enum_names(OutputEvent);

template <class S, class E>
struct Transition {
  S from;
  E event;
  S to;
  std::array<EffectKind, 1> effects{};
  std::size_t effect_count = 0;
};
using JobTransition = Transition<JobState, JobEvent>;
using EnvironmentTransition = Transition<EnvironmentState, EnvironmentEvent>;
using OutputTransition = Transition<OutputState, OutputEvent>;
std::span<const JobTransition> job_table();
std::span<const EnvironmentTransition> environment_table();
std::span<const OutputTransition> output_table();

template <class S>
struct Step {
  S state{};
  std::vector<EffectKind> effects;
};
// kWrongState when the table has no such row.
Result<Step<JobState>> step(JobState state, JobEvent event);
Result<Step<EnvironmentState>> step(EnvironmentState state, EnvironmentEvent event);
Result<Step<OutputState>> step(OutputState state, OutputEvent event);
// How each machine begins.
Step<JobState> begin_job();
Step<EnvironmentState> begin_environment();
Step<OutputState> begin_output();

// Terminal states have no row that leaves them for another.
bool terminal(JobState state);
bool terminal(EnvironmentState state);
bool terminal(OutputState state);

}  // namespace gbx::machines
