// Mounts of assets that lie on a volume, as in a virtual machine, and what a host can do to one:
// whatever it does ends with a reason that has a name. Needs root and /dev/fuse.
#include "vm/volume.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "asset/asset_test_util.h"
#include "asset/prefetch.h"
#include "decryptfs/confine.h"
#include "decryptfs/decryptfs.h"
#include "storage/memory_store.h"

namespace gbx::decryptfs {
namespace {

using namespace asset::testing;
using records::Access;

constexpr std::int64_t kPatience = 20'000;
constexpr std::uint64_t kVolumeSize = 2U << 20;

#define NEEDS_FUSE()                                                                         \
  if (geteuid() != 0) GTEST_SKIP() << "mounting needs root";                                 \
  if (access("/dev/fuse", R_OK | W_OK) != 0) GTEST_SKIP() << "there is no usable /dev/fuse"; \
  ASSERT_NE(getenv("GBX_BIN_DIR"), nullptr)

Bytes volume_of(std::shared_ptr<storage::MemoryStore> store, const records::VersionRecord& version,
                std::uint64_t size) {
  const auto names = vm::objects_of(*store, {version}).value();
  const auto volume = vm::ObjectVolume::make(std::move(store), names, size).value();
  Bytes out(size);
  EXPECT_TRUE(volume->read(0, out).ok());
  return out;
}

// A published asset, in memory, and what can be done with a volume of it.
struct Published {
  explicit Published(const Tree& tree, std::uint64_t seed = 7) {
    write_tree(dir.path + "/src", tree);
    SeededRandom random(seed);
    result =
        asset::publish(options_for(dir.path + "/src", dir.path + "/state"), *store, random).value();
  }
  Bytes volume(std::uint64_t size = kVolumeSize) { return volume_of(store, result.record, size); }

  TempDir dir;
  std::shared_ptr<storage::MemoryStore> store = std::make_shared<storage::MemoryStore>();
  asset::PublishResult result;
};

class Mount {
 public:
  Mount() { (void)make_dirs(point(), 0755); }
  ~Mount() { stop(); }
  Status start(const asset::PublishResult& version, int store_fd, Access how,
               std::int64_t patience_ms = kPatience) {
    SpawnOptions o;
    GBX_ASSIGN(o.fuse, mount_fuse(point()));
    mounted_ = true;
    o.program = std::string(getenv("GBX_BIN_DIR")) + "/glovebox-decryptfs";
    o.uid = 64124;
    o.gid = 64124;
    o.store_fd = store_fd;
    o.record = version.record;
    o.version_id = version.record.id();
    o.access = how;
    o.prefetch_limit = 1 << 30;
    GBX_ASSIGN(fs, DecryptFs::spawn(std::move(o), version.key));
    return fs.wait_ready(patience_ms);
  }
  void stop() {
    if (!mounted_) return;
    mounted_ = false;
    EXPECT_TRUE(unmount_fuse(point()).ok());
    fs.process().kill_and_reap();
  }
  std::string point() const { return dir_.path + "/mnt"; }

  DecryptFs fs;

 private:
  TempDir dir_;
  bool mounted_ = false;
};

Fd file_of(ByteView content, const std::string& path) {
  EXPECT_TRUE(write_file_atomic(path, content, 0644).ok());
  return Fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

const Tree kTree = {{"f", pattern(300'000, 4)}, {"d/empty", ""}, {"d/one", "1"}};

// How the mount of this volume ends, if it never becomes ready.
Reason refused(Published& p, ByteView volume, Access how = Access::kDirect) {
  Mount m;
  const Fd file = file_of(volume, p.dir.path + "/volume");
  const Status ready = m.start(p.result, file.get(), how);
  return ready.ok() ? Reason::kUninitialised : ready.reason();
}

TEST(VolumeMount, ShowsWhatWasPublishedAndNeedsTheDescriptorAlone) {
  NEEDS_FUSE();
  Published p(kTree);
  for (const Access how : {Access::kDirect, Access::kPrefetch}) {
    Mount m;
    Fd file = file_of(p.volume(), p.dir.path + "/volume");
    const Status ready = m.start(p.result, file.get(), how);
    ASSERT_TRUE(ready.ok()) << ready.error().line();
    file.reset();
    // Its path is nobody's business, and with prefetch the bytes are not either.
    ASSERT_EQ(unlink((p.dir.path + "/volume").c_str()), 0);
    for (const auto& [path, content] : kTree) {
      const auto text = read_text_file(m.point() + "/" + path, 1 << 20);
      ASSERT_TRUE(text.ok()) << text.error().line();
      EXPECT_EQ(*text, content);
    }
    char to[512] = {};
    (void)!readlink(
        ("/proc/" + std::to_string(m.fs.process().pid()) + "/fd/" + std::to_string(kStoreFd))
            .c_str(),
        to, sizeof to - 1);
    EXPECT_EQ(std::string(to).find("/volume") != std::string::npos, how == Access::kDirect) << to;
  }
}

TEST(VolumeMount, AVolumeThatIsCutHasAReason) {
  NEEDS_FUSE();
  Published p(kTree);
  const Bytes good = p.volume();
  EXPECT_EQ(refused(p, {}), Reason::kTruncated);
  EXPECT_EQ(refused(p, ByteView(good).first(good.size() - 1)), Reason::kTruncated);
  EXPECT_EQ(refused(p, ByteView(good).first(good.size() / 2), Access::kPrefetch),
            Reason::kTruncated);
  EXPECT_EQ(refused(p, Bytes(good.size())), Reason::kBadMagic) << "it has no job yet";
  // Cut after it was opened: those bytes are an error, and the auditor hears of it.
  Mount m;
  const std::string path = p.dir.path + "/volume";
  const Fd file = file_of(good, path);
  ASSERT_TRUE(m.start(p.result, file.get(), Access::kDirect).ok());
  ASSERT_EQ(truncate(path.c_str(), 8192), 0);
  EXPECT_FALSE(read_text_file(m.point() + "/f", 1 << 20).ok());
  const auto event = m.fs.next_event(kPatience);
  ASSERT_TRUE(event.ok() && *event);
  EXPECT_EQ((*event)->reason, "truncated");
}

// Bytes of the volume's objects in the place of one another, or of others.
TEST(VolumeMount, AVolumeOfOtherObjectsHasAReason) {
  NEEDS_FUSE();
  Published p(kTree);
  Published other(kTree, 8);
  EXPECT_EQ(refused(p, other.volume()), Reason::kUnavailable) << "another asset's";
  EXPECT_EQ(refused(p, other.volume(), Access::kPrefetch), Reason::kNotFound);
  // The other's bytes under the names that are asked for.
  const auto swapped = std::make_shared<storage::MemoryStore>();
  swapped->objects() = p.store->objects();
  auto theirs = other.store->objects().begin();
  for (auto& [name, content] : swapped->objects()) content = (theirs++)->second;
  std::vector<std::string> names;
  for (const auto& [name, content] : swapped->objects()) names.push_back(name);
  const auto volume = vm::ObjectVolume::make(swapped, names, kVolumeSize).value();
  Bytes bytes(kVolumeSize);
  ASSERT_TRUE(volume->read(0, bytes).ok());
  for (const Access how : {Access::kDirect, Access::kPrefetch}) {
    const Reason reason = refused(p, bytes, how);
    EXPECT_TRUE(reason == Reason::kBadHash || reason == Reason::kBadStructure ||
                reason == Reason::kWrongAsset)
        << reason_code(reason);
  }
}

// The volume of an older version, in the place of the one that the key came with.
TEST(VolumeMount, AnOlderVolumeHasAReason) {
  NEEDS_FUSE();
  Published p(kTree);
  const Bytes older = p.volume();
  write_tree(p.dir.path + "/src", Tree{{"f", pattern(300'000, 5)}});
  SeededRandom random(9);
  asset::PublishOptions options = options_for(p.dir.path + "/src", p.dir.path + "/state2");
  options.previous = asset::PreviousVersion{p.result.record, p.result.key.clone()};
  const Id16 asset = p.result.record.asset_id;
  p.result = asset::publish(std::move(options), *p.store, random).value();
  ASSERT_EQ(p.result.record.asset_id, asset);
  EXPECT_EQ(refused(p, older), Reason::kUnavailable);
  EXPECT_EQ(refused(p, older, Access::kPrefetch), Reason::kNotFound);
  EXPECT_EQ(refused(p, p.volume()), Reason::kUninitialised) << "its own is served";
}

// A volume that answers no read: its bytes come from a mount whose server stands still.
TEST(VolumeMount, AVolumeThatDoesNotAnswerHasAReason) {
  NEEDS_FUSE();
  Published p(kTree);
  const Bytes volume = p.volume();
  Published host(Tree{{"volume", std::string(as_text(volume))}}, 9);
  Mount slow;
  const Fd file = file_of(host.volume(16U << 20), host.dir.path + "/volume");
  const Status served = slow.start(host.result, file.get(), Access::kPrefetch);
  ASSERT_TRUE(served.ok()) << served.error().line();
  const std::string path = slow.point() + "/volume";
  // The first close asks the server, and so does that of every child.
  ASSERT_TRUE(Fd(open(path.c_str(), O_RDONLY | O_CLOEXEC)).valid());
  const Fd inner(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(inner.valid());
  ASSERT_TRUE(slow.fs.process().signal(SIGSTOP).ok());
  {
    Mount m;
    EXPECT_EQ(m.start(p.result, inner.get(), Access::kDirect, 300).reason(), Reason::kTimedOut);
    ASSERT_TRUE(slow.fs.process().signal(SIGCONT).ok());
  }
  Mount again;
  const Status ready = again.start(p.result, inner.get(), Access::kDirect);
  EXPECT_TRUE(ready.ok()) << "and served when it does: " << ready.error().line();
}

// Each call runs in a child under the very filter of the program.
int signal_of(const std::function<void(int volume)>& body) {
  TempDir dir;
  const Fd volume = file_of(as_bytes("bytes"), dir.path + "/volume");
  const pid_t pid = fork();
  if (pid == 0) {
    const StoreLeft left{StoreKind::kVolume, volume.get()};
    if (!confine_files(left).ok() || !confine_syscalls(left).ok()) _exit(99);
    body(volume.get());
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

TEST(VolumeMount, OnlyBytesOfTheVolumeCanBeRead) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer needs some of these calls itself; the plain build runs this test";
#endif
  EXPECT_EQ(signal_of([](int volume) {
              Bytes out(5);
              if (!pread_exact(volume, out, 0).ok() || as_text(out) != "bytes") _exit(1);
            }),
            0);
  const auto dies = [](const std::function<void(int)>& body) { return signal_of(body) == SIGSYS; };
  EXPECT_TRUE(dies([](int) {
    char c = 0;
    (void)!pread(0, &c, 1, 0);
  })) << "another descriptor";
  EXPECT_TRUE(dies([](int volume) { (void)open_beneath(volume, "x", O_RDONLY); }));
  EXPECT_TRUE(dies([](int) { (void)!open("/etc/passwd", O_RDONLY); }));
  EXPECT_TRUE(dies([](int volume) { (void)lseek(volume, 0, SEEK_SET); }));
  EXPECT_TRUE(dies([](int volume) {
    char c = 0;
    (void)!pwrite(volume, &c, 1, 0);
  }));
  EXPECT_TRUE(dies([](int volume) { (void)!dup(volume); }));
}

}  // namespace
}  // namespace gbx::decryptfs
