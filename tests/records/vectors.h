// What tests/records/vectors.json holds for each record (docs/formats/records-v1.md).
#pragma once

#include <cstdlib>
#include <stdexcept>

#include "base/os.h"
#include "records/held_ledger.h"
#include "records/messages.h"

namespace gbx::vectors {

inline constexpr std::size_t kMaxFileBytes = std::size_t{8} << 20;

template <class... Bodies>
struct Types {};
// Every record that is hashed or signed.
using Records =
    Types<records::AgentKeys, records::BeaconAck, records::BrokerEvidence, records::Cancel,
          records::Charter, records::Cosignature, records::Credential, records::DeletedClaim,
          records::DestroyedClaim, records::EpochKeys, records::Evidence, records::GuestRelease,
          records::HeldLedgerStatement, records::HoldNotice, records::Identity, records::KeyContext,
          records::KeyRequest, records::LaunchConfig, records::Lease, records::LedgerStatement,
          records::LogHead, records::NodeIntroduction, records::OutputManifest,
          records::OwnerBeacon, records::Policy, records::PublishAck, records::ReleaseStatement,
          records::Rotation, records::Ruling, records::RunPlan, records::RunStatement,
          records::SealAck, records::SealContext, records::SetKeySuccessor, records::Submission,
          records::VersionRecord>;

// The words of every member that is one of a list, by path: a record says one of them, the file
// holds them all.
class Words {
 public:
  Words(std::map<std::string, std::vector<std::string>>& out, std::string at)
      : out_(out), at_(std::move(at)) {}
  template <class T>
  void operator()(const char* name, T& v, Bound = {}) {
    visit(at_ + "." + name, v);
  }

 private:
  template <class T>
  void visit(const std::string& path, T& v) {
    if constexpr (std::is_enum_v<T>) {
      std::vector<std::string> words;
      for (const auto& word : enum_names(T{})) words.emplace_back(word.name);
      out_[path] = std::move(words);
    } else if constexpr (fields_detail::is_optional<T>) {
      if (v) visit(path, *v);
    } else if constexpr (std::is_same_v<T, Bytes> || fields_detail::is_fixed<T> ||
                         std::is_same_v<T, Json>) {
      return;
    } else if constexpr (fields_detail::is_vector<T>) {
      for (auto& e : v) visit(path, e);
    } else if constexpr (std::is_class_v<T> && !fields_detail::is_map<T> &&
                         !std::is_same_v<T, std::string>) {
      Words inner(out_, path);
      v.fields(inner);
    }
  }
  std::map<std::string, std::vector<std::string>>& out_;
  std::string at_;
};

struct Key {
  std::string private_key;  // hex: Ed25519 seed or P-256 scalar
  std::string public_key;
  template <class F>
  void fields(F& f) {
    f("private", private_key);
    f("public", public_key);
  }
};
struct Record {
  std::string name;
  std::string type;
  Json body;
  std::string canonical;
  Hash32 hash{};
  std::string message_prefix;  // hex; the signed message is this and the canonical bytes
  std::string signer;          // one of the keys
  Bytes signature;             // Ed25519 gives these bytes always, P-256 others each time
  template <class F>
  void fields(F& f) {
    f("name", name);
    f("type", type);
    f("body", body);
    f("canonical", canonical);
    f("hash", hash);
    f("messagePrefix", message_prefix);
    f("signer", signer);
    f("signature", signature);
  }
};
// A signature of one of the records that does not count.
struct Refused {
  std::string name;
  std::string record;
  Bytes signature;
  std::string reason;
  template <class F>
  void fields(F& f) {
    f("name", name);
    f("record", record);
    f("signature", signature);
    f("reason", reason);
  }
};
struct Derived {
  Hash32 job_id{};  // of the record "submission-full"
  records::ReportData report_data;
  std::string report_data_canonical;
  FixedBytes<64> report_data_digest{};
  Hash32 leaf_salt{};
  std::string leaf_entry;
  Hash32 leaf{};
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("reportData", report_data);
    f("reportDataCanonical", report_data_canonical);
    f("reportDataDigest", report_data_digest);
    f("leafSalt", leaf_salt);
    f("leafEntry", leaf_entry);
    f("leaf", leaf);
  }
};
struct File {
  std::string format = "gbx-record-vectors/1";
  records::SetId set_id{};
  std::map<std::string, Key> keys;
  std::vector<Record> records;
  std::vector<Refused> refused;
  std::map<std::string, std::vector<std::string>> words;  // by type and path: "lease.…"
  Derived derived;
  records::SetId receipt_set_id{};
  Hash32 receipt_job_id{};
  Hash32 receipt_sha256{};  // of its canonical bytes
  Json receipt;
  template <class F>
  void fields(F& f) {
    f("format", format);
    f("setId", set_id);
    f("keys", keys);
    f("records", records);
    f("refused", refused);
    f("words", words);
    f("derived", derived);
    f("receiptSetId", receipt_set_id);
    f("receiptJobId", receipt_job_id);
    f("receiptSha256", receipt_sha256);
    f("receipt", receipt);
  }
};

// The folder of the sources, for tests that read what lies there.
inline std::string source_dir() {
  const char* root = std::getenv("GBX_SOURCE_DIR");
  return root == nullptr ? "." : root;
}

// tests/records/vectors.json, read once. Throws where it cannot be read: no test can go on.
inline const File& file() {
  static const File kFile = [] {
    const auto bytes = read_file(source_dir() + "/tests/records/vectors.json", kMaxFileBytes);
    auto parsed = from_json_text<File>(as_text(bytes.value()), {.max_bytes = kMaxFileBytes});
    if (!parsed.ok()) throw std::runtime_error("vectors.json: " + parsed.error().line());
    return std::move(parsed).value();
  }();
  return kFile;
}

}  // namespace gbx::vectors
