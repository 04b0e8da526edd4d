// glovebox-plane: API, catalogue, queue, nodes. Trusted with availability and metadata only.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/ready.h"
#include "plane/service/server.h"
#include "records/limits.h"

namespace gbx::plane {
namespace {

Status serve(const ServeOptions& options, Fd& ready) {
  // Threads inherit the mask, so that only sigwait() below sees these signals.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  (void)signal(SIGPIPE, SIG_IGN);
  GBX_TRY(harden_process());
  const SystemClock clock;
  SystemRandom random;
  const Logger log(2, "plane", clock);
  GBX_ASSIGN(std::unique_ptr<PlaneServer> server, PlaneServer::start(options, clock, random, log));
  const Json told = server->ready();
  log.info("serving", {{"https", *told.find("https")},
                       {"nodes", *told.find("nodes")},
                       {"nodeKey", *told.find("nodeKey")},
                       {"operatorEnrolled", *told.find("operator")}});
  if (ready.valid()) {
    const Fd fd = std::move(ready);  // closed: who waits for it reads to its end
    GBX_TRY(write_all(fd.get(), as_bytes(canonical(told) + "\n")));
  }
  int number = 0;
  sigwait(&signals, &number);
  log.info("stopping", {{"signal", number}});
  server->stop();
  return ok_status();
}

struct Arguments {
  std::string listen = "127.0.0.1:0";
  std::string node_listen = "127.0.0.1:0";
  std::string broker;
  std::vector<std::string> nodes;
  int ready_fd = -1;
  int invites_fd = -1;
};

Status start(ServeOptions options, const Arguments& a, Fd& ready) {
  GBX_ASSIGN(options.listen, channel::TcpAddress::from_text(a.listen));
  GBX_ASSIGN(options.node_listen, channel::TcpAddress::from_text(a.node_listen));
  GBX_ASSIGN(options.broker, channel::TcpAddress::from_text(a.broker));
  for (const std::string& n : a.nodes) {
    const std::size_t at = n.find('=');
    if (at == std::string::npos || at == 0) {
      return fail(Reason::kUsage, "--node").with("NAME=PUBLIC-KEY", n);
    }
    options.nodes.push_back({n.substr(0, at), n.substr(at + 1)});
  }
  if (a.invites_fd >= 0) {
    const Fd fd(a.invites_fd);
    GBX_ASSIGN(const Bytes text, read_all(fd.get(), 1024));
    auto invites = from_json_text<FirstInvites>(as_text(text));
    if (!invites.ok()) return invites.error().at("--invites-fd");
    options.invites = std::move(*invites);
  }
  return serve(options, ready);
}

Status run(ServeOptions options, const Arguments& a) {
  Fd ready(a.ready_fd);
  const Status s = start(std::move(options), a, ready);
  if (!s.ok()) tell_failure(ready.get(), s.error());
  return s;
}

Status print_key(const std::string& state_dir) {
  SystemRandom random;
  GBX_ASSIGN(const crypto::PublicKey key, plane_key(state_dir, random));
  std::cout << key.text() << "\n";
  return ok_status();
}

int main_with(int argc, char** argv) {
  CLI::App app{"Glovebox plane: API, catalogue, queue and nodes"};
  app.require_subcommand(1);
  ServeOptions options;
  Arguments a;
  CLI::App* serve_command = app.add_subcommand("serve", "Serve until SIGTERM");
  serve_command
      ->add_option("--state", options.state_dir, "directory for database, keys and sealed outputs")
      ->required();
  serve_command->add_option("--listen", a.listen, "HTTPS API, host:port");
  serve_command->add_option("--node-listen", a.node_listen, "where nodes connect, host:port");
  serve_command->add_option("--broker", a.broker, "address of the broker")->required();
  serve_command->add_option("--set", options.set_file, "the broker's set.json")->required();
  serve_command->add_option("--objects", options.objects_dir, "directory of ciphertext")
      ->required();
  serve_command->add_option("--node", a.nodes, "enrols a node: NAME=PUBLIC-KEY; may be repeated");
  serve_command->add_option("--name", options.names,
                            "another name or address for the certificate; may be repeated");
  serve_command
      ->add_option("--lease-seconds", options.lease_seconds,
                   "a node silent for longer counts as lost")
      ->check(CLI::Range(std::int64_t{2}, records::kMaxLeaseSeconds));
  serve_command->add_option("--ready-fd", a.ready_fd,
                            "gets one line of JSON when everything answers");
  serve_command->add_option("--invites-fd", a.invites_fd,
                            "gives {\"operator\",\"people\"}: tokens for the first operator, and "
                            "for owners, consumers and reviewers");
  CLI::App* key_command =
      app.add_subcommand("key", "Print the public key that broker and nodes are told");
  key_command
      ->add_option("--state", options.state_dir, "directory for database, keys and sealed outputs")
      ->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : static_cast<int>(ExitClass::kUsage);
  }
  const Status s = *key_command ? print_key(options.state_dir) : run(options, a);
  if (s.ok()) return 0;
  std::cerr << "glovebox-plane: " << s.error().line() << "\n";
  return static_cast<int>(exit_class(s.reason()));
}

}  // namespace
}  // namespace gbx::plane

int main(int argc, char** argv) { return gbx::plane::main_with(argc, argv); }
