#include "cli/guest_folder.h"

#include <sys/stat.h>

namespace gbx::cli {

std::string missing_of_guest(const std::string& folder) {
  for (const char* part : {"firmware.fd", "kernel", "initrd", "cmdline", "lock"}) {
    std::string path = folder + "/" + part;
    struct stat st {};
    const bool there = stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0;
    if (!there) return path;
  }
  return {};
}

std::string usual_guest(const std::string& programs) {
  const std::string installed = programs + "/../share/glovebox/guest";
  return missing_of_guest(installed).empty() ? installed : programs + "/../../guest";
}

}  // namespace gbx::cli
