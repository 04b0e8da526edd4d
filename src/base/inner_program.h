// For programs that only other programs of Glovebox start, by descriptors: what a person who calls
// one is told.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/os.h"

namespace gbx {

// True when the one argument is nothing that a program would give; then `*exit` is the exit status.
inline bool answered_person(int argc, char** argv, std::string_view what, int* exit) {
  if (argc != 2) return false;
  const std::string_view word = argv[1];
  const bool help = word == "--help" || word == "-h";
  const std::string line = std::string(what) + "; see glovebox --help\n";
  const bool written = write_all(help ? 1 : 2, as_bytes(line)).ok();
  *exit = static_cast<int>(help && written ? ExitClass::kOk : ExitClass::kUsage);
  return true;
}

}  // namespace gbx
