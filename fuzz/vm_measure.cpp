// What measuring a launch reads: '0' firmware, '1' a kernel, '2' the script and files of ACPI
// tables, '3' a firmware's compressed volumes. Whatever is taken can be measured to the end.
#include "fuzz/fuzz.h"
#include "vm/measure/boot_volume.h"
#include "vm/measure/snp.h"
#include "vm/measure/tdx.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;
using namespace gbx::vm::measure;

constexpr std::uint64_t kMemory = std::uint64_t{2} << 30;

void firmware(ByteView bytes) {
  const auto f = Firmware::parse(to_bytes(bytes));
  if (!f.ok()) return;
  if (require_sev(*f).ok()) {
    require(snp_digest(*f, {std::nullopt, 2, 1, kSnpActive}).ok());
    const auto booted = snp_digest(*f, {Boot{bytes, bytes, "quiet"}, 2, 1, kSnpActive});
    require(booted.ok() || booted.reason() == Reason::kUnsupported);
  }
  if (!require_tdx(*f).ok()) return;
  require(mrtd(*f).steps.size() == 1);
  const auto hob = td_hob(*f, kMemory);
  require(!hob.ok() || hob->size() + 8 <= f->find(TdvfKind::kTdHob)->size);
}

void kernel(ByteView bytes) {
  const auto before = pe_digest(bytes);
  const auto patched = with_qemu_header({bytes, bytes, "quiet"}, kMemory);
  require(!patched.ok() || patched->size() == bytes.size());
  require(!before.ok() || bytes.size() > 64);
}

void acpi(ByteView bytes) {
  ByteReader r(bytes);
  auto loader = r.bytes32(1U << 16);
  if (!loader.ok()) return;
  AcpiTables a{std::move(*loader), {}};
  a.files["etc/acpi/rsdp"] = to_bytes(r.take(r.remaining()).value());
  const auto steps = acpi_steps(a);
  require(!steps.ok() || steps->size() == 2);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 4);
  switch (in.choice) {
    case 0:
      firmware(in.bytes);
      break;
    case 1:
      kernel(in.bytes);
      break;
    case 2:
      acpi(in.bytes);
      break;
    default:
      if (tdx_events(in.bytes).ok()) require(in.bytes.size() <= kMaxUnpacked);
      break;
  }
  return 0;
}
