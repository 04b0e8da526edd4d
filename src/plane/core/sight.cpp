#include "plane/core/sight.h"

#include "machines/machines.h"

namespace gbx::plane {

using machines::EnvironmentState;
using machines::JobEvent;
using machines::OutputState;

namespace {

bool of(const machines::TransitionRow& row, std::string_view kind) { return row.machine.rfind(kind, 0) == 0; }
bool is_loading(const machines::TransitionRow& row) {
  return of(row, "env/") && (row.to == enum_name(EnvironmentState::kLoaded) || row.to == enum_name(EnvironmentState::kWorking));
}

}  // namespace

Sight::Sight(std::int64_t slot_seconds, std::int64_t now_ms, const std::vector<Row>& rows)
    : slot_ms_(slot_seconds * 1000), now_ms_(now_ms) {
  for (const Row& row : rows) {
    if (is_loading(row) || row.to == enum_name(EnvironmentState::kSealed)) loaded_ms_ = std::min(loaded_ms_, row.time_ms);
    if (!of(row, "out/")) continue;
    if (row.to == enum_name(OutputState::kHeld)) decided_ms_ = std::max(decided_ms_, row.time_ms);
    if (row.to == enum_name(OutputState::kReleased) || row.to == enum_name(OutputState::kRejected) ||
        row.to == enum_name(OutputState::kExpired)) {
      decided_ms_ = kNever;
    }
  }
}

bool Sight::slotted(const Row& row) const {
  if (slot_ms_ == 0 || row.time_ms < loaded_ms_ || is_loading(row)) return false;
  return !(of(row, "job/") && row.event == enum_name(JobEvent::kCancel));  // the consumer's own doing
}

Sight::Row Sight::shown(Row row) const {
  if (!slotted(row)) return row;
  row.time_ms = slot_end(row.time_ms, slot_ms_);
  row.prev = {};
  row.hash = {};
  return row;
}

}  // namespace gbx::plane
