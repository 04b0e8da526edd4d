// A Linux kernel for x86 as the firmware of a TDX guest measures it: a PE image, hashed as
// Authenticode says, of the bytes that QEMU hands over. Pure functions. The image is untrusted:
// every offset in it is checked before it is used.
#pragma once

#include "vm/measure/measurement.h"

namespace gbx::vm::measure {

inline constexpr std::uint16_t kMaxPeSections = 96;  // what Windows loads; Linux has four

// SHA-384 over headers, sections and what follows them, less checksum and certificates (PE/COFF
// specification, appendix A; edk2, OvmfPkg/Tcg/TdTcg2Dxe/MeasureBootPeCoff.c). kBadMagic where it
// is no PE image; kBadStructure, kTruncated where it is none that edk2 would load.
Result<Register> pe_digest(ByteView image);

// How a kernel reaches the firmware.
enum class KernelHandOver {
  kAsFile,   // QEMU from 10.2 on, for every confidential guest
  kPatched,  // QEMU before 10.2, for TDX: the setup header says where the initrd would lie
};

// The image with the setup header that QEMU writes (hw/i386/x86-common.c, x86_load_linux), for a
// guest of `memory` bytes. kBadMagic without a Linux header, kUnsupported for one before protocol
// 2.06, kTooLarge where the initrd does not fit.
Result<Bytes> with_qemu_header(const Boot& boot, std::uint64_t memory);

// Memory of a q35 guest below 4 GiB.
std::uint64_t memory_below_4g(std::uint64_t memory);

}  // namespace gbx::vm::measure
