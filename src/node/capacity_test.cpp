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
  const auto take = [&](const records::PlanControls& c) {
    return node.take(c, c.footprint_bytes());
  };
  EXPECT_EQ(take(controls(400, 601)).reason(), Reason::kNoCapacity);
  EXPECT_EQ(take(controls(400, 600, 301)).reason(), Reason::kNoCapacity);
  EXPECT_EQ(take(controls(400, 600, 0)).reason(), Reason::kNoCapacity);
  EXPECT_EQ(take(controls(0, 10)).reason(), Reason::kNoCapacity);
  EXPECT_EQ(take(controls(-1, 10)).reason(), Reason::kNoCapacity);
  EXPECT_EQ(take(controls(kMaxJsonInteger, kMaxJsonInteger)).reason(), Reason::kNoCapacity);
  ASSERT_TRUE(take(controls(400, 300)).ok());
  // all that run at a time count together
  EXPECT_EQ(take(controls(300, 1)).reason(), Reason::kNoCapacity);
  ASSERT_TRUE(take(controls(299, 1, 300)).ok());
  node.give_back(700);
  EXPECT_TRUE(take(controls(700, 0)).ok());
}

// Its machine is larger than what the job asks.
TEST(NodeCapacity, WhatAnEnvironmentTakesIsCountedAndNotWhatTheJobAsks) {
  Capacity node(1000, 300);
  EXPECT_EQ(node.take(controls(400, 0), 1001).reason(), Reason::kNoCapacity);
  ASSERT_TRUE(node.take(controls(400, 0), 800).ok());
  EXPECT_EQ(node.take(controls(201, 0), 201).reason(), Reason::kNoCapacity);
  node.give_back(800);
  EXPECT_TRUE(node.take(controls(201, 0), 1000).ok());
}

// Two that begin at once would both find the same memory free.
TEST(MachineRoom, IsTakenBeforeAMachineUsesIt) {
  MachineRoom room;
  EXPECT_EQ(room.take(1).reason(), Reason::kNoCapacity);
  room.open(1000);
  ASSERT_TRUE(room.take(600).ok());
  EXPECT_EQ(room.take(401).reason(), Reason::kNoCapacity);
  EXPECT_EQ(room.take(-1).reason(), Reason::kNoCapacity);
  ASSERT_TRUE(room.take(400).ok());
  room.give_back(600);
  EXPECT_TRUE(room.take(600).ok());
}

}  // namespace
}  // namespace gbx::node
