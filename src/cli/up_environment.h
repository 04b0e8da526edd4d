// Where the jobs of `glovebox up` run: in machines of their own (SIMULATED), or on this host. What
// was asked for counts, then what the installation was made with, then what this machine has. Only
// looks at files; starts nothing.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"

namespace gbx::cli {

struct UpOptions;

struct UpEnvironment {
  bool machines = false;
  std::string guest;    // folder of guest/build; with machines
  std::string because;  // why jobs do not run in machines though nobody asked for that
};

// What an installation that is there runs its jobs in; nothing when there is none.
Result<std::optional<bool>> installed_with_machines(const std::string& installation_file);
// kNotFound, with what to do, when machines are wanted and QEMU or the guest is not there.
Result<UpEnvironment> choose_environment(const UpOptions& options,
                                         const std::optional<bool>& installed);
// Where a guest lies when nobody says where: beside programs that are installed
// (PREFIX/share/glovebox/guest), or in the tree that they were built in (build/guest).
std::string usual_guest(const std::string& programs);

}  // namespace gbx::cli
