// Every signed record in the place of every other: of another type, another body, another key,
// another installation. The records are those of tests/records/vectors.json, so that a new one is
// tried without a word here.
#include <gtest/gtest.h>

#include <set>

#include "vectors.h"

namespace gbx::vectors {
namespace {

using records::Signed;

crypto::PublicKey key_of(const Record& r) {
  return crypto::PublicKey::from_text(file().keys.at(r.signer).public_key).value();
}
// As it travels: {"type", "body", "key", "signature"}.
Json document(const Record& r, const std::string& type, const Json& body) {
  Json j;
  j["type"] = type;
  j["body"] = body;
  j["key"] = file().keys.at(r.signer).public_key;
  j["signature"] = to_base64url(r.signature);
  return j;
}

struct Tally {
  int tried = 0;
  std::map<Reason, int> refused;  // by reason
};

// `j` is refused as a Signed<Body> of this set, wherever the reading stops.
template <class Body>
void refuse(Tally& tally, const Json& j, const records::SetId& set_id, const crypto::PublicKey& key,
            const std::string& what) {
  ++tally.tried;
  const auto read = from_json<Signed<Body>>(j);
  const Status verdict = read.ok() ? read->verify(set_id, key) : Status(read.error());
  EXPECT_FALSE(verdict.ok()) << what;
  if (!verdict.ok()) ++tally.refused[verdict.reason()];
}

template <class Body>
void in_the_place_of(Tally& tally, const std::vector<const Record*>& own) {
  const std::string type(Body::kType);
  ASSERT_FALSE(own.empty()) << type;
  for (const Record& r : file().records) {
    const std::string what = r.name + " as " + type;
    const auto key = key_of(r);
    if (r.type == type) {
      // It counts in its own place, so that what follows is refused for what was changed.
      const auto genuine = from_json<Signed<Body>>(document(r, type, r.body));
      ASSERT_TRUE(genuine.ok()) << what << genuine.error().line();
      ASSERT_TRUE(genuine->verify(file().set_id, key).ok()) << what;
      records::SetId other = file().set_id;
      other[0] ^= 1;
      if (Body::kBindsSet) refuse<Body>(tally, document(r, type, r.body), other, key, what);
      for (const auto& [name, signer] : file().keys) {
        if (name == r.signer) continue;
        const auto stranger = crypto::PublicKey::from_text(signer.public_key).value();
        refuse<Body>(tally, document(r, type, r.body), file().set_id, stranger, what + name);
        Json claimed = document(r, type, r.body);
        claimed["key"] = signer.public_key;
        refuse<Body>(tally, claimed, file().set_id, stranger, what + " claimed by " + name);
      }
    } else {
      refuse<Body>(tally, document(r, r.type, r.body), file().set_id, key, what);
      refuse<Body>(tally, document(r, type, r.body), file().set_id, key, what + ", renamed");
    }
    // The signature of one under the body of another, of whatever type.
    for (const Record* mine : own) {
      if (mine->canonical == r.canonical && r.type == type) continue;
      refuse<Body>(tally, document(r, type, mine->body), file().set_id, key,
                   mine->name + " with the signature of " + r.name);
    }
  }
}

template <class Body>
void try_type(Tally& tally) {
  std::vector<const Record*> own;
  for (const Record& r : file().records) {
    if (r.type == Body::kType) own.push_back(&r);
  }
  in_the_place_of<Body>(tally, own);
}
template <class... Bodies>
void try_all(Tally& tally, Types<Bodies...>) {
  (try_type<Bodies>(tally), ...);
}

TEST(TypeConfusion, NoSignedRecordCountsInThePlaceOfAnother) {
  Tally tally;
  try_all(tally, Records{});
  EXPECT_GT(tally.tried, 9'000);  // docs/hostile.md says how many
  // Most are stopped by their name or members, and what gets through by the signature.
  EXPECT_GT(tally.refused[Reason::kBadValue], 1'000);
  EXPECT_GT(tally.refused[Reason::kBadSignature], 1'000);
  for (const auto& [reason, n] : tally.refused) {
    std::printf("%6d %s\n", n, std::string(reason_code(reason)).c_str());
  }
}

template <class... Bodies>
std::set<std::string> labels(Types<Bodies...>) {
  return {records::label_of<Bodies>()...};
}
template <class... Bodies>
constexpr std::size_t size_of(Types<Bodies...>) {
  return sizeof...(Bodies);
}

// Same bytes, other type: another hash and another message, for the label says which.
TEST(TypeConfusion, NoTwoTypesShareALabelOrOneThatAnotherBeginsWith) {
  const auto all = labels(Records{});
  EXPECT_EQ(all.size(), size_of(Records{}));
  for (const auto& a : all) {
    EXPECT_EQ(a.find('\0'), std::string::npos) << a;  // which ends a label in the message
  }
}

}  // namespace
}  // namespace gbx::vectors
