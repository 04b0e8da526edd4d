// node, doctor
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "base/log.h"
#include "base/os.h"
#include "cli/commands.h"
#include "cli/session.h"

namespace gbx::cli {

namespace {

// The number by which a policy allows technology none on this node.
std::string key_hash(const std::string& key) {
  auto k = crypto::PublicKey::from_text(key);
  return k.ok() ? to_hex(k->fingerprint()) : std::string("-");
}

Status node_list(Session& s, const Invocation&) {
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(std::vector<api::NodeView> nodes, plane->nodes());
  JsonArray rows;
  JsonArray shown;
  for (const auto& n : nodes) {
    Json j;
    j["name"] = n.name;
    j["key"] = n.key;
    j["keyHash"] = key_hash(n.key);
    // Only operators and auditors are told of these.
    j["alive"] = n.alive ? Json(*n.alive) : Json();
    j["running"] = n.running ? Json(*n.running) : Json();
    j["lastSeen"] =
        n.last_seen_ms.value_or(0) == 0 ? Json() : Json(format_time(*n.last_seen_ms / 1000));
    JsonArray technologies;
    if (n.info) {
      for (const auto t : n.info->technologies) technologies.push_back(Json(enum_name(t)));
      j["cpu"] = n.info->cpu;
      j["memoryBytes"] = n.info->memory_bytes;
      j["slots"] = n.info->slots;
      j["version"] = n.info->version;
    }
    j["technologies"] = Json(std::move(technologies));
    rows.push_back(j);
    j["alive"] = n.alive.value_or(false) ? "yes" : "no";
    std::string tee;
    for (const auto t : n.info ? n.info->technologies : std::vector<records::Technology>{}) {
      const bool none = t == records::Technology::kNone;
      tee +=
          (tee.empty() ? "" : ",") + (none                             ? "NO TEE"
                                      : t == records::Technology::kSim ? "SIMULATED"
                                                                       : std::string(enum_name(t)));
    }
    j["tee"] = tee;
    j["memory"] = n.info ? human_bytes(static_cast<std::uint64_t>(
                               std::max<std::int64_t>(0, n.info->memory_bytes)))
                         : "-";
    shown.push_back(std::move(j));
  }
  Json j;
  j["items"] = Json(std::move(rows));
  const bool told = std::any_of(nodes.begin(), nodes.end(), [](const auto& n) { return n.alive; });
  std::vector<Column> columns{{"NAME", "name"}};
  if (told) columns.push_back({"ALIVE", "alive"});
  columns.insert(columns.end(), {{"TEE", "tee"}, {"CPU", "cpu"}, {"MEMORY", "memory"}});
  if (told) columns.push_back({"RUNNING", "running"});
  columns.push_back({"KEY HASH", "keyHash"});
  s.print(j, table(columns, shown, "no nodes"));
  return ok_status();
}

Status node_enrol(Session& s, const Invocation& in) {
  const std::string name = in.text("name");
  auto key = crypto::PublicKey::from_text(in.text("key"));
  if (!key.ok()) {
    return fail(Reason::kUsage, "--key")
        .with("a public key, as `glovebox-node key` prints it", printable(in.text("key"), 80));
  }
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_TRY(plane->enrol_node({name, key->text()}));
  Json j;
  j["name"] = name;
  j["key"] = key->text();
  j["keyHash"] = to_hex(key->fingerprint());
  s.print(j, "enrolled " + printable(name) + "\n  key hash  " + to_hex(key->fingerprint()) +
                 "\nNext: start it with `glovebox-node serve` (docs/node.md)\n");
  return ok_status();
}

struct Finding {
  std::string check;
  std::string result;  // "ok", "missing", "warning"
  std::string detail;
  std::string next;
};
using Findings = std::vector<Finding>;

std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string rest = path == nullptr ? "/usr/sbin:/usr/bin:/sbin:/bin" : path;
  for (const char* more : {":/usr/sbin", ":/sbin"}) rest += more;
  std::size_t at = 0;
  while (at <= rest.size()) {
    const std::size_t colon = std::min(rest.find(':', at), rest.size());
    const std::string candidate = rest.substr(at, colon - at) + "/" + name;
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
    at = colon + 1;
  }
  return {};
}

std::string first_line(const std::string& path) {
  auto text = read_text_file(path, 4096);
  return text.ok() ? text->substr(0, text->find('\n')) : std::string();
}

void check_programs(Findings& out) {
  const std::string runtime =
      !find_program("crun").empty() ? find_program("crun") : find_program("runc");
  if (runtime.empty()) {
    out.push_back({"container runtime", "missing", "neither crun nor runc",
                   "apt-get install crun (only for a node)"});
  } else {
    out.push_back({"container runtime", "ok", runtime, ""});
  }
  const bool fuse = access("/dev/fuse", R_OK | W_OK) == 0;
  out.push_back({"FUSE", fuse ? "ok" : "missing", fuse ? "/dev/fuse" : "/dev/fuse cannot be opened",
                 fuse ? "" : "modprobe fuse, or run as root (only for a node)"});
}

void check_kernel(Findings& out) {
  const std::string namespaces = first_line("/proc/sys/user/max_user_namespaces");
  const bool users = !namespaces.empty() && namespaces != "0";
  out.push_back({"user namespaces", users ? "ok" : "missing",
                 users ? "up to " + namespaces : "switched off",
                 users ? "" : "sysctl user.max_user_namespaces=10000 (only for a node)"});
  std::string groups;
  if (path_exists("/sys/fs/cgroup/cgroup.controllers")) {
    groups = "version 2: " + first_line("/sys/fs/cgroup/cgroup.controllers");
  } else if (path_exists("/sys/fs/cgroup/unified/cgroup.controllers")) {
    groups = "hybrid";
  } else if (path_exists("/sys/fs/cgroup/memory")) {
    groups = "version 1";
  }
  out.push_back({"control groups", groups.empty() ? "missing" : "ok",
                 groups.empty() ? "nothing at /sys/fs/cgroup" : groups,
                 groups.empty() ? "mount cgroup2 at /sys/fs/cgroup (only for a node)" : ""});
  const bool listed = processes_are_listed();
  out.push_back(
      {"process list", listed ? "warning" : "ok",
       listed ? "every account of this machine reads command lines, those in containers too"
              : "hidden from other accounts",
       listed ? "on a node with other accounts: mount -o remount,hidepid=invisible /proc" : ""});
  out.push_back(
      {"root", geteuid() == 0 ? "ok" : "warning", geteuid() == 0 ? "yes" : "no",
       geteuid() == 0 ? "" : "`glovebox up` and nodes need root; everything else does not"});
}

void check_home(Session& s, Findings& out) {
  const std::string path = s.home().path();
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) {
    out.push_back({"home", "missing", path, "glovebox init"});
    return;
  }
  const bool tight = (st.st_mode & 0077) == 0;
  out.push_back({"home", tight ? "ok" : "warning", path, tight ? "" : "chmod 700 " + path});
  auto identity = s.home().identity();
  if (!identity.ok()) {
    out.push_back({"identity", "missing", identity.error().what, identity.error().next});
    return;
  }
  auto keys = s.keys();
  out.push_back({"identity", keys.ok() ? "ok" : "warning",
                 keys.ok() ? to_hex((*keys)->id) : keys.error().line(),
                 keys.ok() ? "" : keys.error().next});
  const bool recovery = path_exists(s.home().recovery_signing_key());
  out.push_back({"recovery keys", recovery ? "warning" : "ok",
                 recovery ? "they still lie on this machine" : "not on this machine",
                 recovery ? "move " + s.home().file("recovery") + " offline" : ""});
}

void check_plane(Session& s, Findings& out) {
  auto context = s.context();
  if (!context.ok()) {
    out.push_back({"key set", "missing", context.error().what, context.error().next});
    return;
  }
  out.push_back({"key set", "ok", "pinned " + to_hex((*context)->set_id), ""});
  const std::string where = (*context)->host + ":" + std::to_string((*context)->port);
  auto plane = s.public_plane();
  Result<api::InfoView> info = plane.ok() ? (*plane)->info() : Result<api::InfoView>(plane.error());
  if (!info.ok()) {
    const bool silent = exit_class(info.reason()) == ExitClass::kInfrastructure;
    out.push_back({"plane", "missing", where + ": " + info.error().line(),
                   silent ? "start it (sudo glovebox up), or ask its operator; if its address "
                            "changed: glovebox init"
                          : info.error().next});
    return;
  }
  out.push_back({"plane", "ok", where + ", version " + printable(info->version, 64), ""});
  auto chain = accept_chain(s.home(), **context, info->set);
  out.push_back(
      {"broker's keys", chain.ok() ? "ok" : "missing",
       chain.ok() ? "lead back to the pinned set, epoch " + std::to_string(chain->epoch)
                  : chain.error().line(),
       chain.ok() ? "" : "do not use this installation until its operator has explained it"});
  const std::string trouble = printable(info->broker_trouble, 300);
  out.push_back({"broker", info->broker_connected ? "ok" : "missing",
                 info->broker_connected ? "connected"
                 : trouble.empty()      ? "the plane does not reach it"
                                        : trouble,
                 info->broker_connected ? ""
                 : trouble.empty()      ? "ask the operator to start glovebox-broker"
                                        : "tell the operator: it does not go on by itself"});
  const std::int64_t difference = info->time - s.now();
  const bool near = difference > -60 && difference < 60;
  out.push_back({"clock", near ? "ok" : "warning",
                 std::to_string(difference) + " s from the plane's",
                 near ? "" : "set this machine's clock: requests are refused beyond 120 s"});
}

// Whoever has keys may still be unknown here: a request of their own tells.
void check_enrolled(Session& s, Findings& out) {
  if (!s.home().identity().ok() || !s.keys().ok()) return;
  const auto plane = s.plane();
  if (!plane.ok()) return;  // said before
  const auto asked = (*plane)->nodes();
  if (asked.ok()) {
    out.push_back({"enrolled", "ok", "yes", ""});
  } else if (asked.reason() == Reason::kUnauthenticated) {
    out.push_back({"enrolled", "missing", "this installation does not know your identity",
                   "glovebox identity enrol --invite-file FILE, with the invite of an operator"});
  } else {
    out.push_back({"enrolled", "missing", asked.error().line(), asked.error().next});
  }
}

Status doctor(Session& s, const Invocation&) {
  Findings all;
  check_home(s, all);
  check_plane(s, all);
  check_enrolled(s, all);
  check_programs(all);
  check_kernel(all);
  JsonArray rows;
  std::size_t missing = 0;
  std::string broken;  // beyond what only a node needs
  for (const auto& f : all) {
    const bool node_only = f.next.find("only for a node") != std::string::npos;
    if (f.result == "missing" && !node_only) broken += (broken.empty() ? "" : ", ") + f.check;
    Json j;
    j["check"] = f.check;
    j["result"] = f.result;
    j["detail"] = f.detail;
    j["next"] = f.next;
    rows.push_back(std::move(j));
    if (f.result == "missing") ++missing;
  }
  Json j;
  j["missing"] = static_cast<std::int64_t>(missing);
  const std::string text = table(
      {{"CHECK", "check"}, {"RESULT", "result"}, {"WHAT", "detail"}, {"NEXT", "next"}}, rows, "");
  j["checks"] = Json(std::move(rows));
  s.print(j, text);
  return broken.empty() ? ok_status()
                        : Status(fail(Reason::kUnavailable, "not ready: " + broken)
                                     .hint("the last column says what to do"));
}

}  // namespace

void add_machines(CommandTree& t) {
  t.add({"node", "machines that run jobs", "", {}, {}, {}, {}, {}});
  t.add("node", {"list",
                 "nodes, what they offer, and the hashes of their keys",
                 "A policy allows technology none by the hash of a node's key.",
                 {},
                 {},
                 {},
                 node_list,
                 {}});
  t.add("node", {"enrol",
                 "let a machine lend itself (operators)",
                 "A node is known by its key, which `glovebox-node key` prints on that machine. "
                 "Owners' policies then name the hash of this key.",
                 {},
                 {required(option("name", "NAME", "how it is listed")),
                  required(option("key", "KEY", "its public key"))},
                 {{"glovebox node enrol --name lab-2 --key ed25519:5f0c…", "a second machine"}},
                 node_enrol,
                 {}});
  t.add({"doctor",
         "check this machine, your keys and the installation",
         "Each line has a next step where something is missing. What only a node needs says so. "
         "Exit status 6 when something else is missing.",
         {},
         {},
         {},
         doctor,
         {}});
}

}  // namespace gbx::cli
