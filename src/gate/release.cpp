#include "gate/release.h"

#include <algorithm>
#include <bit>

#include "base/names.h"
#include "gate/schema.h"

namespace gbx::gate {
namespace {

constexpr std::string_view kMagic = "GBXOUT1\n";
constexpr auto kLeast = static_cast<std::size_t>(kMinBundleBytes);
constexpr auto kMost = static_cast<std::size_t>(kMaxBundleBytes);

// Status first, outputs by path, then the log: any other order or name is refused.
bool in_order(const std::vector<BundleEntry>& entries) {
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const BundleEntry& e = entries[i];
    if (e.kind == EntryKind::kLog) {
      if (e.name != "log" || i + 1 != entries.size()) return false;
    } else if (e.kind != EntryKind::kOutput || !plain_path(e.name) ||
               (i != 0 && entries[i - 1].name >= e.name)) {
      return false;
    }
  }
  return true;
}

Result<BundleEntry> read_entry(ByteReader& r) {
  BundleEntry e;
  GBX_ASSIGN(const std::uint8_t kind, r.u8());
  if (kind > static_cast<std::uint8_t>(EntryKind::kLog)) {
    return fail(Reason::kBadStructure, "bundle: kind of entry");
  }
  e.kind = static_cast<EntryKind>(kind);
  GBX_ASSIGN(const std::uint16_t name_size, r.u16());
  GBX_ASSIGN(const ByteView name, r.take(name_size));
  e.name = as_text(name);
  GBX_ASSIGN(e.content, r.bytes32(kMost));
  return e;
}

}  // namespace

Result<Bytes> encode_bundle(const Bundle& b, std::size_t padded_size) {
  if (padded_size > kMost) {
    return fail(Reason::kTooLarge, "bundle")
        .with("at most " + std::to_string(kMost) + " bytes", std::to_string(padded_size));
  }
  if (padded_size < kLeast || !std::has_single_bit(padded_size)) {
    return fail(Reason::kBadValue, "bundle size");
  }
  if (!in_order(b.entries)) return fail(Reason::kBadValue, "bundle: names or order");
  ByteWriter w;
  w.text(kMagic).u32(static_cast<std::uint32_t>(b.entries.size() + 1));
  const auto put = [&w](EntryKind kind, std::string_view name, ByteView content) {
    w.u8(static_cast<std::uint8_t>(kind))
        .u16(static_cast<std::uint16_t>(name.size()))
        .text(name)
        .bytes32(content);
  };
  put(EntryKind::kStatus, "status", as_bytes(canonical(to_json(b.status))));
  for (const auto& e : b.entries) put(e.kind, e.name, e.content);
  if (w.bytes().size() > padded_size) return fail(Reason::kTooLarge, "bundle");
  w.zeros(padded_size - w.bytes().size());
  return w.take();
}

Result<Bundle> decode_bundle(ByteView bytes) {
  if (bytes.size() > kMost) return fail(Reason::kTooLarge, "bundle");
  if (bytes.size() < kLeast || !std::has_single_bit(bytes.size())) {
    return fail(Reason::kTruncated, "bundle size");
  }
  ByteReader r(bytes);
  GBX_ASSIGN(const ByteView magic, r.take(kMagic.size()));
  if (as_text(magic) != kMagic) return fail(Reason::kBadMagic, "bundle");
  GBX_ASSIGN(const std::uint32_t count, r.u32());
  if (count < 1 || count > kMaxOutputs + 2) {
    return fail(Reason::kBadStructure, "bundle: number of entries");
  }
  Bundle b;
  for (std::uint32_t i = 0; i < count; ++i) {
    GBX_ASSIGN(BundleEntry e, read_entry(r));
    // What a gate that was taken over, or a host without a TEE, wrote is printed to a terminal.
    if (e.kind == EntryKind::kLog && clean_log(e.content, e.content.size()) != e.content) {
      return fail(Reason::kBadStructure, "bundle: a log with other than printable text");
    }
    if (i != 0) {
      b.entries.push_back(std::move(e));
      continue;
    }
    if (e.kind != EntryKind::kStatus || e.name != "status") {
      return fail(Reason::kBadStructure, "bundle: no status");
    }
    GBX_ASSIGN(b.status, from_json_text<BundleStatus>(as_text(e.content)));
    if (as_text(e.content) != canonical(to_json(b.status))) {
      return fail(Reason::kBadStructure, "bundle: status");
    }
  }
  if (!in_order(b.entries)) return fail(Reason::kBadStructure, "bundle: names or order of entries");
  GBX_ASSIGN(const ByteView rest, r.take(r.remaining()));
  if (std::any_of(rest.begin(), rest.end(), [](std::uint8_t c) { return c != 0; })) {
    return fail(Reason::kBadStructure, "bundle: padding is not zero");
  }
  return b;
}

std::size_t padded_bundle_size(const GateRequest& r) {
  BundleSize size;
  for (const auto& o : r.outputs) size.add_output(o.path.size(), o.maxBytes);
  size.add_log(consumer_log_bytes(r));
  return static_cast<std::size_t>(size.padded());
}

Result<ReleaseChannel> ReleaseChannel::make(Bundle bundle, std::size_t padded_size) {
  ReleaseChannel c;
  GBX_ASSIGN(c.bytes_, encode_bundle(bundle, padded_size));
  c.bundle_ = std::move(bundle);
  return c;
}
Result<ReleaseChannel> ReleaseChannel::decode(ByteView bytes) {
  ReleaseChannel c;
  GBX_ASSIGN(c.bundle_, decode_bundle(bytes));
  c.bytes_ = to_bytes(bytes);
  return c;
}

Bytes clean_log(ByteView raw, std::size_t limit) {
  Bytes out;
  for (const std::uint8_t c : raw.first(std::min(raw.size(), limit))) {
    const bool plain = (c >= 0x20 && c < 0x7f) || c == '\n' || c == '\t';
    out.push_back(plain ? c : std::uint8_t{'?'});
  }
  return out;
}

}  // namespace gbx::gate
