#include "base/printable.h"

#include <algorithm>
#include <iterator>

#include "base/json.h"

namespace gbx {

namespace {

struct Range {
  char32_t first;
  char32_t last;
};
constexpr Range kUnprintable[] = {
    {0x0000, 0x001f}, {0x007f, 0x009f}, {0x00ad, 0x00ad},   {0x034f, 0x034f},   {0x061c, 0x061c},
    {0x115f, 0x1160}, {0x17b4, 0x17b5}, {0x180b, 0x180f},   {0x200b, 0x200f},   {0x2028, 0x202e},
    {0x2060, 0x206f}, {0x3164, 0x3164}, {0xfe00, 0xfe0f},   {0xfeff, 0xfeff},   {0xffa0, 0xffa0},
    {0xfff0, 0xfffb}, {0xfffe, 0xffff}, {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},
};
constexpr char kHex[] = "0123456789abcdef";

std::string json_escape(char32_t unit) {
  std::string out = "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) out.push_back(kHex[unit >> shift & 15U]);
  return out;
}

struct CodePoint {
  char32_t value = 0;
  std::size_t size = 1;  // bytes
};
CodePoint code_point_at(std::string_view utf8, std::size_t i) {
  const auto byte = [&](std::size_t k) {
    return i + k < utf8.size() ? static_cast<unsigned char>(utf8[i + k]) : char32_t{0};
  };
  const auto low = [&](std::size_t k) { return byte(k) & 0x3fU; };
  if (byte(0) < 0x80) return {byte(0), 1};
  if (byte(0) < 0xe0) return {(byte(0) & 0x1fU) << 6 | low(1), 2};
  if (byte(0) < 0xf0) return {(byte(0) & 0x0fU) << 12 | low(1) << 6 | low(2), 3};
  return {(byte(0) & 0x07U) << 18 | low(1) << 12 | low(2) << 6 | low(3), 4};
}

bool unprintable(char32_t point) {
  const auto* at = std::partition_point(std::begin(kUnprintable), std::end(kUnprintable),
                                        [&](const Range& r) { return r.last < point; });
  return at != std::end(kUnprintable) && at->first <= point;
}

}  // namespace

std::string escape_unprintable(std::string_view utf8,
                               const std::function<std::string(char32_t)>& escape) {
  std::string out;
  for (std::size_t i = 0; i < utf8.size();) {
    const CodePoint c = code_point_at(utf8, i);
    if (c.value == U'\n' || !unprintable(c.value)) {
      out += utf8.substr(i, c.size);
    } else {
      out += escape(c.value);
    }
    i += c.size;
  }
  return out;
}

std::string printable(std::string_view text, std::size_t limit) {
  std::string out;
  const bool utf8 = valid_utf8(text);
  for (std::size_t i = 0; i < text.size() && out.size() < limit;) {
    const auto first = static_cast<unsigned char>(text[i]);
    const CodePoint c = utf8 ? code_point_at(text, i) : CodePoint{first, 1};
    const bool shown = utf8 ? !unprintable(c.value) : first >= 0x20 && first < 0x7f;
    for (const char byte : text.substr(i, c.size)) {
      const auto b = static_cast<unsigned char>(byte);
      if (!shown) {
        out += "\\x";
        out.push_back(kHex[b >> 4U]);
      }
      out.push_back(shown ? byte : kHex[b & 15U]);
    }
    i += c.size;
  }
  return out;
}

std::string printable_whole(std::string_view text) { return printable(text, std::string::npos); }

std::string printable_json(std::string_view json) {
  return escape_unprintable(json, [](char32_t point) {
    if (point <= 0xffff) return json_escape(point);
    // as two of UTF-16, as JSON has it
    return json_escape(0xd800 + ((point - 0x10000) >> 10U)) +
           json_escape(0xdc00 + ((point - 0x10000) & 0x3ffU));
  });
}

}  // namespace gbx
