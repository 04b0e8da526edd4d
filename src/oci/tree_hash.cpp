#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "base/os.h"
#include "crypto/crypto.h"
#include "oci/oci.h"

namespace gbx::oci {
namespace {

constexpr std::size_t kMaxEntries = 1'000'000;
constexpr std::size_t kMaxDepth = 128;

struct Found {
  std::string path;
  struct stat st;
};

// Collects what is in one directory; sub-directories are returned for the caller's own stack.
Status list_dir(int root_fd, const std::string& dir, std::vector<Found>& out,
                std::vector<std::string>& below) {
  GBX_ASSIGN(Fd fd, open_beneath(root_fd, dir.empty() ? "." : dir, O_RDONLY | O_DIRECTORY));
  DIR* d = fdopendir(fd.get());
  if (d == nullptr) return io_error(printable(dir), errno);
  const int dir_fd = fd.release();  // owned by d
  Status result = ok_status();
  while (const dirent* e = readdir(d)) {
    const std::string name(e->d_name);
    if (name == "." || name == "..") continue;
    Found f{dir.empty() ? name : dir + "/" + name, {}};
    if (fstatat(dir_fd, name.c_str(), &f.st, AT_SYMLINK_NOFOLLOW) != 0) {
      result = io_error(printable(f.path), errno);
      break;
    }
    if (S_ISDIR(f.st.st_mode)) below.push_back(f.path);
    out.push_back(std::move(f));
    if (out.size() > kMaxEntries) {
      result = fail(Reason::kImageRefused, "a tree of more than a million entries");
      break;
    }
  }
  closedir(d);
  return result;
}

Result<Hash32> hash_file(int root_fd, const Found& f) {
  GBX_ASSIGN(const Fd fd, open_beneath(root_fd, f.path, O_RDONLY | O_NONBLOCK));
  crypto::Sha256 hash;
  std::uint64_t total = 0;
  Bytes buffer(1U << 17);
  for (;;) {
    const ssize_t n = read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error(printable(f.path), errno);
    if (n == 0) break;
    total += static_cast<std::uint64_t>(n);
    hash.update(ByteView(buffer).first(static_cast<std::size_t>(n)));
  }
  if (total != static_cast<std::uint64_t>(f.st.st_size)) {
    return fail(Reason::kIo, "a file changed while it was hashed: " + printable(f.path));
  }
  return hash.finish();
}

Result<std::string> link_target(int root_fd, const Found& f) {
  const std::size_t slash = f.path.rfind('/');
  const std::string parent = slash == std::string::npos ? "." : f.path.substr(0, slash);
  const std::string name = slash == std::string::npos ? f.path : f.path.substr(slash + 1);
  GBX_ASSIGN(const Fd dir, open_beneath(root_fd, parent, O_RDONLY | O_DIRECTORY));
  std::string target(4096, '\0');
  const ssize_t n = readlinkat(dir.get(), name.c_str(), target.data(), target.size());
  if (n < 0) return io_error(printable(f.path), errno);
  target.resize(static_cast<std::size_t>(n));
  return target;
}

Result<Bytes> listing(int root_fd, const Found& f) {
  ByteWriter w;
  w.bytes32(as_bytes(f.path));
  const auto mode = static_cast<std::uint32_t>(f.st.st_mode & 07777U);
  if (S_ISDIR(f.st.st_mode)) {
    w.u8('d').u32(mode);
  } else if (S_ISREG(f.st.st_mode)) {
    GBX_ASSIGN(const Hash32 content, hash_file(root_fd, f));
    w.u8('f').u32(mode).u64(static_cast<std::uint64_t>(f.st.st_size)).raw(content);
  } else if (S_ISLNK(f.st.st_mode)) {
    GBX_ASSIGN(const std::string target, link_target(root_fd, f));
    w.u8('l').u32(0).bytes32(as_bytes(target));
  } else {
    return fail(Reason::kImageRefused, "neither directory, file nor link: " + printable(f.path));
  }
  return w.take();
}

}  // namespace

Result<Hash32> hash_tree(int dir_fd) {
  std::vector<Found> found;
  std::vector<std::string> stack{""};
  while (!stack.empty()) {
    const std::string dir = std::move(stack.back());
    stack.pop_back();
    if (static_cast<std::size_t>(std::count(dir.begin(), dir.end(), '/')) > kMaxDepth) {
      return fail(Reason::kImageRefused, "directories nested too deeply");
    }
    GBX_TRY(list_dir(dir_fd, dir, found, stack));
  }
  std::sort(found.begin(), found.end(),
            [](const Found& a, const Found& b) { return a.path < b.path; });
  crypto::Sha256 hash;
  hash.update(as_bytes(std::string_view("gbx/1/rootfs\0", 13)));
  for (const Found& f : found) {
    GBX_ASSIGN(const Bytes line, listing(dir_fd, f));
    hash.update(line);
  }
  ByteWriter end;
  end.u64(found.size());
  hash.update(end.bytes());
  return hash.finish();
}

}  // namespace gbx::oci
