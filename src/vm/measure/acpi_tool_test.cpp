// guest/acpi-tables: its machine is the one that is launched, and what it gets can be measured.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <sstream>

#include "base/os.h"
#include "vm/launch.h"
#include "vm/measure/tdx.h"

namespace gbx::vm::measure {
namespace {

RunOutput tool(std::vector<std::string> words) {
  const char* source = std::getenv("GBX_SOURCE_DIR");
  EXPECT_NE(source, nullptr);
  ProcessOptions o;
  o.argv = {"/usr/bin/python3",
            std::string(source == nullptr ? "." : source) + "/guest/acpi-tables"};
  o.argv.insert(o.argv.end(), words.begin(), words.end());
  o.env = {{"PATH", "/usr/bin:/bin"}};
  constexpr std::int64_t kLongMs = 280'000;  // firmware under emulation, on a busy machine
  return run_command(std::move(o), 1U << 20, kLongMs).value();
}
bool have_qemu() {
  return path_exists("/usr/bin/qemu-system-x86_64") && path_exists("/usr/share/ovmf/OVMF.fd");
}
struct Folder {
  std::string path;
  Folder() {
    char name[] = "/tmp/gbx-acpi-XXXXXX";
    path = mkdtemp(name);
  }
  ~Folder() { (void)remove_tree(path); }
};

TEST(AcpiTool, ItsMachineIsTheOneThatIsLaunched) {
  if (!have_qemu()) GTEST_SKIP() << "QEMU is not installed";
  const RunOutput out = tool({"3", "2GiB", "--out", "/nowhere", "--print-command"});
  ASSERT_EQ(out.status.code, 0) << out.err;
  std::set<std::string> said;
  std::istringstream lines(out.out);
  for (std::string line; std::getline(lines, line);) said.insert(line);
  LaunchDescription d;
  d.firmware = "/usr/share/ovmf/OVMF.fd";
  d.kernel = d.initrd = "/f";
  d.cpus = 3;
  d.memory_bytes = std::int64_t{2} << 30;
  d.control_fd = 3;
  d.volume_fd = 4;
  const auto launched = qemu_arguments(d).value();
  int compared = 0;
  for (std::size_t i = 0; i + 1 < launched.size(); ++i) {
    const std::string& option = launched[i];
    const std::string& value = launched[i + 1];
    const bool device = option == "-device" && value.rfind("virtserialport", 0) != 0;
    if (!device && option != "-machine" && option != "-smp" && option != "-m" &&
        option != "-global" && option != "-bios") {
      continue;
    }
    ++compared;
    EXPECT_TRUE(said.count(value) == 1) << option << " " << value;
  }
  EXPECT_EQ(compared, 7);
}

TEST(AcpiTool, TablesOfTheInstalledQemuCanBeMeasured) {
  if (!have_qemu()) GTEST_SKIP() << "QEMU is not installed";
  const Folder folder;
  const RunOutput out = tool({"2", "2GiB", "--out", folder.path});
  ASSERT_EQ(out.status.code, 0) << out.err;
  AcpiTables acpi;
  acpi.loader = read_file(folder.path + "/table-loader", kMaxAcpiSize).value();
  acpi.files["etc/acpi/rsdp"] = read_file(folder.path + "/rsdp", kMaxAcpiSize).value();
  acpi.files["etc/acpi/tables"] = read_file(folder.path + "/tables", kMaxAcpiSize).value();
  const auto steps = acpi_steps(acpi);
  ASSERT_TRUE(steps.ok()) << steps.error().line();
  ASSERT_EQ(steps->size(), 3U);
  EXPECT_EQ(steps->at(1).what, "etc/acpi/rsdp");
  // Only a firmware that set PCIe up makes QEMU write this table.
  const std::string_view tables = as_text(acpi.files["etc/acpi/tables"]);
  EXPECT_NE(tables.find("MCFG"), std::string_view::npos);
  EXPECT_EQ(tables.find("HPET"), std::string_view::npos);
}

TEST(AcpiTool, WrongInputIsRefusedBeforeAMachineStarts) {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"0", "2GiB"},
                                                {"256", "2GiB"},
                                                {"2", "2G"},
                                                {"2", "1MiB"},
                                                {"2", "2GiB", "--firmware", "/nowhere/OVMF.fd"},
                                                {"2"}}) {
    std::vector<std::string> all = words;
    all.insert(all.end(), {"--out", "/nowhere"});
    const RunOutput out = tool(all);
    EXPECT_NE(out.status.code, 0);
    EXPECT_EQ(out.out, "");
    EXPECT_NE(out.err, "");
  }
}

}  // namespace
}  // namespace gbx::vm::measure
