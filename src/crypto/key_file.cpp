#include "crypto/key_file.h"

#include "base/new_file.h"
#include "base/private_file.h"

namespace gbx::crypto {

Result<SigningKey> read_signing_key(const std::string& path) {
  GBX_ASSIGN(Bytes raw, read_private_file(path, 32));
  const auto secret = Secret<SigningKeyTag>::copy_of(raw);
  cleanse(raw);
  return SigningKey::from_private(SignatureAlgorithm::kEd25519, secret);
}

Result<SigningKey> signing_key_file(const std::string& path, Random& random) {
  auto there = read_signing_key(path);
  if (there.ok() || there.reason() != Reason::kNotFound) return there;
  GBX_ASSIGN(auto fresh, SigningKey::generate(SignatureAlgorithm::kEd25519, random));
  const auto raw = fresh.private_bytes(SecretAccess{});
  const Status written = write_new_file(path, raw.view(SecretAccess{}), 0600);
  if (written.ok()) return fresh;
  if (written.reason() == Reason::kAlreadyExists) return read_signing_key(path);
  return written.error();
}

}  // namespace gbx::crypto
