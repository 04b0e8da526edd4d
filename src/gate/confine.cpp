#include "gate/confine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/os.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GBX_GATE_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define GBX_GATE_SANITIZED 1
#endif
#endif
#ifndef GBX_GATE_SANITIZED
#define GBX_GATE_SANITIZED 0
#endif

#if defined(__x86_64__)
#define GBX_AUDIT_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define GBX_AUDIT_ARCH AUDIT_ARCH_AARCH64
#else
#error "the gate's seccomp filter knows x86-64 and aarch64"
#endif

namespace gbx::gate {
namespace {

constexpr std::uint32_t kX32Bit = 0x40000000;

// What parsing, reading beneath a descriptor and one write need.
constexpr long kAllowed[] = {
    SYS_read,       SYS_pread64,      SYS_write,         SYS_lseek,           SYS_close,
    SYS_openat2,    SYS_getdents64,   SYS_fstat,         SYS_newfstatat,      SYS_munmap,
    SYS_mremap,     SYS_brk,          SYS_madvise,       SYS_futex,           SYS_exit,
    SYS_exit_group, SYS_rt_sigreturn, SYS_clock_gettime, SYS_restart_syscall,
};
// Allowed without PROT_EXEC in their third argument.
constexpr long kAllowedNoExec[] = {SYS_mmap, SYS_mprotect};

Status limit(int what, rlim_t value, const char* name) {
  const rlimit l{value, value};
  if (setrlimit(static_cast<__rlimit_resource>(what), &l) != 0) return io_error(name, errno);
  return ok_status();
}

Status set_limits(const ConfineOptions& o) {
  if (GBX_GATE_SANITIZED == 0) GBX_TRY(limit(RLIMIT_AS, o.memory_bytes, "limit of memory"));
  GBX_TRY(limit(RLIMIT_CPU, o.cpu_seconds, "limit of CPU time"));
  GBX_TRY(limit(RLIMIT_FSIZE, 0, "limit of file size"));
  GBX_TRY(limit(RLIMIT_NPROC, 0, "limit of processes"));
  return limit(RLIMIT_NOFILE, 256, "limit of descriptors");
}

// The ABI version in force, 0 where the kernel has no Landlock.
Result<std::int64_t> landlock(const ConfineOptions& o) {
  // SAFETY: with these arguments the call only returns a number.
  const long abi =
      syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi <= 0) return std::int64_t{0};
  const int rights = abi == 1 ? 13 : abi == 2 ? 14 : abi < 5 ? 15 : 16;
  struct landlock_ruleset_attr attr {};
  attr.handled_access_fs = (std::uint64_t{1} << rights) - 1;
  // SAFETY: attr lives through the call and its size is passed.
  const Fd ruleset(static_cast<int>(syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0)));
  if (!ruleset.valid()) return io_error("landlock_create_ruleset", errno);
  for (const int folder : o.folders) {
    struct landlock_path_beneath_attr beneath {};
    beneath.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
    beneath.parent_fd = folder;
    // SAFETY: beneath lives through the call.
    if (syscall(SYS_landlock_add_rule, ruleset.get(), LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) !=
        0) {
      return io_error("landlock_add_rule", errno);
    }
  }
  // SAFETY: restricts this thread, the only one.
  if (syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0) {
    return io_error("landlock_restrict_self", errno);
  }
  return static_cast<std::int64_t>(abi);
}

sock_filter statement(std::uint16_t code, std::uint32_t k) { return sock_filter{code, 0, 0, k}; }
sock_filter jump(std::uint16_t code, std::uint32_t k, std::uint8_t yes, std::uint8_t no) {
  return sock_filter{code, yes, no, k};
}

Status seccomp() {
  constexpr std::uint16_t kLoad = BPF_LD | BPF_W | BPF_ABS;
  constexpr std::uint16_t kEqual = BPF_JMP | BPF_JEQ | BPF_K;
  constexpr std::uint16_t kReturn = BPF_RET | BPF_K;
  std::vector<sock_filter> p;
  p.push_back(statement(kLoad, offsetof(seccomp_data, arch)));
  p.push_back(jump(kEqual, GBX_AUDIT_ARCH, 1, 0));
  p.push_back(statement(kReturn, SECCOMP_RET_KILL_PROCESS));
  p.push_back(statement(kLoad, offsetof(seccomp_data, nr)));
  p.push_back(jump(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, 0, 1));
  p.push_back(statement(kReturn, SECCOMP_RET_KILL_PROCESS));
  for (const long nr : kAllowed) {
    p.push_back(jump(kEqual, static_cast<std::uint32_t>(nr), 0, 1));
    p.push_back(statement(kReturn, SECCOMP_RET_ALLOW));
  }
  for (const long nr : kAllowedNoExec) {
    // Little-endian: the low half of the third argument holds all of PROT_*.
    p.push_back(jump(kEqual, static_cast<std::uint32_t>(nr), 0, 4));
    p.push_back(statement(kLoad, offsetof(seccomp_data, args) + 2 * sizeof(std::uint64_t)));
    p.push_back(jump(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0));
    p.push_back(statement(kReturn, SECCOMP_RET_ALLOW));
    p.push_back(statement(kReturn, SECCOMP_RET_KILL_PROCESS));
  }
  p.push_back(statement(kReturn, SECCOMP_RET_KILL_PROCESS));
  sock_fprog program{static_cast<unsigned short>(p.size()), p.data()};
  // SAFETY: the program and its array live through the call.
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) {
    return io_error("seccomp", errno);
  }
  return ok_status();
}

}  // namespace

Result<Confinement> confine(const ConfineOptions& o) {
  Confinement c;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return io_error("no_new_privs", errno);
  c.noNewPrivs = true;
  GBX_TRY(set_limits(o));
  GBX_ASSIGN(c.landlockAbi, landlock(o));
  if (GBX_GATE_SANITIZED == 0) {
    GBX_TRY(seccomp());
    c.seccomp = true;
  }
  return c;
}

}  // namespace gbx::gate
