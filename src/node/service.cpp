#include "node/service.h"

#include <algorithm>
#include <chrono>

namespace gbx::node {

using namespace records;

namespace {

// a heartbeat waits so long at the plane for something to cancel
constexpr std::int64_t kListenMs = 2'000;
constexpr std::int64_t kPollMs = 5'000;  // and a slot for work
constexpr std::int64_t kRestMs = 500;    // between heartbeats that wait for nothing
constexpr std::int64_t kAwayMs = 1'000;  // after no answer, or none that says anything
constexpr std::int64_t kFirstLeaseSeconds = 30;

}  // namespace

Service::Service(ServiceOptions options)
    : o_(std::move(options)), capacity_(o_.info.memory_bytes, o_.info.pids.value_or(0)) {}

void Service::start() {
  threads_.emplace_back([this] { heartbeat_loop(); });
  for (std::int64_t i = 0; i < o_.info.slots; ++i) {
    threads_.emplace_back([this] { slot_loop(); });
  }
}

void Service::stop() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
    for (auto& a : running_) a.stop->request(Reason::kLost);
  }
  wake_.notify_all();
  for (auto& t : threads_) t.join();
  threads_.clear();
}

bool Service::stopping() {
  const std::scoped_lock lock(mutex_);
  return stopping_;
}

// True when the node stops.
bool Service::pause(std::int64_t ms) {
  std::unique_lock lock(mutex_);
  if (ms <= 0) return stopping_;
  const std::chrono::milliseconds comes_to(o_.waits(ms));
  return wake_.wait_for(lock, comes_to, [this] { return stopping_; });
}

void Service::note(const NodeLease& lease) {
  const std::scoped_lock lock(mutex_);
  for (const auto& id : lease.stop) {
    for (auto& a : running_) {
      if (a.id == id) a.stop->request(Reason::kJobCancelled);
    }
  }
}

Heartbeat Service::next_beat() {
  Heartbeat beat;
  beat.name = o_.info.name;
  const std::scoped_lock lock(mutex_);
  for (const auto& a : running_) beat.running.push_back(a.id);
  const bool ending = std::any_of(running_.begin(), running_.end(),
                                  [](const auto& a) { return a.stop->requested().has_value(); });
  if (!running_.empty() && !ending) beat.wait_ms = kListenMs;
  return beat;
}

// Between heartbeats, of which the last began at `since_ms`. A first attempt ends the rest of a
// node that was idle: the plane shall know of it, to be able to cancel it. False when the node
// stops.
bool Service::rest(std::int64_t since_ms, std::int64_t ms, bool idle) {
  const std::int64_t least =
      std::max<std::int64_t>(kLeastGapMs - (o_.clock->steady_ms() - since_ms), 0);
  if (pause(least)) return false;
  const std::int64_t left = std::min(ms, kMostRestMs) - least;
  std::unique_lock lock(mutex_);
  if (left > 0) {
    const std::chrono::milliseconds comes_to(o_.waits(left));
    (void)wake_.wait_for(lock, comes_to, [&] { return stopping_ || (idle && !running_.empty()); });
  }
  return !stopping_;
}

void Service::heartbeat_loop() {
  const auto plane = o_.plane();
  bool registered = false;
  std::int64_t lease_s = kFirstLeaseSeconds;
  std::int64_t rest_ms = 0;
  std::int64_t began_ms = 0;
  bool idle = true;
  do {
    const Heartbeat beat = next_beat();
    idle = beat.running.empty();
    began_ms = o_.clock->steady_ms();
    auto reply = registered ? plane->call(method::kNodeHeartbeat, to_json(beat), 10'000)
                            : plane->call(method::kNodeRegister, to_json(o_.info), 10'000);
    if (reply.ok()) {
      if (auto lease = from_json<NodeLease>(*reply); lease.ok()) {
        note(*lease);
        lease_s = lease->lease_seconds;
      } else {
        o_.log->error("lease", lease.error());
      }
      // With something running the next question follows the answer: that is how a cancellation
      // arrives at once.
      rest_ms = idle ? std::max(lease_s * 1000 / 4, kRestMs) : beat.wait_ms > 0 ? 0 : kRestMs;
      if (!registered) {
        o_.log->info("registered", {{"name", o_.info.name}, {"key", o_.info.key}});
      }
      registered = true;
    } else {
      o_.log->error("heartbeat", reply.error());
      if (reply.error().reason == Reason::kNotFound ||
          reply.error().reason == Reason::kUnauthenticated) {
        registered = false;
      }
      rest_ms = kAwayMs;
    }
  } while (rest(began_ms, rest_ms, idle));
}

void Service::slot_loop() {
  const auto plane = o_.plane();
  const auto for_attempts = o_.plane();
  while (!stopping()) {
    const std::int64_t began_ms = o_.clock->steady_ms();
    auto reply =
        plane->call(method::kNodePoll, to_json(PollRequest{o_.info.name, kPollMs}), 3 * kPollMs);
    const auto poll = reply.ok() ? from_json<PollReply>(*reply) : Result<PollReply>(reply.error());
    if (!poll.ok()) {
      if (reply.ok()) o_.log->error("poll", poll.error());
      if (pause(kAwayMs)) return;
      continue;
    }
    if (poll->assignment) run(*poll->assignment, *for_attempts);
    if (pause(kLeastGapMs - (o_.clock->steady_ms() - began_ms))) return;
  }
}

void Service::run(const LaunchBundle& bundle, PlaneCalls& plane) {
  const RunningAttempt self{bundle.submission.submission.body.job_id(),
                            bundle.credential.body.attempt};
  StopSignal stop;
  {
    const std::scoped_lock lock(mutex_);
    // Handed out twice, because the plane thought that its first answer was lost.
    if (std::any_of(running_.begin(), running_.end(),
                    [&](const Attempt& a) { return a.id == self; })) {
      return;
    }
    running_.push_back({self, &stop});
    if (stopping_) stop.request(Reason::kLost);
  }
  wake_.notify_all();
  AttemptOptions o;
  o.clock = o_.clock;
  o.log = o_.log;
  o.key = o_.key;
  o.broker = o_.broker;
  o.provisioner = o_.provisioner;
  o.plane = &plane;
  o.waits = o_.waits;
  const PlanControls& controls = bundle.plan.body.controls;
  const Result<std::int64_t> bytes = o_.provisioner->memory_for(bundle);
  const Status taken = bytes.ok() ? capacity_.take(controls, *bytes) : Status(bytes.error());
  if (!taken.ok()) o.refused = taken.error();
  const Status s = run_attempt(o, bundle, stop);
  if (!s.ok()) o_.log->error("attempt", s.error());
  if (taken.ok()) capacity_.give_back(*bytes);
  const std::scoped_lock lock(mutex_);
  std::erase_if(running_, [&](const Attempt& a) { return a.stop == &stop; });
}

}  // namespace gbx::node
