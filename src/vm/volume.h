// The volume of one machine: the objects of its job's asset versions, laid out as
// docs/formats/volume-v1.md says and read from their store range by range when the machine asks, so
// that nothing is staged. Any storage::ObjectStore will do: a directory now, others through the
// same seam. Objects are ciphertext that its readers check; names and sizes are taken once.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "records/asset.h"
#include "storage/object_store.h"
#include "storage/volume_format.h"
#include "vm/nbd.h"

namespace gbx::vm {

// Names of all objects of these versions, each once: their lists, and what those name. Errors:
// kTooLarge beyond storage::kMaxVolumeObjects, kNotFound and those of asset::load_object_list();
// kTimedOut once `given_up` is set.
inline const std::atomic<bool> kNeverGivenUp{false};
Result<std::vector<std::string>> objects_of(storage::ObjectStore& store,
                                            const std::vector<records::VersionRecord>& versions,
                                            const std::atomic<bool>& given_up = kNeverGivenUp);

class ObjectVolume final : public VolumeSource {
 public:
  // Errors: kNotFound for an object that the store has not, kTooLarge when they do not fit,
  // kTimedOut once `given_up` is set: every object is one question to the store.
  static Result<std::unique_ptr<ObjectVolume>> make(
      std::shared_ptr<storage::ObjectStore> store, const std::vector<std::string>& names,
      std::uint64_t volume_bytes = storage::kVolumeBytes,
      const std::atomic<bool>& given_up = kNeverGivenUp);
  std::uint64_t size() const override { return bytes_; }
  // Zeros where there is no object.
  Status read(std::uint64_t offset, MutableByteView out) override;

 private:
  ObjectVolume(std::shared_ptr<storage::ObjectStore> store, storage::VolumeLayout layout,
               std::uint64_t bytes)
      : store_(std::move(store)), layout_(std::move(layout)), bytes_(bytes) {}

  const std::shared_ptr<storage::ObjectStore> store_;
  // its objects in the order in which they lie, those without bytes left out
  const storage::VolumeLayout layout_;
  const std::uint64_t bytes_;
};

// The volume of a machine that was booted before it had a job: zeros, until it is given one, once.
// give() may be called by another thread.
class LaterVolume final : public VolumeSource {
 public:
  explicit LaterVolume(std::uint64_t volume_bytes = storage::kVolumeBytes) : bytes_(volume_bytes) {}
  // kWrongState when it has one, kBadValue for one of another size.
  Status give(std::unique_ptr<VolumeSource> volume);
  std::uint64_t size() const override { return bytes_; }
  Status read(std::uint64_t offset, MutableByteView out) override;

 private:
  const std::uint64_t bytes_;
  std::mutex mutex_;
  std::shared_ptr<VolumeSource> given_;  // guarded by mutex_; read by the machine's one thread
};

}  // namespace gbx::vm
