#include "simtee/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/os.h"

namespace gbx::simtee {

namespace {

Error broken(const std::string& what) {
  return fail(Reason::kSandboxSetup, what + ": " + strerror(errno));
}

// A folder that every host has and in which nothing of QEMU lies: the new root is put over it.
const std::string kRoot = "/sys";

// Kernels from 5.12 on. One that knows the call misses its argument.
bool seals_whole_trees() { return mount_setattr(-1, "", 0, nullptr, 0) != 0 && errno == EINVAL; }

Status bind_read_only(const std::string& path) {
  const std::string at = kRoot + path;
  struct stat s {};
  if (stat(path.c_str(), &s) != 0) return broken(path);
  if (S_ISDIR(s.st_mode)) {
    GBX_TRY(make_dirs(at, 0755));
  } else {
    GBX_TRY(make_dirs(at.substr(0, at.rfind('/')), 0755));
    GBX_TRY(write_file_atomic(at, ByteView(), 0644));
  }
  // What is mounted below comes along only where it can be made read-only with the rest.
  const bool deep = seals_whole_trees();
  if (mount(path.c_str(), at.c_str(), nullptr, MS_BIND | (deep ? MS_REC : 0), nullptr) != 0) {
    return broken("mount of " + path);
  }
  constexpr unsigned long kFlags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV;
  mount_attr sealed{};
  sealed.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
  const int done = deep ? mount_setattr(AT_FDCWD, at.c_str(), AT_RECURSIVE, &sealed, sizeof sealed)
                        : mount(nullptr, at.c_str(), nullptr, kFlags, nullptr);
  return done == 0 ? ok_status() : Status(broken("mount of " + path));
}

// Links where /lib and its like are links into /usr, and the folders where they are not.
Status add_libraries() {
  for (const std::string path : {"/bin", "/lib", "/lib32", "/lib64", "/libx32"}) {
    char target[256];
    const ssize_t n = readlink(path.c_str(), target, sizeof target);
    if (n > 0 && n < static_cast<ssize_t>(sizeof target)) {
      const std::string to(target, static_cast<std::size_t>(n));
      if (symlink(to.c_str(), (kRoot + path).c_str()) != 0) return broken("link " + path);
    } else if (path_exists(path)) {
      GBX_TRY(bind_read_only(path));
    }
  }
  for (const std::string path : {"/etc/ld.so.cache", "/etc/alternatives"}) {
    if (path_exists(path)) GBX_TRY(bind_read_only(path));
  }
  return ok_status();
}

Status add_program(const std::string& qemu) {
  GBX_TRY(bind_read_only("/usr"));
  if (qemu.starts_with("/usr/")) return ok_status();
  // A QEMU of one's own: <prefix>/bin/qemu-system-x86_64 with <prefix>/share beside it.
  const std::string folder = qemu.substr(0, qemu.rfind('/'));
  const std::size_t end = folder.rfind('/');
  return bind_read_only(end == std::string::npos || end == 0 ? folder : folder.substr(0, end));
}

Status add_device(const std::string& name, uid_t owner, mode_t mode) {
  struct stat s {};
  const std::string path = "/dev/" + name;
  if (stat(path.c_str(), &s) != 0) return broken(path);
  if (!S_ISCHR(s.st_mode)) {
    return fail(Reason::kSandboxSetup, path).with("a character device", "something else");
  }
  const std::string at = kRoot + path;
  if (mknod(at.c_str(), S_IFCHR | mode, s.st_rdev) != 0 || chmod(at.c_str(), mode) != 0 ||
      chown(at.c_str(), owner, owner) != 0) {
    return broken("device " + path);
  }
  return ok_status();
}

Status add_devices(const Cell& cell) {
  GBX_TRY(make_dirs(kRoot + "/dev", 0755));
  for (const char* name : {"null", "urandom"}) GBX_TRY(add_device(name, 0, 0666));
  return cell.kvm ? add_device("kvm", cell.uid, 0600) : ok_status();
}

// QEMU opens firmware, kernel and initrd by /proc/self/fd.
Status add_proc(const Logger& log) {
  const std::string at = kRoot + "/proc";
  GBX_TRY(make_dirs(at, 0755));
  constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  // `subset` first: a kernel before 5.8 refuses it before it looks at `hidepid`, which there would
  // be the whole host's.
  if (mount("proc", at.c_str(), "proc", kFlags, "subset=pid,hidepid=2") == 0) return ok_status();
  const std::string why = strerror(errno);
  if (mount("/proc", at.c_str(), nullptr, MS_BIND, nullptr) != 0) return broken("mount of /proc");
  log.warn("whole-proc", {{"what", "QEMU sees the processes of this host in /proc"}, {"why", why}});
  return ok_status();
}

Status enter_root() {
  if (chdir(kRoot.c_str()) != 0) return broken(kRoot);
  // The old root lies over the new one, and is let go of.
  if (syscall(SYS_pivot_root, ".", ".") != 0) return broken("pivot_root");
  if (umount2(".", MNT_DETACH) != 0 || chdir("/") != 0) return broken("the host's root");
  constexpr unsigned long kFlags = MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC;
  if (mount(nullptr, "/", nullptr, kFlags, nullptr) != 0) return broken("the root, read-only");
  return ok_status();
}

}  // namespace

Status enter_cell(const Cell& cell, const Logger& log) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return broken("no_new_privs");
  if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) != 0) {
    return broken("namespaces");
  }
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return broken("mounts");
  if (mount("simtee", kRoot.c_str(), "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=1m") != 0) {
    return broken("root of the cell");
  }
  GBX_TRY(add_program(cell.qemu));
  GBX_TRY(add_libraries());
  GBX_TRY(add_devices(cell));
  GBX_TRY(add_proc(log));
  return enter_root();
}

Status drop_ids(uid_t uid) {
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) return broken("capabilities");
  if (setgroups(0, nullptr) != 0 || setresgid(uid, uid, uid) != 0 ||
      setresuid(uid, uid, uid) != 0) {
    return broken("user id");
  }
  __user_cap_header_struct header{};
  header.version = _LINUX_CAPABILITY_VERSION_3;
  __user_cap_data_struct data[2]{};
  data[0].effective = data[0].permitted = 1U << CAP_KILL;
  // SAFETY: there is no wrapper in libc; header and data have the sizes of that version.
  if (syscall(SYS_capset, &header, data) != 0) return broken("capabilities");
  // The change of ids made it readable by this id again, where the host says so.
  return harden_process();
}

Status filter_calls(int qemu) {
  // An answer instead of the end: a call that nobody thought of costs a quote or a line of the log,
  // and not the machine.
  const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
  if (filter == nullptr) return fail(Reason::kSandboxSetup, "seccomp_init");
  int error = 0;
  const auto allow = [&](int call, auto... conditions) {
    const int r =
        seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, sizeof...(conditions), conditions...);
    if (error == 0) error = r;
  };
  for (const int call :
       // Not recvmsg: QEMU could send a descriptor of another process along.
       {SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(recvfrom), SCMP_SYS(sendto),
        SCMP_SYS(shutdown), SCMP_SYS(close), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(munmap),
        SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(mlock), SCMP_SYS(munlock),
        SCMP_SYS(futex), SCMP_SYS(sched_yield), SCMP_SYS(clock_gettime), SCMP_SYS(getrandom),
        SCMP_SYS(wait4), SCMP_SYS(waitid), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask),
        SCMP_SYS(rt_sigaction), SCMP_SYS(gettid), SCMP_SYS(getpid), SCMP_SYS(restart_syscall),
        SCMP_SYS(exit), SCMP_SYS(exit_group),
        // A thread that has been started, and is still on its way to its function.
        SCMP_SYS(rseq), SCMP_SYS(set_robust_list)}) {
    allow(call);
  }
  allow(SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  allow(SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  // Without flags, as there is one for a whole group. The kernel looks at 32 bits of each.
  constexpr scmp_datum_t kInt = UINT32_MAX;
  allow(SCMP_SYS(pidfd_send_signal),
        SCMP_A0(SCMP_CMP_MASKED_EQ, kInt, static_cast<scmp_datum_t>(qemu)),
        SCMP_A1(SCMP_CMP_MASKED_EQ, kInt, SIGKILL), SCMP_A3(SCMP_CMP_MASKED_EQ, kInt, 0));
  if (error == 0) error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
  if (error == 0) error = seccomp_load(filter);
  seccomp_release(filter);
  if (error == 0) return ok_status();
  return fail(Reason::kSandboxSetup, "seccomp: error " + std::to_string(-error));
}

}  // namespace gbx::simtee
