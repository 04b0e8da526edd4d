// Test support: a single-threaded simulated world. A heap of events, a simulated clock, a network
// that drops, doubles, delays and reorders, logs on disks that lose what was not synced, and actors
// that crash (which destroys the object and later rebuilds it from what it had stored), freeze and
// go on as if nothing had been, or die for good. The same seed gives the same run. Every injected
// fault has a number and can be suppressed, so that a failing run is shrunk to the faults that
// matter.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/seams.h"

namespace gbx::world {

struct Faults {  // chances in thousandths
  std::uint64_t drop = 0;
  std::uint64_t duplicate = 0;
  std::uint64_t crash = 0;         // per event handled by an actor that may crash
  std::uint64_t crash_commit = 0;  // per crash_point() of an actor that may crash
  std::uint64_t slow = 0;          // a message that takes up to max_slow_ms
  std::int64_t min_delay_ms = 1;
  std::int64_t max_delay_ms = 40;  // more than min_delay_ms reorders
  std::int64_t max_slow_ms = 5'000;
  std::int64_t max_restart_ms = 3'000;
  // no faults from then on, so that every run can settle; 0: never quiet
  std::int64_t quiet_after_ms = 0;
};

struct Message {
  std::string kind;
  Json body;
};

class Actor {
 public:
  virtual ~Actor() = default;
  virtual void receive(const std::string& from, const Message& message) = 0;
};

// Thrown inside an actor where its machine stops: caught by the world, which destroys the actor.
struct Crash {
  std::string actor;
};

class World {
 public:
  using Factory = std::function<std::unique_ptr<Actor>()>;
  World(std::uint64_t seed, Faults faults, std::set<std::uint64_t> suppressed = {});

  // Built at once and again after each crash; what survives lives outside the actor, owned by the
  // caller.
  void add(const std::string& name, Factory factory, bool may_crash);
  void send(const std::string& from, const std::string& to, Message message);
  // Runs `work` unless the actor crashed in between.
  void after(const std::string& actor, std::int64_t delay_ms, std::function<void()> work);
  // Until armed, crash points do nothing: for setting the scene.
  void arm() { armed_ = true; }
  // A place inside an actor where its machine may stop (before and after a commit, say). May throw
  // Crash.
  void crash_point(const std::string& actor);
  // Crashes `actor` at exactly its n-th event (1-based) or crash point, apart from chance.
  void crash_at_event(const std::string& actor, std::uint64_t n) { planned_event_ = {actor, n}; }
  void crash_at_point(const std::string& actor, std::uint64_t n) { planned_point_ = {actor, n}; }
  // Runs `work` right after `actor` handled its n-th event: for freezing or killing it there.
  void at_event(const std::string& actor, std::uint64_t n, std::function<void()> work) {
    planned_event_ = {actor, n};
    planned_work_ = std::move(work);
  }
  // A frozen machine: for so long `actor` handles nothing; what was due is handled afterwards, in
  // its order.
  void freeze(const std::string& actor, std::int64_t ms);
  // A machine that burnt down: `actor` is destroyed and never built again. Not from inside its own
  // events.
  void kill(const std::string& actor);
  // Destroys `actor`, if it is there, and builds it again at once, without crash points. Not from
  // inside its own events.
  void restart(const std::string& actor);
  // Since when `actor` is frozen or dead for good, so that nothing can come from it but what was on
  // its way.
  std::optional<std::int64_t> silent_since_ms(const std::string& actor) const;
  // True with the given chance, unless quiet or suppressed; numbers and notes the fault.
  bool inject(std::uint64_t thousandths, const std::string& what);

  // Handles events until `done` says so or the simulated time is over; true when done.
  bool run(std::int64_t until_ms, const std::function<bool()>& done);

  // Destroys all actors and what is on its way: before whatever they refer to goes.
  void stop();
  ManualClock& clock() { return clock_; }
  std::uint64_t draw(std::uint64_t bound);
  bool up(const std::string& actor) const;
  Actor* actor(const std::string& name);
  std::uint64_t events_of(const std::string& actor) const;
  std::uint64_t crash_points_of(const std::string& actor) const;
  std::uint64_t events() const { return handled_; }

  void note(const std::string& line);  // into the trace
  struct Injected {
    std::uint64_t id;
    std::string what;
  };
  const std::vector<Injected>& injected() const { return injected_; }
  // The last lines of the trace and all injected faults.
  std::string report(std::size_t last_lines = 60) const;

 private:
  struct Event {
    std::int64_t at_ms;
    std::uint64_t order;
    std::string actor;
    std::uint64_t life;  // 0: any (messages and restarts)
    std::function<void()> work;
    bool operator<(const Event& o) const {
      return std::pair(at_ms, order) > std::pair(o.at_ms, o.order);
    }
  };
  struct Slot {
    Factory factory;
    bool may_crash = false;
    std::unique_ptr<Actor> object;
    std::uint64_t life = 1;
    std::uint64_t events = 0;
    std::uint64_t points = 0;
    bool gone = false;                      // for good
    std::int64_t frozen_until_ms = 0;       // 0: not frozen
    std::optional<std::int64_t> silent_ms;  // when it froze or died for good
    std::vector<Event> waiting;             // what came due while it was frozen
  };
  void thaw(const std::string& name);
  void push(std::int64_t delay_ms, const std::string& actor, std::uint64_t life,
            std::function<void()> work);
  void crash(const std::string& name, const std::string& why);
  void handle(Event event);
  void deliver(const std::string& from, const std::string& to, const Message& message);
  bool planned(const std::pair<std::string, std::uint64_t>& plan, const std::string& actor,
               std::uint64_t n) const {
    return plan.first == actor && plan.second == n;
  }

  const Faults faults_;
  const std::set<std::uint64_t> suppressed_;
  ManualClock clock_;
  const std::int64_t start_ms_;
  std::uint64_t state_;
  std::uint64_t next_order_ = 1;
  std::uint64_t next_fault_ = 1;
  std::uint64_t handled_ = 0;
  bool armed_ = false;
  std::map<std::string, Slot> slots_;
  std::priority_queue<Event> heap_;
  std::vector<std::string> trace_;
  std::vector<Injected> injected_;
  std::pair<std::string, std::uint64_t> planned_event_;
  std::function<void()> planned_work_;  // empty: a crash
  std::pair<std::string, std::uint64_t> planned_point_;
};

// An append-only log on a disk: what was appended and not synced may be gone after a crash, from
// some point on.
class DiskLog {
 public:
  void append(Json entry) { entries_.push_back(std::move(entry)); }
  void sync() { synced_ = entries_.size(); }
  void crash(World& world);
  const std::vector<Json>& entries() const { return entries_; }

 private:
  std::vector<Json> entries_;
  std::size_t synced_ = 0;
};

// Runs `run(suppressed)`, which returns an empty string or what went wrong together with the faults
// of that run, and removes faults while it still fails. Returns the report of the smallest failing
// run found, "" when the first succeeded.
struct RunResult {
  std::string failure;
  std::string report;
  std::vector<World::Injected> injected;
};
std::string shrink(const std::function<RunResult(const std::set<std::uint64_t>&)>& run,
                   std::size_t max_runs = 200);

}  // namespace gbx::world
