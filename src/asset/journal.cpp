#include "asset/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

namespace gbx::asset {

namespace {

constexpr std::string_view kMagic = "gbxjrnl1";
constexpr std::size_t kJournalHeader = 8 + 16 + 32;  // magic, salt, asset id and key check
constexpr std::size_t kMaxFrame = std::size_t{64} << 20;
constexpr std::size_t kBuffer = 256 << 10;

AeadKey journal_key(const DatasetKey& key, ByteView salt) {
  ByteWriter info;
  info.text(label("journal")).raw(salt);
  return crypto::hkdf_expand_as<AeadKey>(key.view(SecretAccess{}), info.bytes(),
                                         crypto::kAeadKeySize);
}
// A frame's number is its nonce: every session has a salt, and so a key, of its own.
Nonce12 frame_nonce(std::uint64_t counter) {
  Nonce12 n{};
  for (unsigned i = 0; i < 8; ++i) n[i] = static_cast<std::uint8_t>(counter >> (8 * i));
  return n;
}
FixedBytes<16> key_check(const DatasetKey& key, const Id16& asset_id) {
  FixedBytes<16> out;
  const Hash32 h = dataset_key_commitment(key, asset_id);
  std::memcpy(out.data(), h.data(), out.size());
  return out;
}

Bytes encode_entry(const JournalEntry& e) {
  ByteWriter w;
  w.u64(e.seq).u64(e.parent_seq).u64(e.ino).u64(e.parent_ino).u64(e.old_ino);
  w.bytes32(as_bytes(e.path)).raw(e.identity).bytes32(encode_inode(e.inode));
  w.u32(static_cast<std::uint32_t>(e.extents.size()));
  for (const Extent& x : e.extents) w.u64(x.first_chunk).raw(encode_extent(x));
  return w.take();
}
Result<JournalEntry> parse_entry(ByteReader& r) {
  JournalEntry e;
  GBX_ASSIGN(e.seq, r.u64());
  GBX_ASSIGN(e.parent_seq, r.u64());
  GBX_ASSIGN(e.ino, r.u64());
  GBX_ASSIGN(e.parent_ino, r.u64());
  GBX_ASSIGN(e.old_ino, r.u64());
  GBX_ASSIGN(const Bytes path, r.bytes32(1 << 20));
  e.path = std::string(as_text(path));
  GBX_ASSIGN(e.identity, r.fixed<32>());
  GBX_ASSIGN(Bytes inode, r.bytes32(kPageSize));
  GBX_ASSIGN(e.inode, parse_inode(inode));
  cleanse(inode);
  GBX_ASSIGN(const std::uint32_t count, r.u32());
  for (std::uint32_t i = 0; i < count; ++i) {
    GBX_ASSIGN(const std::uint64_t first, r.u64());
    GBX_ASSIGN(const ByteView bytes, r.take(24));
    GBX_ASSIGN(const Extent extent, parse_extent(bytes, first));
    e.extents.push_back(extent);
  }
  return e;
}

Result<Bytes> read_header(int fd) {
  Bytes header(kJournalHeader);
  GBX_TRY(pread_exact(fd, header, 0));
  if (!equal(ByteView(header).first(8), as_bytes(kMagic))) {
    return fail(Reason::kBadMagic, "publication journal");
  }
  return header;
}

}  // namespace

Result<JournalWriter> JournalWriter::create(const std::string& path, const DatasetKey& key,
                                            const Id16& asset_id, Random& random) {
  JournalWriter j;
  j.file_ = Fd(::open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
  if (!j.file_.valid()) return io_error(path, errno);
  const auto salt = random.fixed<16>();
  ByteWriter header;
  header.text(kMagic).raw(salt).raw(asset_id).raw(key_check(key, asset_id));
  j.header_ = header.take();
  j.key_ = journal_key(key, salt);
  j.pending_ = j.header_;
  GBX_TRY(j.sync());
  return j;
}

Status JournalWriter::frame(JournalFrame::Kind kind, Bytes body) {
  ByteWriter plain;
  plain.u8(static_cast<std::uint8_t>(kind)).raw(body);
  cleanse(body);
  Bytes text = plain.take();
  auto sealed = crypto::aead_seal(crypto::AeadSuite::kAes256Gcm, key_, frame_nonce(counter_++),
                                  header_, text);
  cleanse(text);
  if (!sealed.ok()) return sealed.error();
  ByteWriter out;
  append(pending_, out.bytes32(*sealed).bytes());
  return pending_.size() >= kBuffer ? flush() : ok_status();
}
Status JournalWriter::flush() {
  GBX_TRY(write_all(file_.get(), pending_));
  pending_.clear();
  return ok_status();
}
Status JournalWriter::sync() {
  GBX_TRY(flush());
  if (fdatasync(file_.get()) != 0) return io_error("sync of the publication journal", errno);
  return ok_status();
}
Status JournalWriter::entry(const JournalEntry& e) {
  return frame(JournalFrame::Kind::kEntry, encode_entry(e));
}
Status JournalWriter::started(const Id16& object) {
  GBX_TRY(frame(JournalFrame::Kind::kStarted, to_bytes(object)));
  return sync();
}
Status JournalWriter::done(const ObjectEntry& object) {
  GBX_TRY(frame(JournalFrame::Kind::kDone, encode_list_entry(object)));
  return sync();
}

Result<Id16> journal_asset(const std::string& path) {
  Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return io_error(path, errno);
  GBX_ASSIGN(const Bytes header, read_header(file.get()));
  return fixed_from<16>(ByteView(header).subspan(24, 16));
}

Result<JournalReader> JournalReader::open(const std::string& path, const DatasetKey& key,
                                          const Id16& asset_id) {
  JournalReader j;
  j.file_ = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!j.file_.valid()) return io_error(path, errno);
  GBX_ASSIGN(j.header_, read_header(j.file_.get()));
  const ByteView header(j.header_);
  if (!equal(header.subspan(24, 16), asset_id) ||
      !equal(header.subspan(40, 16), key_check(key, asset_id))) {
    return fail(Reason::kBadCommitment, "publication journal of another asset or key")
        .hint("use another state directory, or remove " + path);
  }
  j.key_ = journal_key(key, header.subspan(8, 16));
  j.file_offset_ = kJournalHeader;
  return j;
}

// Makes at least `wanted` bytes available from at_, as far as the file has them.
Status JournalReader::fill(std::size_t wanted) {
  if (buffer_.size() - at_ >= wanted) return ok_status();
  buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(at_));
  at_ = 0;
  const std::size_t have = buffer_.size();
  buffer_.resize(std::max(wanted, kBuffer));
  std::size_t end = have;
  while (end < buffer_.size()) {
    const ssize_t n = pread(file_.get(), buffer_.data() + end, buffer_.size() - end,
                            static_cast<off_t>(file_offset_));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("publication journal", errno);
    if (n == 0) break;
    end += static_cast<std::size_t>(n);
    file_offset_ += static_cast<std::uint64_t>(n);
  }
  buffer_.resize(end);
  return ok_status();
}

Result<std::optional<JournalFrame>> JournalReader::next() {
  const std::optional<JournalFrame> end;
  GBX_TRY(fill(4));
  if (buffer_.size() - at_ < 4) return end;
  ByteReader length_reader(ByteView(buffer_).subspan(at_, 4));
  GBX_ASSIGN(const std::uint32_t length, length_reader.u32());
  if (length > kMaxFrame) return end;
  GBX_TRY(fill(4 + std::size_t{length}));
  if (buffer_.size() - at_ < 4 + std::size_t{length}) return end;
  auto plain = crypto::aead_open(crypto::AeadSuite::kAes256Gcm, key_, frame_nonce(counter_),
                                 header_, ByteView(buffer_).subspan(at_ + 4, length));
  if (!plain.ok()) return end;  // torn by a crash
  at_ += 4 + std::size_t{length};
  ++counter_;
  ByteReader r(*plain);
  JournalFrame f;
  GBX_ASSIGN(const std::uint8_t kind, r.u8());
  f.kind = static_cast<JournalFrame::Kind>(kind);
  if (f.kind == JournalFrame::Kind::kEntry) {
    GBX_ASSIGN(f.entry, parse_entry(r));
  } else if (f.kind == JournalFrame::Kind::kStarted) {
    GBX_ASSIGN(f.object.id, r.fixed<16>());
  } else if (f.kind == JournalFrame::Kind::kDone) {
    GBX_ASSIGN(const ByteView object, r.take(kListEntry));
    GBX_ASSIGN(f.object, parse_list_entry(object));
  } else {
    return fail(Reason::kBadStructure, "publication journal");
  }
  GBX_TRY(r.finish());
  cleanse(*plain);
  return std::optional<JournalFrame>(std::move(f));
}

bool before_in_walk(std::string_view a, std::string_view b) {
  const auto depth = [](std::string_view p) {
    return p.empty() ? 0 : 1 + std::count(p.begin(), p.end(), '/');
  };
  const auto da = depth(a);
  const auto db = depth(b);
  if (da != db) return da < db;
  // '/' sorts below every byte of a name, so that components compare one after the other.
  const auto rank = [](char c) {
    return c == '/' ? 0 : static_cast<int>(static_cast<unsigned char>(c));
  };
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
                                      [&](char x, char y) { return rank(x) < rank(y); });
}

}  // namespace gbx::asset
