#include "storage/snapshot_store.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace gbx::storage {

SnapshotStore::~SnapshotStore() {
  if (memory_ != nullptr) (void)munmap(memory_, mapped_);
}

Status SnapshotStore::reserve(std::uint64_t bytes) {
  const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  mapped_ = static_cast<std::size_t>(std::max(page, (bytes + page - 1) / page * page));
  void* p = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    return fail(Reason::kOutOfMemory,
                "memory for " + std::to_string(mapped_) + " bytes of objects");
  }
  // SAFETY: fresh anonymous mapping of mapped_ bytes, unmapped by the destructor.
  memory_ = static_cast<std::uint8_t*>(p);
  (void)madvise(memory_, mapped_, MADV_HUGEPAGE);
  locked_ = mlock(memory_, mapped_) == 0;
  return ok_status();
}

Result<std::unique_ptr<SnapshotStore>> SnapshotStore::take(
    ObjectStore& source, const std::vector<SnapshotEntry>& entries, std::uint64_t limit_bytes) {
  std::uint64_t total = 0;
  for (const SnapshotEntry& e : entries) {
    if (e.size > limit_bytes - total) {
      return fail(Reason::kTooLarge, "objects to hold in memory")
          .with("at most " + std::to_string(limit_bytes) + " bytes", "more");
    }
    total += e.size;
  }
  std::unique_ptr<SnapshotStore> s(new SnapshotStore());
  GBX_TRY(s->reserve(total));
  s->objects_.reserve(entries.size());
  for (const SnapshotEntry& e : entries) {
    const MutableByteView place(s->memory_ + s->used_, static_cast<std::size_t>(e.size));
    if (!s->objects_.emplace(e.name, place).second) {
      return fail(Reason::kAlreadyExists, "object " + e.name);
    }
    for (std::size_t at = 0; at < place.size(); at += kReadSize) {
      GBX_TRY(source.get(e.name, at, place.subspan(at, std::min(kReadSize, place.size() - at))));
    }
    s->used_ += e.size;
  }
  return s;
}

Result<ByteView> SnapshotStore::object(const std::string& name) const {
  GBX_TRY(check_object_name(name));
  const auto it = objects_.find(name);
  if (it == objects_.end()) return fail(Reason::kNotFound, "object " + name);
  return it->second;
}

Result<ByteView> SnapshotStore::view(const std::string& name, std::uint64_t offset,
                                     std::size_t bytes, Bytes&) {
  GBX_ASSIGN(const ByteView whole, object(name));
  if (offset > whole.size() || bytes > whole.size() - offset) {
    return fail(Reason::kTruncated, "object " + name);
  }
  return whole.subspan(static_cast<std::size_t>(offset), bytes);
}

Status SnapshotStore::get(const std::string& name, std::uint64_t offset, MutableByteView out) {
  Bytes unused;
  GBX_ASSIGN(const ByteView bytes, view(name, offset, out.size(), unused));
  if (!out.empty()) std::memcpy(out.data(), bytes.data(), out.size());
  return ok_status();
}

Result<std::uint64_t> SnapshotStore::size(const std::string& name) {
  GBX_ASSIGN(const ByteView whole, object(name));
  return std::uint64_t{whole.size()};
}

Status SnapshotStore::list(const std::function<Status(const std::string&)>& each) {
  for (const auto& [name, place] : objects_) GBX_TRY(each(name));
  return ok_status();
}

Result<std::unique_ptr<ObjectWriter>> SnapshotStore::create(const std::string&) {
  return fail(Reason::kUnsupported, "a snapshot takes no new objects");
}
Status SnapshotStore::remove(const std::string&) {
  return fail(Reason::kUnsupported, "a snapshot keeps its objects");
}

}  // namespace gbx::storage
