// Chains as vendors of platforms make them: what is accepted, and each way to be refused.
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "crypto/certificates.h"
#include "crypto/test_util.h"

namespace gbx::crypto {
namespace {

constexpr std::int64_t kFrom = 1'700'000'000, kTo = 1'800'000'000, kNow = 1'750'000'000;

class ChainTest : public CleanQueue {
 protected:
  SigningKey key(SignatureAlgorithm a = SignatureAlgorithm::kEcdsaP256) {
    return SigningKey::generate(a, random_).value();
  }
  Bytes issue(const char* subject, const SigningKey& own, const char* issuer, const SigningKey& by,
              std::optional<int> path_length, std::int64_t to = kTo) {
    CertificateRequest r;
    r.subject = subject;
    r.issuer = issuer;
    r.key = &own.public_key();
    r.issuer_key = &by;
    r.path_length = path_length;
    r.not_before_seconds = kFrom;
    r.not_after_seconds = to;
    return issue_certificate(r).value();
  }
  SeededRandom random_{77};
  SigningKey root_ = key(), middle_ = key(), leaf_ = key();
  Bytes root_der_ = issue("root", root_, "root", root_, 1);
  Bytes middle_der_ = issue("middle", middle_, "root", root_, 0);
  Bytes leaf_der_ = issue("leaf", leaf_, "middle", middle_, std::nullopt);
  std::vector<Bytes> chain_ = {leaf_der_, middle_der_, root_der_};
};

TEST_F(ChainTest, IsVerifiedToItsRoot) {
  const auto keys = verify_chain(chain_, kNow);
  ASSERT_TRUE(keys.ok()) << keys.error().line();
  EXPECT_EQ(keys->leaf, leaf_.public_key());
  EXPECT_EQ(keys->root, root_.public_key());
}

TEST_F(ChainTest, OutsideItsTimesIsRefused) {
  EXPECT_TRUE(fails_with(verify_chain(chain_, kFrom - 1), Reason::kExpired));
  EXPECT_TRUE(fails_with(verify_chain(chain_, kTo + 1), Reason::kExpired));
  // Each certificate's own.
  std::vector<Bytes> c = chain_;
  c[1] = issue("middle", middle_, "root", root_, 0, kNow - 1);
  EXPECT_TRUE(fails_with(verify_chain(c, kNow), Reason::kExpired));
  c = chain_;
  c[2] = issue("root", root_, "root", root_, 1, kNow - 1);
  EXPECT_TRUE(fails_with(verify_chain(c, kNow), Reason::kExpired));
}

TEST_F(ChainTest, AnotherPathIsRefused) {
  const std::vector<std::vector<Bytes>> wrong = {
      {},
      {root_der_},
      {leaf_der_, middle_der_},
      {leaf_der_, root_der_},
      {middle_der_, leaf_der_, root_der_},
      {leaf_der_, middle_der_, middle_der_, root_der_},
      {leaf_der_, middle_der_, root_der_, root_der_},
      {leaf_der_, leaf_der_, middle_der_, root_der_, root_der_},
  };
  for (const auto& chain : wrong) {
    EXPECT_FALSE(verify_chain(chain, kNow).ok()) << chain.size();
  }
  // Names that fit, another key.
  const SigningKey other = key();
  std::vector<Bytes> c = chain_;
  c[2] = issue("root", other, "root", other, 1);
  EXPECT_TRUE(fails_with(verify_chain(c, kNow), Reason::kBadStructure) ||
              fails_with(verify_chain(c, kNow), Reason::kBadSignature));
}

TEST_F(ChainTest, AuthorityAndLeafKeepTheirPlaces) {
  std::vector<Bytes> c = chain_;
  c[0] = issue("leaf", leaf_, "middle", middle_, 0);
  EXPECT_TRUE(fails_with(verify_chain(c, kNow), Reason::kBadStructure)) << "an authority as leaf";
  c = chain_;
  c[1] = issue("middle", middle_, "root", root_, std::nullopt);
  EXPECT_TRUE(fails_with(verify_chain(c, kNow), Reason::kBadStructure)) << "a leaf that issues";
  c = chain_;
  c[2] = issue("root", root_, "root", root_, 0);
  EXPECT_TRUE(fails_with(verify_chain(c, kNow), Reason::kBadStructure)) << "path length";
}

TEST_F(ChainTest, OtherKeysAreRefused) {
  const SigningKey ed = key(SignatureAlgorithm::kEd25519);
  std::vector<Bytes> c = chain_;
  c[0] = issue("leaf", ed, "middle", middle_, std::nullopt);
  EXPECT_TRUE(fails_with(verify_chain(c, kNow), Reason::kBadEncoding));
  const Bytes ed_root = issue("root", ed, "root", ed, 1);
  EXPECT_TRUE(fails_with(
      verify_chain(std::vector<Bytes>{leaf_der_, issue("middle", middle_, "root", ed, 0), ed_root},
                   kNow),
      Reason::kBadEncoding));
}

TEST_F(ChainTest, AnotherEncodingIsRefused) {
  // The outermost length with a leading zero, which only BER has.
  std::vector<Bytes> c = chain_;
  ASSERT_EQ(c[0][1], 0x82);
  c[0][1] = 0x83;
  c[0].insert(c[0].begin() + 2, 0);
  EXPECT_TRUE(fails_with(verify_chain(c, kNow), Reason::kBadEncoding));
}

TEST_F(ChainTest, AnotherHashIsRefused) {
  const std::uint8_t* p = leaf_der_.data();
  X509* const x = d2i_X509(nullptr, &p, static_cast<long>(leaf_der_.size()));
  const SecretBuffer pkcs8 = middle_.pkcs8_der(SecretAccess{});
  p = pkcs8.view(SecretAccess{}).data();
  EVP_PKEY* const pkey = d2i_AutoPrivateKey(nullptr, &p, static_cast<long>(pkcs8.size()));
  ASSERT_GT(X509_sign(x, pkey, EVP_sha384()), 0);
  std::uint8_t* der = nullptr;
  const int n = i2d_X509(x, &der);
  std::vector<Bytes> c = chain_;
  c[0].assign(der, der + n);
  OPENSSL_free(der);
  EVP_PKEY_free(pkey);
  X509_free(x);
  EXPECT_TRUE(fails_with(verify_chain(c, kNow), Reason::kBadEncoding));
}

TEST_F(ChainTest, EveryChangedByteIsRefused) {
  for (std::size_t which = 0; which < chain_.size(); ++which) {
    for (std::size_t i = 0; i < chain_[which].size(); ++i) {
      std::vector<Bytes> c = chain_;
      c[which] = flipped(c[which], i * 8 + i % 8);
      ASSERT_FALSE(verify_chain(c, kNow).ok()) << which << " byte " << i;
    }
  }
}

TEST_F(ChainTest, PemHasOneForm) {
  std::string pem;
  for (const Bytes& der : chain_) pem += certificate_pem(der);
  const auto read = certificates_of_pem(pem);
  ASSERT_TRUE(read.ok()) << read.error().line();
  EXPECT_EQ(*read, chain_);
  EXPECT_TRUE(certificates_of_pem("").value().empty());
  const auto bad = [](const std::string& text) { return certificates_of_pem(text); };
  EXPECT_TRUE(fails_with(bad(" " + pem), Reason::kBadEncoding));
  EXPECT_TRUE(fails_with(bad(pem + "\n"), Reason::kBadEncoding));
  EXPECT_TRUE(fails_with(bad(pem + "text\n"), Reason::kBadEncoding));
  EXPECT_TRUE(fails_with(bad("text\n" + pem), Reason::kBadEncoding));
  EXPECT_TRUE(fails_with(bad(pem.substr(0, pem.size() - 1)), Reason::kBadEncoding));
  EXPECT_TRUE(fails_with(bad(pem + pem), Reason::kTooLarge));
  EXPECT_TRUE(fails_with(bad(std::string(kMaxChainPem + 1, 'x')), Reason::kTooLarge));
  std::string crlf = pem;
  crlf.insert(crlf.find('\n'), "\r");
  EXPECT_TRUE(fails_with(bad(crlf), Reason::kBadEncoding));
  for (std::size_t i = 0; i < pem.size(); ++i) {
    std::string changed = pem;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    const auto other = certificates_of_pem(changed);
    EXPECT_TRUE(!other.ok() || *other != chain_) << i;
  }
}

}  // namespace
}  // namespace gbx::crypto
