// Signing keys and HPKE. Suites are a closed list and never negotiated: signatures are Ed25519 or
// ECDSA P-256 with SHA-256; HPKE is RFC 9180 base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
// AES-256-GCM.
#pragma once

#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/seams.h"
#include "base/secret.h"

namespace gbx::crypto {

enum class SignatureAlgorithm { kEd25519, kEcdsaP256 };

// A validated public key. Text form: "ed25519:<64 hex>" or "p256:<130 hex, uncompressed point>".
class PublicKey {
 public:
  // kBadEncoding, kBadValue (not on the curve)
  static Result<PublicKey> from_text(std::string_view text);
  static Result<PublicKey> from_spki_der(ByteView der);
  SignatureAlgorithm algorithm() const { return algorithm_; }
  std::string text() const;
  Bytes spki_der() const;
  Hash32 fingerprint() const;  // SHA-256 of the SubjectPublicKeyInfo
  // Ed25519: 64 bytes. P-256: r ‖ s, 64 bytes, r and s in range; either of s and n - s.
  bool verify(ByteView message, ByteView signature) const;
  // Of P-256's (r, s) and (r, n - s) only the one with s ≤ n / 2: nobody but the signer can make a
  // second signature. For our records, which SigningKey signs so; other people's signatures come in
  // both forms.
  bool verify_low_s(ByteView message, ByteView signature) const;
  bool operator==(const PublicKey& o) const { return algorithm_ == o.algorithm_ && raw_ == o.raw_; }
  auto operator<=>(const PublicKey& o) const { return raw_ <=> o.raw_; }

 private:
  friend class SigningKey;
  PublicKey() = default;
  SignatureAlgorithm algorithm_ = SignatureAlgorithm::kEd25519;
  Bytes raw_;
};

class SigningKey {
 public:
  static Result<SigningKey> generate(SignatureAlgorithm algorithm, Random& random);
  // The 32-byte seed (Ed25519) or scalar (P-256).
  static Result<SigningKey> from_private(SignatureAlgorithm algorithm,
                                         const Secret<SigningKeyTag>& raw);
  Secret<SigningKeyTag> private_bytes(SecretAccess) const;
  const PublicKey& public_key() const { return public_; }
  // P-256: with the lower s.
  Result<Bytes> sign(ByteView message) const;
  // For TLS: PKCS#8 DER of the private key.
  SecretBuffer pkcs8_der(SecretAccess) const;

 private:
  SigningKey() = default;
  Secret<SigningKeyTag> raw_;
  PublicKey public_;
};

// X25519 public key for HPKE. Text form: "x25519:<64 hex>".
struct HpkePublicKey {
  FixedBytes<32> raw{};
  static Result<HpkePublicKey> from_text(std::string_view text);
  std::string text() const;
  bool operator==(const HpkePublicKey&) const = default;
  auto operator<=>(const HpkePublicKey&) const = default;
};
class HpkeKeyPair {
 public:
  static Result<HpkeKeyPair> generate(Random& random);
  static Result<HpkeKeyPair> from_private(const HpkePrivate& raw);
  const HpkePublicKey& public_key() const { return public_; }
  const HpkePrivate& private_key() const { return private_; }

 private:
  HpkeKeyPair() = default;
  HpkePrivate private_;
  HpkePublicKey public_;
};

// E(k, aad, m) of the protocol: single-shot HPKE with info = "gbx/1/hpke", seq 0. Output: enc32 ‖
// ct ‖ tag16.
Result<Bytes> hpke_seal(const HpkePublicKey& to, ByteView aad, ByteView plaintext, Random& random);
// kBadTag, kTruncated
Result<SecretBuffer> hpke_open(const HpkeKeyPair& own, ByteView aad, ByteView sealed);

// The same with an explicit info and ephemeral key, for the RFC's vectors.
namespace hpke_detail {
Result<Bytes> seal(const HpkePublicKey& to, ByteView info, ByteView aad, ByteView plaintext,
                   const HpkePrivate& ephemeral);
Result<SecretBuffer> open(const HpkeKeyPair& own, ByteView info, ByteView aad, ByteView sealed);
}  // namespace hpke_detail

// A self-signed X.509 certificate for TLS: subject "glovebox", valid from 1970 to 9999 (times are
// checked in records, not here), containing `key`. DER.
Result<Bytes> self_signed_certificate(const SigningKey& key);
// A certificate authority and a server certificate for `dns_names`/`ip_addresses`, for the plane's
// HTTPS on one machine.
struct ServerCertificate {
  Bytes ca_der;
  Bytes server_der;
};
Result<ServerCertificate> issue_server_certificate(const SigningKey& ca, const SigningKey& server,
                                                   const std::vector<std::string>& dns_names,
                                                   const std::vector<std::string>& ip_addresses,
                                                   std::int64_t not_before_seconds,
                                                   std::int64_t not_after_seconds);
Result<PublicKey> certificate_public_key(ByteView certificate_der);
std::string certificate_pem(ByteView certificate_der);

}  // namespace gbx::crypto
