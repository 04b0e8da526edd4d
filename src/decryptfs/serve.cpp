#define FUSE_USE_VERSION 314
#include "decryptfs/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <memory>
#include <thread>

namespace gbx::decryptfs {

Audit::Audit(int fd) : fd_(fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags >= 0) (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}
void Audit::write(const AuditEvent& event) {
  const std::string line = canonical(to_json(event)) + "\n";
  // Below PIPE_BUF a line is written whole or, when nobody reads, not at all: the mount must not
  // hang on its auditor.
  (void)!::write(fd_, line.data(), line.size());
}
bool Audit::first_time(const std::string& fault) {
  bool report_full = false;
  {
    const std::lock_guard lock(mutex_);
    if (faults_.size() < kMostFaults) return faults_.insert(fault).second;
    report_full = !full_ && !faults_.contains(fault);
    full_ = full_ || report_full;
  }
  AuditEvent e;
  e.event = "more-suppressed";
  if (report_full) write(e);
  return false;
}
void Audit::bad_chunk(const asset::BadChunk& chunk) {
  if (!first_time(to_hex(chunk.file_id) + std::to_string(chunk.index))) return;
  AuditEvent e;
  e.event = "bad-chunk";
  e.reason = std::string(reason_code(chunk.reason));
  e.asset = chunk.asset_id;
  e.file = chunk.file_id;
  e.chunk = static_cast<std::int64_t>(chunk.index);
  write(e);
}
void Audit::bad_manifest(const Id16& asset_id, const Error& error) {
  if (!first_time(error.what)) return;
  AuditEvent e;
  e.event = "bad-manifest";
  e.reason = std::string(reason_code(error.reason));
  e.what = error.what.substr(0, 512);
  e.asset = asset_id;
  write(e);
}

namespace {

constexpr double kForEver = 86400;  // a version never changes
constexpr std::size_t kMostRead = std::size_t{1} << 20;
constexpr std::size_t kDirectoryBatch = 256;

// Where an open directory stands, so that reading on does not begin again.
struct OpenDirectory {
  std::mutex mutex;
  std::uint64_t position = 0;  // entries before `after`, itself included; guarded by mutex
  std::string after;           // guarded by mutex
};

// Open directories by the number that the kernel knows them by. Whoever reads one keeps it, so that
// it may be closed meanwhile. As many as the container may have descriptors.
class OpenDirectories {
 public:
  std::uint64_t add() {
    const std::lock_guard lock(mutex_);
    open_.emplace(++last_, std::make_shared<OpenDirectory>());
    return last_;
  }
  std::shared_ptr<OpenDirectory> find(std::uint64_t number) {
    const std::lock_guard lock(mutex_);
    const auto found = open_.find(number);
    return found == open_.end() ? nullptr : found->second;
  }
  void remove(std::uint64_t number) {
    const std::lock_guard lock(mutex_);
    open_.erase(number);
  }

 private:
  std::mutex mutex_;
  std::map<std::uint64_t, std::shared_ptr<OpenDirectory>> open_;  // guarded by mutex_
  std::uint64_t last_ = 0;                                        // guarded by mutex_
};

struct Context {
  asset::AssetReader& reader;
  Id16 asset_id;
  Audit& audit;
  OpenDirectories directories{};
};
Context& context(fuse_req_t req) { return *static_cast<Context*>(fuse_req_userdata(req)); }

struct stat stat_of(const asset::Attributes& a) {
  struct stat st {};
  const bool directory = a.type == asset::NodeType::kDirectory;
  st.st_ino = a.ino;
  st.st_mode = directory ? S_IFDIR | 0555 : S_IFREG | (a.executable ? 0555 : 0444);
  st.st_nlink = directory ? 2 : 1;
  st.st_size = static_cast<off_t>(a.size);
  st.st_blksize = 65536;
  st.st_blocks = static_cast<blkcnt_t>((a.size + 511) / 512);
  st.st_mtim = {a.mtime_s, static_cast<long>(a.mtime_ns)};
  st.st_atim = st.st_ctim = st.st_mtim;
  return st;
}
fuse_entry_param entry_of(const asset::Attributes& a) {
  fuse_entry_param e{};
  e.ino = a.ino;
  e.generation = 1;
  e.attr = stat_of(a);
  e.attr_timeout = kForEver;
  e.entry_timeout = kForEver;
  return e;
}

// ENOENT is an answer; everything else about a manifest is a fault.
int errno_of(fuse_req_t req, const Error& error) {
  if (error.reason == Reason::kNotFound) return ENOENT;
  context(req).audit.bad_manifest(context(req).asset_id, error);
  return EIO;
}

void on_init(void*, fuse_conn_info* conn) {
  const unsigned unwanted = FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                            FUSE_CAP_READDIRPLUS_AUTO;
  const unsigned wanted = FUSE_CAP_READDIRPLUS | FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS |
                          FUSE_CAP_NO_OPEN_SUPPORT;
  conn->want &= ~unwanted;
  conn->want |= conn->capable & wanted;
  conn->max_read = static_cast<unsigned>(kMostRead);
}

void on_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  auto found = context(req).reader.lookup(parent, name);
  if (found.ok()) {
    const fuse_entry_param e = entry_of(*found);
    fuse_reply_entry(req, &e);
    return;
  }
  const int error = errno_of(req, found.error());
  if (error != ENOENT) {
    fuse_reply_err(req, error);
    return;
  }
  fuse_entry_param none{};  // ino 0: the absence may be cached too
  none.entry_timeout = kForEver;
  fuse_reply_entry(req, &none);
}

void on_forget(fuse_req_t req, fuse_ino_t, std::uint64_t) { fuse_reply_none(req); }
void on_forget_multi(fuse_req_t req, std::size_t, fuse_forget_data*) { fuse_reply_none(req); }

void on_getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  auto found = context(req).reader.attributes(ino);
  if (!found.ok()) {
    fuse_reply_err(req, errno_of(req, found.error()));
    return;
  }
  const struct stat st = stat_of(*found);
  fuse_reply_attr(req, &st, kForEver);
}

// ENOSYS tells the kernel to open without asking from now on, and to keep its cache over opens.
void on_open(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  if ((fi->flags & O_ACCMODE) != O_RDONLY) {
    fuse_reply_err(req, EROFS);
    return;
  }
  fuse_reply_err(req, ENOSYS);
}

void on_read(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset, fuse_file_info*) {
  thread_local Bytes plain;
  if (plain.size() < kMostRead) plain.resize(kMostRead);
  const MutableByteView out = MutableByteView(plain).first(std::min(size, kMostRead));
  auto got =
      context(req).reader.read(ino, static_cast<std::uint64_t>(std::max<off_t>(offset, 0)), out);
  if (got.ok()) {
    // SAFETY: plaintext bytes as the char array that the C interface wants.
    fuse_reply_buf(req, reinterpret_cast<const char*>(plain.data()), *got);
    return;
  }
  // A bad chunk has told the audit already; what is left is the manifest.
  if (got.error().what.rfind("chunk ", 0) != 0) (void)errno_of(req, got.error());
  fuse_reply_err(req, EIO);
}

void on_opendir(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  OpenDirectories& directories = context(req).directories;
  fi->cache_readdir = 1;
  fi->keep_cache = 1;
  fi->fh = directories.add();
  // The reply ends `req`, also where it fails.
  if (fuse_reply_open(req, fi) != 0) directories.remove(fi->fh);
}
void on_releasedir(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  context(req).directories.remove(fi->fh);
  fuse_reply_err(req, 0);
}

// Brings the directory to `offset` entries; going back begins again.
Status seek(Context& c, fuse_ino_t ino, OpenDirectory& h, std::uint64_t offset) {
  if (h.position > offset) {
    h.position = 0;
    h.after.clear();
  }
  while (h.position < offset) {
    GBX_ASSIGN(const auto skipped, c.reader.list(ino, h.after,
                                                 static_cast<std::size_t>(std::min<std::uint64_t>(
                                                     1024, offset - h.position))));
    if (skipped.empty()) return ok_status();
    h.position += skipped.size();
    h.after = skipped.back().name;
  }
  return ok_status();
}

Result<std::size_t> fill_directory(fuse_req_t req, fuse_ino_t ino, OpenDirectory& h,
                                   std::vector<char>& out, bool plus) {
  Context& c = context(req);
  std::size_t used = 0;
  for (;;) {
    GBX_ASSIGN(const auto entries, c.reader.list(ino, h.after, kDirectoryBatch));
    for (const asset::DirectoryEntry& e : entries) {
      const auto next = static_cast<off_t>(h.position + 1);
      std::size_t need = 0;
      if (plus) {
        GBX_ASSIGN(const asset::Attributes a, c.reader.attributes(e.ino));
        const fuse_entry_param p = entry_of(a);
        need = fuse_add_direntry_plus(req, out.data() + used, out.size() - used, e.name.c_str(), &p,
                                      next);
      } else {
        struct stat st {};
        st.st_ino = e.ino;
        st.st_mode = e.type == asset::NodeType::kDirectory ? S_IFDIR : S_IFREG;
        need =
            fuse_add_direntry(req, out.data() + used, out.size() - used, e.name.c_str(), &st, next);
      }
      if (need > out.size() - used) return used;
      used += need;
      ++h.position;
      h.after = e.name;
    }
    if (entries.size() < kDirectoryBatch) return used;
  }
}

void read_directory(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset,
                    fuse_file_info* fi, bool plus) {
  std::vector<char> out(std::min(size, kMostRead));
  Result<std::size_t> used;
  const std::shared_ptr<OpenDirectory> directory = context(req).directories.find(fi->fh);
  if (directory == nullptr) {
    fuse_reply_err(req, EBADF);
    return;
  }
  {
    OpenDirectory& h = *directory;
    const std::lock_guard lock(h.mutex);
    Status at = seek(context(req), ino, h, static_cast<std::uint64_t>(std::max<off_t>(offset, 0)));
    used = at.ok() ? fill_directory(req, ino, h, out, plus) : Result<std::size_t>(at.error());
  }
  if (!used.ok()) {
    context(req).audit.bad_manifest(context(req).asset_id, used.error());
    fuse_reply_err(req, EIO);
    return;
  }
  fuse_reply_buf(req, out.data(), *used);
}
void on_readdir(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset,
                fuse_file_info* fi) {
  read_directory(req, ino, size, offset, fi, false);
}
void on_readdirplus(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset,
                    fuse_file_info* fi) {
  read_directory(req, ino, size, offset, fi, true);
}

void on_statfs(fuse_req_t req, fuse_ino_t) {
  const asset::Meta& m = context(req).reader.totals();
  struct statvfs s {};
  s.f_bsize = s.f_frsize = 4096;
  s.f_blocks = (m.bytes + 4095) / 4096;
  s.f_files = m.files + m.directories;
  s.f_namemax = asset::kMaxName;
  s.f_flag = ST_RDONLY | ST_NOSUID;
  fuse_reply_statfs(req, &s);
}

fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops ops{};
  ops.init = on_init;
  ops.lookup = on_lookup;
  ops.forget = on_forget;
  ops.forget_multi = on_forget_multi;
  ops.getattr = on_getattr;
  ops.open = on_open;
  ops.read = on_read;
  ops.opendir = on_opendir;
  ops.releasedir = on_releasedir;
  ops.readdir = on_readdir;
  ops.readdirplus = on_readdirplus;
  ops.statfs = on_statfs;
  return ops;
}

struct SessionEnd {
  void operator()(fuse_session* s) const { fuse_session_destroy(s); }
};

// Threads are made first and wait here, so that the process may give up making threads before it
// serves. It must wait for all of them to arrive: a thread's first steps need system calls that
// serving does not.
class Gate {
 public:
  void wait_for(unsigned arrivals) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return arrived_ == arrivals; });
  }
  void open(bool go) {
    const std::lock_guard lock(mutex_);
    state_ = go ? 1 : 2;
    changed_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return state_ != 0; });
    return state_ == 1;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int state_ = 0;         // guarded by mutex_
  unsigned arrived_ = 0;  // guarded by mutex_
};

void work(fuse_session* session, Gate& gate) {
  if (!gate.wait()) return;
  fuse_buf buffer{};
  while (fuse_session_exited(session) == 0) {
    const int n = fuse_session_receive_buf(session, &buffer);
    if (n == -EINTR || n == -EAGAIN) continue;
    if (n <= 0) break;  // unmounted
    fuse_session_process_buf(session, &buffer);
  }
  fuse_session_exit(session);
  free(buffer.mem);
}

}  // namespace

Status serve(asset::AssetReader& reader, const Id16& asset_id, Audit& audit,
             const ServeOptions& options) {
  Context c{reader, asset_id, audit};
  const fuse_lowlevel_ops ops = operations();
  std::string name = "glovebox-decryptfs";
  std::string option = "-omax_read=" + std::to_string(kMostRead);  // as the mount has it
  char* argv[] = {name.data(), option.data(), nullptr};
  fuse_args args = FUSE_ARGS_INIT(2, argv);
  std::unique_ptr<fuse_session, SessionEnd> session(fuse_session_new(&args, &ops, sizeof ops, &c));
  fuse_opt_free_args(&args);  // libfuse made a list of its own of them
  if (!session) return fail(Reason::kInternal, "fuse session");
  const std::string where = "/dev/fd/" + std::to_string(options.fuse_fd);
  if (fuse_session_mount(session.get(), where.c_str()) != 0) {
    return fail(Reason::kIo, "the FUSE descriptor is not usable");
  }
  Gate gate;
  std::vector<std::thread> workers;
  for (unsigned i = 0; i < options.workers; ++i) {
    workers.emplace_back([&] { work(session.get(), gate); });
  }
  gate.wait_for(options.workers);
  Status ready = options.before_serving ? options.before_serving() : ok_status();
  gate.open(ready.ok());
  for (std::thread& t : workers) t.join();
  return ready;
}

}  // namespace gbx::decryptfs
