// Which user ids a node, or `glovebox up`, may take: programs and containers run under ids that
// must be nobody else's, for whoever has such an id, or may map it into a namespace of their own,
// reads what the programs keep. Input: the host's own account files, read as root.
#pragma once

#include <string>

#include "base/result.h"

namespace gbx {

struct UidRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::int64_t last() const { return first + count - 1; }
};

// above the 16 bits in which a host keeps its accounts, and nobody
inline constexpr std::int64_t kLowestUid = 65'536;
// Above every range that Debian's and systemd's tools give away: subordinate ids end at 600,100,000
// (login.defs), systemd's containers at 1,879,048,191; from there to 2^31 - 1 nothing is assigned.
inline constexpr std::int64_t kDefaultUidBase = 2'000'000'000;
// below 2^31 - 1, which some programs read as -1
inline constexpr std::int64_t kHighestUid = 2'147'483'646;

// of each environment at a time: the agent's own and the 65,536 of its container
inline constexpr std::int64_t kUidsPerSlot = 140'000;

// kUsage for a range that leaves kLowestUid to kHighestUid. kConflict with the file, the entry and
// the option that chooses another range, when subuid, subgid, passwd or group below `etc` give an
// id of the range to somebody. A file that does not exist gives nothing away.
Status check_uids_free(const UidRange& range, const std::string& etc = "/etc");

}  // namespace gbx
