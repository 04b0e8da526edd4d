#include "storage/memory_store.h"

namespace gbx::storage {

class MemoryStore::Writer final : public ObjectWriter {
 public:
  Writer(MemoryStore& store, std::string name) : store_(store), name_(std::move(name)) {}
  Status write(ByteView bytes) override {
    append(content_, bytes);
    return ok_status();
  }
  Status commit() override { return store_.insert(name_, std::move(content_)); }

 private:
  MemoryStore& store_;
  std::string name_;
  Bytes content_;
};

Status MemoryStore::insert(const std::string& name, Bytes content) {
  const std::lock_guard lock(mutex_);
  if (!objects_.emplace(name, std::move(content)).second) {
    return fail(Reason::kAlreadyExists, "object " + name);
  }
  return ok_status();
}

Result<std::unique_ptr<ObjectWriter>> MemoryStore::create(const std::string& name) {
  GBX_TRY(check_object_name(name));
  return std::unique_ptr<ObjectWriter>(std::make_unique<Writer>(*this, name));
}

Status MemoryStore::get(const std::string& name, std::uint64_t offset, MutableByteView out) {
  const std::lock_guard lock(mutex_);
  const auto it = objects_.find(name);
  if (it == objects_.end()) return fail(Reason::kNotFound, "object " + name);
  const Bytes& object = it->second;
  if (offset > object.size() || out.size() > object.size() - offset) {
    return fail(Reason::kTruncated, "object " + name);
  }
  if (!out.empty()) std::memcpy(out.data(), object.data() + offset, out.size());
  return ok_status();
}

Result<std::uint64_t> MemoryStore::size(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto it = objects_.find(name);
  if (it == objects_.end()) return fail(Reason::kNotFound, "object " + name);
  return std::uint64_t{it->second.size()};
}

Status MemoryStore::list(const std::function<Status(const std::string&)>& each) {
  std::vector<std::string> names;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, unused] : objects_) names.push_back(name);
  }
  for (const auto& name : names) GBX_TRY(each(name));
  return ok_status();
}

Status MemoryStore::remove(const std::string& name) {
  const std::lock_guard lock(mutex_);
  if (objects_.erase(name) == 0) return fail(Reason::kNotFound, "object " + name);
  return ok_status();
}

}  // namespace gbx::storage
