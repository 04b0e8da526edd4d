// Jobs that nobody asks for are not in memory; whoever asks gets what there was.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sqlite3.h>
#include <stdlib.h>

#include "base/os.h"
#include "broker/testing.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::BrokerWorld;
using gbx::testing::ChangedStore;
using gbx::testing::clean_verdict;
using gbx::testing::kNow;
using gbx::testing::must;

constexpr std::uint64_t kNone = ~std::uint64_t{0};

std::uint64_t find_entry(const LogStore& store, std::string_view kind, std::string_view word) {
  for (std::uint64_t i = 0; i < must(store.size()); ++i) {
    const std::string text = must(store.entry(i)).entry;
    if (must(from_json_text<LogEntry>(text)).kind == kind && text.find(word) != std::string::npos) {
      return i;
    }
  }
  return kNone;
}

std::string told(BrokerWorld& w, const Hash32& job) {
  const std::string judged = canonical(to_json(must(w.judge(job))));
  return judged + canonical(to_json(must(w.call<Receipt>(method::kReceipt, JobRequest{job}))));
}

TEST(BrokerSleep, MemoryHoldsNoMoreJobsThanItsBound) {
  BrokerWorld w(90);
  w.awake.jobs = 3;
  w.start_and_publish();
  std::vector<Hash32> jobs;
  for (int i = 0; i < 20; ++i) {
    jobs.push_back(must(w.authorise(w.submission())).body.job_id);
    w.head();  // a request forgets what the one before needed
    EXPECT_LE(w.core->state().awake(), 3U);
  }
  for (const Hash32& job : jobs) {
    EXPECT_EQ(must(w.authorise(w.core->state().job(job)->submission)).body.job_id, job);
    w.head();
    EXPECT_LE(w.core->state().awake(), 3U);
  }
  // The start reads every job, and holds as few.
  must(w.start());
  EXPECT_LE(w.core->state().awake(), 3U);
}

// The bound is on what they hold, too: of long jobs fewer stay, but never none.
TEST(BrokerSleep, MemoryHoldsNoLongerJobsThanItsBound) {
  BrokerWorld w(96);
  w.start_and_publish();
  must(w.authorise(w.submission()));
  for (const std::size_t kilobytes : {0, 512}) {
    w.awake = {64, kilobytes << 10};
    must(w.start());
    std::size_t most = 0;
    for (int i = 0; i < 20; ++i) {
      must(w.authorise(w.submission()));
      w.head();
      most = std::max(most, w.core->state().awake());
    }
    // One is some ten kilobytes of text, and hundreds of values.
    EXPECT_GE(most, kilobytes == 0 ? 1U : 2U);
    EXPECT_LE(most, kilobytes == 0 ? 1U : 15U);
    must(w.start());
    EXPECT_LE(w.core->state().awake(), most);
  }
}

// However the entries of many jobs lie between each other, a start reads each of them once.
TEST(BrokerSleep, AStartReadsEveryEntryOnce) {
  ChangedStore store;
  BrokerWorld w(98, &store);
  w.start_and_publish();
  std::vector<Hash32> jobs;
  for (int i = 0; i < 20; ++i) jobs.push_back(must(w.authorise(w.submission())).body.job_id);
  for (std::int64_t attempt = 1; attempt <= 5; ++attempt) {
    for (const Hash32& job : jobs) must(w.credential(job, attempt));
  }
  store.reads = 0;
  must(w.open());
  EXPECT_EQ(store.reads, must(store.size()) + 1) << "the first one names the set";
  EXPECT_EQ(w.core->state().awake(), 1U);
}

// What this process holds without the database's pages, counted by the allocator; 0 where a
// sanitizer's is in its place.
std::int64_t held_bytes() {
  const auto all = static_cast<std::int64_t>(mallinfo2().uordblks);
  return all == 0 ? 0 : all - sqlite3_memory_used();
}

// A job that ran to its release and sleeps is an id, the places of its entries and its lines in the
// ledgers; a start over the same log holds no more.
TEST(BrokerSleep, AJobThatEndedKeepsLittle) {
  constexpr int kJobs = 50;
  constexpr std::int64_t kPerJob = 1'000;  // awake it holds some 16,000
  if (held_bytes() == 0) GTEST_SKIP() << "a sanitizer's allocator does not count";
  std::string directory = "/tmp/gbx-sleep-XXXXXX";
  ASSERT_NE(mkdtemp(directory.data()), nullptr);
  {
    auto store = must(open_sqlite_store(directory + "/log.db"));
    BrokerWorld w(95, store.get());
    for (auto* a : {&w.data, &w.image}) {
      a->policy.clauses.gate.period_free_bits = a->policy.clauses.gate.total_free_bits = 1 << 30;
    }
    w.start_and_publish();
    const auto run_jobs = [&] {
      for (int i = 0; i < kJobs; ++i) {
        const auto run = w.run_until_sealed(w.submission());
        ASSERT_EQ(must(w.judge(run.job_id())).state, JudgementState::kReleased);
        w.core->closed(run.connection.id);
      }
      w.head();
    };
    run_jobs();  // whatever is there once
    const std::int64_t before = held_bytes();
    run_jobs();
    const std::int64_t after = held_bytes();
    EXPECT_LT(after - before, kJobs * kPerJob);
    must(w.start());
    EXPECT_LT(held_bytes() - before, kJobs * kPerJob);
    std::printf("%lld bytes a job\n", static_cast<long long>((after - before) / kJobs));
  }
  (void)remove_tree(directory);
}

TEST(BrokerSleep, EveryAnswerIsTheSameAsBefore) {
  BrokerWorld w(91);
  w.start_and_publish();
  auto released = w.run_until_sealed(w.submission());
  GateVerdict hold = clean_verdict();
  hold.recommendation = Recommendation::kHold;
  auto held = w.run_until_sealed(w.submission(), hold);
  const auto notice = must(w.judge(held.job_id())).hold_notice->body;
  for (const auto& p : held.plan.body.policies) {
    must(w.rule(w.reviewer, notice, p.policy_hash, RulingDecision::kApprove));
  }
  const std::string first = told(w, released.job_id());
  const std::string second = told(w, held.job_id());
  for (int i = 0; i < 4; ++i) must(w.authorise(w.submission()));
  EXPECT_EQ(told(w, released.job_id()), first);
  EXPECT_EQ(told(w, held.job_id()), second);
  EXPECT_EQ(must(w.authorise(released.submission)).hash(), released.plan.hash());
  EXPECT_EQ(must(w.credential(released.job_id(), 1)).hash(), released.credential.hash());
}

TEST(BrokerSleep, WhatIsBurnedStaysBurned) {
  BrokerWorld w(92);
  w.start_and_publish();
  auto run = w.run_until_sealed(w.submission());
  const auto superseded = must(w.authorise(w.submission())).body.job_id;
  must(w.credential(superseded, 1));
  must(w.credential(superseded, 2));
  for (int i = 0; i < 4; ++i) must(w.authorise(w.submission()));
  // A second seal, a further attempt, the credential of another agent, an old credential.
  const auto again =
      w.make_seal(run.agent, run.submission, run.plan, 1, run.evidence, clean_verdict());
  EXPECT_EQ(w.seal(again.seal, run.connection).reason(), Reason::kWrongState);
  EXPECT_EQ(w.credential(run.job_id(), 2).reason(), Reason::kWrongState);
  const auto clone = gbx::testing::make_agent(w.random);
  EXPECT_EQ(w.attest(clone, run.credential, w.connect(clone)).reason(), Reason::kCredentialUsed);
  EXPECT_EQ(w.credential(superseded, 1).reason(), Reason::kCredentialSuperseded);
  const auto size = w.core->log_size();
  must(w.authorise(run.submission));
  EXPECT_EQ(w.core->log_size(), size) << "a submission is used once";
}

TEST(BrokerSleep, AnotherPastOnTheDiskEndsTheBroker) {
  ChangedStore store;
  BrokerWorld w(93, &store);
  w.start_and_publish();
  auto mine = w.run_until_sealed(w.submission());
  const auto job = to_hex(mine.job_id());
  // The credential says another expiry, and its leaf fits.
  const std::uint64_t at = find_entry(store, "credential", job);
  ASSERT_NE(at, kNone);
  LogEntry entry = must(from_json_text<LogEntry>(must(store.entry(at)).entry));
  entry.body["credential"]["body"]["expires"] = kNow + 1'000'000;
  for (int i = 0; i < 4; ++i) must(w.authorise(w.submission()));
  store.change(at, entry);
  EXPECT_EQ(w.judge(mine.job_id()).reason(), Reason::kUnavailable);
  EXPECT_FALSE(w.core->healthy());
  EXPECT_EQ(w.authorise(w.submission()).reason(), Reason::kUnavailable);
  EXPECT_EQ(w.open().reason(), Reason::kBadHash) << "and it does not start over such a log";
}

TEST(BrokerSleep, AJobThatCannotBeReadIsNotANewOne) {
  ChangedStore store;
  BrokerWorld w(94, &store);
  w.start_and_publish();
  const auto submission = w.submission();
  const auto plan = must(w.authorise(submission));
  must(w.authorise(w.submission()));
  w.head();
  const auto size = must(store.size());
  store.unreadable = {find_entry(store, "authorise", to_hex(plan.body.job_id))};
  EXPECT_EQ(w.authorise(submission).reason(), Reason::kUnavailable);
  EXPECT_EQ(must(store.size()), size);
  EXPECT_FALSE(w.core->healthy());
  // The disk is well again.
  store.unreadable.clear();
  must(w.start());
  EXPECT_EQ(must(w.authorise(submission)).hash(), plan.hash());
}

}  // namespace
}  // namespace gbx::broker
