// Reads an asset version: opening takes constant memory, every byte that comes out was
// authenticated on the way, and anything else is an error. Thread-safe. The store is untrusted;
// ciphertext is copied before it is checked.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "asset/format.h"
#include "records/asset.h"
#include "storage/object_store.h"

namespace gbx::asset {

struct Attributes {
  std::uint64_t ino = 0;
  NodeType type = NodeType::kFile;
  std::uint64_t size = 0;
  bool executable = false;
  std::int64_t mtime_s = 0;
  std::uint32_t mtime_ns = 0;
  std::uint64_t parent = 0;
};
struct DirectoryEntry {
  std::uint64_t ino = 0;
  NodeType type = NodeType::kFile;
  std::string name;
};
// A chunk that did not open: reported once per attempt, before read() returns the error. Never
// carries content.
struct BadChunk {
  Id16 asset_id{};
  Id16 file_id{};
  std::uint64_t index = 0;
  Reason reason = Reason::kBadTag;
};
struct ReaderOptions {
  std::size_t cached_pages = 4096;  // of 4 KiB
  std::size_t cached_chunks = 256;  // of 64 KiB
  std::size_t cached_files = 1024;
  std::function<void(const BadChunk&)> on_bad_chunk;  // called from any reading thread
};

class AssetReader {
 public:
  // Opens exactly the version `expected_version_id`. `store` must outlive the reader. Errors:
  // kWrongVersion (another record), kBadCommitment (another key), kBadVersion, kBadSuite, and those
  // of the root page.
  static Result<AssetReader> open(storage::ObjectStore& store, const records::VersionRecord& record,
                                  const Hash32& expected_version_id, const DatasetKey& key,
                                  ReaderOptions options = {});
  // What open() checks before it reads anything: kWrongVersion, kBadCommitment, kBadVersion,
  // kBadSuite.
  static Status check(const records::VersionRecord& record, const Hash32& expected_version_id,
                      const DatasetKey& key);
  AssetReader(AssetReader&&) noexcept;
  AssetReader& operator=(AssetReader&&) noexcept;
  ~AssetReader();

  const Meta& totals() const;
  // kNotFound says that the asset, as published, has no such thing; an object that the store lost
  // is kUnavailable.
  Result<Attributes> attributes(std::uint64_t ino);
  Result<Attributes> lookup(std::uint64_t directory, std::string_view name);
  // At most `limit` entries in byte order of their names, beginning after `after` (empty: at the
  // first).
  Result<std::vector<DirectoryEntry>> list(std::uint64_t directory, std::string_view after,
                                           std::size_t limit);
  // Fills `out` from `offset`; fewer bytes only at the end of the file. On an error `out` holds no
  // plaintext of a bad chunk.
  Result<std::size_t> read(std::uint64_t ino, std::uint64_t offset, MutableByteView out);

  // For publishing and checking: a file's content record and where its chunks lie.
  Result<Inode> inode(std::uint64_t ino);
  Result<std::vector<Extent>> extents(std::uint64_t ino, const Inode& inode);
  class Impl;
  Impl& impl() { return *impl_; }

 private:
  explicit AssetReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gbx::asset
