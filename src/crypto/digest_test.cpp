// Hashes, HMAC, HKDF, scrypt and labelled hashes against their documents.
#include "crypto/crypto.h"
#include "crypto/test_util.h"

namespace gbx::crypto {
namespace {

class Digest : public CleanQueue {};
class Scrypt : public CleanQueue {};

// FIPS 180-4, examples of SHA-384.
TEST_F(Digest, Sha384OfFips180) {
  EXPECT_EQ(to_hex(sha384(as_bytes("abc"))),
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed"
            "8086072ba1e7cc2358baeca134c825a7");
  Sha384 parts;
  for (const char* part : {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn",
                           "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu"}) {
    parts.update(as_bytes(part));
  }
  EXPECT_EQ(to_hex(parts.finish()),
            "09330c33f71147e83d192fc782cd1b4753111b173b3b05d22fa08086e3b0f712"
            "fcc7c71a557e2db966c3e9fa91746039");
}
TEST_F(Digest, Sha256OfFips180) {
  EXPECT_EQ(to_hex(sha256(as_bytes("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(sha256(ByteView())),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(to_hex(sha256(as_bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST_F(Digest, Sha512OfFips180) {
  EXPECT_EQ(to_hex(sha512(as_bytes("abc"))),
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f");
}

TEST_F(Digest, HmacOfRfc4231) {
  EXPECT_EQ(to_hex(hmac_sha256(Bytes(20, 0x0b), as_bytes("Hi There"))),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(to_hex(hmac_sha256(as_bytes("Jefe"), as_bytes("what do ya want for nothing?"))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  // An empty key is a key of zeros.
  EXPECT_EQ(hmac_sha256({}, {}), hmac_sha256(Bytes(64, 0), {}));
}

TEST_F(Digest, LabelledHashIsTheHashOfLabelZeroData) {
  // echo -ne 'gbx/1/test\x00data' | sha256sum
  EXPECT_EQ(to_hex(labelled_hash("gbx/1/test", as_bytes("data"))),
            "c3410eecf64869a1ec5d15c4ea7b72c0a92f22c11e6b836339b8d22febb5ea7f");
  EXPECT_NE(labelled_hash("a", as_bytes("bc")), labelled_hash("ab", as_bytes("c")));
}

TEST_F(Digest, KeyCommitmentBindsKeyAndContext) {
  const Bytes key(32, 7);
  // HMAC-SHA256(07 * 32, "gbx/1/commit" 00 "context")
  EXPECT_EQ(to_hex(key_commitment(key, SecretAccess{}, as_bytes("context"))),
            "62fbaada29488e441ce01c849f2c15dd8654e2da2eb55f9c99c9b2671d31ba2c");
  EXPECT_NE(key_commitment(key, SecretAccess{}, as_bytes("context")),
            key_commitment(Bytes(32, 8), SecretAccess{}, as_bytes("context")));
  EXPECT_NE(key_commitment(key, SecretAccess{}, as_bytes("context")),
            key_commitment(key, SecretAccess{}, as_bytes("other")));
}

RC_GTEST_PROP(DigestProperty, PiecesHashLikeTheWhole, (const Bytes& data, const Bytes& more)) {
  Sha256 h;
  h.update(data);
  h.update(more);
  const Hash32 in_pieces = h.finish();
  RC_ASSERT(in_pieces == sha256(concat({data, more})));
  RC_ASSERT(in_pieces == sha256({data, more}));
}

TEST_F(Digest, MovedHashKeepsItsState) {
  Sha256 a;
  a.update(as_bytes("ab"));
  Sha256 b(std::move(a));
  b.update(as_bytes("c"));
  Sha256 c;
  c = std::move(b);
  EXPECT_EQ(c.finish(), sha256(as_bytes("abc")));
}

TEST(DigestDeathTest, ASecondFinishAborts) {
  Sha256 h;
  (void)h.finish();
  EXPECT_DEATH((void)h.finish(), "second finish");
  EXPECT_DEATH(h.update(as_bytes("x")), "after finish");
  EXPECT_DEATH((void)hkdf_expand(Bytes(32, 1), {}, 255 * 32 + 1), "HKDF output size");
}

struct HkdfCase {
  const char* ikm;
  const char* salt;
  const char* info;
  const char* prk;
  const char* okm;
};
constexpr HkdfCase kRfc5869[] = {
    {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "000102030405060708090a0b0c",
     "f0f1f2f3f4f5f6f7f8f9", "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
     "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"},
    {"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
     "202122232425262728292a2b2c2d2e2f"
     "303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f",
     "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f"
     "808182838485868788898a8b8c8d8e8f"
     "909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
     "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecf"
     "d0d1d2d3d4d5d6d7d8d9dadbdcdddedf"
     "e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
     "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
     "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
     "59045a99cac7827271cb41c65e590e09"
     "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"},
    {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "", "",
     "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
     "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"},
};

TEST_F(Digest, HkdfOfRfc5869) {
  for (const HkdfCase& c : kRfc5869) {
    const SecretBuffer prk = hkdf_extract(hex(c.salt), hex(c.ikm));
    EXPECT_EQ(hex_of(prk), c.prk);
    const Bytes okm = hex(c.okm);
    EXPECT_EQ(hex_of(hkdf_expand(prk.view(SecretAccess{}), hex(c.info), okm.size())), c.okm);
  }
}

TEST_F(Digest, HkdfOutputSizes) {
  const Bytes prk(32, 9);
  EXPECT_EQ(hkdf_expand(prk, {}, 0).size(), 0U);
  const SecretBuffer all = hkdf_expand(prk, {}, 255 * 32);
  EXPECT_EQ(all.size(), 255U * 32);
  const auto key = hkdf_expand_as<AeadKey>(prk, {}, 32);
  EXPECT_TRUE(equal(all.view(SecretAccess{}).first(32), key.view(SecretAccess{})));
}

// RFC 7914 section 12 derives 64 bytes; the first 32 do not depend on the length.
TEST_F(Scrypt, Rfc7914) {
  const auto run = [](std::string_view pass, std::string_view salt, ScryptParameters p) {
    const auto key = scrypt(Passphrase::copy_of(as_bytes(pass)), as_bytes(salt), p);
    return key.ok() ? to_hex((*key).view(SecretAccess{})) : key.error().line();
  };
  EXPECT_EQ(run("", "", {16, 1, 1}),
            "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442");
  EXPECT_EQ(run("password", "NaCl", {1024, 8, 16}),
            "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162");
  EXPECT_EQ(run("pleaseletmein", "SodiumChloride", {16384, 8, 1}),
            "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2");
}

TEST_F(Scrypt, RefusesParametersOutOfBounds) {
  const auto pass = Passphrase::copy_of(as_bytes("p"));
  const auto run = [&pass](ScryptParameters p) { return scrypt(pass, as_bytes("salt"), p); };
  EXPECT_TRUE(fails_with(run({0, 8, 1}), Reason::kBadValue));
  EXPECT_TRUE(fails_with(run({1, 8, 1}), Reason::kBadValue));
  EXPECT_TRUE(fails_with(run({1000, 8, 1}), Reason::kBadValue));
  EXPECT_TRUE(fails_with(run({1024, 0, 1}), Reason::kBadValue));
  EXPECT_TRUE(fails_with(run({1024, 8, 0}), Reason::kBadValue));
  EXPECT_TRUE(fails_with(run({65536, 1, 1}), Reason::kBadValue));
  EXPECT_TRUE(fails_with(run({1U << 20, 8, 1}), Reason::kTooLarge));  // the RFC's 1 GiB example
  EXPECT_TRUE(fails_with(run({std::uint64_t{1} << 63, 8, 1}), Reason::kTooLarge));
  EXPECT_TRUE(fails_with(run({1024, std::uint64_t{1} << 60, 1}), Reason::kTooLarge));
  EXPECT_TRUE(fails_with(run({1024, 8, 17}), Reason::kTooLarge));
  EXPECT_TRUE(fails_with(scrypt(pass, Bytes(1025), {1024, 8, 1}), Reason::kTooLarge));
}

}  // namespace
}  // namespace gbx::crypto
