#include <gtest/gtest.h>

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
      EXPECT_TRUE(!terminal(s.value) || !next.ok()) << s.name << " " << e.name;
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

TEST(World, ShrinkKeepsOnlyTheFaultsThatMatter) {
  const auto run = [](const std::set<std::uint64_t>& suppressed) {
    Faults f;
    f.drop = 300;
    World w(5, f, suppressed);
    DiskLog disk;
    w.add(
        "counter", [&] { return std::make_unique<Counter>(w, disk); }, false);
    for (int i = 0; i < 30; ++i) w.send("x", "counter", {"sync", Json(i)});
    w.run(100'000, [] { return false; });
    RunResult r;
    if (disk.entries().size() < 28) r.failure = "too many lost";
    r.report = w.report();
    r.injected = w.injected();
    return r;
  };
  ASSERT_GT(run({}).injected.size(), 3U);
  const std::string report = shrink(run);
  EXPECT_NE(report.find("faults injected: 3\n"), std::string::npos) << report;
}

}  // namespace
}  // namespace gbx::world
