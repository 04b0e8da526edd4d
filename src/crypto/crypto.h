// Hashes, key derivation, AEAD and password hashing: thin and typed over OpenSSL, which stays
// hidden. All functions are thread-safe. Lengths are in bytes.
#pragma once

#include <string_view>

#include "base/bytes.h"
#include "base/seams.h"
#include "base/secret.h"

namespace gbx::crypto {

Hash32 sha256(ByteView data);
Hash32 sha256(std::initializer_list<ByteView> parts);
// FIPS 180-4; what TDX, SEV-SNP and TPM event logs measure with.
FixedBytes<48> sha384(ByteView data);
FixedBytes<64> sha512(ByteView data);
// SHA-256(label ‖ 0x00 ‖ data): every hash that names something has its own label.
Hash32 labelled_hash(std::string_view label, ByteView data);
FixedBytes<32> hmac_sha256(ByteView key, ByteView data);

// A hash that grows; see the two below.
class RunningDigest {
 public:
  RunningDigest(const RunningDigest&) = delete;
  RunningDigest(RunningDigest&&) noexcept;
  RunningDigest& operator=(RunningDigest&&) noexcept;
  void update(ByteView data);

 protected:
  enum class Algorithm { kSha256, kSha384 };
  explicit RunningDigest(Algorithm algorithm);
  ~RunningDigest();
  void finish_into(MutableByteView out);  // once; of the algorithm's size

 private:
  void* ctx_;
};
class Sha256 : public RunningDigest {
 public:
  Sha256() : RunningDigest(Algorithm::kSha256) {}
  Hash32 finish() {  // once
    Hash32 out;
    finish_into(out);
    return out;
  }
};
class Sha384 : public RunningDigest {
 public:
  Sha384() : RunningDigest(Algorithm::kSha384) {}
  FixedBytes<48> finish() {  // once
    FixedBytes<48> out;
    finish_into(out);
    return out;
  }
};

// RFC 5869 with SHA-256; out_size at most 255*32. HKDF-Expand takes the PRK as it is.
SecretBuffer hkdf_extract(ByteView salt, ByteView ikm);
SecretBuffer hkdf_expand(ByteView prk, ByteView info, std::size_t out_size);
template <class Out>
Out hkdf_expand_as(ByteView prk, ByteView info, std::size_t out_size) {
  return Out::adopt(hkdf_expand(prk, info, out_size));
}

// scrypt (RFC 7914) for the operator's passphrase. n is a power of two; memory is 128*r*n bytes.
struct ScryptParameters {
  std::uint64_t n = 1U << 15;
  std::uint64_t r = 8;
  std::uint64_t p = 1;
};
Result<AeadKey> scrypt(const Passphrase& passphrase, ByteView salt, ScryptParameters parameters);

// The closed list of AEAD suites; the number is what file formats carry.
enum class AeadSuite : std::uint8_t { kAes256Gcm = 1, kChaCha20Poly1305 = 2 };
Result<AeadSuite> aead_suite(std::uint8_t number);  // kBadSuite
inline constexpr std::size_t kAeadKeySize = 32;
inline constexpr std::size_t kAeadNonceSize = 12;
inline constexpr std::size_t kAeadTagSize = 16;

// ct ‖ tag16. `key` must be 32 bytes. A (key, nonce) pair must never be used twice: callers say in
// their format why it cannot be.
Result<Bytes> aead_seal(AeadSuite suite, const AeadKey& key, ByteView nonce, ByteView aad,
                        ByteView plaintext);
// kBadTag unless the whole is genuine; no plaintext is returned then.
Result<Bytes> aead_open(AeadSuite suite, const AeadKey& key, ByteView nonce, ByteView aad,
                        ByteView ciphertext);
// A reusable context for many short messages under one key: sets up the key once. Not thread-safe.
class AeadStream {
 public:
  static Result<AeadStream> create(AeadSuite suite, const AeadKey& key);
  AeadStream(AeadStream&&) noexcept;
  AeadStream& operator=(AeadStream&&) noexcept;
  ~AeadStream();
  // out.size() must be plaintext.size() + 16.
  Status seal(ByteView nonce, ByteView aad, ByteView plaintext, MutableByteView out);
  // out.size() must be ciphertext.size() - 16; on failure `out` is cleansed and kBadTag returned.
  Status open(ByteView nonce, ByteView aad, ByteView ciphertext, MutableByteView out);

 private:
  AeadStream() = default;
  void* encrypt_ = nullptr;
  void* decrypt_ = nullptr;
};

// Seals under a fresh random key (a ContentKey or ReleaseKey used exactly once), so the nonce is
// zero.
Result<Bytes> seal_once(ByteView key, SecretAccess, ByteView aad, ByteView plaintext);
Result<Bytes> open_once(ByteView key, SecretAccess, ByteView aad, ByteView ciphertext);
// Binds a key: HMAC-SHA256(key, "gbx/1/commit" ‖ 0x00 ‖ context). Published beside what the key
// seals.
Hash32 key_commitment(ByteView key, SecretAccess, ByteView context);

}  // namespace gbx::crypto
