// One attempt on this node: start an environment, relay its bytes to the broker, carry its reports
// and its sealed output to the plane, destroy it, and say so with a signature. The node is trusted
// with none of what passes.
#pragma once

#include <functional>
#include <mutex>
#include <optional>

#include "base/log.h"
#include "node/plane_link.h"
#include "node/provisioner.h"
#include "records/messages.h"

namespace gbx::node {

// Ends an attempt from another thread. Thread-safe.
class StopSignal {
 public:
  // `why`: kJobCancelled, or kLost when another attempt may follow. The first request counts.
  void request(Reason why);
  std::optional<Reason> requested() const;

  // While it lives, `action` runs once on request(), in the thread that asks, or here and now when
  // that was before.
  class Listener {
   public:
    Listener(StopSignal& signal, std::function<void(Reason)> action);
    ~Listener();
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;

   private:
    StopSignal& signal_;
  };

 private:
  mutable std::mutex mutex_;
  std::optional<Reason> why_;           // guarded by mutex_
  std::function<void(Reason)> action_;  // guarded by mutex_
};

// Beyond what the job's spec says, for what is the node's own doing: until the environment begins,
// and to tell of it.
inline constexpr std::int64_t kStartGraceMs = 60'000;
// For gate, sealing and upload: as long as the plane waits (run_grace_seconds of its core), so that
// of the two the plane is the one who decides while it answers.
inline constexpr std::int64_t kEndGraceMs = 300'000;

struct AttemptOptions {
  const Clock* clock = nullptr;
  const Logger* log = nullptr;
  const crypto::SigningKey* key = nullptr;  // signs introductions and destruction claims
  channel::TcpAddress broker;
  Provisioner* provisioner = nullptr;
  PlaneCalls* plane = nullptr;
  Waits waits = wait_in_full;
  // why this node does not begin: it is only told to the plane
  std::optional<Error> refused;
  std::int64_t start_grace_ms = kStartGraceMs;
  std::int64_t end_grace_ms = kEndGraceMs;
};

// `stop` ends the attempt at once, whatever it is doing. Returns when the environment is destroyed
// and both the phase and the claim have been told to the plane, or the plane could not be reached
// for five minutes.
Status run_attempt(const AttemptOptions& options, const records::LaunchBundle& bundle,
                   StopSignal& stop);

}  // namespace gbx::node
