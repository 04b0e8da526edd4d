#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "machines/store.h"
#include "machines/world.h"

namespace gbx::machines {
namespace {

template <class S, class E, class Table>
void check_table(Table table, S first) {
  std::set<S> reached{first};
  for (std::size_t round = 0; round < table.size(); ++round) {
    for (const auto& t : table) {
      if (reached.count(t.from) != 0) reached.insert(t.to);
    }
  }
  std::size_t allowed = 0;
  for (const auto& s : enum_names(S{})) {
    EXPECT_EQ(reached.count(s.value), 1U) << s.name << " is never reached";
    std::set<S> ahead{s.value};
    for (std::size_t round = 0; round < table.size(); ++round) {
      for (const auto& t : table) {
        if (ahead.count(t.from) != 0) ahead.insert(t.to);
      }
    }
    bool ends = false;
    for (const S a : ahead) ends = ends || terminal(a);
    EXPECT_TRUE(ends) << s.name << " leads to no end";
    for (const auto& e : enum_names(E{})) {
      const auto next = step(s.value, e.value);
      if (next.ok()) {
        ++allowed;
      } else {
        EXPECT_EQ(next.reason(), Reason::kWrongState);
      }
      EXPECT_TRUE(!terminal(s.value) || !next.ok() || next->state == s.value)
          << s.name << " " << e.name;
    }
  }
  EXPECT_EQ(allowed, table.size());
}

TEST(Machines, EveryStateIsReachedAndEndsAndOnlyTheTableAllows) {
  check_table<JobState, JobEvent>(job_table(), begin_job().state);
  check_table<EnvironmentState, EnvironmentEvent>(environment_table(), begin_environment().state);
  check_table<OutputState, OutputEvent>(output_table(), begin_output().state);
}

TEST(Machines, TerminalStatesAreTheNamedOnes) {
  std::set<std::string> ends;
  for (const auto& s : enum_names(JobState{})) {
    if (terminal(s.value)) ends.insert(s.name);
  }
  EXPECT_EQ(ends, (std::set<std::string>{"Completed", "Denied", "Failed", "Rejected", "Cancelled",
                                         "Expired", "Revoked"}));
  EXPECT_TRUE(terminal(EnvironmentState::kLost));
  EXPECT_TRUE(terminal(EnvironmentState::kDestroyed));
  EXPECT_FALSE(terminal(EnvironmentState::kSealed));
  EXPECT_FALSE(terminal(OutputState::kHeld));
}

Machine sample() {
  Machine m;
  m.id = "job/1";
  m.kind = "job";
  m.owner = "o";
  return m;
}

TEST(Store, StepsAreFencedChainedAndCarryTheirEffects) {
  MemoryStore store;
  Machine m = sample();
  Transaction t;
  add_begin(t, m, "Submitted", {EffectKind::kAskAuthorise}, 1000);
  ASSERT_TRUE(store.commit(t).ok());
  EXPECT_EQ(store.commit(t).reason(), Reason::kConflict);
  Transaction second;
  Machine copy = m;
  add_step(second, m, "deny", "Denied", false, {}, 2000, "policy-missing", "");
  second.done.push_back({"job/1", 1, EffectKind::kAskAuthorise});
  ASSERT_EQ(store.due(5000, 10)->size(), 1U);
  ASSERT_TRUE(store.commit(second).ok());
  EXPECT_TRUE(store.due(5000, 10)->empty());
  Transaction late;
  add_step(late, copy, "cancel", "Cancelled", false, {}, 3000, "", "");
  EXPECT_EQ(store.commit(late).reason(), Reason::kConflict);
  auto rows = *store.history("job/1", 0, 100);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_TRUE(verify_history(rows).ok());
  rows[1].reason = "expired";
  EXPECT_EQ(verify_history(rows).reason(), Reason::kChainBroken);
}

}  // namespace
}  // namespace gbx::machines

namespace gbx::world {
namespace {

// Counts what arrives and crashes like any other actor; the count survives outside.
struct Counter : Actor {
  Counter(World& w, DiskLog& log) : world(w), disk(log) {}
  void receive(const std::string&, const Message& m) override {
    disk.append(m.body);
    if (m.kind == "sync") disk.sync();
    world.crash_point("counter");
  }
  World& world;
  DiskLog& disk;
};

TEST(World, SameSeedSameRunOtherSeedOtherRun) {
  const auto run = [](std::uint64_t seed) {
    Faults f;
    f.drop = f.duplicate = f.crash = f.slow = 100;
    World w(seed, f);
    DiskLog disk;
    w.add(
        "counter", [&] { return std::make_unique<Counter>(w, disk); }, true);
    for (int i = 0; i < 50; ++i) w.send("x", "counter", {"sync", Json(i)});
    w.run(100'000, [] { return false; });
    return w.report(1000);
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

TEST(World, CrashLosesOnlyWhatWasNotSyncedAndTimersOfTheDead) {
  World w(7, {});
  DiskLog disk;
  bool ran = false;
  w.add(
      "counter",
      [&] {
        disk.crash(w);
        return std::make_unique<Counter>(w, disk);
      },
      true);
  w.crash_at_event("counter", 2);
  w.send("x", "counter", {"sync", Json(1)});
  w.run(1'000, [&] { return disk.entries().size() == 1; });
  w.after("counter", 500, [&] { ran = true; });
  w.send("x", "counter", {"sync", Json(2)});
  w.run(10'000, [] { return false; });
  EXPECT_EQ(disk.entries().size(), 2U);
  EXPECT_FALSE(ran);
  EXPECT_TRUE(w.up("counter"));
}

TEST(World, AFrozenActorGoesOnWithEverythingInItsOrder) {
  World w(7, {});
  DiskLog disk;
  std::vector<int> seen;
  w.add(
      "counter", [&] { return std::make_unique<Counter>(w, disk); }, true);
  w.at_event("counter", 1, [&] { w.freeze("counter", 5'000); });
  const std::int64_t start = w.clock().now().ms;
  for (int i = 0; i < 5; ++i) {
    w.after("counter", 100 * (5 - i), [&seen, i] { seen.push_back(i); });
  }
  w.run(4'000, [] { return false; });
  ASSERT_EQ(seen.size(), 1U);  // froze after this one
  EXPECT_EQ(w.silent_since_ms("counter"), start + 100);
  w.run(10'000, [] { return false; });
  EXPECT_EQ(seen, (std::vector<int>{4, 3, 2, 1, 0}));
  EXPECT_EQ(w.clock().now().ms, start + 5'100);
  EXPECT_FALSE(w.silent_since_ms("counter"));
}

TEST(World, WhoDiedForGoodStaysDead) {
  World w(7, {});
  DiskLog disk;
  w.add(
      "counter", [&] { return std::make_unique<Counter>(w, disk); }, true);
  w.crash_at_event("counter", 1);
  w.send("x", "counter", {"sync", Json(1)});
  w.run(100, [&] { return !w.up("counter"); });
  w.kill("counter");  // while it waits to be started again
  w.freeze("counter", 10);
  w.send("x", "counter", {"sync", Json(2)});
  w.run(100'000, [] { return false; });
  EXPECT_FALSE(w.up("counter"));
  EXPECT_EQ(disk.entries().size(), 1U);
  EXPECT_TRUE(w.silent_since_ms("counter"));
}

RunResult losing(const World::Only& only, const std::function<bool(const DiskLog&)>& wrong) {
  Faults f;
  f.drop = 300;
  f.duplicate = f.slow = 200;
  World w(5, f, only);
  DiskLog disk;
  w.add(
      "counter", [&] { return std::make_unique<Counter>(w, disk); }, false);
  for (int i = 0; i < 30; ++i) w.send("x", "counter", {"m" + std::to_string(i), Json(i)});
  w.run(100'000, [] { return false; });
  return {wrong(disk) ? "too many lost" : "", w.report(), w.injected()};
}
bool holds(const DiskLog& disk, std::int64_t what) {
  return std::count(disk.entries().begin(), disk.entries().end(), Json(what)) != 0;
}

TEST(World, ShrinkKeepsOnlyTheFaultsThatMatter) {
  const RunResult all = losing(std::nullopt, [](const DiskLog&) { return true; });
  std::vector<std::int64_t> lost;
  for (const auto& fault : all.injected) {
    if (fault.what.rfind("drop m", 0) == 0) lost.push_back(std::stoll(fault.what.substr(6)));
  }
  ASSERT_GT(lost.size(), 3U);
  ASSERT_GT(all.injected.size(), 12U);
  // The first and the last together break it; neither does alone.
  std::size_t runs = 0;
  const std::string report = shrink([&](const World::Only& only) {
    ++runs;
    return losing(only, [&](const DiskLog& disk) {
      return !holds(disk, lost.front()) && !holds(disk, lost.back());
    });
  });
  EXPECT_EQ(
      report.rfind("too many lost\nfaults injected: 2\n  drop m" + std::to_string(lost.front()) +
                       " x -> counter\n  drop m" + std::to_string(lost.back()) + " x -> counter\n",
                   0),
      0U)
      << report;
  EXPECT_LT(runs, 60U);
}

// What is left out changes nothing of the rest.
TEST(World, ARunWithSomeOfItsFaultsIsTheSameRun) {
  const auto never = [](const DiskLog&) { return false; };
  const RunResult all = losing(std::nullopt, never);
  std::set<std::uint64_t> some;
  for (std::size_t i = 0; i < all.injected.size(); i += 2) some.insert(all.injected[i].id);
  const RunResult again = losing(some, never);
  ASSERT_EQ(again.injected.size(), some.size());
  for (std::size_t i = 0; i < again.injected.size(); ++i) {
    EXPECT_EQ(again.injected[i].what, all.injected[2 * i].what);
  }
}

TEST(World, AFailureWithoutFaultsIsToldWithoutAny) {
  const std::string report = shrink(
      [](const World::Only& only) { return losing(only, [](const DiskLog&) { return true; }); });
  EXPECT_EQ(report.rfind("too many lost\nfaults injected: 0\n", 0), 0U) << report;
}

TEST(World, AClockThatJumpsLeavesDurationsAlone) {
  Faults f;
  f.jump = 1000;
  f.jumps_ms = {5'000};
  f.quiet_after_ms = 10'000;
  World w(3, f);
  DiskLog disk;
  const Clock& clock = w.clock_of("counter");
  w.add(
      "counter", [&] { return std::make_unique<Counter>(w, disk); }, true);
  const std::int64_t start = w.clock().now().ms;
  std::set<std::int64_t> shown;
  for (int i = 1; i <= 8; ++i) {
    w.after("counter", 1000 * i, [&, i] {
      shown.insert(clock.now().ms - start - 1000 * i);
      EXPECT_EQ(clock.steady_ms(), w.clock().steady_ms());
    });
  }
  w.after("counter", 11'000, [&] { EXPECT_EQ(clock.now().ms, w.clock().now().ms); });
  w.run(20'000, [] { return false; });
  EXPECT_EQ(shown, (std::set<std::int64_t>{-5'000, 5'000}));
}

TEST(World, ACutLinkCarriesNothingEitherWay) {
  Faults f;
  f.cut = 1000;
  f.quiet_after_ms = 1;
  World w(3, f);
  DiskLog disk;
  w.add(
      "counter", [&] { return std::make_unique<Counter>(w, disk); }, true);
  w.send("x", "counter", {"sync", Json(1)});  // the cut, and lost with it
  w.after("counter", 10, [&] { w.send("x", "counter", {"sync", Json(2)}); });
  w.after("counter", f.max_cut_ms + 10, [&] { w.send("x", "counter", {"sync", Json(3)}); });
  w.run(100'000, [] { return false; });
  EXPECT_EQ(disk.entries(), std::vector<Json>{Json(3)});
}

// Its disk keeps it waiting: what it had sent in that event comes as late, and what is due waits.
TEST(World, AStalledActorSendsAndHandlesLater) {
  World w(3, {});
  DiskLog disk;
  std::vector<std::int64_t> times;
  w.add(
      "counter", [&] { return std::make_unique<Counter>(w, disk); }, true);
  const std::int64_t start = w.clock().now().ms;
  w.after("counter", 10, [&] {
    w.stall("counter", 5'000);
    w.send("counter", "counter", {"sync", Json(1)});
  });
  for (int i = 1; i <= 3; ++i) {
    w.after("counter", 10 + i, [&] { times.push_back(w.clock().now().ms - start); });
  }
  w.run(4'000, [] { return false; });
  EXPECT_TRUE(times.empty());
  EXPECT_TRUE(w.disk_trouble("counter", 0));
  w.run(100'000, [] { return false; });
  EXPECT_EQ(times, (std::vector<std::int64_t>{5'010, 5'010, 5'010}));
  EXPECT_EQ(disk.entries().size(), 1U);
  EXPECT_GT(w.clock().now().ms - start, 5'010);
}

TEST(World, AFullDiskRefusesForAWhile) {
  Faults f;
  f.disk_full = 1000;
  f.quiet_after_ms = 1;
  World w(3, f);
  DiskLog disk;
  w.add(
      "counter", [&] { return std::make_unique<Counter>(w, disk); }, true);
  EXPECT_FALSE(w.disk_refuses("counter")) << "the scene is set";
  w.arm();
  EXPECT_TRUE(w.disk_refuses("counter"));
  w.after("counter", 1, [&] { EXPECT_TRUE(w.disk_refuses("counter")); });
  w.after("counter", f.max_full_ms + 1, [&] { EXPECT_FALSE(w.disk_refuses("counter")); });
  w.run(100'000, [] { return false; });
}

}  // namespace
}  // namespace gbx::world
