// One typed description of a virtual machine, and the command line of QEMU that is it. There is one
// machine type on every platform: no network, no shared memory, no clipboard, no monitor; two named
// streams and one read-only volume, all over descriptors that are open already, so that no socket
// has a name (docs/vm.md). The command lines for TDX and SEV-SNP are UNTESTED ON HARDWARE.
// Values in, values out; what a description says is checked, whoever wrote it.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"

namespace gbx::vm {

// What runs the machine. Emulation and KVM protect nothing from the host: there the technology is
// `sim` and its evidence comes over the tee stream.
enum class Platform { kEmulation, kKvm, kTdx, kSnp };
inline constexpr Platform kPlatforms[] = {Platform::kEmulation, Platform::kKvm, Platform::kTdx,
                                          Platform::kSnp};
std::string_view platform_name(Platform platform);

// More need an IOMMU, which this machine has not.
inline constexpr std::int64_t kMaxCpus = 255;
inline constexpr std::int64_t kMinMemoryBytes = std::int64_t{256} << 20;
inline constexpr std::int64_t kMaxMemoryBytes = std::int64_t{1} << 44;
// Memory comes in these; beyond it QEMU's page tables and devices need some of their own.
inline constexpr std::int64_t kMemoryUnit = std::int64_t{2} << 20;
inline constexpr std::int64_t kHostOverheadBytes = std::int64_t{256} << 20;
// COMMAND_LINE_SIZE of x86 without its NUL.
inline constexpr std::size_t kMaxCommandLine = 2047;
inline constexpr std::size_t kMaxPath = 1024;

inline constexpr std::string_view kControlPort = "org.glovebox.control";
inline constexpr std::string_view kTeePort = "org.glovebox.tee";
inline constexpr std::string_view kVolumeExport = "volume";

// Where QEMU finds the quote generation service of TDX, for guests that ask through it.
struct VsockAddress {
  std::uint32_t cid = 2;  // the host
  std::uint32_t port = 4050;
};
struct UnixAddress {
  std::string path;
};

struct LaunchDescription {
  Platform platform = Platform::kEmulation;
  std::string qemu = "/usr/bin/qemu-system-x86_64";
  // Absolute paths; /proc/self/fd/N names a descriptor that QEMU inherits.
  std::string firmware;
  std::string kernel;
  std::string initrd;
  std::string command_line;
  std::int64_t cpus = 1;
  std::int64_t memory_bytes = kMinMemoryBytes;
  // MRCONFIGID or HOST_DATA. On emulation and KVM simtee puts it into what it signs.
  Hash32 launch_configuration{};
  // Numbers in the QEMU process, of connected stream sockets; each another one.
  int control_fd = -1;        // node ↔ agent
  int volume_fd = -1;         // NBD, as vm/nbd_server.h serves it
  std::optional<int> tee_fd;  // simtee ↔ agent; on emulation and KVM only
  std::variant<std::monostate, VsockAddress, UnixAddress> quote_service;  // TDX only
};

// kBadValue, kTooLarge, or kUnsupported for what the platform does not have; nothing is started.
Status check_launch(const LaunchDescription& description);

struct HostRoom {
  std::int64_t cpus = 0;
  std::int64_t memory_bytes = 0;  // that may be used now
};
Result<HostRoom> host_room();
// kNoCapacity, with what is asked and what there is.
Status check_fits(const LaunchDescription& description, const HostRoom& room);

// argv of QEMU, argv[0] included. Errors: those of check_launch().
Result<std::vector<std::string>> qemu_arguments(const LaunchDescription& description);

// The processor that a platform's guests see.
std::string_view cpu_model(Platform platform);
// "-accel": what follows it.
std::string_view accelerator(Platform platform);
// What every machine is told behind "-machine", the platform's own properties aside.
std::string_view machine_type();
// Options by which QEMU gives up what it does not need, and nothing of the user's is read.
const std::vector<std::string>& hardening();

}  // namespace gbx::vm
