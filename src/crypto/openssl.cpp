#include "crypto/openssl.h"

#include <openssl/core_names.h>
#include <openssl/params.h>

#include <cstdio>
#include <cstdlib>

namespace gbx::crypto::detail {

Error openssl_error(std::string_view what) {
  std::string text(what);
  const unsigned long code = ERR_peek_last_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  if (reason != nullptr) text.append(" (OpenSSL: ").append(reason).append(")");
  ERR_clear_error();
  return fail(Reason::kCrypto, std::move(text));
}

void require(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "crypto: %s failed\n", what);
  std::abort();
}

const std::uint8_t* pointer(ByteView v) {
  static constexpr std::uint8_t kNothing = 0;
  return v.data() == nullptr ? &kNothing : v.data();
}

namespace {
// Fetched once: OpenSSL 3.0 otherwise looks the algorithm up on every call, which costs more than
// hashing a short message does. Immutable, and kept for the life of the process.
const EVP_MD* fetch_md(const char* name) {
  const EVP_MD* md = EVP_MD_fetch(nullptr, name, nullptr);
  require(md != nullptr, name);
  return md;
}
EVP_MAC* hmac_mac() {
  static EVP_MAC* const kMac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  require(kMac != nullptr, "HMAC");
  return kMac;
}
}  // namespace

const EVP_MD* sha256_md() {
  static const EVP_MD* const kMd = fetch_md("SHA256");
  return kMd;
}
const EVP_MD* sha384_md() {
  static const EVP_MD* const kMd = fetch_md("SHA384");
  return kMd;
}
const EVP_MD* sha512_md() {
  static const EVP_MD* const kMd = fetch_md("SHA512");
  return kMd;
}

Hmac::Hmac(ByteView key) : ctx_(EVP_MAC_CTX_new(hmac_mac())) {
  require(ctx_ != nullptr, "HMAC context");
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_end(),
  };
  require(EVP_MAC_init(ctx_.get(), pointer(key), key.size(), parameters) == 1, "HMAC init");
}
Hmac& Hmac::update(ByteView data) {
  if (data.empty()) return *this;
  require(EVP_MAC_update(ctx_.get(), data.data(), data.size()) == 1, "HMAC update");
  return *this;
}
void Hmac::finish(MutableByteView out32) {
  std::size_t n = 0;
  require(EVP_MAC_final(ctx_.get(), out32.data(), &n, out32.size()) == 1 && n == 32, "HMAC final");
}

}  // namespace gbx::crypto::detail
