// Whoever brings a request to the broker lies in one member of it: plane, node, agent, and through
// them owner, consumer and reviewer. Every request of two whole jobs is sent with every single
// change that this file can think of, and as it was made at another installation, before it is sent
// as it should be. No lie changes the log, unless it says the same as the truth: then the truth
// that follows gets the very same answer. The genuine jobs end as they would have without any of
// it.
#include <gtest/gtest.h>

#include <cstdio>
#include <functional>
#include <set>

#include "broker/testing.h"

namespace gbx::broker {
namespace {

using namespace records;
using testing::BrokerWorld;
using testing::must;

struct Lie {
  std::string what;
  Json body;
};

// Other texts of the same length: what a liar finds at hand.
using Pool = std::map<std::size_t, std::set<std::string>>;
void collect(Pool& pool, const Json& j) {
  const std::string* text = j.string();
  if (text != nullptr && text->size() >= 8) pool[text->size()].insert(*text);
  for (const auto& e : j.array() != nullptr ? *j.array() : JsonArray{}) collect(pool, e);
  for (const auto& [k, v] : j.object() != nullptr ? *j.object() : JsonObject{}) collect(pool, v);
}

std::string one_other_letter(std::string s) {
  char& c = s[s.size() / 2];
  c = c == '0' ? '1' : c == 'a' ? 'b' : c >= '1' && c <= '9' ? '0' : 'a';
  return s;
}

class Liar {
 public:
  Liar(const Pool& pool, Json truth) : pool_(pool), truth_(std::move(truth)) {
    walk(truth_, "body", [](const Json& v) { return v; });
  }
  const std::vector<Lie>& lies() const { return lies_; }

 private:
  using Put = std::function<Json(const Json&)>;
  void add(const std::string& what, const Put& put, const Json& v) {
    Json body = put(v);
    if (body != truth_) lies_.push_back({what, std::move(body)});
  }
  void texts(const std::string& s, const std::string& at, const Put& put) {
    if (!s.empty()) {
      add(at + " changed", put, Json(one_other_letter(s)));
      add(at + " empty", put, Json(""));
    }
    const auto same = pool_.find(s.size());
    if (same == pool_.end()) return;
    int n = 0;
    for (const std::string& other : same->second) {
      if (other != s && n++ < 6) add(at + " as elsewhere", put, Json(other));
    }
  }
  void numbers(std::int64_t v, const std::string& at, const Put& put) {
    for (const std::int64_t other : {v + 1, v - 1, -v - 1, std::int64_t{0}, kMaxJsonInteger}) {
      add(at + " = " + std::to_string(other), put, Json(other));
    }
  }
  void lists(const JsonArray& list, const std::string& at, const Put& put) {
    if (!list.empty()) {
      add(at + " empty", put, Json(JsonArray{}));
      add(at + " reversed", put, Json(JsonArray(list.rbegin(), list.rend())));
      add(at + " without the first", put, Json(JsonArray(list.begin() + 1, list.end())));
      JsonArray twice = list;
      twice.push_back(list.front());
      add(at + " with one twice", put, Json(std::move(twice)));
    }
    for (std::size_t i = 0; i < list.size(); ++i) {
      walk(list[i], at + "[" + std::to_string(i) + "]", [&, i](const Json& v) {
        JsonArray whole = list;
        whole[i] = v;
        return put(Json(std::move(whole)));
      });
    }
  }
  void objects(const JsonObject& members, const std::string& at, const Put& put) {
    JsonObject more = members;
    more["unknownMember"] = Json(1);
    add(at + " with an unknown member", put, Json(std::move(more)));
    for (const auto& [name, value] : members) {
      JsonObject less = members;
      less.erase(name);
      add(at + "." + name + " left out", put, Json(std::move(less)));
      walk(value, at + "." + name, [&, key = name](const Json& v) {
        JsonObject whole = members;
        whole[key] = v;
        return put(Json(std::move(whole)));
      });
    }
  }
  void walk(const Json& v, const std::string& at, const Put& put) {
    add(at + " null", put, Json());
    if (v.string() != nullptr) texts(*v.string(), at, put);
    if (v.integer() != nullptr) numbers(*v.integer(), at, put);
    if (v.boolean() != nullptr) add(at + " the opposite", put, Json(!*v.boolean()));
    if (v.array() != nullptr) lists(*v.array(), at, put);
    if (v.object() != nullptr) objects(*v.object(), at, put);
  }

  const Pool& pool_;
  const Json truth_;
  std::vector<Lie> lies_;
};

// What people and programs send in the course of three jobs: one whose output is released at once,
// one that is held, ruled on and released, one that is cancelled. Every request passes `remote`.
struct Story {
  explicit Story(std::uint64_t seed) : w(seed, &log) { must(w.start()); }
  void tell() {
    must(w.publish(w.data));
    must(w.publish(w.image));
    const auto first = w.run_until_sealed(w.submission());
    released = must(w.judge(first.job_id()));
    GateVerdict doubtful = testing::clean_verdict();
    doubtful.recommendation = Recommendation::kHold;
    const auto second = w.run_until_sealed(w.submission(), doubtful);
    held = must(w.judge(second.job_id()));
    const HoldNotice& notice = held.hold_notice->body;
    for (const Hash32& policy : notice.policy_hashes) {
      approved = must(w.rule(w.reviewer, notice, policy, RulingDecision::kApprove));
    }
    const SignedSubmission third = w.submission();
    must(w.authorise(third));
    const Cancel wish{third.submission.body.job_id(), w.consumer.id(), w.clock.now().seconds()};
    must(w.call<Empty>(
        method::kCancel,
        CancelRequest{w.consumer.chain, must(sign(w.set.id(), wish, w.consumer.key))}));
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
  Interceptor(Story& story, const Pool& pool,
              const std::vector<std::pair<std::string, Json>>& foreign)
      : story_(story), pool_(pool), foreign_(foreign) {
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
    const Liar liar(pool_, truth);
    for (const Lie& lie : liar.lies()) send(method, lie, c, said);
    for (const auto& [name, body] : foreign_) {
      send(method, {"the request of " + name + " at another installation", body}, c, said);
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
    const auto reply = handle(method, lie.body, c);
    if (reply.ok()) {
      if (must(story_.log.size()) != before) said.emplace_back(lie.what, *reply);
      return;
    }
    ++refused_[reply.reason()];
    EXPECT_EQ(must(story_.log.size()), before) << method << ": " << lie.what;
    EXPECT_FALSE(fault_of_ours(reply.reason()))
        << method << ": " << lie.what << ": " << reply.error().line();
    EXPECT_TRUE(story_.w.core->healthy()) << method << ": " << lie.what;
  }

  Story& story_;
  const Pool& pool_;
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
    collect(pool, body);
    return other.w.core->handle(method, body, c, other.w.clock.now());
  };
  other.tell();
  Story truth(1);
  truth.w.remote = [&](std::string_view method, const Json& body, const ConnectionContext& c) {
    collect(pool, body);
    return truth.w.core->handle(method, body, c, truth.w.clock.now());
  };
  truth.tell();
  Story lied_to(1);
  const Interceptor interceptor(lied_to, pool, foreign);
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
  EXPECT_GT(interceptor.tried(), 5'000);
}

}  // namespace
}  // namespace gbx::broker
