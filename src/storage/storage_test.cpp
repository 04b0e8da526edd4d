// Both stores keep the same contract; the directory is hostile ground.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>

#include "storage/directory_store.h"
#include "storage/memory_store.h"
#include "storage/snapshot_store.h"
#include "storage/testing.h"

namespace gbx::storage {
namespace {

struct TempDir {
  std::string path;
  TempDir() {
    char name[] = "/tmp/gbx-storage-XXXXXX";
    path = mkdtemp(name);
  }
  ~TempDir() { (void)remove_tree(path); }
};

void keeps_the_contract(ObjectStore& store) {
  const std::string name(32, 'a');
  EXPECT_EQ(store.size(name).reason(), Reason::kNotFound);
  ASSERT_TRUE(store.put(name, as_bytes("hello")).ok());
  EXPECT_EQ(store.put(name, as_bytes("other")).reason(), Reason::kAlreadyExists);
  EXPECT_EQ(*store.size(name), 5u);
  EXPECT_EQ(as_text(*store.get_all(name, 5)), "hello");
  EXPECT_EQ(store.get_all(name, 4).reason(), Reason::kTooLarge);
  Bytes two(2);
  ASSERT_TRUE(store.get(name, 3, two).ok());
  EXPECT_EQ(as_text(two), "lo");
  EXPECT_EQ(store.get(name, 4, two).reason(), Reason::kTruncated);
  Bytes scratch(1);
  EXPECT_EQ(as_text(*store.view(name, 1, 3, scratch)), "ell");
  EXPECT_EQ(store.view(name, 3, 3, scratch).reason(), Reason::kTruncated);
  EXPECT_EQ(store.get(name, ~std::uint64_t{0}, two).reason(), Reason::kTruncated);
  for (const char* bad : {"", "../x", "A", ".x", "a/b", "a\n"}) {
    EXPECT_EQ(store.create(bad).reason(), Reason::kBadValue) << bad;
    EXPECT_FALSE(store.size(bad).ok()) << bad;
  }
  EXPECT_EQ(store.create(std::string(65, 'a')).reason(), Reason::kBadValue);
  {
    auto writer = store.create("abandoned");
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->write(as_bytes("x")).ok());
  }
  EXPECT_EQ(store.size("abandoned").reason(), Reason::kNotFound);
  ASSERT_TRUE(store.put("record-1.json", {}).ok());
  EXPECT_EQ(*store.size("record-1.json"), 0u);
  std::set<std::string> names;
  ASSERT_TRUE(store
                  .list([&](const std::string& n) {
                    names.insert(n);
                    return ok_status();
                  })
                  .ok());
  EXPECT_EQ(names, (std::set<std::string>{name, "record-1.json"}));
  EXPECT_EQ(store.list([](const std::string&) -> Status { return fail(Reason::kHeld); }).reason(),
            Reason::kHeld);
  ASSERT_TRUE(store.remove(name).ok());
  EXPECT_EQ(store.remove(name).reason(), Reason::kNotFound);
  EXPECT_EQ(store.size(name).reason(), Reason::kNotFound);
}

TEST(MemoryStore, KeepsTheContract) {
  MemoryStore store;
  keeps_the_contract(store);
}

TEST(DirectoryStore, KeepsTheContract) {
  for (const SyncPolicy sync : {SyncPolicy::kAlways, SyncPolicy::kNever}) {
    TempDir dir;
    auto store = DirectoryStore::open(dir.path + "/a/b", sync);
    ASSERT_TRUE(store.ok()) << store.error().line();
    keeps_the_contract(**store);
  }
}

TEST(DirectoryStore, OtherUidsCanReadWhateverTheUmask) {
  TempDir dir;
  const mode_t before = umask(0077);
  auto store = DirectoryStore::open(dir.path + "/s", SyncPolicy::kNever);
  ASSERT_TRUE(store.ok());
  ASSERT_TRUE((*store)->put("x", as_bytes("x")).ok());
  umask(before);
  struct stat st {};
  ASSERT_EQ(stat((dir.path + "/s").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0755u);
  RunOutput found =
      run_command({{"/usr/bin/find", dir.path + "/s", "-mindepth", "1", "-printf", "%y%m "},
                   {},
                   {},
                   {},
                   {},
                   {}})
          .value();
  EXPECT_EQ(found.out, "d755 f644 ");
}

TEST(DirectoryStore, ManyObjectsBeyondItsOpenFiles) {
  TempDir dir;
  auto store = DirectoryStore::open(dir.path, SyncPolicy::kNever);
  ASSERT_TRUE(store.ok());
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 300; ++i) {
      const std::string text = std::to_string(i);
      if (round == 0) {
        ASSERT_TRUE((*store)->put("n" + text, as_bytes(text)).ok());
      } else {
        ASSERT_EQ(as_text(*(*store)->get_all("n" + text, 10)), text);
      }
    }
  }
}

TEST(DirectoryStore, RefusesWhatIsNoPlainFileBeneathIt) {
  TempDir dir;
  auto store = DirectoryStore::open(dir.path, SyncPolicy::kNever);
  ASSERT_TRUE(store.ok());
  ASSERT_TRUE((*store)->put("victim", as_bytes("x")).ok());
  // Find where it lies, then put a link, a pipe and a directory in its place.
  std::string where;
  for (int i = 0; i < 256 && where.empty(); ++i) {
    const std::uint8_t byte[1] = {static_cast<std::uint8_t>(i)};
    const std::string path = dir.path + "/" + to_hex(byte) + "/victim";
    if (path_exists(path)) where = path;
  }
  ASSERT_FALSE(where.empty());
  auto fresh = [&] { return DirectoryStore::open(dir.path, SyncPolicy::kNever).value(); };
  ASSERT_EQ(unlink(where.c_str()), 0);
  ASSERT_EQ(symlink("/etc/passwd", where.c_str()), 0);
  EXPECT_EQ(fresh()->size("victim").reason(), Reason::kIo);
  ASSERT_EQ(unlink(where.c_str()), 0);
  ASSERT_EQ(mkfifo(where.c_str(), 0600), 0);
  EXPECT_EQ(fresh()->size("victim").reason(), Reason::kBadStructure);
  ASSERT_EQ(unlink(where.c_str()), 0);
  ASSERT_EQ(mkdir(where.c_str(), 0700), 0);
  EXPECT_EQ(fresh()->size("victim").reason(), Reason::kBadStructure);
}

TEST(SnapshotStore, ReadsEachObjectOnceInTheOrderGivenAndNothingLater) {
  MemoryStore source;
  const std::string big(SnapshotStore::kReadSize * 2 + 5, 'b');
  ASSERT_TRUE(source.put("big", as_bytes(big)).ok());
  ASSERT_TRUE(source.put("a", as_bytes("hello")).ok());
  ASSERT_TRUE(source.put("empty", {}).ok());
  testing::RecordingStore watched(source);
  auto taken =
      SnapshotStore::take(watched, {{"big", big.size()}, {"empty", 0}, {"a", 5}}, big.size() + 5);
  ASSERT_TRUE(taken.ok()) << taken.error().line();
  SnapshotStore& s = **taken;
  EXPECT_EQ(watched.take_log(),
            (std::vector<std::string>{"get big 0 1048576", "get big 1048576 1048576",
                                      "get big 2097152 5", "get a 0 5"}));
  // The source may change or vanish: the snapshot does not.
  ASSERT_TRUE(source.remove("a").ok());
  EXPECT_EQ(s.bytes(), big.size() + 5);
  EXPECT_EQ(as_text(*s.get_all("a", 5)), "hello");
  EXPECT_EQ(as_text(*s.get_all("big", big.size())), big);
  EXPECT_EQ(*s.size("empty"), 0u);
  Bytes two(2);
  ASSERT_TRUE(s.get("a", 3, two).ok());
  EXPECT_EQ(as_text(two), "lo");
  Bytes scratch;
  const auto view = s.view("a", 1, 3, scratch);
  EXPECT_EQ(as_text(*view), "ell");
  EXPECT_TRUE(scratch.empty()) << "no copy is made of what is private already";
  EXPECT_EQ(s.view("a", 1, 5, scratch).reason(), Reason::kTruncated);
  EXPECT_EQ(s.get("a", 4, two).reason(), Reason::kTruncated);
  EXPECT_EQ(s.get("a", ~std::uint64_t{0}, two).reason(), Reason::kTruncated);
  EXPECT_EQ(s.get("absent", 0, two).reason(), Reason::kNotFound);
  EXPECT_EQ(s.size("../a").reason(), Reason::kBadValue);
  std::set<std::string> names;
  ASSERT_TRUE(s.list([&](const std::string& n) {
                 names.insert(n);
                 return ok_status();
               }).ok());
  EXPECT_EQ(names, (std::set<std::string>{"a", "big", "empty"}));
  EXPECT_EQ(s.create("new").reason(), Reason::kUnsupported);
  EXPECT_EQ(s.remove("big").reason(), Reason::kUnsupported);
  EXPECT_TRUE(watched.take_log().empty());
}

TEST(SnapshotStore, RefusesTooMuchBeforeItReadsAndWhatTheSourceDoesNotHave) {
  MemoryStore source;
  ASSERT_TRUE(source.put("a", as_bytes("hello")).ok());
  testing::RecordingStore watched(source);
  EXPECT_EQ(SnapshotStore::take(watched, {{"a", 5}, {"a", 5}}, 9).reason(), Reason::kTooLarge);
  EXPECT_EQ(SnapshotStore::take(watched, {{"a", 1}, {"a", ~std::uint64_t{0}}}, 9).reason(),
            Reason::kTooLarge);
  EXPECT_TRUE(watched.take_log().empty());
  EXPECT_EQ(SnapshotStore::take(watched, {{"a", 5}, {"a", 5}}, 10).reason(),
            Reason::kAlreadyExists);
  EXPECT_EQ(SnapshotStore::take(watched, {{"a", 6}}, 10).reason(), Reason::kTruncated);
  EXPECT_EQ(SnapshotStore::take(watched, {{"b", 1}}, 10).reason(), Reason::kNotFound);
  EXPECT_EQ(SnapshotStore::take(watched, {{"b", std::uint64_t{1} << 60}}, std::uint64_t{1} << 61)
                .reason(),
            Reason::kOutOfMemory);
  auto nothing = SnapshotStore::take(watched, {}, 0);
  ASSERT_TRUE(nothing.ok());
  EXPECT_EQ((*nothing)->bytes(), 0u);
}

}  // namespace
}  // namespace gbx::storage
