#include "base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/openat2.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "base/new_file.h"

namespace gbx {

Fd& Fd::operator=(Fd&& o) noexcept {
  if (this != &o) {
    reset();
    fd_ = o.release();
  }
  return *this;
}
int Fd::release() {
  const int fd = fd_;
  fd_ = -1;
  return fd;
}
void Fd::reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

namespace {
// A hint of its own: what the plane lists does not help who mistyped a path.
Error no_file(const std::string& path) {
  return fail(Reason::kNotFound, path + " does not exist")
      .hint("check the path: it is one on this machine");
}
}  // namespace

Error io_error(std::string_view what, int errno_value) {
  return fail(Reason::kIo, std::string(what) + ": " + strerror(errno_value));
}

Result<Bytes> read_all(int fd, std::size_t limit) {
  Bytes out;
  std::uint8_t buf[65536];
  for (;;) {
    const ssize_t n = read(fd, buf, sizeof buf);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("read", errno);
    if (n == 0) return out;
    if (out.size() + static_cast<std::size_t>(n) > limit) {
      return fail(Reason::kTooLarge, "file")
          .with("at most " + std::to_string(limit) + " bytes", "more");
    }
    out.insert(out.end(), buf, buf + n);
  }
}
Result<Bytes> read_file(const std::string& path, std::size_t limit) {
  Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOENT || errno == ENOTDIR) return no_file(path);
    return io_error(path, errno);
  }
  struct stat st {};
  if (fstat(fd.get(), &st) == 0 && S_ISDIR(st.st_mode)) {
    return fail(Reason::kBadValue, path).with("a file", "a folder");
  }
  auto r = read_all(fd.get(), limit);
  if (!r.ok()) r.error().at(path);
  return r;
}
Result<std::string> read_text_file(const std::string& path, std::size_t limit) {
  GBX_ASSIGN(Bytes b, read_file(path, limit));
  return std::string(as_text(b));
}
Status write_all(int fd, ByteView content) {
  std::size_t done = 0;
  while (done < content.size()) {
    const ssize_t n = write(fd, content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return io_error("write", errno);
    done += static_cast<std::size_t>(n);
  }
  return ok_status();
}
Status pread_exact(int fd, MutableByteView out, std::uint64_t offset) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t n =
        pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("pread", errno);
    if (n == 0) return fail(Reason::kTruncated, "file ends early");
    done += static_cast<std::size_t>(n);
  }
  return ok_status();
}

namespace {

// A new file without a name, which goes with its process. Where the file system has none (or there
// is no /proc to name it by), one with a name: `temporary` is not empty then.
Fd unnamed_file(const std::string& dir, const std::string& path, std::string& temporary) {
  Fd fd(open(dir.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
  if (fd.valid() && access("/proc/self/fd", X_OK) == 0) return fd;
  temporary = path + ".tmp.XXXXXX";
  return Fd(mkostemp(temporary.data(), O_CLOEXEC));
}

enum class Existing { kReplaced, kKept };

// The name goes from one to the other only where the other is free; EEXIST where it is not.
bool rename_to_new(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return true;
  if (errno != EINVAL) return false;  // what this file system cannot do, a second name can
  return link(from.c_str(), to.c_str()) == 0 && unlink(from.c_str()) == 0;
}

// What is there already can only be replaced by a file with a name: it has one for that moment.
bool name_file(const Fd& fd, const std::string& path, std::string& temporary, Existing existing) {
  if (temporary.empty()) {
    const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
    const auto link_as = [&](const std::string& name) {
      return linkat(AT_FDCWD, self.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
    };
    if (link_as(path)) return true;
    if (errno != EEXIST || existing == Existing::kKept) return false;
    const std::string name =
        path + ".tmp." + std::to_string(getpid()) + "." + std::to_string(fd.get());
    // One of a dead process with this number may be in the way.
    if (!link_as(name) && (errno != EEXIST || unlink(name.c_str()) != 0 || !link_as(name))) {
      return false;
    }
    temporary = name;
  }
  if (existing == Existing::kKept) return rename_to_new(temporary, path);
  return rename(temporary.c_str(), path.c_str()) == 0;
}

// A rename would put a file in the place of a device, a pipe or a socket that others use.
Status check_replaceable(const std::string& path) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0 || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
    return ok_status();  // a folder cannot be renamed over
  }
  return fail(Reason::kAlreadyExists, path).with("a file, or nothing", "a device, pipe or socket");
}

// The file appears whole or not at all, and a process that is killed leaves nothing half-written.
Status write_whole(const std::string& path, ByteView content, mode_t mode, Existing existing) {
  const auto slash = path.rfind('/');
  const std::string dir =
      slash == std::string::npos ? "." : path.substr(0, std::max<std::size_t>(slash, 1));
  std::string temporary;
  GBX_TRY(check_replaceable(path));
  Fd fd = unnamed_file(dir, path, temporary);
  if (!fd.valid()) return io_error(path, errno);  // people know no other name of it
  Status s = write_all(fd.get(), content);
  if (s.ok() && fchmod(fd.get(), mode) != 0) s = io_error(path, errno);
  if (s.ok() && fsync(fd.get()) != 0) s = io_error(path, errno);
  if (s.ok() && !name_file(fd, path, temporary, existing)) {
    const bool taken = existing == Existing::kKept && errno == EEXIST;
    s = taken ? Status(fail(Reason::kAlreadyExists, path)) : Status(io_error(path, errno));
  }
  if (!s.ok()) {
    if (!temporary.empty()) unlink(temporary.c_str());
    return s;
  }
  Fd d(open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!d.valid() || fsync(d.get()) != 0) return io_error(dir, errno);
  return ok_status();
}

}  // namespace

Status write_file_atomic(const std::string& path, ByteView content, mode_t mode) {
  return write_whole(path, content, mode, Existing::kReplaced);
}
Status write_new_file(const std::string& path, ByteView content, mode_t mode) {
  return write_whole(path, content, mode, Existing::kKept);
}

Status make_dirs(const std::string& path, mode_t mode) {
  for (std::size_t i = 1; i <= path.size(); ++i) {
    if (i != path.size() && path[i] != '/') continue;
    const std::string part = path.substr(0, i);
    if (mkdir(part.c_str(), mode) != 0 && errno != EEXIST) return io_error(part, errno);
  }
  return ok_status();
}
bool path_exists(const std::string& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0;
}

namespace {
// Depth is limited so that a hostile tree cannot exhaust the stack or the descriptors.
Status remove_entries(int dir_fd, dev_t device, int depth) {
  if (depth > 256) return fail(Reason::kTooLarge, "directories nested too deeply to remove");
  const int copy = dup(dir_fd);
  DIR* d = copy < 0 ? nullptr : fdopendir(copy);
  if (d == nullptr) return io_error("fdopendir", errno);
  Status result = ok_status();
  while (dirent* e = readdir(d)) {
    const std::string_view name(e->d_name);
    if (name == "." || name == "..") continue;
    struct stat st {};
    if (fstatat(dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (S_ISDIR(st.st_mode)) {
      if (st.st_dev != device) {
        result = fail(Reason::kIo, "a mount stands in the way: " + std::string(name));
        continue;
      }
      Fd sub(openat(dir_fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (sub.valid()) {
        Status s = remove_entries(sub.get(), device, depth + 1);
        if (!s.ok()) result = s;
      }
      if (unlinkat(dir_fd, e->d_name, AT_REMOVEDIR) != 0 && result.ok()) {
        result = io_error(name, errno);
      }
    } else if (unlinkat(dir_fd, e->d_name, 0) != 0 && result.ok()) {
      result = io_error(name, errno);
    }
  }
  closedir(d);
  return result;
}
}  // namespace

Status remove_tree(const std::string& path) {
  struct stat st {};
  if (lstat(path.c_str(), &st) != 0) {
    return errno == ENOENT ? ok_status() : Status(io_error(path, errno));
  }
  if (!S_ISDIR(st.st_mode)) {
    if (unlink(path.c_str()) != 0) return io_error(path, errno);
    return ok_status();
  }
  // Not through a link that took the folder's place since.
  Fd d(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!d.valid()) return io_error(path, errno);
  GBX_TRY(remove_entries(d.get(), st.st_dev, 0));
  if (rmdir(path.c_str()) != 0) return io_error(path, errno);
  return ok_status();
}

Result<Fd> open_dir(const std::string& path) {
  Fd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.valid()) return fd;
  if (errno == ENOENT) return no_file(path);
  if (errno == ENOTDIR) return fail(Reason::kBadValue, path).with("a folder", "something else");
  return io_error(path, errno);
}
Result<Fd> open_beneath(int dir_fd, const std::string& path, int flags, mode_t mode) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  how.mode = (flags & O_CREAT) != 0 ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
  // SAFETY: openat2 has no libc wrapper here; how is fully initialised and its size passed.
  const long fd = syscall(SYS_openat2, dir_fd, path.c_str(), &how, sizeof how);
  if (fd < 0) return errno == ENOENT ? no_file(path) : io_error(path, errno);
  return Fd(static_cast<int>(fd));
}

Process& Process::operator=(Process&& o) noexcept {
  if (this != &o) {
    kill_and_reap();
    pid_ = o.pid_;
    o.pid_ = -1;
  }
  return *this;
}
Process::~Process() { kill_and_reap(); }
void Process::kill_and_reap() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  int st = 0;
  while (waitpid(pid_, &st, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
}
Status Process::signal(int number) {
  if (pid_ <= 0) return fail(Reason::kNotFound, "process has ended");
  if (kill(pid_, number) != 0) return io_error("kill", errno);
  return ok_status();
}
Result<std::optional<ExitStatus>> Process::wait(std::int64_t timeout_ms) {
  if (pid_ <= 0) return fail(Reason::kNotFound, "process was waited for");
  // SAFETY: pidfd_open takes a pid and flags; the descriptor closes itself.
  Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
  if (pidfd.valid()) {
    pollfd p{pidfd.get(), POLLIN, 0};
    const int limit =
        timeout_ms < 0 ? -1 : static_cast<int>(std::min<std::int64_t>(timeout_ms, INT32_MAX));
    const int n = poll(&p, 1, limit);
    if (n == 0) return std::optional<ExitStatus>();
    if (n < 0 && errno == EINTR) return std::optional<ExitStatus>();
  }
  int st = 0;
  pid_t r = 0;
  while ((r = waitpid(pid_, &st, 0)) < 0 && errno == EINTR) {
  }
  if (r < 0) return io_error("waitpid", errno);
  pid_ = -1;
  ExitStatus e;
  e.exited = WIFEXITED(st);
  e.code = e.exited ? WEXITSTATUS(st) : WTERMSIG(st);
  return std::optional<ExitStatus>(e);
}

namespace {

// Everything that the child needs after fork, made before it: only async-signal-safe calls follow.
struct ChildPlan {
  std::vector<char*> argv;
  std::vector<char*> envp;
  std::vector<std::pair<int, int>> moves;  // target number, parked descriptor
  int highest = 2;
};

[[noreturn]] void child_main(const ProcessOptions& o, const ChildPlan& plan, pid_t parent,
                             int report) {
  const auto die = [&](int stage) {
    const int e[2] = {stage, errno};
    (void)!write(report, e, sizeof e);
    _exit(127);
  };
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  if (o.cgroup_procs >= 0 && write(o.cgroup_procs, "0", 1) != 1) die(6);
  if (o.new_session) setsid();
  for (const auto& [target, parked] : plan.moves) {
    if (dup2(parked, target) < 0) die(1);
  }
  // Keep 0..highest targets and the report pipe; close the rest.
  int keep = report;
  if (keep <= plan.highest) {
    keep = fcntl(report, F_DUPFD_CLOEXEC, plan.highest + 1);
    if (keep < 0) die(2);
  }
  for (int fd = 0; fd <= plan.highest; ++fd) {
    bool wanted = false;
    for (const auto& m : plan.moves) wanted = wanted || m.first == fd;
    if (!wanted && fd > 2) close(fd);
  }
  if (keep > plan.highest + 1) syscall(SYS_close_range, plan.highest + 1, keep - 1, 0);
  syscall(SYS_close_range, keep + 1, ~0U, 0);
  report = keep;
  if (!o.cwd.empty() && chdir(o.cwd.c_str()) != 0) die(3);
  const int program = open(plan.argv[0], O_PATH | O_CLOEXEC);
  if (o.uid || o.gid) {
    if (setgroups(0, nullptr) != 0) die(4);
    const gid_t g = o.gid.value_or(o.uid ? static_cast<gid_t>(*o.uid) : getgid());
    if (setresgid(g, g, g) != 0) die(4);
    if (o.uid && setresuid(*o.uid, *o.uid, *o.uid) != 0) die(4);
  }
  // After the change of uid, which clears it.
  if (o.die_with_parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
  }
  execve(plan.argv[0], plan.argv.data(), plan.envp.data());
  // A program below a folder that the new uid may not enter (somebody's home): by the descriptor
  // from before.
  if (errno == EACCES && program >= 0) {
    syscall(SYS_execveat, program, "", plan.argv.data(), plan.envp.data(), AT_EMPTY_PATH);
  }
  die(5);
  _exit(127);
}

}  // namespace

Result<Process> spawn(const ProcessOptions& o) {
  if (o.argv.empty()) return fail(Reason::kInternal, "spawn without a program");
  ChildPlan plan;
  for (const auto& a : o.argv) plan.argv.push_back(const_cast<char*>(a.c_str()));
  plan.argv.push_back(nullptr);
  std::vector<std::string> env;
  for (const auto& [k, v] : o.env) env.push_back(k + "=" + v);
  for (auto& e : env) plan.envp.push_back(e.data());
  plan.envp.push_back(nullptr);
  for (const auto& [target, source] : o.descriptors) plan.highest = std::max(plan.highest, target);
  // Parked above every target, so that no dup2 overwrites a source.
  std::vector<Fd> parked;
  Fd devnull(open("/dev/null", O_RDWR | O_CLOEXEC));
  std::map<int, int> all = o.descriptors;
  for (int fd = 0; fd < 3; ++fd) all.emplace(fd, fd == 2 ? 2 : devnull.get());
  for (const auto& [target, source] : all) {
    Fd p(fcntl(source, F_DUPFD_CLOEXEC, plan.highest + 1));
    if (!p.valid()) return io_error("dup", errno);
    plan.moves.emplace_back(target, p.get());
    parked.push_back(std::move(p));
  }
  GBX_ASSIGN(auto report, make_pipe());
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return io_error("fork", errno);
  if (pid == 0) child_main(o, plan, parent, report.second.get());
  Process child(pid);
  report.second.reset();
  int e[2] = {0, 0};
  ssize_t n = 0;
  while ((n = read(report.first.get(), e, sizeof e)) < 0 && errno == EINTR) {
  }
  if (n == static_cast<ssize_t>(sizeof e)) {
    return io_error("start of " + o.argv[0] + " failed at step " + std::to_string(e[0]), e[1]);
  }
  return child;
}

Result<RunOutput> run_command(ProcessOptions o, std::size_t limit, std::int64_t timeout_ms) {
  GBX_ASSIGN(auto out, make_pipe());
  GBX_ASSIGN(auto err, make_pipe());
  o.descriptors[1] = out.second.get();
  o.descriptors[2] = err.second.get();
  GBX_ASSIGN(Process child, spawn(o));
  out.second.reset();
  err.second.reset();
  RunOutput result;
  const auto start = std::chrono::steady_clock::now();
  Fd* ends[2] = {&out.first, &err.first};
  std::string* sinks[2] = {&result.out, &result.err};
  while (ends[0]->valid() || ends[1]->valid()) {
    const auto spent = std::chrono::duration_cast<std::chrono::milliseconds>(
                           std::chrono::steady_clock::now() - start)
                           .count();
    if (spent > timeout_ms) {
      return fail(Reason::kTimedOut, o.argv[0] + " ran past " + std::to_string(timeout_ms) + " ms");
    }
    pollfd p[2];
    for (int i = 0; i < 2; ++i) p[i] = {ends[i]->valid() ? ends[i]->get() : -1, POLLIN, 0};
    if (poll(p, 2, static_cast<int>(std::min<std::int64_t>(timeout_ms - spent + 1, 1000))) < 0 &&
        errno != EINTR) {
      return io_error("poll", errno);
    }
    for (int i = 0; i < 2; ++i) {
      if (p[i].fd < 0 || (p[i].revents & (POLLIN | POLLHUP | POLLERR)) == 0) continue;
      char buf[16384];
      const ssize_t n = read(p[i].fd, buf, sizeof buf);
      if (n <= 0) {
        ends[i]->reset();
      } else if (sinks[i]->size() + static_cast<std::size_t>(n) > limit) {
        return fail(Reason::kTooLarge, o.argv[0] + " printed too much");
      } else {
        sinks[i]->append(buf, static_cast<std::size_t>(n));
      }
    }
  }
  GBX_ASSIGN(auto st, child.wait(timeout_ms));
  if (!st) return fail(Reason::kTimedOut, o.argv[0] + " did not end");
  result.status = *st;
  return result;
}

Result<std::pair<Fd, Fd>> make_pipe() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return io_error("pipe", errno);
  return std::pair<Fd, Fd>(Fd(fds[0]), Fd(fds[1]));
}
Result<std::pair<Fd, Fd>> make_socket_pair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    return io_error("socketpair", errno);
  }
  return std::pair<Fd, Fd>(Fd(fds[0]), Fd(fds[1]));
}

std::string program_dir() {
  char buf[4096];
  const ssize_t n = readlink("/proc/self/exe", buf, sizeof buf);
  if (n <= 0) return ".";
  std::string path(buf, static_cast<std::size_t>(n));
  return path.substr(0, path.rfind('/'));
}

bool processes_are_listed() {
  const auto mounts = read_text_file("/proc/self/mounts", 1U << 20);
  return !mounts.ok() || processes_are_listed(*mounts);
}
bool processes_are_listed(std::string_view mounts) {
  bool listed = true;
  while (!mounts.empty()) {
    const std::string_view line = mounts.substr(0, mounts.find('\n'));
    mounts.remove_prefix(std::min(mounts.size(), line.size() + 1));
    const std::size_t point = line.find(" /proc proc ");
    if (point == std::string_view::npos || line.find(' ') != point) continue;
    std::string_view options = line.substr(point + std::string_view(" /proc proc ").size());
    // the last mount covers the others
    const std::string all = "," + std::string(options.substr(0, options.find(' '))) + ",";
    const auto has = [&](const char* option) { return all.find(option) != std::string::npos; };
    listed = has(",gid=") || !(has(",hidepid=2,") || has(",hidepid=4,") ||
                               has(",hidepid=invisible,") || has(",hidepid=ptraceable,"));
  }
  return listed;
}

Status harden_process() {
  const rlimit no_core{0, 0};
  if (setrlimit(RLIMIT_CORE, &no_core) != 0) return io_error("setrlimit core", errno);
  if (prctl(PR_SET_DUMPABLE, 0) != 0) return io_error("prctl dumpable", errno);
  rlimit lock{};
  if (getrlimit(RLIMIT_MEMLOCK, &lock) == 0) {
    lock.rlim_cur = lock.rlim_max;
    (void)setrlimit(RLIMIT_MEMLOCK, &lock);
  }
  return ok_status();
}

}  // namespace gbx
