// One attempt on this node: start an environment, relay its bytes to the broker, carry its reports and its sealed output
// to the plane, destroy it, and say so with a signature. The node is trusted with none of what passes.
#pragma once

#include "base/log.h"
#include "node/plane_link.h"
#include "node/provisioner.h"
#include "records/messages.h"

namespace gbx::node {

struct AttemptOptions {
  const Clock* clock = nullptr;
  const Logger* log = nullptr;
  const crypto::SigningKey* key = nullptr;  // signs introductions and destruction claims
  channel::TcpAddress broker;
  Provisioner* provisioner = nullptr;
  PlaneLink* plane = nullptr;
  std::optional<Error> refused;             // why this node does not begin: it is only told to the plane
  std::int64_t grace_ms = 60'000;           // beyond the plan's run time, for start and gate
};

// `stop` is asked now and then; true ends the attempt. Returns when the environment is destroyed and both the phase
// and the claim have been told to the plane, or the plane could not be reached for five minutes.
Status run_attempt(const AttemptOptions& options, const records::LaunchBundle& bundle, const std::function<bool()>& stop);

}  // namespace gbx::node
