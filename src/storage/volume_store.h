// The objects of one volume (docs/formats/volume-v1.md) over a descriptor of its block device, or
// of a file. Only pread() is used once it is open, so a reader can give up everything else. The
// volume is the host's: it may say anything, change while it is read, and answer late or never;
// whoever reads has a limit of time. Immutable and thread-safe.
#pragma once

#include <vector>

#include "base/os.h"
#include "storage/object_store.h"
#include "storage/volume_format.h"

namespace gbx::storage {

class VolumeStore final : public ObjectStore {
 public:
  // Reads head and index. Errors: kTruncated for a device that is smaller than its volume,
  // kBadStructure for a larger one and for a descriptor without a size, those of the format, kIo.
  static Result<std::unique_ptr<VolumeStore>> open(Fd device);

  Result<std::unique_ptr<ObjectWriter>> create(const std::string& name) override;  // kUnsupported
  Status get(const std::string& name, std::uint64_t offset, MutableByteView out) override;
  Result<std::uint64_t> size(const std::string& name) override;
  Status list(const std::function<Status(const std::string&)>& each) override;
  Status remove(const std::string& name) override;  // kUnsupported

 private:
  VolumeStore(Fd device, std::vector<VolumeObject> objects)
      : device_(std::move(device)), objects_(std::move(objects)) {}
  Result<const VolumeObject*> find(const std::string& name) const;

  const Fd device_;
  const std::vector<VolumeObject> objects_;  // by name
};

}  // namespace gbx::storage
