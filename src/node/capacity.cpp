#include "node/capacity.h"

namespace gbx::node {

Status Capacity::take(const records::PlanControls& controls) {
  if (controls.pids < 1 || controls.pids > pids_) {
    return fail(Reason::kNoCapacity, "processes of one job")
        .with("at most " + std::to_string(pids_), std::to_string(controls.pids));
  }
  const std::int64_t wanted = controls.footprint_bytes();
  const std::scoped_lock lock(mutex_);
  const std::int64_t left = memory_bytes_ - taken_bytes_;
  if (controls.memory_bytes < 1 || wanted > left) {
    return fail(Reason::kNoCapacity, "memory, scratch and images of the jobs on this node")
        .with("at most " + std::to_string(left) + " bytes more", std::to_string(wanted) + " bytes");
  }
  taken_bytes_ += wanted;
  return ok_status();
}

void Capacity::give_back(const records::PlanControls& controls) {
  const std::scoped_lock lock(mutex_);
  taken_bytes_ -= controls.footprint_bytes();
}

}  // namespace gbx::node
