// Where environments come from. `local`: the agent as a process of this host, technology none, no
// protection from the host. `vm`: a machine of its own for each attempt.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/os.h"
#include "base/uids.h"
#include "channel/stream.h"
#include "records/messages.h"
#include "storage/object_store.h"

namespace gbx::node {

class Environment {
 public:
  virtual ~Environment() = default;
  // Control and relayed bytes, multiplexed (channel/mux.h). Valid as long as the environment.
  virtual channel::ByteStream& stream() = 0;
  // What booted there, as its signer says; null where nothing is measured.
  virtual const records::Signed<records::GuestRelease>* release() const { return nullptr; }
  // When its stream has ended without the agent's word of an end: what the environment itself knows
  // of that. `spoke`: its agent had said something. Waits a moment for that word. Empty: nothing.
  virtual std::optional<Error> why_ended(bool spoke) {
    (void)spoke;
    return std::nullopt;
  }
  // Ends it whatever it does, within a time of its own; afterwards nothing of it runs. Returns what
  // could not be removed, a line each.
  virtual std::vector<std::string> destroy() = 0;
};

struct EnvironmentRequest {
  std::string name;  // unique per attempt: letters, digits and '-'
  // The plane's word, checked by the agent alone; lives as long as the call.
  const records::LaunchBundle& bundle;
  // after which it has ended by itself, should nobody have ended it
  std::int64_t life_ms = 0;
  // Whatever is read there, and its end, mean that the start is to be given up; -1: never.
  int give_up_fd = -1;
};

class Provisioner {
 public:
  virtual ~Provisioner() = default;
  // Once, before the first start(): what an earlier life of this node left behind is killed and
  // removed. Says what it was, a line each. An error when something withstood, or another node is
  // at work there: then nothing may start.
  virtual Result<std::vector<std::string>> clear() = 0;
  // Returns soon once the request is given up (kTimedOut), whatever it waits for.
  virtual Result<std::unique_ptr<Environment>> start(const EnvironmentRequest& request) = 0;
  // What an environment for it takes of this host's memory. kNoCapacity: there is none so large.
  virtual Result<std::int64_t> memory_for(const records::LaunchBundle& bundle) const {
    return bundle.plan.body.controls.footprint_bytes();
  }
};

struct LocalOptions {
  std::string agent_program;  // glovebox-agent
  std::string objects_dir;    // ciphertext, read-only to the agent
  std::string state_dir;      // private to this node; one folder per attempt below it
  // first of kUidsPerSlot ids for each environment at a time (docs/architecture.md)
  std::int64_t uid_base = 0;
  std::int64_t slots = 1;
  int log_fd = 2;
};
// Environments must not outlive the provisioner.
std::unique_ptr<Provisioner> make_local_provisioner(LocalOptions options);

// A guest release as guest/build makes it, in one folder: firmware.fd, kernel, initrd, cmdline.
struct VmOptions {
  std::string simtee_program;  // glovebox-simtee
  std::string simtee_key;      // its root's file
  std::string guest_dir;
  records::Signed<records::GuestRelease> release;
  std::string objects_dir;                        // ciphertext, which machines' volumes read
  std::shared_ptr<storage::ObjectStore> objects;  // the same; absent: objects_dir, as a directory
  std::string state_dir;
  std::int64_t uid_base = 0;  // QEMU runs under the first id of its slot, simtee the next
  std::int64_t slots = 1;
  std::string platform = "emulation";  // or "kvm"
  int log_fd = 2;
};
// Environments must not outlive the provisioner.
std::unique_ptr<Provisioner> make_vm_provisioner(VmOptions options);

// That the folder holds what the release was made of: kFirmwareMismatch, kKernelMismatch,
// kInitrdMismatch, kCmdlineMismatch with the file that differs, and what to do.
Status check_guest(const std::string& guest_dir, const records::GuestRelease& release);

// The smallest machine of the release that an attempt fits into, with what its guest needs beside
// it. kNoCapacity, with what is asked and what the largest machine has.
Result<records::MeasuredMachine> machine_for(const records::GuestRelease& release,
                                             records::Technology technology,
                                             const records::LaunchBundle& bundle);

}  // namespace gbx::node
