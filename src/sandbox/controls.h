// Which mandatory controls are in force over a container: read back from the kernel, never taken
// from what was asked for. Reading and judging are apart, so that tests judge readings that no
// kernel would give. Internal to src/sandbox.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/seams.h"
#include "sandbox/host.h"

namespace gbx::sandbox {

using Namespaces = std::map<std::string, std::string>;  // "pid" -> "pid:[4026531836]"

// Zero or negative: no limit was read.
struct Limits {
  std::int64_t memory_bytes = 0;
  std::int64_t memory_and_swap_bytes = 0;  // only where the host limits swap
  std::int64_t pids = 0;
  std::int64_t cpu_quota_us = 0;
  std::int64_t cpu_period_us = 0;
};

// Of the container's first process. The first part is read when the runtime has created it, and
// decides whether it may start; the second once its program runs, for a runtime drops privileges
// last.
struct Reading {
  Namespaces namespaces;
  std::string uid_map;
  std::string gid_map;
  std::vector<Mount> mounts;
  std::vector<std::string> interfaces;  // of its network namespace
  std::vector<std::string> cgroups;     // where it is, in every hierarchy
  Limits limits;
  std::string stdin_file;  // "pipe:[123]"
  std::string stdout_file;
  std::string stderr_file;
  // linux.seccomp of the configuration that the runtime was given
  Json seccomp;

  std::map<std::string, std::string> status;  // /proc/<pid>/status
  std::string label;                          // "glovebox-workload (enforce)"
};

// What it has to agree with.
struct Expected {
  const ContainerSpec& spec;
  bool limit_swap = false;
  std::vector<Namespaces> outside;  // of the host and of the supervisor: the container shares none
  std::string stdout_file;
  std::string stderr_file;
};

enum class Moment { kCreated, kRunning };
struct Control {
  std::string_view name;
  Moment moment = Moment::kCreated;
  Status (*check)(const Reading&, const Expected&);
};
// All of them; the names are those of RunPlan.controls.mandatory.
std::span<const Control> controls();
// Beside these, where the spec names a profile.
inline constexpr char kAppArmorControl[] = "apparmor";

// The names of those of `moment`, when every one of them is in force; else kSandboxSetup names the
// first that is not.
Result<std::vector<std::string>> check_controls(const Reading& reading, const Expected& expected,
                                                Moment moment);

Result<Namespaces> read_namespaces(const std::string& pid);  // "self" as well
// "pipe:[123]" of an open descriptor.
std::string file_name_of(int fd);
// The first part. `bundle` is the folder of the runtime's configuration.
Result<Reading> read_created(pid_t pid, const ContainerSpec& spec, const HostProbe& host,
                             const std::string& bundle);
// The second part: waits until the system call filter and the spec's profile are on or the process
// is dead (a dead one not yet reaped still tells what held it), at most timeout_ms;
// check_controls() then says what is missing.
struct Patience {
  std::int64_t timeout_ms;
  const Clock& clock;
};
Status read_running(pid_t pid, const ContainerSpec& spec, const Patience& patience,
                    Reading& reading);

}  // namespace gbx::sandbox
