// Publishing and reading: round trips, versions, and every way in which a store may lie.
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "asset/asset_test_util.h"
#include "asset/object_builder.h"
#include "asset/prefetch.h"
#include "asset/verify.h"
#include "storage/directory_store.h"
#include "storage/testing.h"

namespace gbx::asset {
namespace {

using namespace testing;

constexpr std::size_t kSmallObject = 256 << 10;

struct Published {
  TempDir dir;
  storage::MemoryStore store;
  PublishResult result;
  Hash32 id{};

  Result<AssetReader> open() { return AssetReader::open(store, result.record, id, result.key); }
};

void publish_tree(Published& p, const Tree& tree, std::uint64_t seed = 1,
                  std::size_t object_size = kSmallObject,
                  crypto::AeadSuite suite = crypto::AeadSuite::kAes256Gcm) {
  write_tree(p.dir.path + "/src", tree);
  SeededRandom random(seed);
  PublishOptions o = options_for(p.dir.path + "/src", p.dir.path + "/state");
  o.object_size = object_size;
  o.suite = suite;
  auto r = publish(std::move(o), p.store, random);
  ASSERT_TRUE(r.ok()) << r.error().line();
  p.result = std::move(*r);
  p.id = p.result.record.id();
  ASSERT_TRUE(remove_tree(p.dir.path + "/state").ok());
}

Tree all_sizes() {
  Tree t;
  for (const std::size_t n : std::initializer_list<std::size_t>{0, 1, 2, 4095, 65535, 65536, 65537,
                                                                131072, 200000, 3 << 20}) {
    t["size-" + std::to_string(n)] = pattern(n, n + 1);
  }
  for (int i = 0; i < 300; ++i) {
    t["many/d" + std::to_string(i % 7) + "/file-" + std::to_string(i)] =
        pattern(static_cast<std::size_t>(i), 77);
  }
  t["empty/"] = "";
  t["deep/a/b/c/d/e/f/g"] = "x";
  t["names/" + std::string(255, 'n')] = "long";
  t["names/\xff\xfe not utf8\n"] = "bytes";
  t["names/ "] = "space";
  return t;
}

TEST(Asset, RoundTripOfAllSizes) {
  for (const auto suite : {crypto::AeadSuite::kAes256Gcm, crypto::AeadSuite::kChaCha20Poly1305}) {
    Published p;
    const Tree tree = all_sizes();
    publish_tree(p, tree, 1, kSmallObject, suite);
    auto reader = p.open();
    ASSERT_TRUE(reader.ok()) << reader.error().line();
    auto got = read_tree(*reader);
    ASSERT_TRUE(got.ok()) << got.error().line();
    EXPECT_TRUE(*got == with_directories(tree));
    auto report = verify(p.store, p.result.record);
    ASSERT_TRUE(report.ok()) << report.error().line();
    EXPECT_EQ(report->objects + 1, p.store.objects().size());
    auto full = verify_with_key(p.store, p.result.record, p.id, p.result.key);
    ASSERT_TRUE(full.ok()) << full.error().line();
    EXPECT_EQ(full->files, p.result.files);
    EXPECT_EQ(full->bytes, p.result.bytes);
  }
}

TEST(Asset, ReadsAnyRange) {
  Published p;
  const std::string content = pattern(700'000, 9);
  publish_tree(p, {{"f", content}});
  auto reader = p.open();
  ASSERT_TRUE(reader.ok());
  const std::uint64_t ino = reader->lookup(kRootIno, "f")->ino;
  SeededRandom random(5);
  for (int i = 0; i < 500; ++i) {
    const std::uint64_t offset = random.below(content.size() + 10);
    Bytes out(static_cast<std::size_t>(random.below(i % 2 == 0 ? 300'000 : 100)));
    auto n = reader->read(ino, offset, out);
    ASSERT_TRUE(n.ok()) << n.error().line();
    const std::string expected = offset >= content.size()
                                     ? ""
                                     : content.substr(static_cast<std::size_t>(offset), out.size());
    ASSERT_EQ(*n, expected.size());
    ASSERT_TRUE(equal(ByteView(out).first(*n), as_bytes(expected))) << offset << " " << out.size();
  }
  Bytes one(1);
  EXPECT_EQ(reader->read(kRootIno, 0, one).reason(), Reason::kBadValue);
  EXPECT_EQ(reader->read(999, 0, one).reason(), Reason::kNotFound);
  EXPECT_EQ(reader->lookup(kRootIno, "g").reason(), Reason::kNotFound);
  EXPECT_EQ(reader->lookup(kRootIno, "..").reason(), Reason::kNotFound);
}

TEST(Asset, SingleFileAndMetadata) {
  TempDir dir;
  write_tree(dir.path + "/src", {{"run.sh", "echo"}});
  ASSERT_EQ(chmod((dir.path + "/src/run.sh").c_str(), 0755), 0);
  storage::MemoryStore store;
  SeededRandom random(1);
  std::vector<PublishProgress> seen;
  auto r = publish(options_for(dir.path + "/src/run.sh", dir.path + "/state"), store, random,
                   [&](const PublishProgress& p) { seen.push_back(p); });
  ASSERT_TRUE(r.ok()) << r.error().line();
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen.back().files_total, 1u);
  EXPECT_EQ(seen.back().bytes, 4u);
  EXPECT_EQ(seen.back().bytes_total, 4u);
  auto reader = AssetReader::open(store, r->record, r->record.id(), r->key);
  ASSERT_TRUE(reader.ok());
  auto a = reader->lookup(kRootIno, "run.sh");
  ASSERT_TRUE(a.ok());
  EXPECT_TRUE(a->executable);
  EXPECT_EQ(a->mtime_s, 1'600'000'000);
  EXPECT_EQ(a->mtime_ns, 5u);
  EXPECT_EQ(reader->attributes(kRootIno)->mtime_s, 0);
}

TEST(Asset, EmptyDirectory) {
  Published p;
  publish_tree(p, {});
  auto reader = p.open();
  ASSERT_TRUE(reader.ok());
  EXPECT_TRUE(reader->list(kRootIno, "", 10)->empty());
  EXPECT_TRUE(verify_with_key(p.store, p.result.record, p.id, p.result.key).ok());
}

TEST(Asset, ObjectsHideSizes) {
  Published p;
  publish_tree(p, {{"a", pattern(600'000, 1)}});
  std::map<std::size_t, int> sizes;
  for (const auto& [name, object] : p.store.objects()) {
    ++sizes[object.size()];
    if (name != list_name(p.result.record.objects_hash)) {
      EXPECT_TRUE(object.size() == kSmallObject || padme(object.size()) == object.size())
          << object.size();
      EXPECT_GE(object.size(), kLeastObjectSize);
    }
  }
  EXPECT_EQ(sizes[kSmallObject], 2);
  EXPECT_EQ(padme(1'000'000), 1'015'808u);
  EXPECT_EQ(padme(9), 10u);
  for (std::uint64_t n = 1; n < 5000; ++n) {
    EXPECT_GE(padme(n), n);
    EXPECT_LE(padme(n), n + n / 8 + 1) << n;
    EXPECT_EQ(padme(padme(n)), padme(n));
  }
}

TEST(Asset, RefusesWhatIsNoFile) {
  TempDir dir;
  write_tree(dir.path + "/src", {{"a", "1"}});
  ASSERT_EQ(symlink("/etc/passwd", (dir.path + "/src/link").c_str()), 0);
  storage::MemoryStore store;
  SeededRandom random(1);
  auto r = publish(options_for(dir.path + "/src", dir.path + "/state"), store, random);
  EXPECT_EQ(r.reason(), Reason::kBadValue);
  EXPECT_NE(r.error().what.find("link is a symbolic link"), std::string::npos) << r.error().line();
  ASSERT_EQ(unlink((dir.path + "/src/link").c_str()), 0);
  ASSERT_EQ(mkfifo((dir.path + "/src/pipe").c_str(), 0600), 0);
  EXPECT_EQ(publish(options_for(dir.path + "/src", dir.path + "/state2"), store, random).reason(),
            Reason::kBadValue);
  EXPECT_EQ(
      publish(options_for(dir.path + "/absent", dir.path + "/state3"), store, random).reason(),
      Reason::kNotFound);
}

// Reads every file by its path. Bytes that are delivered are the published ones; whatever is not
// delivered has a reason.
std::set<Reason> read_each(AssetReader& reader, const Tree& tree, const std::string& where) {
  std::set<Reason> reasons;
  for (const auto& [path, content] : tree) {
    std::uint64_t ino = kRootIno;
    Result<Attributes> found = fail(Reason::kNotFound);
    for (std::size_t at = 0; at <= path.size();) {
      const std::size_t slash = std::min(path.find('/', at), path.size());
      found = reader.lookup(ino, path.substr(at, slash - at));
      if (!found.ok()) break;
      ino = found->ino;
      at = slash + 1;
    }
    if (!found.ok()) {
      reasons.insert(found.reason());
      continue;
    }
    EXPECT_EQ(found->size, content.size()) << where << " " << path;
    Bytes out(content.size() + 10, 'x');
    auto n = reader.read(ino, 0, out);
    if (!n.ok()) {
      reasons.insert(n.reason());
    } else {
      EXPECT_TRUE(equal(ByteView(out).first(*n), as_bytes(content))) << where << " " << path;
    }
  }
  return reasons;
}

std::string codes(const std::set<Reason>& reasons) {
  std::string out;
  for (const Reason r : reasons) out += (out.empty() ? "" : " ") + std::string(reason_code(r));
  return out;
}

// The promise of the format: whatever one byte of whatever object becomes, the keyless check finds
// it, and no read returns anything but the plaintext. Every byte, padding included.
TEST(Hostile, EverySingleByteFlipIsFound) {
  Published p;
  const Tree tree{{"a", "first file"}, {"d/b", pattern(9'000, 3)}, {"d/c", ""}};
  publish_tree(p, tree);
  std::size_t bytes = 0;
  std::size_t silent = 0;  // padding, and data of the check without keys: no read meets it
  std::set<Reason> keyless;
  std::set<Reason> reading;
  for (auto& [name, object] : p.store.objects()) {
    bytes += object.size();
    for (std::size_t i = 0; i < object.size(); ++i) {
      const std::string where = name + " byte " + std::to_string(i);
      const auto flip = static_cast<std::uint8_t>(1U << (i % 8));
      object[i] ^= flip;
      const auto report = verify(p.store, p.result.record);
      ASSERT_FALSE(report.ok()) << where;
      keyless.insert(report.reason());
      auto reader = p.open();
      std::set<Reason> why;
      if (reader.ok()) {
        why = read_each(*reader, tree, where);
      } else {
        why.insert(reader.reason());
      }
      if (HasFailure()) return;
      if (why.empty()) ++silent;
      reading.insert(why.begin(), why.end());
      object[i] ^= flip;
    }
  }
  EXPECT_LT(bytes, 60'000u);
  EXPECT_GT(bytes - silent, 9'000u);
  EXPECT_EQ(codes(keyless), "bad-magic bad-suite bad-hash bad-structure wrong-asset wrong-version");
  EXPECT_EQ(
      codes(reading),
      "bad-magic bad-suite bad-tag bad-hash bad-structure wrong-asset wrong-version unavailable");
  EXPECT_TRUE(verify_with_key(p.store, p.result.record, p.id, p.result.key).ok());
}

// The same of the record that names the version: what is no longer the owner's is refused, however
// it reads.
TEST(Hostile, EverySingleByteFlipOfTheVersionRecordIsFound) {
  Published p;
  publish_tree(p, {{"a", "first file"}});
  SeededRandom random(4);
  const auto owner =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random).value();
  const auto genuine = records::sign(records::SetId{}, p.result.record, owner).value();
  const std::string text = canonical(to_json(genuine));
  std::set<Reason> parsing;
  std::set<Reason> opening;
  std::size_t parsed = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = text;
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      const auto r = from_json_text<records::Signed<records::VersionRecord>>(changed);
      if (!r.ok()) {
        parsing.insert(r.reason());
        continue;
      }
      ++parsed;
      ASSERT_EQ(r->verify(records::SetId{}, owner.public_key()).reason(), Reason::kBadSignature)
          << i << " " << changed;
      const auto reader = AssetReader::open(p.store, r->body, p.id, p.result.key);
      if (r->body.id() == p.id) {
        // it was in the signature or key
        ASSERT_EQ(canonical(to_json(r->body)), canonical(to_json(genuine.body))) << i;
        continue;
      }
      ASSERT_FALSE(reader.ok()) << i << " " << changed;
      opening.insert(reader.reason());
    }
  }
  EXPECT_GT(parsed, text.size());
  EXPECT_EQ(codes(parsing), "bad-encoding bad-json missing-field bad-value");
  EXPECT_EQ(codes(opening), "bad-version bad-suite bad-structure wrong-version");
}

// Files that their host rewrites as soon as they were read: whatever was looked at becomes
// something else.
class Turncoat final : public storage::ObjectStore {
 public:
  explicit Turncoat(const std::string& path)
      : path_(path),
        inner_(std::move(*storage::DirectoryStore::open(path, storage::SyncPolicy::kNever))) {}
  Result<std::unique_ptr<storage::ObjectWriter>> create(const std::string& name) override {
    return inner_->create(name);
  }
  Status get(const std::string& name, std::uint64_t offset, MutableByteView out) override {
    GBX_TRY(inner_->get(name, offset, out));
    return turn(name, offset, out.size());
  }
  Result<ByteView> view(const std::string& name, std::uint64_t offset, std::size_t size,
                        Bytes& scratch) override {
    GBX_ASSIGN(const ByteView seen, inner_->view(name, offset, size, scratch));
    GBX_TRY(turn(name, offset, size));
    return seen;
  }
  Result<std::uint64_t> size(const std::string& name) override { return inner_->size(name); }
  Status list(const std::function<Status(const std::string&)>& each) override {
    return inner_->list(each);
  }
  Status remove(const std::string& name) override { return inner_->remove(name); }

  bool armed = false;
  std::size_t turned = 0;

 private:
  Status turn(const std::string& name, std::uint64_t offset, std::size_t size) {
    if (!armed) return ok_status();
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path_)) {
      if (entry.path().filename() != name) continue;
      Bytes content(size);
      const Fd fd(open(entry.path().c_str(), O_RDWR | O_CLOEXEC));
      if (pread(fd.get(), content.data(), size, static_cast<off_t>(offset)) !=
          static_cast<ssize_t>(size)) {
        return fail(Reason::kIo, name);
      }
      for (auto& b : content) b = static_cast<std::uint8_t>(~b);
      if (pwrite(fd.get(), content.data(), size, static_cast<off_t>(offset)) !=
          static_cast<ssize_t>(size)) {
        return fail(Reason::kIo, name);
      }
      ++turned;
      return ok_status();
    }
    return fail(Reason::kNotFound, name);
  }
  const std::string path_;
  const std::unique_ptr<storage::DirectoryStore> inner_;
};

// Ciphertext is looked at once, in memory of the reader's own: what it checked is what it opens,
// and what comes later is found out as if it had always been there.
TEST(Hostile, BytesThatChangeBetweenCheckAndUseChangeNothing) {
  TempDir dir;
  const Tree tree{{"a", pattern(300'000, 1)}, {"d/b", pattern(70'000, 2)}, {"d/c", "small"}};
  write_tree(dir.path + "/src", tree);
  Turncoat store(dir.path + "/objects");
  SeededRandom random(1);
  auto published = publish(options_for(dir.path + "/src", dir.path + "/state"), store, random);
  ASSERT_TRUE(published.ok()) << published.error().line();
  const auto& record = published->record;
  store.armed = true;
  auto reader = AssetReader::open(store, record, record.id(), published->key);
  ASSERT_TRUE(reader.ok()) << reader.error().line();
  const auto got = read_tree(*reader);
  ASSERT_TRUE(got.ok()) << got.error().line();
  EXPECT_TRUE(*got == with_directories(tree));
  EXPECT_GT(store.turned, 6U);
  // The files are wrong by now: a reader that begins again gets an error and no byte.
  store.armed = false;
  EXPECT_EQ(AssetReader::open(store, record, record.id(), published->key).reason(),
            Reason::kBadMagic);
}

TEST(Hostile, TruncationExtensionLoss) {
  Published p;
  publish_tree(p, {{"a", "first file"}, {"b", pattern(300'000, 3)}});
  for (auto& [name, object] : p.store.objects()) {
    const Bytes genuine = object;
    object.push_back(0);
    EXPECT_EQ(verify(p.store, p.result.record).reason(), Reason::kBadStructure) << name;
    for (const std::size_t keep : {std::size_t{0}, std::size_t{63}, std::size_t{64},
                                   genuine.size() / 2, genuine.size() - 1}) {
      object.assign(genuine.begin(), genuine.begin() + static_cast<std::ptrdiff_t>(keep));
      EXPECT_FALSE(verify(p.store, p.result.record).ok());
      auto reader = p.open();
      if (reader.ok()) {
        auto got = read_tree(*reader);
        if (got.ok()) {
          EXPECT_EQ((*got)["b"], pattern(300'000, 3));
        }
      }
    }
    object = genuine;
  }
  const auto all = p.store.objects();
  for (const auto& [name, object] : all) {
    p.store.objects().erase(name);
    EXPECT_EQ(verify(p.store, p.result.record).reason(), Reason::kNotFound) << name;
    p.store.objects()[name] = object;
  }
}

TEST(Hostile, SwappedObjectsAndChunks) {
  Published p;
  publish_tree(
      p,
      {{"a", pattern(200'000, 3)}, {"b", pattern(65'536 * 2, 3)}, {"c", pattern(65'536 * 2, 4)}});
  std::vector<std::string> names;
  for (const auto& [name, unused] : p.store.objects()) names.push_back(name);
  auto& objects = p.store.objects();
  for (std::size_t i = 0; i < names.size(); ++i) {
    for (std::size_t j = i + 1; j < names.size(); ++j) {
      std::swap(objects[names[i]], objects[names[j]]);
      EXPECT_FALSE(verify(p.store, p.result.record).ok());
      auto reader = p.open();
      EXPECT_TRUE(!reader.ok() || !read_tree(*reader).ok());
      std::swap(objects[names[i]], objects[names[j]]);
    }
  }
  // Two chunks of one pack change places: same object, same file, another index.
  for (auto& [name, object] : objects) {
    if (object.size() != kSmallObject) continue;
    const auto at = object.begin() + kHeaderSize;
    std::swap_ranges(at, at + kSealedChunk, at + kSealedChunk);
    auto reader = p.open();
    ASSERT_TRUE(reader.ok());
    EXPECT_EQ(read_tree(*reader).reason(), Reason::kBadTag);
    std::swap_ranges(at, at + kSealedChunk, at + kSealedChunk);
  }
}

TEST(Hostile, RecordKeyAndVersionMustMatch) {
  Published p;
  publish_tree(p, {{"a", "first"}});
  const auto& good = p.result.record;
  const auto refuse = [&](const std::function<void(records::VersionRecord&)>& change) {
    records::VersionRecord r = good;
    change(r);
    // The id of the changed record itself, as if the caller had been lied to about it.
    return AssetReader::open(p.store, r, r.id(), p.result.key).reason();
  };
  EXPECT_EQ(AssetReader::open(p.store, good, Hash32{}, p.result.key).reason(),
            Reason::kWrongVersion);
  SeededRandom random(9);
  EXPECT_EQ(AssetReader::open(p.store, good, p.id, random.secret<DatasetKey>(32)).reason(),
            Reason::kBadCommitment);
  EXPECT_EQ(refuse([](auto& r) { r.format = "gbx9"; }), Reason::kBadVersion);
  EXPECT_EQ(refuse([](auto& r) { r.suite = 3; }), Reason::kBadSuite);
  EXPECT_EQ(refuse([](auto& r) { r.suite = 2; }), Reason::kBadSuite);
  EXPECT_EQ(refuse([](auto& r) { r.asset_id[0] ^= 1; }), Reason::kBadCommitment);
  EXPECT_EQ(refuse([](auto& r) { r.root_hash[0] ^= 1; }), Reason::kBadHash);
  EXPECT_EQ(refuse([](auto& r) { r.root_level = 1; }), Reason::kBadTag);
  EXPECT_EQ(refuse([](auto& r) { r.key_epoch = 2; }), Reason::kWrongVersion);
  EXPECT_EQ(refuse([](auto& r) { r.objects_hash[0] ^= 1; }), Reason::kUnavailable);
  EXPECT_EQ(refuse([](auto& r) { r.object_count += 1; }), Reason::kBadStructure);
  EXPECT_EQ(refuse([](auto& r) { r.version = 2; }), Reason::kBadStructure);
  // A field that does not steer the reader still changes the identity.
  records::VersionRecord renamed = good;
  renamed.name = "other";
  EXPECT_EQ(AssetReader::open(p.store, renamed, p.id, p.result.key).reason(),
            Reason::kWrongVersion);
}

PublishResult next_version(Published& p, const PublishResult& before, const Tree& tree,
                           std::uint64_t seed, bool same_key = true) {
  write_tree(p.dir.path + "/src", tree);
  SeededRandom random(seed);
  PublishOptions o = options_for(p.dir.path + "/src", p.dir.path + "/state");
  o.object_size = kSmallObject;
  o.previous = PreviousVersion{before.record, before.key.clone()};
  if (same_key) o.key = before.key.clone();
  auto r = publish(std::move(o), p.store, random);
  EXPECT_TRUE(r.ok()) << r.error().line();
  EXPECT_TRUE(remove_tree(p.dir.path + "/state").ok());
  return r.ok() ? std::move(*r) : PublishResult{};
}

TEST(Prefetch, AfterwardsNoReadReachesTheStore) {
  Published p;
  publish_tree(p, all_sizes());
  storage::testing::RecordingStore watched(p.store);
  auto snapshot = prefetch(watched, p.result.record, prefetch_bytes(p.result.record));
  ASSERT_TRUE(snapshot.ok()) << snapshot.error().line();
  EXPECT_FALSE(watched.take_log().empty());
  auto reader = AssetReader::open(**snapshot, p.result.record, p.id, p.result.key);
  ASSERT_TRUE(reader.ok()) << reader.error().line();
  auto got = read_tree(*reader);
  ASSERT_TRUE(got.ok()) << got.error().line();
  EXPECT_TRUE(*got == with_directories(all_sizes()));
  EXPECT_TRUE(watched.take_log().empty());
  // Reading on demand does reach it: the log is no dead witness.
  auto direct = AssetReader::open(watched, p.result.record, p.id, p.result.key);
  ASSERT_TRUE(direct.ok());
  ASSERT_TRUE(read_tree(*direct).ok());
  EXPECT_GT(watched.take_log().size(), 100u);
}

// Every byte of every object, once, ascending by name: what the host sees says nothing but the
// sizes in the list of objects.
TEST(Prefetch, TheOrderIsThatOfTheListOfObjects) {
  Published p;
  publish_tree(p, all_sizes());
  const auto objects = *load_object_list(p.store, p.result.record, 1000);
  ASSERT_GT(objects.size(), 5u);
  storage::testing::RecordingStore watched(p.store);
  const auto read_all_of = [](const std::string& name, std::uint64_t size) {
    std::vector<std::string> lines;
    for (std::uint64_t at = 0; at < size; at += storage::SnapshotStore::kReadSize) {
      lines.push_back(
          "get " + name + " " + std::to_string(at) + " " +
          std::to_string(std::min<std::uint64_t>(storage::SnapshotStore::kReadSize, size - at)));
    }
    return lines;
  };
  // The list first, checked against the record, and then once more as the first object of the
  // snapshot.
  const std::string list = list_name(p.result.record.objects_hash);
  std::vector<std::string> expected{"size " + list, "get " + list + " 0 96",
                                    "get " + list + " 96 " + std::to_string(64 * objects.size())};
  for (auto& line : read_all_of(list, 96 + 64 * objects.size())) {
    expected.push_back(std::move(line));
  }
  std::string before;
  for (const ObjectEntry& e : objects) {
    EXPECT_LT(before, object_name(e.id));
    before = object_name(e.id);
    for (auto& line : read_all_of(before, e.size)) expected.push_back(std::move(line));
  }
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(prefetch(watched, p.result.record, 1U << 30).ok());
    EXPECT_EQ(watched.take_log(), expected);
  }
}

TEST(Prefetch, BeyondTheLimitNothingIsRead) {
  Published p;
  publish_tree(p, Tree{{"f", pattern(100'000, 1)}});
  storage::testing::RecordingStore watched(p.store);
  const std::uint64_t need = prefetch_bytes(p.result.record);
  EXPECT_GT(need, 100'000u);
  const auto refused = prefetch(watched, p.result.record, need - 1);
  EXPECT_EQ(refused.reason(), Reason::kTooLarge);
  EXPECT_NE(refused.error().next.find("access: direct"), std::string::npos);
  EXPECT_TRUE(watched.take_log().empty());
  EXPECT_TRUE(prefetch(watched, p.result.record, need).ok());
  records::VersionRecord negative = p.result.record;
  negative.ciphertext_bytes = -1;
  EXPECT_EQ(prefetch_bytes(negative), ~std::uint64_t{0});
}

TEST(Prefetch, RefusesWhatTheStoreForgesOrLost) {
  Published p;
  publish_tree(p, Tree{{"f", pattern(100'000, 1)}});
  const auto objects = *load_object_list(p.store, p.result.record, 1000);
  const std::string list = list_name(p.result.record.objects_hash);
  p.store.objects()[list][100] ^= 1;
  EXPECT_EQ(prefetch(p.store, p.result.record, 1U << 30).reason(), Reason::kBadHash);
  p.store.objects()[list][100] ^= 1;
  ASSERT_TRUE(prefetch(p.store, p.result.record, 1U << 30).ok());
  p.store.objects()[object_name(objects[0].id)].pop_back();
  EXPECT_EQ(prefetch(p.store, p.result.record, 1U << 30).reason(), Reason::kTruncated);
  ASSERT_TRUE(p.store.remove(object_name(objects[0].id)).ok());
  EXPECT_EQ(prefetch(p.store, p.result.record, 1U << 30).reason(), Reason::kUnavailable);
  records::VersionRecord other = p.result.record;
  other.suite = 9;
  EXPECT_EQ(prefetch(p.store, other, 1U << 30).reason(), Reason::kBadSuite);
}

TEST(Versions, UnchangedFilesAreSharedAndOldVersionsStay) {
  for (const bool same_key : {true, false}) {
    Published p;
    Tree v1;
    for (int i = 0; i < 400; ++i) {
      v1["d" + std::to_string(i % 5) + "/f" + std::to_string(i)] =
          pattern(1000, static_cast<std::uint64_t>(i));
    }
    v1["big"] = pattern(600'000, 1);
    v1["gone/x/y"] = pattern(300'000, 8);
    v1["turns"] = "file";
    publish_tree(p, v1);
    Tree v2 = v1;
    v2["d0/f0"] = "changed";
    v2["d0/new"] = "new";
    v2.erase("d1/f1");
    v2.erase("gone/x/y");
    v2.erase("turns");
    v2["turns/into/directory"] = "deep";
    const PublishResult second = next_version(p, p.result, v2, 2, same_key);
    EXPECT_EQ(second.record.version, 2);
    EXPECT_EQ(second.record.prev, p.id);
    EXPECT_EQ(second.files_sealed, 3u);
    EXPECT_LE(second.objects_written, 3u);
    auto two = AssetReader::open(p.store, second.record, second.record.id(), second.key);
    ASSERT_TRUE(two.ok()) << two.error().line();
    auto got = read_tree(*two);
    ASSERT_TRUE(got.ok()) << got.error().line();
    EXPECT_TRUE(*got == with_directories(v2));
    auto full = verify_with_key(p.store, second.record, second.record.id(), second.key);
    EXPECT_TRUE(full.ok()) << full.error().line();
    auto one = p.open();
    ASSERT_TRUE(one.ok());
    EXPECT_TRUE(*read_tree(*one) == with_directories(v1));
    // Rollback and mixtures: the old record is genuine, but not the one that came with the key.
    EXPECT_EQ(AssetReader::open(p.store, p.result.record, second.record.id(), second.key).reason(),
              Reason::kWrongVersion);
    records::VersionRecord mixed = second.record;
    mixed.root_hash = p.result.record.root_hash;
    EXPECT_FALSE(AssetReader::open(p.store, mixed, mixed.id(), second.key).ok());
  }
}

TEST(Versions, FewPagesAreRewritten) {
  Published p;
  Tree v1;
  for (int i = 0; i < 3000; ++i) {
    v1["d" + std::to_string(i % 50) + "/f" + std::to_string(i)] = std::to_string(i);
  }
  publish_tree(p, v1, 1, std::size_t{4} << 20);
  Tree v2 = v1;
  v2["d7/f7"] = "!";
  const PublishResult second = next_version(p, p.result, v2, 2);
  std::uint64_t fresh = 0;
  auto before = load_object_list(p.store, p.result.record, 1000);
  auto after = load_object_list(p.store, second.record, 1000);
  ASSERT_TRUE(before.ok() && after.ok());
  std::set<Id16> old;
  for (const auto& e : *before) old.insert(e.id);
  for (const auto& e : *after) fresh += old.contains(e.id) ? 0 : e.size;
  EXPECT_LE(fresh, 32u << 10);
  EXPECT_TRUE(verify_with_key(p.store, second.record, second.record.id(), second.key).ok());
  EXPECT_TRUE(verify(p.store, p.result.record).ok());
}

TEST(Versions, MoreChangesThanMemoryHoldsRewriteTheManifest) {
  Published p;
  publish_tree(p, {{"a", "1"}});
  Tree v2;
  for (int i = 0; i < 34'000; ++i) v2["d" + std::to_string(i % 9) + "/" + std::to_string(i)] = "";
  v2["a"] = "1";
  const PublishResult second = next_version(p, p.result, v2, 2);
  EXPECT_EQ(second.files_sealed, 34'000u);
  auto full = verify_with_key(p.store, second.record, second.record.id(), second.key);
  EXPECT_TRUE(full.ok()) << full.error().line();
}

// Fails the n-th operation and every one after it: the process died there.
class DyingStore final : public storage::ObjectStore {
 public:
  DyingStore(storage::ObjectStore& inner, std::uint64_t lives, bool late)
      : inner_(inner), late_(late), lives_(lives) {}
  bool died() const { return died_; }
  Result<std::unique_ptr<storage::ObjectWriter>> create(const std::string& name) override {
    GBX_TRY(step());
    GBX_ASSIGN(auto writer, inner_.create(name));
    return std::unique_ptr<storage::ObjectWriter>(
        std::make_unique<Writer>(*this, std::move(writer)));
  }
  Status get(const std::string& name, std::uint64_t offset, MutableByteView out) override {
    GBX_TRY(step());
    return inner_.get(name, offset, out);
  }
  Result<std::uint64_t> size(const std::string& name) override {
    GBX_TRY(step());
    return inner_.size(name);
  }
  Status list(const std::function<Status(const std::string&)>& each) override {
    return inner_.list(each);
  }
  Status remove(const std::string& name) override {
    GBX_TRY(step());
    return inner_.remove(name);
  }
  Bytes written;  // everything but headers that ever left, also what was never committed

 private:
  struct Writer final : storage::ObjectWriter {
    Writer(DyingStore& s, std::unique_ptr<storage::ObjectWriter> w)
        : store(s), inner(std::move(w)) {}
    Status write(ByteView bytes) override {
      GBX_TRY(store.step());
      {
        const std::lock_guard lock(store.mutex_);
        const std::size_t header =
            std::min(bytes.size(), kHeaderSize - std::min(position, kHeaderSize));
        append(store.written, bytes.subspan(header));
      }
      position += bytes.size();
      return inner->write(bytes);
    }
    Status commit() override {
      const bool alive = store.step().ok();
      if (alive || store.late_) GBX_TRY(inner->commit());
      return alive ? ok_status() : Status(fail(Reason::kIo, "died"));
    }
    DyingStore& store;
    std::unique_ptr<storage::ObjectWriter> inner;
    std::size_t position = 0;
  };
  Status step() {
    const std::lock_guard lock(mutex_);
    if (lives_ == 0) died_ = true;
    if (died_) return fail(Reason::kIo, "died");
    --lives_;
    return ok_status();
  }
  storage::ObjectStore& inner_;
  const bool late_;      // a commit that dies takes effect all the same
  std::mutex mutex_;     // objects are written by a thread of their own
  std::uint64_t lives_;  // guarded by mutex_
  bool died_ = false;    // guarded by mutex_; read when all is over
};

// An object of several blocks, in pieces of every size: what the thread behind wrote is what went
// in.
TEST(ObjectBuilder, WritesAndHashesBehindTheCallerInOrder) {
  storage::MemoryStore store;
  SeededRandom random(1);
  const ObjectHeader header{ObjectKind::kData, crypto::AeadSuite::kAes256Gcm, 0, random.fixed<16>(),
                            random.fixed<16>()};
  auto builder = ObjectBuilder::create(store, header, 8 << 20).value();
  Bytes expected = encode_header(header);
  for (std::size_t i = 0; builder->fits(200'000); ++i) {
    const std::string piece = pattern(i * 7919 % 200'000, i);
    EXPECT_EQ(builder->position(), expected.size());
    ASSERT_TRUE(builder->add(as_bytes(piece)).ok());
    append(expected, as_bytes(piece));
  }
  EXPECT_FALSE(store.objects().contains(object_name(header.object_id)));
  auto entry = builder->finish(false, random);
  ASSERT_TRUE(entry.ok()) << entry.error().line();
  const Bytes& written = store.objects()[object_name(header.object_id)];
  ASSERT_EQ(written.size(), std::size_t{8} << 20);
  EXPECT_TRUE(equal(ByteView(written).first(expected.size()), expected));
  EXPECT_EQ(entry->size, written.size());
  EXPECT_EQ(entry->sha256, crypto::sha256(written));
}

TEST(ObjectBuilder, TellsOfAnEarlierWriteAndWritesNothingBehindIt) {
  for (std::uint64_t lives = 1;; ++lives) {
    storage::MemoryStore store;
    DyingStore dying(store, lives, false);
    SeededRandom random(1);
    const ObjectHeader header{ObjectKind::kData, crypto::AeadSuite::kAes256Gcm, 0, Id16{1},
                              Id16{2}};
    auto builder = ObjectBuilder::create(dying, header, 1 << 20).value();
    Status s = ok_status();
    while (s.ok() && builder->fits(60'000)) s = builder->add(Bytes(60'000, 7));
    if (s.ok()) {
      auto entry = builder->finish(false, random);
      s = entry.ok() ? ok_status() : Status(entry.error());
    }
    if (s.ok()) {
      EXPECT_GT(lives, 5u);
      EXPECT_EQ(store.objects().size(), 1u);
      return;
    }
    EXPECT_EQ(s.reason(), Reason::kIo);
    builder.reset();
    EXPECT_TRUE(store.objects().empty());
  }
}

TEST(ObjectBuilder, AbandonedItLeavesNothing) {
  storage::MemoryStore store;
  auto builder =
      ObjectBuilder::create(
          store, {ObjectKind::kData, crypto::AeadSuite::kAes256Gcm, 0, Id16{1}, Id16{2}}, 8 << 20)
          .value();
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(builder->add(Bytes(100'000, 7)).ok());
  builder.reset();
  EXPECT_TRUE(store.objects().empty());
}

void die_at_every_step(bool late, bool second_version) {
  const Tree first{{"a/one", pattern(100'000, 1)}, {"b", "small"}};
  Tree tree{{"a/one", pattern(100'000, 1)},
            {"a/two", pattern(300'000, 2)},
            {"b", "small"},
            {"c", pattern(150'000, 4)},
            {"e/f/g", "x"}};
  Published base;
  publish_tree(base, first);
  const auto base_objects = base.store.objects();
  for (std::uint64_t n = 0;; ++n) {
    TempDir dir;
    write_tree(dir.path + "/src", tree);
    storage::MemoryStore store;
    if (second_version) store.objects() = base_objects;
    std::optional<PublishResult> done;
    std::uint64_t attempts = 0;
    bool died = false;
    while (!done) {
      ASSERT_LT(++attempts, 3u);
      SeededRandom random(1000 * n + attempts);
      DyingStore dying(store, attempts == 1 ? n : 1'000'000, late);
      PublishOptions o = options_for(dir.path + "/src", dir.path + "/state");
      o.object_size = kSmallObject;
      if (second_version) {
        o.previous = PreviousVersion{base.result.record, base.result.key.clone()};
        o.key = base.result.key.clone();
      }
      auto r = publish(std::move(o), dying, random);
      died = died || dying.died();
      ASSERT_TRUE(r.ok() || dying.died()) << r.error().line();
      if (r.ok()) done = std::move(*r);
    }
    auto full = verify_with_key(store, done->record, done->record.id(), done->key);
    ASSERT_TRUE(full.ok()) << "dies at " << n << ": " << full.error().line();
    auto reader = AssetReader::open(store, done->record, done->record.id(), done->key);
    ASSERT_TRUE(*read_tree(*reader) == with_directories(tree)) << n;
    // Nothing is left behind, and nothing of the version before is lost.
    std::set<std::string> expected{list_name(done->record.objects_hash)};
    const auto listed = load_object_list(store, done->record, 1000);
    ASSERT_TRUE(listed.ok());
    for (const auto& e : *listed) expected.insert(object_name(e.id));
    if (second_version) {
      for (const auto& [name, unused] : base_objects) expected.insert(name);
    }
    for (const auto& [name, unused] : store.objects()) {
      ASSERT_TRUE(expected.contains(name)) << "orphan, died at " << n;
    }
    if (!died) {
      EXPECT_GT(n, 20u);
      return;
    }
  }
}

TEST(Crash, AtEveryStoreOperation) { die_at_every_step(false, false); }
TEST(Crash, AtEveryStoreOperationAfterItsEffect) { die_at_every_step(true, false); }
TEST(Crash, AtEveryStoreOperationOfASecondVersion) { die_at_every_step(false, true); }

TEST(Crash, FinishedPacksAreKeptAndAnInterruptedFileTakesANewSecret) {
  TempDir dir;
  write_tree(dir.path + "/src", {{"a", pattern(260'000, 1)}, {"b", pattern(400'000, 2)}});
  storage::MemoryStore store;
  Bytes first_words;
  {
    SeededRandom random(1);
    DyingStore dying(store, 11, false);  // in the middle of b
    PublishOptions o = options_for(dir.path + "/src", dir.path + "/state");
    o.object_size = kSmallObject;
    ASSERT_EQ(publish(std::move(o), dying, random).reason(), Reason::kIo);
    first_words = dying.written;
    ASSERT_EQ(store.objects().size(), 1u);
  }
  SeededRandom random(2);
  DyingStore alive(store, 1'000'000, false);
  PublishOptions o = options_for(dir.path + "/src", dir.path + "/state");
  o.object_size = kSmallObject;
  auto r = publish(std::move(o), alive, random);
  ASSERT_TRUE(r.ok()) << r.error().line();
  // Not one run of 32 bytes of ciphertext was made twice.
  std::set<std::string> seen;
  for (std::size_t i = 0; i + 32 <= first_words.size(); ++i) {
    seen.insert(std::string(as_text(ByteView(first_words).subspan(i, 32))));
  }
  for (std::size_t i = 0; i + 32 <= alive.written.size(); i += 32) {
    ASSERT_FALSE(seen.contains(std::string(as_text(ByteView(alive.written).subspan(i, 32))))) << i;
  }
  EXPECT_TRUE(verify_with_key(store, r->record, r->record.id(), r->key).ok());
}

TEST(Crash, FinishedFilesAreNotSealedAgain) {
  TempDir dir;
  Tree tree;
  for (int i = 0; i < 40; ++i) {
    tree["d" + std::to_string(i % 3) + "/" + std::to_string(i)] =
        pattern(50'000, static_cast<std::uint64_t>(i));
  }
  write_tree(dir.path + "/src", tree);
  storage::MemoryStore store;
  // a pack takes five operations
  for (const std::uint64_t lives : std::initializer_list<std::uint64_t>{6, 8, 9}) {
    SeededRandom random(lives);
    DyingStore dying(store, lives, false);
    PublishOptions o = options_for(dir.path + "/src", dir.path + "/state");
    o.object_size = kSmallObject;
    ASSERT_EQ(publish(std::move(o), dying, random).reason(), Reason::kIo);
  }
  SeededRandom random(4);
  PublishOptions o = options_for(dir.path + "/src", dir.path + "/state");
  o.object_size = kSmallObject;
  auto r = publish(std::move(o), store, random);
  ASSERT_TRUE(r.ok()) << r.error().line();
  EXPECT_LE(r->files_sealed, 28u);
  EXPECT_GE(r->files_sealed, 20u);
  EXPECT_TRUE(verify_with_key(store, r->record, r->record.id(), r->key).ok());
}

TEST(Crash, AFinishedStateDirectoryIsNotUsedAgain) {
  TempDir dir;
  write_tree(dir.path + "/src", {{"a", "1"}});
  storage::MemoryStore store;
  SeededRandom random(4);
  auto r = publish(options_for(dir.path + "/src", dir.path + "/state"), store, random);
  ASSERT_TRUE(r.ok());
  auto finished = finished_publication(dir.path + "/state");
  ASSERT_TRUE(finished.ok() && *finished);
  EXPECT_EQ((*finished)->id(), r->record.id());
  EXPECT_EQ(publish(options_for(dir.path + "/src", dir.path + "/state"), store, random).reason(),
            Reason::kAlreadyExists);
  ASSERT_TRUE(remove_tree(dir.path + "/state").ok());
  EXPECT_TRUE(publish(options_for(dir.path + "/src", dir.path + "/state"), store, random).ok());
  EXPECT_TRUE(verify(store, r->record).ok());
}

TEST(Crash, AForeignStateDirectoryIsRefused) {
  TempDir dir;
  write_tree(dir.path + "/src", {{"a", "1"}});
  storage::MemoryStore store;
  SeededRandom random(4);
  DyingStore dying(store, 1, false);
  ASSERT_EQ(publish(options_for(dir.path + "/src", dir.path + "/state"), dying, random).reason(),
            Reason::kIo);
  PublishOptions o = options_for(dir.path + "/src", dir.path + "/state");
  o.key = random.secret<DatasetKey>(32);
  EXPECT_EQ(publish(std::move(o), store, random).reason(), Reason::kBadCommitment);
}

}  // namespace
}  // namespace gbx::asset
