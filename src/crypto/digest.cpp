#include "crypto/crypto.h"
#include "crypto/openssl.h"

namespace gbx::crypto {

using namespace detail;  // NOLINT: private helpers of this folder

Hash32 sha256(ByteView data) { return sha256({data}); }

Hash32 sha256(std::initializer_list<ByteView> parts) {
  Sha256 h;
  for (ByteView p : parts) h.update(p);
  return h.finish();
}

FixedBytes<64> sha512(ByteView data) {
  FixedBytes<64> out;
  unsigned n = 0;
  const int rc = EVP_Digest(pointer(data), data.size(), out.data(), &n, sha512_md(), nullptr);
  require(rc == 1 && n == out.size(), "SHA-512");
  return out;
}

Hash32 labelled_hash(std::string_view label, ByteView data) {
  static constexpr std::uint8_t kZero[1] = {0};
  return sha256({as_bytes(label), kZero, data});
}

FixedBytes<32> hmac_sha256(ByteView key, ByteView data) {
  FixedBytes<32> out;
  Hmac(key).update(data).finish(out);
  return out;
}

Sha256::Sha256() : ctx_(nullptr) {
  OwnedMdCtx ctx(EVP_MD_CTX_new());
  require(ctx != nullptr, "SHA-256 context");
  require(EVP_DigestInit_ex2(ctx.get(), sha256_md(), nullptr) == 1, "SHA-256 init");
  ctx_ = ctx.release();
}
Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(ctx_)); }
Sha256::Sha256(Sha256&& other) noexcept : ctx_(std::exchange(other.ctx_, nullptr)) {}
Sha256& Sha256::operator=(Sha256&& other) noexcept {
  std::swap(ctx_, other.ctx_);
  return *this;
}
void Sha256::update(ByteView data) {
  require(ctx_ != nullptr, "SHA-256 update after finish");
  if (data.empty()) return;
  const int rc = EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(ctx_), data.data(), data.size());
  require(rc == 1, "SHA-256 update");
}
Hash32 Sha256::finish() {
  require(ctx_ != nullptr, "SHA-256 second finish");
  const OwnedMdCtx ctx(static_cast<EVP_MD_CTX*>(std::exchange(ctx_, nullptr)));
  Hash32 out;
  unsigned n = 0;
  require(EVP_DigestFinal_ex(ctx.get(), out.data(), &n) == 1 && n == out.size(), "SHA-256 final");
  return out;
}

Hash32 key_commitment(ByteView key, SecretAccess, ByteView context) {
  static constexpr std::uint8_t kZero[1] = {0};
  Hash32 out;
  Hmac(key).update(as_bytes("gbx/1/commit")).update(kZero).update(context).finish(out);
  return out;
}

}  // namespace gbx::crypto
