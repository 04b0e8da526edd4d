// One suite for every Store: in memory and in SQLite.
#include <gtest/gtest.h>
#include <soci/soci.h>
#include <soci/sqlite3/soci-sqlite3.h>
#include <stdlib.h>

#include <functional>

#include "base/os.h"
#include "plane/store/sqlite_store.h"

namespace gbx::plane {
namespace {

using namespace machines;

class Directory {
 public:
  Directory() {
    std::string name = "/tmp/gbx-store-XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~Directory() { (void)remove_tree(path_); }
  std::string file() const { return path_ + "/plane.db"; }

 private:
  std::string path_;
};

class StoreSuite : public ::testing::TestWithParam<bool> {
 protected:
  StoreSuite() {
    if (GetParam()) {
      store = std::move(SqliteStore::open(directory.file()).value());
    } else {
      store = std::make_unique<MemoryStore>();
    }
  }
  Machine job(const std::string& id, std::int64_t at, const std::string& owner = "alice") {
    Machine m;
    m.id = id;
    m.kind = "job";
    m.owner = owner;
    m.body["text"] = "ä \"quoted\" 'single' :colon";
    Transaction t;
    add_begin(t, m, "Submitted", {EffectKind::kAskAuthorise}, at);
    t.effects[0].due_ms = at;
    EXPECT_TRUE(store->commit(t).ok());
    return m;
  }
  Directory directory;
  std::unique_ptr<Store> store;
};

TEST_P(StoreSuite, MachinesComeBackAsTheyWere) {
  Machine m = job("job/1", 1000);
  m.node = "n";
  m.deadline_ms = 77;
  Transaction t;
  t.touches.push_back({m.seq, m});
  ASSERT_TRUE(store->commit(t).ok());
  const Machine got = **store->machine("job/1");
  EXPECT_EQ(got.body, m.body);
  EXPECT_EQ(got.head, m.head);
  EXPECT_EQ(got.owner, "alice");
  EXPECT_EQ(got.node, "n");
  EXPECT_EQ(got.deadline_ms, 77);
  EXPECT_EQ(got.seq, 1);
  EXPECT_TRUE(got.live);
  EXPECT_FALSE(store->machine("job/2")->has_value());
  EXPECT_TRUE(verify_history(*store->history("job/1", 0, 10)).ok());
}

TEST_P(StoreSuite, ConflictLeavesNothing) {
  Machine m = job("job/1", 1000);
  Machine stale = m;
  Transaction first;
  add_step(first, m, "deny", "Denied", false, {}, 2000, "expired", "x");
  ASSERT_TRUE(store->commit(first).ok());
  Transaction second;
  second.records.push_back({0, {"kind", "id", "", "", 1, 0, Json(1)}});
  add_step(second, stale, "cancel", "Cancelled", false, {EffectKind::kAskCancel}, 3000, "", "");
  EXPECT_EQ(store->commit(second).reason(), Reason::kConflict);
  EXPECT_FALSE(store->record("kind", "id")->has_value());
  EXPECT_EQ((**store->machine("job/1")).state, "Denied");
  EXPECT_EQ(store->due(9999, 10)->size(), 1U);
  EXPECT_EQ(store->history("job/1", 0, 10)->size(), 2U);
  Transaction again;
  Machine twin;
  twin.id = "job/1";
  twin.kind = "job";
  add_begin(again, twin, "Submitted", {}, 1);
  EXPECT_EQ(store->commit(again).reason(), Reason::kConflict);
}

// Both stores see it: what one lets pass and the other does not, no test over the first one finds.
TEST_P(StoreSuite, OneRecordTwiceInATransactionIsAConflict) {
  Transaction t;
  for (int i = 0; i < 2; ++i) t.records.push_back({0, {"kind", "id", "", "", 1, 0, Json(i)}});
  EXPECT_EQ(store->commit(t).reason(), Reason::kConflict);
  EXPECT_FALSE(store->record("kind", "id")->has_value());
}

TEST_P(StoreSuite, RecordsAreFencedByRevision) {
  Transaction t;
  t.records.push_back({0, {"asset", "a", "o", "n", 5, 0, Json("one")}});
  ASSERT_TRUE(store->commit(t).ok());
  EXPECT_EQ(store->commit(t).reason(), Reason::kConflict);
  Record r = **store->record("asset", "a");
  EXPECT_EQ(r.revision, 1);
  r.body = Json("two");
  Transaction next;
  next.records.push_back({1, r});
  ASSERT_TRUE(store->commit(next).ok());
  EXPECT_EQ(store->commit(next).reason(), Reason::kConflict);
  EXPECT_EQ((**store->record("asset", "a")).body, Json("two"));
  EXPECT_EQ((**store->record("asset", "a")).revision, 2);
}

TEST_P(StoreSuite, PagesCoverEverythingOnceInBothDirections) {
  for (int i = 0; i < 7; ++i) job("job/" + std::to_string(i), 1000 + i / 2);  // pairs share a time
  job("job/other", 1, "bob");
  for (const bool newest : {false, true}) {
    MachineQuery q;
    q.kind = "job";
    q.owner = "alice";
    q.newest_first = newest;
    q.limit = 2;
    std::vector<std::string> seen;
    for (;;) {
      const auto rows = *store->machines(q);
      for (const auto& m : rows) seen.push_back(m.id);
      if (rows.size() < 2) break;
      q.after = std::pair(rows.back().created_ms, rows.back().id);
    }
    std::vector<std::string> want;
    for (int i = 0; i < 7; ++i) want.push_back("job/" + std::to_string(newest ? 6 - i : i));
    EXPECT_EQ(seen, want);
  }
  MachineQuery all;
  all.kind = "job";
  EXPECT_EQ(*store->count(all), 8);
  all.owner = "bob";
  EXPECT_EQ(*store->count(all), 1);
}

// The counts follow every change, and nothing else: a machine that begins, goes on, ends or is only
// touched, and a transaction that left no trace.
TEST_P(StoreSuite, CountsByStateAndLifeFollowEveryChange) {
  const auto count = [&](std::optional<std::string> state, std::optional<bool> live) {
    MachineQuery q;
    q.kind = "job";
    q.state = std::move(state);
    q.live = live;
    return *store->count(q);
  };
  EXPECT_EQ(count(std::nullopt, std::nullopt), 0);
  Machine a = job("job/a", 1);
  Machine b = job("job/b", 2);
  job("job/c", 3, "bob");
  EXPECT_EQ(count("Submitted", std::nullopt), 3);
  Transaction t;
  add_step(t, a, "authorise", "Authorized", true, {}, 4, "", "");
  add_step(t, b, "deny", "Denied", false, {}, 4, "expired", "");
  ASSERT_TRUE(store->commit(t).ok());
  EXPECT_EQ(store->commit(t).reason(), Reason::kConflict);  // a step that was taken already
  Transaction touch;
  a.deadline_ms = 77;
  touch.touches.push_back({a.seq, a});
  ASSERT_TRUE(store->commit(touch).ok());
  EXPECT_EQ(count("Submitted", std::nullopt), 1);
  EXPECT_EQ(count("Authorized", std::nullopt), 1);
  EXPECT_EQ(count("Authorized", false), 0);
  EXPECT_EQ(count("Denied", std::nullopt), 1);
  EXPECT_EQ(count(std::nullopt, true), 2);
  EXPECT_EQ(count(std::nullopt, false), 1);
  EXPECT_EQ(count(std::nullopt, std::nullopt), 3);
}

TEST_P(StoreSuite, RecordPagesAndFilters) {
  for (int i = 0; i < 5; ++i) {
    Transaction t;
    t.records.push_back({0,
                         {"asset",
                          "a" + std::to_string(i),
                          i % 2 == 0 ? "x" : "y",
                          "n" + std::to_string(i % 3),
                          i,
                          0,
                          {}}});
    ASSERT_TRUE(store->commit(t).ok());
  }
  RecordQuery q;
  q.kind = "asset";
  q.owner = "x";
  EXPECT_EQ(store->records(q)->size(), 3U);
  q.name = "n0";
  EXPECT_EQ(store->records(q)->size(), 1U);
  RecordQuery page;
  page.kind = "asset";
  page.newest_first = true;
  page.limit = 3;
  const auto rows = *store->records(page);
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].id, "a4");
  page.after = std::pair(rows[2].order, rows[2].id);
  EXPECT_EQ(store->records(page)->size(), 2U);
}

TEST_P(StoreSuite, OutboxIsOrderedPostponedAndEmptied) {
  job("job/1", 1000);
  job("job/2", 500);
  auto due = *store->due(5000, 10);
  ASSERT_EQ(due.size(), 2U);
  EXPECT_EQ(due[0].key.machine, "job/2");
  EXPECT_EQ(**store->next_due_ms(), 500);
  Transaction t;
  due[0].due_ms = 9000;
  due[0].tries = 3;
  t.postponed.push_back(due[0]);
  t.done.push_back(due[1].key);
  t.done.push_back({"job/1", 77, EffectKind::kOffer});  // of nobody: no error
  ASSERT_TRUE(store->commit(t).ok());
  EXPECT_TRUE(store->due(5000, 10)->empty());
  EXPECT_EQ((*store->due(9000, 10))[0].tries, 3);
  EXPECT_EQ(**store->next_due_ms(), 9000);
}

TEST_P(StoreSuite, DeadlinesAreFoundWhileLive) {
  Machine m = job("job/1", 1000);
  m.deadline_ms = 400;
  Transaction t;
  t.touches.push_back({m.seq, m});
  ASSERT_TRUE(store->commit(t).ok());
  EXPECT_EQ(**store->next_due_ms(), 400);
  MachineQuery q;
  q.kind = "job";
  q.live = true;
  q.deadline_until_ms = 399;
  EXPECT_TRUE(store->machines(q)->empty());
  q.deadline_until_ms = 400;
  EXPECT_EQ(store->machines(q)->size(), 1U);
}

TEST_P(StoreSuite, TheEarliestDeadlinesComeFirst) {
  for (int i = 0; i < 9; ++i) {
    Machine m = job("job/" + std::to_string(i), i);
    m.deadline_ms = 1'000 - 10 * i;
    Transaction t;
    t.touches.push_back({m.seq, m});
    ASSERT_TRUE(store->commit(t).ok());
  }
  MachineQuery q;
  q.kind = "job";
  q.live = true;
  q.deadline_until_ms = 990;
  q.limit = 2;
  const auto first = std::move(store->machines(q).value());
  ASSERT_EQ(first.size(), 2U);
  EXPECT_EQ(first[0].deadline_ms, 920);
  EXPECT_EQ(first[1].deadline_ms, 930);
  q.after = std::pair(first[1].deadline_ms, first[1].id);
  EXPECT_EQ(store->machines(q)->front().deadline_ms, 940);
}

INSTANTIATE_TEST_SUITE_P(Stores, StoreSuite, ::testing::Values(false, true),
                         [](const auto& i) { return i.param ? "Sqlite" : "Memory"; });

TEST(SqliteStore, KeepsEverythingOverARestartAndRefusesNewerFiles) {
  const Directory directory;
  {
    auto store = std::move(SqliteStore::open(directory.file()).value());
    Machine m;
    m.id = "job/1";
    m.kind = "job";
    Transaction t;
    add_begin(t, m, "Submitted", {EffectKind::kAskAuthorise}, 5);
    ASSERT_TRUE(store->commit(t).ok());
  }
  {
    auto store = std::move(SqliteStore::open(directory.file()).value());
    EXPECT_EQ((**store->machine("job/1")).state, "Submitted");
    EXPECT_EQ(store->due(10, 10)->size(), 1U);
  }
  {
    soci::session s(soci::sqlite3, "dbname=" + directory.file());
    s << "UPDATE schema_version SET version = 1000";
  }
  EXPECT_EQ(SqliteStore::open(directory.file()).reason(), Reason::kBadVersion);
  EXPECT_EQ(SqliteStore::open("/nowhere/at/all/plane.db").reason(), Reason::kDatabase);
}

// Neither walks a table nor sorts: then a page costs the same with a million jobs stored.
bool by_index(const Result<std::string>& steps) {
  EXPECT_TRUE(steps.ok());
  if (!steps.ok()) return false;
  return steps->find("SCAN") == std::string::npos && steps->find("TEMP") == std::string::npos &&
         steps->find("USING") != std::string::npos;
}

// Every combination that the core asks for.
// Whoever looks after a database that was damaged has to know where.
TEST(SqliteStore, ARowThatIsNoDocumentIsNamed) {
  Directory directory;
  auto store = std::move(SqliteStore::open(directory.file()).value());
  Machine m;
  m.id = "job/1";
  m.kind = "job";
  Transaction t;
  add_begin(t, m, "Submitted", {}, 1);
  ASSERT_TRUE(store->commit(t).ok());
  soci::session sql(soci::sqlite3, "dbname=" + directory.file());
  sql << "UPDATE machines SET body = '{'";
  MachineQuery jobs;
  jobs.kind = "job";
  EXPECT_NE(store->machines(jobs).error().what.find("job/1"), std::string::npos);
  EXPECT_NE(store->machine("job/1").error().what.find("job/1"), std::string::npos);
}

TEST(SqliteStore, EveryQuestionOfTheCoreIsAnsweredByAnIndex) {
  const Directory directory;
  auto store = std::move(SqliteStore::open(directory.file()).value());
  const auto machines = [&](const std::function<void(MachineQuery&)>& set) {
    for (const bool newest : {false, true}) {
      for (const bool further : {false, true}) {
        MachineQuery q;
        q.kind = "job";
        q.newest_first = newest;
        if (further) q.after = std::pair(std::int64_t{5}, std::string("job/1"));
        set(q);
        const auto steps = store->steps(q);
        EXPECT_TRUE(by_index(steps)) << *steps;
      }
    }
  };
  machines([](auto&) {});
  machines([](auto& q) { q.owner = "alice"; });
  machines([](auto& q) { q.state = "Authorized"; });
  machines([](auto& q) { q.live = true; });
  machines([](auto& q) { q.node = "n", q.live = true; });
  machines([](auto& q) { q.live = true, q.deadline_until_ms = 7; });
  machines([](auto& q) { q.live = false, q.deadline_until_ms = 7; });
  // What ended and is not told yet: neither of everybody, nor all that ended of this one.
  const auto held = [&](const char* index, const std::function<void(MachineQuery&)>& set) {
    MachineQuery q;
    q.kind = "job";
    q.live = false;
    q.deadline_until_ms = 7;
    set(q);
    const auto steps = store->steps(q);
    EXPECT_TRUE(by_index(steps) && steps->find(index) != std::string::npos) << *steps;
  };
  held("machines_held_of_owner", [](auto& q) { q.owner = "alice"; });
  held("machines_held_on_node", [](auto& q) { q.node = "n"; });
  for (const bool owner : {false, true}) {
    for (const bool name : {false, true}) {
      RecordQuery q;
      q.kind = "asset";
      if (owner) q.owner = "alice";
      if (name) q.name = "x";
      const auto steps = store->steps(q);
      EXPECT_TRUE(by_index(steps)) << *steps;
    }
  }
}

// What metrics ask for, with each scrape, is not counted among a million jobs that ended.
TEST(SqliteStore, MachinesInAStateAreCountedWithoutALookAtThem) {
  const Directory directory;
  auto store = std::move(SqliteStore::open(directory.file()).value());
  for (const bool live : {false, true}) {
    MachineQuery q;
    q.kind = live ? "env" : "job";
    q.state = "Working";
    if (live) q.live = true;
    const auto steps = store->count_steps(q);
    EXPECT_TRUE(by_index(steps));
    EXPECT_EQ(steps->find("machines"), std::string::npos) << *steps;
  }
  MachineQuery owned;  // of one identity, bounded by its quota
  owned.kind = "job";
  owned.owner = "alice";
  owned.live = true;
  EXPECT_TRUE(by_index(store->count_steps(owned)));
}

TEST(SqliteStore, AFileOfTheFirstSchemaIsBroughtUpToDate) {
  const Directory directory;
  {
    auto store = std::move(SqliteStore::open(directory.file()).value());
    Machine m;
    m.id = "job/1";
    m.kind = "job";
    Transaction t;
    add_begin(t, m, "Submitted", {EffectKind::kAskAuthorise}, 5);
    ASSERT_TRUE(store->commit(t).ok());
  }
  {  // as version 1 left it
    soci::session s(soci::sqlite3, "dbname=" + directory.file());
    for (const char* index :
         {"machines_by_time", "machines_by_life", "machines_by_owner_life", "machines_on_node",
          "machines_with_deadline", "deadlines_of_live", "records_by_kind", "outbox_in_order",
          "machines_held_of_owner", "machines_held_on_node"}) {
      s << std::string("DROP INDEX ") + index;
    }
    for (const char* poster : {"poster", "consumer"}) {
      s << "INSERT INTO records (kind, id, owner, name, ordinal, revision, body) VALUES ('lease', "
           "'of-" +
               std::string(poster) + "', 'consumer', '', 5, 1, '{\"postedBy\":\"" + poster +
               "\"}')";
    }
    s << "CREATE INDEX machines_by_node ON machines (kind, node, live)";
    s << "CREATE INDEX machines_by_deadline ON machines (live, deadline_ms)";
    s << "CREATE INDEX outbox_by_due ON outbox (due_ms)";
    s << "DROP TRIGGER tally_of_new";
    s << "DROP TRIGGER tally_of_changed";
    s << "DROP TABLE tallies";
    s << "UPDATE schema_version SET version = 1";
  }
  auto store = std::move(SqliteStore::open(directory.file()).value());
  EXPECT_EQ((**store->machine("job/1")).state, "Submitted");
  EXPECT_EQ(store->due(10, 10)->size(), 1U);
  MachineQuery q;
  q.kind = "job";
  EXPECT_TRUE(by_index(store->steps(q)));
  EXPECT_EQ(*store->count(q), 1);  // of what was there before anybody counted, too
  q.state = "Submitted";
  EXPECT_EQ(*store->count(q), 1);
  const auto leases_of = [&](const char* whose) {
    RecordQuery leases;
    leases.kind = "lease-of";
    leases.owner = whose;
    std::vector<std::string> names;
    const auto found = store->records(leases);
    for (const auto& r : found.value()) names.push_back(r.name);
    return names;
  };
  EXPECT_EQ(leases_of("consumer"), (std::vector<std::string>{"of-consumer", "of-poster"}));
  EXPECT_EQ(leases_of("poster"), std::vector<std::string>{"of-poster"});
}

}  // namespace
}  // namespace gbx::plane
