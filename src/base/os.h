// Files, descriptors and child processes, with the habits of the style guide built in: descriptors
// close themselves and are CLOEXEC, untrusted paths resolve beneath a directory descriptor, files
// appear whole or not at all.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace gbx {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& o) noexcept : fd_(o.release()) {}
  Fd& operator=(Fd&& o) noexcept;
  ~Fd() { reset(); }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release();
  void reset();

 private:
  int fd_ = -1;
};

// kIo with `what` and the text of errno.
Error io_error(std::string_view what, int errno_value);

Result<Bytes> read_file(const std::string& path, std::size_t limit);
Result<std::string> read_text_file(const std::string& path, std::size_t limit);
// Writes to a temporary name in the same directory, syncs, renames, syncs the directory.
Status write_file_atomic(const std::string& path, ByteView content, mode_t mode);
Status make_dirs(const std::string& path, mode_t mode);
Status remove_tree(const std::string& path);  // never follows a link, stays on one file system
bool path_exists(const std::string& path);

// Opens `path` strictly beneath `dir_fd`: no symbolic links, no magic links, no "..", no other
// device.
Result<Fd> open_beneath(int dir_fd, const std::string& path, int flags, mode_t mode = 0);
Result<Fd> open_dir(const std::string& path);
Result<Bytes> read_all(int fd, std::size_t limit);
Status write_all(int fd, ByteView content);
Status pread_exact(int fd, MutableByteView out, std::uint64_t offset);

// A child process. Arguments are passed as they are; the environment is exactly `env`.
struct ProcessOptions {
  std::vector<std::string> argv;
  std::map<std::string, std::string> env;
  std::string cwd;  // empty: unchanged
  // child number -> parent's descriptor; all others are closed
  std::map<int, int> descriptors;
  std::optional<uid_t> uid;  // also clears supplementary groups
  std::optional<gid_t> gid;
  bool die_with_parent = true;  // PR_SET_PDEATHSIG SIGKILL
  bool new_session = false;
  // an open cgroup.procs: the child joins that cgroup before anything else
  int cgroup_procs = -1;
};
struct ExitStatus {
  bool exited = false;
  int code = 0;  // exit code, or the signal when !exited
};
// Kills and reaps the child when destroyed, unless waited for.
class Process {
 public:
  Process() = default;
  explicit Process(pid_t pid) : pid_(pid) {}
  Process(Process&& o) noexcept : pid_(o.pid_) { o.pid_ = -1; }
  Process& operator=(Process&& o) noexcept;
  ~Process();
  pid_t pid() const { return pid_; }
  bool running() const { return pid_ > 0; }
  Status signal(int number);
  // Empty when still running after timeout_ms (negative: wait for ever).
  Result<std::optional<ExitStatus>> wait(std::int64_t timeout_ms);
  void kill_and_reap();

 private:
  pid_t pid_ = -1;
};
Result<Process> spawn(const ProcessOptions& options);
// Runs to the end and collects both outputs (each at most `limit` bytes; more is an error).
struct RunOutput {
  ExitStatus status;
  std::string out;
  std::string err;
};
Result<RunOutput> run_command(ProcessOptions options, std::size_t limit = 1U << 20,
                              std::int64_t timeout_ms = 60'000);

Result<std::pair<Fd, Fd>> make_pipe();         // read end, write end
Result<std::pair<Fd, Fd>> make_socket_pair();  // AF_UNIX stream
// The directory of the running program, where its sisters lie.
std::string program_dir();

// Whether every account of this machine sees the command lines of all processes: /proc without
// hidepid (proc(5)).
bool processes_are_listed();
// The same by the text of /proc/self/mounts; true when it does not say.
bool processes_are_listed(std::string_view mounts);

// No core dumps, not dumpable, memory lock limit raised as far as allowed. First line of every main
// that holds keys.
Status harden_process();

}  // namespace gbx
