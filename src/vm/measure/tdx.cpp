#include "vm/measure/tdx.h"

#include <algorithm>

#include "base/printable.h"
#include "crypto/crypto.h"
#include "vm/measure/boot_volume.h"
#include "vm/measure/guid.h"

namespace gbx::vm::measure {

namespace {

constexpr std::size_t kExtendSize = 256;
constexpr std::size_t kRecordSize = 128;

constexpr Guid kGlobalVariable = guid("8be4df61-93ca-11d2-aa0d-00e098032b8c");
constexpr Guid kImageSecurity = guid("d719b2cb-3d3a-4596-a3bc-dad00e67656f");
// The volume and the program of OVMF's setup (OvmfPkg/OvmfPkgX64.fdf, MdeModulePkg UiApp.inf).
constexpr Guid kDxeVolume = guid("7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1");
constexpr Guid kUiApp = guid("462caa21-7614-4503-836e-8ab6f4662331");

// An operation of the TDX module as MRTD counts it: its name, and the address it was given.
Bytes record(std::string_view name, std::uint64_t address) {
  ByteWriter w;
  w.text(name).zeros(16 - name.size()).u64(address).zeros(kRecordSize - 24);
  return w.take();
}

Bytes wide(std::string_view text) {
  ByteWriter w;
  for (const char c : text) w.u16(static_cast<std::uint8_t>(c));
  return w.take();
}

// ---- the TD HOB ----

constexpr std::uint16_t kHandOffHob = 1;
constexpr std::uint16_t kResourceHob = 3;
constexpr std::uint16_t kHandOffSize = 56;
constexpr std::uint16_t kResourceSize = 48;
constexpr std::size_t kEndMarkSize = 8;
constexpr std::uint32_t kHandOffVersion = 9;
constexpr std::uint32_t kSystemMemory = 0;
constexpr std::uint32_t kUnaccepted = 7;
constexpr std::uint32_t kPresentInitialisedTested = 7;

struct Ram {
  std::uint64_t begin = 0;
  std::uint64_t size = 0;
  bool added = false;
};

// QEMU's tdx_accept_ram_range: cuts a section out of the block of memory that it lies in.
Status accept(std::vector<Ram>& ram, const TdvfSection& s) {
  const auto in = std::find_if(ram.begin(), ram.end(), [&](const Ram& r) {
    return !r.added && r.begin <= s.address && s.address - r.begin < r.size &&
           s.size <= r.size - (s.address - r.begin);
  });
  if (in == ram.end()) {
    return fail(Reason::kBadStructure, "a TDVF section lies outside the guest's memory");
  }
  const Ram whole = *in;
  *in = {s.address, s.size, true};
  const std::uint64_t head = s.address - whole.begin;
  const std::uint64_t tail = whole.size - head - s.size;
  if (head > 0) ram.push_back({whole.begin, head, false});
  if (tail > 0) ram.push_back({s.address + s.size, tail, false});
  return ok_status();
}

// ---- the loader's script ----

constexpr std::size_t kCommandSize = 128;
constexpr std::size_t kFileNameSize = 56;
constexpr std::uint32_t kAllocate = 1;
constexpr std::uint32_t kLastCommand = 4;  // WRITE_POINTER
constexpr std::size_t kMaxLoaderCommands = 512;

Result<std::string> file_name(ByteView raw) {
  const std::string_view all = as_text(raw);
  const std::string name(all.substr(0, all.find('\0')));
  const bool plain =
      std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c <= '~'; });
  const bool padded = all.find_first_not_of('\0', name.size()) == std::string_view::npos;
  if (!name.empty() && name.size() < kFileNameSize && plain && padded) return name;
  return fail(Reason::kBadStructure, "a file's name in the ACPI loader's script");
}

// The files that the script allocates, in its order.
Result<std::vector<std::string>> allocated(ByteView script) {
  const std::size_t count = script.size() / kCommandSize;
  if (count == 0 || script.size() % kCommandSize != 0 || count > kMaxLoaderCommands) {
    return fail(Reason::kBadStructure, "the ACPI loader's script")
        .with("1 to " + std::to_string(kMaxLoaderCommands) + " commands of 128 bytes",
              std::to_string(script.size()) + " bytes");
  }
  std::vector<std::string> out;
  ByteReader r(script);
  while (r.remaining() > 0) {
    GBX_ASSIGN(const std::uint32_t command, r.u32());
    GBX_ASSIGN(const ByteView arguments, r.take(kCommandSize - 4));
    // QEMU fills the script up with commands 0, which edk2 passes over.
    if (command > kLastCommand) {
      return fail(Reason::kUnsupported, "a command of the ACPI loader's script")
          .with("0 to " + std::to_string(kLastCommand), std::to_string(command));
    }
    if (command != kAllocate) continue;
    GBX_ASSIGN(std::string name, file_name(arguments.first(kFileNameSize)));
    if (std::find(out.begin(), out.end(), name) != out.end()) {
      return fail(Reason::kBadStructure, "the ACPI loader's script allocates a file twice");
    }
    out.push_back(std::move(name));
  }
  return out;
}

Status check(const Firmware& firmware, const TdxLaunch& launch) {
  GBX_TRY(check_memory(launch.memory));
  GBX_TRY(check_cmdline(launch.boot.cmdline));
  return check_tdx_firmware(firmware);
}

}  // namespace

Status check_tdx_firmware(const Firmware& firmware) {
  GBX_TRY(require_tdx(firmware));
  GBX_ASSIGN(const TdxEvents events, tdx_events(firmware.image()));
  std::string found;
  switch (events) {
    case TdxEvents::kEdk2_2025:
      return ok_status();
    case TdxEvents::kNone:
      found = "no TdTcg2Dxe: its RTMRs are the same for every kernel";
      break;
    case TdxEvents::kNewer:
      found = "a newer edk2, which also measures fw_cfg items, SMBIOS tables and a boot menu";
      break;
    case TdxEvents::kSecureBoot:
      found = "Secure Boot, whose variables would be measured as they are enrolled";
      break;
  }
  return fail(Reason::kUnsupported, "RTMRs of this firmware cannot be computed")
      .with("edk2-stable202302 to 202502 with TDX measurement, without Secure Boot",
            std::move(found))
      .hint("take /usr/share/ovmf/OVMF.fd of Debian 13 (package ovmf 2025.02)");
}

Measured mrtd(const Firmware& firmware) {
  Measured out{"MRTD", {}, {}};
  crypto::Sha384 h;
  const ByteView image = firmware.image();
  for (const auto& s : firmware.tdvf()) {
    for (std::uint64_t page = 0; page < s.size; page += kPageSize) {
      h.update(record("MEM.PAGE.ADD", s.address + page));
      if (!s.measured) continue;
      for (std::uint64_t at = page; at < page + kPageSize; at += kExtendSize) {
        h.update(record("MR.EXTEND", s.address + at));
        h.update(image.subspan(s.offset + at, kExtendSize));
      }
    }
  }
  out.value = h.finish();
  out.steps.push_back({"pages of the firmware's sections", "firmware", out.value});
  return out;
}

Result<Bytes> td_hob(const Firmware& firmware, std::uint64_t memory) {
  const TdvfSection* place = firmware.find(TdvfKind::kTdHob);
  if (place == nullptr) return require_tdx(firmware).error();
  const std::uint64_t low = memory_below_4g(memory);
  std::vector<Ram> ram{{0, low, false}};
  if (memory > low) ram.push_back({std::uint64_t{1} << 32, memory - low, false});
  for (const auto& s : firmware.tdvf()) {
    if (s.kind == TdvfKind::kTdHob || s.kind == TdvfKind::kTempMem) GBX_TRY(accept(ram, s));
  }
  std::sort(ram.begin(), ram.end(), [](const Ram& a, const Ram& b) { return a.begin < b.begin; });
  const std::size_t size = kHandOffSize + ram.size() * kResourceSize + kEndMarkSize;
  if (size > place->size) {
    return fail(Reason::kBadStructure, "room for the TD HOB")
        .with(std::to_string(size) + " bytes", std::to_string(place->size));
  }
  ByteWriter w;
  w.u16(kHandOffHob).u16(kHandOffSize).u32(0).u32(kHandOffVersion).u32(0);
  w.zeros(4 * 8).u64(place->address + size);
  for (const auto& r : ram) {
    w.u16(kResourceHob).u16(kResourceSize).u32(0).zeros(16);
    w.u32(r.added ? kSystemMemory : kUnaccepted).u32(kPresentInitialisedTested);
    w.u64(r.begin).u64(r.size);
  }
  return w.take();
}

Result<std::vector<Step>> acpi_steps(const AcpiTables& acpi) {
  if (acpi.files.size() > kMaxAcpiFiles) return fail(Reason::kTooLarge, "files of ACPI tables");
  GBX_ASSIGN(const std::vector<std::string> names, allocated(acpi.loader));
  std::vector<Step> out;
  out.push_back({"etc/table-loader", "acpi", crypto::sha384(acpi.loader)});
  for (const auto& name : names) {
    const auto file = acpi.files.find(name);
    if (file == acpi.files.end()) {
      return fail(Reason::kMissingField, "the ACPI loader's script names a file that is not given")
          .with(printable(name, kFileNameSize), "no such file");
    }
    out.push_back({name, "acpi", crypto::sha384(file->second)});
  }
  for (const auto& [name, content] : acpi.files) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    return fail(Reason::kUnknownField, "the ACPI loader's script does not use this file")
        .with("a file that the script allocates", printable(name, kFileNameSize));
  }
  return out;
}

Register variable_digest(ByteView guid_bytes, std::string_view name, ByteView data) {
  ByteWriter w;
  w.raw(guid_bytes).u64(name.size()).u64(data.size()).raw(wide(name)).raw(data);
  return crypto::sha384(w.bytes());
}

Bytes setup_load_option() {
  constexpr std::uint32_t kActiveHiddenApplication = 0x109;
  constexpr std::uint16_t kNodes = 20 + 20 + 4;
  ByteWriter w;
  w.u32(kActiveHiddenApplication).u16(kNodes).raw(wide("UiApp")).u16(0);
  w.u8(4).u8(7).u16(20).raw(kDxeVolume);  // firmware volume
  w.u8(4).u8(6).u16(20).raw(kUiApp);      // file in it
  w.u8(0x7f).u8(0xff).u16(4);             // end of the path
  return w.take();
}

Result<Measured> rtmr0(const Firmware& firmware, const TdxLaunch& launch) {
  GBX_ASSIGN(const Bytes hob, td_hob(firmware, static_cast<std::uint64_t>(launch.memory)));
  GBX_ASSIGN(const std::vector<Step> acpi, acpi_steps(launch.acpi));
  const TdvfSection* cfv = firmware.find(TdvfKind::kCfv);
  if (cfv == nullptr) return require_tdx(firmware).error();
  Measured m{"RTMR0", {}, {}};
  extend(m, "TD HOB", "memory, firmware", crypto::sha384(hob));
  extend(m, "configuration volume", "firmware",
         crypto::sha384(firmware.image().subspan(cfv->offset, cfv->data_size)));
  for (const char* name : {"SecureBoot", "PK", "KEK"}) {
    extend(m, std::string("variable ") + name + ", absent", "",
           variable_digest(kGlobalVariable, name, {}));
  }
  for (const char* name : {"db", "dbx"}) {
    extend(m, std::string("variable ") + name + ", absent", "",
           variable_digest(kImageSecurity, name, {}));
  }
  static constexpr std::uint8_t kSeparator[4] = {};
  extend(m, "separator", "", crypto::sha384(kSeparator));
  for (const auto& s : acpi) extend(m, s.what, s.input, s.digest);
  static constexpr std::uint8_t kFirstOption[2] = {};
  extend(m, "variable BootOrder: 0000", "", crypto::sha384(kFirstOption));
  extend(m, "variable Boot0000: UiApp", "", crypto::sha384(setup_load_option()));
  return m;
}

Result<Measured> rtmr1(const TdxLaunch& launch) {
  Bytes patched;
  ByteView kernel = launch.boot.kernel;
  if (launch.hand_over == KernelHandOver::kPatched) {
    GBX_ASSIGN(patched, with_qemu_header(launch.boot, static_cast<std::uint64_t>(launch.memory)));
    kernel = patched;
  }
  GBX_ASSIGN(const Register image, pe_digest(kernel));
  const bool as_file = launch.hand_over == KernelHandOver::kAsFile;
  Measured m{"RTMR1", {}, {}};
  extend(m, as_file ? "kernel" : "kernel with QEMU's setup header",
         as_file ? "kernel" : "kernel, initrd's size, memory", image);
  static constexpr std::uint8_t kSeparator[4] = {};
  const auto text = [&m](std::string_view action) {
    extend(m, "\"" + std::string(action) + "\"", "", crypto::sha384(as_bytes(action)));
  };
  text("Calling EFI Application from Boot Option");
  extend(m, "separator", "", crypto::sha384(kSeparator));
  text("Exit Boot Services Invocation");
  text("Exit Boot Services Returned with Success");
  return m;
}

Result<Measured> rtmr2(const TdxLaunch& launch) {
  GBX_TRY(check_cmdline(launch.boot.cmdline));
  const bool initrd = !launch.boot.initrd.empty();
  Measured m{"RTMR2", {}, {}};
  // What the firmware gives the kernel as its load options: with a NUL, and where there is an
  // initrd with the name under which it lies.
  const std::string options = launch.boot.cmdline + (initrd ? " initrd=initrd" : "");
  if (!options.empty()) {
    Bytes text = wide(options);
    text.insert(text.end(), {0, 0});
    extend(m, "command line", initrd ? "cmdline, \" initrd=initrd\"" : "cmdline",
           crypto::sha384(text));
  }
  if (initrd) extend(m, "initrd", "initrd", crypto::sha384(launch.boot.initrd));
  return m;
}

Result<std::vector<Measured>> tdx_registers(const Firmware& firmware, const TdxLaunch& launch) {
  GBX_TRY(check(firmware, launch));
  std::vector<Measured> out{mrtd(firmware)};
  GBX_ASSIGN(Measured r0, rtmr0(firmware, launch));
  GBX_ASSIGN(Measured r1, rtmr1(launch));
  GBX_ASSIGN(Measured r2, rtmr2(launch));
  for (Measured* m : {&r0, &r1, &r2}) out.push_back(std::move(*m));
  return out;
}

}  // namespace gbx::vm::measure
