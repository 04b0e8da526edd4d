// The parts of PID 1 that decide: over folders laid out like sysfs and /proc/sys. What it does with
// a real machine is shown by the end-to-end tests, which boot one.
#include "agent/init/init.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "agent/init/devices.h"
#include "base/os.h"

namespace gbx::agent {
namespace {

namespace fs = std::filesystem;

class InitTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) /
            ("init-" + std::to_string(getpid()) + "-" +
             ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }
  void put(const std::string& path, const std::string& text) {
    const fs::path at = root_ / path;
    fs::create_directories(at.parent_path());
    ASSERT_TRUE(write_file_atomic(at, as_bytes(text), 0644).ok());
  }
  void pci(const std::string& slot, const std::string& vendor, const std::string& device) {
    const std::string at = "bus/pci/devices/0000:00:" + slot;
    put(at + "/vendor", "0x" + vendor + "\n");
    put(at + "/device", "0x" + device + "\n");
    put(at + "/class", "0x060000\n");
  }
  static std::string features(std::initializer_list<std::size_t> bits) {
    std::string s(64, '0');
    for (const std::size_t b : bits) s[b] = '1';
    return s;
  }
  void virtio(const std::string& name, const std::string& device, const std::string& bits) {
    put("bus/virtio/devices/" + name + "/device", device + "\n");
    put("bus/virtio/devices/" + name + "/features", bits + "\n");
  }
  // The machine that releases are made for.
  void machine() {
    pci("00.0", "8086", "29c0");
    pci("01.0", "1af4", "1043");
    pci("02.0", "1af4", "1042");
    pci("1f.0", "8086", "2918");
    virtio("virtio0", "0x0003", features({32, 33}));
    virtio("virtio1", "0x0002", features({5, 32, 33}));
    put("block/vda/size", "1\n");
    put("class/net/lo/mtu", "65536\n");
    for (const char* t : {"DSDT", "FACP", "FACS", "APIC", "MCFG", "WAET"}) {
      put(std::string("firmware/acpi/tables/") + t, "x");
    }
    put("firmware/acpi/tables/data/CCEL", "x");
  }
  Status checked() {
    const auto devices = read_devices(root_);
    return devices.ok() ? check_devices(*devices) : Status(devices.error());
  }
  void expect_refused(const std::string& what) {
    const Status s = checked();
    ASSERT_FALSE(s.ok()) << what;
    EXPECT_EQ(s.reason(), Reason::kUnexpectedDevice);
    EXPECT_NE(s.error().line().find(what), std::string::npos) << s.error().line();
  }
  fs::path root_;
};

using InitDevices = InitTest;
using InitSettings = InitTest;
using InitPorts = InitTest;

TEST_F(InitDevices, TheMachineOfReleasesIsTaken) {
  machine();
  const Status s = checked();
  EXPECT_TRUE(s.ok()) << s.error().line();
}

TEST_F(InitDevices, ScratchIsASecondBlockDevice) {
  machine();
  pci("03.0", "1af4", "1042");
  virtio("virtio2", "0x0002", features({32, 33}));
  put("block/vdb/size", "1\n");
  EXPECT_TRUE(checked().ok());
}

TEST_F(InitDevices, AnythingElseOnPciIsRefused) {
  machine();
  pci("04.0", "1af4", "1041");  // virtio net
  expect_refused("1af4:1041");
}

TEST_F(InitDevices, ATransitionalVirtioDeviceIsRefused) {
  machine();
  fs::remove_all(root_ / "bus/pci/devices/0000:00:02.0");
  pci("02.0", "1af4", "1001");
  expect_refused("1af4:1001");
}

TEST_F(InitDevices, ASecondConsoleIsRefused) {
  machine();
  pci("05.0", "1af4", "1043");
  expect_refused("1af4:1043");
}

TEST_F(InitDevices, AMachineWithoutItsVolumeIsRefused) {
  machine();
  fs::remove_all(root_ / "bus/pci/devices/0000:00:02.0");
  expect_refused("1af4:1042");
}

TEST_F(InitDevices, AVolumeThatCanBeWrittenIsRefused) {
  machine();
  virtio("virtio1", "0x0002", features({32, 33}));
  expect_refused("read-only");
}

TEST_F(InitDevices, DevicesMustNegotiateWhatIsolationNeeds) {
  for (const auto& bits : {features({5, 33}), features({5, 32}), std::string("0000")}) {
    machine();
    virtio("virtio1", "0x0002", bits);
    expect_refused("features 32 and 33");
  }
}

TEST_F(InitDevices, ANetworkInterfaceIsRefused) {
  machine();
  put("class/net/eth0/mtu", "1500\n");
  expect_refused("eth0");
}

TEST_F(InitDevices, DevicesOfOtherBusesAreRefused) {
  for (const char* at : {"bus/usb/devices/1-1/x", "bus/scsi/devices/0:0:0:0/x",
                         "bus/serio/devices/serio0/x", "bus/i2c/devices/i2c-0/x"}) {
    machine();
    put(at, "x");
    expect_refused("bus");
    fs::remove_all(root_);
  }
}

TEST_F(InitDevices, OtherDisksAreRefused) {
  machine();
  put("block/sda/size", "1\n");
  expect_refused("sda");
}

TEST_F(InitDevices, AnAcpiTableOfNoMeasuredSetIsRefused) {
  machine();
  put("firmware/acpi/tables/TPM2", "x");
  expect_refused("TPM2");
}

TEST_F(InitDevices, AFloodOfDevicesIsRefused) {
  machine();
  for (int i = 0; i < 300; ++i) put("block/vd" + std::to_string(i) + "/size", "1\n");
  expect_refused("256");
}

TEST_F(InitSettings, EachIsWrittenAndReadBack) {
  for (const auto& s : settings()) put("sys/" + s.name, "");
  ASSERT_TRUE(apply_settings(root_ / "sys", settings()).ok());
  for (const auto& s : settings()) {
    EXPECT_EQ(*read_text_file(root_ / "sys" / s.name, 100), s.value);
  }
}

TEST_F(InitSettings, OneThatTheKernelDoesNotTakeEndsTheMachine) {
  put("sys/a", "");
  EXPECT_EQ(apply_settings(root_ / "sys", {{"a", "1"}, {"b", "1"}}).reason(),
            Reason::kSandboxSetup);
  fs::create_symlink("/dev/null", root_ / "sys/c");
  const Status s = apply_settings(root_ / "sys", {{"c", "1"}});
  ASSERT_EQ(s.reason(), Reason::kSandboxSetup);
  EXPECT_EQ(s.error().expected, "1");
}

TEST_F(InitSettings, ModulesAreClosedLast) {
  EXPECT_EQ(settings().back().name, "kernel/modules_disabled");
}

TEST_F(InitPorts, AreFoundByTheirNames) {
  put("class/virtio-ports/vport0p1/name", "org.glovebox.control\n");
  put("class/virtio-ports/vport0p2/name", "org.glovebox.tee\n");
  fs::create_directories(root_ / "class/virtio-ports/vport0p0");  // a port without a name
  EXPECT_EQ(*port_device(root_, kTeePort), "vport0p2");
  EXPECT_EQ(*port_device(root_, kControlPort), "vport0p1");
  EXPECT_EQ(port_device(root_, "org.glovebox").reason(), Reason::kNotFound);
}

TEST(InitCommandLine, NeedsWhatKeepsTheKernelClosed) {
  EXPECT_TRUE(check_command_line("quiet lockdown=confidentiality init_on_free=1 -- init\n").ok());
  for (const char* line :
       {"", "quiet init_on_free=1", "lockdown=confidentiality",
        "lockdown=confidentiality,init_on_free=1", "lockdown=integrity init_on_free=1"}) {
    EXPECT_EQ(check_command_line(line).reason(), Reason::kCmdlineMismatch) << line;
  }
}

}  // namespace
}  // namespace gbx::agent
