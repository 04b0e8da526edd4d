// The installed QEMU with our command line, paused: which devices the machine has, and that nobody
// can connect to anything of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "vm/testing.h"

namespace gbx::vm::testing {
namespace {

#define NEEDS_QEMU()                                                                     \
  if (!path_exists(LaunchDescription{}.qemu) || !path_exists("/usr/share/ovmf/OVMF.fd")) \
  GTEST_SKIP() << "QEMU is not installed"

// "dev: NAME" of the whole tree, sorted.
std::vector<std::string> devices(PausedMachine& m) {
  std::vector<std::string> out;
  std::istringstream lines(m.ask_human("info qtree"));
  for (std::string line; std::getline(lines, line);) {
    const auto at = line.find("dev: ");
    if (at == std::string::npos || line.find_first_not_of(' ') != at) continue;
    out.push_back(line.substr(at + 5, line.find(',', at) - at - 5));
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<std::string> pci_functions(PausedMachine& m) {
  std::vector<std::string> out;
  const Json said = m.ask(R"({"execute":"query-pci"})");
  const Json* buses = said.find("return");
  if (buses == nullptr || buses->array() == nullptr) return {canonical(said)};
  for (const Json& bus : *buses->array()) {
    for (const Json& device : *bus.find("devices")->array()) {
      const Json& id = *device.find("id");
      char text[64];
      snprintf(text, sizeof text, "%02x.%x %04x:%04x",
               static_cast<unsigned>(*device.find("slot")->integer()),
               static_cast<unsigned>(*device.find("function")->integer()),
               static_cast<unsigned>(*id.find("vendor")->integer()),
               static_cast<unsigned>(*id.find("device")->integer()));
      out.emplace_back(text);
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

LaunchDescription described() {
  LaunchDescription d;
  d.tee_fd = 5;
  d.cpus = 2;
  return d;
}

TEST(Machine, ItsDevicesAreTheseAndNoOthers) {
  NEEDS_QEMU();
  PausedMachine m(described(), std::make_shared<PatternVolume>(1 << 20));
  const std::vector<std::string> golden = {"ICH9-LPC",
                                           "fw_cfg_io",
                                           "i8257",
                                           "i8257",
                                           "ioapic",
                                           "isa-i8259",
                                           "isa-i8259",
                                           "isa-pcspk",
                                           "isa-pit",
                                           "mc146818rtc",
                                           "mch",
                                           "q35-pcihost",
                                           "virtio-blk-device",
                                           "virtio-blk-pci",
                                           "virtio-serial-device",
                                           "virtio-serial-pci",
                                           "virtserialport",
                                           "virtserialport"};
  EXPECT_EQ(devices(m), golden);
  const std::vector<std::string> functions = {"00.0 8086:29c0", "01.0 1af4:1043", "02.0 1af4:1042",
                                              "1f.0 8086:2918"};
  EXPECT_EQ(pci_functions(m), functions);
  EXPECT_EQ(m.ask_human("info network"), "");
  const std::string volume = m.ask_human("info block");
  EXPECT_TRUE(volume.starts_with("volume: ") && volume.find("(nbd, read-only)") != volume.npos &&
              std::count(volume.begin(), volume.end(), '\n') == 3)
      << volume;
  EXPECT_EQ(m.quit(), 0);
  EXPECT_TRUE(m.server->wait().ok());
}

// Sockets that have a name, and listening ones.
TEST(Machine, NothingOfItHasANameToConnectTo) {
  NEEDS_QEMU();
  PausedMachine m(described(), std::make_shared<PatternVolume>(1 << 20));
  ASSERT_NE(m.ask_human("info status").find("paused"), std::string::npos);
  RunOutput found = run_command({{"/bin/sh", "-c",
                                  "for f in /proc/" + std::to_string(m.process.pid()) +
                                      "/fd/*; do readlink $f; done"},
                                 {},
                                 {},
                                 {},
                                 {},
                                 {}})
                        .value();
  std::istringstream lines(found.out);
  int sockets = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("socket:[")) continue;
    ++sockets;
    const std::string inode = line.substr(8, line.size() - 9);
    const std::string table = read_text_file("/proc/net/unix", 1 << 22).value();
    // "…: refs protocol flags type st inode [path]"
    const auto at = table.find(" " + inode);
    ASSERT_NE(at, std::string::npos) << "a socket that is not of this family";
    EXPECT_EQ(table[at + 1 + inode.size()], '\n') << "it has a name";
  }
  EXPECT_EQ(sockets, 4) << "two streams, the volume, and this test's monitor";
  EXPECT_EQ(m.quit(), 0);
}

TEST(Machine, ItsVolumeIsReadOverTheProtocolAndCannotBeWritten) {
  NEEDS_QEMU();
  auto volume = std::make_shared<PatternVolume>(std::uint64_t{1} << 44);
  volume->broken_at = (std::uint64_t{1} << 40) + 5000;
  PausedMachine m(described(), volume);
  const std::uint64_t places[] = {0, 4096, std::uint64_t{1} << 43, (std::uint64_t{1} << 44) - 4096};
  for (const std::uint64_t at : places) {
    (void)m.ask_human("qemu-io volume \"read -v " + std::to_string(at) + " 16\"");
  }
  for (const char* command : {"read 1048576 33554432", "read 1099511627776 8192",
                              "read 17592186044416 512", "write 0 4096", "read 0 7"}) {
    (void)m.ask_human("qemu-io volume \"" + std::string(command) + "\"");
  }
  EXPECT_EQ(m.quit(), 0);
  EXPECT_TRUE(m.server->wait().ok());
  const std::string said = m.output();
  for (const std::uint64_t at : places) {
    std::string bytes;
    for (std::uint64_t i = 0; i < 16; ++i) bytes += " " + to_hex({{byte_at(at + i)}});
    EXPECT_NE(said.find(bytes), std::string::npos) << at;
  }
  EXPECT_NE(said.find("read 33554432/33554432 bytes"), std::string::npos) << said;
  EXPECT_NE(said.find("read failed: Input/output error"), std::string::npos) << said;
  EXPECT_NE(said.find("read 7/7 bytes at offset 0"), std::string::npos) << "and it went on";
  EXPECT_EQ(said.find("wrote"), std::string::npos) << said;
}

}  // namespace
}  // namespace gbx::vm::testing
