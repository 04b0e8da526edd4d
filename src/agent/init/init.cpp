#include "agent/init/init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "agent/init/devices.h"
#include "agent/init/platform.h"
#include "attest/tsm/attester.h"
#include "base/log.h"
#include "channel/mux.h"
#include "channel/rpc.h"
#include "records/messages.h"
#include "sandbox/sandbox.h"

namespace gbx::agent {

namespace {

constexpr char kModules[] = "/usr/lib/glovebox/modules";
constexpr char kProfiles[] = "/usr/lib/glovebox/apparmor";
constexpr char kAttempt[] = "/run/attempt";
constexpr char kContainer[] = "workload";
// Nobody else is on this machine; the container's ids are far from the agent's.
constexpr std::int64_t kUidBase = 100'000;
constexpr std::int64_t kTellMs = 10'000;
// For the host to name its ports, which it does when it gets to it.
constexpr int kPortTries = 200;
constexpr useconds_t kPortPauseUs = 50'000;

Error setup(const std::string& what, int error) {
  return fail(Reason::kSandboxSetup, what + ": " + io_error("", error).what);
}

Status mount_at(const char* type, const char* at, unsigned long flags, const char* options = "") {
  GBX_TRY(make_dirs(at, 0755));
  if (mount(type, at, type, flags, options) != 0) return setup(std::string("mount ") + at, errno);
  return ok_status();
}

Status mount_kernel() {
  constexpr unsigned long kStrict = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  GBX_TRY(mount_at("proc", "/proc", kStrict, "hidepid=invisible"));
  GBX_TRY(mount_at("sysfs", "/sys", kStrict));
  GBX_TRY(mount_at("devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=0755"));
  GBX_TRY(mount_at("securityfs", "/sys/kernel/security", kStrict));
  GBX_TRY(mount_at("cgroup2", "/sys/fs/cgroup", kStrict, "nsdelegate"));
  return mount_at("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755,size=16m");
}

// The file system that a kernel unpacks its initrd into cannot be pivoted away from, which is what
// a container's runtime does with its root (pivot_root(2)). The same files behind a mount of their
// own can.
Status pivotable_root() {
  GBX_TRY(make_dirs("/root", 0700));
  if (mount("/", "/root", nullptr, MS_BIND, nullptr) != 0) return setup("bind of /", errno);
  for (const char* name : {"/proc", "/sys", "/dev", "/run"}) {
    if (mount(name, (std::string("/root") + name).c_str(), nullptr, MS_MOVE, nullptr) != 0) {
      return setup(std::string("move of ") + name, errno);
    }
  }
  if (chdir("/root") != 0 || mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 || chroot(".") != 0 ||
      chdir("/") != 0) {
    return setup("change of root", errno);
  }
  return ok_status();
}

// So that what libraries print has somewhere to go. Whether the host sees the console is decided by
// the kernel's command line, which is measured: releases have none.
Status open_console() {
  Fd fd(open("/dev/console", O_RDWR | O_CLOEXEC | O_NOCTTY));
  if (!fd.valid()) fd = Fd(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!fd.valid()) return setup("/dev/null", errno);
  for (int n = 0; n < 3; ++n) {
    if (fd.get() == n) {
      (void)fd.release();
    } else if (dup2(fd.get(), n) < 0) {
      return setup("console", errno);
    }
  }
  return ok_status();
}

Result<std::vector<std::string>> files_in(const std::string& path) {
  DIR* d = opendir(path.c_str());
  if (d == nullptr) return io_error(path, errno);
  std::vector<std::string> out;
  while (const dirent* e = readdir(d)) {
    if (e->d_name[0] != '.') out.emplace_back(path + "/" + e->d_name);
  }
  closedir(d);
  std::sort(out.begin(), out.end());
  return out;
}

// In the order of their names, which the image's builder made from their dependencies. One whose
// device this machine does not have says ENODEV: a release serves several platforms.
Status load_modules() {
  GBX_ASSIGN(const auto files, files_in(kModules));
  for (const auto& path : files) {
    const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) return setup(path, errno);
    // SAFETY: finit_module has no libc wrapper; the parameters are an empty, terminated string.
    if (syscall(SYS_finit_module, fd.get(), "", 0) != 0 && errno != ENODEV) {
      return setup("module " + path, errno);
    }
  }
  return ok_status();
}

Status write_text(const std::string& path, std::string_view text) {
  const Fd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) return setup(path, errno);
  const Status written = write_all(fd.get(), as_bytes(text));
  if (!written.ok()) return fail(Reason::kSandboxSetup, path + ": " + written.error().what);
  return ok_status();
}

// The agent's programs are in `platform`, the container in a cgroup of its own beside it: whatever
// the container uses up, they keep their share.
Status make_slices() {
  constexpr char kRoot[] = "/sys/fs/cgroup";
  GBX_TRY(write_text(std::string(kRoot) + "/cgroup.subtree_control", "+cpu +memory +pids"));
  const std::string platform = std::string(kRoot) + "/platform";
  if (mkdir(platform.c_str(), 0755) != 0) return setup(platform, errno);
  GBX_TRY(write_text(platform + "/cpu.weight", "10000"));
  GBX_TRY(write_text(platform + "/memory.min", "67108864"));
  return write_text(platform + "/cgroup.procs", "1");
}

// Binary policy, compiled when the image was built; the kernel checks its form.
Status load_profiles() {
  GBX_ASSIGN(const auto files, files_in(kProfiles));
  for (const auto& path : files) {
    GBX_ASSIGN(const Bytes policy, read_file(path, std::size_t{1} << 20));
    const Fd fd(open("/sys/kernel/security/apparmor/.replace", O_WRONLY | O_CLOEXEC));
    if (!fd.valid()) return setup("AppArmor", errno);
    // One write is one policy.
    if (write(fd.get(), policy.data(), policy.size()) != static_cast<ssize_t>(policy.size())) {
      return setup("AppArmor profile " + path, errno);
    }
  }
  if (sandbox::profile_is_loaded(sandbox::kWorkloadProfile)) return ok_status();
  return fail(Reason::kSandboxSetup, "AppArmor")
      .with(std::string("profile ") + sandbox::kWorkloadProfile + " in force", "another or none");
}

Status raise_limits() {
  const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
  const rlimit none{0, 0};
  // There is no swap, and what is locked is memory that the container cannot take.
  if (setrlimit(RLIMIT_MEMLOCK, &unlimited) != 0) return setup("memory lock limit", errno);
  if (setrlimit(RLIMIT_CORE, &none) != 0) return setup("core limit", errno);
  return ok_status();
}

// Waits until the host has said which port is which, or has had its time.
Result<Devices> settled_devices() {
  for (int i = 0;; ++i) {
    GBX_ASSIGN(Devices devices, read_devices("/sys"));
    if (ports_are_named(devices) || i == kPortTries) return devices;
    usleep(kPortPauseUs);
  }
}

Status mount_all() {
  GBX_TRY(mount_kernel());
  GBX_TRY(open_console());
  return pivotable_root();
}

// What a machine turned out to be.
struct Machine {
  Devices devices;
  Tee tee = Tee::kSim;
};

// Hardware answers through configfs; where there is none, whatever plays it has a port. A host that
// offers a port to a machine with hardware is refused.
Result<Tee> find_tee() {
  GBX_ASSIGN(const bool hardware, is_hardware_guest("/sys", "/proc"));
  std::optional<Status> report;
  if (path_exists(attest::tsm::kReportRoot)) {
    const auto opened = attest::tsm::open_report(attest::tsm::kReportRoot, "glovebox");
    report = opened.ok() ? ok_status() : Status(opened.error());
  }
  return choose_tee(hardware, report);
}

Status make_ready(Machine& machine) {
  GBX_ASSIGN(const std::string line, read_text_file("/proc/cmdline", 8192));
  GBX_TRY(check_command_line(line));
  GBX_TRY(load_modules());
  // A platform without attestation of its own has no such folder, and gives no evidence from it.
  if (path_exists("/sys/kernel/config")) GBX_TRY(mount_at("configfs", "/sys/kernel/config", 0));
  GBX_ASSIGN(machine.devices, settled_devices());
  GBX_TRY(check_devices(machine.devices));
  GBX_ASSIGN(machine.tee, find_tee());
  GBX_TRY(check_ports(machine.devices, machine.tee == Tee::kSim));
  GBX_TRY(load_profiles());
  GBX_TRY(make_slices());
  GBX_TRY(raise_limits());
  GBX_TRY(make_dirs(kAttempt, 0711));
  // Last: after it no module can be loaded.
  return apply_settings("/proc/sys", settings());
}

Result<Fd> open_port(const Devices& devices, const std::string& name) {
  GBX_ASSIGN(const std::string device, port_device(devices, name));
  Fd fd(open(("/dev/" + device).c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return setup("port " + name, errno);
  return fd;
}

// What the node writes into its log, and the consumer is told: the machine never had a key.
void tell(Fd port, const Error& why, const Clock& clock) {
  auto stream = channel::FdStream::create(std::move(port));
  if (!stream.ok()) return;
  channel::Mux mux(**stream, clock);
  channel::RpcClient node(mux.stream(channel::kMuxControl), clock);
  records::AgentEnd end;
  end.reason = reason_code(why.reason);
  end.detail = printable(why.detail(), 500);
  (void)node.call(records::method::kAgentEnd, to_json(end), kTellMs);
}

Result<Process> start_agent(const Machine& machine, const Fd& control) {
  const bool simulated = machine.tee == Tee::kSim;
  Fd tee;
  if (simulated) {
    GBX_ASSIGN(tee, open_port(machine.devices, kTeePort));
  }
  ProcessOptions p;
  p.argv = {program_dir() + "/glovebox-agent",
            "run",
            "--dir",
            kAttempt,
            "--objects",
            "/dev/" + volume_device(machine.devices),
            "--container",
            kContainer,
            "--uid-base",
            std::to_string(kUidBase),
            "--stream-fd",
            "3",
            "--tee",
            simulated ? "sim" : "tsm",
            "--tee-fd",
            "4",
            "--apparmor",
            sandbox::kWorkloadProfile};
  p.env = {{"PATH", "/usr/sbin:/usr/bin"}};
  p.descriptors = {{2, 2}, {3, control.get()}};
  if (simulated) p.descriptors[4] = tee.get();
  p.new_session = true;
  return spawn(p);
}

// Orphans of whatever ends become children of PID 1, and zombies if nobody waits for them.
void reap_until(pid_t agent) {
  for (;;) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, 0);
    if (pid == agent || (pid < 0 && errno == ECHILD)) return;
  }
}

Status serve() {
  const SystemClock clock;
  GBX_TRY(mount_all());
  Machine machine;
  const Status ready = make_ready(machine);
  // Also for a machine that is refused before its devices were looked at.
  if (machine.devices.ports.empty()) {
    GBX_ASSIGN(machine.devices, settled_devices());
  }
  GBX_ASSIGN(Fd control, open_port(machine.devices, kControlPort));
  if (!ready.ok()) {
    tell(std::move(control), ready.error(), clock);
    return ready;
  }
  auto agent = start_agent(machine, control);
  if (!agent.ok()) {
    tell(std::move(control), agent.error(), clock);
    return agent.error();
  }
  control.reset();
  reap_until(agent->pid());
  return ok_status();
}

}  // namespace

const std::vector<Setting>& settings() {
  static const std::vector<Setting> kSettings = {
      {"kernel/core_pattern", "|/bin/false"},
      {"kernel/dmesg_restrict", "1"},
      {"kernel/kptr_restrict", "2"},
      {"kernel/perf_event_paranoid", "3"},
      {"kernel/randomize_va_space", "2"},
      {"kernel/sysrq", "0"},
      {"kernel/unprivileged_bpf_disabled", "1"},
      {"kernel/yama/ptrace_scope", "3"},
      {"kernel/kexec_load_disabled", "1"},
      {"kernel/panic_on_oops", "1"},
      {"fs/suid_dumpable", "0"},
      {"fs/protected_fifos", "2"},
      {"fs/protected_hardlinks", "1"},
      {"fs/protected_regular", "2"},
      {"fs/protected_symlinks", "1"},
      {"vm/unprivileged_userfaultfd", "0"},
      {"vm/mmap_min_addr", "65536"},
      {"dev/tty/ldisc_autoload", "0"},
      {"kernel/modules_disabled", "1"},
  };
  return kSettings;
}

Status apply_settings(const std::string& root, const std::vector<Setting>& all) {
  for (const auto& s : all) {
    const std::string path = root + "/" + s.name;
    GBX_TRY(write_text(path, s.value));
    GBX_ASSIGN(std::string now, read_text_file(path, 4096));
    while (!now.empty() && now.back() == '\n') now.pop_back();
    if (now != s.value) {
      return fail(Reason::kSandboxSetup, "setting " + s.name).with(s.value, printable(now, 64));
    }
  }
  return ok_status();
}

Status check_command_line(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word && words.size() < 256;) words.push_back(word);
  for (const char* need : {"lockdown=confidentiality", "init_on_free=1"}) {
    if (std::find(words.begin(), words.end(), need) == words.end()) {
      return fail(Reason::kCmdlineMismatch, "the kernel's command line").with(need, "without it");
    }
  }
  return ok_status();
}

void run_init() {
  signal(SIGPIPE, SIG_IGN);
  const Status status = serve();
  if (!status.ok()) Logger(2, "init", SystemClock()).error("machine", status.error());
  kill(-1, SIGKILL);
  sync();
  reboot(RB_POWER_OFF);
  // Only a kernel that refuses to end comes here; what holds the keys has ended already.
  for (;;) pause();
}

}  // namespace gbx::agent
