// What the installed QEMU has of what we ask of it. QEMU's own lists are read as a program's that
// the host installed: bounded, and what is not in them counts as absent. Starts QEMU a few times,
// for its help only.
#pragma once

#include <string>
#include <vector>

#include "vm/launch.h"

namespace gbx::vm {

struct QemuLack {
  Platform platform = Platform::kEmulation;
  std::string what;   // "object tdx-guest", "property x of device y"
  std::string needs;  // "QEMU 10.1 or later"
};
struct QemuReport {
  std::string version;  // its first line
  std::vector<QemuLack> lacks;
  bool serves(Platform platform) const;
};

// Everything that qemu_arguments() says for each platform, looked up in this QEMU's help. Errors:
// kNotFound when there is none, kIo, kTimedOut.
Result<QemuReport> check_qemu(const std::string& qemu);
// The same for one platform; the report says nothing of the others.
Result<QemuReport> check_qemu(const std::string& qemu, Platform platform);
Result<std::string> qemu_version(const std::string& qemu);

}  // namespace gbx::vm
