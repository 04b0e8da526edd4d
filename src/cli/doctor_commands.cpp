// doctor: what this machine, the user's keys and the installation lack; with --host, what a host of
// confidential machines lacks.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "base/log.h"
#include "base/os.h"
#include "cli/commands.h"
#include "cli/guest_folder.h"
#include "cli/host_checks.h"
#include "cli/session.h"
#include "vm/launch.h"

namespace gbx::cli {

namespace {

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

// Where `glovebox up` looks for it.
std::string guest_of(const Invocation& in) {
  return in.has("guest") ? in.text("guest") : usual_guest(program_dir());
}
std::string qemu_of(const Invocation& in) {
  return in.has("qemu") ? in.text("qemu") : vm::LaunchDescription{}.qemu;
}

// What a node needs to run jobs in machines of their own, as `glovebox up --environment vm` does.
void check_machines(const Invocation& in, Findings& out) {
  const std::string only = " (only for a node whose jobs run in machines)";
  // Whoever names one wants that one.
  const auto add = [&](const char* named, Finding f) {
    if (f.result == "missing" && !in.has(named)) f.next += only;
    out.push_back(std::move(f));
  };
  add("qemu", check_qemu_for(vm::check_qemu(qemu_of(in), vm::Platform::kEmulation),
                             vm::Platform::kEmulation));
  add("guest", check_guest_folder(guest_of(in)));
  const bool kvm = access("/dev/kvm", R_OK | W_OK) == 0;
  out.push_back(
      {"KVM", kvm ? "ok" : "warning",
       kvm ? "/dev/kvm" : "/dev/kvm cannot be opened: machines are emulated, which is slow",
       kvm ? "" : "only for a node: modprobe kvm_intel or kvm_amd, run as root"});
}

Status report(Session& s, const Findings& all) {
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

Status doctor(Session& s, const Invocation& in) {
  if (!in.has("host") && in.has("technology")) {
    return fail(Reason::kUsage, "--technology").with("with --host", "without it");
  }
  Findings all;
  if (in.has("host")) {
    HostQuestion question;
    if (in.has("technology")) {
      GBX_ASSIGN(question.technology, enum_from<records::Technology>(in.text("technology")));
    }
    question.guest = guest_of(in);
    all = check_host(HostFiles(), answers_of_this_host(qemu_of(in), s.clock()), question);
    return report(s, all);
  }
  check_home(s, all);
  check_plane(s, all);
  check_enrolled(s, all);
  check_programs(all);
  check_kernel(all);
  check_machines(in, all);
  return report(s, all);
}

}  // namespace

void add_doctor(CommandTree& t) {
  Argument technology = option("technology", "NAME", "what this host is to run; with --host");
  technology.kind = ArgKind::kChoice;
  technology.choices = {"tdx", "sev-snp"};
  technology.standard = "what its processor's maker has";
  t.add({"doctor",
         "check this machine, your keys and the installation",
         "Each line has a next step where something is missing. What only a node needs says so. "
         "Exit status 6 when something else is missing.\n\n"
         "With --host: checks each step by which a TDX or SEV-SNP host is set up "
         "(docs/hardware.md), and nothing else. UNTESTED ON HARDWARE.",
         {},
         {flag("host", "check this machine as a host of confidential machines"), technology,
          option("guest", "DIR", "the guest of its machines, as guest/build made it",
                 ArgKind::kDirectory),
          option("qemu", "FILE", "the QEMU that runs them", ArgKind::kFile)},
         {{"glovebox doctor", "what is missing here"},
          {"glovebox doctor --host --guest build/guest", "what a TDX or SEV-SNP host lacks"}},
         doctor,
         {}});
}

}  // namespace gbx::cli
