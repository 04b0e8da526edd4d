#include "machines/world.h"

#include <algorithm>
#include <utility>

namespace gbx::world {

World::World(std::uint64_t seed, Faults faults, std::set<std::uint64_t> suppressed)
    : faults_(faults),
      suppressed_(std::move(suppressed)),
      start_ms_(clock_.now().ms),
      state_(seed * 0x9E3779B97F4A7C15ULL + 0x1234567) {}

std::uint64_t World::draw(std::uint64_t bound) {  // SplitMix64
  state_ += 0x9E3779B97F4A7C15ULL;
  std::uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return (z ^ (z >> 31)) % bound;
}

bool World::inject(std::uint64_t thousandths, const std::string& what) {
  if (thousandths == 0) return false;
  const bool hit = draw(1000) < thousandths;
  if (!hit) return false;
  if (faults_.quiet_after_ms != 0 && clock_.now().ms - start_ms_ >= faults_.quiet_after_ms) {
    return false;
  }
  const std::uint64_t id = next_fault_++;
  if (suppressed_.count(id) != 0) return false;
  injected_.push_back({id, what});
  note("FAULT " + std::to_string(id) + " " + what);
  return true;
}

void World::note(const std::string& line) {
  trace_.push_back(std::to_string(clock_.now().ms - start_ms_) + " ms  " + line);
}

std::string World::report(std::size_t last_lines) const {
  std::string out = "faults injected: " + std::to_string(injected_.size()) + "\n";
  for (const auto& i : injected_) out += "  " + std::to_string(i.id) + " " + i.what + "\n";
  const std::size_t first = trace_.size() > last_lines ? trace_.size() - last_lines : 0;
  out += "trace (" + std::to_string(trace_.size()) + " lines, the last " +
         std::to_string(trace_.size() - first) + "):\n";
  for (std::size_t i = first; i < trace_.size(); ++i) out += "  " + trace_[i] + "\n";
  return out;
}

void World::add(const std::string& name, Factory factory, bool may_crash) {
  Slot& slot = slots_[name];
  slot.factory = std::move(factory);
  slot.may_crash = may_crash;
  slot.object = slot.factory();
}

bool World::up(const std::string& name) const {
  const auto it = slots_.find(name);
  return it != slots_.end() && it->second.object != nullptr;
}
Actor* World::actor(const std::string& name) {
  const auto it = slots_.find(name);
  return it == slots_.end() ? nullptr : it->second.object.get();
}
std::uint64_t World::events_of(const std::string& name) const {
  const auto it = slots_.find(name);
  return it == slots_.end() ? 0 : it->second.events;
}
std::uint64_t World::crash_points_of(const std::string& name) const {
  const auto it = slots_.find(name);
  return it == slots_.end() ? 0 : it->second.points;
}

void World::push(std::int64_t delay_ms, const std::string& actor, std::uint64_t life,
                 std::function<void()> work) {
  heap_.push({clock_.now().ms + delay_ms, next_order_++, actor, life, std::move(work)});
}

void World::after(const std::string& actor, std::int64_t delay_ms, std::function<void()> work) {
  push(delay_ms, actor, slots_[actor].life, std::move(work));
}

void World::send(const std::string& from, const std::string& to, Message message) {
  const std::string what = message.kind + " " + from + " -> " + to;
  if (inject(faults_.drop, "drop " + what)) return;
  const int copies = inject(faults_.duplicate, "double " + what) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    const auto spread = static_cast<std::uint64_t>(faults_.max_delay_ms - faults_.min_delay_ms + 1);
    std::int64_t delay = faults_.min_delay_ms + static_cast<std::int64_t>(draw(spread));
    if (inject(faults_.slow, "slow " + what)) {
      delay += static_cast<std::int64_t>(draw(static_cast<std::uint64_t>(faults_.max_slow_ms)));
    }
    push(delay, to, 0, [this, from, to, message] { deliver(from, to, message); });
  }
}

void World::deliver(const std::string& from, const std::string& to, const Message& message) {
  Slot& slot = slots_[to];
  if (!slot.object) {
    note(message.kind + " " + from + " -> " + to + ": nobody there");
    return;
  }
  note(message.kind + " " + from + " -> " + to);
  slot.object->receive(from, message);
}

void World::crash(const std::string& name, const std::string& why) {
  Slot& slot = slots_[name];
  note("CRASH " + name + " " + why);
  slot.object.reset();
  slot.life += 1;
  const auto wait =
      1 + static_cast<std::int64_t>(draw(static_cast<std::uint64_t>(faults_.max_restart_ms)));
  push(wait, name, slot.life, [this, name] {
    note("START " + name);
    Slot& again = slots_[name];
    again.object = again.factory();
  });
}

void World::freeze(const std::string& name, std::int64_t ms) {
  Slot& slot = slots_[name];
  if (slot.gone) return;
  note("FREEZE " + name + " for " + std::to_string(ms) + " ms");
  if (slot.frozen_until_ms == 0) slot.silent_ms = clock_.now().ms;
  slot.frozen_until_ms = std::max(slot.frozen_until_ms, clock_.now().ms + ms);
  push(ms, "", 0, [this, name] { thaw(name); });
}

void World::thaw(const std::string& name) {
  Slot& slot = slots_[name];
  if (slot.gone || slot.frozen_until_ms == 0 || clock_.now().ms < slot.frozen_until_ms) return;
  note("THAW " + name);
  slot.frozen_until_ms = 0;
  slot.silent_ms.reset();
  for (Event& event : std::exchange(slot.waiting, {})) {
    event.at_ms = clock_.now().ms;
    event.order = next_order_++;
    heap_.push(std::move(event));
  }
}

void World::kill(const std::string& name) {
  Slot& slot = slots_[name];
  if (slot.gone) return;
  note("DEATH " + name);
  slot.object.reset();
  slot.life += 1;
  slot.gone = true;
  slot.frozen_until_ms = 0;
  if (!slot.silent_ms) slot.silent_ms = clock_.now().ms;
  slot.waiting.clear();
}

void World::restart(const std::string& name) {
  Slot& slot = slots_[name];
  note("RESTART " + name);
  slot.object.reset();
  slot.life += 1;
  const bool armed = std::exchange(armed_, false);
  slot.object = slot.factory();
  armed_ = armed;
}

std::optional<std::int64_t> World::silent_since_ms(const std::string& name) const {
  const auto it = slots_.find(name);
  return it == slots_.end() ? std::nullopt : it->second.silent_ms;
}

void World::crash_point(const std::string& name) {
  if (!armed_) return;
  Slot& slot = slots_[name];
  const std::uint64_t n = ++slot.points;
  if (!slot.may_crash) return;
  if (planned(planned_point_, name, n)) throw Crash{name};
  if (inject(faults_.crash_commit, "crash " + name + " at point " + std::to_string(n))) {
    throw Crash{name};
  }
}

void World::handle(Event event) {
  Slot& slot = slots_[event.actor];
  if (event.life != 0 && event.life != slot.life) return;
  if (slot.frozen_until_ms != 0) {
    slot.waiting.push_back(std::move(event));
    return;
  }
  const std::uint64_t n = ++slot.events;
  const bool was_up = slot.object != nullptr;
  try {
    event.work();
  } catch (const Crash& c) {
    crash(c.actor, "inside event " + std::to_string(n));
    return;
  }
  if (!slot.may_crash || !was_up || !slot.object) return;
  if (planned(planned_event_, event.actor, n) && planned_work_) {
    planned_work_();
  } else if (planned(planned_event_, event.actor, n)) {
    crash(event.actor, "after event " + std::to_string(n));
  } else if (inject(faults_.crash, "crash " + event.actor + " after event " + std::to_string(n))) {
    crash(event.actor, "by chance");
  }
}

bool World::run(std::int64_t until_ms, const std::function<bool()>& done) {
  while (!heap_.empty()) {
    if (done()) return true;
    if (heap_.top().at_ms - start_ms_ > until_ms) return false;
    Event event = heap_.top();
    heap_.pop();
    if (event.at_ms > clock_.now().ms) clock_.advance(event.at_ms - clock_.now().ms);
    handled_ += 1;
    handle(std::move(event));
  }
  return done();
}

void World::stop() {
  heap_ = {};
  slots_.clear();
}

void DiskLog::crash(World& world) {
  const std::size_t loose = entries_.size() - synced_;
  if (loose > 0) entries_.resize(synced_ + world.draw(loose + 1));
  synced_ = entries_.size();
}

std::string shrink(const std::function<RunResult(const std::set<std::uint64_t>&)>& run,
                   std::size_t max_runs) {
  std::set<std::uint64_t> suppressed;
  RunResult best = run(suppressed);
  if (best.failure.empty()) return {};
  std::size_t runs = 1;
  bool smaller = true;
  while (smaller) {
    smaller = false;
    for (const auto& fault : std::vector<World::Injected>(best.injected)) {
      if (runs++ >= max_runs) break;
      std::set<std::uint64_t> more = suppressed;
      more.insert(fault.id);
      RunResult next = run(more);
      if (next.failure.empty() || next.injected.size() >= best.injected.size()) continue;
      suppressed = std::move(more);
      best = std::move(next);
      smaller = true;
      break;
    }
  }
  return best.failure + "\n" + best.report;
}

}  // namespace gbx::world
