#include "asset/page_store.h"

namespace gbx::asset {

Status fetch(storage::ObjectStore& store, const std::string& name, std::uint64_t offset,
             MutableByteView out) {
  Status s = store.get(name, offset, out);
  if (!s.ok() && s.reason() == Reason::kNotFound) {
    return fail(Reason::kUnavailable, "object " + name + " is not in the store");
  }
  return s;
}
Result<ByteView> fetch_view(storage::ObjectStore& store, const std::string& name,
                            std::uint64_t offset, std::size_t size, Bytes& scratch) {
  auto bytes = store.view(name, offset, size, scratch);
  if (!bytes.ok() && bytes.reason() == Reason::kNotFound) {
    return fail(Reason::kUnavailable, "object " + name + " is not in the store");
  }
  return bytes;
}

PageStore::PageStore(storage::ObjectStore& store, Parameters parameters, DatasetKey key,
                     std::size_t cached_pages)
    : store_(store),
      parameters_(parameters),
      key_(std::move(key)),
      pages_(cached_pages),
      keys_(64) {}

Result<std::shared_ptr<const AeadKey>> PageStore::object_key(const Id16& object) {
  if (auto known = keys_.find(object)) return known;
  FixedBytes<kHeaderSize> header{};
  GBX_TRY(fetch(store_, object_name(object), 0, header));
  Status s = check_header(header, {ObjectKind::kManifest, parameters_.suite, parameters_.epoch,
                                   parameters_.asset_id, object});
  if (!s.ok()) return s.error().at("object " + object_name(object));
  auto key = std::make_shared<const AeadKey>(
      page_key(key_, parameters_.asset_id, object, parameters_.epoch));
  return keys_.insert(object, std::move(key));
}

Result<std::shared_ptr<const Page>> PageStore::load(const PageRef& ref, int level) {
  if (auto known = pages_.find(ref.hash)) {
    if (known->level() != level) {
      return fail(Reason::kBadStructure, "a manifest page is referred to at two levels");
    }
    return known;
  }
  const std::string where =
      "manifest page " + std::to_string(ref.slot) + " of object " + object_name(ref.object);
  Bytes scratch;
  GBX_ASSIGN(const ByteView sealed,
             fetch_view(store_, object_name(ref.object),
                        kHeaderSize + std::uint64_t{ref.slot} * kPageSize, kPageSize, scratch));
  const Hash32 hash = crypto::sha256(sealed);
  if (hash != ref.hash) return fail(Reason::kBadHash, where).with(to_hex(ref.hash), to_hex(hash));
  GBX_ASSIGN(const auto key, object_key(ref.object));
  const Bytes aad = page_aad(parameters_.asset_id, ref.object, ref.slot, parameters_.epoch, level,
                             parameters_.suite);
  auto plain = crypto::aead_open(parameters_.suite, *key, page_nonce(ref.slot), aad, sealed);
  if (!plain.ok()) return plain.error().at(where);
  auto page = Page::parse(std::move(*plain), level);
  if (!page.ok()) return page.error().at(where);
  return pages_.insert(ref.hash, std::move(*page));
}

}  // namespace gbx::asset
