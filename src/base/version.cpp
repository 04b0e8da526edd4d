#include "base/version.h"

#ifndef GBX_VERSION
#error "the build gives the version"
#endif

namespace gbx {

std::string version() { return GBX_VERSION; }

}  // namespace gbx
