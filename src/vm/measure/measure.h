// All technologies' measurements of one launch in one place: what `glovebox measure` prints, and
// what a guest release lists. Pure: nothing is started or read. The files are untrusted.
#pragma once

#include "records/release.h"
#include "vm/measure/snp.h"
#include "vm/measure/tdx.h"

namespace gbx::vm::measure {

struct LaunchFiles {
  Bytes firmware;
  Bytes kernel;
  Bytes initrd;
  AcpiTables acpi;  // TDX
};
struct LaunchPlan {
  records::Technology technology = records::Technology::kSim;  // sim, tdx or sev-snp
  std::string cmdline;
  std::int64_t cpus = 1;
  std::int64_t memory_bytes = 0;
  std::string vcpu_type = "EPYC-v4";                   // SEV-SNP
  std::uint64_t guest_features = kSnpActive;           // SEV-SNP
  KernelHandOver hand_over = KernelHandOver::kAsFile;  // TDX
};
struct LaunchMeasurement {
  std::vector<Measured> registers;
  records::PlatformMeasurements platform;  // with this one machine
};
// Besides the errors of each technology: kUnsupported for one without measurements.
Result<LaunchMeasurement> measure_launch(const LaunchFiles& files, const LaunchPlan& plan);

// What RTMR0 of the sim is extended with: canonical JSON of processors, memory, machine type and
// devices, the same on emulation and KVM (docs/formats/sim-v1.md). Whoever starts such a machine
// measures this text.
Result<std::string> machine_description(std::int64_t cpus, std::int64_t memory_bytes);

}  // namespace gbx::vm::measure
