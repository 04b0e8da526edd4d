#include "gate/tokens.h"

#include <algorithm>
#include <array>

namespace gbx::gate {
namespace {

constexpr std::array<std::uint64_t, 20> make_powers() {
  std::array<std::uint64_t, 20> p{};
  std::uint64_t v = 1;
  for (auto& e : p) {
    e = v;
    v *= 10;
  }
  return p;
}
constexpr std::array<std::uint64_t, 20> kPowers = make_powers();  // 10^19 still fits 64 bits

bool is_digit(char c) { return c >= '0' && c <= '9'; }

NumberKey normal(NumberKey k) {
  if (k.mantissa == 0) return {};
  while (k.mantissa % 10 == 0) {
    k.mantissa /= 10;
    ++k.exponent;
  }
  return k;
}

constexpr std::array<bool, 256> make_token_table() {
  std::array<bool, 256> t{};
  for (std::size_t c = 0; c < 256; ++c) {
    t[c] = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '+' || c == '-' || c == '_' || c >= 0x80;
  }
  return t;
}
constexpr std::array<bool, 256> kTokenByte = make_token_table();

}  // namespace

std::uint64_t mix64(std::uint64_t x) {
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93ULL;
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93ULL;
  x ^= x >> 32;
  return x;
}
std::uint64_t hash_text(std::string_view text, std::uint64_t salt) {
  std::uint64_t h = salt * 0x9e3779b97f4a7c15ULL + 0xcbf29ce484222325ULL;
  for (const char c : text) {
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    h = (h ^ static_cast<unsigned char>(lower)) * 0x100000001b3ULL;
  }
  return mix64(h);
}
std::uint64_t hash_key(const NumberKey& k, std::uint64_t salt) {
  const std::uint64_t h = mix64(k.mantissa + 0x9e3779b97f4a7c15ULL * (salt + 1));
  return mix64(h ^ (static_cast<std::uint64_t>(static_cast<std::uint32_t>(k.exponent)) << 1) ^
               (k.negative ? 1U : 0U));
}

int significant_digits(const NumberKey& k) {
  int n = 0;
  while (n < 19 && k.mantissa >= kPowers[static_cast<std::size_t>(n)]) ++n;
  return n;
}

std::optional<NumberKey> number_key(std::string_view t) {
  std::size_t i = !t.empty() && (t[0] == '-' || t[0] == '+') ? 1 : 0;
  NumberKey k;
  k.negative = i == 1 && t[0] == '-';
  bool point = false;
  bool digit = false;
  int used = 0;
  for (; i < t.size(); ++i) {
    if (t[i] == '.' && !point) {
      point = true;
      continue;
    }
    if (!is_digit(t[i])) break;
    digit = true;
    if (k.mantissa != 0 || t[i] != '0') ++used;
    if (used > 18) return std::nullopt;
    k.mantissa = k.mantissa * 10 + static_cast<std::uint64_t>(t[i] - '0');
    if (point) --k.exponent;
  }
  if (!digit) return std::nullopt;
  if (i < t.size()) {  // an exponent: rare, so the exact reader decides
    const Result<Decimal> d = parse_decimal(t);
    if (!d.ok() || d->digits.size() > 18) return std::nullopt;
    k.mantissa = 0;
    for (const char c : d->digits) {
      k.mantissa = k.mantissa * 10 + static_cast<std::uint64_t>(c - '0');
    }
    k.exponent = d->exponent;
  }
  return normal(k);
}

NumberKey round_key(const NumberKey& k, int digits, int scale) {
  if (k.mantissa == 0) return k;
  const int size = significant_digits(k);
  int place = -scale;
  if (digits > 0) place = std::max(place, k.exponent + size - digits);
  const int drop = place - k.exponent;
  if (drop <= 0) return k;
  if (drop > size) return {};
  const std::uint64_t unit = kPowers[static_cast<std::size_t>(drop)];
  NumberKey out = k;
  out.mantissa = k.mantissa / unit;
  const std::uint64_t rest = k.mantissa % unit;
  const std::uint64_t half = unit / 2;
  if (rest > half || (rest == half && (out.mantissa & 1) != 0)) ++out.mantissa;
  out.exponent = place;
  return normal(out);
}

void split_tokens(std::string_view line, std::size_t limit, std::vector<std::string_view>& out) {
  out.clear();
  std::size_t i = 0;
  while (i < line.size() && out.size() < limit) {
    if (!kTokenByte[static_cast<unsigned char>(line[i])]) {
      ++i;
      continue;
    }
    const std::size_t start = i;
    while (i < line.size() && kTokenByte[static_cast<unsigned char>(line[i])]) ++i;
    std::string_view token = line.substr(start, i - start);
    while (!token.empty() && (token.back() == '.' || token.back() == '_' || token.back() == '+')) {
      token.remove_suffix(1);
    }
    while (!token.empty() &&
           (token.front() == '.' || token.front() == '_' || token.front() == '+')) {
      token.remove_prefix(1);
    }
    if (!token.empty()) out.push_back(token);
  }
}

bool has_digit(std::string_view token) { return std::any_of(token.begin(), token.end(), is_digit); }

}  // namespace gbx::gate
