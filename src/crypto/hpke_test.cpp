// HPKE against the CFRG vector of this suite and an independent peer, which is
// testdata/make_hpke_vectors.py.
#include <cstdlib>
#include <set>

#include "base/json.h"
#include "base/os.h"
#include "crypto/crypto.h"
#include "crypto/keys.h"
#include "crypto/test_util.h"

namespace gbx::crypto {
namespace {

class Hpke : public CleanQueue {
 protected:
  SeededRandom random_{11};
  HpkeKeyPair own_ = HpkeKeyPair::generate(random_).value();
};

// The u-coordinates of small order; the zero check of RFC 7748 section 6.1 catches them.
constexpr const char* kSmallOrder[] = {
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
};

TEST_F(Hpke, VectorsOfTheRfcAndOfAPeer) {
  const char* root = std::getenv("GBX_SOURCE_DIR");
  ASSERT_NE(root, nullptr) << "run through ctest";
  const auto file = read_file(std::string(root) + "/src/crypto/testdata/hpke.json", 1 << 20);
  ASSERT_TRUE(file.ok()) << file.error().line();
  const Json document = parse_json(as_text(*file)).value();
  const JsonArray* cases = document.find("cases")->array();
  ASSERT_EQ(cases->size(), 7U);
  for (const Json& c : *cases) {
    SCOPED_TRACE(*c.find("name")->string());
    const auto field = [&c](std::string_view name) { return hex(*c.find(name)->string()); };
    const auto recipient =
        HpkeKeyPair::from_private(HpkePrivate::copy_of(field("recipient_private"))).value();
    EXPECT_EQ(to_bytes(recipient.public_key().raw), field("recipient_public"));
    const auto sealed =
        hpke_detail::seal(recipient.public_key(), field("info"), field("aad"), field("plaintext"),
                          HpkePrivate::copy_of(field("ephemeral_private")));
    ASSERT_TRUE(sealed.ok()) << sealed.error().line();
    EXPECT_EQ(*sealed, field("sealed"));
    const auto opened = hpke_detail::open(recipient, field("info"), field("aad"), field("sealed"));
    ASSERT_TRUE(opened.ok()) << opened.error().line();
    EXPECT_EQ(to_bytes((*opened).view(SecretAccess{})), field("plaintext"));
  }
}

TEST_F(Hpke, TheProtocolFixesTheInfo) {
  const Bytes sealed =
      hpke_seal(own_.public_key(), as_bytes("aad"), as_bytes("text"), random_).value();
  EXPECT_TRUE(hpke_detail::open(own_, as_bytes("gbx/1/hpke"), as_bytes("aad"), sealed).ok());
  EXPECT_TRUE(fails_with(hpke_detail::open(own_, as_bytes("gbx/2/hpke"), as_bytes("aad"), sealed),
                         Reason::kBadTag));
}

TEST_F(Hpke, PublicKeyOfRfc7748) {
  const auto pair = HpkeKeyPair::from_private(
      secret<HpkePrivate>("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
  ASSERT_TRUE(pair.ok());
  EXPECT_EQ((*pair).public_key().text(),
            "x25519:8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
}

RC_GTEST_PROP(HpkeProperty, WhatIsSealedOpens,
              (const Bytes& aad, const Bytes& plaintext, std::uint64_t seed)) {
  SeededRandom random(seed);
  const HpkeKeyPair own = HpkeKeyPair::generate(random).value();
  const auto sealed = hpke_seal(own.public_key(), aad, plaintext, random);
  RC_ASSERT(sealed.ok());
  RC_ASSERT((*sealed).size() == 48 + plaintext.size());
  const auto opened = hpke_open(own, aad, *sealed);
  RC_ASSERT(opened.ok());
  RC_ASSERT(equal((*opened).view(SecretAccess{}), plaintext) &&
            (*opened).size() == plaintext.size());
}

TEST_F(Hpke, EveryChangedBitIsABadTag) {
  const Bytes aad = to_bytes(as_bytes("aad"));
  const Bytes sealed = hpke_seal(own_.public_key(), aad, as_bytes("some text"), random_).value();
  for (std::size_t i = 0; i < sealed.size() * 8; ++i) {
    // X25519 ignores the top bit of enc (RFC 7748 section 5); the key schedule binds all of enc.
    ASSERT_TRUE(fails_with(hpke_open(own_, aad, flipped(sealed, i)), Reason::kBadTag)) << i;
  }
  for (std::size_t i = 0; i < aad.size() * 8; ++i) {
    ASSERT_TRUE(fails_with(hpke_open(own_, flipped(aad, i), sealed), Reason::kBadTag)) << i;
  }
}

TEST_F(Hpke, AnotherKeyDoesNotOpen) {
  const HpkeKeyPair other = HpkeKeyPair::generate(random_).value();
  const Bytes sealed = hpke_seal(own_.public_key(), {}, as_bytes("text"), random_).value();
  EXPECT_TRUE(fails_with(hpke_open(other, {}, sealed), Reason::kBadTag));
}

TEST_F(Hpke, TruncationIsNamed) {
  const Bytes sealed = hpke_seal(own_.public_key(), {}, as_bytes("text"), random_).value();
  for (std::size_t n = 0; n < sealed.size(); ++n) {
    const Reason expected = n < 48 ? Reason::kTruncated : Reason::kBadTag;
    ASSERT_TRUE(fails_with(hpke_open(own_, {}, ByteView(sealed).first(n)), expected)) << n;
  }
}

TEST_F(Hpke, KeysOfSmallOrderAreRefusedByBothSides) {
  for (const char* text : kSmallOrder) {
    SCOPED_TRACE(text);
    const HpkePublicKey low{fixed_from_hex<32>(text).value()};
    EXPECT_TRUE(fails_with(hpke_seal(low, {}, as_bytes("text"), random_), Reason::kBadValue));
    const Bytes sealed = concat({low.raw, Bytes(20, 0)});
    EXPECT_TRUE(fails_with(hpke_open(own_, {}, sealed), Reason::kBadTag));
  }
}

TEST_F(Hpke, EveryMessageHasAFreshEphemeralKey) {
  std::set<Bytes> seen;
  for (int i = 0; i < 50; ++i) {
    const Bytes sealed = hpke_seal(own_.public_key(), {}, as_bytes("text"), random_).value();
    EXPECT_TRUE(seen.insert(to_bytes(ByteView(sealed).first(32))).second);
  }
}

TEST_F(Hpke, PrivateKeysAreThirtyTwoBytes) {
  for (const std::size_t n : {0U, 31U, 33U}) {
    const auto raw = HpkePrivate::copy_of(Bytes(n, 1));
    EXPECT_TRUE(fails_with(HpkeKeyPair::from_private(raw), Reason::kBadValue));
    EXPECT_TRUE(
        fails_with(hpke_detail::seal(own_.public_key(), {}, {}, {}, raw), Reason::kBadValue));
  }
}

TEST_F(Hpke, PublicKeyText) {
  const std::string good = own_.public_key().text();
  EXPECT_EQ(HpkePublicKey::from_text(good).value(), own_.public_key());
  for (const std::string& bad :
       {std::string(), std::string("x25519:"), good + "0", good + "00", good.substr(0, 70),
        "X" + good.substr(1), "ed25519:" + good.substr(7), good.substr(0, 70) + "G",
        good.substr(0, 70) + "A", " " + good.substr(0, 70)}) {
    EXPECT_TRUE(fails_with(HpkePublicKey::from_text(bad), Reason::kBadEncoding)) << bad;
  }
}

}  // namespace
}  // namespace gbx::crypto
