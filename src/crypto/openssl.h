// Private to src/crypto: ownership of OpenSSL objects, and how its verdicts are read. Success is
// the documented value exactly; every function that may fail holds a DrainErrors, so that no error
// is left behind for an unrelated caller (libssl reads the same queue).
#pragma once

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>

#include "base/bytes.h"
#include "base/secret.h"
#include "crypto/keys.h"

namespace gbx::crypto::detail {

template <auto Free>
struct Freeer {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
template <class T, auto Free>
using Owned = std::unique_ptr<T, Freeer<Free>>;

using OwnedBio = Owned<BIO, BIO_free_all>;
using OwnedBn = Owned<BIGNUM, BN_clear_free>;
using OwnedBnCtx = Owned<BN_CTX, BN_CTX_free>;
using OwnedEcGroup = Owned<EC_GROUP, EC_GROUP_free>;
using OwnedEcPoint = Owned<EC_POINT, EC_POINT_clear_free>;
using OwnedEcdsaSig = Owned<ECDSA_SIG, ECDSA_SIG_free>;
using OwnedMac = Owned<EVP_MAC_CTX, EVP_MAC_CTX_free>;
using OwnedMdCtx = Owned<EVP_MD_CTX, EVP_MD_CTX_free>;
using OwnedPkey = Owned<EVP_PKEY, EVP_PKEY_free>;
using OwnedPkeyCtx = Owned<EVP_PKEY_CTX, EVP_PKEY_CTX_free>;
using OwnedX509 = Owned<X509, X509_free>;

struct DrainErrors {
  DrainErrors() { ERR_clear_error(); }
  ~DrainErrors() { ERR_clear_error(); }
  DrainErrors(const DrainErrors&) = delete;
  DrainErrors& operator=(const DrainErrors&) = delete;
};

// kCrypto with OpenSSL's own (static) reason text.
Error openssl_error(std::string_view what);
// For functions whose contract has no error: only lack of memory or a broken library gets here.
void require(bool ok, const char* what);

// OpenSSL reads a null pointer as "argument absent", which an empty view would otherwise pass.
const std::uint8_t* pointer(ByteView v);

const EVP_MD* sha256_md();
const EVP_MD* sha384_md();
const EVP_MD* sha512_md();

// HMAC-SHA-256 in pieces, so that secrets are not copied together first.
class Hmac {
 public:
  explicit Hmac(ByteView key);
  Hmac& update(ByteView data);
  void finish(MutableByteView out32);

 private:
  OwnedMac ctx_;
};

// The EVP forms of a validated public key and of a private key (32 bytes, in range).
Result<OwnedPkey> public_pkey(SignatureAlgorithm algorithm, ByteView raw);
Result<OwnedPkey> private_pkey(SignatureAlgorithm algorithm, ByteView secret, ByteView public_raw);

}  // namespace gbx::crypto::detail
