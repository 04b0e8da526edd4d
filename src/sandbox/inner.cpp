#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "sandbox/controls.h"
#include "sandbox/runtime.h"
#include "sandbox/stage.h"
#include "sandbox/supervise.h"

namespace gbx::sandbox {
namespace {

constexpr std::int64_t kRuntimeTimeoutMs = 30'000;
// from the runtime's answer to the program's first instruction
constexpr std::int64_t kPrivilegesTimeoutMs = 5'000;

// What the runtime says about a failure: its log, or else what it printed.
Error runtime_error(const std::string& step, const ContainerRuntime::Paths& paths,
                    const std::string& printed) {
  auto log = read_text_file(paths.log, 65536);
  std::string text = log.ok() && !log->empty() ? *log : printed;
  if (text.empty()) text = "no message";
  return fail(Reason::kSandboxSetup, "runtime " + step + ": " + printable(text, 2000));
}

class Container {
 public:
  Container(const ContainerSpec& spec, const HostProbe& host, const InnerOptions& options,
            const Clock& clock)
      : spec_(spec), host_(host), options_(options), clock_(clock) {}

  Status start(Report& report);
  void run(Report& report);
  void finish(Report& report);

 private:
  enum class End { kDead, kTimeout, kCancelled };
  Status create();
  Result<std::vector<Namespaces>> outside() const;
  End wait_for_end(std::int64_t deadline) const;
  std::optional<int> reap() const;
  void judge(int status, End end, Report& report) const;

  const ContainerSpec& spec_;
  const HostProbe& host_;
  const InnerOptions& options_;
  const Clock& clock_;
  std::unique_ptr<ContainerRuntime> runtime_;
  Staged staged_;
  pid_t init_ = -1;
  Fd pidfd_;
};

Status Container::create() {
  GBX_ASSIGN(staged_, prepare_stage(spec_, host_, kOutFd));
  const ContainerRuntime::Paths& paths = staged_.runtime;
  ProcessOptions create;
  create.argv = runtime_->create(paths, spec_.id);
  create.env = {{"PATH", "/usr/sbin:/usr/bin:/sbin:/bin"}};
  create.cwd = "/";
  // The container inherits them. Its input ends at once, and is a pipe: the runtime gives all three
  // to the container's user, and of /dev/null that would be the host's own.
  GBX_ASSIGN(auto no_input, make_pipe());
  no_input.second.reset();
  create.descriptors = {{0, no_input.first.get()}, {1, options_.out_pipe}, {2, options_.err_pipe}};
  GBX_ASSIGN(Process creating, spawn(create));
  GBX_ASSIGN(const auto created, creating.wait(kRuntimeTimeoutMs));
  if (!created) return fail(Reason::kSandboxSetup, "runtime create: no answer in time");
  if (!created->exited || created->code != 0) return runtime_error("create", paths, "");
  GBX_ASSIGN(const std::string pid, read_text_file(paths.pid_file, 64));
  init_ = static_cast<pid_t>(strtol(pid.c_str(), nullptr, 10));
  // SAFETY: no wrapper in older libcs. The process is our child, so its number cannot have been
  // reused.
  pidfd_ = Fd(static_cast<int>(syscall(SYS_pidfd_open, init_, 0)));
  if (init_ <= 1 || !pidfd_.valid()) {
    return fail(Reason::kSandboxSetup, "the container's first process is not there");
  }
  return ok_status();
}

Result<std::vector<Namespaces>> Container::outside() const {
  GBX_ASSIGN(Namespaces own, read_namespaces("self"));
  return std::vector<Namespaces>{options_.host, std::move(own)};
}

// What the kernel does not show to be in force ends the container: before its program starts, where
// that can be read.
Status Container::start(Report& report) {
  GBX_ASSIGN(runtime_, find_runtime(spec_.runtime));
  GBX_ASSIGN(report.runtime, runtime_->version());
  GBX_TRY(create());
  GBX_ASSIGN(Reading reading, read_created(init_, spec_, host_, staged_.runtime.bundle));
  GBX_ASSIGN(auto namespaces, outside());
  const Expected expected{spec_, host_.limit_swap, std::move(namespaces),
                          file_name_of(options_.out_pipe), file_name_of(options_.err_pipe)};
  GBX_ASSIGN(std::vector<std::string> before, check_controls(reading, expected, Moment::kCreated));
  ProcessOptions start;
  start.argv = runtime_->start(staged_.runtime, spec_.id);
  start.env = {{"PATH", "/usr/sbin:/usr/bin:/sbin:/bin"}};
  start.cwd = "/";
  GBX_ASSIGN(const RunOutput started, run_command(start, 65536, kRuntimeTimeoutMs));
  if (!started.status.exited || started.status.code != 0) {
    return runtime_error("start", staged_.runtime, started.err);
  }
  GBX_TRY(read_running(init_, spec_, {kPrivilegesTimeoutMs, clock_}, reading));
  GBX_ASSIGN(const auto after, check_controls(reading, expected, Moment::kRunning));
  before.insert(before.end(), after.begin(), after.end());
  report.controls = std::move(before);
  return ok_status();
}

Container::End Container::wait_for_end(std::int64_t deadline) const {
  for (;;) {
    const std::int64_t left = deadline - clock_.steady_ms();
    if (left <= 0) return End::kTimeout;
    pollfd p[2] = {{pidfd_.get(), POLLIN, 0}, {options_.control, POLLIN, 0}};
    const int n = poll(p, 2, static_cast<int>(std::min<std::int64_t>(left, 3'600'000)));
    if (n < 0 && errno != EINTR) return End::kCancelled;
    if (n <= 0) continue;
    if (p[0].revents != 0) return End::kDead;
    if (p[1].revents != 0) return End::kCancelled;
  }
}

// The wait status of the container's first process. It is reported dead only when all of its PID
// namespace is.
std::optional<int> Container::reap() const {
  int status = 0;
  pid_t r = 0;
  while ((r = waitpid(init_, &status, 0)) < 0 && errno == EINTR) {
  }
  if (r != init_) return std::nullopt;
  return status;
}

void Container::judge(int status, End end, Report& report) const {
  const bool signalled = WIFSIGNALED(status);
  report.code = signalled ? WTERMSIG(status) : WEXITSTATUS(status);
  if (end == End::kTimeout) {
    report.outcome = Outcome::kTimeout;
  } else if (end == End::kCancelled) {
    report.outcome = Outcome::kCancelled;
  } else if (report.oom_kills > 0 && status != 0) {
    report.outcome = Outcome::kOutOfMemory;
  } else if (signalled && report.code == SIGSYS) {
    report.outcome = Outcome::kViolation;
  } else {
    report.outcome = signalled ? Outcome::kSignaled : Outcome::kExited;
  }
}

void Container::run(Report& report) {
  const std::int64_t began = clock_.steady_ms();
  const End end = wait_for_end(began + spec_.wall_timeout_ms);
  if (end != End::kDead) kill(init_, SIGKILL);  // and with it its whole PID namespace
  const std::optional<int> status = reap();
  report.run_ms = clock_.steady_ms() - began;
  const CgroupStats stats = read_stats(host_, cgroup_name(spec_.id));
  report.peak_memory_bytes = stats.peak_memory_bytes;
  report.oom_kills = stats.oom_kills;
  report.cpu_ms = stats.cpu_ms;
  if (!status) {
    report.error = "the container's exit status was lost";
    return;
  }
  judge(*status, end, report);
}

void Container::finish(Report& report) {
  // We are process 1 here: helpers that the runtime left behind are ours to reap, and a cgroup
  // lists the unreaped.
  while (waitpid(-1, nullptr, WNOHANG) > 0) {
  }
  if (!kill_cgroup(host_, cgroup_name(spec_.id))) {
    report.error = "processes of the container could not be killed";
  }
  if (runtime_ == nullptr || staged_.runtime.state.empty()) return;
  ProcessOptions remove;
  remove.argv = runtime_->remove(staged_.runtime, spec_.id);
  remove.env = {{"PATH", "/usr/sbin:/usr/bin:/sbin:/bin"}};
  // What it misses, the outer half removes; both are checked by residue().
  (void)run_command(remove, 65536, kRuntimeTimeoutMs).ok();
}

}  // namespace

Report run_inner(const ContainerSpec& spec, const HostProbe& host, const InnerOptions& options,
                 const Clock& clock) {
  Report report;
  const std::int64_t began = clock.steady_ms();
  if (unshare(CLONE_NEWNS) != 0) {
    report.error = std::string("mount namespace: ") + strerror(errno);
    return report;
  }
  Container container(spec, host, options, clock);
  const Status started = container.start(report);
  report.setup_ms = clock.steady_ms() - began;
  if (started.ok()) {
    container.run(report);
  } else {
    report.error = started.error().line().substr(0, 4000);
  }
  container.finish(report);
  return report;
}

}  // namespace gbx::sandbox
