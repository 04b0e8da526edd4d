#include "base/figures.h"

#include <cstddef>

namespace gbx {

std::string grouped(std::int64_t n) {
  std::string digits = std::to_string(n);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > (n < 0 ? 1 : 0); at -= 3) {
    digits.insert(static_cast<std::size_t>(at), ",");
  }
  return digits;
}

std::string counted(std::int64_t n, const std::string& one) {
  return grouped(n) + " " + one + (n == 1 ? "" : "s");
}

}  // namespace gbx
