// Loads manifest pages: hash of the ciphertext first, then the tag, then the structure; a bounded
// cache of what passed. Thread-safe.
#pragma once

#include "asset/format.h"
#include "asset/lru.h"
#include "storage/object_store.h"

namespace gbx::asset {

// A read of the store for a reader: an object that is gone is kUnavailable, so that it is never
// taken for a file that the asset does not have.
Status fetch(storage::ObjectStore& store, const std::string& name, std::uint64_t offset,
             MutableByteView out);
Result<ByteView> fetch_view(storage::ObjectStore& store, const std::string& name,
                            std::uint64_t offset, std::size_t size, Bytes& scratch);

class PageStore {
 public:
  struct Parameters {
    Id16 asset_id{};
    crypto::AeadSuite suite = crypto::AeadSuite::kAes256Gcm;
    std::uint32_t epoch = 1;
  };
  // `store` must outlive it. `cached_pages` of 4 KiB each.
  PageStore(storage::ObjectStore& store, Parameters parameters, DatasetKey key,
            std::size_t cached_pages);
  Result<std::shared_ptr<const Page>> load(const PageRef& ref, int level);
  const Parameters& parameters() const { return parameters_; }

 private:
  Result<std::shared_ptr<const AeadKey>> object_key(const Id16& object);

  storage::ObjectStore& store_;
  const Parameters parameters_;
  const DatasetKey key_;
  Lru<Hash32, const Page, FirstBytes> pages_;
  // presence also says that the object's header was checked
  Lru<Id16, const AeadKey, FirstBytes> keys_;
};

}  // namespace gbx::asset
