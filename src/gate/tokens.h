// Numbers as the copy detector compares them: a value's identity whatever way it was written, fast
// enough for inputs.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "gate/decimal.h"

namespace gbx::gate {

// ±mantissa × 10^exponent, no trailing zero in the mantissa, at most 18 digits; zero is all zero.
struct NumberKey {
  bool negative = false;
  std::uint64_t mantissa = 0;
  std::int32_t exponent = 0;
  bool operator==(const NumberKey&) const = default;
};
// Nothing when the text is no number or has more than 18 significant digits.
std::optional<NumberKey> number_key(std::string_view text);
NumberKey round_key(const NumberKey& key, int digits, int scale);
std::uint64_t hash_key(const NumberKey& key, std::uint64_t salt);
std::uint64_t hash_text(std::string_view text, std::uint64_t salt);
std::uint64_t mix64(std::uint64_t x);
int significant_digits(const NumberKey& key);

// Splits at everything that is not a letter, digit, '.', '+', '-', '_' or a byte above 127; trims
// '.', '+', '_' at the ends. At most `limit` tokens.
void split_tokens(std::string_view line, std::size_t limit, std::vector<std::string_view>& out);
bool has_digit(std::string_view token);

}  // namespace gbx::gate
