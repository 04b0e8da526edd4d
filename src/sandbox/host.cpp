#include "sandbox/host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "sandbox/oci_config.h"
#include "sandbox/runtime.h"

namespace gbx::sandbox {
namespace {

constexpr std::size_t kMaxText = 8U << 20;

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescape(std::string_view s) {
  std::string out;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '\\' && i + 3 < s.size()) {
      out.push_back(
          static_cast<char>(((s[i + 1] - '0') << 6) | ((s[i + 2] - '0') << 3) | (s[i + 3] - '0')));
      i += 3;
    } else {
      out.push_back(s[i]);
    }
  }
  return out;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) out.push_back(part);
  return out;
}

std::string file_text(const std::string& path) {
  auto text = read_text_file(path, kMaxText);
  return text.ok() ? *text : std::string();
}

// The number after `key` and a space, or of the whole file when key is empty; 0 when there is none.
std::int64_t number_in(const std::string& path, const std::string& key) {
  std::istringstream in(file_text(path));
  std::int64_t value = 0;
  if (key.empty()) return in >> value ? value : 0;
  for (std::string word; in >> word >> value;) {
    if (word == key) return value;
  }
  return 0;
}

// /proc and cgroup file systems tell the type of an entry as they list it.
std::vector<std::string> dirs_in(const std::string& path) {
  std::vector<std::string> out;
  DIR* d = opendir(path.c_str());
  if (d == nullptr) return out;
  while (const dirent* e = readdir(d)) {
    const std::string name(e->d_name);
    if (e->d_type == DT_DIR && name != "." && name != "..") out.push_back(name);
  }
  closedir(d);
  return out;
}
bool is_number(const std::string& s) {
  return !s.empty() && std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; });
}

void note_cgroups(const std::vector<Mount>& mounts, HostProbe& host) {
  static const std::set<std::string> kControllers = {
      "memory",  "pids",  "cpu",     "cpuacct", "cpuset",   "devices",
      "freezer", "blkio", "hugetlb", "net_cls", "net_prio", "perf_event"};
  std::string unified;
  std::vector<std::string> unified_mounts;
  for (const Mount& m : mounts) {
    if (m.type != "cgroup" && m.type != "cgroup2") continue;
    if (m.type == "cgroup") host.cgroup_mounts.push_back(m.point);
    if (m.type == "cgroup2") {
      unified = m.point;
      unified_mounts.push_back(m.point);
      continue;
    }
    for (const std::string& o : split(m.super_options, ',')) {
      if (kControllers.count(o) > 0) host.controllers[o] = m.point;
    }
  }
  if (host.controllers.count("memory") > 0 || host.controllers.count("pids") > 0) {
    host.cgroups = CgroupLayout::kV1;
    host.to_hide = unified_mounts;
    host.notes.push_back("cgroup v1 holds memory and pids: limits are set there" +
                         std::string(unified_mounts.empty()
                                         ? ""
                                         : "; the unified hierarchy is hidden from the runtime, "
                                           "which refuses hybrid hosts"));
  } else if (!unified.empty()) {
    host.cgroups = CgroupLayout::kV2;
    host.cgroup_mounts = {unified};
    for (const std::string& c : split(file_text(unified + "/cgroup.controllers"), ' ')) {
      std::string name = c;
      while (!name.empty() && name.back() == '\n') name.pop_back();
      if (!name.empty()) host.controllers[name] = unified;
    }
    host.notes.push_back("pure cgroup v2 at " + unified);
  } else {
    host.notes.push_back("no cgroup file system is mounted");
  }
}

std::vector<std::string> processes_of(const std::string& cgroup) {
  std::vector<std::string> found;
  for (const std::string& pid : dirs_in("/proc")) {
    if (!is_number(pid)) continue;
    std::istringstream in(file_text("/proc/" + pid + "/cgroup"));
    for (std::string line; std::getline(in, line);) {
      const std::size_t at = line.find("/" + cgroup);
      if (at == std::string::npos) continue;
      const std::size_t end = at + 1 + cgroup.size();
      if (end == line.size() || line[end] == '/') {
        found.push_back(pid);
        break;
      }
    }
  }
  return found;
}

}  // namespace

Result<std::vector<Mount>> read_mounts(const std::string& path) {
  GBX_ASSIGN(const std::string text, read_text_file(path, kMaxText));
  std::vector<Mount> out;
  for (const std::string& line : split(text, '\n')) {
    const std::vector<std::string> f = split(line, ' ');
    const auto dash = std::find(f.begin(), f.end(), "-");
    if (f.size() < 10 || f.end() - dash < 4) continue;
    out.push_back({unescape(f[4]), *(dash + 1), unescape(*(dash + 2)), *(dash + 3), f[5]});
  }
  return out;
}

Result<HostProbe> probe_host() {
  HostProbe host;
  GBX_ASSIGN(const std::vector<Mount> mounts, read_mounts("/proc/self/mountinfo"));
  note_cgroups(mounts, host);
  for (const char* need : {"memory", "pids", "cpu"}) {
    if (host.controllers.count(need) == 0) {
      host.notes.push_back(std::string("cgroup controller ") + need + " is missing");
    }
  }
  for (const std::string& name : known_runtimes()) {
    if (find_runtime(name).ok()) host.runtimes.push_back(name);
  }
  if (host.runtimes.empty()) host.notes.push_back("neither crun nor runc is installed");
  const std::string swaps = file_text("/proc/swaps");
  host.swap = std::count(swaps.begin(), swaps.end(), '\n') > 1;
  const auto memory = host.controllers.find("memory");
  host.limit_swap = host.cgroups == CgroupLayout::kV2
                        ? host.swap
                        : memory != host.controllers.end() &&
                              path_exists(memory->second + "/memory.memsw.limit_in_bytes");
  if (host.swap && !host.limit_swap) {
    host.notes.push_back(
        "swap is on and containers cannot be kept out of it: what they hold may reach the disk");
  }
  host.user_namespaces =
      path_exists("/proc/self/ns/user") && number_in("/proc/sys/user/max_user_namespaces", "") > 0;
  if (!host.user_namespaces) host.notes.push_back("user namespaces are not allowed here");
  return host;
}

CgroupStats read_stats(const HostProbe& host, const std::string& cgroup) {
  CgroupStats s;
  const auto dir = [&](const char* controller) {
    const auto it = host.controllers.find(controller);
    return (it == host.controllers.end() ? std::string("/nonexistent") : it->second) + "/" + cgroup;
  };
  if (host.cgroups == CgroupLayout::kV2) {
    s.peak_memory_bytes = number_in(dir("memory") + "/memory.peak", "");
    s.oom_kills = number_in(dir("memory") + "/memory.events", "oom_kill");
    s.cpu_ms = number_in(dir("cpu") + "/cpu.stat", "usage_usec") / 1000;
  } else {
    s.peak_memory_bytes = number_in(dir("memory") + "/memory.max_usage_in_bytes", "");
    s.oom_kills = number_in(dir("memory") + "/memory.oom_control", "oom_kill");
    s.cpu_ms = number_in(dir("cpuacct") + "/cpuacct.usage", "") / 1'000'000;
  }
  return s;
}

std::vector<std::string> cgroup_dirs(const HostProbe& host, const std::string& cgroup) {
  std::vector<std::string> out;
  for (const std::string& mount : host.cgroup_mounts) {
    std::vector<std::string> here{mount + "/" + cgroup};
    if (!path_exists(here[0])) continue;
    for (std::size_t i = 0; i < here.size() && here.size() < 1000; ++i) {
      for (const std::string& name : dirs_in(here[i])) here.push_back(here[i] + "/" + name);
    }
    out.insert(out.end(), here.rbegin(), here.rend());
  }
  return out;
}

bool kill_cgroup(const HostProbe& host, const std::string& cgroup) {
  for (int round = 0; round < 200; ++round) {
    bool any = false;
    for (const std::string& dir : cgroup_dirs(host, cgroup)) {
      std::istringstream in(file_text(dir + "/cgroup.procs"));
      for (pid_t pid = 0; in >> pid;) {
        any = true;
        // 0: a process of another PID namespace, which is not ours to name
        if (pid > 0) kill(pid, SIGKILL);
      }
    }
    if (!any) return true;
    poll(nullptr, 0, round < 20 ? 1 : 10);
  }
  return false;
}

Status remove_cgroup(const HostProbe& host, const std::string& cgroup) {
  for (int round = 0;; ++round) {
    std::string busy;
    for (const std::string& dir : cgroup_dirs(host, cgroup)) {
      if (rmdir(dir.c_str()) != 0 && errno != ENOENT) busy = dir;
    }
    if (busy.empty()) return ok_status();
    if (round >= 200) return io_error("removal of " + busy, EBUSY);
    // the kernel lets go of a dead process's cgroup a moment after its parent has reaped it
    poll(nullptr, 0, round < 20 ? 1 : 10);
  }
}

Status clear_residue(const std::string& id) {
  GBX_ASSIGN(const HostProbe host, probe_host());
  if (!kill_cgroup(host, cgroup_name(id))) {
    return fail(Reason::kSandboxSetup, "processes of container " + id + " could not be killed");
  }
  return remove_cgroup(host, cgroup_name(id));
}

Result<Fd> make_enclosure(const std::string& id) {
  GBX_ASSIGN(const HostProbe host, probe_host());
  const auto pids = host.controllers.find("pids");
  if (pids == host.controllers.end()) {
    return fail(Reason::kSandboxSetup, "this host has no cgroup controller pids");
  }
  const std::string dir = pids->second + "/" + cgroup_name(id);
  if (mkdir(dir.c_str(), 0755) != 0) {
    return fail(Reason::kSandboxSetup, "cgroup " + dir + ": " + strerror(errno));
  }
  Fd procs(open((dir + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
  if (!procs.valid()) return fail(Reason::kSandboxSetup, "cgroup " + dir + ": " + strerror(errno));
  return procs;
}

Result<Fd> limit_enclosure(const std::string& id, std::int64_t memory_bytes) {
  GBX_ASSIGN(const HostProbe host, probe_host());
  const auto memory = host.controllers.find("memory");
  if (memory == host.controllers.end()) {
    return fail(Reason::kSandboxSetup, "this host has no cgroup controller memory");
  }
  const std::string dir = memory->second + "/" + cgroup_name(id);
  const auto broken = [&] {
    return fail(Reason::kSandboxSetup, "cgroup " + dir + ": " + strerror(errno));
  };
  // Under cgroup v2 the enclosure itself.
  if (mkdir(dir.c_str(), 0755) != 0 && errno != EEXIST) return broken();
  const bool v2 = host.cgroups == CgroupLayout::kV2;
  const auto put = [&](const char* name, const std::string& value) -> Status {
    const Fd limit(open((dir + name).c_str(), O_WRONLY | O_CLOEXEC));
    if (!limit.valid()) return broken();
    return write_all(limit.get(), as_bytes(value));
  };
  GBX_TRY(put(v2 ? "/memory.max" : "/memory.limit_in_bytes", std::to_string(memory_bytes)));
  // What a machine holds does not outlive it on this host's disk. Without such a file the kernel
  // has no swap, or cannot keep anybody out of it, which the notes of this host say.
  const char* swap = v2 ? "/memory.swap.max" : "/memory.memsw.limit_in_bytes";
  if (path_exists(dir + swap)) GBX_TRY(put(swap, v2 ? "0" : std::to_string(memory_bytes)));
  Fd procs(open((dir + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
  if (!procs.valid()) return broken();
  return procs;
}

Result<std::vector<std::string>> residue(const std::string& id) {
  std::vector<std::string> found;
  const std::string cgroup = cgroup_name(id);
  GBX_ASSIGN(const HostProbe host, probe_host());
  for (const std::string& pid : processes_of(cgroup)) found.push_back("process " + pid);
  for (const std::string& dir : cgroup_dirs(host, cgroup)) found.push_back("cgroup " + dir);
  std::set<std::string> mounts;
  for (const std::string& pid : dirs_in("/proc")) {
    if (!is_number(pid)) continue;
    auto list = read_mounts("/proc/" + pid + "/mountinfo");
    if (!list.ok()) continue;  // it ended meanwhile
    for (const Mount& m : *list) {
      if (m.source == cgroup) mounts.insert("mount " + m.point + " of process " + pid);
    }
  }
  found.insert(found.end(), mounts.begin(), mounts.end());
  for (const char* state : {"/run/crun/", "/run/runc/"}) {
    if (path_exists(state + id)) found.push_back(std::string("runtime state ") + state + id);
  }
  return found;
}

}  // namespace gbx::sandbox
