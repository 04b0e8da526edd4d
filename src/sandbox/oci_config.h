// The OCI runtime configuration that carries the mandatory controls. Internal to src/sandbox.
#pragma once

#include "base/json.h"
#include "sandbox/sandbox.h"

namespace gbx::sandbox {

// Directories that the supervisor prepared; every path in the config lies in them.
struct Stage {
  std::string rootfs;
  std::string dev;
  std::string out;
  std::string tmp;
  std::string data;    // an empty directory for each DataMount: where it will be mounted
  std::string inputs;  // the data mounts themselves, by name
  bool limit_swap = false;
};

// The name of the container's directory in every cgroup hierarchy.
std::string cgroup_name(const std::string& id);
Json oci_config(const ContainerSpec& spec, const Stage& stage);

}  // namespace gbx::sandbox
