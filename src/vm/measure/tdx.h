// The registers of a TDX guest before its workload starts, computed from the files alone: MRTD as
// QEMU and KVM build the guest, RTMR0 to RTMR2 as edk2 and Linux measure a direct kernel boot. Pure
// functions; which document says what is in docs/measure.md. Firmware and ACPI tables are
// untrusted. UNTESTED ON HARDWARE: its events were compared with published logs and values, no
// whole launch.
#pragma once

#include <map>

#include "vm/measure/linux_image.h"
#include "vm/measure/measurement.h"
#include "vm/measure/ovmf.h"

namespace gbx::vm::measure {

inline constexpr std::size_t kMaxAcpiSize = 4U << 20;
inline constexpr std::size_t kMaxAcpiFiles = 8;

// What QEMU offers the firmware in fw_cfg, as it is before the firmware links it. It depends on
// QEMU's version, machine, processors and memory: guest/acpi-tables asks the QEMU that will be
// used.
struct AcpiTables {
  Bytes loader;                        // etc/table-loader
  std::map<std::string, Bytes> files;  // "etc/acpi/rsdp", "etc/acpi/tables"
};

struct TdxLaunch {
  Boot boot;
  std::int64_t memory = 0;
  AcpiTables acpi;
  KernelHandOver hand_over = KernelHandOver::kAsFile;
};

// kUnsupported, naming the build to take, where the firmware does not measure what it boots, or by
// other rules than edk2-stable202302 to 202502.
Status check_tdx_firmware(const Firmware& firmware);

// MRTD: SHA-384 over TDH.MEM.PAGE.ADD of each page and TDH.MR.EXTEND of each 256 bytes of it, in
// QEMU's order (Intel TDX module ABI, 348551).
Measured mrtd(const Firmware& firmware);

// The list of hand-off blocks that QEMU writes for a guest of `memory` bytes, without its end mark,
// as edk2 measures it. kBadStructure where a section lies outside that memory, or the list does not
// fit into its own.
Result<Bytes> td_hob(const Firmware& firmware, std::uint64_t memory);

// In the order in which the firmware fetches them: the loader's script itself, then each file that
// it allocates. kBadStructure for a script that is none; kMissingField, kUnknownField where script
// and files do not name the same.
Result<std::vector<Step>> acpi_steps(const AcpiTables& acpi);

// SHA-384 of UEFI_VARIABLE_DATA (TCG PC client profile, 10.2.6): how secure boot's variables are
// measured.
Register variable_digest(ByteView guid, std::string_view name, ByteView data);
// The load option of the firmware's setup, which is the only one in a direct kernel boot.
Bytes setup_load_option();

Result<Measured> rtmr0(const Firmware& firmware, const TdxLaunch& launch);
Result<Measured> rtmr1(const TdxLaunch& launch);
Result<Measured> rtmr2(const TdxLaunch& launch);

// MRTD, RTMR0, RTMR1, RTMR2. Besides the errors of the launch those of check_tdx_firmware().
Result<std::vector<Measured>> tdx_registers(const Firmware& firmware, const TdxLaunch& launch);

}  // namespace gbx::vm::measure
