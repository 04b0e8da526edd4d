// Names, and what makes the plane's and the broker's words about an asset believable.
#include "cli/catalogue.h"

#include <gtest/gtest.h>

#include "broker/testing.h"
#include "cli/publishing.h"

namespace gbx::cli {
namespace {

using gbx::testing::BrokerWorld;
using gbx::testing::must;

api::AssetView named(const std::string& name, std::int64_t version, std::uint8_t owner,
                     std::uint8_t asset) {
  api::AssetView v;
  v.record.body.name = name;
  v.record.body.version = version;
  v.record.body.owner_id.fill(owner);
  v.record.body.asset_id.fill(asset);
  v.version_id = v.record.body.id();
  return v;
}
Result<Hash32> chosen(const std::string& text, const std::vector<api::AssetView>& list) {
  GBX_ASSIGN(AssetName name, parse_asset_name(text));
  GBX_ASSIGN(const api::AssetView* v, choose_asset(name, list));
  return v->version_id;
}

TEST(AssetName, ChoosesTheNewestOrTheOneThatIsMeant) {
  const std::vector<api::AssetView> list{named("a", 1, 1, 1), named("a", 3, 1, 1),
                                         named("a", 2, 1, 1), named("b", 1, 2, 2)};
  EXPECT_EQ(must(chosen("a", list)), list[1].version_id);
  EXPECT_EQ(must(chosen("a@2", list)), list[2].version_id);
  EXPECT_EQ(must(chosen("01010101/a@1", list)), list[0].version_id);
  EXPECT_EQ(must(chosen(to_hex(list[3].version_id), list)), list[3].version_id);
  EXPECT_EQ(must(chosen(to_hex(list[3].version_id).substr(0, 10), list)), list[3].version_id);
  EXPECT_EQ(chosen("a@4", list).reason(), Reason::kNotFound);
  EXPECT_EQ(chosen("c", list).reason(), Reason::kNotFound);
  EXPECT_EQ(chosen("02020202/a", list).reason(), Reason::kNotFound);
}

TEST(AssetName, NeverPicksAnOwnerByChance) {
  const std::vector<api::AssetView> list{named("a", 9, 1, 1), named("a", 1, 2, 2)};
  const auto r = chosen("a", list);
  EXPECT_EQ(r.reason(), Reason::kConflict);
  EXPECT_NE(r.error().actual.find("020202020202/a"), std::string::npos);
  EXPECT_EQ(must(chosen("02020202/a", list)), list[1].version_id);
  const std::vector<api::AssetView> same_owner{named("a", 1, 1, 1), named("a", 1, 1, 2)};
  EXPECT_EQ(chosen("a", same_owner).reason(), Reason::kConflict);
  // A name that looks like the beginning of another version's id.
  std::vector<api::AssetView> tricky{named("x", 1, 1, 1)};
  tricky.push_back(named(to_hex(tricky[0].version_id).substr(0, 8), 1, 2, 2));
  EXPECT_EQ(chosen(tricky[1].record.body.name, tricky).reason(), Reason::kConflict);
}

TEST(AssetName, AnImageByDigestIsNeverPickedByChance) {
  const std::vector<api::AssetView> list{named("a", 1, 1, 1), named("a", 2, 1, 1),
                                         named("b", 1, 2, 2), named("a", 1, 3, 3)};
  Hash32 nobody{};
  Hash32 second{};
  second.fill(2);
  const auto pick = [&](const std::string& name, const Hash32& own) -> Result<Hash32> {
    GBX_ASSIGN(const api::AssetView* v, choose_image(name, own, list));
    return v->version_id;
  };
  EXPECT_EQ(must(pick("b", nobody)), list[2].version_id);
  EXPECT_EQ(must(pick("01010101/a", nobody)), list[1].version_id);  // its newest version
  EXPECT_EQ(pick("a", nobody).reason(), Reason::kConflict);
  EXPECT_EQ(pick("registry.example:5000/x", nobody).reason(), Reason::kConflict);
  EXPECT_EQ(must(pick("registry.example:5000/x", second)), list[2].version_id);
  EXPECT_EQ(choose_image("a", nobody, {}).reason(), Reason::kNotFound);
}

TEST(OwnVersions, ANameIsAllOfItsAssetAndAVersionIsItself) {
  const std::vector<api::AssetView> list{named("a", 3, 1, 1), named("a", 1, 1, 1),
                                         named("b", 1, 1, 2), named("a", 2, 1, 1)};
  const auto own = [&](const std::string& text) -> Result<OwnVersions> {
    GBX_ASSIGN(AssetName name, parse_asset_name(text));
    return choose_own(name, list);
  };
  const OwnVersions a = must(own("a"));
  ASSERT_EQ(a.all.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(a.all[i].record.body.version, static_cast<std::int64_t>(i) + 1);
  }
  EXPECT_EQ(a.chosen, 2u);
  EXPECT_FALSE(a.one);
  const OwnVersions second = must(own("a@2"));
  EXPECT_EQ(second.all.size(), 3u);
  EXPECT_EQ(second.chosen, 1u);
  EXPECT_TRUE(second.one);
  const OwnVersions by_id = must(own(to_hex(list[1].version_id)));
  EXPECT_EQ(by_id.chosen, 0u);
  EXPECT_TRUE(by_id.one);
  EXPECT_EQ(must(own("b")).all.size(), 1u);
  EXPECT_EQ(own("c").reason(), Reason::kNotFound);
}

TEST(AssetName, MalformedNamesAreUsageErrors) {
  for (const std::string& bad :
       {std::string(), std::string("a@"), std::string("a@0"), std::string("a@x"), std::string("/a"),
        std::string("zz/a"), std::string("0101/a"), std::string("@1"), std::string("01010101/"),
        std::string(201, 'a')}) {
    EXPECT_EQ(parse_asset_name(bad).reason(), Reason::kUsage) << bad;
  }
}

TEST(Ids, PrefixesAreUniqueOrRefused) {
  Hash32 a{}, b{};
  a[0] = b[0] = 0xab;
  b[1] = 1;
  EXPECT_EQ(must(choose_id("ab00", {a, b}, "job", "list")), a);
  EXPECT_EQ(choose_id("ab", {a, b}, "job", "list").reason(), Reason::kConflict);
  EXPECT_EQ(choose_id("cd", {a, b}, "job", "list").reason(), Reason::kNotFound);
  EXPECT_EQ(must(choose_id("ab00", {a, a}, "job", "list")), a);
}

struct Published {
  BrokerWorld world{21};
  records::SetChain::Keys keys = must(world.set.chain.verify(world.set.id()));
  records::Publish publish;
  records::Signed<records::PublishAck> ack;
  Published() {
    must(world.start());
    publish = must_publish();
    ack =
        must(world.call<records::Signed<records::PublishAck>>(records::method::kPublish, publish));
  }
  records::Publish must_publish() {
    return gbx::testing::make_publish(world.set, world.data, world.random);
  }
  api::AssetView view() const {
    api::AssetView v;
    v.version_id = publish.record.body.id();
    v.record = publish.record;
    v.owner = publish.owner;
    v.policy = publish.policy;
    v.policy_hash = publish.policy.hash();
    v.ack = ack;
    return v;
  }
};

TEST(PublishAck, OfARealBrokerHolds) {
  Published p;
  const Status s = verify_publish_ack(p.keys, p.publish, p.ack);
  EXPECT_TRUE(s.ok()) << s.error().line();
  // Asked again after other entries: the same acknowledgement, with a proof that holds.
  must(p.world.publish(p.world.image));
  const auto again = must(
      p.world.call<records::Signed<records::PublishAck>>(records::method::kPublish, p.publish));
  EXPECT_TRUE(verify_publish_ack(p.keys, p.publish, again).ok());
}

TEST(PublishAck, NothingElseIsBelieved) {
  Published p;
  const auto resigned = [&](const std::function<void(records::PublishAck&)>& change) {
    records::PublishAck body = p.ack.body;
    change(body);
    return verify_publish_ack(p.keys, p.publish,
                              must(records::sign(p.world.set.id(), body, p.world.set.signing)))
        .reason();
  };
  EXPECT_EQ(resigned([](auto& a) { a.policy_hash[0] ^= 1; }), Reason::kPolicyMismatch);
  EXPECT_EQ(resigned([](auto& a) { a.asset_version_id[0] ^= 1; }), Reason::kWrongVersion);
  EXPECT_EQ(resigned([](auto& a) { a.serial += 1; }), Reason::kWrongVersion);
  EXPECT_EQ(resigned([](auto& a) { a.time += 1; }), Reason::kBadInclusion);
  EXPECT_EQ(resigned([](auto& a) { a.inclusion.leaf_salt[0] ^= 1; }), Reason::kBadInclusion);
  EXPECT_EQ(resigned([](auto& a) { a.inclusion.leaf_index = -1; }), Reason::kBadInclusion);
  EXPECT_EQ(resigned([](auto& a) { a.inclusion.root[0] ^= 1; }), Reason::kBadInclusion);
  auto forged = p.ack;
  forged.body.time += 1;
  EXPECT_EQ(verify_publish_ack(p.keys, p.publish, forged).reason(), Reason::kBadSignature);
  forged = must(records::sign(p.world.set.id(), p.ack.body, p.world.owner.key));
  EXPECT_EQ(verify_publish_ack(p.keys, p.publish, forged).reason(), Reason::kBadSignature);
  // The same policy with the key wrapped differently was not what the broker logged.
  EXPECT_EQ(verify_publish_ack(p.keys, p.must_publish(), p.ack).reason(), Reason::kBadInclusion);
}

TEST(AssetView, EverySignatureCounts) {
  Published p;
  const api::AssetView good = p.view();
  ASSERT_TRUE(verify_asset_view(p.keys, good).ok())
      << verify_asset_view(p.keys, good).error().line();
  const auto changed = [&](const std::function<void(api::AssetView&)>& change) {
    api::AssetView v = good;
    change(v);
    return verify_asset_view(p.keys, v).reason();
  };
  EXPECT_EQ(changed([](auto& v) { v.record.body.name = "another"; }), Reason::kWrongAsset);
  EXPECT_EQ(changed([](auto& v) { v.record.signature[0] ^= 1; }), Reason::kBadSignature);
  EXPECT_EQ(changed([](auto& v) { v.policy.body.clauses.attempts = 99; }), Reason::kBadSignature);
  EXPECT_EQ(changed([&](auto& v) { v.owner = p.world.consumer.chain; }), Reason::kWrongOwner);
  EXPECT_EQ(changed([](auto& v) { v.version_id[0] ^= 1; }), Reason::kWrongVersion);
  EXPECT_EQ(changed([](auto& v) { v.policy_hash[0] ^= 1; }), Reason::kBadHash);
  EXPECT_EQ(changed([](auto& v) { v.ack.signature[0] ^= 1; }), Reason::kBadSignature);
  EXPECT_EQ(changed([&](auto& v) {
              v.ack = must(records::sign(p.world.set.id(), p.ack.body, p.world.owner.key));
            }),
            Reason::kBadSignature);
}

TEST(BrokerEvidence, AnswersOurNonceWithTheSetsKeys) {
  Published p;
  const Nonce32 nonce{5};
  const auto info =
      must(p.world.call<records::InfoReply>(records::method::kInfo, records::InfoRequest{nonce}));
  EXPECT_TRUE(verify_broker(p.keys, info.evidence, nonce).ok());
  EXPECT_EQ(verify_broker(p.keys, info.evidence, Nonce32{6}).reason(), Reason::kNonceMismatch);
  auto other = info.evidence;
  other.body.custody = records::Custody::kTee;
  EXPECT_EQ(verify_broker(p.keys, other, nonce).reason(), Reason::kBadSignature);
  const auto with = [&](const std::function<void(records::BrokerEvidence&)>& change) {
    records::BrokerEvidence body = info.evidence.body;
    change(body);
    return verify_broker(p.keys, must(records::sign(p.world.set.id(), body, p.world.set.signing)),
                         nonce)
        .reason();
  };
  EXPECT_EQ(with([&](auto& e) { e.kek = p.world.owner.hpke.public_key().text(); }),
            Reason::kBrokerUntrusted);
  EXPECT_EQ(with([](auto& e) { e.epoch = 2; }), Reason::kBrokerUntrusted);
  EXPECT_EQ(with([&](auto& e) { e.set_key = p.world.owner.key.public_key().text(); }),
            Reason::kBrokerUntrusted);
}

}  // namespace
}  // namespace gbx::cli
