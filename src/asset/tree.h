// The manifest: a B+tree of encrypted pages, written once and never changed. A new version rewrites
// the pages on the paths to what changed and refers to the others. Reading is thread-safe; a writer
// belongs to one thread.
#pragma once

#include <functional>
#include <map>
#include <optional>

#include "asset/object_builder.h"
#include "asset/page_store.h"

namespace gbx::asset {

struct TreeRoot {
  PageRef ref;
  int level = 0;
};

class TreeReader {
 public:
  TreeReader(PageStore& pages, TreeRoot root) : pages_(pages), root_(std::move(root)) {}
  const TreeRoot& root() const { return root_; }
  // A value with its key, kept alive by the page.
  struct Hit {
    std::shared_ptr<const Page> page;
    std::size_t index = 0;
    ByteView key() const { return page->key(index); }
    ByteView value() const { return page->value(index); }
  };
  // Empty when there is no such key. Errors are those of the pages.
  Result<std::optional<Hit>> find(ByteView key);
  // The last entry whose key is not above `key`.
  Result<std::optional<Hit>> floor(ByteView key);
  // Entries from `from` (inclusive) upwards until `each` returns false.
  Status scan(ByteView from, const std::function<Result<bool>(ByteView key, ByteView value)>& each);

 private:
  struct Leaf {
    std::shared_ptr<const Page> page;
    std::optional<Bytes> next;  // least key of the leaf to the right
  };
  Result<Leaf> leaf_for(ByteView key);

  PageStore& pages_;
  const TreeRoot root_;
};

// Seals pages into manifest objects.
class PageWriter {
 public:
  struct Parameters {
    storage::ObjectStore& store;
    const DatasetKey& key;
    Id16 asset_id{};
    crypto::AeadSuite suite = crypto::AeadSuite::kAes256Gcm;
    std::uint32_t epoch = 1;
    std::size_t object_size = kObjectSize;
    Random& random;
    // before an object may appear in the store
    std::function<Status(const Id16&)> on_start;
    std::function<Status(const ObjectEntry&)> on_finish;
  };
  explicit PageWriter(Parameters parameters) : p_(std::move(parameters)) {}
  Result<PageRef> write(int level, Bytes plaintext);
  Status finish();

 private:
  Status open_object();
  Parameters p_;
  std::unique_ptr<ObjectBuilder> object_;
  AeadKey key_;
  std::uint32_t slot_ = 0;
};

struct TreeEntry {
  Bytes key;
  Bytes value;
};

// Builds a tree from ascending keys in memory that does not grow with their number.
class TreeBuilder {
 public:
  explicit TreeBuilder(PageWriter& writer, int base_level = 0)
      : writer_(writer), base_(base_level) {}
  Status add(ByteView key, ByteView value) { return add_at(0, key, value); }
  Result<TreeRoot> finish();  // at least one entry must have been added

 private:
  struct Level {
    PageEncoder page;
    Bytes first_key;
    std::uint64_t written = 0;
    Bytes last_ref;  // of the last page written
    Bytes last_key;
  };
  Status add_at(std::size_t index, ByteView key, ByteView value);
  Status flush(std::size_t index);

  PageWriter& writer_;
  const int base_;
  std::vector<Level> levels_;
};

// Upserts (a value) and deletions (nothing), by key.
struct KeyLess {
  bool operator()(const Bytes& a, const Bytes& b) const { return compare_keys(a, b) < 0; }
};
using TreeChanges = std::map<Bytes, std::optional<Bytes>, KeyLess>;
// Writes the changed tree; untouched subtrees are shared with the old one. Fails when nothing would
// remain.
Result<TreeRoot> apply_changes(PageStore& pages, const TreeRoot& old, const TreeChanges& changes,
                               PageWriter& writer);

}  // namespace gbx::asset
