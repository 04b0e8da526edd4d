// Lies that only somebody with real keys can tell: a broken line of set keys, and a result sealed
// under another content key than the manifest commits to.
#include <gtest/gtest.h>

#include "records/sealing.h"

namespace gbx::records {
namespace {

using crypto::HpkeKeyPair;
using crypto::SigningKey;

SigningKey new_key(Random& r) {
  return *SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, r);
}

TEST(SetChainDenied, SuccessorsInOrderAndByTheirPredecessors) {
  SeededRandom r(20);
  const SigningKey genesis = new_key(r), second = new_key(r), third = new_key(r),
                   daily = new_key(r), thief = new_key(r);
  SetChain chain;
  chain.charter.genesis_set_key = genesis.public_key().text();
  chain.charter.salt = r.fixed<32>();
  chain.charter.technologies = {Technology::kNone};
  const SetId set = chain.charter.set_id();
  const EpochKeys epoch{1, HpkeKeyPair::generate(r)->public_key().text(), daily.public_key().text(),
                        daily.public_key().text()};
  const auto next = [&](std::int64_t serial, const SigningKey& key, const SigningKey& by) {
    return *sign(set, SetKeySuccessor{serial, key.public_key().text()}, by);
  };
  // Everything after the successors is signed as whoever made them wants it to be.
  const auto reason = [&](std::vector<Signed<SetKeySuccessor>> successors, const SigningKey& last) {
    SetChain c = chain;
    c.successors = std::move(successors);
    c.epoch = *sign(set, epoch, last);
    return c.verify(set).reason();
  };
  EXPECT_EQ(reason({next(1, second, genesis), next(2, third, second)}, third),
            Reason::kUninitialised);
  EXPECT_EQ(reason({next(2, second, genesis)}, second), Reason::kChainBroken);
  EXPECT_EQ(reason({next(1, second, genesis), next(1, third, second)}, third),
            Reason::kChainBroken);
  EXPECT_EQ(reason({next(1, second, genesis), next(3, third, second)}, third),
            Reason::kChainBroken);
  EXPECT_EQ(reason({next(1, thief, thief)}, thief), Reason::kBadSignature);
  // a key that was replaced
  EXPECT_EQ(reason({next(1, second, genesis), next(2, thief, genesis)}, thief),
            Reason::kBadSignature);
  Signed<SetKeySuccessor> claimed = next(1, thief, thief);
  claimed.key = genesis.public_key().text();
  EXPECT_EQ(reason({claimed}, thief), Reason::kBadSignature);
  EXPECT_EQ(
      reason({*sign(Hash32{9}, SetKeySuccessor{1, second.public_key().text()}, genesis)}, second),
      Reason::kBadSignature);
}

// AES-GCM commits to no key: one ciphertext can open under two, to two outputs. What the manifest
// commits to decides.
TEST(SealingDenied, AResultUnderAnotherKeyThanTheCommittedOne) {
  SeededRandom r(21);
  const auto consumer = *HpkeKeyPair::generate(r);
  const auto cek = r.secret<ContentKey>(32);
  const auto other = r.secret<ContentKey>(32);
  const ReleaseKey kr = r.secret<ReleaseKey>(32);
  constexpr SecretAccess kAccess{};
  const auto open_with = [&](const ContentKey& committed) {
    OutputManifest m;
    SealContext& c = m.context;
    c.job_id = r.fixed<32>();
    c.plan_hash = r.fixed<32>();
    // The layers of docs/protocol.md, made here because seal_result() only makes honest ones.
    ByteWriter aad;
    aad.text("gbx/1/output").u8(0).raw(c.job_id).u64(1).raw(c.plan_hash);
    SealedOutput output;
    output.ciphertext =
        *crypto::seal_once(cek.view(kAccess), kAccess, aad.bytes(), as_bytes("the checked output"));
    c.ciphertext = crypto::sha256(output.ciphertext);
    c.commit_cek = crypto::key_commitment(committed.view(kAccess), kAccess, aad.bytes());
    const Bytes inner = *crypto::hpke_seal(consumer.public_key(), hash_of(c), cek.view(kAccess), r);
    const auto outer = AeadKey::copy_of(kr.view(kAccess));
    output.wrapped_content = {
        *crypto::aead_seal(crypto::AeadSuite::kAes256Gcm, outer, Bytes(12), hash_of(c), inner)};
    m.wrapped_content = {crypto::sha256(output.wrapped_content[0])};
    const Bytes key = *seal_outer_key(consumer.public_key(), hash_of(m), kr, r);
    return open_result(consumer, 0, m, output, key).reason();
  };
  EXPECT_EQ(open_with(cek), Reason::kUninitialised);
  EXPECT_EQ(open_with(other), Reason::kBadCommitment);
}

}  // namespace
}  // namespace gbx::records
