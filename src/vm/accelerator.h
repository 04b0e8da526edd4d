// Which accelerator runs guests on this host. /dev/kvm may be there and still hang or refuse an
// ordinary guest (seen: a nested one that runs a handful of instructions and no kernel), so the
// only honest question is the guest itself: its own firmware, kernel and processor model are booted
// to a user program of ours, within a deadline. The answer is remembered for as long as nothing
// that it depends on changes.
#pragma once

#include <string>

#include "base/bytes.h"
#include "vm/launch.h"

namespace gbx::vm {

// Under working KVM the program is reached within two seconds, under emulation within ten.
inline constexpr std::int64_t kProbeMs = 30'000;

struct ProbeOptions {
  std::string qemu = LaunchDescription{}.qemu;
  std::string firmware;
  std::string kernel;
  // Where the answer is kept: a file of the caller's own folder. Empty: nowhere.
  std::string memory_file;
  std::int64_t deadline_ms = kProbeMs;
};

// Boots the guest's kernel on `platform` (emulation or KVM) to our program. Errors: kTimedOut (QEMU
// was killed), kUnsupported when it ended in any other way, with what QEMU said.
Status boots_guest(Platform platform, const ProbeOptions& options);

struct AcceleratorFound {
  Platform platform = Platform::kEmulation;  // or KVM
  bool remembered = false;
  std::string why;  // one line for a log or a person
};
// KVM where it boots the guest, else emulation. Errors: none of the probe's; those of reading
// firmware and kernel, and kNotFound without QEMU.
Result<AcceleratorFound> find_accelerator(const ProbeOptions& options);

// An initrd with one program, which ends QEMU through port 0xf4 (isa-debug-exit).
Bytes probe_initrd();

}  // namespace gbx::vm
