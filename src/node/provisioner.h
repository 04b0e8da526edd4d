// Where environments come from. `local`: the agent as a process of this host, technology none, no
// protection from the host. A confidential VM is another implementation of the same two classes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/os.h"
#include "base/uids.h"
#include "channel/stream.h"

namespace gbx::node {

class Environment {
 public:
  virtual ~Environment() = default;
  // Control and relayed bytes, multiplexed (channel/mux.h). Valid as long as the environment.
  virtual channel::ByteStream& stream() = 0;
  // Ends it whatever it does; afterwards nothing of it runs. Returns what could not be removed, a
  // line each.
  virtual std::vector<std::string> destroy() = 0;
};

class Provisioner {
 public:
  virtual ~Provisioner() = default;
  // Once, before the first start(): what an earlier life of this node left behind is killed and
  // removed. Says what it was, a line each. An error when something withstood, or another node is
  // at work there: then nothing may start.
  virtual Result<std::vector<std::string>> clear() = 0;
  // `name` is unique per attempt: letters, digits and '-'.
  virtual Result<std::unique_ptr<Environment>> start(const std::string& name) = 0;
};

struct LocalOptions {
  std::string agent_program;  // glovebox-agent
  std::string objects_dir;    // ciphertext, read-only to the agent
  std::string state_dir;      // private to this node; one folder per attempt below it
  // first of kUidsPerSlot ids for each environment at a time (docs/architecture.md)
  std::int64_t uid_base = 0;
  int log_fd = 2;
};
// Environments must not outlive the provisioner.
std::unique_ptr<Provisioner> make_local_provisioner(LocalOptions options);

}  // namespace gbx::node
