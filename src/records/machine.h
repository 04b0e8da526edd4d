// Which virtual machine an attempt needs: one reckoning for the plane, which places by it, for the
// node, which starts the machine, and for whoever lists sizes in a release. Numbers of a plan are
// the plane's word to a node: none overflows here. Pure functions, safe from any thread.
#pragma once

#include <algorithm>

#include "records/messages.h"
#include "records/release.h"

namespace gbx::records {

// The sizes that releases list, so that the plane knows what a node will start.
inline constexpr std::int64_t kMachineCpus[] = {1, 2, 4, 8, 16, 32, 64};
inline constexpr std::int64_t kMachineGiB[] = {1,  2,  3,  4,  6,  8,   12,  16,
                                               24, 32, 48, 64, 96, 128, 192, 256};

// What QEMU needs of its host beside the guest's memory: its program, its devices and, under
// emulation, the translated code (vm::kTranslationBytes).
inline constexpr std::int64_t kMachineOverheadBytes = std::int64_t{384} << 20;

// What an attempt asks of its machine's memory.
struct MachineNeed {
  std::int64_t cpus = 1;
  std::int64_t job_bytes = 0;   // memory, scratch and unpacked image
  std::int64_t read_bytes = 0;  // ciphertext that is held there
};
inline MachineNeed machine_need(const PlanControls& controls, std::int64_t ciphertext_bytes) {
  // A footprint is at most three times 2^44.
  constexpr std::int64_t kMost = std::int64_t{1} << 48;
  MachineNeed need;
  need.cpus = controls.cpu;
  need.job_bytes = std::clamp<std::int64_t>(controls.footprint_bytes(), 0, kMost);
  if (controls.access == Access::kPrefetch) {
    need.read_bytes = std::clamp<std::int64_t>(ciphertext_bytes, 0, kMost);
  }
  return need;
}

// What Linux gives to programs of a machine's memory (MemTotal): without the kernel itself and its
// list of pages, which grows with memory (64 bytes for 4 KiB; twice that is reckoned), and on
// hardware without the buffers through which devices are reached (swiotlb: 6 %, 64 MiB to 1 GiB).
inline std::int64_t guest_total_bytes(std::int64_t memory_bytes, Technology technology) {
  constexpr std::int64_t kMiB = std::int64_t{1} << 20;
  const bool hardware = technology == Technology::kTdx || technology == Technology::kSnp;
  const std::int64_t buffers =
      hardware ? std::clamp<std::int64_t>(memory_bytes / 100 * 6, 64 * kMiB, 1024 * kMiB) : 0;
  return memory_bytes - 128 * kMiB - memory_bytes / 32 - buffers;
}

// The agent lends its container lent_memory_bytes() of that total, and half of it to prefetching;
// both fit beside each other and the guest's own programs.
inline bool machine_holds(std::int64_t memory_bytes, Technology technology,
                          const MachineNeed& need) {
  constexpr std::int64_t kPrograms = std::int64_t{96} << 20;
  const std::int64_t total = guest_total_bytes(memory_bytes, technology);
  return need.job_bytes <= lent_memory_bytes(total) && need.read_bytes <= total / 2 &&
         need.job_bytes <= total - kPrograms - need.read_bytes;
}

// The memory of the smallest listed size that holds it; 0 where none does.
inline std::int64_t machine_bytes(Technology technology, const MachineNeed& need) {
  for (const std::int64_t gib : kMachineGiB) {
    if (machine_holds(gib << 30, technology, need)) return gib << 30;
  }
  return 0;
}

}  // namespace gbx::records
