#include "node/capacity.h"

#include <gtest/gtest.h>

namespace gbx::node {
namespace {

records::PlanControls controls(std::int64_t memory, std::int64_t scratch, std::int64_t pids = 256) {
  records::PlanControls c;
  c.memory_bytes = memory;
  c.scratch_bytes = scratch;
  c.pids = pids;
  return c;
}

TEST(NodeCapacity, APlaneThatCountsWronglyIsRefused) {
  Capacity node(1000, 300);
  EXPECT_EQ(node.take(controls(400, 601)).reason(), Reason::kNoCapacity);
  EXPECT_EQ(node.take(controls(400, 600, 301)).reason(), Reason::kNoCapacity);
  EXPECT_EQ(node.take(controls(400, 600, 0)).reason(), Reason::kNoCapacity);
  EXPECT_EQ(node.take(controls(0, 10)).reason(), Reason::kNoCapacity);
  EXPECT_EQ(node.take(controls(-1, 10)).reason(), Reason::kNoCapacity);
  EXPECT_EQ(node.take(controls(kMaxJsonInteger, kMaxJsonInteger)).reason(), Reason::kNoCapacity);
  ASSERT_TRUE(node.take(controls(400, 300)).ok());
  // all that run at a time count together
  EXPECT_EQ(node.take(controls(300, 1)).reason(), Reason::kNoCapacity);
  ASSERT_TRUE(node.take(controls(299, 1, 300)).ok());
  node.give_back(controls(400, 300));
  EXPECT_TRUE(node.take(controls(700, 0)).ok());
}

}  // namespace
}  // namespace gbx::node
