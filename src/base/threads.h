// Threads of programs that go on where there is none to be had.
#pragma once

#include <system_error>
#include <thread>
#include <utility>

#include "base/result.h"

namespace gbx {

// std::thread throws where the machine has no more of them, as when containers have taken them all.
// kUnavailable then: what asked for one fails, not the program.
template <class F>
Result<std::thread> start_thread(F&& f) {
  try {
    return std::thread(std::forward<F>(f));
  } catch (const std::system_error& e) {
    return fail(Reason::kUnavailable, "a thread").with("room for one more", e.code().message());
  }
}

}  // namespace gbx
