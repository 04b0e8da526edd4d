// Exact decimal numbers as strings of digits. The container's numbers are untrusted text; no binary
// floating point touches them, so that rounding is the same everywhere and leaves no low bits
// behind.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace gbx::gate {

// (-1)^negative × digits × 10^exponent. No leading or trailing zeros in digits; zero is the empty
// string, exponent 0 and never negative, so equal values are equal structures.
struct Decimal {
  bool negative = false;
  std::string digits;
  int exponent = 0;
  bool operator==(const Decimal&) const = default;
};

inline constexpr std::size_t kMaxNumberText = 400;

// The number grammar of RFC 8259 (so no NaN, no infinity, no "+1", no "01", no ".5"), at most
// kMaxNumberText bytes, exponent within ±400. -0 becomes 0. Error: kBadValue.
Result<Decimal> parse_decimal(std::string_view text);
// True when the text is an integer as written: no point, no exponent.
bool integer_syntax(std::string_view text);

// Rounds half to even, once, at the coarser of the two places: the digits-th significant digit (0:
// no such limit), or the scale-th decimal.
Decimal round_decimal(const Decimal& value, int digits, int scale);
// Plain notation, no exponent: "-0.012", "1200", "0".
std::string to_text(const Decimal& value);
// value × 10^scale. kBadValue when it is no integer or its size passes 10^30.
__extension__ typedef __int128 Wide;
__extension__ typedef unsigned __int128 UWide;
Result<Wide> scaled_integer(const Decimal& value, int scale);

// A declared number: within [minimum, maximum] after rounding. digits 0: exact.
struct NumberType {
  bool integer = false;
  std::int64_t minimum = 0;
  std::int64_t maximum = 0;
  int digits = 3;
  int scale = 3;
  bool operator==(const NumberType&) const = default;
};
// How many different values remain after rounding.
UWide alphabet_size(const NumberType& type);

}  // namespace gbx::gate
