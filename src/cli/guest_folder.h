// The folder in which guest/build leaves what a machine boots: where it lies and whether it is
// whole, in one place for `up`, which starts it, and `doctor`, which says what `up` would find.
// Only looks whether files are there: their content is judged by whoever reads it.
#pragma once

#include <string>

namespace gbx::cli {

// The first file that a machine needs and that is not in `folder`, or is empty; empty: none.
std::string missing_of_guest(const std::string& folder);
// Where a guest lies when nobody says where: beside programs that are installed
// (PREFIX/share/glovebox/guest), or in the tree that they were built in (build/guest).
std::string usual_guest(const std::string& programs);

}  // namespace gbx::cli
