#include "node/attempt.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>

#include "base/bundle_size.h"
#include "base/threads.h"
#include "channel/mux.h"

namespace gbx::node {

using namespace records;

namespace {

constexpr std::int64_t kPlaneTimeoutMs = 30'000;
constexpr std::int64_t kPlanePatienceMs = 300'000;  // with a plane that is away
constexpr std::int64_t kAgainMs = 500;              // before it is asked again
constexpr std::int64_t kMostStartSeconds = 86'400;  // the bound of spec.timeouts.start

// Calls `over` once when a stage of the attempt lasts longer than it may.
class StageLimit {
 public:
  explicit StageLimit(const Clock& clock) : clock_(clock) {}
  ~StageLimit() {
    {
      const std::scoped_lock lock(mutex_);
      done_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }
  StageLimit(const StageLimit&) = delete;
  StageLimit& operator=(const StageLimit&) = delete;

  Status start(std::int64_t ms, std::function<void()> over) {
    begin(ms);
    over_ = std::move(over);
    GBX_ASSIGN(thread_, start_thread([this] { watch(); }));
    return ok_status();
  }
  // The next stage, in place of the one before.
  void begin(std::int64_t ms) {
    {
      const std::scoped_lock lock(mutex_);
      until_ms_ = clock_.steady_ms() + ms;
    }
    changed_.notify_all();
  }

 private:
  void watch() {
    std::unique_lock lock(mutex_);
    while (!done_) {
      const std::int64_t left = until_ms_ - clock_.steady_ms();
      if (left <= 0) {
        lock.unlock();
        return over_();
      }
      changed_.wait_for(lock, std::chrono::milliseconds(left));
    }
  }

  const Clock& clock_;
  std::function<void()> over_;  // constant once the thread runs
  std::mutex mutex_;
  std::condition_variable changed_;
  std::int64_t until_ms_ = 0;  // guarded by mutex_
  bool done_ = false;          // guarded by mutex_
  std::thread thread_;
};

class Running {
 public:
  Running(const AttemptOptions& o, const LaunchBundle& bundle, StopSignal& stop)
      : o_(o), bundle_(bundle), stop_(stop), job_id_(bundle.submission.submission.body.job_id()) {}

  Status run() {
    Status end = live();
    if (const auto why = stop_.requested(); why && !end_.sealed) end = stopped(*why);
    if (!end.ok()) {
      end_.reason = reason_code(end.error().reason);
      end_.detail = end.error().detail().substr(0, 500);
    }
    return tell_destroyed();
  }

 private:
  std::string name() const {
    return to_hex(job_id_).substr(0, 16) + "-" + std::to_string(bundle_.credential.body.attempt);
  }
  // Plan and submission are the plane's word here, and only the agent checks them: no number of
  // them is to overflow.
  std::int64_t start_ms() const {
    const std::int64_t asked = bundle_.submission.submission.body.spec.spec.timeouts.start;
    return std::clamp<std::int64_t>(asked, 0, kMostStartSeconds) * 1000 + o_.start_grace_ms;
  }
  std::int64_t work_ms() const {
    const std::int64_t planned = bundle_.plan.body.controls.run_seconds;
    return std::clamp<std::int64_t>(planned, 0, kMaxRunSeconds) * 1000 + o_.end_grace_ms;
  }
  std::int64_t life_ms() const { return start_ms() + work_ms(); }

  // Until the agent said `end`, broke its stream, or ran out of time.
  Status live() {
    if (o_.refused) return *o_.refused;
    GBX_ASSIGN(give_up_, make_pipe());
    StageLimit limit(*o_.clock);
    limit_ = &limit;
    GBX_TRY(limit.start(start_ms(), [this] { cut(Cut::kLimit); }));
    const StopSignal::Listener listener(stop_, [this](Reason) { cut(Cut::kStop); });
    auto started = o_.provisioner->start({name(), bundle_, life_ms(), give_up_.first.get()});
    if (!started.ok()) return too_long_ ? ran_too_long() : started.error();
    environment_ = std::move(*started);
    {
      const std::scoped_lock lock(cut_mutex_);
      mux_.emplace(environment_->stream(), *o_.clock);
      if (was_cut_) mux_->close();
    }
    Status end = serve_agent(*mux_);
    end_relay();
    const std::scoped_lock lock(cut_mutex_);
    mux_.reset();
    return end;
  }

  // Ends what goes on, from any thread. The agent, its stream gone, kills the container and ends;
  // destroy() sees to it. An output that is on its way has limits of its own, and is let through
  // whoever stops the attempt: nothing untrusted runs any more, no other attempt could seal one,
  // and a plane that does not want it refuses it.
  enum class Cut { kLimit, kStop };
  void cut(Cut why) {
    const std::scoped_lock lock(cut_mutex_);
    if (uploading_) {
      deferred_ = why;
    } else {
      cut_now(why);
    }
  }
  // With cut_mutex_.
  void cut_now(Cut why) {
    if (why == Cut::kLimit) too_long_ = true;
    was_cut_ = true;
    give_up_.second.reset();
    if (mux_) mux_->close();
  }
  void begin_upload() {
    const std::scoped_lock lock(cut_mutex_);
    uploading_ = true;
  }
  // What was to end meanwhile ends now.
  void upload_failed() {
    const std::scoped_lock lock(cut_mutex_);
    uploading_ = false;
    if (const auto why = std::exchange(deferred_, std::nullopt)) cut_now(*why);
  }

  Error ran_too_long() const {
    const bool started = working_;
    return fail(Reason::kTimedOut, started ? "the container, its gate and the sealing"
                                           : "the start of the environment")
        .with(std::string(started ? "spec.timeouts.run" : "spec.timeouts.start") + " and " +
                  std::to_string((started ? o_.end_grace_ms : o_.start_grace_ms) / 1000) +
                  " s, together " + std::to_string((started ? work_ms() : start_ms()) / 1000) +
                  " s",
              "it goes on")
        .hint(started ? "raise spec.timeouts.run" : "raise spec.timeouts.start");
  }

  // Why there was no word of an end. Nobody waits for an answer once the attempt was stopped.
  Error silent_end() {
    if (too_long_) return ran_too_long();
    if (!stop_.requested()) {
      if (auto why = environment_->why_ended(spoke_)) return *why;
    }
    return fail(Reason::kLost, "the agent ended without a word");
  }

  Status serve_agent(channel::Mux& mux) {
    channel::ServeLimits limits;
    limits.max_frame_bytes = kSealedBundleFrameBytes;
    limits.idle_ms = life_ms();
    Status served = channel::serve(
        mux.stream(channel::kMuxControl),
        [&](std::string_view m, const Json& b) { return dispatch(m, b); }, limits, *o_.clock);
    mux.close();
    if (ended_) return ok_status();
    const Error why = silent_end();
    // What it did against the protocol says more than that it is gone.
    const bool broke = !served.ok() && served.reason() != Reason::kConnectionClosed;
    return why.reason == Reason::kLost && broke ? served.error() : why;
  }

  // One connection at a time, all over one stream: the agent has given up the one before. It asks
  // again while nobody listens there.
  Result<Json> connect_broker() {
    end_relay();
    auto tcp = channel::connect_tcp(o_.broker, channel::Deadline::after_ms(*o_.clock, 10'000));
    if (!tcp.ok()) {
      o_.log->warn("broker-unreachable", {{"what", tcp.error().line()}});
      return fail(Reason::kUnavailable, "broker")
          .with("a connection", std::string(reason_code(tcp.reason())));
    }
    GBX_ASSIGN(relayed_, mux_->fresh(channel::kMuxBroker));
    broker_ = std::move(*tcp);
    GBX_ASSIGN(relay_, start_thread([this] { relay_to_broker(); }));
    return to_json(BrokerStream{static_cast<std::int64_t>(channel::kMuxBroker)});
  }
  // The agent speaks first: until it has, it may not know that the stream is a new one, and nothing
  // that comes from the broker's address may reach it.
  void relay_to_broker() {
    channel::RelayLimits limits;
    limits.idle_ms = life_ms();
    const auto in = [&](std::int64_t ms) { return channel::Deadline::after_ms(*o_.clock, ms); };
    Bytes first(16U << 10);
    const auto n = relayed_->read(first, in(limits.idle_ms));
    if (n.ok() && *n > 0 &&
        broker_->write_all(ByteView(first).first(*n), in(limits.write_ms)).ok()) {
      (void)channel::relay(*relayed_, *broker_, limits, *o_.clock);
    } else {
      relayed_->close();
    }
  }
  // Both ends: a broker that hangs says nothing more, and the relay would wait for it.
  void end_relay() {
    if (relayed_ != nullptr) relayed_->close();
    if (broker_) broker_->close();
    if (relay_.joinable()) relay_.join();
    relayed_ = nullptr;
    broker_.reset();
  }

  Result<Json> dispatch(std::string_view m, const Json& body) {
    spoke_ = true;
    if (m == method::kLaunch) return to_json(bundle_);
    if (m == method::kAgentBroker) return connect_broker();
    if (m == method::kIntroduce) return introduce(body);
    if (m == method::kRelease) return release();
    if (m == method::kAgentPhase) return phase(body);
    if (m == method::kAgentOutput) return output(body);
    if (m == method::kAgentEnd) {
      GBX_ASSIGN(end_, from_json<AgentEnd>(body));
      ended_ = true;
      return to_json(Empty{});
    }
    return fail(Reason::kNotFound, "no such method");
  }

  // Technology none: the node vouches for the report data of the one agent that it started for this
  // attempt.
  Result<Json> introduce(const Json& body) {
    GBX_ASSIGN(auto request, from_json<IntroduceRequest>(body));
    const Hash32 launch = hash_of(bundle_.launch_config);
    if (request.launch_config != launch) {
      return fail(Reason::kEvidenceRejected, "this is not what was launched");
    }
    NodeIntroduction intro{request.report_data, launch, job_id_, bundle_.credential.body.attempt,
                           o_.clock->now().seconds()};
    GBX_ASSIGN(auto signed_intro, sign(bundle_.launch_config.set_id, intro, *o_.key));
    return to_json(signed_intro);
  }

  Result<Json> release() const {
    const auto* booted = environment_->release();
    if (booted == nullptr) return fail(Reason::kNotFound, "a guest release of this environment");
    return to_json(ReleaseReply{*booted});
  }

  Result<Json> phase(const Json& body) {
    GBX_ASSIGN(auto report, from_json<PhaseReport>(body));
    report.job_id = job_id_;
    report.attempt = bundle_.credential.body.attempt;
    if (report.phase == EnvironmentPhase::kWorking && !working_.exchange(true)) {
      limit_->begin(work_ms());
    }
    if (stop_.requested() && !uploading_) return to_json(PhaseReply{true});
    auto reply = insist(method::kNodePhase, to_json(report), Stop::kHeeded);
    if (!reply.ok() && stop_.requested() && !uploading_) return to_json(PhaseReply{true});
    return reply;
  }

  Result<Json> output(const Json& body) {
    GBX_ASSIGN(auto upload, from_json<OutputUpload>(body));
    upload.job_id = job_id_;
    upload.attempt = bundle_.credential.body.attempt;
    begin_upload();
    auto reply = insist(method::kNodeOutput, to_json(upload), Stop::kHeeded, 4 * kPlaneTimeoutMs);
    if (!reply.ok()) upload_failed();
    return reply;
  }

  static Error stopped(Reason why) {
    return fail(why, why == Reason::kJobCancelled ? "the plane has this attempt stopped"
                                                  : "the node was stopped");
  }

  Status tell_destroyed() {
    std::vector<std::string> residue = end_.residue;
    if (environment_) {
      for (auto& line : environment_->destroy()) residue.push_back(std::move(line));
    }
    const std::int64_t attempt = bundle_.credential.body.attempt;
    if (!end_.sealed) {
      const EnvironmentPhase phase =
          residue.empty() ? EnvironmentPhase::kDestroyed : EnvironmentPhase::kLost;
      const PhaseReport last{job_id_, attempt, phase, end_.reason.empty() ? "lost" : end_.reason,
                             printable(end_.detail, 500)};
      GBX_TRY(insist(method::kNodePhase, to_json(last), Stop::kIgnored));
      o_.log->warn("attempt-ended",
                   {{"job", to_hex(job_id_)}, {"reason", last.reason}, {"detail", last.detail}});
    }
    // the receipt is the consumer's: no finer time
    const std::int64_t slot = bundle_.plan.body.gate.release_slot_seconds;
    // Signed anew for every try: the plane takes it in the slot that it names.
    const auto claim = [&]() -> Result<Json> {
      const std::int64_t time = slot_end(o_.clock->now().ms, slot * 1000) / 1000;
      GBX_ASSIGN(const auto signed_claim,
                 sign(bundle_.launch_config.set_id, DestroyedClaim{job_id_, attempt, time, residue},
                      *o_.key));
      return to_json(signed_claim);
    };
    GBX_TRY(insist(method::kNodeDestroyed, claim, Stop::kIgnored));
    return ok_status();
  }

  // Until the plane has it, for kPlanePatienceMs or until the attempt is stopped; an answer that
  // refuses is an answer.
  enum class Stop { kHeeded, kIgnored };
  Result<Json> insist(std::string_view m, const Json& body, Stop stop,
                      std::int64_t timeout_ms = kPlaneTimeoutMs) {
    return insist(
        m, [&]() -> Result<Json> { return body; }, stop, timeout_ms);
  }
  Result<Json> insist(std::string_view m, const std::function<Result<Json>()>& body, Stop stop,
                      std::int64_t timeout_ms = kPlaneTimeoutMs) {
    const auto deadline = channel::Deadline::after_ms(*o_.clock, kPlanePatienceMs);
    for (;;) {
      GBX_ASSIGN(const Json request, body());
      auto reply = o_.plane->call(m, request, timeout_ms);
      if (reply.ok() || exit_class(reply.reason()) != ExitClass::kInfrastructure) return reply;
      if (deadline.passed() || (stop == Stop::kHeeded && stop_.requested())) return reply;
      std::this_thread::sleep_for(std::chrono::milliseconds(o_.waits(kAgainMs)));
    }
  }

  const AttemptOptions& o_;
  const LaunchBundle& bundle_;
  StopSignal& stop_;
  const Hash32 job_id_;
  std::unique_ptr<Environment> environment_;
  // Lives while the agent is served, whose thread alone makes and unmakes it: with cut_mutex_.
  std::optional<channel::Mux> mux_;
  channel::MuxStream* relayed_ = nullptr;  // the agent's end of the relay, and the broker's
  std::unique_ptr<channel::FdStream> broker_;
  std::thread relay_;  // between the two
  AgentEnd end_;
  bool ended_ = false;
  StageLimit* limit_ = nullptr;       // from before the start until the agent was served
  bool spoke_ = false;                // the agent, anything
  std::atomic<bool> working_{false};  // it said that its container runs
  std::atomic<bool> too_long_{false};
  std::mutex cut_mutex_;
  std::pair<Fd, Fd> give_up_;    // a start that is under way ends when the write end is closed
  bool was_cut_ = false;         // guarded by cut_mutex_
  std::optional<Cut> deferred_;  // guarded by cut_mutex_: until the output that is on its way fails
  // Changed with cut_mutex_, by the thread that serves the agent.
  std::atomic<bool> uploading_{false};
};

}  // namespace

void StopSignal::request(Reason why) {
  const std::scoped_lock lock(mutex_);
  if (why_) return;
  why_ = why;
  if (action_) action_(why);
}
std::optional<Reason> StopSignal::requested() const {
  const std::scoped_lock lock(mutex_);
  return why_;
}
StopSignal::Listener::Listener(StopSignal& signal, std::function<void(Reason)> action)
    : signal_(signal) {
  const std::scoped_lock lock(signal_.mutex_);
  signal_.action_ = std::move(action);
  if (signal_.why_) signal_.action_(*signal_.why_);
}
StopSignal::Listener::~Listener() {
  const std::scoped_lock lock(signal_.mutex_);
  signal_.action_ = nullptr;
}

Status run_attempt(const AttemptOptions& options, const LaunchBundle& bundle, StopSignal& stop) {
  return Running(options, bundle, stop).run();
}

}  // namespace gbx::node
