// A manifest that a hostile publisher sealed properly: any tree of any pages, opened, listed,
// looked up and read. The input describes the pages (tree_input.h); the target gives them the keys,
// tags and hashes that no fuzzer would find.
#include "asset/reader.h"
#include "asset/tree.h"
#include "base/seams.h"
#include "fuzz/fuzz.h"
#include "fuzz/tree_input.h"
#include "storage/memory_store.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;
using namespace gbx::asset;

struct Sealed {
  storage::MemoryStore store;
  records::VersionRecord record;
  DatasetKey key;
};

// Nothing when the input ends too early or an entry does not fit its page.
Result<Bytes> take_page(ByteReader& in, std::span<const PageRef> below) {
  GBX_ASSIGN(const std::uint8_t level, in.u8());
  GBX_ASSIGN(const std::uint8_t entries, in.u8());
  ByteWriter page;
  page.u8(level % (kMaxLevel + 1)).u8(0).u16(entries);
  for (unsigned i = 0; i < entries; ++i) {
    GBX_ASSIGN(const std::uint8_t key_size, in.u8());
    GBX_ASSIGN(const ByteView key, in.take(key_size));
    GBX_ASSIGN(const std::uint8_t next, in.u8());
    Bytes value;
    if (level % (kMaxLevel + 1) > 0) {
      if (below.empty()) return fail(Reason::kBadStructure);
      value = encode_page_ref(below[next % below.size()]);
    } else {
      GBX_ASSIGN(const ByteView raw, in.take(next));
      value = to_bytes(raw);
    }
    page.u16(key_size).u16(static_cast<std::uint16_t>(value.size())).raw(key).raw(value);
  }
  if (page.bytes().size() > kPagePlain) return fail(Reason::kTooLarge);
  page.zeros(kPagePlain - page.bytes().size());
  return page.take();
}

Status seal(ByteView bytes, Sealed& out) {
  SeededRandom random(1);
  out.key = random.secret<DatasetKey>(32);
  PageWriter writer({.store = out.store,
                     .key = out.key,
                     .asset_id = kTreeAsset,
                     .random = random,
                     .on_start = [](const Id16&) { return ok_status(); },
                     .on_finish = [](const ObjectEntry&) { return ok_status(); }});
  std::vector<PageRef> pages;
  int level = 0;
  ByteReader in(bytes);
  while (in.remaining() > 0 && pages.size() < kMostTreePages) {
    GBX_ASSIGN(Bytes page, take_page(in, pages));
    level = page[0];
    GBX_ASSIGN(const PageRef ref, writer.write(level, std::move(page)));
    pages.push_back(ref);
  }
  if (pages.empty()) return fail(Reason::kTruncated);
  GBX_TRY(writer.finish());
  records::VersionRecord& r = out.record;
  r.format = std::string(kFormatWord);
  r.asset_id = kTreeAsset;
  r.root_page = pages.back().slot;
  r.root_level = level;
  r.root_hash = pages.back().hash;
  r.object_count = 1;
  r.commit_dk = dataset_key_commitment(out.key, kTreeAsset);
  r.name = "fuzz";
  return out.store.put(
      list_name(r.objects_hash),
      encode_list_head(crypto::AeadSuite::kAes256Gcm, kTreeAsset, pages.back().object, 1));
}

void read_some(AssetReader& reader, const Attributes& a) {
  Bytes buffer(70'000);
  for (const std::uint64_t offset : {std::uint64_t{0}, a.size / 2, a.size - 1, a.size}) {
    const auto n = reader.read(a.ino, offset, buffer);
    // There are no data objects, so no chunk can open.
    require(!n.ok() || *n == 0);
  }
  const auto inode = reader.inode(a.ino);
  if (inode.ok() && inode->size < (std::uint64_t{1} << 32)) (void)reader.extents(a.ino, *inode);
}

void walk(AssetReader& reader) {
  std::vector<std::uint64_t> waiting{kRootIno};
  for (std::size_t seen = 0; seen < waiting.size() && seen < 50; ++seen) {
    std::string after;
    for (int rounds = 0; rounds < 50; ++rounds) {
      const auto entries = reader.list(waiting[seen], after, 7);
      if (!entries.ok() || entries->empty()) break;
      for (const DirectoryEntry& e : *entries) {
        require(valid_name(e.name) && (after.empty() || after < e.name));
        after = e.name;
        const auto a = reader.lookup(waiting[seen], e.name);
        if (!a.ok()) continue;
        require(a->ino == e.ino && a->type == e.type && a->parent == waiting[seen]);
        if (a->type == NodeType::kDirectory) {
          waiting.push_back(a->ino);
        } else {
          read_some(reader, *a);
        }
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Sealed sealed;
  if (!seal(ByteView(data, size), sealed).ok()) return 0;
  auto reader = AssetReader::open(sealed.store, sealed.record, sealed.record.id(), sealed.key);
  if (!reader.ok()) return 0;
  walk(*reader);
  return 0;
}
