#include "node/capacity.h"

namespace gbx::node {

Status Capacity::take(const records::PlanControls& controls, std::int64_t wanted) {
  if (controls.pids < 1 || controls.pids > pids_) {
    return fail(Reason::kNoCapacity, "processes of one job")
        .with("at most " + std::to_string(pids_), std::to_string(controls.pids));
  }
  const std::scoped_lock lock(mutex_);
  const std::int64_t left = memory_bytes_ - taken_bytes_;
  if (controls.memory_bytes < 1 || wanted < 1 || wanted > left) {
    return fail(Reason::kNoCapacity, "memory of the environments on this node")
        .with("at most " + std::to_string(left) + " bytes more", std::to_string(wanted) + " bytes");
  }
  taken_bytes_ += wanted;
  return ok_status();
}

void Capacity::give_back(std::int64_t bytes) {
  const std::scoped_lock lock(mutex_);
  taken_bytes_ -= bytes;
}

Status MachineRoom::take(std::int64_t bytes) {
  const std::scoped_lock lock(mutex_);
  if (bytes < 1 || bytes > free_bytes_) {
    return fail(Reason::kNoCapacity, "memory of the machines on this node")
        .with("at most " + std::to_string(free_bytes_ >> 20) + " MiB more, as others run",
              std::to_string(bytes >> 20) + " MiB")
        .hint("ask for less, wait, or use another node");
  }
  free_bytes_ -= bytes;
  return ok_status();
}

}  // namespace gbx::node
