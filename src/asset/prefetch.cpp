#include "asset/prefetch.h"

#include "asset/verify.h"

namespace gbx::asset {

namespace {
constexpr std::uint64_t kMostObjects = 1 << 20;
// its line of the list and its place in the snapshot's index, generously
constexpr std::uint64_t kPerObject = 256;
}  // namespace

std::uint64_t prefetch_bytes(const records::VersionRecord& r) {
  if (r.ciphertext_bytes < 0 || r.object_count < 0) return ~std::uint64_t{0};  // no list can be so
  const auto objects = static_cast<std::uint64_t>(r.object_count);
  return static_cast<std::uint64_t>(r.ciphertext_bytes) + kListFixed +
         objects * (kListEntry + kPerObject);
}

Result<std::unique_ptr<storage::SnapshotStore>> prefetch(storage::ObjectStore& store,
                                                         const records::VersionRecord& r,
                                                         std::uint64_t limit_bytes) {
  GBX_TRY(check_record(r));
  if (prefetch_bytes(r) > limit_bytes) {
    return fail(Reason::kTooLarge, "\"" + r.name + "\" does not fit the memory for prefetching")
        .with("at most " + std::to_string(limit_bytes) + " bytes",
              std::to_string(prefetch_bytes(r)))
        .hint(
            "run it where there is more memory, or ask the owner for a policy with `access: "
            "direct`");
  }
  GBX_ASSIGN(const auto objects, load_object_list(store, r, kMostObjects));
  // The list itself is part of what a reader opens.
  std::vector<storage::SnapshotEntry> entries{
      {list_name(r.objects_hash), kListFixed + objects.size() * kListEntry}};
  for (const ObjectEntry& e : objects) entries.push_back({object_name(e.id), e.size});
  auto snapshot = storage::SnapshotStore::take(store, entries, limit_bytes);
  if (!snapshot.ok() && snapshot.reason() == Reason::kNotFound) {
    return fail(Reason::kUnavailable, "an " + snapshot.error().what + " is not in the store");
  }
  return snapshot;
}

}  // namespace gbx::asset
