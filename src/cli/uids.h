// User ids of `glovebox up`: 100 for the services, and behind them the node's.
#pragma once

#include "base/uids.h"

namespace gbx::cli {

inline constexpr std::int64_t kAgentUids = 100;  // the first of the node's

constexpr UidRange uids_needed(std::int64_t base, std::int64_t slots) {
  return {base, kAgentUids + kUidsPerSlot * slots};
}

}  // namespace gbx::cli
