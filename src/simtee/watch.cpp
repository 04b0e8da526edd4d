#include "simtee/watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "base/threads.h"

namespace gbx::simtee {

void kill_by(int pidfd) {
  // SAFETY: takes a pidfd, a signal, no information and no flags.
  (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);
}

Result<std::unique_ptr<Watch>> Watch::start(Watched watched, const Logger& log) {
  std::unique_ptr<Watch> w(new Watch(std::move(watched), log));
  GBX_ASSIGN(w->stop_, make_pipe());
  GBX_ASSIGN(w->thread_, start_thread([watch = w.get()] { watch->run(); }));
  return w;
}

void Watch::stop() {
  stop_.second.reset();
  if (thread_.joinable()) thread_.join();
}

void Watch::run() {
  const SystemClock clock;
  const std::int64_t until = clock.steady_ms() + watched_.life_ms;
  bool talks = watched_.complaints.valid();
  bool stopping = false;
  while (talks || !stopping) {
    pollfd p[3] = {{talks ? watched_.complaints.get() : -1, POLLIN, 0},
                   {ended_ ? -1 : watched_.node_fd, POLLIN, 0},
                   {stopping ? -1 : stop_.first.get(), POLLIN, 0}};
    const std::int64_t left = std::max<std::int64_t>(until - clock.steady_ms(), 0);
    const std::int64_t wait = stopping ? 0 : ended_ ? -1 : std::min<std::int64_t>(left, INT32_MAX);
    const int n = poll(p, 3, static_cast<int>(wait));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && !stopping && !ended_) end(io_error("the watch over QEMU", errno));
    // QEMU has ended, and whoever else may have got its standard error is not waited for.
    if (n < 0 || (n == 0 && stopping)) return line();
    if (p[0].revents != 0) talks = hear();
    if (p[1].revents != 0) end(fail(Reason::kLost, "the node has gone"));
    if (p[2].revents != 0) stopping = true;
    if (left == 0 && !ended_ && !stopping) {
      end(fail(Reason::kTimedOut, "the machine")
              .with("its end after " + std::to_string(watched_.life_ms / 1000) + " s at most",
                    "it goes on"));
    }
  }
}

void Watch::end(const Error& why) {
  ended_ = why;
  kill_by(watched_.qemu);
}

// False at its end.
bool Watch::hear() {
  char block[4096];
  const ssize_t n = read(watched_.complaints.get(), block, sizeof block);
  if (n < 0 && errno == EINTR) return true;
  for (ssize_t i = 0; i < n; ++i) {
    if (block[i] == '\n') {
      line();
    } else if (heard_.size() < kComplaintBytes) {
      heard_.push_back(block[i]);
    }
  }
  if (n <= 0) line();
  return n > 0;
}

void Watch::line() {
  if (heard_.empty()) return;
  last_words_ = printable(heard_, kComplaintBytes);
  heard_.clear();
  if (lines_ > kComplaints) return;
  if (++lines_ > kComplaints) {
    log_.warn("qemu", {{"says", "more, which is dropped"}});
  } else {
    log_.warn("qemu", {{"says", last_words_}});
  }
}

}  // namespace gbx::simtee
