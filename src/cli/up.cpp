#include "cli/up.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <iostream>
#include <thread>

#include "base/fields.h"
#include "base/log.h"
#include "base/os.h"
#include "base/seams.h"
#include "cli/commands.h"
#include "crypto/keys.h"

namespace gbx::cli {

namespace {

constexpr std::int64_t kReadyMs = 30'000;
constexpr int kRestartLimit = 5;  // in a row, each within a minute of the last

// User ids below uid_base (docs/architecture.md has the table).
constexpr std::int64_t kBrokerUid = 1;
constexpr std::int64_t kPlaneUid = 2;
constexpr std::int64_t kAgentUids = 100;

struct BrokerReady {
  std::string address;
  std::string set_id;
  template <class F>
  void fields(F& f) {
    f("address", address, Bound{1, 300});
    f("setId", set_id, Bound{64, 64});
  }
};
struct PlaneReady {
  std::string https;
  std::string nodes;
  std::string ca;
  std::string node_key;  // public key of the node endpoint
  template <class F>
  void fields(F& f) {
    f("https", https, Bound{1, 300});
    f("nodes", nodes, Bound{1, 300});
    f("ca", ca, Bound{1, 8192});
    f("nodeKey", node_key, Bound{1, 256});
  }
};

std::string current_dir() {
  char buffer[4096];
  return getcwd(buffer, sizeof buffer) != nullptr ? buffer : "";
}

class Installer {
 public:
  explicit Installer(const UpOptions& o) : o_(o), log_(2, "up", clock_) {
    programs_ = o.programs.empty() ? program_dir() : o.programs;
  }

  Status run() {
    if (geteuid() != 0) {
      return fail(Reason::kUsage, "`up` needs root: it gives each program its own user id and mounts file systems")
          .with("user id 0", std::to_string(geteuid()))
          .hint("sudo glovebox up");
    }
    GBX_TRY(block_signals());
    GBX_TRY(folders());
    GBX_ASSIGN(plane_key_, public_key("glovebox-plane", {"key", "--state", dir("plane")}, uid(kPlaneUid)));
    GBX_TRY(start_broker());
    GBX_TRY(start_plane());
    GBX_TRY(start_node());
    GBX_TRY(publish_installation());
    return watch();
  }

 private:
  struct Child {
    std::string name;
    Process process;
    std::function<Status()> restart;
    int failures = 0;
    std::int64_t started_ms = 0;
  };

  Status block_signals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGCHLD);
    if (pthread_sigmask(SIG_BLOCK, &set, nullptr) != 0) return io_error("sigmask", errno);
    signals_ = Fd(signalfd(-1, &set, SFD_CLOEXEC));
    return signals_.valid() ? ok_status() : Status(io_error("signalfd", errno));
  }

  uid_t uid(std::int64_t offset) const { return static_cast<uid_t>(o_.uid_base + offset); }
  std::string dir(const char* name) const { return o_.state_dir + "/" + name; }

  Status folder(const std::string& path, uid_t owner, mode_t mode) {
    GBX_TRY(make_dirs(path, mode));
    if (chown(path.c_str(), owner, owner) != 0 || chmod(path.c_str(), mode) != 0) return io_error(path, errno);
    return ok_status();
  }
  Status folders() {
    GBX_TRY(folder(o_.state_dir, 0, 0755));
    GBX_TRY(folder(dir("broker"), uid(kBrokerUid), 0700));
    GBX_TRY(folder(dir("plane"), uid(kPlaneUid), 0700));
    GBX_TRY(folder(dir("objects"), uid(kPlaneUid), 0755));
    GBX_TRY(folder(dir("node"), 0, 0700));
    return folder(dir("environments"), 0, 0711);
  }

  // Custody `operator` on one machine: the passphrase lies beside the keys that it opens, readable by root only.
  Result<Bytes> passphrase() {
    const std::string path = dir("broker-passphrase");
    if (!path_exists(path)) {
      SystemRandom random;
      const std::string text = to_hex(random.fixed<32>());
      GBX_TRY(write_file_atomic(path, as_bytes(text), 0600));
    }
    return read_file(path, 4096);
  }
  Result<Fd> passphrase_pipe() {
    GBX_ASSIGN(Bytes text, passphrase());
    GBX_ASSIGN(auto pipe, make_pipe());
    GBX_TRY(write_all(pipe.second.get(), text));
    cleanse(text);
    return std::move(pipe.first);
  }

  ProcessOptions base(const std::string& program, std::vector<std::string> arguments) const {
    ProcessOptions p;
    p.argv = {programs_ + "/" + program};
    p.argv.insert(p.argv.end(), arguments.begin(), arguments.end());
    p.env = {{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}};
    p.new_session = true;  // Ctrl-C reaches this program, which then stops the others in order
    return p;
  }
  Status run_once(ProcessOptions p) {
    GBX_ASSIGN(RunOutput out, run_command(std::move(p)));
    if (!out.status.exited || out.status.code != 0) {
      return fail(Reason::kUnavailable, printable(out.err.empty() ? out.out : out.err, 500));
    }
    return ok_status();
  }
  // Starts a program that writes one JSON object to `ready_number` when it serves.
  template <class Ready>
  Result<Ready> start(const std::string& name, ProcessOptions p, int ready_number, std::function<Status()> restart) {
    GBX_ASSIGN(auto ready, make_pipe());
    p.descriptors[ready_number] = ready.second.get();
    GBX_ASSIGN(Process process, spawn(p));
    ready.second.reset();
    pollfd wait{ready.first.get(), POLLIN, 0};
    if (poll(&wait, 1, kReadyMs) != 1) return fail(Reason::kTimedOut, name + " did not become ready");
    GBX_ASSIGN(Bytes text, read_all(ready.first.get(), 65536));
    if (text.empty()) {
      return fail(Reason::kUnavailable, name + " ended while it started").hint("its messages are above");
    }
    GBX_ASSIGN(Ready r, from_json_text<Ready>(as_text(text)));
    keep(name, std::move(process), std::move(restart));
    return r;
  }
  void keep(const std::string& name, Process process, std::function<Status()> restart) {
    for (Child& c : children_) {
      if (c.name != name) continue;
      c.process = std::move(process);
      c.started_ms = clock_.steady_ms();
      return;
    }
    children_.push_back({name, std::move(process), std::move(restart), 0, clock_.steady_ms()});
  }

  Status start_broker() {
    if (!path_exists(dir("broker") + "/set.json")) {
      ProcessOptions init = base("glovebox-broker", {"init", "--state", dir("broker"), "--passphrase-fd", "3"});
      GBX_ASSIGN(Fd pass, passphrase_pipe());
      init.descriptors[3] = pass.get();
      init.uid = uid(kBrokerUid);
      Status s = run_once(std::move(init));
      if (!s.ok()) return s.error().at("broker init");
    }
    ProcessOptions p = base("glovebox-broker", {"serve", "--state", dir("broker"), "--listen",
                                                broker_.address.empty() ? "127.0.0.1:0" : broker_.address,
                                                "--plane", plane_key_, "--passphrase-fd", "3", "--ready-fd", "4"});
    GBX_ASSIGN(Fd pass, passphrase_pipe());
    p.descriptors[3] = pass.get();
    p.uid = uid(kBrokerUid);
    GBX_ASSIGN(broker_, start<BrokerReady>("broker", std::move(p), 4, [this] { return start_broker(); }));
    // The plane and clients read the key set; it holds public keys only.
    GBX_ASSIGN(Bytes set, read_file(dir("broker") + "/set.json", 1U << 20));
    return write_file_atomic(dir("set.json"), set, 0644);
  }

  // One that the program makes on first use and prints.
  Result<std::string> public_key(const std::string& program, std::vector<std::string> arguments, uid_t as) {
    ProcessOptions p = base(program, std::move(arguments));
    if (as != 0) p.uid = as;
    GBX_ASSIGN(RunOutput out, run_command(std::move(p)));
    if (!out.status.exited || out.status.code != 0) return fail(Reason::kUnavailable, printable(out.err, 500)).at(program);
    return out.out.substr(0, out.out.find('\n'));
  }

  Status start_plane() {
    GBX_ASSIGN(node_key_, public_key("glovebox-node", {"key", "--key", dir("node") + "/key"}, 0));
    ProcessOptions p = base("glovebox-plane", {"serve", "--state", dir("plane"), "--listen", plane_.https.empty() ? o_.listen : plane_.https,
                                               "--node-listen", plane_.nodes.empty() ? "127.0.0.1:0" : plane_.nodes,
                                               "--broker", broker_.address, "--set", dir("set.json"), "--objects", dir("objects"),
                                               "--node", "local=" + node_key_, "--ready-fd", "3"});
    p.uid = uid(kPlaneUid);
    GBX_ASSIGN(plane_, start<PlaneReady>("plane", std::move(p), 3, [this] { return start_plane(); }));
    return ok_status();
  }

  Status start_node() {
    ProcessOptions p = base("glovebox-node", {"serve", "--name", "local", "--plane", plane_.nodes, "--plane-key", plane_.node_key,
                                              "--broker", broker_.address, "--key", dir("node") + "/key", "--objects", dir("objects"),
                                              "--state", dir("environments"), "--slots", std::to_string(o_.slots),
                                              "--uid-base", std::to_string(o_.uid_base + kAgentUids)});
    GBX_ASSIGN(Process process, spawn(p));
    keep("node", std::move(process), [this] { return start_node(); });
    return ok_status();
  }

  Status publish_installation() {
    GBX_ASSIGN(crypto::PublicKey node, crypto::PublicKey::from_text(node_key_));
    GBX_ASSIGN(Bytes ca, from_base64url(plane_.ca));
    GBX_TRY(write_file_atomic(dir("ca.der"), ca, 0644));
    Installation i;
    i.plane = plane_.https;
    i.ca = dir("ca.der");
    i.set_id = broker_.set_id;
    i.broker = broker_.address;
    i.node_key = to_hex(node.fingerprint());
    i.nodes = plane_.nodes;
    i.nodes_key = plane_.node_key;
    i.invite = dir("plane") + "/operator-invite";
    const std::string text = canonical(to_json(i)) + "\n";
    GBX_TRY(write_file_atomic(dir("installation.json"), as_bytes(text), 0644));
    std::cout << "Glovebox is up: https://" << i.plane << "\n"
              << "  set id (pin it)  " << i.set_id << "\n"
              << "  this machine     " << i.node_key << "\n"
              << "                   NO TEE: this machine can read everything that runs on it\n"
              << "  keys             held by the operator of this machine (custody: operator)\n"
              << "Next: glovebox init --plane " << i.plane << " --ca " << i.ca << " --set " << i.set_id << "\n"
              << "Stop with Ctrl-C." << std::endl;
    return ok_status();
  }

  // Restarts what dies, as the programs resume from their stores; gives up on what keeps dying.
  Status watch() {
    for (;;) {
      signalfd_siginfo info{};
      const ssize_t n = read(signals_.get(), &info, sizeof info);
      if (n < 0 && errno == EINTR) continue;
      if (n != static_cast<ssize_t>(sizeof info)) return io_error("signalfd", errno);
      if (info.ssi_signo != SIGCHLD) break;
      for (Child& c : children_) {
        Status s = revive(c);
        if (!s.ok()) {
          stop_all();
          return s;
        }
      }
    }
    stop_all();
    return ok_status();
  }
  Status revive(Child& c) {
    if (!c.process.running()) return ok_status();
    auto ended = c.process.wait(0);
    if (!ended.ok()) return ended.error();
    if (!ended->has_value()) return ok_status();
    const bool soon = clock_.steady_ms() - c.started_ms < 60'000;
    c.failures = soon ? c.failures + 1 : 1;
    log_.warn("program-ended", {{"program", c.name}, {"exited", (*ended)->exited}, {"code", (*ended)->code}, {"failures", c.failures}});
    if (c.failures > kRestartLimit) {
      return fail(Reason::kUnavailable, c.name + " keeps ending").hint("its messages are above; glovebox doctor");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200 * c.failures));
    return c.restart();
  }
  // Node first, so that environments are destroyed and told of; broker last.
  void stop_all() {
    for (auto it = children_.rbegin(); it != children_.rend(); ++it) {
      if (!it->process.running()) continue;
      (void)it->process.signal(SIGTERM);
      auto ended = it->process.wait(15'000);
      if (!ended.ok() || !ended->has_value()) it->process.kill_and_reap();
    }
  }

  const UpOptions& o_;
  SystemClock clock_;
  Logger log_;
  std::string programs_;
  Fd signals_;
  std::vector<Child> children_;  // in the order of starting
  BrokerReady broker_;
  PlaneReady plane_;
  std::string node_key_;
  std::string plane_key_;
};

}  // namespace

Status run_up(const UpOptions& options) { return Installer(options).run(); }

void add_up(CommandTree& tree) {
  Command c;
  c.name = "up";
  c.summary = "run a whole Glovebox on this machine";
  c.details =
      "Starts broker, plane and one node, each under its own user id, with SQLite and a folder for state. Runs in the "
      "foreground until Ctrl-C; started again on the same folder it goes on where it stopped. Environments have no TEE: this "
      "machine can read what runs on it, and owners' policies must allow it by its key.";
  c.options = {option("state", "DIR", "where everything is kept (default /var/lib/glovebox)", ArgKind::kDirectory),
               option("listen", "HOST:PORT", "address of the HTTPS API (default 127.0.0.1:7443; port 0: any)"),
               option("uid-base", "N", "first of 100 + 140,000 a slot user ids that are nobody else's (default 190000)", ArgKind::kInteger),
               option("slots", "N", "environments at a time (default 1)", ArgKind::kInteger)};
  c.examples = {{"sudo glovebox up", "everything on this machine"}};
  c.run = [](Session&, const Invocation& in) -> Status {
    UpOptions o;
    if (in.has("state")) o.state_dir = in.text("state");
    if (in.has("listen")) o.listen = in.text("listen");
    if (!o.state_dir.empty() && o.state_dir[0] != '/') o.state_dir = current_dir() + "/" + o.state_dir;
    GBX_ASSIGN(o.uid_base, in.integer("uid-base", o.uid_base, Bound{65'536, 4'000'000'000}));
    GBX_ASSIGN(o.slots, in.integer("slots", o.slots, Bound{1, 64}));
    return run_up(o);
  };
  tree.add(std::move(c));
}

}  // namespace gbx::cli
