// glovebox-node: lends this machine. Registers with the plane, polls for work, runs one attempt per
// slot.
#include <signal.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <thread>

#include "base/version.h"
#include "crypto/key_file.h"
#include "node/service.h"
#include "storage/s3/s3_store.h"
#include "vm/accelerator.h"
#include "vm/qemu.h"

namespace gbx::node {
namespace {

using namespace records;

struct Settings {
  std::string name = "local";
  std::string plane;
  std::string plane_key;
  std::string broker;
  std::string key_file;
  bool new_key = false;
  std::string objects;
  std::string s3_config;
  std::string state;
  std::string agent = program_dir() + "/glovebox-agent";
  std::int64_t slots = 1;
  std::int64_t uid_base = 0;
  std::string memory;  // empty: what lent_memory_bytes() leaves of this machine's
  std::int64_t pids = kMaxPids;
  std::string environment = "local";
  std::string guest;
  std::string release;
  std::string simtee = program_dir() + "/glovebox-simtee";
  std::string simtee_key;
  std::string accelerator = "auto";
};

constexpr std::size_t kMaxReleaseBytes = 65'536;

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

// What `simtee root` prints: how policies name the root that signs this node's quotes.
Result<std::string> simulated_root(const Settings& s) {
  ProcessOptions p;
  p.argv = {s.simtee, "root", "--key", s.simtee_key};
  GBX_ASSIGN(const RunOutput out, run_command(p, 4096));
  std::string root = out.out.substr(0, out.out.find('\n'));
  if (!out.status.exited || out.status.code != 0 || root.rfind("sim:", 0) != 0) {
    return fail(Reason::kSandboxSetup, s.simtee + " root").with("sim:…", printable(out.err, 200));
  }
  return root;
}

// Of its signature only the form is looked at: brokers know the signers, nodes do not.
Result<Signed<GuestRelease>> load_release(const Settings& s) {
  GBX_ASSIGN(const std::string text, read_text_file(s.release, kMaxReleaseBytes));
  auto release = from_json_text<Signed<GuestRelease>>(text);
  if (!release.ok()) return release.error().at(s.release);
  return release;
}

NodeInfo info_of(const Settings& s, std::int64_t memory_bytes, const crypto::SigningKey& key) {
  NodeInfo n;
  n.name = s.name;
  n.key = key.public_key().text();
  n.technologies = {Technology::kNone};
  n.cpu = std::max<std::int64_t>(1, static_cast<std::int64_t>(std::thread::hardware_concurrency()));
  n.memory_bytes = memory_bytes;
  n.pids = s.pids;
  n.slots = s.slots;
  n.version = version();
  return n;
}

// What runs the guests: as asked, else KVM where it boots this guest.
Result<vm::Platform> accelerator_of(const Settings& s, const Logger& log) {
  if (s.accelerator == "kvm") return vm::Platform::kKvm;
  if (s.accelerator == "emulation") return vm::Platform::kEmulation;
  vm::ProbeOptions probe;
  probe.firmware = s.guest + "/firmware.fd";
  probe.kernel = s.guest + "/kernel";
  // Beside the folder of environments, in which everything is an environment.
  probe.memory_file = s.state + ".accelerator";
  GBX_ASSIGN(const vm::AcceleratorFound found, vm::find_accelerator(probe));
  log.info("accelerator", {{"what", printable(found.why, 500)}});
  return found.platform;
}

// A QEMU that lacks something would end at every start.
Status check_installed(vm::Platform platform) {
  const std::string qemu = vm::LaunchDescription{}.qemu;
  GBX_ASSIGN(const vm::QemuReport report, vm::check_qemu(qemu, platform));
  if (report.serves(platform)) return ok_status();
  std::string lacks;
  for (const vm::QemuLack& l : report.lacks) {
    lacks += (lacks.empty() ? "" : "; ") + l.what + " (" + l.needs + ")";
  }
  return fail(Reason::kUnsupported, qemu)
      .with("what a machine under " + std::string(vm::platform_name(platform)) + " needs",
            "without " + printable(lacks, 500))
      .hint("install another QEMU, or start without --environment vm");
}

// Machines, and what the plane is told of them.
Result<std::unique_ptr<Provisioner>> machines_of(const Settings& s, NodeInfo& info,
                                                 const Clock& clock, const Logger& log) {
  if (s.guest.empty() || s.release.empty() || s.simtee_key.empty()) {
    return fail(Reason::kUsage, "--environment vm")
        .with("--guest, --release and --simtee-key", "without one of them");
  }
  VmOptions o;
  GBX_ASSIGN(o.release, load_release(s));
  GBX_TRY(check_guest(s.guest, o.release.body));
  GBX_ASSIGN(const std::string root, simulated_root(s));
  GBX_ASSIGN(const vm::Platform platform, accelerator_of(s, log));
  GBX_TRY(check_installed(platform));
  o.simtee_program = s.simtee;
  o.simtee_key = s.simtee_key;
  o.guest_dir = s.guest;
  o.objects_dir = s.objects;
  if (storage::is_s3(s.objects) || !s.s3_config.empty()) {
    GBX_ASSIGN(o.objects, storage::open_objects(s.objects, s.s3_config, clock));
  }
  o.state_dir = s.state;
  o.uid_base = s.uid_base;
  o.slots = s.slots;
  o.platform = vm::platform_name(platform);
  info.technologies = {Technology::kSim};
  info.platforms = {{Technology::kSim, root, o.release.body.name}};
  return make_vm_provisioner(std::move(o));
}

Result<std::unique_ptr<Provisioner>> provisioner_of(const Settings& s, NodeInfo& info,
                                                    const Clock& clock, const Logger& log) {
  if (s.environment == "vm") return machines_of(s, info, clock, log);
  if (storage::is_s3(s.objects) || !s.s3_config.empty()) {
    return fail(Reason::kUsage, "--objects")
        .with("a directory, which this environment's programs read", s.objects)
        .hint("--environment vm reads s3:// as well");
  }
  LocalOptions local;
  local.agent_program = s.agent;
  local.objects_dir = s.objects;
  local.state_dir = s.state;
  local.uid_base = s.uid_base;
  local.slots = s.slots;
  return make_local_provisioner(local);
}

Status serve(const Settings& s) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  SystemRandom random;
  GBX_TRY(check_uids_free({s.uid_base, kUidsPerSlot * s.slots}));
  GBX_TRY(make_dirs(s.state, 0711));
  GBX_ASSIGN(auto key, crypto::signing_key_file(s.key_file, random));
  const SystemClock clock;
  const Logger log(2, "node", clock);
  LinkOptions link{&clock, {}, &key, std::nullopt};
  ServiceOptions o;
  GBX_ASSIGN(link.address, channel::TcpAddress::from_text(s.plane));
  GBX_ASSIGN(o.broker, channel::TcpAddress::from_text(s.broker));
  GBX_ASSIGN(link.plane_key, crypto::PublicKey::from_text(s.plane_key));
  GBX_ASSIGN(const std::int64_t memory, lent_memory(s));
  o.info = info_of(s, memory, key);
  GBX_ASSIGN(const auto provisioner, provisioner_of(s, o.info, clock, log));
  GBX_ASSIGN(const auto cleared, provisioner->clear());
  for (const auto& line : cleared) log.warn("left-by-an-earlier-life", {{"what", line}});
  o.clock = &clock;
  o.log = &log;
  o.key = &key;
  o.provisioner = provisioner.get();
  o.plane = [link] { return std::make_unique<PlaneLink>(link); };
  Service service(std::move(o));
  service.start();
  int number = 0;
  sigwait(&signals, &number);
  service.stop();
  return ok_status();
}

Status print_key(const Settings& s) {
  SystemRandom random;
  auto key = s.new_key ? crypto::signing_key_file(s.key_file, random)
                       : crypto::read_signing_key(s.key_file);
  if (!key.ok()) {
    if (key.reason() != Reason::kNotFound) return key.error();
    return key.error().hint("glovebox-node key --new makes one");
  }
  std::cout << key->public_key().text() << "\n";
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
  serve_command
      ->add_option("--objects", s.objects,
                   "Folder of ciphertext objects, or s3://bucket/prefix (vm only)")
      ->required();
  serve_command->add_option("--s3-config", s.s3_config,
                            "Private file: endpoint, region, access-key, secret-key of s3://");
  serve_command->add_option("--state", s.state, "Private folder for environments")->required();
  serve_command->add_option("--agent", s.agent, "The agent's program");
  serve_command
      ->add_option("--environment", s.environment,
                   "Where attempts run: local (NO TEE), vm (a machine each; SIMULATED)")
      ->check(CLI::IsMember({"local", "vm"}));
  serve_command->add_option("--guest", s.guest, "Folder of the guest that guest/build made");
  serve_command->add_option("--release", s.release, "Signed release of that guest");
  serve_command->add_option("--simtee", s.simtee, "The program that plays the TEE");
  serve_command->add_option("--simtee-key", s.simtee_key, "Its root's key file");
  serve_command
      ->add_option("--accelerator", s.accelerator,
                   "What runs machines: auto tries KVM once and remembers the answer")
      ->check(CLI::IsMember({"auto", "kvm", "emulation"}));
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
  key_command->add_option("--key", s.key_file, "Private key file")->required();
  key_command->add_flag("--new", s.new_key, "Make the file when it is not there");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : static_cast<int>(ExitClass::kUsage);
  }
  Status status = harden_process();  // both have the node's key
  if (status.ok()) status = *serve_command ? serve(s) : print_key(s);
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
