// Whatever validly signed requests come, in whatever order: the broker answers or refuses, and its
// log opens again.
#include <gtest/gtest.h>

#include "broker/testing.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::BrokerWorld;
using gbx::testing::clean_verdict;
using gbx::testing::FakeAgent;
using gbx::testing::kNow;
using gbx::testing::make_agent;
using gbx::testing::must;
using gbx::testing::next_policy;
using gbx::testing::Person;

// Changes a record here and there, towards its limits and beyond.
class Wild {
 public:
  explicit Wild(std::uint64_t seed) : dice_(seed * 104729 + 3) {}
  bool chance(std::uint64_t one_in) { return dice_.below(one_in) == 0; }
  std::uint64_t below(std::uint64_t n) { return dice_.below(n); }
  Random& random() { return dice_; }

  // As it is half of the time; empty when what became of it is no such record.
  template <class Body>
  std::optional<Body> operator()(const Body& body) {
    Json j = to_json(body);
    for (std::uint64_t n = dice_.below(4); n >= 2; --n) change(j);
    auto out = from_json<Body>(j);
    if (!out.ok()) return std::nullopt;
    return std::move(*out);
  }

 private:
  void change(Json& root) {
    std::vector<Json*> nodes{&root};
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      Json& at = *nodes[i];
      if (JsonArray* a = at.array()) {
        for (Json& e : *a) nodes.push_back(&e);
      } else if (JsonObject* o = at.object()) {
        for (auto& [k, v] : *o) nodes.push_back(&v);
      }
    }
    Json& at = *nodes[dice_.below(nodes.size())];
    if (at.integer() != nullptr) {
      static constexpr std::int64_t kNumbers[] = {
          0,    1,       -1,           2,        33,           255,
          1000, 1 << 20, kMaxBits / 2, kMaxBits, kMaxBits + 1, kMaxJsonInteger};
      at = kNumbers[dice_.below(std::size(kNumbers))];
    } else if (const std::string* s = at.string()) {
      at = text(*s);
    } else if (JsonArray* a = at.array()) {
      repeat(*a);
    } else if (at.boolean() != nullptr) {
      at = !*at.boolean();
    } else if (at.object() != nullptr) {
      at["more"] = nested();  // a schema may hold anything
    }
  }
  std::string text(const std::string& before) {
    static constexpr std::size_t kLengths[] = {0, 1, 63, 64, 128, 200, 256, 4096, 4097, 60'000};
    const std::size_t n = kLengths[dice_.below(std::size(kLengths))];
    if (chance(3)) return before + "\xc3\xa4";
    std::string out;
    while (out.size() + 2 <= n) out += chance(2) ? "xy" : "\xc3\xb6";
    return out;
  }
  void repeat(JsonArray& a) {
    if (a.empty() || chance(3)) return a.clear();
    static constexpr std::size_t kCounts[] = {2, 8, 16, 17, 32, 33, 64, 256};
    a.resize(kCounts[dice_.below(std::size(kCounts))], a.back());
  }
  Json nested() {
    Json out;
    for (std::uint64_t i = dice_.below(70); i > 0; --i) out = Json(JsonArray{std::move(out)});
    return out;
  }

  SeededRandom dice_;
};

class AnyRequests {
 public:
  explicit AnyRequests(std::uint64_t seed) : w_(seed, &store_), wild_(seed) {
    // To read a job again costs as much as all else: every second walk has the programs' own bound.
    if (seed % 2 == 0) w_.awake = {};
    for (auto* a : {&w_.data, &w_.image}) often(a->policy.clauses);
    w_.start_and_publish();
  }

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      step();
      ASSERT_TRUE(w_.core->healthy()) << "step " << i;
      w_.clock.advance(static_cast<std::int64_t>(wild_.below(20'000)));
      if (i % 50 == 49) reopens();
    }
    reopens();
    // Started again it still takes whatever step is due for each of the jobs.
    ASSERT_TRUE(w_.start().ok());
    w_.clock.advance((kHoldSeconds + 1) * 1000);
    for (const auto& j : jobs_) {
      if (w_.core->state().job(j.id) == nullptr) continue;
      const auto judged = w_.judge(j.id);
      EXPECT_TRUE(judged.ok()) << judged.error().line();
      decided_ += judged.ok() && judged->release.has_value() ? 1 : 0;
    }
    reopens();
  }
  int decided() const { return decided_; }
  int sealed() const { return sealed_; }
  int refused() const { return refused_; }
  int sums() const { return sums_; }
  int ruled() const { return ruled_; }
  int beacons() const { return beacons_; }

 private:
  struct Job {
    SignedSubmission submission;
    Hash32 id{};
    FakeAgent agent;
    std::int64_t attempt = 0;
    std::optional<Signed<Credential>> credential;
    std::optional<ConnectionContext> connection;
    Hash32 evidence{};
    std::vector<Signed<Ruling>> rulings;
  };

  // Beacons count, and a walk of an hour has many slots.
  static void often(Clauses& c) {
    c.fresh_for_seconds = 86'400;
    c.gate.release_slot_seconds = 60;
  }

  void reopens() {
    SeededRandom random(1);
    const auto log = Log::open(store_, random);
    ASSERT_TRUE(log.ok()) << log.error().line();
    EXPECT_EQ(canonical((*log)->state().snapshot()), canonical(w_.core->state().snapshot()));
    adds_up(w_.core->state());
    adds_up((*log)->state());
  }
  // What is kept added up is what the lines add up to, for whomever and whenever one asks.
  void adds_up(const State& state) {
    for (const gbx::testing::Asset* a : {&w_.data, &w_.image}) {
      const PlanCharge asset{a->record.owner_id, a->record.asset_id, 0, 0};
      const auto lines = state.ledger()[to_hex(asset.owner_id) + "/" + to_hex(asset.asset_id)];
      in_order(state, asset, lines);
      for (const auto& [except, asked] : lines) {
        const std::int64_t at = asked.amounts.time;
        for (const std::int64_t since : {std::int64_t{0}, at, at + 1}) {
          policy::Spent naive;
          policy::Spent told;
          for (const auto& [job, kept] : lines) {
            if (job == except) continue;
            const bool own = kept.consumer_id == asked.consumer_id;
            const LedgerAmounts& line = kept.amounts;
            naive.total_free_bits += line.free_bits;
            naive.period_free_bits += own && line.time >= since ? line.free_bits : 0;
            told.total_free_bits += line.told_bits;
            told.period_free_bits += own && line.told_since >= since ? line.told_bits : 0;
            EXPECT_TRUE(line.state == LedgerState::kReserved || line.told_bits == line.free_bits);
          }
          const Hash32 job = must(fixed_from_hex<32>(except));
          const auto spent = state.spent(asset, asked.consumer_id, since, job);
          EXPECT_EQ(spent.total_free_bits, naive.total_free_bits);
          EXPECT_EQ(spent.period_free_bits, naive.period_free_bits);
          const auto shown = state.told_spent(asset, asked.consumer_id, since, job);
          EXPECT_EQ(shown.total_free_bits, told.total_free_bits);
          EXPECT_EQ(shown.period_free_bits, told.period_free_bits);
          ++sums_;
        }
      }
    }
  }
  // And so is what the ledger answers, of all and of each consumer.
  void in_order(const State& state, const PlanCharge& asset,
                const std::map<std::string, LedgerLine>& lines) {
    std::vector<std::optional<Hash32>> whose{std::nullopt};
    for (const auto& [job, line] : lines) whose.emplace_back(line.consumer_id);
    for (const auto& consumer : whose) {
      std::vector<std::pair<std::int64_t, std::string>> naive;
      std::int64_t free_bits = 0;
      for (const auto& [job, line] : lines) {
        if (consumer && line.consumer_id != *consumer) continue;
        naive.emplace_back(line.amounts.told_since, job);
        free_bits += line.amounts.told_bits;
      }
      std::sort(naive.begin(), naive.end());
      const LedgerSums& sums = state.sums(asset.owner_id, asset.asset_id, consumer);
      EXPECT_EQ(sums.told.free_bits(), free_bits);
      const auto page = sums.order.page(0, sums.order.count());
      ASSERT_EQ(page.size(), naive.size());
      for (std::size_t i = 0; i < page.size(); ++i) EXPECT_EQ(to_hex(page[i]), naive[i].second);
    }
  }
  template <class T>
  bool took(const Result<T>& r) {
    refused_ += r.ok() ? 0 : 1;
    return r.ok();
  }
  Person& anybody() {
    Person* people[] = {&w_.owner, &w_.consumer, &w_.reviewer};
    return *people[wild_.below(3)];
  }

  void step() {
    if (jobs_.empty() || wild_.chance(16)) return submit();
    Job& j = jobs_[jobs_.size() - 1 - wild_.below(std::min<std::size_t>(jobs_.size(), 3))];
    switch (wild_.below(40)) {
      case 0:
        return publish(wild_.chance(2) ? w_.data : w_.image);
      case 1:
        return rotate();
      case 2:
        return cancel(j);
      case 3:
      case 4:
      case 5:
        return rule(j);
      case 6:
        return raw(j);
      case 7:
        (void)took(w_.judge(j.id));
        return;
      case 8:
        return beacon(wild_.chance(2) ? w_.data : w_.image);
      default:
        return advance(j);
    }
  }

  void publish(gbx::testing::Asset& asset) {
    const Policy before = asset.policy;
    next_policy(asset);
    asset.policy.clauses = &asset == &w_.data ? w_.clauses() : w_.image_clauses();
    often(asset.policy.clauses);
    const auto clauses = wild_(asset.policy.clauses);
    if (clauses && wild_.chance(2)) asset.policy.clauses = *clauses;
    asset.policy.revoked = wild_.chance(20);
    Publish p = gbx::testing::make_publish(w_.set, asset, w_.random);
    if (!took(w_.call<Signed<PublishAck>>(method::kPublish, p))) asset.policy = before;
  }
  void submit() {
    SignedSubmission s = w_.submission(wild_.chance(2));
    if (const auto spec = wild_(s.submission.body.spec)) s.submission.body.spec = *spec;
    if (wild_.chance(4)) s.leases.resize(wild_.below(40), s.leases[0]);
    resign(s, w_.set.id(), w_.consumer);
    jobs_.push_back({s, s.submission.body.job_id(), make_agent(w_.random), 0, {}, {}, {}, {}});
    (void)took(w_.authorise(s));
  }
  void rotate() {
    if (!wild_.chance(3)) return;
    Person& who = anybody();
    const IdentityChain known = w_.core->state().chain(who.chain.identity);
    auto next = must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, w_.random));
    Rotation body{who.id(), static_cast<std::int64_t>(known.rotations.size()) + 1,
                  next.public_key().text()};
    if (const auto changed = wild_(body)) body = *changed;
    const auto rotation = must(sign(w_.set.id(), body, wild_.chance(2) ? who.recovery : who.key));
    if (!took(w_.call<Empty>(method::kRotate, RotateRequest{who.chain.identity, rotation}))) return;
    who.chain.rotations.push_back(rotation);
    if (body.new_key == next.public_key().text()) who.key = std::move(next);
    if (&who == &w_.owner) {
      w_.data.owner = copy(who);
      w_.image.owner = copy(who);
    }
  }
  void cancel(Job& j) {
    if (!wild_.chance(4)) return;
    const auto body = wild_(Cancel{j.id, w_.consumer.id(), kNow});
    if (!body) return;
    (void)took(w_.call<Empty>(
        method::kCancel,
        CancelRequest{w_.consumer.chain, must(sign(w_.set.id(), *body, w_.consumer.key))}));
  }
  void rule(Job& j) {
    const auto judged = w_.judge(j.id);
    if (!took(judged) || !judged->hold_notice) return;
    Ruling r;
    r.hold_notice = judged->hold_notice->hash();
    r.manifest = judged->hold_notice->body.manifest;
    r.ciphertext = judged->hold_notice->body.ciphertext;
    const auto& hashes = judged->hold_notice->body.policy_hashes;
    r.owner_policy_hash = hashes[wild_.below(hashes.size())];
    r.decision = wild_.chance(4) ? RulingDecision::kReject : RulingDecision::kApprove;
    if (r.decision == RulingDecision::kReject && wild_.chance(2)) r.reasons = {"small-cells"};
    r.time = w_.clock.now().seconds();
    const auto body = wild_(r);
    if (!body) return;
    const Person& who = wild_.chance(4) ? anybody() : w_.reviewer;
    ruled_ +=
        took(w_.call<Judgement>(method::kRuling,
                                RulingRequest{who.chain, must(sign(w_.set.id(), *body, who.key))}))
            ? 1
            : 0;
  }
  void beacon(const gbx::testing::Asset& asset) {
    const OwnerBeacon here{w_.owner.id(), asset.version_id(), hash_of(asset.policy),
                           w_.clock.now().seconds()};
    const auto body = wild_(here);
    if (!body) return;
    const BeaconRequest request{w_.owner.chain, must(sign(w_.set.id(), *body, w_.owner.key))};
    beacons_ += took(w_.call<Signed<BeaconAck>>(method::kBeacon, request)) ? 1 : 0;
  }
  // A changed body of some method, signed by nobody.
  void raw(const Job& j) {
    const auto send = [&](std::string_view m, const auto& request) {
      if (const auto body = wild_(request)) {
        (void)took(w_.core->handle(m, to_json(*body), w_.plane(), w_.clock.now()));
      }
    };
    switch (wild_.below(4)) {
      case 0:
        return send(method::kAuthorise, j.submission);
      case 1:
        return send(method::kCredential, CredentialRequest{j.id, 1});
      case 2:
        return send(method::kReceipt, JobRequest{j.id});
      default:
        return send(method::kPublish, gbx::testing::make_publish(w_.set, w_.data, w_.random));
    }
  }

  // The agent's next step.
  void advance(Job& j) {
    const JobState* state = w_.core->state().job(j.id);
    if (state == nullptr) {
      (void)took(w_.authorise(j.submission));
    } else if (!j.credential || wild_.chance(12)) {
      auto c = w_.credential(j.id, static_cast<std::int64_t>(state->attempts.size()) + 1);
      if (!took(c)) return;
      j.credential = *c;
      j.agent = make_agent(w_.random);
      j.connection.reset();
    } else if (!j.connection) {
      const auto c = w_.connect(j.agent);
      const auto nonce = w_.hello(j.id, j.credential->body.attempt, c);
      if (!took(nonce)) return;
      const auto request = wild_(w_.attest_request(j.agent, *j.credential, *nonce, c));
      if (!request) return;
      const auto reply = w_.call<AttestReply>(method::kAttest, *request, c);
      if (!took(reply)) return;
      j.connection = c;
      j.evidence = reply->evidence;
    } else if (j.agent.sent.size() < 2) {
      key(j);
    } else if (state->seal && wild_.chance(2)) {
      rule(j);
    } else {
      seal(j, state->plan);
    }
  }
  void key(Job& j) {
    auto request = w_.key_request(j.agent, j.credential->body, j.evidence,
                                  static_cast<std::int64_t>(j.agent.sent.size()) + 1);
    const auto body = wild_(request.body);
    if (!body) return;
    request = must(sign(w_.set.id(), *body, j.agent.sig));
    if (took(w_.call<KeyReply>(method::kKey, request, *j.connection))) {
      j.agent.sent.push_back(request);
    }
  }
  void seal(Job& j, const Signed<RunPlan>& plan) {
    GateVerdict v = clean_verdict();
    if (wild_.chance(3)) v.recommendation = Recommendation::kHold;
    if (const auto changed = wild_(v)) v = *changed;
    auto sealed =
        w_.make_seal(j.agent, j.submission, plan, j.credential->body.attempt, j.evidence, v);
    RunStatement statement = sealed.seal.statement.body;
    if (const auto changed = wild_(statement)) statement = *changed;
    sealed.seal.statement = must(sign(w_.set.id(), statement, j.agent.sig));
    sealed_ += took(w_.seal(sealed.seal, *j.connection)) ? 1 : 0;
  }

  MemoryStore store_;
  BrokerWorld w_;
  Wild wild_;
  std::vector<Job> jobs_;
  int decided_ = 0;
  int sealed_ = 0;
  int refused_ = 0;
  int sums_ = 0;
  int ruled_ = 0;
  int beacons_ = 0;
};

TEST(BrokerProperty, NoRequestMakesTheLogUnreadable) {
  const char* more = std::getenv("GBX_SIM_SEEDS");
  const std::uint64_t seeds = more != nullptr ? std::strtoull(more, nullptr, 10) : 25;
  std::int64_t decided = 0;
  std::int64_t sealed = 0;
  std::int64_t refused = 0;
  std::int64_t sums = 0;
  std::int64_t ruled = 0;
  std::int64_t beacons = 0;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    if (more != nullptr && seed % 50 == 0) {
      std::printf("seed %llu of %llu\n", static_cast<unsigned long long>(seed),
                  static_cast<unsigned long long>(seeds));
      std::fflush(stdout);
    }
    AnyRequests any(seed);
    any.run(150);
    decided += any.decided();
    sealed += any.sealed();
    refused += any.refused();
    sums += any.sums();
    ruled += any.ruled();
    beacons += any.beacons();
    if (::testing::Test::HasFailure()) return;
  }
  std::printf("%lld sealed, %lld decided, %lld rulings, %lld beacons, %lld requests refused\n",
              static_cast<long long>(sealed), static_cast<long long>(decided),
              static_cast<long long>(ruled), static_cast<long long>(beacons),
              static_cast<long long>(refused));
  // The walk gets to the end of jobs, and is refused a lot: otherwise it proves nothing.
  EXPECT_GT(decided, static_cast<std::int64_t>(seeds));
  EXPECT_GT(refused, static_cast<std::int64_t>(seeds) * 5);
  EXPECT_GT(sums, static_cast<std::int64_t>(seeds) * 5);
  EXPECT_GT(ruled, static_cast<std::int64_t>(seeds) / 4);
  EXPECT_GT(beacons, static_cast<std::int64_t>(seeds) / 4);
}

}  // namespace
}  // namespace gbx::broker
