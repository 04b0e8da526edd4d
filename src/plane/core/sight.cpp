#include "plane/core/sight.h"

#include "machines/machines.h"

namespace gbx::plane {

using machines::EnvironmentState;
using machines::JobEvent;
using machines::OutputState;

namespace {

bool of(const machines::TransitionRow& row, std::string_view kind) {
  return row.machine.rfind(kind, 0) == 0;
}
bool is_loading(const machines::TransitionRow& row) {
  return of(row, "env/") && (row.to == enum_name(EnvironmentState::kLoaded) ||
                             row.to == enum_name(EnvironmentState::kWorking));
}

bool is_over(const machines::TransitionRow& row) {
  if (!of(row, "job/")) return false;
  const auto state = enum_from<machines::JobState>(row.to);
  return state.ok() && machines::terminal(*state);
}

}  // namespace

Sight::Sight(std::int64_t slot_seconds, std::int64_t now_ms, const std::vector<Row>& rows)
    : slot_ms_(slot_seconds * 1000), now_ms_(now_ms) {
  for (const Row& row : rows) {
    if ((is_loading(row) || row.to == enum_name(EnvironmentState::kSealed)) &&
        row.time_ms < loaded_ms_) {
      loaded_ms_ = row.time_ms;
      loaded_ = row.machine;
    }
    if (is_over(row)) over_ms_ = std::min(over_ms_, row.time_ms);
    if (of(row, "out/") || row.to == enum_name(EnvironmentState::kSealed)) {
      sealed_ms_ = std::min(sealed_ms_, row.time_ms);
    }
    if (!of(row, "out/")) continue;
    const bool last =
        row.to == enum_name(OutputState::kReleased) || row.to == enum_name(OutputState::kRejected);
    if (!last && row.to != enum_name(OutputState::kHeld)) continue;
    first_ms_ = std::min(first_ms_, row.time_ms);
    decided_ms_ = std::max(decided_ms_, row.time_ms);
    final_ = final_ || last;
  }
}

std::int64_t Sight::told_ms(const Row& row) const {
  const std::int64_t end = slot_end(row.time_ms, slot_ms_);
  if (row.time_ms >= sealed_ms_ && row.time_ms <= first_ms_) {
    const std::int64_t with_it = first_ms_ == kNever ? kNever : begin(first_ms_);
    const std::int64_t without = over_ms_ == kNever ? kNever : slot_end(over_ms_, slot_ms_);
    return std::min(with_it, std::max(end, without));
  }
  if (row.time_ms <= decided_ms_) return std::min(end, begin(decided_ms_));
  // The plane's own steps follow at once; what a node does has a time of its own.
  return final_ && !of(row, "env/") ? begin(row.time_ms) : end;
}

bool Sight::slotted(const Row& row) const {
  if (slot_ms_ == 0 || row.time_ms < loaded_ms_) return false;
  // another attempt comes when this one has ended
  if (is_loading(row) && row.machine == loaded_) return false;
  // the consumer's own doing
  return !(of(row, "job/") && row.event == enum_name(JobEvent::kCancel));
}

Sight::Row Sight::shown(Row row) const {
  if (!slotted(row)) return row;
  row.time_ms = told_ms(row);
  row.prev = {};
  row.hash = {};
  return row;
}

}  // namespace gbx::plane
