// An asset version, the owner's policy for it, leases on it, and what the broker answers when it is
// published.
#pragma once

#include "records/limits.h"
#include "records/set.h"

namespace gbx::records {

enum class AssetKind { kDataset, kModel, kImage };
std::span<const EnumName<AssetKind>> enum_names(AssetKind);

// The signed head of an asset version (docs/formats/asset-v1.md); hash_of() it is the version's
// identity.
struct VersionRecord {
  static constexpr std::string_view kType = "version-record";
  static constexpr bool kBindsSet = false;
  std::string format;  // "gbx1"
  std::int64_t suite = 1;
  Hash32 owner_id{};
  Id16 asset_id{};  // all versions share it (the protocol's datasetId)
  AssetKind kind = AssetKind::kDataset;
  std::int64_t version = 1;
  Hash32 prev{};  // id of the version before, zeros for the first
  std::int64_t root_page = 0;
  std::int64_t root_level = 0;
  Hash32 root_hash{};  // SHA-256 of the root page's ciphertext
  // SHA-256 of the list of objects and their hashes: integrity without keys
  Hash32 objects_hash{};
  std::int64_t object_count = 0;
  std::int64_t file_count = 0;  // padded upwards, so that it does not count small files exactly
  std::int64_t ciphertext_bytes = 0;
  std::int64_t key_epoch = 1;
  Hash32 commit_dk{};          // key commitment to the dataset key
  std::string content_digest;  // of an image: the OCI manifest digest; else empty
  std::string name;            // public label
  template <class F>
  void fields(F& f) {
    f("format", format, Bound{4, 8});
    f("suite", suite, Bound{1, 255});
    f("ownerId", owner_id);
    f("assetId", asset_id);
    f("kind", kind);
    f("version", version, Bound{1, kMaxJsonInteger});
    f("prev", prev);
    f("rootPage", root_page);
    f("rootLevel", root_level, Bound{0, 15});
    f("rootHash", root_hash);
    f("objectsHash", objects_hash);
    f("objectCount", object_count, Bound{1, 100'000'000});
    f("fileCount", file_count);
    f("ciphertextBytes", ciphertext_bytes);
    f("keyEpoch", key_epoch, Bound{1, kMaxEpoch});
    f("commitDk", commit_dk);
    f("contentDigest", content_digest, Bound{0, 80});
    f("name", name, Bound{1, 64});
  }
  Hash32 id() const { return hash_of(*this); }
};

enum class OutputType { kTable, kJson, kMetrics, kText, kOpaque };
std::span<const EnumName<OutputType>> enum_names(OutputType);
enum class LogVisibility { kNone, kConsumer };
std::span<const EnumName<LogVisibility>> enum_names(LogVisibility);
enum class Access { kPrefetch, kDirect };
std::span<const EnumName<Access>> enum_names(Access);

struct ImageRule {
  std::optional<std::string> digest;  // OCI manifest digest "sha256:…"
  std::optional<std::string> signer;  // public key of a signed image
  template <class F>
  void fields(F& f) {
    f("digest", digest, Bound{71, 71});
    f("signer", signer, Bound{1, 256});
  }
};
struct CommandRule {
  std::vector<std::string> argv;  // exact command followed by exact args
  std::vector<std::string> env;   // names of variables that the consumer may set
  template <class F>
  void fields(F& f) {
    f("argv", argv, Bound{1, 256, kMaxArgumentBytes});
    f("env", env, Bound{0, 64, 128});
  }
};
struct PlatformRule {
  Technology technology = Technology::kNone;
  // "none:<node key hash>" or "sim:<root SPKI hash>"; empty for hardware
  std::string root;
  std::vector<std::string> releases;  // names of guest releases; empty only for none
  std::int64_t minimum_svn = 0;
  template <class F>
  void fields(F& f) {
    f("technology", technology);
    f("root", root, Bound{0, 80});
    f("releases", releases, Bound{0, 32, 64});
    f("minimumSvn", minimum_svn);
  }
};
inline constexpr std::int64_t kDefaultCellSubjects = 10;
struct GateClause {
  std::int64_t auto_clear_free_bits = 2048;  // per release
  std::int64_t auto_clear_verified_bits = 65536;
  std::int64_t period_free_bits = 16384;  // per consumer and asset
  std::int64_t period_days = 30;
  std::int64_t total_free_bits = 131072;  // over all consumers and the asset's life
  std::int64_t max_output_bytes = 16 << 20;
  std::int64_t max_rows = 5000;
  std::int64_t hold_score = 50;  // a risk score at or above it is held
  std::vector<OutputType> output_types;
  bool copy_check = true;
  // decisions fall on multiples of it; 0 by name only
  std::int64_t release_slot_seconds = 900;
  LogVisibility logs = LogVisibility::kNone;
  std::int64_t log_bytes = 0;
  // fewest subjects that a verified cell may stand for; absent: kDefaultCellSubjects
  std::optional<std::int64_t> cell_subjects = {};
  std::int64_t least_subjects() const { return cell_subjects.value_or(kDefaultCellSubjects); }
  template <class F>
  void fields(F& f) {
    f("autoClearFreeBits", auto_clear_free_bits);
    f("autoClearVerifiedBits", auto_clear_verified_bits);
    f("periodFreeBits", period_free_bits);
    f("periodDays", period_days, Bound{1, 3650});
    f("totalFreeBits", total_free_bits);
    f("maxOutputBytes", max_output_bytes, Bound{0, std::int64_t{1} << 30});
    f("maxRows", max_rows, Bound{0, 1'000'000});
    f("holdScore", hold_score, Bound{0, 101});
    f("outputTypes", output_types, Bound{0, 8});
    f("copyCheck", copy_check);
    f("releaseSlotSeconds", release_slot_seconds, Bound{0, 86400});
    f("logs", logs);
    f("logBytes", log_bytes, Bound{0, kMaxLogBytes});
    f("cellSubjects", cell_subjects, Bound{1, 1'000'000});
  }
};
// Nothing in an identity names its HPKE key, so a policy's author could put a key of his own beside
// somebody's id: every owner who lets somebody preview names all three.
struct Reviewer {
  Hash32 identity_id{};
  std::string key;   // signs rulings
  std::string hpke;  // previews are sealed to it
  bool operator==(const Reviewer&) const = default;
  template <class F>
  void fields(F& f) {
    f("identityId", identity_id);
    f("key", key, Bound{1, 256});
    f("hpke", hpke, Bound{1, 256});
  }
};
// No row can have all of these words, one in each column: {sex, pregnant}, {m, yes}. The owner's
// word, for whoever says so tells it.
struct StructuralZero {
  std::vector<std::string> columns;
  std::vector<std::string> words;  // as many
  template <class F>
  void fields(F& f) {
    f("columns", columns, Bound{1, 8, 128});
    f("words", words, Bound{1, 8, 256});
  }
};
// A file of the asset that recipes may read (docs/gate.md), and which of its columns says whom a
// row is about: one value, one subject.
struct TableRule {
  std::string file;
  std::string subject;
  std::optional<std::vector<StructuralZero>> structural_zeros = {};
  template <class F>
  void fields(F& f) {
    f("file", file, Bound{1, 200});
    f("subject", subject, Bound{1, 128});
    f("structuralZeros", structural_zeros, Bound{0, 64});
  }
};
struct Clauses {
  std::vector<Hash32> consumers;  // may submit without a lease
  bool lease_required = true;
  std::vector<std::string> lease_issuers;  // besides the owner
  std::vector<std::string> purposes;       // "*" allows any
  std::vector<ImageRule> images;
  std::vector<CommandRule> commands;  // empty: the image's signer or digest decides alone
  bool any_command = false;           // must be said by name
  std::vector<Id16> join_assets;      // joinWith: other assets of the same job
  std::vector<Hash32> join_owners;
  std::vector<PlatformRule> tee;
  std::vector<Custody> custody;
  std::string rollback;  // "unprotected" or "witnessed"
  GateClause gate;
  std::vector<Reviewer> reviewers;
  std::int64_t reviewers_needed = 1;
  std::vector<Reviewer> may_preview;
  std::int64_t attempts = 1;  // per job, after keys were released
  Access access = Access::kPrefetch;
  std::vector<std::string> residual_channels;
  std::int64_t not_after = 0;          // unix seconds
  std::int64_t fresh_for_seconds = 0;  // 0: no beacon needed
  // What recipes may recompute; absent: nothing, so every bit is a free one.
  std::optional<std::vector<TableRule>> tables = {};
  // What one row of the data holds, in bits, as its owner measured it: for showing bits as rows.
  std::optional<std::int64_t> row_bits = {};
  template <class F>
  void fields(F& f) {
    f("consumers", consumers, Bound{0, 1024});
    f("leaseRequired", lease_required);
    f("leaseIssuers", lease_issuers, Bound{0, 16, 256});
    f("purposes", purposes, Bound{0, 64, 200});
    f("images", images, Bound{0, 64});
    f("commands", commands, Bound{0, 64});
    f("anyCommand", any_command);
    f("joinAssets", join_assets, Bound{0, 64});
    f("joinOwners", join_owners, Bound{0, 64});
    f("tee", tee, Bound{0, 16});
    f("custody", custody, Bound{0, 4});
    f("rollback", rollback, Bound{1, 16});
    f("gate", gate);
    f("reviewers", reviewers, Bound{0, kMaxReviewers});
    f("reviewersNeeded", reviewers_needed, Bound{1, kMaxReviewers});
    f("mayPreview", may_preview, Bound{0, kMaxReviewers});
    f("attempts", attempts, Bound{1, 100});
    f("access", access);
    f("residualChannels", residual_channels, Bound{0, 32, 64});
    f("notAfter", not_after);
    f("freshForSeconds", fresh_for_seconds, Bound{0, 31'536'000});
    f("tables", tables, Bound{1, 64});
    f("rowBits", row_bits, Bound{1, 1'000'000'000});
  }
  // Digests that are digests, and texts without control characters, for people read them.
  // kBadValue; `what` is the path.
  Status validate() const;
};

struct Policy {
  static constexpr std::string_view kType = "policy";
  static constexpr bool kBindsSet = true;
  Hash32 asset_version_id{};
  Id16 asset_id{};
  Hash32 owner_id{};
  std::int64_t serial = 1;  // rises by one
  Hash32 prev{};            // hash of the policy before, zeros for the first
  std::int64_t kek_epoch = 1;
  Hash32 commit_dk{};
  bool revoked = false;
  Clauses clauses;
  template <class F>
  void fields(F& f) {
    f("assetVersionId", asset_version_id);
    f("assetId", asset_id);
    f("ownerId", owner_id);
    f("serial", serial, Bound{1, kMaxSerial});
    f("prev", prev);
    f("kekEpoch", kek_epoch, Bound{1, kMaxEpoch});
    f("commitDk", commit_dk);
    f("revoked", revoked);
    f("clauses", clauses);
  }
};

// "I stand by this policy still": for policies with freshForSeconds. It counts from its own time,
// so holding one back gains nothing; a publication counts as one, too.
struct OwnerBeacon {
  static constexpr std::string_view kType = "owner-beacon";
  static constexpr bool kBindsSet = true;
  Hash32 owner_id{};
  Hash32 asset_version_id{};
  Hash32 policy_hash{};
  std::int64_t time = 0;
  template <class F>
  void fields(F& f) {
    f("ownerId", owner_id);
    f("assetVersionId", asset_version_id);
    f("policyHash", policy_hash);
    f("time", time);
  }
};

struct Lease {
  static constexpr std::string_view kType = "lease";
  static constexpr bool kBindsSet = true;
  Id16 lease_id{};
  Id16 asset_id{};
  Hash32 consumer_id{};
  std::int64_t jobs = 1;
  std::int64_t not_after = 0;
  SetId set_id{};
  template <class F>
  void fields(F& f) {
    f("leaseId", lease_id);
    f("assetId", asset_id);
    f("consumerId", consumer_id);
    f("jobs", jobs, Bound{1, 1'000'000});
    f("notAfter", not_after);
    f("setId", set_id);
  }
};

// Message 1. `wrapped_key` = E(kek, aad = hash of the policy, DK), of every policy but a
// revocation: to revoke, an owner needs no data key, and the broker keeps none with it.
struct Publish {
  IdentityChain owner;
  Signed<VersionRecord> record;
  Signed<Policy> policy;
  std::optional<Bytes> wrapped_key = {};
  template <class F>
  void fields(F& f) {
    f("owner", owner);
    f("record", record);
    f("policy", policy);
    f("wrappedKey", wrapped_key, Bound{32, 256});
  }
  // A key exactly where nothing is revoked, clauses that are valid there, and the same of the
  // record's name and digest. kBadValue, kMissingField; `what` is the path of the member.
  Status validate() const;
};
struct PublishAck {
  static constexpr std::string_view kType = "publish-ack";
  static constexpr bool kBindsSet = true;
  Hash32 asset_version_id{};
  Hash32 policy_hash{};
  std::int64_t serial = 0;
  std::int64_t time = 0;
  Inclusion inclusion;
  template <class F>
  void fields(F& f) {
    f("assetVersionId", asset_version_id);
    f("policyHash", policy_hash);
    f("serial", serial, Bound{0, kMaxSerial});
    f("time", time);
    f("inclusion", inclusion);
  }
};
// The set's claim that no key of its own opens this version any more. Nobody can prove that nothing
// was kept, so the claim names what it does not cover. Made once keys can be erased:
// docs/decisions/0012.
struct DeletedClaim {
  static constexpr std::string_view kType = "deleted-claim";
  static constexpr bool kBindsSet = true;
  Hash32 asset_version_id{};
  Hash32 policy_hash{};  // of the revocation that asked for it
  // the last epoch whose kek could open the version's wraps; that kek is erased too
  std::int64_t epoch = 0;
  std::vector<std::string> not_erased;  // "backups" and other copies, in words
  std::int64_t time = 0;
  Inclusion inclusion;
  template <class F>
  void fields(F& f) {
    f("assetVersionId", asset_version_id);
    f("policyHash", policy_hash);
    f("epoch", epoch, Bound{1, kMaxEpoch});
    f("notErased", not_erased, Bound{0, 16, 200});
    f("time", time);
    f("inclusion", inclusion);
  }
};

struct BeaconRequest {
  IdentityChain owner;
  Signed<OwnerBeacon> beacon;
  template <class F>
  void fields(F& f) {
    f("owner", owner);
    f("beacon", beacon);
  }
};
// Only this means that the policy is fresh again.
struct BeaconAck {
  static constexpr std::string_view kType = "beacon-ack";
  static constexpr bool kBindsSet = true;
  Hash32 beacon{};  // hash of the signed beacon
  Hash32 policy_hash{};
  std::int64_t fresh_until = 0;
  std::int64_t time = 0;
  Inclusion inclusion;
  template <class F>
  void fields(F& f) {
    f("beacon", beacon);
    f("policyHash", policy_hash);
    f("freshUntil", fresh_until);
    f("time", time);
    f("inclusion", inclusion);
  }
};

}  // namespace gbx::records
