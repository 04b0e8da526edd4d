// The ciphertext of one whole version in private memory: the answer to a host that watches which
// blocks are read. Every object is read once, in the order of the list of objects (which the
// version record binds), before anything is opened.
#pragma once

#include "records/asset.h"
#include "storage/snapshot_store.h"

namespace gbx::asset {

// The memory that prefetch() takes, from the signed record alone: an attempt can be refused before
// it gets a key.
std::uint64_t prefetch_bytes(const records::VersionRecord& record);

// Errors: kTooLarge when prefetch_bytes() exceeds `limit_bytes` (nothing was read then), kBadHash
// and kBadStructure for another list than the record's, kUnavailable for an object that the store
// lost. The record is the caller's to check.
Result<std::unique_ptr<storage::SnapshotStore>> prefetch(storage::ObjectStore& store,
                                                         const records::VersionRecord& record,
                                                         std::uint64_t limit_bytes);

}  // namespace gbx::asset
