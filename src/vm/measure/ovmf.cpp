#include "vm/measure/ovmf.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "vm/measure/guid.h"

namespace gbx::vm::measure {

namespace {

// The table ends 32 bytes before the image's end, with its own GUID and the length of the whole.
constexpr std::size_t kBelowTable = 32;
constexpr std::size_t kEntryHead = 18;  // length and GUID, which stand behind an entry's data
constexpr std::size_t kMaxTableEntries = 64;

constexpr Guid kTable = guid("96b582de-1fb2-45f7-baea-a366c55a082d");
constexpr Guid kTdvfOffset = guid("e47a6535-984a-4798-865e-4685a7bf8ec2");
constexpr Guid kSevOffset = guid("dc886566-984a-4798-a75e-5585a7bf67cc");
constexpr Guid kSevHashTable = guid("7255371f-3a3b-4b04-927b-1da6efa8d454");
constexpr Guid kSevEsReset = guid("00f771de-1a7e-4fcb-890e-68c77e2fb44e");

constexpr std::size_t kTdvfHead = 16;
constexpr std::size_t kTdvfEntry = 32;
constexpr std::size_t kSevHead = 16;
constexpr std::size_t kSevEntry = 12;
constexpr std::uint32_t kMrExtend = 1;
// GUID, length and three entries of hashes, padded to 16 bytes (QEMU's PaddedSevHashTable).
constexpr std::uint32_t kHashTableSize = 176;

Error bad(std::string what) { return fail(Reason::kBadStructure, std::move(what)); }

std::string hex_number(std::uint64_t n) {
  char digits[16];
  const auto end = std::to_chars(digits, digits + sizeof digits, n, 16).ptr;
  return "0x" + std::string(digits, end);
}

struct Range {
  std::uint64_t begin = 0;
  std::uint64_t size = 0;
};
Status disjoint(std::vector<Range> ranges, const char* what) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].begin - ranges[i - 1].begin < ranges[i - 1].size) {
      return bad(std::string(what) + " overlap")
          .with("at most one section for each byte", "two from " + hex_number(ranges[i].begin));
    }
  }
  return ok_status();
}

Result<std::uint32_t> one_number(ByteView entry, const char* what) {
  // Builds may append to an entry; what QEMU reads is its first number.
  ByteReader r(entry);
  auto n = r.u32();
  if (!n.ok()) return bad(std::string(what) + " is shorter than its number");
  return *n;
}

// What lies `offset` bytes before the image's end.
Result<ByteView> from_end(ByteView image, std::uint32_t offset, std::size_t least,
                          const char* what) {
  if (offset > image.size() || offset < least) {
    return bad(std::string(what) + " lie outside the image")
        .with("an offset from the end of " + std::to_string(least) + " to " +
                  std::to_string(image.size()),
              std::to_string(offset));
  }
  return image.subspan(image.size() - offset);
}

Result<TdvfSection> tdvf_section(ByteReader& r) {
  TdvfSection s;
  GBX_ASSIGN(s.offset, r.u32());
  GBX_ASSIGN(s.data_size, r.u32());
  GBX_ASSIGN(s.address, r.u64());
  GBX_ASSIGN(s.size, r.u64());
  GBX_ASSIGN(const std::uint32_t kind, r.u32());
  GBX_ASSIGN(const std::uint32_t attributes, r.u32());
  if (kind > static_cast<std::uint32_t>(TdvfKind::kTempMem)) {
    return fail(Reason::kUnsupported, "kind of a TDVF section")
        .with("0 to 3, which are all that QEMU starts", std::to_string(kind));
  }
  s.kind = static_cast<TdvfKind>(kind);
  // QEMU adds every page itself and looks at no other attribute: it would measure another memory
  // than the firmware asked for.
  if ((attributes & ~kMrExtend) != 0) {
    return fail(Reason::kUnsupported, "attributes of a TDVF section")
        .with("0 or 1 (MR.EXTEND)", hex_number(attributes));
  }
  s.measured = attributes == kMrExtend;
  return s;
}

Status check(const TdvfSection& s, std::size_t image_size) {
  if (s.address % kPageSize != 0 || s.size % kPageSize != 0 || s.size == 0) {
    return bad("a TDVF section is not of whole pages")
        .with("multiples of 4096", hex_number(s.address) + ", " + hex_number(s.size) + " bytes");
  }
  if (s.size > kMaxSectionMemory || s.address > (std::uint64_t{1} << 32) - s.size) {
    return fail(Reason::kTooLarge, "memory of a TDVF section")
        .with("below 4 GiB, at most " + hex_number(kMaxSectionMemory),
              hex_number(s.address) + ", " + hex_number(s.size) + " bytes");
  }
  const bool from_image = s.kind == TdvfKind::kBfv || s.kind == TdvfKind::kCfv;
  // Where a section's memory were larger than its data, QEMU would load what follows in the file.
  if (from_image ? s.data_size != s.size : (s.data_size != 0 || s.measured)) {
    return bad(from_image ? "a TDVF section's data does not fill its memory"
                          : "a TDVF section of memory brings data")
        .with(from_image ? hex_number(s.size) : "no data, not measured", hex_number(s.data_size));
  }
  if (from_image && (s.offset > image_size || s.data_size > image_size - s.offset)) {
    return bad("a TDVF section's data lies outside the image")
        .with("the image's " + hex_number(image_size) + " bytes",
              hex_number(s.offset) + " and " + hex_number(s.data_size) + " more");
  }
  return ok_status();
}

Status check_together(const std::vector<TdvfSection>& sections) {
  std::vector<Range> memory;
  std::vector<Range> data;
  std::uint64_t sum = 0;
  int kinds[4] = {};
  for (const auto& s : sections) {
    ++kinds[static_cast<std::size_t>(s.kind)];
    memory.push_back({s.address, s.size});
    if (s.data_size != 0) data.push_back({s.offset, s.data_size});
    sum += s.size;
  }
  if (kinds[0] == 0 || kinds[1] != 1 || kinds[2] != 1) {
    return bad("TDVF sections")
        .with("a boot volume, one configuration volume, one TD HOB",
              std::to_string(kinds[0]) + ", " + std::to_string(kinds[1]) + ", " +
                  std::to_string(kinds[2]));
  }
  if (sum > kMaxSectionMemory) {
    return fail(Reason::kTooLarge, "memory of the TDVF sections")
        .with("at most " + hex_number(kMaxSectionMemory), hex_number(sum));
  }
  GBX_TRY(disjoint(std::move(memory), "addresses of TDVF sections"));
  return disjoint(std::move(data), "data of TDVF sections");
}

bool known(std::uint32_t kind) {
  switch (static_cast<SevKind>(kind)) {
    case SevKind::kMemory:
    case SevKind::kSecrets:
    case SevKind::kCpuid:
    case SevKind::kSvsmCaa:
    case SevKind::kKernelHashes:
      return true;
  }
  return false;
}

Result<SevSection> sev_section(ByteReader& r) {
  SevSection s;
  GBX_ASSIGN(s.address, r.u32());
  GBX_ASSIGN(s.size, r.u32());
  GBX_ASSIGN(const std::uint32_t kind, r.u32());
  if (!known(kind)) {
    return fail(Reason::kUnsupported, "kind of an SEV section")
        .with("1, 2, 3, 4 or 16", std::to_string(kind));
  }
  s.kind = static_cast<SevKind>(kind);
  if (s.address % kPageSize != 0 || s.size % kPageSize != 0) {
    return bad("an SEV section is not of whole pages")
        .with("multiples of 4096", hex_number(s.address) + ", " + hex_number(s.size) + " bytes");
  }
  const bool one_page =
      s.kind == SevKind::kSecrets || s.kind == SevKind::kCpuid || s.kind == SevKind::kKernelHashes;
  if (one_page && s.size != kPageSize) {
    return bad("an SEV section of one page").with("4096 bytes", std::to_string(s.size));
  }
  return s;
}

Status check_together(const std::vector<SevSection>& sections) {
  std::vector<Range> memory;
  std::set<SevKind> seen;
  std::uint64_t sum = 0;
  for (const auto& s : sections) {
    memory.push_back({s.address, s.size});
    sum += s.size;
    if (!seen.insert(s.kind).second && s.kind != SevKind::kMemory) {
      return bad("two SEV sections of one kind")
          .with("one", std::to_string(static_cast<std::uint32_t>(s.kind)));
    }
  }
  if (sum > kMaxSectionMemory) {
    return fail(Reason::kTooLarge, "memory of the SEV sections")
        .with("at most " + hex_number(kMaxSectionMemory), hex_number(sum));
  }
  return disjoint(std::move(memory), "addresses of SEV sections");
}

}  // namespace

Result<Firmware> Firmware::parse(Bytes image) {
  if (image.size() > kMaxFirmwareSize) {
    return fail(Reason::kTooLarge, "firmware")
        .with("at most " + std::to_string(kMaxFirmwareSize) + " bytes",
              std::to_string(image.size()));
  }
  if (image.empty() || image.size() % kPageSize != 0) {
    return bad("firmware is not of whole pages")
        .with("a multiple of 4096 bytes", std::to_string(image.size()));
  }
  Firmware f;
  f.image_ = std::move(image);
  GBX_TRY(f.read_table());
  return f;
}

Status Firmware::read_table() {
  const std::size_t end = image_.size() - kBelowTable;
  const ByteView all(image_);
  ByteReader foot(all.subspan(end - kEntryHead, kEntryHead));
  GBX_ASSIGN(const std::uint16_t whole, foot.u16());
  GBX_ASSIGN(const ByteView name, foot.take(16));
  // Firmware without a table is firmware without metadata: what needs some will say so.
  if (!equal(name, kTable)) return ok_status();
  if (whole < kEntryHead || whole > end) {
    return bad("length of the firmware's table")
        .with(std::to_string(kEntryHead) + " to " + std::to_string(end), std::to_string(whole));
  }
  ByteView rest = all.subspan(end - whole, whole - kEntryHead);
  std::set<Guid> seen;
  while (!rest.empty()) {
    if (rest.size() < kEntryHead) return fail(Reason::kTrailingBytes, "the firmware's table");
    ByteReader head(rest.last(kEntryHead));
    GBX_ASSIGN(const std::uint16_t length, head.u16());
    GBX_ASSIGN(const Guid which, head.fixed<16>());
    if (length < kEntryHead || length > rest.size()) {
      return bad("length of an entry of the firmware's table")
          .with(std::to_string(kEntryHead) + " to " + std::to_string(rest.size()),
                std::to_string(length));
    }
    if (!seen.insert(which).second) return bad("an entry stands twice in the firmware's table");
    if (seen.size() > kMaxTableEntries) {
      return fail(Reason::kTooLarge, "entries of the firmware's table");
    }
    GBX_TRY(take_entry(which, rest.last(length).first(length - kEntryHead)));
    rest = rest.first(rest.size() - length);
  }
  return ok_status();
}

Status Firmware::take_entry(ByteView which, ByteView data) {
  if (equal(which, kTdvfOffset)) return read_tdvf(data);
  if (equal(which, kSevOffset)) return read_sev(data);
  if (equal(which, kSevHashTable)) return read_hash_table(data);
  if (equal(which, kSevEsReset)) {
    GBX_ASSIGN(const std::uint32_t address, one_number(data, "the SEV-ES reset block"));
    if (address != 0) reset_address_ = address;
  }
  return ok_status();
}

Status Firmware::read_tdvf(ByteView entry) {
  GBX_ASSIGN(const std::uint32_t offset, one_number(entry, "the place of the TDVF metadata"));
  GBX_ASSIGN(const ByteView at, from_end(image_, offset, kTdvfHead, "the TDVF metadata"));
  ByteReader r(at);
  GBX_ASSIGN(const ByteView signature, r.take(4));
  GBX_ASSIGN(const std::uint32_t length, r.u32());
  GBX_ASSIGN(const std::uint32_t version, r.u32());
  GBX_ASSIGN(const std::uint32_t count, r.u32());
  if (as_text(signature) != "TDVF") return fail(Reason::kBadMagic, "TDVF metadata");
  if (version != 1) {
    return fail(Reason::kBadVersion, "TDVF metadata").with("1", std::to_string(version));
  }
  if (count < 2 || count > kMaxFirmwareSections) {
    return fail(Reason::kTooLarge, "TDVF sections")
        .with("2 to " + std::to_string(kMaxFirmwareSections), std::to_string(count));
  }
  if (length != kTdvfHead + count * kTdvfEntry) {
    return bad("length of the TDVF metadata")
        .with(std::to_string(kTdvfHead + count * kTdvfEntry), std::to_string(length));
  }
  std::vector<TdvfSection> sections;
  for (std::uint32_t i = 0; i < count; ++i) {
    GBX_ASSIGN(TdvfSection s, tdvf_section(r));
    GBX_TRY(check(s, image_.size()));
    sections.push_back(s);
  }
  GBX_TRY(check_together(sections));
  tdvf_ = std::move(sections);
  return ok_status();
}

Status Firmware::read_sev(ByteView entry) {
  GBX_ASSIGN(const std::uint32_t offset, one_number(entry, "the place of the SEV metadata"));
  GBX_ASSIGN(const ByteView at, from_end(image_, offset, kSevHead, "the SEV metadata"));
  ByteReader r(at);
  GBX_ASSIGN(const ByteView signature, r.take(4));
  GBX_ASSIGN(const std::uint32_t length, r.u32());
  GBX_ASSIGN(const std::uint32_t version, r.u32());
  GBX_ASSIGN(const std::uint32_t count, r.u32());
  if (as_text(signature) != "ASEV") return fail(Reason::kBadMagic, "SEV metadata");
  if (version != 1) {
    return fail(Reason::kBadVersion, "SEV metadata").with("1", std::to_string(version));
  }
  if (count == 0 || count > kMaxFirmwareSections) {
    return fail(Reason::kTooLarge, "SEV sections")
        .with("1 to " + std::to_string(kMaxFirmwareSections), std::to_string(count));
  }
  if (length != kSevHead + count * kSevEntry) {
    return bad("length of the SEV metadata")
        .with(std::to_string(kSevHead + count * kSevEntry), std::to_string(length));
  }
  std::vector<SevSection> sections;
  for (std::uint32_t i = 0; i < count; ++i) {
    GBX_ASSIGN(SevSection s, sev_section(r));
    // Builds for TDX carry sections without a page, which nobody measures.
    if (s.size != 0) sections.push_back(s);
  }
  GBX_TRY(check_together(sections));
  sev_ = std::move(sections);
  return ok_status();
}

Status Firmware::read_hash_table(ByteView entry) {
  ByteReader r(entry);
  auto address = r.u32();
  auto size = r.u32();
  if (!address.ok() || !size.ok()) return bad("the place of the SEV hash table is cut");
  if (*address == 0) return ok_status();
  if (*size < kHashTableSize || *address % kPageSize > kPageSize - kHashTableSize) {
    return bad("room for the SEV hash table")
        .with("176 bytes in one page", std::to_string(*size) + " from " + hex_number(*address));
  }
  hash_table_ = *address;
  return ok_status();
}

const SevSection* Firmware::find(SevKind kind) const {
  for (const auto& s : sev_) {
    if (s.kind == kind) return &s;
  }
  return nullptr;
}
const TdvfSection* Firmware::find(TdvfKind kind) const {
  for (const auto& s : tdvf_) {
    if (s.kind == kind) return &s;
  }
  return nullptr;
}

Status require_tdx(const Firmware& firmware) {
  if (!firmware.tdvf().empty()) return ok_status();
  return fail(Reason::kUnsupported, "this firmware has no TDX metadata")
      .with("a build for TDX", "none of its GUIDs names a TDVF descriptor")
      .hint(
          "take /usr/share/ovmf/OVMF.fd of Debian 13 (package ovmf 2025.02); OVMF_CODE*.fd is one "
          "half of another layout and has no metadata for TDX");
}
Status require_sev(const Firmware& firmware) {
  if (!firmware.sev().empty() && firmware.reset_address()) return ok_status();
  return fail(Reason::kUnsupported, "this firmware has no SEV-SNP metadata")
      .with("a build for SEV-SNP", "none of its GUIDs names SEV metadata and a reset address")
      .hint(
          "take OVMF.amdsev.fd (edk2's AmdSevX64, Debian's package ovmf-amdsev), which also "
          "measures kernel, initrd and command line");
}

}  // namespace gbx::vm::measure
