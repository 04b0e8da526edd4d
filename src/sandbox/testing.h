// Shared by the sandbox's tests: an image that holds only the probe program, and runs of it inside
// and outside.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "sandbox/sandbox.h"

namespace gbx::sandbox::testing {

inline std::string bin(const std::string& name) {
  const char* dir = getenv("GBX_BIN_DIR");
  return (dir == nullptr ? program_dir() : std::string(dir)) + "/" + name;
}

inline constexpr std::int64_t kUidBase = 1'600'000'000;

// A directory of its own under /var/tmp, removed afterwards.
class TestRoot {
 public:
  TestRoot() {
    std::string name = "/var/tmp/gbx-sandbox-XXXXXX";
    path_ = mkdtemp(name.data()) == nullptr ? std::string() : name;
    EXPECT_FALSE(path_.empty());
    const std::string rootfs = path_ + "/rootfs";
    auto probe = read_file(bin("sandbox-probe"), 64U << 20);
    EXPECT_TRUE(probe.ok());
    EXPECT_TRUE(make_dirs(rootfs + "/bin", 0755).ok());
    EXPECT_TRUE(probe.ok() && write_file_atomic(rootfs + "/bin/probe", *probe, 0755).ok());
    for (const char* p : {"", "/bin", "/bin/probe"}) {
      EXPECT_EQ(0, chown((rootfs + p).c_str(), kUidBase, kUidBase));
    }
  }
  ~TestRoot() { EXPECT_TRUE(remove_tree(path_).ok()); }
  TestRoot(const TestRoot&) = delete;
  TestRoot& operator=(const TestRoot&) = delete;
  const std::string& path() const { return path_; }
  std::string rootfs() const { return path_ + "/rootfs"; }

 private:
  std::string path_;
};

// nullptr when containers can run here, or why not.
inline std::string cannot_run(const std::string& runtime) {
  if (geteuid() != 0) return "needs root";
  auto host = probe_host();
  if (!host.ok()) return host.error().line();
  for (const char* c : {"memory", "pids", "cpu"}) {
    if (host->controllers.count(c) == 0) return std::string("no cgroup controller ") + c;
  }
  if (!host->user_namespaces) return "no user namespaces";
  for (const std::string& r : host->runtimes) {
    if (r == runtime) return {};
  }
  return runtime + " is not installed";
}

inline ContainerSpec probe_spec(const TestRoot& root, std::vector<std::string> arguments,
                                const std::string& runtime = "crun") {
  static int number = 0;
  ContainerSpec s;
  s.id = "test-" + std::to_string(getpid()) + "-" + std::to_string(++number);
  s.runtime = runtime;
  s.rootfs = root.rootfs();
  s.argv = {"/bin/probe"};
  s.argv.insert(s.argv.end(), arguments.begin(), arguments.end());
  s.env = {"PATH=/bin"};
  s.uid_base = kUidBase;
  s.uid = 1000;
  s.out_bytes = 1 << 20;
  s.out_inodes = 64;
  s.tmp_bytes = 1 << 20;
  s.memory_bytes = 64 << 20;
  s.cpu_millis = 2000;
  s.pids_max = 32;
  s.wall_timeout_ms = 20'000;
  s.log_bytes = 1 << 20;
  return s;
}

inline RunResult run(const ContainerSpec& spec, int cancel_fd = -1) {
  RunOptions options;
  options.program = bin("glovebox-sandbox");
  options.cancel_fd = cancel_fd;
  auto result = run_container(spec, options);
  EXPECT_TRUE(result.ok()) << result.error().line();
  auto left = residue(spec.id);
  EXPECT_TRUE(left.ok());
  if (left.ok()) {
    for (const std::string& line : *left) ADD_FAILURE() << "left behind: " << line;
  }
  return result.ok() ? std::move(*result) : RunResult{};
}

template <class T>
T must(Result<T> r) {
  EXPECT_TRUE(r.ok()) << (r.ok() ? std::string() : r.error().line());
  return r.ok() ? std::move(*r) : T{};
}

inline RunOutput outside_program(std::vector<std::string> argv) {
  ProcessOptions o;
  o.argv = std::move(argv);
  auto out = run_command(o);
  EXPECT_TRUE(out.ok()) << out.error().line();
  return out.ok() ? *out : RunOutput{};
}
// The same program outside, as root: the control that shows that a call would work.
inline RunOutput outside(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), bin("sandbox-probe"));
  return outside_program(std::move(arguments));
}

}  // namespace gbx::sandbox::testing
