// The supervisor's two halves and what they tell one another. Internal to glovebox-sandbox and
// run_container().
#pragma once

#include "base/seams.h"
#include "sandbox/controls.h"

namespace gbx::sandbox {

// Descriptors of glovebox-sandbox.
inline constexpr int kSpecFd = 3;    // the spec as JSON
inline constexpr int kOutFd = 4;     // the detached tmpfs for /out
inline constexpr int kReportFd = 5;  // the Report as JSON
inline constexpr int kStdoutFd = 6;  // files that take what is kept of the container's streams
inline constexpr int kStderrFd = 7;
inline constexpr int kLifeFd = 8;  // readable or closed: kill the container and clean up

struct Report {
  Outcome outcome = Outcome::kSetupError;
  std::int64_t code = 0;
  std::string error;
  std::int64_t setup_ms = 0;
  std::int64_t run_ms = 0;
  std::int64_t peak_memory_bytes = 0;
  std::int64_t cpu_ms = 0;
  std::int64_t oom_kills = 0;
  std::int64_t stdout_bytes = 0;
  std::int64_t stderr_bytes = 0;
  std::string runtime;
  std::vector<std::string> controls;
  template <class F>
  void fields(F& f) {
    f("outcome", outcome);
    f("code", code);
    f("error", error, Bound{0, 8192});
    f("setupMs", setup_ms);
    f("runMs", run_ms);
    f("peakMemoryBytes", peak_memory_bytes);
    f("cpuMs", cpu_ms);
    f("oomKills", oom_kills);
    f("stdoutBytes", stdout_bytes);
    f("stderrBytes", stderr_bytes);
    f("runtime", runtime, Bound{0, 64});
    f("controls", controls, Bound{0, 64});
  }
};

// Outer half: forks the inner one, pumps the logs, cleans up. Never fails without saying so in the
// Report.
Report supervise(const ContainerSpec& spec, const Clock& clock);

// Inner half: process 1 of a PID namespace. `control` readable or closed: kill the container.
struct InnerOptions {
  int control = -1;
  int out_pipe = -1;
  int err_pipe = -1;
  Namespaces host;  // of the outer half
};
Report run_inner(const ContainerSpec& spec, const HostProbe& host, const InnerOptions& options,
                 const Clock& clock);

}  // namespace gbx::sandbox
