// glovebox-broker init|serve|fingerprint (docs/broker.md).
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <map>

#include "attest/verifier.h"
#include "base/os.h"
#include "base/ready.h"
#include "broker/server.h"
#include "capacity/capacity.h"

namespace {

using namespace gbx;          // NOLINT: a main
using namespace gbx::broker;  // NOLINT

constexpr char kUsage[] =
    "glovebox-broker init --state DIR --passphrase-fd N [--release-signer KEY] [--ready-fd M]\n"
    "    makes a key set and prints its set id; tells M when it cannot. KEY signs the guest "
    "releases\n"
    "    that its confidential VMs boot (glovebox release key), for as long as the set lasts\n"
    "glovebox-broker serve --state DIR --listen HOST:PORT --plane KEY --passphrase-fd N "
    "[--ready-fd M]\n"
    "    serves agents, and the plane that proves KEY (glovebox-plane key prints it); writes "
    "{\"address\",\"setId\"} to M when it does\n"
    "glovebox-broker fingerprint --state DIR\n"
    "    prints the set id that owners pin\n";

struct Arguments {
  std::string command;
  std::map<std::string, std::string> values;
  Result<std::string> text(const std::string& name) const {
    const auto it = values.find(name);
    if (it == values.end()) {
      return fail(Reason::kUsage, "--" + name + " is missing").hint("glovebox-broker --help");
    }
    return it->second;
  }
  Result<Fd> descriptor(const std::string& name) const {
    GBX_ASSIGN(std::string t, text(name));
    if (t.empty() || t.size() > 6 || t.find_first_not_of("0123456789") != std::string::npos) {
      return fail(Reason::kUsage, "--" + name).with("a number", t.substr(0, 32));
    }
    return Fd(std::stoi(t));
  }
};
Result<Arguments> parse(int argc, char** argv) {
  Arguments a;
  if (argc < 2) return fail(Reason::kUsage, "a command is missing").hint("glovebox-broker --help");
  a.command = argv[1];
  for (int i = 2; i < argc; i += 2) {
    const std::string name = argv[i];
    if (name.rfind("--", 0) != 0 || i + 1 >= argc) {
      return fail(Reason::kUsage, "argument").with("--name value", name.substr(0, 64));
    }
    if (!a.values.emplace(name.substr(2), argv[i + 1]).second) {
      return fail(Reason::kUsage, name.substr(0, 64) + " is given twice");
    }
  }
  for (const auto& [name, unused] : a.values) {
    if (name != "state" && name != "listen" && name != "plane" && name != "passphrase-fd" &&
        name != "ready-fd" && name != "release-signer") {
      return fail(Reason::kUsage, "unknown argument --" + name.substr(0, 64))
          .hint("glovebox-broker --help");
    }
  }
  return a;
}

Result<Passphrase> passphrase(const Arguments& a) {
  GBX_ASSIGN(Fd fd, a.descriptor("passphrase-fd"));
  return read_passphrase(fd.get());
}

Status init(const Arguments& a) {
  GBX_ASSIGN(std::string dir, a.text("state"));
  GBX_ASSIGN(Passphrase pass, passphrase(a));
  SystemRandom random;
  std::vector<std::string> signers;
  if (a.values.count("release-signer") > 0) signers.push_back(a.values.at("release-signer"));
  GBX_ASSIGN(records::SetChain chain, init_state(dir, pass, random, kPassphraseCost, signers));
  std::printf("%s\n", to_hex(chain.charter.set_id()).c_str());
  return ok_status();
}

Status fingerprint(const Arguments& a) {
  GBX_ASSIGN(std::string dir, a.text("state"));
  GBX_ASSIGN(std::string text, read_text_file(dir + "/set.json", 1U << 20));
  GBX_ASSIGN(records::SetChain chain, from_json_text<records::SetChain>(text));
  GBX_TRY(chain.verify(chain.charter.set_id()));
  std::printf("%s\n", to_hex(chain.charter.set_id()).c_str());
  return ok_status();
}

// Closes `ready`: who waits for it reads to its end.
Status announce(Fd& ready, const std::string& address, const records::SetId& set_id) {
  if (!ready.valid()) return ok_status();
  const Fd fd = std::move(ready);
  Json j;
  j["address"] = address;
  j["setId"] = to_hex(set_id);
  return write_all(fd.get(), as_bytes(canonical(j)));
}

Status serve(const Arguments& a, Fd& ready) {
  GBX_ASSIGN(std::string dir, a.text("state"));
  GBX_ASSIGN(std::string listen, a.text("listen"));
  ServerOptions options;
  GBX_ASSIGN(options.listen, channel::TcpAddress::from_text(listen));
  GBX_ASSIGN(std::string plane, a.text("plane"));
  auto plane_key = crypto::PublicKey::from_text(plane);
  if (!plane_key.ok()) {
    return fail(Reason::kUsage, "--plane")
        .with("a public key, as glovebox-plane key prints it", plane.substr(0, 80));
  }
  options.plane = std::move(*plane_key);
  GBX_ASSIGN(Passphrase pass, passphrase(a));
  GBX_ASSIGN(SetKeys keys, load_state(dir, pass));
  pass.wipe();
  // Threads inherit the mask: only sigwait below takes these signals.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int s : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, s);
  if (sigprocmask(SIG_BLOCK, &signals, nullptr) != 0) {
    return fail(Reason::kInternal, "block signals");
  }
  SystemClock clock;
  SystemRandom random;
  const Logger logger(STDERR_FILENO, "broker", clock);
  GBX_ASSIGN(std::unique_ptr<LogStore> store,
             open_sqlite_store(dir + "/log.db", LogFile::kMustExist));
  GBX_ASSIGN(std::unique_ptr<Core> core,
             Core::open({keys.chain, std::move(keys.signing), std::move(keys.kek)}, *store, random,
                        capacity::of_spec, {}, attest::verify_evidence));
  GBX_ASSIGN(std::unique_ptr<Server> server, Server::start(options, *core, keys.tls, clock, logger,
                                                           [] { kill(getpid(), SIGTERM); }));
  options.listen.port = server->port();
  GBX_TRY(announce(ready, options.listen.text(), core->set_id()));
  logger.info("serving", {{"address", Json(options.listen.text())},
                          {"setId", Json(to_hex(core->set_id()))},
                          {"logSize", Json(static_cast<std::int64_t>(core->log_size()))},
                          {"waitsFor", Json("the plane's copy of the log head")}});
  int caught = 0;
  sigwait(&signals, &caught);
  server->stop();
  logger.info("stopped");
  return core->ended_by();
}

Status run(int argc, char** argv) {
  GBX_TRY(harden_process());
  umask(0077);
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word != "--help" && word != "-h" && !(i == 1 && word == "help")) continue;
    std::fputs(kUsage, stdout);
    return std::fflush(stdout) == 0 ? ok_status() : Status(io_error("standard output", errno));
  }
  GBX_ASSIGN(Arguments a, parse(argc, argv));
  if (a.command == "init" || a.command == "serve") {
    Fd ready;
    if (a.values.count("ready-fd") != 0) {
      GBX_ASSIGN(ready, a.descriptor("ready-fd"));
    }
    const Status s = a.command == "init" ? init(a) : serve(a, ready);
    if (!s.ok()) tell_failure(ready.get(), s.error());
    return s;
  }
  if (a.command == "fingerprint") return fingerprint(a);
  return fail(Reason::kUsage, "unknown command")
      .with("init, serve or fingerprint", a.command.substr(0, 64));
}

}  // namespace

int main(int argc, char** argv) {
  const Status s = run(argc, argv);
  if (s.ok()) return 0;
  std::fprintf(stderr, "glovebox-broker: %s\n", s.error().line().c_str());
  if (!s.error().next.empty()) std::fprintf(stderr, "  next: %s\n", s.error().next.c_str());
  return static_cast<int>(gbx::exit_class(s.reason()));
}
