#include <algorithm>
#include <bit>

#include "crypto/crypto.h"
#include "crypto/openssl.h"

namespace gbx::crypto {

using namespace detail;  // NOLINT: private helpers of this folder

namespace {
constexpr std::size_t kHashSize = 32;
// The parameters come from key files: bounded, so that a file cannot take the machine's memory
// or time.
constexpr std::uint64_t kScryptMaxMemoryBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kScryptMaxR = 64;
constexpr std::uint64_t kScryptMaxP = 16;
constexpr std::size_t kScryptMaxSaltBytes = 1024;
}  // namespace

// RFC 5869 section 2.2. An absent salt is 32 zero bytes, which as an HMAC key equals the empty one.
SecretBuffer hkdf_extract(ByteView salt, ByteView ikm) {
  SecretBuffer prk(kHashSize);
  Hmac(salt).update(ikm).finish(prk.writable(SecretAccess{}));
  return prk;
}

// RFC 5869 section 2.3: T(i) = HMAC(PRK, T(i-1) ‖ info ‖ i).
SecretBuffer hkdf_expand(ByteView prk, ByteView info, std::size_t out_size) {
  require(out_size <= 255 * kHashSize, "HKDF output size");
  SecretBuffer out(out_size);
  SecretBuffer block(kHashSize);
  const MutableByteView target = out.writable(SecretAccess{});
  const MutableByteView t = block.writable(SecretAccess{});
  std::size_t done = 0;
  for (std::uint8_t i = 1; done < out_size; ++i) {
    Hmac mac(prk);
    if (i > 1) mac.update(t);
    mac.update(info).update(ByteView(&i, 1)).finish(t);
    const std::size_t n = std::min(kHashSize, out_size - done);
    std::memcpy(target.data() + done, t.data(), n);
    done += n;
  }
  return out;
}

Result<AeadKey> scrypt(const Passphrase& passphrase, ByteView salt, ScryptParameters parameters) {
  const DrainErrors drain;
  const auto [n, r, p] = parameters;
  if (n < 2 || !std::has_single_bit(n)) {
    return fail(Reason::kBadValue, "scrypt n").with("a power of two above 1", std::to_string(n));
  }
  if (r == 0 || p == 0) return fail(Reason::kBadValue, "scrypt r and p").with("at least 1", "0");
  if (r > kScryptMaxR || p > kScryptMaxP || n > kScryptMaxMemoryBytes / (128 * r)) {
    return fail(Reason::kTooLarge, "scrypt parameters")
        .with("r <= 64, p <= 16, 128*r*n <= 256 MiB",
              "n=" + std::to_string(n) + " r=" + std::to_string(r) + " p=" + std::to_string(p));
  }
  // RFC 7914 section 2: n < 2^(128*r/8).
  if (r < 4 && n >= std::uint64_t{1} << (16 * r)) {
    return fail(Reason::kBadValue, "scrypt n").with("below 2^(16*r)", std::to_string(n));
  }
  if (salt.size() > kScryptMaxSaltBytes) return fail(Reason::kTooLarge, "scrypt salt");
  SecretBuffer key(kAeadKeySize);
  const ByteView pass = passphrase.view(SecretAccess{});
  // SAFETY: char and unsigned char may alias; OpenSSL reads pass.size() bytes.
  const auto* pass_chars = reinterpret_cast<const char*>(pointer(pass));
  const MutableByteView out = key.writable(SecretAccess{});
  const int rc = EVP_PBE_scrypt(pass_chars, pass.size(), pointer(salt), salt.size(), n, r, p,
                                2 * kScryptMaxMemoryBytes, out.data(), out.size());
  if (rc != 1) return openssl_error("scrypt");
  return AeadKey::adopt(std::move(key));
}

}  // namespace gbx::crypto
