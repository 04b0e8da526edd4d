// `glovebox up`: a whole installation on this machine, in the foreground, without configuration.
// Runs as root because it gives each program its own uid and environments need mounts and
// namespaces; the programs drop to their uids.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "cli/tree.h"
#include "cli/uids.h"
#include "vm/launch.h"

namespace gbx::cli {

struct UpOptions {
  std::string state_dir = "/var/lib/glovebox";
  std::string listen = "127.0.0.1:7443";  // HTTPS API; port 0: any
  std::vector<std::string> names;         // for the certificate; clients are told the first
  std::optional<std::int64_t> uid_base;   // absent: that of the state, else kDefaultUidBase
  std::int64_t slots = 1;                 // environments at a time
  enum class Where { kUnsaid, kLocal, kMachines };
  Where environment = Where::kUnsaid;  // machines: each job in a VM of its own, SIMULATED
  std::string guest;                   // folder of guest/build; empty: usual_guest()
  std::string qemu = vm::LaunchDescription{}.qemu;
  std::string passphrase_file;  // empty: broker-passphrase in the state
  // who called sudo: may read the invite of owners and consumers, beside root
  uid_t person = 0;
  gid_t persons_group = 0;
  std::string programs;  // folder of the other programs; empty: this program's
};

// What is left in `state_dir`/installation.json for clients of this machine: no secret in it.
struct Installation {
  std::string plane;     // host:port
  std::string ca;        // file with the certificate, DER
  std::string set_id;    // hex: pin it
  std::string broker;    // host:port
  std::string node_key;  // hash of the node's key: what a policy names to allow this machine
  std::string sim_root;  // how policies name this installation's simulated TEE; empty: none
  std::string release;   // name of the guest release that it boots; empty: none
  // vm or local: where jobs run when it is started without --environment
  std::string usual_environment;
  std::string nodes;      // host:port where further nodes connect
  std::string nodes_key;  // the plane's key there
  // file with a token for owners, consumers and reviewers; not everybody may read it
  std::string invite;
  // file with the token of the first operator, root's; empty: one is enrolled
  std::string operator_invite;
  template <class F>
  void fields(F& f) {
    f("plane", plane, Bound{1, 300});
    f("ca", ca, Bound{1, 8192});
    f("setId", set_id, Bound{64, 64});
    f("broker", broker, Bound{1, 300});
    f("nodeKey", node_key, Bound{64, 64});
    f("simRoot", sim_root, Bound{0, 80});
    f("release", release, Bound{0, 64});
    f("usualEnvironment", usual_environment, Bound{0, 16});
    f("nodes", nodes, Bound{1, 300});
    f("nodesKey", nodes_key, Bound{1, 256});
    f("invite", invite, Bound{0, 4096});
    f("operatorInvite", operator_invite, Bound{0, 4096});
  }
};

// Returns when SIGINT or SIGTERM came and everything was stopped, or with the reason why it could
// not start or go on.
Status run_up(Session& session, const UpOptions& options);
// kUsage for what cannot be right, before anything is touched.
Result<UpOptions> up_options(const Invocation& in);
void add_up(CommandTree& tree);

}  // namespace gbx::cli
