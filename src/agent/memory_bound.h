// What an attempt may take of the memory of the machine that the agent runs on: its container, and
// the ciphertext that is held for `access: prefetch`. A job that does not fit is refused before any
// key leaves the broker.
#pragma once

#include <string_view>

#include "records/messages.h"

namespace gbx::agent {

struct MemoryFacts {
  std::uint64_t total_bytes = 0;
  std::uint64_t available_bytes = 0;
};
// Of the text of /proc/meminfo. kBadStructure when it does not say both.
Result<MemoryFacts> parse_memory_facts(std::string_view meminfo);
Result<MemoryFacts> memory_facts();

// Fails closed: what the container gets must be what a machine like this one lends, whatever plane,
// node and spec say of its size. Asked before any key, and again before the container starts.
// kNoCapacity.
Status check_controls(const MemoryFacts& facts, const records::PlanControls& controls);

// What the privileged half lends at the word of a worker that may have been taken over: room for an
// image as a whole plan's, and to all prefetching together half of all memory. `held` was lent
// before. kNoCapacity, kTooLarge.
Status check_image_room(const MemoryFacts& facts, std::int64_t bytes);
Status check_reading(const MemoryFacts& facts, std::int64_t held, std::int64_t more);

// Half of all memory, and no more than is free once the attempt has what its plan promises: memory,
// and scratch and the unpacked image, which are memory too. The other half is for the page cache
// and the programs.
std::uint64_t prefetch_bound(const MemoryFacts& facts, const records::PlanControls& controls);

// The bytes that the bundle's image and inputs (indices into bundle.versions) take together;
// kTooLarge beyond `bound`.
Status check_prefetch(const records::LaunchBundle& bundle, std::size_t image,
                      const std::vector<std::size_t>& inputs, std::uint64_t bound);

}  // namespace gbx::agent
