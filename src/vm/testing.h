// For tests of the machine: a volume of known bytes, and a QEMU that stands still and answers
// questions.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/os.h"
#include "vm/launch.h"
#include "vm/nbd_server.h"

namespace gbx::vm::testing {

struct Folder {
  std::string path = "/tmp/gbx-vm-XXXXXX";
  Folder() {
    if (mkdtemp(path.data()) == nullptr) abort();
  }
  ~Folder() { (void)remove_tree(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
};

// Byte i is a function of i alone, so that any read can be checked.
inline std::uint8_t byte_at(std::uint64_t i) {
  return static_cast<std::uint8_t>((i * 2654435761U) >> 24 ^ i);
}
class PatternVolume final : public VolumeSource {
 public:
  explicit PatternVolume(std::uint64_t size) : size_(size) {}
  std::uint64_t size() const override { return size_; }
  Status read(std::uint64_t offset, MutableByteView out) override {
    if (offset > size_ || out.size() > size_ - offset) abort();  // the server checks that
    if (broken_at && offset <= *broken_at && *broken_at - offset < out.size()) {
      return fail(Reason::kIo, "broken");
    }
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = byte_at(offset + i);
    return ok_status();
  }
  std::optional<std::uint64_t> broken_at;

 private:
  const std::uint64_t size_;
};

// What QEMU takes for a kernel when it has not to start it: the header of one.
inline Bytes kernel_header() {
  Bytes out(16384);
  out[0x1f1] = 1;  // sectors of setup
  const ByteView magic = as_bytes("HdrS");
  std::copy(magic.begin(), magic.end(), out.begin() + 0x202);
  out[0x206] = 0x0c;  // boot protocol 2.12
  out[0x207] = 0x02;
  out[0x211] = 1;  // loaded high
  for (int i = 0; i < 4; ++i) out[0x22c + static_cast<std::size_t>(i)] = i == 3 ? 0x7f : 0xff;
  return out;
}

// QEMU as described, paused before the first instruction, with a monitor that only this test adds.
class PausedMachine {
 public:
  explicit PausedMachine(LaunchDescription d, std::shared_ptr<VolumeSource> volume) {
    EXPECT_TRUE(write_file_atomic(folder_.path + "/kernel", kernel_header(), 0600).ok());
    EXPECT_TRUE(write_file_atomic(folder_.path + "/initrd", as_bytes("initrd"), 0600).ok());
    d.firmware = "/usr/share/ovmf/OVMF.fd";
    d.kernel = folder_.path + "/kernel";
    d.initrd = folder_.path + "/initrd";
    ProcessOptions p;
    d.control_fd = pass(p, 3, control_);
    Fd served;
    d.volume_fd = pass(p, 4, served);
    server = NbdServer::start(std::move(served), std::move(volume)).value();
    if (d.tee_fd) d.tee_fd = pass(p, 5, tee_);
    (void)pass(p, 9, monitor_);
    p.argv = qemu_arguments(d).value();
    for (const char* more :
         {"-S", "-chardev", "socket,id=qmp,fd=9", "-mon", "chardev=qmp,mode=control"}) {
      p.argv.emplace_back(more);
    }
    const Fd printed(open(output_path().c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    p.descriptors[1] = printed.get();
    process = spawn(p).value();
    given_.clear();
    (void)line();  // greeting
    (void)ask(R"({"execute":"qmp_capabilities"})");
  }

  Json ask(const std::string& command) {
    EXPECT_TRUE(write_all(monitor_.get(), as_bytes(command + "\n")).ok());
    for (;;) {
      Json said = line();
      if (said.is_null() || said.find("return") != nullptr || said.find("error") != nullptr) {
        return said;
      }
    }
  }
  // A command of the monitor for people; what it prints.
  std::string ask_human(const std::string& command) {
    Json j;
    j["execute"] = "human-monitor-command";
    j["arguments"]["command-line"] = command;
    const Json said = ask(canonical(j));
    const Json* text = said.find("return");
    return text != nullptr && text->string() != nullptr ? *text->string() : canonical(said);
  }
  // How QEMU ended after it was told to; its exit code, or less than 0.
  int quit() {
    (void)ask(R"({"execute":"quit"})");
    const auto end = process.wait(60'000);
    return end.ok() && *end && (*end)->exited ? (*end)->code : -1;
  }

  // What it printed, some of which comes only when it ends.
  std::string output() const { return read_text_file(output_path(), 1 << 20).value(); }

  Process process;
  std::unique_ptr<NbdServer> server;

 private:
  std::string output_path() const { return folder_.path + "/output"; }
  // One end becomes `number` in QEMU, the other is ours.
  int pass(ProcessOptions& p, int number, Fd& ours) {
    auto pair = make_socket_pair().value();
    ours = std::move(pair.first);
    p.descriptors[number] = pair.second.get();
    given_.push_back(std::move(pair.second));
    return number;
  }
  Json line() {
    for (;;) {
      const auto end = text_.find('\n');
      if (end != std::string::npos) {
        auto parsed = parse_json(text_.substr(0, end));
        text_.erase(0, end + 1);
        EXPECT_TRUE(parsed.ok()) << parsed.error().line();
        return parsed.ok() ? *parsed : Json();
      }
      char buffer[4096];
      const ssize_t n = ::read(monitor_.get(), buffer, sizeof buffer);
      if (n <= 0) return Json();
      text_.append(buffer, static_cast<std::size_t>(n));
    }
  }

  Folder folder_;
  std::vector<Fd> given_;
  Fd control_, tee_, monitor_;
  std::string text_;
};

}  // namespace gbx::vm::testing
