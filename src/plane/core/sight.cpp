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

}  // namespace

Sight::Sight(std::int64_t slot_seconds, std::int64_t now_ms, const std::vector<Row>& rows)
    : slot_ms_(slot_seconds * 1000), now_ms_(now_ms) {
  for (const Row& row : rows) {
    if ((is_loading(row) || row.to == enum_name(EnvironmentState::kSealed)) &&
        row.time_ms < loaded_ms_) {
      loaded_ms_ = row.time_ms;
      loaded_ = row.machine;
    }
    if (!of(row, "out/")) continue;
    const bool last =
        row.to == enum_name(OutputState::kReleased) || row.to == enum_name(OutputState::kRejected);
    if (!last && row.to != enum_name(OutputState::kHeld)) continue;
    decided_ms_ = std::max(decided_ms_, row.time_ms);
    final_ = final_ || last;
  }
}

std::int64_t Sight::told_ms(std::int64_t time_ms) const {
  const auto begin = [this](std::int64_t t) { return t - t % slot_ms_; };
  if (final_ && time_ms > decided_ms_) return begin(time_ms);
  const std::int64_t end = slot_end(time_ms, slot_ms_);
  return time_ms <= decided_ms_ ? std::min(end, begin(decided_ms_)) : end;
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
  row.time_ms = told_ms(row.time_ms);
  row.prev = {};
  row.hash = {};
  return row;
}

}  // namespace gbx::plane
