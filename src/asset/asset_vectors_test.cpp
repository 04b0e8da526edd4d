// The vectors of tests/asset/vectors, which reader.py is held to as well. They are files of record:
// this test reads them and never makes them, except where its disabled part is asked for by name.
#include <gtest/gtest.h>

#include "asset/asset_test_util.h"
#include "asset/tree.h"
#include "asset/verify.h"

namespace gbx::asset {
namespace {

using namespace testing;
using crypto::AeadSuite;

std::string vector_dir() {
  const char* source = getenv("GBX_SOURCE_DIR");
  return std::string(source == nullptr ? "." : source) + "/tests/asset/vectors";
}
Json load(const std::string& name) {
  const auto text = read_text_file(vector_dir() + "/" + name, 16 << 20);
  if (!text.ok()) return {};
  auto json = parse_json(*text, {16 << 20, 32, 200'000});
  return json.ok() ? *json : Json();
}
Bytes hex(const Json& j, const char* field) { return from_hex(*j.find(field)->string()).value(); }
std::int64_t number(const Json& j, const char* field) { return *j.find(field)->integer(); }
const std::string& text(const Json& j, const char* field) { return *j.find(field)->string(); }
template <std::size_t N>
FixedBytes<N> fixed(const Json& j, const char* field) {
  return fixed_from<N>(hex(j, field)).value();
}

// --- writing ---
Json version_json(const records::VersionRecord& record, const DatasetKey& key, const Tree& tree) {
  Json v;
  v["record"] = to_json(record);
  v["versionId"] = to_hex(record.id());
  v["key"] = to_hex(key.view(SecretAccess{}));
  Json files;
  for (const auto& [path, content] : tree) {
    files[to_base64url(as_bytes(path))] =
        path.back() == '/' ? std::string() : to_hex(crypto::sha256(as_bytes(content)));
  }
  v["files"] = files;
  return v;
}
Json objects_json(storage::MemoryStore& store) {
  Json o;
  for (const auto& [name, content] : store.objects()) o[name] = to_base64url(content);
  return o;
}
Json asset_document(const char* kind, storage::MemoryStore& store, JsonArray versions) {
  Json d;
  d["vectors"] = kind;
  d["objects"] = objects_json(store);
  d["versions"] = std::move(versions);
  return d;
}
void save(const std::string& directory, const std::string& name, const Json& document) {
  ASSERT_TRUE(
      write_file_atomic(directory + "/" + name, as_bytes(pretty(document) + "\n"), 0644).ok());
}

PublishResult publish_vector(storage::MemoryStore& store, const Tree& tree, std::uint64_t seed,
                             AeadSuite suite, std::size_t object_size,
                             const PublishResult* previous = nullptr) {
  TempDir dir;
  write_tree(dir.path + "/src", tree);
  SeededRandom random(seed);
  PublishOptions o = options_for(dir.path + "/src", dir.path + "/state");
  o.suite = suite;
  o.object_size = object_size;
  o.name = "vector";
  if (previous != nullptr) {
    o.previous = PreviousVersion{previous->record, previous->key.clone()};
    o.key = previous->key.clone();
  }
  auto r = publish(std::move(o), store, random);
  EXPECT_TRUE(r.ok()) << r.error().line();
  return std::move(*r);
}

Tree basic_tree() {
  return {{"empty", ""},
          {"one", "1"},
          {"dir/whole", pattern(65536, 1)},
          {"dir/more", pattern(65537, 2)},
          {"void/", ""},
          {"n\xff\n", "name"}};
}

// A hand-made manifest, sealed with the right keys: what only a hostile or broken publisher can
// make.
struct Forge {
  storage::MemoryStore& store;
  SeededRandom random;
  Id16 asset_id = random.fixed<16>();
  DatasetKey key = random.secret<DatasetKey>(32);
  std::vector<ObjectEntry> objects;
  Inode root, file;
  std::vector<TreeEntry> entries;

  Forge(storage::MemoryStore& s, std::uint64_t seed) : store(s), random(seed) {
    root.parent = kRootIno;
    file.type = NodeType::kFile;
    file.parent = kRootIno;
    file.size = 5;
    FileContent c;
    c.file_id = random.fixed<16>();
    c.secret = FileSecret(random.fixed<32>());
    const FileKeys keys = file_keys(asset_id, AeadSuite::kAes256Gcm, c.file_id, 1, c.secret);
    c.commit = keys.commit;
    c.check = content_check(c.secret, crypto::sha256(as_bytes("plain")));
    auto pack =
        ObjectBuilder::create(
            store, {ObjectKind::kData, AeadSuite::kAes256Gcm, 0, asset_id, random.fixed<16>()},
            kObjectSize)
            .value();
    c.extent_count = 1;
    c.extent = Extent{0, pack->id(), pack->position(), 1};
    const Bytes aad = chunk_aad({asset_id, c.file_id, 1, 0, 5, true, AeadSuite::kAes256Gcm});
    const Bytes sealed = crypto::aead_seal(AeadSuite::kAes256Gcm, segment_key(keys.file, 0),
                                           chunk_nonce(0, true), aad, as_bytes("plain"))
                             .value();
    EXPECT_TRUE(pack->add(sealed).ok());
    objects.push_back(pack->finish(true, random).value());
    file.content = c;
    fill();
  }
  void fill() {
    entries = {{meta_key(), encode_meta({3, 1, 1, 5})},
               {inode_key(1), encode_inode(root)},
               {inode_key(2), encode_inode(file)},
               {dirent_key(1, "f"), encode_dirent({2, NodeType::kFile})}};
  }
  Json finish(const std::function<void(Bytes&)>& change_page = {}) {
    PageWriter pages({store, key, asset_id, AeadSuite::kAes256Gcm, 1, kObjectSize, random,
                      [](const Id16&) { return ok_status(); },
                      [this](const ObjectEntry& e) {
                        objects.push_back(e);
                        return ok_status();
                      }});
    PageEncoder page(0);
    for (const TreeEntry& e : entries) EXPECT_TRUE(page.add(e.key, e.value));
    Bytes plain = page.finish();
    if (change_page) change_page(plain);
    const PageRef ref = pages.write(0, plain).value();
    EXPECT_TRUE(pages.finish().ok());
    std::sort(objects.begin(), objects.end(),
              [](const auto& a, const auto& b) { return a.id < b.id; });
    Bytes list = encode_list_head(AeadSuite::kAes256Gcm, asset_id, ref.object, objects.size());
    records::VersionRecord r;
    for (const ObjectEntry& e : objects) {
      append(list, encode_list_entry(e));
      r.ciphertext_bytes += static_cast<std::int64_t>(e.size);
    }
    r.format = std::string(kFormatWord);
    r.asset_id = asset_id;
    r.root_hash = ref.hash;
    r.objects_hash = crypto::sha256(list);
    r.object_count = static_cast<std::int64_t>(objects.size());
    r.file_count = 1;
    r.commit_dk = dataset_key_commitment(key, asset_id);
    r.name = "forged";
    EXPECT_TRUE(store.put(list_name(r.objects_hash), list).ok());
    return version_json(r, key, {});
  }
};

struct Forgery {
  const char* name;
  Reason reading;  // kUninitialised: it is fine
  std::function<void(Forge&)> change;
  std::function<void(Bytes&)> change_page = {};
};
std::vector<Forgery> forgeries() {
  return {
      {"control: a genuine hand-made manifest", Reason::kUninitialised, [](Forge&) {}},
      {"keys not ascending", Reason::kBadStructure,
       [](Forge& f) { std::swap(f.entries[1], f.entries[2]); }},
      {"key twice", Reason::kBadStructure,
       [](Forge& f) { f.entries.insert(f.entries.begin() + 1, f.entries[1]); }},
      {"no totals", Reason::kBadStructure, [](Forge& f) { f.entries.erase(f.entries.begin()); }},
      {"entry of an absent inode", Reason::kBadStructure,
       [](Forge& f) {
         f.entries[3].value = encode_dirent({9, NodeType::kFile});
       }},
      {"entry of another type", Reason::kBadStructure,
       [](Forge& f) {
         f.entries[3].value = encode_dirent({2, NodeType::kDirectory});
       }},
      {"entry of the root", Reason::kBadStructure,
       [](Forge& f) {
         f.entries[3].value = encode_dirent({1, NodeType::kDirectory});
       }},
      {"entry under another parent", Reason::kBadStructure,
       [](Forge& f) {
         f.file.parent = 7;
         f.fill();
       }},
      {"entry named ..", Reason::kBadStructure,
       [](Forge& f) { f.entries[3].key = dirent_key(1, ".."); }},
      {"entry with a slash", Reason::kBadStructure,
       [](Forge& f) { f.entries[3].key = dirent_key(1, "a/b"); }},
      {"entry too short", Reason::kTruncated, [](Forge& f) { f.entries[3].value.pop_back(); }},
      {"entry too long", Reason::kTrailingBytes, [](Forge& f) { f.entries[3].value.push_back(0); }},
      {"unknown type", Reason::kBadStructure, [](Forge& f) { f.entries[2].value[0] = 3; }},
      {"unknown flags", Reason::kBadStructure, [](Forge& f) { f.entries[2].value[1] = 2; }},
      {"reserved bytes in an inode", Reason::kBadStructure,
       [](Forge& f) { f.entries[2].value[2] = 1; }},
      {"too many nanoseconds", Reason::kBadStructure,
       [](Forge& f) {
         f.file.mtime_ns = 1'000'000'000;
         f.fill();
       }},
      {"inode too short", Reason::kTruncated, [](Forge& f) { f.entries[2].value.pop_back(); }},
      {"inode too long", Reason::kTrailingBytes, [](Forge& f) { f.entries[2].value.push_back(0); }},
      {"directory with a size", Reason::kBadStructure,
       [](Forge& f) {
         f.root.size = 1;
         f.fill();
       }},
      {"commitment of another key", Reason::kBadCommitment,
       [](Forge& f) {
         f.file.content->commit[0] ^= 1;
         f.fill();
       }},
      {"secret of another file", Reason::kBadCommitment,
       [](Forge& f) {
         f.file.content->secret.bytes[0] ^= 1;
         f.fill();
       }},
      {"content version of another time", Reason::kBadCommitment,
       [](Forge& f) {
         f.file.content->content_version = 2;
         f.fill();
       }},
      {"content check of other content", Reason::kBadHash,
       [](Forge& f) {
         f.file.content->check[0] ^= 1;
         f.fill();
       }},
      {"shorter than its chunk", Reason::kBadTag,
       [](Forge& f) {
         f.file.size = 4;
         f.fill();
       }},
      {"longer than its extent", Reason::kBadStructure,
       [](Forge& f) {
         f.file.size = 65'537;
         f.fill();
       }},
      {"empty with an extent", Reason::kBadStructure,
       [](Forge& f) {
         f.file.size = 0;
         f.fill();
       }},
      {"too large", Reason::kBadStructure,
       [](Forge& f) {
         f.file.size = kMaxFileSize + 1;
         f.fill();
       }},
      {"extent inside the header", Reason::kBadStructure,
       [](Forge& f) {
         f.file.content->extent->offset = 63;
         f.fill();
       }},
      {"extent at another offset", Reason::kBadTag,
       [](Forge& f) {
         f.file.content->extent->offset = 65;
         f.fill();
       }},
      {"extent in an absent object", Reason::kUnavailable,
       [](Forge& f) {
         f.file.content->extent->object[0] ^= 1;
         f.fill();
       }},
      {"extent past the object's end", Reason::kTruncated,
       [](Forge& f) {
         f.file.content->extent->offset = 1 << 30;
         f.fill();
       }},
      {"extents that do not exist", Reason::kBadStructure,
       [](Forge& f) {
         f.file.content->extent_count = 2;
         f.file.content->extent.reset();
         f.fill();
       }},
      {"bytes behind the entries of a page", Reason::kBadStructure, [](Forge&) {},
       [](Bytes& p) { p.back() = 1; }},
      {"page of another level", Reason::kBadStructure, [](Forge&) {}, [](Bytes& p) { p[0] = 1; }},
      {"page without entries", Reason::kBadStructure, [](Forge&) {},
       [](Bytes& p) { p[2] = p[3] = 0; }},
      {"more entries than there are", Reason::kBadStructure, [](Forge&) {},
       [](Bytes& p) { p[2] = 200; }},
      {"value past the page's end", Reason::kTruncated, [](Forge&) {},
       [](Bytes& p) { p[6] = p[7] = 255; }},
  };
}

Json flip(const std::string& object, std::size_t offset, int mask = 1) {
  Json j;
  j["op"] = "flip";
  j["object"] = object;
  j["offset"] = static_cast<std::int64_t>(offset);
  j["mask"] = mask;
  return j;
}
Json set_field(const char* field, Json value, bool keep_id = false) {
  Json j;
  j["op"] = "record";
  j["field"] = field;
  j["value"] = std::move(value);
  j["keepId"] = keep_id;
  return j;
}
Json swap_ranges(const std::string& object, std::size_t a, std::size_t b, std::size_t n) {
  Json j;
  j["op"] = "swap-ranges";
  j["object"] = object;
  j["a"] = static_cast<std::int64_t>(a);
  j["b"] = static_cast<std::int64_t>(b);
  j["length"] = static_cast<std::int64_t>(n);
  return j;
}
Json change_object(const char* op, const std::string& object, const char* field = nullptr,
                   std::int64_t value = 0) {
  Json j;
  j["op"] = op;
  j["object"] = object;
  if (field != nullptr) j[field] = value;
  return j;
}
Json refusal(const char* name, const char* base, std::int64_t version, JsonArray changes,
             Reason keyless, Reason reading) {
  const auto word = [](Reason r) {
    return r == Reason::kUninitialised ? std::string("ok") : std::string(reason_code(r));
  };
  Json j;
  j["name"] = name;
  j["base"] = base;
  j["version"] = version;
  j["changes"] = std::move(changes);
  j["keyless"] = word(keyless);
  j["reading"] = word(reading);
  return j;
}

JsonArray tampering(storage::MemoryStore& store, const PublishResult& one,
                    const PublishResult& two) {
  constexpr Reason kOk = Reason::kUninitialised;
  const char* base = "asset-versions.json";
  std::string data, manifest;
  const auto listed = load_object_list(store, one.record, 10);
  for (const ObjectEntry& e : *listed) {
    (e.kind == ObjectKind::kData ? data : manifest) = object_name(e.id);
  }
  const std::string list = list_name(one.record.objects_hash);
  Json swap;
  swap["op"] = "swap";
  swap["a"] = data;
  swap["b"] = manifest;
  Json rollback;
  rollback["op"] = "use-record";
  rollback["version"] = 0;
  Json key;
  key["op"] = "key";
  key["hex"] = std::string(64, '0');
  const std::size_t root = kHeaderSize + static_cast<std::size_t>(one.record.root_page) * kPageSize;
  const auto& objects = store.objects();
  JsonArray c;
  const auto add = [&](const char* name, JsonArray changes, Reason keyless, Reason reading,
                       std::int64_t version = 0) {
    c.push_back(refusal(name, base, version, std::move(changes), keyless, reading));
  };
  add("format word of a data object", {flip(data, 0)}, Reason::kBadMagic, Reason::kBadMagic);
  add("kind of a data object", {flip(data, 8, 3)}, Reason::kBadStructure, Reason::kBadStructure);
  add("another suite in a data object", {flip(data, 9, 3)}, Reason::kBadSuite, Reason::kBadSuite);
  add("unknown suite in a data object", {flip(data, 9, 2)}, Reason::kBadSuite, Reason::kBadSuite);
  add("chunk size of a data object", {flip(data, 10)}, Reason::kBadStructure,
      Reason::kBadStructure);
  add("reserved byte of a data object", {flip(data, 11)}, Reason::kBadStructure,
      Reason::kBadStructure);
  add("epoch of a data object", {flip(data, 12)}, Reason::kWrongVersion, Reason::kWrongVersion);
  add("asset of a data object", {flip(data, 16)}, Reason::kWrongAsset, Reason::kWrongAsset);
  add("id of a data object", {flip(data, 32)}, Reason::kBadStructure, Reason::kBadStructure);
  add("chunk", {flip(data, 70)}, Reason::kBadHash, Reason::kBadTag);
  add("padding, which only the keyless check sees", {flip(data, objects.at(data).size() - 1)},
      Reason::kBadHash, kOk);
  add("two chunks of a file change places",
      {swap_ranges(data, 64 + 5 + 2 * 16, 64 + 5 + 2 * 16 + 65552, 65552)}, Reason::kBadHash,
      Reason::kBadTag);
  add("data object cut short", {change_object("truncate", data, "size", 70'000)},
      Reason::kBadStructure, Reason::kTruncated);
  add("data object made longer", {change_object("extend", data, "bytes", 1)}, Reason::kBadStructure,
      kOk);
  add("data object gone", {change_object("remove", data)}, Reason::kNotFound, Reason::kUnavailable);
  add("data and manifest change names", {swap}, Reason::kBadStructure, Reason::kBadHash);
  add("format word of a manifest object", {flip(manifest, 0)}, Reason::kBadMagic,
      Reason::kBadMagic);
  add("epoch of a manifest object", {flip(manifest, 12)}, Reason::kWrongVersion,
      Reason::kWrongVersion);
  add("root page", {flip(manifest, root)}, Reason::kBadHash, Reason::kBadHash);
  add("manifest object gone", {change_object("remove", manifest)}, Reason::kNotFound,
      Reason::kUnavailable);
  add("format word of the list", {flip(list, 0)}, Reason::kBadMagic, Reason::kBadMagic);
  add("asset of the list", {flip(list, 16)}, Reason::kWrongAsset, Reason::kWrongAsset);
  add("root object in the list", {flip(list, 64)}, Reason::kBadHash, Reason::kUnavailable);
  add("count in the list", {flip(list, 80)}, Reason::kBadStructure, Reason::kBadStructure);
  add("reserved bytes of the list", {flip(list, 88)}, Reason::kBadStructure, Reason::kBadStructure);
  add("hash in the list", {flip(list, 96 + 24)}, Reason::kBadHash, kOk);
  add("kind in the list", {flip(list, 96 + 56, 4)}, Reason::kBadStructure, kOk);
  add("list made longer", {change_object("extend", list, "bytes", 64)}, Reason::kBadStructure, kOk);
  add("list cut short", {change_object("truncate", list, "size", 95)}, Reason::kBadStructure,
      Reason::kTruncated);
  add("list gone", {change_object("remove", list)}, Reason::kNotFound, Reason::kUnavailable);
  add("another key", {key}, kOk, Reason::kBadCommitment);
  add("another format", {set_field("format", "gbx9")}, Reason::kBadVersion, Reason::kBadVersion);
  add("another suite", {set_field("suite", 2)}, Reason::kBadSuite, Reason::kBadSuite);
  add("unknown suite", {set_field("suite", 3)}, Reason::kBadSuite, Reason::kBadSuite);
  add("another asset", {set_field("assetId", std::string(32, '0'))}, Reason::kWrongAsset,
      Reason::kBadCommitment);
  add("another level of the root", {set_field("rootLevel", one.record.root_level + 1)}, kOk,
      Reason::kBadTag);
  add("another root", {set_field("rootHash", std::string(64, '0'))}, kOk, Reason::kBadHash);
  add("another key epoch", {set_field("keyEpoch", 2)}, Reason::kWrongVersion,
      Reason::kWrongVersion);
  add("fewer objects than there are", {set_field("objectCount", one.record.object_count - 1)},
      Reason::kBadStructure, Reason::kBadStructure);
  add("another sum", {set_field("ciphertextBytes", 1)}, Reason::kBadStructure, kOk);
  add("a second version without a first", {set_field("version", 2)}, Reason::kBadStructure,
      Reason::kBadStructure);
  add("renamed, under the old id", {set_field("name", "other", true)}, kOk, Reason::kWrongVersion);
  add("rollback to the first version", {rollback}, kOk, Reason::kWrongVersion, 1);
  add("root of the first version in the second",
      {set_field("rootHash", to_hex(one.record.root_hash))}, kOk, Reason::kBadHash, 1);
  add("list of the first version in the second",
      {set_field("objectsHash", to_hex(one.record.objects_hash))}, Reason::kBadStructure,
      Reason::kBadStructure, 1);
  (void)two;
  return c;
}

Json primitives() {
  SeededRandom random(11);
  Json d;
  const DatasetKey dk = random.secret<DatasetKey>(32);
  const auto asset = random.fixed<16>(), object = random.fixed<16>(), file = random.fixed<16>();
  const FileSecret secret(random.fixed<32>());
  const FileKeys keys = file_keys(asset, AeadSuite::kAes256Gcm, file, 3, secret);
  const AeadKey seg = segment_key(keys.file, 2);
  const std::string plain = "the last chunk";
  const Bytes aad = chunk_aad({asset, file, 3, 2050, static_cast<std::uint32_t>(plain.size()), true,
                               AeadSuite::kAes256Gcm});
  const auto put = [&](const char* name, ByteView v) { d[name] = to_hex(v); };
  put("dk", dk.view(SecretAccess{}));
  put("assetId", asset);
  put("objectId", object);
  put("fileId", file);
  put("fileSecret", secret.bytes);
  put("commitDk", dataset_key_commitment(dk, asset));
  put("pageKey", page_key(dk, asset, object, 5).view(SecretAccess{}));
  put("pageNonce", page_nonce(258));
  put("pageAad", page_aad(asset, object, 258, 5, 2, AeadSuite::kAes256Gcm));
  put("fileKey", keys.file.view(SecretAccess{}));
  put("fileCommit", keys.commit);
  put("segmentKey", seg.view(SecretAccess{}));
  put("chunkNonce", chunk_nonce(2, true));
  put("chunkAad", aad);
  put("contentCheck", content_check(secret, crypto::sha256(as_bytes(plain))));
  put("sealed",
      crypto::aead_seal(AeadSuite::kAes256Gcm, seg, chunk_nonce(2, true), aad, as_bytes(plain))
          .value());
  d["plaintext"] = plain;
  const std::pair<const char*, int> numbers[] = {
      {"epoch", 5},          {"slot", 258},         {"level", 2},
      {"suite", 1},          {"contentVersion", 3}, {"segment", 2},
      {"chunkInSegment", 2}, {"chunk", 2050},       {"plainLength", 14}};
  for (const auto& [name, value] : numbers) d[name] = value;
  JsonArray lengths;
  for (const std::int64_t n :
       {0, 1, 2, 9, 64, 100, 4096, 4097, 65'616, 1'000'000, 67'108'863, 67'108'864}) {
    lengths.push_back(
        JsonArray{n, static_cast<std::int64_t>(padme(static_cast<std::uint64_t>(n)))});
  }
  Json document;
  document["vectors"] = "primitives";
  document["derivations"] = d;
  document["padme"] = std::move(lengths);
  return document;
}

// GBX_WRITE_VECTORS=tests/asset/vectors asset_vectors_test --gtest_also_run_disabled_tests
// --gtest_filter=*Write
TEST(AssetVectors, DISABLED_Write) {
  const char* to = getenv("GBX_WRITE_VECTORS");
  ASSERT_NE(to, nullptr) << "GBX_WRITE_VECTORS must name the directory to write to";
  save(to, "primitives.json", primitives());
  {
    storage::MemoryStore store;
    const PublishResult one =
        publish_vector(store, basic_tree(), 21, AeadSuite::kAes256Gcm, kObjectSize);
    Tree changed = basic_tree();
    changed["one"] = "2";
    changed["added"] = "new";
    changed.erase("dir/whole");
    const PublishResult two =
        publish_vector(store, changed, 22, AeadSuite::kAes256Gcm, kObjectSize, &one);
    save(to, "asset-versions.json",
         asset_document("asset", store,
                        {version_json(one.record, one.key, with_directories(basic_tree())),
                         version_json(two.record, two.key, with_directories(changed))}));
    Json refusals;
    refusals["vectors"] = "refusals";
    refusals["cases"] = tampering(store, one, two);
    save(to, "refusals-tampered.json", refusals);
  }
  {
    storage::MemoryStore store;
    const Tree tree{{"spans", pattern(2 * 65536 + 1, 5)}};
    const PublishResult r = publish_vector(store, tree, 23, AeadSuite::kChaCha20Poly1305, 66'000);
    save(to, "asset-chacha-extents.json",
         asset_document("asset", store, {version_json(r.record, r.key, tree)}));
  }
  {
    storage::MemoryStore store;
    Tree tree;
    for (int i = 0; i < 60; ++i) {
      tree["d" + std::to_string(i % 3) + "/" + std::string(200, 'n') + std::to_string(i)] = "";
    }
    const PublishResult r = publish_vector(store, tree, 24, AeadSuite::kAes256Gcm, kObjectSize);
    save(to, "asset-deep-manifest.json",
         asset_document("asset", store, {version_json(r.record, r.key, with_directories(tree))}));
  }
  storage::MemoryStore store;
  JsonArray versions;
  JsonArray cases;
  for (const Forgery& f : forgeries()) {
    Forge forge(store, 100 + versions.size());
    f.change(forge);
    cases.push_back(refusal(f.name, "forged.json", static_cast<std::int64_t>(versions.size()), {},
                            Reason::kUninitialised, f.reading));
    versions.push_back(forge.finish(f.change_page));
  }
  save(to, "forged.json", asset_document("base", store, std::move(versions)));
  Json refusals;
  refusals["vectors"] = "refusals";
  refusals["cases"] = std::move(cases);
  save(to, "refusals-forged.json", refusals);
}

// --- checking ---
void load_objects(const Json& document, storage::MemoryStore& store) {
  for (const auto& [name, content] : *document.find("objects")->object()) {
    store.objects()[name] = from_base64url(*content.string()).value();
  }
}

TEST(AssetVectors, Primitives) {
  const Json document = load("primitives.json");
  ASSERT_NE(document.find("derivations"), nullptr);
  EXPECT_EQ(canonical(document), canonical(primitives()));
}

TEST(AssetVectors, Assets) {
  for (const auto& [name, least] :
       {std::pair("asset-versions.json", 2), std::pair("asset-chacha-extents.json", 1),
        std::pair("asset-deep-manifest.json", 1)}) {
    const Json document = load(name);
    ASSERT_NE(document.find("objects"), nullptr) << name;
    storage::MemoryStore store;
    load_objects(document, store);
    int versions = 0;
    for (const Json& v : *document.find("versions")->array()) {
      ++versions;
      const auto record = from_json<records::VersionRecord>(*v.find("record")).value();
      auto reader = AssetReader::open(store, record, fixed<32>(v, "versionId"),
                                      DatasetKey::copy_of(hex(v, "key")));
      ASSERT_TRUE(reader.ok()) << name << reader.error().line();
      VerifyReport report;
      const Status all = read_everything(*reader, report);
      EXPECT_TRUE(all.ok()) << name << all.error().line();
      EXPECT_TRUE(verify(store, record).ok());
      const auto tree = read_tree(*reader);
      ASSERT_TRUE(tree.ok());
      Json files;
      for (const auto& [path, content] : *tree) {
        files[to_base64url(as_bytes(path))] =
            path.back() == '/' ? std::string() : to_hex(crypto::sha256(as_bytes(content)));
      }
      EXPECT_EQ(files, *v.find("files")) << name;
    }
    EXPECT_GE(versions, least);
  }
}

struct Case {
  storage::MemoryStore store;
  Json record;
  Hash32 expected_id{};
  bool keep_id = false;
  DatasetKey key;
};
void apply(Case& c, const Json& change, const Json& versions) {
  const std::string& op = text(change, "op");
  auto& objects = c.store.objects();
  if (op == "flip") {
    objects.at(text(change, "object")).at(static_cast<std::size_t>(number(change, "offset"))) ^=
        static_cast<std::uint8_t>(number(change, "mask"));
  } else if (op == "truncate") {
    objects.at(text(change, "object")).resize(static_cast<std::size_t>(number(change, "size")));
  } else if (op == "extend") {
    Bytes& o = objects.at(text(change, "object"));
    o.resize(o.size() + static_cast<std::size_t>(number(change, "bytes")));
  } else if (op == "remove") {
    ASSERT_EQ(objects.erase(text(change, "object")), 1u);
  } else if (op == "swap") {
    std::swap(objects.at(text(change, "a")), objects.at(text(change, "b")));
  } else if (op == "swap-ranges") {
    const auto at = objects.at(text(change, "object")).begin();
    std::swap_ranges(at + number(change, "a"), at + number(change, "a") + number(change, "length"),
                     at + number(change, "b"));
  } else if (op == "record") {
    c.record[text(change, "field")] = *change.find("value");
    c.keep_id = *change.find("keepId")->boolean();
  } else if (op == "use-record") {
    c.record =
        *(*versions.array())[static_cast<std::size_t>(number(change, "version"))].find("record");
    c.keep_id = true;
  } else if (op == "key") {
    c.key = DatasetKey::copy_of(hex(change, "hex"));
  } else {
    FAIL() << "unknown change " << op;
  }
}

TEST(AssetVectors, RefusalsNameTheirReason) {
  std::size_t cases = 0;
  for (const char* file : {"refusals-tampered.json", "refusals-forged.json"}) {
    const Json document = load(file);
    ASSERT_NE(document.find("cases"), nullptr) << file;
    Json base;
    std::string base_name;
    for (const Json& v : *document.find("cases")->array()) {
      ++cases;
      if (base_name != text(v, "base")) base = load(base_name = text(v, "base"));
      const Json& versions = *base.find("versions");
      const Json& start = (*versions.array())[static_cast<std::size_t>(number(v, "version"))];
      Case c;
      load_objects(base, c.store);
      c.record = *start.find("record");
      c.key = DatasetKey::copy_of(hex(start, "key"));
      for (const Json& change : *v.find("changes")->array()) apply(c, change, versions);
      const auto record = from_json<records::VersionRecord>(c.record);
      ASSERT_TRUE(record.ok()) << text(v, "name");
      const Hash32 id = c.keep_id ? fixed<32>(start, "versionId") : record->id();
      const auto keyless = verify(c.store, *record);
      EXPECT_EQ(keyless.ok() ? "ok" : reason_code(keyless.reason()), text(v, "keyless"))
          << text(v, "name");
      auto reader = AssetReader::open(c.store, *record, id, c.key);
      Status reading = reader.ok() ? ok_status() : Status(reader.error());
      VerifyReport report;
      if (reader.ok()) reading = read_everything(*reader, report);
      EXPECT_EQ(reading.ok() ? "ok" : reason_code(reading.reason()), text(v, "reading"))
          << text(v, "name") << ": " << reading.error().line();
    }
  }
  EXPECT_GE(cases, 70u);
}

}  // namespace
}  // namespace gbx::asset
