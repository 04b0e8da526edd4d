// A service's own signing key in a file: the raw 32 bytes of an Ed25519 key, readable by its owner
// alone. It is made when that is asked for, and never over a file that is there, whoever makes one
// at the same time: whoever comes second has the first one's key.
#pragma once

#include <string>

#include "crypto/keys.h"

namespace gbx::crypto {

// kNotFound when it is not there; else those of read_private_file() and SigningKey::from_private().
Result<SigningKey> read_signing_key(const std::string& path);
// Made when it is not there.
Result<SigningKey> signing_key_file(const std::string& path, Random& random);

}  // namespace gbx::crypto
