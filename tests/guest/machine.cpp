// guest-machine: starts the machine that the product starts (vm/launch.h), under emulation and with
// a volume of zeros, and lives as long as it. For tests that play the node, and may give the
// machine what no node gives it: words behind `--` go to QEMU as they are.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "base/os.h"
#include "vm/launch.h"
#include "vm/nbd_server.h"

namespace gbx::vm {
namespace {

constexpr int kControl = 3;
constexpr int kVolume = 4;
constexpr int kTee = 5;
constexpr std::uint64_t kVolumeBytes = std::uint64_t{1} << 30;

class Zeros final : public VolumeSource {
 public:
  std::uint64_t size() const override { return kVolumeBytes; }
  Status read(std::uint64_t, MutableByteView out) override {
    std::fill(out.begin(), out.end(), std::uint8_t{0});
    return ok_status();
  }
};

struct Settings {
  LaunchDescription machine;
  std::vector<std::string> more;
};

// Without the port where the platform would answer.
void take_tee_away(std::vector<std::string>& argv) {
  for (std::size_t i = 1; i < argv.size(); ++i) {
    const bool its =
        argv[i].starts_with("socket,id=tee,") || argv[i].find(kTeePort) != std::string::npos;
    if (!its) continue;
    argv.erase(argv.begin() + static_cast<std::ptrdiff_t>(i) - 1,
               argv.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    i -= 2;
  }
}

Result<int> run(Settings s) {
  ProcessOptions p;
  GBX_ASSIGN(auto volume, make_socket_pair());
  const bool tee = s.machine.tee_fd.has_value();
  p.descriptors = {{kControl, s.machine.control_fd}, {kVolume, volume.second.get()}};
  if (tee) p.descriptors[kTee] = *s.machine.tee_fd;
  s.machine.control_fd = kControl;
  s.machine.volume_fd = kVolume;
  s.machine.tee_fd = kTee;
  GBX_ASSIGN(p.argv, qemu_arguments(s.machine));
  if (!tee) take_tee_away(p.argv);
  p.argv.insert(p.argv.end(), s.more.begin(), s.more.end());
  p.env = {{"PATH", "/usr/bin:/bin"}};
  GBX_ASSIGN(const auto server,
             NbdServer::start(std::move(volume.first), std::make_shared<Zeros>()));
  GBX_ASSIGN(Process qemu, spawn(p));
  volume.second.reset();
  // QEMU has them now: when it ends, so do the streams.
  (void)close(p.descriptors[kControl]);
  if (tee) (void)close(p.descriptors[kTee]);
  GBX_ASSIGN(const auto end, qemu.wait(-1));
  return end && end->exited ? end->code : 1;
}

int run_main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  CLI::App app{"Starts one machine for a test."};
  Settings s;
  auto& m = s.machine;
  m.cpus = 2;
  m.memory_bytes = std::int64_t{1} << 30;
  int tee = -1;
  app.add_option("--firmware", m.firmware)->required();
  app.add_option("--kernel", m.kernel)->required();
  app.add_option("--initrd", m.initrd)->required();
  app.add_option("--command-line", m.command_line)->required();
  app.add_option("--cpus", m.cpus);
  app.add_option("--memory", m.memory_bytes);
  app.add_option("--control-fd", m.control_fd)->required();
  app.add_option("--tee-fd", tee);
  app.add_option("more", s.more, "For QEMU, as it is");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (tee >= 0) m.tee_fd = tee;
  const auto code = run(std::move(s));
  if (code.ok()) return *code;
  std::cerr << "guest-machine: " << code.error().line() << "\n";
  return 1;
}

}  // namespace
}  // namespace gbx::vm

int main(int argc, char** argv) { return gbx::vm::run_main(argc, argv); }
