// For tests: a store that writes down what is asked of another.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "storage/object_store.h"

namespace gbx::storage::testing {

class RecordingStore final : public ObjectStore {
 public:
  explicit RecordingStore(ObjectStore& inner) : inner_(inner) {}
  // "get NAME OFFSET SIZE", "size NAME", …, since the last take_log().
  std::vector<std::string> take_log() {
    const std::lock_guard lock(mutex_);
    return std::exchange(log_, {});
  }
  Result<std::unique_ptr<ObjectWriter>> create(const std::string& name) override {
    note("create " + name);
    return inner_.create(name);
  }
  Status get(const std::string& name, std::uint64_t offset, MutableByteView out) override {
    note("get " + name + " " + std::to_string(offset) + " " + std::to_string(out.size()));
    return inner_.get(name, offset, out);
  }
  Result<std::uint64_t> size(const std::string& name) override {
    note("size " + name);
    return inner_.size(name);
  }
  Status list(const std::function<Status(const std::string&)>& each) override {
    note("list");
    return inner_.list(each);
  }
  Status remove(const std::string& name) override {
    note("remove " + name);
    return inner_.remove(name);
  }

 private:
  void note(std::string line) {
    const std::lock_guard lock(mutex_);
    log_.push_back(std::move(line));
  }
  ObjectStore& inner_;
  std::mutex mutex_;
  std::vector<std::string> log_;  // guarded by mutex_
};

}  // namespace gbx::storage::testing
