// What `glovebox doctor --host` finds of a host that is to run confidential machines: each step of
// docs/hardware.md, in its order, with what was found and what to do next. Files are read below a
// root that the caller names, so that any host can be looked at, or made up; what no file tells is
// asked through HostAnswers. UNTESTED ON HARDWARE: what the files say there is taken from the
// documents of Linux, QEMU, Intel and AMD. Nothing is changed, and what a file holds is printed
// only as a bounded line of printable characters, whoever wrote it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/seams.h"
#include "records/set.h"
#include "vm/qemu.h"

namespace gbx::cli {

// One line of a doctor. `result` is one of "ok", "missing", "warning", "cannot tell".
struct Finding {
  std::string check;
  std::string result;
  std::string detail;
  std::string next;
};
using Findings = std::vector<Finding>;

// The files of one host. Threads: immutable.
class HostFiles {
 public:
  explicit HostFiles(std::string root = "/");
  // At most 64 KiB of a regular file, from its beginning; absent where there is none that can be
  // read.
  std::optional<std::string> text(const std::string& path) const;
  // Its first line, printable; empty where text() is absent.
  std::string line(const std::string& path) const;
  bool there(const std::string& path) const;
  // At most 256 names of a folder, sorted.
  std::vector<std::string> names(const std::string& path) const;
  // Where a path of the host lies.
  std::string at(const std::string& path) const;

 private:
  const std::string root_;
};

// Questions that are put to programs and services, not to files.
struct HostAnswers {
  std::function<Result<vm::QemuReport>()> qemu;
  // Whether the quote generation service takes a connection.
  std::function<Status(const vm::VsockAddress&)> vsock;
  std::function<Status(const vm::UnixAddress&)> unix_socket;
  // Whether anybody listens at "host:port".
  std::function<Status(const std::string&)> tcp;
};
// Of this machine: QEMU's help, and connections that are closed again at once. `clock` outlives it.
HostAnswers answers_of_this_host(const std::string& qemu, const Clock& clock);

struct HostQuestion {
  // tdx or sev-snp; absent: what the processor's maker has.
  std::optional<records::Technology> technology;
  std::string guest;  // folder of guest/build
};

Findings check_host(const HostFiles& files, const HostAnswers& answers,
                    const HostQuestion& question);

// What the installed QEMU has of what `platforms` need.
Finding check_qemu_for(const Result<vm::QemuReport>& report, vm::Platform platform);
// The guest that guest/build made: the files without which nothing boots, and its name.
Finding check_guest_folder(const std::string& guest);

}  // namespace gbx::cli
