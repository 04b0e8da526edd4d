// Waiting for a job: phase and seconds, live on a terminal, one line for each change elsewhere.
#pragma once

#include <string>

#include "cli/session.h"

namespace gbx::cli {

struct WatchOptions {
  bool through_hold = false;    // a held output is no end
  std::int64_t timeout_ms = 0;  // 0: as long as it takes
};
// "Running: Working", "Reviewing: Held".
std::string phase_text(const api::JobView& job);
bool held(const api::JobView& job);
// The last view. Errors: kTimedOut (the job goes on), and those of the connection after its
// repetitions.
Result<api::JobView> watch_job(Session& session, api::JobView job, WatchOptions options);
// ok for a completed job; else why it was not, with the exit class that fits; kHeld while a
// reviewer has to decide.
Status outcome_of(const api::JobView& job);
// The exit status of how it ended, whatever the reason: denied, failed, held.
ExitClass class_of_end(const api::JobView& job);

// The published schema, as in docs/jobspec.schema.json.
Json job_spec_schema();

}  // namespace gbx::cli
