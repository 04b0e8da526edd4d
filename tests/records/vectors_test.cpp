// Holds src/records against tests/records/vectors.json, byte for byte: a changed name, order, label
// or encoding fails here before it breaks what is signed already. check.py does the same without
// any code of ours.
#include "vectors.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <regex>
#include <set>

#include "broker/entries.h"
#include "policy/receipt_verify.h"
#include "translog/translog.h"

namespace gbx::vectors {
namespace {

using namespace gbx::records;  // NOLINT

// Which optional members, lists and maps were ever filled, by path.
struct Coverage {
  std::map<std::string, bool>& filled;
  std::string at;
  template <class T>
  void operator()(const char* name, T& v, Bound = {}) {
    visit(at + "." + name, v);
  }
  template <class T>
  void visit(const std::string& path, T& v) {
    if constexpr (fields_detail::is_optional<T>) {
      filled[path] |= v.has_value();
      if (v) visit(path, *v);
    } else if constexpr (std::is_same_v<T, Bytes> || fields_detail::is_fixed<T> ||
                         std::is_same_v<T, Json>) {
      return;
    } else if constexpr (fields_detail::is_vector<T>) {
      filled[path] |= !v.empty();
      for (auto& e : v) visit(path + "[]", e);
    } else if constexpr (fields_detail::is_map<T>) {
      filled[path] |= !v.empty();
    } else if constexpr (std::is_class_v<T> && !std::is_same_v<T, std::string>) {
      Coverage inner{filled, path};
      v.fields(inner);
    }
  }
};

crypto::SigningKey signing_key(const std::string& name) {
  const Key& k = file().keys.at(name);
  const auto algorithm = name == "p256" ? crypto::SignatureAlgorithm::kEcdsaP256
                                        : crypto::SignatureAlgorithm::kEd25519;
  const Bytes raw = from_hex(k.private_key).value();
  auto key = crypto::SigningKey::from_private(algorithm, Secret<SigningKeyTag>::copy_of(raw));
  EXPECT_EQ(key->public_key().text(), k.public_key);
  return std::move(key).value();
}

// What was met in the file's records.
struct Seen {
  std::map<std::string, bool> filled;
  std::map<std::string, std::vector<std::string>> words;
};

template <class Body>
void hold(const Record& v, Seen& seen) {
  SCOPED_TRACE(v.name);
  const auto body = from_json<Body>(v.body);
  ASSERT_TRUE(body.ok()) << body.error().line();
  EXPECT_EQ(canonical(to_json(*body)), v.canonical);
  EXPECT_EQ(hash_of(*body), v.hash);
  EXPECT_EQ(hash_of(*body),
            crypto::sha256(concat({as_bytes("gbx/1/" + v.type), Bytes{0}, as_bytes(v.canonical)})));
  const Bytes message = signed_message(file().set_id, *body);
  EXPECT_EQ(to_hex(message), v.message_prefix + to_hex(as_bytes(v.canonical)));
  const auto key = signing_key(v.signer);
  if (v.signer != "p256") {
    EXPECT_EQ(key.sign(message).value(), v.signature);
  }
  Signed<Body> s;
  s.body = *body;
  s.key = key.public_key().text();
  s.signature = v.signature;
  EXPECT_TRUE(s.verify(file().set_id, key.public_key()).ok());
  Body copy = *body;
  Coverage c{seen.filled, v.type};
  copy.fields(c);
  Words words(seen.words, v.type);
  copy.fields(words);
}
template <class... Bodies>
bool hold_any(Types<Bodies...>, const Record& v, Seen& seen) {
  return ((v.type == Bodies::kType && (hold<Bodies>(v, seen), true)) || ...);
}

TEST(RecordVectors, EveryRecordHasTheBytesHashAndSignatureOfTheFile) {
  Seen seen;
  for (const auto& v : file().records) EXPECT_TRUE(hold_any(Records{}, v, seen)) << v.type;
  EXPECT_GT(seen.filled.size(), 60u);
  for (const auto& [path, was] : seen.filled) {
    EXPECT_TRUE(was) << path << " is empty in every vector";
  }
  EXPECT_EQ(seen.words, file().words);
  EXPECT_GT(seen.words.size(), 30u);
}

// Signatures that whoever has the right one can make of it.
template <class Body>
void refuse(const Refused& v, const Record& of) {
  SCOPED_TRACE(v.name);
  const auto key = signing_key(of.signer);
  const Signed<Body> s{from_json<Body>(of.body).value(), key.public_key().text(), v.signature};
  EXPECT_EQ(std::string(reason_code(s.verify(file().set_id, key.public_key()).reason())), v.reason);
  // Nothing else is wrong with it.
  EXPECT_TRUE(key.public_key().verify(signed_message(file().set_id, s.body), s.signature));
}
template <class... Bodies>
bool refuse_any(Types<Bodies...>, const Refused& v, const Record& of) {
  return ((of.type == Bodies::kType && (refuse<Bodies>(v, of), true)) || ...);
}
TEST(RecordVectors, OtherSignaturesDoNotCount) {
  EXPECT_FALSE(file().refused.empty());
  for (const auto& v : file().refused) {
    const auto of = std::find_if(file().records.begin(), file().records.end(),
                                 [&](const auto& r) { return r.name == v.record; });
    ASSERT_NE(of, file().records.end());
    EXPECT_TRUE(refuse_any(Records{}, v, *of)) << v.name;
  }
}

// A type that is missing in the file, or here, would be held against nothing.
TEST(RecordVectors, CoverEveryTypeOfTheSources) {
  std::set<std::string> declared;
  const std::regex type(R"rx(kType = "([^"]*)")rx");
  for (const auto& source : std::filesystem::directory_iterator(source_dir() + "/src/records")) {
    if (source.path().extension() != ".h") continue;
    const auto bytes = read_file(source.path(), 1 << 20);
    const std::string text(as_text(bytes.value()));
    for (std::sregex_iterator i(text.begin(), text.end(), type), end; i != end; ++i) {
      declared.insert((*i)[1]);
    }
  }
  std::set<std::string> held;
  for (const auto& v : file().records) held.insert(v.type);
  EXPECT_EQ(declared, held);
  EXPECT_GT(held.size(), 30u);
}

// Renames one member after another, at every depth.
void each_rename(Json& root, Json& at,
                 const std::function<void(const Json&, const std::string&)>& visit) {
  if (JsonArray* a = at.array()) {
    for (auto& e : *a) each_rename(root, e, visit);
  }
  JsonObject* o = at.object();
  if (o == nullptr) return;
  std::vector<std::string> names;
  for (const auto& [name, unused] : *o) names.push_back(name);
  for (const auto& name : names) {
    // Free JSON and maps have no members of their own.
    if (name != "schema" && name != "env" && name != "labels") each_rename(root, (*o)[name], visit);
    Json value = std::move((*o)[name]);
    o->erase(name);
    (*o)[name + "X"] = std::move(value);
    visit(root, name);
    value = std::move((*o)[name + "X"]);
    o->erase(name + "X");
    (*o)[name] = std::move(value);
  }
}
template <class... Bodies>
bool parses(Types<Bodies...>, const std::string& type, const Json& body) {
  return ((type == Bodies::kType && from_json<Bodies>(body).ok()) || ...);
}
TEST(RecordVectors, EveryNameCounts) {
  std::size_t renamed = 0;
  for (const auto& v : file().records) {
    Json body = v.body;
    ASSERT_TRUE(parses(Records{}, v.type, body)) << v.name;
    each_rename(body, body, [&](const Json& other, const std::string& member) {
      ++renamed;
      EXPECT_FALSE(parses(Records{}, v.type, other))
          << v.name << " with another name for " << member;
    });
    EXPECT_EQ(canonical(body), v.canonical);
  }
  EXPECT_GT(renamed, 500u);
}

TEST(RecordVectors, HashesThatAreNotOfOneRecord) {
  const Derived& d = file().derived;
  const auto s = std::find_if(file().records.begin(), file().records.end(),
                              [](const auto& v) { return v.name == "submission-full"; });
  ASSERT_NE(s, file().records.end());
  EXPECT_EQ(from_json<Submission>(s->body)->job_id(), d.job_id);
  EXPECT_EQ(canonical(to_json(d.report_data)), d.report_data_canonical);
  EXPECT_EQ(d.report_data.digest(), d.report_data_digest);
  EXPECT_EQ(translog::leaf_hash(d.leaf_salt, as_bytes(d.leaf_entry)), d.leaf);
  const auto boot = from_json_text<broker::LogEntry>(d.leaf_entry);
  ASSERT_TRUE(boot.ok());
  EXPECT_TRUE(from_json<broker::BootEntry>(boot->body).ok());
}

TEST(RecordVectors, TheReceiptHoldsStill) {
  const std::string text = canonical(file().receipt);
  EXPECT_EQ(crypto::sha256(as_bytes(text)), file().receipt_sha256);
  const auto receipt = from_json<Receipt>(file().receipt);
  ASSERT_TRUE(receipt.ok()) << receipt.error().line();
  EXPECT_EQ(canonical(to_json(*receipt)), text);
  const auto report = policy::verify_receipt(*receipt, file().receipt_set_id);
  EXPECT_TRUE(report.valid) << report.first_failure().line();
  EXPECT_EQ(report.job_id, file().receipt_job_id);
  std::map<std::string, bool> filled;
  Receipt copy = *receipt;
  Coverage c{filled, "receipt"};
  copy.fields(c);
  for (const char* path : {"receipt.holdNotice", "receipt.rulings", "receipt.leases",
                           "receipt.beacons", "receipt.cosignatures", "receipt.destroyed",
                           "receipt.set.successors", "receipt.identities[].rotations"}) {
    EXPECT_TRUE(filled.at(path)) << path;
  }
}

}  // namespace
}  // namespace gbx::vectors
