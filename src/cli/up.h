// `glovebox up`: a whole installation on this machine, in the foreground, without configuration. Runs as root because it
// gives each program its own uid and environments need mounts and namespaces; the programs drop to their uids.
#pragma once

#include <string>

#include "cli/tree.h"

namespace gbx::cli {

struct UpOptions {
  std::string state_dir = "/var/lib/glovebox";
  std::string listen = "127.0.0.1:7443";   // HTTPS API; port 0: any
  std::int64_t uid_base = 190'000;         // first of 100 + 140,000 a slot that belong to nobody else
  std::int64_t slots = 1;                  // environments at a time
  std::string programs;                    // folder of the other programs; empty: this program's
};

// What is left in `state_dir`/installation.json for clients of this machine: no secret in it.
struct Installation {
  std::string plane;       // host:port
  std::string ca;          // file with the certificate, DER
  std::string set_id;      // hex: pin it
  std::string broker;      // host:port
  std::string node_key;    // hash of the node's key: what a policy names to allow this machine
  std::string nodes;       // host:port where further nodes connect
  std::string nodes_key;   // the plane's key there
  std::string invite;      // file with a token that makes operators, readable by root and the plane only
  template <class F>
  void fields(F& f) {
    f("plane", plane, Bound{1, 300});
    f("ca", ca, Bound{1, 8192});
    f("setId", set_id, Bound{64, 64});
    f("broker", broker, Bound{1, 300});
    f("nodeKey", node_key, Bound{64, 64});
    f("nodes", nodes, Bound{1, 300});
    f("nodesKey", nodes_key, Bound{1, 256});
    f("invite", invite, Bound{0, 4096});
  }
};

// Returns when SIGINT or SIGTERM came and everything was stopped, or with the reason why it could not start or go on.
Status run_up(const UpOptions& options);
void add_up(CommandTree& tree);

}  // namespace gbx::cli
