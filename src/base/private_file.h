// Files of keys, of people and of services: whoever reads one has the key. Content is the owner's
// own, and secret: cleanse it.
#pragma once

#include <string>

#include "base/bytes.h"
#include "base/secret.h"

namespace gbx {

// A regular file of at most `limit` bytes that nobody but its owner may read. A link is followed,
// as orchestrators mount secrets through links: what counts is the file that was opened, and
// whoever may set the link could as well replace the file. kNotFound; kIo for one that group or
// others may read or write, with what to do.
Result<Bytes> read_private_file(const std::string& path, std::size_t limit);
// The same into locked memory alone, for a content that is more than a key to be cleansed.
Result<SecretBuffer> read_private_secret(const std::string& path, std::size_t limit);

}  // namespace gbx
