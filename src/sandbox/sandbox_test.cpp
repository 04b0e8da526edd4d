#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <set>
#include <sstream>
#include <thread>

#include "sandbox/oci_config.h"
#include "sandbox/seccomp_profile.h"
#include "sandbox/testing.h"

namespace gbx::sandbox {
namespace {

using testing::outside;
using testing::outside_program;
using testing::probe_spec;
using testing::run;
using testing::TestRoot;

class Sandbox : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string why = testing::cannot_run(GetParam());
    if (!why.empty()) GTEST_SKIP() << why;
  }
  ContainerSpec spec(std::vector<std::string> arguments) {
    return probe_spec(root_, std::move(arguments), GetParam());
  }
  RunResult probe(std::vector<std::string> arguments) { return run(spec(std::move(arguments))); }
  TestRoot root_;
};

TEST_P(Sandbox, RunsAProgramAndSaysHowItEnded) {
  RunResult r = probe({"do", "true"});
  EXPECT_EQ(r.outcome, Outcome::kExited) << r.error;
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(r.out.text, "ok\n");
  EXPECT_EQ(r.err.text, "");
  r = probe({"exit", "37"});
  EXPECT_EQ(r.outcome, Outcome::kExited);
  EXPECT_EQ(r.code, 37);
  // The exit code that a shell uses for SIGKILL is not a signal here.
  r = probe({"exit", "137"});
  EXPECT_EQ(r.outcome, Outcome::kExited);
  EXPECT_EQ(r.code, 137);
}

// ---- what a container may not do, each with a control outside that shows that the call as such
// works ----

struct Denied {
  const char* name;
  int error;
};
constexpr Denied kDenied[] = {{"socket-inet", EPERM},
                              {"socket-inet6", EPERM},
                              {"socket-netlink", EPERM},
                              {"socket-packet", EPERM},
                              {"socket-raw", EPERM},
                              {"socket-vsock", EPERM},
                              {"ptrace-traceme", EPERM},
                              {"process-vm-readv", EPERM},
                              {"pidfd-getfd", EPERM},
                              {"kcmp", EPERM},
                              {"bpf", EPERM},
                              {"perf", EPERM},
                              {"userfaultfd", EPERM},
                              {"io-uring", EPERM},
                              {"unshare-user", EPERM},
                              {"unshare-mount", EPERM},
                              {"unshare-files", EPERM},
                              {"clone-user", EPERM},
                              {"clone-net", EPERM},
                              {"clone-cgroup", EPERM},
                              {"clone3", ENOSYS},
                              {"setns", EPERM},
                              {"mount", EPERM},
                              {"umount", EPERM},
                              {"fsopen", EPERM},
                              {"open-tree", EPERM},
                              {"chroot", EPERM},
                              {"mknod", EPERM},
                              {"mkfifo", EPERM},
                              {"keyctl", EPERM},
                              {"add-key", EPERM},
                              {"request-key", EPERM},
                              {"shmget", EPERM},
                              {"msgget", EPERM},
                              {"semget", EPERM},
                              {"mq-open", EPERM},
                              {"setuid", EPERM},
                              {"setgroups", EPERM},
                              {"capset", EPERM},
                              {"personality", EPERM},
                              {"modify-ldt", EPERM},
                              {"arch-gs", EPERM},
                              {"splice", EPERM},
                              {"tee", EPERM},
                              {"vmsplice", EPERM},
                              {"name-to-handle", EPERM},
                              {"adjtimex", EPERM},
                              {"sethostname", EPERM},
                              {"sched-fifo", EPERM},
                              {"nice-20", EACCES},
                              {"mlockall", EPERM},
                              {"seccomp", EPERM},
                              {"landlock", EPERM},
                              {"dumpable", EPERM},
                              {"setxattr", EPERM}};

class SandboxDenies : public ::testing::TestWithParam<Denied> {
 protected:
  void SetUp() override {
    const std::string why = testing::cannot_run("crun");
    if (!why.empty()) GTEST_SKIP() << why;
  }
  TestRoot root_;
};
TEST_P(SandboxDenies, Call) {
  const RunOutput control = outside({"do", GetParam().name});
  if (!control.status.exited || control.status.code != 0) {
    // This kernel or machine lacks the call: no statement about the container can be made.
    GTEST_SKIP() << "the control outside does not succeed: " << control.out;
  }
  const RunResult r = run(probe_spec(root_, {"do", GetParam().name}));
  ASSERT_EQ(r.outcome, Outcome::kExited) << r.error;
  EXPECT_EQ(r.out.text, "errno=" + std::to_string(GetParam().error) + "\n");
  EXPECT_EQ(r.code, 10);
}
INSTANTIATE_TEST_SUITE_P(Calls, SandboxDenies, ::testing::ValuesIn(kDenied), [](const auto& i) {
  std::string name(i.param.name);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST_P(Sandbox, AllowsWhatProgramsNeed) {
  for (const char* call : {"socket-unix", "socketpair-unix", "clone-plain", "personality-ask"}) {
    const RunResult r = probe({"do", call});
    EXPECT_EQ(r.out.text, "ok\n") << call;
  }
}

TEST_P(Sandbox, TerminalInjectionIsFilteredBeforeTheDriverSeesIt) {
  // Outside the same call on the same kind of descriptor reaches the kernel: ENOTTY.
  EXPECT_EQ(outside({"do", "tiocsti"}).out, "errno=" + std::to_string(ENOTTY) + "\n");
  EXPECT_EQ(probe({"do", "tiocsti"}).out.text, "errno=" + std::to_string(EPERM) + "\n");
}

TEST_P(Sandbox, ForeignArchitecturesKill) {
  for (const char* kind : {"i386", "x32"}) {
    const RunResult r = probe({"foreign", kind});
    EXPECT_EQ(r.outcome, Outcome::kViolation) << kind << " " << r.out.text << r.error;
    EXPECT_EQ(r.code, SIGSYS) << kind;
  }
}

// Every call that the table does not name is made inside, and every one is refused.
TEST_P(Sandbox, EveryUnlistedCallIsRefused) {
  std::set<std::string_view> listed(allowed_calls().begin(), allowed_calls().end());
  for (const ArgumentRule& r : argument_rules()) listed.insert(r.call);
  for (const ErrnoRule& r : errno_rules()) listed.insert(r.call);
  std::string numbers;
  std::size_t count = 0;
  for (int nr = 0; nr < 462; ++nr) {
    // uretprobe and uprobe: the kernel lets them past every filter; outside a probe's trampoline
    // they do nothing.
    if (nr == 335 || nr == 336) continue;
    const std::unique_ptr<char, void (*)(void*)> name(
        seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, nr), free);
    if (name != nullptr && listed.count(name.get()) > 0) continue;
    numbers += (numbers.empty() ? "" : ",") + std::to_string(nr);
    ++count;
  }
  ASSERT_GT(count, 150U);
  const RunResult r = probe({"sweep", numbers});
  ASSERT_EQ(r.outcome, Outcome::kExited) << r.error;
  std::istringstream lines(r.out.text);
  std::size_t seen = 0;
  for (std::string line; std::getline(lines, line); ++seen) {
    const std::string answer = line.substr(line.find('=') + 1);
    // runc answers ENOSYS for calls that are newer than its library.
    EXPECT_TRUE(answer == std::to_string(EPERM) || answer == std::to_string(ENOSYS)) << line;
  }
  EXPECT_EQ(seen, count);
}

TEST(Probe, FindsWhatContainersNeedAndSaysWhy) {
  auto host = probe_host();
  ASSERT_TRUE(host.ok()) << host.error().line();
  EXPECT_EQ(host->cgroups == CgroupLayout::kNone, host->cgroup_mounts.empty());
  for (const auto& [controller, mount] : host->controllers) {
    EXPECT_TRUE(path_exists(mount)) << controller;
  }
  if (host->cgroups == CgroupLayout::kV1) {
    EXPECT_TRUE(path_exists(host->controllers["memory"] + "/memory.limit_in_bytes"));
  }
  if (host->cgroups == CgroupLayout::kV2) {
    EXPECT_TRUE(host->to_hide.empty());
  }
  for (const char* need : {"memory", "pids", "cpu"}) {
    const bool said =
        std::any_of(host->notes.begin(), host->notes.end(), [&](const std::string& n) {
          return n.find(std::string("controller ") + need) != std::string::npos;
        });
    EXPECT_EQ(said, host->controllers.count(need) == 0) << need;
  }
}

TEST(Spec, IsChecked) {
  ContainerSpec good;
  good.id = "a-1";
  good.rootfs = "/r";
  good.argv = {"/bin/x"};
  good.env = {"A=b"};
  good.mounts = {{"In_1.csv", "/data/in"}};
  good.uid_base = testing::kUidBase;
  good.out_bytes = good.tmp_bytes = 1 << 20;
  good.out_inodes = 16;
  good.memory_bytes = 64 << 20;
  good.cpu_millis = 1000;
  good.pids_max = 8;
  good.wall_timeout_ms = 1000;
  ASSERT_TRUE(check_spec(good).ok()) << check_spec(good).error().line();
  const std::pair<const char*, void (*)(ContainerSpec&)> bad[] = {
      {"id", [](ContainerSpec& s) { s.id = "../x"; }},
      {"id", [](ContainerSpec& s) { s.id = "-x"; }},
      {"id", [](ContainerSpec& s) { s.id = ""; }},
      {"rootfs", [](ContainerSpec& s) { s.rootfs = "relative"; }},
      {"rootfs", [](ContainerSpec& s) { s.rootfs = "/a/../b"; }},
      {"rootfs", [](ContainerSpec& s) { s.rootfs = std::string("/a\0b", 4); }},
      {"cwd", [](ContainerSpec& s) { s.cwd = "tmp"; }},
      {"cwd", [](ContainerSpec& s) { s.cwd = "/proc/self/fd/../x"; }},
      {"argv", [](ContainerSpec& s) { s.argv.clear(); }},
      {"argv", [](ContainerSpec& s) { s.argv = {std::string("a\0b", 3)}; }},
      {"argv", [](ContainerSpec& s) { s.argv = {"\xff"}; }},
      {"env", [](ContainerSpec& s) { s.env = {"NOVALUE"}; }},
      {"env", [](ContainerSpec& s) { s.env = {"=x"}; }},
      {"mounts", [](ContainerSpec& s) { s.mounts[0].name = ".."; }},
      {"mounts", [](ContainerSpec& s) { s.mounts[0].name = "a/b"; }},
      {"mounts", [](ContainerSpec& s) { s.mounts[0].host_path = "a"; }},
      {"mounts", [](ContainerSpec& s) { s.mounts.push_back(s.mounts[0]); }},
      {"uidBase", [](ContainerSpec& s) { s.uid_base = 65535; }},
      {"uid", [](ContainerSpec& s) { s.uid = 0; }},
      {"uid", [](ContainerSpec& s) { s.uid = 65536; }},
      {"outBytes", [](ContainerSpec& s) { s.out_bytes = 0; }},
      {"memoryBytes", [](ContainerSpec& s) { s.memory_bytes = 0; }},
      {"pidsMax", [](ContainerSpec& s) { s.pids_max = 0; }},
      {"cpuMillis", [](ContainerSpec& s) { s.cpu_millis = 0; }},
      {"wallTimeoutMs", [](ContainerSpec& s) { s.wall_timeout_ms = 0; }},
      {"logBytes", [](ContainerSpec& s) { s.log_bytes = -1; }}};
  for (const auto& [field, change] : bad) {
    ContainerSpec s = good;
    change(s);
    const Status status = check_spec(s);
    ASSERT_FALSE(status.ok()) << field;
    EXPECT_EQ(status.reason(), Reason::kBadValue) << field;
    EXPECT_NE(status.error().what.find(field), std::string::npos)
        << field << ": " << status.error().line();
    EXPECT_EQ(run_container(s).reason(), Reason::kBadValue) << field;
  }
}

// ---- who it is and what it sees ----

std::string status_line(const std::string& text, const std::string& key) {
  const std::size_t at = text.find(key + ":\t");
  if (at == std::string::npos) return "absent";
  const std::size_t start = at + key.size() + 2;
  return text.substr(start, text.find('\n', start) - start);
}

TEST_P(Sandbox, HasNoCapabilitiesAndNoNewPrivileges) {
  const RunResult r = probe({"show", "/proc/self/status"});
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_EQ(status_line(r.out.text, set), "0000000000000000") << set;
  }
  EXPECT_EQ(status_line(r.out.text, "NoNewPrivs"), "1");
  EXPECT_EQ(status_line(r.out.text, "Seccomp"), "2");
  EXPECT_EQ(status_line(r.out.text, "Uid"), "1000\t1000\t1000\t1000");
  EXPECT_EQ(status_line(r.out.text, "Gid"), "1000\t1000\t1000\t1000");
  EXPECT_EQ(status_line(r.out.text, "Groups"), " ");
  EXPECT_EQ(status_line(r.out.text, "Pid"), "1");
  // The control: outside, root's sets are not empty.
  EXPECT_NE(status_line(outside({"show", "/proc/self/status"}).out, "CapEff"), "0000000000000000");
}

TEST_P(Sandbox, NeverMapsHostRoot) {
  for (const char* map : {"/proc/self/uid_map", "/proc/self/gid_map"}) {
    std::istringstream in(probe({"show", map}).out.text);
    std::int64_t inside = -1, host = -1, size = -1;
    ASSERT_TRUE(in >> inside >> host >> size) << map;
    EXPECT_EQ(inside, 0);
    EXPECT_EQ(host, testing::kUidBase);
    EXPECT_EQ(size, 65536);
    std::string more;
    EXPECT_FALSE(in >> more) << map;
  }
}

TEST_P(Sandbox, RefusesAMappingOfHostIds) {
  ContainerSpec s = spec({"do", "true"});
  s.uid_base = 0;
  EXPECT_EQ(check_spec(s).reason(), Reason::kBadValue);
  s = spec({"do", "true"});
  s.uid = 0;
  EXPECT_EQ(check_spec(s).reason(), Reason::kBadValue);
}

TEST_P(Sandbox, HoldsThreeDescriptors) {
  EXPECT_EQ(probe({"list", "/proc/self/fd"}).out.text, "0\n1\n2\n");
  EXPECT_EQ(probe({"fds"}).out.text, "open=3\n");
}

// Runtimes give a container's streams to its user.
TEST_P(Sandbox, TheHostsDevicesStayTheHosts) {
  struct stat st {};
  ASSERT_EQ(stat("/dev/null", &st), 0);
  ASSERT_EQ(st.st_uid, 0U) << "somebody gave it away before";
  EXPECT_EQ(probe({"fds"}).out.text, "open=3\n");
  ASSERT_EQ(stat("/dev/null", &st), 0);
  EXPECT_EQ(st.st_uid, 0U);
  EXPECT_EQ(st.st_gid, 0U);
}

TEST_P(Sandbox, SeesOnlyProcessesInProc) {
  const RunResult r = probe({"list", "/proc"});
  std::istringstream in(r.out.text);
  for (std::string name; in >> name;) {
    EXPECT_TRUE(name == "1" || name == "self" || name == "thread-self") << name;
  }
  for (const char* path : {"/proc/sys/kernel/core_pattern", "/proc/kcore", "/proc/kallsyms",
                           "/proc/keys", "/proc/kmsg", "/proc/timer_list", "/proc/config.gz",
                           "/proc/sysrq-trigger", "/proc/mounts/../../sys/net"}) {
    EXPECT_EQ(probe({"write", path}).out.text.substr(0, 6), "errno=") << path;
  }
  EXPECT_EQ(outside({"write", "/proc/sys/kernel/core_pattern"}).out, "ok\n");
  EXPECT_EQ(probe({"write", "/proc/sys/kernel/core_pattern"}).out.text,
            "errno=" + std::to_string(ENOENT) + "\n");
}

TEST_P(Sandbox, HasNoSysAndAMinimalDev) {
  EXPECT_EQ(probe({"list", "/sys"}).out.text, "errno=" + std::to_string(ENOENT) + "\n");
  EXPECT_NE(outside({"list", "/sys"}).out.find("kernel"), std::string::npos);
  std::istringstream in(probe({"list", "/dev"}).out.text);
  std::set<std::string> names;
  for (std::string name; in >> name;) names.insert(name);
  EXPECT_EQ(names, (std::set<std::string>{"fd", "full", "null", "random", "stderr", "stdin",
                                          "stdout", "urandom", "zero"}));
  EXPECT_EQ(probe({"write", "/dev/null"}).out.text, "ok\n");
  EXPECT_EQ(probe({"put", "/dev/made", "x"}).out.text, "errno=" + std::to_string(EROFS) + "\n");
  std::istringstream root(probe({"list", "/"}).out.text);
  names.clear();
  for (std::string name; root >> name;) names.insert(name);
  EXPECT_EQ(names, (std::set<std::string>{"bin", "data", "dev", "out", "proc", "tmp"}));
}

TEST_P(Sandbox, MountsAreExactlyTheSpecified) {
  const std::string data = root_.path() + "/input";
  ASSERT_TRUE(make_dirs(data, 0755).ok());
  ASSERT_TRUE(write_file_atomic(data + "/a.csv", as_bytes("1,2\n"), 0644).ok());
  ContainerSpec s = spec({"show", "/proc/self/mountinfo"});
  s.mounts = {{"set", data}};
  std::map<std::string, std::string> options;
  std::istringstream in(run(s).out.text);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string id, parent, device, source, point, option;
    words >> id >> parent >> device >> source >> point >> option;
    options[point] = option;
  }
  std::set<std::string> points;
  for (const auto& [point, option] : options) {
    points.insert(point);
    EXPECT_NE(option.find("nosuid"), std::string::npos) << point << " " << option;
    if (point != "/dev") {
      EXPECT_NE(option.find("nodev"), std::string::npos) << point << " " << option;
    }
    if (point != "/") {
      EXPECT_NE(option.find("noexec"), std::string::npos) << point << " " << option;
    }
    if (point != "/out" && point != "/tmp" && point != "/proc") {
      EXPECT_EQ(option.substr(0, 2), "ro") << point << " " << option;
    }
  }
  EXPECT_EQ(points,
            (std::set<std::string>{"/", "/data", "/data/set", "/dev", "/out", "/proc", "/tmp"}));
  s = spec({"show", "/data/set/a.csv"});
  s.mounts = {{"set", data}};
  EXPECT_EQ(run(s).out.text, "1,2\n");
  s = spec({"put", "/data/set/b", "x"});
  s.mounts = {{"set", data}};
  EXPECT_EQ(run(s).out.text, "errno=" + std::to_string(EROFS) + "\n");
  EXPECT_EQ(probe({"put", "/bin/b", "x"}).out.text, "errno=" + std::to_string(EROFS) + "\n");
}

TEST_P(Sandbox, CannotOverwriteItsOwnOrTheRuntimesProgram) {
  EXPECT_EQ(probe({"write", "/proc/self/exe"}).code, 10);
  EXPECT_EQ(probe({"list", "/proc/1/root/proc/1"}).outcome, Outcome::kExited);
}

TEST_P(Sandbox, EnvironmentAndDirectoryAreTheSpecs) {
  ContainerSpec s = spec({"env"});
  s.env = {"PATH=/bin", "A=b c"};
  const RunResult r = run(s);
  std::istringstream in(r.out.text);
  std::set<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    lines.insert(line.substr(0, 5) == "HOME=" ? "HOME" : line);
  }
  lines.erase("HOME");  // runtimes set it when the image does not
  EXPECT_EQ(lines, (std::set<std::string>{"A=b c", "PATH=/bin"}));
  s = spec({"cwd"});
  s.cwd = "/tmp";
  EXPECT_EQ(run(s).out.text, "/tmp\n");
}

// ---- resources ----

TEST_P(Sandbox, ForkBombMeetsItsLimit) {
  const RunResult r = probe({"forkbomb"});
  EXPECT_EQ(r.outcome, Outcome::kExited) << r.error;
  int forks = 0, error = 0;
  ASSERT_EQ(2, sscanf(r.out.text.c_str(), "forks=%d errno=%d", &forks, &error)) << r.out.text;
  EXPECT_EQ(error, EAGAIN);
  EXPECT_LE(forks, 31);
  EXPECT_GE(forks, 20);
}

TEST_P(Sandbox, MemoryExhaustionKillsOnlyTheJob) {
  const RunResult r = probe({"membomb", "512"});
  EXPECT_EQ(r.outcome, Outcome::kOutOfMemory) << r.error << r.out.text;
  EXPECT_EQ(r.code, SIGKILL);
  EXPECT_GE(r.oom_kills, 1);
  EXPECT_GT(r.peak_memory_bytes, 48 << 20);
  EXPECT_LE(r.peak_memory_bytes, 66 << 20);
  // The control: half of the limit is there to be used.
  EXPECT_EQ(probe({"membomb", "32"}).out.text, "ok\n");
}

TEST_P(Sandbox, OutOfMemoryOfAChildIsSeen) {
  RunResult r = probe({"oom-child", "512", "3"});
  EXPECT_EQ(r.outcome, Outcome::kOutOfMemory) << r.error << r.out.text;
}

TEST_P(Sandbox, FillingOutIsENOSPC) {
  RunResult r = probe({"fill", "/out/big"});
  EXPECT_EQ(r.outcome, Outcome::kExited) << r.error;
  EXPECT_EQ(r.out.text.substr(r.out.text.find("errno=")), "errno=" + std::to_string(ENOSPC) + "\n");
  struct stat st {};
  ASSERT_EQ(0, fstatat(r.output.get(), "big", &st, AT_SYMLINK_NOFOLLOW));
  EXPECT_LE(st.st_size, 1 << 20);
  r = probe({"inodes", "/out"});
  EXPECT_EQ(r.out.text.substr(r.out.text.find("errno=")), "errno=" + std::to_string(ENOSPC) + "\n");
  r = probe({"fill", "/tmp/big"});
  EXPECT_EQ(r.out.text.substr(r.out.text.find("errno=")), "errno=" + std::to_string(ENOSPC) + "\n");
}

TEST_P(Sandbox, DescriptorsRunOut) {
  const RunResult r = probe({"openfds"});
  EXPECT_EQ(r.out.text, "dups=1021 errno=" + std::to_string(EMFILE) + "\n");
}

TEST_P(Sandbox, LogFloodIsCutAndDoesNotBlock) {
  ContainerSpec s = spec({"flood", "200000000"});
  s.log_bytes = 1000;
  RunResult r = run(s);
  EXPECT_EQ(r.outcome, Outcome::kExited) << r.error;
  EXPECT_EQ(r.out.total_bytes, 200'000'000);
  EXPECT_EQ(r.out.text, std::string(1000, 'L'));
  EXPECT_TRUE(r.out.truncated());
  s = spec({"flood", "1000"});
  s.log_bytes = 1000;
  r = run(s);
  EXPECT_EQ(r.out.text.size(), 1000U);
  EXPECT_FALSE(r.out.truncated());
  s = spec({"flood", "5"});
  s.log_bytes = 0;
  r = run(s);
  EXPECT_EQ(r.out.text, "");
  EXPECT_TRUE(r.out.truncated());
}

TEST_P(Sandbox, CpuQuotaIsEnforced) {
  ContainerSpec s = spec({"spin"});
  s.cpu_millis = 200;
  s.wall_timeout_ms = 2000;
  const RunResult r = run(s);
  EXPECT_EQ(r.outcome, Outcome::kTimeout) << r.error;
  EXPECT_GT(r.cpu_ms, 100);
  EXPECT_LT(r.cpu_ms, 800);
}

// ---- ends ----

TEST_P(Sandbox, TimeoutKillsDaemonsToo) {
  ContainerSpec s = spec({"daemon", "wait"});
  s.wall_timeout_ms = 500;
  const RunResult r = run(s);  // which asserts that no process is left
  EXPECT_EQ(r.outcome, Outcome::kTimeout) << r.error;
  EXPECT_EQ(r.out.text, "daemon runs\n");
  EXPECT_GE(r.run_ms, 500);
  EXPECT_LT(r.run_ms, 5000);
}

TEST_P(Sandbox, DaemonsDieWithTheFirstProcessAndOutIsFrozen) {
  const RunResult r = probe({"daemon"});
  EXPECT_EQ(r.outcome, Outcome::kExited) << r.error;
  ASSERT_TRUE(r.output.valid());
  struct stat st {};
  ASSERT_EQ(0, fstatat(r.output.get(), "daemon", &st, AT_SYMLINK_NOFOLLOW));
  EXPECT_EQ(st.st_uid, static_cast<uid_t>(testing::kUidBase + 1000));
  const int fd = openat(r.output.get(), "more", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  EXPECT_EQ(fd, -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(-1, unlinkat(r.output.get(), "daemon", 0));
  EXPECT_EQ(errno, EROFS);
}

TEST_P(Sandbox, OutputIsReadable) {
  const RunResult r = probe({"put", "/out/result.json", "{\"auc\":1}"});
  EXPECT_EQ(r.out.text, "ok\n") << r.error;
  auto fd = open_beneath(r.output.get(), "result.json", O_RDONLY);
  ASSERT_TRUE(fd.ok());
  EXPECT_EQ(as_text(*read_all(fd->get(), 100)), "{\"auc\":1}");
}

TEST_P(Sandbox, SignalsAndCrashesAreNotExits) {
  RunResult r = probe({"crash"});
  EXPECT_EQ(r.out.text, "core=0\n");
  EXPECT_EQ(r.outcome, Outcome::kSignaled) << r.error;
  EXPECT_EQ(r.code, SIGSEGV);
}

TEST_P(Sandbox, CancelEndsIt) {
  auto pipe = make_pipe();
  ASSERT_TRUE(pipe.ok());
  pipe->second.reset();  // cancelled before it began
  const RunResult r = run(spec({"sleep"}), pipe->first.get());
  EXPECT_EQ(r.outcome, Outcome::kCancelled) << r.error;
}

TEST_P(Sandbox, SetupErrorsAreNotExits) {
  ContainerSpec s = spec({});
  s.argv = {"/bin/absent"};
  RunResult r = run(s);
  EXPECT_EQ(r.outcome, Outcome::kSetupError);
  EXPECT_NE(r.error.find("sandbox-setup"), std::string::npos) << r.error;
  EXPECT_NE(r.error.find("/bin/absent"), std::string::npos) << r.error;
  s = spec({"do", "true"});
  s.rootfs = root_.path() + "/absent";
  r = run(s);
  EXPECT_EQ(r.outcome, Outcome::kSetupError);
  s = spec({"do", "true"});
  s.cwd = "/absent";
  r = run(s);
  EXPECT_NE(r.outcome, Outcome::kExited);
}

// An image with a link where something is to be mounted (the class of CVE-2021-30465) is refused,
// and nothing is made where the link points.
TEST_P(Sandbox, LinkInPlaceOfAMountPointIsRefused) {
  for (const char* name : {"out", "proc", "dev", "data", "tmp"}) {
    const std::string link = root_.rootfs() + "/" + name;
    ASSERT_TRUE(remove_tree(link).ok());
    const std::string victim = root_.path() + "/victim";
    ASSERT_EQ(0, symlink(victim.c_str(), link.c_str()));
    const RunResult r = probe({"do", "true"});
    EXPECT_EQ(r.outcome, Outcome::kSetupError);
    EXPECT_NE(r.error.find(std::string("at /") + name), std::string::npos) << r.error;
    EXPECT_FALSE(path_exists(victim));
    ASSERT_EQ(0, unlink(link.c_str()));
  }
}

RunResult run_again(const ContainerSpec& spec) {
  RunOptions options;
  options.program = testing::bin("glovebox-sandbox");
  auto result = run_container(spec, options);
  return result.ok() ? std::move(*result) : RunResult{};
}

// The caller dies: its container dies as well, and the supervisor still clears up.
TEST_P(Sandbox, DeathOfTheCallerKillsTheContainer) {
  const ContainerSpec s = spec({"daemon", "wait"});
  const pid_t caller = fork();
  ASSERT_GE(caller, 0);
  if (caller == 0) {
    RunOptions options;
    options.program = testing::bin("glovebox-sandbox");
    auto result = run_container(s, options);
    _exit(result.ok() ? 0 : 1);
  }
  const auto wait_until = [&](bool present) {
    for (int i = 0; i < 1000; ++i) {
      auto left = residue(s.id);
      if (left.ok() && !left->empty() == present) return true;
      poll(nullptr, 0, 10);
    }
    return false;
  };
  const auto processes = [&] {
    auto left = residue(s.id);
    std::size_t n = 0;
    for (const std::string& line : left.ok() ? *left : std::vector<std::string>{}) {
      n += line.rfind("process ", 0) == 0;
    }
    return n;
  };
  EXPECT_TRUE(wait_until(true));
  // While the runtime sets up, its own processes come and go in the container's cgroup: wait until
  // the count stays.
  for (int i = 0, steady = 0; i < 1000 && steady < 20; ++i) {
    steady = processes() >= 2 ? steady + 1 : 0;
    poll(nullptr, 0, 10);
  }
  EXPECT_GE(processes(), 2U);
  // The control: residue() sees every kind of thing while the container runs.
  auto during = residue(s.id);
  ASSERT_TRUE(during.ok());
  for (const char* kind : {"process ", "cgroup ", "mount "}) {
    EXPECT_TRUE(std::any_of(during->begin(), during->end(), [&](const std::string& l) {
      return l.rfind(kind, 0) == 0;
    })) << kind;
  }
  // A second container of that id is refused, and does not disturb the first.
  EXPECT_NE(run_again(s).error.find("a container with this id exists"), std::string::npos);
  EXPECT_GE(processes(), 2U);
  kill(caller, SIGKILL);
  EXPECT_EQ(caller, waitpid(caller, nullptr, 0));
  EXPECT_TRUE(wait_until(false));
  auto left = residue(s.id);
  ASSERT_TRUE(left.ok());
  EXPECT_TRUE(left->empty()) << left->front();
}

// The supervisor itself is killed: the kernel ends the container with it.
TEST_P(Sandbox, DeathOfTheSupervisorKillsTheContainer) {
  ContainerSpec s = spec({"daemon", "wait"});
  const pid_t caller = fork();
  ASSERT_GE(caller, 0);
  if (caller == 0) {
    RunOptions options;
    options.program = testing::bin("glovebox-sandbox");
    auto result = run_container(s, options);
    _exit(result.ok() ? 0 : 7);
  }
  const auto processes = [&] {
    auto left = residue(s.id);
    std::size_t n = 0;
    for (const std::string& line : left.ok() ? *left : std::vector<std::string>{}) {
      n += line.rfind("process ", 0) == 0;
    }
    return n;
  };
  for (int i = 0, steady = 0; i < 1000 && steady < 20; ++i) {
    steady = processes() >= 2 ? steady + 1 : 0;
    poll(nullptr, 0, 10);
  }
  ASSERT_GE(processes(), 2U);
  auto children = read_text_file(
      "/proc/" + std::to_string(caller) + "/task/" + std::to_string(caller) + "/children", 4096);
  ASSERT_TRUE(children.ok());
  const auto supervisor = static_cast<pid_t>(strtol(children->c_str(), nullptr, 10));
  ASSERT_GT(supervisor, 1);
  kill(supervisor, SIGKILL);
  int status = 0;
  EXPECT_EQ(caller, waitpid(caller, &status, 0));
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7);  // an Error, not an outcome
  for (int i = 0; i < 500 && processes() > 0; ++i) poll(nullptr, 0, 10);
  EXPECT_EQ(processes(), 0U);
  // What a killed supervisor cannot do itself.
  EXPECT_TRUE(clear_residue(s.id).ok());
  auto left = residue(s.id);
  ASSERT_TRUE(left.ok());
  EXPECT_TRUE(left->empty()) << left->front();
}

// A program that ends at once is read all the same: a dead process tells until it is reaped.
TEST_P(Sandbox, EveryControlIsReadBackAndTheRuntimeNamesItsVersion) {
  const auto names = control_names();
  const std::set<std::string> all(names.begin(), names.end());
  const RunOutput version = outside_program(
      {"/bin/sh", "-c", "PATH=/usr/bin:/usr/sbin exec " + std::string(GetParam()) + " --version"});
  for (int i = 0; i < 5; ++i) {
    const RunResult r = probe({"do", "true"});
    ASSERT_EQ(r.outcome, Outcome::kExited) << r.error;
    EXPECT_EQ(std::set<std::string>(r.controls.begin(), r.controls.end()), all);
    EXPECT_EQ(r.controls.size(), all.size());
    ASSERT_EQ(r.runtime.rfind(std::string(GetParam()) + " ", 0), 0U) << r.runtime;
    const std::string number = r.runtime.substr(r.runtime.find(' ') + 1);
    EXPECT_FALSE(number.empty());
    EXPECT_NE(version.out.find("version " + number + "\n"), std::string::npos) << version.out;
  }
}

// What a program in an enclosure forks stays in there, whatever sessions and parents it gives
// itself.
TEST(Enclosure, HoldsEverythingThatIsForkedInIt) {
  const std::string why = testing::cannot_run("crun");
  if (!why.empty()) GTEST_SKIP() << why;
  const std::string id = "test-enclosure-" + std::to_string(getpid());
  const Fd procs = testing::must(make_enclosure(id));
  EXPECT_EQ(make_enclosure(id).reason(), Reason::kSandboxSetup);
  ProcessOptions o;
  o.argv = {"/bin/sh", "-c", "setsid sleep 600 & (setsid sleep 600 &) ; exec sleep 600"};
  o.env = {{"PATH", "/usr/bin:/bin"}};
  o.cgroup_procs = procs.get();
  Process child = testing::must(spawn(o));
  const auto count = [&] {
    auto left = testing::must(residue(id));
    return std::count_if(left.begin(), left.end(),
                         [](const std::string& l) { return l.rfind("process ", 0) == 0; });
  };
  for (int i = 0; i < 500 && count() < 3; ++i) poll(nullptr, 0, 10);
  EXPECT_GE(count(), 3);
  std::thread reaper([&] { EXPECT_TRUE(child.wait(10'000).ok()); });  // a cgroup lists the unreaped
  EXPECT_TRUE(clear_residue(id).ok());
  reaper.join();
  const auto left = testing::must(residue(id));
  EXPECT_TRUE(left.empty()) << left.front();
}

INSTANTIATE_TEST_SUITE_P(Runtimes, Sandbox, ::testing::Values("crun", "runc"),
                         [](const auto& i) { return std::string(i.param); });

}  // namespace
}  // namespace gbx::sandbox
