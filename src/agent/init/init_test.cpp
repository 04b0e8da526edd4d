// The parts of PID 1 that decide: over folders laid out like sysfs and /proc/sys. What it does with
// a real machine is shown by the end-to-end tests, which boot one.
#include "agent/init/init.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "agent/init/devices.h"
#include "agent/init/platform.h"
#include "base/os.h"

namespace gbx::agent {
namespace {

namespace fs = std::filesystem;

class InitTest : public ::testing::Test {
 public:
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) /
            ("init-" + std::to_string(getpid()) + "-" +
             ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }
  void gone(const std::string& path) { fs::remove_all(root_ / path); }
  void put(const std::string& path, const std::string& text) {
    const fs::path at = root_ / path;
    fs::create_directories(at.parent_path());
    ASSERT_TRUE(write_file_atomic(at, as_bytes(text), 0644).ok());
  }
  void pci(const std::string& slot, const std::string& vendor, const std::string& device,
           const std::string& class_code = "0x060000") {
    const std::string at = "bus/pci/devices/0000:00:" + slot;
    put(at + "/vendor", "0x" + vendor + "\n");
    put(at + "/device", "0x" + device + "\n");
    put(at + "/class", class_code + "\n");
  }
  void port(const std::string& device, const std::string& name) {
    put("class/virtio-ports/" + device + "/name", name + "\n");
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
  // The machine that releases are made for, as its own kernel listed it under emulation.
  void machine() {
    pci("00.0", "8086", "29c0");
    pci("01.0", "1af4", "1043", "0x078000");
    pci("02.0", "1af4", "1042", "0x010000");
    pci("1f.0", "8086", "2918", "0x060100");
    virtio("virtio0", "0x0003", features({1, 28, 29, 32, 33, 40}));
    virtio("virtio1", "0x0002", features({5, 32, 33}));
    put("bus/virtio/devices/virtio1/block/vda/size", "1\n");
    put("block/vda/size", "1\n");
    put("class/net/lo/mtu", "65536\n");
    port("vport0p1", "org.glovebox.control");
    port("vport0p2", "org.glovebox.tee");
    for (const char* t : {"DSDT", "FACP", "FACS", "APIC", "MCFG", "WAET", "CCEL", "data/CCEL"}) {
      put(std::string("firmware/acpi/tables/") + t, "x");
    }
    fs::create_directories(root_ / "firmware/acpi/tables/dynamic");
    for (const char* id : {"ACPI0010", "LNXCPU", "LNXPWRBN", "LNXSYBUS", "LNXSYSTM", "PNP0A06",
                           "PNP0A08", "PNP0B00", "PNP0C01", "PNP0C0F", "QEMU0002"}) {
      put(std::string("bus/acpi/devices/") + id + ":00/hid", std::string(id) + "\n");
    }
    put("bus/acpi/devices/device:00/path", "\\_SB_.PCI0.S00_\n");
    put("devices/system/cpu/present", "0-1\n");
    put("devices/system/cpu/possible", "0-1\n");
    put("bus/platform/devices/efivars.0/modalias", "platform:efivars\n");
    put("proc/cpuinfo", "flags : fpu tsc hypervisor\n");
  }
  Status ports_checked(bool simulated) {
    const auto devices = read_devices(root_);
    return devices.ok() ? check_ports(*devices, simulated) : Status(devices.error());
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
using InitPlatform = InitTest;

TEST_F(InitDevices, TheMachineOfReleasesIsTaken) {
  machine();
  const Status s = checked();
  EXPECT_TRUE(s.ok()) << s.error().line();
}

TEST_F(InitDevices, TheVolumeIsTheDiskOfTheVirtioDeviceWhateverItsName) {
  machine();
  EXPECT_EQ(volume_device(*read_devices(root_)), "vda");
  fs::rename(root_ / "bus/virtio/devices/virtio1/block/vda",
             root_ / "bus/virtio/devices/virtio1/block/vdb");
  expect_refused("disk (expected vdb only, actual vda)");
  fs::rename(root_ / "block/vda", root_ / "block/vdb");
  EXPECT_TRUE(checked().ok());
  EXPECT_EQ(volume_device(*read_devices(root_)), "vdb");
}

// One thing more, or another one, on the machine of releases.
struct More {
  const char* name;
  std::function<void(InitTest&)> change;
  const char* what;  // in the refusal
};
class InitRefuses : public InitTest, public ::testing::WithParamInterface<More> {};
TEST_P(InitRefuses, Machines) {
  machine();
  ASSERT_TRUE(checked().ok());
  GetParam().change(*this);
  expect_refused(GetParam().what);
}
using T = InitTest;
const std::vector<More>& mores() {
  static const std::vector<More> kMores = {
      {"AnExtraDisk",
       [](T& t) {
         t.pci("03.0", "1af4", "1042", "0x010000");
         t.virtio("virtio2", "0x0002", T::features({5, 32, 33}));
         t.put("block/vdb/size", "1\n");
       },
       "0000:00:03.0 1af4:1042"},
      {"ADiskOfAnotherDriver", [](T& t) { t.put("block/sda/size", "1\n"); }, "sda"},
      {"ADiskWithPartitions", [](T& t) { t.put("block/vda/vda1/size", "1\n"); }, "vda1"},
      {"ADiskBehindItsDisk",
       [](T& t) { t.put("bus/virtio/devices/virtio1/block/vdb/size", "1\n"); }, "disk"},
      {"NoDisk",
       [](T& t) {
         t.gone("bus/virtio/devices/virtio1");
         t.gone("block/vda");
       },
       "virtio device 0x0002"},
      {"ANetworkCard", [](T& t) { t.pci("04.0", "1af4", "1041", "0x020000"); }, "1af4:1041"},
      {"ANetworkInterface", [](T& t) { t.put("class/net/eth0/mtu", "1500\n"); }, "eth0"},
      {"AnExtraConsole",
       [](T& t) {
         t.pci("05.0", "1af4", "1043", "0x078000");
         t.virtio("virtio2", "0x0003", T::features({32, 33}));
       },
       "1af4:1043"},
      {"AFileSystem", [](T& t) { t.pci("03.0", "1af4", "105a", "0x018000"); }, "1af4:105a"},
      {"ABalloon", [](T& t) { t.pci("03.0", "1af4", "1045", "0x00ff00"); }, "1af4:1045"},
      {"ARandomGenerator", [](T& t) { t.pci("03.0", "1af4", "1044", "0x00ff00"); }, "1af4:1044"},
      {"AMemoryDevice", [](T& t) { t.pci("03.0", "1af4", "1058", "0x00ff00"); }, "1af4:1058"},
      {"SharedMemory", [](T& t) { t.pci("03.0", "1af4", "1110", "0x050000"); }, "1af4:1110"},
      {"ABridgeForHotPlug", [](T& t) { t.pci("03.0", "1b36", "000c", "0x060400"); }, "1b36:000c"},
      {"AnotherBus",
       [](T& t) {
         t.put("bus/pci/devices/0000:01:00.0/vendor", "0x1af4\n");
         t.put("bus/pci/devices/0000:01:00.0/device", "0x1042\n");
         t.put("bus/pci/devices/0000:01:00.0/class", "0x010000\n");
       },
       "0000:01:00.0"},
      // It would get the driver of NVMe, which goes by the class.
      {"ADiskOfAnotherClass", [](T& t) { t.pci("02.0", "1af4", "1042", "0x010802"); }, "0x010802"},
      {"AnUnknownId", [](T& t) { t.pci("1f.0", "8086", "3a18", "0x060100"); }, "8086:3a18"},
      {"ATransitionalDevice", [](T& t) { t.pci("02.0", "1af4", "1001", "0x010000"); }, "1af4:1001"},
      {"NoBridge", [](T& t) { t.gone("bus/pci/devices/0000:00:1f.0"); }, "8086:2918"},
      {"AnotherVirtioDevice",
       [](T& t) {
         t.virtio("virtio2", "0x001a", T::features({32, 33}));
       },
       "0x001a"},
      {"MemoryHotPlug", [](T& t) { t.put("bus/acpi/devices/PNP0C80:00/hid", "PNP0C80\n"); },
       "PNP0C80"},
      {"ASerialPort", [](T& t) { t.put("bus/acpi/devices/PNP0501:00/hid", "PNP0501\n"); },
       "PNP0501"},
      {"ProcessorHotPlug", [](T& t) { t.put("devices/system/cpu/possible", "0-3\n"); }, "0-3"},
      {"AnotherAcpiTable", [](T& t) { t.put("firmware/acpi/tables/TPM2", "x"); }, "TPM2"},
      {"ASecondTableWithCode", [](T& t) { t.put("firmware/acpi/tables/SSDT", "x"); }, "SSDT"},
      {"ATableThatWasLoadedLater", [](T& t) { t.put("firmware/acpi/tables/dynamic/SSDT1", "x"); },
       "dynamic/SSDT1"},
      {"DataOfAnotherTable", [](T& t) { t.put("firmware/acpi/tables/data/BERT", "x"); },
       "data/BERT"},
      {"Usb", [](T& t) { t.put("bus/usb/devices/1-1/x", "x"); }, "usb: 1-1"},
      {"Scsi", [](T& t) { t.put("bus/scsi/devices/0:0:0:0/x", "x"); }, "scsi"},
      {"AKeyboard", [](T& t) { t.put("bus/serio/devices/serio0/x", "x"); }, "serio"},
      {"AnI2cBus", [](T& t) { t.put("bus/i2c/devices/i2c-0/x", "x"); }, "i2c"},
      {"APciExpressPort", [](T& t) { t.put("bus/pci_express/devices/p/x", "x"); }, "pci_express"},
      {"Xen", [](T& t) { t.put("bus/xen/devices/vbd-1/x", "x"); }, "xen"},
      {"AFlood",
       [](T& t) {
         for (int i = 0; i < 300; ++i) t.put("block/vd" + std::to_string(i) + "/size", "1");
       },
       "256"}};
  return kMores;
}
INSTANTIATE_TEST_SUITE_P(With, InitRefuses, ::testing::ValuesIn(mores()),
                         [](const auto& of) { return std::string(of.param.name); });

TEST_F(InitDevices, AVolumeThatCanBeWrittenIsRefused) {
  machine();
  virtio("virtio1", "0x0002", features({32, 33}));
  expect_refused("read-only");
}

TEST_F(InitDevices, DevicesMustNegotiateWhatIsolationNeeds) {
  for (const char* device : {"virtio0", "virtio1"}) {
    for (const auto& bits : {features({5, 33}), features({5, 32}), std::string("0000")}) {
      machine();
      virtio(device, device == std::string("virtio0") ? "0x0003" : "0x0002", bits);
      expect_refused("features 32 and 33");
    }
  }
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
  machine();
  const auto devices = *read_devices(root_);
  EXPECT_EQ(*port_device(devices, kTeePort), "vport0p2");
  EXPECT_EQ(*port_device(devices, kControlPort), "vport0p1");
  EXPECT_EQ(port_device(devices, "org.glovebox").reason(), Reason::kNotFound);
}

TEST_F(InitPorts, AreExactlyThoseOfThePlatform) {
  machine();
  EXPECT_TRUE(ports_checked(true).ok());
  // Hardware has its own way; a host that offers another wants to be asked.
  const Status offered = ports_checked(false);
  ASSERT_EQ(offered.reason(), Reason::kUnexpectedDevice);
  EXPECT_NE(offered.error().line().find("vport0p2 org.glovebox.tee"), std::string::npos);
  gone("class/virtio-ports/vport0p2");
  EXPECT_TRUE(ports_checked(false).ok());
  EXPECT_EQ(ports_checked(true).reason(), Reason::kUnexpectedDevice);
  gone("class/virtio-ports/vport0p1");
  EXPECT_EQ(ports_checked(false).reason(), Reason::kUnexpectedDevice);
  for (const char* more : {"", "org.qemu.guest_agent.0", "org.glovebox.control"}) {
    machine();
    port("vport0p3", more);
    EXPECT_EQ(ports_checked(true).reason(), Reason::kUnexpectedDevice) << more;
    gone("class/virtio-ports/vport0p3");
  }
}

TEST_F(InitPorts, AreWaitedForUntilTheHostHasNamedThem) {
  EXPECT_FALSE(ports_are_named(Devices()));
  machine();
  EXPECT_TRUE(ports_are_named(*read_devices(root_)));
  fs::create_directories(root_ / "class/virtio-ports/vport0p0");
  EXPECT_FALSE(ports_are_named(*read_devices(root_)));
}

TEST_F(InitPlatform, HardwareIsWhereTheKernelFoundIt) {
  machine();
  const auto hardware = [&] { return is_hardware_guest(root_, root_ / "proc"); };
  EXPECT_FALSE(hardware().value());
  for (const char* sign : {"bus/platform/devices/sev-guest", "class/misc/tdx_guest"}) {
    fs::create_directories(root_ / sign);
    EXPECT_TRUE(hardware().value()) << sign;
    gone(sign);
  }
  put("proc/cpuinfo", "processor : 0\nflags : fpu tdx_guest\n");
  EXPECT_TRUE(hardware().value());
  put("proc/cpuinfo", "model name : tdx_guests\n");
  EXPECT_FALSE(hardware().value());
  gone("proc/cpuinfo");
  EXPECT_FALSE(hardware().ok());
}

// A guest of hardware whose evidence cannot be had takes nobody else's.
TEST(InitTee, FallsBackToASimulationOnlyWhereThereIsNoHardware) {
  const auto made = [](const Status& s) { return std::optional<Status>(s); };
  const auto no_driver = made(fail(Reason::kUnsupported, "no driver"));
  const auto broken = made(fail(Reason::kIo, "mkdir: Device or resource busy"));
  EXPECT_EQ(choose_tee(false, std::nullopt).value(), Tee::kSim);
  EXPECT_EQ(choose_tee(false, no_driver).value(), Tee::kSim);
  EXPECT_EQ(choose_tee(true, made(ok_status())).value(), Tee::kTsm);
  EXPECT_EQ(choose_tee(false, made(ok_status())).value(), Tee::kTsm);
  EXPECT_EQ(choose_tee(true, std::nullopt).reason(), Reason::kEvidenceMissing);
  EXPECT_EQ(choose_tee(true, no_driver).reason(), Reason::kEvidenceMissing);
  EXPECT_EQ(choose_tee(true, broken).reason(), Reason::kEvidenceMissing);
  EXPECT_EQ(choose_tee(false, broken).reason(), Reason::kEvidenceMissing);
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
