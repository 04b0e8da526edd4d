// OCI runtimes through the command line that they share. Internal to src/sandbox.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace gbx::sandbox {

class ContainerRuntime {
 public:
  struct Paths {
    std::string state;  // where the runtime keeps its state; private to the supervisor
    std::string log;    // its own messages, kept out of the container's streams
    std::string bundle;
    std::string pid_file;
  };
  virtual ~ContainerRuntime() = default;
  virtual std::string name() const = 0;
  // Whole command lines, program first.
  std::vector<std::string> create(const Paths& p, const std::string& id) const;
  std::vector<std::string> start(const Paths& p, const std::string& id) const;
  std::vector<std::string> remove(const Paths& p, const std::string& id) const;
  // Its name and version as it tells them: "crun 1.8.1".
  Result<std::string> version() const;

 protected:
  virtual std::string program() const = 0;
  virtual std::vector<std::string> global_options(const Paths& p) const = 0;
};

// kUnavailable when it is not installed.
Result<std::unique_ptr<ContainerRuntime>> find_runtime(const std::string& name);

}  // namespace gbx::sandbox
