// What the sim measures of a launch, and in which order: shared by the program that measures a VM
// and by whoever computes beforehand what it will measure (docs/formats/sim-v1.md). Pure.
#pragma once

#include "attest/sim/platform.h"
#include "attest/tdx/event_log.h"
#include "records/release.h"

namespace gbx::attest::sim {

// Digests are SHA-384 of the whole file.
struct SimLaunch {
  tdx::Register firmware{};
  std::string machine;  // canonical JSON; what it says is up to whoever starts the VM
  tdx::Register kernel{};
  std::string cmdline;
  tdx::Register initrd{};
};
struct SimEvents {
  Bytes log;
  SimMeasurement measured;  // without the launch configuration
  // The same, as a guest release names it; RTMR0 is the measurement of its machine.
  records::MeasuredParts parts;
};
SimEvents sim_events(const SimLaunch& launch);

}  // namespace gbx::attest::sim
