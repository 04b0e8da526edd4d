// The thread that drives the core: performs the outbox against the broker, and looks after time. At
// its start it finds whatever a crash left in the outbox: nothing else is needed to reconcile.
#pragma once

#include <atomic>
#include <thread>

#include "base/log.h"
#include "plane/core/core.h"
#include "plane/service/broker_link.h"

namespace gbx::plane {

class EffectDispatcher {
 public:
  // All outlive the dispatcher.
  EffectDispatcher(Core& core, Broker& broker, const Clock& clock, const Logger& log);
  ~EffectDispatcher() { stop(); }
  void stop();
  // One round: everything that is due now. For tests, without the thread running; start() does the
  // rest.
  void round();
  void start();

 private:
  void run();
  void perform(const machines::Effect& effect);

  Core& core_;
  Broker& broker_;
  const Clock& clock_;
  const Logger& log_;
  std::int64_t last_tick_ms_ = 0;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace gbx::plane
