#include "sandbox/oci_config.h"

#include "sandbox/seccomp_profile.h"

namespace gbx::sandbox {
namespace {

constexpr std::int64_t kIds = 65536;
constexpr std::int64_t kCpuPeriodUs = 100'000;

Json strings(std::initializer_list<std::string_view> items) {
  JsonArray a;
  for (const std::string_view s : items) a.emplace_back(s);
  return Json(std::move(a));
}

struct MountEntry {
  std::string destination;
  std::string type;
  std::string source;
};
Json mount_json(const MountEntry& m, Json options) {
  Json j;
  j["destination"] = m.destination;
  j["type"] = m.type;
  j["source"] = m.source;
  j["options"] = std::move(options);
  return j;
}

// Only what is listed here exists beside the image: no sysfs, no /dev/shm, no /dev/pts, no mqueue,
// no runtime socket.
Json mounts_json(const ContainerSpec& spec, const Stage& stage) {
  Json mounts(JsonArray{});
  mounts.push_back(mount_json({"/proc", "proc", "proc"},
                              strings({"nosuid", "nodev", "noexec", "hidepid=2", "subset=pid"})));
  mounts.push_back(
      mount_json({"/dev", "bind", stage.dev}, strings({"bind", "ro", "nosuid", "noexec"})));
  mounts.push_back(mount_json({"/tmp", "bind", stage.tmp},
                              strings({"bind", "rw", "nosuid", "nodev", "noexec"})));
  mounts.push_back(mount_json({"/out", "bind", stage.out},
                              strings({"bind", "rw", "nosuid", "nodev", "noexec"})));
  mounts.push_back(mount_json({"/data", "bind", stage.data},
                              strings({"bind", "ro", "nosuid", "nodev", "noexec"})));
  for (const DataMount& m : spec.mounts) {
    mounts.push_back(mount_json({"/data/" + m.name, "bind", stage.inputs + "/" + m.name},
                                strings({"bind", "ro", "nosuid", "nodev", "noexec"})));
  }
  return mounts;
}

Json list_json(const std::vector<std::string>& items) {
  return Json(JsonArray(items.begin(), items.end()));
}

Json rlimit_json(std::string_view type, std::int64_t value) {
  Json j;
  j["type"] = type;
  j["hard"] = value;
  j["soft"] = value;
  return j;
}

Json process_json(const ContainerSpec& spec) {
  Json user;
  user["uid"] = spec.uid;
  user["gid"] = spec.uid;
  user["umask"] = 077;
  Json capabilities;
  for (const char* set : {"bounding", "effective", "inheritable", "permitted", "ambient"}) {
    capabilities[set] = JsonArray{};
  }
  Json process;
  process["terminal"] = false;
  process["user"] = user;
  process["args"] = list_json(spec.argv);
  process["env"] = list_json(spec.env);
  process["cwd"] = spec.cwd;
  process["capabilities"] = capabilities;
  process["noNewPrivileges"] = true;
  if (spec.apparmor) process["apparmorProfile"] = *spec.apparmor;
  process["oomScoreAdj"] = 500;
  // Just above the largest file system: no file of holes is larger than what could be stored.
  const std::int64_t largest = std::max(spec.out_bytes, spec.tmp_bytes) + (1 << 20);
  process["rlimits"] =
      JsonArray{rlimit_json("RLIMIT_CORE", 0),        rlimit_json("RLIMIT_NOFILE", 1024),
                rlimit_json("RLIMIT_FSIZE", largest), rlimit_json("RLIMIT_MEMLOCK", 65536),
                rlimit_json("RLIMIT_MSGQUEUE", 0),    rlimit_json("RLIMIT_NICE", 0),
                rlimit_json("RLIMIT_RTPRIO", 0)};
  return process;
}

Json resources_json(const ContainerSpec& spec, const Stage& stage) {
  Json deny;
  deny["allow"] = false;
  deny["access"] = "rwm";
  Json r;
  // runtimes add null, zero, full, random, urandom and tty themselves
  r["devices"] = JsonArray{deny};
  const std::int64_t memory = spec.memory_bytes + spec.out_bytes + spec.tmp_bytes;
  r["memory"]["limit"] = memory;
  // memory and swap together: none is swapped out
  if (stage.limit_swap) r["memory"]["swap"] = memory;
  r["pids"]["limit"] = spec.pids_max;
  r["cpu"]["period"] = kCpuPeriodUs;
  r["cpu"]["quota"] = spec.cpu_millis * kCpuPeriodUs / 1000;
  return r;
}

Json linux_json(const ContainerSpec& spec, const Stage& stage) {
  JsonArray namespaces;
  for (const char* type : {"user", "pid", "network", "ipc", "uts", "mount", "cgroup"}) {
    Json ns;
    ns["type"] = type;
    namespaces.push_back(ns);
  }
  Json mapping;
  mapping["containerID"] = 0;
  mapping["hostID"] = spec.uid_base;
  mapping["size"] = kIds;
  Json l;
  l["namespaces"] = namespaces;
  l["uidMappings"] = JsonArray{mapping};
  l["gidMappings"] = JsonArray{mapping};
  l["resources"] = resources_json(spec, stage);
  l["cgroupsPath"] = "/" + cgroup_name(spec.id);
  l["rootfsPropagation"] = "private";
  l["seccomp"] = seccomp_json();
  l["maskedPaths"] = JsonArray{};  // nothing to mask: /proc shows processes only
  l["readonlyPaths"] = JsonArray{};
  return l;
}

}  // namespace

std::string cgroup_name(const std::string& id) { return "glovebox-" + id; }

Json oci_config(const ContainerSpec& spec, const Stage& stage) {
  Json config;
  config["ociVersion"] = "1.0.2";
  config["root"]["path"] = stage.rootfs;
  config["root"]["readonly"] = true;
  config["hostname"] = "glovebox";
  config["process"] = process_json(spec);
  config["mounts"] = mounts_json(spec, stage);
  config["linux"] = linux_json(spec, stage);
  return config;
}

}  // namespace gbx::sandbox
