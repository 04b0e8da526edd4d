// Where the jobs of `glovebox up` run: in machines of their own (SIMULATED), or on this host. What
// was asked for counts, then what the installation was made with, then what this machine has. One
// start elsewhere changes nothing for the starts after it. Only looks at files; starts nothing.
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

// Whether an installation that is there was made with machines; nothing when there is none.
Result<std::optional<bool>> installed_with_machines(const std::string& installation_file);
// kNotFound, with what to do, when machines are wanted and QEMU or the guest is not there.
Result<UpEnvironment> choose_environment(const UpOptions& options,
                                         const std::optional<bool>& installed);
// What installation.json says for the starts to come: what the installation was made with.
std::string usual_environment(const std::optional<bool>& installed, const UpEnvironment& now);
}  // namespace gbx::cli
