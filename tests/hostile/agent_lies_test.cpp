// Whoever gives the agent something lies in it: the plane and the node in the bundle of an attempt,
// the node in each of its answers, the broker's answers on their way. The worker is the real one,
// over a real mux and TLS; broker, node and privileged half are those of agent/testing.h. A lie
// ends the attempt with a reason, before anything was done that the truth would not have done, and
// nothing is handed in; or it says nothing that the agent goes by, and everything is done as
// without it.
#include <gtest/gtest.h>

#include <cstdio>

#include "agent/testing.h"
#include "lies.h"

namespace gbx::agent {
namespace {

using gbx::testing::must;
using hostile::Choice;
using hostile::Harmless;
using hostile::lies_about;
using hostile::Pool;

bool fault_of_ours(Reason r) {
  const ExitClass c = exit_class(r);
  return c == ExitClass::kInternal || c == ExitClass::kInfrastructure || c == ExitClass::kOk;
}

// What the worker had done, and the keys that it gave away for it.
struct Done {
  Status status = ok_status();
  bool sealed = false;
  std::vector<std::string> deeds;
  std::vector<DatasetKey> keys;
};
Done run(WorkerWorld& w) {
  Outcome o = w.run();
  std::erase_if(w.deeds_, [](const std::string& d) { return d.rfind("destroy", 0) == 0; });
  return {std::move(o.status), o.end.sealed, w.deeds_, std::move(o.keys)};
}
// Nothing was done, and no key given away, but as the truth does it, up to some step.
void begins_like(const Done& truth, const Done& lied, const std::string& what) {
  ASSERT_LE(lied.deeds.size(), truth.deeds.size()) << what;
  for (std::size_t i = 0; i < lied.deeds.size(); ++i) {
    EXPECT_EQ(lied.deeds[i], truth.deeds[i]) << what;
  }
  ASSERT_LE(lied.keys.size(), truth.keys.size()) << what;
  for (std::size_t i = 0; i < lied.keys.size(); ++i) {
    EXPECT_TRUE(lied.keys[i] == truth.keys[i]) << what << ": another key";
  }
}

struct Tally {
  int tried = 0;
  int taken = 0;
  std::map<Reason, int> refused;
  void print(const char* what, const Choice& choice) const {
    std::printf("%s: %d lies (GBX_LIES=%s), %d of them taken\n", what, tried, choice.text().c_str(),
                taken);
    for (const auto& [reason, n] : refused) {
      std::printf("%6d %s\n", n, std::string(reason_code(reason)).c_str());
    }
  }
};
void hold(Harmless& harmless, const Choice& choice) {
  if (!choice.all()) return;
  for (const auto& place : harmless.unused()) std::printf("nothing was taken: %s\n", place.c_str());
}

// Another job of the same people, and the next attempt of this one.
void collect_others(Pool& pool) {
  WorkerWorld foreign(177), w;
  pool.collect(to_json(foreign.bundle_));
  pool.collect(to_json(w.bundle_));
  LaunchBundle other = w.bundle_;
  other.submission = w.world_.submission();
  other.plan = must(w.world_.authorise(other.submission));
  other.credential = must(w.world_.credential(other.plan.body.job_id, 1));
  pool.collect(to_json(other));
  other = w.bundle_;
  other.credential = must(w.world_.credential(other.plan.body.job_id, 2));
  pool.collect(to_json(other));
}

TEST(AgentLies, NoLieInABundleIsRun) {
  Choice choice;
  Pool pool;
  collect_others(pool);
  Harmless harmless{
      {"body.submission.leases*", "the broker judged them for the plan, which the set signed"},
      {"body.owners*",
       "who they are is in the policies that they signed; more of them say nothing"},
      {"body.versions", "each is found by the id that the submission binds"},
      {"body.policies", "each is found by the hash that the plan names"},
  };
  WorkerWorld w;
  const Json truth = to_json(w.bundle_);
  const std::int64_t now = w.world_.clock.now().seconds();
  const Done done = run(w);
  ASSERT_TRUE(done.sealed) << done.status.error().line();
  ASSERT_EQ(done.keys.size(), 2U);
  Tally tally;
  for (const auto& lie : choice.some(lies_about(pool, truth), 4)) {
    ++tally.tried;
    const auto read = [&]() -> Result<LaunchBundle> {
      GBX_ASSIGN(const Json body, parse_json(lie.text));
      return from_json<LaunchBundle>(body);
    }();
    const auto checked = read.ok() ? check_bundle(*read, now) : Result<CheckedJob>(read.error());
    if (!checked.ok()) {
      ++tally.refused[checked.reason()];
      EXPECT_FALSE(fault_of_ours(checked.reason())) << lie.what() << checked.error().line();
      continue;
    }
    // It holds together, and the broker may still know nothing of it: another attempt, another job.
    WorkerWorld again;
    again.bundle_ = *read;
    again.broker_tries_ = 2;
    const Done lied = run(again);
    if (!lied.status.ok()) {
      ++tally.refused[lied.status.reason()];
      EXPECT_FALSE(fault_of_ours(lied.status.reason())) << lie.what();
      EXPECT_TRUE(lied.deeds.empty() && lied.keys.empty()) << lie.what();
      continue;
    }
    ++tally.taken;
    EXPECT_TRUE(harmless.covers(lie.place())) << lie.what() << " was taken";
    EXPECT_EQ(lied.deeds.size(), done.deeds.size()) << lie.what();
    begins_like(done, lied, lie.what());
  }
  tally.print("bundle", choice);
  EXPECT_GT(tally.tried, 700);
  hold(harmless, choice);
}

// The n-th answer that the worker gets, by whoever gives it.
struct Place {
  bool broker = false;
  std::string method;
  int nth = 0;
  auto operator<=>(const Place&) const = default;
};
using Change = std::function<Result<Json>(const Place&, Json truth)>;
// With `change` at each answer but the bundle.
Done run_with(WorkerWorld& w, const Change& change) {
  std::map<Place, int> seen;
  std::mutex mutex;
  const auto lie = [&](bool broker) {
    return [&, broker](std::string_view method, Json truth) -> Result<Json> {
      const std::lock_guard lock(mutex);
      Place place{broker, std::string(method), 0};
      place.nth = seen[place]++;
      return change(place, std::move(truth));
    };
  };
  w.broker_lie_ = lie(true);
  w.node_lie_ = lie(false);
  w.broker_tries_ = 2;
  return run(w);
}

TEST(AgentLies, NoLieInAnAnswerIsActedOn) {
  Choice choice;
  Pool pool;
  collect_others(pool);
  std::vector<std::pair<Place, Json>> answers;
  WorkerWorld honest;
  const Done truth = run_with(honest, [&](const Place& p, Json answer) -> Result<Json> {
    pool.collect(answer);
    if (p.method != method::kLaunch) answers.emplace_back(p, answer);
    return answer;
  });
  ASSERT_TRUE(truth.sealed);
  ASSERT_EQ(answers.size(), 14U);
  Harmless harmless{};
  Tally tally;
  for (const auto& [place, answer] : answers) {
    // Two runs give two answers, but of one shape: the lie is told by its number.
    const auto lies = lies_about(pool, answer);
    for (const auto& chosen : choice.some(lies, 3)) {
      if (!parse_json(chosen.text).ok()) continue;  // no frame holds it: channel/rpc_test.cpp
      ++tally.tried;
      const std::string what = place.method + " " + chosen.what();
      WorkerWorld w;
      bool told = false;
      const Done lied = run_with(w, [&](const Place& p, Json live) -> Result<Json> {
        if (p != place) return live;
        for (const auto& lie : lies_about(pool, live)) {
          if (lie.what() != chosen.what() || told) continue;
          told = true;
          return lie.body;
        }
        return live;
      });
      EXPECT_TRUE(told) << what;
      begins_like(truth, lied, what);
      if (!lied.status.ok()) {
        ++tally.refused[lied.status.reason()];
        EXPECT_FALSE(fault_of_ours(lied.status.reason())) << what << lied.status.error().line();
        continue;
      }
      ++tally.taken;
      EXPECT_TRUE(harmless.covers(place.method + "." + chosen.place())) << what << " was taken";
      EXPECT_EQ(lied.deeds.size(), truth.deeds.size()) << what;
    }
  }
  tally.print("answers", choice);
  EXPECT_GT(tally.tried, 100);
  hold(harmless, choice);
}

}  // namespace
}  // namespace gbx::agent
