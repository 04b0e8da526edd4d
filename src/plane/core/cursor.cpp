#include "plane/core/cursor.h"

namespace gbx::plane {

Result<std::optional<std::pair<std::int64_t, std::string>>> parse_cursor(const std::string& text) {
  using Position = std::pair<std::int64_t, std::string>;
  if (text.empty()) return std::optional<Position>();
  const Error bad = fail(Reason::kBadValue, "cursor").hint("pass the value of `next` as it was");
  const std::size_t dot = text.find('.');
  if (dot == std::string::npos || dot == 0 || dot > 15 || text.size() > 256) return bad;
  if (text[0] == '0' && dot > 1) return bad;
  std::int64_t n = 0;
  for (std::size_t i = 0; i < dot; ++i) {
    if (text[i] < '0' || text[i] > '9') return bad;
    n = n * 10 + (text[i] - '0');
  }
  return std::optional<Position>(Position(n, text.substr(dot + 1)));
}
std::string make_cursor(std::int64_t order, const std::string& id) {
  return std::to_string(order) + "." + id;
}

}  // namespace gbx::plane
