// What publishing and opening take in memory and reads, each in a process of its own, whose peak
// the kernel keeps.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <optional>

#include "asset/asset_test_util.h"
#include "storage/directory_store.h"
#include "storage/testing.h"

namespace gbx::asset {
namespace {

using namespace testing;

// "VmHWM:    1234 kB" of this process, in bytes.
std::int64_t memory_of(const std::string& field) {
  const auto text = read_text_file("/proc/self/status", 1 << 16);
  if (!text.ok()) return -1;
  const std::size_t at = text->find(field + ":");
  return at == std::string::npos
             ? -1
             : std::strtoll(text->c_str() + at + field.size() + 1, nullptr, 10) * 1024;
}

// How far the peak of a fresh process rises above where it began while it does `work`; nothing when
// the work failed.
std::optional<std::int64_t> peak_of(const std::function<bool()>& work) {
  auto pipe = make_pipe();
  if (!pipe.ok()) return std::nullopt;
  const pid_t pid = fork();
  if (pid == 0) {
    const std::int64_t before = memory_of("VmRSS");
    const bool done = work();
    const std::int64_t rise = done ? memory_of("VmHWM") - before : -1;
    (void)!write(pipe->second.get(), &rise, sizeof rise);
    _exit(before > 0 ? 0 : 1);
  }
  pipe->second.reset();
  std::int64_t rise = -1;
  const bool told = read(pipe->first.get(), &rise, sizeof rise) == sizeof rise;
  int status = -1;
  waitpid(pid, &status, 0);
  if (!told || status != 0 || rise < 0) return std::nullopt;
  return rise;
}

struct Source {
  TempDir dir;
  std::string tree = dir.path + "/src";
  std::string state = dir.path + "/state";
  std::unique_ptr<storage::DirectoryStore> store;
  std::optional<PublishResult> result;

  Source() {
    (void)make_dirs(tree, 0755);
    auto opened = storage::DirectoryStore::open(dir.path + "/objects", storage::SyncPolicy::kNever);
    if (opened.ok()) store = std::move(*opened);
  }
  void big_file(off_t size) const {
    const Fd fd(open((tree + "/big").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    (void)!ftruncate(fd.get(), size);
  }
  void small_files(int count) const {
    for (int i = 0; i < count; ++i) {
      const std::string folder = tree + "/d" + std::to_string(i / 500);
      if (i % 500 == 0) (void)make_dirs(folder, 0755);
      const Fd fd(open((folder + "/a-file-of-some-name-" + std::to_string(i)).c_str(),
                       O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
      (void)write_all(fd.get(), as_bytes(std::to_string(i)));
    }
  }
  DatasetKey key() const {
    SeededRandom random(6);
    return random.secret<DatasetKey>(32);
  }
  bool publish_all() const {
    SeededRandom random(5);
    PublishOptions options = options_for(tree, state);
    options.key = key();
    const auto r = publish(std::move(options), *store, random);
    if (!r.ok()) std::fprintf(stderr, "publish: %s\n", r.error().line().c_str());
    return r.ok();
  }
};

constexpr std::int64_t kMiB = 1 << 20;

TEST(AssetMemory, PublishingTakesLessThan64MiBWhateverTheSize) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer keeps freed memory for a while; the plain build runs this test";
#endif
  Source s;
  ASSERT_NE(s.store, nullptr);
  s.big_file(256 * kMiB);
  const auto peak = peak_of([&] { return s.publish_all(); });
  ASSERT_TRUE(peak.has_value());
  EXPECT_LT(*peak, 64 * kMiB);
}

struct Costs {
  std::int64_t publishing = -1;
  std::int64_t opening = -1;
  std::size_t reads = 0;
  std::int64_t level = -1;
};
// Publishes so many files; then opens the asset and looks at its root, which is all that a mount
// does.
Costs costs_of(int files) {
  Costs out;
  Source s;
  if (s.store == nullptr) return out;
  s.small_files(files);
  out.publishing = peak_of([&] { return s.publish_all(); }).value_or(-1);
  const auto record = finished_publication(s.state);
  if (!record.ok() || !record->has_value()) return out;
  out.level = (*record)->root_level;
  const auto open_and_look = [&](storage::ObjectStore& store) {
    auto reader = AssetReader::open(store, **record, (*record)->id(), s.key());
    return reader.ok() && reader->attributes(kRootIno).ok();
  };
  storage::testing::RecordingStore watched(*s.store);
  // and what libraries set up once is set up
  out.reads = open_and_look(watched) ? watched.take_log().size() : 0;
  out.opening = peak_of([&] { return open_and_look(*s.store); }).value_or(-1);
  return out;
}

TEST(AssetMemory, TheNumberOfFilesCostsNeitherPublishingNorOpening) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer keeps freed memory for a while; the plain build runs this test";
#endif
  const Costs few = costs_of(10);
  const Costs many = costs_of(50'000);
  for (const Costs& c : {few, many}) {
    ASSERT_GE(c.publishing, 0);
    EXPECT_LT(c.publishing, 64 * kMiB);
    ASSERT_GE(c.opening, 0);
    ASSERT_GT(c.reads, 0U);
    EXPECT_LE(c.reads, static_cast<std::size_t>(c.level) + 3);
  }
  EXPECT_LT(many.opening - few.opening, 2 * kMiB) << few.opening;
  EXPECT_GT(many.level, few.level);  // these are assets of different height
}

}  // namespace
}  // namespace gbx::asset
