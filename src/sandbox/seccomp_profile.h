// The system calls that a container may make: one table, from which the runtime's profile is
// written and against which the tests evaluate every rule. Default: EPERM. Calls of another
// architecture (i386, x32) kill.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace gbx::sandbox {

enum class Compare { kEqual, kMaskedZero };  // argument == value; (argument & value) == 0
// Allowed when the argument fits; a call may have several rules, any of which allows it.
struct ArgumentRule {
  std::string_view call;
  unsigned argument = 0;
  Compare compare = Compare::kEqual;
  std::uint64_t value = 0;
};
struct ErrnoRule {
  std::string_view call;
  int error = 0;
};

std::span<const std::string_view> allowed_calls();  // with any arguments
std::span<const ArgumentRule> argument_rules();
std::span<const ErrnoRule> errno_rules();  // answers other than EPERM

// linux.seccomp of an OCI config.
Json seccomp_json();

}  // namespace gbx::sandbox
