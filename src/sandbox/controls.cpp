#include "sandbox/controls.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "base/log.h"
#include "sandbox/oci_config.h"
#include "sandbox/seccomp_profile.h"

namespace gbx::sandbox {
namespace {

constexpr std::size_t kMaxText = 1U << 20;
constexpr std::int64_t kIds = 65536;
constexpr const char* kNamespaces[] = {"user", "pid", "net", "ipc", "uts", "mnt", "cgroup"};

Error missing(const std::string& expected, const std::string& actual) {
  return fail(Reason::kSandboxSetup, "control not in force")
      .with(expected, printable(actual.empty() ? "nothing" : actual, 200));
}

std::string value_of(const std::map<std::string, std::string>& values, const std::string& key) {
  const auto it = values.find(key);
  return it == values.end() ? std::string() : it->second;
}

bool has_option(const std::string& options, const std::string& wanted) {
  return ("," + options + ",").find("," + wanted + ",") != std::string::npos;
}
// "64" of "size=64k"; -1 when there is none.
std::int64_t number_option(const std::string& options, const std::string& name) {
  const std::string all = "," + options;
  const std::size_t at = all.find("," + name + "=");
  if (at == std::string::npos) return -1;
  return strtoll(all.c_str() + at + name.size() + 2, nullptr, 10);
}

const Mount* mount_at(const Reading& r, const std::string& point) {
  const Mount* found = nullptr;
  for (const Mount& m : r.mounts) {
    if (m.point == point) found = &m;  // the last one covers the others
  }
  return found;
}

Status shares_none(const Reading& r, const Expected& e, std::initializer_list<const char*> types) {
  for (const char* type : types) {
    const std::string own = value_of(r.namespaces, type);
    if (own.empty()) return missing(std::string(type) + " namespace of its own", "");
    for (const Namespaces& outside : e.outside) {
      if (value_of(outside, type) == own) {
        return missing(std::string(type) + " namespace of its own", "shared: " + own);
      }
    }
  }
  return ok_status();
}

Status check_user_namespace(const Reading& r, const Expected& e) {
  GBX_TRY(shares_none(r, e, {"user"}));
  const std::string map = "0 " + std::to_string(e.spec.uid_base) + " " + std::to_string(kIds);
  if (r.uid_map != map) return missing("uid map " + map, r.uid_map);
  if (r.gid_map != map) return missing("gid map " + map, r.gid_map);
  return ok_status();
}

Status check_capabilities(const Reading& r, const Expected& e) {
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    const std::string value = value_of(r.status, set);
    const bool none = !value.empty() && value.find_first_not_of('0') == std::string::npos;
    if (!none) return missing(std::string(set) + " 0", value);
  }
  const std::string id = std::to_string(e.spec.uid_base + e.spec.uid);
  for (const char* ids : {"Uid", "Gid"}) {
    const std::string value = value_of(r.status, ids);
    if (value != id + " " + id + " " + id + " " + id) {
      return missing(std::string(ids) + " " + id, value);
    }
  }
  return ok_status();
}

Status check_no_new_privs(const Reading& r, const Expected&) {
  const std::string value = value_of(r.status, "NoNewPrivs");
  return value == "1" ? ok_status() : Status(missing("NoNewPrivs 1", value));
}

// Whatever the container shall not write: its root, its devices, its inputs.
Status check_read_only_root(const Reading& r, const Expected& e) {
  std::vector<std::string> points = {"/", "/dev", "/data"};
  for (const DataMount& m : e.spec.mounts) points.push_back("/data/" + m.name);
  for (const std::string& point : points) {
    const Mount* m = mount_at(r, point);
    if (m == nullptr || !has_option(m->options, "ro") || !has_option(m->options, "nosuid")) {
      return missing(point + " read-only and nosuid", m == nullptr ? "" : m->options);
    }
  }
  return ok_status();
}

Status check_private_namespaces(const Reading& r, const Expected& e) {
  return shares_none(r, e, {"pid", "ipc", "uts", "mnt", "cgroup"});
}

// 2 is a filter; Linux since 5.17 shows 3 for a process that its filter has killed
// (SECCOMP_MODE_DEAD).
bool filtered(const std::string& mode) { return mode == "2" || mode == "3"; }

Status check_seccomp(const Reading& r, const Expected&) {
  const std::string mode = value_of(r.status, "Seccomp");
  if (!filtered(mode)) return missing("Seccomp 2, a filter", mode);
  if (canonical(r.seccomp) != canonical(seccomp_json())) {
    return missing("the allow-list", "another profile");
  }
  return ok_status();
}

Status check_proc(const Reading& r, const Expected&) {
  const Mount* m = mount_at(r, "/proc");
  const bool good = m != nullptr && m->type == "proc" &&
                    has_option(m->super_options, "subset=pid") &&
                    (has_option(m->super_options, "hidepid=invisible") ||
                     has_option(m->super_options, "hidepid=2"));
  return good ? ok_status()
              : Status(missing("/proc with subset=pid and hidepid=2",
                               m == nullptr ? "" : m->super_options));
}

Status check_no_sysfs(const Reading& r, const Expected&) {
  if (r.mounts.empty()) return missing("a table of mounts", "");
  for (const Mount& m : r.mounts) {
    const bool allowed = m.point == "/proc" ? m.type == "proc" : m.type != "proc";
    if (!allowed || m.type == "sysfs" || m.type == "cgroup" || m.type == "cgroup2") {
      return missing("no view of the kernel but /proc", m.type + " at " + m.point);
    }
  }
  return ok_status();
}

Status check_member(const Reading& r, const Expected& e) {
  const std::string own = "/" + cgroup_name(e.spec.id);
  const bool in = std::any_of(r.cgroups.begin(), r.cgroups.end(), [&](const std::string& c) {
    const std::size_t at = c.find(own);
    return at != std::string::npos && (at + own.size() == c.size() || c[at + own.size()] == '/');
  });
  return in ? ok_status()
            : Status(missing("a member of cgroup " + own, r.cgroups.empty() ? "" : r.cgroups[0]));
}
Status check_limit(std::string_view what, std::int64_t limit, std::int64_t most) {
  if (limit > 0 && limit <= most) return ok_status();
  return missing("at most " + std::to_string(most) + " " + std::string(what),
                 std::to_string(limit));
}
Status check_pids(const Reading& r, const Expected& e) {
  GBX_TRY(check_member(r, e));
  return check_limit("processes", r.limits.pids, e.spec.pids_max);
}
Status check_memory(const Reading& r, const Expected& e) {
  GBX_TRY(check_member(r, e));
  const std::int64_t most = e.spec.memory_bytes + e.spec.out_bytes + e.spec.tmp_bytes;
  GBX_TRY(check_limit("bytes of memory", r.limits.memory_bytes, most));
  return e.limit_swap
             ? check_limit("bytes of memory and swap", r.limits.memory_and_swap_bytes, most)
             : ok_status();
}
Status check_cpu(const Reading& r, const Expected& e) {
  GBX_TRY(check_member(r, e));
  if (r.limits.cpu_period_us <= 0) return missing("a CPU quota", "");
  return check_limit("microseconds of CPU per second",
                     r.limits.cpu_quota_us * 1'000'000 / r.limits.cpu_period_us,
                     e.spec.cpu_millis * 1000);
}

Status check_no_network(const Reading& r, const Expected& e) {
  GBX_TRY(shares_none(r, e, {"net"}));
  for (const std::string& name : r.interfaces) {
    if (name != "lo") return missing("no interface but lo", name);
  }
  return ok_status();
}

// Nothing of the host is mounted but what the spec names: no socket of a runtime or of anything
// else.
Status check_no_runtime_socket(const Reading& r, const Expected& e) {
  std::set<std::string> points = {"/", "/proc", "/dev", "/tmp", "/out", "/data"};
  for (const DataMount& m : e.spec.mounts) points.insert("/data/" + m.name);
  for (const Mount& m : r.mounts) {
    if (points.count(m.point) == 0) return missing("no other mounts", m.point);
  }
  return mount_at(r, "/") == nullptr ? Status(missing("a table of mounts", "")) : ok_status();
}

Status check_bounded(const Reading& r, const std::string& point, std::int64_t bytes) {
  const Mount* m = mount_at(r, point);
  const std::int64_t pages = (bytes + 4095) / 4096;
  const std::int64_t kib =
      m == nullptr || m->type != "tmpfs" ? -1 : number_option(m->super_options, "size");
  const bool good = kib > 0 && kib <= pages * 4 && number_option(m->super_options, "nr_inodes") > 0;
  return good ? ok_status()
              : Status(missing(
                    point + " of at most " + std::to_string(pages * 4) + "k and a number of files",
                    m == nullptr ? "" : m->super_options));
}
Status check_out(const Reading& r, const Expected& e) {
  GBX_TRY(check_bounded(r, "/out", e.spec.out_bytes));
  return check_bounded(r, "/tmp", e.spec.tmp_bytes);
}

// Both streams lead to the supervisor, which keeps no more than log_bytes of each; input is no file
// of the host.
Status check_logs(const Reading& r, const Expected& e) {
  if (!r.stdin_file.starts_with("pipe:")) {
    return missing("standard input that is a pipe", r.stdin_file);
  }
  if (e.stdout_file.empty() || r.stdout_file != e.stdout_file) {
    return missing("standard output " + e.stdout_file, r.stdout_file);
  }
  if (e.stderr_file.empty() || r.stderr_file != e.stderr_file) {
    return missing("standard error " + e.stderr_file, r.stderr_file);
  }
  return ok_status();
}

std::string enforced(const std::string& profile) { return profile + " (enforce)"; }
Status check_apparmor(const Reading& r, const Expected& e) {
  const std::string label = enforced(*e.spec.apparmor);
  return r.label == label ? ok_status() : Status(missing("AppArmor profile " + label, r.label));
}

constexpr Control kControls[] = {
    {"user-namespace", Moment::kCreated, check_user_namespace},
    {"no-capabilities", Moment::kRunning, check_capabilities},
    {"no-new-privs", Moment::kRunning, check_no_new_privs},
    {"read-only-root", Moment::kCreated, check_read_only_root},
    {"private-namespaces", Moment::kCreated, check_private_namespaces},
    {"seccomp", Moment::kRunning, check_seccomp},
    {"proc-subset", Moment::kCreated, check_proc},
    {"no-sysfs", Moment::kCreated, check_no_sysfs},
    {"pids-limit", Moment::kCreated, check_pids},
    {"memory-limit", Moment::kCreated, check_memory},
    {"cpu-limit", Moment::kCreated, check_cpu},
    {"no-network", Moment::kCreated, check_no_network},
    {"no-runtime-socket", Moment::kCreated, check_no_runtime_socket},
    {"out-bounded", Moment::kCreated, check_out},
    {"logs-bounded", Moment::kCreated, check_logs},
};

// ---- reading ----

std::string one_line(const std::string& path) {
  auto text = read_text_file(path, kMaxText);
  if (!text.ok()) return {};
  std::istringstream in(*text);
  std::string out;
  for (std::string word; in >> word;) out += (out.empty() ? "" : " ") + word;
  return out;
}

std::string link_text(const std::string& path) {
  char buffer[256];
  const ssize_t n = readlink(path.c_str(), buffer, sizeof buffer);
  return n <= 0 || n == static_cast<ssize_t>(sizeof buffer)
             ? std::string()
             : std::string(buffer, static_cast<std::size_t>(n));
}

// "max" and what is no number: -1.
std::int64_t number(const std::string& text) {
  const bool digits = !text.empty() && text.size() < 19 &&
                      text.find_first_not_of("0123456789") == std::string::npos;
  return digits ? strtoll(text.c_str(), nullptr, 10) : -1;
}

Limits read_limits(const HostProbe& host, const std::string& cgroup) {
  const auto file = [&](const char* controller, const char* name) {
    const auto it = host.controllers.find(controller);
    return it == host.controllers.end() ? std::string()
                                        : one_line(it->second + "/" + cgroup + "/" + name);
  };
  Limits l;
  l.pids = number(file("pids", "pids.max"));
  if (host.cgroups == CgroupLayout::kV2) {
    l.memory_bytes = number(file("memory", "memory.max"));
    const std::int64_t swap = number(file("memory", "memory.swap.max"));
    l.memory_and_swap_bytes = swap < 0 ? -1 : l.memory_bytes + swap;
    std::istringstream cpu(file("cpu", "cpu.max"));
    std::string quota, period;
    cpu >> quota >> period;
    l.cpu_quota_us = number(quota);
    l.cpu_period_us = number(period);
    return l;
  }
  l.memory_bytes = number(file("memory", "memory.limit_in_bytes"));
  l.memory_and_swap_bytes = number(file("memory", "memory.memsw.limit_in_bytes"));
  l.cpu_quota_us = number(file("cpu", "cpu.cfs_quota_us"));
  l.cpu_period_us = number(file("cpu", "cpu.cfs_period_us"));
  return l;
}

// "eth0" of "  eth0:  1 2 …"; the two lines of headings have no colon.
std::vector<std::string> interface_names(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(':');
    const std::size_t begin = line.find_first_not_of(' ');
    if (colon != std::string::npos && begin < colon) {
      out.push_back(line.substr(begin, colon - begin));
    }
  }
  return out;
}

std::map<std::string, std::string> read_status(const std::string& proc) {
  std::map<std::string, std::string> out;
  auto text = read_text_file(proc + "/status", kMaxText);
  if (!text.ok()) return out;
  std::istringstream in(*text);
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    std::istringstream words(line.substr(colon + 1));
    std::string value;
    for (std::string word; words >> word;) value += (value.empty() ? "" : " ") + word;
    out[line.substr(0, colon)] = value;
  }
  return out;
}

Result<Json> configured_seccomp(const std::string& bundle) {
  GBX_ASSIGN(const std::string text, read_text_file(bundle + "/config.json", kMaxText));
  GBX_ASSIGN(const Json config, parse_json(text));
  const Json* linux_part = config.find("linux");
  const Json* seccomp = linux_part == nullptr ? nullptr : linux_part->find("seccomp");
  return seccomp == nullptr ? Json() : *seccomp;
}

}  // namespace

std::span<const Control> controls() { return kControls; }
std::vector<std::string> control_names() {
  std::vector<std::string> names;
  for (const Control& c : kControls) names.emplace_back(c.name);
  return names;
}

Result<std::vector<std::string>> check_controls(const Reading& reading, const Expected& expected,
                                                Moment moment) {
  std::vector<std::string> names;
  for (const Control& c : kControls) {
    if (c.moment != moment) continue;
    Status s = c.check(reading, expected);
    if (!s.ok()) return s.error().at(std::string(c.name));
    names.emplace_back(c.name);
  }
  if (moment == Moment::kRunning && expected.spec.apparmor) {
    Status s = check_apparmor(reading, expected);
    if (!s.ok()) return s.error().at(kAppArmorControl);
    names.emplace_back(kAppArmorControl);
  }
  return names;
}

bool profile_is_loaded(const std::string& name, const std::string& profiles) {
  const auto text = read_text_file(profiles, kMaxText);
  if (!text.ok()) return false;
  std::istringstream in(*text);
  for (std::string line; std::getline(in, line);) {
    if (line == enforced(name)) return true;
  }
  return false;
}

Result<Namespaces> read_namespaces(const std::string& pid) {
  Namespaces out;
  for (const char* type : kNamespaces) {
    const std::string text = link_text("/proc/" + pid + "/ns/" + type);
    if (text.empty()) {
      return fail(Reason::kSandboxSetup,
                  "namespace " + std::string(type) + " of process " + pid + ": " + strerror(errno));
    }
    out[type] = text;
  }
  return out;
}

std::string file_name_of(int fd) { return link_text("/proc/self/fd/" + std::to_string(fd)); }

Result<Reading> read_created(pid_t pid, const ContainerSpec& spec, const HostProbe& host,
                             const std::string& bundle) {
  const std::string number_text = std::to_string(pid);
  const std::string proc = "/proc/" + number_text;
  Reading r;
  GBX_ASSIGN(r.namespaces, read_namespaces(number_text));
  r.uid_map = one_line(proc + "/uid_map");
  r.gid_map = one_line(proc + "/gid_map");
  GBX_ASSIGN(r.mounts, read_mounts(proc + "/mountinfo"));
  GBX_ASSIGN(const std::string net, read_text_file(proc + "/net/dev", kMaxText));
  r.interfaces = interface_names(net);
  GBX_ASSIGN(const std::string cgroups, read_text_file(proc + "/cgroup", kMaxText));
  std::istringstream in(cgroups);
  for (std::string line; std::getline(in, line);) r.cgroups.push_back(line);
  r.limits = read_limits(host, cgroup_name(spec.id));
  r.stdin_file = link_text(proc + "/fd/0");
  r.stdout_file = link_text(proc + "/fd/1");
  r.stderr_file = link_text(proc + "/fd/2");
  GBX_ASSIGN(r.seccomp, configured_seccomp(bundle));
  return r;
}

Status read_running(pid_t pid, const ContainerSpec& spec, const Patience& patience,
                    Reading& reading) {
  const std::int64_t deadline = patience.clock.steady_ms() + patience.timeout_ms;
  const std::string proc = "/proc/" + std::to_string(pid);
  for (;;) {
    reading.status = read_status(proc);
    if (spec.apparmor) reading.label = one_line(proc + "/attr/apparmor/current");
    if (reading.status.empty()) {
      return fail(Reason::kSandboxSetup,
                  "the status of the container's first process cannot be read");
    }
    // A runtime asks for the profile before, and the kernel changes to it with the program.
    const bool confined = !spec.apparmor || reading.label == enforced(*spec.apparmor);
    if ((filtered(value_of(reading.status, "Seccomp")) && confined) ||
        value_of(reading.status, "State").substr(0, 1) == "Z") {
      return ok_status();
    }
    // check_controls() says what is missing
    if (patience.clock.steady_ms() > deadline) return ok_status();
    poll(nullptr, 0, 1);
  }
}

}  // namespace gbx::sandbox
