// Both stores keep the same contract; the directory is hostile ground.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>

#include "storage/directory_store.h"
#include "storage/memory_store.h"

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
  ASSERT_TRUE(store.list([&](const std::string& n) {
    names.insert(n);
    return ok_status();
  }).ok());
  EXPECT_EQ(names, (std::set<std::string>{name, "record-1.json"}));
  EXPECT_EQ(store.list([](const std::string&) -> Status { return fail(Reason::kHeld); }).reason(), Reason::kHeld);
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
  RunOutput found = run_command({{"/usr/bin/find", dir.path + "/s", "-mindepth", "1", "-printf", "%y%m "}, {}, {}, {}, {}, {}}).value();
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

}  // namespace
}  // namespace gbx::storage
