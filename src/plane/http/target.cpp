#include "plane/http/target.h"

#include "base/json.h"

namespace gbx::plane::http {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

Status parse_query(std::string_view text, Target* out) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('&'), text.size());
    const std::string_view pair = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t eq = pair.find('=');
    if (eq == std::string_view::npos || eq == 0) {
      return fail(Reason::kUsage, "query parameter without name or value");
    }
    GBX_ASSIGN(std::string name, percent_decode(pair.substr(0, eq)));
    GBX_ASSIGN(std::string value, percent_decode(pair.substr(eq + 1)));
    if (out->query.size() >= kMaxQueryParameters) {
      return fail(Reason::kTooLarge, "query parameters");
    }
    if (!out->query.emplace(std::move(name), std::move(value)).second) {
      return fail(Reason::kUsage, "query parameter given twice");
    }
  }
  return ok_status();
}

}  // namespace

Result<std::string> percent_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (text.size() - i < 3) return fail(Reason::kUsage, "incomplete % escape");
      const int hi = hex_digit(text[i + 1]);
      const int lo = hex_digit(text[i + 2]);
      if (hi < 0 || lo < 0) return fail(Reason::kUsage, "malformed % escape");
      c = static_cast<char>(hi * 16 + lo);
      i += 2;
    }
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return fail(Reason::kUsage, "control character in the target");
    }
    out.push_back(c);
  }
  if (!valid_utf8(out)) return fail(Reason::kUsage, "target is not UTF-8");
  return out;
}

Result<Target> parse_target(std::string_view raw) {
  if (raw.size() > kMaxTargetBytes) return fail(Reason::kTooLarge, "request target");
  if (raw.empty() || raw[0] != '/') return fail(Reason::kUsage, "request target must start with /");
  for (const char c : raw) {
    if (c <= 0x20 || c >= 0x7f || c == '#') {
      return fail(Reason::kUsage, "character that must be escaped in the target");
    }
  }
  Target out;
  const std::size_t question = raw.find('?');
  std::string_view path = raw.substr(0, question);
  path.remove_prefix(1);
  for (bool more = !path.empty(); more;) {
    const std::size_t slash = path.find('/');
    more = slash != std::string_view::npos;
    GBX_ASSIGN(std::string segment, percent_decode(path.substr(0, slash)));
    if (segment.empty()) return fail(Reason::kNotFound, "no route has an empty path segment");
    if (segment == "." || segment == ".." || segment.find('/') != std::string::npos) {
      return fail(Reason::kUsage, "path segment that names a directory");
    }
    if (out.path.size() >= kMaxSegments) return fail(Reason::kNotFound, "no route is that deep");
    out.path.push_back(std::move(segment));
    if (more) path.remove_prefix(slash + 1);
  }
  if (question != std::string_view::npos) GBX_TRY(parse_query(raw.substr(question + 1), &out));
  return out;
}

}  // namespace gbx::plane::http
