// Test support: a single-threaded simulated world. A heap of events, a simulated time and clocks
// that show another one, a network that drops, doubles, delays, reorders and is cut, disks that
// lose what was not synced, are full or slow, and actors that crash (which destroys the object and
// later rebuilds it from what it had stored), freeze and go on as if nothing had been, or die for
// good. The same seed gives the same run. Whether a fault happens hangs on the seed, on what it is
// and on how often that could have happened before, not on what happened elsewhere: so a run with
// some of its faults left out is still the same run, and a failing one is shrunk to those that
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
  std::uint64_t cut = 0;           // per message: nothing more between these two for a while
  std::uint64_t jump = 0;          // per event of an actor that may crash: its clock is set anew
  std::uint64_t disk_full = 0;     // per commit: this one and all others for a while are refused
  std::uint64_t disk_slow = 0;     // per commit: it takes up to max_slow_ms
  std::int64_t min_delay_ms = 1;
  std::int64_t max_delay_ms = 40;  // more than min_delay_ms reorders
  std::int64_t max_slow_ms = 5'000;
  std::int64_t max_restart_ms = 3'000;
  std::int64_t max_cut_ms = 20'000;
  std::int64_t max_full_ms = 15'000;
  // how far clocks are set forward or back; they are right again when it is quiet
  std::vector<std::int64_t> jumps_ms = {2'000, 60'000, 3'600'000, 3 * 86'400'000};
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
  // `only`: these faults and no others.
  using Only = std::optional<std::set<std::uint64_t>>;
  World(std::uint64_t seed, Faults faults, Only only = std::nullopt);

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
  // The clock of `actor`'s machine: what it shows may jump, durations are the world's.
  const Clock& clock_of(const std::string& actor);
  void set_clock(const std::string& actor, std::int64_t ahead_ms);
  // Asked by the disk of `actor` at each commit. A slow one keeps the actor waiting: what it sends
  // in this event leaves later, and what is due for it waits.
  bool disk_refuses(const std::string& actor);
  void disk_waits(const std::string& actor);
  void fill_disk(const std::string& actor, std::int64_t ms);
  void stall(const std::string& actor, std::int64_t ms);
  // Whether its disk is full or slow, or was within the last `ms`.
  bool disk_trouble(const std::string& actor, std::int64_t ms) const;
  // Since when `actor` is frozen or dead for good, so that nothing can come from it but what was on
  // its way.
  std::optional<std::int64_t> silent_since_ms(const std::string& actor) const;
  // True with the given chance, unless quiet or left out; names and notes the fault.
  bool inject(std::uint64_t thousandths, const std::string& what);

  // Handles events until `done` says so or the simulated time is over; true when done.
  bool run(std::int64_t until_ms, const std::function<bool()>& done);

  // Destroys all actors and what is on its way: before whatever they refer to goes.
  void stop();
  ManualClock& clock() { return clock_; }
  // From a sequence of the actor whose event this is.
  std::uint64_t draw(std::uint64_t bound);
  bool up(const std::string& actor) const;
  Actor* actor(const std::string& name);
  std::uint64_t events_of(const std::string& actor) const;
  std::uint64_t crash_points_of(const std::string& actor) const;
  std::uint64_t events() const { return handled_; }

  void note(const std::string& line);  // into the trace
  struct Injected {
    std::uint64_t id;  // the same in every run of this seed
    std::string what;
  };
  const std::vector<Injected>& injected() const { return injected_; }
  // The last lines of the trace and all injected faults.
  std::string report(std::size_t last_lines = 400) const;

 private:
  class MachineClock final : public Clock {
   public:
    explicit MachineClock(const World& world) : world_(world) {}
    TimeMs now() const override;
    std::int64_t steady_ms() const override { return world_.clock_.steady_ms(); }
    std::int64_t ahead_ms = 0;

   private:
    const World& world_;
  };
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
    std::unique_ptr<MachineClock> clock;
    std::int64_t stalled_until_ms = 0;
    std::int64_t full_until_ms = 0;
  };
  bool quiet() const;
  // A number below `bound` for the n-th `what` of this seed.
  std::uint64_t keyed(const std::string& what, std::uint64_t bound);
  bool cut_off(const std::string& from, const std::string& to, const std::string& what);
  void jump_by_chance(const std::string& name, Slot& slot);
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
  const std::uint64_t seed_;
  const Only only_;
  ManualClock clock_;
  const std::int64_t start_ms_;
  std::map<std::string, std::uint64_t> states_;  // of draw(), by actor
  std::map<std::string, std::uint64_t> asked_;   // how often, by what
  std::map<std::pair<std::string, std::string>, std::int64_t> cut_until_ms_;
  std::string current_;  // whose event is handled
  std::uint64_t next_order_ = 1;
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

// The smallest set of faults that still fails, found by leaving out ever smaller parts of what is
// left (Zeller's ddmin: in the end no single one can be spared, unless `max_runs` were not enough),
// and the whole trace of the run with these. `run(only)` returns an empty failure or what went
// wrong. "" when the first run, with every fault of its seed, succeeds.
struct RunResult {
  std::string failure;
  std::string report;
  std::vector<World::Injected> injected;
};
std::string shrink(const std::function<RunResult(const World::Only&)>& run,
                   std::size_t max_runs = 400);

}  // namespace gbx::world
