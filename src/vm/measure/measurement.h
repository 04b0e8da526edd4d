// What all technologies' measurements have in common: the inputs, and the result with its reasons.
// Values; the views belong to the caller. Threads: none of its own.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"

namespace gbx::vm::measure {

using Register = FixedBytes<48>;  // SHA-384, in every technology

inline constexpr std::size_t kMaxKernelSize = 128U << 20;
inline constexpr std::size_t kMaxInitrdSize = 1U << 30;

// What is booted: `-kernel`, `-initrd`, `-append`.
struct Boot {
  ByteView kernel;
  ByteView initrd;  // empty: none
  std::string cmdline;
};

// One step into a register. `digest` is what extended it; of MRTD and the digest of SEV-SNP, which
// hash pages and not digests, it is the value after the step.
struct Step {
  std::string what;   // "TD HOB", "command line"
  std::string input;  // which input decides it: "firmware", "memory", "acpi", …
  Register digest{};
};
struct Measured {
  std::string name;  // "MRTD", "RTMR1", "MEASUREMENT"
  Register value{};
  std::vector<Step> steps;
};

// As a runtime register begins and grows: zero, then SHA-384(value ‖ digest) for each step.
void extend(Measured& m, std::string what, std::string input, const Register& digest);

// As a launch description may have them (vm/launch.h): kBadValue, kTooLarge.
Status check_cpus(std::int64_t cpus);
Status check_memory(std::int64_t bytes);
// One line of printable ASCII: firmware makes one UTF-16 unit of each byte. kBadValue, kTooLarge.
Status check_cmdline(const std::string& cmdline);

}  // namespace gbx::vm::measure
