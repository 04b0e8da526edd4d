#include "plane/service/dispatcher.h"

#include <algorithm>

namespace gbx::plane {

namespace {
constexpr std::size_t kEffectsPerRound = 64;
constexpr std::int64_t kTickMs = 1'000;
constexpr std::int64_t kAwayMs = 5'000;  // no tick for so long: nodes could report nothing either
constexpr std::int64_t kLongestWaitMs = 500;  // so that stop() is not waited for
}  // namespace

EffectDispatcher::EffectDispatcher(Core& core, Broker& broker, const Clock& clock,
                                   const Logger& log)
    : core_(core), broker_(broker), clock_(clock), log_(log) {}

void EffectDispatcher::start() {
  thread_ = std::thread([this] { run(); });
}

void EffectDispatcher::stop() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
}

void EffectDispatcher::perform(const machines::Effect& effect) {
  const auto prepared = core_.prepare(effect);
  Status s = prepared.ok() ? ok_status() : Status(prepared.error());
  if (prepared.ok() && prepared->has_value()) {
    const Result<Json> reply = broker_.call((*prepared)->method, (*prepared)->body);
    if (!reply.ok()) {
      log_.warn("broker-refused", {{"method", (*prepared)->method},
                                   {"machine", effect.key.machine},
                                   {"reason", std::string(reason_code(reply.error().reason))},
                                   {"what", printable(reply.error().line())},
                                   {"tries", effect.tries}});
    }
    s = core_.finish(effect, reply);
  }
  if (s.ok()) return;
  log_.error("effect-failed", s.error(),
             {{"machine", effect.key.machine}, {"kind", std::string(enum_name(effect.key.kind))}});
  const Status later = core_.postpone(effect);
  if (!later.ok()) log_.error("effect-not-postponed", later.error());
}

void EffectDispatcher::round() {
  const auto due = core_.due(kEffectsPerRound);
  if (!due.ok()) {
    log_.error("outbox-unreadable", due.error());
    return;
  }
  for (const auto& effect : *due) {
    if (stopping_) return;
    perform(effect);
  }
  const std::int64_t now = clock_.steady_ms();
  if (last_tick_ms_ != 0 && now - last_tick_ms_ < kTickMs) return;
  if (last_tick_ms_ != 0 && now - last_tick_ms_ > kAwayMs) {
    log_.warn("was-away", {{"ms", now - last_tick_ms_}});
    core_.was_away();
  }
  last_tick_ms_ = now;
  const Status s = core_.tick();
  if (!s.ok()) log_.error("tick-failed", s.error());
}

void EffectDispatcher::run() {
  while (!stopping_) {
    const std::uint64_t seen = core_.version();
    round();
    const auto next = core_.next_due_ms();
    std::int64_t wait = kLongestWaitMs;
    if (!next.ok()) {
      log_.error("outbox-unreadable", next.error());
    } else if (next->has_value()) {
      wait = std::clamp<std::int64_t>(**next - core_.patience_ms(), 5, kLongestWaitMs);
    }
    if (!stopping_) (void)core_.wait(seen, wait);
  }
}

}  // namespace gbx::plane
