// What of a job's history its consumer may see by now. From the moment the container can read data,
// when something happens is the container's choice, and so a message to its author. It is therefore
// told as decisions are: at the end of the owners' release slot in which it happened, with that
// time. The end of a run takes a while (seal, output, destruction), and on which side of a slot's
// end each part of it fell would tell more than the slot: so all of it is told in one, with the
// decision. A decision falls on the end of a slot by itself, and the plane hears of it a little
// later: so it is told at once, with the time of that end, and what it explains with it. Nothing is
// told with a time that is yet to come. Operators and auditors see everything at once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
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

  bool shows(const Row& row) const { return !slotted(row) || told_ms(row) <= now_ms_; }
  bool shows_everything() const { return slot_ms_ == 0; }
  // What a node signed to have happened by then.
  bool shows_claim(std::int64_t seconds) const {
    return slot_ms_ == 0 || seconds * 1000 <= now_ms_;
  }
  // As `row`, with the time at which it was told and without the hashes that would give the exact
  // one away.
  Row shown(Row row) const;

 private:
  bool slotted(const Row& row) const;
  std::int64_t told_ms(const Row& row) const;
  std::int64_t begin(std::int64_t time_ms) const { return time_ms - time_ms % slot_ms_; }

  static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
  std::int64_t slot_ms_ = 0;
  std::int64_t now_ms_ = 0;
  std::int64_t loaded_ms_ = kNever;  // keys of data were released
  std::string loaded_;               // to this environment
  std::int64_t sealed_ms_ = kNever;  // the run's end began
  std::int64_t first_ms_ = kNever;   // the first decision: up to here it is one with it
  std::int64_t over_ms_ = kNever;    // the job ended, which it may without a decision
  std::int64_t decided_ms_ = -1;     // the newest decision: up to here everything was told with it
  bool final_ = false;               // and after it there is nothing left to choose
};

}  // namespace gbx::plane
