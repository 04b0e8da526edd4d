// GBX_SIM_SEEDS says how many seeds (100), GBX_SIM_FIRST the first one, GBX_SIM_STRIDE how many places are left out
// between two planned crashes (1: none).
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

#include "simulation.h"

namespace gbx::simulation {
namespace {

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

world::Faults rough() {
  world::Faults f;
  f.drop = 40;
  f.duplicate = 40;
  f.slow = 30;
  f.crash = 4;
  f.crash_commit = 4;
  f.quiet_after_ms = 60'000;
  return f;
}

std::string shrunk(const Scenario& scenario) {
  return "seed " + std::to_string(scenario.seed) + "\n" + world::shrink([&](const std::set<std::uint64_t>& suppressed) {
           Scenario again = scenario;
           again.suppressed = suppressed;
           Outcome o = run(again);
           return world::RunResult{o.failure, o.report, o.injected};
         }, 60);
}

TEST(Simulation, QuietWorldCompletesEveryJob) {
  Scenario s;
  s.varied = false;
  const Outcome o = run(s);
  EXPECT_EQ(o.failure, "") << o.report;
  EXPECT_EQ(o.states.at("Completed"), 3U);
}

TEST(Simulation, SameSeedSameRun) {
  Scenario s;
  s.seed = 5;
  s.faults = rough();
  EXPECT_EQ(run(s).report, run(s).report);
}

TEST(Simulation, EverySeedHoldsEveryInvariant) {
  const std::uint64_t first = setting("GBX_SIM_FIRST", 1);
  const std::uint64_t seeds = setting("GBX_SIM_SEEDS", 100);
  std::map<std::string, std::size_t> states;
  std::size_t faults = 0;
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
    Scenario s;
    s.seed = seed;
    s.faults = rough();
    const Outcome o = run(s);
    for (const auto& [state, n] : o.states) states[state] += n;
    for (const auto& [reason, n] : o.reasons) states["Failed: " + reason] += n;
    faults += o.injected.size();
    ASSERT_EQ(o.failure, "") << shrunk(s);
  }
  for (const auto& [state, n] : states) std::cout << state << " " << n << "\n";
  std::cout << seeds << " seeds, " << faults << " faults\n";
  // The runs were rough, and still most jobs got through.
  EXPECT_GT(faults, seeds * 5);
  EXPECT_GT(states["Completed"], seeds / 2);
  EXPECT_TRUE(seeds < 100 || (states["Rejected"] > 0 && states["Cancelled"] > 0 && states["Failed"] > 0));
}

void crash_everywhere(const std::string& actor) {
  Scenario base;
  base.seed = 77;
  base.jobs = 1;
  base.varied = false;
  const Outcome quiet = run(base);
  ASSERT_EQ(quiet.failure, "") << quiet.report;
  ASSERT_GT(quiet.events.at(actor), 5U);
  const std::uint64_t stride = setting("GBX_SIM_STRIDE", 1);
  base.crash_actor = actor;
  for (std::uint64_t n = 1; n <= quiet.events.at(actor); n += stride) {
    base.crash_event = n;
    const Outcome o = run(base);
    ASSERT_EQ(o.failure, "") << actor << " after event " << n << "\n" << o.report;
  }
  base.crash_event = 0;
  for (std::uint64_t n = 1; n <= quiet.points.at(actor); n += stride) {
    base.crash_point = n;
    const Outcome o = run(base);
    ASSERT_EQ(o.failure, "") << actor << " at point " << n << "\n" << o.report;
    EXPECT_EQ(o.states.count("Completed"), 1U) << actor << " at point " << n << "\n" << o.report;
  }
}
TEST(Simulation, PlaneCrashesAtEveryStep) { crash_everywhere("plane"); }
TEST(Simulation, BrokerCrashesAtEveryStep) { crash_everywhere("broker"); }
TEST(Simulation, NodeCrashesAtEveryStep) { crash_everywhere("node0"); }

// The invariants can fail: a broker that sends a key before its log is on the disk is found.
TEST(Simulation, KeySentBeforeItsLogEntryIsFound) {
  bool found = false;
  for (std::uint64_t seed = 1; seed <= 40 && !found; ++seed) {
    Scenario s;
    s.seed = seed;
    s.faults = rough();
    s.careless_broker = true;
    const Outcome o = run(s);
    found = o.failure == "a key was sent that the log does not hold";
  }
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace gbx::simulation
