// What is measured is what boots: copies that nobody can change, whatever happens to the files.
// Machines themselves: tests/guest and tests/e2e.
#include "simtee/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>

#include "simtee/confine.h"
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

Fd pidfd_of(const Process& p) {
  // SAFETY: pidfd_open takes a pid and flags.
  return Fd(static_cast<int>(syscall(SYS_pidfd_open, p.pid(), 0)));
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
    pidfd_ = pidfd_of(qemu_);
    w.qemu = pidfd_.get();
    w.complaints = std::move(complaints.first);
    w.node_fd = node_.second.get();
    w.life_ms = life_ms;
    return Watch::start(std::move(w), log_).value();
  }
  bool pidfd_ends() const {
    pollfd p{pidfd_.get(), POLLIN, 0};
    return poll(&p, 1, 20'000) == 1;
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
  Fd pidfd_;
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

// Whatever poll() may have against it: then neither the node's end nor the limit would be seen.
TEST_F(Watching, EndsQemuWhenItCannotBeWatched) {
  const auto w = watch("exec yes >&2", 3'600'000);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit fewer{2, before.rlim_max};  // than are polled, which is EINVAL
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &fewer), 0);
  const auto ended = pidfd_ends();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_TRUE(ended);
  EXPECT_EQ(end().code, SIGKILL);
  w->stop();
  ASSERT_TRUE(w->ended().has_value());
  EXPECT_EQ(w->ended()->reason, Reason::kIo);
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

// Runs `inside` in a process of its own, which says what was not as it should be; nothing: all was.
std::string confined(const std::function<std::string()>& inside) {
  const auto said = make_pipe().value();
  const pid_t child = fork();
  if (child == 0) {
    const std::string word = inside();
    (void)!write(said.second.get(), word.data(), word.size());
    _exit(0);
  }
  EXPECT_GT(child, 0);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  Bytes word(4096);
  EXPECT_EQ(fcntl(said.first.get(), F_SETFL, O_NONBLOCK), 0);
  const ssize_t n = read(said.first.get(), word.data(), word.size());
  return std::string(word.begin(), word.begin() + std::max<ssize_t>(n, 0));
}

struct Call {
  const char* name;
  std::function<long()> make;
};
// The names of those that the kernel did not refuse with EPERM, or that it did.
std::string unlike(bool refused, const std::vector<Call>& calls) {
  std::string out;
  for (const Call& call : calls) {
    errno = 0;
    const bool so = call.make() == -1 && errno == EPERM;
    if (so != refused) out += std::string(call.name) + " ";
  }
  return out;
}

Process sleeper() {
  ProcessOptions p;
  p.argv = {"/bin/sleep", "600"};
  return spawn(p).value();
}

// A simtee that its guest has taken over, with the right to signal anybody: of all processes it can
// kill QEMU alone, and that only through the descriptor that it had.
TEST(Filter, LeavesTheEndOfQemuAndNoOtherProcess) {
  Process other = sleeper();
  const Fd others = pidfd_of(other);
  EXPECT_EQ(
      confined([&] {
        Process qemu = sleeper();
        const Fd mine = pidfd_of(qemu);
        const auto pair = make_socket_pair().value();
        const auto signal_by = [](int fd, int signal, unsigned flags) {
          return syscall(SYS_pidfd_send_signal, fd, signal, nullptr, flags);
        };
        if (!filter_calls(mine.get()).ok()) return std::string("filter");
        msghdr nothing{};
        char byte = 0;
        std::string wrong = unlike(
            true,
            {{"its number", [&] { return syscall(SYS_pidfd_open, other.pid(), 0); }},
             {"QEMU's number", [&] { return syscall(SYS_pidfd_open, qemu.pid(), 0); }},
             {"another pidfd", [&] { return signal_by(others.get(), SIGKILL, 0); }},
             {"another signal", [&] { return signal_by(mine.get(), SIGSTOP, 0); }},
             {"a group", [&] { return signal_by(mine.get(), SIGKILL, 4); }},
             {"kill", [&] { return kill(other.pid(), SIGKILL); }},
             {"kill of QEMU", [&] { return kill(qemu.pid(), SIGKILL); }},
             {"tgkill", [&] { return syscall(SYS_tgkill, other.pid(), other.pid(), SIGKILL); }},
             {"dup2", [&] { return dup2(others.get(), mine.get()); }},
             {"dup", [&] { return fcntl(others.get(), F_DUPFD, mine.get()); }},
             {"a sent descriptor",
              [&] { return recvmsg(pair.first.get(), &nothing, MSG_DONTWAIT); }},
             {"pidfd_getfd", [&] { return syscall(SYS_pidfd_getfd, others.get(), 0, 0); }},
             {"ptrace", [&] { return syscall(SYS_ptrace, 16, other.pid(), 0, 0); }},
             {"open", [&] { return open("/dev/null", O_RDONLY); }},
             {"fork", [&] { return syscall(SYS_fork); }},
             {"socket", [&] { return socket(AF_INET, SOCK_STREAM, 0); }},
             {"execve", [&] { return execl("/bin/true", "true", nullptr); }},
             {"code", [&] {
                const auto* at =
                    mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                return at == MAP_FAILED ? -1L : 0L;
              }}});
        wrong += unlike(false, {{"write", [&] { return write(pair.first.get(), "x", 1); }},
                                {"read", [&] { return read(pair.second.get(), &byte, 1); }},
                                {"its end", [&] { return signal_by(mine.get(), SIGKILL, 0); }}});
        const auto end = qemu.wait(-1);
        if (!end.ok() || !*end || (*end)->code != SIGKILL) wrong += "QEMU's end";
        return wrong;
      }),
      "");
  EXPECT_EQ(kill(other.pid(), 0), 0);
  EXPECT_FALSE(other.wait(0).value().has_value()) << "it was killed";
}

class CellOf : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root: mounts";
  }
  const SystemClock clock_;
  const Fd file_{memfd_create("log", MFD_CLOEXEC)};
  const Logger log_{file_.get(), "simtee", clock_};
};

// A file system of its own below /usr, as of a host that keeps /usr/local elsewhere.
TEST_F(CellOf, WhatIsMountedBelowUsrIsReadOnlyToo) {
  EXPECT_EQ(confined([&] {
              if (unshare(CLONE_NEWNS) != 0 ||
                  mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
                  mount("below", "/usr/local", "tmpfs", 0, nullptr) != 0) {
                return std::string("mount: ") + strerror(errno);
              }
              const Status entered = enter_cell({"/usr/bin/qemu-system-x86_64"}, log_);
              if (!entered.ok()) return entered.error().line();
              std::string wrong;
              for (const char* path : {"/usr/mine", "/usr/local/mine", "/mine"}) {
                const Fd made(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
                if (made.valid() || errno != EROFS) wrong += std::string(path) + " ";
              }
              return wrong;
            }),
            "");
}

// As in a container whose runtime covers parts of /proc.
TEST_F(CellOf, ThatHasTheHostsProcessesSaysSo) {
  EXPECT_EQ(confined([&] {
              const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
              constexpr scmp_datum_t kOfProc = MS_NOSUID | MS_NODEV | MS_NOEXEC;
              if (seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(mount), 1,
                                   SCMP_A3(SCMP_CMP_EQ, kOfProc)) != 0 ||
                  seccomp_load(filter) != 0) {
                return std::string("seccomp");
              }
              const Status entered = enter_cell({"/usr/bin/qemu-system-x86_64"}, log_);
              return entered.ok() ? std::string() : entered.error().line();
            }),
            "");
  Bytes text(4096);
  const ssize_t n = pread(file_.get(), text.data(), text.size(), 0);
  const std::string said(text.begin(), text.begin() + std::max<ssize_t>(n, 0));
  EXPECT_NE(said.find("whole-proc"), std::string::npos) << said;
}

}  // namespace
}  // namespace gbx::simtee
