// Certificates as OpenSSL's verifier sees them, and the parsing of foreign ones.
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <memory>

#include "crypto/keys.h"
#include "crypto/test_util.h"

namespace gbx::crypto {
namespace {

constexpr SignatureAlgorithm kBoth[] = {SignatureAlgorithm::kEd25519,
                                        SignatureAlgorithm::kEcdsaP256};
constexpr std::int64_t kFrom = 1'700'000'000, kTo = 1'800'000'000;

struct X509Free {
  void operator()(X509* x) const { X509_free(x); }
};
using Certificate = std::unique_ptr<X509, X509Free>;

Certificate parsed(ByteView der) {
  const std::uint8_t* p = der.data();
  return Certificate(d2i_X509(nullptr, &p, static_cast<long>(der.size())));
}

// The verifier's error code for `leaf` under the one root, at `when`.
int verify_error(X509* root, X509* leaf, std::int64_t when) {
  X509_STORE* store = X509_STORE_new();
  X509_STORE_add_cert(store, root);
  X509_STORE_CTX* ctx = X509_STORE_CTX_new();
  X509_STORE_CTX_init(ctx, store, leaf, nullptr);
  X509_VERIFY_PARAM* param = X509_STORE_CTX_get0_param(ctx);
  X509_VERIFY_PARAM_set_time(param, when);
  X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_X509_STRICT);
  X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_SERVER);
  (void)X509_verify_cert(ctx);
  const int error = X509_STORE_CTX_get_error(ctx);
  X509_STORE_CTX_free(ctx);
  X509_STORE_free(store);
  ERR_clear_error();
  return error;
}

class CertificateTest : public CleanQueue {
 protected:
  SigningKey key(SignatureAlgorithm a) { return SigningKey::generate(a, random_).value(); }
  Result<ServerCertificate> issue(const std::vector<std::string>& dns,
                                  const std::vector<std::string>& ips, std::int64_t from = kFrom,
                                  std::int64_t to = kTo) {
    return issue_server_certificate(ca_, server_, dns, ips, from, to);
  }
  SeededRandom random_{21};
  SigningKey ca_ = key(SignatureAlgorithm::kEcdsaP256);
  SigningKey server_ = key(SignatureAlgorithm::kEcdsaP256);
};

TEST_F(CertificateTest, SelfSigned) {
  for (const SignatureAlgorithm algorithm : kBoth) {
    const SigningKey own = key(algorithm);
    const Bytes der = self_signed_certificate(own).value();
    EXPECT_EQ(certificate_public_key(der).value(), own.public_key());
    const Certificate x = parsed(der);
    ASSERT_TRUE(x);
    EXPECT_EQ(X509_verify(x.get(), X509_get0_pubkey(x.get())), 1);
    char name[64] = {};
    X509_NAME_get_text_by_NID(X509_get_subject_name(x.get()), NID_commonName, name, sizeof name);
    EXPECT_STREQ(name, "glovebox");
    EXPECT_EQ(X509_get_version(x.get()), 2);
    EXPECT_EQ(ASN1_TIME_cmp_time_t(X509_get0_notBefore(x.get()), 0), 0);
    EXPECT_EQ(ASN1_TIME_cmp_time_t(X509_get0_notAfter(x.get()), 253402300799), 0);
    EXPECT_EQ(X509_check_ca(x.get()), 0);
    EXPECT_EQ(verify_error(x.get(), x.get(), 0), X509_V_OK);
    EXPECT_EQ(verify_error(x.get(), x.get(), kTo * 100), X509_V_OK);
  }
}

TEST_F(CertificateTest, Ed25519SelfSignedIsDeterministic) {
  const SigningKey own = key(SignatureAlgorithm::kEd25519);
  EXPECT_EQ(self_signed_certificate(own).value(), self_signed_certificate(own).value());
}

TEST_F(CertificateTest, ServerVerifiesUnderItsAuthorityOnly) {
  for (const SignatureAlgorithm ca_algorithm : kBoth) {
    for (const SignatureAlgorithm server_algorithm : kBoth) {
      const SigningKey ca = key(ca_algorithm), server = key(server_algorithm);
      const auto made = issue_server_certificate(ca, server, {"localhost", "plane.example"},
                                                 {"127.0.0.1", "::1"}, kFrom, kTo);
      ASSERT_TRUE(made.ok()) << made.error().line();
      EXPECT_EQ(certificate_public_key((*made).ca_der).value(), ca.public_key());
      EXPECT_EQ(certificate_public_key((*made).server_der).value(), server.public_key());
      const Certificate root = parsed((*made).ca_der), leaf = parsed((*made).server_der);
      EXPECT_EQ(verify_error(root.get(), leaf.get(), kFrom + 1), X509_V_OK);
      EXPECT_EQ(verify_error(root.get(), leaf.get(), kTo + 1), X509_V_ERR_CERT_HAS_EXPIRED);
      EXPECT_EQ(verify_error(root.get(), leaf.get(), kFrom - 1), X509_V_ERR_CERT_NOT_YET_VALID);
      const auto other = issue_server_certificate(server, ca, {"localhost"}, {}, kFrom, kTo);
      const Certificate stranger = parsed((*other).ca_der);
      EXPECT_NE(verify_error(stranger.get(), leaf.get(), kFrom + 1), X509_V_OK);
    }
  }
}

TEST_F(CertificateTest, NamesAreTheOnesGiven) {
  const auto made = issue({"localhost", "plane.example"}, {"127.0.0.1", "::1"});
  const Certificate leaf = parsed((*made).server_der);
  EXPECT_EQ(X509_check_host(leaf.get(), "localhost", 0, 0, nullptr), 1);
  EXPECT_EQ(X509_check_host(leaf.get(), "plane.example", 0, 0, nullptr), 1);
  EXPECT_EQ(X509_check_host(leaf.get(), "other.example", 0, 0, nullptr), 0);
  EXPECT_EQ(X509_check_host(leaf.get(), "glovebox", 0, 0, nullptr), 0);
  EXPECT_EQ(X509_check_ip_asc(leaf.get(), "127.0.0.1", 0), 1);
  EXPECT_EQ(X509_check_ip_asc(leaf.get(), "::1", 0), 1);
  EXPECT_EQ(X509_check_ip_asc(leaf.get(), "127.0.0.2", 0), 0);
  const Certificate root = parsed((*made).ca_der);
  EXPECT_EQ(X509_check_ca(root.get()), 1);
  EXPECT_EQ(X509_check_ca(leaf.get()), 0);
}

TEST_F(CertificateTest, BadNamesAndTimesAreRefused) {
  for (const std::string& name :
       {std::string(), std::string("a b"), std::string("a,DNS:b"), std::string("*.example"),
        std::string("UPPER"), std::string("a\0b", 3), std::string(".a"), std::string("a."),
        std::string(254, 'a')}) {
    EXPECT_TRUE(fails_with(issue({name}, {}), Reason::kBadValue)) << name;
  }
  for (const std::string& ip :
       {std::string(), std::string("localhost"), std::string("1.2.3"), std::string("1.2.3.256"),
        std::string("127.0.0.1\0x", 11), std::string(":::1")}) {
    EXPECT_TRUE(fails_with(issue({}, {ip}), Reason::kBadValue)) << ip;
  }
  EXPECT_TRUE(fails_with(issue({}, {}), Reason::kMissingField));
  EXPECT_TRUE(fails_with(issue(std::vector<std::string>(65, "a"), {}), Reason::kTooLarge));
  EXPECT_TRUE(fails_with(issue({"a"}, {}, kTo, kFrom), Reason::kBadValue));
  EXPECT_TRUE(fails_with(issue({"a"}, {}, kFrom, kFrom), Reason::kBadValue));
  EXPECT_TRUE(fails_with(issue({"a"}, {}, -1, kTo), Reason::kBadValue));
  EXPECT_TRUE(fails_with(issue({"a"}, {}, kFrom, 253402300800), Reason::kBadValue));
}

TEST_F(CertificateTest, ParsingRefusesWhatIsNotOneCertificate) {
  const Bytes der = self_signed_certificate(server_).value();
  EXPECT_TRUE(fails_with(certificate_public_key({}), Reason::kBadEncoding));
  EXPECT_TRUE(fails_with(certificate_public_key(as_bytes("text")), Reason::kBadEncoding));
  EXPECT_TRUE(fails_with(certificate_public_key(Bytes(65537, 0x30)), Reason::kTooLarge));
  EXPECT_TRUE(
      fails_with(certificate_public_key(concat({der, Bytes(1, 0)})), Reason::kTrailingBytes));
  for (std::size_t n = 0; n < der.size(); ++n) {
    ASSERT_TRUE(fails_with(certificate_public_key(ByteView(der).first(n)), Reason::kBadEncoding));
  }
  // Whatever one bit does, there is a Result and a clean queue; a P-256 point with one bit changed
  // is off the curve, so that a key that is read is the one that was there.
  const Bytes spki = server_.public_key().spki_der();
  for (std::size_t i = 0; i < der.size() * 8; ++i) {
    const auto read = certificate_public_key(flipped(der, i));
    if (read.ok()) {
      EXPECT_EQ((*read).spki_der(), spki);
    }
  }
}

TEST_F(CertificateTest, PemReadsBack) {
  const Bytes der = self_signed_certificate(server_).value();
  const std::string pem = certificate_pem(der);
  EXPECT_TRUE(pem.starts_with("-----BEGIN CERTIFICATE-----\n"));
  EXPECT_TRUE(pem.ends_with("-----END CERTIFICATE-----\n"));
  BIO* bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
  const Certificate x(PEM_read_bio_X509(bio, nullptr, nullptr, nullptr));
  BIO_free(bio);
  ASSERT_TRUE(x);
  std::uint8_t* out = nullptr;
  const int n = i2d_X509(x.get(), &out);
  EXPECT_EQ(Bytes(out, out + n), der);
  OPENSSL_free(out);
}

}  // namespace
}  // namespace gbx::crypto
