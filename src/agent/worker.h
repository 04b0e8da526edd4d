// The unprivileged half of the tee-agent: attests, gets keys, has the work done, seals the output.
// It holds every key of the attempt and ends with it. One thread.
#pragma once

#include "agent/bundle_check.h"
#include "base/seams.h"
#include "channel/mux.h"

namespace gbx::agent {

struct WorkerOptions {
  const Clock* clock = nullptr;
  Random* random = nullptr;
  int supervisor = -1;          // packet socket to the privileged half
  channel::Mux* mux = nullptr;  // to the node
  // of the platform; whatever is not `none` is asked for quotes
  records::Technology technology = records::Technology::kNone;
  int broker_tries = 200;  // of one call, and of one quote
  // after the first try, as much more after each further one, up to three seconds
  std::int64_t broker_pause_ms = 100;
};

// A container that ran without one of the plan's controls has no output: kSandboxSetup names the
// first.
Status require_controls(const records::PlanControls& plan,
                        const std::vector<std::string>& in_force);

// Runs one attempt to its end and reports it to the node. The result is for the exit code only.
Status run_worker(const WorkerOptions& options);

}  // namespace gbx::agent
