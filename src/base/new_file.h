// For files that nobody can make again, such as keys: one that is there already stays.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/bytes.h"

namespace gbx {

// As write_file_atomic(), but replaces nothing. kAlreadyExists: something has this name, and is as
// it was, whoever else writes at the same time.
Status write_new_file(const std::string& path, ByteView content, mode_t mode);

}  // namespace gbx
