// Takes away from this process everything that the gate does not need. Irreversible.
#pragma once

#include <vector>

#include "gate/records.h"

namespace gbx::gate {

struct ConfineOptions {
  std::vector<int> folders;  // directory descriptors that stay readable
  std::uint64_t memory_bytes = std::uint64_t{2} << 30;
  std::uint64_t cpu_seconds = 600;
};
// no_new_privs, limits on memory, CPU, files and processes, Landlock where the kernel has it (read
// beneath `folders` only), then a seccomp allow-list that kills on anything else: no network, no
// exec, no open but openat2, no executable memory. In sanitizer builds seccomp and the memory limit
// are left out, and the record says so.
Result<Confinement> confine(const ConfineOptions& options);

}  // namespace gbx::gate
