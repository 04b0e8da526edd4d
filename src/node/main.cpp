// glovebox-node: lends this machine. Registers with the plane, polls for work, runs one attempt per
// slot.
#include <signal.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <condition_variable>
#include <iostream>
#include <thread>

#include "node/attempt.h"
#include "node/capacity.h"

namespace gbx::node {
namespace {

using namespace records;

struct Settings {
  std::string name = "local";
  std::string plane;
  std::string plane_key;
  std::string broker;
  std::string key_file;
  std::string objects;
  std::string state;
  std::string agent = program_dir() + "/glovebox-agent";
  std::int64_t slots = 1;
  std::int64_t uid_base = 0;
  std::string memory;  // empty: what lent_memory_bytes() leaves of this machine's
  std::int64_t pids = kMaxPids;
};

Result<std::int64_t> lent_memory(const Settings& s) {
  struct sysinfo si {};
  if (sysinfo(&si) != 0) return io_error("sysinfo", errno);
  const std::int64_t most = lent_memory_bytes(static_cast<std::int64_t>(si.totalram) * si.mem_unit);
  if (s.memory.empty()) return most;
  auto asked = parse_size(s.memory);
  if (!asked.ok()) return asked.error().at("--memory");
  if (*asked <= most) return asked;
  return fail(Reason::kUsage, "--memory")
      .with("at most " + std::to_string(most >> 20) + "MiB, 80 % of this machine's", s.memory);
}

// Raw 32-byte Ed25519 seed, mode 0600, made on first use.
Result<crypto::SigningKey> load_key(const std::string& path, Random& random) {
  if (!path_exists(path)) {
    GBX_ASSIGN(auto fresh,
               crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
    const auto raw = fresh.private_bytes(SecretAccess{});
    GBX_TRY(write_file_atomic(path, raw.view(SecretAccess{}), 0600));
    return fresh;
  }
  GBX_ASSIGN(Bytes raw, read_file(path, 32));
  const auto secret = Secret<SigningKeyTag>::copy_of(raw);
  cleanse(raw);
  return crypto::SigningKey::from_private(crypto::SignatureAlgorithm::kEd25519, secret);
}

// a heartbeat waits so long at the plane for something to cancel
constexpr std::int64_t kListenMs = 2'000;

class Node {
 public:
  Node(const Settings& s, std::int64_t memory_bytes, crypto::SigningKey key,
       channel::TcpAddress plane, channel::TcpAddress broker,
       std::optional<crypto::PublicKey> plane_key)
      : s_(s),
        capacity_(memory_bytes, s.pids),
        key_(std::move(key)),
        log_(2, "node", clock_),
        broker_(std::move(broker)),
        link_options_{&clock_, std::move(plane), &key_, std::move(plane_key)} {
    LocalOptions local;
    local.agent_program = s.agent;
    local.objects_dir = s.objects;
    local.state_dir = s.state;
    local.uid_base = s.uid_base;
    provisioner_ = make_local_provisioner(local);
  }

  Status serve(const sigset_t& signals) {
    GBX_ASSIGN(const auto cleared, provisioner_->clear());
    for (const auto& line : cleared) log_.warn("left-by-an-earlier-life", {{"what", line}});
    std::vector<std::thread> threads;
    threads.emplace_back([this] { heartbeat_loop(); });
    for (std::int64_t i = 0; i < s_.slots; ++i) threads.emplace_back([this] { slot_loop(); });
    int number = 0;
    sigwait(&signals, &number);
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
      for (auto& a : running_) a.stop->request(Reason::kLost);
    }
    wake_.notify_all();
    for (auto& t : threads) t.join();
    return ok_status();
  }

 private:
  NodeInfo info() const {
    NodeInfo n;
    n.name = s_.name;
    n.key = key_.public_key().text();
    n.technologies = {Technology::kNone};
    n.cpu =
        std::max<std::int64_t>(1, static_cast<std::int64_t>(std::thread::hardware_concurrency()));
    n.memory_bytes = capacity_.memory_bytes();
    n.pids = capacity_.pids();
    n.slots = s_.slots;
    n.version = "0.1.0";
    return n;
  }
  bool stopping() {
    const std::scoped_lock lock(mutex_);
    return stopping_;
  }
  // True when the node stops.
  bool pause(std::int64_t ms) {
    std::unique_lock lock(mutex_);
    return wake_.wait_for(lock, std::chrono::milliseconds(ms), [this] { return stopping_; });
  }
  void note(const NodeLease& lease) {
    const std::scoped_lock lock(mutex_);
    for (const auto& id : lease.stop) {
      for (auto& a : running_) {
        if (a.id == id) a.stop->request(Reason::kJobCancelled);
      }
    }
  }
  Heartbeat next_beat() {
    Heartbeat beat;
    beat.name = s_.name;
    const std::scoped_lock lock(mutex_);
    for (const auto& a : running_) beat.running.push_back(a.id);
    const bool ending = std::any_of(running_.begin(), running_.end(),
                                    [](const auto& a) { return a.stop->requested().has_value(); });
    if (!running_.empty() && !ending) beat.wait_ms = kListenMs;
    return beat;
  }

  // Between heartbeats. A first attempt ends the rest: the plane shall know of it, to be able to
  // cancel it. False when the node stops.
  bool beat_rests(std::int64_t ms, bool idle) {
    std::unique_lock lock(mutex_);
    (void)wake_.wait_for(lock, std::chrono::milliseconds(ms),
                         [&] { return stopping_ || (idle && !running_.empty()); });
    return !stopping_;
  }

  void heartbeat_loop() {
    PlaneLink link(link_options_);
    bool registered = false;
    std::int64_t lease_s = 30;
    std::int64_t rest_ms = 0;
    bool idle = true;
    do {
      const Heartbeat beat = next_beat();
      idle = beat.running.empty();
      auto reply = registered ? link.call(method::kNodeHeartbeat, to_json(beat), 10'000)
                              : link.call(method::kNodeRegister, to_json(info()), 10'000);
      if (reply.ok()) {
        if (auto lease = from_json<NodeLease>(*reply); lease.ok()) {
          note(*lease);
          lease_s = lease->lease_seconds;
        }
        // With something running the next question follows the answer: that is how a cancellation
        // arrives at once.
        rest_ms = idle               ? std::max<std::int64_t>(lease_s * 1000 / 4, 500)
                  : beat.wait_ms > 0 ? 10
                                     : 500;
        if (!registered) {
          log_.info("registered", {{"name", s_.name}, {"key", key_.public_key().text()}});
        }
        registered = true;
      } else {
        log_.error("heartbeat", reply.error());
        if (reply.error().reason == Reason::kNotFound ||
            reply.error().reason == Reason::kUnauthenticated) {
          registered = false;
        }
        rest_ms = 1000;
      }
    } while (beat_rests(rest_ms, idle));
  }

  void slot_loop() {
    PlaneLink link(link_options_);
    PlaneLink attempt_link(link_options_);
    while (!stopping()) {
      auto reply = link.call(method::kNodePoll, to_json(PollRequest{s_.name, 5'000}), 15'000);
      if (!reply.ok()) {
        if (pause(1000)) return;
        continue;
      }
      auto poll = from_json<PollReply>(*reply);
      if (!poll.ok()) {
        log_.error("poll", poll.error());
        if (pause(1000)) return;
        continue;
      }
      if (poll->assignment) run(*poll->assignment, attempt_link);
    }
  }

  void run(const LaunchBundle& bundle, PlaneLink& link) {
    const RunningAttempt self{bundle.submission.submission.body.job_id(),
                              bundle.credential.body.attempt};
    StopSignal stop;
    {
      const std::scoped_lock lock(mutex_);
      // Handed out twice, because the plane thought that its first answer was lost.
      if (std::any_of(running_.begin(), running_.end(),
                      [&](const Attempt& a) { return a.id == self; })) {
        return;
      }
      running_.push_back({self, &stop});
      if (stopping_) stop.request(Reason::kLost);
    }
    wake_.notify_all();
    AttemptOptions o;
    o.clock = &clock_;
    o.log = &log_;
    o.key = &key_;
    o.broker = broker_;
    o.provisioner = provisioner_.get();
    o.plane = &link;
    const PlanControls& controls = bundle.plan.body.controls;
    const Status taken = capacity_.take(controls);
    if (!taken.ok()) o.refused = taken.error();
    Status s = run_attempt(o, bundle, stop);
    if (!s.ok()) log_.error("attempt", s.error());
    if (taken.ok()) capacity_.give_back(controls);
    const std::scoped_lock lock(mutex_);
    std::erase_if(running_, [&](const Attempt& a) { return a.stop == &stop; });
  }

  struct Attempt {
    RunningAttempt id;
    StopSignal* stop;  // lives in run()
  };

  // Constant after construction.
  const Settings& s_;
  Capacity capacity_;
  SystemClock clock_;
  crypto::SigningKey key_;
  Logger log_;
  channel::TcpAddress broker_;
  LinkOptions link_options_;
  std::unique_ptr<Provisioner> provisioner_;

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;         // guarded by mutex_
  std::vector<Attempt> running_;  // guarded by mutex_
};

Status serve(const Settings& s) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  SystemRandom random;
  GBX_TRY(check_uids_free({s.uid_base, kUidsPerSlot * s.slots}));
  GBX_TRY(make_dirs(s.state, 0711));
  GBX_ASSIGN(auto key, load_key(s.key_file, random));
  GBX_ASSIGN(auto plane, channel::TcpAddress::from_text(s.plane));
  GBX_ASSIGN(auto broker, channel::TcpAddress::from_text(s.broker));
  GBX_ASSIGN(auto plane_key, crypto::PublicKey::from_text(s.plane_key));
  GBX_ASSIGN(const std::int64_t memory, lent_memory(s));
  Node node(s, memory, std::move(key), std::move(plane), std::move(broker), std::move(plane_key));
  return node.serve(signals);
}

Status print_key(const std::string& path) {
  SystemRandom random;
  GBX_ASSIGN(auto key, load_key(path, random));
  std::cout << key.public_key().text() << "\n";
  return ok_status();
}

int run_main(int argc, char** argv) {
  CLI::App app{"Lends this machine to a Glovebox plane. The node is trusted with nothing."};
  app.require_subcommand(1);
  Settings s;
  auto* serve_command = app.add_subcommand("serve", "Register and run attempts until SIGTERM");
  serve_command->add_option("--name", s.name, "Name of this node")->required();
  serve_command->add_option("--plane", s.plane, "host:port of the plane's node endpoint")
      ->required();
  serve_command->add_option("--plane-key", s.plane_key, "Public key of that endpoint")->required();
  serve_command->add_option("--broker", s.broker, "host:port of the broker")->required();
  serve_command->add_option("--key", s.key_file, "This node's private key; made on first use")
      ->required();
  serve_command->add_option("--objects", s.objects, "Folder of ciphertext objects")->required();
  serve_command->add_option("--state", s.state, "Private folder for environments")->required();
  serve_command->add_option("--agent", s.agent, "The agent's program");
  serve_command->add_option("--slots", s.slots, "Attempts at a time")->check(CLI::Range(1, 64));
  serve_command->add_option("--memory", s.memory,
                            "Memory, scratch and images of all attempts at a time, like 8GiB "
                            "(default and most: 80 % of this machine's)");
  serve_command->add_option("--pids", s.pids, "Most processes of one job")
      ->check(CLI::Range(std::int64_t{1}, kMaxPids));
  serve_command
      ->add_option("--uid-base", s.uid_base,
                   "First of 140,000 a slot user ids that are nobody else's")
      ->required();
  auto* key_command = app.add_subcommand("key", "Print this node's public key");
  key_command->add_option("--key", s.key_file, "Private key file; made on first use")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : static_cast<int>(ExitClass::kUsage);
  }
  Status status = harden_process();  // both have the node's key
  if (status.ok()) status = *serve_command ? serve(s) : print_key(s.key_file);
  if (!status.ok()) {
    const Error& e = status.error();
    std::cerr << "glovebox-node: " << e.line() << "\n";
    if (!e.next.empty()) std::cerr << "  next: " << e.next << "\n";
    return static_cast<int>(exit_class(status.error().reason));
  }
  return 0;
}

}  // namespace
}  // namespace gbx::node

int main(int argc, char** argv) { return gbx::node::run_main(argc, argv); }
