#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "sandbox/host.h"
#include "sandbox/oci_config.h"
#include "sandbox/supervise.h"

namespace gbx::sandbox {
namespace {

constexpr std::size_t kMaxReport = 64U << 10;
constexpr std::int64_t kCancelGraceMs = 10'000;

// One of the container's streams: everything is read, the first bytes are kept.
struct LogPump {
  Fd pipe;
  int sink = -1;
  std::int64_t keep = 0;
  std::int64_t total = 0;

  void pump() {
    std::uint8_t buffer[65536];
    const ssize_t n = read(pipe.get(), buffer, sizeof buffer);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n <= 0) {
      pipe.reset();
      return;
    }
    const std::int64_t wanted = std::min<std::int64_t>(n, std::max<std::int64_t>(0, keep - total));
    if (wanted > 0 && !write_all(sink, ByteView(buffer, static_cast<std::size_t>(wanted))).ok()) {
      keep = total;
    }
    total += n;
  }
};

struct Pipes {
  std::pair<Fd, Fd> control, report, out, err;
};
Result<Pipes> make_pipes() {
  Pipes p;
  GBX_ASSIGN(p.control, make_pipe());
  GBX_ASSIGN(p.report, make_pipe());
  GBX_ASSIGN(p.out, make_pipe());
  GBX_ASSIGN(p.err, make_pipe());
  return p;
}

[[noreturn]] void inner_main(const ContainerSpec& spec, const HostProbe& host,
                             const Namespaces& own, Pipes& pipes, const Clock& clock) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  pipes.control.second.reset();
  pipes.report.first.reset();
  pipes.out.first.reset();
  pipes.err.first.reset();
  // Should the outer half have died before the line above, this end says so.
  char go = 0;
  if (read(pipes.control.first.get(), &go, 1) != 1) _exit(1);
  const Report report = run_inner(
      spec, host, {pipes.control.first.get(), pipes.out.second.get(), pipes.err.second.get(), own},
      clock);
  const std::string text = canonical(to_json(report));
  _exit(write_all(pipes.report.second.get(), as_bytes(text)).ok() ? 0 : 1);
}

class Supervisor {
 public:
  Supervisor(const ContainerSpec& spec, const Clock& clock) : spec_(spec), clock_(clock) {}
  Result<Report> run();
  const LogPump& out() const { return out_; }
  const LogPump& err() const { return err_; }

 private:
  Status pump_until_done(Process& inner, Pipes& pipes);
  void drain();

  const ContainerSpec& spec_;
  const Clock& clock_;
  LogPump out_;
  LogPump err_;
  std::string report_text_;
};

// Ends when the inner half has closed its report, or is past all patience after a cancellation.
Status Supervisor::pump_until_done(Process& inner, Pipes& pipes) {
  std::int64_t give_up = INT64_MAX;
  while (pipes.report.first.valid()) {
    const bool cancelled = give_up != INT64_MAX;
    if (cancelled && clock_.steady_ms() > give_up) {
      inner.kill_and_reap();
      return fail(Reason::kInternal, "the supervisor did not end when it was told to");
    }
    pollfd p[4] = {{pipes.report.first.get(), POLLIN, 0},
                   {out_.pipe.get(), POLLIN, 0},
                   {err_.pipe.get(), POLLIN, 0},
                   {cancelled ? -1 : kLifeFd, POLLIN, 0}};
    if (poll(p, 4, 1000) < 0 && errno != EINTR) return io_error("poll", errno);
    if (p[1].revents != 0) out_.pump();
    if (p[2].revents != 0) err_.pump();
    if (p[3].revents != 0) {
      pipes.control.second.reset();
      give_up = clock_.steady_ms() + kCancelGraceMs;
    }
    if (p[0].revents == 0) continue;
    char buffer[4096];
    const ssize_t n = read(pipes.report.first.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0 || report_text_.size() > kMaxReport) {
      pipes.report.first.reset();
    } else {
      report_text_.append(buffer, static_cast<std::size_t>(n));
    }
  }
  return ok_status();
}

// All writers are dead: what is in the pipes ends.
void Supervisor::drain() {
  while (out_.pipe.valid()) out_.pump();
  while (err_.pipe.valid()) err_.pump();
}

Result<Report> Supervisor::run() {
  GBX_ASSIGN(const HostProbe host, probe_host());
  for (const char* need : {"memory", "pids", "cpu"}) {
    if (host.controllers.count(need) == 0) {
      return fail(Reason::kSandboxSetup, std::string("this host has no cgroup controller ") + need);
    }
  }
  if (!host.user_namespaces) {
    return fail(Reason::kSandboxSetup, "this host does not allow user namespaces");
  }
  if (!cgroup_dirs(host, cgroup_name(spec_.id)).empty()) {
    return fail(Reason::kSandboxSetup, "a container with this id exists");
  }
  GBX_ASSIGN(const Namespaces own, read_namespaces("self"));
  GBX_ASSIGN(Pipes pipes, make_pipes());
  if (unshare(CLONE_NEWPID) != 0) return io_error("PID namespace", errno);
  const pid_t pid = fork();
  if (pid < 0) return io_error("fork", errno);
  if (pid == 0) inner_main(spec_, host, own, pipes, clock_);
  Process inner(pid);
  pipes.control.first.reset();
  pipes.report.second.reset();
  pipes.out.second.reset();
  pipes.err.second.reset();
  out_ = {std::move(pipes.out.first), kStdoutFd, spec_.log_bytes, 0};
  err_ = {std::move(pipes.err.first), kStderrFd, spec_.log_bytes, 0};
  if (write(pipes.control.second.get(), "g", 1) != 1) return io_error("control pipe", errno);
  const Status pumped = pump_until_done(inner, pipes);
  // it is the first process of its namespace: whatever is left in there dies now
  inner.kill_and_reap();
  drain();
  const Status removed = remove_cgroup(host, cgroup_name(spec_.id));
  if (!pumped.ok()) return pumped.error();
  auto report = from_json_text<Report>(report_text_);
  if (!report.ok()) return fail(Reason::kInternal, "the supervisor's inner half died");
  if (!removed.ok()) return removed.error();
  return report;
}

}  // namespace

Report supervise(const ContainerSpec& spec, const Clock& clock) {
  Supervisor supervisor(spec, clock);
  const std::int64_t began = clock.steady_ms();
  auto result = supervisor.run();
  Report report;
  if (result.ok()) {
    report = *result;
  } else {
    report.error = result.error().line().substr(0, 4000);
    report.setup_ms = clock.steady_ms() - began;
  }
  report.stdout_bytes = supervisor.out().total;
  report.stderr_bytes = supervisor.err().total;
  return report;
}

}  // namespace gbx::sandbox
