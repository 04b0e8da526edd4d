#include "vm/measure/boot_volume.h"

#include <lzma.h>

#include <algorithm>
#include <memory>

#include "vm/measure/guid.h"

namespace gbx::vm::measure {

namespace {

// A section that is to be unpacked (PI specification, volume 3): length and kind, GUID, where the
// data begins, attributes.
constexpr Guid kLzma = guid("ee4e5898-3914-4259-9d6e-dc7bd79403cf");
constexpr std::size_t kBeforeGuid = 4;
constexpr std::uint8_t kGuidDefined = 2;
constexpr std::uint64_t kUnpackingMemory = 128U << 20;

constexpr Guid kTdTcg2Dxe = guid("f062221e-c607-44c2-b0b4-c3886331d351");
constexpr Guid kSmbiosMeasurementDxe = guid("d27fed59-abb4-4fed-bead-2a878c7e4a7e");
constexpr Guid kBootManagerMenuApp = guid("eec25bdc-67f2-4d95-b1d5-f81b2039d11d");
constexpr std::string_view kFwCfgEvent = "QEMU FW CFG";
constexpr std::string_view kSecureBootSwitch = "SecureBootEnable";

bool holds(ByteView where, ByteView what) {
  return std::search(where.begin(), where.end(), what.begin(), what.end()) != where.end();
}
bool holds_wide(ByteView where, std::string_view text) {
  Bytes wide;
  for (const char c : text) {
    wide.push_back(static_cast<std::uint8_t>(c));
    wide.push_back(0);
  }
  return holds(where, wide);
}

struct End {
  void operator()(lzma_stream* s) const { lzma_end(s); }
};

Result<Bytes> unpack(ByteView packed) {
  lzma_stream raw = LZMA_STREAM_INIT;
  if (lzma_alone_decoder(&raw, kUnpackingMemory) != LZMA_OK) {
    return fail(Reason::kInternal, "liblzma");
  }
  const std::unique_ptr<lzma_stream, End> ended(&raw);
  raw.next_in = packed.data();
  raw.avail_in = packed.size();
  Bytes out;
  lzma_ret state = LZMA_OK;
  while (state == LZMA_OK) {
    if (out.size() == kMaxUnpacked) {
      return fail(Reason::kTooLarge, "a compressed section of the firmware")
          .with("at most " + std::to_string(kMaxUnpacked) + " bytes", "more");
    }
    const std::size_t before = out.size();
    out.resize(std::min<std::size_t>(kMaxUnpacked, std::max<std::size_t>(1U << 20, 2 * before)));
    // SAFETY: liblzma writes at most avail_out bytes, all of them within `out`.
    raw.next_out = out.data() + before;
    raw.avail_out = out.size() - before;
    state = lzma_code(&raw, LZMA_FINISH);
    out.resize(out.size() - raw.avail_out);
  }
  if (state != LZMA_STREAM_END) {
    return fail(Reason::kBadStructure, "a compressed section of the firmware does not unpack")
        .with("an LZMA stream", "liblzma's state " + std::to_string(state));
  }
  return out;
}

struct Seen {
  bool tcg = false;
  bool newer = false;
  bool secure_boot = false;
  void look(ByteView bytes) {
    tcg = tcg || holds(bytes, kTdTcg2Dxe);
    newer = newer || holds(bytes, kSmbiosMeasurementDxe) || holds(bytes, kBootManagerMenuApp) ||
            holds(bytes, as_bytes(kFwCfgEvent));
    secure_boot = secure_boot || holds_wide(bytes, kSecureBootSwitch);
  }
};

// The packed bytes of the section whose GUID lies at `at`; empty where it is no section, but bytes
// that happen to look so.
Result<ByteView> packed_at(ByteView image, std::size_t at) {
  if (at < kBeforeGuid) return ByteView{};
  const ByteView section = image.subspan(at - kBeforeGuid);
  ByteReader r(section);
  GBX_ASSIGN(const ByteView low, r.take(3));
  GBX_ASSIGN(const std::uint8_t kind, r.u8());
  if (kind != kGuidDefined) return ByteView{};
  GBX_TRY(r.take(16));
  std::size_t size =
      low[0] | static_cast<std::size_t>(low[1]) << 8 | static_cast<std::size_t>(low[2]) << 16;
  GBX_ASSIGN(const std::uint16_t begin, r.u16());
  if (begin < kBeforeGuid + 20) return ByteView{};
  if (size > section.size() || begin > size) {
    return fail(Reason::kTruncated, "a compressed section of the firmware");
  }
  return section.subspan(begin, size - begin);
}

}  // namespace

Result<TdxEvents> tdx_events(ByteView image) {
  Seen seen;
  seen.look(image);
  auto from = image.begin();
  for (std::size_t n = 0;; ++n) {
    from = std::search(from, image.end(), kLzma.begin(), kLzma.end());
    if (from == image.end()) break;
    if (n == kMaxPackedSections) {
      return fail(Reason::kTooLarge, "compressed sections of the firmware")
          .with("at most " + std::to_string(kMaxPackedSections), "more");
    }
    GBX_ASSIGN(const ByteView packed,
               packed_at(image, static_cast<std::size_t>(from - image.begin())));
    ++from;
    if (packed.empty()) continue;
    GBX_ASSIGN(const Bytes plain, unpack(packed));
    seen.look(plain);
  }
  if (!seen.tcg) return TdxEvents::kNone;
  if (seen.newer) return TdxEvents::kNewer;
  return seen.secure_boot ? TdxEvents::kSecureBoot : TdxEvents::kEdk2_2025;
}

}  // namespace gbx::vm::measure
