#include "gate/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/names.h"
#include "base/os.h"

namespace gbx::gate {
namespace {

constexpr std::size_t kMaxInputDepth = 64;
constexpr std::size_t kMaxPendingFolders = 1'000'000;

GateReason special_reason(std::uint32_t mode) {
  if (S_ISLNK(mode)) return GateReason::kSymlink;
  if (S_ISFIFO(mode)) return GateReason::kFifo;
  if (S_ISSOCK(mode)) return GateReason::kSocket;
  if (S_ISCHR(mode) || S_ISBLK(mode)) return GateReason::kDevice;
  if (S_ISDIR(mode)) return GateReason::kDirectory;
  return GateReason::kUnreadable;
}

// Reads one declared file after the kernel confirmed what it is; kNone on success.
GateReason load_file(int out_fd, const std::string& path, std::int64_t max_bytes,
                     LoadedFile& file) {
  const Result<Fd> fd = open_beneath(out_fd, path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
  struct stat st {};
  if (!fd.ok() || fstat(fd->get(), &st) != 0) return GateReason::kUnreadable;
  if (!S_ISREG(st.st_mode)) return special_reason(st.st_mode);
  if (st.st_nlink != 1) return GateReason::kHardlink;
  if (st.st_size > max_bytes) return GateReason::kTooLarge;
  if (st.st_size > 0 && lseek(fd->get(), 0, SEEK_HOLE) < st.st_size) return GateReason::kSparseFile;
  if (lseek(fd->get(), 0, SEEK_SET) != 0) return GateReason::kUnreadable;
  Result<Bytes> bytes = read_all(fd->get(), static_cast<std::size_t>(max_bytes));
  if (!bytes.ok()) {
    return bytes.reason() == Reason::kTooLarge ? GateReason::kTooLarge : GateReason::kUnreadable;
  }
  file.bytes = std::move(*bytes);
  return GateReason::kNone;
}

class OutputLoader {
 public:
  OutputLoader(int out_fd, const std::vector<OutputDeclaration>& outputs, std::int64_t max_bytes)
      : out_fd_(out_fd), outputs_(outputs), max_bytes_(max_bytes) {
    folder_.files.resize(outputs.size());
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const std::string& p = outputs[i].path;
      declared_[p] = i;
      for (auto at = p.find('/'); at != std::string::npos; at = p.find('/', at + 1)) {
        parents_.insert(p.substr(0, at));
      }
    }
  }

  Result<LoadedFolder> run() {
    std::vector<std::string> pending{"."};
    while (!pending.empty() && !full()) {
      const std::string dir = pending.back();
      pending.pop_back();
      GBX_ASSIGN(const Fd fd, open_beneath(out_fd_, dir, O_RDONLY | O_DIRECTORY | O_NONBLOCK));
      const std::string prefix = dir == "." ? "" : dir + "/";
      GBX_TRY(for_each_entry(fd.get(), [&](const FolderEntry& e) {
        const std::string path = prefix + e.name;
        if (parents_.count(path) != 0 && S_ISDIR(e.mode)) {
          pending.push_back(path);
        } else {
          entry(path, e);
        }
        return !full();
      }));
    }
    for (std::size_t i = 0; i < outputs_.size() && !full(); ++i) {
      if (!folder_.files[i].found) find(GateReason::kMissingFile, outputs_[i].name);
    }
    return std::move(folder_);
  }

 private:
  bool full() const { return folder_.findings.size() >= kMaxFindings; }
  void find(GateReason why, const std::string& output) {
    folder_.findings.push_back({why, output});
    // The last place says that there is more, whatever it was.
    if (full()) folder_.findings.back() = {GateReason::kTooManyFiles, ""};
  }
  void entry(const std::string& path, const FolderEntry& e) {
    const auto it = declared_.find(path);
    const std::string output = it == declared_.end() ? "" : outputs_[it->second].name;
    if (!S_ISREG(e.mode) && (it != declared_.end() || !S_ISDIR(e.mode))) {
      find(special_reason(e.mode), output);
      if (it != declared_.end()) folder_.files[it->second].found = true;
      return;
    }
    if (it == declared_.end()) {
      find(plain_name(e.name) ? GateReason::kUndeclaredFile : GateReason::kOddName, "");
      return;
    }
    LoadedFile& file = folder_.files[it->second];
    file.found = true;
    const std::int64_t limit = std::min(outputs_[it->second].maxBytes, max_bytes_);
    const GateReason why = load_file(out_fd_, path, limit, file);
    if (why != GateReason::kNone) {
      find(why, output);
      return;
    }
    max_bytes_ -= static_cast<std::int64_t>(file.bytes.size());
  }

  int out_fd_;
  const std::vector<OutputDeclaration>& outputs_;
  std::int64_t max_bytes_;  // of all together
  std::map<std::string, std::size_t> declared_;
  std::set<std::string> parents_;
  LoadedFolder folder_;
};

// An invalid descriptor where it is not a regular file.
Result<Fd> open_regular(int dir_fd, const std::string& path) {
  GBX_ASSIGN(Fd fd, open_beneath(dir_fd, path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW));
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return io_error("fstat", errno);
  if (!S_ISREG(st.st_mode)) fd.reset();
  return fd;
}
Status read_chunks(int fd, Bytes& buffer, const std::function<void(ByteView)>& data) {
  while (true) {
    const ssize_t n = read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("read", errno);
    if (n == 0) return ok_status();
    data(ByteView(buffer.data(), static_cast<std::size_t>(n)));
  }
}
Status stream_into(int dir_fd, const std::string& path, const FileSink& sink, Bytes& buffer) {
  GBX_ASSIGN(const Fd fd, open_regular(dir_fd, path));
  if (!fd.valid()) return ok_status();
  sink.begin();
  GBX_TRY(read_chunks(fd.get(), buffer, sink.data));
  sink.end();
  return ok_status();
}

}  // namespace

Status for_each_entry(int dir_fd, const std::function<bool(const FolderEntry&)>& visit) {
  // linux_dirent64: u64 ino, s64 off, u16 length, u8 type, then the name. Copied out, never cast.
  alignas(8) std::uint8_t buffer[32768];
  while (true) {
    // SAFETY: getdents64 writes at most sizeof buffer bytes.
    const long n = syscall(SYS_getdents64, dir_fd, buffer, sizeof buffer);
    if (n < 0) return io_error("getdents64", errno);
    if (n == 0) return ok_status();
    for (std::size_t at = 0; at + 19 <= static_cast<std::size_t>(n);) {
      std::uint16_t length = 0;
      std::memcpy(&length, buffer + at + 16, sizeof length);
      if (length < 20 || at + length > static_cast<std::size_t>(n)) {
        return fail(Reason::kIo, "getdents64: odd record");
      }
      FolderEntry e;
      for (std::size_t i = at + 19; i < at + length && buffer[i] != 0; ++i) {
        e.name.push_back(static_cast<char>(buffer[i]));
      }
      at += length;
      if (e.name == "." || e.name == "..") continue;
      struct stat st {};
      if (fstatat(dir_fd, e.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return io_error("fstatat", errno);
      }
      e.mode = st.st_mode;
      e.links = st.st_nlink;
      e.size = static_cast<std::uint64_t>(st.st_size);
      if (!visit(e)) return ok_status();
    }
  }
}

Result<LoadedFolder> load_outputs(int out_fd, const std::vector<OutputDeclaration>& outputs,
                                  std::int64_t max_bytes) {
  return OutputLoader(out_fd, outputs, max_bytes).run();
}

Status stream_files(int dir_fd, const FileSink& sink) {
  Bytes buffer(1U << 20);
  std::vector<std::string> pending{"."};
  while (!pending.empty()) {
    const std::string dir = pending.back();
    pending.pop_back();
    GBX_ASSIGN(const Fd fd, open_beneath(dir_fd, dir, O_RDONLY | O_DIRECTORY | O_NONBLOCK));
    const std::string prefix = dir == "." ? "" : dir + "/";
    const auto depth = static_cast<std::size_t>(std::count(dir.begin(), dir.end(), '/'));
    Status inner = ok_status();
    GBX_TRY(for_each_entry(fd.get(), [&](const FolderEntry& e) {
      if (S_ISREG(e.mode)) inner = stream_into(dir_fd, prefix + e.name, sink, buffer);
      if (S_ISDIR(e.mode)) pending.push_back(prefix + e.name);
      if (inner.ok() && (depth > kMaxInputDepth || pending.size() > kMaxPendingFolders)) {
        inner = fail(Reason::kTooLarge, "input has too many folders");
      }
      return inner.ok();
    }));
    GBX_TRY(inner);
  }
  return ok_status();
}

Status stream_file(int dir_fd, const std::string& path, const std::function<void(ByteView)>& data) {
  GBX_ASSIGN(const Fd fd, open_regular(dir_fd, path));
  if (!fd.valid()) return fail(Reason::kNotFound, "no regular file");
  Bytes buffer(1U << 20);
  return read_chunks(fd.get(), buffer, data);
}

}  // namespace gbx::gate
