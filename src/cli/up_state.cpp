#include "cli/up_state.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/fields.h"
#include "base/log.h"
#include "cli/home.h"

namespace gbx::cli {

namespace {

constexpr const char* kLock = "lock";

Status take_lock(int dir, const std::string& path, Fd& lock) {
  lock = Fd(openat(dir, kLock, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!lock.valid()) return io_error(path + "/" + kLock, errno);
  if (flock(lock.get(), LOCK_EX | LOCK_NB) == 0) {
    const std::string self = std::to_string(getpid()) + "\n";
    if (ftruncate(lock.get(), 0) != 0) return io_error(path + "/" + kLock, errno);
    return write_all(lock.get(), as_bytes(self));
  }
  if (errno != EWOULDBLOCK) return io_error(path + "/" + kLock, errno);
  auto holder = read_all(lock.get(), 32);
  std::string pid = holder.ok() ? std::string(as_text(*holder)) : std::string();
  while (!pid.empty() && pid.back() == '\n') pid.pop_back();
  return fail(Reason::kConflict, "Glovebox is already running on " + path)
      .with("nobody else on this folder", "process " + (pid.empty() ? "?" : printable(pid, 16)))
      .hint("use it as it is, stop it with Ctrl-C there, or give another --state");
}

std::string octal(mode_t mode) {
  std::string out;
  for (int shift = 9; shift >= 0; shift -= 3) out += static_cast<char>('0' + ((mode >> shift) & 7));
  return out;
}

Status check_folder_above(const std::string& above, const struct stat& st,
                          const UpState::Trusted& trusted) {
  const char* next = "give a --state elsewhere, as /var/lib/glovebox";
  if (st.st_uid != 0 && st.st_uid != geteuid() && st.st_uid != trusted.user) {
    return fail(Reason::kConflict,
                "--state: " + above +
                    " belongs to somebody who could put another folder in its place")
        .with("owner 0", "owner " + std::to_string(st.st_uid))
        .hint(next);
  }
  if (S_ISLNK(st.st_mode)) return ok_status();
  const bool sticky = (st.st_mode & S_ISVTX) != 0;  // there only the owner of a name replaces it
  const bool by_group = (st.st_mode & 0020) != 0 && st.st_gid != 0 && st.st_gid != trusted.group;
  if (!sticky && ((st.st_mode & 0002) != 0 || by_group)) {
    return fail(Reason::kConflict,
                "--state: others may put another folder in the place of what lies in " + above)
        .with("a folder that only its owner changes", "mode " + octal(st.st_mode))
        .hint(next);
  }
  // Services are neither owner nor group of what lies above the state: each folder there must let
  // everybody pass.
  if ((st.st_mode & 0001) == 0) {
    return fail(Reason::kConflict,
                "--state: Glovebox's programs run under user ids of their own and cannot enter " +
                    above)
        .with("folders that everybody may pass (o+x)", "mode " + octal(st.st_mode))
        .hint(next);
  }
  return ok_status();
}

// Of every folder and link above `path`, as far as they are there.
Status check_above(const std::string& path, const UpState::Trusted& trusted) {
  for (std::size_t slash = 0; slash != std::string::npos; slash = path.find('/', slash + 1)) {
    const std::string above = path.substr(0, std::max<std::size_t>(slash, 1));
    struct stat st {};
    if (lstat(above.c_str(), &st) != 0) {
      return errno == ENOENT ? ok_status() : Status(io_error(above, errno));
    }
    GBX_TRY(check_folder_above(above, st, trusted));
  }
  return ok_status();
}

// Without links in it, so that nobody turns one round while root works there.
Result<std::string> made_without_links(std::string path, const UpState::Trusted& trusted) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  GBX_TRY(check_above(path, trusted));
  struct stat st {};
  if (lstat(path.c_str(), &st) == 0 && !S_ISDIR(st.st_mode)) {
    return fail(Reason::kConflict, "--state")
        .with("a folder of its own", path + ": a link or a file");
  }
  GBX_TRY(make_dirs(path, 0755));
  char* real = realpath(path.c_str(), nullptr);
  if (real == nullptr) return io_error(path, errno);
  std::string out(real);
  free(real);
  GBX_TRY(check_above(out, trusted));
  return out;
}

}  // namespace

Result<UpState> UpState::open(const std::string& wanted, const Trusted& trusted) {
  UpState s;
  GBX_ASSIGN(s.path_, made_without_links(wanted, trusted));
  const std::string& path = s.path_;
  s.dir_ = Fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!s.dir_.valid()) {
    return fail(Reason::kConflict, "--state")
        .with("a folder of its own", path + ": " + strerror(errno));
  }
  struct stat st {};
  if (fstat(s.dir_.get(), &st) != 0) return io_error(path, errno);
  if (st.st_uid != geteuid()) {
    return fail(Reason::kConflict,
                path + " belongs to somebody else, who could change what lies in it")
        .with("a folder of user id " + std::to_string(geteuid()) + ", or none yet",
              "one of user id " + std::to_string(st.st_uid))
        .hint("give a --state that does not exist yet");
  }
  if ((st.st_mode & 0022) != 0) {
    return fail(Reason::kConflict, path + " may be written to by others")
        .with("a folder that only its owner changes, or none yet", "mode " + octal(st.st_mode))
        .hint("give a --state that does not exist yet");
  }
  GBX_TRY(take_lock(s.dir_.get(), path, s.lock_));
  // services reach their own folders below
  if (fchmod(s.dir_.get(), 0755) != 0) return io_error(path, errno);
  return s;
}

Result<Fd> UpState::open_folder(const std::string& name) const {
  Fd fd(openat(dir_.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd.valid()) return fd;
  if (errno == ENOENT) return fail(Reason::kNotFound, file(name)).with("a folder", "nothing");
  if (errno == ENOTDIR || errno == ELOOP) {
    return fail(Reason::kConflict, file(name))
        .with("a folder", "a link or a file")
        .hint("give another --state");
  }
  return io_error(file(name), errno);
}

Result<std::optional<uid_t>> UpState::owner_of(const std::string& name) const {
  std::optional<uid_t> none;
  auto fd = open_folder(name);
  if (!fd.ok()) {
    return fd.reason() == Reason::kNotFound ? Result<std::optional<uid_t>>(none) : fd.error();
  }
  struct stat st {};
  if (fstat(fd->get(), &st) != 0) return io_error(file(name), errno);
  return st.st_uid == geteuid() ? none : std::optional<uid_t>(st.st_uid);
}

Status UpState::folder(const std::string& name, uid_t owner, mode_t mode) const {
  if (mkdirat(dir_.get(), name.c_str(), 0700) != 0 && errno != EEXIST) {
    return io_error(file(name), errno);
  }
  GBX_ASSIGN(const Fd fd, open_folder(name));
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return io_error(file(name), errno);
  if (st.st_uid != owner && st.st_uid != geteuid()) {
    return fail(Reason::kConflict, file(name))
        .with("a folder of user id " + std::to_string(owner),
              "one of user id " + std::to_string(st.st_uid))
        .hint("start with the --uid-base that it was made with, or give another --state");
  }
  if (fchown(fd.get(), owner, owner) != 0 || fchmod(fd.get(), mode) != 0) {
    return io_error(file(name), errno);
  }
  return ok_status();
}

Result<bool> UpState::has(const std::string& folder, const std::string& name) const {
  auto dir = open_folder(folder);
  if (!dir.ok()) return dir.reason() == Reason::kNotFound ? Result<bool>(false) : dir.error();
  struct stat st {};
  if (fstatat(dir->get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) return true;
  return errno == ENOENT ? Result<bool>(false) : io_error(file(folder + "/" + name), errno);
}

Result<Bytes> UpState::read_of(const std::string& folder, const std::string& name, uid_t owner,
                               std::size_t limit) const {
  GBX_ASSIGN(const Fd dir, open_folder(folder));
  const std::string path = file(folder + "/" + name);
  // O_NONBLOCK: a pipe in its place must not hold us up.
  auto fd = open_beneath(dir.get(), name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd.ok()) return fd.error().at(file(folder));
  struct stat st {};
  if (fstat(fd->get(), &st) != 0) return io_error(path, errno);
  if (!S_ISREG(st.st_mode) || st.st_uid != owner || st.st_nlink != 1) {
    return fail(Reason::kBadStructure, path)
        .with("a regular file of user id " + std::to_string(owner) + " with one name",
              std::string(S_ISREG(st.st_mode) ? "one" : "something else") + " of user id " +
                  std::to_string(st.st_uid) + " with " + std::to_string(st.st_nlink))
        .hint("somebody put it there: look at " + file(folder) + " before you start again");
  }
  auto content = read_all(fd->get(), limit);
  if (!content.ok()) content.error().at(path);
  return content;
}

Status UpState::write(const std::string& name, const std::string& text, mode_t mode,
                      uid_t owner) const {
  // The folder is root's, so nobody else can put a link in the way of its names.
  GBX_TRY(write_file_atomic(file(name), as_bytes(text), mode));
  if (owner != geteuid() &&
      fchownat(dir_.get(), name.c_str(), owner, owner, AT_SYMLINK_NOFOLLOW) != 0) {
    return io_error(file(name), errno);
  }
  return ok_status();
}
Status UpState::remove(const std::string& name) const {
  if (unlinkat(dir_.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
    return io_error(file(name), errno);
  }
  return ok_status();
}

Result<std::string> publishable_set(ByteView content, const std::string& set_id) {
  GBX_ASSIGN(const records::SetChain chain, from_json_text<records::SetChain>(as_text(content)));
  auto id = fixed_from_hex<32>(set_id);
  if (!id.ok()) return id.error().at("set id of the broker");
  GBX_TRY(chain.verify(*id));
  return canonical(to_json(chain));
}

Result<std::vector<std::string>> release_signers(ByteView content) {
  GBX_ASSIGN(const records::SetChain chain, from_json_text<records::SetChain>(as_text(content)));
  return chain.charter.release_signers;
}

Result<std::string> reachable(const std::string& bound, const std::vector<std::string>& names) {
  GBX_ASSIGN(Address a, parse_address(bound));
  const bool any = a.host == "0.0.0.0" || a.host == "::";
  if (!names.empty()) {
    a.host = names[0];
  } else if (any) {
    a.host = a.host == "::" ? "localhost" : "127.0.0.1";
  }
  const bool v6 = a.host.find(':') != std::string::npos;
  return (v6 ? "[" + a.host + "]" : a.host) + ":" + std::to_string(a.port);
}

}  // namespace gbx::cli
