#include "asset/verify.h"

#include <algorithm>

#include "asset/reader_impl.h"

namespace gbx::asset {

namespace {

constexpr std::size_t kBatch = 1024;  // list entries read at once

// Reads the list once: calls `each` per entry while hashing, and fails at the end unless the hash
// is the record's. What `each` concludes counts only when the whole succeeds.
Status read_list(storage::ObjectStore& store, const records::VersionRecord& record,
                 const std::function<Status(const ObjectEntry&)>& each) {
  GBX_TRY(check_record(record));
  const std::string name = list_name(record.objects_hash);
  GBX_ASSIGN(const std::uint64_t size, store.size(name));
  const auto count = static_cast<std::uint64_t>(record.object_count);
  const std::uint64_t expected = kListFixed + count * kListEntry;
  if (size != expected) {
    return fail(Reason::kBadStructure, "size of the list of objects")
        .with(std::to_string(expected), std::to_string(size));
  }
  Bytes buffer(kListFixed);
  GBX_TRY(store.get(name, 0, buffer));
  crypto::Sha256 hash;
  hash.update(buffer);
  GBX_ASSIGN(
      const ListHead head,
      parse_list_head(buffer, static_cast<crypto::AeadSuite>(record.suite), record.asset_id));
  if (head.count != count) return fail(Reason::kBadStructure, "count of the list of objects");
  Id16 before{};
  bool root_listed = false;
  std::uint64_t bytes = 0;
  for (std::uint64_t at = 0; at < count; at += kBatch) {
    const auto batch = static_cast<std::size_t>(std::min<std::uint64_t>(kBatch, count - at));
    buffer.resize(batch * kListEntry);
    GBX_TRY(store.get(name, kListFixed + at * kListEntry, buffer));
    hash.update(buffer);
    for (std::size_t i = 0; i < batch; ++i) {
      GBX_ASSIGN(const ObjectEntry e,
                 parse_list_entry(ByteView(buffer).subspan(i * kListEntry, kListEntry)));
      if ((at > 0 || i > 0) && !(before < e.id)) {
        return fail(Reason::kBadStructure, "the list of objects is not ascending");
      }
      before = e.id;
      bytes += e.size;
      root_listed = root_listed || (e.id == head.root_object && e.kind == ObjectKind::kManifest);
      GBX_TRY(each(e));
    }
  }
  const Hash32 actual = hash.finish();
  if (actual != record.objects_hash) {
    return fail(Reason::kBadHash, "list of objects")
        .with(to_hex(record.objects_hash), to_hex(actual));
  }
  if (!root_listed) return fail(Reason::kBadStructure, "the root page's object is not listed");
  if (bytes != static_cast<std::uint64_t>(record.ciphertext_bytes)) {
    return fail(Reason::kBadStructure, "sum of the objects' sizes");
  }
  return ok_status();
}

Status verify_object(storage::ObjectStore& store, const records::VersionRecord& record,
                     const ObjectEntry& e, Bytes& buffer,
                     const std::function<void(std::size_t)>& advance) {
  const std::string name = object_name(e.id);
  GBX_ASSIGN(const std::uint64_t size, store.size(name));
  if (size != e.size) {
    return fail(Reason::kBadStructure, "size of object " + name)
        .with(std::to_string(e.size), std::to_string(size));
  }
  crypto::Sha256 hash;
  for (std::uint64_t at = 0; at < size;) {
    buffer.resize(
        static_cast<std::size_t>(std::min<std::uint64_t>(std::size_t{1} << 20, size - at)));
    GBX_TRY(store.get(name, at, buffer));
    if (at == 0) {
      const std::uint32_t epoch =
          e.kind == ObjectKind::kManifest ? static_cast<std::uint32_t>(record.key_epoch) : 0;
      Status s = check_header(
          ByteView(buffer).first(kHeaderSize),
          {e.kind, static_cast<crypto::AeadSuite>(record.suite), epoch, record.asset_id, e.id});
      if (!s.ok()) return s.error().at("object " + name);
    }
    hash.update(buffer);
    at += buffer.size();
    advance(buffer.size());
  }
  const Hash32 actual = hash.finish();
  if (actual != e.sha256) {
    return fail(Reason::kBadHash, "object " + name).with(to_hex(e.sha256), to_hex(actual));
  }
  return ok_status();
}

// Walks everything from the root directory, with memory for the directories that wait.
class FullCheck {
 public:
  FullCheck(AssetReader& reader, VerifyReport& report)
      : reader_(reader), report_(report), buffer_(std::size_t{1} << 20) {}
  Status run() {
    GBX_ASSIGN(const Attributes root, reader_.attributes(kRootIno));
    if (root.type != NodeType::kDirectory || root.parent != kRootIno) {
      return fail(Reason::kBadStructure, "root directory");
    }
    std::vector<std::uint64_t> waiting{kRootIno};
    while (!waiting.empty()) {
      const std::uint64_t directory = waiting.back();
      waiting.pop_back();
      ++report_.directories;
      if (report_.directories > reader_.totals().directories) {
        return fail(Reason::kBadStructure, "more directories than the totals say");
      }
      GBX_TRY(check_directory(directory, waiting));
    }
    const Meta& m = reader_.totals();
    if (m.files != report_.files || m.directories != report_.directories ||
        m.bytes != report_.bytes) {
      return fail(Reason::kBadStructure, "totals of the manifest");
    }
    return check_keys();
  }

 private:
  Status check_directory(std::uint64_t directory, std::vector<std::uint64_t>& waiting) {
    std::string after;
    for (;;) {
      GBX_ASSIGN(const auto entries, reader_.list(directory, after, 1024));
      if (entries.empty()) return ok_status();
      after = entries.back().name;
      for (const DirectoryEntry& e : entries) {
        GBX_ASSIGN(const Attributes a, reader_.lookup(directory, e.name));
        if (a.ino != e.ino) return fail(Reason::kBadStructure, "directory entry");
        if (e.type == NodeType::kDirectory) {
          waiting.push_back(e.ino);
        } else {
          GBX_TRY(check_file(a));
        }
      }
    }
  }
  Status check_file(const Attributes& a) {
    GBX_ASSIGN(const Inode n, reader_.inode(a.ino));
    GBX_TRY(reader_.extents(a.ino, n));
    crypto::Sha256 hash;
    for (std::uint64_t at = 0; at < a.size;) {
      GBX_ASSIGN(const std::size_t got, reader_.read(a.ino, at, buffer_));
      if (got == 0) return fail(Reason::kTruncated, "file");
      hash.update(ByteView(buffer_).first(got));
      at += got;
    }
    cleanse(buffer_);
    if (content_check(n.content->secret, hash.finish()) != n.content->check) {
      return fail(Reason::kBadHash, "content check of file " + to_hex(n.content->file_id));
    }
    ++report_.files;
    report_.bytes += a.size;
    return ok_status();
  }
  // Nothing in the tree that the walk did not reach.
  Status check_keys() {
    std::uint64_t inodes = 0;
    std::uint64_t entries = 0;
    GBX_TRY(reader_.impl().tree.scan(meta_key(), [&](ByteView key, ByteView) -> Result<bool> {
      if (key[0] == 1) ++inodes;
      if (key[0] == 2) ++entries;
      if (key[0] > 3) return fail(Reason::kBadStructure, "unknown key space in the manifest");
      return true;
    }));
    const std::uint64_t nodes = report_.files + report_.directories;
    if (inodes != nodes || entries + 1 != nodes) {
      return fail(Reason::kBadStructure, "the manifest holds entries that no directory leads to");
    }
    return ok_status();
  }

  AssetReader& reader_;
  VerifyReport& report_;
  Bytes buffer_;
};

}  // namespace

Result<std::vector<ObjectEntry>> load_object_list(storage::ObjectStore& store,
                                                  const records::VersionRecord& record,
                                                  std::size_t limit) {
  if (record.object_count > static_cast<std::int64_t>(limit)) {
    return fail(Reason::kTooLarge, "list of objects");
  }
  std::vector<ObjectEntry> out;
  GBX_TRY(read_list(store, record, [&](const ObjectEntry& e) {
    out.push_back(e);
    return ok_status();
  }));
  return out;
}

Result<VerifyReport> verify(storage::ObjectStore& store, const records::VersionRecord& record,
                            const VerifyProgressFn& progress) {
  // First the list alone: a forged entry is never followed.
  GBX_TRY(read_list(store, record, [](const ObjectEntry&) { return ok_status(); }));
  VerifyReport report;
  Bytes buffer;
  const auto advance = [&](std::size_t n) {
    report.object_bytes += n;
    if (progress) {
      progress(report.object_bytes, static_cast<std::uint64_t>(record.ciphertext_bytes));
    }
  };
  const auto check = [&](const ObjectEntry& e) -> Status {
    ++report.objects;
    return verify_object(store, record, e, buffer, advance);
  };
  GBX_TRY(read_list(store, record, check));
  return report;
}

Status read_everything(AssetReader& reader, VerifyReport& report) {
  return FullCheck(reader, report).run();
}

Result<VerifyReport> verify_with_key(storage::ObjectStore& store,
                                     const records::VersionRecord& record, const Hash32& expected,
                                     const DatasetKey& key, const VerifyProgressFn& progress) {
  GBX_ASSIGN(AssetReader reader, AssetReader::open(store, record, expected, key));
  GBX_ASSIGN(VerifyReport report, verify(store, record, progress));
  GBX_TRY(read_everything(reader, report));
  return report;
}

}  // namespace gbx::asset
