// What is measured is what boots: copies that nobody can change, whatever happens to the files.
// Machines themselves: tests/guest and tests/e2e.
#include "simtee/machine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "simtee/watch.h"

namespace gbx::simtee {
namespace {

struct Folder {
  std::string path = "/tmp/gbx-simtee-XXXXXX";
  Folder() {
    if (mkdtemp(path.data()) == nullptr) abort();
  }
  ~Folder() { (void)remove_tree(path); }
};

TEST(SealedCopy, IsTheFileAndItsHash) {
  const Folder folder;
  const Bytes content(3'000'000, 0x5a);
  ASSERT_TRUE(write_file_atomic(folder.path + "/kernel", content, 0600).ok());
  const auto copy = sealed_copy(folder.path + "/kernel", kMaxKernelBytes);
  ASSERT_TRUE(copy.ok()) << copy.error().line();
  EXPECT_EQ(copy->sha384, crypto::sha384(content));
  EXPECT_EQ(copy->sha256, crypto::sha256(content));
  Bytes read(content.size());
  ASSERT_TRUE(pread_exact(copy->fd.get(), read, 0).ok());
  EXPECT_EQ(read, content);
}

TEST(SealedCopy, StaysWhatItWas) {
  const Folder folder;
  const std::string path = folder.path + "/kernel";
  ASSERT_TRUE(write_file_atomic(path, as_bytes("the kernel"), 0600).ok());
  const auto copy = sealed_copy(path, 100);
  ASSERT_TRUE(copy.ok());
  ASSERT_TRUE(write_file_atomic(path, as_bytes("another one"), 0600).ok());
  // Not even by whoever holds it, or opens it again.
  EXPECT_LT(pwrite(copy->fd.get(), "x", 1, 0), 0);
  EXPECT_NE(ftruncate(copy->fd.get(), 3), 0);
  const Fd again(open(("/proc/self/fd/" + std::to_string(copy->fd.get())).c_str(), O_RDWR));
  EXPECT_TRUE(!again.valid() || pwrite(again.get(), "x", 1, 0) < 0);
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, copy->fd.get(), 0), MAP_FAILED);
  Bytes read(10);
  ASSERT_TRUE(pread_exact(copy->fd.get(), read, 0).ok());
  EXPECT_EQ(read, to_bytes(as_bytes("the kernel")));
}

TEST(SealedCopy, RefusesWhatIsNoFileToBoot) {
  const Folder folder;
  EXPECT_EQ(sealed_copy(folder.path + "/absent", 100).reason(), Reason::kIo);
  EXPECT_EQ(sealed_copy(folder.path, 100).reason(), Reason::kIo);
  ASSERT_TRUE(write_file_atomic(folder.path + "/empty", ByteView(), 0600).ok());
  EXPECT_EQ(sealed_copy(folder.path + "/empty", 100).reason(), Reason::kBadValue);
  ASSERT_TRUE(write_file_atomic(folder.path + "/large", Bytes(101), 0600).ok());
  EXPECT_EQ(sealed_copy(folder.path + "/large", 100).reason(), Reason::kTooLarge);
  EXPECT_EQ(sealed_copy("/dev/zero", 100).reason(), Reason::kTooLarge);
}

RunOutput root_of(const std::string& key, bool fresh) {
  const char* bin = std::getenv("GBX_BIN_DIR");
  ProcessOptions p;
  p.argv = {std::string(bin == nullptr ? "." : bin) + "/glovebox-simtee", "root", "--key", key};
  if (fresh) p.argv.emplace_back("--new");
  return run_command(std::move(p)).value();
}

// Policies name the root: another one in its place would be nobody's.
TEST(Root, IsMadeOnlyWhenThatIsAskedForAndThenStays) {
  const Folder folder;
  const std::string key = folder.path + "/key";
  EXPECT_NE(root_of(key, false).status.code, 0);
  EXPECT_FALSE(path_exists(key));
  const RunOutput made = root_of(key, true);
  EXPECT_EQ(made.out.rfind("sim:", 0), 0U) << made.err;
  EXPECT_EQ(root_of(key, true).out, made.out);
  EXPECT_EQ(root_of(key, false).out, made.out);
}

// What is watched in QEMU's place: a program that says something and goes on.
class Watching : public ::testing::Test {
 protected:
  std::unique_ptr<Watch> watch(const std::string& script, std::int64_t life_ms) {
    auto complaints = make_pipe().value();
    ProcessOptions p;
    p.argv = {"/bin/sh", "-c", script};
    p.env = {{"PATH", "/usr/bin:/bin"}};
    p.descriptors = {{2, complaints.second.get()}};
    qemu_ = spawn(p).value();
    Watched w;
    w.qemu = Fd(static_cast<int>(syscall(SYS_pidfd_open, qemu_.pid(), 0)));
    w.complaints = std::move(complaints.first);
    w.node_fd = node_.second.get();
    w.life_ms = life_ms;
    return Watch::start(std::move(w), log_).value();
  }
  ExitStatus end() { return qemu_.wait(60'000).value().value(); }
  std::string logged() const {
    Bytes text(std::size_t{1} << 20);
    const ssize_t n = pread(file_.get(), text.data(), text.size(), 0);
    return std::string(text.begin(), text.begin() + std::max<ssize_t>(n, 0));
  }

  const SystemClock clock_;
  const Fd file_{memfd_create("log", MFD_CLOEXEC)};
  const Logger log_{file_.get(), "simtee", clock_};
  std::pair<Fd, Fd> node_ = make_socket_pair().value();
  Process qemu_;
};

TEST_F(Watching, EndsQemuWhenTheNodeHasGone) {
  const auto w = watch("exec sleep 600", 3'600'000);
  node_.first.reset();
  EXPECT_EQ(end().code, SIGKILL);
  w->stop();
  ASSERT_TRUE(w->ended().has_value());
  EXPECT_EQ(w->ended()->reason, Reason::kLost);
}

TEST_F(Watching, EndsQemuAtItsLimitAlsoWhenItStandsStill) {
  const auto w = watch("kill -STOP $$", 1);
  EXPECT_EQ(end().code, SIGKILL);
  w->stop();
  ASSERT_TRUE(w->ended().has_value());
  EXPECT_EQ(w->ended()->reason, Reason::kTimedOut);
}

TEST_F(Watching, WhatQemuSaysIsLoggedPrintableAndBounded) {
  const auto w = watch(
      "printf 'a\\033[31m line\\n' >&2; i=0; while [ $i -lt 1000 ]; do echo line $i >&2; "
      "i=$((i+1)); "
      "done; head -c 100000 /dev/zero | tr '\\0' x >&2; echo >&2; printf 'the last words' >&2; "
      "exit 1",
      3'600'000);
  EXPECT_EQ(end().code, 1);
  w->stop();
  EXPECT_FALSE(w->ended().has_value());
  EXPECT_EQ(w->last_words(), "the last words");
  const std::string text = logged();
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_NE(text.find("[31m line"), std::string::npos);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), kComplaints + 1);
  EXPECT_LT(text.size(), 100'000U);
}

}  // namespace
}  // namespace gbx::simtee
