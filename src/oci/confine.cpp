#include "oci/confine.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include "base/os.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GBX_SANITIZED 1
#else
#define GBX_SANITIZED 0
#endif

namespace gbx::oci {
namespace {

// Debian 12's header knows ABI 2 or 3; the numbers are the kernel's.
struct RulesetAttr {
  std::uint64_t handled_access_fs = 0;
  std::uint64_t handled_access_net = 0;  // ABI 4
  std::uint64_t scoped = 0;              // ABI 6
};
constexpr std::uint64_t kRefer = 1U << 13;     // ABI 2
constexpr std::uint64_t kTruncate = 1U << 14;  // ABI 3
constexpr std::uint64_t kIoctlDev = 1U << 15;  // ABI 5
constexpr std::uint64_t kBaseRights = (1U << 13) - 1;
constexpr std::uint64_t kRead = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr std::uint64_t kBuild = kRead | LANDLOCK_ACCESS_FS_WRITE_FILE |
                                 LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
                                 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
                                 LANDLOCK_ACCESS_FS_MAKE_SYM | kRefer;

Error broken(const std::string& what, int error) {
  return fail(Reason::kSandboxSetup, what + ": " + strerror(error));
}

Status limit(int resource, std::uint64_t value, const char* name, std::uint64_t more = 0) {
  const rlimit l{value, value + more};
  if (setrlimit(static_cast<__rlimit_resource>(resource), &l) != 0) {
    return broken(std::string("limit of ") + name, errno);
  }
  return ok_status();
}

Status allow_beneath(int ruleset, int fd, std::uint64_t rights) {
  landlock_path_beneath_attr rule{};
  rule.allowed_access = rights;
  rule.parent_fd = fd;
  // SAFETY: no libc wrapper; the attribute is fully initialised.
  if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0) {
    return broken("Landlock rule", errno);
  }
  return ok_status();
}

Result<int> restrict_files(const ConfineOptions& o) {
  // SAFETY: no libc wrapper; with this flag the call only answers the ABI.
  const long abi =
      syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi < 2) {
    return fail(Reason::kSandboxSetup,
                "the kernel lacks Landlock with hard links (ABI 2, Linux 5.19)")
        .with("at least 2", std::to_string(abi))
        .hint("boot with \"landlock\" in the lsm= list");
  }
  RulesetAttr attr;
  attr.handled_access_fs =
      kBaseRights | kRefer | (abi >= 3 ? kTruncate : 0) | (abi >= 5 ? kIoctlDev : 0);
  std::size_t size = sizeof attr.handled_access_fs;
  if (abi >= 4) {
    attr.handled_access_net = 3;  // bind and connect of TCP
    size = sizeof attr.handled_access_fs + sizeof attr.handled_access_net;
  }
  if (abi >= 6) {
    attr.scoped = 3;  // abstract sockets and signals stay inside
    size = sizeof attr;
  }
  // SAFETY: no libc wrapper; `size` covers exactly the fields that this ABI knows.
  const Fd ruleset(static_cast<int>(syscall(SYS_landlock_create_ruleset, &attr, size, 0)));
  if (!ruleset.valid()) return broken("Landlock ruleset", errno);
  GBX_TRY(allow_beneath(ruleset.get(), o.layout_fd, kRead));
  GBX_TRY(allow_beneath(ruleset.get(), o.target_fd, kBuild | (abi >= 3 ? kTruncate : 0)));
  if (syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0) return broken("Landlock", errno);
  return static_cast<int>(abi);
}

Status drop_capabilities() {
  for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; ++cap) {
    if (prctl(PR_CAPBSET_DROP, cap) != 0) return broken("bounding set", errno);
  }
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) {
    return broken("ambient set", errno);
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  data[0].permitted = (1U << CAP_CHOWN) | (1U << CAP_FOWNER) | (1U << CAP_DAC_OVERRIDE);
  data[0].effective = data[0].permitted;
  // SAFETY: no libc wrapper; version 3 takes two data elements.
  if (syscall(SYS_capset, &header, data) != 0) return broken("capabilities", errno);
  return ok_status();
}

Status restrict_syscalls() {
  static constexpr int kAllowed[] = {SCMP_SYS(read),
                                     SCMP_SYS(pread64),
                                     SCMP_SYS(write),
                                     SCMP_SYS(close),
                                     SCMP_SYS(lseek),
                                     SCMP_SYS(openat),
                                     SCMP_SYS(openat2),
                                     SCMP_SYS(fstat),
                                     SCMP_SYS(newfstatat),
                                     SCMP_SYS(statx),
                                     SCMP_SYS(getdents64),
                                     SCMP_SYS(readlinkat),
                                     SCMP_SYS(mkdirat),
                                     SCMP_SYS(unlinkat),
                                     SCMP_SYS(linkat),
                                     SCMP_SYS(symlinkat),
                                     SCMP_SYS(fchown),
                                     SCMP_SYS(fchownat),
                                     SCMP_SYS(fchmod),
                                     SCMP_SYS(utimensat),
                                     SCMP_SYS(fcntl),
                                     SCMP_SYS(fadvise64),
                                     SCMP_SYS(brk),
                                     SCMP_SYS(mmap),
                                     SCMP_SYS(munmap),
                                     SCMP_SYS(mremap),
                                     SCMP_SYS(mprotect),
                                     SCMP_SYS(madvise),
                                     SCMP_SYS(futex),
                                     SCMP_SYS(getrandom),
                                     SCMP_SYS(clock_gettime),
                                     SCMP_SYS(getpid),
                                     SCMP_SYS(gettid),
                                     SCMP_SYS(tgkill),
                                     SCMP_SYS(rt_sigprocmask),
                                     SCMP_SYS(rt_sigaction),
                                     SCMP_SYS(rt_sigreturn),
                                     SCMP_SYS(restart_syscall),
                                     SCMP_SYS(exit),
                                     SCMP_SYS(exit_group)};
  const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
  if (filter == nullptr) return fail(Reason::kSandboxSetup, "seccomp filter");
  int rc = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  for (const int call : kAllowed) {
    if (rc == 0) rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
  }
  if (rc == 0) rc = seccomp_load(filter);
  seccomp_release(filter);
  if (rc != 0) return broken("seccomp filter", -rc);
  return ok_status();
}

}  // namespace

Result<Confinement> confine(const ConfineOptions& o) {
  umask(0);
  GBX_TRY(limit(RLIMIT_CORE, 0, "core dumps"));
  GBX_TRY(limit(RLIMIT_NOFILE, 512, "descriptors"));
  GBX_TRY(limit(RLIMIT_FSIZE, o.max_file_bytes, "file size"));
  // The soft limit says SIGXCPU; where both are one, the kernel says SIGKILL, as anybody could.
  GBX_TRY(limit(RLIMIT_CPU, o.cpu_seconds, "CPU time", 60));
  if (GBX_SANITIZED == 0) GBX_TRY(limit(RLIMIT_AS, std::uint64_t{1} << 30, "memory"));
  if (prctl(PR_SET_DUMPABLE, 0) != 0) return broken("dumpable", errno);
  if (unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) != 0) return broken("namespaces", errno);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return broken("no_new_privs", errno);
  Confinement c;
  GBX_ASSIGN(c.landlock_abi, restrict_files(o));
  GBX_TRY(drop_capabilities());
  if (GBX_SANITIZED == 0) {
    GBX_TRY(restrict_syscalls());
    c.seccomp = true;
  }
  return c;
}

}  // namespace gbx::oci
