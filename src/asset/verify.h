// Checks a whole asset version. Without the key: every object has the size and hash that the
// version record binds, so any flip, truncation, extension, swap or loss is found. With the key:
// every page and chunk opens and the tree is consistent.
#pragma once

#include <functional>
#include <vector>

#include "asset/format.h"
#include "asset/reader.h"
#include "records/asset.h"
#include "storage/object_store.h"

namespace gbx::asset {

struct VerifyReport {
  std::uint64_t objects = 0;
  std::uint64_t object_bytes = 0;
  std::uint64_t files = 0;        // with the key only
  std::uint64_t directories = 0;  // with the key only
  std::uint64_t bytes = 0;        // with the key only
};
using VerifyProgressFn = std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)>;

// The record's own identity and signature are the caller's to check.
Result<VerifyReport> verify(storage::ObjectStore& store, const records::VersionRecord& record,
                            const VerifyProgressFn& progress = {});
// Reads whatever an opened asset holds and checks what reading on demand does not: content checks,
// totals, orphans.
Status read_everything(AssetReader& reader, VerifyReport& report);
// All of verify(), then everything that can be read is read.
Result<VerifyReport> verify_with_key(storage::ObjectStore& store,
                                     const records::VersionRecord& record,
                                     const Hash32& expected_version_id, const DatasetKey& key,
                                     const VerifyProgressFn& progress = {});
// The checked list of objects; kTooLarge beyond `limit` entries.
Result<std::vector<ObjectEntry>> load_object_list(storage::ObjectStore& store,
                                                  const records::VersionRecord& record,
                                                  std::size_t limit);

}  // namespace gbx::asset
