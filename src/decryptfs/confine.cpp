#include "decryptfs/confine.h"

#include <errno.h>
#include <linux/landlock.h>
#include <malloc.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/os.h"

namespace gbx::decryptfs {

void steady_allocator() {
  (void)mallopt(M_ARENA_MAX, 1);
  (void)mallopt(M_TRIM_THRESHOLD, -1);
}

Result<bool> confine_files(const StoreLeft& store) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return io_error("no_new_privs", errno);
  // SAFETY: Landlock has no libc wrappers; the structures are initialised and their sizes passed.
  landlock_ruleset_attr attr{};
  attr.handled_access_fs =
      LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE |
      LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
      LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
      LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
      LANDLOCK_ACCESS_FS_MAKE_SYM;
  Fd rules(static_cast<int>(syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0)));
  if (!rules.valid()) {
    if (errno == ENOSYS || errno == EOPNOTSUPP) return false;
    return io_error("landlock", errno);
  }
  landlock_path_beneath_attr beneath{};
  beneath.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE;
  beneath.parent_fd = store.fd;
  if (store.kind == StoreKind::kDirectory &&
      syscall(SYS_landlock_add_rule, rules.get(), LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) != 0) {
    return io_error("landlock rule", errno);
  }
  if (syscall(SYS_landlock_restrict_self, rules.get(), 0) != 0) return io_error("landlock", errno);
  return true;
}

namespace {

struct Filter {
  scmp_filter_ctx context = seccomp_init(SCMP_ACT_KILL_PROCESS);
  int error = 0;
  ~Filter() { seccomp_release(context); }
  template <class... Conditions>
  void allow(int call, Conditions... conditions) {
    const int r =
        seccomp_rule_add(context, SCMP_ACT_ALLOW, call, sizeof...(conditions), conditions...);
    if (error == 0) error = r;
  }
  void allow_ciphertext(const StoreLeft& store) {
    const auto only_it = SCMP_A0(SCMP_CMP_EQ, static_cast<scmp_datum_t>(store.fd), 0);
    switch (store.kind) {
      case StoreKind::kNone:
        return;
      case StoreKind::kVolume:
        allow(SCMP_SYS(pread64), only_it);
        return;
      case StoreKind::kDirectory:
        for (const int call : {SCMP_SYS(pread64), SCMP_SYS(fstat), SCMP_SYS(newfstatat)}) {
          allow(call);
        }
        allow(SCMP_SYS(openat2), only_it);
        return;
    }
  }
};

}  // namespace

Status confine_syscalls(const StoreLeft& store) {
  Filter f;
  if (f.context == nullptr) return fail(Reason::kSandboxSetup, "seccomp_init");
  // FUSE requests and answers, audit lines.
  for (const int call : {SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(close)}) {
    f.allow(call);
  }
  f.allow_ciphertext(store);
  // Memory, never executable; threads that exist, never new ones.
  f.allow(SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  f.allow(SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  // Pages for secrets, where the kernel has them.
  f.allow(static_cast<int>(SYS_memfd_secret));
  f.allow(SCMP_SYS(ftruncate));
  for (const int call : {SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(mlock),
                         SCMP_SYS(munlock), SCMP_SYS(brk), SCMP_SYS(futex), SCMP_SYS(sched_yield),
                         SCMP_SYS(clock_gettime), SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigreturn),
                         SCMP_SYS(rt_sigprocmask), SCMP_SYS(gettid), SCMP_SYS(getpid),
                         SCMP_SYS(tgkill), SCMP_SYS(exit), SCMP_SYS(exit_group)}) {
    f.allow(call);
  }
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  // The sanitizers' own needs; such builds are for tests only.
  for (const int call : {SCMP_SYS(pipe2), SCMP_SYS(sigaltstack), SCMP_SYS(rt_sigaction),
                         SCMP_SYS(prctl), SCMP_SYS(readlink), SCMP_SYS(openat), SCMP_SYS(clone),
                         SCMP_SYS(sched_getaffinity), SCMP_SYS(getrandom), SCMP_SYS(open),
                         SCMP_SYS(ioctl), SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday)}) {
    f.allow(call);
  }
#endif
  if (f.error == 0) f.error = seccomp_attr_set(f.context, SCMP_FLTATR_CTL_NNP, 1);
  if (f.error == 0) f.error = seccomp_attr_set(f.context, SCMP_FLTATR_CTL_TSYNC, 1);
  if (f.error == 0) f.error = seccomp_load(f.context);
  if (f.error != 0) {
    return fail(Reason::kSandboxSetup, "seccomp: error " + std::to_string(-f.error));
  }
  return ok_status();
}

}  // namespace gbx::decryptfs
