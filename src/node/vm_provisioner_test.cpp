// Which machine an attempt gets, and that nothing boots for one that cannot have any. Machines
// themselves: tests/e2e.
#include <gtest/gtest.h>

#include "node/provisioner.h"

namespace gbx::node {
namespace {

using namespace records;

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

GuestRelease release() {
  GuestRelease r;
  r.name = "guest";
  PlatformMeasurements& p = r.platforms.emplace_back();
  p.technology = Technology::kSim;
  for (const std::int64_t cpus : {1, 2, 4}) {
    for (const std::int64_t mib : {1024, 2048, 4096}) p.machines.push_back({cpus, mib * kMiB, {}});
  }
  r.platforms.emplace_back(p).technology = Technology::kTdx;
  r.platforms.back().machines = {{64, 1024 * 1024 * kMiB, {}}};
  return r;
}

LaunchBundle asking(std::int64_t cpus, std::int64_t mib) {
  LaunchBundle b;
  b.plan.body.controls.cpu = cpus;
  b.plan.body.controls.memory_bytes = mib * kMiB;
  b.plan.body.controls.scratch_bytes = 0;
  b.plan.body.controls.image_bytes = 0;
  b.plan.body.controls.access = Access::kDirect;
  return b;
}

MeasuredMachine machine(const LaunchBundle& b) {
  return machine_for(release(), Technology::kSim, b).value();
}

TEST(VmSize, IsTheSmallestThatFits) {
  EXPECT_EQ(machine(asking(1, 100)).memory_bytes, 1024 * kMiB);
  EXPECT_EQ(machine(asking(1, 100)).cpus, 1);
  EXPECT_EQ(machine(asking(3, 100)).cpus, 4);
  // The container gets 80 % of what its guest leaves.
  EXPECT_EQ(machine(asking(1, 614)).memory_bytes, 1024 * kMiB);
  EXPECT_EQ(machine(asking(1, 615)).memory_bytes, 2048 * kMiB);
}

TEST(VmSize, HasRoomForWhatIsPrefetched) {
  LaunchBundle b = asking(1, 100);
  b.versions.resize(2);
  for (auto& v : b.versions) v.body.ciphertext_bytes = 400 * kMiB;
  EXPECT_EQ(machine(b).memory_bytes, 1024 * kMiB);
  b.plan.body.controls.access = Access::kPrefetch;
  EXPECT_EQ(machine(b).memory_bytes, 2048 * kMiB);
}

TEST(VmSize, WhatNoMachineHasIsRefusedBeforeAnythingBoots) {
  for (const auto& b : {asking(5, 100), asking(64, 100), asking(1, 4096), asking(1, 4'194'304),
                        asking(1, INT64_MAX / kMiB)}) {
    const auto r = machine_for(release(), Technology::kSim, b);
    ASSERT_FALSE(r.ok());
    EXPECT_EQ(r.reason(), Reason::kNoCapacity);
    EXPECT_FALSE(r.error().next.empty());
  }
  EXPECT_EQ(machine_for(release(), Technology::kSnp, asking(1, 1)).reason(), Reason::kNoCapacity);
}

}  // namespace
}  // namespace gbx::node
