// The node at work: registers with its plane, says that it lives, polls, and runs one attempt per
// slot, each in a thread of its own. The plane is not trusted: whatever it answers, it is asked
// neither more often than kLeastGapMs nor, for a heartbeat, later than kMostRestMs.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "node/attempt.h"
#include "node/capacity.h"

namespace gbx::node {

// From one question to the next of the same thread: a plane that answers at once does not make the
// node spin.
inline constexpr std::int64_t kLeastGapMs = 250;
// From an answer to the next heartbeat: a plane that lends a long time does not make the node deaf.
inline constexpr std::int64_t kMostRestMs = 60'000;

struct ServiceOptions {
  records::NodeInfo info;  // what the plane is told, with the slots and what is lent
  channel::TcpAddress broker;
  // These outlive the service; the provisioner was cleared.
  const Clock* clock = nullptr;
  const Logger* log = nullptr;
  const crypto::SigningKey* key = nullptr;
  Provisioner* provisioner = nullptr;
  // A connection to the plane; each thread has its own, and each slot one more for its attempt.
  std::function<std::unique_ptr<PlaneCalls>()> plane;
  Waits waits = wait_in_full;
};

class Service {
 public:
  explicit Service(ServiceOptions options);
  ~Service() { stop(); }
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;
  void start();  // once
  // What runs ends as lost, and is told so. Returns when all threads have ended.
  void stop();

 private:
  struct Attempt {
    records::RunningAttempt id;
    StopSignal* stop;  // lives in run()
  };
  bool stopping();
  bool pause(std::int64_t ms);
  bool rest(std::int64_t since_ms, std::int64_t ms, bool idle);
  void note(const records::NodeLease& lease);
  records::Heartbeat next_beat();
  void heartbeat_loop();
  void slot_loop();
  void run(const records::LaunchBundle& bundle, PlaneCalls& plane);

  const ServiceOptions o_;
  Capacity capacity_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;         // guarded by mutex_
  std::vector<Attempt> running_;  // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace gbx::node
