#include "vm/volume.h"

#include <algorithm>
#include <set>

#include "asset/verify.h"

namespace gbx::vm {

namespace {

Status wanted(const std::atomic<bool>& given_up) {
  if (!given_up) return ok_status();
  return fail(Reason::kTimedOut, "a volume that nobody waits for");
}

}  // namespace

Result<std::vector<std::string>> objects_of(storage::ObjectStore& store,
                                            const std::vector<records::VersionRecord>& versions,
                                            const std::atomic<bool>& given_up) {
  std::set<std::string> names;
  for (const records::VersionRecord& version : versions) {
    GBX_TRY(wanted(given_up));
    names.insert(asset::list_name(version.objects_hash));
    GBX_ASSIGN(const auto listed,
               asset::load_object_list(store, version, storage::kMaxVolumeObjects));
    for (const asset::ObjectEntry& entry : listed) names.insert(asset::object_name(entry.id));
    if (names.size() > storage::kMaxVolumeObjects) {
      return fail(Reason::kTooLarge, "objects of a volume")
          .with("at most " + std::to_string(storage::kMaxVolumeObjects), "more")
          .hint("use fewer assets in one job");
    }
  }
  return std::vector<std::string>(names.begin(), names.end());
}

Result<std::unique_ptr<ObjectVolume>> ObjectVolume::make(
    std::shared_ptr<storage::ObjectStore> store, const std::vector<std::string>& names,
    std::uint64_t volume_bytes, const std::atomic<bool>& given_up) {
  std::vector<storage::ObjectSize> objects;
  objects.reserve(names.size());
  for (const std::string& name : names) {
    GBX_TRY(wanted(given_up));
    GBX_ASSIGN(const std::uint64_t size, store->size(name));
    objects.push_back({name, size});
  }
  GBX_ASSIGN(auto layout, storage::lay_out_volume(std::move(objects), volume_bytes));
  std::erase_if(layout.objects, [](const storage::VolumeObject& o) { return o.size == 0; });
  return std::unique_ptr<ObjectVolume>(
      new ObjectVolume(std::move(store), std::move(layout), volume_bytes));
}

Status ObjectVolume::read(std::uint64_t offset, MutableByteView out) {
  if (offset > bytes_ || out.size() > bytes_ - offset) {
    return fail(Reason::kBadValue, "a read beyond the volume");
  }
  const Bytes& front = layout_.front;
  if (offset < front.size() && !out.empty()) {
    const std::size_t n = std::min(out.size(), front.size() - static_cast<std::size_t>(offset));
    std::copy_n(front.begin() + static_cast<std::ptrdiff_t>(offset), n, out.begin());
    offset += n;
    out = out.subspan(n);
  }
  std::fill(out.begin(), out.end(), std::uint8_t{0});
  const std::vector<storage::VolumeObject>& objects = layout_.objects;
  // The first object that ends behind `offset`, and all that begin within `out`.
  auto o = std::partition_point(
      objects.begin(), objects.end(),
      [&](const storage::VolumeObject& x) { return x.offset + x.size <= offset; });
  const std::uint64_t end = offset + out.size();
  for (; o != objects.end() && o->offset < end; ++o) {
    const std::uint64_t from = std::max(offset, o->offset);
    const std::uint64_t to = std::min(end, o->offset + o->size);
    const MutableByteView place =
        out.subspan(static_cast<std::size_t>(from - offset), static_cast<std::size_t>(to - from));
    GBX_TRY(store_->get(o->name(), from - o->offset, place));
  }
  return ok_status();
}

Status LaterVolume::give(std::unique_ptr<VolumeSource> volume) {
  if (volume == nullptr || volume->size() != bytes_) {
    return fail(Reason::kBadValue, "the volume of a job")
        .with("of the machine's size, " + std::to_string(bytes_), "another");
  }
  const std::lock_guard lock(mutex_);
  if (given_) return fail(Reason::kWrongState, "the machine has the volume of its job already");
  given_ = std::move(volume);
  return ok_status();
}

Status LaterVolume::read(std::uint64_t offset, MutableByteView out) {
  std::shared_ptr<VolumeSource> volume;
  {
    const std::lock_guard lock(mutex_);
    volume = given_;
  }
  if (volume) return volume->read(offset, out);
  std::fill(out.begin(), out.end(), std::uint8_t{0});
  return ok_status();
}

}  // namespace gbx::vm
