#include "machines/world.h"

#include <algorithm>
#include <utility>

namespace gbx::world {

namespace {
std::uint64_t mix(std::uint64_t z) {  // SplitMix64
  z += 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}
std::uint64_t hash(std::uint64_t seed, const std::string& text, std::uint64_t n) {
  std::uint64_t h = mix(seed);
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  return mix(h ^ mix(n));
}
}  // namespace

World::World(std::uint64_t seed, Faults faults, Only only)
    : faults_(std::move(faults)), seed_(seed), only_(std::move(only)), start_ms_(clock_.now().ms) {}

std::uint64_t World::draw(std::uint64_t bound) {
  std::uint64_t& state = states_.try_emplace(current_, hash(seed_, current_, 0)).first->second;
  state += 0x9E3779B97F4A7C15ULL;
  return mix(state) % bound;
}

std::uint64_t World::keyed(const std::string& what, std::uint64_t bound) {
  return hash(seed_, what, ++asked_[what]) % bound;
}

bool World::quiet() const {
  return faults_.quiet_after_ms != 0 && clock_.now().ms - start_ms_ >= faults_.quiet_after_ms;
}

bool World::inject(std::uint64_t thousandths, const std::string& what) {
  if (thousandths == 0) return false;
  const std::uint64_t id = hash(seed_, what, ++asked_[what]);
  if (id % 1000 >= thousandths || quiet()) return false;
  if (only_ && only_->count(id) == 0) return false;
  injected_.push_back({id, what});
  note("FAULT " + what);
  return true;
}

TimeMs World::MachineClock::now() const {
  return {world_.clock_.now().ms + (world_.quiet() ? 0 : ahead_ms)};
}

const Clock& World::clock_of(const std::string& actor) {
  auto& clock = slots_[actor].clock;
  if (!clock) clock = std::make_unique<MachineClock>(*this);
  return *clock;
}

void World::set_clock(const std::string& actor, std::int64_t ahead_ms) {
  note("CLOCK " + actor + " " + std::to_string(ahead_ms) + " ms ahead");
  (void)clock_of(actor);
  slots_[actor].clock->ahead_ms = ahead_ms;
}

void World::jump_by_chance(const std::string& name, Slot& slot) {
  if (!slot.clock || !inject(faults_.jump, "clock of " + name)) return;
  const std::uint64_t way = keyed("jump " + name, 2 * faults_.jumps_ms.size());
  const std::int64_t far = faults_.jumps_ms[way / 2];
  set_clock(name, way % 2 == 0 ? far : -far);
}

void World::fill_disk(const std::string& actor, std::int64_t ms) {
  note("FULL disk of " + actor + " for " + std::to_string(ms) + " ms");
  slots_[actor].full_until_ms = clock_.now().ms + ms;
}

void World::stall(const std::string& actor, std::int64_t ms) {
  note("SLOW disk of " + actor + ", " + std::to_string(ms) + " ms");
  slots_[actor].stalled_until_ms = clock_.now().ms + ms;
}

bool World::disk_refuses(const std::string& actor) {
  if (!armed_) return false;
  if (inject(faults_.disk_full, "full disk of " + actor)) {
    const auto most = static_cast<std::uint64_t>(faults_.max_full_ms);
    fill_disk(actor, 1 + static_cast<std::int64_t>(keyed("full " + actor, most)));
  }
  return slots_[actor].full_until_ms > clock_.now().ms;
}

void World::disk_waits(const std::string& actor) {
  if (!armed_ || !inject(faults_.disk_slow, "slow disk of " + actor)) return;
  const auto most = static_cast<std::uint64_t>(faults_.max_slow_ms);
  stall(actor, 1 + static_cast<std::int64_t>(keyed("stall " + actor, most)));
}

bool World::disk_trouble(const std::string& actor, std::int64_t ms) const {
  const auto it = slots_.find(actor);
  if (it == slots_.end()) return false;
  const std::int64_t until = std::max(it->second.full_until_ms, it->second.stalled_until_ms);
  return until != 0 && clock_.now().ms <= until + ms;
}

bool World::cut_off(const std::string& from, const std::string& to, const std::string& what) {
  const auto pair = std::minmax(from, to);
  std::int64_t& until = cut_until_ms_[{pair.first, pair.second}];
  if (clock_.now().ms >= until && inject(faults_.cut, "cut " + pair.first + " - " + pair.second)) {
    const auto most = static_cast<std::uint64_t>(faults_.max_cut_ms);
    until = clock_.now().ms + 1 + static_cast<std::int64_t>(keyed("cut " + what, most));
  }
  if (clock_.now().ms >= until) return false;
  note(what + ": cut");
  return true;
}

void World::note(const std::string& line) {
  trace_.push_back(std::to_string(clock_.now().ms - start_ms_) + " ms  " + line);
}

std::string World::report(std::size_t last_lines) const {
  std::string out = "faults injected: " + std::to_string(injected_.size()) + "\n";
  for (const auto& i : injected_) out += "  " + i.what + "\n";
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
  current_ = name;
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
  if (cut_off(from, to, what)) return;
  if (inject(faults_.drop, "drop " + what)) return;
  const std::int64_t held = std::max<std::int64_t>(
      0, slots_.count(from) == 0 ? 0 : slots_[from].stalled_until_ms - clock_.now().ms);
  const int copies = inject(faults_.duplicate, "double " + what) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    const auto spread = static_cast<std::uint64_t>(faults_.max_delay_ms - faults_.min_delay_ms + 1);
    std::int64_t delay =
        held + faults_.min_delay_ms + static_cast<std::int64_t>(keyed(what, spread));
    if (inject(faults_.slow, "slow " + what)) {
      const auto most = static_cast<std::uint64_t>(faults_.max_slow_ms);
      delay += static_cast<std::int64_t>(keyed("slowly " + what, most));
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
  slot.stalled_until_ms = 0;
  const auto most = static_cast<std::uint64_t>(faults_.max_restart_ms);
  const auto wait = 1 + static_cast<std::int64_t>(keyed("restart " + name, most));
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
  if (slot.stalled_until_ms > clock_.now().ms) {
    event.at_ms = slot.stalled_until_ms;
    event.order = next_order_++;
    heap_.push(std::move(event));
    return;
  }
  current_ = event.actor;
  if (slot.may_crash) jump_by_chance(event.actor, slot);
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

namespace {

std::set<std::uint64_t> ids_of(const std::vector<World::Injected>& faults, std::size_t from,
                               std::size_t to) {
  std::set<std::uint64_t> ids;
  for (std::size_t i = 0; i < faults.size(); ++i) {
    if (i >= from && i < to) ids.insert(faults[i].id);
  }
  return ids;
}

}  // namespace

std::string shrink(const std::function<RunResult(const World::Only&)>& run, std::size_t max_runs) {
  RunResult best = run(std::nullopt);
  if (best.failure.empty()) return {};
  std::size_t runs = 1;
  std::size_t parts = 2;
  // A run that does without some of its faults may not come to others either: what it had is what
  // is left.
  const auto fails_with = [&](const std::set<std::uint64_t>& only) {
    if (runs++ >= max_runs || only.size() >= best.injected.size()) return false;
    RunResult next = run(only);
    if (next.failure.empty()) return false;
    best = std::move(next);
    return true;
  };
  if (fails_with({})) return best.failure + "\n" + best.report;  // no fault is to blame
  while (best.injected.size() >= 2 && runs < max_runs) {
    const std::size_t n = best.injected.size();
    parts = std::min(parts, n);
    bool smaller = false;
    for (std::size_t i = 0; i < parts && !smaller; ++i) {
      const std::size_t from = i * n / parts;
      const std::size_t to = (i + 1) * n / parts;
      const std::set<std::uint64_t> part = ids_of(best.injected, from, to);
      std::set<std::uint64_t> rest = ids_of(best.injected, 0, n);
      for (const std::uint64_t id : part) rest.erase(id);
      if (fails_with(part)) {
        parts = 2;
        smaller = true;
      } else if (parts > 2 && fails_with(rest)) {
        parts = std::max<std::size_t>(parts - 1, 2);
        smaller = true;
      }
    }
    if (smaller) continue;
    if (parts >= n) break;
    parts = std::min(2 * parts, n);
  }
  return best.failure + "\n" + best.report;
}

}  // namespace gbx::world
