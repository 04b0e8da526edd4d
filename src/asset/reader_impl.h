// Inside of AssetReader, for publishing and verifying in this folder.
#pragma once

#include <mutex>

#include "asset/lru.h"
#include "asset/reader.h"
#include "asset/tree.h"

namespace gbx::asset {

// A file under its keys; the keys of segments in use are kept ready.
struct OpenFile {
  std::uint64_t ino = 0;
  Inode inode;
  AeadKey key;

  std::mutex mutex;
  std::vector<std::pair<std::uint32_t, crypto::AeadStream>> idle;  // guarded by mutex
};
struct ChunkKey {
  std::uint64_t ino = 0;
  std::uint64_t index = 0;
  bool operator==(const ChunkKey&) const = default;
};
struct ChunkKeyHash {
  std::size_t operator()(const ChunkKey& k) const {
    return static_cast<std::size_t>(k.ino * 0x9e3779b97f4a7c15U + k.index);
  }
};
// Room for chunks of plaintext, used again as it is: the next chunk overwrites the last.
// Thread-safe. What lies idle is bounded; whatever goes is cleansed.
class ChunkBuffers {
 public:
  ~ChunkBuffers() {
    for (Bytes& b : idle_) cleanse(b);
  }
  Bytes take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return Bytes(kChunkSize);
    Bytes b = std::move(idle_.back());
    idle_.pop_back();
    return b;
  }
  void give_back(Bytes b) {
    {
      const std::lock_guard lock(mutex_);
      if (idle_.size() < kMostIdle) {
        idle_.push_back(std::move(b));
        return;
      }
    }
    cleanse(b);
  }

 private:
  static constexpr std::size_t kMostIdle = 16;
  std::mutex mutex_;
  std::vector<Bytes> idle_;  // guarded by mutex_
};
class ChunkPlain {
 public:
  ChunkPlain(ChunkBuffers& home, std::size_t size)
      : home_(home), size_(size), buffer_(home.take()) {}
  ChunkPlain(const ChunkPlain&) = delete;
  ChunkPlain& operator=(const ChunkPlain&) = delete;
  ~ChunkPlain() { home_.give_back(std::move(buffer_)); }
  ByteView bytes() const { return ByteView(buffer_).first(size_); }
  MutableByteView writable() { return MutableByteView(buffer_).first(size_); }

 private:
  ChunkBuffers& home_;
  const std::size_t size_;
  Bytes buffer_;
};
struct InoHash {
  std::size_t operator()(std::uint64_t ino) const { return static_cast<std::size_t>(ino); }
};

class AssetReader::Impl {
 public:
  Impl(storage::ObjectStore& s, const records::VersionRecord& r, const DatasetKey& key,
       TreeRoot root, ReaderOptions o);

  Result<std::shared_ptr<OpenFile>> file(std::uint64_t ino);
  Result<Extent> extent_of(const OpenFile& file, std::uint64_t chunk);
  // Reads and opens `count` consecutive chunks that lie in `extent` from `first` on.
  Status open_chunks(OpenFile& file, const Extent& extent, std::uint64_t first, std::size_t count,
                     MutableByteView out);
  Result<std::shared_ptr<ChunkPlain>> chunk(OpenFile& file, std::uint64_t index);
  Status check_data_header(const Id16& object);
  Error bad_chunk(const OpenFile& file, std::uint64_t index, Error error) const;

  storage::ObjectStore& store;
  const records::VersionRecord record;
  const crypto::AeadSuite suite;
  const std::function<void(const BadChunk&)> on_bad_chunk;
  PageStore pages;
  TreeReader tree;
  Meta meta;
  Lru<std::uint64_t, OpenFile, InoHash> files;
  ChunkBuffers buffers;  // before the chunks that lie in them
  Lru<ChunkKey, ChunkPlain, ChunkKeyHash> chunks;
  Lru<Id16, bool, FirstBytes> checked;  // objects whose header was looked at
};

}  // namespace gbx::asset
