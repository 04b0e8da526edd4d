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

FixedBytes<48> sha384(ByteView data) {
  Sha384 h;
  h.update(data);
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

RunningDigest::RunningDigest(Algorithm algorithm) : ctx_(nullptr) {
  OwnedMdCtx ctx(EVP_MD_CTX_new());
  require(ctx != nullptr, "digest context");
  const EVP_MD* md = algorithm == Algorithm::kSha256 ? sha256_md() : sha384_md();
  require(EVP_DigestInit_ex2(ctx.get(), md, nullptr) == 1, "digest init");
  ctx_ = ctx.release();
}
RunningDigest::~RunningDigest() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(ctx_)); }
RunningDigest::RunningDigest(RunningDigest&& other) noexcept
    : ctx_(std::exchange(other.ctx_, nullptr)) {}
RunningDigest& RunningDigest::operator=(RunningDigest&& other) noexcept {
  std::swap(ctx_, other.ctx_);
  return *this;
}
void RunningDigest::update(ByteView data) {
  require(ctx_ != nullptr, "digest update after finish");
  if (data.empty()) return;
  const int rc = EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(ctx_), data.data(), data.size());
  require(rc == 1, "digest update");
}
void RunningDigest::finish_into(MutableByteView out) {
  require(ctx_ != nullptr, "digest second finish");
  const OwnedMdCtx ctx(static_cast<EVP_MD_CTX*>(std::exchange(ctx_, nullptr)));
  const int size = EVP_MD_CTX_get_size(ctx.get());
  require(size > 0 && static_cast<std::size_t>(size) == out.size(), "digest size");
  unsigned n = 0;
  require(EVP_DigestFinal_ex(ctx.get(), out.data(), &n) == 1 && n == out.size(), "digest final");
}

Hash32 key_commitment(ByteView key, SecretAccess, ByteView context) {
  static constexpr std::uint8_t kZero[1] = {0};
  Hash32 out;
  Hmac(key).update(as_bytes("gbx/1/commit")).update(kZero).update(context).finish(out);
  return out;
}

}  // namespace gbx::crypto
