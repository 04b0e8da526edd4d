// What this machine lends to attempts at a time: memory, scratch and unpacked image of all of them
// together, processes of each. The plane counts, too, but this is where a plane that counts
// wrongly, or lies, stops. Thread-safe.
#pragma once

#include <mutex>

#include "records/messages.h"

namespace gbx::node {

class Capacity {
 public:
  Capacity(std::int64_t memory_bytes, std::int64_t pids)
      : memory_bytes_(memory_bytes), pids_(pids) {}
  std::int64_t memory_bytes() const { return memory_bytes_; }
  std::int64_t pids() const { return pids_; }
  // `bytes`: what its environment takes of this host (Provisioner::memory_for). kNoCapacity, and
  // nothing is taken.
  Status take(const records::PlanControls& controls, std::int64_t bytes);
  // What take() gave, once.
  void give_back(std::int64_t bytes);

 private:
  const std::int64_t memory_bytes_;
  const std::int64_t pids_;
  std::mutex mutex_;
  std::int64_t taken_bytes_ = 0;  // guarded by mutex_
};

// What virtual machines may have together of what was free on this host before the first of them:
// what one of them will use, the host does not show while it boots. Thread-safe.
class MachineRoom {
 public:
  void open(std::int64_t bytes) {
    const std::scoped_lock lock(mutex_);
    free_bytes_ = bytes;
  }
  // kNoCapacity, and nothing is taken.
  Status take(std::int64_t bytes);
  void give_back(std::int64_t bytes) {
    const std::scoped_lock lock(mutex_);
    free_bytes_ += bytes;
  }

 private:
  std::mutex mutex_;
  std::int64_t free_bytes_ = 0;  // guarded by mutex_
};

}  // namespace gbx::node
