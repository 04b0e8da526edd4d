// glovebox-agent: the tee-agent. `run` is its privileged half and starts `worker`, which holds the
// keys.
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <thread>

#include "agent/init/init.h"
#include "agent/ipc.h"
#include "agent/supervisor.h"
#include "agent/worker.h"
#include "attest/sim/attester.h"
#include "attest/tsm/attester.h"
#include "sandbox/sandbox.h"

namespace gbx::agent {
namespace {

constexpr int kStreamFd = 3;
constexpr int kSupervisorFd = 4;

struct Settings {
  std::string dir;
  std::string objects;
  std::string container;
  std::int64_t uid_base = 0;
  int stream_fd = kStreamFd;
  std::string tee = "none";
  int tee_fd = -1;
  std::string apparmor;
};

// How the platform is asked for evidence; empty where there is none.
struct Platform {
  std::unique_ptr<channel::FdStream> stream;
  std::unique_ptr<attest::Attester> attester;
};
Result<Platform> open_platform(const Settings& s, const Clock& clock) {
  Platform p;
  if (s.tee == "sim") {
    GBX_ASSIGN(p.stream, channel::FdStream::create(Fd(s.tee_fd)));
    p.attester = std::make_unique<attest::sim::SimAttester>(*p.stream, clock);
  }
  if (s.tee == "tsm") {
    GBX_ASSIGN(auto report, attest::tsm::open_report(attest::tsm::kReportRoot, "glovebox"));
    GBX_ASSIGN(p.attester,
               attest::tsm::TsmAttester::create(std::move(report), attest::tsm::kEventLogTable));
  }
  return p;
}

Status run_supervisor(const Settings& s) {
  GBX_TRY(harden_process());  // keys pass through on their way to DecryptFS
  SystemClock clock;
  const Logger log(2, "agent", clock);
  GBX_ASSIGN(const Platform platform, open_platform(s, clock));
  const auto technology =
      platform.attester ? platform.attester->technology() : records::Technology::kNone;
  GBX_ASSIGN(auto pair, make_packet_pair());
  ProcessOptions p;
  p.argv = {program_dir() + "/glovebox-agent", "worker", "--technology",
            std::string(enum_name(technology))};
  p.descriptors = {{2, 2}, {kStreamFd, s.stream_fd}, {kSupervisorFd, pair.second.get()}};
  p.uid = static_cast<uid_t>(s.uid_base);
  GBX_ASSIGN(Process worker, spawn(p));
  pair.second.reset();
  close(s.stream_fd);  // the worker's alone: when it ends, the node sees the end
  SupervisorOptions o;
  o.clock = &clock;
  o.log = &log;
  o.dir = s.dir;
  o.objects = s.objects;
  o.container = s.container;
  o.uid_base = s.uid_base;
  o.worker = pair.first.get();
  o.attester = platform.attester.get();
  if (!s.apparmor.empty()) o.apparmor = s.apparmor;
  // Where nobody asks for it, it is one more wall on a host that has it.
  if (!o.apparmor && sandbox::profile_is_loaded(sandbox::kWorkloadProfile)) {
    o.apparmor = sandbox::kWorkloadProfile;
  }
  return supervise(o);
}

Status run_worker_half(const std::string& technology) {
  GBX_TRY(harden_process());
  SystemClock clock;
  SystemRandom random;
  GBX_ASSIGN(auto stream, channel::FdStream::create(Fd(kStreamFd)));
  channel::Mux mux(*stream, clock);
  WorkerOptions o;
  o.clock = &clock;
  o.random = &random;
  o.supervisor = kSupervisorFd;
  o.mux = &mux;
  GBX_ASSIGN(o.technology, enum_from<records::Technology>(technology));
  // When the node has gone or wants an end, nothing here is waited for: not the container either.
  std::thread watcher([&] {
    while (mux.wait_end(channel::Deadline::after_ms(clock, 3'600'000)).reason() ==
           Reason::kTimedOut) {
    }
    shutdown(kSupervisorFd, SHUT_RDWR);
  });
  Status s = run_worker(o);
  mux.close();
  watcher.join();
  if (!s.ok()) Logger(2, "agent", clock).error("attempt", s.error());
  return s;
}

int run_main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  // Before the options: firmware adds words to a kernel's command line, and the kernel hands them
  // on.
  if (argc > 1 && std::string_view(argv[1]) == "init") {
    if (getpid() == 1) run_init();
    std::cerr << "glovebox-agent: init is for PID 1 of a confidential VM\n";
    return static_cast<int>(ExitClass::kUsage);
  }
  CLI::App app{"The tee-agent: runs one attempt of one job. Started by a node, not by people."};
  app.require_subcommand(1);
  Settings s;
  auto* run = app.add_subcommand("run", "Privileged half");
  run->add_option("--dir", s.dir, "Private folder of this attempt")->required();
  run->add_option("--objects", s.objects, "Folder of ciphertext objects")->required();
  run->add_option("--container", s.container, "Id of this attempt's container")->required();
  run->add_option("--uid-base", s.uid_base, "First of this agent's user ids")
      ->required()
      ->check(CLI::Range(std::int64_t{1000}, std::int64_t{4'000'000'000}));
  run->add_option("--stream-fd", s.stream_fd, "Byte stream to the node");
  run->add_option("--tee", s.tee, "How evidence is had: none, sim (over --tee-fd), tsm (configfs)")
      ->check(CLI::IsMember({"none", "sim", "tsm"}));
  run->add_option("--tee-fd", s.tee_fd, "Byte stream to the simulated platform");
  run->add_option("--apparmor", s.apparmor, "AppArmor profile that the container must have");
  std::string technology = "none";
  auto* worker = app.add_subcommand(
      "worker", "Unprivileged half; descriptor 3 is the node, 4 the privileged half");
  app.add_subcommand("init", "PID 1 of a confidential VM; started by its kernel");
  worker->add_option("--technology", technology, "That evidence is had of");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : static_cast<int>(ExitClass::kUsage);
  }
  Status status = *worker ? run_worker_half(technology) : run_supervisor(s);
  if (status.ok()) return 0;
  std::cerr << "glovebox-agent: " << printable(status.error().line(), 500) << "\n";
  return static_cast<int>(exit_class(status.error().reason));
}

}  // namespace
}  // namespace gbx::agent

int main(int argc, char** argv) { return gbx::agent::run_main(argc, argv); }
