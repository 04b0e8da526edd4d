// What every provisioner of a node keeps on its host for attempts: one folder and one cgroup each,
// named after the attempt, and user ids that no two of them share. The folder is made first and
// removed last: what there is no folder of has left nothing. Thread-safe.
#pragma once

#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/os.h"
#include "channel/stream.h"

namespace gbx::node {

// Environments that run at the same time share no user id: each takes a slot of kUidsPerSlot ids.
// There are as many as this node was given: the ids beyond may be anybody's.
class UidSlots {
 public:
  explicit UidSlots(std::int64_t count) : count_(count) {}
  // kNoCapacity when all are taken, some perhaps by what withstood its end.
  Result<std::int64_t> take() {
    const std::scoped_lock lock(mutex_);
    std::int64_t slot = 0;
    while (taken_.count(slot) > 0) ++slot;
    if (slot >= count_) {
      return fail(Reason::kNoCapacity, "user ids for an environment")
          .with("one of " + std::to_string(count_) + " slots", "all are taken")
          .hint("end what an earlier attempt left behind, and start the node again");
    }
    taken_.insert(slot);
    return slot;
  }
  void give_back(std::int64_t slot) {
    const std::scoped_lock lock(mutex_);
    taken_.erase(slot);
  }

 private:
  const std::int64_t count_;
  std::mutex mutex_;
  std::set<std::int64_t> taken_;  // guarded by mutex_
};

// All that runs for the attempt is in the enclosure's cgroup, and the container of an agent that
// runs on this host in another.
struct PlaceNames {
  std::string enclosure;
  std::string container;
};
PlaceNames names_of(const std::string& attempt);
// What one attempt has of its host.
struct Place {
  std::string attempt;
  std::int64_t slot = 0;  // of user ids
};

// What withstood, a line each, and whether it is more than a folder: then something may still run.
struct Residue {
  std::vector<std::string> lines;
  bool processes = false;
};

class Places {
 public:
  Places(std::string state_dir, std::int64_t slots)
      : state_dir_(std::move(state_dir)), slots_(slots) {}
  // Locks the folder: another node's environments would be taken for leftovers. What was cleared, a
  // line each; kSandboxSetup when something withstood, kWrongState when another node is there.
  Result<std::vector<std::string>> clear();
  // Makes the attempt's folder. kWrongState before clear(), and when the attempt has one;
  // kNoCapacity beyond the slots.
  Result<Place> take(const std::string& attempt);
  // Kills and removes what there is of it. What withstood, a line each: then nobody else gets its
  // user ids.
  Residue give_back(const Place& place);
  // The same after an orderly end: a program that ends by itself once its stream is closed gets a
  // moment for it.
  Residue end(const Place& place, channel::ByteStream& stream, Process& program);
  std::string folder(const Place& place) const { return state_dir_ + "/" + place.attempt; }

 private:
  Status lock_folder() const;

  const std::string state_dir_;
  Fd folder_;  // locked from clear() on
  UidSlots slots_;
};

}  // namespace gbx::node
