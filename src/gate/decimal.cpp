#include "gate/decimal.h"

#include <algorithm>

namespace gbx::gate {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

Decimal normal(bool negative, std::string digits, int exponent) {
  const auto first = digits.find_first_not_of('0');
  if (first == std::string::npos) return Decimal{};
  digits.erase(0, first);
  const auto last = digits.find_last_not_of('0');
  exponent += static_cast<int>(digits.size() - 1 - last);
  digits.resize(last + 1);
  return Decimal{negative, std::move(digits), exponent};
}

// How many integers k in [0, limit] have at most `digits` significant digits (0: all of them).
UWide count_up_to(UWide limit, int digits) {
  UWide power = 1;
  for (int i = 0; i < digits; ++i) power *= 10;
  if (digits == 0 || limit < power) return limit + 1;
  UWide count = power;  // 0 … 10^digits - 1, all of which qualify
  UWide step = 10;
  const UWide first = power / 10;
  while (first * step <= limit) {
    const UWide last = std::min(limit / step, power - 1);
    count += last - first + 1;
    step *= 10;
  }
  return count;
}

UWide magnitude(std::int64_t v) {
  return static_cast<UWide>(v < 0 ? -static_cast<Wide>(v) : static_cast<Wide>(v));
}

}  // namespace

bool integer_syntax(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin() + (text[0] == '-' ? 1 : 0), text.end(), is_digit);
}

Result<Decimal> parse_decimal(std::string_view text) {
  const auto bad = [] { return fail(Reason::kBadValue, "not a plain number"); };
  if (text.empty() || text.size() > kMaxNumberText) return bad();
  std::size_t i = 0;
  const bool negative = text[0] == '-';
  if (negative) ++i;
  const std::size_t whole = i;
  while (i < text.size() && is_digit(text[i])) ++i;
  if (i == whole || (i - whole > 1 && text[whole] == '0')) return bad();
  std::string digits(text.substr(whole, i - whole));
  int exponent = 0;
  if (i < text.size() && text[i] == '.') {
    const std::size_t start = ++i;
    while (i < text.size() && is_digit(text[i])) ++i;
    if (i == start) return bad();
    digits += text.substr(start, i - start);
    exponent = -static_cast<int>(i - start);
  }
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    ++i;
    const bool down = i < text.size() && text[i] == '-';
    if (i < text.size() && (text[i] == '-' || text[i] == '+')) ++i;
    const std::size_t start = i;
    int e = 0;
    while (i < text.size() && is_digit(text[i]) && i - start < 4) e = e * 10 + (text[i++] - '0');
    if (i == start || e > 400) return bad();
    exponent += down ? -e : e;
  }
  if (i != text.size()) return bad();
  return normal(negative, std::move(digits), exponent);
}

Decimal round_decimal(const Decimal& v, int digits, int scale) {
  if (v.digits.empty()) return v;
  const int size = static_cast<int>(v.digits.size());
  const int top = v.exponent + size - 1;  // place of the leading digit
  int place = -scale;
  if (digits > 0) place = std::max(place, top - digits + 1);
  if (v.exponent >= place) return v;
  // digits that stay; below zero: the value is under a tenth of the place
  const int keep = v.exponent + size - place;
  if (keep < 0) return Decimal{};
  std::string kept = v.digits.substr(0, static_cast<std::size_t>(keep));
  const char next = v.digits[static_cast<std::size_t>(keep)];
  const bool beyond = keep + 1 < size;  // no trailing zeros, so what follows is not zero
  const bool odd = !kept.empty() && ((kept.back() - '0') & 1) != 0;
  if (next > '5' || (next == '5' && (beyond || odd))) {
    kept.insert(kept.begin(), '0');
    std::size_t i = kept.size();
    while (kept[--i] == '9') kept[i] = '0';
    ++kept[i];
  }
  return normal(v.negative, std::move(kept), place);
}

std::string to_text(const Decimal& v) {
  if (v.digits.empty()) return "0";
  std::string out = v.negative ? "-" : "";
  const int point = static_cast<int>(v.digits.size()) + v.exponent;  // digits before the point
  if (point <= 0) return out + "0." + std::string(static_cast<std::size_t>(-point), '0') + v.digits;
  if (v.exponent >= 0) {
    return out + v.digits + std::string(static_cast<std::size_t>(v.exponent), '0');
  }
  const auto at = static_cast<std::size_t>(point);
  return out + v.digits.substr(0, at) + "." + v.digits.substr(at);
}

Result<Wide> scaled_integer(const Decimal& v, int scale) {
  const int shift = v.exponent + scale;
  if (shift < 0) return fail(Reason::kBadValue, "more decimals than the scale");
  if (v.digits.size() + static_cast<std::size_t>(shift) > 30) {
    return fail(Reason::kBadValue, "number out of range");
  }
  Wide k = 0;
  for (const char c : v.digits) k = k * 10 + (c - '0');
  for (int i = 0; i < shift; ++i) k *= 10;
  return v.negative ? -k : k;
}

UWide alphabet_size(const NumberType& t) {
  UWide factor = 1;
  for (int i = 0; i < t.scale; ++i) factor *= 10;
  const UWide low = magnitude(t.minimum) * factor;
  const UWide high = magnitude(t.maximum) * factor;
  if (t.minimum > t.maximum) return 0;
  if (t.minimum > 0) return count_up_to(high, t.digits) - count_up_to(low - 1, t.digits);
  if (t.maximum < 0) return count_up_to(low, t.digits) - count_up_to(high - 1, t.digits);
  return count_up_to(low, t.digits) + count_up_to(high, t.digits) - 1;
}

}  // namespace gbx::gate
