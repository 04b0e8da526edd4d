#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/obj_mac.h>
#include <openssl/params.h>

#include <algorithm>
#include <bit>

#include "crypto/crypto.h"
#include "crypto/keys.h"
#include "crypto/openssl.h"

namespace gbx::crypto {

using namespace detail;  // NOLINT: private helpers of this folder

namespace {

constexpr std::size_t kPrivateSize = 32;
constexpr std::size_t kSignatureSize = 64;
constexpr std::size_t kEd25519PublicSize = 32;
constexpr std::size_t kP256PublicSize = 65;
constexpr std::size_t kMaxMessageBytes = std::size_t{64} << 20;
constexpr int kScalarTries = 64;

// SubjectPublicKeyInfo up to the key (RFC 8410 section 4; RFC 5480 section 2). DER has one form,
// so that a comparison replaces an ASN.1 parser.
constexpr std::uint8_t kEd25519Spki[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                         0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
constexpr std::uint8_t kP256Spki[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                      0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                      0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00};
// PKCS#8 up to the private key (RFC 8410 section 7; RFC 5915), and between it and the public point.
constexpr std::uint8_t kEd25519Pkcs8[] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                                          0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};
constexpr std::uint8_t kP256Pkcs8[] = {0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06,
                                       0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                                       0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
                                       0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01, 0x04, 0x20};
constexpr std::uint8_t kP256Pkcs8Middle[] = {0xa1, 0x44, 0x03, 0x42, 0x00};
// The order n of P-256 (FIPS 186-4 D.1.2.3).
constexpr FixedBytes<32> kP256Order = {
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51};
// (n - 1) / 2, the largest s that is not above n - s.
constexpr FixedBytes<32> kP256HalfOrder = {
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xde, 0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8};

constexpr std::string_view kEd25519Prefix = "ed25519:";
constexpr std::string_view kP256Prefix = "p256:";

// 0 < v < n, big-endian, without a branch on v: v may be a private scalar.
bool scalar_in_range(ByteView v) {
  if (v.size() != kP256Order.size()) return false;
  int borrow = 0;
  std::uint8_t any = 0;
  for (std::size_t i = kP256Order.size(); i-- > 0;) {
    const int d = int{v[i]} - int{kP256Order[i]} - borrow;
    borrow = (d >> 8) & 1;
    any = static_cast<std::uint8_t>(any | v[i]);
  }
  return borrow == 1 && any != 0;
}

// Of r ‖ s, which is public.
bool has_low_s(ByteView signature) {
  const ByteView s = signature.subspan(32);
  return !std::lexicographical_compare(kP256HalfOrder.begin(), kP256HalfOrder.end(), s.begin(),
                                       s.end());
}
// s becomes n - s.
void negate_s(Bytes& signature) {
  int borrow = 0;
  for (std::size_t i = kP256Order.size(); i-- > 0;) {
    std::uint8_t& s = signature[32 + i];
    const int d = int{kP256Order[i]} - int{s} - borrow;
    borrow = (d >> 8) & 1;
    s = static_cast<std::uint8_t>(d);
  }
}

// RFC 8032 section 5.1.3, for public points: y is canonical and (y²-1)/(dy²+1) is a square. Points
// of small order are refused too: a signature under one says nothing about who made it.
Status check_ed25519_point(ByteView raw) {
  static constexpr const char* kP =
      "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed";
  static constexpr const char* kD =
      "52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3";
  // y of the points of order 8 that is below p/2; the other is its negation.
  static constexpr const char* kY8 =
      "05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826";
  FixedBytes<32> le;
  std::copy(raw.begin(), raw.end(), le.begin());
  le[31] &= 0x7f;  // the sign of x: both signs are points, as x is not 0 below
  const OwnedBnCtx ctx(BN_CTX_new());
  BIGNUM* p_raw = nullptr;
  BIGNUM* d_raw = nullptr;
  BIGNUM* y8_raw = nullptr;
  const bool constants =
      BN_hex2bn(&p_raw, kP) != 0 && BN_hex2bn(&d_raw, kD) != 0 && BN_hex2bn(&y8_raw, kY8) != 0;
  const OwnedBn p(p_raw), d(d_raw), y8(y8_raw);
  const OwnedBn y(BN_lebin2bn(le.data(), 32, nullptr)), u(BN_new()), v(BN_new()), y8_neg(BN_new());
  if (!constants || !ctx || !y || !u || !v || !y8_neg) return openssl_error("big numbers");
  const Error bad = fail(Reason::kBadValue, "not a point of Ed25519 that can sign");
  if (BN_cmp(y.get(), p.get()) >= 0) return bad;
  const bool computed = BN_sub(y8_neg.get(), p.get(), y8.get()) == 1 &&
                        BN_mod_sqr(u.get(), y.get(), p.get(), ctx.get()) == 1 &&
                        BN_mod_mul(v.get(), u.get(), d.get(), p.get(), ctx.get()) == 1 &&
                        BN_add_word(v.get(), 1) == 1 && BN_sub_word(u.get(), 1) == 1;
  if (!computed) return openssl_error("big numbers");
  // Small order: y is 0 (order 4), ±1 (orders 1 and 2, where y² - 1 is 0) or ±y8.
  if (BN_is_zero(y.get()) || BN_is_zero(u.get()) || BN_cmp(y.get(), y8.get()) == 0 ||
      BN_cmp(y.get(), y8_neg.get()) == 0) {
    return bad;
  }
  // u/v is a square exactly when u*v is.
  if (BN_mod_mul(u.get(), u.get(), v.get(), p.get(), ctx.get()) != 1) {
    return openssl_error("big numbers");
  }
  const int symbol = BN_kronecker(u.get(), p.get(), ctx.get());
  if (symbol == -2) return openssl_error("big numbers");
  return symbol == 1 ? ok_status() : Status(bad);
}

Status check_p256_point(ByteView raw) {
  const Error bad = fail(Reason::kBadValue, "not a point on P-256");
  if (raw[0] != 0x04) return bad;
  const OwnedEcGroup group(EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1));
  if (!group) return openssl_error("P-256");
  const OwnedEcPoint point(EC_POINT_new(group.get()));
  if (!point) return openssl_error("P-256");
  // Checks the coordinates' range and the curve equation; the cofactor is 1.
  const bool on_curve =
      EC_POINT_oct2point(group.get(), point.get(), raw.data(), raw.size(), nullptr) == 1;
  return on_curve ? ok_status() : Status(bad);
}

Status check_point(SignatureAlgorithm algorithm, ByteView raw) {
  const DrainErrors drain;
  switch (algorithm) {
    case SignatureAlgorithm::kEd25519:
      return check_ed25519_point(raw);
    case SignatureAlgorithm::kEcdsaP256:
      return check_p256_point(raw);
  }
  return fail(Reason::kBadSuite, "signature algorithm");
}

// r ‖ s to the DER that EVP takes. Empty when r or s is out of range.
Bytes ecdsa_der(ByteView signature) {
  const ByteView r = signature.first(32), s = signature.subspan(32);
  if (!scalar_in_range(r) || !scalar_in_range(s)) return {};
  const OwnedEcdsaSig sig(ECDSA_SIG_new());
  OwnedBn r_bn(BN_bin2bn(r.data(), 32, nullptr)), s_bn(BN_bin2bn(s.data(), 32, nullptr));
  if (!sig || !r_bn || !s_bn) return {};
  if (ECDSA_SIG_set0(sig.get(), r_bn.get(), s_bn.get()) != 1) return {};
  (void)r_bn.release();  // sig owns both from here
  (void)s_bn.release();
  std::uint8_t* der = nullptr;
  const int n = i2d_ECDSA_SIG(sig.get(), &der);
  if (n <= 0) return {};
  Bytes out(der, der + n);
  OPENSSL_free(der);
  return out;
}

Result<Bytes> ecdsa_fixed(ByteView der) {
  const std::uint8_t* p = der.data();
  const OwnedEcdsaSig sig(d2i_ECDSA_SIG(nullptr, &p, static_cast<long>(der.size())));
  if (!sig) return openssl_error("ECDSA signature");
  Bytes out(kSignatureSize);
  if (BN_bn2binpad(ECDSA_SIG_get0_r(sig.get()), out.data(), 32) != 32 ||
      BN_bn2binpad(ECDSA_SIG_get0_s(sig.get()), out.data() + 32, 32) != 32) {
    return openssl_error("ECDSA signature");
  }
  if (!has_low_s(out)) negate_s(out);
  return out;
}

Result<Bytes> p256_public_of(ByteView scalar) {
  const OwnedEcGroup group(EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1));
  const OwnedBnCtx ctx(BN_CTX_secure_new());
  const OwnedBn d(BN_secure_new());
  if (!group || !ctx || !d) return openssl_error("P-256");
  if (BN_bin2bn(scalar.data(), static_cast<int>(scalar.size()), d.get()) == nullptr) {
    return openssl_error("P-256");
  }
  BN_set_flags(d.get(), BN_FLG_CONSTTIME);
  const OwnedEcPoint q(EC_POINT_new(group.get()));
  if (!q || EC_POINT_mul(group.get(), q.get(), d.get(), nullptr, nullptr, ctx.get()) != 1) {
    return openssl_error("P-256");
  }
  Bytes out(kP256PublicSize);
  if (EC_POINT_point2oct(group.get(), q.get(), POINT_CONVERSION_UNCOMPRESSED, out.data(),
                         out.size(), ctx.get()) != out.size()) {
    return openssl_error("P-256");
  }
  return out;
}

Result<Bytes> ed25519_public_of(ByteView seed) {
  const OwnedPkey key(
      EVP_PKEY_new_raw_private_key_ex(nullptr, "ED25519", nullptr, seed.data(), seed.size()));
  Bytes out(kEd25519PublicSize);
  std::size_t n = out.size();
  if (!key || EVP_PKEY_get_raw_public_key(key.get(), out.data(), &n) != 1 || n != out.size()) {
    return openssl_error("Ed25519 key");
  }
  return out;
}

const EVP_MD* digest_of(SignatureAlgorithm algorithm) {
  return algorithm == SignatureAlgorithm::kEd25519 ? nullptr : sha256_md();
}

}  // namespace

namespace detail {

Result<OwnedPkey> public_pkey(SignatureAlgorithm algorithm, ByteView raw) {
  if (algorithm == SignatureAlgorithm::kEd25519) {
    OwnedPkey key(
        EVP_PKEY_new_raw_public_key_ex(nullptr, "ED25519", nullptr, raw.data(), raw.size()));
    if (!key) return openssl_error("Ed25519 public key");
    return key;
  }
  return private_pkey(algorithm, {}, raw);
}

// An empty `secret` makes a public key.
Result<OwnedPkey> private_pkey(SignatureAlgorithm algorithm, ByteView secret, ByteView public_raw) {
  if (algorithm == SignatureAlgorithm::kEd25519) {
    OwnedPkey key(
        EVP_PKEY_new_raw_private_key_ex(nullptr, "ED25519", nullptr, secret.data(), secret.size()));
    if (!key) return openssl_error("Ed25519 private key");
    return key;
  }
  char group[] = "prime256v1";
  Bytes point = to_bytes(public_raw);
  // OSSL_PARAM integers have the machine's byte order.
  static_assert(std::endian::native == std::endian::little);
  SecretBuffer scalar(secret.size());
  const MutableByteView le = scalar.writable(SecretAccess{});
  std::reverse_copy(secret.begin(), secret.end(), le.begin());
  OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0),
      OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size()),
      secret.empty() ? OSSL_PARAM_construct_end()
                     : OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_PRIV_KEY, le.data(), le.size()),
      OSSL_PARAM_construct_end(),
  };
  const OwnedPkeyCtx ctx(EVP_PKEY_CTX_new_from_name(nullptr, "EC", nullptr));
  EVP_PKEY* made = nullptr;
  if (!ctx || EVP_PKEY_fromdata_init(ctx.get()) != 1 ||
      EVP_PKEY_fromdata(ctx.get(), &made, secret.empty() ? EVP_PKEY_PUBLIC_KEY : EVP_PKEY_KEYPAIR,
                        parameters) != 1) {
    return openssl_error("P-256 key");
  }
  return OwnedPkey(made);
}

}  // namespace detail

Result<PublicKey> PublicKey::from_text(std::string_view text) {
  PublicKey key;
  std::size_t size = 0;
  if (text.starts_with(kEd25519Prefix)) {
    text.remove_prefix(kEd25519Prefix.size());
    size = kEd25519PublicSize;
  } else if (text.starts_with(kP256Prefix)) {
    text.remove_prefix(kP256Prefix.size());
    key.algorithm_ = SignatureAlgorithm::kEcdsaP256;
    size = kP256PublicSize;
  } else {
    return fail(Reason::kBadEncoding, "public key")
        .with("ed25519:<hex> or p256:<hex>", std::string(text.substr(0, 16)));
  }
  if (text.size() != 2 * size) {
    return fail(Reason::kBadEncoding, "public key")
        .with(std::to_string(2 * size) + " hex digits", std::to_string(text.size()));
  }
  GBX_ASSIGN(key.raw_, from_hex(text));
  GBX_TRY(check_point(key.algorithm_, key.raw_));
  return key;
}

Result<PublicKey> PublicKey::from_spki_der(ByteView der) {
  const auto has_form = [der](ByteView prefix, std::size_t key_size) {
    return der.size() == prefix.size() + key_size && equal(der.first(prefix.size()), prefix);
  };
  PublicKey key;
  if (has_form(kEd25519Spki, kEd25519PublicSize)) {
    key.raw_ = to_bytes(der.subspan(sizeof kEd25519Spki));
  } else if (has_form(kP256Spki, kP256PublicSize)) {
    key.algorithm_ = SignatureAlgorithm::kEcdsaP256;
    key.raw_ = to_bytes(der.subspan(sizeof kP256Spki));
  } else {
    return fail(Reason::kBadEncoding, "not the DER of an Ed25519 or uncompressed P-256 public key");
  }
  GBX_TRY(check_point(key.algorithm_, key.raw_));
  return key;
}

std::string PublicKey::text() const {
  const bool ed = algorithm_ == SignatureAlgorithm::kEd25519;
  return std::string(ed ? kEd25519Prefix : kP256Prefix) + to_hex(raw_);
}
Bytes PublicKey::spki_der() const {
  const bool ed = algorithm_ == SignatureAlgorithm::kEd25519;
  return concat({ed ? ByteView(kEd25519Spki) : ByteView(kP256Spki), raw_});
}
Hash32 PublicKey::fingerprint() const { return sha256(spki_der()); }

bool PublicKey::verify(ByteView message, ByteView signature) const {
  const DrainErrors drain;
  if (signature.size() != kSignatureSize || message.size() > kMaxMessageBytes) return false;
  Bytes wire = to_bytes(signature);
  if (algorithm_ == SignatureAlgorithm::kEcdsaP256) {
    wire = ecdsa_der(signature);
    if (wire.empty()) return false;
  }
  const Result<OwnedPkey> key = public_pkey(algorithm_, raw_);
  const OwnedMdCtx ctx(EVP_MD_CTX_new());
  if (!key.ok() || !ctx) return false;
  if (EVP_DigestVerifyInit(ctx.get(), nullptr, digest_of(algorithm_), nullptr, (*key).get()) != 1) {
    return false;
  }
  return EVP_DigestVerify(ctx.get(), wire.data(), wire.size(), pointer(message), message.size()) ==
         1;
}

bool PublicKey::verify_low_s(ByteView message, ByteView signature) const {
  if (signature.size() != kSignatureSize) return false;
  if (algorithm_ == SignatureAlgorithm::kEcdsaP256 && !has_low_s(signature)) return false;
  return verify(message, signature);
}

Result<SigningKey> SigningKey::generate(SignatureAlgorithm algorithm, Random& random) {
  // Rejection sampling keeps the scalar uniform; a P-256 try fails with probability 2^-32.
  for (int i = 0; i < kScalarTries; ++i) {
    const auto raw = random.secret<Secret<SigningKeyTag>>(kPrivateSize);
    if (algorithm == SignatureAlgorithm::kEcdsaP256 && !scalar_in_range(raw.view(SecretAccess{}))) {
      continue;
    }
    return from_private(algorithm, raw);
  }
  return fail(Reason::kCrypto, "the random source gives no usable P-256 scalar");
}

Result<SigningKey> SigningKey::from_private(SignatureAlgorithm algorithm,
                                            const Secret<SigningKeyTag>& raw) {
  const DrainErrors drain;
  const ByteView bytes = raw.view(SecretAccess{});
  if (bytes.size() != kPrivateSize) {
    return fail(Reason::kBadValue, "private key")
        .with("32 bytes", std::to_string(bytes.size()) + " bytes");
  }
  SigningKey key;
  key.public_.algorithm_ = algorithm;
  switch (algorithm) {
    case SignatureAlgorithm::kEd25519: {
      GBX_ASSIGN(key.public_.raw_, ed25519_public_of(bytes));
      break;
    }
    case SignatureAlgorithm::kEcdsaP256: {
      if (!scalar_in_range(bytes)) return fail(Reason::kBadValue, "P-256 scalar out of range");
      GBX_ASSIGN(key.public_.raw_, p256_public_of(bytes));
      break;
    }
  }
  key.raw_ = raw.clone();
  return key;
}

Secret<SigningKeyTag> SigningKey::private_bytes(SecretAccess) const { return raw_.clone(); }

Result<Bytes> SigningKey::sign(ByteView message) const {
  const DrainErrors drain;
  if (message.size() > kMaxMessageBytes) return fail(Reason::kTooLarge, "message to sign");
  const SignatureAlgorithm algorithm = public_.algorithm_;
  GBX_ASSIGN(const OwnedPkey key, private_pkey(algorithm, raw_.view(SecretAccess{}), public_.raw_));
  const OwnedMdCtx ctx(EVP_MD_CTX_new());
  if (!ctx ||
      EVP_DigestSignInit(ctx.get(), nullptr, digest_of(algorithm), nullptr, key.get()) != 1) {
    return openssl_error("signing");
  }
  Bytes out(80);  // 64 for Ed25519; at most 72 for a P-256 signature in DER
  std::size_t n = out.size();
  if (EVP_DigestSign(ctx.get(), out.data(), &n, pointer(message), message.size()) != 1) {
    return openssl_error("signing");
  }
  out.resize(n);
  if (algorithm == SignatureAlgorithm::kEd25519) return out;
  return ecdsa_fixed(out);
}

SecretBuffer SigningKey::pkcs8_der(SecretAccess access) const {
  const bool ed = public_.algorithm_ == SignatureAlgorithm::kEd25519;
  const ByteView head = ed ? ByteView(kEd25519Pkcs8) : ByteView(kP256Pkcs8);
  const ByteView middle = ed ? ByteView() : ByteView(kP256Pkcs8Middle);
  const ByteView point = ed ? ByteView() : ByteView(public_.raw_);
  SecretBuffer out(head.size() + raw_.size() + middle.size() + point.size());
  auto at = out.writable(access).begin();
  for (ByteView part : {head, raw_.view(access), middle, point}) {
    at = std::copy(part.begin(), part.end(), at);
  }
  return out;
}

}  // namespace gbx::crypto
