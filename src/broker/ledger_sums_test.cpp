// Sums and order of a ledger's lines against a walk over all of them.
#include "broker/ledger_sums.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>

#include "base/seams.h"

namespace gbx::broker {
namespace {

std::uint64_t below(Random& random, std::uint64_t n) {
  const auto bytes = random.fixed<8>();
  std::uint64_t v = 0;
  for (const auto b : bytes) v = v << 8 | b;
  return v % n;
}

struct Line {
  Hash32 job{};
  std::int64_t told = 0;
  Charged charged;
};

std::vector<Hash32> sorted(const std::list<Line>& lines) {
  std::vector<std::pair<std::int64_t, Hash32>> order;
  for (const Line& l : lines) order.emplace_back(l.told, l.job);
  std::sort(order.begin(), order.end());
  std::vector<Hash32> ids;
  for (const auto& [told, job] : order) ids.push_back(job);
  return ids;
}

TEST(LedgerSums, AreWhatAWalkOverAllLinesFinds) {
  SeededRandom random(7);
  ChargedSums sums;
  ToldOrder order;
  std::list<Line> lines;
  for (int step = 0; step < 2'000; ++step) {
    if (!lines.empty() && below(random, 3) == 0) {
      const auto gone =
          std::next(lines.begin(), static_cast<std::ptrdiff_t>(below(random, lines.size())));
      sums.remove(gone->charged);
      order.remove(gone->told, gone->job);
      lines.erase(gone);
    } else {
      // Five days, so that whole days, hours and seconds are added up, and before and after 1970.
      const auto time = static_cast<std::int64_t>(below(random, 5 * 86'400)) - 2 * 86'400;
      lines.push_back({random.fixed<32>(),
                       time - static_cast<std::int64_t>(below(random, 9)),
                       {time, static_cast<std::int64_t>(below(random, 4)),
                        static_cast<std::int64_t>(below(random, 2))}});
      sums.add(lines.back().charged);
      order.add(lines.back().told, lines.back().job);
    }
    const std::int64_t since = static_cast<std::int64_t>(below(random, 6 * 86'400)) - 3 * 86'400;
    std::int64_t all = 0;
    std::int64_t verified = 0;
    std::int64_t recent = 0;
    for (const auto& l : lines) {
      all += l.charged.free_bits;
      verified += l.charged.verified_bits;
      recent += l.charged.time >= since ? l.charged.free_bits : 0;
    }
    ASSERT_EQ(order.count(), static_cast<std::int64_t>(lines.size()));
    ASSERT_EQ(sums.free_bits(), all);
    ASSERT_EQ(sums.verified_bits(), verified);
    ASSERT_EQ(sums.free_bits_since(since), recent);
  }
  std::vector<Hash32> paged;
  for (std::int64_t after = 0; after < order.count(); after += 7) {
    const auto page = order.page(after, 7);
    ASSERT_LE(page.size(), 7u);
    paged.insert(paged.end(), page.begin(), page.end());
  }
  EXPECT_EQ(paged, sorted(lines));
  EXPECT_TRUE(order.page(order.count(), 7).empty());
  EXPECT_TRUE(order.page(std::int64_t{1} << 62, 7).empty());
  EXPECT_TRUE(order.page(-1, 7).empty());
}

TEST(LedgerSums, APeriodBeginsWithItsFirstSecond) {
  for (const std::int64_t time : {0, 1, 3'599, 3'600, 86'399, 86'400, 90'000, 172'800, -1}) {
    ChargedSums sums;
    sums.add({time, 5, 0});
    EXPECT_EQ(sums.free_bits_since(time), 5) << time;
    EXPECT_EQ(sums.free_bits_since(time - 1), 5) << time;
    EXPECT_EQ(sums.free_bits_since(time + 1), 0) << time;
  }
}

}  // namespace
}  // namespace gbx::broker
