// The plane's core against the broker's core, without a network: over both stores, and through a
// crash at every commit.
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "plane/core/page.h"
#include "plane_world.h"
#include "policy/receipt_verify.h"
#include "records/sealing.h"

namespace gbx::plane {
namespace {

using namespace records;
using testing::must;

// Of a log of this size; `which` tells two logs apart.
Signed<LogHead> log_head(const testing::KeySet& set, std::int64_t size, std::uint8_t which = 1) {
  return must(sign(set.id(), LogHead{1, size, Hash32{which}, testing::kNow}, set.signing));
}

class CoreSuite : public ::testing::TestWithParam<bool> {
 protected:
  CoreSuite() : p(GetParam()) { p.populate(); }
  Plane p;
};
INSTANTIATE_TEST_SUITE_P(Stores, CoreSuite, ::testing::Values(false, true),
                         [](const auto& i) { return i.param ? "Sqlite" : "Memory"; });

TEST_P(CoreSuite, AJobFromSubmissionToReceipt) {
  const Hash32 id = p.submit();
  EXPECT_EQ(p.job(id).state, "Submitted");
  p.pump();
  EXPECT_EQ(p.job(id).state, "Authorized");
  const auto w = p.take();
  ASSERT_TRUE(w);
  EXPECT_EQ(w->versions.size(), 2U);
  EXPECT_EQ(w->policies.size(), 2U);
  EXPECT_EQ(w->owners.size(), 1U);
  EXPECT_EQ(p.job(id).state, "Running");
  EXPECT_FALSE(must(p.core->poll(p.node()))) << "the same assignment twice at once";
  for (const auto phase : {EnvironmentPhase::kBooting, EnvironmentPhase::kAttested,
                           EnvironmentPhase::kLoaded, EnvironmentPhase::kWorking}) {
    EXPECT_FALSE(must(p.core->phase(p.node(), p.phase(*w, phase))).stop);
  }
  EXPECT_EQ(p.job(id).environments.at(0).state, "Working");
  EXPECT_FALSE(must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kBooting))).stop)
      << "a late report is no error";
  EXPECT_EQ(p.job(id).environments.at(0).state, "Working");
  EXPECT_EQ(p.core->result(p.consumer(), id).reason(), Reason::kWrongState);
  const auto sealed = p.work(*w);
  must(p.core->output(p.node(), p.upload(*w, sealed)));
  must(p.core->output(p.node(), p.upload(*w, sealed)));
  EXPECT_EQ(p.job(id).state, "Reviewing");
  must(p.core->destroyed(p.node(), p.claim(*w)));
  must(p.core->destroyed(p.node(), p.claim(*w)));
  p.pump();
  const api::JobView v = p.job(id);
  EXPECT_EQ(v.state, "Completed");
  EXPECT_TRUE(v.ended);
  EXPECT_EQ(v.environments.at(0).state, "Destroyed");
  EXPECT_EQ(v.output->state, "Released");
  const api::JobResult r = must(p.core->result(p.consumer(), id));
  EXPECT_EQ(canonical(to_json(r.output)), canonical(to_json(sealed.sealed.output)));
  EXPECT_EQ(hash_of(r.run_statement.body.manifest), sealed.ack.body.manifest);
  const Receipt receipt = must(p.core->receipt(p.consumer(), id));
  EXPECT_TRUE(receipt.destroyed.has_value());
  const api::JobEvents events = must(p.core->events(p.consumer(), id));
  EXPECT_GE(events.events.size(), 12U);
  EXPECT_EQ(events.job.version, v.version);
}

// The newest head of the broker's log stays the newest, whatever comes later.
TEST_P(CoreSuite, TheLogHeadOnlyGrows) {
  EXPECT_FALSE(must(p.core->log_head()).has_value());
  must(p.core->keep_log_head(log_head(p.b.set, 10)));
  must(p.core->keep_log_head(log_head(p.b.set, 10)));
  must(p.core->keep_log_head(log_head(p.b.set, 12)));
  const auto refused = [&](const Signed<LogHead>& head) {
    const Status s = p.core->keep_log_head(head);
    EXPECT_EQ(must(p.core->log_head())->body.tree_size, 12);
    return s.reason();
  };
  EXPECT_EQ(refused(log_head(p.b.set, 11)), Reason::kLogRolledBack);
  EXPECT_EQ(refused(log_head(p.b.set, 12, 2)), Reason::kLogRolledBack);
  const testing::KeySet other = testing::make_key_set(p.b.random);
  EXPECT_EQ(refused(log_head(other, 20)), Reason::kBadSignature);
  Signed<LogHead> changed = log_head(p.b.set, 20);
  changed.body.tree_size = 21;
  EXPECT_EQ(refused(changed), Reason::kBadSignature);
  LogHead later{2, 20, Hash32{1}, testing::kNow};
  EXPECT_EQ(refused(must(sign(p.b.set.id(), later, p.b.set.signing))), Reason::kWrongSet);
  const std::uint64_t version = p.core->version();
  must(p.core->keep_log_head(log_head(p.b.set, 13)));
  EXPECT_EQ(p.core->version(), version) << "whoever waits learns that the log grew";
}

// What a crash may do to it is that the newest is not kept; a damaged one is never none.
TEST(LogHead, IsDurableAndADamagedOneIsAnError) {
  Plane p(true);
  must(p.core->keep_log_head(log_head(p.b.set, 10)));
  p.start();
  EXPECT_EQ(must(p.core->log_head())->body.tree_size, 10);
  auto record = *must(p.store->record("log-head", "log-head"));
  Signed<LogHead> changed = log_head(p.b.set, 10);
  changed.body.tree_size = 9;
  record.body = to_json(changed);
  machines::Transaction t;
  t.records.push_back({record.revision, record});
  must(p.store->commit(t));
  EXPECT_EQ(p.core->log_head().reason(), Reason::kBadSignature);
  EXPECT_EQ(p.core->keep_log_head(log_head(p.b.set, 11)).reason(), Reason::kBadSignature);
}

TEST_P(CoreSuite, ASecondOutputIsRefused) {
  const Hash32 id = p.submit();
  p.pump();
  const auto w = p.take();
  const auto sealed = p.work(*w);
  must(p.core->output(p.node(), p.upload(*w, sealed)));
  OutputUpload other = p.upload(*w, sealed);
  other.output.ciphertext[0] ^= 1;
  EXPECT_EQ(p.core->output(p.node(), other).reason(), Reason::kConflict);
  p.pump();
  EXPECT_EQ(p.job(id).state, "Completed");
}

// A disk can take seconds for an output. Nobody waits for it; what happened meanwhile counts.
TEST_P(CoreSuite, WhileAnOutputIsWrittenEverybodyElseIsAnswered) {
  const Hash32 id = p.submit();
  p.pump();
  const auto w = p.take();
  const auto upload = p.upload(*w, p.work(*w));
  std::string seen;
  p.shelf.during_put = [&] { seen = p.job(id).state; };
  must(p.core->output(p.node(), upload));
  EXPECT_EQ(seen, "Running");
  must(p.core->destroyed(p.node(), p.claim(*w)));

  const Hash32 twice = p.submit();
  p.pump();
  const auto second = p.take();
  const auto again = p.upload(*second, p.work(*second));
  p.shelf.during_put = [&] { must(p.core->output(p.node(), again)); };
  must(p.core->output(p.node(), again));
  must(p.core->destroyed(p.node(), p.claim(*second)));

  const Hash32 given_up = p.submit();
  p.pump();
  const auto third = p.take();
  const auto late = p.upload(*third, p.work(*third));
  const Cancel wish{given_up, p.b.consumer.id(), p.b.clock.now().seconds()};
  const CancelRequest cancel{p.b.consumer.chain, must(sign(p.b.set.id(), wish, p.b.consumer.key))};
  p.shelf.during_put = [&] { must(p.core->cancel(p.consumer(), cancel)); };
  EXPECT_EQ(p.core->output(p.node(), late).reason(), Reason::kWrongState);
  p.pump();
  EXPECT_EQ(p.job(id).state, "Completed");
  EXPECT_EQ(p.job(twice).state, "Completed");
  EXPECT_EQ(p.job(given_up).state, "Cancelled");
}

// The broker acknowledged it and knows nothing of it any more.
TEST_P(CoreSuite, AnOutputThatTheBrokerForgotFailsTheJob) {
  const Hash32 id = p.submit();
  p.pump();
  const auto w = p.take();
  OutputUpload forgotten;
  forgotten.job_id = id;
  forgotten.attempt = 1;
  forgotten.ack = must(
      sign(p.b.set.id(), SealAck{id, 1, Hash32{5}, p.b.clock.now().seconds()}, p.b.set.signing));
  forgotten.output.ciphertext = Bytes(32, 1);
  forgotten.output.wrapped_content = {Bytes(64, 2)};
  must(p.core->output(p.node(), forgotten));
  p.pump();
  EXPECT_EQ(p.job(id).state, "Failed");
  EXPECT_EQ(p.job(id).outcome.reason, "output-refused");
  EXPECT_EQ(p.core->result(p.consumer(), id).reason(), Reason::kOutputRefused);
}

// A node that was silent has lost its attempt, and another node has begun the next one.
TEST(HostileNode, CannotEndTheAttemptThatFollowedItsOwn) {
  Plane p(false);
  const auto hostile =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, p.b.random));
  const auto& bad = hostile.public_key();
  p.allow_node(hostile);
  p.populate();
  p.add_node(hostile, "hostile");
  const Hash32 id = p.submit();
  p.pump();
  ASSERT_TRUE(p.take(bad));
  p.b.clock.advance(31'000);
  must(p.core->tick());
  EXPECT_EQ(p.job(id).environments.at(0).state, "Lost");
  const auto second = p.take();
  ASSERT_TRUE(second);
  const auto upload = [&](const SealAck& ack, const crypto::SigningKey& by) {
    OutputUpload junk;
    junk.job_id = id;
    junk.attempt = 1;
    junk.ack = must(sign(p.b.set.id(), ack, by));
    junk.output.ciphertext = Bytes(32, 1);
    junk.output.wrapped_content = {Bytes(64, 2)};
    return p.core->output(bad, junk).reason();
  };
  EXPECT_EQ(upload({id, 1, Hash32{}, testing::kNow}, hostile), Reason::kBadSignature);
  // Words that the broker did give: to another attempt, and for another job.
  EXPECT_EQ(upload({id, 2, Hash32{}, testing::kNow}, p.b.set.signing), Reason::kOutputRefused);
  EXPECT_EQ(upload({Hash32{9}, 1, Hash32{}, testing::kNow}, p.b.set.signing),
            Reason::kOutputRefused);
  EXPECT_EQ(p.job(id).state, "Running");
  must(p.core->output(p.node(), p.upload(*second, p.work(*second))));
  p.pump();
  EXPECT_EQ(p.job(id).state, "Completed");
}

TEST(Queue, JobsForAnAbsentNodeStarveNobody) {
  Plane p(false);
  const auto silent =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, p.b.random));
  p.allow_node(silent);
  p.config.quotas.live_jobs = 1'000;
  p.start();
  p.populate();
  must(p.core->enrol_node("big", silent.public_key().text()));
  NodeInfo big = p.info();
  big.name = "big";
  big.key = silent.public_key().text();
  big.cpu = 64;
  must(p.core->register_node(silent.public_key(), big));
  const auto submit = [&](std::int64_t cpu) {
    SignedSubmission s = p.b.submission();
    s.submission.body.spec.spec.resources.cpu = cpu;
    testing::resign(s, p.b.set.id(), p.b.consumer);
    p.b.clock.advance(1);
    const Hash32 id = p.submit(s);
    p.pump();
    return id;
  };
  const Hash32 first = submit(32);
  for (int i = 0; i < 130; ++i) submit(32);
  const Hash32 small = submit(1);
  const auto w = p.take();
  ASSERT_TRUE(w);
  EXPECT_EQ(w->credential.body.job_id, small);
  must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kLost, "policy-stale")));
  // What it passed by it looks at again once it lends more: the oldest first.
  NodeInfo grown = p.info();
  grown.cpu = 32;
  must(p.core->register_node(p.node(), grown));
  const auto oldest = p.take();
  ASSERT_TRUE(oldest);
  EXPECT_EQ(oldest->credential.body.job_id, first);
}

// All but the first stand in the store as if they had come through the API, which would take
// minutes.
TEST(Queue, TenThousandJobsWaitAndAThousandAreListedAtOnce) {
  Plane p(true);
  p.populate();
  const Hash32 oldest = p.submit();
  p.pump();
  const Machine first = *need(p.store->machine(job_machine(oldest)));
  SignedSubmission s = need(from_json<JobBody>(first.body)).submission;
  constexpr int kAll = 10'000;
  for (int made = 1; made < kAll;) {
    machines::Transaction t;
    for (; made < kAll && t.machines.size() < 1'000; ++made) {
      s.submission.body.nonce = p.b.random.fixed<32>();
      Machine m = first;
      m.id = job_machine(s.submission.body.job_id());
      m.body["submission"] = to_json(s);
      m.seq = 0;
      machines::add_begin(t, m, "Authorized", {}, p.b.clock.now().ms + made);
    }
    need(p.store->commit(t));
  }
  p.b.clock.advance(kAll);
  const auto page = need(p.core->jobs(p.consumer(), {}, {{}, 1'000}));
  EXPECT_EQ(page.items.size(), 1'000U);
  const auto next = need(p.core->jobs(p.consumer(), {}, {page.next, 1'000}));
  std::set<Hash32> listed;
  for (const auto* list : {&page, &next}) {
    for (const auto& job : list->items) listed.insert(job.job_id);
  }
  EXPECT_EQ(listed.size(), 2'000U);
  EXPECT_FALSE(listed.contains(oldest));  // newest first
  EXPECT_EQ(need(p.core->numbers()).jobs.at("Authorized"), kAll);
  const auto work = p.take();
  ASSERT_TRUE(work);
  EXPECT_EQ(work->credential.body.job_id, oldest);
}

// An older job that waits again comes before younger ones, though the node had passed its place in
// the queue.
TEST(Queue, ARetryIsNotOverlooked) {
  Plane p(false);
  p.populate();
  const Hash32 old = p.submit();
  p.pump();
  const auto first = p.take();
  ASSERT_TRUE(first);
  const auto misfit = [&] {
    SignedSubmission s = p.b.submission();
    s.submission.body.spec.spec.resources.cpu = 9;
    testing::resign(s, p.b.set.id(), p.b.consumer);
    return s;
  };
  NodeInfo two = p.info();
  two.slots = 2;
  two.cpu = 16;
  must(p.core->register_node(p.node(), two));
  p.b.clock.advance(1);
  p.submit(misfit());
  p.pump();
  two.cpu = 8;
  must(p.core->register_node(p.node(), two));
  EXPECT_FALSE(p.take());
  must(p.core->phase(p.node(), p.phase(*first, EnvironmentPhase::kLost, "lost")));
  const auto again = p.take();
  ASSERT_TRUE(again);
  EXPECT_EQ(again->credential.body.job_id, old);
}

TEST_P(CoreSuite, IdempotencyKeysNameOneJob) {
  const SignedSubmission first = p.b.submission();
  const Hash32 id = p.submit(first, "key");
  EXPECT_EQ(p.submit(first), id) << "the same signed bytes are the same job";
  SignedSubmission second = first;
  second.submission.body.nonce = p.b.random.fixed<32>();
  testing::resign(second, p.b.set.id(), p.b.consumer);
  EXPECT_EQ(p.submit(second, "key"), id) << "signed again, the same spec";
  second.submission.body.spec.metadata.name = "other";
  testing::resign(second, p.b.set.id(), p.b.consumer);
  EXPECT_EQ(p.core->submit(p.consumer(), second, "key").reason(), Reason::kIdempotencyMismatch);
  EXPECT_NE(p.submit(second, "key2"), id);
  EXPECT_EQ(must(p.core->jobs(p.consumer(), {}, {})).items.size(), 2U);
}

// Whoever has seen a submission's bytes learns nothing of the job by sending them again.
TEST_P(CoreSuite, AnothersSubmissionIsAStrangersWhetherItsJobIsThereOrNot) {
  const testing::Person other = testing::make_person(p.b.random);
  p.enrol(other, "other", Role::kConsumer);
  const plane::Caller stranger{other.id(), {Role::kConsumer}};
  const SignedSubmission s = p.b.submission();
  const auto told = [&] {
    const auto r = p.core->submit(stranger, s, std::nullopt);
    EXPECT_EQ(r.reason(), Reason::kWrongOwner);
    return r.ok() ? "a job" : r.error().line();
  };
  const std::string before = told();
  p.submit(s);
  EXPECT_EQ(told(), before);
}

TEST_P(CoreSuite, QuotasAreKept) {
  p.config.quotas.live_jobs = 2;
  p.config.quotas.jobs_per_day = 3;
  p.config.quotas.object_bytes = 100;
  p.config.quotas.leases_per_day = 3;
  p.start();
  p.populate();
  const auto cancel = [&](const Hash32& id) {
    const Cancel wish{id, p.b.consumer.id(), p.b.clock.now().seconds()};
    must(p.core->cancel(p.consumer(),
                        {p.b.consumer.chain, must(sign(p.b.set.id(), wish, p.b.consumer.key))}));
  };
  const Hash32 first = p.submit();
  p.submit();
  EXPECT_EQ(p.core->submit(p.consumer(), p.b.submission(), std::nullopt).reason(),
            Reason::kQuotaExceeded);
  cancel(first);
  p.submit();
  EXPECT_EQ(p.core->submit(p.consumer(), p.b.submission(), std::nullopt).error().what,
            "jobs at one time");
  p.b.clock.advance(1000);
  cancel(
      must(p.core->jobs(p.consumer(), {std::nullopt, std::nullopt, true}, {})).items.at(0).job_id);
  EXPECT_EQ(p.core->submit(p.consumer(), p.b.submission(), std::nullopt).error().what,
            "jobs per day");
  const auto lease = [&] {
    return p.core->add_lease(
        p.owner(), testing::make_lease(p.b.set.id(), p.b.data, p.b.consumer, 1, p.b.random));
  };
  for (int i = 0; i < 3; ++i) must(lease());
  EXPECT_EQ(lease().reason(), Reason::kQuotaExceeded);
  p.b.clock.advance(86'400'000);
  must(lease());
  must(p.core->charge_upload(p.owner(), 60));
  EXPECT_EQ(p.core->charge_upload(p.owner(), 41).reason(), Reason::kQuotaExceeded);
  must(p.core->refund_upload(p.owner(), 60));
  must(p.core->charge_upload(p.owner(), 100));
}

TEST_P(CoreSuite, PagesOfJobsCoverAllOnceAndOthersSeeNothing) {
  std::set<Hash32> ids;
  for (int i = 0; i < 5; ++i) ids.insert(p.submit());
  std::set<Hash32> seen;
  Page page{"", 2};
  int pages = 0;
  do {
    const api::JobList list = must(p.core->jobs(p.consumer(), {}, page));
    for (const auto& j : list.items) EXPECT_TRUE(seen.insert(j.job_id).second);
    page.cursor = list.next;
    ++pages;
  } while (!page.cursor.empty());
  EXPECT_EQ(pages, 3);
  EXPECT_EQ(seen, ids);
  EXPECT_EQ(p.core->jobs(p.consumer(), {}, {"nonsense", 2}).reason(), Reason::kBadValue);
  const testing::Person stranger = testing::make_person(p.b.random);
  const plane::Caller other{stranger.id(), {Role::kConsumer}};
  EXPECT_TRUE(must(p.core->jobs(other, {}, {})).items.empty());
  EXPECT_EQ(p.core->job(other, *ids.begin()).reason(), Reason::kNotFound);
  EXPECT_EQ(p.core->receipt(other, *ids.begin()).reason(), Reason::kNotFound);
  const plane::Caller auditor{stranger.id(), {Role::kAuditor}};
  EXPECT_EQ(must(p.core->jobs(auditor, {}, {})).items.size(), 5U);
  EXPECT_EQ(p.core->result(auditor, *ids.begin()).reason(), Reason::kWrongOwner);
}

TEST_P(CoreSuite, PagesOfNodesCoverAllOnceAndLookAtBoundedEntries) {
  constexpr std::size_t kNodes = kLookEntries + 50;
  const std::size_t before = must(p.core->nodes(p.consumer(), {})).items.size();
  for (std::size_t n = before; n < kNodes; ++n) {
    const auto key =
        must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, p.b.random));
    const std::string text = key.public_key().text();
    must(p.core->enrol_node("n-" + text.substr(text.size() - 16), text));
  }
  p.store->most_rows = 0;
  EXPECT_EQ(must(p.core->nodes(p.consumer(), {"", 1'000})).items.size(), kNodes);
  EXPECT_EQ(p.store->most_rows, kLookEntries);
  std::set<std::string> seen;
  Page page{"", 40};
  do {
    const api::NodeList list = must(p.core->nodes(p.consumer(), page));
    EXPECT_LE(list.items.size(), page.limit);
    for (const auto& node : list.items) EXPECT_TRUE(seen.insert(node.key).second);
    page.cursor = list.next;
  } while (!page.cursor.empty());
  EXPECT_EQ(seen.size(), kNodes);
}

// However many leases others have posted.
TEST_P(CoreSuite, LeasesAreListedForTheirConsumerAndForWhoeverPostedThem) {
  const testing::Person stranger = testing::make_person(p.b.random);
  const plane::Caller other{stranger.id(), {Role::kOwner}};
  const auto post = [&](const plane::Caller& who, const testing::Person& consumer) {
    p.b.clock.advance(1);
    const auto lease = testing::make_lease(p.b.set.id(), p.b.data, consumer, 1, p.b.random);
    must(p.core->add_lease(who, lease));
    return lease.body.lease_id;
  };
  std::vector<Id16> own;
  for (int i = 0; i < 100; ++i) {
    if (i % 20 == 0) own.push_back(post(p.owner(), i % 40 == 0 ? p.b.consumer : p.b.owner));
    post(other, p.b.consumer);
    if (i == 50) own.push_back(post(other, p.b.owner));
  }
  std::reverse(own.begin(), own.end());  // the newest first
  p.store->rows = 0;
  std::vector<Id16> listed;
  Page page{"", 2};
  do {
    const api::LeaseList list = must(p.core->leases(p.owner(), page));
    EXPECT_LE(list.items.size(), 2U);
    for (const auto& v : list.items) listed.push_back(v.lease.body.lease_id);
    page.cursor = list.next;
  } while (!page.cursor.empty());
  EXPECT_EQ(listed, own);
  EXPECT_LE(p.store->rows, 30U);
  EXPECT_EQ(must(p.core->leases(p.consumer(), {"", 200})).items.size(), 103U);
  const plane::Caller auditor{stranger.id(), {Role::kAuditor}};
  EXPECT_EQ(must(p.core->leases(auditor, {"", 200})).items.size(), 106U);
}

// The node died before its first report and started again: the broker knows the first agent
// already.
TEST_P(CoreSuite, ASpentCredentialIsForOneAttemptAndTheJobGetsAnother) {
  const Hash32 id = p.submit();
  p.pump();
  const auto first = p.take();
  ASSERT_TRUE(first);
  must(p.core->phase(p.node(), p.phase(*first, EnvironmentPhase::kLost, "credential-used")));
  const auto second = p.take();
  ASSERT_TRUE(second);
  EXPECT_EQ(second->credential.body.attempt, 2);
  must(p.core->phase(p.node(), p.phase(*second, EnvironmentPhase::kLost, "evidence-rejected")));
  EXPECT_EQ(p.job(id).outcome.reason, "evidence-rejected") << "what no other attempt mends";
}

TEST_P(CoreSuite, ASilentNodeLosesItsAttemptAndTheJobGetsAnother) {
  const Hash32 id = p.submit();
  p.pump();
  for (std::int64_t attempt = 1; attempt <= 3; ++attempt) {
    const auto w = p.take();
    ASSERT_TRUE(w);
    EXPECT_EQ(w->credential.body.attempt, attempt);
    must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kBooting)));
    p.b.clock.advance(29'000);
    must(p.core->tick());
    EXPECT_EQ(p.job(id).state, "Running");
    p.b.clock.advance(2'000);
    must(p.core->tick());
    EXPECT_EQ(p.job(id).environments.back().state, "Lost");
    EXPECT_EQ(p.job(id).state, attempt < 3 ? "Authorized" : "Failed");
    EXPECT_EQ(must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kWorking))).stop,
              attempt == 3);
  }
  EXPECT_EQ(p.job(id).outcome.reason, "lost");
}

TEST_P(CoreSuite, AnAttemptThatIsLostBeforeItsCredentialIsAnAttemptForTheBrokerToo) {
  const Hash32 id = p.submit();
  p.pump();
  EXPECT_FALSE(need(p.core->poll(p.node()))) << "the broker was not asked yet";
  p.b.clock.advance(31'000);
  must(p.core->tick());
  EXPECT_EQ(p.job(id).state, "Authorized");
  const auto w = p.take();
  ASSERT_TRUE(w);
  EXPECT_EQ(w->credential.body.attempt, 2);
  must(p.core->output(p.node(), p.upload(*w, p.work(*w))));
  p.pump();
  EXPECT_EQ(p.job(id).state, "Completed");
}

// Back after its lease, its agent about to seal: until the broker has given the next attempt its
// credential, it takes that seal, and no other node could ever hand in the output.
TEST_P(CoreSuite, ALostAttemptStopsWhenItsFollowerHasACredential) {
  for (const bool seals : {true, false}) {
    const Hash32 id = p.submit();
    p.pump();
    const auto w = p.take();
    ASSERT_TRUE(w);
    must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kWorking)));
    p.b.clock.advance(31'000);
    must(p.core->tick());
    const auto told = [&] {
      const bool beat = !must(p.core->heartbeat(p.node(), {"n", {{id, 1}}})).stop.empty();
      EXPECT_EQ(must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kWorking))).stop, beat);
      return beat;
    };
    EXPECT_EQ(p.job(id).state, "Authorized");
    EXPECT_FALSE(told()) << "nobody has begun another";
    EXPECT_FALSE(need(p.core->poll(p.node())));
    EXPECT_EQ(p.job(id).state, "Running");
    EXPECT_FALSE(told()) << "the broker has not been asked";
    if (seals) {
      const auto sealed = p.work(*w);
      p.pump();
      EXPECT_FALSE(told()) << "it holds the only output";
      must(p.core->output(p.node(), p.upload(*w, sealed)));
      p.pump();
      EXPECT_EQ(p.job(id).state, "Completed");
    } else {
      p.pump();
      EXPECT_TRUE(told());
    }
  }
}

// One that never ends leaves its room to the next attempt.
TEST_P(CoreSuite, ALostAttemptThatRunsOnAndOnStops) {
  const Hash32 id = p.submit();
  p.pump();
  const auto w = p.take();
  ASSERT_TRUE(w);
  p.b.clock.advance(31'000);
  must(p.core->tick());
  const auto told = [&] {
    return !must(p.core->heartbeat(p.node(), {"n", {{id, 1}}})).stop.empty();
  };
  EXPECT_FALSE(told());
  p.b.clock.advance((w->plan.body.controls.run_seconds + p.config.run_grace_seconds) * 1000 + 1);
  EXPECT_TRUE(told());
}

TEST_P(CoreSuite, WhileThePlaneStoodStillNoNodeWasSilent) {
  const Hash32 id = p.submit();
  p.pump();
  const auto w = p.take();
  must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kWorking)));
  p.b.clock.advance(86'400'000);
  p.core->was_away();
  must(p.core->tick());
  EXPECT_EQ(p.job(id).environments.at(0).state, "Working");
  p.b.clock.advance(31'000);
  must(p.core->tick());
  EXPECT_EQ(p.job(id).environments.at(0).state, "Lost");
}

// However many environments of others are older than its.
TEST(Silence, IsSeenBehindThousandsOfOthers) {
  Plane p(true);
  p.populate();
  SeededRandom random(12);
  const auto other =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random)).public_key();
  must(p.core->enrol_node("other", other.text()));
  NodeInfo info = p.info();
  info.name = "other";
  info.key = other.text();
  must(p.core->register_node(other, info));
  const Hash32 first = p.submit();
  p.pump();
  const auto w = p.take();
  ASSERT_TRUE(w);
  Machine m = *need(p.store->machine(environment_machine(first, 1)));
  must(p.core->output(p.node(), p.upload(*w, p.work(*w))));
  must(p.core->destroyed(p.node(), p.claim(*w)));
  m.node = other.text();
  constexpr int kOthers = 4'200;
  for (int made = 0; made < kOthers;) {
    machines::Transaction t;
    for (; made < kOthers && t.machines.size() < 1'000; ++made) {
      m.id = environment_machine(random.fixed<32>(), 1);
      m.seq = 0;
      machines::add_begin(t, m, "Working", {}, p.b.clock.now().ms);
    }
    need(p.store->commit(t));
  }
  p.b.clock.advance(1'000);
  const Hash32 last = p.submit();
  p.pump();
  ASSERT_TRUE(p.take());
  p.b.clock.advance(31'000);
  EXPECT_FALSE(need(p.core->poll(other)));
  must(p.core->tick());
  EXPECT_EQ(p.job(last).environments.at(0).state, "Lost");
  EXPECT_TRUE(need(p.store->machine(m.id))->live) << "its node is there";
}

TEST_P(CoreSuite, ANodeThatWasStartedAgainLosesWhatItRan) {
  const Hash32 id = p.submit();
  p.pump();
  const auto w = p.take();
  must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kBooting)));
  must(p.core->heartbeat(p.node(), {"n", {{id, 1}}}));
  must(p.core->heartbeat(p.node(), {"n", {}}));
  EXPECT_EQ(p.job(id).state, "Running");
  p.b.clock.advance(11'000);
  must(p.core->heartbeat(p.node(), {"n", {}}));
  EXPECT_EQ(p.job(id).state, "Authorized");
  ASSERT_TRUE(p.take()) << "the next attempt";
  const NodeLease lease = must(p.core->heartbeat(p.node(), {"n", {{id, 1}}}));
  EXPECT_EQ(lease.stop, (std::vector<RunningAttempt>{{id, 1}}));
}

TEST_P(CoreSuite, AnOutputOfALostAttemptIsStillTaken) {
  const Hash32 id = p.submit();
  p.pump();
  const auto w = p.take();
  const auto sealed = p.work(*w);
  p.b.clock.advance(31'000);
  must(p.core->tick());
  EXPECT_EQ(p.job(id).state, "Authorized");
  must(p.core->output(p.node(), p.upload(*w, sealed)));
  p.pump();
  EXPECT_EQ(p.job(id).state, "Completed");
}

TEST_P(CoreSuite, AnOutputThatOnlyTheBrokerKnowsOfIsWaitedFor) {
  for (const bool comes : {true, false}) {
    const Hash32 id = p.submit();
    p.pump();
    const auto w = p.take();
    ASSERT_TRUE(w);
    const auto sealed = p.work(*w);
    p.b.clock.advance(31'000);
    must(p.core->tick());
    EXPECT_FALSE(p.take()) << "the broker refuses a second credential";
    EXPECT_EQ(p.job(id).state, "Authorized");
    EXPECT_EQ(p.job(id).environments.at(1).reason, "wrong-state");
    EXPECT_FALSE(p.take()) << "no third attempt";
    EXPECT_EQ(p.job(id).environments.size(), 2U);
    EXPECT_TRUE(must(p.core->heartbeat(p.node(), {"n", {{id, 1}}})).stop.empty())
        << "it holds the only output";
    if (comes) {
      must(p.core->output(p.node(), p.upload(*w, sealed)));
      p.pump();
      EXPECT_EQ(p.job(id).state, "Completed");
    } else {
      p.b.clock.advance((p.config.run_grace_seconds + 1) * 1000);
      must(p.core->tick());
      EXPECT_EQ(p.job(id).state, "Expired");
      EXPECT_EQ(p.job(id).outcome.reason, "lost");
      EXPECT_EQ(must(p.core->heartbeat(p.node(), {"n", {{id, 1}}})).stop,
                (std::vector<RunningAttempt>{{id, 1}}));
    }
  }
}

TEST_P(CoreSuite, TimeOutsOfQueueStartAndRun) {
  SignedSubmission s = p.b.submission();
  s.submission.body.spec.spec.timeouts = {50, 20, 10};
  s.submission.body.spec.spec.attempts = 1;
  testing::resign(s, p.b.set.id(), p.b.consumer);
  const auto next = [&] {
    s.submission.body.nonce = p.b.random.fixed<32>();
    s.submission.body.leases = {};
    s.leases = {testing::make_lease(p.b.set.id(), p.b.data, p.b.consumer, 1, p.b.random)};
    s.submission.body.leases = {s.leases[0].body.lease_id};
    testing::resign(s, p.b.set.id(), p.b.consumer);
    const Hash32 id = p.submit(s);
    p.pump();
    return id;
  };
  const auto wait = [&](std::int64_t seconds, const std::vector<RunningAttempt>& running) {
    for (std::int64_t i = 0; i < seconds; ++i) {
      p.b.clock.advance(1000);
      must(p.core->heartbeat(p.node(), {"n", running}));
      must(p.core->tick());
    }
  };
  const Hash32 queued = next();
  wait(51, {});
  EXPECT_EQ(p.job(queued).state, "Expired");
  EXPECT_EQ(p.job(queued).outcome.reason, "timed-out");
  const Hash32 slow = next();
  auto w = p.take();
  ASSERT_TRUE(w);
  must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kBooting)));
  wait(21, {{slow, 1}});
  EXPECT_EQ(p.job(slow).state, "Failed");
  EXPECT_EQ(p.job(slow).outcome.reason, "timed-out");
  const Hash32 endless = next();
  w = p.take();
  ASSERT_TRUE(w);
  must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kWorking)));
  wait(10 + p.config.run_grace_seconds - 1, {{endless, 1}});
  EXPECT_EQ(p.job(endless).state, "Running");
  wait(2, {{endless, 1}});
  EXPECT_EQ(p.job(endless).state, "Failed");
}

TEST_P(CoreSuite, TheBrokersRefusalIsShownWithItsReason) {
  SignedSubmission s = p.b.submission();
  s.submission.body.spec.spec.purpose = "marketing";
  testing::resign(s, p.b.set.id(), p.b.consumer);
  const Hash32 id = p.submit(s);
  p.pump();
  EXPECT_EQ(p.job(id).state, "Denied");
  EXPECT_EQ(p.job(id).outcome.reason, "purpose-not-allowed");
}

TEST_P(CoreSuite, PublicationsOfADayAreLimited) {
  p.config.quotas.publications_per_day = 2;
  p.start();
  p.populate();  // data and image are two
  const Publish first = testing::make_publish(p.b.set, p.b.image, p.b.random);
  EXPECT_TRUE(p.core->check_publish(p.owner(), first).ok()) << "the same once more costs nothing";
  testing::next_policy(p.b.data);
  const Publish next = testing::make_publish(p.b.set, p.b.data, p.b.random);
  EXPECT_EQ(p.core->check_publish(p.owner(), next).reason(), Reason::kQuotaExceeded);
  p.b.clock.advance(86'400'000);
  must(p.core->check_publish(p.owner(), next));
  must(p.core->accept_publish(next, must(p.b.call<Signed<PublishAck>>(method::kPublish, next))));
}

// What jobs may write lies in the plane's store for ever: so much a day, whatever becomes of them.
TEST_P(CoreSuite, DeclaredOutputsOfADayAreLimited) {
  const SignedSubmission one = p.b.submission();
  std::int64_t declared = 0;
  for (const auto& o : one.submission.body.spec.spec.outputs) declared += o.max_bytes;
  ASSERT_GT(declared, 0);
  p.config.quotas.output_bytes_per_day = 2 * declared - 1;
  p.start();
  p.populate();
  p.submit(one);
  const auto refused = p.core->submit(p.consumer(), p.b.submission(), std::nullopt);
  EXPECT_EQ(refused.reason(), Reason::kQuotaExceeded);
  EXPECT_EQ(refused.error().what, "bytes of declared outputs per day");
  p.b.clock.advance(86'400'000);
  SignedSubmission tomorrow = p.b.submission();
  tomorrow.submission.body.not_after = p.b.clock.now().seconds() + 3600;
  testing::resign(tomorrow, p.b.set.id(), p.b.consumer);
  must(p.core->submit(p.consumer(), tomorrow, std::nullopt));
}

BeaconRequest beacon_of(testing::BrokerWorld& b) {
  b.clock.advance(1'000);
  const OwnerBeacon body{b.owner.id(), b.data.version_id(), hash_of(b.data.policy),
                         b.clock.now().seconds()};
  return BeaconRequest{b.owner.chain, must(sign(b.set.id(), body, b.owner.key))};
}

// A policy that asks for beacons, which the owner publishes after those of populate().
void ask_for_beacons(Plane& p) {
  testing::next_policy(p.b.data);
  p.b.data.policy.clauses.fresh_for_seconds = 3600;
  const Publish next = testing::make_publish(p.b.set, p.b.data, p.b.random);
  must(p.core->check_publish(p.owner(), next));
  must(p.core->accept_publish(next, must(p.b.call<Signed<PublishAck>>(method::kPublish, next))));
}

// Who confirms many policies every hour can still publish, and the other way round.
TEST_P(CoreSuite, BeaconsHaveAQuotaOfTheirOwn) {
  p.config.quotas.publications_per_day = 3;
  p.config.quotas.beacons_per_day = 3;
  p.start();
  p.populate();
  ask_for_beacons(p);  // all publications of the day
  for (int i = 0; i < 3; ++i) {
    const BeaconRequest r = beacon_of(p.b);
    must(p.core->check_beacon(p.owner(), r));
    must(p.core->accept_beacon(r, must(p.b.call<Signed<BeaconAck>>(method::kBeacon, r))));
    EXPECT_TRUE(p.core->check_beacon(p.owner(), r).ok()) << "the same once more costs nothing";
  }
  const auto refused = p.core->check_beacon(p.owner(), beacon_of(p.b));
  EXPECT_EQ(refused.reason(), Reason::kQuotaExceeded);
  EXPECT_EQ(refused.error().what, "beacons per day");
  p.b.clock.advance(86'400'000);
  EXPECT_TRUE(p.core->check_beacon(p.owner(), beacon_of(p.b)).ok());
}

TEST_P(CoreSuite, BytesOfBeaconsOfADayAreLimited) {
  const std::string one = canonical(to_json(beacon_of(p.b)));
  p.config.quotas.beacon_bytes_per_day = 2 * static_cast<std::int64_t>(one.size()) - 1;
  p.start();
  p.populate();
  ask_for_beacons(p);
  const BeaconRequest first = beacon_of(p.b);
  must(p.core->check_beacon(p.owner(), first));
  must(p.core->accept_beacon(first, must(p.b.call<Signed<BeaconAck>>(method::kBeacon, first))));
  EXPECT_EQ(p.core->check_beacon(p.owner(), beacon_of(p.b)).error().what,
            "bytes of beacons per day");
}

// Another thread ends the job between the reads of one answer.
TEST_P(CoreSuite, AnEndIsNeverToldWithoutItsReason) {
  SignedSubmission s = p.b.submission();
  s.submission.body.spec.spec.purpose = "marketing";
  testing::resign(s, p.b.set.id(), p.b.consumer);
  const Hash32 id = p.submit(s);
  p.store->before_history = [&] { p.pump(); };
  const api::JobView during = p.job(id);
  EXPECT_EQ(during.state, "Submitted");
  EXPECT_EQ(during.outcome.reason, "");
  const api::JobView after = p.job(id);
  EXPECT_EQ(after.state, "Denied");
  EXPECT_EQ(after.outcome.reason, "purpose-not-allowed");
  EXPECT_GT(after.version, during.version);
}

TEST_P(CoreSuite, ARejectionSaysTheReasonOfTheReleaseStatement) {
  const GateVerdict malformed = testing::rejection(GateCause::kMalformed);
  const Hash32 id = p.submit();
  p.pump();
  const auto w = p.take();
  ASSERT_TRUE(w);
  must(p.core->output(p.node(), p.upload(*w, p.work(*w, malformed))));
  p.pump();
  const api::JobView v = p.job(id);
  EXPECT_EQ(v.state, "Rejected");
  EXPECT_EQ(v.outcome.reason, "rejected");
  EXPECT_EQ(v.outcome.what, "the output was not released: output-malformed");
  EXPECT_EQ(v.outcome.actual, "output-malformed");
  EXPECT_EQ(v.outcome.expected, "outputs as the job declares them");
  EXPECT_EQ(p.core->result(p.consumer(), id).error().actual, "output-malformed");
}

TEST_P(CoreSuite, WhatIsNotSignedByTheSetIsNotBelieved) {
  const Hash32 id = p.submit();
  const auto effect = must(p.core->due(1)).at(0);
  RunPlan plan = must(p.b.authorise(must(p.core->detail(p.consumer(), id)).submission)).body;
  const auto forged = must(sign(p.b.set.id(), plan, p.b.node));
  must(p.core->finish(effect, to_json(forged)));
  EXPECT_EQ(p.job(id).state, "Denied");
  EXPECT_EQ(p.job(id).outcome.reason, "bad-signature");
}

TEST_P(CoreSuite, AnUnreachableBrokerIsAskedAgainWithGrowingPauses) {
  const Hash32 id = p.submit();
  std::int64_t pause = 0;
  for (int i = 0; i < 12; ++i) {
    const auto due = must(p.core->due(1));
    ASSERT_EQ(due.size(), 1U);
    must(p.core->finish(due[0], fail(Reason::kUnavailable, "down")));
    EXPECT_TRUE(must(p.core->due(1)).empty());
    const std::int64_t next = **p.core->next_due_ms() - p.b.clock.now().ms;
    EXPECT_GE(next, pause);
    EXPECT_LE(next, 30'000);
    pause = next;
    p.b.clock.advance(next);
  }
  EXPECT_EQ(p.job(id).state, "Submitted");
  p.pump();
  EXPECT_EQ(p.job(id).state, "Authorized");
}

TEST_P(CoreSuite, SubmissionsAreChecked) {
  const auto reason = [&](const SignedSubmission& s) {
    return p.core->submit(p.consumer(), s, std::nullopt).reason();
  };
  SignedSubmission s = p.b.submission();
  s.submission.body.spec.spec.args = {"tampered"};
  EXPECT_EQ(reason(s), Reason::kBadSignature);
  s = p.b.submission();
  s.submission.body.not_after = p.b.clock.now().seconds() - 1;
  testing::resign(s, p.b.set.id(), p.b.consumer);
  EXPECT_EQ(reason(s), Reason::kExpired);
  s = p.b.submission();
  s.submission.body.assets[0].version_id[0] ^= 1;
  testing::resign(s, p.b.set.id(), p.b.consumer);
  EXPECT_EQ(reason(s), Reason::kNotFound);
  s = p.b.submission();
  s.submission.body.spec.spec.inputs[0].mount = "/etc";
  testing::resign(s, p.b.set.id(), p.b.consumer);
  EXPECT_EQ(reason(s), Reason::kBadValue);
  EXPECT_EQ(p.core->submit(p.owner(), p.b.submission(), std::nullopt).reason(),
            Reason::kWrongOwner);
  must(p.core->delist(p.owner(), p.b.data.version_id()));
  EXPECT_EQ(reason(p.b.submission()), Reason::kNotFound);
  EXPECT_EQ(p.core->delist(p.consumer(), p.b.data.version_id()).reason(), Reason::kWrongOwner);
}

TEST_P(CoreSuite, AJobThatNoNodeCouldRunIsRefusedBeforeItCostsAnything) {
  const auto placed = [&](auto change) {
    SignedSubmission s = p.b.submission();
    change(s.submission.body.spec.spec);
    testing::resign(s, p.b.set.id(), p.b.consumer);
    const PlanCheck line = must(p.core->placement(s.submission.body));
    EXPECT_EQ(line.check, "placement");
    const auto submitted = p.core->submit(p.consumer(), s, std::nullopt);
    EXPECT_EQ(submitted.ok(), line.allowed) << line.what;
    if (!submitted.ok()) {
      EXPECT_EQ(submitted.reason(), Reason::kNoCapacity);
    }
    return line.allowed ? line.reason : line.reason + " " + line.what;
  };
  EXPECT_EQ(placed([](SpecBody&) {}), "");
  EXPECT_EQ(placed([](SpecBody& s) { s.resources.scratch = "1024GiB"; }),
            "no-capacity spec.resources: memory, scratch and image together");
  EXPECT_EQ(placed([](SpecBody& s) { s.resources.image = "8GiB"; }),
            "no-capacity spec.resources: memory, scratch and image together");
  EXPECT_EQ(placed([](SpecBody& s) { s.resources.memory = "8GiB"; }),
            "no-capacity spec.resources: memory, scratch and image together");
  EXPECT_EQ(placed([](SpecBody& s) { s.resources.cpu = 9; }), "no-capacity spec.resources.cpu");
  EXPECT_EQ(placed([](SpecBody& s) { s.tee.any_of = {Technology::kTdx}; }),
            "no-capacity no node has a technology of spec.tee.anyOf");
  NodeInfo small = p.info();
  small.pids = 255;
  must(p.core->register_node(p.node(), small));
  EXPECT_EQ(placed([](SpecBody&) {}), "no-capacity spec.sandbox.pids");
  small.pids.reset();
  must(p.core->register_node(p.node(), small));
  EXPECT_EQ(placed([](SpecBody& s) { s.sandbox.pids = 1; }), "no-capacity spec.sandbox.pids");
  // A node that is silent may come back; one that owners do not name never helps.
  must(p.core->register_node(p.node(), p.info()));
  p.b.clock.advance((p.config.lease_seconds + 1) * 1000);
  EXPECT_EQ(placed([](SpecBody&) {}), "unavailable");
  const auto other =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, p.b.random))
          .public_key();
  must(p.core->enrol_node("other", other.text()));
  NodeInfo info = p.info();
  info.key = other.text();
  must(p.core->register_node(other, info));
  EXPECT_EQ(placed([](SpecBody&) {}), "unavailable");
}

TEST_P(CoreSuite, LiveEnvironmentsShareWhatTheirNodeLends) {
  NodeInfo info = p.info();
  info.slots = 8;
  info.memory_bytes = std::int64_t{1200} << 20;  // a job takes 512 + 64 MiB
  must(p.core->register_node(p.node(), info));
  std::vector<Hash32> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(p.submit());
  p.pump();
  std::vector<LaunchBundle> taken;
  for (int i = 0; i < 6; ++i) {
    if (auto w = p.take()) taken.push_back(std::move(*w));
  }
  ASSERT_EQ(taken.size(), 2u);
  must(p.core->phase(p.node(), p.phase(taken[0], EnvironmentPhase::kLost, "lost")));
  EXPECT_TRUE(p.take());
  EXPECT_FALSE(p.take());
}

// A machine of its own is larger than what the job asks, and comes in sizes.
class MachinesOfTheirOwn : public ::testing::Test {
 protected:
  MachinesOfTheirOwn() {
    for (testing::Asset* a : {&p.b.data, &p.b.image}) {
      PlatformRule rule = a->policy.clauses.tee.at(0);
      rule.technology = Technology::kSim;
      rule.root = "sim:" + std::string(64, 'a');
      rule.releases = {"guest-1"};
      a->policy.clauses.tee.push_back(rule);
    }
    p.start();
    p.populate();
    lend(4096, 2);
  }
  void lend(std::int64_t mib, std::int64_t cpus) {
    NodeInfo info = p.info();
    info.technologies = {Technology::kSim};
    info.platforms = {{Technology::kSim, "sim:" + std::string(64, 'a'), release}};
    info.memory_bytes = mib << 20;
    info.cpu = cpus;
    info.slots = 8;
    must(p.core->register_node(p.node(), info));
  }
  PlanCheck placed(std::function<void(SpecBody&)> change) {
    SignedSubmission s = submission(change);
    const PlanCheck line = must(p.core->placement(s.submission.body));
    EXPECT_EQ(p.core->submit(p.consumer(), s, std::nullopt).ok(), line.allowed) << line.what;
    return line;
  }
  SignedSubmission submission(const std::function<void(SpecBody&)>& change) {
    SignedSubmission s = p.b.submission();
    s.submission.body.spec.spec.tee.any_of = {Technology::kSim};
    change(s.submission.body.spec.spec);
    testing::resign(s, p.b.set.id(), p.b.consumer);
    p.b.clock.advance(1);
    return s;
  }
  std::string release = "guest-1";
  Plane p{true};
};

TEST_F(MachinesOfTheirOwn, WhatNoNodeCouldStartIsRefusedWithWhatItLacks) {
  EXPECT_TRUE(placed([](SpecBody&) {}).allowed);
  PlanCheck line = placed([](SpecBody& s) { s.resources.cpu = 64; });
  EXPECT_EQ(line.what + "/" + line.expected + "/" + line.actual, "spec.resources.cpu/at most 2/64");
  EXPECT_FALSE(line.next.empty());
  line = placed([](SpecBody& s) { s.resources.memory = "4096GiB"; });
  EXPECT_EQ(line.reason, "no-capacity");
  EXPECT_FALSE(line.next.empty());
  // It would fit the memory that is lent, and the machine around it does not.
  line = placed([](SpecBody& s) { s.resources.memory = "3584MiB"; });
  EXPECT_EQ(line.what, "spec.resources: memory of the machine that this job needs");
  line = placed([](SpecBody& s) { s.tee.any_of = {Technology::kTdx}; });
  EXPECT_EQ(line.what + ": " + line.expected, "no node has a technology of spec.tee.anyOf: tdx");
  EXPECT_NE(line.actual.find("technology sim, release guest-1, root sim:"), std::string::npos);
  line = placed([](SpecBody& s) { s.tee.releases = {"guest-2"}; });
  EXPECT_EQ(line.what + ": " + line.expected,
            "no node runs a release of spec.tee.releases: guest-2");
  release = "guest-3";
  lend(4096, 2);
  EXPECT_EQ(placed([](SpecBody&) {}).what, "no node is one that the job and every policy allow");
}

TEST_F(MachinesOfTheirOwn, TheirMachinesShareWhatTheNodeLends) {
  // 576 MiB of a job are a machine of 1 GiB and what QEMU takes beside it: two of them in 3 GiB,
  // which would hold five such jobs.
  lend(3072, 2);
  for (int i = 0; i < 3; ++i) p.submit(submission([](SpecBody&) {}));
  p.pump();
  int taken = 0;
  for (int i = 0; i < 6; ++i) taken += p.take().has_value() ? 1 : 0;
  EXPECT_EQ(taken, 2);
}

TEST_P(CoreSuite, CancellingStopsTheNodeAndTheBroker) {
  const Hash32 id = p.submit();
  p.pump();
  const auto w = p.take();
  must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kBooting)));
  const Cancel wish{id, p.b.consumer.id(), p.b.clock.now().seconds()};
  CancelRequest request{p.b.consumer.chain, must(sign(p.b.set.id(), wish, p.b.owner.key))};
  EXPECT_EQ(p.core->cancel(p.consumer(), request).reason(), Reason::kBadSignature);
  request.cancel = must(sign(p.b.set.id(), wish, p.b.consumer.key));
  EXPECT_EQ(p.core->cancel(p.owner(), request).reason(), Reason::kNotFound);
  EXPECT_EQ(must(p.core->cancel(p.consumer(), request)).state, "Cancelled");
  EXPECT_EQ(must(p.core->cancel(p.consumer(), request)).state, "Cancelled");
  p.pump();
  EXPECT_TRUE(p.b.core->state().job(id)->cancelled);
  EXPECT_TRUE(must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kWorking))).stop);
  EXPECT_EQ(must(p.core->heartbeat(p.node(), {"n", {{id, 1}}})).stop,
            (std::vector<RunningAttempt>{{id, 1}}));
  EXPECT_EQ(p.job(id).environments.back().state, "Working");  // until its node says otherwise
  must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kDestroyed, "job-cancelled")));
  EXPECT_EQ(p.job(id).state, "Cancelled");
  EXPECT_EQ(p.job(id).environments.back().state, "Destroyed");
  EXPECT_EQ(p.job(id).environments.back().reason, "job-cancelled");
  EXPECT_EQ(p.core->result(p.consumer(), id).reason(), Reason::kJobCancelled);
}

// Cancelled while the broker is away, and the key is rotated before the broker hears of it: it
// refuses the wish, and would keep the whole reservation.
TEST_P(CoreSuite, AWishOfAKeyThatWasRotatedAwayIsSignedAgain) {
  testing::Person now = testing::copy(p.b.consumer);
  now.key = testing::make_person(p.b.random).key;
  const Signed<Rotation> rotation =
      must(sign(p.b.set.id(), Rotation{now.id(), 1, now.key.public_key().text()}, now.recovery));
  now.chain.rotations = {rotation};
  const Hash32 id = p.submit();
  p.pump();
  ASSERT_TRUE(p.take());
  const auto wish_of = [&](const testing::Person& who) {
    const Cancel wish{id, who.id(), p.b.clock.now().seconds()};
    return CancelRequest{who.chain, must(sign(p.b.set.id(), wish, who.key))};
  };
  const CancelRequest old = wish_of(p.b.consumer);
  EXPECT_EQ(must(p.core->cancel(p.consumer(), old)).state, "Cancelled");
  const auto due = must(p.core->due(1));
  ASSERT_EQ(due.size(), 1U);
  must(p.core->finish(due[0], fail(Reason::kUnavailable, "down")));
  const RotateRequest request{now.chain.identity, rotation};
  must(p.core->check_rotation(p.consumer(), request));
  must(p.b.call<Empty>(method::kRotate, request));
  must(p.core->accept_rotation(p.consumer(), request));
  p.b.clock.advance(30'000);
  p.pump();
  ASSERT_FALSE(p.b.core->state().job(id)->cancelled) << "the broker heeds the key that stands";
  EXPECT_EQ(must(p.core->cancel(p.consumer(), old)).state, "Cancelled");
  p.pump();
  ASSERT_FALSE(p.b.core->state().job(id)->cancelled);

  EXPECT_EQ(must(p.core->cancel(p.consumer(), wish_of(now))).state, "Cancelled");
  p.pump();
  EXPECT_TRUE(p.b.core->state().job(id)->cancelled);
  const api::JobEvents told = must(p.core->events(p.consumer(), id));
  EXPECT_EQ(told.job.outcome.what, "cancelled by the consumer");
  EXPECT_TRUE(told.job.ended);
  p.b.clock.advance(1'000);
  EXPECT_EQ(must(p.core->cancel(p.consumer(), wish_of(now))).version, told.job.version)
      << "once for each key";
}

TEST_P(CoreSuite, AnOperatorEndsAnybodysJobAndItsConsumerReadsWhoDid) {
  const testing::Person boss = testing::make_person(p.b.random);
  p.enrol(boss, "boss", Role::kOperator);
  const plane::Caller op{boss.id(), {Role::kOperator}};
  const auto by_boss = [&](const Hash32& id) {
    const Cancel wish{id, boss.id(), p.b.clock.now().seconds()};
    return CancelRequest{boss.chain, must(sign(p.b.set.id(), wish, boss.key))};
  };
  const Hash32 id = p.submit();
  p.pump();
  const auto w = p.take();
  must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kWorking)));
  EXPECT_EQ(p.core->cancel({boss.id(), {Role::kAuditor}}, by_boss(id)).reason(), Reason::kNotFound);
  const Cancel others{id, p.b.consumer.id(), p.b.clock.now().seconds()};
  const CancelRequest not_his{p.b.consumer.chain,
                              must(sign(p.b.set.id(), others, p.b.consumer.key))};
  EXPECT_EQ(p.core->cancel(op, not_his).reason(), Reason::kWrongOwner);
  EXPECT_EQ(must(p.core->cancel(op, by_boss(id))).state, "Cancelled");
  p.pump();
  const api::JobView v = p.job(id);
  EXPECT_EQ(v.state, "Cancelled");
  EXPECT_EQ(v.outcome.reason, "job-cancelled");
  EXPECT_EQ(v.outcome.what, "cancelled by the operator boss (" + to_hex(boss.id()) + ")");
  EXPECT_EQ(must(p.core->heartbeat(p.node(), {"n", {{id, 1}}})).stop,
            (std::vector<RunningAttempt>{{id, 1}}));
  EXPECT_FALSE(p.b.core->state().job(id)->cancelled) << "the broker heeds the consumer alone";
  const CancelRequest own{p.b.consumer.chain, not_his.cancel};
  EXPECT_EQ(must(p.core->cancel(p.consumer(), own)).outcome.what, v.outcome.what);
  p.pump();
  EXPECT_TRUE(p.b.core->state().job(id)->cancelled) << "whose wish frees what was reserved";
  must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kDestroyed, "job-cancelled")));

  const Hash32 sealed = p.submit();
  p.pump();
  const auto next = p.take();
  ASSERT_TRUE(next);
  must(p.core->output(p.node(), p.upload(*next, p.work(*next))));
  EXPECT_EQ(p.core->cancel(op, by_boss(sealed)).reason(), Reason::kWrongState)
      << "it holds no node any more";
}

class HeldSuite : public CoreSuite {
 protected:
  void SetUp() override {
    p.enrol(p.b.reviewer, "reviewer", Role::kReviewer);
    id = p.submit();
    p.pump();
    const auto w = p.take();
    GateVerdict verdict = testing::clean_verdict();
    verdict.recommendation = Recommendation::kHold;
    sealed = p.work(*w, verdict);
    must(p.core->output(p.node(), p.upload(*w, sealed)));
    must(p.core->destroyed(p.node(), p.claim(*w)));
    EXPECT_TRUE(must(p.core->reviews(p.reviewer(), {})).items.empty()) << "nothing is held yet";
    EXPECT_EQ(p.core->review(p.reviewer(), id).reason(), Reason::kNotFound);
    p.pump();
    ASSERT_EQ(p.job(id).output->state, "Held");
  }
  RulingRequest ruling(const Hash32& policy, RulingDecision decision) {
    const api::ReviewDetail d = must(p.core->review(p.reviewer(), id));
    const HoldNotice& notice = d.review.hold_notice.body;
    const Ruling r{
        d.review.hold_notice.hash(), notice.manifest,          notice.ciphertext, policy, decision,
        std::vector<std::string>{},  p.b.clock.now().seconds()};
    return {p.b.reviewer.chain, must(sign(p.b.set.id(), r, p.b.reviewer.key))};
  }
  Result<Judgement> ask(const RulingRequest& r) { return p.b.call<Judgement>(method::kRuling, r); }
  // As the API does it.
  Result<Judgement> rule(const RulingRequest& r) {
    must(p.core->begin_ruling(p.reviewer(), id, r));
    auto j = ask(r);
    must(p.core->end_ruling(p.reviewer(), id, r, j));
    return j;
  }
  Hash32 policy(std::size_t i) {
    return must(p.core->review(p.reviewer(), id)).plan.body.policies.at(i).policy_hash;
  }
  Hash32 id{};
  Plane::Done sealed;
};
INSTANTIATE_TEST_SUITE_P(Stores, HeldSuite, ::testing::Values(false, true),
                         [](const auto& i) { return i.param ? "Sqlite" : "Memory"; });

TEST_P(HeldSuite, IsReviewedAndReleased) {
  EXPECT_EQ(p.core->result(p.consumer(), id).reason(), Reason::kHeld);
  const api::ReviewList list = must(p.core->reviews(p.reviewer(), {}));
  ASSERT_EQ(list.items.size(), 1U);
  EXPECT_EQ(list.items[0].reasons, std::vector<std::string>{"gate-holds"});
  ASSERT_EQ(list.items[0].policies.size(), 2U);
  EXPECT_TRUE(list.items[0].policies[0].mine);
  // What is handed out opens with the reviewer's key.
  const api::ReviewDetail d = must(p.core->review(p.reviewer(), id));
  const auto opened = open_preview(p.b.reviewer.hpke, 0, d.run_statement.body.manifest, d.output,
                                   hash_of(d.review.hold_notice.body), d.preview_keys.at(0));
  ASSERT_TRUE(opened.ok()) << opened.error().line();
  EXPECT_EQ(d.plan.hash(), d.run_statement.body.manifest.context.plan_hash);
  EXPECT_EQ(must(rule(ruling(policy(0), RulingDecision::kApprove))).state, JudgementState::kHeld);
  const api::ReviewView half = must(p.core->reviews(p.reviewer(), {})).items.at(0);
  EXPECT_EQ(half.policies[0].approved, 1);
  EXPECT_TRUE(half.policies[0].ruled);
  EXPECT_EQ(half.policies[1].approved, 0);
  EXPECT_EQ(must(rule(ruling(policy(1), RulingDecision::kApprove))).state,
            JudgementState::kReleased);
  p.pump();
  EXPECT_EQ(p.job(id).state, "Completed");
  EXPECT_TRUE(must(p.core->reviews(p.reviewer(), {})).items.empty());
  EXPECT_EQ(p.core->review(p.reviewer(), id).reason(), Reason::kWrongState);
}

TEST_P(HeldSuite, IsNothingToAnybodyElse) {
  const RulingRequest good = ruling(policy(0), RulingDecision::kReject);
  const std::set<Role> roles{Role::kReviewer, Role::kOperator, Role::kOwner};
  for (const auto* other : {&p.b.owner, &p.b.consumer}) {
    const plane::Caller who{other->id(), roles};
    EXPECT_TRUE(must(p.core->reviews(who, {})).items.empty());
    const auto seen = p.core->review(who, id);
    const auto absent = p.core->review(who, Hash32{9});
    EXPECT_EQ(seen.reason(), Reason::kNotFound);
    EXPECT_EQ(seen.error().line(), absent.error().line()) << "the same as for no job at all";
    RulingRequest own = good;
    own.reviewer = other->chain;
    own.ruling = must(sign(p.b.set.id(), good.ruling.body, other->key));
    EXPECT_EQ(p.core->begin_ruling(who, id, own).reason(), Reason::kNotFound);
    EXPECT_EQ(p.core->begin_ruling(who, id, good).reason(), Reason::kWrongOwner);
  }
  RulingRequest forged = good;
  forged.ruling.body.decision = RulingDecision::kApprove;
  EXPECT_EQ(p.core->begin_ruling(p.reviewer(), id, forged).reason(), Reason::kBadSignature);
  EXPECT_TRUE(must(p.core->review(p.reviewer(), id)).rulings.empty());
}

// The answer is lost: the ruling is there for its reviewer to send again, and counts once.
TEST_P(HeldSuite, ARulingWhoseAnswerIsLostIsSentAgain) {
  const RulingRequest r = ruling(policy(0), RulingDecision::kApprove);
  must(p.core->begin_ruling(p.reviewer(), id, r));
  must(ask(r));
  must(p.core->end_ruling(p.reviewer(), id, r, fail(Reason::kUnavailable)));
  auto kept = must(p.core->review(p.reviewer(), id)).rulings;
  ASSERT_EQ(kept.size(), 1U);
  EXPECT_FALSE(kept[0].taken);
  EXPECT_EQ(must(p.core->reviews(p.reviewer(), {})).items.at(0).policies[0].approved, 0);
  must(rule({p.b.reviewer.chain, kept[0].ruling}));
  kept = must(p.core->review(p.reviewer(), id)).rulings;
  ASSERT_EQ(kept.size(), 1U);
  EXPECT_TRUE(kept[0].taken);
  // What the broker refuses is not kept, and takes nothing away.
  p.b.clock.advance(1000);
  EXPECT_EQ(rule(ruling(policy(0), RulingDecision::kReject)).reason(), Reason::kConflict);
  RulingRequest early = ruling(policy(1), RulingDecision::kApprove);
  early.ruling.body.time -= 86'400;
  early.ruling = must(sign(p.b.set.id(), early.ruling.body, p.b.reviewer.key));
  EXPECT_EQ(rule(early).reason(), Reason::kBadValue);
  kept = must(p.core->review(p.reviewer(), id)).rulings;
  ASSERT_EQ(kept.size(), 1U);
  EXPECT_EQ(kept[0].ruling.body.decision, RulingDecision::kApprove);
}

TEST_P(HeldSuite, PagesCoverAllOnce) {
  for (int i = 0; i < 4; ++i) {
    p.b.clock.advance(1000);
    const Hash32 more = p.held_job();
    ASSERT_EQ(p.job(more).output->state, "Held");
  }
  std::set<Hash32> seen;
  Page page{"", 2};
  for (int pages = 1;; ++pages) {
    const api::ReviewList list = must(p.core->reviews(p.reviewer(), page));
    for (const auto& item : list.items) EXPECT_TRUE(seen.insert(item.job_id).second);
    page.cursor = list.next;
    if (list.next.empty()) break;
    ASSERT_LT(pages, 4);
  }
  EXPECT_EQ(seen.size(), 5U);
}

// Whoever asks for a thousand makes the plane look at no more at once than whoever asks for few.
TEST_P(HeldSuite, APageOfReviewsLooksAtBoundedEntries) {
  constexpr std::size_t kDesks = kLookEntries + 50;
  machines::Transaction t;
  for (std::size_t i = 1; i < kDesks; ++i) {
    t.records.push_back({0,
                         {"desk", std::to_string(i), to_hex(p.b.reviewer.id()), "",
                          static_cast<std::int64_t>(i), 0, to_json(DeskBody{id})}});
  }
  must(p.store->commit(t));
  p.store->most_rows = 0;
  EXPECT_EQ(must(p.core->reviews(p.reviewer(), {"", 1'000})).items.size(), kDesks);
  EXPECT_EQ(p.store->most_rows, kLookEntries);
}

// One owner names the key that the reviewer had before a rotation, another the one after it: one
// desk, two places among those whom previews are sealed to, and a ruling for whoever names the key
// that stands.
class RotatedReviewer : public ::testing::TestWithParam<bool> {
 protected:
  RotatedReviewer() : p(GetParam()), now(testing::copy(p.b.reviewer)), second(person()) {
    const auto next = person();
    now.key = testing::copy(next).key;
    now.hpke = testing::copy(next).hpke;
    rotation = must(sign(p.b.set.id(), Rotation{now.id(), 1, now.key.public_key().text()},
                         p.b.reviewer.recovery));
    now.chain.rotations.push_back(rotation);
    p.b.data.policy.clauses.reviewers = {named(now, p.b.reviewer)};
    p.b.image.policy.clauses.reviewers = {named(p.b.reviewer, p.b.reviewer), named(second, second)};
    for (testing::Asset* a : {&p.b.data, &p.b.image}) {
      a->policy.clauses.may_preview = {named(now, now), named(p.b.reviewer, p.b.reviewer),
                                       named(second, second)};
    }
    p.populate();
    p.enrol(p.b.reviewer, "reviewer", Role::kReviewer);
    p.enrol(second, "second", Role::kReviewer);
  }
  testing::Person person() { return testing::make_person(p.b.random); }
  static Reviewer named(const testing::Person& keys, const testing::Person& who) {
    return {who.id(), keys.key.public_key().text(), keys.hpke.public_key().text()};
  }
  void rotate() {
    must(p.core->check_rotation(p.reviewer(), {p.b.reviewer.chain.identity, rotation}));
    const RotateRequest request{p.b.reviewer.chain.identity, rotation};
    must(p.b.call<Empty>(method::kRotate, request));
    must(p.core->accept_rotation(p.reviewer(), request));
  }
  plane::Caller caller(const testing::Person& who) { return {who.id(), {Role::kReviewer}}; }
  Result<Judgement> rule(const testing::Person& by, std::size_t policy) {
    const api::ReviewDetail d = must(p.core->review(caller(by), id));
    const HoldNotice& notice = d.review.hold_notice.body;
    const Ruling r{d.review.hold_notice.hash(), notice.manifest,
                   notice.ciphertext,           d.plan.body.policies.at(policy).policy_hash,
                   RulingDecision::kApprove,    {},
                   p.b.clock.now().seconds()};
    const RulingRequest request{by.chain, must(sign(p.b.set.id(), r, by.key))};
    must(p.core->begin_ruling(caller(by), id, request));
    auto j = p.b.call<Judgement>(method::kRuling, request);
    must(p.core->end_ruling(caller(by), id, request, j));
    return j;
  }
  Plane p;
  testing::Person now;  // the reviewer, as he is after the rotation
  testing::Person second;
  Signed<Rotation> rotation;
  Hash32 id{};
};
INSTANTIATE_TEST_SUITE_P(Stores, RotatedReviewer, ::testing::Values(false, true),
                         [](const auto& i) { return i.param ? "Sqlite" : "Memory"; });

TEST_P(RotatedReviewer, HasOneDeskAndRulesByTheKeyThatStands) {
  rotate();
  id = p.held_job();
  ASSERT_EQ(p.job(id).output->state, "Held");
  const api::ReviewList list = must(p.core->reviews(p.reviewer(), {}));
  ASSERT_EQ(list.items.size(), 1U);
  const api::ReviewDetail d = must(p.core->review(p.reviewer(), id));
  ASSERT_EQ(d.plan.body.reviewers.size(), 3U);
  ASSERT_EQ(d.preview_keys.size(), 2U) << "of both of his places";
  std::size_t key = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    const Reviewer& r = d.plan.body.reviewers[i];
    if (r.identity_id != now.id()) continue;
    const auto& own = r.key == now.key.public_key().text() ? now.hpke : p.b.reviewer.hpke;
    const auto opened = open_preview(own, i, d.run_statement.body.manifest, d.output,
                                     hash_of(d.review.hold_notice.body), d.preview_keys.at(key++));
    EXPECT_TRUE(opened.ok()) << opened.error().line();
  }
  const std::size_t data = list.items[0].policies[0].mine ? 0 : 1;
  EXPECT_TRUE(list.items[0].policies[data].mine);
  EXPECT_FALSE(list.items[0].policies[1 - data].mine) << "it names a key that stands no more";
  EXPECT_EQ(list.items[0].policies[1 - data].reviewers, 2);
  EXPECT_EQ(rule(now, 1 - data).reason(), Reason::kWrongRole);
  EXPECT_EQ(must(rule(now, data)).state, JudgementState::kHeld);
  EXPECT_EQ(must(rule(second, 1 - data)).state, JudgementState::kReleased);
  p.pump();
  EXPECT_EQ(p.job(id).state, "Completed");
  for (const auto& who : {caller(now), caller(second)}) {
    EXPECT_TRUE(must(p.core->reviews(who, {})).items.empty());
  }
}

TEST_P(CoreSuite, AHoldThatRunsOutExpires) {
  const Hash32 id = p.submit();
  p.pump();
  const auto w = p.take();
  GateVerdict verdict = testing::clean_verdict();
  verdict.recommendation = Recommendation::kHold;
  const auto sealed = p.work(*w, verdict);
  must(p.core->output(p.node(), p.upload(*w, sealed)));
  p.pump();
  EXPECT_EQ(p.job(id).output->state, "Held");
  EXPECT_EQ(must(p.core->reviews(p.reviewer(), {})).items.size(), 1U);
  p.b.clock.advance((broker::kHoldSeconds + 120) * 1000);
  p.pump();
  EXPECT_TRUE(must(p.core->reviews(p.reviewer(), {})).items.empty());
  EXPECT_TRUE(p.job(id).ended) << p.job(id).state;
  EXPECT_NE(p.job(id).state, "Completed");
}

// When a run ends is the container's choice: its author learns it when the owners' slot ends, and
// not by any question.
class SlotSuite : public ::testing::Test {
 protected:
  SlotSuite() : p(false) {
    for (testing::Asset* a : {&p.b.data, &p.b.image}) {
      a->policy.clauses.gate.release_slot_seconds = 900;
    }
    p.populate();
  }
  // Loaded at once; sealed after `run_seconds`; the pump brings the broker's answers.
  Hash32 run(std::int64_t run_seconds, const GateVerdict& verdict = testing::clean_verdict()) {
    const Hash32 id = p.submit();
    p.pump();
    const auto w = p.take();
    for (const auto phase : {EnvironmentPhase::kBooting, EnvironmentPhase::kAttested,
                             EnvironmentPhase::kLoaded, EnvironmentPhase::kWorking}) {
      must(p.core->phase(p.node(), p.phase(*w, phase)));
    }
    p.b.clock.advance(run_seconds * 1000 + 123);
    must(p.core->output(p.node(), p.upload(*w, p.work(*w, verdict))));
    must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kSealed)));
    must(p.core->destroyed(p.node(), p.claim(*w)));
    p.pump();
    return id;
  }
  CancelRequest wish_for(const Hash32& id) {
    const Cancel wish{id, p.b.consumer.id(), p.b.clock.now().seconds()};
    return {p.b.consumer.chain, must(sign(p.b.set.id(), wish, p.b.consumer.key))};
  }
  // And past its beginning by so much, or short of it.
  void to_the_next_slot(std::int64_t past_ms = 0) {
    const std::int64_t now = p.b.clock.now().ms;
    p.b.clock.advance(900'000 - now % 900'000 + past_ms);
  }
  std::pair<Hash32, LaunchBundle> begin() {
    to_the_next_slot(700'000);  // a credential does not live for a whole slot
    const Hash32 id = p.submit();
    p.pump();
    LaunchBundle w = p.take().value();
    p.b.clock.advance(1'000);
    must(p.core->phase(p.node(), p.phase(w, EnvironmentPhase::kWorking)));
    return {id, std::move(w)};
  }
  // The end of a run, in all that its consumer can ask for.
  void told_in_one(const Hash32& id, std::int64_t slot_ms) {
    const api::JobEvents told = must(p.core->events(p.consumer(), id));
    EXPECT_EQ(told.job.state, "Completed");
    EXPECT_EQ(told.job.output->decide_at, slot_ms / 1000);
    bool loaded = false;
    for (const auto& e : told.events) {
      if (loaded) {
        EXPECT_EQ(e.time_ms, slot_ms) << e.machine << " " << e.to;
      }
      loaded = loaded || e.to == "Working";
    }
    EXPECT_TRUE(told.job.environments.at(0).destroyed_claim);
    const Receipt r = must(p.core->receipt(p.consumer(), id));
    EXPECT_EQ(r.release.body.time, slot_ms / 1000);
    EXPECT_EQ(r.seal_ack.body.time, slot_ms / 1000);
    EXPECT_EQ(r.destroyed->body.time, slot_ms / 1000);
  }
  static std::vector<std::string> states(const api::JobEvents& events) {
    std::vector<std::string> out;
    for (const auto& e : events.events) out.push_back(e.to);
    return out;
  }
  Receipt proved(const Hash32& id) {
    Receipt r = must(p.core->receipt(p.consumer(), id));
    const policy::ReceiptReport report =
        policy::verify_receipt(r, p.b.set.id(), p.b.clock.now().seconds());
    EXPECT_TRUE(report.valid) << report.first_failure().line();
    return r;
  }
  // Asks the broker what is due next, which shall be this; `during` happens before the answer.
  void ask_one(
      machines::EffectKind kind, const std::function<void()>& during = [] {}) {
    const auto due = must(p.core->due(1));
    ASSERT_EQ(due.size(), 1U);
    ASSERT_EQ(due[0].key.kind, kind);
    const auto call = must(p.core->prepare(due[0]));
    ASSERT_TRUE(call);
    const auto reply = p.b.core->handle(call->method, call->body, p.b.plane(), p.b.clock.now());
    during();
    must(p.core->finish(due[0], reply));
  }
  const plane::Caller operator_{Hash32{7}, {Role::kOperator}};
  Plane p;
};
TEST_F(SlotSuite, TheEndOfARunIsToldOnTheSlot) {
  to_the_next_slot();
  const Hash32 id = run(100);
  const api::JobView hidden = p.job(id);
  EXPECT_EQ(hidden.state, "Running");
  ASSERT_EQ(hidden.environments.size(), 1U);
  EXPECT_EQ(hidden.environments[0].state, "Working");
  EXPECT_FALSE(hidden.environments[0].destroyed_claim);
  EXPECT_FALSE(hidden.output.has_value());
  EXPECT_EQ(must(p.core->job(operator_, id)).state, "Reviewing");
  EXPECT_EQ(states(must(p.core->events(p.consumer(), id))),
            (std::vector<std::string>{"Submitted", "Authorized", "Running", "Requested", "Booting",
                                      "Attested", "Loaded", "Working"}));
  EXPECT_EQ(p.core->result(p.consumer(), id).reason(), Reason::kWrongState);
  EXPECT_EQ(p.core->receipt(p.consumer(), id).error().actual, "Running");
  EXPECT_TRUE(must(p.core->jobs(p.consumer(), {"Reviewing", std::nullopt, std::nullopt}, {}))
                  .items.empty());
  EXPECT_EQ(
      must(p.core->jobs(p.consumer(), {"Running", std::nullopt, std::nullopt}, {})).items.size(),
      1U);

  to_the_next_slot();
  p.pump();
  EXPECT_EQ(p.job(id).state, "Completed");
  const std::int64_t slot = p.b.clock.now().ms;
  for (const auto& e : must(p.core->events(p.consumer(), id)).events) {
    if (e.time_ms < slot - 900'000 + 1000) continue;  // before the run
    EXPECT_EQ(e.time_ms % 900'000, 0) << e.machine << " " << e.to;
    EXPECT_EQ(e.hash, Hash32{}) << "the exact time could be tried out against it";
  }
  EXPECT_EQ(must(p.core->result(p.consumer(), id)).release.outer_keys.empty(), false);
  EXPECT_EQ(must(p.core->receipt(p.consumer(), id)).seal_ack.body.time % 900, 0);
}
// The broker decides at the end of the slot; the plane hears of it a little later.
TEST_F(SlotSuite, NothingIsToldWithATimeThatIsYetToCome) {
  to_the_next_slot();
  const Hash32 id = run(100);
  to_the_next_slot();
  const std::int64_t slot = p.b.clock.now().ms;
  p.b.clock.advance(250);
  p.pump();
  EXPECT_EQ(p.job(id).state, "Completed");
  EXPECT_EQ(p.job(id).environments.at(0).state, "Destroyed");
  const api::JobEvents told = must(p.core->events(p.consumer(), id));
  EXPECT_EQ(told.job.updated_ms, slot);
  EXPECT_EQ(told.job.updated_ms / 1000, must(p.core->receipt(p.consumer(), id)).release.body.time);
  for (const auto& e : told.events) EXPECT_LE(e.time_ms, slot) << e.machine << " " << e.to;
}
// A container that knows the time ends so that its seal falls before the end of a slot, and its
// output (a large one) or its destruction (of many files) after it.
TEST_F(SlotSuite, ARunThatEndsAcrossTheEndOfASlotIsToldInTheNext) {
  const struct {
    std::int64_t sealed_ms, handed_in_ms, destroyed_ms;  // after the end of the slot
  } cases[] = {{-1'000, -1'000, 1'850}, {-1'000, 800, 1'850}, {400, 800, 900}};
  for (const auto& c : cases) {
    const auto [id, w] = begin();
    const api::JobView working = p.job(id);
    to_the_next_slot(c.sealed_ms);
    const auto done = p.work(w);
    p.b.clock.advance(c.handed_in_ms - c.sealed_ms);
    must(p.core->output(p.node(), p.upload(w, done)));
    must(p.core->phase(p.node(), p.phase(w, EnvironmentPhase::kSealed)));
    if (c.handed_in_ms < 0) to_the_next_slot(800);
    p.pump();
    EXPECT_EQ(p.job(id).version, working.version);
    p.b.clock.advance(c.destroyed_ms - 800);
    must(p.core->destroyed(p.node(), p.claim(w)));
    p.pump();
    EXPECT_EQ(p.job(id).version, working.version);
    EXPECT_EQ(p.job(id).state, "Running");
    EXPECT_EQ(p.core->receipt(p.consumer(), id).error().actual, "Running");
    to_the_next_slot(250);
    p.pump();
    told_in_one(id, p.b.clock.now().ms - 250);
  }
}
// Beside a decision on another slot it would tell near which end of its slot the run ended.
TEST_F(SlotSuite, AClaimOfAnotherSlotIsNotTaken) {
  for (const std::int64_t clocks_differ_ms : {-2'000, 2'000}) {
    const auto [id, w] = begin();
    must(p.core->output(p.node(), p.upload(w, p.work(w))));
    must(p.core->phase(p.node(), p.phase(w, EnvironmentPhase::kSealed)));
    to_the_next_slot(clocks_differ_ms < 0 ? 500 : -500);
    p.b.clock.advance(clocks_differ_ms);
    const auto other = p.claim(w);
    p.b.clock.advance(-clocks_differ_ms);
    const Status refused = p.core->destroyed(p.node(), other);
    EXPECT_EQ(refused.reason(), Reason::kUnavailable);
    EXPECT_EQ(exit_class(refused.reason()), ExitClass::kInfrastructure);  // so the node tries again
    EXPECT_EQ(refused.error().actual, format_time(other.body.time));
    EXPECT_FALSE(must(p.core->job(operator_, id)).environments.at(0).destroyed_claim);
    must(p.core->destroyed(p.node(), p.claim(w)));
    to_the_next_slot(250);
    p.pump();
    const Receipt receipt = must(p.core->receipt(p.consumer(), id));
    EXPECT_EQ(receipt.destroyed->body.time, receipt.release.body.time);
  }
}
// The broker's clock is ahead: it acknowledged the seal for the slot that follows.
TEST_F(SlotSuite, AClaimOfASlotBeforeTheSealsIsNotTaken) {
  const auto [id, w] = begin();
  to_the_next_slot(-500);
  p.b.clock.advance(4'000);
  const auto done = p.work(w);
  p.b.clock.advance(-4'000);
  must(p.core->output(p.node(), p.upload(w, done)));
  must(p.core->phase(p.node(), p.phase(w, EnvironmentPhase::kSealed)));
  const auto early = p.claim(w);
  const Status refused = p.core->destroyed(p.node(), early);
  EXPECT_EQ(refused.reason(), Reason::kUnavailable);
  EXPECT_EQ(refused.error().expected, format_time(early.body.time + 900));
  p.b.clock.advance(1'000);
  must(p.core->destroyed(p.node(), p.claim(w)));
  to_the_next_slot(250);
  p.pump();
  const Receipt receipt = must(p.core->receipt(p.consumer(), id));
  EXPECT_EQ(receipt.destroyed->body.time, receipt.release.body.time);
  EXPECT_EQ(receipt.seal_ack.body.time, receipt.release.body.time);
}
// Whoever waits for the decision with a clock of its own would read there when the run had ended.
TEST_F(SlotSuite, ARunThatEndsRightBeforeTheEndOfItsSlotIsToldThen) {
  for (const std::int64_t before_ms : {500, 90, 60, 30, 1}) {
    const auto [id, w] = begin();
    to_the_next_slot(-before_ms);
    must(p.core->output(p.node(), p.upload(w, p.work(w))));
    must(p.core->phase(p.node(), p.phase(w, EnvironmentPhase::kSealed)));
    must(p.core->destroyed(p.node(), p.claim(w)));
    p.pump();
    EXPECT_EQ(p.job(id).state, "Running");
    p.b.clock.advance(before_ms);
    p.pump();
    EXPECT_EQ(p.job(id).state, "Completed") << before_ms;
  }
}
// The claim of an attempt that ended without a seal comes by itself, after the end itself.
TEST_F(SlotSuite, AClaimWithoutASealIsNotTold) {
  for (const bool across : {false, true}) {
    const auto [id, w] = begin();
    to_the_next_slot(-5);
    must(p.core->phase(p.node(), p.phase(w, EnvironmentPhase::kDestroyed, "job-failed")));
    p.b.clock.advance(across ? 6 : 1);
    must(p.core->destroyed(p.node(), p.claim(w)));
    to_the_next_slot();
    const api::JobView at_once = p.job(id);
    EXPECT_EQ(at_once.state, "Failed");
    to_the_next_slot();
    EXPECT_EQ(p.job(id).version, at_once.version);
    EXPECT_FALSE(p.job(id).environments.at(0).destroyed_claim);
    EXPECT_TRUE(must(p.core->job(operator_, id)).environments.at(0).destroyed_claim);
  }
}
// What is paid for (policy::slot_bits) is what a node may take.
TEST(Slots, AreReckonedWithTheTimeOfDestruction) {
  EXPECT_EQ(CoreConfig{}.destroy_seconds, policy::kDestroySeconds);
}
// The claim of a node that was silent for so long that its attempt counts as lost.
TEST_F(SlotSuite, ALateClaimIsToldOnTheSlot) {
  const auto [id, w] = begin();
  must(p.core->output(p.node(), p.upload(w, p.work(w))));
  p.b.clock.advance(31'000);
  must(p.core->tick());
  to_the_next_slot(250);
  p.pump();
  EXPECT_EQ(p.job(id).state, "Completed");
  p.b.clock.advance(5'000);
  must(p.core->destroyed(p.node(), p.claim(w)));
  EXPECT_TRUE(must(p.core->job(operator_, id)).environments.at(0).destroyed_claim);
  EXPECT_FALSE(p.job(id).environments.at(0).destroyed_claim);
  EXPECT_FALSE(must(p.core->receipt(p.consumer(), id)).destroyed);
  to_the_next_slot();
  EXPECT_TRUE(p.job(id).environments.at(0).destroyed_claim);
  EXPECT_TRUE(must(p.core->receipt(p.consumer(), id)).destroyed);
}
TEST(Sight, WhatANodeDoesAfterTheDecisionIsToldOnTheSlot) {
  const auto row = [](const char* machine, const char* to, std::int64_t seconds) {
    return machines::TransitionRow{machine, 1, seconds * 1000, "", "", to, "", "", {}, {}};
  };
  const auto lost = row("env/a/1", "Lost", 1803);
  const auto completed = row("job/a", "Completed", 1803);
  const std::vector<machines::TransitionRow> rows{row("env/a/1", "Working", 1000),
                                                  row("out/a", "Sealed", 1100),
                                                  row("out/a", "Released", 1801), completed, lost};
  const Sight then(900, 1'804'000, rows);
  EXPECT_TRUE(then.shows(completed));
  EXPECT_EQ(then.shown(completed).time_ms, 1'800'000);
  EXPECT_FALSE(then.shows(lost));
  EXPECT_TRUE(Sight(900, 2'700'000, rows).shows(lost));
}
// Two jobs of one consumer, one place on the node: when the second begins would tell when the first
// container ended.
TEST_F(SlotSuite, TheRoomOfARunIsFreeOnTheSlot) {
  to_the_next_slot();
  run(100);
  const Hash32 second = p.submit();
  p.pump();
  EXPECT_FALSE(p.take());
  const std::int64_t slot = p.b.clock.now().ms / 900'000 * 900'000 + 900'000;
  EXPECT_EQ(must(p.core->room_at_ms(p.node())), slot);
  p.b.clock.advance(slot - p.b.clock.now().ms - 1);
  must(p.core->tick());
  EXPECT_FALSE(p.take());
  EXPECT_EQ(p.job(second).state, "Authorized");
  p.b.clock.advance(1);
  EXPECT_EQ(must(p.core->room_at_ms(p.node())), std::nullopt);
  const auto w = p.take();
  ASSERT_TRUE(w);
  EXPECT_EQ(w->credential.body.job_id, second);
  EXPECT_EQ(p.job(second).updated_ms, slot) << "placed when the slot ended, and told at once";
}
TEST_F(SlotSuite, AFurtherAttemptTakesTheRoomOfTheOneBeforeAndIsNotTold) {
  to_the_next_slot();
  const Hash32 id = p.submit();
  p.pump();
  const auto first = p.take();
  for (const auto phase : {EnvironmentPhase::kLoaded, EnvironmentPhase::kWorking}) {
    must(p.core->phase(p.node(), p.phase(*first, phase)));
  }
  const api::JobView before = p.job(id);
  p.b.clock.advance(50'123);
  must(p.core->phase(p.node(), p.phase(*first, EnvironmentPhase::kLost, "lost")));
  const auto second = p.take();
  ASSERT_TRUE(second);
  EXPECT_EQ(second->credential.body.attempt, 2);
  for (const auto phase : {EnvironmentPhase::kLoaded, EnvironmentPhase::kWorking}) {
    must(p.core->phase(p.node(), p.phase(*second, phase)));
  }
  EXPECT_EQ(p.job(id).version, before.version);
  EXPECT_EQ(p.job(id).environments.size(), 1U);
  to_the_next_slot();
  EXPECT_EQ(p.job(id).environments.size(), 2U);
}
TEST_F(SlotSuite, TheQuotaDoesNotTellThatAJobHasFailed) {
  p.config.quotas.live_jobs = 1;
  p.start();
  p.populate();
  to_the_next_slot();
  const Hash32 id = p.submit();
  p.pump();
  const auto w = p.take();
  must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kWorking)));
  p.b.clock.advance(50'123);
  must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kDestroyed, "job-failed")));
  EXPECT_EQ(must(p.core->job(operator_, id)).state, "Failed");
  EXPECT_EQ(p.job(id).state, "Running");
  const auto another = [&] {
    return p.core->submit(p.consumer(), p.b.submission(), std::nullopt).reason();
  };
  EXPECT_EQ(another(), Reason::kQuotaExceeded);
  to_the_next_slot();
  EXPECT_EQ(p.job(id).state, "Failed");
  EXPECT_EQ(another(), Reason::kUninitialised);
}
TEST_F(SlotSuite, TwoRunsOfOneSlotLookAlike) {
  to_the_next_slot();
  const Hash32 quick = run(5);
  const api::JobView first = p.job(quick);
  to_the_next_slot();
  const Hash32 slow = run(250);
  const api::JobView second = p.job(slow);
  EXPECT_EQ(first.state, second.state);
  EXPECT_EQ(first.version, second.version);
}
TEST_F(SlotSuite, ACancellationThatComesTooLateDoesNotTellHowTheJobEnded) {
  const auto [id, w] = begin();
  must(p.core->phase(p.node(), p.phase(w, EnvironmentPhase::kDestroyed, "job-failed")));
  EXPECT_EQ(must(p.core->job(operator_, id)).state, "Failed");
  const auto refused = p.core->cancel(p.consumer(), wish_for(id));
  EXPECT_EQ(refused.reason(), Reason::kWrongState);
  EXPECT_EQ(refused.error().actual, "one that has ended");
}
TEST_F(SlotSuite, CancellingIsNotRefusedWhereTheEndIsNotToldYet) {
  to_the_next_slot();
  const Hash32 id = run(100);
  const CancelRequest request = wish_for(id);
  EXPECT_EQ(must(p.core->cancel(p.consumer(), request)).state, "Cancelled");
  p.pump();
  to_the_next_slot();
  p.pump();
  EXPECT_EQ(p.job(id).state, "Cancelled");
  EXPECT_EQ(p.core->result(p.consumer(), id).reason(), Reason::kJobCancelled);
}

// The queue, and whatever else a quota gives to each of them, is bounded by their number.
TEST_P(CoreSuite, IdentitiesAreLimited) {
  const auto one_more = [&](const testing::Person& who) {
    return testing::enrol(*p.core, who.chain, who.key.public_key(), "who", Role::kConsumer);
  };
  const testing::Person first = testing::make_person(p.b.random);
  p.config.quotas.identities = 4;
  p.start();
  p.populate();  // owner and consumer, counted once
  must(one_more(first));
  must(one_more(testing::make_person(p.b.random)));
  const auto refused = one_more(testing::make_person(p.b.random));
  EXPECT_EQ(refused.reason(), Reason::kQuotaExceeded);
  EXPECT_EQ(refused.error().what, "identities of this installation");
  must(testing::enrol(*p.core, first.chain, first.key.public_key(), "more", Role::kOwner));
}

// The decision is charged for: its consumer gets what was paid for, whenever the wish to cancel
// comes.
TEST_F(SlotSuite, ADecidedOutputIsNotCancelled) {
  using machines::EffectKind;
  to_the_next_slot();
  const Hash32 id = run(100);
  to_the_next_slot();
  const auto refused = [&] {
    const auto r = p.core->cancel(p.consumer(), wish_for(id));
    EXPECT_EQ(r.reason(), Reason::kWrongState);
    EXPECT_EQ(r.error().actual, "one whose output was decided");
    EXPECT_EQ(p.job(id).output->state, "Released") << "what the refusal says is told already";
  };
  ask_one(EffectKind::kAskJudge);
  refused();
  ask_one(EffectKind::kAskReceipt, refused);
  p.pump();
  EXPECT_EQ(p.job(id).state, "Completed");
  must(p.core->result(p.consumer(), id));
}
TEST_F(SlotSuite, WhatIsCancelledWhileTheBrokerDecidesHasItsReceipt) {
  for (const auto& verdict :
       {testing::clean_verdict(), testing::rejection(GateCause::kMalformed)}) {
    to_the_next_slot();
    const Hash32 id = run(100, verdict);
    to_the_next_slot();
    ask_one(machines::EffectKind::kAskJudge, [&] {
      EXPECT_EQ(must(p.core->cancel(p.consumer(), wish_for(id))).state, "Cancelled");
    });
    p.pump();
    EXPECT_EQ(p.job(id).state, "Cancelled");
    const bool released = verdict.recommendation == Recommendation::kRelease;
    EXPECT_EQ(p.job(id).output->state, released ? "Released" : "Rejected");
    const Receipt r = proved(id);
    EXPECT_EQ(r.release.body.decision,
              released ? ReleaseDecision::kRelease : ReleaseDecision::kReject);
    EXPECT_EQ(p.core->result(p.consumer(), id).ok(), released);
    EXPECT_FALSE(p.b.core->state().job(id)->cancelled);
  }
}
// What a cancellation costs has a receipt, too, once the slot of the run's end is over.
TEST_F(SlotSuite, ASealedOutputThatWasCancelledHasAReceiptOnTheSlot) {
  to_the_next_slot();
  const Hash32 id = run(100);
  must(p.core->cancel(p.consumer(), wish_for(id)));
  p.pump();
  EXPECT_EQ(p.core->receipt(p.consumer(), id).reason(), Reason::kWrongState);
  to_the_next_slot();
  p.pump();
  const Receipt r = proved(id);
  EXPECT_EQ(r.release.body.reasons, std::vector<std::string>{"cancelled"});
  EXPECT_EQ(r.seal_ack.body.time % 900, 0);
  EXPECT_EQ(p.job(id).state, "Cancelled");
}

// With the key that was rotated away a chain is made that is longer than the one that stands.
TEST_P(CoreSuite, AnEnrolmentForksNoChain) {
  const testing::Person boss = testing::make_person(p.b.random);
  p.enrol(boss, "boss", Role::kOperator);
  const testing::Person& who = p.b.consumer;
  const auto person = [&] { return testing::make_person(p.b.random); };
  const auto rotation = [&](std::int64_t serial, const testing::Person& to,
                            const crypto::SigningKey& by) {
    return must(sign(p.b.set.id(), Rotation{who.id(), serial, to.key.public_key().text()}, by));
  };
  const testing::Person second = person(), third = person(), thief = person(), heir = person();
  const Signed<Rotation> stands = rotation(1, second, who.key);
  must(p.core->accept_rotation(p.consumer(), {who.chain.identity, stands}));
  const auto enrol = [&](std::vector<Signed<Rotation>> rotations, Role role) {
    const IdentityChain chain{who.chain.identity, std::move(rotations)};
    return p.core->enrol(boss.id(), boss.key.public_key(), {chain, "c", {role}, std::nullopt});
  };
  const std::vector<Signed<Rotation>> fork{rotation(1, thief, who.key),
                                           rotation(2, heir, thief.key)};
  for (const Role role : {Role::kAuditor, Role::kConsumer}) {
    EXPECT_EQ(enrol(fork, role).reason(), Reason::kChainBroken);
  }
  EXPECT_EQ(enrol({fork[0]}, Role::kAuditor).reason(), Reason::kChainBroken);
  must(p.core->check_key(who.id(), second.key.public_key()));
  EXPECT_FALSE(must(p.core->caller(who.id())).has(Role::kAuditor));
  must(enrol({}, Role::kAuditor));
  must(p.core->check_key(who.id(), second.key.public_key()));
  must(enrol({stands, rotation(2, third, second.key)}, Role::kReviewer));
  must(p.core->check_key(who.id(), third.key.public_key()));
}

// A reason is a node's to choose: none makes the plane answer as if it were at fault, or as if its
// caller were.
TEST_P(CoreSuite, NoReasonOfAFailedJobIsAFaultOfTheService) {
  const Reason all[] = {
#define X(name, code, cls) Reason::name,
      GBX_REASONS(X)
#undef X
  };
  std::size_t wrapped = 0;
  for (const Reason reason : all) {
    const std::string code(reason_code(reason));
    SCOPED_TRACE(code);
    SignedSubmission s = p.b.submission();
    s.submission.body.spec.spec.attempts = 1;
    testing::resign(s, p.b.set.id(), p.b.consumer);
    const Hash32 id = p.submit(s);
    p.pump();
    const auto w = p.take();
    ASSERT_TRUE(w);
    must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kDestroyed, code)));
    EXPECT_EQ(p.job(id).outcome.reason, code);
    const Error e = p.core->result(p.consumer(), id).error();
    const ExitClass cls = exit_class(reason);
    if (cls == ExitClass::kInfrastructure || cls == ExitClass::kInternal ||
        reason == Reason::kRateLimited || reason == Reason::kQuotaExceeded ||
        reason == Reason::kUnauthenticated || reason == Reason::kReplayed) {
      EXPECT_EQ(e.reason, Reason::kJobFailed);
      EXPECT_EQ(e.actual, code);
      EXPECT_EQ(e.what, p.job(id).outcome.what);
      ++wrapped;
    } else {
      EXPECT_EQ(e.reason, reason);
    }
  }
  EXPECT_GE(wrapped, 12U);
}

// What is kept in memory of an attempt goes with it, however it ends.
TEST_P(CoreSuite, NothingIsKeptInMemoryOfAttemptsThatAreOver) {
  const auto watched = [&] { return must(p.core->numbers()).attempts_watched; };
  for (const bool claim_first : {false, true}) {
    const Hash32 id = p.submit();
    p.pump();
    const auto w = p.take();
    ASSERT_TRUE(w);
    EXPECT_EQ(watched(), 1);
    must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kWorking)));
    must(p.core->heartbeat(p.node(), {"n", {}}));
    EXPECT_EQ(watched(), 2);
    const auto done = p.work(*w);
    must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kSealed)));
    if (claim_first) must(p.core->destroyed(p.node(), p.claim(*w)));
    must(p.core->output(p.node(), p.upload(*w, done)));
    if (!claim_first) must(p.core->destroyed(p.node(), p.claim(*w)));
    EXPECT_EQ(watched(), 0);
    p.pump();
    EXPECT_EQ(p.job(id).state, "Completed");
  }
}

TEST_P(CoreSuite, Enrolment) {
  const testing::Person boss = testing::make_person(p.b.random);
  const testing::Person who = testing::make_person(p.b.random);
  p.enrol(boss, "boss", Role::kOperator);
  api::EnrolRequest r{who.chain, "who", {Role::kConsumer}, std::nullopt};
  const auto self = [&] { return p.core->enrol(who.id(), who.key.public_key(), r).reason(); };
  EXPECT_EQ(p.core->check_key(who.id(), who.key.public_key()).reason(), Reason::kUnauthenticated);
  EXPECT_EQ(self(), Reason::kUnauthenticated);
  const plane::Caller op{boss.id(), {Role::kOperator}};
  EXPECT_EQ(p.core->invite(p.consumer(), {{Role::kConsumer}, 1, testing::kNow + 100}, "t").reason(),
            Reason::kWrongRole);
  must(p.core->invite(op, {{Role::kConsumer}, 1, testing::kNow + 100}, "token"));
  r.invite = "other";
  EXPECT_EQ(self(), Reason::kUnauthenticated);
  r.invite = "token";
  r.roles = {Role::kConsumer, Role::kOperator};
  EXPECT_EQ(self(), Reason::kWrongRole);
  const auto refused = p.core->enrol(who.id(), who.key.public_key(), r);
  EXPECT_EQ(refused.error().expected, "consumer");
  EXPECT_EQ(refused.error().actual, "operator");
  r.roles = {Role::kConsumer};
  EXPECT_EQ(p.core->enrol(boss.id(), who.key.public_key(), r).reason(), Reason::kUnauthenticated);
  must(p.core->enrol(who.id(), who.key.public_key(), r));
  must(p.core->enrol(who.id(), who.key.public_key(), r));
  must(p.core->check_key(who.id(), who.key.public_key()));
  EXPECT_EQ(p.core->check_key(who.id(), boss.key.public_key()).reason(), Reason::kUnauthenticated);
  // Another role, with an invite to it, comes on top.
  must(p.core->invite(op, {{Role::kOwner, Role::kReviewer}, 1, testing::kNow + 100}, "more"));
  r.roles = {Role::kOwner};
  EXPECT_EQ(self(), Reason::kQuotaExceeded) << "the first invite was used up";
  r.invite = "more";
  const api::IdentityView both = must(p.core->enrol(who.id(), who.key.public_key(), r));
  EXPECT_EQ(std::set<Role>(both.roles.begin(), both.roles.end()),
            (std::set<Role>{Role::kConsumer, Role::kOwner}));
  r.roles = {Role::kReviewer};
  EXPECT_EQ(self(), Reason::kQuotaExceeded);
  r.roles = {Role::kConsumer};
  r.invite = "token";
  const testing::Person late = testing::make_person(p.b.random);
  r.chain = late.chain;
  EXPECT_EQ(p.core->enrol(late.id(), late.key.public_key(), r).reason(), Reason::kQuotaExceeded);
  must(p.core->invite(op, {{Role::kConsumer}, 5, testing::kNow + 100}, "short"));
  p.b.clock.advance(101'000);
  r.invite = "short";
  EXPECT_EQ(p.core->enrol(late.id(), late.key.public_key(), r).reason(), Reason::kExpired);
  r.invite.reset();
  r.roles = {Role::kAuditor};
  must(p.core->enrol(boss.id(), boss.key.public_key(), r));
  EXPECT_TRUE(must(p.core->caller(late.id())).has(Role::kAuditor));
}

TEST_P(CoreSuite, NodesAreKnownByTheirKeyOnly) {
  const testing::Person stranger = testing::make_person(p.b.random);
  EXPECT_EQ(p.core->check_node(stranger.key.public_key()).reason(), Reason::kUnauthenticated);
  EXPECT_EQ(p.core->poll(stranger.key.public_key()).reason(), Reason::kUnauthenticated);
  NodeInfo lie = p.info();
  lie.key = stranger.key.public_key().text();
  EXPECT_EQ(p.core->register_node(p.node(), lie).reason(), Reason::kUnauthenticated);
  EXPECT_EQ(p.core->enrol_node("n", stranger.key.public_key().text()).reason(),
            Reason::kAlreadyExists);
  must(p.core->enrol_node("n", p.node().text()));
  must(p.core->enrol_node("second", stranger.key.public_key().text()));
  lie.name = "second";
  must(p.core->register_node(stranger.key.public_key(), lie));
  const Hash32 id = p.submit();
  p.pump();
  EXPECT_FALSE(must(p.core->poll(stranger.key.public_key()))) << "the policy names another node";
  p.pump();
  EXPECT_EQ(p.job(id).state, "Authorized");
  const auto w = p.take();
  ASSERT_TRUE(w);
  EXPECT_EQ(
      p.core->phase(stranger.key.public_key(), p.phase(*w, EnvironmentPhase::kWorking)).reason(),
      Reason::kNotFound);
}

// One whole job, with one trouble: the process stopped at one place and started again, or a commit
// that the disk refuses while the process runs on. Everybody repeats what had no answer.
std::string through(std::int64_t stop_at, std::int64_t full_at, std::int64_t* commits) {
  Plane p(true, 9);
  p.populate();
  const SignedSubmission submission = p.b.submission();
  const Hash32 id = submission.submission.body.job_id();
  std::optional<LaunchBundle> w;
  std::optional<Plane::Done> sealed;
  p.store->commits = 0;
  p.store->stop_at = stop_at;
  p.store->full_at = full_at;
  for (int round = 0; round < 8; ++round) {
    try {
      (void)p.core->register_node(p.node(), p.info());
      p.submit(submission);
      p.pump();
      p.b.clock.advance(6'000);  // an assignment whose answer was lost is given out again
      if (!w) w = p.take();
      if (!w) continue;
      if (!sealed) sealed = p.work(*w);
      need(p.core->output(p.node(), p.upload(*w, *sealed)));
      need(p.core->destroyed(p.node(), p.claim(*w)));
      p.pump();
      need(p.core->tick());
    } catch (const Stop&) {
      p.start();
      continue;
    } catch (const std::runtime_error&) {  // need(): refused, and the process runs on
      if (full_at == 0) throw;
      continue;
    }
    if (p.job(id).ended) break;
  }
  if (commits != nullptr) *commits = p.store->commits;
  const auto events = must(p.core->events(p.consumer(), id));
  std::size_t ends = 0;
  for (const auto& e : events.events) ends += e.to == "Completed" ? 1U : 0U;
  if (p.job(id).state != "Completed" || ends != 1) return p.job(id).state;
  if (!must(p.core->due(10)).empty()) return "outbox";
  if (p.job(id).environments.size() != 1) return "attempts";
  return must(p.core->receipt(p.consumer(), id)).destroyed ? "" : "no claim";
}

TEST(CoreOnDisk, AStopAtEveryCommitChangesNothing) {
  std::int64_t commits = 0;
  ASSERT_EQ(through(0, 0, &commits), "");
  ASSERT_GT(commits, 8);
  for (std::int64_t at = 2; at <= 2 * commits + 1; ++at) {
    EXPECT_EQ(through(at, 0, nullptr), "") << "stopped at " << at;
  }
}

// A clock whose wall time a test sets as it likes.
class WallClock final : public Clock {
 public:
  explicit WallClock(const Clock& inner) : inner_(inner) {}
  TimeMs now() const override { return {inner_.now().ms + ahead_ms}; }
  std::int64_t steady_ms() const override { return inner_.steady_ms(); }
  std::int64_t ahead_ms = 0;

 private:
  const Clock& inner_;
};

// The plane's clock is set at one moment of a job's life and stays wrong, over a stop and start of
// the plane: what waits goes on waiting as long as before, what is asked again is asked as soon.
TEST(CoreOnDisk, AClockThatJumpsLosesNoJobAndKeepsNothingWaiting) {
  constexpr std::int64_t kJumpMs = 3 * 86'400'000;
  for (const std::int64_t jump : {kJumpMs, -kJumpMs}) {
    for (const bool stopped : {false, true}) {
      Plane p(true, 12);
      WallClock wall(p.b.clock);
      p.clock = &wall;
      p.start();
      p.populate();
      const auto set_clock = [&] {
        must(p.core->tick());
        wall.ahead_ms = jump;
        if (stopped) p.start();
        must(p.core->heartbeat(p.node(), {"n", {}}));
        must(p.core->tick());
      };
      const Hash32 id = p.submit();
      const auto due = need(p.core->due(32));
      ASSERT_EQ(due.size(), 1U);
      must(p.core->postpone(due[0]));
      set_clock();
      EXPECT_EQ(p.job(id).state, "Submitted") << jump;
      p.b.clock.advance(6'000);
      p.pump();
      EXPECT_EQ(p.job(id).state, "Authorized") << jump;
      const auto w = p.take();
      ASSERT_TRUE(w) << jump;
      must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kWorking)));
      wall.ahead_ms = 0;
      set_clock();
      must(p.core->heartbeat(p.node(), {"n", {{id, 1}}}));
      EXPECT_EQ(p.job(id).environments.at(0).state, "Working") << jump;
      const auto sealed = p.work(*w);
      must(p.core->output(p.node(), p.upload(*w, sealed)));
      p.pump();
      EXPECT_EQ(p.job(id).state, "Completed") << jump;
      EXPECT_TRUE(must(p.core->due(10)).empty()) << jump;
    }
  }
}

// A plane that died before it looked at its deadlines once, and whose clock is set back meanwhile.
TEST(CoreOnDisk, NothingWaitsOnTheDiskWithoutTheTimeItWaitsBy) {
  Plane p(true, 14);
  WallClock wall(p.b.clock);
  p.clock = &wall;
  p.start();
  p.populate();
  const Hash32 id = p.submit();
  wall.ahead_ms = -3 * 86'400'000;
  p.start();
  p.pump();
  EXPECT_EQ(p.job(id).state, "Authorized");
}

// Patience is what a plane has waited, however long it was away and whatever its clock shows; and
// it ends.
TEST(CoreOnDisk, PatienceIsCountedWhileThePlaneRuns) {
  Plane p(true, 13);
  p.populate();
  const Hash32 id = p.submit();
  must(p.core->tick());
  const std::int64_t before = p.core->patience_ms();
  p.b.clock.advance(10 * 86'400'000);
  p.start();
  EXPECT_EQ(p.core->patience_ms(), before + 5'000) << "what may have gone unwritten";
  must(p.core->tick());
  EXPECT_EQ(p.job(id).state, "Submitted");
  p.b.clock.advance(86'400'000);
  must(p.core->tick());
  EXPECT_EQ(p.job(id).state, "Expired");
}

TEST(CoreOnDisk, WhatEndedWhileThePlaneWasAwayMayStillBeToldOf) {
  for (const bool told : {true, false}) {
    Plane p(true, 10);
    p.populate();
    const Hash32 id = p.submit();
    p.pump();
    const auto w = p.take();
    ASSERT_TRUE(w);
    must(p.core->phase(p.node(), p.phase(*w, EnvironmentPhase::kWorking)));
    const auto sealed = p.work(*w);
    // The run's time and its grace together end while the plane is away: for it the attempt is
    // overdue when it is back.
    p.b.clock.advance((w->plan.body.controls.run_seconds + p.config.run_grace_seconds - 2) * 1000);
    must(p.core->heartbeat(p.node(), {"n", {{id, 1}}}));
    must(p.core->tick());
    p.b.clock.advance(5'000);
    p.start();
    must(p.core->tick());
    must(p.core->heartbeat(p.node(), {"n", {{id, 1}}}));
    EXPECT_EQ(p.job(id).state, "Running");
    if (told) {
      must(p.core->output(p.node(), p.upload(*w, sealed)));
      p.pump();
      EXPECT_EQ(p.job(id).state, "Completed");
    } else {
      p.b.clock.advance(p.config.lease_seconds * 1000);
      must(p.core->heartbeat(p.node(), {"n", {{id, 1}}}));
      must(p.core->tick());
      EXPECT_EQ(p.job(id).environments.at(0).reason, "timed-out");
    }
  }
}

TEST(CoreOnDisk, ACommitThatTheDiskRefusesIsAsIfNobodyHadAsked) {
  std::int64_t commits = 0;
  ASSERT_EQ(through(0, 0, &commits), "");
  for (std::int64_t at = 1; at <= commits; ++at) {
    EXPECT_EQ(through(0, at, nullptr), "") << "refused at " << at;
  }
}

}  // namespace
}  // namespace gbx::plane
