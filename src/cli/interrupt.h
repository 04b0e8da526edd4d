// What Ctrl-C leaves on the screen: a clean line, how to go on, and a terminal that shows again
// what is typed. The programs that we stop in the middle are made for it (a publication resumes, a
// job goes on), so the process ends at once, by the signal itself, and the shell sees that.
#pragma once

#include <string>

struct termios;

namespace gbx::cli {

// While it lives, SIGINT, SIGTERM and SIGHUP print `message` first. Guards nest; the inner one
// counts.
class Interruptible {
 public:
  // `restore`: settings that the terminal gets back, with what was typed and not read thrown away.
  explicit Interruptible(std::string message, const termios* restore = nullptr);
  ~Interruptible();
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

 private:
  friend void handle_interrupt(int number);
  const std::string message_;
  const termios* const restore_;
  const Interruptible* const outer_;
};

}  // namespace gbx::cli
