#include "vm/measure/snp.h"

#include <array>

#include "crypto/crypto.h"
#include "vm/measure/guid.h"

namespace gbx::vm::measure {

namespace {

// PAGE_TYPE of SNP_LAUNCH_UPDATE.
enum class PageType : std::uint8_t {
  kNormal = 1,
  kVmsa = 2,
  kZero = 3,
  kUnmeasured = 4,
  kSecrets = 5,
  kCpuid = 6,
};
constexpr std::uint16_t kPageInfoSize = 0x70;
// Where the RMP says that a VMSA lies: all bits of a page's address below 2^48.
constexpr std::uint64_t kVmsaAddress = 0xFFFFFFFFF000;
constexpr std::uint32_t kFirstInstruction = 0xFFFFFFF0;

constexpr Guid kHashTableHead = guid("9438d606-4f22-4cc9-b479-a793d411fd21");
constexpr Guid kKernelEntry = guid("4de79437-abd2-427f-b835-d5b172d2045b");
constexpr Guid kInitrdEntry = guid("44baf731-3a2f-4bd7-9af1-41e29169781d");
constexpr Guid kCmdlineEntry = guid("97d02dd8-bd20-4c94-aa78-e7714d36ab2a");

class LaunchDigest {
 public:
  void page(PageType type, std::uint64_t address, const Register& contents) {
    const ByteWriter info = std::move(ByteWriter()
                                          .raw(value_)
                                          .raw(contents)
                                          .u16(kPageInfoSize)
                                          .u8(static_cast<std::uint8_t>(type))
                                          .u8(0)     // no initial migration image
                                          .zeros(4)  // no rights of VMPL 3, 2 and 1; reserved
                                          .u64(address));
    value_ = crypto::sha384(info.bytes());
  }
  void normal(std::uint64_t address, ByteView data) {
    for (std::size_t at = 0; at < data.size(); at += kPageSize) {
      page(PageType::kNormal, address + at, crypto::sha384(data.subspan(at, kPageSize)));
    }
  }
  void zero(std::uint64_t address, std::uint64_t size) {
    for (std::uint64_t at = 0; at < size; at += kPageSize) {
      page(PageType::kZero, address + at, Register{});
    }
  }
  const Register& value() const { return value_; }

 private:
  Register value_{};
};

// One step of the launch: what happened to the digest in it is said by the digest after it.
class Steps {
 public:
  explicit Steps(Measured& out) : out_(out) {}
  void done(std::string what, std::string input, const LaunchDigest& digest) {
    out_.steps.push_back({std::move(what), std::move(input), digest.value()});
  }

 private:
  Measured& out_;
};

void metadata_page(const Firmware& firmware, const SevSection& s, const std::optional<Boot>& boot,
                   LaunchDigest& digest, Steps& steps) {
  switch (s.kind) {
    case SevKind::kMemory:
    case SevKind::kSvsmCaa:
      digest.zero(s.address, s.size);
      return steps.done("zero pages", "firmware", digest);
    case SevKind::kSecrets:
      digest.page(PageType::kSecrets, s.address, Register{});
      return steps.done("secrets page", "firmware", digest);
    case SevKind::kCpuid:
      digest.page(PageType::kCpuid, s.address, Register{});
      return steps.done("CPUID page", "firmware", digest);
    case SevKind::kKernelHashes:
      if (!boot) {
        digest.zero(s.address, s.size);
        return steps.done("no kernel hashes", "firmware", digest);
      }
      digest.normal(s.address, kernel_hashes_page(*boot, *firmware.hash_table() - s.address));
      return steps.done("hashes of kernel, initrd and command line", "kernel, initrd, cmdline",
                        digest);
  }
}

Status check(const Firmware& firmware, const SnpLaunch& launch) {
  GBX_TRY(require_sev(firmware));
  GBX_TRY(check_cpus(launch.cpus));
  if (!launch.boot) return ok_status();
  GBX_TRY(check_cmdline(launch.boot->cmdline));
  return check_snp_firmware(firmware);
}

struct Segment {
  std::uint16_t selector;
  std::uint16_t attributes;
  std::uint32_t limit;
  std::uint64_t base;
};
void segment(ByteWriter& w, const Segment& s) {
  w.u16(s.selector).u16(s.attributes).u32(s.limit).u64(s.base);
}

struct VcpuType {
  const char* name;
  std::uint32_t family, model, stepping;
};
// QEMU's builtin_x86_defs (target/i386/cpu.c): the versions of one type share a signature.
constexpr std::array<VcpuType, 21> kVcpuTypes{{
    {"EPYC", 23, 1, 2},           {"EPYC-v1", 23, 1, 2},       {"EPYC-v2", 23, 1, 2},
    {"EPYC-IBPB", 23, 1, 2},      {"EPYC-v3", 23, 1, 2},       {"EPYC-v4", 23, 1, 2},
    {"EPYC-v5", 23, 1, 2},        {"EPYC-Rome", 23, 49, 0},    {"EPYC-Rome-v1", 23, 49, 0},
    {"EPYC-Rome-v2", 23, 49, 0},  {"EPYC-Rome-v3", 23, 49, 0}, {"EPYC-Rome-v4", 23, 49, 0},
    {"EPYC-Milan", 25, 1, 1},     {"EPYC-Milan-v1", 25, 1, 1}, {"EPYC-Milan-v2", 25, 1, 1},
    {"EPYC-Milan-v3", 25, 1, 1},  {"EPYC-Genoa", 25, 17, 0},   {"EPYC-Genoa-v1", 25, 17, 0},
    {"EPYC-Genoa-v2", 25, 17, 0}, {"EPYC-Turin", 26, 0, 0},    {"EPYC-Turin-v1", 26, 0, 0},
}};

}  // namespace

Status check_snp_firmware(const Firmware& firmware) {
  GBX_TRY(require_sev(firmware));
  const SevSection* page = firmware.find(SevKind::kKernelHashes);
  const auto table = firmware.hash_table();
  if (page != nullptr && table && *table >= page->address && *table - page->address < page->size) {
    return ok_status();
  }
  // QEMU refuses kernel-hashes=on with such a firmware; without that option anybody's kernel would
  // run under the same measurement.
  return fail(Reason::kUnsupported,
              "this firmware does not measure kernel, initrd and command line under SEV-SNP")
      .with("a page for the kernel's hashes (SNP_KERNEL_HASHES)", "none")
      .hint(
          "take OVMF.amdsev.fd (edk2's AmdSevX64, Debian's package ovmf-amdsev); OVMF.fd of the "
          "package ovmf has no such page");
}

Bytes kernel_hashes_page(const Boot& boot, std::size_t offset) {
  constexpr std::uint16_t kEntrySize = 16 + 2 + 32;
  constexpr std::uint16_t kTableSize = 16 + 2 + 3 * kEntrySize;
  const auto entry = [](ByteWriter& w, const Guid& which, const Hash32& hash) {
    w.raw(which).u16(kEntrySize).raw(hash);
  };
  static constexpr std::uint8_t kNul[1] = {0};
  ByteWriter w;
  w.zeros(offset).raw(kHashTableHead).u16(kTableSize);
  // The command line counts with its NUL; without an initrd the hash is that of no bytes.
  entry(w, kCmdlineEntry, crypto::sha256({as_bytes(boot.cmdline), kNul}));
  entry(w, kInitrdEntry, crypto::sha256(boot.initrd));
  entry(w, kKernelEntry, crypto::sha256(boot.kernel));
  w.zeros(kPageSize - w.bytes().size());
  return w.take();
}

Bytes vmsa_page(std::uint32_t address, std::uint32_t signature, std::uint64_t guest_features) {
  // Segments as after a reset, but the code segment: it begins where `address` says.
  static constexpr Segment kData{0, 0x93, 0xffff, 0};
  static constexpr Segment kTables{0, 0, 0xffff, 0};
  ByteWriter w;
  segment(w, kData);                                         // ES
  segment(w, {0xf000, 0x9b, 0xffff, address & 0xffff0000});  // CS
  for (int i = 0; i < 4; ++i) segment(w, kData);             // SS, DS, FS, GS
  segment(w, kTables);                                       // GDTR
  segment(w, {0, 0x82, 0xffff, 0});                          // LDTR
  segment(w, kTables);                                       // IDTR
  segment(w, {0, 0x8b, 0xffff, 0});                          // TR
  const auto at = [&w](std::size_t offset) -> ByteWriter& {
    return w.zeros(offset - w.bytes().size());
  };
  at(0x0d0).u64(0x1000);                     // EFER: SVME, which KVM sets
  at(0x148).u64(0x40);                       // CR4: MCE, which KVM sets
  at(0x158).u64(0x10);                       // CR0
  at(0x160).u64(0x400).u64(0xffff0ff0);      // DR7, DR6
  at(0x170).u64(0x2).u64(address & 0xffff);  // RFLAGS, RIP
  at(0x268).u64(0x0007040600070406);         // PAT
  at(0x310).u64(signature);                  // RDX
  at(0x3b0).u64(guest_features);             // SEV_FEATURES
  at(0x3e8).u64(0x1);                        // XCR0
  at(0x408).u32(0x1f80);                     // MXCSR
  at(0x410).u16(0x37f);                      // x87 control word
  at(kPageSize);
  return w.take();
}

std::uint32_t cpuid_signature(std::uint32_t family, std::uint32_t model, std::uint32_t stepping) {
  const std::uint32_t low = family > 15 ? 15 : family;
  const std::uint32_t high = family > 15 ? (family - 15) & 0xff : 0;
  return high << 20 | (model >> 4 & 0xf) << 16 | low << 8 | (model & 0xf) << 4 | (stepping & 0xf);
}

std::vector<std::string> vcpu_types() {
  std::vector<std::string> names;
  for (const auto& t : kVcpuTypes) names.emplace_back(t.name);
  return names;
}

Result<std::uint32_t> vcpu_signature(std::string_view type) {
  std::string all;
  for (const auto& t : kVcpuTypes) {
    if (type == t.name) return cpuid_signature(t.family, t.model, t.stepping);
    all += (all.empty() ? "" : ", ") + std::string(t.name);
  }
  return fail(Reason::kBadValue, "processor type").with(all, std::string(type.substr(0, 64)));
}

Result<Measured> snp_digest(const Firmware& firmware, const SnpLaunch& launch) {
  GBX_TRY(check(firmware, launch));
  Measured out{"MEASUREMENT", {}, {}};
  Steps steps(out);
  LaunchDigest digest;
  digest.normal(firmware.base(), firmware.image());
  steps.done("firmware", "firmware", digest);
  for (const auto& s : firmware.sev()) metadata_page(firmware, s, launch.boot, digest, steps);
  for (std::int64_t i = 0; i < launch.cpus; ++i) {
    const std::uint32_t address = i == 0 ? kFirstInstruction : *firmware.reset_address();
    const Bytes state = vmsa_page(address, launch.signature, launch.guest_features);
    digest.page(PageType::kVmsa, kVmsaAddress, crypto::sha384(state));
  }
  steps.done("state of " + std::to_string(launch.cpus) + " processors", "cpus, vcpu-type, firmware",
             digest);
  out.value = digest.value();
  return out;
}

}  // namespace gbx::vm::measure
