#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/log.h"
#include "sandbox/supervise.h"

namespace gbx::sandbox {
namespace {

constexpr std::size_t kMaxReport = 64U << 10;

Error bad(const std::string& field, const std::string& why) {
  return fail(Reason::kBadValue, field + ": " + why);
}

bool plain_name(const std::string& s) {
  return !s.empty() && s[0] != '-' && std::all_of(s.begin(), s.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}
// A path component that means itself.
bool plain_component(const std::string& s) {
  return !s.empty() && s[0] != '-' && s[0] != '.' && std::all_of(s.begin(), s.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}
// Absolute, without empty, "." and ".." components: what is compared is what is opened.
bool plain_path(const std::string& s) {
  if (s.empty() || s[0] != '/' || s.find('\0') != std::string::npos ||
      s.find("//") != std::string::npos) {
    return false;
  }
  const std::string t = s + "/";
  return t.find("/./") == std::string::npos && t.find("/../") == std::string::npos;
}
bool no_nul(const std::vector<std::string>& list) {
  return std::all_of(list.begin(), list.end(), [](const std::string& s) {
    return s.find('\0') == std::string::npos && s.size() <= 131'071 && valid_utf8(s);
  });
}

Result<Fd> memory_file(const char* name) {
  Fd fd(memfd_create(name, MFD_CLOEXEC));
  if (!fd.valid()) return io_error("memfd", errno);
  return fd;
}

// A tmpfs that is mounted nowhere yet; only descriptors reach it.
Result<Fd> make_out(const ContainerSpec& spec) {
  // SAFETY: raw calls of the mount API; every string is NUL-terminated and outlives its call.
  const Fd fs(static_cast<int>(syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC)));
  if (!fs.valid()) return io_error("tmpfs for /out", errno);
  const std::string owner = std::to_string(spec.uid_base + spec.uid);
  const std::pair<const char*, std::string> options[] = {
      {"source", "glovebox-" + spec.id},
      {"size", std::to_string(spec.out_bytes)},
      {"nr_inodes", std::to_string(spec.out_inodes)},
      {"mode", "0700"},
      {"uid", owner},
      {"gid", owner}};
  for (const auto& [key, value] : options) {
    if (syscall(SYS_fsconfig, fs.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) != 0) {
      return io_error(std::string("tmpfs option ") + key, errno);
    }
  }
  if (syscall(SYS_fsconfig, fs.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return io_error("tmpfs for /out", errno);
  }
  Fd mount(static_cast<int>(syscall(SYS_fsmount, fs.get(), FSMOUNT_CLOEXEC,
                                    MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)));
  if (!mount.valid()) return io_error("tmpfs for /out", errno);
  return mount;
}

// The file system itself becomes read-only, whatever mounts of it there may be.
Status freeze_out(int dir_fd) {
  const Fd fs(
      static_cast<int>(syscall(SYS_fspick, dir_fd, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC)));
  if (!fs.valid()) return io_error("/out after the run", errno);
  if (syscall(SYS_fsconfig, fs.get(), FSCONFIG_SET_FLAG, "ro", nullptr, 0) != 0 ||
      syscall(SYS_fsconfig, fs.get(), FSCONFIG_CMD_RECONFIGURE, nullptr, nullptr, 0) != 0) {
    return io_error("/out could not be made read-only", errno);
  }
  return ok_status();
}

Result<LogCapture> read_log(int fd, std::int64_t total, std::int64_t limit) {
  LogCapture log;
  log.total_bytes = total;
  if (lseek(fd, 0, SEEK_SET) != 0) return io_error("log", errno);
  GBX_ASSIGN(const Bytes kept, read_all(fd, static_cast<std::size_t>(limit)));
  log.text = std::string(as_text(kept));
  return log;
}

// Waits for the supervisor's report; closing `life` tells it to kill the container.
Result<std::string> read_report(int fd, int cancel_fd, Fd& life) {
  std::string out;
  for (;;) {
    pollfd p[2] = {{fd, POLLIN, 0}, {life.valid() ? cancel_fd : -1, POLLIN, 0}};
    if (poll(p, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return io_error("poll", errno);
    }
    if (p[1].revents != 0) life.reset();
    if (p[0].revents == 0) continue;
    char buffer[4096];
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("report of glovebox-sandbox", errno);
    if (n == 0) return out;
    out.append(buffer, static_cast<std::size_t>(n));
    if (out.size() > kMaxReport) {
      return fail(Reason::kInternal, "glovebox-sandbox reported too much");
    }
  }
}

RunResult to_result(const Report& r) {
  RunResult out;
  out.outcome = r.outcome;
  out.code = r.code;
  out.error = r.error;
  out.setup_ms = r.setup_ms;
  out.run_ms = r.run_ms;
  out.peak_memory_bytes = r.peak_memory_bytes;
  out.cpu_ms = r.cpu_ms;
  out.oom_kills = r.oom_kills;
  out.runtime = r.runtime;
  out.controls = r.controls;
  return out;
}

}  // namespace

Status check_spec(const ContainerSpec& spec) {
  auto bounds = from_json<ContainerSpec>(to_json(spec));
  if (!bounds.ok()) return bounds.error().at("container");
  if (!plain_name(spec.id)) return bad("id", "letters a-z, digits and '-' only");
  if (!plain_path(spec.rootfs)) return bad("rootfs", "not a plain absolute path");
  if (!plain_path(spec.cwd)) return bad("cwd", "not a plain absolute path");
  if (!no_nul(spec.argv) || spec.argv[0].empty()) return bad("argv", "not proper strings");
  if (!no_nul(spec.env)) return bad("env", "not proper strings");
  for (const std::string& e : spec.env) {
    if (e.find('=') == std::string::npos || e[0] == '=') {
      return bad("env", "not NAME=value: " + printable(e, 64));
    }
  }
  std::set<std::string> names;
  for (const DataMount& m : spec.mounts) {
    if (!plain_component(m.name)) {
      return bad("mounts",
                 "name with other than letters, digits and -_.: " + printable(m.name, 64));
    }
    if (!names.insert(m.name).second) return bad("mounts", "two of the name " + m.name);
    if (!plain_path(m.host_path)) {
      return bad("mounts", "not a plain absolute path: " + printable(m.host_path));
    }
  }
  return ok_status();
}

Result<RunResult> run_container(const ContainerSpec& spec, const RunOptions& options) {
  GBX_TRY(check_spec(spec));
  if (geteuid() != 0) {
    return fail(Reason::kSandboxSetup, "containers need root")
        .with("uid 0", std::to_string(geteuid()));
  }
  GBX_ASSIGN(const Fd out_mount, make_out(spec));
  Fd output(openat(out_mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!output.valid()) return io_error("/out", errno);
  GBX_ASSIGN(const Fd spec_file, memory_file("spec"));
  GBX_TRY(write_all(spec_file.get(), as_bytes(canonical(to_json(spec)))));
  if (lseek(spec_file.get(), 0, SEEK_SET) != 0) return io_error("spec", errno);
  GBX_ASSIGN(const Fd out_log, memory_file("stdout"));
  GBX_ASSIGN(const Fd err_log, memory_file("stderr"));
  GBX_ASSIGN(auto report_pipe, make_pipe());
  GBX_ASSIGN(auto life_pipe, make_pipe());
  ProcessOptions helper;
  helper.argv = {options.program.empty() ? program_dir() + "/glovebox-sandbox" : options.program};
  helper.die_with_parent = false;  // it notices that the life pipe is closed, and still cleans up
  helper.new_session = true;
  helper.descriptors = {
      {kSpecFd, spec_file.get()}, {kOutFd, out_mount.get()},  {kReportFd, report_pipe.second.get()},
      {kStdoutFd, out_log.get()}, {kStderrFd, err_log.get()}, {kLifeFd, life_pipe.first.get()}};
  GBX_ASSIGN(Process supervisor, spawn(helper));
  report_pipe.second.reset();
  life_pipe.first.reset();
  GBX_ASSIGN(const std::string text,
             read_report(report_pipe.first.get(), options.cancel_fd, life_pipe.second));
  GBX_ASSIGN(const auto ended, supervisor.wait(60'000));
  if (!ended) return fail(Reason::kInternal, "glovebox-sandbox did not end");
  auto report = from_json_text<Report>(text);
  if (!report.ok()) return fail(Reason::kInternal, "glovebox-sandbox died without a report");
  RunResult result = to_result(*report);
  GBX_ASSIGN(result.out, read_log(out_log.get(), report->stdout_bytes, spec.log_bytes));
  GBX_ASSIGN(result.err, read_log(err_log.get(), report->stderr_bytes, spec.log_bytes));
  GBX_TRY(freeze_out(output.get()));
  result.output = std::move(output);
  return result;
}

}  // namespace gbx::sandbox
