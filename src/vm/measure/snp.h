// The launch digest of an SEV-SNP guest, as its report's MEASUREMENT field has it: computed from
// the files alone, in the order in which QEMU (9.1 and later) loads them (AMD SEV-SNP firmware
// ABI 1.55, section 8.17, PAGE_INFO). Pure functions. The firmware was parsed; kernel, initrd and
// command line are hashed as they are. UNTESTED ON HARDWARE: agrees with the independent
// sev-snp-measure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vm/measure/measurement.h"
#include "vm/measure/ovmf.h"

namespace gbx::vm::measure {

// What KVM makes the VMSA's SEV_FEATURES: SNPActive, and whatever else the launch asked for.
inline constexpr std::uint64_t kSnpActive = 1;

struct SnpLaunch {
  // Absent: nothing but the firmware is measured (QEMU without -kernel).
  std::optional<Boot> boot;
  std::int64_t cpus = 1;
  // CPUID 1 EAX of the processor type, which QEMU puts into every VMSA.
  std::uint32_t signature = 0;
  std::uint64_t guest_features = kSnpActive;
};

// kUnsupported, naming the build to take, where the firmware has no SEV metadata, or no room for
// the hashes of kernel, initrd and command line.
Status check_snp_firmware(const Firmware& firmware);

// kUnsupported where the firmware has no SEV metadata, or has no room for the hashes of `boot`;
// kBadValue for no or too many processors.
Result<Measured> snp_digest(const Firmware& firmware, const SnpLaunch& launch);

// CPUID 1 EAX of a processor type of QEMU ("EPYC-Milan-v2"); kBadValue names all that are known.
Result<std::uint32_t> vcpu_signature(std::string_view type);
std::vector<std::string> vcpu_types();
// AMD CPUID specification 25481, Fn0000_0001_EAX.
std::uint32_t cpuid_signature(std::uint32_t family, std::uint32_t model, std::uint32_t stepping);

// One page: the initial state of one processor (AMD APM volume 2, table B-4), starting at
// `address`.
Bytes vmsa_page(std::uint32_t address, std::uint32_t signature, std::uint64_t guest_features);
// One page with QEMU's table of the SHA-256 of command line, initrd and kernel at `offset`.
Bytes kernel_hashes_page(const Boot& boot, std::size_t offset);

}  // namespace gbx::vm::measure
