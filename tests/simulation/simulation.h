// The whole of a Privacy job in the simulated world: the real core of the plane, the real core of the broker, models of
// nodes with their agents, consumers and a reviewer; a network that loses, doubles and delays; processes that crash.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "broker/testing.h"
#include "machines/world.h"
#include "plane/core/core.h"

namespace gbx::simulation {

struct Scenario {
  std::uint64_t seed = 1;
  world::Faults faults;
  std::size_t jobs = 3;
  std::size_t nodes = 2;
  bool varied = true;          // holds, rejections, failing agents, cancellations; else every job succeeds
  bool careless_broker = false;  // sends before its log is synced: a defect that the invariants must find
  std::set<std::uint64_t> suppressed;
  // Crash exactly here, apart from chance.
  std::string crash_actor;
  std::uint64_t crash_event = 0;
  std::uint64_t crash_point = 0;
};

struct Outcome {
  std::string failure;  // empty: every invariant held
  std::string report;
  std::vector<world::World::Injected> injected;
  std::map<std::string, std::size_t> states;             // how many jobs ended in which state
  std::map<std::string, std::size_t> reasons;            // of those that failed
  std::map<std::string, std::uint64_t> events;           // by actor
  std::map<std::string, std::uint64_t> points;           // crash points by actor
};

Outcome run(const Scenario& scenario);

}  // namespace gbx::simulation
