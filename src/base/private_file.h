// Files of keys, of people and of services: whoever reads one has the key. Content is the owner's
// own, and secret: cleanse it.
#pragma once

#include <string>

#include "base/bytes.h"

namespace gbx {

// A regular file of at most `limit` bytes that nobody but its owner may read, and no link to one
// elsewhere. kNotFound; kIo for one that group or others may read or write, with what to do.
Result<Bytes> read_private_file(const std::string& path, std::size_t limit);

}  // namespace gbx
