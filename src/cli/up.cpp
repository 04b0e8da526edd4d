#include "cli/up.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <thread>

#include "base/fields.h"
#include "base/log.h"
#include "base/os.h"
#include "base/ready.h"
#include "base/seams.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/up_environment.h"
#include "cli/up_state.h"
#include "crypto/keys.h"
#include "records/release.h"

namespace gbx::cli {

namespace {

constexpr std::int64_t kReadyMs = 30'000;
constexpr int kRestartLimit = 5;  // in a row, each within a minute of the last

// User ids below uid_base (docs/architecture.md has the table).
constexpr std::int64_t kBrokerUid = 1;
constexpr std::int64_t kPlaneUid = 2;

constexpr const char* kInvite = "invite";
constexpr const char* kOperatorInvite = "operator-invite";
constexpr std::size_t kTokenSize = 64;

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
  bool operator_enrolled = false;
  std::string broker_trouble;
  template <class F>
  void fields(F& f) {
    f("https", https, Bound{1, 300});
    f("nodes", nodes, Bound{1, 300});
    f("ca", ca, Bound{1, 8192});
    f("nodeKey", node_key, Bound{1, 256});
    f("operator", operator_enrolled);
    f("brokerTrouble", broker_trouble, Bound{0, 512});
  }
};

std::string current_dir() {
  char buffer[4096];
  return getcwd(buffer, sizeof buffer) != nullptr ? buffer : "";
}

class Installer {
 public:
  Installer(const UpOptions& o, Session& session)
      : o_(o), session_(session), log_(2, "up", clock_) {
    o_.programs = o.programs.empty() ? program_dir() : o.programs;
  }

  Status run() {
    if (geteuid() != 0) {
      return fail(Reason::kUsage,
                  "`up` needs root: it gives each program its own user id and mounts file systems")
          .with("user id 0", std::to_string(geteuid()))
          .hint("sudo glovebox up");
    }
    GBX_ASSIGN(state_, UpState::open(o_.state_dir, {o_.person, o_.persons_group}));
    GBX_TRY(check_complete());
    GBX_TRY(choose_uids());
    GBX_TRY(choose_where());
    GBX_TRY(block_signals());
    GBX_TRY(folders());
    GBX_TRY(make_invites());
    GBX_ASSIGN(plane_key_,
               public_key("glovebox-plane", {"key", "--state", dir("plane")}, uid(kPlaneUid)));
    Status s = start_all();
    if (s.ok()) s = watch();
    stop_all();
    return s;
  }

 private:
  struct Child {
    std::string name;
    Process process;
    std::function<Status()> restart;
    int failures = 0;
    std::int64_t started_ms = 0;
  };

  Status start_all() {
    GBX_TRY(prepare_guest());
    GBX_TRY(start_broker());
    GBX_TRY(start_plane());
    GBX_TRY(start_node());
    return publish_installation();
  }

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

  // Parts of an installation that are not there (a disk that is not mounted) are never made anew
  // beside the others: a new plane would know nobody, and new keys would open nothing.
  Status check_complete() {
    if (!path_exists(dir("installation.json"))) return ok_status();
    constexpr std::pair<const char*, const char*> kParts[] = {{"broker", "set.json"},
                                                              {"broker", "log.db"},
                                                              {"plane", "plane.db"},
                                                              {"objects", "."},
                                                              {"node", "key"}};
    for (const auto& [folder, name] : kParts) GBX_TRY(check_there(folder, name));
    return ok_status();
  }
  Status check_there(const std::string& folder, const std::string& name) const {
    GBX_ASSIGN(const bool there, state_->has(folder, name));
    if (there) return ok_status();
    return fail(Reason::kNotFound, "a part of the installation in " + state_->path())
        .with(folder + "/" + name, "nothing there")
        .hint("mount or restore what is missing; for a new installation give another --state");
  }

  // Machines boot what a signer of the key set signed, and quote under the root that policies name.
  // Both are kept as long as the set: another key would sign for nobody.
  Status choose_where() {
    GBX_ASSIGN(const auto installed, installed_with_machines(dir("installation.json")));
    GBX_ASSIGN(where_, choose_environment(o_, installed));
    usual_environment_ = usual_environment(installed, where_);
    GBX_ASSIGN(const bool made, state_->has("broker", "set.json"));
    if (!made) return ok_status();
    GBX_ASSIGN(const Bytes set, state_->read_of("broker", "set.json", uid(kBrokerUid), 1U << 20));
    GBX_ASSIGN(signers_, release_signers(set));
    if (signers_->empty()) {
      if (!where_.machines) return ok_status();
      return fail(Reason::kConflict, "no key gets into a machine: the key set in " +
                                         state_->path() + " was made without a release signer")
          .with("a charter that names one", "none")
          .hint("start it with --environment local, or make a new installation: another --state");
    }
    if (!installed.has_value()) return ok_status();
    for (const char* name : {"release.key", "simtee.key"}) GBX_TRY(check_there("node", name));
    return ok_status();
  }

  // An installation keeps the ids that it was made with, for its files belong to them.
  Status choose_uids() {
    uid_base_ = o_.uid_base.value_or(kDefaultUidBase);
    GBX_ASSIGN(const std::optional<uid_t> owner, state_->owner_of("broker"));
    if (owner) {
      const std::int64_t made_with = static_cast<std::int64_t>(*owner) - kBrokerUid;
      if (o_.uid_base && *o_.uid_base != made_with) {
        return fail(Reason::kConflict,
                    "--uid-base: " + o_.state_dir + " was made with other user ids")
            .with(std::to_string(made_with), std::to_string(*o_.uid_base))
            .hint("leave --uid-base out, or give another --state");
      }
      uid_base_ = made_with;
    }
    return check_uids_free(uids_needed(uid_base_, o_.slots));
  }

  uid_t uid(std::int64_t offset) const { return static_cast<uid_t>(uid_base_ + offset); }
  std::string dir(const char* name) const { return state_->file(name); }

  Status folders() {
    GBX_TRY(state_->folder("broker", uid(kBrokerUid), 0700));
    GBX_TRY(state_->folder("plane", uid(kPlaneUid), 0700));
    GBX_TRY(state_->folder("objects", uid(kPlaneUid), 0755));
    GBX_TRY(state_->folder("node", 0, 0700));
    return state_->folder("environments", 0, 0711);
  }

  // Custody `operator` on one machine: unless it is kept elsewhere, the passphrase lies beside the
  // keys that it opens, readable by root only. It is made with the keys and never afterwards:
  // another one would open nothing.
  Result<Bytes> passphrase() {
    const bool elsewhere = !o_.passphrase_file.empty();
    const std::string path = elsewhere ? o_.passphrase_file : dir("broker-passphrase");
    if (!path_exists(path)) {
      GBX_ASSIGN(const bool made, state_->has("broker", "set.json"));
      if (elsewhere || made) {
        return fail(Reason::kNotFound, "the passphrase that opens the broker's keys")
            .with("in the first line of " + path, "no such file")
            .hint(elsewhere ? "write it there, or leave --passphrase-file out"
                            : "put it back, or name the file that has it: glovebox "
                              "--passphrase-file FILE up");
      }
      SystemRandom random;
      GBX_TRY(state_->write("broker-passphrase", to_hex(random.fixed<32>()) + "\n", 0600));
    }
    GBX_ASSIGN(Bytes text, read_file(path, 4096));
    const auto end = std::find(text.begin(), text.end(), std::uint8_t{'\n'});
    std::fill(end, text.end(), std::uint8_t{0});
    text.erase(end, text.end());
    return text;
  }
  Result<Fd> passphrase_pipe() {
    GBX_ASSIGN(Bytes text, passphrase());
    GBX_ASSIGN(auto pipe, make_pipe());
    GBX_TRY(write_all(pipe.second.get(), text));
    cleanse(text);
    return std::move(pipe.first);
  }

  // Tokens by which people come in. Root makes and keeps them: a token that is read from a
  // service's folder could be a link to anything. The one of the first operator stays until it was
  // used; the other is new at every start.
  Status make_invites() {
    SystemRandom random;
    if (path_exists(dir(kOperatorInvite))) {
      GBX_ASSIGN(std::string text, read_text_file(dir(kOperatorInvite), 256));
      operator_token_ = text.substr(0, text.find('\n'));
    }
    if (operator_token_.size() != kTokenSize) {
      operator_token_ = to_hex(random.fixed<32>());
      GBX_TRY(state_->write(kOperatorInvite, operator_token_ + "\n", 0600));
    }
    people_token_ = to_hex(random.fixed<32>());
    return state_->write(kInvite, people_token_ + "\n", 0600, o_.person);
  }
  Result<Fd> invites_pipe() const {
    Json tokens;
    tokens["operator"] = operator_token_;
    tokens["people"] = people_token_;
    GBX_ASSIGN(auto pipe, make_pipe());
    GBX_TRY(write_all(pipe.second.get(), as_bytes(canonical(tokens))));
    return std::move(pipe.first);
  }

  ProcessOptions base(const std::string& program, std::vector<std::string> arguments) const {
    ProcessOptions p;
    p.argv = {o_.programs + "/" + program};
    p.argv.insert(p.argv.end(), arguments.begin(), arguments.end());
    p.env = {{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}};
    p.new_session = true;  // Ctrl-C reaches this program, which then stops the others in order
    return p;
  }
  // Runs a program that tells a failure on `told_number`.
  Status run_once(ProcessOptions p, int told_number) {
    GBX_ASSIGN(auto told, make_pipe());
    p.descriptors[told_number] = told.second.get();
    GBX_ASSIGN(RunOutput out, run_command(std::move(p)));
    told.second.reset();
    if (out.status.exited && out.status.code == 0) return ok_status();
    GBX_ASSIGN(const Bytes text, read_all(told.first.get(), 65536));
    if (std::optional<Error> e = told_failure(as_text(text))) return *e;
    return fail(Reason::kUnavailable, printable(out.err.empty() ? out.out : out.err, 500));
  }
  // Starts a program that writes one JSON object to `ready_number` when it serves.
  template <class Ready>
  Result<Ready> start(const std::string& name, ProcessOptions p, int ready_number,
                      std::function<Status()> restart) {
    GBX_ASSIGN(auto ready, make_pipe());
    p.descriptors[ready_number] = ready.second.get();
    GBX_ASSIGN(Process process, spawn(p));
    ready.second.reset();
    pollfd wait{ready.first.get(), POLLIN, 0};
    if (poll(&wait, 1, kReadyMs) != 1) {
      return fail(Reason::kUnavailable, name + " did not become ready")
          .hint("its messages are above");
    }
    GBX_ASSIGN(Bytes text, read_all(ready.first.get(), 65536));
    if (text.empty()) {
      return fail(Reason::kUnavailable, name + " ended while it started")
          .hint("its messages are above");
    }
    if (std::optional<Error> told = told_failure(as_text(text))) {
      Error e = told->at(name);
      return e.next.empty() ? e.hint("its messages are above") : e;
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

  // The keys of machines: who signs what they boot, and the root that stands for their hardware.
  // Made with the key set, whose charter names the first, and never afterwards.
  Status prepare_keys() {
    if (signers_ && signers_->empty()) return ok_status();
    std::vector<std::string> signer = {"--home", dir("node"), "release",
                                       "key",    "--key",     dir("node") + "/release.key"};
    std::vector<std::string> root = {"root", "--key", dir("node") + "/simtee.key"};
    if (!path_exists(dir("installation.json"))) root.emplace_back("--new");
    if (!signers_) signer.emplace_back("--new");
    GBX_ASSIGN(release_key_, public_key("glovebox", std::move(signer), 0));
    GBX_ASSIGN(sim_root_, public_key("glovebox-simtee", std::move(root), 0));
    const auto names = [this](const std::string& key) { return key == release_key_; };
    if (!signers_ || std::any_of(signers_->begin(), signers_->end(), names)) return ok_status();
    return fail(Reason::kConflict, dir("node") + "/release.key signs for another key set")
        .with(signers_->front(), release_key_)
        .hint("restore the file that this installation was made with");
  }

  // The guest that machines boot, signed by this installation.
  Status prepare_guest() {
    GBX_TRY(prepare_keys());
    if (!where_.machines) return ok_status();
    auto made = public_key(
        "glovebox",
        {"--home", dir("node"), "release", "make", "--guest", where_.guest, "--key",
         dir("node") + "/release.key", "--out", dir("node") + "/release.json", "--force"},
        0);
    if (!made.ok()) return made.error().hint("guest/build makes the guest anew");
    GBX_ASSIGN(const std::string text, read_text_file(dir("node") + "/release.json", 1U << 20));
    GBX_ASSIGN(const auto release, from_json_text<records::Signed<records::GuestRelease>>(text));
    release_ = release.body.name;
    return ok_status();
  }

  Status start_broker() {
    GBX_ASSIGN(const bool made, state_->has("broker", "set.json"));
    if (!made) {
      ProcessOptions init =
          base("glovebox-broker", {"init", "--state", dir("broker"), "--passphrase-fd", "3",
                                   "--release-signer", release_key_, "--ready-fd", "4"});
      GBX_ASSIGN(Fd pass, passphrase_pipe());
      init.descriptors[3] = pass.get();
      init.uid = uid(kBrokerUid);
      Status s = run_once(std::move(init), 4);
      if (!s.ok()) return s.error().at("broker init");
    }
    ProcessOptions p =
        base("glovebox-broker", {"serve", "--state", dir("broker"), "--listen",
                                 broker_.address.empty() ? "127.0.0.1:0" : broker_.address,
                                 "--plane", plane_key_, "--passphrase-fd", "3", "--ready-fd", "4"});
    GBX_ASSIGN(Fd pass, passphrase_pipe());
    p.descriptors[3] = pass.get();
    p.uid = uid(kBrokerUid);
    GBX_ASSIGN(broker_,
               start<BrokerReady>("broker", std::move(p), 4, [this] { return start_broker(); }));
    // The plane and clients read the key set. It is published as what it was read as: whatever else
    // the broker's folder held, or a link there pointed to, stays where it is.
    GBX_ASSIGN(const Bytes file, state_->read_of("broker", "set.json", uid(kBrokerUid), 1U << 20));
    auto set = publishable_set(file, broker_.set_id);
    if (!set.ok()) return set.error().at("key set of the broker");
    return state_->write("set.json", *set, 0644);
  }

  // One that the program prints.
  Result<std::string> public_key(const std::string& program, std::vector<std::string> arguments,
                                 uid_t as) {
    ProcessOptions p = base(program, std::move(arguments));
    if (as != 0) p.uid = as;
    GBX_ASSIGN(RunOutput out, run_command(std::move(p)));
    if (!out.status.exited || out.status.code != 0) {
      return fail(Reason::kUnavailable, printable(out.err, 500)).at(program);
    }
    return out.out.substr(0, out.out.find('\n'));
  }

  Status start_plane() {
    std::vector<std::string> key = {"key", "--key", dir("node") + "/key"};
    if (!path_exists(dir("installation.json"))) key.emplace_back("--new");
    GBX_ASSIGN(node_key_, public_key("glovebox-node", std::move(key), 0));
    std::vector<std::string> words = {"serve",
                                      "--state",
                                      dir("plane"),
                                      "--listen",
                                      plane_.https.empty() ? o_.listen : plane_.https,
                                      "--node-listen",
                                      plane_.nodes.empty() ? "127.0.0.1:0" : plane_.nodes,
                                      "--broker",
                                      broker_.address,
                                      "--set",
                                      dir("set.json"),
                                      "--objects",
                                      dir("objects"),
                                      "--node",
                                      "local=" + node_key_,
                                      "--ready-fd",
                                      "3",
                                      "--invites-fd",
                                      "4"};
    for (const auto& name : o_.names) words.insert(words.end(), {"--name", name});
    ProcessOptions p = base("glovebox-plane", std::move(words));
    p.uid = uid(kPlaneUid);
    GBX_ASSIGN(const Fd invites, invites_pipe());
    p.descriptors[4] = invites.get();
    GBX_ASSIGN(plane_,
               start<PlaneReady>("plane", std::move(p), 3, [this] { return start_plane(); }));
    return broker_goes_on();
  }

  // The plane shows the broker the newest head of its log that it has seen, and a broker whose log
  // is older ends. Starting it again would change nothing.
  Status broker_goes_on() const {
    const std::string& said = plane_.broker_trouble;
    const std::string code = said.substr(0, said.find(':'));
    Reason reason = Reason::kUnavailable;
    if (said.empty() || !reason_from_code(code, &reason)) return ok_status();
    return fail(reason, "the broker does not go on: " + printable(said, 300));
  }

  Status start_node() {
    ProcessOptions p =
        base("glovebox-node",
             {"serve", "--name", "local", "--plane", plane_.nodes, "--plane-key", plane_.node_key,
              "--broker", broker_.address, "--key", dir("node") + "/key", "--objects",
              dir("objects"), "--state", dir("environments"), "--slots", std::to_string(o_.slots),
              "--uid-base", std::to_string(uid_base_ + kAgentUids)});
    if (where_.machines) {
      for (const std::string& word :
           {std::string("--environment"), std::string("vm"), std::string("--guest"), where_.guest,
            std::string("--release"), dir("node") + "/release.json", std::string("--simtee-key"),
            dir("node") + "/simtee.key"}) {
        p.argv.push_back(word);
      }
    }
    GBX_ASSIGN(Process process, spawn(p));
    keep("node", std::move(process), [this] { return start_node(); });
    return ok_status();
  }

  Status publish_installation() {
    GBX_ASSIGN(crypto::PublicKey node, crypto::PublicKey::from_text(node_key_));
    GBX_ASSIGN(Bytes ca, from_base64url(plane_.ca));
    GBX_TRY(write_file_atomic(dir("ca.der"), ca, 0644));
    Installation i;
    GBX_ASSIGN(i.plane, reachable(plane_.https, o_.names));
    i.ca = dir("ca.der");
    i.set_id = broker_.set_id;
    i.broker = broker_.address;
    i.node_key = to_hex(node.fingerprint());
    if (where_.machines) i.sim_root = sim_root_;
    i.release = release_;
    i.usual_environment = usual_environment_;
    i.nodes = plane_.nodes;
    i.nodes_key = plane_.node_key;
    i.invite = dir(kInvite);
    if (plane_.operator_enrolled) {
      GBX_TRY(state_->remove(kOperatorInvite));
    } else {
      i.operator_invite = dir(kOperatorInvite);
    }
    GBX_TRY(state_->write("installation.json", canonical(to_json(i)) + "\n", 0644));
    session_.print(to_json(i), summary(i));
    return session_.output_status();
  }
  std::string summary(const Installation& i) const {
    std::string o = "Glovebox is up: https://" + i.plane + "\n";
    o += "  set id (pin it)  " + i.set_id + "\n";
    o += "  this machine     " + i.node_key + "\n";
    if (where_.machines) {
      o += "  machines         one for each attempt, of release " + i.release + "\n";
      o += "  simulated TEE    " + i.sim_root + "\n";
      o += "                   SIMULATED: this machine can read everything that runs on it\n";
    } else {
      if (!where_.because.empty()) {
        o += "  no machines      jobs run on this host: " + where_.because + "\n";
      }
      o += "                   NO TEE: this machine can read everything that runs on it\n";
    }
    o += "  keys             held by the operator of this machine (custody: operator)\n";
    o += "  invites          " + i.invite +
         " lets owners, consumers and reviewers in (20, within 7 days)\n";
    if (!i.operator_invite.empty()) {
      o += "                   " + i.operator_invite + " makes the first operator\n";
    }
    if (o_.names.empty()) {
      o += "  reached by       this machine only; for others start it with --listen and --name\n";
    }
    o +=
        "Next: " + session_.command({"init", "--plane", i.plane, "--ca", i.ca, "--set", i.set_id}) +
        "\n";
    o += "      " +
         session_.command({"identity", "create", "--name", "NAME", "--role", "owner,consumer",
                           "--invite-file", i.invite}) +
         "\n";
    return o + "Stop with Ctrl-C.\n";
  }

  // Restarts what dies, as the programs resume from their stores; gives up on what keeps dying.
  Status watch() {
    for (;;) {
      signalfd_siginfo info{};
      const ssize_t n = read(signals_.get(), &info, sizeof info);
      if (n < 0 && errno == EINTR) continue;
      if (n != static_cast<ssize_t>(sizeof info)) return io_error("signalfd", errno);
      if (info.ssi_signo != SIGCHLD) break;
      for (Child& c : children_) GBX_TRY(revive(c));
    }
    return ok_status();
  }
  Status revive(Child& c) {
    if (!c.process.running()) return ok_status();
    auto ended = c.process.wait(0);
    if (!ended.ok()) return ended.error();
    if (!ended->has_value()) return ok_status();
    const bool soon = clock_.steady_ms() - c.started_ms < 60'000;
    c.failures = soon ? c.failures + 1 : 1;
    log_.warn("program-ended", {{"program", c.name},
                                {"exited", (*ended)->exited},
                                {"code", (*ended)->code},
                                {"failures", c.failures}});
    if ((*ended)->exited && (*ended)->code == static_cast<int>(ExitClass::kIntegrity)) {
      return fail(Reason::kUnavailable, c.name + " found that what it keeps was changed or is old")
          .hint("its messages are above; do not start it before what they name is put right");
    }
    if (c.failures > kRestartLimit) {
      return fail(Reason::kUnavailable, c.name + " keeps ending")
          .hint("its messages are above; glovebox doctor");
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

  UpOptions o_;
  Session& session_;
  std::optional<UpState> state_;
  std::int64_t uid_base_ = 0;
  SystemClock clock_;
  Logger log_;
  Fd signals_;
  std::vector<Child> children_;  // in the order of starting
  BrokerReady broker_;
  PlaneReady plane_;
  std::string node_key_;
  std::string release_key_;
  UpEnvironment where_;
  std::string usual_environment_;
  std::optional<std::vector<std::string>> signers_;  // of the set, when there is one
  std::string release_;
  std::string sim_root_;
  std::string plane_key_;
  std::string operator_token_;
  std::string people_token_;
};

// What sudo says of its caller (SUDO_UID, SUDO_GID); else root.
std::uint32_t behind_sudo(const char* variable) {
  const char* text = std::getenv(variable);
  const std::string digits = text == nullptr ? "" : text;
  if (digits.empty() || digits.size() > 9 ||
      digits.find_first_not_of("0123456789") != std::string::npos) {
    return 0;
  }
  return static_cast<std::uint32_t>(std::stoul(digits));
}

}  // namespace

Status run_up(Session& session, const UpOptions& options) {
  return Installer(options, session).run();
}

Result<UpOptions> up_options(const Invocation& in) {
  UpOptions o;
  if (in.has("state")) o.state_dir = in.text("state");
  if (o.state_dir.empty()) return fail(Reason::kUsage, "--state").with("a folder", "nothing");
  if (o.state_dir[0] != '/') o.state_dir = current_dir() + "/" + o.state_dir;
  if (in.has("listen")) {
    o.listen = in.text("listen");
    GBX_TRY(parse_address(o.listen, PortZero::kAllowed));
  }
  o.names = in.list("name");
  for (const auto& name : o.names) {
    const bool plain = name.find_first_not_of(
                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-") ==
                       std::string::npos;
    if (name.empty() || name.size() > 253 || !plain || name == "0.0.0.0" || name == "::") {
      return fail(Reason::kUsage, "--name")
          .with("a DNS name or an IP address by which clients reach the API", name);
    }
  }
  if (in.has("environment")) {
    o.environment =
        in.text("environment") == "vm" ? UpOptions::Where::kMachines : UpOptions::Where::kLocal;
  }
  if (in.has("guest")) o.guest = in.text("guest");
  GBX_ASSIGN(o.slots, in.integer("slots", o.slots, Bound{1, 64}));
  if (in.has("uid-base")) {
    const std::int64_t most = kHighestUid - uids_needed(0, o.slots).count + 1;
    GBX_ASSIGN(o.uid_base, in.integer("uid-base", 0, Bound{kLowestUid, most}));
  }
  o.passphrase_file = in.text("passphrase-file");
  o.person = behind_sudo("SUDO_UID");
  o.persons_group = behind_sudo("SUDO_GID");
  return o;
}

void add_up(CommandTree& tree) {
  Command c;
  c.name = "up";
  c.summary = "run a whole Glovebox on this machine";
  c.details =
      "Starts broker, plane and one node, each under its own user id, with SQLite and a folder for "
      "state. Runs in the foreground until Ctrl-C; started again on the same folder it has "
      "everything that was stored, and only what ran at that moment is lost.\n\n"
      "--environment vm: each attempt of a job gets a machine of its own, which boots a guest of a "
      "signed release, proves that with evidence, has no network, and is destroyed. It needs QEMU "
      "and a guest (guest/build makes it). Without a TEE the evidence is SIMULATED: this machine "
      "can still read what runs on it, and owners' policies must allow that by the name of the "
      "simulated root and the release (policy new --allow-sim ROOT --release NAME).\n"
      "--environment local: jobs run in containers on this host, NO TEE; policies allow it by the "
      "machine's key (policy new --allow-none-node).\n"
      "Without --environment an installation keeps what it was made with: one start with the "
      "option says nothing for the next. A new one takes machines where QEMU and a guest are "
      "there, and else says what is missing and runs jobs on this host. A guest is looked for in "
      "PREFIX/share/glovebox/guest beside installed programs, and else in build/guest of the tree "
      "that they were built in; --guest names another.\n\n"
      "For other machines: --listen 0.0.0.0:7443 with --name for each name or address by which "
      "they reach this one; they need the file ca.der of the state folder and the set id.\n\n"
      "The passphrase that opens the broker's keys is made on the first start and lies in the "
      "state folder as broker-passphrase; move it elsewhere and name it with --passphrase-file. "
      "Without it the keys are lost.";
  Argument state = option("state", "DIR", "where everything is kept", ArgKind::kDirectory);
  state.standard = "/var/lib/glovebox";
  Argument listen = option("listen", "HOST:PORT", "address of the HTTPS API; port 0: any");
  listen.standard = "127.0.0.1:7443";
  Argument uids =
      option("uid-base", "N", "first of 100 + 140,000 a slot user ids that are nobody else's",
             ArgKind::kInteger);
  uids.standard = std::to_string(kDefaultUidBase);
  Argument slots = option("slots", "N", "environments at a time", ArgKind::kInteger);
  slots.standard = "1";
  Argument environment =
      option("environment", "WHERE",
             "where jobs run: vm (a machine each, SIMULATED) or local (on this host, NO TEE)",
             ArgKind::kChoice);
  environment.choices = {"vm", "local"};
  c.options = {state,
               listen,
               environment,
               option("guest", "DIR", "the guest of these machines, as guest/build made it",
                      ArgKind::kDirectory),
               many(option("name", "NAME",
                           "DNS name or address for the certificate; clients are told the first")),
               uids,
               slots};
  c.examples = {
      {"sudo glovebox up", "everything on this machine"},
      {"sudo glovebox up --environment local", "without machines: on a host without QEMU"},
      {"sudo glovebox up --listen 0.0.0.0:7443 --name glovebox.example", "for other machines too"}};
  c.run = [](Session& session, const Invocation& in) -> Status {
    GBX_ASSIGN(const UpOptions o, up_options(in));
    return run_up(session, o);
  };
  tree.add(std::move(c));
}

}  // namespace gbx::cli
