// Every rule of the profile, evaluated: the JSON that the runtime gets is turned into BPF the way
// runtimes do it (libseccomp), and a small interpreter runs that BPF on system calls that need not
// be made.
#include <errno.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <memory>
#include <set>

#include "base/os.h"
#include "sandbox/seccomp_profile.h"

namespace gbx::sandbox {
namespace {

std::uint32_t action_of(const Json& entry, const char* member, const char* error) {
  const std::string& name = *entry.find(member)->string();
  if (name == "SCMP_ACT_ALLOW") return SCMP_ACT_ALLOW;
  EXPECT_EQ(name, "SCMP_ACT_ERRNO");
  return SCMP_ACT_ERRNO(static_cast<std::uint16_t>(*entry.find(error)->integer()));
}

void add_entry(scmp_filter_ctx filter, const Json& entry) {
  std::vector<scmp_arg_cmp> arguments;
  if (const Json* args = entry.find("args")) {
    for (const Json& a : *args->array()) {
      const auto index = static_cast<unsigned>(*a.find("index")->integer());
      const auto value = static_cast<scmp_datum_t>(*a.find("value")->integer());
      if (*a.find("op")->string() == "SCMP_CMP_EQ") {
        arguments.push_back(scmp_arg_cmp{index, SCMP_CMP_EQ, value, 0});
      } else {
        ASSERT_EQ(*a.find("op")->string(), "SCMP_CMP_MASKED_EQ");
        arguments.push_back(SCMP_CMP64(index, SCMP_CMP_MASKED_EQ, value,
                                       static_cast<scmp_datum_t>(*a.find("valueTwo")->integer())));
      }
    }
  }
  for (const Json& name : *entry.find("names")->array()) {
    const int nr = seccomp_syscall_resolve_name(name.string()->c_str());
    ASSERT_GE(nr, 0) << *name.string() << " is no system call here";
    ASSERT_EQ(0, seccomp_rule_add_array(filter, action_of(entry, "action", "errnoRet"), nr,
                                        static_cast<unsigned>(arguments.size()), arguments.data()));
  }
}

std::vector<sock_filter> compile(const Json& profile) {
  const std::unique_ptr<void, void (*)(void*)> filter(
      seccomp_init(action_of(profile, "defaultAction", "defaultErrnoRet")), seccomp_release);
  EXPECT_EQ(profile.find("architectures")->array()->size(), 1U);
  for (const Json& entry : *profile.find("syscalls")->array()) add_entry(filter.get(), entry);
  const Fd file(memfd_create("bpf", MFD_CLOEXEC));
  EXPECT_EQ(0, seccomp_export_bpf(filter.get(), file.get()));
  EXPECT_EQ(0, lseek(file.get(), 0, SEEK_SET));
  auto bytes = read_all(file.get(), 1U << 20);
  EXPECT_TRUE(bytes.ok());
  std::vector<sock_filter> program(bytes->size() / sizeof(sock_filter));
  std::memcpy(program.data(), bytes->data(), program.size() * sizeof(sock_filter));
  return program;
}

std::uint32_t word_at(const seccomp_data& data, std::uint32_t offset) {
  std::uint32_t word = 0;
  EXPECT_LE(offset + 4, sizeof data);
  // SAFETY: bounds checked above
  std::memcpy(&word, reinterpret_cast<const char*>(&data) + offset, 4);
  return word;
}

// Classic BPF as far as libseccomp writes it; anything else fails the test.
std::uint32_t evaluate(const std::vector<sock_filter>& program, const seccomp_data& data) {
  std::uint32_t a = 0;
  for (std::size_t pc = 0; pc < program.size(); ++pc) {
    const sock_filter& i = program[pc];
    switch (i.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        a = word_at(data, i.k);
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        a &= i.k;
        break;
      case BPF_JMP | BPF_JA:
        pc += i.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        pc += a == i.k ? i.jt : i.jf;
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        pc += a >= i.k ? i.jt : i.jf;
        break;
      case BPF_JMP | BPF_JGT | BPF_K:
        pc += a > i.k ? i.jt : i.jf;
        break;
      case BPF_RET | BPF_K:
        return i.k;
      default:
        ADD_FAILURE() << "instruction " << i.code;
        return 0;
    }
  }
  ADD_FAILURE() << "ran off the end";
  return 0;
}

class Seccomp : public ::testing::Test {
 protected:
  std::uint32_t call(int nr, std::array<std::uint64_t, 6> args = {},
                     std::uint32_t arch = AUDIT_ARCH_X86_64) const {
    seccomp_data d{};
    d.nr = nr;
    d.arch = arch;
    std::copy(args.begin(), args.end(), d.args);
    return evaluate(program_, d);
  }
  std::uint32_t call_with(std::string_view name, unsigned index, std::uint64_t value) const {
    std::array<std::uint64_t, 6> args{};
    args[index] = value;
    return call(number(name), args);
  }
  static int number(std::string_view name) {
    return seccomp_syscall_resolve_name(std::string(name).c_str());
  }

  const std::vector<sock_filter> program_ = compile(seccomp_json());
};

constexpr std::uint32_t kAllow = SECCOMP_RET_ALLOW;
constexpr std::uint32_t kEperm = SECCOMP_RET_ERRNO | EPERM;

TEST_F(Seccomp, ListedCallsAreAllowedWithAnyArguments) {
  for (const std::string_view name : allowed_calls()) {
    EXPECT_EQ(call(number(name)), kAllow) << name;
    EXPECT_EQ(call(number(name), {~0ULL, ~0ULL, ~0ULL, ~0ULL, ~0ULL, ~0ULL}), kAllow) << name;
  }
}

TEST_F(Seccomp, NoCallIsListedTwice) {
  std::set<std::string_view> seen;
  for (const std::string_view name : allowed_calls()) EXPECT_TRUE(seen.insert(name).second) << name;
  for (const ArgumentRule& r : argument_rules()) EXPECT_EQ(seen.count(r.call), 0U) << r.call;
  for (const ErrnoRule& r : errno_rules()) EXPECT_EQ(seen.count(r.call), 0U) << r.call;
}

TEST_F(Seccomp, ArgumentsDecideWhereTheyAreRestricted) {
  for (const ArgumentRule& r : argument_rules()) {
    if (r.compare == Compare::kEqual) {
      EXPECT_EQ(call_with(r.call, r.argument, r.value), kAllow) << r.call << " " << r.value;
      // The kernel looks at 32 bits of some of these: garbage above them must not let anything
      // through.
      EXPECT_EQ(call_with(r.call, r.argument, r.value | (1ULL << 32)), kEperm)
          << r.call << " " << r.value;
      continue;
    }
    EXPECT_EQ(call_with(r.call, r.argument, ~r.value), kAllow) << r.call;
    for (unsigned bit = 0; bit < 64; ++bit) {
      const bool masked = (r.value >> bit & 1) != 0;
      EXPECT_EQ(call_with(r.call, r.argument, 1ULL << bit), masked ? kEperm : kAllow)
          << r.call << " bit " << bit;
    }
  }
}

TEST_F(Seccomp, OnlyTheListedValuesPass) {
  const auto allowed = [](std::string_view name, std::uint64_t value) {
    for (const ArgumentRule& r : argument_rules()) {
      if (r.call == name && r.compare == Compare::kEqual && r.value == value) return true;
    }
    return false;
  };
  for (const auto& [name, index] : {std::pair<const char*, unsigned>{"socket", 0},
                                    {"socketpair", 0},
                                    {"personality", 0},
                                    {"prctl", 0},
                                    {"ioctl", 1},
                                    {"arch_prctl", 0}}) {
    for (std::uint64_t value = 0; value < 65536; ++value) {
      ASSERT_EQ(call_with(name, index, value), allowed(name, value) ? kAllow : kEperm)
          << name << " " << value;
    }
  }
  EXPECT_EQ(call_with("ioctl", 1, 0x5412), kEperm);  // TIOCSTI
  EXPECT_EQ(call_with("ioctl", 1, 0x541C), kEperm);  // TIOCLINUX
  EXPECT_EQ(call_with("socket", 0, 38), kEperm);     // AF_ALG
  EXPECT_EQ(call_with("socket", 0, 40), kEperm);     // AF_VSOCK
}

TEST_F(Seccomp, Clone3AsksForClone) {
  EXPECT_EQ(call(number("clone3")), static_cast<std::uint32_t>(SECCOMP_RET_ERRNO | ENOSYS));
}

TEST_F(Seccomp, EverythingElseIsEPERM) {
  std::set<int> listed;
  for (const std::string_view name : allowed_calls()) listed.insert(number(name));
  for (const ArgumentRule& r : argument_rules()) listed.insert(number(r.call));
  for (const ErrnoRule& r : errno_rules()) listed.insert(number(r.call));
  int refused = 0;
  for (int nr = 0; nr < 1024; ++nr) {
    if (listed.count(nr) > 0) continue;
    EXPECT_EQ(call(nr), kEperm) << nr;
    ++refused;
  }
  EXPECT_GT(refused, 700);
  for (const int nr : {SYS_ptrace, SYS_mount, SYS_unshare, SYS_setns, SYS_bpf, SYS_keyctl,
                       SYS_io_uring_setup, SYS_userfaultfd, SYS_perf_event_open,
                       SYS_open_by_handle_at, SYS_init_module, SYS_kexec_load, SYS_reboot}) {
    EXPECT_EQ(call(nr), kEperm) << nr;
  }
}

TEST_F(Seccomp, OtherArchitecturesDie) {
  for (const int nr : {0, 1, 39, 59}) {
    for (const std::uint32_t arch :
         {std::uint32_t{AUDIT_ARCH_I386}, std::uint32_t{AUDIT_ARCH_AARCH64}}) {
      const std::uint32_t action = call(nr, {}, arch) & SECCOMP_RET_ACTION_FULL;
      EXPECT_TRUE(action == SECCOMP_RET_KILL_PROCESS || action == SECCOMP_RET_KILL_THREAD) << nr;
    }
    const std::uint32_t x32 = call(nr | 0x40000000) & SECCOMP_RET_ACTION_FULL;
    EXPECT_TRUE(x32 == SECCOMP_RET_KILL_PROCESS || x32 == SECCOMP_RET_KILL_THREAD) << nr;
  }
}

}  // namespace
}  // namespace gbx::sandbox
