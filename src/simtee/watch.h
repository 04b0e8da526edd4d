// What has to be seen to beside the guest's questions: that the node lives, that the machine does
// not outlive its limit, and what QEMU complains of. One thread of its own between start() and
// stop(). What QEMU says is untrusted text.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "base/log.h"
#include "base/os.h"

namespace gbx::simtee {

// Of what QEMU complains: lines that are logged, and bytes of one; more is read and dropped.
inline constexpr int kComplaints = 200;
inline constexpr std::size_t kComplaintBytes = 500;

struct Watched {     // descriptors that are numbers outlive the watch
  int qemu = -1;     // a pidfd: killed when the node has gone, at the limit, or unwatched
  Fd complaints;     // the read end of QEMU's standard error
  int node_fd = -1;  // whatever comes over it, and its end, mean that the node has gone
  std::int64_t life_ms = 0;
};

// SIGKILL to the process of that pidfd; nothing when it has ended.
void kill_by(int pidfd);

class Watch {
 public:
  // `log` outlives it.
  static Result<std::unique_ptr<Watch>> start(Watched watched, const Logger& log);
  ~Watch() { stop(); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  // Once QEMU was waited for: reads what it still said. Idempotent.
  void stop();
  // After stop(). Why QEMU was killed here: kLost (the node has gone), kTimedOut, kIo when it could
  // not be watched any more.
  const std::optional<Error>& ended() const { return ended_; }
  // After stop(). The last line that QEMU wrote.
  const std::string& last_words() const { return last_words_; }

 private:
  Watch(Watched watched, const Logger& log) : watched_(std::move(watched)), log_(log) {}
  void run();
  void end(const Error& why);
  bool hear();
  void line();

  Watched watched_;
  const Logger& log_;
  std::pair<Fd, Fd> stop_;  // a pipe; its write end is closed to stop
  // The thread's own until it was joined.
  std::optional<Error> ended_;
  std::string last_words_;
  std::string heard_;
  int lines_ = 0;
  std::thread thread_;
};

}  // namespace gbx::simtee
