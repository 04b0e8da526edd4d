// Writes tests/records/vectors.json from fixed keys. Run it by hand, and only when a format is
// meant to change: nothing in the tests calls it, so a member that was renamed by mistake meets the
// old file.
#include <cstdio>

#include "base/os.h"
#include "broker/receipt_testing.h"
#include "crypto/testing.h"
#include "vectors.h"

namespace gbx::vectors {
namespace {

using testing::must;
using namespace gbx::records;  // NOLINT

// Gives every member a value of its own. Full: all optional members, lists of two; else as little
// as the bounds allow.
class Filler {
 public:
  explicit Filler(bool full) : full_(full) {}
  template <class T>
  void operator()(const char* name, T& v, Bound b = {}) {
    fill(name, v, b);
  }

 private:
  std::string text(const std::string& name, Bound b) {
    const auto least = static_cast<std::size_t>(b.min);
    if (!full_) return std::string(least, 'x');
    std::string s = name + "-" + std::to_string(++count_);
    s.resize(std::min(std::max(s.size(), least),
                      static_cast<std::size_t>(std::min<std::int64_t>(b.max, 300))),
             'x');
    return s;
  }
  std::size_t entries(Bound b) const {
    return static_cast<std::size_t>(full_ ? std::min(std::max<std::int64_t>(b.min, 2), b.max)
                                          : b.min);
  }
  template <class T>
  void fill(const std::string& name, T& v, Bound b) {
    if constexpr (std::is_same_v<T, Json>) {
      v["maxRows"] = ++count_;
    } else if constexpr (std::is_same_v<T, bool>) {
      v = full_;
    } else if constexpr (std::is_same_v<T, std::int64_t>) {
      v = full_ ? std::min(std::max(b.min, ++count_), b.max) : b.min;
    } else if constexpr (std::is_same_v<T, std::string>) {
      v = text(name, b);
    } else if constexpr (std::is_same_v<T, Bytes>) {
      v.assign(static_cast<std::size_t>(std::max<std::int64_t>(b.min, full_ ? 5 : 0)),
               static_cast<std::uint8_t>(++count_));
    } else if constexpr (fields_detail::is_fixed<T>) {
      if (full_) v.fill(static_cast<std::uint8_t>(++count_));
    } else if constexpr (std::is_enum_v<T>) {
      const auto words = enum_names(T{});
      v = full_ ? words[static_cast<std::size_t>(++count_) % words.size()].value
                : words.front().value;
    } else if constexpr (fields_detail::is_optional<T>) {
      if (full_) fill(name, v.emplace(), b);
    } else if constexpr (fields_detail::is_vector<T>) {
      v.resize(entries(b));
      for (auto& e : v) fill(name, e, Bound{1, std::min<std::int64_t>(40, b.each)});
    } else if constexpr (fields_detail::is_map<T>) {
      for (std::size_t i = 0; i < entries(b); ++i) {
        fill(name, v[name + std::to_string(i)], Bound{1, std::min<std::int64_t>(40, b.each)});
      }
    } else {
      v.fields(*this);
    }
  }
  bool full_;
  std::int64_t count_ = 0;
};

crypto::SigningKey key_of(std::uint8_t seed, crypto::SignatureAlgorithm algorithm =
                                                 crypto::SignatureAlgorithm::kEd25519) {
  const Bytes bytes(32, seed);
  return must(crypto::SigningKey::from_private(algorithm, Secret<SigningKeyTag>::copy_of(bytes)));
}
Key described(const crypto::SigningKey& k) {
  return {to_hex(k.private_bytes(SecretAccess{}).view(SecretAccess{})), k.public_key().text()};
}

struct Maker {
  File file;
  std::vector<Record> before;  // of the file that is written anew
  std::map<std::string, crypto::SigningKey> keys;

  Maker() {
    file.set_id.fill(0x5e);
    keys.emplace("ed25519", key_of(0x11));
    keys.emplace("p256", key_of(0x22, crypto::SignatureAlgorithm::kEcdsaP256));
    for (const auto& [name, key] : keys) file.keys[name] = described(key);
  }
  template <class Body>
  void add(const std::string& name, const Body& body, const std::string& signer = "ed25519") {
    Record r;
    r.name = name;
    r.type = std::string(Body::kType);
    r.body = to_json(body);
    r.canonical = canonical(r.body);
    r.hash = hash_of(body);
    const Bytes message = signed_message(file.set_id, body);
    r.message_prefix = to_hex(ByteView(message).first(message.size() - r.canonical.size()));
    r.signer = signer;
    r.signature = must(keys.at(signer).sign(message));
    must(from_json<Body>(r.body));
    if (signer == "p256") keep_signature(r, message);
    Body copy = body;
    Words words(file.words, r.type);
    copy.fields(words);
    file.records.push_back(std::move(r));
  }
  // P-256 signs differently each time: what the file before says is kept while it holds.
  void keep_signature(Record& r, ByteView message) const {
    for (const Record& old : before) {
      if (old.name != r.name) continue;
      if (keys.at(r.signer).public_key().verify_low_s(message, old.signature)) {
        r.signature = old.signature;
      }
    }
  }
  template <class Body>
  void add_both() {
    for (const bool full : {true, false}) {
      Body body;
      Filler filler(full);
      body.fields(filler);
      add(std::string(Body::kType) + (full ? "-full" : "-least"), body);
    }
  }
  template <class... Bodies>
  void add_all(Types<Bodies...>) {
    (add_both<Bodies>(), ...);
  }
};

// Where RFC 8785 is easily got wrong: order by UTF-16, short escapes, what is not escaped, the
// largest integer.
Submission hard_submission() {
  Submission s;
  Filler filler(false);
  s.fields(filler);
  s.spec.spec.purpose =
      "R\xc3\xb6ntgen \"quoted\" \\ / \b\f\n\r\t\x01\x7f \xe2\x80\xa8 \xf0\x9d\x84\x9e";
  s.spec.spec.env = {{"\xef\xbf\xbd", "sorts after the next"},
                     {"\xf0\x90\x80\x80", "U+10000"},
                     {"a", ""},
                     {"A", ""},
                     {"\xc3\xa9", ""}};
  s.not_after = kMaxJsonInteger;
  return s;
}

void add_derived(File& file) {
  Submission s;
  Filler filler(true);
  s.fields(filler);
  Derived& d = file.derived;
  d.job_id = s.job_id();
  Filler report(true);
  d.report_data.fields(report);
  d.report_data.label = "gbx/1/report-data";
  d.report_data_canonical = canonical(to_json(d.report_data));
  d.report_data_digest = d.report_data.digest();
  d.leaf_salt.fill(0x77);
  d.leaf_entry = canonical(
      to_json(broker::make_entry(testing::kNow, broker::BootEntry{file.set_id, 1, Hash32{}})));
  d.leaf = translog::leaf_hash(d.leaf_salt, as_bytes(d.leaf_entry));
}

// A held and released job of a set with a successor key and a witness, by a consumer who has
// rotated a key.
void add_receipt(File& file) {
  const crypto::SigningKey witness = key_of(0x33);
  testing::ReceiptForge forge(testing::Ending::kHeldAndReleased, [&](testing::BrokerWorld& w) {
    w.set.chain.charter.witnesses = {witness.public_key().text()};
    crypto::SigningKey next = key_of(0x44);
    w.set.chain.successors = {
        must(sign(w.set.id(), SetKeySuccessor{1, next.public_key().text()}, w.set.set_key))};
    w.set.set_key = std::move(next);
    w.set.chain.epoch = must(sign(w.set.id(), w.set.chain.epoch.body, w.set.set_key));
    must(w.start());
    crypto::SigningKey newer = key_of(0x55);
    w.consumer.chain.rotations = {must(
        sign(w.set.id(), Rotation{w.consumer.id(), 1, newer.public_key().text()}, w.consumer.key))};
    must(w.call<Empty>(method::kRotate,
                       RotateRequest{w.consumer.chain.identity, w.consumer.chain.rotations[0]}));
    w.consumer.key = std::move(newer);
  });
  forge.witnesses.push_back(key_of(0x33));
  const Receipt r = forge.with(
      [](Receipt& x) {
        x.beacons.resize(1);
        x.cosignatures.resize(1);
      },
      [](OwnerBeacon& b) { b.time = testing::kNow; });
  file.receipt = to_json(r);
  file.receipt_set_id = r.set.charter.set_id();
  file.receipt_job_id = r.submission.body.job_id();
  file.receipt_sha256 = crypto::sha256(as_bytes(canonical(file.receipt)));
}

int run(const std::string& path) {
  Maker m;
  if (path_exists(path)) {
    // One of another format has nothing to keep.
    const std::string text = must(read_text_file(path, kMaxFileBytes));
    const auto old = from_json_text<File>(text, {.max_bytes = kMaxFileBytes});
    if (old.ok()) m.before = old->records;
  }
  m.add_all(Records{});
  m.add("submission-unicode", hard_submission());
  Lease lease;
  Filler filler(true);
  lease.fields(filler);
  m.add("lease-p256", lease, "p256");
  const Record& p256 = m.file.records.back();
  m.file.refused.push_back(
      {"lease-p256-high-s", p256.name, testing::other_form(p256.signature), "bad-signature"});
  add_derived(m.file);
  add_receipt(m.file);
  const Status s = write_file_atomic(path, as_bytes(pretty(to_json(m.file)) + "\n"), 0644);
  if (!s.ok()) std::fprintf(stderr, "%s\n", s.error().line().c_str());
  return s.ok() ? 0 : 1;
}

}  // namespace
}  // namespace gbx::vectors

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make-record-vectors FILE\n");
    return 2;
  }
  return gbx::vectors::run(argv[1]);
}
