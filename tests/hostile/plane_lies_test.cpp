// The plane lies to a node, in each answer that a node gets. The node is the real one but for its
// sockets: its threads, its rests, its capacity, its attempts over a real mux. The agent is the
// test's, and judges a bundle as the real one does (AgentLies.* goes on from there). Whatever was
// answered: no call comes sooner or later than it should, nothing is told about a job that was not
// handed out, an attempt begins of bundles that hold together, and the next job that the plane
// hands out honestly ends as it should.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "agent/bundle_check.h"
#include "agent/testing.h"
#include "lies.h"
#include "node/service.h"

namespace gbx::node {
namespace {

using namespace records;
using gbx::testing::must;
using hostile::Choice;
using hostile::lies_about;
using hostile::Pool;

const SystemClock kRealClock;
constexpr std::int64_t kPatienceMs = 60'000;  // of the test, with a node that does nothing more

// The steady time of each thread is its own: it goes on while that thread waits, and no other.
thread_local std::int64_t waited_ms = 0;
thread_local bool beats = false;  // this thread says that the node lives
class OwnClock final : public Clock {
 public:
  TimeMs now() const override { return {gbx::testing::kNow * 1000}; }
  std::int64_t steady_ms() const override { return 1'000'000 + waited_ms; }
};

// What both jobs' agents hand in.
OutputUpload output_of(const LaunchBundle& b, const crypto::SigningKey& set_key) {
  const Hash32 job = b.submission.submission.body.job_id();
  const std::int64_t attempt = b.credential.body.attempt;
  OutputUpload upload{job, attempt, {}, {}};
  upload.ack = must(sign(b.launch_config.set_id, SealAck{job, attempt, Hash32{4}, 900}, set_key));
  upload.output.ciphertext = Bytes(32, 5);
  upload.output.wrapped_content = {Bytes(64, 6)};
  return upload;
}

struct Jobs {
  LaunchBundle first, second;
  OutputUpload first_output, second_output;
  Pool pool;
  std::unique_ptr<agent::WorkerWorld> world;
  const crypto::SigningKey& key() const { return world->world_.node; }  // the node's
};
const Jobs& jobs() {
  static const Jobs kJobs = [] {
    Jobs j;
    j.world = std::make_unique<agent::WorkerWorld>();
    agent::WorkerWorld& w = *j.world;
    j.first = w.bundle_;
    w.take(w.world_.submission());
    j.second = w.bundle_;
    j.first_output = output_of(j.first, w.world_.set.signing);
    j.second_output = output_of(j.second, w.world_.set.signing);
    // What a liar has at hand: a third job, and the next attempt of the first.
    w.take(w.world_.submission());
    j.pool.collect(to_json(w.bundle_));
    j.pool.collect(to_json(j.first));
    LaunchBundle next = j.first;
    next.credential = must(w.world_.credential(next.plan.body.job_id, 2));
    j.pool.collect(to_json(next));
    return j;
  }();
  return kJobs;
}
RunningAttempt id_of(const LaunchBundle& b) {
  return {b.submission.submission.body.job_id(), b.credential.body.attempt};
}

// One lie: which answer, and what instead of the truth. Told so often, or each time about the first
// job.
struct Told {
  std::string method;
  std::function<Result<Json>()> answer;
  int times = 1;
};

// A plane with two jobs. The second is handed out when the lie was told and the first one is over.
class LyingPlane {
 public:
  explicit LyingPlane(Told lie) : lie_(std::move(lie)) {}

  Result<Json> answer(std::string_view m, const Json& body) {
    const std::scoped_lock lock(mutex_);
    const std::string method(m);
    log_.emplace_back(method, canonical(body));
    ++calls_[method];
    auto truth = truthful(method, body);
    if (method == lie_.method && told_ < lie_.times && about_first_) {
      ++told_;
      truth = lie_.answer();
    }
    if (method == method::kNodePoll && truth.ok()) note_assignment(*truth);
    changed_.notify_all();
    return truth;
  }
  // True when the second job's end was told.
  bool ended() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::milliseconds(kPatienceMs),
                             [this] { return second_ended_ && calls_of_life() >= 3; });
  }
  std::mutex mutex_;
  // Read after the node has stopped.
  std::vector<std::pair<std::string, std::string>> log_;
  std::map<std::string, std::int64_t> calls_;
  std::set<RunningAttempt> handed_;
  int told_ = 0;
  bool second_output_came_ = false;

 private:
  std::int64_t calls_of_life() {
    return calls_[std::string(method::kNodeRegister)] + calls_[std::string(method::kNodeHeartbeat)];
  }
  // What the calls of an attempt are about: lies there are told about the first job alone.
  void look_at(const std::string& method, const Json& body) {
    about_first_ = true;
    const Json* of = method == method::kNodeDestroyed ? body.find("body") : &body;
    const Json* job = of == nullptr ? nullptr : of->find("jobId");
    if (job == nullptr) return;
    const bool second = *job == Json(to_hex(id_of(jobs().second).job_id));
    about_first_ = !second;
    if (method == method::kNodeDestroyed && second) second_ended_ = true;
    if (method == method::kNodeDestroyed && !second) first_over_ = true;
    if (method == method::kNodeOutput && second) {
      second_output_came_ = canonical(body) == canonical(to_json(jobs().second_output));
    }
  }
  Result<Json> truthful(const std::string& method, const Json& body) {
    look_at(method, body);
    if (method == method::kNodePoll) return poll();
    if (method == method::kNodeRegister) return to_json(NodeLease{30, {}});
    if (method == method::kNodeHeartbeat) {
      return to_json(NodeLease{30, {{id_of(jobs().first).job_id, 7}}});  // one that it does not run
    }
    if (method == method::kNodePhase) return to_json(PhaseReply{});
    return to_json(Empty{});
  }
  // As many empty answers as there is nothing to hand out.
  Json poll() {
    if (calls_of_life() == 0) return to_json(PollReply{});  // it has said that it is idle, first
    if (++polls_ == 1) return to_json(PollReply{jobs().first});
    const bool waits = told_ < lie_.times && lie_.method != method::kNodePhase &&
                       lie_.method != method::kNodeOutput && lie_.method != method::kNodeDestroyed;
    if (waits || second_given_) return to_json(PollReply{});
    second_given_ = true;
    return to_json(PollReply{jobs().second});
  }
  void note_assignment(const Json& reply) {
    const auto read = from_json<PollReply>(reply);
    if (read.ok() && read->assignment) handed_.insert(id_of(*read->assignment));
  }

  const Told lie_;
  std::condition_variable changed_;
  int polls_ = 0;
  bool about_first_ = true;
  bool first_over_ = false;
  bool second_given_ = false;
  bool second_ended_ = false;
};

// What the node's agents did.
struct Begun {
  std::mutex mutex;
  std::vector<RunningAttempt> attempts;
  std::vector<Reason> refused;
};

// Environments whose agent is a thread here. It judges the bundle as the real agent does.
class Agents final : public Provisioner {
 public:
  explicit Agents(Begun& begun) : begun_(begun) {}
  Result<std::vector<std::string>> clear() override { return std::vector<std::string>{}; }
  Result<std::unique_ptr<Environment>> start(const EnvironmentRequest&) override {
    return std::unique_ptr<Environment>(std::make_unique<One>(begun_));
  }

 private:
  class One final : public Environment {
   public:
    explicit One(Begun& begun) : ends_(channel::make_memory_pipe()), begun_(begun) {
      agent_ = std::thread([this] { work(); });
    }
    ~One() override { (void)destroy(); }
    channel::ByteStream& stream() override { return *ends_.second; }
    std::vector<std::string> destroy() override {
      ends_.first->close();
      if (agent_.joinable()) agent_.join();
      return {};
    }

   private:
    void work() {
      channel::Mux mux(*ends_.first, kRealClock);
      channel::RpcClient node(mux.stream(channel::kMuxControl), kRealClock,
                              kSealedBundleFrameBytes);
      const Status s = attempt(node);
      AgentEnd end;
      end.sealed = s.ok();
      if (!s.ok()) end.reason = reason_code(s.reason());
      (void)node.call(method::kAgentEnd, to_json(end), kPatienceMs);
    }
    Status attempt(channel::RpcClient& node) {
      GBX_ASSIGN(const Json launch, node.call(method::kLaunch, to_json(Empty{}), kPatienceMs));
      GBX_ASSIGN(const auto bundle, from_json<LaunchBundle>(launch));
      const auto checked = agent::check_bundle(bundle, gbx::testing::kNow);
      const std::scoped_lock lock(begun_.mutex);
      if (!checked.ok()) {
        begun_.refused.push_back(checked.reason());
        return checked.error();
      }
      begun_.attempts.push_back(id_of(bundle));
      for (const auto p : {EnvironmentPhase::kBooting, EnvironmentPhase::kAttested,
                           EnvironmentPhase::kLoaded, EnvironmentPhase::kWorking}) {
        const PhaseReport report{checked->job_id, bundle.credential.body.attempt, p, {}, {}};
        GBX_ASSIGN(const Json j, node.call(method::kAgentPhase, to_json(report), kPatienceMs));
        GBX_ASSIGN(const auto reply, from_json<PhaseReply>(j));
        if (reply.stop) return fail(Reason::kJobCancelled, "stopped");
      }
      const bool second = id_of(bundle) == id_of(jobs().second);
      const auto& out = second ? jobs().second_output : jobs().first_output;
      GBX_TRY(node.call(method::kAgentOutput, to_json(out), kPatienceMs));
      return ok_status();
    }
    std::pair<std::unique_ptr<channel::ByteStream>, std::unique_ptr<channel::ByteStream>> ends_;
    Begun& begun_;
    std::thread agent_;
  };
  Begun& begun_;
};

// What one thread of the node asks, and when by its own time.
class Connection final : public PlaneCalls {
 public:
  explicit Connection(LyingPlane& plane) : plane_(plane) {}
  Result<Json> call(std::string_view m, const Json& body, std::int64_t) override {
    const bool lives = m == method::kNodeRegister || m == method::kNodeHeartbeat;
    if (lives) beats = true;
    if (lives || m == method::kNodePoll) {
      const std::int64_t gap = waited_ms - last_ms_;
      if (asked_) {
        EXPECT_GE(gap, kLeastGapMs) << m;
      }
      if (asked_ && lives) {  // between two polls may lie an attempt
        EXPECT_LE(gap, kMostRestMs) << m;
      }
      asked_ = true;
      last_ms_ = waited_ms;
    }
    return plane_.answer(m, body);
  }

 private:
  LyingPlane& plane_;
  bool asked_ = false;
  std::int64_t last_ms_ = 0;
};

class PlaneLies : public ::testing::Test {
 protected:
  // A node under a plane that tells this one lie.
  void live(const Told& lie, const std::string& what) {
    LyingPlane plane(lie);
    Begun begun;
    Agents agents(begun);
    ServiceOptions o;
    o.info = {"n",
              jobs().key().public_key().text(),
              {Technology::kNone},
              8,
              std::int64_t{8} << 30,
              slots_,
              "test",
              kMaxPids,
              {}};
    o.clock = &clock_;
    o.log = &log_;
    o.key = &jobs().key();
    o.provisioner = &agents;
    o.plane = [&] { return std::make_unique<Connection>(plane); };
    o.waits = [&](std::int64_t ms) {
      EXPECT_GT(ms, 0) << what;
      EXPECT_LE(ms, kMostRestMs) << what;
      waited_ms += ms;
      return std::int64_t{beats ? 1 : 0};
    };
    Service service(std::move(o));
    service.start();
    EXPECT_TRUE(plane.ended()) << what << ": the node does nothing more";
    service.stop();
    ++tried_;
    look_at(plane, begun, what);
  }

  void look_at(LyingPlane& plane, const Begun& begun, const std::string& what) {
    EXPECT_GT(plane.told_, 0) << what;
    EXPECT_TRUE(plane.second_output_came_) << what;
    const auto times = [&](const RunningAttempt& id) {
      return std::count(begun.attempts.begin(), begun.attempts.end(), id);
    };
    EXPECT_EQ(times(id_of(jobs().second)), 1) << what;
    for (const auto& id : begun.attempts) {
      EXPECT_EQ(plane.handed_.count(id), 1U) << what << ": an attempt that nobody handed out";
    }
    for (const Reason r : begun.refused) {
      EXPECT_NE(exit_class(r), ExitClass::kInternal) << what;
      ++refused_[r];
    }
    // With a plane that is away an attempt is patient for five minutes, twice a second.
    const std::int64_t most = 620 * static_cast<std::int64_t>(plane.handed_.size());
    for (const auto m : {method::kNodePhase, method::kNodeOutput, method::kNodeDestroyed}) {
      EXPECT_LE(plane.calls_[std::string(m)], most) << what << " " << m;
    }
    for (const auto& [method, text] : plane.log_) said(plane, method, text, what);
  }
  // Of what the node tells: its own name, attempts that it was given, and no key.
  void said(const LyingPlane& plane, const std::string& method, const std::string& text,
            const std::string& what) {
    const auto raw = jobs().key().private_bytes(SecretAccess{});
    const ByteView key = raw.view(SecretAccess{});
    EXPECT_EQ(text.find(to_hex(key)), std::string::npos) << what;
    EXPECT_EQ(text.find(to_base64url(key)), std::string::npos) << what;
    const Json body = must(parse_json(text));
    std::vector<RunningAttempt> about;
    if (method == method::kNodeHeartbeat) about = must(from_json<Heartbeat>(body)).running;
    if (method == method::kNodePhase) {
      const auto r = must(from_json<PhaseReport>(body));
      about = {{r.job_id, r.attempt}};
    }
    if (method == method::kNodeOutput) {
      const auto r = must(from_json<OutputUpload>(body));
      about = {{r.job_id, r.attempt}};
      EXPECT_TRUE(r.output.ciphertext == jobs().first_output.output.ciphertext) << what;
    }
    if (method == method::kNodeDestroyed) {
      const auto claim = must(from_json<Signed<DestroyedClaim>>(body));
      about = {{claim.body.job_id, claim.body.attempt}};
    }
    for (const auto& id : about) {
      EXPECT_EQ(plane.handed_.count(id), 1U) << what << ": " << method << " of another job";
    }
  }

  const OwnClock clock_;
  const Fd null_{open("/dev/null", O_WRONLY | O_CLOEXEC)};
  const Logger log_{null_.get(), "node", clock_};
  std::int64_t slots_ = 1;
  int tried_ = 0;
  std::map<Reason, int> refused_;  // by agents
};

// Answers as an honest plane gives them, and how often a lie in their place is told.
struct Truth {
  std::string_view method;
  Json answer;
  int times;
  std::size_t lies;  // for each member
};
std::vector<Truth> truths() {
  const RunningAttempt first = id_of(jobs().first);
  const NodeLease lease{30, {{first.job_id, 2}, first}};
  return {
      {method::kNodeRegister, to_json(lease), 1, 6},
      {method::kNodeHeartbeat, to_json(lease), 3, 6},
      {method::kNodePoll, to_json(PollReply{}), 3, 6},
      {method::kNodePoll, to_json(PollReply{jobs().first}), 1, 1},
      {method::kNodePhase, to_json(PhaseReply{}), 1'000'000, 6},
      {method::kNodeOutput, to_json(Empty{}), 1'000'000, 6},
      {method::kNodeDestroyed, to_json(Empty{}), 1'000'000, 6},
  };
}

TEST_F(PlaneLies, NeitherStopANodeNorMakeItSpinNorTellAnything) {
  Choice choice;
  for (const Truth& truth : truths()) {
    for (const auto& lie : choice.some(lies_about(jobs().pool, truth.answer), truth.lies)) {
      const auto body = parse_json(lie.text);
      if (!body.ok()) continue;  // no frame holds it: channel/rpc_test.cpp
      live({std::string(truth.method), [&]() -> Result<Json> { return *body; }, truth.times},
           std::string(truth.method) + " " + lie.what());
    }
  }
  std::printf("%d lies (GBX_LIES=%s)\n", tried_, choice.text().c_str());
  for (const auto& [reason, n] : refused_) {
    std::printf("%6d %s\n", n, std::string(reason_code(reason)).c_str());
  }
  EXPECT_GT(tried_, 200);
}

// Whatever reason it gives for taking nothing.
TEST_F(PlaneLies, NoRefusalStopsANodeOrMakesItSpin) {
  for (const Reason why : {
#define X(name, code, cls) Reason::name,
           GBX_REASONS(X)
#undef X
       }) {
    for (const auto& [method, times] :
         {std::pair(method::kNodeRegister, 3), std::pair(method::kNodeHeartbeat, 3),
          std::pair(method::kNodePoll, 3), std::pair(method::kNodePhase, 1'000'000),
          std::pair(method::kNodeOutput, 1'000'000),
          std::pair(method::kNodeDestroyed, 1'000'000)}) {
      live({std::string(method), [&]() -> Result<Json> { return fail(why, "no"); }, times},
           std::string(method) + " " + std::string(reason_code(why)));
    }
  }
}

// A plane that lends for ages, or for no time at all, and one without work that never waits.
TEST_F(PlaneLies, NoLeaseMakesItDeafAndNoneMakesItSpin) {
  for (const std::int64_t seconds :
       {std::int64_t{0}, std::int64_t{1}, kMaxLeaseSeconds, kMaxLeaseSeconds + 1,
        std::int64_t{1'000'000'000}, std::int64_t{40'000'000'000}, kMaxJsonInteger}) {
    for (const auto m : {method::kNodeRegister, method::kNodeHeartbeat}) {
      live({std::string(m),
            [&]() -> Result<Json> {
              return to_json(NodeLease{seconds, {}});
            },
            1},
           std::string(m) + " " + std::to_string(seconds));
    }
  }
}

// The same work again, while it runs: one attempt of it.
TEST_F(PlaneLies, WorkThatIsHandedOutAgainAndAgainIsNoHurry) {
  for (slots_ = 1; slots_ <= 3; ++slots_) {
    live({std::string(method::kNodePoll),
          [&]() -> Result<Json> { return to_json(PollReply{jobs().first}); }, 5},
         "the first job again");
  }
}

}  // namespace
}  // namespace gbx::node
