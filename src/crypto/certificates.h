// Chains of X.509 certificates as vendors of platforms make them: ECDSA P-256 with SHA-256
// throughout, in PEM; reading, verifying and issuing them. What is read is untrusted. All functions
// are thread-safe.
#pragma once

#include <optional>
#include <span>

#include "crypto/keys.h"

namespace gbx::crypto {

inline constexpr std::size_t kMaxChainLength = 4;
inline constexpr std::size_t kMaxChainPem = 32 * 1024;

// The DER of each certificate. One text for one list: lines of 64 characters (RFC 7468 section 2),
// nothing before, between or after. Errors: kTooLarge, kBadEncoding.
Result<std::vector<Bytes>> certificates_of_pem(std::string_view pem);

struct ChainKeys {
  PublicKey leaf;
  PublicKey root;
};
// Leaf first, self-signed root last, nothing but them: each signed by the next, valid at `seconds`,
// with constraints and key usage that RFC 5280 asks for; the leaf signs data and issues nothing.
// Whether the root is one to trust is for the caller to say. Errors: kExpired outside a validity,
// kBadSignature, kBadEncoding (not canonical DER, another kind of key), kBadStructure (all else).
Result<ChainKeys> verify_chain(std::span<const Bytes> chain, std::int64_t seconds);

struct CertificateRequest {
  std::string subject;  // common name
  std::string issuer;
  const PublicKey* key = nullptr;
  const SigningKey* issuer_key = nullptr;
  std::optional<int> path_length;  // of an authority; without one the certificate is a leaf
  std::int64_t not_before_seconds = 0;
  std::int64_t not_after_seconds = 0;
};
// DER. Errors: kBadValue (times), kCrypto.
Result<Bytes> issue_certificate(const CertificateRequest& request);

}  // namespace gbx::crypto
