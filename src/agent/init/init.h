// The agent as PID 1 of a confidential VM: makes the machine ready, starts the agent proper, reaps
// what is left to it, and switches the machine off when the agent has ended. Nothing here parses
// what the host sends but the filter of its devices (devices.h). The kernel that runs it, its
// command line and every file are measured; the host is not trusted.
#pragma once

#include <string>
#include <vector>

#include "base/os.h"

namespace gbx::agent {

// A setting below /proc/sys.
struct Setting {
  std::string name;
  std::string value;
};
const std::vector<Setting>& settings();
// Writes each and reads it back: what a kernel does not take is no machine for other people's data.
// kSandboxSetup. `root` is "/proc/sys".
Status apply_settings(const std::string& root, const std::vector<Setting>& settings);

// Whether two words of a kernel's command line are there: what the release must have switched on.
Status check_command_line(const std::string& text);

// Never returns while the machine runs. As PID 1 only.
[[noreturn]] void run_init();

}  // namespace gbx::agent
