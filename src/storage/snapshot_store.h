// Objects copied whole into private memory, in the order in which they are named and in reads of
// one size: whoever watches the source sees the same accesses whatever is asked of the snapshot
// later, and none any more once it is made. Immutable and thread-safe. The source is not trusted:
// what it gave is what a reader must check.
#pragma once

#include <unordered_map>
#include <vector>

#include "storage/object_store.h"

namespace gbx::storage {

struct SnapshotEntry {
  std::string name;
  std::uint64_t size = 0;
};

class SnapshotStore final : public ObjectStore {
 public:
  static constexpr std::size_t kReadSize = std::size_t{1} << 20;

  // Errors: kTooLarge when the sizes exceed `limit_bytes` (nothing was read then), kAlreadyExists
  // for a name that comes twice, kOutOfMemory, and those of the source.
  static Result<std::unique_ptr<SnapshotStore>> take(ObjectStore& source,
                                                     const std::vector<SnapshotEntry>& entries,
                                                     std::uint64_t limit_bytes);
  ~SnapshotStore() override;
  SnapshotStore(const SnapshotStore&) = delete;
  SnapshotStore& operator=(const SnapshotStore&) = delete;

  std::uint64_t bytes() const { return used_; }
  // Whether the memory is locked. Where a limit refused that and the machine swaps, its host sees
  // which pages come back.
  bool locked() const { return locked_; }

  Result<std::unique_ptr<ObjectWriter>> create(const std::string& name) override;  // kUnsupported
  Status get(const std::string& name, std::uint64_t offset, MutableByteView out) override;
  Result<ByteView> view(const std::string& name, std::uint64_t offset, std::size_t size,
                        Bytes& scratch) override;
  Result<std::uint64_t> size(const std::string& name) override;
  Status list(const std::function<Status(const std::string&)>& each) override;
  Status remove(const std::string& name) override;  // kUnsupported

 private:
  SnapshotStore() = default;
  Status reserve(std::uint64_t bytes);
  Result<ByteView> object(const std::string& name) const;

  std::uint8_t* memory_ = nullptr;  // one mapping of mapped_ bytes
  std::size_t mapped_ = 0;
  std::uint64_t used_ = 0;
  bool locked_ = false;
  std::unordered_map<std::string, ByteView> objects_;  // views into memory_
};

}  // namespace gbx::storage
