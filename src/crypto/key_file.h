// A service's own signing key in a file: the raw 32 bytes of an Ed25519 key, readable by its owner
// alone, made when it is first asked for.
#pragma once

#include <string>

#include "crypto/keys.h"

namespace gbx::crypto {

// Errors: those of read_private_file() and SigningKey::from_private().
Result<SigningKey> signing_key_file(const std::string& path, Random& random);

}  // namespace gbx::crypto
