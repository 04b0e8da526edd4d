// What the process that starts a machine, and QEMU in it, are left with: no network, no files but
// QEMU's own program and libraries, ids that are nobody else's, and few system calls. Called once
// each, in this order, by a program of one thread that is root. Whoever is root on the host has all
// of it whatever is done here; QEMU, which a guest may take over, has not.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/log.h"
#include "base/result.h"

namespace gbx::simtee {

struct Cell {
  std::string qemu;  // its program, absolute; what lies beside it is seen read-only
  bool kvm = false;  // /dev/kvm is there, and is `uid`'s
  uid_t uid = 0;     // of QEMU
};
// From here on this process and what it starts have network, mount, IPC and host name namespaces of
// their own, a root with /usr, the dynamic loader's files, /proc of one's own processes and the few
// devices, and gain no rights by executing anything. Descriptors that are open stay. Where the
// kernel gives no /proc of one's own processes alone, the log says that it is the host's.
// kSandboxSetup.
Status enter_cell(const Cell& cell, const Logger& log);

// The ids of `uid`, no capability but the one to end QEMU, which has another id. kSandboxSetup.
Status drop_ids(uid_t uid);
// All threads of this process: reading, writing and waiting on what is open, memory, and SIGKILL
// through `qemu`, a pidfd. Anything else fails: no number of a process counts, and no call that is
// left gives a descriptor of another one in its place. kSandboxSetup.
Status filter_calls(int qemu);

}  // namespace gbx::simtee
