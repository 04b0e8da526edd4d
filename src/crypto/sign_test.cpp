// Ed25519 (RFC 8032) and ECDSA P-256 (the key and signatures of RFC 6979): vectors, and what must
// be refused.
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <algorithm>
#include <set>
#include <thread>

#include "crypto/crypto.h"
#include "crypto/keys.h"
#include "crypto/test_util.h"
#include "crypto/testing.h"

namespace gbx::crypto {
namespace {

constexpr SignatureAlgorithm kBoth[] = {SignatureAlgorithm::kEd25519,
                                        SignatureAlgorithm::kEcdsaP256};
class Sign : public CleanQueue {};

using SigningSecret = Secret<SigningKeyTag>;

struct Ed25519Case {
  const char* seed;
  const char* public_key;
  const char* message;
  const char* signature;
};
// RFC 8032 section 7.1, tests 1 to 3.
constexpr Ed25519Case kRfc8032[] = {
    {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
     "5fb8821590a33bacc61e39701cf9b46b"
     "d25bf5f0595bbe24655141438e7a100b"},
    {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
     "085ac1e43e15996e458f3613d0f11d8c"
     "387b2eaeb4302aeeb00d291612bb0c00"},
    {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
     "18ff9b538d16f290ae67f760984dc659"
     "4a7c15e9716ed28dc027beceea1ec40a"},
};

// RFC 6979 appendix A.2.5.
constexpr const char* kP256Scalar =
    "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721";
constexpr const char* kP256Text =
    "p256:0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
    "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
constexpr const char* kP256Sample =
    "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
    "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";
constexpr const char* kP256Test =
    "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367"
    "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083";
constexpr const char* kP256Order =
    "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
constexpr const char* kZero32 = "0000000000000000000000000000000000000000000000000000000000000000";

using gbx::testing::other_form;

PublicKey p256() { return PublicKey::from_text(kP256Text).value(); }

TEST_F(Sign, Ed25519OfRfc8032) {
  for (const Ed25519Case& c : kRfc8032) {
    const auto key =
        SigningKey::from_private(SignatureAlgorithm::kEd25519, secret<SigningSecret>(c.seed));
    ASSERT_TRUE(key.ok());
    EXPECT_EQ((*key).public_key().text(), std::string("ed25519:") + c.public_key);
    EXPECT_EQ(to_hex((*key).sign(hex(c.message)).value()), c.signature);
    EXPECT_TRUE((*key).public_key().verify(hex(c.message), hex(c.signature)));
  }
}

TEST_F(Sign, P256OfRfc6979) {
  const auto key =
      SigningKey::from_private(SignatureAlgorithm::kEcdsaP256, secret<SigningSecret>(kP256Scalar));
  ASSERT_TRUE(key.ok());
  EXPECT_EQ((*key).public_key().text(), kP256Text);
  EXPECT_TRUE(p256().verify(as_bytes("sample"), hex(kP256Sample)));
  EXPECT_TRUE(p256().verify(as_bytes("test"), hex(kP256Test)));
  EXPECT_FALSE(p256().verify(as_bytes("test"), hex(kP256Sample)));
}

TEST_F(Sign, P256HasTwoFormsAndOneWithTheLowerS) {
  // RFC 6979's signature of "sample" has the higher s, that of "test" the lower.
  const Bytes high = hex(kP256Sample), low = hex(kP256Test);
  EXPECT_TRUE(p256().verify(as_bytes("sample"), high));
  EXPECT_FALSE(p256().verify_low_s(as_bytes("sample"), high));
  EXPECT_TRUE(p256().verify_low_s(as_bytes("sample"), other_form(high)));
  EXPECT_TRUE(p256().verify_low_s(as_bytes("test"), low));
  EXPECT_TRUE(p256().verify(as_bytes("test"), other_form(low)));
  EXPECT_FALSE(p256().verify_low_s(as_bytes("test"), other_form(low)));
  EXPECT_FALSE(p256().verify_low_s(as_bytes("test"), ByteView(low).first(63)));
  EXPECT_FALSE(p256().verify_low_s(as_bytes("sample"), low));
}

// A signature with s = (n - 1) / 2, for which the key was made: the last one that is low.
TEST_F(Sign, P256LowEndsAtHalfTheOrder) {
  const PublicKey key =
      PublicKey::from_text(
          "p256:046e7ecddc2357db9c2651940695b477cda8b8d035d210ff9066208f682abe6152"
          "19454300d81224f77cb6658d2c0e7414f5914aa21e866a92b5b298036d86ebdb")
          .value();
  const Bytes half =
      hex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
          "7fffffff800000007fffffffffffffffde737d56d38bcf4279dce5617e3192a8");
  EXPECT_TRUE(key.verify_low_s(as_bytes("half"), half));
  EXPECT_TRUE(key.verify(as_bytes("half"), other_form(half)));
  EXPECT_FALSE(key.verify_low_s(as_bytes("half"), other_form(half)));
}

TEST_F(Sign, P256SignsWithTheLowerS) {
  SeededRandom random(8);
  const SigningKey key = SigningKey::generate(SignatureAlgorithm::kEcdsaP256, random).value();
  // The nonce is OpenSSL's: one of 64 would have the higher s but with a chance of 2^-64.
  for (int i = 0; i < 64; ++i) {
    const Bytes signature = key.sign(as_bytes("m")).value();
    ASSERT_TRUE(key.public_key().verify_low_s(as_bytes("m"), signature));
    ASSERT_FALSE(key.public_key().verify_low_s(as_bytes("m"), other_form(signature)));
  }
}

TEST_F(Sign, EveryChangedBitIsRefused) {
  SeededRandom random(3);
  for (const SignatureAlgorithm algorithm : kBoth) {
    const SigningKey key = SigningKey::generate(algorithm, random).value();
    const Bytes message = to_bytes(as_bytes("message"));
    const Bytes signature = key.sign(message).value();
    ASSERT_EQ(signature.size(), 64U);
    ASSERT_TRUE(key.public_key().verify(message, signature));
    for (std::size_t i = 0; i < 512; ++i) {
      ASSERT_FALSE(key.public_key().verify(message, flipped(signature, i))) << i;
    }
    for (std::size_t i = 0; i < message.size() * 8; ++i) {
      ASSERT_FALSE(key.public_key().verify(flipped(message, i), signature)) << i;
    }
  }
}

TEST_F(Sign, WrongLengthIsRefused) {
  SeededRandom random(4);
  for (const SignatureAlgorithm algorithm : kBoth) {
    const SigningKey key = SigningKey::generate(algorithm, random).value();
    const Bytes signature = key.sign(as_bytes("m")).value();
    for (std::size_t n = 0; n < 64; ++n) {
      ASSERT_FALSE(key.public_key().verify(as_bytes("m"), ByteView(signature).first(n)));
    }
    EXPECT_FALSE(key.public_key().verify(as_bytes("m"), concat({signature, Bytes(1, 0)})));
    EXPECT_FALSE(key.public_key().verify(as_bytes("m"), concat({signature, signature})));
  }
}

TEST_F(Sign, P256RefusesRAndSOutOfRange) {
  const Bytes good = hex(kP256Sample);
  const Bytes r = to_bytes(ByteView(good).first(32)), s = to_bytes(ByteView(good).subspan(32));
  const Bytes one = concat({Bytes(31, 0), Bytes(1, 1)});
  Bytes above = hex(kP256Order);
  above[31] = static_cast<std::uint8_t>(above[31] + 1);
  for (const Bytes& bad : {hex(kZero32), hex(kP256Order), above, Bytes(32, 0xff)}) {
    EXPECT_FALSE(p256().verify(as_bytes("sample"), concat({bad, s})));
    EXPECT_FALSE(p256().verify(as_bytes("sample"), concat({r, bad})));
    EXPECT_FALSE(p256().verify(as_bytes("sample"), concat({bad, bad})));
    EXPECT_FALSE(p256().verify(as_bytes("sample"), concat({bad, one})));
    EXPECT_FALSE(p256().verify(as_bytes("sample"), concat({one, bad})));
  }
  EXPECT_FALSE(p256().verify(as_bytes("sample"), concat({s, r})));
}

TEST_F(Sign, Ed25519RefusesSAboveTheOrder) {
  // Test 1 of RFC 8032 with s + L: accepting it would make signatures malleable.
  const Ed25519Case& c = kRfc8032[0];
  const Bytes signature =
      concat({hex(std::string_view(c.signature).substr(0, 64)),
              hex("4c8c7872aa064e049dbb3013fbf29380d25bf5f0595bbe24655141438e7a101b")});
  const PublicKey key = PublicKey::from_text(std::string("ed25519:") + c.public_key).value();
  EXPECT_FALSE(key.verify({}, signature));
}

TEST_F(Sign, ASignatureOfTheOtherAlgorithmIsRefused) {
  SeededRandom random(5);
  const SigningKey ed = SigningKey::generate(kBoth[0], random).value();
  const SigningKey ec = SigningKey::generate(kBoth[1], random).value();
  EXPECT_FALSE(ec.public_key().verify(as_bytes("m"), ed.sign(as_bytes("m")).value()));
  EXPECT_FALSE(ed.public_key().verify(as_bytes("m"), ec.sign(as_bytes("m")).value()));
  EXPECT_FALSE(ec.public_key() == ed.public_key());
}

RC_GTEST_PROP(SignProperty, WhatIsSignedVerifies, (const Bytes& message, std::uint64_t seed)) {
  SeededRandom random(seed);
  for (const SignatureAlgorithm algorithm : kBoth) {
    const SigningKey key = SigningKey::generate(algorithm, random).value();
    const auto signature = key.sign(message);
    RC_ASSERT(signature.ok());
    RC_ASSERT(key.public_key().verify(message, *signature));
    const SigningKey other = SigningKey::generate(algorithm, random).value();
    RC_ASSERT(!other.public_key().verify(message, *signature));
    RC_ASSERT(PublicKey::from_text(key.public_key().text()).value() == key.public_key());
    RC_ASSERT(PublicKey::from_spki_der(key.public_key().spki_der()).value() == key.public_key());
    const SigningKey again =
        SigningKey::from_private(algorithm, key.private_bytes(SecretAccess{})).value();
    RC_ASSERT(again.public_key() == key.public_key());
  }
}

TEST_F(Sign, KeysComeFromTheGivenRandom) {
  for (const SignatureAlgorithm algorithm : kBoth) {
    SeededRandom a(6), b(6), c(7);
    const auto first = SigningKey::generate(algorithm, a).value();
    EXPECT_EQ(first.public_key(), SigningKey::generate(algorithm, b).value().public_key());
    EXPECT_FALSE(first.public_key() == SigningKey::generate(algorithm, c).value().public_key());
    EXPECT_FALSE(first.public_key() == SigningKey::generate(algorithm, a).value().public_key());
  }
}

// Gives the listed 32-byte answers, then the last of them for ever.
class ScriptedRandom final : public Random {
 public:
  explicit ScriptedRandom(std::vector<Bytes> answers) : answers_(std::move(answers)) {}
  void fill(MutableByteView out) override {
    const Bytes& a = answers_[std::min(next_++, answers_.size() - 1)];
    std::copy(a.begin(), a.end(), out.begin());
  }
  std::size_t calls() const { return next_; }

 private:
  std::vector<Bytes> answers_;
  std::size_t next_ = 0;
};

TEST_F(Sign, P256ScalarsAreSampledByRejection) {
  ScriptedRandom random({hex(kZero32), hex(kP256Order), Bytes(32, 0xff), hex(kP256Scalar)});
  const auto key = SigningKey::generate(SignatureAlgorithm::kEcdsaP256, random);
  ASSERT_TRUE(key.ok());
  EXPECT_EQ((*key).public_key().text(), kP256Text);
  EXPECT_EQ(random.calls(), 4U);
  ScriptedRandom stuck({Bytes(32, 0xff)});
  EXPECT_TRUE(
      fails_with(SigningKey::generate(SignatureAlgorithm::kEcdsaP256, stuck), Reason::kCrypto));
}

TEST_F(Sign, PrivateKeysOutOfRangeAreRefused) {
  const auto p256_from = [](const Bytes& raw) {
    return SigningKey::from_private(SignatureAlgorithm::kEcdsaP256, SigningSecret::copy_of(raw));
  };
  EXPECT_TRUE(fails_with(p256_from(hex(kZero32)), Reason::kBadValue));
  EXPECT_TRUE(fails_with(p256_from(hex(kP256Order)), Reason::kBadValue));
  EXPECT_TRUE(fails_with(p256_from(Bytes(32, 0xff)), Reason::kBadValue));
  Bytes largest = hex(kP256Order);
  largest[31] = static_cast<std::uint8_t>(largest[31] - 1);
  EXPECT_TRUE(p256_from(largest).ok());
  EXPECT_TRUE(p256_from(concat({Bytes(31, 0), Bytes(1, 1)})).ok());
  for (const SignatureAlgorithm algorithm : kBoth) {
    for (const std::size_t n : {0U, 31U, 33U, 64U}) {
      EXPECT_TRUE(
          fails_with(SigningKey::from_private(algorithm, SigningSecret::copy_of(Bytes(n, 1))),
                     Reason::kBadValue));
    }
  }
}

TEST_F(Sign, P256PointsOffTheCurveAreRefused) {
  const std::string good = kP256Text;
  const Bytes point = hex(good.substr(5));
  const Bytes p = hex("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff");
  const auto refused = [](const Bytes& raw) {
    return fails_with(PublicKey::from_text("p256:" + to_hex(raw)), Reason::kBadValue);
  };
  EXPECT_TRUE(refused(flipped(point, 64 * 8)));                  // y changed
  EXPECT_TRUE(refused(flipped(point, 8)));                       // x changed
  EXPECT_TRUE(refused(Bytes(65, 0)));                            // "infinity", padded
  EXPECT_TRUE(refused(concat({Bytes(1, 4), Bytes(64, 0)})));     // (0, 0)
  EXPECT_TRUE(refused(concat({Bytes(1, 4), p, Bytes(32, 1)})));  // x = p
  EXPECT_TRUE(refused(concat({Bytes(1, 4), Bytes(64, 0xff)})));  // above p
  Bytes hybrid = point;
  hybrid[0] = 0x07;  // X9.62's hybrid form, which OpenSSL would read
  EXPECT_TRUE(refused(hybrid));
  hybrid[0] = 0x06;
  EXPECT_TRUE(refused(hybrid));
}

TEST_F(Sign, Ed25519PointsThatCannotSignAreRefused) {
  for (const char* bad : {
           // not on the curve: y = 2, y = 7
           "0200000000000000000000000000000000000000000000000000000000000000",
           "0700000000000000000000000000000000000000000000000000000000000000",
           // small order: 1, -1, 0, and order 8, with either sign
           "0100000000000000000000000000000000000000000000000000000000000000",
           "0100000000000000000000000000000000000000000000000000000000000080",
           "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
           "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
           "0000000000000000000000000000000000000000000000000000000000000000",
           "0000000000000000000000000000000000000000000000000000000000000080",
           "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
           "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
           "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
           "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
           // not canonical: p, p + 1, p + 3, all ones
           "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
           "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
           "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
           "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
       }) {
    EXPECT_TRUE(fails_with(PublicKey::from_text(std::string("ed25519:") + bad), Reason::kBadValue))
        << bad;
  }
  // y = 3 is a point of large order.
  EXPECT_TRUE(PublicKey::from_text("ed25519:03" + std::string(62, '0')).ok());
}

TEST_F(Sign, PublicKeyTextIsStrict) {
  const std::string ed = std::string("ed25519:") + kRfc8032[0].public_key, ec = kP256Text;
  const std::string upper_hex = ec.substr(0, ec.size() - 1) + "A";
  for (const std::string& bad :
       {std::string(), std::string("ed25519"), std::string("ed25519:"), std::string("p256:"),
        ed.substr(8), ed + "00", ed.substr(0, ed.size() - 2), ec + "00",
        ec.substr(0, ec.size() - 2), "p256:" + ed.substr(8), "ed25519:" + ec.substr(5),
        "Ed25519:" + ed.substr(8), upper_hex, ed.substr(0, ed.size() - 1) + "g", " " + ed,
        ed + "\n", "x25519:" + ed.substr(8),
        // the compressed form of P-256 has another length
        "p256:03" + ec.substr(7, 64)}) {
    EXPECT_TRUE(fails_with(PublicKey::from_text(bad), Reason::kBadEncoding)) << bad;
  }
}

TEST_F(Sign, SpkiIsStrict) {
  SeededRandom random(8);
  for (const SignatureAlgorithm algorithm : kBoth) {
    const PublicKey key = SigningKey::generate(algorithm, random).value().public_key();
    const Bytes der = key.spki_der();
    EXPECT_EQ(key.fingerprint(), sha256(der));
    for (std::size_t n = 0; n < der.size(); ++n) {
      ASSERT_TRUE(
          fails_with(PublicKey::from_spki_der(ByteView(der).first(n)), Reason::kBadEncoding));
    }
    EXPECT_TRUE(
        fails_with(PublicKey::from_spki_der(concat({der, Bytes(1, 0)})), Reason::kBadEncoding));
    const std::size_t head = algorithm == SignatureAlgorithm::kEd25519 ? 12 : 26;
    for (std::size_t i = 0; i < head * 8; ++i) {
      ASSERT_TRUE(fails_with(PublicKey::from_spki_der(flipped(der, i)), Reason::kBadEncoding));
    }
  }
  Bytes off_curve = p256().spki_der();
  off_curve = flipped(off_curve, off_curve.size() * 8 - 1);
  EXPECT_TRUE(fails_with(PublicKey::from_spki_der(off_curve), Reason::kBadValue));
}

// Our DER is written by hand, so OpenSSL's parser is the judge of it.
TEST_F(Sign, OpenSslReadsOurDer) {
  SeededRandom random(9);
  for (const SignatureAlgorithm algorithm : kBoth) {
    const SigningKey key = SigningKey::generate(algorithm, random).value();
    const Bytes spki = key.public_key().spki_der();
    const SecretBuffer pkcs8 = key.pkcs8_der(SecretAccess{});
    const ByteView view = pkcs8.view(SecretAccess{});
    const std::uint8_t* p = view.data();
    EVP_PKEY* read = d2i_AutoPrivateKey(nullptr, &p, static_cast<long>(view.size()));
    ASSERT_NE(read, nullptr);
    EXPECT_EQ(p, view.data() + view.size());
    std::uint8_t* out = nullptr;
    const int n = i2d_PUBKEY(read, &out);
    ASSERT_GT(n, 0);
    EXPECT_EQ(Bytes(out, out + n), spki);
    OPENSSL_free(out);
    EVP_PKEY_free(read);
    ERR_clear_error();  // d2i_AutoPrivateKey tries several forms and leaves the misses behind
  }
}

TEST_F(Sign, MessagesAreBounded) {
  SeededRandom random(10);
  const Bytes large((std::size_t{64} << 20) + 1);
  const SigningKey key = SigningKey::generate(SignatureAlgorithm::kEd25519, random).value();
  EXPECT_TRUE(fails_with(key.sign(large), Reason::kTooLarge));
  EXPECT_FALSE(key.public_key().verify(large, Bytes(64)));
}

TEST_F(Sign, OneKeyServesManyThreads) {
  SeededRandom random(12);
  for (const SignatureAlgorithm algorithm : kBoth) {
    const SigningKey key = SigningKey::generate(algorithm, random).value();
    std::vector<int> good(4, 0);
    std::vector<std::thread> threads;
    for (int& g : good) {
      threads.emplace_back([&key, &g] {
        for (int i = 0; i < 20; ++i) {
          const auto signature = key.sign(as_bytes("m"));
          if (signature.ok() && key.public_key().verify(as_bytes("m"), *signature)) ++g;
        }
      });
    }
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(good, std::vector<int>(4, 20));
  }
}

}  // namespace
}  // namespace gbx::crypto
