// How an agent asks the gate: one confined process per job. The agent does not trust the answer. It
// recomputes charge, digests, sizes and the decision that the reported facts allow; whatever does
// not fit is a hold without content.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/os.h"
#include "base/seams.h"
#include "gate/gate.h"

namespace gbx::gate {

inline constexpr std::int64_t kTimeoutMs = 600'000;

struct GateSpawn {
  std::string program;         // path of glovebox-gate
  std::optional<uid_t> uid;    // the gate's own, when the caller may change it
  int out_fd = -1;             // the job's output folder
  std::vector<int> input_fds;  // one directory per request.inputs, same order
  std::optional<int> log_fd;   // a regular file
  GateRequest request;         // descriptor numbers in it are filled in by run_gate
  std::int64_t timeout_ms = kTimeoutMs;
};
struct GateOutcome {
  bool completed = false;  // false: the gate crashed, hung or answered nonsense
  GateReason failure = GateReason::kGateCrashed;
  GateResult result;  // recommendation hold when not completed
  // what would be sealed; absent when rejected or not completed
  std::optional<ReleaseChannel> channel;
};
// An Error is a caller's mistake or a machine that cannot start processes; it never releases
// anything either.
Result<GateOutcome> run_gate(GateSpawn spawn_request, const Clock& clock);

// Holds an answer against the request. kBadStructure, kBadHash, kBadValue say what does not fit.
Result<GateOutcome> check_answer(const GateRequest& request, ByteView answer);

}  // namespace gbx::gate
