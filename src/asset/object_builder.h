// Streams one object of an asset: header, content, padding, and its line for the list of objects.
#pragma once

#include "asset/format.h"
#include "base/seams.h"
#include "storage/object_store.h"

namespace gbx::asset {

class ObjectBuilder {
 public:
  // `object_size` is the full size (kObjectSize outside tests).
  static Result<std::unique_ptr<ObjectBuilder>> create(storage::ObjectStore& store, const ObjectHeader& header,
                                                       std::size_t object_size);
  const Id16& id() const { return entry_.id; }
  bool fits(std::size_t n) const { return n <= object_size_ - position_; }
  std::uint32_t position() const { return static_cast<std::uint32_t>(position_); }
  Status add(ByteView bytes);
  // Pads with random bytes, to the full size or, for the last object of its kind, to Padmé's; commits.
  Result<ObjectEntry> finish(bool last, Random& random);

 private:
  ObjectBuilder() = default;
  ObjectEntry entry_;
  std::size_t object_size_ = 0;
  std::size_t position_ = 0;
  std::unique_ptr<storage::ObjectWriter> writer_;
  crypto::Sha256 hash_;
};

}  // namespace gbx::asset
