#include "attest/tdx/event_log.h"

#include <algorithm>

#include "crypto/crypto.h"

namespace gbx::attest::tdx {

namespace {

constexpr std::string_view kSignature{"Spec ID Event03\0", 16};
constexpr std::uint16_t kSha384 = 0x000c;
constexpr std::uint16_t kSha384Size = 48;
constexpr std::uint32_t kHeaderSize = 33;  // of its data
constexpr std::uint32_t kLastIndex = 4;
constexpr std::uint8_t kMajor = 2;
constexpr std::uint8_t kUintnSize = 2;  // 8 bytes
constexpr std::uint32_t kNothing = 0xffffffff;

Status expect(bool holds, const char* what) {
  if (holds) return ok_status();
  return fail(Reason::kBadMagic, std::string("event log: ") + what);
}

// The one event in the old format; it says of which form the others are.
Status parse_log_header(ByteReader& in, EventLog& out) {
  GBX_ASSIGN(out.header_index, in.u32());
  GBX_ASSIGN(const std::uint32_t type, in.u32());
  GBX_ASSIGN(const FixedBytes<20> digest, in.fixed<20>());
  GBX_ASSIGN(const std::uint32_t size, in.u32());
  const bool old_form = type == kEventNoAction && digest == FixedBytes<20>{} && size >= 16;
  GBX_TRY(expect(old_form, "it does not begin with its specification"));
  GBX_ASSIGN(const ByteView signature, in.take(kSignature.size()));
  GBX_TRY(expect(as_text(signature) == kSignature, "not TCG's crypto-agile format"));
  GBX_ASSIGN(const std::uint32_t platform, in.u32());
  GBX_ASSIGN(const std::uint8_t minor, in.u8());
  GBX_ASSIGN(const std::uint8_t major, in.u8());
  GBX_ASSIGN(out.errata, in.u8());
  GBX_ASSIGN(const std::uint8_t uintn, in.u8());
  GBX_TRY(expect(platform == 0 && minor == 0 && major == kMajor && uintn == kUintnSize,
                 "another version of the format"));
  GBX_ASSIGN(const std::uint32_t banks, in.u32());
  GBX_ASSIGN(const std::uint16_t algorithm, in.u16());
  GBX_ASSIGN(const std::uint16_t digest_size, in.u16());
  if (banks != 1 || algorithm != kSha384 || digest_size != kSha384Size) {
    return fail(Reason::kBadSuite, "event log").with("one bank, of SHA-384", "another");
  }
  GBX_ASSIGN(const std::uint8_t vendor_size, in.u8());
  return expect(vendor_size == 0 && size == kHeaderSize, "vendor information");
}

Result<Event> parse_event(ByteReader& in) {
  Event e;
  GBX_ASSIGN(e.index, in.u32());
  GBX_ASSIGN(e.type, in.u32());
  if (e.index > kLastIndex || (e.index == 0 && e.type != kEventNoAction)) {
    return fail(Reason::kBadValue, "event log: register").with("1 to 4", std::to_string(e.index));
  }
  GBX_ASSIGN(const std::uint32_t digests, in.u32());
  GBX_ASSIGN(const std::uint16_t algorithm, in.u16());
  if (digests != 1 || algorithm != kSha384) {
    return fail(Reason::kBadSuite, "event log: digests of an event")
        .with("one, of SHA-384", "others");
  }
  GBX_ASSIGN(e.digest, in.fixed<48>());
  GBX_ASSIGN(e.data, in.bytes32(kMaxLogBytes));
  return e;
}

Status check_log_size(ByteView bytes) {
  if (bytes.size() <= kMaxLogBytes) return ok_status();
  return fail(Reason::kTooLarge, "event log")
      .with("at most " + std::to_string(kMaxLogBytes) + " bytes", std::to_string(bytes.size()));
}

// Whether only filling is left: the next register and type, if any, are no event's.
bool only_padding(ByteView rest) {
  ByteReader in(rest);
  const auto index = in.u32(), type = in.u32();
  if (index.ok() && type.ok()) {
    const bool ones = *index == kNothing, zeros = *index == 0 && *type == 0;
    if (!ones && !zeros) return false;
  }
  const auto all = [rest](std::uint8_t filling) {
    return std::all_of(rest.begin(), rest.end(), [filling](auto b) { return b == filling; });
  };
  return all(0xff) || all(0);
}

// Reads events until `ended` says so of what is left.
template <class Ended>
Status parse_log(ByteReader& in, EventLog& out, Ended ended) {
  GBX_TRY(parse_log_header(in, out));
  while (!ended()) {
    GBX_ASSIGN(Event e, parse_event(in));
    out.events.push_back(std::move(e));
  }
  return ok_status();
}

}  // namespace

Result<EventLog> parse_event_log(ByteView bytes) {
  GBX_TRY(check_log_size(bytes));
  ByteReader in(bytes);
  EventLog log;
  GBX_TRY(parse_log(in, log, [&in] { return in.remaining() == 0; }));
  return log;
}

Result<ByteView> log_without_padding(ByteView table) {
  GBX_TRY(check_log_size(table));
  ByteReader in(table);
  EventLog log;
  GBX_TRY(parse_log(in, log, [&] { return only_padding(table.subspan(in.position())); }));
  return table.first(in.position());
}

Bytes serialize(const EventLog& log) {
  ByteWriter w;
  w.u32(log.header_index).u32(kEventNoAction).zeros(20).u32(kHeaderSize);
  w.text(kSignature).u32(0).u8(0).u8(kMajor).u8(log.errata).u8(kUintnSize);
  w.u32(1).u16(kSha384).u16(kSha384Size).u8(0);
  for (const Event& e : log.events) {
    w.u32(e.index).u32(e.type).u32(1).u16(kSha384).raw(e.digest).bytes32(e.data);
  }
  return w.take();
}

Register extend(const Register& before, const Register& digest) {
  return crypto::sha384(concat({before, digest}));
}

std::array<Register, 4> replay(const EventLog& log) {
  std::array<Register, 4> out{};
  for (const Event& e : log.events) {
    if (e.type == kEventNoAction || e.index == 0 || e.index > kLastIndex) continue;
    Register& r = out[e.index - 1];
    r = extend(r, e.digest);
  }
  return out;
}

}  // namespace gbx::attest::tdx
