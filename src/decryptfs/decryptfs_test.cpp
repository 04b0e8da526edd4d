// Real FUSE mounts: what is seen is what was published, tampering gives EIO and a word to the
// auditor, and the serving process can do nothing else. Needs root and /dev/fuse.
#include "decryptfs/decryptfs.h"

#include <dirent.h>
#include <errno.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "asset/asset_test_util.h"
#include "asset/prefetch.h"
#include "asset/reader.h"
#include "asset/verify.h"
#include "decryptfs/confine.h"
#include "decryptfs/serve.h"
#include "storage/directory_store.h"
#include "storage/testing.h"

namespace gbx::decryptfs {
namespace {

using namespace asset::testing;
using asset::NodeType;

constexpr uid_t kServer = 64123;
constexpr std::int64_t kPatience = 20'000;

std::string program() {
  const char* dir = getenv("GBX_BIN_DIR");
  return dir == nullptr ? "" : std::string(dir) + "/glovebox-decryptfs";
}

class Mounted {
 public:
  explicit Mounted(const Tree& tree) {
    chmod(dir_.path.c_str(), 0755);
    write_tree(dir_.path + "/src", tree);
    store_ = storage::DirectoryStore::open(store_path(), storage::SyncPolicy::kNever).value();
    SeededRandom random(7);
    auto r = asset::publish(options_for(dir_.path + "/src", dir_.path + "/state"), *store_, random);
    if (!r.ok()) abort();
    result = std::move(*r);
    (void)make_dirs(point(), 0755);
  }
  ~Mounted() { stop(); }

  Status start(const DatasetKey& key, const Hash32& version_id,
               std::optional<std::uint64_t> prefetch_limit = {}) {
    SpawnOptions o;
    o.access = prefetch_limit ? records::Access::kPrefetch : records::Access::kDirect;
    o.prefetch_limit = static_cast<std::int64_t>(prefetch_limit.value_or(0));
    GBX_ASSIGN(o.fuse, mount_fuse(point()));
    mounted_ = true;
    GBX_ASSIGN(Fd store, open_dir(store_path()));
    o.program = program();
    o.uid = kServer;
    o.gid = kServer;
    o.store_fd = store.get();
    o.record = result.record;
    o.version_id = version_id;
    GBX_ASSIGN(fs, DecryptFs::spawn(std::move(o), key));
    Status ready = fs.wait_ready(kPatience);
    serving_ = ready.ok();
    return ready;
  }
  Status start() { return start(result.key, result.record.id()); }
  Status start_prefetched(std::uint64_t limit) {
    return start(result.key, result.record.id(), limit);
  }
  void stop() {
    if (!mounted_) return;
    EXPECT_TRUE(unmount_fuse(point()).ok());
    mounted_ = false;
    if (!serving_) return;
    // It ends by itself when the mount goes, and not by a fault.
    serving_ = false;
    auto end = fs.process().wait(kPatience);
    ASSERT_TRUE(end.ok() && *end);
    EXPECT_TRUE((*end)->exited) << "signal " << (*end)->code;
    EXPECT_EQ((*end)->code, 0);
  }
  std::string point() const { return dir_.path + "/mnt"; }
  std::string source() const { return dir_.path + "/src"; }
  std::string store_path() const { return dir_.path + "/store"; }
  storage::DirectoryStore& store() { return *store_; }
  std::string object_path(const Id16& id) const {
    RunOutput found = run_command({{"/usr/bin/find", store_path(), "-name", asset::object_name(id),
                                    "-printf", "%p"},
                                   {},
                                   {},
                                   {},
                                   {},
                                   {}})
                          .value();
    return found.out;
  }

  asset::PublishResult result;
  DecryptFs fs;

 private:
  TempDir dir_;
  std::unique_ptr<storage::DirectoryStore> store_;
  bool mounted_ = false;
  bool serving_ = false;
};

// Flips one byte of a stored object, as its host could.
void flip(Mounted& m, const std::string& name, std::uint64_t offset) {
  Bytes content = *m.store().get_all(name, std::size_t{1} << 30);
  content[static_cast<std::size_t>(offset)] ^= 1;
  ASSERT_TRUE(m.store().remove(name).ok());
  ASSERT_TRUE(m.store().put(name, content).ok());
}

Result<Tree> walk(const std::string& root, const std::string& prefix = "") {
  Tree out;
  DIR* d = opendir((root + "/" + prefix).c_str());
  if (d == nullptr) return io_error(prefix, errno);
  std::vector<std::string> names;
  errno = 0;
  while (const ::dirent* e = readdir(d)) names.emplace_back(e->d_name);
  const int error = errno;
  closedir(d);
  if (error != 0) return io_error(prefix, error);
  for (const std::string& name : names) {
    if (name == "." || name == "..") continue;
    const std::string path = prefix + name;
    struct stat st {};
    if (lstat((root + "/" + path).c_str(), &st) != 0) return io_error(path, errno);
    if (S_ISDIR(st.st_mode)) {
      out[path + "/"] = "";
      GBX_ASSIGN(Tree below, walk(root, path + "/"));
      out.merge(below);
    } else {
      GBX_ASSIGN(out[path], read_text_file(root + "/" + path, std::size_t{64} << 20));
    }
  }
  return out;
}

int open_error(const std::string& path, int flags) {
  const Fd fd(open(path.c_str(), flags | O_CLOEXEC, 0644));
  return fd.valid() ? 0 : errno;
}

#define NEEDS_FUSE()                                                                         \
  if (geteuid() != 0) GTEST_SKIP() << "mounting needs root";                                 \
  if (access("/dev/fuse", R_OK | W_OK) != 0) GTEST_SKIP() << "there is no usable /dev/fuse"; \
  ASSERT_FALSE(program().empty()) << "GBX_BIN_DIR is not set"

Tree sample() {
  Tree t;
  for (const std::size_t n : {0U, 1U, 65535U, 65536U, 65537U, 3U << 20}) {
    t["size-" + std::to_string(n)] = pattern(n, n + 1);
  }
  for (int i = 0; i < 2500; ++i) {
    t["many/file-" + std::to_string(i)] = "content " + std::to_string(i);
  }
  t["a/b/c/d"] = "deep";
  t["empty/"] = "";
  return t;
}

TEST(DecryptFs, ShowsExactlyTheSource) {
  NEEDS_FUSE();
  Mounted m(sample());
  const Status ready = m.start();
  ASSERT_TRUE(ready.ok()) << ready.error().line();
  auto seen = walk(m.point());
  ASSERT_TRUE(seen.ok()) << seen.error().line();
  EXPECT_TRUE(*seen == with_directories(sample()));
  // Once more, from the caches.
  auto again = walk(m.point());
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(*again == with_directories(sample()));
  struct stat st {};
  ASSERT_EQ(stat((m.point() + "/size-65537").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | 0444));
  EXPECT_EQ(st.st_mtim.tv_sec, 1'600'000'000);
  EXPECT_EQ(open_error(m.point() + "/absent", O_RDONLY), ENOENT);
  struct statvfs vfs {};
  ASSERT_EQ(statvfs(m.point().c_str(), &vfs), 0);
  const unsigned long flags = ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC;
  EXPECT_EQ(vfs.f_flag & flags, flags);
}

TEST(DecryptFs, ReadsAtRandomFromManyThreads) {
  NEEDS_FUSE();
  const std::string content = pattern(3 << 20, 4);
  Mounted m(Tree{{"f", content}});
  ASSERT_TRUE(m.start().ok());
  std::vector<std::thread> readers;
  std::atomic<int> wrong{0};
  for (unsigned t = 0; t < 4; ++t) {
    readers.emplace_back([&, t] {
      SeededRandom random(t);
      const Fd fd(
          open((m.point() + "/f").c_str(), O_RDONLY | O_CLOEXEC | (t % 2 == 0 ? O_DIRECT : 0)));
      for (int i = 0; i < 200; ++i) {
        const std::uint64_t offset = random.below(content.size());
        Bytes out(static_cast<std::size_t>(random.below(200'000)) + 1);
        const ssize_t n = pread(fd.get(), out.data(), out.size(), static_cast<off_t>(offset));
        const std::string expected = content.substr(static_cast<std::size_t>(offset), out.size());
        if (n != static_cast<ssize_t>(expected.size()) ||
            !equal(ByteView(out).first(expected.size()), as_bytes(expected))) {
          ++wrong;
        }
      }
    });
  }
  for (auto& r : readers) r.join();
  EXPECT_EQ(wrong, 0);
}

TEST(DecryptFs, DirectoriesCanBeReadFromAnyPosition) {
  NEEDS_FUSE();
  Tree tree;
  for (int i = 0; i < 1500; ++i) {
    tree["d/" + std::string(60, 'n') + std::to_string(10'000 + i)] = "";
  }
  Mounted m(tree);
  ASSERT_TRUE(m.start().ok());
  DIR* d = opendir((m.point() + "/d").c_str());
  ASSERT_NE(d, nullptr);
  std::vector<std::pair<long, std::string>> all;
  for (;;) {
    const long at = telldir(d);
    const ::dirent* e = readdir(d);
    if (e == nullptr) break;
    all.emplace_back(at, e->d_name);
  }
  ASSERT_EQ(all.size(), 1500u);
  EXPECT_TRUE(std::is_sorted(all.begin(), all.end(),
                             [](const auto& a, const auto& b) { return a.second < b.second; }));
  for (const std::size_t i :
       {std::size_t{1400}, std::size_t{3}, std::size_t{900}, std::size_t{0}}) {
    seekdir(d, all[i].first);
    const ::dirent* e = readdir(d);
    ASSERT_NE(e, nullptr);
    EXPECT_EQ(e->d_name, all[i].second);
  }
  closedir(d);
}

// Every directory is listed and closed once, by the thread that came first: a handle's last answer
// and its release race.
TEST(DecryptFs, DirectoriesAreClosedWhileTheyAreAnswered) {
  NEEDS_FUSE();
  Tree tree;
  for (int i = 0; i < 2000; ++i) tree["d" + std::to_string(i) + "/f"] = "";
  Mounted m(tree);
  ASSERT_TRUE(m.start().ok());
  std::vector<std::thread> readers;
  std::atomic<int> next{0};
  std::atomic<int> entries{0};
  for (unsigned t = 0; t < 4; ++t) {
    readers.emplace_back([&] {
      for (int i = next++; i < 2000; i = next++) {
        DIR* d = opendir((m.point() + "/d" + std::to_string(i)).c_str());
        if (d == nullptr) continue;
        while (readdir(d) != nullptr) ++entries;
        closedir(d);
      }
    });
  }
  for (auto& r : readers) r.join();
  EXPECT_EQ(entries, 2000);
}

TEST(DecryptFs, NobodyWritesAndEverybodyReads) {
  NEEDS_FUSE();
  Mounted m(Tree{{"f", "plain text"}});
  ASSERT_TRUE(m.start().ok());
  EXPECT_EQ(open_error(m.point() + "/f", O_RDWR), EROFS);
  EXPECT_EQ(open_error(m.point() + "/f", O_WRONLY | O_TRUNC), EROFS);
  EXPECT_EQ(open_error(m.point() + "/new", O_CREAT | O_WRONLY), EROFS);
  EXPECT_NE(unlink((m.point() + "/f").c_str()), 0);
  EXPECT_EQ(errno, EROFS);
  EXPECT_NE(mkdir((m.point() + "/d").c_str(), 0755), 0);
  EXPECT_EQ(errno, EROFS);
  ProcessOptions cat;
  cat.argv = {"/bin/cat", m.point() + "/f"};
  cat.uid = 65534;
  auto out = run_command(cat);
  ASSERT_TRUE(out.ok()) << out.error().line();
  EXPECT_EQ(out->out, "plain text") << out->err;
}

TEST(DecryptFs, ABadChunkIsAnErrorAndAnEvent) {
  NEEDS_FUSE();
  const std::string content = pattern(5 * 65536, 4);
  Mounted m(Tree{{"f", content}, {"g", "other"}});
  std::string pack;
  const auto listed = asset::load_object_list(m.store(), m.result.record, 10);
  for (const auto& e : *listed) {
    if (e.kind == asset::ObjectKind::kData) pack = asset::object_name(e.id);
  }
  flip(m, pack, asset::kHeaderSize + 3 * asset::kSealedChunk + 1000);
  ASSERT_TRUE(m.start().ok());
  const Fd fd(open((m.point() + "/f").c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  ASSERT_TRUE(fd.valid());
  std::string out(65536, '?');
  for (const int chunk : {0, 1, 2, 4}) {
    ASSERT_EQ(pread(fd.get(), out.data(), out.size(), chunk * 65536), 65536) << chunk;
    EXPECT_EQ(out, content.substr(static_cast<std::size_t>(chunk) * 65536, 65536));
  }
  EXPECT_EQ(pread(fd.get(), out.data(), 65536, 3 * 65536), -1);
  EXPECT_EQ(errno, EIO);
  EXPECT_EQ(pread(fd.get(), out.data(), 1, 3 * 65536 + 5), -1);
  EXPECT_EQ(errno, EIO);
  // A mapping gets SIGBUS, a read through the page cache an error; neither gets bytes.
  EXPECT_FALSE(read_file(m.point() + "/f", 1 << 20).ok());
  const auto other = read_text_file(m.point() + "/g", 100);
  EXPECT_TRUE(other.ok() && *other == "other");
  auto event = m.fs.next_event(kPatience);
  ASSERT_TRUE(event.ok() && *event);
  EXPECT_EQ((*event)->event, "bad-chunk");
  EXPECT_EQ((*event)->reason, "bad-tag");
  EXPECT_EQ((*event)->asset, m.result.record.asset_id);
  EXPECT_EQ((*event)->chunk, 3);
  ASSERT_TRUE((*event)->file);
  auto more = m.fs.next_event(0);
  EXPECT_TRUE(more.ok() && !*more) << "one fault, one event";
}

TEST(DecryptFs, ABadManifestPageIsAnErrorAndAnEvent) {
  NEEDS_FUSE();
  Tree tree;
  for (int i = 0; i < 400; ++i) tree["f" + std::to_string(i)] = "x";
  Mounted m(tree);
  std::string manifest;
  const auto listed = asset::load_object_list(m.store(), m.result.record, 10);
  for (const auto& e : *listed) {
    if (e.kind == asset::ObjectKind::kManifest) manifest = asset::object_name(e.id);
  }
  flip(m, manifest, asset::kHeaderSize + 5 * asset::kPageSize + 17);
  ASSERT_TRUE(m.start().ok());
  EXPECT_FALSE(walk(m.point()).ok());
  auto event = m.fs.next_event(kPatience);
  ASSERT_TRUE(event.ok() && *event);
  EXPECT_EQ((*event)->event, "bad-manifest");
  EXPECT_EQ((*event)->reason, "bad-hash");
}

TEST(DecryptFs, AFileOfALostManifestIsAnErrorAndNotAbsent) {
  NEEDS_FUSE();
  // More pages than one, so that a lookup has to read after the root was read.
  Tree many;
  for (int i = 0; i < 400; ++i) many["f" + std::to_string(i)] = "x";
  Mounted n(many);
  ASSERT_TRUE(n.start().ok());
  const auto listed = asset::load_object_list(n.store(), n.result.record, 10);
  for (const auto& e : *listed) {
    if (e.kind != asset::ObjectKind::kManifest) continue;
    ASSERT_EQ(truncate(n.object_path(e.id).c_str(), 64), 0);
  }
  EXPECT_EQ(open_error(n.point() + "/f399", O_RDONLY), EIO);
  EXPECT_EQ(open_error(n.point() + "/absent", O_RDONLY), EIO);
}

TEST(DecryptFs, OpensOnlyTheVersionThatCameWithTheKey) {
  NEEDS_FUSE();
  Mounted m(Tree{{"f", "x"}});
  EXPECT_EQ(m.start(m.result.key, Hash32{}).reason(), Reason::kWrongVersion);
  m.stop();
  SeededRandom random(1);
  EXPECT_EQ(m.start(random.secret<DatasetKey>(32), m.result.record.id()).reason(),
            Reason::kBadCommitment);
  m.stop();
  EXPECT_EQ(m.start(random.secret<DatasetKey>(31), m.result.record.id()).reason(),
            Reason::kBadValue);
}

// Serves within the test, so that its store can be watched.
class ServedHere {
 public:
  explicit ServedHere(const Tree& tree) : audit_(open("/dev/null", O_WRONLY | O_CLOEXEC)) {
    write_tree(dir_.path + "/src", tree);
    (void)make_dirs(point(), 0755);
    SeededRandom random(7);
    auto r = asset::publish(options_for(dir_.path + "/src", dir_.path + "/state"), objects_, random)
                 .value();
    reader_.emplace(asset::AssetReader::open(watched_, r.record, r.record.id(), r.key).value());
    fuse_ = mount_fuse(point()).value();
    thread_ = std::thread([this, id = r.record.asset_id] {
      ServeOptions o;
      o.fuse_fd = fuse_.get();
      status_ = serve(*reader_, id, audit_, o);
    });
  }
  ~ServedHere() {
    EXPECT_TRUE(unmount_fuse(point()).ok());
    thread_.join();
    EXPECT_TRUE(status_.ok());
  }
  std::string point() const { return dir_.path + "/mnt"; }
  // Every read of ciphertext so far that was longer than a page: where it began and ended.
  const std::vector<std::pair<std::uint64_t, std::uint64_t>>& chunk_reads() {
    for (const std::string& line : watched_.take_log()) {
      char name[80];
      unsigned long offset = 0;
      unsigned long size = 0;
      if (sscanf(line.c_str(), "get %79s %lu %lu", name, &offset, &size) != 3) continue;
      if (size > asset::kPageSize) reads_.emplace_back(offset, offset + size);
    }
    return reads_;
  }

 private:
  TempDir dir_;
  storage::MemoryStore objects_;
  storage::testing::RecordingStore watched_{objects_};
  std::optional<asset::AssetReader> reader_;
  Audit audit_;
  Fd fuse_;
  Status status_;
  std::thread thread_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> reads_;
};

TEST(DecryptFs, ReadsAheadOfASequentialReaderAndNotOfARandomOne) {
  NEEDS_FUSE();
  const std::string content = pattern(8 << 20, 4);
  ServedHere s(Tree{{"f", content}});
  const Fd fd(open((s.point() + "/f").c_str(), O_RDONLY | O_CLOEXEC));
  Bytes out(16384);
  ASSERT_EQ(pread(fd.get(), out.data(), 4096, 5 << 20), 4096);
  ASSERT_EQ(s.chunk_reads().size(), 1u);
  EXPECT_EQ(s.chunk_reads()[0].second - s.chunk_reads()[0].first, asset::kSealedChunk);

  constexpr std::size_t kTotal = 1 << 20;
  for (std::size_t at = 0; at < kTotal; at += out.size()) {
    ASSERT_EQ(pread(fd.get(), out.data(), out.size(), static_cast<off_t>(at)),
              static_cast<ssize_t>(out.size()));
    ASSERT_TRUE(equal(out, as_bytes(content).subspan(at, out.size())));
  }
  // What lies behind the last byte that was asked for comes by itself: the kernel asks for it, and
  // our threads open it while the reader is busy with what it has.
  const auto furthest = [&] {
    std::uint64_t end = 0;
    for (const auto& [from, to] : s.chunk_reads()) end = std::max(end, from < (4U << 20) ? to : 0);
    return end;
  };
  const std::uint64_t asked = asset::kHeaderSize + kTotal / asset::kChunkSize * asset::kSealedChunk;
  for (int i = 0; i < 2000 && furthest() <= asked; ++i) (void)poll(nullptr, 0, 5);
  EXPECT_GT(furthest(), asked);
  EXPECT_LT(s.chunk_reads().size(), 32u) << "64 reads of 16 KiB are few reads of the store";
}

// Names in a directory that is open already, from its beginning.
std::set<std::string> names_in(DIR* d) {
  std::set<std::string> out;
  rewinddir(d);
  while (const ::dirent* e = readdir(d)) out.insert(e->d_name);
  return out;
}

// With the server stopped, whatever would have to ask it hangs. Only opening a directory may ask.
TEST(DecryptFs, WhatWasSeenOnceIsAnsweredFromTheKernelsCaches) {
  NEEDS_FUSE();
  Tree tree{{"big", pattern(300'000, 1)}};
  for (int i = 0; i < 300; ++i) tree["d/f" + std::to_string(i)] = "content " + std::to_string(i);
  Mounted m(tree);
  ASSERT_TRUE(m.start().ok());
  const auto seen = walk(m.point());
  ASSERT_TRUE(seen.ok() && *seen == with_directories(tree));
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir((m.point() + "/d").c_str()),
                                                      closedir);
  ASSERT_NE(directory, nullptr);
  const auto look = [&] {
    bool good = names_in(directory.get()).size() == 300 &&
                open_error(m.point() + "/d/absent", O_RDONLY) == ENOENT;
    for (const auto& [path, content] : tree) {
      const auto text = read_text_file(m.point() + "/" + path, 1 << 20);
      struct stat st {};
      good = good && text.ok() && *text == content &&
             stat((m.point() + "/" + path).c_str(), &st) == 0 &&
             st.st_size == static_cast<off_t>(content.size());
    }
    return good;
  };
  ASSERT_TRUE(look());
  ASSERT_TRUE(m.fs.process().signal(SIGSTOP).ok());
  const pid_t pid = fork();
  if (pid == 0) _exit(look() ? 0 : 1);
  Process child(pid);
  const auto end = child.wait(kPatience);
  ASSERT_TRUE(m.fs.process().signal(SIGCONT).ok());
  ASSERT_TRUE(end.ok());
  ASSERT_TRUE(*end) << "something had to be asked again";
  EXPECT_TRUE((*end)->exited && (*end)->code == 0);
}

// What /proc says the descriptors of a process point to.
std::vector<std::string> open_files(pid_t pid) {
  std::vector<std::string> out;
  const std::string folder = "/proc/" + std::to_string(pid) + "/fd";
  DIR* d = opendir(folder.c_str());
  if (d == nullptr) return {"cannot be listed"};
  while (const ::dirent* e = readdir(d)) {
    char to[512] = {};
    if (readlink((folder + "/" + e->d_name).c_str(), to, sizeof to - 1) > 0) out.emplace_back(to);
  }
  closedir(d);
  return out;
}

TEST(DecryptFs, APrefetchedMountNeedsItsStoreNoMore) {
  NEEDS_FUSE();
  Mounted m(sample());
  const Status ready = m.start_prefetched(asset::prefetch_bytes(m.result.record));
  ASSERT_TRUE(ready.ok()) << ready.error().line();
  EXPECT_EQ(m.fs.ready().access, records::Access::kPrefetch);
  EXPECT_GE(m.fs.ready().prefetched.value_or(0), m.result.record.ciphertext_bytes);
  ASSERT_TRUE(m.fs.ready().locked.has_value());
  for (const std::string& file : open_files(m.fs.process().pid())) {
    EXPECT_EQ(file.find(m.store_path()), std::string::npos) << file;
  }
  ASSERT_TRUE(remove_tree(m.store_path()).ok());
  auto seen = walk(m.point());
  ASSERT_TRUE(seen.ok()) << seen.error().line();
  EXPECT_TRUE(*seen == with_directories(sample()));
}

TEST(DecryptFs, WhatDoesNotFitIsNotServed) {
  NEEDS_FUSE();
  Mounted m(Tree{{"f", "x"}});
  const std::uint64_t need = asset::prefetch_bytes(m.result.record);
  const Status refused = m.start_prefetched(need - 1);
  EXPECT_EQ(refused.reason(), Reason::kTooLarge) << refused.error().line();
  m.stop();
  EXPECT_TRUE(m.start_prefetched(need).ok());
}

TEST(DecryptFs, ABadChunkInMemoryIsAnErrorToo) {
  NEEDS_FUSE();
  Mounted m(Tree{{"f", pattern(3 * 65536, 4)}});
  const auto listed = asset::load_object_list(m.store(), m.result.record, 10);
  for (const auto& e : *listed) {
    if (e.kind == asset::ObjectKind::kData) {
      flip(m, asset::object_name(e.id), asset::kHeaderSize + asset::kSealedChunk + 1);
    }
  }
  ASSERT_TRUE(m.start_prefetched(1 << 30).ok());
  const Fd fd(open((m.point() + "/f").c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  std::string out(65536, '?');
  EXPECT_EQ(pread(fd.get(), out.data(), out.size(), 0), 65536);
  EXPECT_EQ(pread(fd.get(), out.data(), out.size(), 65536), -1);
  EXPECT_EQ(errno, EIO);
  auto event = m.fs.next_event(kPatience);
  ASSERT_TRUE(event.ok() && *event);
  EXPECT_EQ((*event)->event, "bad-chunk");
}

std::string status_field(pid_t pid, const std::string& field) {
  const auto text = read_text_file("/proc/" + std::to_string(pid) + "/status", 1 << 16);
  if (!text.ok()) return text.error().line();
  const auto at = text->find("\n" + field + ":\t");
  if (at == std::string::npos) return "absent";
  const auto from = at + field.size() + 3;
  return text->substr(from, text->find('\n', from) - from);
}

TEST(DecryptFs, TheServerIsConfined) {
  NEEDS_FUSE();
  Mounted m(Tree{{"f", "x"}});
  ASSERT_TRUE(m.start().ok());
  const auto text = read_text_file(m.point() + "/f", 10);
  ASSERT_TRUE(text.ok()) << text.error().line();
  const pid_t pid = m.fs.process().pid();
  EXPECT_EQ(status_field(pid, "Seccomp"), "2");
  EXPECT_EQ(status_field(pid, "NoNewPrivs"), "1");
  EXPECT_EQ(status_field(pid, "CapEff"), "0000000000000000");
  EXPECT_EQ(status_field(pid, "CoreDumping"), "0");
  const std::string id = std::to_string(kServer);
  EXPECT_EQ(status_field(pid, "Uid"), id + "\t" + id + "\t" + id + "\t" + id);
  EXPECT_EQ(status_field(pid, "Groups"), " ");
  // Not dumpable: its /proc entries belong to root, so its own uid cannot look into it.
  struct stat st {};
  ASSERT_EQ(stat(("/proc/" + std::to_string(pid) + "/mem").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 0u);
  // Every thread is under the filter.
  DIR* d = opendir(("/proc/" + std::to_string(pid) + "/task").c_str());
  ASSERT_NE(d, nullptr);
  int threads = 0;
  while (const ::dirent* e = readdir(d)) {
    if (e->d_name[0] == '.') continue;
    ++threads;
    EXPECT_EQ(status_field(static_cast<pid_t>(atoi(e->d_name)), "Seccomp"), "2");
  }
  closedir(d);
#if defined(__SANITIZE_THREAD__)
  EXPECT_EQ(threads, 6);  // one is the sanitizer's
#else
  EXPECT_EQ(threads, 5);
#endif
  // The key pipe and the record pipe are closed; their numbers may be objects of the store by now.
  for (const int fd : {kKeyFd, kRecordFd}) {
    char to[256] = {};
    (void)!readlink(("/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd)).c_str(), to,
                    sizeof to - 1);
    EXPECT_TRUE(to[0] == '\0' || std::string(to).rfind(m.store_path() + "/", 0) == 0) << to;
  }
}

// A program in the place of DecryptFS that says what it likes on the pipe of its events.
Status word_of(const std::string& script, std::optional<Reason> later = {}) {
  TempDir dir;
  const std::string program = dir.path + "/liar";
  const std::string text = "#!/bin/sh\nexec >&" + std::to_string(kAuditFd) + "\n" + script + "\n";
  EXPECT_TRUE(write_file_atomic(program, as_bytes(text), 0755).ok());
  SpawnOptions o;
  o.program = program;
  const Fd store = open_dir(dir.path).value();
  o.store_fd = store.get();
  o.fuse = Fd(open("/dev/null", O_RDWR | O_CLOEXEC));
  SeededRandom random(1);
  auto fs = DecryptFs::spawn(std::move(o), random.secret<DatasetKey>(32));
  if (!fs.ok()) return fs.error();
  const Status ready = fs->wait_ready(kPatience);
  if (ready.ok() && later) {
    EXPECT_EQ(fs->next_event(kPatience).reason(), *later) << script;
  }
  fs->process().kill_and_reap();
  return ready;
}

TEST(DecryptFs, LinesThatNoneWritesEndTheMount) {
  const std::string ready = "echo '{\"access\":\"prefetch\",\"event\":\"ready\"}'\n";
  EXPECT_TRUE(word_of(ready + "sleep 60").ok());
  EXPECT_EQ(word_of("echo no event").reason(), Reason::kBadJson);
  EXPECT_EQ(word_of("echo '{\"event\":\"ready\",\"more\":1}'").reason(), Reason::kUnknownField);
  EXPECT_EQ(word_of("echo '{\"event\":\"ready\"}'").reason(), Reason::kSandboxSetup);
  EXPECT_EQ(word_of("exit 0").reason(), Reason::kConnectionClosed);
  // Without an end, before or after it was ready: so much is read and no more.
  const std::string flood = "while :; do printf '%08000d' 0; done";
  EXPECT_EQ(word_of(flood).reason(), Reason::kTooLarge);
  EXPECT_TRUE(word_of(ready + flood, Reason::kTooLarge).ok());
  const Status said = word_of("echo '{\"event\":\"failed\",\"reason\":\"nonsense\"}'");
  EXPECT_EQ(said.reason(), Reason::kInternal);
}

// Each call runs in a child under the very filter of the program.
int signal_of(const std::function<void(int store)>& body, bool prefetched = false) {
  TempDir dir;
  const Fd store = open_dir(dir.path).value();
  const pid_t pid = fork();
  if (pid == 0) {
    const StoreLeft allowed =
        prefetched ? StoreLeft{} : StoreLeft{StoreKind::kDirectory, store.get()};
    if (!confine_files(allowed).ok() || !confine_syscalls(allowed).ok()) _exit(99);
    body(store.get());
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

TEST(Confinement, ForbiddenCallsKill) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer needs some of these calls itself; the plain build runs this test";
#endif
  EXPECT_EQ(signal_of([](int) {}), 0);
  EXPECT_EQ(signal_of([](int) { (void)!socket(AF_INET, SOCK_STREAM, 0); }), SIGSYS);
  EXPECT_EQ(signal_of([](int) { (void)!open("/etc/passwd", O_RDONLY); }), SIGSYS);
  EXPECT_EQ(signal_of([](int) { (void)!fork(); }), SIGSYS);
  EXPECT_EQ(signal_of([](int) { execl("/bin/true", "true", nullptr); }), SIGSYS);
  EXPECT_EQ(signal_of([](int) { (void)!kill(1, 0); }), SIGSYS);
  EXPECT_EQ(signal_of([](int) { (void)!getuid(); }), SIGSYS);
  EXPECT_EQ(signal_of([](int) {
              (void)mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            }),
            SIGSYS);
  EXPECT_EQ(signal_of([](int) { (void)open_beneath(AT_FDCWD, "etc", O_RDONLY); }), SIGSYS);
}

// Uses and gives back much memory in sixteen threads under the filter; does not return.
[[noreturn]] void use_memory_confined(bool steady) {
  if (steady) steady_allocator();
  TempDir dir;
  const Fd store = open_dir(dir.path).value();
  std::atomic<bool> go{false};
  std::atomic<int> here{0};  // a thread's first steps need calls of their own
  std::vector<std::thread> threads;
  for (int t = 0; t < 16; ++t) {
    threads.emplace_back([&] {
      ++here;
      while (!go) sched_yield();
      std::vector<std::unique_ptr<Bytes>> pieces;
      for (int i = 0; i < 200; ++i) pieces.push_back(std::make_unique<Bytes>(20'000));
    });
  }
  while (here != 16) sched_yield();
  (void)rmdir(dir.path.c_str());
  const StoreLeft left{StoreKind::kDirectory, store.get()};
  if (!confine_files(left).ok() || !confine_syscalls(left).ok()) _exit(99);
  go = true;
  for (auto& t : threads) t.join();
  _exit(0);
}

// glibc's heaps of threads ask the kernel for more than memory when they grow many or shrink.
TEST(Confinement, ThreadsMayUseMuchMemoryAndGiveItBack) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer brings an allocator of its own; the plain build runs this test";
#endif
  // In a fresh process each: glibc remembers the answer once it has asked.
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(use_memory_confined(true), testing::ExitedWithCode(0), "");
  // what steady_allocator() is for
  EXPECT_EXIT(use_memory_confined(false), testing::KilledBySignal(SIGSYS), "");
}

// Not one read of the store can follow a prefetch, whatever became of the process.
TEST(Confinement, AfterAPrefetchNothingCanBeOpenedOrRead) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer needs some of these calls itself; the plain build runs this test";
#endif
  const auto dies = [](const std::function<void(int)>& body) { return signal_of(body, true); };
  EXPECT_EQ(dies([](int) {}), 0);
  EXPECT_EQ(dies([](int store) { (void)open_beneath(store, "absent", O_RDONLY); }), SIGSYS);
  EXPECT_EQ(dies([](int store) {
              char c = 0;
              (void)!pread(store, &c, 1, 0);
            }),
            SIGSYS);
  EXPECT_EQ(dies([](int) { (void)!open("/etc/passwd", O_RDONLY); }), SIGSYS);
}

TEST(Confinement, OnlyTheStoreCanBeRead) {
  // openat2 itself is allowed on the store's descriptor; RESOLVE_BENEATH keeps an honest program
  // inside, Landlock any other.
  EXPECT_EQ(signal_of([](int store) {
              if (open_beneath(store, "absent", O_RDONLY).reason() != Reason::kNotFound) _exit(1);
              if (open_beneath(store, "/etc/passwd", O_RDONLY).ok()) _exit(2);
              if (open_beneath(store, "new", O_CREAT | O_WRONLY, 0600).ok()) _exit(3);
            }),
            0);
}

}  // namespace
}  // namespace gbx::decryptfs
