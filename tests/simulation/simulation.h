// The whole of a Privacy job in the simulated world: the real core of the plane, the real core of
// the broker, models of nodes with their agents, consumers and a reviewer; a network that loses,
// doubles and delays; processes that crash, nodes that freeze and go on later or die for good,
// agents that hang.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "broker/testing.h"
#include "machines/world.h"
#include "plane/core/core.h"

namespace gbx::simulation {

enum class Mishap {
  kCrash,         // and started again from what it had stored
  kFreeze,        // longer than any lease, and then on as if nothing had been
  kDeath,         // for good
  kClockForward,  // by a day and more, and never set right
  kClockBack,
  kDiskFull,  // for longer than a lease
  kDiskSlow,
};

struct Scenario {
  std::uint64_t seed = 1;
  world::Faults faults;
  std::uint64_t freeze = 0;  // chances in thousandths: a node with its agents, per step of an agent
  std::uint64_t hang = 0;    // an agent, somewhere on its way, while its node is well
  std::uint64_t death = 0;   // of one node, when there are others
  std::size_t jobs = 3;
  std::size_t nodes = 2;
  // holds, rejections, failing agents, long runs, cancellations; else every job succeeds
  bool varied = true;
  // sends before its log is synced: a defect that the invariants must find
  bool careless_broker = false;
  world::World::Only only;
  // One mishap exactly here, apart from chance: after this event, or at this crash point.
  std::string planned_actor;
  Mishap mishap = Mishap::kCrash;
  std::uint64_t planned_event = 0;
  std::uint64_t planned_point = 0;
};

struct Outcome {
  std::string failure;  // empty: every invariant held
  std::string report;
  std::vector<world::World::Injected> injected;
  std::map<std::string, std::size_t> states;    // how many jobs ended in which state
  std::map<std::string, std::size_t> reasons;   // of those that did not complete
  std::map<std::string, std::size_t> attempts;  // how many ended why
  std::map<std::string, std::size_t> charges;   // lines of ledgers by their state
  // requests of superseded attempts at the broker, by method
  std::map<std::string, std::size_t> turned_away;
  std::set<std::string> ran_on;                 // nodes that got attempts
  std::map<std::string, std::uint64_t> events;  // by actor
  std::map<std::string, std::uint64_t> points;  // crash points by actor
};

Outcome run(const Scenario& scenario);

}  // namespace gbx::simulation
