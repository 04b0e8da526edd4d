// Request targets of strangers: segments that no other parser could read otherwise, and a written
// form that reads the same.
#include "fuzz/fuzz.h"
#include "plane/http/target.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;
using namespace gbx::plane::http;

std::string encode(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto b = static_cast<unsigned char>(c);
    out += '%';
    out += kHex[b >> 4];
    out += kHex[b & 15];
  }
  return out;
}

void plain(std::string_view text) {
  require(valid_utf8(text));
  for (const char c : text) require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view raw = as_text(ByteView(data, size));
  (void)percent_decode(raw);
  const auto target = parse_target(raw);
  if (!target.ok()) return 0;
  require(raw.size() <= kMaxTargetBytes && target->path.size() <= kMaxSegments &&
          target->query.size() <= kMaxQueryParameters);
  std::string again;
  for (const std::string& segment : target->path) {
    plain(segment);
    require(!segment.empty() && segment != "." && segment != "..");
    again += "/" + encode(segment);
  }
  if (again.empty()) again = "/";
  char separator = '?';
  for (const auto& [name, value] : target->query) {
    plain(name);
    plain(value);
    again += separator + encode(name) + "=" + encode(value);
    separator = '&';
  }
  if (again.size() > kMaxTargetBytes) return 0;
  const auto second = parse_target(again);
  require(second.ok() && second->path == target->path && second->query == target->query);
  return 0;
}
