#include "gate/shares.h"

#include <algorithm>

namespace gbx::gate {

bool dominated(UWide largest, UWide second, UWide total) {
  return total == 0 || 2 * largest > total || 3 * (largest + second) > 2 * total;
}

namespace {

Unusual off(const std::vector<Wide>& shares, Wide usual, std::size_t least) {
  Dominance rest;
  std::size_t others = 0;
  bool alike = true;
  Wide other = usual;
  for (const Wide share : shares) {
    if (share == usual) continue;
    if (others++ == 0) other = share;
    alike = alike && share == other;
    rest.add(magnitude(share - usual));
  }
  if (others == 0) return {};
  // With two shares only, the usual one is that of at least half.
  const std::size_t usual_ones = shares.size() - others;
  const bool few = others < least && (usual_ones >= least || alike);
  return {few, !few && others < least && usual_ones >= others, rest.dominated()};
}

}  // namespace

Unusual unusual(std::vector<Wide>& shares, std::size_t least) {
  if (shares.empty()) return {};
  const auto middle = shares.begin() + static_cast<std::ptrdiff_t>((shares.size() - 1) / 2);
  std::nth_element(shares.begin(), middle, shares.end());
  const Wide lower = *middle;
  // Of an even number either of two: what is told does not depend on a sign.
  const Wide upper = shares.size() % 2 == 0 ? *std::min_element(middle + 1, shares.end()) : lower;
  const Unusual a = off(shares, lower, least);
  if (upper == lower) return a;
  const Unusual b = off(shares, upper, least);
  return {a.few || b.few, a.half || b.half, a.dominated || b.dominated};
}

bool few_add(const std::vector<Wide>& shares, std::size_t least) {
  const auto nothing = std::count(shares.begin(), shares.end(), Wide{0});
  const std::size_t some = shares.size() - static_cast<std::size_t>(nothing);
  return some > 0 && some < least;
}

bool of_few(std::vector<Wide>& shares, std::size_t least) {
  Dominance all;
  for (const Wide share : shares) all.add(magnitude(share));
  return all.total() > 0 &&
         (all.dominated() || few_add(shares, least) || unusual(shares, least).any());
}

std::size_t most_alike(std::vector<Wide>& shares) {
  std::sort(shares.begin(), shares.end());
  std::size_t most = 0;
  for (std::size_t begin = 0, i = 0; i < shares.size(); ++i) {
    if (shares[i] != shares[begin]) begin = i;
    most = std::max(most, i - begin + 1);
  }
  return most;
}

}  // namespace gbx::gate
