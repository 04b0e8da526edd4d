#include "asset/object_builder.h"

#include <algorithm>

namespace gbx::asset {

Result<std::unique_ptr<ObjectBuilder>> ObjectBuilder::create(storage::ObjectStore& store, const ObjectHeader& header,
                                                             std::size_t object_size) {
  std::unique_ptr<ObjectBuilder> b(new ObjectBuilder());
  b->entry_.id = header.object_id;
  b->entry_.kind = header.kind;
  b->object_size_ = object_size;
  GBX_ASSIGN(b->writer_, store.create(object_name(header.object_id)));
  GBX_TRY(b->add(encode_header(header)));
  return b;
}

Status ObjectBuilder::add(ByteView bytes) {
  if (!fits(bytes.size())) return fail(Reason::kInternal, "object overflows");
  hash_.update(bytes);
  position_ += bytes.size();
  return writer_->write(bytes);
}

Result<ObjectEntry> ObjectBuilder::finish(bool last, Random& random) {
  std::size_t target = object_size_;
  if (last) {
    const auto padded = static_cast<std::size_t>(padme(std::max<std::uint64_t>(position_, kLeastObjectSize)));
    target = std::min(padded, object_size_);
  }
  Bytes padding(std::min<std::size_t>(target - position_, kChunkSize));
  while (position_ < target) {
    const MutableByteView part = MutableByteView(padding).first(std::min(padding.size(), target - position_));
    random.fill(part);
    GBX_TRY(add(part));
  }
  entry_.size = position_;
  entry_.sha256 = hash_.finish();
  GBX_TRY(writer_->commit());
  return entry_;
}

}  // namespace gbx::asset
