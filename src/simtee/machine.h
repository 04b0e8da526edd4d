// Starts one virtual machine in the place of hardware that would measure it: firmware, kernel and
// initrd are copied into memory that nobody can change any more, hashed there, and QEMU boots from
// these very bytes. So what the quotes say is what was launched, whatever happens to the files.
// Nothing is protected from whoever runs this program; every certificate says SIMULATED. One
// thread; what the guest asks is untrusted.
#pragma once

#include <optional>

#include "attest/sim/events.h"
#include "attest/sim/platform.h"
#include "base/log.h"
#include "base/os.h"
#include "vm/launch.h"

namespace gbx::simtee {

inline constexpr std::int64_t kMaxFirmwareBytes = std::int64_t{64} << 20;
inline constexpr std::int64_t kMaxKernelBytes = std::int64_t{256} << 20;
inline constexpr std::int64_t kMaxInitrdBytes = std::int64_t{1} << 30;

// Bytes that stay as they are for as long as anybody holds the descriptor.
struct SealedFile {
  Fd fd;
  attest::tdx::Register sha384{};
  Hash32 sha256{};
};
// Errors: kIo, kTooLarge beyond `limit`, kBadValue for an empty file.
Result<SealedFile> sealed_copy(const std::string& path, std::int64_t limit);

// What the release says of its files.
struct ExpectedFiles {
  Hash32 firmware{};
  Hash32 kernel{};
  Hash32 initrd{};
};

struct MachineOptions {
  // Descriptors and paths are this program's; the tee stream is made here.
  vm::LaunchDescription machine;
  ExpectedFiles expected;
  uid_t qemu_uid = 0;
  uid_t own_uid = 0;  // of this process once QEMU runs
  // The node's end of it is never written to; when it is closed, the node has gone.
  int node_fd = -1;
  std::int64_t life_ms = 0;  // of the machine, whatever it does
  int memory_cgroup = -1;    // an open cgroup.procs that this process joins before all else
};

// Until the machine has ended; it does not outlive this process, nor the node, nor its limit.
// Needs root, and leaves the process confined (simtee/confine.h): once in a process. Errors: those
// of the description, of the files, kFirmwareMismatch, kKernelMismatch and kInitrdMismatch for a
// file that is not the release's, kSandboxSetup, kLost and kTimedOut as of Watch, and kBootFailed
// when QEMU ended otherwise than by the guest's word.
Status run_machine(const attest::sim::SimPlatform& platform, const MachineOptions& options,
                   const Clock& clock, const Logger& log);

}  // namespace gbx::simtee
