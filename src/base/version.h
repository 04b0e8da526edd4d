// The version of this build, as CMakeLists.txt states it: programs tell it to people and to each
// other.
#pragma once

#include <string>

namespace gbx {

// "MAJOR.MINOR.PATCH".
std::string version();

}  // namespace gbx
