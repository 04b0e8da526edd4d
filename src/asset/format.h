// The bytes of asset format v1 (docs/formats/asset-v1.md is the page; this is its only twin in
// code): headers, pages, records of the manifest, associated data and key derivation. Parsers take
// untrusted bytes and allocate nothing by them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/secret.h"
#include "crypto/crypto.h"
#include "records/asset.h"

namespace gbx::asset {

// The format's word: magic of every object, prefix of every label, `format` of the version record.
// Frozen: other bytes get another word.
inline constexpr std::string_view kFormatWord = "gbx1";

inline constexpr std::size_t kHeaderSize = 64;
// every object but the last of its kind
inline constexpr std::size_t kObjectSize = std::size_t{64} << 20;
inline constexpr std::size_t kLeastObjectSize = 4096;
inline constexpr std::size_t kPageSize = 4096;  // ciphertext and tag
inline constexpr std::size_t kPagePlain = kPageSize - crypto::kAeadTagSize;
inline constexpr std::uint8_t kChunkLog2 = 16;
inline constexpr std::size_t kChunkSize = std::size_t{1} << kChunkLog2;
inline constexpr std::size_t kSealedChunk = kChunkSize + crypto::kAeadTagSize;
inline constexpr std::uint64_t kSegmentChunks = 1024;  // 64 MiB under one key
inline constexpr std::uint64_t kMaxFileSize = std::uint64_t{1} << 44;
inline constexpr std::size_t kMaxName = 255;
inline constexpr int kMaxLevel = 15;
inline constexpr std::uint64_t kRootIno = 1;
// header, root object id, count, zeros
inline constexpr std::size_t kListFixed = kHeaderSize + 32;
inline constexpr std::size_t kListEntry = 64;

enum class ObjectKind : std::uint8_t { kData = 1, kManifest = 2, kList = 3 };
enum class NodeType : std::uint8_t { kFile = 1, kDirectory = 2 };

std::string label(std::string_view name);  // kFormatWord ‖ "/" ‖ name
// Padmé: at most 12 % more, log log n bits of length remain
std::uint64_t padme(std::uint64_t length);
std::string object_name(const Id16& id);

// --- objects ---
struct ObjectHeader {
  ObjectKind kind = ObjectKind::kData;
  crypto::AeadSuite suite = crypto::AeadSuite::kAes256Gcm;
  std::uint32_t epoch = 0;  // key epoch of a manifest object, else 0
  Id16 asset_id{};
  Id16 object_id{};
};
Bytes encode_header(const ObjectHeader& header);
// Refuses every byte that encode_header() would not have written.
Result<ObjectHeader> parse_header(ByteView bytes);
// `bytes` is exactly the header of `expected`; the error names the first difference.
Status check_header(ByteView bytes, const ObjectHeader& expected);

// One line of the list of objects.
struct ObjectEntry {
  Id16 id{};
  std::uint64_t size = 0;
  Hash32 sha256{};
  ObjectKind kind = ObjectKind::kData;
};
Bytes encode_list_head(crypto::AeadSuite suite, const Id16& asset_id, const Id16& root_object,
                       std::uint64_t count);
struct ListHead {
  Id16 root_object{};
  std::uint64_t count = 0;
};
Result<ListHead> parse_list_head(ByteView bytes, crypto::AeadSuite suite, const Id16& asset_id);
Bytes encode_list_entry(const ObjectEntry& entry);
Result<ObjectEntry> parse_list_entry(ByteView bytes);
std::string list_name(const Hash32& objects_hash);

// --- manifest records ---
// A file's secret lies among thousands of others in manifest pages, so it is no locked Secret; it
// cleanses itself.
struct FileSecret {
  FixedBytes<32> bytes{};
  FileSecret() = default;
  explicit FileSecret(const FixedBytes<32>& b) : bytes(b) {}
  FileSecret(const FileSecret&) = default;
  FileSecret& operator=(const FileSecret&) = default;
  ~FileSecret() { cleanse(bytes); }
};
struct Extent {
  std::uint64_t first_chunk = 0;
  Id16 object{};
  std::uint32_t offset = 0;  // of the first chunk in the object
  std::uint32_t chunks = 0;
  bool operator==(const Extent&) const = default;
};
struct FileContent {
  Id16 file_id{};
  std::uint64_t content_version = 1;
  FileSecret secret;
  Hash32 commit{};  // K_commit
  Hash32 check{};   // keyed hash of the plaintext
  std::uint32_t extent_count = 0;
  std::optional<Extent> extent;  // exactly when extent_count is 1
};
struct Inode {
  NodeType type = NodeType::kDirectory;
  bool executable = false;
  std::int64_t mtime_s = 0;
  std::uint32_t mtime_ns = 0;
  std::uint64_t parent = 0;
  std::uint64_t size = 0;
  std::optional<FileContent> content;  // exactly when a file
};
struct Dirent {
  std::uint64_t ino = 0;
  NodeType type = NodeType::kFile;
};
struct Meta {
  std::uint64_t next_ino = 2;
  std::uint64_t files = 0;
  std::uint64_t directories = 0;
  std::uint64_t bytes = 0;
};
struct PageRef {
  Id16 object{};
  std::uint32_t slot = 0;
  Hash32 hash{};  // SHA-256 of the page's ciphertext
  bool operator==(const PageRef&) const = default;
};

// Keys compare as byte strings.
Bytes meta_key();
Bytes inode_key(std::uint64_t ino);
Bytes dirent_key(std::uint64_t directory, std::string_view name);
Bytes extent_key(std::uint64_t ino, std::uint64_t first_chunk);
int compare_keys(ByteView a, ByteView b);
bool valid_name(std::string_view name);  // 1..255 bytes, no '/', no NUL, not "." or ".."

Bytes encode_inode(const Inode& inode);
Result<Inode> parse_inode(ByteView value);
Bytes encode_dirent(const Dirent& dirent);
Result<Dirent> parse_dirent(ByteView value);
Bytes encode_extent(const Extent& extent);
Result<Extent> parse_extent(ByteView value, std::uint64_t first_chunk);
Bytes encode_meta(const Meta& meta);
Result<Meta> parse_meta(ByteView value);
Bytes encode_page_ref(const PageRef& ref);
Result<PageRef> parse_page_ref(ByteView value);
std::uint64_t chunk_count(std::uint64_t size);
// Bytes of plaintext in chunk `index` of a file of `size`.
std::size_t chunk_plain(std::uint64_t size, std::uint64_t index);

// --- pages ---
// A parsed page: owns its plaintext and cleanses it. Immutable, so threads share it.
class Page {
 public:
  // Strictly ascending keys, exact lengths, zero fill; `level` is what the parent said.
  static Result<std::shared_ptr<const Page>> parse(Bytes plaintext, int level);
  ~Page() { cleanse(plain_); }
  Page(const Page&) = delete;
  Page& operator=(const Page&) = delete;
  int level() const { return plain_[0]; }
  std::size_t size() const { return entries_.size(); }
  ByteView key(std::size_t i) const;
  ByteView value(std::size_t i) const;
  // The last entry whose key is not above `key`; size() when there is none.
  std::size_t floor(ByteView key) const;

 private:
  Page() = default;
  struct Place {
    std::uint16_t key_at, key_size, value_size;
  };
  Bytes plain_;
  std::vector<Place> entries_;
};
// Entries are added in order; false when the page has no room left.
class PageEncoder {
 public:
  explicit PageEncoder(int level) : level_(level) {}
  ~PageEncoder() { cleanse(body_); }
  PageEncoder(PageEncoder&&) = default;
  bool add(ByteView key, ByteView value);
  bool empty() const { return count_ == 0; }
  Bytes finish();  // kPagePlain bytes; the encoder is empty afterwards

 private:
  int level_;
  std::uint16_t count_ = 0;
  Bytes body_;
};

// --- keys, nonces, associated data ---
Hash32 dataset_key_commitment(const DatasetKey& key, const Id16& asset_id);
AeadKey page_key(const DatasetKey& key, const Id16& asset_id, const Id16& object_id,
                 std::uint32_t epoch);
struct FileKeys {
  AeadKey file;
  Hash32 commit{};
};
FileKeys file_keys(const Id16& asset_id, crypto::AeadSuite suite, const Id16& file_id,
                   std::uint64_t content_version, const FileSecret& secret);
AeadKey segment_key(const AeadKey& file_key, std::uint32_t segment);
Hash32 content_check(const FileSecret& secret, const Hash32& plaintext_sha256);

using Nonce12 = FixedBytes<crypto::kAeadNonceSize>;
Nonce12 chunk_nonce(std::uint32_t chunk_in_segment, bool last);
Nonce12 page_nonce(std::uint32_t slot);
struct ChunkPlace {
  Id16 asset_id{};
  Id16 file_id{};
  std::uint64_t content_version = 0;
  std::uint64_t index = 0;
  std::uint32_t plain_len = 0;
  bool last = false;
  crypto::AeadSuite suite = crypto::AeadSuite::kAes256Gcm;
};
Bytes chunk_aad(const ChunkPlace& place);
Bytes page_aad(const Id16& asset_id, const Id16& object_id, std::uint32_t slot, std::uint32_t epoch,
               int level, crypto::AeadSuite suite);

// The fields of a record that this code can serve: format word, suite, ranges.
Status check_record(const records::VersionRecord& record);

}  // namespace gbx::asset
