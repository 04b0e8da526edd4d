// What of a job's history its consumer may see by now. From the moment the container can read data, when something
// happens is the container's choice, and so a message to its author. It is therefore told as decisions are: at the end
// of the owners' release slot in which it happened, with that time. Operators and auditors see everything at once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/seams.h"
#include "machines/store.h"

namespace gbx::plane {

class Sight {
 public:
  using Row = machines::TransitionRow;
  // Everything, at its own time.
  Sight() = default;
  // `rows` are all transitions of all machines of the job. slot_seconds 0 shows everything.
  Sight(std::int64_t slot_seconds, std::int64_t now_ms, const std::vector<Row>& rows);

  bool shows(const Row& row) const { return !slotted(row) || slot_end(row.time_ms, slot_ms_) <= now_ms_ || row.time_ms <= decided_ms_; }
  // As `row`, with the time at which it was told and without the hashes that would give the exact one away.
  Row shown(Row row) const;

 private:
  bool slotted(const Row& row) const;

  static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
  std::int64_t slot_ms_ = 0;
  std::int64_t now_ms_ = 0;
  std::int64_t loaded_ms_ = kNever;  // keys of data were released
  std::int64_t decided_ms_ = -1;     // up to here everything was told with a decision, which fell on a slot itself
};

}  // namespace gbx::plane
