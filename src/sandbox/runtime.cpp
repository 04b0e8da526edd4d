#include "sandbox/runtime.h"

#include "base/log.h"
#include "base/os.h"
#include "sandbox/sandbox.h"

namespace gbx::sandbox {
namespace {

std::string locate(const std::string& name) {
  for (const char* dir : {"/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/"}) {
    if (path_exists(dir + name)) return dir + name;
  }
  return {};
}

class Crun final : public ContainerRuntime {
 public:
  explicit Crun(std::string program) : program_(std::move(program)) {}
  std::string name() const override { return "crun"; }

 protected:
  std::string program() const override { return program_; }
  std::vector<std::string> global_options(const Paths& p) const override {
    return {"--root=" + p.state, "--log=file:" + p.log, "--cgroup-manager=cgroupfs"};
  }

 private:
  std::string program_;
};

class Runc final : public ContainerRuntime {
 public:
  explicit Runc(std::string program) : program_(std::move(program)) {}
  std::string name() const override { return "runc"; }

 protected:
  std::string program() const override { return program_; }
  std::vector<std::string> global_options(const Paths& p) const override {
    return {"--root", p.state, "--log", p.log};
  }

 private:
  std::string program_;
};

}  // namespace

std::vector<std::string> known_runtimes() { return {"crun", "runc"}; }

std::vector<std::string> ContainerRuntime::create(const Paths& p, const std::string& id) const {
  std::vector<std::string> argv{program()};
  for (std::string& o : global_options(p)) argv.push_back(std::move(o));
  for (const std::string& a : {std::string("create"), std::string("--bundle"), p.bundle,
                               std::string("--pid-file"), p.pid_file, id}) {
    argv.push_back(a);
  }
  return argv;
}
std::vector<std::string> ContainerRuntime::start(const Paths& p, const std::string& id) const {
  std::vector<std::string> argv{program()};
  for (std::string& o : global_options(p)) argv.push_back(std::move(o));
  argv.insert(argv.end(), {"start", id});
  return argv;
}
std::vector<std::string> ContainerRuntime::remove(const Paths& p, const std::string& id) const {
  std::vector<std::string> argv{program()};
  for (std::string& o : global_options(p)) argv.push_back(std::move(o));
  argv.insert(argv.end(), {"delete", "--force", id});
  return argv;
}

Result<std::string> ContainerRuntime::version() const {
  ProcessOptions ask;
  ask.argv = {program(), "--version"};
  GBX_ASSIGN(const RunOutput out, run_command(ask, 65536, 10'000));
  const std::string begin = name() + " version ";
  const std::string line = out.out.substr(0, out.out.find('\n'));
  if (!out.status.exited || out.status.code != 0 || line.rfind(begin, 0) != 0 ||
      line.size() == begin.size()) {
    return fail(Reason::kSandboxSetup, program() + " --version")
        .with(begin + "…", printable(line, 64));
  }
  return name() + " " + printable(line.substr(begin.size()), 48);
}

Result<std::unique_ptr<ContainerRuntime>> find_runtime(const std::string& name) {
  const std::string program = name == "crun" || name == "runc" ? locate(name) : std::string();
  if (program.empty()) {
    return fail(Reason::kUnavailable, "container runtime " + name + " is not installed")
        .hint("apt-get install crun");
  }
  std::unique_ptr<ContainerRuntime> runtime;
  if (name == "crun") runtime = std::make_unique<Crun>(program);
  if (name == "runc") runtime = std::make_unique<Runc>(program);
  return runtime;
}

}  // namespace gbx::sandbox
