// Signatures of quotes: the published ones hold, and none does after any change.
#include "attest/tdx/verify.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>  // after gtest.h, which it needs and does not include

#include <functional>

#include "attest/sim/platform.h"
#include "attest/testing.h"
#include "crypto/certificates.h"

namespace gbx::attest::tdx {
namespace {

using records::Check;
using testing::changed;
using testing::fails_with;
using testing::vector_file;

struct Published {
  const char* file;
  std::int64_t from, to;  // validity of the PCK certificate
  bool debug;
};
constexpr Published kPublished[] = {
    {"tdx/tdx-v4.quote.bin", 1738884351, 1959722751, false},
    {"tdx/tdx-v5.quote.bin", 1769524587, 1990449387, false},
    {"tdx/tdx-cos113.quote.bin", 1719922057, 1940760457, false},
    {"tdx/tdx-debug.quote.bin", 1675756975, 1896681775, true},
};
Bytes published(const Published& p) {
  const Bytes file = vector_file(p.file);
  return to_bytes(without_padding(file).value());
}

Result<Claims> verify(ByteView bytes, const Hash32& root, std::int64_t now) {
  GBX_ASSIGN(const Quote q, parse_quote(bytes));
  return verify_signatures(q, {root, now});
}

TEST(TdxVectors, PublishedQuotesVerifyUnderIntelsRoot) {
  GBX_NEEDS_VECTORS();
  for (const Published& p : kPublished) {
    const Bytes bytes = published(p);
    for (const std::int64_t now : {p.from, p.from + 86400, p.to - 1}) {
      const auto claims = verify(bytes, intel_root(), now);
      ASSERT_TRUE(claims.ok()) << p.file << ": " << claims.error().line();
      EXPECT_EQ(claims->debug, p.debug) << p.file;
      EXPECT_FALSE(claims->migratable) << p.file;
      EXPECT_EQ(claims->root, intel_root());
      EXPECT_EQ(claims->collateral, Check::kNotChecked);
      EXPECT_EQ(claims->body, parse_quote(bytes)->body);
    }
    EXPECT_EQ(claimed_root(parse_quote(bytes).value()).value(), intel_root());
    for (const std::int64_t now : {p.from - 1, p.to + 1}) {
      EXPECT_TRUE(
          fails_with(verify(bytes, intel_root(), now), Reason::kEvidenceRejected, "expired"))
          << p.file;
    }
    Hash32 other = intel_root();
    other[31] ^= 1;
    EXPECT_TRUE(
        fails_with(verify(bytes, other, p.from), Reason::kEvidenceRejected, "another root"));
  }
}

TEST(TdxVectors, NoPublishedQuoteVerifiesAfterAChange) {
  GBX_NEEDS_VECTORS();
  for (const Published& p : kPublished) {
    const Bytes bytes = published(p);
    // TdxVerify has each byte, and ChainTest those of the chain.
    for (std::size_t i = 0; i < bytes.size(); i += 7) {
      const auto claims = verify(changed(bytes, i, i % 8), intel_root(), p.from + 1);
      ASSERT_FALSE(claims.ok()) << p.file << " byte " << i;
    }
  }
}

class TdxVerify : public ::testing::Test {
 protected:
  TdxVerify() {
    SeededRandom r(3);
    sim::SimMeasurement m;
    m.mrtd.fill(1);
    bytes_ = platform_.quote(m, r.fixed<64>()).value();
    quote_ = parse_quote(bytes_).value();
  }
  Result<Claims> claims(const Quote& q) const {
    return verify_signatures(q, {platform_.root().fingerprint(), kNow});
  }
  Result<Claims> claims_of_body(const std::function<void(Quote&)>& change) const {
    Quote q = quote_;
    change(q);
    return claims(platform_.sign(q).value());
  }
  static constexpr std::int64_t kNow = 1'800'000'000;
  SeededRandom random_{4};
  sim::SimPlatform platform_ = sim::SimPlatform::create(random_).value();
  Bytes bytes_;
  Quote quote_;
};

TEST_F(TdxVerify, EveryChangedByteIsRefused) {
  ASSERT_TRUE(claims(quote_).ok()) << claims(quote_).error().line();
  const std::size_t chain = bytes_.size() - quote_.pck_chain.size();
  for (std::size_t i = 0; i < bytes_.size(); i += i < chain ? 1 : 5) {
    const auto c = verify(changed(bytes_, i, i % 8), platform_.root().fingerprint(), kNow);
    ASSERT_FALSE(c.ok()) << i;
  }
}

TEST_F(TdxVerify, EachPartHasItsRefusal) {
  const auto with = [&](auto&& change) {
    Quote q = quote_;
    change(q);
    return claims(q);
  };
  constexpr Reason kNo = Reason::kEvidenceRejected;
  const char* const body = "attestation key's signature of the body";
  const char* const enclave = "PCK's signature of the quoting enclave";
  const char* const key = "another attestation key";
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.header.version = 5; }), kNo, body));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.header.qe_svn ^= 1; }), kNo, body));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.header.pce_svn ^= 1; }), kNo, body));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.header.user_data[0] ^= 1; }), kNo, body));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.body.mrtd[0] ^= 1; }), kNo, body));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.body.rtmr[3][47] ^= 1; }), kNo, body));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.body.mr_config_id[0] ^= 1; }), kNo, body));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.body.report_data[63] ^= 1; }), kNo, body));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.body.td_attributes[0] ^= 1; }), kNo, body));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.signature[0] ^= 1; }), kNo, body));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.qe_report.mr_signer[0] ^= 1; }), kNo, enclave));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.qe_report.reserved_4[0] ^= 1; }), kNo, enclave));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.qe_signature[63] ^= 1; }), kNo, enclave));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.qe_auth[0] ^= 1; }), kNo, key));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.qe_auth.clear(); }), kNo, key));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.attestation_key[0] ^= 1; }), kNo, key));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.pck_chain.clear(); }), kNo, "chain"));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.pck_chain.push_back(1); }), kNo, "chain"));
  EXPECT_TRUE(fails_with(with([](Quote& q) { q.pck_chain.pop_back(); }), kNo, "chain"));
  // The zero that ends a C string is the one thing that may be counted or not.
  EXPECT_TRUE(with([](Quote& q) { q.pck_chain.push_back(0); }).ok());
  EXPECT_TRUE(
      fails_with(with([](Quote& q) { q.pck_chain.resize(q.pck_chain.size() + 2); }), kNo, "chain"));
}

TEST_F(TdxVerify, PartsOfTwoPlatformsDoNotMix) {
  SeededRandom r(9);
  const auto other = sim::SimPlatform::create(r).value();
  const Quote theirs = other.sign(quote_).value();
  EXPECT_TRUE(fails_with(claims(theirs), Reason::kEvidenceRejected, "another root"));
  Quote q = quote_;
  q.pck_chain = theirs.pck_chain;
  EXPECT_FALSE(claims(q).ok());
  q = theirs;
  q.pck_chain = quote_.pck_chain;
  EXPECT_TRUE(fails_with(claims(q), Reason::kEvidenceRejected, "quoting enclave"));
  q = quote_;
  q.attestation_key = theirs.attestation_key;
  q.signature = theirs.signature;
  EXPECT_TRUE(fails_with(claims(q), Reason::kEvidenceRejected, "another attestation key"));
}

// Signed as it should be, with a chain that holds; but the PCK is the root's own child.
TEST_F(TdxVerify, AChainOfAnotherLengthIsRefused) {
  const auto key = [this] {
    return crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEcdsaP256, random_).value();
  };
  const crypto::SigningKey root = key(), middle = key(), pck = key(), attestation = key();
  const auto certificate = [](const char* name, const crypto::SigningKey& own, const char* issuer,
                              const crypto::SigningKey& by, std::optional<int> path_length) {
    crypto::CertificateRequest r{name, issuer, &own.public_key(), &by, path_length, 0, 2 * kNow};
    return crypto::certificate_pem(crypto::issue_certificate(r).value());
  };
  const auto signed_by = [](const crypto::SigningKey& by, ByteView message) {
    return fixed_from<64>(by.sign(message).value()).value();
  };
  Quote q = quote_;
  const Bytes spki = attestation.public_key().spki_der();
  std::copy(spki.end() - 64, spki.end(), q.attestation_key.begin());
  const Hash32 bound = crypto::sha256({q.attestation_key, q.qe_auth});
  std::copy(bound.begin(), bound.end(), q.qe_report.report_data.begin());
  q.qe_signature = signed_by(pck, serialize(q.qe_report));
  q.signature = signed_by(attestation, signed_bytes(q));
  const auto with = [&](const std::string& pem) {
    q.pck_chain = to_bytes(as_bytes(pem));
    return verify_signatures(q, {root.public_key().fingerprint(), kNow});
  };
  const std::string root_pem = certificate("root", root, "root", root, 1);
  const std::string middle_pem = certificate("middle", middle, "root", root, 0);
  EXPECT_TRUE(
      with(certificate("pck", pck, "middle", middle, std::nullopt) + middle_pem + root_pem).ok());
  EXPECT_TRUE(fails_with(with(certificate("pck", pck, "root", root, std::nullopt) + root_pem),
                         Reason::kEvidenceRejected, "certificates in the PCK"));
}

TEST_F(TdxVerify, WhatTheHostCanReadOrMoveIsClaimedSo) {
  EXPECT_FALSE(claims(quote_)->debug);
  EXPECT_FALSE(claims(quote_)->migratable);
  for (unsigned bit = 0; bit < 8; ++bit) {
    const auto debug = [bit](Quote& q) {
      q.body.td_attributes[0] = static_cast<std::uint8_t>(1U << bit);
    };
    EXPECT_TRUE(claims_of_body(debug)->debug) << bit;
  }
  EXPECT_TRUE(claims_of_body([](Quote& q) { q.body.seam_attributes[0] = 1; })->debug);
  EXPECT_TRUE(claims_of_body([](Quote& q) { q.body.td_attributes[3] = 0x20; })->migratable);
  // SEPT_VE_DISABLE is neither.
  const auto c = claims_of_body([](Quote& q) { q.body.td_attributes[3] = 0x10; });
  EXPECT_FALSE(c->debug || c->migratable);
}

RC_GTEST_PROP(TdxProperty, WhatIsReadIsWhatWasSigned, (const std::uint64_t& seed, bool five)) {
  static SeededRandom platform_random(8);
  static const auto platform = sim::SimPlatform::create(platform_random).value();
  SeededRandom random(seed);
  Quote q;
  q.header.version = five ? 5 : 4;
  q.header.user_data = random.fixed<20>();
  for (Register& r : q.body.rtmr) r = random.fixed<48>();
  q.body.td_attributes = random.fixed<8>();
  q.body.report_data = random.fixed<64>();
  if (five) q.body_15.emplace().mr_service_td = random.fixed<48>();
  const Quote made = platform.sign(q).value();
  const auto c = verify(serialize(made), platform.root().fingerprint(), 1'800'000'000);
  RC_ASSERT(c.ok());
  RC_ASSERT(c->body == q.body);
  RC_ASSERT(c->body_15 == q.body_15);
  const Bytes bytes = serialize(made);
  const auto at = static_cast<std::size_t>(random.below(bytes.size()));
  const auto bit = static_cast<unsigned>(random.below(8));
  RC_ASSERT(!verify(changed(bytes, at, bit), platform.root().fingerprint(), 1'800'000'000).ok());
}

}  // namespace
}  // namespace gbx::attest::tdx
