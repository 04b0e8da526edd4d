#include <openssl/pem.h>
#include <openssl/x509_vfy.h>

#include "crypto/certificates.h"
#include "crypto/openssl.h"

namespace gbx::crypto {

using namespace detail;  // NOLINT: private helpers of this folder

namespace {

using OwnedStore = Owned<X509_STORE, X509_STORE_free>;
using OwnedStoreCtx = Owned<X509_STORE_CTX, X509_STORE_CTX_free>;

constexpr std::string_view kPemEnd = "-----END CERTIFICATE-----\n";

void free_stack(STACK_OF(X509) * stack) { sk_X509_free(stack); }
using OwnedStack = Owned<STACK_OF(X509), free_stack>;

// One certificate from one PEM block, as DER.
Result<Bytes> decode_block(std::string_view block) {
  const Error bad = fail(Reason::kBadEncoding, "not the PEM of a certificate");
  const OwnedBio bio(BIO_new_mem_buf(block.data(), static_cast<int>(block.size())));
  if (!bio) return openssl_error("PEM");
  char* name = nullptr;
  char* header = nullptr;
  unsigned char* data = nullptr;
  long n = 0;
  const int rc = PEM_read_bio(bio.get(), &name, &header, &data, &n);
  Bytes der;
  if (rc == 1) der.assign(data, data + n);
  OPENSSL_free(name);
  OPENSSL_free(header);
  OPENSSL_free(data);
  if (rc != 1) return bad;
  // OpenSSL skips text around the block and takes other line lengths: what it would write is the
  // one form.
  if (certificate_pem(der) != block) return bad;
  return der;
}

Result<OwnedX509> parse_canonical_der(ByteView der) {
  const std::uint8_t* p = pointer(der);
  const std::uint8_t* const end = p + der.size();
  OwnedX509 x(d2i_X509(nullptr, &p, static_cast<long>(der.size())));
  if (!x || p != end) return fail(Reason::kBadEncoding, "not the DER of a certificate");
  std::uint8_t* again = nullptr;
  const int n = i2d_X509(x.get(), &again);
  if (n <= 0) return openssl_error("certificate encoding");
  const bool same = equal(ByteView(again, static_cast<std::size_t>(n)), der);
  OPENSSL_free(again);
  if (!same) return fail(Reason::kBadEncoding, "certificate is not canonical DER");
  return x;
}

Error chain_error(int code) {
  const std::string text = X509_verify_cert_error_string(code);
  switch (code) {
    case X509_V_ERR_CERT_NOT_YET_VALID:
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return fail(Reason::kExpired, text);
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
      return fail(Reason::kBadSignature, text);
  }
  return fail(Reason::kBadStructure, text);
}

// OpenSSL builds the path; it has to be the one that was shown, certificate by certificate.
Status verify_path(const std::vector<OwnedX509>& chain, std::int64_t seconds) {
  const OwnedStore store(X509_STORE_new());
  const OwnedStack between(sk_X509_new_null());
  const OwnedStoreCtx ctx(X509_STORE_CTX_new());
  if (!store || !between || !ctx) return openssl_error("certificate chain");
  if (X509_STORE_add_cert(store.get(), chain.back().get()) != 1) {
    return openssl_error("root certificate");
  }
  for (std::size_t i = 1; i + 1 < chain.size(); ++i) {
    if (sk_X509_push(between.get(), chain[i].get()) <= 0) return openssl_error("certificate chain");
  }
  if (X509_STORE_CTX_init(ctx.get(), store.get(), chain[0].get(), between.get()) != 1) {
    return openssl_error("certificate chain");
  }
  X509_VERIFY_PARAM* const param = X509_STORE_CTX_get0_param(ctx.get());
  X509_VERIFY_PARAM_set_time(param, static_cast<time_t>(seconds));
  const unsigned long flags = X509_V_FLAG_X509_STRICT | X509_V_FLAG_CHECK_SS_SIGNATURE;
  if (X509_VERIFY_PARAM_set_flags(param, flags) != 1) return openssl_error("certificate chain");
  const int rc = X509_verify_cert(ctx.get());
  if (rc != 1) return chain_error(X509_STORE_CTX_get_error(ctx.get()));
  STACK_OF(X509)* const path = X509_STORE_CTX_get0_chain(ctx.get());
  const bool whole = path != nullptr && sk_X509_num(path) == static_cast<int>(chain.size());
  for (std::size_t i = 0; whole && i < chain.size(); ++i) {
    if (X509_cmp(sk_X509_value(path, static_cast<int>(i)), chain[i].get()) != 0) {
      return fail(Reason::kBadStructure, "certificates are not in the order of their path");
    }
  }
  return whole ? ok_status() : fail(Reason::kBadStructure, "a certificate is not on the path");
}

Status check_leaf(X509* leaf) {
  // SAFETY: X509_get_key_usage caches in the certificate, which is this function's own.
  const bool has_usage = (X509_get_extension_flags(leaf) & EXFLAG_KUSAGE) != 0;
  if (!has_usage || (X509_get_key_usage(leaf) & KU_DIGITAL_SIGNATURE) == 0) {
    return fail(Reason::kBadStructure, "the leaf's key usage is not to sign data");
  }
  if (X509_check_ca(leaf) != 0) {
    return fail(Reason::kBadStructure, "the leaf is an authority");
  }
  return ok_status();
}

Result<PublicKey> p256_key(ByteView der) {
  GBX_ASSIGN(PublicKey key, certificate_public_key(der));
  if (key.algorithm() != SignatureAlgorithm::kEcdsaP256) {
    return fail(Reason::kBadEncoding, "certificate key").with("P-256", "Ed25519");
  }
  return key;
}

}  // namespace

Result<std::vector<Bytes>> certificates_of_pem(std::string_view pem) {
  const DrainErrors drain;
  if (pem.size() > kMaxChainPem) {
    return fail(Reason::kTooLarge, "certificate chain")
        .with("at most " + std::to_string(kMaxChainPem) + " bytes", std::to_string(pem.size()));
  }
  std::vector<Bytes> out;
  while (!pem.empty()) {
    const std::size_t end = pem.find(kPemEnd);
    if (end == std::string_view::npos) {
      return fail(Reason::kBadEncoding, "certificate chain: text that is no certificate");
    }
    if (out.size() == kMaxChainLength) {
      return fail(Reason::kTooLarge, "certificates in a chain")
          .with("at most " + std::to_string(kMaxChainLength), "more");
    }
    const std::string_view block = pem.substr(0, end + kPemEnd.size());
    GBX_ASSIGN(Bytes der, decode_block(block));
    out.push_back(std::move(der));
    pem.remove_prefix(block.size());
  }
  return out;
}

Result<ChainKeys> verify_chain(std::span<const Bytes> chain, std::int64_t seconds) {
  const DrainErrors drain;
  if (chain.size() < 2 || chain.size() > kMaxChainLength) {
    return fail(Reason::kBadStructure, "certificates in a chain")
        .with("2 to " + std::to_string(kMaxChainLength), std::to_string(chain.size()));
  }
  std::vector<OwnedX509> parsed;
  for (const Bytes& der : chain) {
    GBX_ASSIGN(OwnedX509 x, parse_canonical_der(der));
    GBX_TRY(p256_key(der));
    if (X509_get_signature_nid(x.get()) != NID_ecdsa_with_SHA256) {
      return fail(Reason::kBadEncoding, "certificate signature is not ECDSA with SHA-256");
    }
    parsed.push_back(std::move(x));
  }
  GBX_TRY(verify_path(parsed, seconds));
  GBX_TRY(check_leaf(parsed[0].get()));
  GBX_ASSIGN(PublicKey leaf, p256_key(chain.front()));
  GBX_ASSIGN(PublicKey root, p256_key(chain.back()));
  return ChainKeys{std::move(leaf), std::move(root)};
}

}  // namespace gbx::crypto
