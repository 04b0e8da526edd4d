#include "base/bytes.h"

#include <algorithm>

namespace gbx {

ByteView as_bytes(std::string_view text) {
  // SAFETY: char and unsigned char may alias; the view has the length of the text.
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
std::string_view as_text(ByteView bytes) {
  // SAFETY: as above, in the other direction.
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
Bytes to_bytes(ByteView view) { return Bytes(view.begin(), view.end()); }
void append(Bytes& out, ByteView more) { out.insert(out.end(), more.begin(), more.end()); }
Bytes concat(std::initializer_list<ByteView> parts) {
  Bytes out;
  for (ByteView p : parts) append(out, p);
  return out;
}
bool equal(ByteView a, ByteView b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

std::string to_hex(ByteView bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (std::uint8_t b : bytes) {
    out.push_back(kDigits[b >> 4]);
    out.push_back(kDigits[b & 15]);
  }
  return out;
}

namespace {
int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}
constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
}  // namespace

Result<Bytes> from_hex(std::string_view text) {
  if (text.size() % 2 != 0) return fail(Reason::kBadEncoding, "hex text of odd length");
  Bytes out;
  out.reserve(text.size() / 2);
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int hi = hex_digit(text[i]);
    const int lo = hex_digit(text[i + 1]);
    if (hi < 0 || lo < 0) return fail(Reason::kBadEncoding, "not lower-case hex");
    out.push_back(static_cast<std::uint8_t>(hi * 16 + lo));
  }
  return out;
}

std::string to_base64url(ByteView bytes) {
  std::string out;
  std::uint32_t acc = 0;
  int bits = 0;
  for (std::uint8_t b : bytes) {
    acc = (acc << 8 | b) & 0xffffffU;
    bits += 8;
    while (bits >= 6) {
      bits -= 6;
      out.push_back(kBase64[(acc >> bits) & 63]);
    }
  }
  if (bits > 0) out.push_back(kBase64[(acc << (6 - bits)) & 63]);
  return out;
}

Result<Bytes> from_base64url(std::string_view text) {
  if (text.size() % 4 == 1) return fail(Reason::kBadEncoding, "base64url of impossible length");
  Bytes out;
  out.reserve(text.size() * 3 / 4);
  std::uint32_t acc = 0;
  int bits = 0;
  for (char c : text) {
    const auto v = kBase64.find(c);
    if (v == std::string_view::npos) return fail(Reason::kBadEncoding, "not base64url");
    acc = (acc << 6 | static_cast<std::uint32_t>(v)) & 0xffffffU;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out.push_back(static_cast<std::uint8_t>(acc >> bits & 0xff));
    }
  }
  if ((acc & ((1U << bits) - 1)) != 0) {
    return fail(Reason::kBadEncoding, "base64url with unused bits set");
  }
  return out;
}

Result<ByteView> ByteReader::take(std::size_t n) {
  if (n > remaining()) {
    return fail(Reason::kTruncated, "input ends early")
        .with(std::to_string(n) + " more bytes", std::to_string(remaining()));
  }
  ByteView v = view_.subspan(pos_, n);
  pos_ += n;
  return v;
}

namespace {
template <class T>
Result<T> little(Result<ByteView> v) {
  if (!v.ok()) return v.error();
  T out = 0;
  for (std::size_t i = sizeof(T); i-- > 0;) {
    out = static_cast<T>(static_cast<std::uint64_t>(out) << 8 | (*v)[i]);
  }
  return out;
}
template <class T>
void put(Bytes& out, T v) {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    out.push_back(static_cast<std::uint8_t>(static_cast<std::uint64_t>(v) >> (8 * i) & 0xff));
  }
}
}  // namespace

Result<std::uint8_t> ByteReader::u8() { return little<std::uint8_t>(take(1)); }
Result<std::uint16_t> ByteReader::u16() { return little<std::uint16_t>(take(2)); }
Result<std::uint32_t> ByteReader::u32() { return little<std::uint32_t>(take(4)); }
Result<std::uint64_t> ByteReader::u64() { return little<std::uint64_t>(take(8)); }
Result<Bytes> ByteReader::bytes32(std::size_t limit) {
  GBX_ASSIGN(std::uint32_t n, u32());
  if (n > limit) {
    return fail(Reason::kTooLarge, "length field")
        .with("at most " + std::to_string(limit), std::to_string(n));
  }
  GBX_ASSIGN(ByteView v, take(n));
  return to_bytes(v);
}
Status ByteReader::finish() const {
  if (remaining() != 0) {
    return fail(Reason::kTrailingBytes, "bytes after the end")
        .with("0", std::to_string(remaining()));
  }
  return ok_status();
}

ByteWriter& ByteWriter::u8(std::uint8_t v) {
  put(out_, v);
  return *this;
}
ByteWriter& ByteWriter::u16(std::uint16_t v) {
  put(out_, v);
  return *this;
}
ByteWriter& ByteWriter::u32(std::uint32_t v) {
  put(out_, v);
  return *this;
}
ByteWriter& ByteWriter::u64(std::uint64_t v) {
  put(out_, v);
  return *this;
}
ByteWriter& ByteWriter::raw(ByteView v) {
  append(out_, v);
  return *this;
}
ByteWriter& ByteWriter::text(std::string_view v) {
  append(out_, as_bytes(v));
  return *this;
}
ByteWriter& ByteWriter::bytes32(ByteView v) {
  u32(static_cast<std::uint32_t>(v.size()));
  return raw(v);
}
ByteWriter& ByteWriter::zeros(std::size_t n) {
  out_.insert(out_.end(), n, 0);
  return *this;
}

}  // namespace gbx
