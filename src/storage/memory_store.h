// Objects in memory: for tests, and for assets that never touch a disk.
#pragma once

#include <map>
#include <mutex>

#include "storage/object_store.h"

namespace gbx::storage {

class MemoryStore final : public ObjectStore {
 public:
  Result<std::unique_ptr<ObjectWriter>> create(const std::string& name) override;
  Status get(const std::string& name, std::uint64_t offset, MutableByteView out) override;
  Result<std::uint64_t> size(const std::string& name) override;
  Status list(const std::function<Status(const std::string&)>& each) override;
  Status remove(const std::string& name) override;

  // Direct access, for tests that tamper. Not synchronised with the functions above.
  std::map<std::string, Bytes>& objects() { return objects_; }

 private:
  class Writer;
  Status insert(const std::string& name, Bytes content);

  std::mutex mutex_;
  std::map<std::string, Bytes> objects_;  // guarded by mutex_
};

}  // namespace gbx::storage
