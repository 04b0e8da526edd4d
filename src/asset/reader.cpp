#include "asset/reader.h"

#include <algorithm>

#include "asset/reader_impl.h"

namespace gbx::asset {

namespace {
// Read at once, at most: 1 MiB of plaintext.
constexpr std::size_t kRun = 16;

std::string chunk_name(const OpenFile& file, std::uint64_t index) {
  return "chunk " + std::to_string(index) + " of file " + to_hex(file.inode.content->file_id);
}
}  // namespace

AssetReader::Impl::Impl(storage::ObjectStore& s, const records::VersionRecord& r,
                        const DatasetKey& key, TreeRoot root, ReaderOptions o)
    : store(s),
      record(r),
      suite(static_cast<crypto::AeadSuite>(r.suite)),
      on_bad_chunk(o.on_bad_chunk),
      pages(s, {r.asset_id, suite, static_cast<std::uint32_t>(r.key_epoch)}, key.clone(),
            o.cached_pages),
      tree(pages, std::move(root)),
      files(o.cached_files),
      chunks(o.cached_chunks),
      checked(4096) {}

AssetReader::AssetReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AssetReader::AssetReader(AssetReader&&) noexcept = default;
AssetReader& AssetReader::operator=(AssetReader&&) noexcept = default;
AssetReader::~AssetReader() = default;
const Meta& AssetReader::totals() const { return impl_->meta; }

Status AssetReader::check(const records::VersionRecord& record, const Hash32& expected,
                          const DatasetKey& key) {
  GBX_TRY(check_record(record));
  const Hash32 id = record.id();
  if (id != expected) {
    return fail(Reason::kWrongVersion, "version record").with(to_hex(expected), to_hex(id));
  }
  if (dataset_key_commitment(key, record.asset_id) != record.commit_dk) {
    return fail(Reason::kBadCommitment,
                "the dataset key is not the one that the version record commits to");
  }
  return ok_status();
}

Result<AssetReader> AssetReader::open(storage::ObjectStore& store,
                                      const records::VersionRecord& record, const Hash32& expected,
                                      const DatasetKey& key, ReaderOptions options) {
  GBX_TRY(check(record, expected, key));
  // Where the root page lies is a hint of the store's: what is found there must have the record's
  // hash.
  FixedBytes<kListFixed> head_bytes{};
  GBX_TRY(fetch(store, list_name(record.objects_hash), 0, head_bytes));
  auto head =
      parse_list_head(head_bytes, static_cast<crypto::AeadSuite>(record.suite), record.asset_id);
  if (!head.ok()) return head.error().at("list of objects");
  if (head->count != static_cast<std::uint64_t>(record.object_count)) {
    return fail(Reason::kBadStructure, "list of objects")
        .with(std::to_string(record.object_count), std::to_string(head->count));
  }
  TreeRoot root{{head->root_object, static_cast<std::uint32_t>(record.root_page), record.root_hash},
                static_cast<int>(record.root_level)};
  auto impl = std::make_unique<Impl>(store, record, key, std::move(root), options);
  GBX_ASSIGN(const auto meta, impl->tree.find(meta_key()));
  if (!meta) return fail(Reason::kBadStructure, "manifest without totals");
  GBX_ASSIGN(impl->meta, parse_meta(meta->value()));
  return AssetReader(std::move(impl));
}

Result<Inode> AssetReader::inode(std::uint64_t ino) {
  GBX_ASSIGN(const auto hit, impl_->tree.find(inode_key(ino)));
  if (!hit) return fail(Reason::kNotFound, "inode " + std::to_string(ino));
  return parse_inode(hit->value());
}

Result<Attributes> AssetReader::attributes(std::uint64_t ino) {
  GBX_ASSIGN(const Inode n, inode(ino));
  return Attributes{ino, n.type, n.size, n.executable, n.mtime_s, n.mtime_ns, n.parent};
}

Result<Attributes> AssetReader::lookup(std::uint64_t directory, std::string_view name) {
  if (!valid_name(name)) return fail(Reason::kNotFound, "no such name");
  GBX_ASSIGN(const auto hit, impl_->tree.find(dirent_key(directory, name)));
  if (!hit) return fail(Reason::kNotFound, "no such name");
  GBX_ASSIGN(const Dirent d, parse_dirent(hit->value()));
  auto found = attributes(d.ino);
  if (!found.ok() && found.reason() == Reason::kNotFound) {
    return fail(Reason::kBadStructure, "a directory entry names an inode that is absent");
  }
  if (found.ok() && (found->type != d.type || found->parent != directory)) {
    return fail(Reason::kBadStructure, "a directory entry contradicts its inode");
  }
  return found;
}

Result<std::vector<DirectoryEntry>> AssetReader::list(std::uint64_t directory,
                                                      std::string_view after, std::size_t limit) {
  std::vector<DirectoryEntry> out;
  if (limit == 0) return out;
  const Bytes prefix = dirent_key(directory, {});
  const Bytes from = dirent_key(directory, after);
  GBX_TRY(impl_->tree.scan(from, [&](ByteView key, ByteView value) -> Result<bool> {
    if (key.size() < prefix.size() || !equal(key.first(prefix.size()), prefix)) return false;
    const std::string_view name = as_text(key.subspan(prefix.size()));
    if (!after.empty() && name == after) return true;
    if (!valid_name(name)) return fail(Reason::kBadStructure, "name of a directory entry");
    GBX_ASSIGN(const Dirent d, parse_dirent(value));
    out.push_back({d.ino, d.type, std::string(name)});
    return out.size() < limit;
  }));
  return out;
}

Result<std::shared_ptr<OpenFile>> AssetReader::Impl::file(std::uint64_t ino) {
  if (auto known = files.find(ino)) return known;
  GBX_ASSIGN(const auto hit, tree.find(inode_key(ino)));
  if (!hit) return fail(Reason::kNotFound, "inode " + std::to_string(ino));
  auto opened = std::make_shared<OpenFile>();
  opened->ino = ino;
  GBX_ASSIGN(opened->inode, parse_inode(hit->value()));
  if (!opened->inode.content) return fail(Reason::kBadValue, "a directory is no file");
  const FileContent& c = *opened->inode.content;
  FileKeys keys = file_keys(record.asset_id, suite, c.file_id, c.content_version, c.secret);
  if (keys.commit != c.commit) {
    return fail(Reason::kBadCommitment, "key of file " + to_hex(c.file_id));
  }
  opened->key = std::move(keys.file);
  return files.insert(ino, std::move(opened));
}

Result<Extent> AssetReader::Impl::extent_of(const OpenFile& f, std::uint64_t chunk) {
  const FileContent& c = *f.inode.content;
  if (c.extent) return *c.extent;
  GBX_ASSIGN(const auto hit, tree.floor(extent_key(f.ino, chunk)));
  const Bytes prefix = extent_key(f.ino, 0);
  if (!hit || hit->key().size() != prefix.size() ||
      !equal(hit->key().first(9), ByteView(prefix).first(9))) {
    return fail(Reason::kBadStructure, "no extent holds " + chunk_name(f, chunk));
  }
  std::uint64_t first = 0;
  for (const std::uint8_t b : hit->key().subspan(9)) first = (first << 8) | b;
  GBX_ASSIGN(const Extent e, parse_extent(hit->value(), first));
  if (chunk - first >= e.chunks) {
    return fail(Reason::kBadStructure, "no extent holds " + chunk_name(f, chunk));
  }
  return e;
}

Result<std::vector<Extent>> AssetReader::extents(std::uint64_t ino, const Inode& n) {
  std::vector<Extent> out;
  if (!n.content || n.content->extent_count == 0) return out;
  if (n.content->extent) return std::vector<Extent>{*n.content->extent};
  OpenFile f;
  f.ino = ino;
  f.inode = n;
  const std::uint64_t chunks = chunk_count(n.size);
  for (std::uint64_t next = 0; next < chunks;) {
    GBX_ASSIGN(const Extent e, impl_->extent_of(f, next));
    if (e.first_chunk != next || e.chunks > chunks - next) {
      return fail(Reason::kBadStructure, "extents overlap");
    }
    out.push_back(e);
    next += e.chunks;
  }
  if (out.size() != n.content->extent_count) {
    return fail(Reason::kBadStructure, "number of extents");
  }
  return out;
}

Status AssetReader::Impl::check_data_header(const Id16& object) {
  if (checked.find(object)) return ok_status();
  FixedBytes<kHeaderSize> header{};
  GBX_TRY(fetch(store, object_name(object), 0, header));
  Status s = check_header(header, {ObjectKind::kData, suite, 0, record.asset_id, object});
  if (!s.ok()) return s.error().at("object " + object_name(object));
  (void)checked.insert(object, std::make_shared<bool>(true));
  return ok_status();
}

Error AssetReader::Impl::bad_chunk(const OpenFile& f, std::uint64_t index, Error error) const {
  if (on_bad_chunk) on_bad_chunk({record.asset_id, f.inode.content->file_id, index, error.reason});
  return error.at(chunk_name(f, index));
}

namespace {
Result<crypto::AeadStream> take_stream(OpenFile& f, crypto::AeadSuite suite,
                                       std::uint32_t segment) {
  {
    const std::lock_guard lock(f.mutex);
    for (std::size_t i = 0; i < f.idle.size(); ++i) {
      if (f.idle[i].first != segment) continue;
      crypto::AeadStream s = std::move(f.idle[i].second);
      f.idle.erase(f.idle.begin() + static_cast<std::ptrdiff_t>(i));
      return s;
    }
  }
  return crypto::AeadStream::create(suite, segment_key(f.key, segment));
}
void give_stream(OpenFile& f, std::uint32_t segment, crypto::AeadStream s) {
  const std::lock_guard lock(f.mutex);
  if (f.idle.size() >= 4) f.idle.erase(f.idle.begin());
  f.idle.emplace_back(segment, std::move(s));
}
}  // namespace

Status AssetReader::Impl::open_chunks(OpenFile& f, const Extent& e, std::uint64_t first,
                                      std::size_t count, MutableByteView out) {
  Status header = check_data_header(e.object);
  if (!header.ok()) return bad_chunk(f, first, header.error());
  const std::uint64_t size = f.inode.size;
  const std::uint64_t chunk_total = chunk_count(size);
  const std::uint64_t start = e.offset + (first - e.first_chunk) * kSealedChunk;
  // Private memory: what is checked is what is used, whatever the host does to the file meanwhile.
  thread_local Bytes scratch;
  auto got = fetch_view(store, object_name(e.object), start,
                        out.size() + count * crypto::kAeadTagSize, scratch);
  if (!got.ok()) return bad_chunk(f, first, got.error());
  const ByteView sealed = *got;
  std::size_t from = 0;
  std::size_t to = 0;
  std::optional<crypto::AeadStream> stream;
  std::uint32_t segment = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t index = first + i;
    const auto wanted = static_cast<std::uint32_t>(index / kSegmentChunks);
    if (!stream || segment != wanted) {
      if (stream) give_stream(f, segment, std::move(*stream));
      segment = wanted;
      GBX_ASSIGN(stream, take_stream(f, suite, segment));
    }
    const std::size_t plain = chunk_plain(size, index);
    const bool last = index + 1 == chunk_total;
    const Bytes aad =
        chunk_aad({record.asset_id, f.inode.content->file_id, f.inode.content->content_version,
                   index, static_cast<std::uint32_t>(plain), last, suite});
    Status s =
        stream->open(chunk_nonce(static_cast<std::uint32_t>(index % kSegmentChunks), last), aad,
                     sealed.subspan(from, plain + crypto::kAeadTagSize), out.subspan(to, plain));
    if (!s.ok()) {
      cleanse(out);
      return bad_chunk(f, index, s.error());
    }
    from += plain + crypto::kAeadTagSize;
    to += plain;
  }
  if (stream) give_stream(f, segment, std::move(*stream));
  return ok_status();
}

Result<std::shared_ptr<ChunkPlain>> AssetReader::Impl::chunk(OpenFile& f, std::uint64_t index) {
  const ChunkKey key{f.ino, index};
  if (auto known = chunks.find(key)) return known;
  GBX_ASSIGN(const Extent e, extent_of(f, index));
  auto plain = std::make_shared<ChunkPlain>(buffers, chunk_plain(f.inode.size, index));
  GBX_TRY(open_chunks(f, e, index, 1, plain->writable()));
  return chunks.insert(key, std::move(plain));
}

Result<std::size_t> AssetReader::read(std::uint64_t ino, std::uint64_t offset,
                                      MutableByteView out) {
  GBX_ASSIGN(const auto f, impl_->file(ino));
  const std::uint64_t size = f->inode.size;
  if (offset >= size) return std::size_t{0};
  const auto total = static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), size - offset));
  std::size_t done = 0;
  while (done < total) {
    const std::uint64_t at = offset + done;
    const std::uint64_t index = at >> kChunkLog2;
    const auto skip = static_cast<std::size_t>(at & (kChunkSize - 1));
    // Whole chunks go straight to the caller; parts of chunks through the cache.
    if (skip == 0 && total - done >= chunk_plain(size, index)) {
      GBX_ASSIGN(const Extent e, impl_->extent_of(*f, index));
      const std::uint64_t extent_left = e.first_chunk + e.chunks - index;
      std::size_t bytes = 0;
      std::size_t count = 0;
      while (count < std::min<std::uint64_t>(kRun, extent_left)) {
        const std::size_t plain = chunk_plain(size, index + count);
        if (plain == 0 || bytes + plain > total - done) break;
        bytes += plain;
        ++count;
      }
      GBX_TRY(impl_->open_chunks(*f, e, index, count, out.subspan(done, bytes)));
      done += bytes;
      continue;
    }
    GBX_ASSIGN(const auto plain, impl_->chunk(*f, index));
    const ByteView bytes = plain->bytes().subspan(skip);
    const std::size_t n = std::min(bytes.size(), total - done);
    std::memcpy(out.data() + done, bytes.data(), n);
    done += n;
  }
  return done;
}

}  // namespace gbx::asset
