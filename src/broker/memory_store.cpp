#include "broker/store.h"

namespace gbx::broker {

Status MemoryStore::append(std::uint64_t first, const std::vector<StoredEntry>& entries,
                           const std::vector<translog::Node>& nodes) {
  if (first != entries_.size()) return fail(Reason::kConflict, "the log has another length");
  entries_.insert(entries_.end(), entries.begin(), entries.end());
  nodes_.put(nodes);
  return ok_status();
}
Result<StoredEntry> MemoryStore::entry(std::uint64_t index) const {
  if (index >= entries_.size()) {
    return fail(Reason::kNotFound, "log entry " + std::to_string(index));
  }
  return entries_[index];
}

}  // namespace gbx::broker
