#include "asset/publish.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <set>

#include "asset/journal.h"
#include "asset/reader_impl.h"
#include "asset/tree.h"
#include "asset/verify.h"
#include "base/log.h"
#include "base/os.h"

namespace gbx::asset {

namespace {

constexpr std::size_t kMaxChanges = 1 << 16;  // beyond, the manifest is written anew
constexpr std::size_t kMaxObjects = 1 << 20;  // of one version: 64 TiB
constexpr std::size_t kMaxJournals = 64;
constexpr std::size_t kMaxPath = 4096;
constexpr const char* kFinished = "record.json";

// Object ids, with few repetitions kept.
class IdSet {
 public:
  void add(const Id16& id) {
    if (!ids_.empty() && ids_.back() == id) return;
    ids_.push_back(id);
    if (ids_.size() >= next_sort_) {
      settle();
      next_sort_ = std::max<std::size_t>(4096, ids_.size() * 2);
    }
  }
  const std::vector<Id16>& settle() {
    std::sort(ids_.begin(), ids_.end());
    ids_.erase(std::unique(ids_.begin(), ids_.end()), ids_.end());
    return ids_;
  }

 private:
  std::vector<Id16> ids_;
  std::size_t next_sort_ = 4096;
};

Hash32 identity_of(const struct stat& st) {
  ByteWriter w;
  w.u64(st.st_dev).u64(st.st_ino).u64(static_cast<std::uint64_t>(st.st_size));
  w.u64(static_cast<std::uint64_t>(st.st_mtim.tv_sec))
      .u64(static_cast<std::uint64_t>(st.st_mtim.tv_nsec));
  w.u64(static_cast<std::uint64_t>(st.st_ctim.tv_sec))
      .u64(static_cast<std::uint64_t>(st.st_ctim.tv_nsec));
  return crypto::sha256(w.bytes());
}

Inode inode_of(const struct stat& st, NodeType type) {
  Inode n;
  n.type = type;
  n.executable = type == NodeType::kFile && (st.st_mode & 0111) != 0;
  n.mtime_s = st.st_mtim.tv_sec;
  n.mtime_ns = static_cast<std::uint32_t>(st.st_mtim.tv_nsec);
  n.size = type == NodeType::kFile ? static_cast<std::uint64_t>(st.st_size) : 0;
  return n;
}

std::string join(const std::string& directory, const std::string& name) {
  return directory.empty() ? name : directory + "/" + name;
}
std::string leaf_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

Result<std::vector<std::string>> sorted_names(int directory, const std::string& path) {
  const int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* d = copy < 0 ? nullptr : fdopendir(copy);
  if (d == nullptr) return io_error(path, errno);
  std::vector<std::string> names;
  errno = 0;
  while (const ::dirent* e = readdir(d)) {
    const std::string_view name(e->d_name);
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  const int error = errno;
  closedir(d);
  if (error != 0) return io_error(path, error);
  std::sort(names.begin(), names.end());
  return names;
}

Error refused(const std::string& path, const struct stat& st) {
  const char* what = S_ISLNK(st.st_mode)
                         ? "is a symbolic link; an asset holds regular files and directories only"
                     : S_ISREG(st.st_mode)  ? "is larger than 16 TiB"
                     : S_ISFIFO(st.st_mode) ? "is a pipe"
                     : S_ISSOCK(st.st_mode) ? "is a socket"
                                            : "is a device";
  return fail(Reason::kBadValue, printable(path, 400) + " " + what)
      .hint("remove it from the source, or publish another directory");
}

// One interrupted journal, read beside the walk: both are in the same order.
struct Earlier {
  JournalReader reader;
  std::optional<JournalEntry> current;
};

class Publisher {
 public:
  Publisher(PublishOptions options, storage::ObjectStore& store, Random& random,
            const PublishProgressFn& progress)
      : o_(std::move(options)), store_(store), random_(random), progress_(progress) {}
  Result<PublishResult> run();

 private:
  // Preparation.
  Status open_source();
  Status open_state();
  Status open_journals(const Id16& asset_id);
  Status open_previous();
  Status count_source();
  std::string journal_path(std::size_t n) const {
    return o_.state_dir + "/journal." + std::to_string(n);
  }

  // The walk.
  Status walk();
  Status walk_directory(const JournalEntry& directory);
  Status note_removed(const JournalEntry& directory, const std::vector<std::string>& names);
  Status add_node(const JournalEntry& directory, int directory_fd, const std::string& name);
  Status add_file(JournalEntry& e, int fd, const std::optional<Attributes>& old);
  Status add_root(const struct stat& st);

  // Content of one file, cheapest way first.
  Result<bool> keep_from_earlier_run(JournalEntry& e);
  Result<bool> keep_from_previous(JournalEntry& e, int fd, std::uint64_t old_ino);
  Status seal_file(JournalEntry& e, int fd);
  Status seal_chunks(JournalEntry& e, int fd, FileContent& c, const AeadKey& key);
  Status place_chunk(std::vector<Extent>& extents, std::uint64_t index, ByteView sealed);
  Status close_pack(bool last);

  // The manifest and the record.
  Result<TreeRoot> build_anew(PageWriter& pages);
  Result<TreeRoot> build_on_previous(PageWriter& pages);
  Status collect_changes(TreeChanges& changes);
  Status change_content(TreeChanges& changes, const JournalEntry& e);
  Status remove_subtree(TreeChanges& changes, std::uint64_t ino, NodeType type);
  Status collect_references(const TreeRoot& root, bool shared_pages);
  Result<records::VersionRecord> write_list(const TreeRoot& root);
  Status remove_orphans(const Id16& list_id);
  Status each_entry(const std::function<Status(const JournalEntry&)>& each);
  Status start_object(const Id16& id);
  Status finish_object(const ObjectEntry& object);
  void report() const;

  PublishOptions o_;
  storage::ObjectStore& store_;
  Random& random_;
  const PublishProgressFn& progress_;

  Id16 asset_id_{};
  DatasetKey key_;
  Fd source_;
  std::string single_;  // name of the only file, when the source is one
  std::optional<AssetReader> previous_;
  Hash32 previous_id_{};
  std::vector<ObjectEntry> previous_objects_;
  bool share_pages_ = false;

  std::size_t journal_number_ = 0;
  std::optional<JournalWriter> journal_;
  std::vector<Earlier> earlier_;
  // objects finished by this publication, this run's and earlier ones
  std::map<Id16, ObjectEntry> done_;
  std::set<Id16> started_;

  std::unique_ptr<ObjectBuilder> pack_;
  Bytes plain_, sealed_;
  std::uint64_t next_seq_ = 1;
  std::uint64_t next_ino_ = 2;
  Meta meta_;
  struct Removed {
    std::uint64_t directory;
    std::string name;
    std::uint64_t ino;
    NodeType type;
  };
  std::vector<Removed> removed_;
  IdSet referenced_;
  PublishProgress seen_;
  PublishResult result_;
};

Status Publisher::open_source() {
  struct stat st {};
  if (lstat(o_.source.c_str(), &st) != 0) {
    return errno == ENOENT ? fail(Reason::kNotFound, o_.source + " does not exist")
                           : io_error(o_.source, errno);
  }
  if (S_ISDIR(st.st_mode)) {
    GBX_ASSIGN(source_, open_dir(o_.source));
    return ok_status();
  }
  if (!S_ISREG(st.st_mode)) return refused(o_.source, st);
  single_ = leaf_name(o_.source);
  const auto slash = o_.source.rfind('/');
  GBX_ASSIGN(source_, open_dir(slash == std::string::npos ? "." : o_.source.substr(0, slash + 1)));
  return ok_status();
}

// The key and the asset id must be those of the interrupted run, if there was one.
Status Publisher::open_state() {
  GBX_TRY(make_dirs(o_.state_dir, 0700));
  GBX_ASSIGN(const auto finished, finished_publication(o_.state_dir));
  if (finished) {
    return fail(Reason::kAlreadyExists, o_.state_dir +
                                            " holds the finished publication of version " +
                                            to_hex(finished->id()))
        .hint("sign its record, then discard the directory");
  }
  const std::string key_path = o_.state_dir + "/key";
  if (o_.key) {
    key_ = std::move(*o_.key);
  } else if (path_exists(key_path)) {
    GBX_ASSIGN(Bytes raw, read_file(key_path, 32));
    key_ = DatasetKey::copy_of(raw);
    cleanse(raw);
  } else {
    key_ = random_.secret<DatasetKey>(32);
    GBX_TRY(write_file_atomic(key_path, key_.view(SecretAccess{}), 0600));
  }
  if (key_.size() != 32) {
    return fail(Reason::kBadValue, "dataset key")
        .with("32 bytes", std::to_string(key_.size()) + " bytes");
  }
  std::optional<Id16> wanted = o_.asset_id;
  if (o_.previous) {
    if (wanted && *wanted != o_.previous->record.asset_id) {
      return fail(Reason::kWrongAsset, "previous version");
    }
    wanted = o_.previous->record.asset_id;
  }
  if (!wanted && path_exists(journal_path(0))) {
    GBX_ASSIGN(wanted, journal_asset(journal_path(0)));
  }
  asset_id_ = wanted ? *wanted : random_.fixed<16>();
  return open_journals(asset_id_);
}

Status Publisher::open_journals(const Id16& asset_id) {
  for (; journal_number_ < kMaxJournals && path_exists(journal_path(journal_number_));
       ++journal_number_) {
    const std::string path = journal_path(journal_number_);
    // Once for the objects, which say what of the entries still stands; then again beside the walk.
    auto objects = JournalReader::open(path, key_, asset_id);
    if (!objects.ok()) {
      // A crash may have come before the header was written: such a journal says nothing.
      if (objects.reason() == Reason::kTruncated) continue;
      return objects.error();
    }
    for (;;) {
      GBX_ASSIGN(auto frame, objects->next());
      if (!frame) break;
      if (frame->kind == JournalFrame::Kind::kStarted) started_.insert(frame->object.id);
      if (frame->kind == JournalFrame::Kind::kDone) done_[frame->object.id] = frame->object;
    }
    GBX_ASSIGN(JournalReader entries, JournalReader::open(path, key_, asset_id));
    earlier_.push_back({std::move(entries), std::nullopt});
  }
  if (journal_number_ >= kMaxJournals) {
    return fail(Reason::kConflict, "this publication was interrupted too often")
        .hint("remove " + o_.state_dir + " and publish again");
  }
  GBX_ASSIGN(journal_,
             JournalWriter::create(journal_path(journal_number_), key_, asset_id, random_));
  return ok_status();
}

Status Publisher::open_previous() {
  if (!o_.previous) return ok_status();
  const records::VersionRecord& r = o_.previous->record;
  if (static_cast<std::int64_t>(o_.suite) != r.suite) {
    return fail(Reason::kBadSuite, "the previous version has another suite")
        .hint("publish under another name to change it");
  }
  if (r.owner_id != o_.owner_id) return fail(Reason::kWrongOwner, "previous version");
  previous_id_ = r.id();
  GBX_ASSIGN(previous_, AssetReader::open(store_, r, previous_id_, o_.previous->key));
  GBX_ASSIGN(previous_objects_, load_object_list(store_, r, kMaxObjects));
  share_pages_ = o_.previous->key == key_ && r.key_epoch == o_.key_epoch;
  next_ino_ = previous_->totals().next_ino;
  return ok_status();
}

// Sizes for the progress, and an early refusal of what cannot be published.
Status Publisher::count_source() {
  if (!progress_) return ok_status();
  std::deque<std::string> queue{""};
  while (!queue.empty()) {
    const std::string path = queue.front();
    queue.pop_front();
    std::vector<std::string> names{single_};
    Fd opened;
    if (!path.empty()) {
      GBX_ASSIGN(opened, open_beneath(source_.get(), path, O_RDONLY | O_DIRECTORY));
    }
    const int fd = path.empty() ? source_.get() : opened.get();
    if (single_.empty()) {
      GBX_ASSIGN(names, sorted_names(fd, path));
    }
    for (const std::string& name : names) {
      struct stat st {};
      if (fstatat(fd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return io_error(join(path, name), errno);
      }
      if (S_ISREG(st.st_mode)) {
        ++seen_.files_total;
        seen_.bytes_total += static_cast<std::uint64_t>(st.st_size);
      } else if (S_ISDIR(st.st_mode)) {
        // beyond, the totals are low
        if (queue.size() < (1U << 18)) queue.push_back(join(path, name));
      } else {
        return refused(join(path, name), st);
      }
    }
  }
  if (seen_.files_total == 0) {
    return fail(Reason::kBadValue, o_.source)
        .with("a file, or a folder that has one", "no file in it");
  }
  report();
  return ok_status();
}

void Publisher::report() const {
  if (progress_) progress_(seen_);
}

Status Publisher::start_object(const Id16& id) {
  started_.insert(id);
  return journal_->started(id);
}
Status Publisher::finish_object(const ObjectEntry& object) {
  if (done_.size() >= kMaxObjects) {
    return fail(Reason::kTooLarge, "asset").with("at most 64 TiB", "more");
  }
  done_[object.id] = object;
  ++result_.objects_written;
  return journal_->done(object);
}

Status Publisher::add_root(const struct stat& st) {
  JournalEntry root;
  root.seq = next_seq_++;
  root.ino = kRootIno;
  root.old_ino = previous_ ? kRootIno : 0;
  root.inode = inode_of(st, NodeType::kDirectory);
  // the directory around a single file says nothing
  if (!single_.empty()) root.inode.mtime_s = root.inode.mtime_ns = 0;
  ++meta_.directories;
  return journal_->entry(root);
}

// Breadth first; the journal itself is the queue of directories.
Status Publisher::walk() {
  struct stat st {};
  if (fstat(source_.get(), &st) != 0) return io_error(o_.source, errno);
  GBX_TRY(add_root(st));
  GBX_TRY(journal_->flush());
  GBX_ASSIGN(JournalReader queue,
             JournalReader::open(journal_path(journal_number_), key_, asset_id_));
  for (;;) {
    GBX_ASSIGN(auto frame, queue.next());
    if (!frame) {
      GBX_TRY(journal_->flush());
      GBX_ASSIGN(frame, queue.next());
      if (!frame) break;
    }
    const bool directory = frame->kind == JournalFrame::Kind::kEntry &&
                           frame->entry.inode.type == NodeType::kDirectory;
    if (directory) GBX_TRY(walk_directory(frame->entry));
  }
  return close_pack(true);
}

Status Publisher::walk_directory(const JournalEntry& directory) {
  Fd opened;
  if (!directory.path.empty()) {
    GBX_ASSIGN(opened, open_beneath(source_.get(), directory.path, O_RDONLY | O_DIRECTORY));
  }
  const int fd = directory.path.empty() ? source_.get() : opened.get();
  std::vector<std::string> names{single_};
  if (single_.empty()) {
    GBX_ASSIGN(names, sorted_names(fd, directory.path));
  }
  GBX_TRY(note_removed(directory, names));
  for (const std::string& name : names) GBX_TRY(add_node(directory, fd, name));
  return ok_status();
}

Status Publisher::note_removed(const JournalEntry& directory,
                               const std::vector<std::string>& names) {
  if (!share_pages_ || directory.old_ino == 0) return ok_status();
  std::string after;
  for (;;) {
    GBX_ASSIGN(const auto entries, previous_->list(directory.old_ino, after, 1024));
    if (entries.empty()) return ok_status();
    for (const DirectoryEntry& e : entries) {
      if (!std::binary_search(names.begin(), names.end(), e.name)) {
        removed_.push_back({directory.ino, e.name, e.ino, e.type});
      }
    }
    if (removed_.size() > kMaxChanges) share_pages_ = false;
    if (!share_pages_) return ok_status();
    after = entries.back().name;
  }
}

Status Publisher::add_node(const JournalEntry& directory, int directory_fd,
                           const std::string& name) {
  JournalEntry e;
  e.path = join(directory.path, name);
  if (e.path.size() > kMaxPath) {
    return fail(Reason::kBadValue, "a path is longer than 4096 bytes: " + printable(e.path, 100));
  }
  struct stat st {};
  if (fstatat(directory_fd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    return io_error(printable(e.path), errno);
  }
  const bool file = S_ISREG(st.st_mode);
  if ((!file && !S_ISDIR(st.st_mode)) ||
      (file && static_cast<std::uint64_t>(st.st_size) > kMaxFileSize)) {
    return refused(e.path, st);
  }
  const NodeType type = file ? NodeType::kFile : NodeType::kDirectory;

  std::optional<Attributes> old;
  if (directory.old_ino != 0) {
    auto found = previous_->lookup(directory.old_ino, name);
    if (!found.ok() && found.reason() != Reason::kNotFound) return found.error();
    if (found.ok()) old = *found;
  }
  if (old && old->type != type) {
    removed_.push_back({directory.ino, name, old->ino, old->type});
    old.reset();
  }
  e.seq = next_seq_++;
  e.parent_seq = directory.seq;
  e.parent_ino = directory.ino;
  e.ino = old ? old->ino : next_ino_++;
  e.inode = inode_of(st, type);
  if (!file) {
    e.old_ino = old ? old->ino : 0;
    ++meta_.directories;
    return journal_->entry(e);
  }
  Fd fd(openat(directory_fd, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) return io_error(printable(e.path), errno);
  struct stat opened {};
  if (fstat(fd.get(), &opened) != 0) return io_error(printable(e.path), errno);
  e.identity = identity_of(st);
  if (identity_of(opened) != e.identity) {
    return fail(Reason::kConflict, printable(e.path) + " changed while it was read");
  }
  return add_file(e, fd.get(), old);
}

Status Publisher::add_file(JournalEntry& e, int fd, const std::optional<Attributes>& old) {
  GBX_ASSIGN(bool kept, keep_from_earlier_run(e));
  if (!kept && old) {
    GBX_ASSIGN(kept, keep_from_previous(e, fd, old->ino));
  }
  if (!kept) {
    const std::uint64_t before = seen_.bytes;
    GBX_TRY(seal_file(e, fd));
    seen_.bytes = before;
    ++result_.files_sealed;
  }
  struct stat after {};
  if (fstat(fd, &after) != 0) return io_error(printable(e.path), errno);
  if (identity_of(after) != e.identity) {
    return fail(Reason::kConflict, printable(e.path) + " changed while it was read");
  }
  ++meta_.files;
  meta_.bytes += e.inode.size;
  ++seen_.files;
  seen_.bytes += e.inode.size;
  report();
  return journal_->entry(e);
}

Result<bool> Publisher::keep_from_earlier_run(JournalEntry& e) {
  for (Earlier& run : earlier_) {
    while (!run.current || before_in_walk(run.current->path, e.path)) {
      GBX_ASSIGN(auto frame, run.reader.next());
      if (!frame) break;
      if (frame->kind == JournalFrame::Kind::kEntry) run.current = std::move(frame->entry);
    }
    if (!run.current || run.current->path != e.path || !run.current->inode.content) continue;
    if (run.current->identity != e.identity || run.current->inode.size != e.inode.size) continue;
    const bool whole = std::all_of(run.current->extents.begin(), run.current->extents.end(),
                                   [&](const Extent& x) { return done_.contains(x.object); });
    if (!whole) continue;
    e.inode.content = run.current->inode.content;
    e.extents = run.current->extents;
    return true;
  }
  return false;
}

// The same content under the same path keeps its ciphertext, whatever its times say.
Result<bool> Publisher::keep_from_previous(JournalEntry& e, int fd, std::uint64_t old_ino) {
  GBX_ASSIGN(const Inode old, previous_->inode(old_ino));
  if (!old.content) return false;
  e.inode.content = FileContent();
  e.inode.content->file_id = old.content->file_id;
  e.inode.content->content_version = old.content->content_version + 1;
  if (old.size != e.inode.size) return false;
  crypto::Sha256 hash;
  plain_.resize(kChunkSize);
  for (std::uint64_t at = 0; at < old.size;) {
    const MutableByteView part =
        MutableByteView(plain_).first(chunk_plain(old.size, at >> kChunkLog2));
    Status s = pread_exact(fd, part, at);
    if (!s.ok()) return s.error().at(printable(e.path));
    hash.update(part);
    at += part.size();
  }
  if (content_check(old.content->secret, hash.finish()) != old.content->check) return false;
  e.inode.content = old.content;
  GBX_ASSIGN(e.extents, previous_->extents(old_ino, old));
  return true;
}

Status Publisher::seal_file(JournalEntry& e, int fd) {
  // Set already when the path had other content in the version before: the same file, a new content
  // version.
  if (!e.inode.content) {
    e.inode.content = FileContent();
    e.inode.content->file_id = random_.fixed<16>();
  }
  FileContent& c = *e.inode.content;
  c.secret = FileSecret(random_.fixed<32>());
  FileKeys keys = file_keys(asset_id_, o_.suite, c.file_id, c.content_version, c.secret);
  c.commit = keys.commit;
  GBX_TRY(seal_chunks(e, fd, c, keys.file));
  c.extent_count = static_cast<std::uint32_t>(e.extents.size());
  c.extent.reset();
  if (e.extents.size() == 1) c.extent = e.extents[0];
  return ok_status();
}

Status Publisher::seal_chunks(JournalEntry& e, int fd, FileContent& c, const AeadKey& key) {
  const std::uint64_t size = e.inode.size;
  const std::uint64_t chunks = chunk_count(size);
  plain_.resize(kChunkSize);
  sealed_.resize(kSealedChunk);
  crypto::Sha256 hash;
  std::optional<crypto::AeadStream> stream;
  for (std::uint64_t index = 0; index < chunks; ++index) {
    if (index % kSegmentChunks == 0) {
      GBX_ASSIGN(stream, crypto::AeadStream::create(
                             o_.suite,
                             segment_key(key, static_cast<std::uint32_t>(index / kSegmentChunks))));
    }
    const std::size_t n = chunk_plain(size, index);
    const MutableByteView plain = MutableByteView(plain_).first(n);
    Status read = pread_exact(fd, plain, index << kChunkLog2);
    if (!read.ok() && read.reason() == Reason::kTruncated) {
      return fail(Reason::kConflict, printable(e.path) + " became shorter while it was read");
    }
    if (!read.ok()) return read.error().at(printable(e.path));
    hash.update(plain);
    const bool last = index + 1 == chunks;
    const Bytes aad = chunk_aad({asset_id_, c.file_id, c.content_version, index,
                                 static_cast<std::uint32_t>(n), last, o_.suite});
    const MutableByteView sealed = MutableByteView(sealed_).first(n + crypto::kAeadTagSize);
    GBX_TRY(stream->seal(chunk_nonce(static_cast<std::uint32_t>(index % kSegmentChunks), last), aad,
                         plain, sealed));
    GBX_TRY(place_chunk(e.extents, index, sealed));
    seen_.bytes += n;
    if (index % 64 == 63) report();
  }
  c.check = content_check(c.secret, hash.finish());
  return ok_status();
}

Status Publisher::place_chunk(std::vector<Extent>& extents, std::uint64_t index, ByteView sealed) {
  if (pack_ && !pack_->fits(sealed.size())) GBX_TRY(close_pack(false));
  if (!pack_) {
    const Id16 id = random_.fixed<16>();
    GBX_TRY(start_object(id));
    GBX_ASSIGN(pack_, ObjectBuilder::create(store_, {ObjectKind::kData, o_.suite, 0, asset_id_, id},
                                            o_.object_size));
  }
  if (extents.empty() || extents.back().object != pack_->id()) {
    extents.push_back({index, pack_->id(), pack_->position(), 0});
  }
  ++extents.back().chunks;
  return pack_->add(sealed);
}

Status Publisher::close_pack(bool last) {
  if (!pack_) return ok_status();
  GBX_ASSIGN(const ObjectEntry done, pack_->finish(last, random_));
  pack_.reset();
  return finish_object(done);
}

Status Publisher::each_entry(const std::function<Status(const JournalEntry&)>& each) {
  GBX_TRY(journal_->flush());
  GBX_ASSIGN(JournalReader reader,
             JournalReader::open(journal_path(journal_number_), key_, asset_id_));
  std::uint64_t seen = 0;
  for (;;) {
    GBX_ASSIGN(const auto frame, reader.next());
    if (!frame) break;
    if (frame->kind != JournalFrame::Kind::kEntry) continue;
    ++seen;
    GBX_TRY(each(frame->entry));
  }
  if (seen + 1 != next_seq_) {
    return fail(Reason::kIo, "the publication journal changed under the publication");
  }
  return ok_status();
}

// Sequence numbers serve as inode numbers: the journal is in their order, and so are directory
// entries in it.
Result<TreeRoot> Publisher::build_anew(PageWriter& pages) {
  TreeBuilder tree(pages);
  meta_.next_ino = next_seq_;
  GBX_TRY(tree.add(meta_key(), encode_meta(meta_)));
  GBX_TRY(each_entry([&](const JournalEntry& e) {
    Inode n = e.inode;
    n.parent = e.seq == kRootIno ? kRootIno : e.parent_seq;
    Bytes value = encode_inode(n);
    Status s = tree.add(inode_key(e.seq), value);
    cleanse(value);
    return s;
  }));
  GBX_TRY(each_entry([&](const JournalEntry& e) {
    if (e.seq == kRootIno) return ok_status();
    return tree.add(dirent_key(e.parent_seq, leaf_name(e.path)),
                    encode_dirent({e.seq, e.inode.type}));
  }));
  const auto add_extents = [&](const JournalEntry& e) -> Status {
    for (const Extent& x : e.extents) {
      referenced_.add(x.object);
      if (e.extents.size() > 1) {
        GBX_TRY(tree.add(extent_key(e.seq, x.first_chunk), encode_extent(x)));
      }
    }
    return ok_status();
  };
  GBX_TRY(each_entry(add_extents));
  return tree.finish();
}

Status Publisher::remove_subtree(TreeChanges& changes, std::uint64_t top, NodeType top_type) {
  std::vector<std::pair<std::uint64_t, NodeType>> stack{{top, top_type}};
  while (!stack.empty() && changes.size() <= kMaxChanges) {
    const auto [ino, type] = stack.back();
    stack.pop_back();
    GBX_ASSIGN(const Inode n, previous_->inode(ino));
    if (n.content && n.content->extent_count > 1) {
      GBX_ASSIGN(const auto extents, previous_->extents(ino, n));
      for (const Extent& x : extents) changes[extent_key(ino, x.first_chunk)] = std::nullopt;
    }
    changes[inode_key(ino)] = std::nullopt;
    if (type != NodeType::kDirectory) continue;
    std::string after;
    while (changes.size() <= kMaxChanges) {
      GBX_ASSIGN(const auto entries, previous_->list(ino, after, 1024));
      if (entries.empty()) break;
      after = entries.back().name;
      for (const DirectoryEntry& d : entries) {
        changes[dirent_key(ino, d.name)] = std::nullopt;
        stack.emplace_back(d.ino, d.type);
      }
    }
  }
  return ok_status();
}

Status Publisher::change_content(TreeChanges& changes, const JournalEntry& e) {
  TreeReader& tree = previous_->impl().tree;
  GBX_ASSIGN(const auto old, tree.find(inode_key(e.ino)));
  Inode n = e.inode;
  n.parent = e.seq == kRootIno ? kRootIno : e.parent_ino;
  Bytes value = encode_inode(n);
  if (old && equal(old->value(), value)) return ok_status();
  changes[inode_key(e.ino)] = std::move(value);
  if (old) {
    GBX_ASSIGN(const Inode before, parse_inode(old->value()));
    if (before.content && n.content && before.content->secret.bytes == n.content->secret.bytes) {
      return ok_status();
    }
    GBX_ASSIGN(const auto extents, previous_->extents(e.ino, before));
    for (const Extent& x : extents) {
      if (extents.size() > 1) changes[extent_key(e.ino, x.first_chunk)] = std::nullopt;
    }
  }
  for (const Extent& x : e.extents) {
    if (e.extents.size() > 1) changes[extent_key(e.ino, x.first_chunk)] = encode_extent(x);
  }
  return ok_status();
}

Status Publisher::collect_changes(TreeChanges& changes) {
  for (const Removed& r : removed_) {
    changes[dirent_key(r.directory, r.name)] = std::nullopt;
    GBX_TRY(remove_subtree(changes, r.ino, r.type));
  }
  meta_.next_ino = next_ino_;
  changes[meta_key()] = encode_meta(meta_);
  TreeReader& tree = previous_->impl().tree;
  return each_entry([&](const JournalEntry& e) -> Status {
    if (changes.size() > kMaxChanges) return ok_status();
    GBX_TRY(change_content(changes, e));
    if (e.seq == kRootIno) return ok_status();
    Bytes key = dirent_key(e.parent_ino, leaf_name(e.path));
    Bytes value = encode_dirent({e.ino, e.inode.type});
    GBX_ASSIGN(const auto old, tree.find(key));
    if (!old || !equal(old->value(), value)) changes[std::move(key)] = std::move(value);
    return ok_status();
  });
}

Result<TreeRoot> Publisher::build_on_previous(PageWriter& pages) {
  TreeChanges changes;
  GBX_TRY(collect_changes(changes));
  if (changes.size() > kMaxChanges) {
    share_pages_ = false;
    return build_anew(pages);
  }
  AssetReader::Impl& old = previous_->impl();
  auto root = apply_changes(old.pages, old.tree.root(), changes, pages);
  for (auto& [key, value] : changes) {
    if (value) cleanse(*value);
  }
  return root;
}

// Shared pages hide what they refer to, so the whole new tree is walked; that also checks it.
Status Publisher::collect_references(const TreeRoot& root, bool shared_pages) {
  for (const auto& [id, object] : done_) {
    if (object.kind == ObjectKind::kManifest) referenced_.add(id);
  }
  if (!shared_pages) return ok_status();
  PageStore pages(store_, {asset_id_, o_.suite, static_cast<std::uint32_t>(o_.key_epoch)},
                  key_.clone(), 64);
  std::vector<std::pair<PageRef, int>> stack{{root.ref, root.level}};
  while (!stack.empty()) {
    const auto [ref, level] = stack.back();
    stack.pop_back();
    referenced_.add(ref.object);
    GBX_ASSIGN(const auto page, pages.load(ref, level));
    for (std::size_t i = 0; i < page->size(); ++i) {
      if (level > 0) {
        GBX_ASSIGN(const PageRef child, parse_page_ref(page->value(i)));
        stack.emplace_back(child, level - 1);
      } else if (page->key(i)[0] == 1) {
        GBX_ASSIGN(const Inode n, parse_inode(page->value(i)));
        if (n.content && n.content->extent) referenced_.add(n.content->extent->object);
      } else if (page->key(i)[0] == 3) {
        GBX_ASSIGN(const Extent x, parse_extent(page->value(i), 0));
        referenced_.add(x.object);
      }
    }
  }
  return ok_status();
}

Result<records::VersionRecord> Publisher::write_list(const TreeRoot& root) {
  std::map<Id16, const ObjectEntry*> known;
  for (const ObjectEntry& e : previous_objects_) known[e.id] = &e;
  for (const auto& [id, e] : done_) known[id] = &e;
  records::VersionRecord r;
  const std::vector<Id16>& ids = referenced_.settle();
  Bytes list = encode_list_head(o_.suite, asset_id_, root.ref.object, ids.size());
  std::uint64_t bytes = 0;
  for (const Id16& id : ids) {
    const auto it = known.find(id);
    if (it == known.end()) return fail(Reason::kInternal, "an object without a hash");
    append(list, encode_list_entry(*it->second));
    bytes += it->second->size;
  }
  r.format = std::string(kFormatWord);
  r.suite = static_cast<std::int64_t>(o_.suite);
  r.owner_id = o_.owner_id;
  r.asset_id = asset_id_;
  r.kind = o_.kind;
  r.version = o_.previous ? o_.previous->record.version + 1 : 1;
  r.prev = previous_id_;
  r.root_page = root.ref.slot;
  r.root_level = root.level;
  r.root_hash = root.ref.hash;
  r.objects_hash = crypto::sha256(list);
  r.object_count = static_cast<std::int64_t>(ids.size());
  r.file_count = static_cast<std::int64_t>(padme(meta_.files));
  r.ciphertext_bytes = static_cast<std::int64_t>(bytes);
  r.key_epoch = o_.key_epoch;
  r.commit_dk = dataset_key_commitment(key_, asset_id_);
  r.content_digest = o_.content_digest;
  r.name = o_.name;
  GBX_TRY(check_record(r));
  GBX_ASSIGN(const Id16 list_id, fixed_from<16>(ByteView(r.objects_hash).first(16)));
  GBX_TRY(start_object(list_id));
  Status put = store_.put(list_name(r.objects_hash), list);
  if (!put.ok() && put.reason() != Reason::kAlreadyExists) return put.error();
  GBX_TRY(remove_orphans(list_id));
  return r;
}

// What interrupted runs left in the store and this version does not need.
Status Publisher::remove_orphans(const Id16& list_id) {
  const std::vector<Id16>& used = referenced_.settle();
  for (const Id16& id : started_) {
    if (id == list_id || std::binary_search(used.begin(), used.end(), id)) continue;
    Status s = store_.remove(object_name(id));
    if (!s.ok() && s.reason() != Reason::kNotFound) return s;
  }
  return ok_status();
}

Result<PublishResult> Publisher::run() {
  if (o_.name.empty() || o_.name.size() > 64 || !valid_utf8(o_.name)) {
    return fail(Reason::kBadValue, "name").with("1 to 64 bytes of UTF-8", printable(o_.name));
  }
  GBX_TRY(open_source());
  GBX_TRY(open_state());
  GBX_TRY(open_previous());
  GBX_TRY(count_source());
  GBX_TRY(walk());
  PageWriter pages({store_, key_, asset_id_, o_.suite, static_cast<std::uint32_t>(o_.key_epoch),
                    o_.object_size, random_, [this](const Id16& id) { return start_object(id); },
                    [this](const ObjectEntry& e) { return finish_object(e); }});
  // Manifest objects of interrupted runs are not built upon.
  std::erase_if(done_, [](const auto& d) { return d.second.kind == ObjectKind::kManifest; });
  const bool shared = share_pages_;
  auto root = shared ? build_on_previous(pages) : build_anew(pages);
  if (!root.ok()) return root.error();
  GBX_TRY(pages.finish());
  GBX_TRY(collect_references(*root, shared && share_pages_));
  GBX_ASSIGN(result_.record, write_list(*root));
  // From here on the state directory stands for this version: another publication in it would clear
  // its objects away.
  GBX_TRY(write_file_atomic(o_.state_dir + "/" + kFinished,
                            as_bytes(canonical(to_json(result_.record))), 0600));
  result_.key = std::move(key_);
  result_.files = meta_.files;
  result_.bytes = meta_.bytes;
  return std::move(result_);
}

}  // namespace

Result<PublishResult> publish(PublishOptions options, storage::ObjectStore& store, Random& random,
                              const PublishProgressFn& progress) {
  return Publisher(std::move(options), store, random, progress).run();
}

Result<std::optional<records::VersionRecord>> finished_publication(const std::string& state_dir) {
  const std::string path = state_dir + "/" + kFinished;
  std::optional<records::VersionRecord> none;
  if (!path_exists(path)) return none;
  GBX_ASSIGN(const std::string text, read_text_file(path, 1 << 16));
  GBX_ASSIGN(auto record, from_json_text<records::VersionRecord>(text));
  return std::optional<records::VersionRecord>(std::move(record));
}

}  // namespace gbx::asset
