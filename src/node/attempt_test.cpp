// One attempt with a broker that is not as it should be: the agent, the plane and the environment
// are the test's, the node's part between them is real.
#include "node/attempt.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>

#include "channel/mux.h"

namespace gbx::node {
namespace {

using namespace records;

const SystemClock kClock;
channel::Deadline in_ms(std::int64_t ms) { return channel::Deadline::after_ms(kClock, ms); }

crypto::SigningKey key(std::uint64_t seed) {
  SeededRandom random(seed);
  return crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random).value();
}

// An environment that is only its stream.
class Streams final : public Provisioner {
 public:
  Streams() : ends_(channel::make_memory_pipe()) {}
  channel::ByteStream& agent_end() { return *ends_.first; }
  Result<std::vector<std::string>> clear() override { return std::vector<std::string>{}; }
  Result<std::unique_ptr<Environment>> start(const EnvironmentRequest& r) override {
    if (hangs) {
      pollfd p{r.give_up_fd, POLLIN, 0};
      given_up = poll(&p, 1, 20'000) == 1;
      return fail(Reason::kTimedOut, "storage");
    }
    return std::unique_ptr<Environment>(std::make_unique<One>(*ends_.second, *this));
  }
  bool hangs = false;     // until it is given up
  bool given_up = false;  // read after the attempt was joined
  std::optional<Error> why;
  int asked_spoke = -1;  // -1: it was not asked

 private:
  class One final : public Environment {
   public:
    One(channel::ByteStream& stream, Streams& all) : stream_(stream), all_(all) {}
    std::optional<Error> why_ended(bool spoke) override {
      all_.asked_spoke = spoke ? 1 : 0;
      return all_.why;
    }
    channel::ByteStream& stream() override { return stream_; }
    std::vector<std::string> destroy() override { return {}; }

   private:
    channel::ByteStream& stream_;
    Streams& all_;
  };
  std::pair<std::unique_ptr<channel::ByteStream>, std::unique_ptr<channel::ByteStream>> ends_;
};

class NodeAttempt : public ::testing::Test {
 protected:
  // Runs one attempt with the broker at `port`, and `agent` in the part of its agent.
  void run(std::uint16_t port) {
    link_.emplace(
        LinkOptions{&kClock, {"127.0.0.1", plane_->port()}, &node_key_, plane_key_.public_key()});
    options_.clock = &kClock;
    options_.log = &log_;
    options_.key = &node_key_;
    options_.broker = {"127.0.0.1", port};
    options_.provisioner = &streams_;
    options_.plane = &*link_;
    attempt_ = std::thread([this] { ended_ = run_attempt(options_, bundle_, stop_); });
    mux_.emplace(streams_.agent_end(), kClock);
    node_.emplace(mux_->stream(channel::kMuxControl), kClock);
  }
  // A connection to the broker, as the agent gets it.
  Result<channel::MuxStream*> connect() {
    GBX_ASSIGN(const Json reply, node_->call(method::kAgentBroker, to_json(Empty{}), kPatienceMs));
    GBX_ASSIGN(const auto granted, from_json<BrokerStream>(reply));
    return mux_->fresh(static_cast<std::size_t>(granted.stream));
  }
  void TearDown() override {
    if (mux_) mux_->close();
    if (attempt_.joinable()) attempt_.join();
  }

  static constexpr std::int64_t kPatienceMs = 20'000;  // less than the attempt's own minute
  const crypto::SigningKey node_key_ = key(1);
  const crypto::SigningKey plane_key_ = key(2);
  const Fd null_{open("/dev/null", O_WRONLY | O_CLOEXEC)};
  const Logger log_{null_.get(), "node", kClock};
  LaunchBundle bundle_;
  StopSignal stop_;
  Streams streams_;
  std::function<Result<Json>()> at_output;  // the plane's answer to an output
  bool picky_ = false;                      // the plane about claims
  std::vector<DestroyedClaim> claims_;      // that the plane got; read after attempt_ was joined
  Status ended_ = fail(Reason::kInternal, "still runs");  // read after attempt_ was joined

 private:
  void plane(channel::FdStream& stream) {
    channel::TlsOptions tls{&kClock, &plane_key_, channel::PeerPolicy::any_key()};
    auto secure = channel::TlsChannel::server(stream, tls);
    if (!secure.ok()) return;
    const auto answer = [this](std::string_view m, const Json& body) -> Result<Json> {
      if (m == method::kNodePhase) {
        GBX_ASSIGN(auto report, from_json<PhaseReport>(body));
        const std::lock_guard lock(mutex_);
        phases_.push_back(std::move(report));
        return to_json(PhaseReply{});
      }
      if (m == method::kNodeDestroyed) GBX_TRY(take(body));
      if (m == method::kNodeOutput && at_output) return at_output();
      return to_json(Empty{});
    };
    (void)channel::serve(*secure, answer, {}, kClock);
  }
  // Only one for a later time than the first one's.
  Status take(const Json& body) {
    GBX_ASSIGN(const auto claim, from_json<Signed<DestroyedClaim>>(body));
    GBX_TRY(claim.verify(bundle_.launch_config.set_id, node_key_.public_key()));
    const std::lock_guard lock(mutex_);
    claims_.push_back(claim.body);
    if (!picky_ || claim.body.time > claims_.front().time) return ok_status();
    return fail(Reason::kUnavailable, "another slot");
  }
  std::mutex mutex_;
  std::vector<PhaseReport> phases_;  // guarded by mutex_
  std::unique_ptr<channel::ConnectionServer> plane_ =
      channel::ConnectionServer::start(channel::listen_tcp({}).value(), 4, [this](auto& stream) {
        plane(stream);
      }).value();
  std::optional<PlaneLink> link_;
  std::thread attempt_;

 protected:
  std::optional<channel::Mux> mux_;
  AttemptOptions options_;
  // After join().
  PhaseReport last_phase() {
    const std::lock_guard lock(mutex_);
    return phases_.empty() ? PhaseReport{} : phases_.back();
  }
  std::optional<channel::RpcClient> node_;
  void join() { attempt_.join(); }
};

// It is stopped, or behind a route that is gone: it takes connections, and neither answers nor ends
// them.
TEST_F(NodeAttempt, ABrokerThatHangsHoldsNobody) {
  const channel::Listener silent = channel::listen_tcp({}).value();
  run(silent.port);
  for (int i = 0; i < 3; ++i) {
    auto stream = connect();
    ASSERT_TRUE(stream.ok()) << i << ": " << stream.error().line();
    ASSERT_TRUE((*stream)->write_all(as_bytes("is anybody there?"), in_ms(kPatienceMs)).ok());
    (*stream)->close();
  }
  const auto asked = kClock.steady_ms();
  stop_.request(Reason::kLost);
  join();
  EXPECT_LT(kClock.steady_ms() - asked, kPatienceMs);
  EXPECT_TRUE(ended_.ok()) << ended_.error().line();
}

// As nanoseconds it would be a time before now, and the agent would find nobody.
TEST_F(NodeAttempt, APlanThatRunsForAgesIsWaitedForAsLongAsAnyMay) {
  bundle_.plan.body.controls.run_seconds = std::int64_t{1} << 52;
  const channel::Listener silent = channel::listen_tcp({}).value();
  run(silent.port);
  const auto stream = connect();
  ASSERT_TRUE(stream.ok()) << stream.error().line();
  ASSERT_TRUE((*stream)->write_all(as_bytes("is anybody there?"), in_ms(kPatienceMs)).ok());
  stop_.request(Reason::kLost);
  join();
  EXPECT_TRUE(ended_.ok()) << ended_.error().line();
}

// A tunnel or a balancer before a broker that is away: connections open and end at once, some with
// a word. However often: the agent says how long it insists.
TEST_F(NodeAttempt, ConnectionsThatBreakAtOnceAreNotUsedUp) {
  constexpr int kBroken = 100;
  std::atomic<int> seen{0};
  const auto answer = [&](channel::FdStream& s) {
    const int number = seen++;
    if (number % 2 == 1) (void)s.write_all(as_bytes("go away"), in_ms(kPatienceMs));
    if (number < kBroken) return;
    Bytes word(5);
    if (!read_exact(s, word, in_ms(kPatienceMs)).ok()) return;
    (void)s.write_all(word, in_ms(kPatienceMs));
    (void)s.read(word, in_ms(kPatienceMs));
  };
  const auto broker =
      channel::ConnectionServer::start(channel::listen_tcp({}).value(), 200, answer).value();
  run(broker->port());
  Bytes word(5);
  for (int i = 0; i < kBroken; ++i) {
    auto stream = connect();
    ASSERT_TRUE(stream.ok()) << i << ": " << stream.error().line();
    (void)(*stream)->write_all(as_bytes("hello"), in_ms(kPatienceMs));
    while (true) {
      const auto n = (*stream)->read(word, in_ms(kPatienceMs));
      if (!n.ok() || *n == 0) break;
    }
    (*stream)->close();
  }
  auto stream = connect();
  ASSERT_TRUE(stream.ok()) << stream.error().line();
  ASSERT_TRUE((*stream)->write_all(as_bytes("hello"), in_ms(kPatienceMs)).ok());
  ASSERT_TRUE(read_exact(**stream, word, in_ms(kPatienceMs)).ok());
  EXPECT_EQ(as_text(word), "hello");
}

// A claim that crossed the end of a slot on its way, or was signed by another clock than the
// plane's.
TEST_F(NodeAttempt, AClaimThatThePlaneDoesNotTakeIsSignedAnew) {
  picky_ = true;
  bundle_.plan.body.gate.release_slot_seconds = 2;
  const channel::Listener silent = channel::listen_tcp({}).value();
  run(silent.port);
  stop_.request(Reason::kLost);
  join();
  EXPECT_TRUE(ended_.ok()) << ended_.error().line();
  ASSERT_GE(claims_.size(), 2U);
  for (const auto& c : claims_) EXPECT_EQ(c.time % 2, 0);
  EXPECT_GT(claims_.back().time, claims_.front().time);
}

// What an environment that ends in silence knows of it.
TEST_F(NodeAttempt, AnEnvironmentThatEndsBeforeItsAgentsWordSaysWhy) {
  streams_.why = fail(Reason::kBootFailed, "the kernel panicked");
  run(1);
  mux_->close();
  join();
  EXPECT_EQ(last_phase().reason, "boot-failed");
  EXPECT_EQ(last_phase().detail, "the kernel panicked");
  EXPECT_EQ(streams_.asked_spoke, 0);
}
TEST_F(NodeAttempt, AnAgentThatSpokeAndWentIsLost) {
  run(1);
  ASSERT_TRUE(node_->call(method::kLaunch, to_json(Empty{}), kPatienceMs).ok());
  mux_->close();
  join();
  EXPECT_EQ(last_phase().reason, "lost");
  EXPECT_EQ(streams_.asked_spoke, 1);
}

// Both stages have a limit of their own, whatever the agent does meanwhile.
TEST_F(NodeAttempt, WhatDoesNotStartInTimeIsEnded) {
  options_.start_grace_ms = 1;
  bundle_.submission.submission.body.spec.spec.timeouts.start = 0;
  bundle_.plan.body.controls.run_seconds = 3600;
  run(1);
  join();
  EXPECT_EQ(last_phase().reason, "timed-out");
  EXPECT_NE(last_phase().detail.find("spec.timeouts.start"), std::string::npos);
  EXPECT_EQ(streams_.asked_spoke, -1) << "its end is ours";
}
TEST_F(NodeAttempt, WhatWorksTooLongIsEndedAndItsStartNotCounted) {
  options_.end_grace_ms = 1;
  bundle_.submission.submission.body.spec.spec.timeouts.start = 3600;
  bundle_.plan.body.controls.run_seconds = 0;
  run(1);
  PhaseReport working;
  working.phase = EnvironmentPhase::kWorking;
  (void)node_->call(method::kAgentPhase, to_json(working), kPatienceMs);
  join();
  EXPECT_EQ(last_phase().reason, "timed-out");
  EXPECT_NE(last_phase().detail.find("spec.timeouts.run"), std::string::npos);
}

// Storage that does not answer, say: a start has its limit from its beginning, and can be stopped.
TEST_F(NodeAttempt, AStartThatHangsIsEndedAtTheLimit) {
  streams_.hangs = true;
  options_.start_grace_ms = 1;
  bundle_.submission.submission.body.spec.spec.timeouts.start = 0;
  run(1);
  join();
  EXPECT_TRUE(streams_.given_up);
  EXPECT_EQ(last_phase().reason, "timed-out");
  EXPECT_NE(last_phase().detail.find("spec.timeouts.start"), std::string::npos);
}
TEST_F(NodeAttempt, AStartThatHangsIsEndedByAStop) {
  streams_.hangs = true;
  run(1);
  stop_.request(Reason::kJobCancelled);
  join();
  EXPECT_TRUE(streams_.given_up);
  EXPECT_EQ(last_phase().reason, "job-cancelled");
}

// An agent that says anything under the name of an output has no more time for it.
TEST_F(NodeAttempt, AnOutputThatIsNoneKeepsNobodyFromStoppingIt) {
  run(1);
  EXPECT_FALSE(node_->call(method::kAgentOutput, Json(), kPatienceMs).ok());
  stop_.request(Reason::kJobCancelled);
  join();
  EXPECT_EQ(last_phase().reason, "job-cancelled");
}
// It is let through while it is on its way, and no longer.
TEST_F(NodeAttempt, AStopDuringAnOutputThatIsRefusedCountsThen) {
  bool cut = true;
  at_output = [&]() -> Result<Json> {
    stop_.request(Reason::kJobCancelled);
    cut = false;
    return fail(Reason::kWrongState, "no longer wanted");
  };
  run(1);
  OutputUpload upload;
  upload.ack = sign(Hash32{}, SealAck{}, node_key_).value();
  upload.output.ciphertext = Bytes(16);
  upload.output.wrapped_content = {Bytes(64)};
  EXPECT_FALSE(node_->call(method::kAgentOutput, to_json(upload), kPatienceMs).ok());
  join();
  EXPECT_FALSE(cut) << "the plane had it";
  EXPECT_EQ(last_phase().reason, "job-cancelled");
}

// The agent's stream is one after another: who keeps the old one gets no new one.
TEST_F(NodeAttempt, AStreamThatTheAgentKeepsIsNotGivenAgain) {
  const channel::Listener silent = channel::listen_tcp({}).value();
  run(silent.port);
  ASSERT_TRUE(connect().ok());
  EXPECT_EQ(connect().reason(), Reason::kWrongState);
}

}  // namespace
}  // namespace gbx::node
