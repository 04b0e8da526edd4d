// Applies the layers of an image to a directory. All names resolve beneath the target with openat2
// and never through a symbolic link, so that no entry of a tar can reach anything else, whatever
// earlier entries made.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <map>
#include <set>

#include "base/log.h"
#include "base/os.h"
#include "oci/layout.h"
#include "oci/oci.h"
#include "oci/tar.h"

namespace gbx::oci {
namespace {

constexpr std::string_view kWhiteout = ".wh.";
constexpr std::string_view kOpaque = ".wh..wh..opq";
constexpr int kMaxRemoveDepth = 128;

Error refuse(std::string what) { return fail(Reason::kImageRefused, std::move(what)); }

struct Split {
  std::string parent;  // empty: the root
  std::string name;
};
Split split(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {"", path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}
std::string join(const std::string& parent, const std::string& name) {
  return parent.empty() ? name : parent + "/" + name;
}

enum class Kind { kAbsent, kDirectory, kFile, kSymlink };
Result<Kind> kind_at(int dir_fd, const std::string& name) {
  struct stat st {};
  if (fstatat(dir_fd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return Kind::kAbsent;
    return io_error(printable(name), errno);
  }
  if (S_ISDIR(st.st_mode)) return Kind::kDirectory;
  if (S_ISLNK(st.st_mode)) return Kind::kSymlink;
  if (S_ISREG(st.st_mode)) return Kind::kFile;
  return refuse("the target holds something that is neither directory, file nor link: " +
                printable(name));
}

class Unpacker {
 public:
  Unpacker(int target_fd, const UnpackOptions& options) : root_(target_fd), options_(options) {}
  Status check_target();
  Status apply_layer(int layout_fd, const Layer& layer);
  UnpackedImage take_result() { return std::move(result_); }

 private:
  Status apply_tar(Source& source);
  Status apply(const TarEntry& e, TarReader& reader);
  Status whiteout(const std::string& parent, const std::string& name, const TarEntry& e);
  Status make_directory(int dir_fd, const std::string& name, const TarEntry& e);
  Status make_file(int dir_fd, const std::string& name, const TarEntry& e, TarReader& reader);
  Status make_hard_link(int dir_fd, const std::string& name, const TarEntry& e);
  Status make_symlink(int dir_fd, const std::string& name, const TarEntry& e);
  Status set_directory(int fd, const TarEntry& e);
  Result<Fd> open_dir_at(const std::string& path, int* error);
  Result<Fd> open_parent(const std::string& path);
  Status clear_place(int dir_fd, const std::string& path, const std::string& name);
  Status remove_lower(int dir_fd, const std::string& path, const std::string& name, int depth);
  Status remove_lower_children(int dir_fd, const std::string& path, int depth);
  uid_t owner(std::uint32_t id) const { return options_.uid_base + id; }
  std::uint32_t permissions(const TarEntry& e);

  int root_;
  const UnpackOptions& options_;
  std::set<std::string, std::less<>> in_layer_;  // paths that the current layer made
  UnpackedImage result_;
};

Status Unpacker::check_target() {
  struct stat st {};
  if (fstat(root_, &st) != 0 || !S_ISDIR(st.st_mode)) {
    return fail(Reason::kUsage, "the target is not a directory");
  }
  Fd copy(openat(root_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  DIR* d = copy.valid() ? fdopendir(copy.get()) : nullptr;
  if (d == nullptr) return io_error("the target", errno);
  copy.release();
  std::size_t names = 0;
  while (readdir(d) != nullptr && names < 3) ++names;
  closedir(d);
  if (names > 2) return fail(Reason::kAlreadyExists, "the target directory is not empty");
  if (fchown(root_, owner(0), owner(0)) != 0 || fchmod(root_, 0755) != 0) {
    return io_error("the target", errno);
  }
  return ok_status();
}

// A directory below the root, through no symbolic link. On failure *error holds errno.
Result<Fd> Unpacker::open_dir_at(const std::string& path, int* error) {
  open_how how{};
  how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
  const char* name = path.empty() ? "." : path.c_str();
  // SAFETY: openat2 has no libc wrapper; how is fully initialised and its size passed.
  const long fd = syscall(SYS_openat2, root_, name, &how, sizeof how);
  if (fd >= 0) return Fd(static_cast<int>(fd));
  *error = errno;
  if (*error == ELOOP) {
    return refuse("a path that leads through a symbolic link: " + printable(path));
  }
  if (*error == ENOTDIR) return refuse("a path that leads through a file: " + printable(path));
  if (*error == EXDEV) return refuse("a path that leads out of the target: " + printable(path));
  return io_error("directory " + printable(path), *error);
}

// Makes the missing directories on the way, as root's with mode 0755.
Result<Fd> Unpacker::open_parent(const std::string& path) {
  int error = 0;
  auto dir = open_dir_at(path, &error);
  if (dir.ok() || error != ENOENT) return dir;
  for (std::size_t at = path.find('/');; at = path.find('/', at + 1)) {
    const std::string part = path.substr(0, at);
    const Split s = split(part);
    GBX_ASSIGN(const Fd above, open_dir_at(s.parent, &error));
    if (mkdirat(above.get(), s.name.c_str(), 0755) == 0) {
      if (fchownat(above.get(), s.name.c_str(), owner(0), owner(0), AT_SYMLINK_NOFOLLOW) != 0) {
        return io_error(printable(part), errno);
      }
      in_layer_.insert(part);
    } else if (errno != EEXIST) {
      return io_error("directory " + printable(part), errno);
    }
    if (at == std::string::npos) break;
  }
  return open_dir_at(path, &error);
}

// Removes `name` and what is below it, but for what the current layer made.
Status Unpacker::remove_lower(int dir_fd, const std::string& path, const std::string& name,
                              int depth) {
  if (depth > kMaxRemoveDepth) return refuse("directories nested too deeply");
  GBX_ASSIGN(const Kind kind, kind_at(dir_fd, name));
  if (kind == Kind::kAbsent) return ok_status();
  const bool keep = in_layer_.count(path) > 0;
  if (kind == Kind::kDirectory) {
    const Fd sub(openat(dir_fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!sub.valid()) return io_error(printable(path), errno);
    GBX_TRY(remove_lower_children(sub.get(), path, depth + 1));
  }
  if (keep) return ok_status();
  if (unlinkat(dir_fd, name.c_str(), kind == Kind::kDirectory ? AT_REMOVEDIR : 0) != 0 &&
      errno != ENOTEMPTY) {
    return io_error("removal of " + printable(path), errno);
  }
  return ok_status();
}

Status Unpacker::remove_lower_children(int dir_fd, const std::string& path, int depth) {
  Fd copy(openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  DIR* d = copy.valid() ? fdopendir(copy.get()) : nullptr;
  if (d == nullptr) return io_error(printable(path), errno);
  copy.release();
  std::vector<std::string> names;
  while (const dirent* e = readdir(d)) {
    const std::string_view n(e->d_name);
    if (n != "." && n != "..") names.emplace_back(n);
  }
  closedir(d);
  for (const std::string& n : names) GBX_TRY(remove_lower(dir_fd, join(path, n), n, depth));
  return ok_status();
}

Status Unpacker::whiteout(const std::string& parent, const std::string& name, const TarEntry& e) {
  if (e.type != TarType::kFile || e.size != 0) {
    return refuse("a whiteout that is not an empty file: " + printable(e.path));
  }
  const bool opaque = name == kOpaque;
  const std::string victim = name.substr(kWhiteout.size());
  if (!opaque &&
      (victim.empty() || victim == "." || victim == ".." || victim.substr(0, 4) == kWhiteout)) {
    return refuse("a whiteout of a reserved name: " + printable(e.path));
  }
  int error = 0;
  auto dir = open_dir_at(parent, &error);
  if (!dir.ok()) return error == ENOENT ? ok_status() : Status(dir.error());
  if (opaque) return remove_lower_children(dir->get(), parent, 0);
  return remove_lower(dir->get(), join(parent, victim), victim, 0);
}

// Makes room for an entry: what lower layers left in its place goes, what this layer made is a
// duplicate.
Status Unpacker::clear_place(int dir_fd, const std::string& path, const std::string& name) {
  if (in_layer_.count(path) > 0) {
    return refuse("two entries of one layer have the path " + printable(path));
  }
  GBX_TRY(remove_lower(dir_fd, path, name, 0));
  GBX_ASSIGN(const Kind left, kind_at(dir_fd, name));
  if (left != Kind::kAbsent) {
    return refuse("two entries of one layer have the path " + printable(path));
  }
  return ok_status();
}

std::uint32_t Unpacker::permissions(const TarEntry& e) {
  if ((e.mode & 06000U) != 0) ++result_.stripped_setid;
  return e.mode & (e.type == TarType::kDirectory ? 01777U : 0777U);
}

Status Unpacker::set_directory(int fd, const TarEntry& e) {
  if (fchown(fd, owner(e.uid), owner(e.gid)) != 0 || fchmod(fd, permissions(e)) != 0) {
    return io_error(printable(e.path), errno);
  }
  return ok_status();
}

Status Unpacker::make_directory(int dir_fd, const std::string& name, const TarEntry& e) {
  GBX_ASSIGN(const Kind kind, kind_at(dir_fd, name));
  if (kind != Kind::kDirectory) {
    GBX_TRY(clear_place(dir_fd, e.path, name));
    if (mkdirat(dir_fd, name.c_str(), 0700) != 0) return io_error(printable(e.path), errno);
  }
  const Fd fd(openat(dir_fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return io_error(printable(e.path), errno);
  return set_directory(fd.get(), e);
}

Status Unpacker::make_file(int dir_fd, const std::string& name, const TarEntry& e,
                           TarReader& reader) {
  GBX_TRY(clear_place(dir_fd, e.path, name));
  const Fd fd(
      openat(dir_fd, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return io_error(printable(e.path), errno);
  Bytes buffer(static_cast<std::size_t>(std::min<std::uint64_t>(e.size, 1U << 18)));
  while (!buffer.empty()) {
    GBX_ASSIGN(const std::size_t n, reader.read(buffer));
    if (n == 0) break;
    auto written = write_all(fd.get(), ByteView(buffer).first(n));
    if (!written.ok()) return written.error().at(printable(e.path));
    result_.bytes += n;
  }
  // The owner first: a change of owner clears bits of the mode.
  if (fchown(fd.get(), owner(e.uid), owner(e.gid)) != 0 || fchmod(fd.get(), permissions(e)) != 0) {
    return io_error(printable(e.path), errno);
  }
  const timespec times[2] = {{e.mtime, 0}, {e.mtime, 0}};
  if (futimens(fd.get(), times) != 0) return io_error(printable(e.path), errno);
  return ok_status();
}

Status Unpacker::make_hard_link(int dir_fd, const std::string& name, const TarEntry& e) {
  if (e.link == e.path) return refuse("a hard link to itself: " + printable(e.path));
  const Split from = split(e.link);
  int error = 0;
  auto source = open_dir_at(from.parent, &error);
  if (!source.ok()) {
    if (error != ENOENT) return source.error().at("hard link " + printable(e.path));
    return refuse("hard link " + printable(e.path) +
                  " to what is not in the image: " + printable(e.link));
  }
  GBX_ASSIGN(const Kind kind, kind_at(source->get(), from.name));
  if (kind != Kind::kFile) {
    return refuse(
        "hard link " + printable(e.path) +
        (kind == Kind::kAbsent ? " to what is not in the image: " : " to what is not a file: ") +
        printable(e.link));
  }
  GBX_TRY(clear_place(dir_fd, e.path, name));
  // The place may have been a directory that held the target.
  if (linkat(source->get(), from.name.c_str(), dir_fd, name.c_str(), 0) != 0) {
    if (errno == ENOENT) {
      return refuse("hard link " + printable(e.path) + " replaces its own target");
    }
    return io_error("hard link " + printable(e.path), errno);
  }
  return ok_status();
}

Status Unpacker::make_symlink(int dir_fd, const std::string& name, const TarEntry& e) {
  GBX_TRY(clear_place(dir_fd, e.path, name));
  if (symlinkat(e.link.c_str(), dir_fd, name.c_str()) != 0) {
    return io_error(printable(e.path), errno);
  }
  if (fchownat(dir_fd, name.c_str(), owner(e.uid), owner(e.gid), AT_SYMLINK_NOFOLLOW) != 0) {
    return io_error(printable(e.path), errno);
  }
  const timespec times[2] = {{e.mtime, 0}, {e.mtime, 0}};
  if (utimensat(dir_fd, name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
    return io_error(printable(e.path), errno);
  }
  return ok_status();
}

Status Unpacker::apply(const TarEntry& e, TarReader& reader) {
  result_.dropped_xattrs += e.xattrs;
  if (e.path.empty()) return set_directory(root_, e);
  const Split s = split(e.path);
  if (s.name.substr(0, 4) == kWhiteout) return whiteout(s.parent, s.name, e);
  if (s.parent.substr(0, 4) == kWhiteout || s.parent.find("/.wh.") != std::string::npos) {
    return refuse("a directory with a whiteout's name: " + printable(e.path));
  }
  GBX_ASSIGN(const Fd parent, open_parent(s.parent));
  Status done;
  switch (e.type) {
    case TarType::kDirectory:
      done = make_directory(parent.get(), s.name, e);
      break;
    case TarType::kFile:
      done = make_file(parent.get(), s.name, e, reader);
      break;
    case TarType::kHardLink:
      done = make_hard_link(parent.get(), s.name, e);
      break;
    case TarType::kSymlink:
      done = make_symlink(parent.get(), s.name, e);
      break;
  }
  if (done.ok()) in_layer_.insert(e.path);
  return done;
}

Status Unpacker::apply_tar(Source& source) {
  TarReader reader(
      source, TarLimits{options_.limits.max_entries - result_.entries, options_.limits.max_depth});
  in_layer_.clear();
  for (;;) {
    GBX_ASSIGN(const std::optional<TarEntry> e, reader.next());
    if (!e) break;
    GBX_TRY(apply(*e, reader));
  }
  result_.entries += reader.entries();
  return ok_status();
}

Status Unpacker::apply_layer(int layout_fd, const Layer& layer) {
  GBX_ASSIGN(const Fd blob, open_blob(layout_fd, layer.digest, layer.size));
  FileSource file(blob.get(), layer.size);
  std::optional<GunzipSource> gunzip;
  if (layer.gzip) gunzip.emplace(file);
  const UnpackLimits& l = options_.limits;
  MeteredSource tar(
      gunzip ? static_cast<Source&>(*gunzip) : file,
      {l.max_bytes - std::min(l.max_bytes, result_.bytes), l.max_ratio, l.ratio_floor, layer.size});
  const Status applied = apply_tar(tar);
  // A blob that is not its digest is reported as that, whatever its bytes made the reader say.
  GBX_ASSIGN(const Hash32 actual, file.finish());
  GBX_ASSIGN(const Hash32 expected, digest_hash(layer.digest));
  if (actual != expected) {
    return fail(Reason::kImageDigestMismatch, "a layer is not what its digest says")
        .with(layer.digest, "sha256:" + to_hex(actual));
  }
  if (!applied.ok()) return applied;
  const std::string diff_id = "sha256:" + to_hex(tar.finish());
  if (diff_id != layer.diff_id) {
    return fail(Reason::kImageDigestMismatch, "a layer's tar is not what its diff id says")
        .with(layer.diff_id, diff_id);
  }
  return ok_status();
}

}  // namespace

Result<UnpackedImage> unpack(int layout_fd, int target_fd, const UnpackOptions& options) {
  GBX_ASSIGN(ImageInfo image, inspect(layout_fd));
  if (image.manifest_digest != options.expected_digest) {
    return fail(Reason::kImageDigestMismatch, "the layout holds another image")
        .with(printable(options.expected_digest, 80), image.manifest_digest);
  }
  if (image.layers.size() > options.limits.max_layers) {
    return refuse("too many layers")
        .with(std::to_string(options.limits.max_layers), std::to_string(image.layers.size()));
  }
  if (options.uid_base > UINT32_MAX - 65536U) {
    return fail(Reason::kUsage, "uid base leaves no room for 65536 ids");
  }
  Unpacker unpacker(target_fd, options);
  GBX_TRY(unpacker.check_target());
  for (std::size_t i = 0; i < image.layers.size(); ++i) {
    Status s = unpacker.apply_layer(layout_fd, image.layers[i]);
    if (!s.ok()) return s.error().at("layer " + std::to_string(i + 1));
  }
  UnpackedImage result = unpacker.take_result();
  result.image = std::move(image);
  if (options.hash) {
    GBX_ASSIGN(result.root_hash, hash_tree(target_fd));
  }
  return result;
}

}  // namespace gbx::oci
