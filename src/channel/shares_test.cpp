#include "channel/shares.h"

#include <gtest/gtest.h>

namespace gbx::channel {
namespace {

Hash32 caller(std::uint8_t n) {
  Hash32 h{};
  h[0] = n;
  return h;
}

// What is left of a bucket, taken one by one.
int takes(Shares& shares, const Hash32& who, std::int64_t now_ms) {
  int n = 0;
  while (shares.enter(who, 1, now_ms).ok()) ++n;
  return n;
}

TEST(Shares, ABucketIsEmptiedAndFillsAgainWithTime) {
  Shares shares({.burst = 10, .per_second = 2, .at_one_time = 100});
  EXPECT_EQ(takes(shares, caller(1), 1'000), 10);
  EXPECT_EQ(shares.enter(caller(1), 1, 1'000).reason(), Reason::kRateLimited);
  EXPECT_EQ(takes(shares, caller(1), 1'499), 0);
  EXPECT_EQ(takes(shares, caller(1), 1'500), 1);
  EXPECT_EQ(takes(shares, caller(1), 4'500), 6);
  EXPECT_EQ(takes(shares, caller(1), 1'000'000'000), 10);  // no more than the burst, ever
}

TEST(Shares, AFloodByOneLeavesTheOthersTheirShare) {
  Shares shares({.burst = 10, .per_second = 1, .at_one_time = 100});
  EXPECT_EQ(takes(shares, caller(1), 0), 10);
  EXPECT_EQ(takes(shares, caller(2), 0), 10);
}

TEST(Shares, DearRequestsCostMoreAndTheRefusalSaysHowLongToWait) {
  Shares shares({.burst = 10, .per_second = 2, .at_one_time = 100});
  ASSERT_TRUE(shares.enter(caller(1), 8, 0).ok());
  const auto refused = shares.enter(caller(1), 8, 0);
  EXPECT_EQ(refused.reason(), Reason::kRateLimited);
  EXPECT_EQ(refused.error().next, "wait 3 s");
  EXPECT_TRUE(shares.enter(caller(1), 2, 0).ok());  // a refusal takes nothing
  EXPECT_TRUE(shares.enter(caller(1), 8, 4'000).ok());
}

TEST(Shares, SoManyAtOneTimeAndAPlaceIsGivenBack) {
  Shares shares({.burst = 100, .per_second = 1, .at_one_time = 2});
  auto a = shares.enter(caller(1), 1, 0);
  auto b = shares.enter(caller(1), 1, 0);
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(shares.enter(caller(1), 1, 0).reason(), Reason::kRateLimited);
  EXPECT_TRUE(shares.enter(caller(2), 1, 0).ok());
  b->reset();
  EXPECT_TRUE(shares.enter(caller(1), 1, 0).ok());
}

TEST(Shares, AClockThatStandsOrFallsGivesNothing) {
  Shares shares({.burst = 3, .per_second = 1, .at_one_time = 100});
  EXPECT_EQ(takes(shares, caller(1), 10'000), 3);
  EXPECT_EQ(takes(shares, caller(1), 0), 0);
  EXPECT_EQ(takes(shares, caller(1), 10'999), 0);
  EXPECT_EQ(takes(shares, caller(1), 11'000), 1);
}

TEST(Shares, MemoryIsBoundedAndTheIdleAreForgottenFirst) {
  Shares shares({.burst = 2, .per_second = 1, .at_one_time = 2, .callers = 3});
  auto held = shares.enter(caller(1), 1, 0);
  ASSERT_TRUE(held.ok());
  for (std::uint8_t n = 2; n <= 3; ++n) EXPECT_TRUE(shares.enter(caller(n), 1, 0).ok());
  // Nobody has a full bucket yet: who comes waits, for whoever is forgotten would have one at once.
  EXPECT_EQ(shares.enter(caller(4), 1, 500).reason(), Reason::kUnavailable);
  EXPECT_TRUE(shares.enter(caller(4), 1, 1'000).ok());
  EXPECT_EQ(shares.size(), 2U);  // the one with a call, and the new one
}

}  // namespace
}  // namespace gbx::channel
