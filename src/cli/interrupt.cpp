#include "cli/interrupt.h"

#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>

namespace gbx::cli {

namespace {
// A signal handler reaches nothing else. Set and cleared by the one thread that runs commands.
std::atomic<const Interruptible*> innermost = nullptr;
constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};
}  // namespace

// Only async-signal-safe calls.
void handle_interrupt(int number) {
  for (const Interruptible* at = innermost; at != nullptr; at = at->outer_) {
    if (at->restore_ != nullptr) (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, at->restore_);
  }
  if (const Interruptible* at = innermost; at != nullptr && !at->message_.empty()) {
    (void)!write(STDERR_FILENO, at->message_.data(), at->message_.size());
  }
  (void)signal(number, SIG_DFL);
  (void)raise(number);  // delivered when this returns
}

Interruptible::Interruptible(std::string message, const termios* restore)
    : message_(std::move(message)), restore_(restore), outer_(innermost) {
  innermost = this;
  if (outer_ != nullptr) return;
  struct sigaction action {};
  action.sa_handler = handle_interrupt;
  for (const int s : kSignals) (void)sigaction(s, &action, nullptr);
}
Interruptible::~Interruptible() {
  innermost = outer_;
  if (outer_ != nullptr) return;
  for (const int s : kSignals) (void)signal(s, SIG_DFL);
}

}  // namespace gbx::cli
