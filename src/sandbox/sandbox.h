// Runs one untrusted container under every mandatory control, and proves afterwards that nothing of
// it is left.
//
// run_container() starts `glovebox-sandbox` (root), a supervisor that lives in PID and mount
// namespaces of its own: runtime state, bundle and mounts exist only there and vanish with it, and
// when it or its caller dies, the kernel kills all that is in it. The caller keeps a descriptor of
// /out, a tmpfs that is made read-only after the container's last process is gone. There are no
// options that weaken a control. The container, its image and its output are untrusted; the spec is
// the caller's and is checked.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/fields.h"
#include "base/os.h"

namespace gbx::sandbox {

struct DataMount {
  std::string name;  // appears as /data/<name>, read-only, nosuid, nodev, noexec
  std::string host_path;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 64});
    f("hostPath", host_path, Bound{1, 4096});
  }
};

struct ContainerSpec {
  std::string id;                 // 1 to 48 of a-z 0-9 '-'; unique while it runs
  std::string runtime = "crun";   // a name from known_runtimes()
  std::string rootfs;             // unpacked with uid_base (oci.h); mounted read-only
  std::vector<std::string> argv;  // argv[0] is absolute, or found in PATH of env
  std::vector<std::string> env;   // "NAME=value"
  std::string cwd = "/";
  // AppArmor profile of the container, which the kernel must have; without one, none is asked for
  std::optional<std::string> apparmor;
  std::vector<DataMount> mounts;
  std::int64_t uid_base = 0;  // container ids 0..65535 are host ids uid_base..; at least 65536
  std::int64_t uid = 1000;    // in the container; never 0. The group has the same number
  std::int64_t out_bytes = 0;
  std::int64_t out_inodes = 0;
  std::int64_t tmp_bytes = 0;
  std::int64_t memory_bytes = 0;  // besides what /out and /tmp hold, which are memory too
  std::int64_t cpu_millis = 0;    // 1000: one core
  std::int64_t pids_max = 0;
  std::int64_t wall_timeout_ms = 0;  // from the start of its first process
  std::int64_t log_bytes = 0;        // kept of stdout and of stderr each; more is read and dropped
  template <class F>
  void fields(F& f) {
    f("id", id, Bound{1, 48});
    f("runtime", runtime, Bound{1, 16});
    f("rootfs", rootfs, Bound{1, 4096});
    f("argv", argv, Bound{1, 4096});
    f("env", env, Bound{0, 4096});
    f("cwd", cwd, Bound{1, 4096});
    f("apparmor", apparmor, Bound{1, 64});
    f("mounts", mounts, Bound{0, 64});
    f("uidBase", uid_base, Bound{65536, 0xFFFFFFFFLL - 65536});
    f("uid", uid, Bound{1, 65534});
    f("outBytes", out_bytes, Bound{4096, std::int64_t{1} << 40});
    f("outInodes", out_inodes, Bound{2, 10'000'000});
    f("tmpBytes", tmp_bytes, Bound{4096, std::int64_t{1} << 40});
    f("memoryBytes", memory_bytes, Bound{8 << 20, std::int64_t{1} << 42});
    f("cpuMillis", cpu_millis, Bound{10, 1'024'000});
    f("pidsMax", pids_max, Bound{1, 4096});
    f("wallTimeoutMs", wall_timeout_ms, Bound{1, std::int64_t{30} * 86'400'000});
    f("logBytes", log_bytes, Bound{0, 256 << 20});
  }
};
// kBadValue or kUsage with the field that is wrong. run_container() asks this first.
Status check_spec(const ContainerSpec& spec);

enum class Outcome {
  // the container's program never ran, or not under every control; `error` says why. No fault of it
  kSetupError,
  kViolation,  // killed by the system call filter
  kSignaled,   // ended by a signal: `code`
  kTimeout,
  kCancelled,
  kOutOfMemory,  // the memory limit killed it or one of its processes, and it did not end with 0
  kExited,       // `code`
};
inline std::span<const EnumName<Outcome>> enum_names(Outcome) {
  static constexpr EnumName<Outcome> kNames[] = {
      {Outcome::kSetupError, "setup-error"}, {Outcome::kViolation, "violation"},
      {Outcome::kSignaled, "signaled"},      {Outcome::kTimeout, "timeout"},
      {Outcome::kCancelled, "cancelled"},    {Outcome::kOutOfMemory, "out-of-memory"},
      {Outcome::kExited, "exited"}};
  return kNames;
}

struct LogCapture {
  // the first log_bytes; raw bytes of the container: escape before showing
  std::string text;
  std::int64_t total_bytes = 0;  // written by the container
  bool truncated() const { return total_bytes > static_cast<std::int64_t>(text.size()); }
};

struct RunResult {
  Outcome outcome = Outcome::kSetupError;
  std::int64_t code = 0;      // exit code or signal number
  std::string error;          // for kSetupError
  std::int64_t setup_ms = 0;  // until the program started
  std::int64_t run_ms = 0;    // of the program
  std::int64_t peak_memory_bytes = 0;
  std::int64_t cpu_ms = 0;
  std::int64_t oom_kills = 0;
  std::string runtime;  // "crun 1.8.1", as it says itself
  // the mandatory controls that were found in force; all of them, or a setup error
  std::vector<std::string> controls;
  LogCapture out;
  LogCapture err;
  Fd output;  // /out: O_DIRECTORY, on a file system that is now read-only; gone when closed
};

struct RunOptions {
  std::string program;  // empty: program_dir()/glovebox-sandbox
  // readable or closed at its other end: the container is killed and the outcome is kCancelled
  int cancel_fd = -1;
};
// Checked on cgroup v1 and hybrid hosts; pure cgroup v2 hosts are provided for by probing but
// UNTESTED. Needs root. Blocks until the container and its supervisor are gone. An Error means that
// the supervisor itself could not be run or broke; everything about the container is an Outcome.
// Each mandatory control is read back from the kernel (docs/sandbox.md); a container that lacks one
// is killed.
Result<RunResult> run_container(const ContainerSpec& spec, const RunOptions& options = {});

// The profile of guest/apparmor, and whether this host's kernel enforces it.
inline constexpr char kWorkloadProfile[] = "glovebox-workload";
bool profile_is_loaded(const std::string& name,
                       const std::string& profiles = "/sys/kernel/security/apparmor/profiles");

// The names of all mandatory controls, as RunPlan.controls.mandatory has them (docs/sandbox.md).
std::vector<std::string> control_names();

// What of container `id` is still there: processes, mounts, cgroup directories, runtime state; one
// line each. Empty is required after every run.
Result<std::vector<std::string>> residue(const std::string& id);

// Removes what a supervisor that was itself killed could not: processes and cgroup directories of
// container or enclosure `id`. For the next start of a node. Once both are gone, so are all mounts:
// none is made outside of mount namespaces that end with these processes.
Status clear_residue(const std::string& id);

// A cgroup for a program that starts containers: whatever it forks stays in there, or is in the
// cgroup of its container, so clear_residue() of both proves that nothing is left. Returns its
// cgroup.procs for ProcessOptions::cgroup_procs. `id` as of a container, and no container's.
// kSandboxSetup where there are no cgroups, or one of this name is there.
Result<Fd> make_enclosure(const std::string& id);

// Bounds the memory of an enclosure that was made, and keeps it out of this host's swap where the
// host can: returns the cgroup.procs that a program of it
// joins too, as on hosts of cgroup v1 that is another one. clear_residue() removes it as well.
// kSandboxSetup.
Result<Fd> limit_enclosure(const std::string& id, std::int64_t memory_bytes);

// What this host offers, found by looking, and why it is chosen.
enum class CgroupLayout { kNone, kV1, kV2 };
struct HostProbe {
  CgroupLayout cgroups = CgroupLayout::kNone;
  // "memory", "pids", "cpu", … -> where it is mounted
  std::map<std::string, std::string> controllers;
  std::vector<std::string> cgroup_mounts;  // every hierarchy that containers are put in
  // cgroup2 mounts that crun stumbles over on hybrid hosts
  std::vector<std::string> to_hide;
  std::vector<std::string> runtimes;  // found, in order of preference
  bool user_namespaces = false;
  bool swap = false;               // some is in use by the machine
  bool limit_swap = false;         // and a container can be kept out of it
  std::vector<std::string> notes;  // one line a finding, for people
};
Result<HostProbe> probe_host();
std::vector<std::string> known_runtimes();

}  // namespace gbx::sandbox
