#include "vm/measure/measurement.h"

#include <algorithm>

#include "crypto/crypto.h"
#include "vm/launch.h"

namespace gbx::vm::measure {

void extend(Measured& m, std::string what, std::string input, const Register& digest) {
  m.value = crypto::sha384(concat({m.value, digest}));
  m.steps.push_back({std::move(what), std::move(input), digest});
}

Status check_cpus(std::int64_t cpus) {
  if (cpus >= 1 && cpus <= kMaxCpus) return ok_status();
  return fail(Reason::kBadValue, "processors")
      .with("1 to " + std::to_string(kMaxCpus), std::to_string(cpus));
}

Status check_memory(std::int64_t bytes) {
  if (bytes >= kMinMemoryBytes && bytes <= kMaxMemoryBytes && bytes % kMemoryUnit == 0) {
    return ok_status();
  }
  return fail(Reason::kBadValue, "memory")
      .with(std::to_string(kMinMemoryBytes) + " to " + std::to_string(kMaxMemoryBytes) +
                " bytes, a multiple of " + std::to_string(kMemoryUnit),
            std::to_string(bytes));
}

Status check_cmdline(const std::string& cmdline) {
  if (cmdline.size() > kMaxCommandLine) {
    return fail(Reason::kTooLarge, "kernel command line")
        .with("at most " + std::to_string(kMaxCommandLine) + " bytes",
              std::to_string(cmdline.size()));
  }
  const bool plain =
      std::all_of(cmdline.begin(), cmdline.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (plain) return ok_status();
  return fail(Reason::kBadValue, "kernel command line")
      .with("one line of printable ASCII", "another character");
}

}  // namespace gbx::vm::measure
