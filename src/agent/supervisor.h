// The privileged half of the tee-agent: in a mount namespace of its own it mounts, unpacks, runs
// and destroys, at the word of the worker. It parses nothing that comes from outside but through
// confined children: glovebox-decryptfs, glovebox-unpack, glovebox-sandbox, glovebox-gate. The
// worker is not trusted: its requests come in one order and within bounds, or the attempt ends.
// Single-threaded, so that children die with it.
#pragma once

#include <optional>
#include <string>

#include "attest/attester.h"
#include "base/log.h"

namespace gbx::agent {

struct SupervisorOptions {
  const Clock* clock = nullptr;
  const Logger* log = nullptr;
  std::string dir;        // private to this attempt; a tmpfs is mounted over it
  std::string objects;    // ciphertext: a folder, or the device of a volume
  std::string container;  // id of the container; its node knows it too, and clears up by it
  // worker +0, decryptfs +1, +2…; container ids from +65536, its user and the gate +66536
  std::int64_t uid_base = 0;
  int worker = -1;  // packet socket
  // of the container; kSandboxSetup ends a run where the kernel does not enforce it
  std::optional<std::string> apparmor;
  // of the platform; none where there is no TEE. Outlives the supervisor
  attest::Attester* attester = nullptr;
};

// Serves operations until the worker ends; then everything is destroyed. The returned status is for
// the exit code.
Status supervise(const SupervisorOptions& options);

}  // namespace gbx::agent
