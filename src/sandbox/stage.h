// Prepares what the runtime is told to mount, in the supervisor's private mount namespace. Internal
// to glovebox-sandbox.
#pragma once

#include "sandbox/host.h"
#include "sandbox/oci_config.h"
#include "sandbox/runtime.h"

namespace gbx::sandbox {

struct Staged {
  Stage stage;
  ContainerRuntime::Paths runtime;
};
// Call in a new PID namespace with a private copy of the mounts. `out_mount` is a detached tmpfs
// for /out.
Result<Staged> prepare_stage(const ContainerSpec& spec, const HostProbe& host, int out_mount);

}  // namespace gbx::sandbox
