// glovebox-simtee: plays the hardware that a machine without a TEE lacks. SIMULATED: it protects
// nothing, and proves which installation started what.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/private_file.h"
#include "base/ready.h"
#include "base/uids.h"
#include "crypto/crypto.h"
#include "simtee/machine.h"

namespace gbx::simtee {
namespace {

struct Settings {
  std::string key;
  bool new_key = false;
  std::string platform = "emulation";
  std::string launch_config;
  std::int64_t uid = 0;
  std::int64_t life_s = 0;
  std::string firmware_hash;
  std::string kernel_hash;
  std::string initrd_hash;
  int node_fd = -1;
  int memory_cgroup = -1;
  vm::LaunchDescription machine;
};

// Whoever comes second while two make one has the first one's.
Result<attest::sim::SimPlatform> open_platform(const Settings& s) {
  SystemRandom random;
  auto there = attest::sim::SimPlatform::load(s.key, random);
  if (there.ok() || there.reason() != Reason::kNotFound || !s.new_key) return there;
  GBX_ASSIGN(auto fresh, attest::sim::SimPlatform::create(random));
  const Status saved = fresh.save(s.key);
  if (saved.ok()) return fresh;
  if (saved.reason() != Reason::kAlreadyExists) return saved.error();
  return attest::sim::SimPlatform::load(s.key, random);
}

Status print_root(const Settings& s) {
  GBX_ASSIGN(const auto platform, open_platform(s));
  std::cout << "sim:" << to_hex(platform.root().fingerprint()) << "\n";
  return ok_status();
}

Result<Hash32> hash_in(const std::string& option, const std::string& text) {
  auto hash = fixed_from_hex<32>(text);
  if (!hash.ok()) return hash.error().at(option);
  return *hash;
}

Result<MachineOptions> options_of(const Settings& s) {
  MachineOptions o;
  o.machine = s.machine;
  o.machine.platform = s.platform == "kvm" ? vm::Platform::kKvm : vm::Platform::kEmulation;
  GBX_ASSIGN(o.machine.launch_configuration, hash_in("--launch-config", s.launch_config));
  GBX_ASSIGN(o.expected.firmware, hash_in("--firmware-sha256", s.firmware_hash));
  GBX_ASSIGN(o.expected.kernel, hash_in("--kernel-sha256", s.kernel_hash));
  GBX_ASSIGN(o.expected.initrd, hash_in("--initrd-sha256", s.initrd_hash));
  o.qemu_uid = static_cast<uid_t>(s.uid);
  o.own_uid = static_cast<uid_t>(s.uid + 1);
  o.node_fd = s.node_fd;
  o.life_ms = s.life_s * 1000;
  o.memory_cgroup = s.memory_cgroup;
  return o;
}

Status launch(const Settings& s) {
  SystemRandom random;
  const SystemClock clock;
  const Logger log(2, "simtee", clock);
  GBX_ASSIGN(const auto platform, attest::sim::SimPlatform::load(s.key, random));
  GBX_ASSIGN(const MachineOptions o, options_of(s));
  return run_machine(platform, o, clock, log);
}

void add_launch(CLI::App& app, Settings& s) {
  auto* c = app.add_subcommand("launch", "Measure and run one machine until it ends");
  auto& m = s.machine;
  c->add_option("--key", s.key, "The root's private key file")->required();
  c->add_option("--platform", s.platform)->check(CLI::IsMember({"emulation", "kvm"}));
  // Of another QEMU than the host's; what the node passes is its own operator's choice.
  c->add_option("--qemu", m.qemu, "QEMU's program");
  c->add_option("--firmware", m.firmware)->required();
  c->add_option("--kernel", m.kernel)->required();
  c->add_option("--initrd", m.initrd)->required();
  c->add_option("--command-line", m.command_line)->required();
  c->add_option("--cpus", m.cpus)->required();
  c->add_option("--memory", m.memory_bytes, "Bytes")->required();
  c->add_option("--launch-config", s.launch_config, "Hash of the launch configuration")->required();
  c->add_option("--firmware-sha256", s.firmware_hash, "The release's, in hex")->required();
  c->add_option("--kernel-sha256", s.kernel_hash, "The release's, in hex")->required();
  c->add_option("--initrd-sha256", s.initrd_hash, "The release's, in hex")->required();
  c->add_option("--uid", s.uid, "QEMU's user id; the next one is this program's")
      ->check(CLI::Range(kLowestUid, kHighestUid - 1))
      ->required();
  c->add_option("--node-fd", s.node_fd, "A stream whose end means that the node has gone")
      ->check(CLI::Range(3, 1023))
      ->required();
  c->add_option("--life", s.life_s, "Seconds after which the machine is ended")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{100} * 86'400))
      ->required();
  c->add_option("--memory-cgroup-fd", s.memory_cgroup, "cgroup.procs to be joined");
  c->add_option("--control-fd", m.control_fd, "Stream between node and agent")->required();
  c->add_option("--volume-fd", m.volume_fd, "NBD stream of the volume")->required();
}

int run_main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  CLI::App app{"Plays a TEE where there is none. SIMULATED: protects nothing from this machine."};
  app.require_subcommand(1);
  Settings s;
  auto* root = app.add_subcommand("root", "Print how policies name this installation's root");
  root->add_option("--key", s.key, "The root's private key file")->required();
  root->add_flag("--new", s.new_key, "Make the file when it is not there");
  add_launch(app, s);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : static_cast<int>(ExitClass::kUsage);
  }
  Status status = harden_process();
  if (status.ok()) status = *root ? print_root(s) : launch(s);
  if (status.ok()) return 0;
  if (!*root) tell_failure(s.node_fd, status.error());
  std::cerr << "glovebox-simtee: " << printable(status.error().line(), 500) << "\n";
  return static_cast<int>(exit_class(status.error().reason));
}

}  // namespace
}  // namespace gbx::simtee

int main(int argc, char** argv) { return gbx::simtee::run_main(argc, argv); }
