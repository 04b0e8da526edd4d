#include "base/private_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/os.h"

namespace gbx {

namespace {

Result<Fd> open_private(const std::string& path) {
  // SAFETY: without O_NONBLOCK a pipe in its place would keep the program waiting.
  Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) {
    if (errno == ENOENT) return fail(Reason::kNotFound, "key file").with(path, "no such file");
    return io_error(path, errno);
  }
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return io_error(path, errno);
  if (!S_ISREG(st.st_mode)) {
    return fail(Reason::kIo, "key file").at(path).with("a regular file", "something else");
  }
  if ((st.st_mode & 0077) != 0) {
    return fail(Reason::kIo, "key file may be read by others")
        .at(path)
        .with("mode 0600", "wider")
        .hint("chmod 600 " + path);
  }
  return fd;
}

}  // namespace

Result<Bytes> read_private_file(const std::string& path, std::size_t limit) {
  GBX_ASSIGN(const Fd fd, open_private(path));
  return read_all(fd.get(), limit);
}

Result<SecretBuffer> read_private_secret(const std::string& path, std::size_t limit) {
  GBX_ASSIGN(const Fd fd, open_private(path));
  SecretBuffer room(limit + 1);
  const MutableByteView to = room.writable(SecretAccess{});
  std::size_t size = 0;
  while (size <= limit) {
    const ssize_t n = read(fd.get(), to.data() + size, to.size() - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error(path, errno);
    if (n == 0) break;
    size += static_cast<std::size_t>(n);
  }
  if (size > limit) {
    return fail(Reason::kTooLarge, "file")
        .at(path)
        .with("at most " + std::to_string(limit) + " bytes", "more");
  }
  SecretBuffer out(size);
  std::copy_n(to.begin(), size, out.writable(SecretAccess{}).begin());
  return out;
}

}  // namespace gbx
