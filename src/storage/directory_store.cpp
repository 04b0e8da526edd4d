#include "storage/directory_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>

namespace gbx::storage {

namespace {

constexpr const char* kIncoming = "incoming";

// FNV-1a, only to spread names over 256 directories: random hex names and chosen ones alike.
std::string fan_out(const std::string& name) {
  std::uint32_t h = 2166136261U;
  for (const char c : name) h = (h ^ static_cast<std::uint8_t>(c)) * 16777619U;
  const std::uint8_t byte[1] = {static_cast<std::uint8_t>(h ^ (h >> 8) ^ (h >> 16) ^ (h >> 24))};
  return to_hex(byte);
}

Status sync_directory(int root, const std::string& path) {
  GBX_ASSIGN(Fd dir, open_beneath(root, path, O_RDONLY | O_DIRECTORY));
  if (fsync(dir.get()) != 0) return io_error("sync of " + path, errno);
  return ok_status();
}

Status ensure_directory(int root, const std::string& path, bool sync) {
  if (mkdirat(root, path.c_str(), 0755) == 0) {
    if (fchmodat(root, path.c_str(), 0755, 0) != 0) return io_error("mode of " + path, errno);
    if (sync && fsync(root) != 0) return io_error("sync of the store", errno);
    return ok_status();
  }
  if (errno != EEXIST) return io_error("making " + path, errno);
  return ok_status();
}

std::string temporary_name(const std::string& name) {
  static std::atomic<std::uint64_t> counter{0};
  return std::string(kIncoming) + "/" + name + "." + std::to_string(getpid()) + "." +
         std::to_string(counter++);
}

}  // namespace

class DirectoryStore::Writer final : public ObjectWriter {
 public:
  Writer(int root, bool sync, std::string name)
      : root_(root), sync_(sync), name_(std::move(name)) {}
  ~Writer() override {
    if (!temporary_.empty()) unlinkat(root_, temporary_.c_str(), 0);
  }

  Status open() {
    directory_ = fan_out(name_);
    GBX_TRY(ensure_directory(root_, directory_, sync_));
    auto unnamed = open_beneath(root_, directory_, O_TMPFILE | O_WRONLY, 0644);
    if (unnamed.ok()) {
      file_ = std::move(*unnamed);
      return set_mode();
    }
    // The file system cannot make unnamed files: a named one, removed by the destructor.
    GBX_TRY(ensure_directory(root_, kIncoming, sync_));
    temporary_ = temporary_name(name_);
    GBX_ASSIGN(file_, open_beneath(root_, temporary_, O_CREAT | O_EXCL | O_WRONLY, 0644));
    return set_mode();
  }

  Status write(ByteView bytes) override { return write_all(file_.get(), bytes); }

  Status commit() override {
    if (sync_ && fsync(file_.get()) != 0) return io_error("sync of object " + name_, errno);
    const std::string target = directory_ + "/" + name_;
    int r = 0;
    if (temporary_.empty()) {
      const std::string self = "/proc/self/fd/" + std::to_string(file_.get());
      r = linkat(AT_FDCWD, self.c_str(), root_, target.c_str(), AT_SYMLINK_FOLLOW);
    } else {
      r = linkat(root_, temporary_.c_str(), root_, target.c_str(), 0);
    }
    if (r != 0 && errno == EEXIST) return fail(Reason::kAlreadyExists, "object " + name_);
    if (r != 0) return io_error("naming object " + name_, errno);
    return sync_ ? sync_directory(root_, directory_) : ok_status();
  }

 private:
  // Ciphertext is for the uid of every server, whatever the umask of who wrote it.
  Status set_mode() {
    if (fchmod(file_.get(), 0644) != 0) return io_error("mode of object " + name_, errno);
    return ok_status();
  }

  const int root_;  // the store outlives its writers
  const bool sync_;
  const std::string name_;
  std::string directory_;
  std::string temporary_;
  Fd file_;
};

Result<std::unique_ptr<DirectoryStore>> DirectoryStore::open(const std::string& path,
                                                             SyncPolicy sync) {
  const bool fresh = !path_exists(path);
  GBX_TRY(make_dirs(path, 0755));
  GBX_ASSIGN(Fd root, open_dir(path));
  if (fresh && fchmod(root.get(), 0755) != 0) return io_error("mode of " + path, errno);
  return from_fd(std::move(root), sync);
}

std::unique_ptr<DirectoryStore> DirectoryStore::from_fd(Fd root, SyncPolicy sync) {
  return std::unique_ptr<DirectoryStore>(new DirectoryStore(std::move(root), sync));
}

Result<std::unique_ptr<ObjectWriter>> DirectoryStore::create(const std::string& name) {
  GBX_TRY(check_object_name(name));
  auto writer = std::make_unique<Writer>(root_.get(), sync_ == SyncPolicy::kAlways, name);
  GBX_TRY(writer->open());
  return std::unique_ptr<ObjectWriter>(std::move(writer));
}

Result<std::shared_ptr<Fd>> DirectoryStore::open_object(const std::string& name) {
  GBX_TRY(check_object_name(name));
  {
    const std::lock_guard lock(mutex_);
    const auto it = index_.find(name);
    if (it != index_.end()) {
      recent_.splice(recent_.begin(), recent_, it->second);
      return it->second->second;
    }
  }
  auto opened =
      open_beneath(root_.get(), fan_out(name) + "/" + name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!opened.ok()) {
    if (opened.reason() == Reason::kNotFound) return fail(Reason::kNotFound, "object " + name);
    return opened.error();
  }
  struct stat st {};
  if (fstat(opened->get(), &st) != 0) return io_error("object " + name, errno);
  if (!S_ISREG(st.st_mode)) {
    return fail(Reason::kBadStructure, "object " + name + " is not a regular file");
  }
  auto file = std::make_shared<Fd>(std::move(*opened));
  const std::lock_guard lock(mutex_);
  if (index_.find(name) == index_.end()) {
    recent_.emplace_front(name, file);
    index_[name] = recent_.begin();
    if (recent_.size() > kOpenFiles) {
      index_.erase(recent_.back().first);
      recent_.pop_back();
    }
  }
  return file;
}

Status DirectoryStore::get(const std::string& name, std::uint64_t offset, MutableByteView out) {
  if (offset > (std::uint64_t{1} << 62)) return fail(Reason::kTruncated, "object " + name);
  GBX_ASSIGN(const auto file, open_object(name));
  Status s = pread_exact(file->get(), out, offset);
  if (!s.ok()) s.error().at("object " + name);
  return s;
}

Result<std::uint64_t> DirectoryStore::size(const std::string& name) {
  GBX_ASSIGN(const auto file, open_object(name));
  struct stat st {};
  if (fstat(file->get(), &st) != 0) return io_error("object " + name, errno);
  return static_cast<std::uint64_t>(st.st_size);
}

Status DirectoryStore::list(const std::function<Status(const std::string&)>& each) {
  for (unsigned i = 0; i < 256; ++i) {
    const std::uint8_t byte[1] = {static_cast<std::uint8_t>(i)};
    auto dir = open_beneath(root_.get(), to_hex(byte), O_RDONLY | O_DIRECTORY);
    if (!dir.ok() && dir.reason() == Reason::kNotFound) continue;
    if (!dir.ok()) return dir.error();
    DIR* d = fdopendir(dir->get());
    if (d == nullptr) return io_error("listing the store", errno);
    (void)dir->release();  // closedir() closes it
    Status s = ok_status();
    errno = 0;
    while (const dirent* e = s.ok() ? readdir(d) : nullptr) {
      if (valid_object_name(e->d_name)) s = each(e->d_name);
      errno = 0;
    }
    if (s.ok() && errno != 0) s = io_error("listing the store", errno);
    closedir(d);
    GBX_TRY(s);
  }
  return ok_status();
}

Status DirectoryStore::remove(const std::string& name) {
  GBX_TRY(check_object_name(name));
  {
    const std::lock_guard lock(mutex_);
    const auto it = index_.find(name);
    if (it != index_.end()) {
      recent_.erase(it->second);
      index_.erase(it);
    }
  }
  auto dir = open_beneath(root_.get(), fan_out(name), O_RDONLY | O_DIRECTORY);
  if (!dir.ok() && dir.reason() == Reason::kNotFound) {
    return fail(Reason::kNotFound, "object " + name);
  }
  if (!dir.ok()) return dir.error();
  if (unlinkat(dir->get(), name.c_str(), 0) != 0) {
    return errno == ENOENT ? fail(Reason::kNotFound, "object " + name)
                           : io_error("removing object " + name, errno);
  }
  return ok_status();
}

}  // namespace gbx::storage
