#include "sandbox/seccomp_profile.h"

#include <errno.h>

namespace gbx::sandbox {
namespace {

// What programs that compute need (C, C++, Python with numpy, R, Java, Go), and no more. Left out
// on purpose, among others: ptrace, process_vm_*, pidfd_getfd, kcmp, process_madvise · bpf,
// perf_event_open, userfaultfd, io_uring_* · mount, umount2, fsopen, open_tree, move_mount,
// mount_setattr, pivot_root, chroot, setns, unshare · mknod, mknodat · keyctl, add_key, request_key
// · SysV and POSIX message IPC · set*id, setgroups, capset · seccomp, landlock_* · modify_ldt,
// iopl, ioperm · splice, tee, vmsplice · *_by_handle_at · clock and host name setting · real-time
// scheduling, mlockall · memfd_secret · setxattr and its kin.
constexpr std::string_view kAllowed[] = {
    // files and directories
    "access", "chdir", "chmod", "close", "close_range", "copy_file_range", "creat", "dup", "dup2",
    "dup3", "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat",
    "fchown", "fchownat", "chown", "lchown", "fcntl", "fdatasync", "fgetxattr", "flistxattr",
    "flock", "fstat", "fstatfs", "fsync", "ftruncate", "getcwd", "getdents", "getdents64",
    "getxattr", "lgetxattr", "link", "linkat", "listxattr", "llistxattr", "lseek", "lstat", "mkdir",
    "mkdirat", "newfstatat", "open", "openat", "openat2", "pread64", "preadv", "preadv2",
    "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv",
    "rename", "renameat", "renameat2", "rmdir", "sendfile", "stat", "statfs", "statx", "symlink",
    "symlinkat", "sync_file_range", "syncfs", "truncate", "umask", "unlink", "unlinkat", "utime",
    "utimensat", "utimes", "futimesat", "write", "writev",
    // waiting and events
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "eventfd", "eventfd2", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch",
    "pipe", "pipe2", "poll", "ppoll", "pselect6", "select", "signalfd", "signalfd4",
    "timerfd_create", "timerfd_gettime", "timerfd_settime",
    // memory
    "brk", "get_mempolicy", "madvise", "membarrier", "memfd_create", "mincore", "mlock", "mlock2",
    "mmap", "mprotect", "mremap", "msync", "munlock", "munmap", "pkey_alloc", "pkey_free",
    "pkey_mprotect",
    // processes and threads
    "execve", "execveat", "exit", "exit_group", "fork", "vfork", "futex", "futex_waitv",
    "get_robust_list", "get_thread_area", "getpgid", "getpgrp", "getpid", "getppid", "getpriority",
    "getsid", "gettid", "kill", "pidfd_open", "pidfd_send_signal", "restart_syscall", "rseq",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
    "sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity",
    "sched_yield", "set_robust_list", "set_tid_address", "setpgid", "setpriority", "setsid",
    "tgkill", "tkill", "wait4", "waitid",
    // signals
    "pause", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sigaltstack",
    // time
    "alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "getitimer", "gettimeofday",
    "nanosleep", "setitimer", "time", "timer_create", "timer_delete", "timer_getoverrun",
    "timer_gettime", "timer_settime", "times",
    // what one may know
    "capget", "getcpu", "getegid", "geteuid", "getgid", "getgroups", "getrandom", "getresgid",
    "getresuid", "getrlimit", "getrusage", "getuid", "prlimit64", "setrlimit", "sysinfo", "uname",
    // sockets: only AF_UNIX can be made (below), so these reach nothing but the container's own
    // processes
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen",
    "recvfrom", "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown"};

constexpr std::uint64_t kUnixFamily = 1;
constexpr ArgumentRule kArgumentRules[] = {
    {"socket", 0, Compare::kEqual, kUnixFamily},
    {"socketpair", 0, Compare::kEqual, kUnixFamily},
    // Any CLONE_NEW*: time 0x80 is part of the exit signal here and cannot be asked for.
    {"clone", 0, Compare::kMaskedZero, 0x7E020000},
    {"personality", 0, Compare::kEqual, 0},
    {"personality", 0, Compare::kEqual, 0xFFFFFFFF},  // asks
    {"arch_prctl", 0, Compare::kEqual, 0x1002},       // ARCH_SET_FS
    {"arch_prctl", 0, Compare::kEqual, 0x1003},       // ARCH_GET_FS
    // ARCH_CET_STATUS, asked by every glibc program
    {"arch_prctl", 0, Compare::kEqual, 0x3001},
    // A list, so that TIOCSTI, TIOCLINUX and all that is not known stay out.
    {"ioctl", 1, Compare::kEqual, 0x5401},      // TCGETS
    {"ioctl", 1, Compare::kEqual, 0x540F},      // TIOCGPGRP
    {"ioctl", 1, Compare::kEqual, 0x5413},      // TIOCGWINSZ
    {"ioctl", 1, Compare::kEqual, 0x541B},      // FIONREAD
    {"ioctl", 1, Compare::kEqual, 0x5421},      // FIONBIO
    {"ioctl", 1, Compare::kEqual, 0x5450},      // FIONCLEX
    {"ioctl", 1, Compare::kEqual, 0x5451},      // FIOCLEX
    {"prctl", 0, Compare::kEqual, 1},           // PR_SET_PDEATHSIG
    {"prctl", 0, Compare::kEqual, 2},           // PR_GET_PDEATHSIG
    {"prctl", 0, Compare::kEqual, 3},           // PR_GET_DUMPABLE
    {"prctl", 0, Compare::kEqual, 15},          // PR_SET_NAME
    {"prctl", 0, Compare::kEqual, 16},          // PR_GET_NAME
    {"prctl", 0, Compare::kEqual, 21},          // PR_GET_SECCOMP
    {"prctl", 0, Compare::kEqual, 23},          // PR_CAPBSET_READ
    {"prctl", 0, Compare::kEqual, 29},          // PR_SET_TIMERSLACK
    {"prctl", 0, Compare::kEqual, 30},          // PR_GET_TIMERSLACK
    {"prctl", 0, Compare::kEqual, 36},          // PR_SET_CHILD_SUBREAPER
    {"prctl", 0, Compare::kEqual, 37},          // PR_GET_CHILD_SUBREAPER
    {"prctl", 0, Compare::kEqual, 38},          // PR_SET_NO_NEW_PRIVS
    {"prctl", 0, Compare::kEqual, 39},          // PR_GET_NO_NEW_PRIVS
    {"prctl", 0, Compare::kEqual, 41},          // PR_SET_THP_DISABLE
    {"prctl", 0, Compare::kEqual, 42},          // PR_GET_THP_DISABLE
    {"prctl", 0, Compare::kEqual, 0x53564D41},  // PR_SET_VMA: names for anonymous memory
};

// libc falls back to clone, whose flags a filter can see.
constexpr ErrnoRule kErrnoRules[] = {{"clone3", ENOSYS}};

Json call_entry(std::string_view action) {
  Json entry;
  entry["action"] = action;
  entry["names"] = JsonArray{};
  return entry;
}

Json argument_entry(const ArgumentRule& rule) {
  const bool masked = rule.compare == Compare::kMaskedZero;
  Json argument;
  argument["index"] = static_cast<std::int64_t>(rule.argument);
  argument["value"] = static_cast<std::int64_t>(rule.value);
  if (masked) argument["valueTwo"] = 0;
  argument["op"] = masked ? "SCMP_CMP_MASKED_EQ" : "SCMP_CMP_EQ";
  Json entry = call_entry("SCMP_ACT_ALLOW");
  entry["names"].push_back(rule.call);
  entry["args"] = JsonArray{argument};
  return entry;
}

}  // namespace

std::span<const std::string_view> allowed_calls() { return kAllowed; }
std::span<const ArgumentRule> argument_rules() { return kArgumentRules; }
std::span<const ErrnoRule> errno_rules() { return kErrnoRules; }

Json seccomp_json() {
  Json calls(JsonArray{});
  Json plain = call_entry("SCMP_ACT_ALLOW");
  for (const std::string_view name : kAllowed) plain["names"].push_back(name);
  calls.push_back(plain);
  for (const ArgumentRule& rule : kArgumentRules) calls.push_back(argument_entry(rule));
  for (const ErrnoRule& rule : kErrnoRules) {
    Json entry = call_entry("SCMP_ACT_ERRNO");
    entry["names"].push_back(rule.call);
    entry["errnoRet"] = rule.error;
    calls.push_back(entry);
  }
  Json profile;
  profile["defaultAction"] = "SCMP_ACT_ERRNO";
  profile["defaultErrnoRet"] = EPERM;
  profile["architectures"] = JsonArray{Json("SCMP_ARCH_X86_64")};
  profile["syscalls"] = calls;
  return profile;
}

}  // namespace gbx::sandbox
