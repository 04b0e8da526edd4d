// Streams one object of an asset: header, content, padding, and its line for the list of objects.
// Hashing and writing run on a thread of the builder's own, a few blocks behind the caller, who
// seals meanwhile. An object of one block needs no thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "asset/format.h"
#include "base/seams.h"
#include "storage/object_store.h"

namespace gbx::asset {

class ObjectBuilder {
 public:
  // `object_size` is the full size (kObjectSize outside tests).
  static Result<std::unique_ptr<ObjectBuilder>> create(storage::ObjectStore& store,
                                                       const ObjectHeader& header,
                                                       std::size_t object_size);
  ~ObjectBuilder();
  ObjectBuilder(const ObjectBuilder&) = delete;
  ObjectBuilder& operator=(const ObjectBuilder&) = delete;

  const Id16& id() const { return entry_.id; }
  bool fits(std::size_t n) const { return n <= object_size_ - position_; }
  std::uint32_t position() const { return static_cast<std::uint32_t>(position_); }
  // The error may be that of an earlier write.
  Status add(ByteView bytes);
  // Pads with random bytes, to the full size or, for the last object of its kind, to Padmé's;
  // commits.
  Result<ObjectEntry> finish(bool last, Random& random);

 private:
  static constexpr std::size_t kMostBlock = std::size_t{256} << 10;
  static constexpr std::size_t kMostWaiting = 4;  // blocks

  ObjectBuilder() = default;
  Status put(ByteView block);  // hashes and writes
  Status hand_over();          // block_ to the thread
  Status join();
  void write_behind();  // the thread

  ObjectEntry entry_;
  std::size_t object_size_ = 0;
  std::size_t block_size_ = 0;
  std::size_t position_ = 0;
  Bytes block_;

  // The thread's alone from its start to its end, then again the caller's.
  std::unique_ptr<storage::ObjectWriter> writer_;
  crypto::Sha256 hash_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Bytes> waiting_;    // guarded by mutex_
  std::vector<Bytes> spare_;     // guarded by mutex_; written blocks, for their memory
  Status result_ = ok_status();  // guarded by mutex_; the first failure
  bool ending_ = false;          // guarded by mutex_
  std::thread thread_;
};

}  // namespace gbx::asset
