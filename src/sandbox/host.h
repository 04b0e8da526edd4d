// What /proc and the cgroup file systems say about the host and about a container. Internal to
// src/sandbox.
#pragma once

#include <optional>

#include "sandbox/sandbox.h"

namespace gbx::sandbox {

struct Mount {
  std::string point;
  std::string type;
  std::string source;
  std::string super_options;
  std::string options;  // of this mount, not of its file system
};
Result<std::vector<Mount>> read_mounts(const std::string& mountinfo_path);

struct CgroupStats {
  std::int64_t peak_memory_bytes = 0;
  std::int64_t oom_kills = 0;
  std::int64_t cpu_ms = 0;
};
CgroupStats read_stats(const HostProbe& host, const std::string& cgroup);
// Kills until no process is left in the container's cgroups; false when some still are after two
// seconds.
bool kill_cgroup(const HostProbe& host, const std::string& cgroup);
// The directories of the container that exist, deepest first in each hierarchy.
std::vector<std::string> cgroup_dirs(const HostProbe& host, const std::string& cgroup);
Status remove_cgroup(const HostProbe& host, const std::string& cgroup);

}  // namespace gbx::sandbox
