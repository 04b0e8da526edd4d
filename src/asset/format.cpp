#include "asset/format.h"

#include <algorithm>
#include <bit>

namespace gbx::asset {

namespace {

constexpr std::size_t kFixedText = 8;  // the format word, zero-padded

ByteWriter& word(ByteWriter& w) {
  return w.text(kFormatWord).zeros(kFixedText - kFormatWord.size());
}

Status take_word(ByteReader& r) {
  GBX_ASSIGN(const ByteView got, r.take(kFixedText));
  ByteWriter expected;
  word(expected);
  if (equal(got, expected.bytes())) return ok_status();
  return fail(Reason::kBadMagic, "format word").with(std::string(kFormatWord), to_hex(got));
}

Status take_zeros(ByteReader& r, std::size_t n, const char* what) {
  GBX_ASSIGN(const ByteView zeros, r.take(n));
  for (const std::uint8_t b : zeros) {
    if (b != 0) {
      return fail(Reason::kBadStructure, std::string(what) + ": reserved bytes are not zero");
    }
  }
  return ok_status();
}

void big_endian(ByteWriter& w, std::uint64_t v) {
  for (int shift = 56; shift >= 0; shift -= 8) w.u8(static_cast<std::uint8_t>(v >> shift));
}

Result<ObjectKind> object_kind(std::uint8_t number) {
  if (number >= 1 && number <= 3) return static_cast<ObjectKind>(number);
  return fail(Reason::kBadStructure, "object kind").with("1, 2 or 3", std::to_string(number));
}
Result<NodeType> node_type(std::uint8_t number) {
  if (number == 1 || number == 2) return static_cast<NodeType>(number);
  return fail(Reason::kBadStructure, "node type").with("1 or 2", std::to_string(number));
}

}  // namespace

std::string label(std::string_view name) {
  return std::string(kFormatWord) + "/" + std::string(name);
}

std::uint64_t padme(std::uint64_t length) {
  if (length < 2) return length;
  const auto e = static_cast<int>(std::bit_width(length)) - 1;
  const auto s = static_cast<int>(std::bit_width(static_cast<unsigned>(e)));
  if (e <= s) return length;
  const std::uint64_t mask = (std::uint64_t{1} << (e - s)) - 1;
  return (length + mask) & ~mask;
}

std::string object_name(const Id16& id) { return to_hex(id); }
std::string list_name(const Hash32& objects_hash) {
  return to_hex(ByteView(objects_hash).first(16));
}

Bytes encode_header(const ObjectHeader& h) {
  ByteWriter w;
  word(w).u8(static_cast<std::uint8_t>(h.kind)).u8(static_cast<std::uint8_t>(h.suite));
  w.u8(kChunkLog2).u8(0).u32(h.epoch).raw(h.asset_id).raw(h.object_id).zeros(16);
  return w.take();
}

Result<ObjectHeader> parse_header(ByteView bytes) {
  ByteReader r(bytes);
  ObjectHeader h;
  GBX_TRY(take_word(r));
  GBX_ASSIGN(const std::uint8_t kind, r.u8());
  GBX_ASSIGN(h.kind, object_kind(kind));
  GBX_ASSIGN(const std::uint8_t suite, r.u8());
  GBX_ASSIGN(h.suite, crypto::aead_suite(suite));
  GBX_ASSIGN(const std::uint8_t log2, r.u8());
  if (log2 != kChunkLog2) {
    return fail(Reason::kBadStructure, "chunk size").with("16", std::to_string(log2));
  }
  GBX_TRY(take_zeros(r, 1, "object header"));
  GBX_ASSIGN(h.epoch, r.u32());
  GBX_ASSIGN(h.asset_id, r.fixed<16>());
  GBX_ASSIGN(h.object_id, r.fixed<16>());
  GBX_TRY(take_zeros(r, 16, "object header"));
  GBX_TRY(r.finish());
  return h;
}

Status check_header(ByteView bytes, const ObjectHeader& expected) {
  GBX_ASSIGN(const ObjectHeader h, parse_header(bytes));
  if (h.kind != expected.kind) return fail(Reason::kBadStructure, "object is of another kind");
  if (h.suite != expected.suite) {
    return fail(Reason::kBadSuite, "object has another suite than the version record");
  }
  if (h.asset_id != expected.asset_id) {
    return fail(Reason::kWrongAsset, "object header")
        .with(to_hex(expected.asset_id), to_hex(h.asset_id));
  }
  if (h.object_id != expected.object_id) {
    return fail(Reason::kBadStructure, "another object under this name")
        .with(to_hex(expected.object_id), to_hex(h.object_id));
  }
  if (h.epoch != expected.epoch) return fail(Reason::kWrongVersion, "key epoch of an object");
  return ok_status();
}

Bytes encode_list_head(crypto::AeadSuite suite, const Id16& asset_id, const Id16& root_object,
                       std::uint64_t count) {
  ByteWriter w;
  w.raw(encode_header({ObjectKind::kList, suite, 0, asset_id, Id16{}}));
  w.raw(root_object).u64(count).zeros(8);
  return w.take();
}
Result<ListHead> parse_list_head(ByteView bytes, crypto::AeadSuite suite, const Id16& asset_id) {
  ByteReader r(bytes);
  GBX_ASSIGN(const ByteView header, r.take(kHeaderSize));
  GBX_TRY(check_header(header, {ObjectKind::kList, suite, 0, asset_id, Id16{}}));
  ListHead head;
  GBX_ASSIGN(head.root_object, r.fixed<16>());
  GBX_ASSIGN(head.count, r.u64());
  GBX_TRY(take_zeros(r, 8, "list of objects"));
  GBX_TRY(r.finish());
  return head;
}
Bytes encode_list_entry(const ObjectEntry& e) {
  ByteWriter w;
  w.raw(e.id).u64(e.size).raw(e.sha256).u8(static_cast<std::uint8_t>(e.kind)).zeros(7);
  return w.take();
}
Result<ObjectEntry> parse_list_entry(ByteView bytes) {
  ByteReader r(bytes);
  ObjectEntry e;
  GBX_ASSIGN(e.id, r.fixed<16>());
  GBX_ASSIGN(e.size, r.u64());
  GBX_ASSIGN(e.sha256, r.fixed<32>());
  GBX_ASSIGN(const std::uint8_t kind, r.u8());
  GBX_ASSIGN(e.kind, object_kind(kind));
  GBX_TRY(take_zeros(r, 7, "list of objects"));
  GBX_TRY(r.finish());
  if (e.kind == ObjectKind::kList) {
    return fail(Reason::kBadStructure, "a list of objects lists a list");
  }
  if (e.size < kHeaderSize) {
    return fail(Reason::kBadStructure, "a listed object is shorter than its header");
  }
  return e;
}

Bytes meta_key() { return {0}; }
Bytes inode_key(std::uint64_t ino) {
  ByteWriter w;
  w.u8(1);
  big_endian(w, ino);
  return w.take();
}
Bytes dirent_key(std::uint64_t directory, std::string_view name) {
  ByteWriter w;
  w.u8(2);
  big_endian(w, directory);
  return w.text(name).take();
}
Bytes extent_key(std::uint64_t ino, std::uint64_t first_chunk) {
  ByteWriter w;
  w.u8(3);
  big_endian(w, ino);
  big_endian(w, first_chunk);
  return w.take();
}
int compare_keys(ByteView a, ByteView b) {
  const std::size_t n = std::min(a.size(), b.size());
  const int c = n == 0 ? 0 : std::memcmp(a.data(), b.data(), n);
  if (c != 0) return c;
  return a.size() < b.size() ? -1 : a.size() > b.size() ? 1 : 0;
}
bool valid_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxName || name == "." || name == "..") return false;
  return name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

Bytes encode_inode(const Inode& n) {
  ByteWriter w;
  w.u8(static_cast<std::uint8_t>(n.type)).u8(n.executable ? 1 : 0).u16(0).u32(n.mtime_ns);
  w.u64(static_cast<std::uint64_t>(n.mtime_s)).u64(n.parent).u64(n.size);
  if (n.content) {
    const FileContent& c = *n.content;
    w.raw(c.file_id)
        .u64(c.content_version)
        .raw(c.secret.bytes)
        .raw(c.commit)
        .raw(c.check)
        .u32(c.extent_count);
    if (c.extent) w.raw(encode_extent(*c.extent));
  }
  return w.take();
}
namespace {
Result<FileContent> parse_content(ByteReader& r, std::uint64_t size) {
  FileContent c;
  GBX_ASSIGN(c.file_id, r.fixed<16>());
  GBX_ASSIGN(c.content_version, r.u64());
  GBX_ASSIGN(const ByteView secret, r.take(32));
  std::memcpy(c.secret.bytes.data(), secret.data(), secret.size());
  GBX_ASSIGN(c.commit, r.fixed<32>());
  GBX_ASSIGN(c.check, r.fixed<32>());
  GBX_ASSIGN(c.extent_count, r.u32());
  if ((c.extent_count == 0) != (size == 0)) {
    return fail(Reason::kBadStructure, "extents do not match the file's size");
  }
  if (c.extent_count == 1) {
    GBX_ASSIGN(const ByteView extent, r.take(24));
    GBX_ASSIGN(c.extent, parse_extent(extent, 0));
    if (c.extent->chunks != chunk_count(size)) {
      return fail(Reason::kBadStructure, "extent does not match the file's size");
    }
  }
  return c;
}
}  // namespace
Result<Inode> parse_inode(ByteView value) {
  ByteReader r(value);
  Inode n;
  GBX_ASSIGN(const std::uint8_t type, r.u8());
  GBX_ASSIGN(n.type, node_type(type));
  GBX_ASSIGN(const std::uint8_t flags, r.u8());
  if (flags > 1) return fail(Reason::kBadStructure, "unknown inode flags");
  n.executable = flags == 1;
  GBX_TRY(take_zeros(r, 2, "inode"));
  GBX_ASSIGN(n.mtime_ns, r.u32());
  if (n.mtime_ns >= 1'000'000'000) return fail(Reason::kBadStructure, "inode time");
  GBX_ASSIGN(const std::uint64_t seconds, r.u64());
  n.mtime_s = static_cast<std::int64_t>(seconds);
  GBX_ASSIGN(n.parent, r.u64());
  GBX_ASSIGN(n.size, r.u64());
  if (n.size > kMaxFileSize) return fail(Reason::kBadStructure, "inode size");
  if (n.type == NodeType::kFile) {
    GBX_ASSIGN(n.content, parse_content(r, n.size));
  } else if (n.size != 0) {
    return fail(Reason::kBadStructure, "a directory with a size");
  }
  GBX_TRY(r.finish());
  return n;
}
Bytes encode_dirent(const Dirent& d) {
  ByteWriter w;
  return w.u64(d.ino).u8(static_cast<std::uint8_t>(d.type)).take();
}
Result<Dirent> parse_dirent(ByteView value) {
  ByteReader r(value);
  Dirent d;
  GBX_ASSIGN(d.ino, r.u64());
  if (d.ino <= kRootIno) return fail(Reason::kBadStructure, "directory entry's inode number");
  GBX_ASSIGN(const std::uint8_t type, r.u8());
  GBX_ASSIGN(d.type, node_type(type));
  GBX_TRY(r.finish());
  return d;
}
Bytes encode_extent(const Extent& e) {
  ByteWriter w;
  return w.raw(e.object).u32(e.offset).u32(e.chunks).take();
}
Result<Extent> parse_extent(ByteView value, std::uint64_t first_chunk) {
  ByteReader r(value);
  Extent e;
  e.first_chunk = first_chunk;
  GBX_ASSIGN(e.object, r.fixed<16>());
  GBX_ASSIGN(e.offset, r.u32());
  GBX_ASSIGN(e.chunks, r.u32());
  GBX_TRY(r.finish());
  if (e.offset < kHeaderSize || e.chunks == 0) return fail(Reason::kBadStructure, "extent");
  return e;
}
Bytes encode_meta(const Meta& m) {
  ByteWriter w;
  return w.u64(m.next_ino).u64(m.files).u64(m.directories).u64(m.bytes).take();
}
Result<Meta> parse_meta(ByteView value) {
  ByteReader r(value);
  Meta m;
  GBX_ASSIGN(m.next_ino, r.u64());
  GBX_ASSIGN(m.files, r.u64());
  GBX_ASSIGN(m.directories, r.u64());
  GBX_ASSIGN(m.bytes, r.u64());
  GBX_TRY(r.finish());
  return m;
}
Bytes encode_page_ref(const PageRef& p) {
  ByteWriter w;
  return w.raw(p.object).u32(p.slot).raw(p.hash).take();
}
Result<PageRef> parse_page_ref(ByteView value) {
  ByteReader r(value);
  PageRef p;
  GBX_ASSIGN(p.object, r.fixed<16>());
  GBX_ASSIGN(p.slot, r.u32());
  GBX_ASSIGN(p.hash, r.fixed<32>());
  GBX_TRY(r.finish());
  return p;
}

std::uint64_t chunk_count(std::uint64_t size) {
  return (size >> kChunkLog2) + ((size & (kChunkSize - 1)) != 0 ? 1 : 0);
}
std::size_t chunk_plain(std::uint64_t size, std::uint64_t index) {
  const std::uint64_t start = index << kChunkLog2;
  return start >= size
             ? 0
             : static_cast<std::size_t>(std::min<std::uint64_t>(kChunkSize, size - start));
}

Result<std::shared_ptr<const Page>> Page::parse(Bytes plaintext, int level) {
  std::shared_ptr<Page> page(new Page());
  page->plain_ = std::move(plaintext);
  if (page->plain_.size() != kPagePlain) return fail(Reason::kBadStructure, "page length");
  ByteReader r(page->plain_);
  GBX_ASSIGN(const std::uint8_t own_level, r.u8());
  if (own_level != level) {
    return fail(Reason::kBadStructure, "page level")
        .with(std::to_string(level), std::to_string(own_level));
  }
  GBX_TRY(take_zeros(r, 1, "page"));
  GBX_ASSIGN(const std::uint16_t count, r.u16());
  if (count == 0) return fail(Reason::kBadStructure, "page without entries");
  page->entries_.reserve(std::min<std::size_t>(count, kPagePlain / 5));
  for (unsigned i = 0; i < count; ++i) {
    Place place{};
    GBX_ASSIGN(place.key_size, r.u16());
    GBX_ASSIGN(place.value_size, r.u16());
    place.key_at = static_cast<std::uint16_t>(r.position());
    GBX_TRY(r.take(place.key_size));
    GBX_TRY(r.take(place.value_size));
    if (place.key_size == 0) return fail(Reason::kBadStructure, "page entry without a key");
    if (level > 0 && place.value_size != 52) {
      return fail(Reason::kBadStructure, "page reference length");
    }
    page->entries_.push_back(place);
    if (i > 0 && compare_keys(page->key(i - 1), page->key(i)) >= 0) {
      return fail(Reason::kBadStructure, "page keys are not ascending");
    }
  }
  GBX_TRY(take_zeros(r, r.remaining(), "page"));
  return std::shared_ptr<const Page>(std::move(page));
}
ByteView Page::key(std::size_t i) const {
  return ByteView(plain_).subspan(entries_[i].key_at, entries_[i].key_size);
}
ByteView Page::value(std::size_t i) const {
  return ByteView(plain_).subspan(std::size_t{entries_[i].key_at} + entries_[i].key_size,
                                  entries_[i].value_size);
}
std::size_t Page::floor(ByteView wanted) const {
  std::size_t low = 0;
  std::size_t high = entries_.size();
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (compare_keys(key(middle), wanted) <= 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low == 0 ? entries_.size() : low - 1;
}

bool PageEncoder::add(ByteView key, ByteView value) {
  if (body_.empty()) body_.reserve(kPagePlain);
  if (4 + body_.size() + 4 + key.size() + value.size() > kPagePlain) return false;
  ByteWriter w;
  w.u16(static_cast<std::uint16_t>(key.size())).u16(static_cast<std::uint16_t>(value.size()));
  append(body_, w.bytes());
  append(body_, key);
  append(body_, value);
  ++count_;
  return true;
}
Bytes PageEncoder::finish() {
  ByteWriter w;
  w.u8(static_cast<std::uint8_t>(level_))
      .u8(0)
      .u16(count_)
      .raw(body_)
      .zeros(kPagePlain - 4 - body_.size());
  cleanse(body_);
  body_.clear();
  count_ = 0;
  return w.take();
}

Hash32 dataset_key_commitment(const DatasetKey& key, const Id16& asset_id) {
  return crypto::key_commitment(key.view(SecretAccess{}), SecretAccess{}, asset_id);
}
AeadKey page_key(const DatasetKey& key, const Id16& asset_id, const Id16& object_id,
                 std::uint32_t epoch) {
  ByteWriter info;
  info.text(label("page")).raw(asset_id).raw(object_id).u32(epoch);
  return crypto::hkdf_expand_as<AeadKey>(key.view(SecretAccess{}), info.bytes(),
                                         crypto::kAeadKeySize);
}
FileKeys file_keys(const Id16& asset_id, crypto::AeadSuite suite, const Id16& file_id,
                   std::uint64_t content_version, const FileSecret& secret) {
  ByteWriter context;
  word(context)
      .raw(asset_id)
      .raw(file_id)
      .u64(content_version)
      .u8(static_cast<std::uint8_t>(suite))
      .u8(kChunkLog2)
      .zeros(14);
  ByteWriter info;
  info.text(label("file")).raw(crypto::sha256(context.bytes()));
  const SecretBuffer both = crypto::hkdf_expand(secret.bytes, info.bytes(), 64);
  FileKeys keys;
  keys.file = AeadKey::copy_of(both.view(SecretAccess{}).first(32));
  std::memcpy(keys.commit.data(), both.view(SecretAccess{}).data() + 32, 32);
  return keys;
}
AeadKey segment_key(const AeadKey& file_key, std::uint32_t segment) {
  ByteWriter info;
  info.text(label("seg")).u32(segment);
  return crypto::hkdf_expand_as<AeadKey>(file_key.view(SecretAccess{}), info.bytes(),
                                         crypto::kAeadKeySize);
}
Hash32 content_check(const FileSecret& secret, const Hash32& plaintext_sha256) {
  const std::string info = label("check");
  const SecretBuffer key = crypto::hkdf_expand(secret.bytes, as_bytes(info), 32);
  return crypto::hmac_sha256(key.view(SecretAccess{}), plaintext_sha256);
}

Nonce12 chunk_nonce(std::uint32_t chunk_in_segment, bool last) {
  Nonce12 n{};
  for (unsigned i = 0; i < 4; ++i) {
    n[7 + i] = static_cast<std::uint8_t>(chunk_in_segment >> (8 * i));
  }
  n[11] = last ? 1 : 0;
  return n;
}
Nonce12 page_nonce(std::uint32_t slot) {
  Nonce12 n{};
  for (unsigned i = 0; i < 4; ++i) n[7 + i] = static_cast<std::uint8_t>(slot >> (8 * i));
  return n;
}
Bytes chunk_aad(const ChunkPlace& p) {
  ByteWriter w;
  word(w).raw(p.asset_id).raw(p.file_id).u64(p.content_version).u64(p.index).u32(p.plain_len);
  w.u8(p.last ? 1 : 0).u8(static_cast<std::uint8_t>(p.suite)).u8(kChunkLog2).u8(1);
  return w.take();
}
Bytes page_aad(const Id16& asset_id, const Id16& object_id, std::uint32_t slot, std::uint32_t epoch,
               int level, crypto::AeadSuite suite) {
  ByteWriter w;
  word(w).raw(asset_id).raw(object_id).u32(slot).u32(epoch);
  w.u8(static_cast<std::uint8_t>(level)).u8(static_cast<std::uint8_t>(suite)).zeros(13).u8(2);
  return w.take();
}

Status check_record(const records::VersionRecord& r) {
  if (r.format != kFormatWord) {
    return fail(Reason::kBadVersion, "asset format")
        .with(std::string(kFormatWord), r.format.substr(0, 16));
  }
  if (r.suite < 0 || r.suite > 255) return fail(Reason::kBadSuite, "suite of the version record");
  GBX_TRY(crypto::aead_suite(static_cast<std::uint8_t>(r.suite)));
  const bool ranges = r.root_level >= 0 && r.root_level <= kMaxLevel && r.root_page >= 0 &&
                      r.root_page <= 0xffff && r.key_epoch >= 1 && r.key_epoch <= 1'000'000 &&
                      r.version >= 1 && r.object_count >= 1;
  if (!ranges) return fail(Reason::kBadStructure, "a number of the version record is out of range");
  const bool first = r.prev == Hash32{};
  if (first != (r.version == 1)) {
    return fail(Reason::kBadStructure, "version number and previous version contradict");
  }
  return ok_status();
}

}  // namespace gbx::asset
