// Whoever brings a request to the broker lies in one member of it: plane, node, agent, and through
// them owner, consumer and reviewer. Every request of three jobs and of what goes with them is sent
// with every single change that lies.h can think of, and as it was made at another installation,
// before it is sent as it should be. No lie changes the log, unless it says the same as the truth:
// then the truth that follows gets the very same answer. The genuine jobs end as they would have
// without any of it.
#include <gtest/gtest.h>

#include <cstdio>
#include <set>

#include "broker/testing.h"
#include "lies.h"

namespace gbx::broker {
namespace {

using namespace records;
using hostile::Lie;
using hostile::lies_about;
using hostile::Pool;
using testing::BrokerWorld;
using testing::must;

// What people and programs send in the course of three jobs: one whose output is released at once,
// one that is held, ruled on and released, one that is cancelled. Before it the owner stands by a
// policy and loosens another; after it people ask what it cost, and keys are rotated. Every request
// passes `remote`.
struct Story {
  explicit Story(std::uint64_t seed) : w(seed, &log) {
    w.data.policy.clauses.fresh_for_seconds = 86'400;
    must(w.start());
  }
  void tell() {
    must(w.publish(w.data));
    must(w.publish(w.image));
    ask(method::kInfo, InfoRequest{w.random.fixed<32>()});
    w.clock.advance(1'000);
    ask(method::kBeacon,
        BeaconRequest{w.owner.chain,
                      must(sign(w.set.id(),
                                OwnerBeacon{w.owner.id(), w.data.version_id(),
                                            hash_of(w.data.policy), w.clock.now().seconds()},
                                w.owner.key))});
    three_jobs();
    ask(method::kLedger, LedgerRequest{w.data.record.asset_id, w.random.fixed<32>(), {}, 0});
    ask(method::kLedger,
        LedgerRequest{w.data.record.asset_id, w.random.fixed<32>(), w.consumer.id(), 1});
    ask(method::kHead, Empty{});
    const auto newer =
        must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, w.random));
    const Rotation rotation{w.consumer.id(), 1, newer.public_key().text()};
    ask(method::kRotate, RotateRequest{w.consumer.chain.identity,
                                       must(sign(w.set.id(), rotation, w.consumer.recovery))});
  }
  template <class Request>
  void ask(std::string_view method, const Request& request) {
    must(w.remote(method, to_json(request), w.plane()));
  }
  void three_jobs() {
    const auto first = w.run_until_sealed(w.submission());
    released = must(w.judge(first.job_id()));
    GateVerdict doubtful = testing::clean_verdict();
    doubtful.recommendation = Recommendation::kHold;
    const auto second = w.run_until_sealed(w.submission(), doubtful);
    held = must(w.judge(second.job_id()));
    const HoldNotice& notice = held.hold_notice->body;
    ask(method::kHeldLedger,
        HeldLedgerRequest{second.job_id(), w.reviewer.id(), w.random.fixed<32>()});
    for (const Hash32& policy : notice.policy_hashes) {
      approved = must(w.rule(w.reviewer, notice, policy, RulingDecision::kApprove));
    }
    const SignedSubmission third = w.submission();
    ask(method::kExplain, third);
    must(w.authorise(third));
    const Cancel wish{third.submission.body.job_id(), w.consumer.id(), w.clock.now().seconds()};
    ask(method::kCancel,
        CancelRequest{w.consumer.chain, must(sign(w.set.id(), wish, w.consumer.key))});
    for (const Hash32& job : {first.job_id(), second.job_id()}) {
      receipts.push_back(must(w.call<Receipt>(method::kReceipt, JobRequest{job})));
    }
  }
  MemoryStore log;
  BrokerWorld w;
  Judgement released, held, approved;
  std::vector<Receipt> receipts;
};

bool fault_of_ours(Reason r) {
  const ExitClass c = exit_class(r);
  return c == ExitClass::kInternal || c == ExitClass::kInfrastructure || c == ExitClass::kOk;
}

// Sends lies before each truth, and holds the broker to what is said above.
class Interceptor {
 public:
  Interceptor(Story& story, const Pool& pool, const std::set<std::string>& genuine,
              const std::vector<std::pair<std::string, Json>>& foreign)
      : story_(story), pool_(pool), genuine_(genuine), foreign_(foreign) {
    story.w.remote = [this](std::string_view method, const Json& body, const ConnectionContext& c) {
      return pass(method, body, c);
    };
  }
  int tried() const { return tried_; }
  const std::map<Reason, int>& refused() const { return refused_; }
  const std::set<std::string>& meant_the_same() const { return meant_the_same_; }

 private:
  Result<Json> handle(std::string_view method, const Json& body, const ConnectionContext& c) {
    return story_.w.core->handle(method, body, c, story_.w.clock.now());
  }
  Result<Json> pass(std::string_view method, const Json& truth, const ConnectionContext& c) {
    std::vector<std::pair<std::string, Json>> said;  // lies that were taken, with their answers
    for (const Lie& lie : lies_about(pool_, truth)) {
      // Another request of the story is no lie: it is sent anyhow, and may come at any time.
      if (!genuine_.contains(lie.text)) send(method, lie, c, said);
    }
    for (const auto& [name, body] : foreign_) {
      send(method, {name, "of another installation", body, canonical(body)}, c, said);
    }
    const auto answer = handle(method, truth, c);
    EXPECT_TRUE(answer.ok()) << method << " is refused after lies: " << answer.error().line();
    for (const auto& [what, reply] : said) {
      const bool same = answer.ok() && canonical(reply) == canonical(*answer);
      EXPECT_TRUE(same) << method << ": " << what << " was taken and meant something else";
      meant_the_same_.insert(std::string(method) + ": " + what);
    }
    return answer;
  }
  void send(std::string_view method, const Lie& lie, const ConnectionContext& c,
            std::vector<std::pair<std::string, Json>>& said) {
    ++tried_;
    const std::uint64_t before = must(story_.log.size());
    const auto body = parse_json(lie.text);
    if (!body.ok()) return (void)++refused_[body.reason()];
    const auto reply = handle(method, *body, c);
    if (reply.ok()) {
      if (must(story_.log.size()) != before) said.emplace_back(lie.what(), *reply);
      return;
    }
    ++refused_[reply.reason()];
    EXPECT_EQ(must(story_.log.size()), before) << method << ": " << lie.what();
    EXPECT_FALSE(fault_of_ours(reply.reason()))
        << method << ": " << lie.what() << ": " << reply.error().line();
    EXPECT_TRUE(story_.w.core->healthy()) << method << ": " << lie.what();
  }

  Story& story_;
  const Pool& pool_;
  const std::set<std::string>& genuine_;
  const std::vector<std::pair<std::string, Json>>& foreign_;
  int tried_ = 0;
  std::map<Reason, int> refused_;
  std::set<std::string> meant_the_same_;
};

TEST(BrokerLies, NoLieOfAnybodyChangesTheLogOrWhatFollows) {
  // Elsewhere, with other keys: what can be replayed, and words to put into other mouths.
  Story other(2);
  std::vector<std::pair<std::string, Json>> foreign;
  Pool pool;
  other.w.remote = [&](std::string_view method, const Json& body, const ConnectionContext& c) {
    foreign.emplace_back(method, body);
    pool.collect(body);
    return other.w.core->handle(method, body, c, other.w.clock.now());
  };
  other.tell();
  Story truth(1);
  std::set<std::string> genuine;
  truth.w.remote = [&](std::string_view method, const Json& body, const ConnectionContext& c) {
    pool.collect(body);
    genuine.insert(canonical(body));
    return truth.w.core->handle(method, body, c, truth.w.clock.now());
  };
  truth.tell();
  Story lied_to(1);
  const Interceptor interceptor(lied_to, pool, genuine, foreign);
  lied_to.tell();
  EXPECT_EQ(lied_to.released.state, JudgementState::kReleased);
  EXPECT_EQ(lied_to.held.state, JudgementState::kHeld);
  EXPECT_EQ(lied_to.approved.state, JudgementState::kReleased);
  EXPECT_EQ(must(lied_to.log.size()), must(truth.log.size()));
  std::printf("%d lies\n", interceptor.tried());
  for (const auto& [reason, n] : interceptor.refused()) {
    std::printf("%6d %s\n", n, std::string(reason_code(reason)).c_str());
  }
  for (const std::string& what : interceptor.meant_the_same()) {
    std::printf("the same: %s\n", what.c_str());
  }
  EXPECT_GT(interceptor.tried(), 9'000);  // docs/hostile.md says how many
}

// The plane shows the broker the head of its log, and lies in that: in its newest head, an earlier
// one, or none.
TEST(BrokerLies, NoLieInAResumeIsTaken) {
  Pool pool;
  MemoryStore log;
  BrokerWorld w(3, &log);
  must(w.start());
  std::vector<Signed<LogHead>> heads{w.head()};
  must(w.publish(w.data));
  heads.push_back(w.head());
  BrokerWorld other(4);
  other.start_and_publish();
  heads.push_back(other.head());  // of another installation
  for (const auto& head : heads) pool.collect(to_json(head));
  const auto lies = lies_about(pool, to_json(ResumeRequest{heads[1]}));
  // What the broker cannot know to be a lie (docs/threat-model.md).
  const Json none = to_json(ResumeRequest{}), earlier = to_json(ResumeRequest{heads[0]});
  int blind = 0;
  for (const Lie& lie : lies) {
    const auto body = parse_json(lie.text);
    if (!body.ok()) continue;
    MemoryStore copy = log;
    auto core = must(Core::open(testing::broker_keys(w.set), copy, w.random, w.capacity));
    const auto reply = core->handle(method::kResume, *body, w.plane(), w.clock.now());
    if (reply.ok()) {
      EXPECT_TRUE(*body == none || *body == earlier) << lie.what();
      ++blind;
      continue;
    }
    EXPECT_FALSE(fault_of_ours(reply.reason())) << lie.what() << reply.error().line();
    EXPECT_EQ(must(copy.size()), must(log.size())) << lie.what();
    EXPECT_EQ(core->handle(method::kHead, to_json(Empty{}), w.plane(), w.clock.now()).reason(),
              Reason::kUnavailable)
        << lie.what();
    EXPECT_TRUE(core->healthy()) << lie.what();
    EXPECT_TRUE(
        core->handle(method::kResume, to_json(ResumeRequest{heads[1]}), w.plane(), w.clock.now())
            .ok())
        << lie.what();
  }
  EXPECT_EQ(blind, 2);
  EXPECT_GT(lies.size(), 60U);
}

}  // namespace
}  // namespace gbx::broker
