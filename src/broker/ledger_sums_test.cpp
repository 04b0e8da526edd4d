// Sums and order of a ledger's lines against a walk over all of them.
#include "broker/ledger_sums.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/seams.h"

namespace gbx::broker {
namespace {

std::uint64_t below(Random& random, std::uint64_t n) {
  const auto bytes = random.fixed<8>();
  std::uint64_t v = 0;
  for (const auto b : bytes) v = v << 8 | b;
  return v % n;
}

std::vector<Hash32> sorted(std::vector<SumsLine> lines) {
  std::sort(lines.begin(), lines.end(), [](const SumsLine& a, const SumsLine& b) {
    return std::tie(a.told, a.job_id) < std::tie(b.told, b.job_id);
  });
  std::vector<Hash32> ids;
  for (const auto& l : lines) ids.push_back(l.job_id);
  return ids;
}

TEST(LedgerSums, AreWhatAWalkOverAllLinesFinds) {
  SeededRandom random(7);
  LedgerSums sums;
  std::vector<SumsLine> lines;
  for (int step = 0; step < 2'000; ++step) {
    if (!lines.empty() && below(random, 3) == 0) {
      const auto gone = lines.begin() + static_cast<std::ptrdiff_t>(below(random, lines.size()));
      sums.remove(*gone);
      lines.erase(gone);
    } else {
      // Five days, so that whole days, hours and seconds are added up, and before and after 1970.
      const auto time = static_cast<std::int64_t>(below(random, 5 * 86'400)) - 2 * 86'400;
      lines.push_back({random.fixed<32>(), time - static_cast<std::int64_t>(below(random, 9)), time,
                       static_cast<std::int64_t>(below(random, 4)),
                       static_cast<std::int64_t>(below(random, 2))});
      sums.add(lines.back());
    }
    const std::int64_t since = static_cast<std::int64_t>(below(random, 6 * 86'400)) - 3 * 86'400;
    std::int64_t all = 0;
    std::int64_t verified = 0;
    std::int64_t recent = 0;
    for (const auto& l : lines) {
      all += l.free_bits;
      verified += l.verified_bits;
      recent += l.time >= since ? l.free_bits : 0;
    }
    ASSERT_EQ(sums.count(), static_cast<std::int64_t>(lines.size()));
    ASSERT_EQ(sums.free_bits(), all);
    ASSERT_EQ(sums.verified_bits(), verified);
    ASSERT_EQ(sums.free_bits_since(since), recent);
  }
  const std::vector<Hash32> order = sorted(lines);
  std::vector<Hash32> paged;
  for (std::int64_t after = 0; after < sums.count(); after += 7) {
    const auto page = sums.page(after, 7);
    ASSERT_LE(page.size(), 7u);
    paged.insert(paged.end(), page.begin(), page.end());
  }
  EXPECT_EQ(paged, order);
  EXPECT_TRUE(sums.page(sums.count(), 7).empty());
  EXPECT_TRUE(sums.page(std::int64_t{1} << 62, 7).empty());
}

TEST(LedgerSums, APeriodBeginsWithItsFirstSecond) {
  for (const std::int64_t time : {0, 1, 3'599, 3'600, 86'399, 86'400, 90'000, 172'800, -1}) {
    SumsByTime sums;
    sums.add(time, 5);
    EXPECT_EQ(sums.since(time), 5) << time;
    EXPECT_EQ(sums.since(time - 1), 5) << time;
    EXPECT_EQ(sums.since(time + 1), 0) << time;
  }
}

}  // namespace
}  // namespace gbx::broker
