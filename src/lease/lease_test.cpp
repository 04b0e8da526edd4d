#include "lease/lease.h"

#include <gtest/gtest.h>

#include "policy/testing.h"

namespace gbx::lease {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::kNow;
using gbx::testing::make_person;
using gbx::testing::must;

class Leases : public ::testing::Test {
 protected:
  Leases()
      : owner(make_person(random)), issuer(make_person(random)), consumer(make_person(random)) {
    body.lease_id = random.fixed<16>();
    body.asset_id = random.fixed<16>();
    body.consumer_id = consumer.id();
    body.jobs = 2;
    body.not_after = kNow + 100;
    body.set_id = set;
  }
  LeaseQuery query() const {
    return {set, body.asset_id, consumer.id(), &owner.chain, &issuers, now};
  }
  Reason find(const Signed<Lease>& lease) {
    SignedSubmission s;
    s.leases = {lease};
    if (named) s.submission.body.leases = {lease.body.lease_id};
    const auto r = SignedLeases(s, [this](const Lease&) { return uses; }).find(query());
    if (!r.ok()) {
      EXPECT_NE(r.error().expected + r.error().actual + r.error().what, "");
      EXPECT_EQ(r.error().next.find("--help"), std::string::npos);
      return r.reason();
    }
    EXPECT_EQ(*r, lease.body.lease_id);
    return Reason::kUninitialised;
  }
  Signed<Lease> by(const gbx::testing::Person& p) const { return must(sign(set, body, p.key)); }

  SeededRandom random{3};
  SetId set{1};
  gbx::testing::Person owner;
  gbx::testing::Person issuer;
  gbx::testing::Person consumer;
  Lease body;
  std::vector<std::string> issuers;
  std::int64_t now = kNow;
  std::int64_t uses = 0;
  bool named = true;
};

TEST_F(Leases, OwnerOrNamedIssuer) {
  EXPECT_EQ(find(by(owner)), Reason::kUninitialised);
  EXPECT_EQ(find(by(issuer)), Reason::kLeaseMissing);
  EXPECT_EQ(find(by(consumer)), Reason::kLeaseMissing);
  issuers = {issuer.key.public_key().text()};
  EXPECT_EQ(find(by(issuer)), Reason::kUninitialised);
  auto forged = by(issuer);
  forged.key = owner.key.public_key().text();
  EXPECT_EQ(find(forged), Reason::kBadSignature);
}

// The old key may be a thief's. What was accepted while it stood can still be checked.
TEST_F(Leases, AKeyThatWasRotatedAwaySignsNothingNew) {
  const auto old_lease = by(owner);
  auto newer = must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
  owner.chain.rotations = {
      must(sign(set, Rotation{owner.id(), 1, newer.public_key().text()}, owner.recovery))};
  EXPECT_EQ(find(old_lease), Reason::kLeaseMissing);
  EXPECT_EQ(find(must(sign(set, body, newer))), Reason::kUninitialised);
  EXPECT_EQ(find(must(sign(set, body, owner.recovery))), Reason::kLeaseMissing);
  LeaseQuery historical = query();
  historical.signer = Signer::kEver;
  EXPECT_TRUE(verify_lease(old_lease, historical).ok());
  EXPECT_TRUE(verify_lease(must(sign(set, body, newer)), historical).ok());
  EXPECT_EQ(verify_lease(by(issuer), historical).reason(), Reason::kLeaseMissing);
}

TEST_F(Leases, ExactlyThisSetAssetAndConsumer) {
  const Lease good = body;
  const auto lease = [&](auto change) {
    Lease other = good;
    change(other);
    return find(must(sign(set, other, owner.key)));
  };
  EXPECT_EQ(lease([](Lease& l) { l.set_id = Hash32{2}; }), Reason::kLeaseMissing);
  EXPECT_EQ(lease([](Lease& l) { l.asset_id = Id16{2}; }), Reason::kLeaseMissing);
  EXPECT_EQ(lease([](Lease& l) { l.consumer_id = Hash32{2}; }), Reason::kLeaseMissing);
  // signed for another set
  EXPECT_EQ(find(must(sign(Hash32{2}, good, owner.key))), Reason::kBadSignature);
  named = false;
  EXPECT_EQ(find(by(owner)), Reason::kLeaseMissing);  // the consumer did not offer it
}

// What SignedLeases looks at before it asks; whoever verifies a receipt asks directly.
TEST_F(Leases, VerifyingRefusesAnotherAssetByItself) {
  EXPECT_TRUE(verify_lease(by(owner), query()).ok());
  LeaseQuery other = query();
  other.asset_id[0] ^= 1;
  const Status s = verify_lease(by(owner), other);
  EXPECT_EQ(s.reason(), Reason::kLeaseMissing);
  EXPECT_EQ(s.error().actual, to_hex(body.asset_id));
}

TEST_F(Leases, TimeAndUses) {
  now = kNow + 100;
  EXPECT_EQ(find(by(owner)), Reason::kUninitialised);
  now = kNow + 101;
  EXPECT_EQ(find(by(owner)), Reason::kLeaseExpired);
  now = kNow;
  uses = 1;
  EXPECT_EQ(find(by(owner)), Reason::kUninitialised);
  uses = 2;
  EXPECT_EQ(find(by(owner)), Reason::kLeaseExhausted);
}

}  // namespace
}  // namespace gbx::lease
