// The walls round glovebox-unpack, which parses hostile tars as root. Used by that program and its
// test only.
//
// What it keeps, and why: CAP_CHOWN (files get owners in the container's shifted range), CAP_FOWNER
// and CAP_DAC_OVERRIDE (modes, times and entries of directories that then belong to that range and
// may not be writable). These three would be much on the whole file system, so Landlock takes away
// everything but the two directories: reading below the layout; making, writing and removing files,
// directories and links below the target; no device, no fifo, no socket, no execution. Network, IPC
// and UTS namespaces are its own and empty; no_new_privs; system calls from a list of some forty,
// anything else kills it; bounded memory, file size, descriptors and CPU time; no core dump.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace gbx::oci {

struct ConfineOptions {
  int layout_fd = -1;
  int target_fd = -1;
  std::uint64_t max_file_bytes = 0;
  std::uint64_t cpu_seconds = 3600;
};
struct Confinement {
  int landlock_abi = 0;
  bool seccomp = false;  // false only in builds with sanitizers, whose runtimes need other calls
};
// For the calling thread and all it starts; cannot be undone. kSandboxSetup when any wall cannot be
// built: there is no weaker mode.
Result<Confinement> confine(const ConfineOptions& options);

}  // namespace gbx::oci
