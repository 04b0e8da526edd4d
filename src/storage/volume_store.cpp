#include "storage/volume_store.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>

namespace gbx::storage {

Result<std::unique_ptr<VolumeStore>> VolumeStore::open(Fd device) {
  // A block device says its size by its end alone.
  const off_t end = lseek(device.get(), 0, SEEK_END);
  if (end < 0) {
    return fail(Reason::kBadStructure, "volume").with("a device or a file", "neither");
  }
  const auto bytes = static_cast<std::uint64_t>(end);
  if (bytes < kVolumeBlock) {
    return fail(Reason::kTruncated, "volume").with("4096 bytes and more", std::to_string(bytes));
  }
  Bytes block(kVolumeBlock);
  GBX_TRY(pread_exact(device.get(), block, 0));
  GBX_ASSIGN(const VolumeHead head, parse_volume_head(block));
  if (bytes != head.volume_bytes) {
    return fail(bytes < head.volume_bytes ? Reason::kTruncated : Reason::kBadStructure, "volume")
        .with(std::to_string(head.volume_bytes) + " bytes", std::to_string(bytes));
  }
  Bytes index(head.index_bytes());  // at most 20 MiB
  GBX_TRY(pread_exact(device.get(), index, kVolumeBlock));
  GBX_ASSIGN(auto objects, parse_volume_index(index, head));
  return std::unique_ptr<VolumeStore>(new VolumeStore(std::move(device), std::move(objects)));
}

Result<const VolumeObject*> VolumeStore::find(const std::string& name) const {
  GBX_ASSIGN(const auto padded, pad_object_name(name));
  const auto at = std::lower_bound(
      objects_.begin(), objects_.end(), padded,
      [](const VolumeObject& o, const auto& wanted) { return o.padded_name < wanted; });
  if (at == objects_.end() || at->padded_name != padded) {
    return fail(Reason::kNotFound, "object " + name);
  }
  return &*at;
}

Status VolumeStore::get(const std::string& name, std::uint64_t offset, MutableByteView out) {
  GBX_ASSIGN(const VolumeObject* object, find(name));
  if (offset > object->size || out.size() > object->size - offset) {
    return fail(Reason::kTruncated, "object " + name);
  }
  Status s = pread_exact(device_.get(), out, object->offset + offset);
  if (!s.ok()) s.error().at("object " + name);
  return s;
}

Result<std::uint64_t> VolumeStore::size(const std::string& name) {
  GBX_ASSIGN(const VolumeObject* object, find(name));
  return object->size;
}

Status VolumeStore::list(const std::function<Status(const std::string&)>& each) {
  for (const VolumeObject& object : objects_) GBX_TRY(each(object.name()));
  return ok_status();
}

Result<std::unique_ptr<ObjectWriter>> VolumeStore::create(const std::string&) {
  return fail(Reason::kUnsupported, "a volume takes no new objects");
}
Status VolumeStore::remove(const std::string&) {
  return fail(Reason::kUnsupported, "a volume keeps its objects");
}

}  // namespace gbx::storage
