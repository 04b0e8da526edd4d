// Byte strings, fixed-size values, and the only reader for untrusted bytes.
// ByteReader never reads past its view; finish() rejects what is left over.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace gbx {

using Bytes = std::vector<std::uint8_t>;
using ByteView = std::span<const std::uint8_t>;
using MutableByteView = std::span<std::uint8_t>;

template <std::size_t N>
using FixedBytes = std::array<std::uint8_t, N>;
using Hash32 = FixedBytes<32>;  // SHA-256 values and identities made of them
using Id16 = FixedBytes<16>;    // random identifiers
using Nonce32 = FixedBytes<32>;

ByteView as_bytes(std::string_view text);
std::string_view as_text(ByteView bytes);
Bytes to_bytes(ByteView view);
Bytes concat(std::initializer_list<ByteView> parts);
void append(Bytes& out, ByteView more);
bool equal(ByteView a, ByteView b);  // not constant time: for public values only

std::string to_hex(ByteView bytes);             // lower case
Result<Bytes> from_hex(std::string_view text);  // lower case only, even length
std::string to_base64url(ByteView bytes);       // RFC 4648 section 5, no padding
// canonical only: unused bits must be zero
Result<Bytes> from_base64url(std::string_view text);

template <std::size_t N>
Result<FixedBytes<N>> fixed_from(ByteView view) {
  if (view.size() != N) {
    return fail(Reason::kBadValue, "wrong length")
        .with(std::to_string(N) + " bytes", std::to_string(view.size()) + " bytes");
  }
  FixedBytes<N> out;
  std::memcpy(out.data(), view.data(), N);
  return out;
}
template <std::size_t N>
Result<FixedBytes<N>> fixed_from_hex(std::string_view text) {
  GBX_ASSIGN(Bytes raw, from_hex(text));
  return fixed_from<N>(raw);
}

// Little-endian reader over untrusted bytes. The view must outlive the reader.
class ByteReader {
 public:
  explicit ByteReader(ByteView view) : view_(view) {}
  Result<std::uint8_t> u8();
  Result<std::uint16_t> u16();
  Result<std::uint32_t> u32();
  Result<std::uint64_t> u64();
  Result<ByteView> take(std::size_t n);
  Result<Bytes> bytes32(std::size_t limit);  // u32 length, then that many bytes, at most `limit`
  template <std::size_t N>
  Result<FixedBytes<N>> fixed() {
    GBX_ASSIGN(ByteView v, take(N));
    return fixed_from<N>(v);
  }
  std::size_t remaining() const { return view_.size() - pos_; }
  std::size_t position() const { return pos_; }
  Status finish() const;  // kTrailingBytes unless everything was read

 private:
  ByteView view_;
  std::size_t pos_ = 0;
};

// Little-endian writer.
class ByteWriter {
 public:
  ByteWriter& u8(std::uint8_t v);
  ByteWriter& u16(std::uint16_t v);
  ByteWriter& u32(std::uint32_t v);
  ByteWriter& u64(std::uint64_t v);
  ByteWriter& raw(ByteView v);
  ByteWriter& text(std::string_view v);
  ByteWriter& bytes32(ByteView v);
  ByteWriter& zeros(std::size_t n);
  const Bytes& bytes() const { return out_; }
  Bytes take() { return std::move(out_); }

 private:
  Bytes out_;
};

}  // namespace gbx
