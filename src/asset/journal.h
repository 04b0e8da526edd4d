// What a publication has done so far, in its state directory: a resumed publication keeps finished
// objects and the files that lie wholly in them. It is also the spool from which the manifest is
// built. Local to the owner's machine and no part of the asset: frames are sealed under a key of
// the dataset key and a fresh salt, so the file reveals nothing without it.
#pragma once

#include "asset/format.h"
#include "base/os.h"
#include "base/seams.h"

namespace gbx::asset {

struct JournalEntry {
  std::uint64_t seq = 0;  // 1 for the root; rises by one
  std::uint64_t parent_seq = 0;
  std::uint64_t ino = 0;  // when pages are shared with the version before
  std::uint64_t parent_ino = 0;
  std::uint64_t old_ino = 0;  // of a directory in the version before, 0 when it has none
  std::string path;           // relative to the source; empty for the root
  Hash32 identity{};          // of the source file when it was read: device, inode, size, times
  Inode inode;                // `parent` is unset
  std::vector<Extent> extents;
};
struct JournalFrame {
  enum class Kind : std::uint8_t { kEntry = 1, kStarted = 2, kDone = 3 };
  Kind kind = Kind::kEntry;
  JournalEntry entry;  // kEntry
  ObjectEntry object;  // kStarted: only the id
};

class JournalWriter {
 public:
  // Creates the file; it must not exist.
  static Result<JournalWriter> create(const std::string& path, const DatasetKey& key,
                                      const Id16& asset_id, Random& random);
  Status entry(const JournalEntry& entry);
  Status started(const Id16& object);      // durable when it returns
  Status done(const ObjectEntry& object);  // durable when it returns
  Status flush();                          // readable by a JournalReader when it returns

 private:
  Status frame(JournalFrame::Kind kind, Bytes body);
  Status sync();
  Fd file_;
  Bytes header_;
  AeadKey key_;
  Bytes pending_;
  std::uint64_t counter_ = 0;
};

class JournalReader {
 public:
  // kBadCommitment when the journal is of another key or asset.
  static Result<JournalReader> open(const std::string& path, const DatasetKey& key,
                                    const Id16& asset_id);
  // Nothing at the end, or where a crash tore the file.
  Result<std::optional<JournalFrame>> next();

 private:
  Status fill(std::size_t wanted);
  Fd file_;
  Bytes header_;
  AeadKey key_;
  Bytes buffer_;
  std::size_t at_ = 0;             // of the next frame in buffer_
  std::uint64_t file_offset_ = 0;  // of the end of buffer_
  std::uint64_t counter_ = 0;
};
// The asset that the journal at `path` is about.
Result<Id16> journal_asset(const std::string& path);
// Source order: by depth, then by path component.
bool before_in_walk(std::string_view a, std::string_view b);

}  // namespace gbx::asset
