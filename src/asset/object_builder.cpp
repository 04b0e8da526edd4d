#include "asset/object_builder.h"

#include <algorithm>

namespace gbx::asset {

Result<std::unique_ptr<ObjectBuilder>> ObjectBuilder::create(storage::ObjectStore& store,
                                                             const ObjectHeader& header,
                                                             std::size_t object_size) {
  std::unique_ptr<ObjectBuilder> b(new ObjectBuilder());
  b->entry_.id = header.object_id;
  b->entry_.kind = header.kind;
  b->object_size_ = object_size;
  b->block_size_ = std::min(kMostBlock, std::max<std::size_t>(object_size / 4, 1));
  GBX_ASSIGN(b->writer_, store.create(object_name(header.object_id)));
  GBX_TRY(b->add(encode_header(header)));
  return b;
}

ObjectBuilder::~ObjectBuilder() { (void)join(); }

Status ObjectBuilder::put(ByteView block) {
  hash_.update(block);
  return writer_->write(block);
}

Status ObjectBuilder::add(ByteView bytes) {
  if (!fits(bytes.size())) return fail(Reason::kInternal, "object overflows");
  if (block_.empty()) block_.reserve(block_size_ + kSealedChunk);
  append(block_, bytes);
  position_ += bytes.size();
  return block_.size() < block_size_ ? ok_status() : hand_over();
}

Status ObjectBuilder::hand_over() {
  if (!thread_.joinable()) thread_ = std::thread([this] { write_behind(); });
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return waiting_.size() < kMostWaiting || !result_.ok(); });
  if (!result_.ok()) return result_;
  waiting_.push_back(std::move(block_));
  block_.clear();
  if (!spare_.empty()) {
    block_ = std::move(spare_.back());
    spare_.pop_back();
  }
  changed_.notify_all();
  return ok_status();
}

void ObjectBuilder::write_behind() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return ending_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    Bytes block = std::move(waiting_.front());
    waiting_.pop_front();
    if (!result_.ok()) continue;  // nothing is written behind a failure
    lock.unlock();
    Status s = put(block);
    block.clear();
    lock.lock();
    result_ = std::move(s);
    spare_.push_back(std::move(block));
    changed_.notify_all();
  }
}

// The thread writes what waits and ends.
Status ObjectBuilder::join() {
  if (!thread_.joinable()) return ok_status();
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  thread_.join();
  return result_;
}

Result<ObjectEntry> ObjectBuilder::finish(bool last, Random& random) {
  std::size_t target = object_size_;
  if (last) {
    const auto padded =
        static_cast<std::size_t>(padme(std::max<std::uint64_t>(position_, kLeastObjectSize)));
    target = std::min(padded, object_size_);
  }
  Bytes padding(std::min<std::size_t>(target - position_, kChunkSize));
  while (position_ < target) {
    const MutableByteView part =
        MutableByteView(padding).first(std::min(padding.size(), target - position_));
    random.fill(part);
    GBX_TRY(add(part));
  }
  GBX_TRY(join());
  if (!block_.empty()) GBX_TRY(put(block_));
  entry_.size = position_;
  entry_.sha256 = hash_.finish();
  GBX_TRY(writer_->commit());
  return entry_;
}

}  // namespace gbx::asset
