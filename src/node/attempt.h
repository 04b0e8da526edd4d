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
  std::int64_t grace_ms = 60'000;  // beyond the plan's run time, for start and gate
};

// `stop` ends the attempt at once, whatever it is doing. Returns when the environment is destroyed
// and both the phase and the claim have been told to the plane, or the plane could not be reached
// for five minutes.
Status run_attempt(const AttemptOptions& options, const records::LaunchBundle& bundle,
                   StopSignal& stop);

}  // namespace gbx::node
