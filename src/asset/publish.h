// Packs a directory tree or one file into an encrypted asset version, on the owner's machine.
// Streams: memory grows neither with file sizes nor with their number, only with the largest
// directory's names. Resumes after a crash from its state directory and never seals two texts under
// one key and nonce: a file that was not whole takes a new secret.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "asset/format.h"
#include "base/seams.h"
#include "records/asset.h"
#include "storage/object_store.h"

namespace gbx::asset {

struct PreviousVersion {
  records::VersionRecord record;
  DatasetKey key;
};
struct PublishOptions {
  std::string source;  // a directory, or one regular file
  // made with mode 0700; keep it until the record is signed, then remove it
  std::string state_dir;
  Hash32 owner_id{};
  records::AssetKind kind = records::AssetKind::kDataset;
  std::string name;  // public label, 1 to 64 bytes
  std::string content_digest;
  std::optional<Id16> asset_id;   // absent: random, or the previous version's
  std::optional<DatasetKey> key;  // absent: random; kept in state_dir (0600) for a resumption
  std::int64_t key_epoch = 1;
  crypto::AeadSuite suite = crypto::AeadSuite::kAes256Gcm;
  // Unchanged files keep their ciphertext. With the same dataset key and epoch unchanged manifest
  // pages are kept too.
  std::optional<PreviousVersion> previous;
  std::size_t object_size = kObjectSize;  // smaller only in tests
};
struct PublishProgress {
  std::uint64_t files = 0;
  std::uint64_t files_total = 0;
  std::uint64_t bytes = 0;
  std::uint64_t bytes_total = 0;
};
using PublishProgressFn = std::function<void(const PublishProgress&)>;

struct PublishResult {
  // to be signed by the owner; record.id() is the version's identity
  records::VersionRecord record;
  DatasetKey key;
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
  // the others were kept from the previous version or an interrupted run
  std::uint64_t files_sealed = 0;
  std::uint64_t objects_written = 0;
};

// Errors: kBadValue for what cannot be published (links, devices, names; `what` says which path),
// kConflict when a file changed while it was read, kBadCommitment for a state directory of another
// key or asset.
Result<PublishResult> publish(PublishOptions options, storage::ObjectStore& store, Random& random,
                              const PublishProgressFn& progress = {});
// The record of a publication that ended in this directory, for a caller that crashed before it
// could sign it. While it is there, publish() refuses the directory with kAlreadyExists.
Result<std::optional<records::VersionRecord>> finished_publication(const std::string& state_dir);

}  // namespace gbx::asset
