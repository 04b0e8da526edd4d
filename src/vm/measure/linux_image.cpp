#include "vm/measure/linux_image.h"

#include <algorithm>
#include <optional>

#include "crypto/crypto.h"

namespace gbx::vm::measure {

namespace {

constexpr std::size_t kCoffHeaderSize = 20;
constexpr std::size_t kSectionHeaderSize = 40;
constexpr std::uint16_t kPe32 = 0x10b;
constexpr std::uint16_t kPe32Plus = 0x20b;
constexpr std::size_t kChecksum = 64;  // in the optional header
constexpr std::uint32_t kSecurityDirectory = 4;

struct Range {
  std::uint64_t begin = 0;
  std::uint64_t size = 0;
};
// What of a PE image its digest depends on.
struct PeLayout {
  std::size_t checksum = 0;
  std::optional<std::size_t> security;  // place of the directory's entry
  std::uint32_t certificates = 0;       // bytes of them, at the file's end
  std::uint32_t headers = 0;
  std::vector<Range> sections;
};

Error no_pe(std::string what) {
  return fail(Reason::kBadMagic, "the kernel is no PE image: " + std::move(what))
      .hint("give the bzImage of a kernel with CONFIG_EFI_STUB, as Debian's /boot/vmlinuz-*");
}
Error cut(const char* what, std::size_t size) {
  return fail(Reason::kTruncated, std::string("the kernel ends before its ") + what)
      .with("more bytes", std::to_string(size));
}

Result<ByteReader> reader_at(ByteView image, std::uint64_t at, std::uint64_t size,
                             const char* what) {
  if (at > image.size() || size > image.size() - at) return cut(what, image.size());
  return ByteReader(image.subspan(at, size));
}

Result<std::vector<Range>> sections_of(ByteView image, std::uint64_t at, std::uint16_t count) {
  GBX_ASSIGN(ByteReader r, reader_at(image, at, count * kSectionHeaderSize, "section headers"));
  std::vector<Range> out;
  for (std::uint16_t i = 0; i < count; ++i) {
    GBX_TRY(r.take(16));
    GBX_ASSIGN(const std::uint32_t size, r.u32());
    GBX_ASSIGN(const std::uint32_t begin, r.u32());
    GBX_TRY(r.take(16));
    if (size == 0) continue;
    if (begin > image.size() || size > image.size() - begin) return cut("section", image.size());
    out.push_back({begin, size});
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const Range& a, const Range& b) { return a.begin < b.begin; });
  return out;
}

Status read_directories(ByteView image, std::uint64_t optional, bool plus, PeLayout& out) {
  const std::uint64_t at = optional + (plus ? 108U : 92U);
  GBX_ASSIGN(ByteReader r, reader_at(image, at, 4, "data directories"));
  GBX_ASSIGN(const std::uint32_t count, r.u32());
  if (count <= kSecurityDirectory) return ok_status();
  out.security = at + 4 + kSecurityDirectory * 8;
  GBX_ASSIGN(ByteReader entry, reader_at(image, *out.security, 8, "certificate directory"));
  GBX_TRY(entry.u32());
  GBX_ASSIGN(out.certificates, entry.u32());
  return ok_status();
}

Result<PeLayout> layout_of(ByteView image) {
  if (image.size() < 64 || image[0] != 'M' || image[1] != 'Z') return no_pe("no MZ at its start");
  ByteReader dos(image.subspan(0x3c, 4));
  GBX_ASSIGN(const std::uint32_t pe, dos.u32());
  GBX_ASSIGN(ByteReader r, reader_at(image, pe, 4 + kCoffHeaderSize + kChecksum + 4, "PE header"));
  GBX_ASSIGN(const ByteView signature, r.take(4));
  static constexpr std::uint8_t kSignature[4] = {'P', 'E', 0, 0};
  if (!equal(signature, kSignature)) return no_pe("no PE signature where its MZ header points");
  GBX_TRY(r.take(2));  // machine
  GBX_ASSIGN(const std::uint16_t count, r.u16());
  GBX_TRY(r.take(12));
  GBX_ASSIGN(const std::uint16_t optional_size, r.u16());
  GBX_TRY(r.take(2));  // characteristics
  GBX_ASSIGN(const std::uint16_t magic, r.u16());
  if (magic != kPe32 && magic != kPe32Plus) return no_pe("neither PE32 nor PE32+");
  if (count > kMaxPeSections) {
    return fail(Reason::kTooLarge, "sections of the kernel")
        .with("at most " + std::to_string(kMaxPeSections), std::to_string(count));
  }
  GBX_TRY(r.take(58));
  PeLayout out;
  GBX_ASSIGN(out.headers, r.u32());
  const std::uint64_t optional = std::uint64_t{pe} + 4 + kCoffHeaderSize;
  out.checksum = optional + kChecksum;
  GBX_TRY(read_directories(image, optional, magic == kPe32Plus, out));
  GBX_ASSIGN(out.sections, sections_of(image, optional + optional_size, count));
  const std::size_t least = out.security ? *out.security + 8 : out.checksum + 4;
  if (out.headers < least || out.headers > image.size()) {
    return fail(Reason::kBadStructure, "size of the kernel's PE headers")
        .with(std::to_string(least) + " to " + std::to_string(image.size()),
              std::to_string(out.headers));
  }
  return out;
}

constexpr std::size_t kSetupHeaderEnd = 0x268;  // of protocol 2.15
constexpr std::size_t kMaxPatched = 8192;       // QEMU writes no further
constexpr std::uint16_t kOldestProtocol = 0x206;
// What QEMU keeps free below the end of low memory for the ACPI tables of a q35 machine.
constexpr std::uint64_t kAcpiData = 0x28000;
constexpr std::uint32_t kCmdlineAddress = 0x20000;
constexpr std::uint32_t kRealModeAddress = 0x10000;
constexpr std::uint16_t kAbove4g = 0x2;  // XLF_CAN_BE_LOADED_ABOVE_4G
constexpr std::uint8_t kLoadedHigh = 0x01;
constexpr std::uint8_t kCanUseHeap = 0x80;
constexpr std::uint8_t kQemuLoader = 0xb0;

void put(Bytes& image, std::size_t at, ByteView bytes) {
  std::copy(bytes.begin(), bytes.end(), image.begin() + static_cast<std::ptrdiff_t>(at));
}
Result<std::uint32_t> number_at(ByteView image, std::size_t at, bool wide) {
  ByteReader r(image.subspan(at, 4));
  if (wide) return r.u32();
  GBX_ASSIGN(const std::uint16_t n, r.u16());
  return std::uint32_t{n};
}

Result<std::uint32_t> initrd_address(ByteView kernel, std::uint32_t protocol, std::size_t size,
                                     std::uint64_t memory) {
  GBX_ASSIGN(const std::uint32_t flags, number_at(kernel, 0x236, false));
  GBX_ASSIGN(const std::uint32_t stated, number_at(kernel, 0x22c, true));
  const bool anywhere = protocol >= 0x20c && (flags & kAbove4g) != 0;
  std::uint64_t highest = anywhere ? 0xffffffff : stated;
  const std::uint64_t low = memory_below_4g(memory) - kAcpiData;
  if (highest >= low) highest = low - 1;
  if (size >= highest) {
    return fail(Reason::kTooLarge, "initrd, for this memory")
        .with("less than " + std::to_string(highest) + " bytes", std::to_string(size));
  }
  return static_cast<std::uint32_t>((highest - size) & ~std::uint64_t{4095});
}

}  // namespace

Result<Register> pe_digest(ByteView image) {
  GBX_ASSIGN(const PeLayout pe, layout_of(image));
  crypto::Sha384 h;
  h.update(image.first(pe.checksum));
  std::size_t at = pe.checksum + 4;
  if (pe.security) {
    h.update(image.subspan(at, *pe.security - at));
    at = *pe.security + 8;
  }
  h.update(image.subspan(at, pe.headers - at));
  std::uint64_t hashed = pe.headers;
  for (const auto& s : pe.sections) {
    h.update(image.subspan(s.begin, s.size));
    hashed += s.size;
  }
  if (image.size() > hashed) {
    const std::uint64_t rest = image.size() - hashed;
    if (rest < pe.certificates) {
      return fail(Reason::kBadStructure, "certificates of the kernel")
          .with("at most " + std::to_string(rest) + " bytes", std::to_string(pe.certificates));
    }
    h.update(image.subspan(hashed, rest - pe.certificates));
  }
  return h.finish();
}

std::uint64_t memory_below_4g(std::uint64_t memory) {
  constexpr std::uint64_t kOneBlock = 0xb0000000;
  return memory >= kOneBlock ? 0x80000000 : memory;
}

Result<Bytes> with_qemu_header(const Boot& boot, std::uint64_t memory) {
  const ByteView kernel = boot.kernel;
  if (kernel.size() < kSetupHeaderEnd || as_text(kernel.subspan(0x202, 4)) != "HdrS") {
    return fail(Reason::kBadMagic, "the kernel has no Linux setup header")
        .with("HdrS at offset 0x202", std::to_string(kernel.size()) + " bytes without it");
  }
  GBX_ASSIGN(const std::uint32_t protocol, number_at(kernel, 0x206, false));
  if (protocol < kOldestProtocol || (kernel[0x211] & kLoadedHigh) == 0) {
    return fail(Reason::kUnsupported, "the kernel's boot protocol")
        .with("2.06 or later, loaded high", to_hex(kernel.subspan(0x206, 2)));
  }
  // QEMU would write the mode into the header.
  if (boot.cmdline.find("vga=") != std::string::npos) {
    return fail(Reason::kUnsupported, "vga= on the kernel command line");
  }
  const std::size_t sectors = kernel[0x1f1] == 0 ? 4 : kernel[0x1f1];
  const std::size_t setup = (sectors + 1) * 512;
  if (setup > kernel.size() || setup < kSetupHeaderEnd) return cut("setup code", kernel.size());
  Bytes header = to_bytes(kernel.first(std::min(setup, kMaxPatched)));
  put(header, 0x228, ByteWriter().u32(kCmdlineAddress).bytes());
  header[0x210] = kQemuLoader;
  header[0x211] |= kCanUseHeap;
  put(header, 0x224, ByteWriter().u16(kCmdlineAddress - kRealModeAddress - 0x200).bytes());
  if (!boot.initrd.empty()) {
    GBX_ASSIGN(const std::uint32_t at,
               initrd_address(kernel, protocol, boot.initrd.size(), memory));
    put(header, 0x218,
        ByteWriter().u32(at).u32(static_cast<std::uint32_t>(boot.initrd.size())).bytes());
  }
  Bytes out = to_bytes(kernel);
  put(out, 0, header);
  return out;
}

}  // namespace gbx::vm::measure
