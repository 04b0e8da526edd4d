#include "crypto/key_file.h"

#include "base/os.h"
#include "base/private_file.h"

namespace gbx::crypto {

Result<SigningKey> signing_key_file(const std::string& path, Random& random) {
  if (!path_exists(path)) {
    GBX_ASSIGN(auto fresh, SigningKey::generate(SignatureAlgorithm::kEd25519, random));
    const auto raw = fresh.private_bytes(SecretAccess{});
    GBX_TRY(write_file_atomic(path, raw.view(SecretAccess{}), 0600));
    return fresh;
  }
  GBX_ASSIGN(Bytes raw, read_private_file(path, 32));
  const auto secret = Secret<SigningKeyTag>::copy_of(raw);
  cleanse(raw);
  return SigningKey::from_private(SignatureAlgorithm::kEd25519, secret);
}

}  // namespace gbx::crypto
