// RFC 9180, base mode: DHKEM(X25519, HKDF-SHA256) (0x0020), HKDF-SHA256 (0x0001), AES-256-GCM
// (0x0002).
#include <algorithm>

#include "crypto/crypto.h"
#include "crypto/keys.h"
#include "crypto/openssl.h"

namespace gbx::crypto {

using namespace detail;  // NOLINT: private helpers of this folder

namespace {

constexpr std::size_t kX25519Size = 32;
constexpr std::string_view kTextPrefix = "x25519:";
constexpr std::string_view kInfo = "gbx/1/hpke";
constexpr std::string_view kVersion = "HPKE-v1";
constexpr std::uint8_t kKemSuite[] = {'K', 'E', 'M', 0x00, 0x20};
constexpr std::uint8_t kHpkeSuite[] = {'H', 'P', 'K', 'E', 0x00, 0x20, 0x00, 0x01, 0x00, 0x02};
constexpr std::uint8_t kModeBase = 0x00;

// Section 4: LabeledExtract and LabeledExpand.
SecretBuffer labeled_extract(ByteView suite, ByteView salt, std::string_view label, ByteView ikm) {
  SecretBuffer prk(32);
  Hmac(salt)
      .update(as_bytes(kVersion))
      .update(suite)
      .update(as_bytes(label))
      .update(ikm)
      .finish(prk.writable(SecretAccess{}));
  return prk;
}
SecretBuffer labeled_expand(ByteView suite, const SecretBuffer& prk, std::string_view label,
                            ByteView info, std::uint8_t size) {
  const std::uint8_t length[] = {0, size};
  const Bytes labeled = concat({length, as_bytes(kVersion), suite, as_bytes(label), info});
  return hkdf_expand(prk.view(SecretAccess{}), labeled, size);
}

Result<OwnedPkey> x25519_private(const HpkePrivate& raw) {
  const ByteView bytes = raw.view(SecretAccess{});
  if (bytes.size() != kX25519Size) {
    return fail(Reason::kBadValue, "X25519 private key")
        .with("32 bytes", std::to_string(bytes.size()) + " bytes");
  }
  OwnedPkey key(
      EVP_PKEY_new_raw_private_key_ex(nullptr, "X25519", nullptr, bytes.data(), bytes.size()));
  if (!key) return openssl_error("X25519 private key");
  return key;
}

// kBadValue when the shared secret is zero, which RFC 9180 section 7.1.4 has both sides refuse: the
// other key is then of small order, and anyone could compute the result.
Result<SecretBuffer> x25519(const HpkePrivate& own, ByteView other) {
  GBX_ASSIGN(const OwnedPkey own_key, x25519_private(own));
  const OwnedPkey other_key(
      EVP_PKEY_new_raw_public_key_ex(nullptr, "X25519", nullptr, other.data(), other.size()));
  const OwnedPkeyCtx ctx(EVP_PKEY_CTX_new_from_pkey(nullptr, own_key.get(), nullptr));
  if (!other_key || !ctx || EVP_PKEY_derive_init(ctx.get()) != 1 ||
      EVP_PKEY_derive_set_peer(ctx.get(), other_key.get()) != 1) {
    return openssl_error("X25519");
  }
  SecretBuffer shared(kX25519Size);
  const MutableByteView out = shared.writable(SecretAccess{});
  std::size_t n = out.size();
  // OpenSSL fails on the zero result itself; the comparison does not rely on that.
  const bool derived = EVP_PKEY_derive(ctx.get(), out.data(), &n) == 1 && n == out.size();
  static constexpr std::uint8_t kZero[kX25519Size] = {};
  if (!derived || constant_time_equal(out, kZero)) {
    return fail(Reason::kBadValue, "an X25519 public key of small order");
  }
  return shared;
}

struct Context {
  AeadKey key;
  FixedBytes<kAeadNonceSize> nonce{};
};

// Section 4.1 ExtractAndExpand, then section 5.1 KeySchedule with no PSK.
Context key_schedule(const SecretBuffer& dh, ByteView enc, ByteView recipient, ByteView info) {
  const SecretBuffer eae = labeled_extract(kKemSuite, {}, "eae_prk", dh.view(SecretAccess{}));
  const SecretBuffer shared =
      labeled_expand(kKemSuite, eae, "shared_secret", concat({enc, recipient}), 32);
  const SecretBuffer psk_id = labeled_extract(kHpkeSuite, {}, "psk_id_hash", {});
  const SecretBuffer info_hash = labeled_extract(kHpkeSuite, {}, "info_hash", info);
  const Bytes context = concat(
      {ByteView(&kModeBase, 1), psk_id.view(SecretAccess{}), info_hash.view(SecretAccess{})});
  const SecretBuffer secret =
      labeled_extract(kHpkeSuite, shared.view(SecretAccess{}), "secret", {});
  Context out;
  out.key = AeadKey::adopt(labeled_expand(kHpkeSuite, secret, "key", context, kAeadKeySize));
  const SecretBuffer nonce =
      labeled_expand(kHpkeSuite, secret, "base_nonce", context, kAeadNonceSize);
  const ByteView nonce_view = nonce.view(SecretAccess{});
  std::copy(nonce_view.begin(), nonce_view.end(), out.nonce.begin());
  return out;
}

}  // namespace

Result<HpkePublicKey> HpkePublicKey::from_text(std::string_view text) {
  if (!text.starts_with(kTextPrefix) || text.size() != kTextPrefix.size() + 2 * kX25519Size) {
    return fail(Reason::kBadEncoding, "HPKE public key")
        .with("x25519:<64 hex digits>", std::string(text.substr(0, 16)));
  }
  HpkePublicKey key;
  GBX_ASSIGN(key.raw, fixed_from_hex<kX25519Size>(text.substr(kTextPrefix.size())));
  return key;
}
std::string HpkePublicKey::text() const { return std::string(kTextPrefix) + to_hex(raw); }

Result<HpkeKeyPair> HpkeKeyPair::generate(Random& random) {
  return from_private(random.secret<HpkePrivate>(kX25519Size));
}
Result<HpkeKeyPair> HpkeKeyPair::from_private(const HpkePrivate& raw) {
  const DrainErrors drain;
  GBX_ASSIGN(const OwnedPkey key, x25519_private(raw));
  HpkeKeyPair pair;
  std::size_t n = kX25519Size;
  if (EVP_PKEY_get_raw_public_key(key.get(), pair.public_.raw.data(), &n) != 1 ||
      n != kX25519Size) {
    return openssl_error("X25519 public key");
  }
  pair.private_ = raw.clone();
  return pair;
}

Result<Bytes> hpke_seal(const HpkePublicKey& to, ByteView aad, ByteView plaintext, Random& random) {
  const auto ephemeral = random.secret<HpkePrivate>(kX25519Size);
  return hpke_detail::seal(to, as_bytes(kInfo), aad, plaintext, ephemeral);
}
Result<SecretBuffer> hpke_open(const HpkeKeyPair& own, ByteView aad, ByteView sealed) {
  return hpke_detail::open(own, as_bytes(kInfo), aad, sealed);
}

namespace hpke_detail {

Result<Bytes> seal(const HpkePublicKey& to, ByteView info, ByteView aad, ByteView plaintext,
                   const HpkePrivate& ephemeral) {
  const DrainErrors drain;
  GBX_ASSIGN(const HpkeKeyPair pair, HpkeKeyPair::from_private(ephemeral));
  const FixedBytes<kX25519Size>& enc = pair.public_key().raw;
  GBX_ASSIGN(const SecretBuffer dh, x25519(ephemeral, to.raw));
  const Context context = key_schedule(dh, enc, to.raw, info);
  GBX_ASSIGN(const Bytes ct,
             aead_seal(AeadSuite::kAes256Gcm, context.key, context.nonce, aad, plaintext));
  return concat({enc, ct});
}

Result<SecretBuffer> open(const HpkeKeyPair& own, ByteView info, ByteView aad, ByteView sealed) {
  const DrainErrors drain;
  if (sealed.size() < kX25519Size + kAeadTagSize) {
    return fail(Reason::kTruncated, "sealed message")
        .with("at least 48 bytes", std::to_string(sealed.size()) + " bytes");
  }
  const ByteView enc = sealed.first(kX25519Size), ct = sealed.subspan(kX25519Size);
  Result<SecretBuffer> dh = x25519(own.private_key(), enc);
  if (!dh.ok()) {
    // The sender's bytes are at fault: one reason for everything that is not genuine.
    if (dh.reason() == Reason::kBadValue) return fail(Reason::kBadTag, dh.error().what);
    return std::move(dh.error());
  }
  const Context context = key_schedule(*dh, enc, own.public_key().raw, info);
  GBX_ASSIGN(AeadStream stream, AeadStream::create(AeadSuite::kAes256Gcm, context.key));
  SecretBuffer out(ct.size() - kAeadTagSize);
  GBX_TRY(stream.open(context.nonce, aad, ct, out.writable(SecretAccess{})));
  return out;
}

}  // namespace hpke_detail

}  // namespace gbx::crypto
