// AES-256-GCM and ChaCha20-Poly1305: published vectors, every changed bit, reuse of a context.
#include <algorithm>

#include "base/seams.h"
#include "crypto/crypto.h"
#include "crypto/test_util.h"

namespace gbx::crypto {
namespace {

constexpr AeadSuite kSuites[] = {AeadSuite::kAes256Gcm, AeadSuite::kChaCha20Poly1305};
class Aead : public CleanQueue {};

struct AeadCase {
  const char* name;
  AeadSuite suite;
  const char* key;
  const char* nonce;
  const char* aad;
  const char* plaintext;
  const char* sealed;
};
// GCM: McGrew and Viega's cases 13 to 16, which NIST's GCM submission carries. ChaCha20-Poly1305:
// RFC 8439 section 2.8.2.
constexpr AeadCase kVectors[] = {
    {"gcm-13", AeadSuite::kAes256Gcm,
     "0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000",
     "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
    {"gcm-14", AeadSuite::kAes256Gcm,
     "0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000",
     "", "00000000000000000000000000000000",
     "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"},
    {"gcm-15", AeadSuite::kAes256Gcm,
     "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
     "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
     "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
     "b094dac5d93471bdec1a502270e3cc6c"},
    {"gcm-16", AeadSuite::kAes256Gcm,
     "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
     "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
     "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
     "76fc6ece0f4e1768cddf8853bb2d551b"},
    {"rfc8439", AeadSuite::kChaCha20Poly1305,
     "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f", "070000004041424344454647",
     "50515253c0c1c2c3c4c5c6c7",
     "4c616469657320616e642047656e746c656d656e206f662074686520636c6173"
     "73206f66202739393a204966204920636f756c64206f6666657220796f75206f"
     "6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73"
     "637265656e20776f756c642062652069742e",
     "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
     "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
     "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
     "3ff4def08e4b7a9de576d26586cec64b6116"
     "1ae10b594f09e26a7e902ecbd0600691"},
};

AeadKey key_of(std::uint8_t fill) { return AeadKey::copy_of(Bytes(32, fill)); }

TEST_F(Aead, PublishedVectors) {
  for (const AeadCase& c : kVectors) {
    SCOPED_TRACE(c.name);
    const auto key = secret<AeadKey>(c.key);
    const auto sealed = aead_seal(c.suite, key, hex(c.nonce), hex(c.aad), hex(c.plaintext));
    ASSERT_TRUE(sealed.ok());
    EXPECT_EQ(to_hex(*sealed), c.sealed);
    const auto opened = aead_open(c.suite, key, hex(c.nonce), hex(c.aad), hex(c.sealed));
    ASSERT_TRUE(opened.ok());
    EXPECT_EQ(to_hex(*opened), c.plaintext);
  }
}

TEST_F(Aead, EveryChangedBitIsABadTag) {
  for (const AeadCase& c : kVectors) {
    SCOPED_TRACE(c.name);
    const auto key = secret<AeadKey>(c.key);
    const Bytes nonce = hex(c.nonce), aad = hex(c.aad), sealed = hex(c.sealed), raw = hex(c.key);
    const auto open = [&](const AeadKey& k, ByteView n, ByteView a, ByteView s) {
      return aead_open(c.suite, k, n, a, s);
    };
    for (std::size_t i = 0; i < sealed.size() * 8; ++i) {
      ASSERT_TRUE(fails_with(open(key, nonce, aad, flipped(sealed, i)), Reason::kBadTag)) << i;
    }
    for (std::size_t i = 0; i < nonce.size() * 8; ++i) {
      ASSERT_TRUE(fails_with(open(key, flipped(nonce, i), aad, sealed), Reason::kBadTag)) << i;
    }
    for (std::size_t i = 0; i < aad.size() * 8; ++i) {
      ASSERT_TRUE(fails_with(open(key, nonce, flipped(aad, i), sealed), Reason::kBadTag)) << i;
    }
    for (std::size_t i = 0; i < raw.size() * 8; ++i) {
      const auto other = AeadKey::copy_of(flipped(raw, i));
      ASSERT_TRUE(fails_with(open(other, nonce, aad, sealed), Reason::kBadTag)) << i;
    }
  }
}

TEST_F(Aead, EveryTruncationAndAnExtensionIsABadTag) {
  for (const AeadSuite suite : kSuites) {
    const Bytes nonce(12, 1);
    const Bytes sealed = aead_seal(suite, key_of(1), nonce, {}, as_bytes("some text")).value();
    for (std::size_t n = 0; n < sealed.size(); ++n) {
      const ByteView cut = ByteView(sealed).first(n);
      ASSERT_TRUE(fails_with(aead_open(suite, key_of(1), nonce, {}, cut), Reason::kBadTag)) << n;
    }
    const Bytes longer = concat({sealed, Bytes(1, 0)});
    EXPECT_TRUE(fails_with(aead_open(suite, key_of(1), nonce, {}, longer), Reason::kBadTag));
  }
}

TEST_F(Aead, TheOtherSuiteDoesNotOpen) {
  const Bytes nonce(12, 1);
  const Bytes sealed = aead_seal(kSuites[0], key_of(1), nonce, {}, as_bytes("text")).value();
  EXPECT_TRUE(fails_with(aead_open(kSuites[1], key_of(1), nonce, {}, sealed), Reason::kBadTag));
}

TEST_F(Aead, SizesOfKeyAndNonceAreChecked) {
  for (const AeadSuite suite : kSuites) {
    for (const std::size_t n : {0U, 16U, 31U, 33U}) {
      const auto key = AeadKey::copy_of(Bytes(n, 1));
      EXPECT_TRUE(fails_with(aead_seal(suite, key, Bytes(12), {}, {}), Reason::kBadValue));
      EXPECT_TRUE(fails_with(aead_open(suite, key, Bytes(12), {}, Bytes(16)), Reason::kBadValue));
      EXPECT_TRUE(fails_with(AeadStream::create(suite, key), Reason::kBadValue));
    }
    for (const std::size_t n : {0U, 8U, 11U, 13U, 16U}) {
      EXPECT_TRUE(fails_with(aead_seal(suite, key_of(1), Bytes(n), {}, {}), Reason::kBadValue));
      EXPECT_TRUE(
          fails_with(aead_open(suite, key_of(1), Bytes(n), {}, Bytes(16)), Reason::kBadValue));
    }
  }
}

TEST_F(Aead, SuiteNumbersAreAClosedList) {
  for (int n = 0; n < 256; ++n) {
    const auto suite = aead_suite(static_cast<std::uint8_t>(n));
    if (n == 1 || n == 2) {
      ASSERT_TRUE(suite.ok());
      EXPECT_EQ(static_cast<int>(*suite), n);
    } else {
      EXPECT_TRUE(fails_with(suite, Reason::kBadSuite)) << n;
    }
  }
  const auto stranger = static_cast<AeadSuite>(9);
  EXPECT_TRUE(fails_with(aead_seal(stranger, key_of(1), Bytes(12), {}, {}), Reason::kBadSuite));
}

RC_GTEST_PROP(AeadProperty, WhatIsSealedOpens,
              (const Bytes& aad, const Bytes& plaintext, std::uint64_t seed)) {
  SeededRandom random(seed);
  for (const AeadSuite suite : kSuites) {
    const auto key = random.secret<AeadKey>(32);
    const auto nonce = random.fixed<12>();
    const auto sealed = aead_seal(suite, key, nonce, aad, plaintext);
    RC_ASSERT(sealed.ok());
    RC_ASSERT((*sealed).size() == plaintext.size() + kAeadTagSize);
    const auto opened = aead_open(suite, key, nonce, aad, *sealed);
    RC_ASSERT(opened.ok());
    RC_ASSERT(*opened == plaintext);
  }
}

// The stream keeps its key between messages; each must come out as if it were sealed alone, also
// after a message that was refused.
TEST_F(Aead, AStreamGivesWhatSingleCallsGive) {
  SeededRandom random(5);
  for (const AeadSuite suite : kSuites) {
    const auto key = random.secret<AeadKey>(32);
    AeadStream stream = AeadStream::create(suite, key).value();
    for (std::size_t size : {100U, 0U, 1U, 16U, 4096U, 15U, 0U, 65536U}) {
      Bytes plaintext(size), aad(size % 40);
      random.fill(plaintext);
      random.fill(aad);
      const auto nonce = random.fixed<12>();
      Bytes sealed(size + kAeadTagSize), opened(size);
      ASSERT_TRUE(stream.seal(nonce, aad, plaintext, sealed).ok());
      EXPECT_EQ(sealed, aead_seal(suite, key, nonce, aad, plaintext).value());
      EXPECT_TRUE(
          fails_with(stream.open(nonce, aad, flipped(sealed, size * 8), opened), Reason::kBadTag));
      ASSERT_TRUE(stream.open(nonce, aad, sealed, opened).ok());
      EXPECT_EQ(opened, plaintext);
    }
  }
}

TEST_F(Aead, AStreamLeavesNoPlaintextBehindOnFailure) {
  for (const AeadSuite suite : kSuites) {
    AeadStream stream = AeadStream::create(suite, key_of(1)).value();
    const Bytes nonce(12, 0), plaintext(1000, 0x55);
    Bytes sealed(1016);
    ASSERT_TRUE(stream.seal(nonce, {}, plaintext, sealed).ok());
    Bytes out(1000, 0xaa);
    EXPECT_TRUE(fails_with(stream.open(nonce, {}, flipped(sealed, 8100), out), Reason::kBadTag));
    EXPECT_EQ(out, Bytes(1000, 0));
    AeadStream moved(std::move(stream));
    ASSERT_TRUE(moved.open(nonce, {}, sealed, out).ok());
    EXPECT_EQ(out, plaintext);
  }
}

TEST_F(Aead, AStreamChecksTheOutputSize) {
  AeadStream stream = AeadStream::create(AeadSuite::kAes256Gcm, key_of(1)).value();
  const Bytes nonce(12, 0);
  Bytes small(19), large(21), sealed(20);
  EXPECT_TRUE(fails_with(stream.seal(nonce, {}, Bytes(4), small), Reason::kBadValue));
  EXPECT_TRUE(fails_with(stream.seal(nonce, {}, Bytes(4), large), Reason::kBadValue));
  ASSERT_TRUE(stream.seal(nonce, {}, Bytes(4), sealed).ok());
  Bytes three(3), five(5);
  EXPECT_TRUE(fails_with(stream.open(nonce, {}, sealed, three), Reason::kBadValue));
  EXPECT_TRUE(fails_with(stream.open(nonce, {}, sealed, five), Reason::kBadValue));
  EXPECT_TRUE(fails_with(stream.open(nonce, {}, Bytes(15), three), Reason::kBadTag));
}

TEST_F(Aead, SealOnceIsGcmWithTheZeroNonce) {
  const AeadCase& c = kVectors[1];
  const Bytes key = hex(c.key);
  const auto sealed = seal_once(key, SecretAccess{}, {}, hex(c.plaintext));
  ASSERT_TRUE(sealed.ok());
  EXPECT_EQ(to_hex(*sealed), c.sealed);
  EXPECT_EQ(to_hex(open_once(key, SecretAccess{}, {}, *sealed).value()), c.plaintext);
  EXPECT_TRUE(fails_with(open_once(key, SecretAccess{}, as_bytes("x"), *sealed), Reason::kBadTag));
  EXPECT_TRUE(fails_with(seal_once(Bytes(16), SecretAccess{}, {}, {}), Reason::kBadValue));
}

}  // namespace
}  // namespace gbx::crypto
