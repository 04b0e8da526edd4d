// Somebody writes the broker's disk while it runs, after the start has hashed everything: nothing
// that the broker answers or signs rests on what was changed.
#include <gtest/gtest.h>

#include <bit>

#include "broker/testing.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::BrokerWorld;
using gbx::testing::ChangedStore;
using gbx::testing::clean_verdict;
using gbx::testing::kNow;
using gbx::testing::make_publish;
using gbx::testing::must;
using gbx::testing::next_policy;

// ---- what is signed over the log ----

// A log with a released job and one whose output waits for its hold, and questions that the broker
// answers from it. Each is put to a broker of its own that was started over a copy of the log.
class Questions {
 public:
  Questions() {
    w_.data.policy.clauses.fresh_for_seconds = 3600;
    const Publish publish = make_publish(w_.set, w_.data, w_.random);
    must(w_.start());
    must(w_.call<Signed<PublishAck>>(method::kPublish, publish));
    must(w_.publish(w_.image));
    const OwnerBeacon here{w_.owner.id(), w_.data.version_id(), publish.policy.hash(), kNow};
    const BeaconRequest beacon{w_.owner.chain, must(sign(w_.set.id(), here, w_.owner.key))};
    must(w_.call<Signed<BeaconAck>>(method::kBeacon, beacon));
    const auto released = w_.run_until_sealed(w_.submission());
    must(w_.judge(released.job_id()));
    GateVerdict hold = clean_verdict();
    hold.recommendation = Recommendation::kHold;
    const auto held = w_.run_until_sealed(w_.submission(), hold);
    all_ = {{"acknowledgement of a policy", method::kPublish, to_json(publish)},
            {"acknowledgement of a beacon", method::kBeacon, to_json(beacon)},
            {"release", method::kJudge, to_json(JobRequest{released.job_id()})},
            {"receipt", method::kReceipt, to_json(JobRequest{released.job_id()})},
            {"hold", method::kJudge, to_json(JobRequest{held.job_id()})},
            {"plan again", method::kAuthorise, to_json(released.submission)}};
  }
  struct Question {
    const char* what;
    std::string_view method;
    Json body;
  };
  const std::vector<Question>& all() const { return all_; }
  const MemoryStore& log() const { return log_; }
  // The answer when `change` befell the disk after the start.
  static Result<Json> ask(const MemoryStore& log, const Question& q,
                          const std::function<void(ChangedStore&)>& change) {
    ChangedStore store{log};
    BrokerWorld w(97, &store);
    w.awake = {};
    must(w.start());
    change(store);
    const std::uint64_t size = must(store.size());
    auto answer = w.core->handle(q.method, q.body, BrokerWorld::plane(), w.clock.now());
    EXPECT_EQ(w.core->healthy(), answer.ok());
    if (!answer.ok()) {
      EXPECT_EQ(w.core->ended_by().reason(), Reason::kDatabase);
      EXPECT_EQ(must(store.size()), size);
    }
    return answer;
  }

 private:
  MemoryStore log_;
  BrokerWorld w_{97, &log_};
  std::vector<Question> all_;
};

// Whatever row is changed: the answer is what it was, or there is none any more.
TEST(BrokerTampered, NothingIsSignedOverARowThatWasChanged) {
  const Questions questions;
  const MemoryStore& log = questions.log();
  std::vector<std::function<void(ChangedStore&)>> changes;
  const std::uint64_t size = must(log.size());
  for (std::uint64_t i = 0; i < size; ++i) {
    StoredEntry other = must(log.entry(i));
    other.salt[0] ^= 1;
    changes.push_back([i, other](ChangedStore& s) { s.entries[i] = other; });
    other = must(log.entry(i));
    const std::size_t at = other.entry.rfind("\"time\":");
    ASSERT_NE(at, std::string::npos);
    char& digit = other.entry[at + 7];
    digit = digit == '1' ? '2' : '1';
    changes.push_back([i, other](ChangedStore& s) { s.entries[i] = other; });
  }
  for (std::uint32_t level = 0; size >> level != 0; ++level) {
    for (std::uint64_t index = 0; index < size >> level; ++index) {
      changes.push_back([level, index](ChangedStore& s) { s.nodes[{level, index}] = Hash32{1}; });
    }
  }
  for (const auto& q : questions.all()) {
    SCOPED_TRACE(q.what);
    const auto truth = Questions::ask(log, q, [](ChangedStore&) {});
    ASSERT_TRUE(truth.ok()) << truth.error().line();
    int refused = 0;
    for (const auto& change : changes) {
      const auto answer = Questions::ask(log, q, change);
      if (answer.ok()) {
        EXPECT_EQ(canonical(*answer), canonical(*truth));
      } else {
        EXPECT_EQ(answer.reason(), Reason::kUnavailable);
        ++refused;
      }
    }
    EXPECT_EQ(refused > 0, q.method != method::kAuthorise) << "an answer that reads nothing";
  }
}

// ---- the newest head of the log ----

// An old copy that went on until it is as long as the newest, or longer, starts like any other.
// Then the nodes from which the root of the plane's head is made are replaced by the newest log's.
TEST(BrokerTampered, TheNodesOfTheNewestLogDoNotMakeAnOldOneIt) {
  MemoryStore newest;
  BrokerWorld first(80, &newest);
  first.start_and_publish();
  const MemoryStore older = newest;
  next_policy(first.data);
  must(first.publish(first.data));
  must(first.authorise(first.submission()));
  const auto head = first.head();
  const auto size = static_cast<std::uint64_t>(head.body.tree_size);
  for (const std::uint64_t longer : {0, 1, 2, 3, 5}) {
    SCOPED_TRACE(longer);
    ChangedStore store{older};
    BrokerWorld w(80, &store);
    while (must(store.size()) < size + longer) must(w.start());
    must(w.open());
    for (std::uint64_t at = 0; at < size;) {
      const auto level = static_cast<std::uint32_t>(std::bit_width(size - at) - 1);
      const translog::NodeId id{level, at >> level};
      store.nodes[id] = must(newest.node(id));
      at += std::uint64_t{1} << level;
    }
    ASSERT_EQ(must(translog::root_at(store, size)), head.body.tree_root);
    EXPECT_EQ(w.resume(head).reason(), Reason::kLogRolledBack);
    EXPECT_FALSE(w.core->healthy());
    EXPECT_EQ(w.core->ended_by().reason(), Reason::kLogRolledBack);
  }
}

}  // namespace
}  // namespace gbx::broker
