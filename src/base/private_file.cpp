#include "base/private_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/os.h"

namespace gbx {

Result<Bytes> read_private_file(const std::string& path, std::size_t limit) {
  // SAFETY: without O_NONBLOCK a pipe in its place would keep the program waiting.
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
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
  return read_all(fd.get(), limit);
}

}  // namespace gbx
