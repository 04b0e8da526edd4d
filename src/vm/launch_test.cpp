// The whole command line of each platform, what a description may not say, and that the installed
// QEMU has what is asked of it.
#include "vm/launch.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/os.h"
#include "vm/qemu.h"

namespace gbx::vm {
namespace {

using Arguments = std::vector<std::string>;

LaunchDescription sample(Platform platform) {
  LaunchDescription d;
  d.platform = platform;
  d.firmware = "/usr/share/ovmf/OVMF.fd";
  d.kernel = "/proc/self/fd/7";
  d.initrd = "/srv/a,b/initrd";
  d.command_line = "quiet panic=-1 a=b,c";
  d.cpus = 4;
  d.memory_bytes = std::int64_t{2} << 30;
  d.launch_configuration.fill(0xfb);
  d.control_fd = 3;
  d.volume_fd = 4;
  return d;
}

// What is the same on every platform, as it stands there.
const Arguments kHead = {"/usr/bin/qemu-system-x86_64",
                         "-name",
                         "glovebox",
                         "-nodefaults",
                         "-no-user-config",
                         "-display",
                         "none",
                         "-serial",
                         "none",
                         "-monitor",
                         "none",
                         "-parallel",
                         "none",
                         "-no-reboot",
                         "-sandbox",
                         "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
                         "-msg",
                         "timestamp=on"};
const std::string kMachine =
    "q35,sata=off,smbus=off,usb=off,hpet=off,vmport=off,i8042=off,graphics=off,smm=off,"
    "dump-guest-core=off";
const std::string kApic = "apic-common.vapic=off";
const Arguments kSize = {"-smp", "cpus=4,maxcpus=4,sockets=1,dies=1,cores=4,threads=1", "-m",
                         "size=2048M"};
const Arguments kBoot = {"-bios",   "/usr/share/ovmf/OVMF.fd", "-kernel", "/proc/self/fd/7",
                         "-initrd", "/srv/a,b/initrd",         "-append", "quiet panic=-1 a=b,c"};
const Arguments kSerial = {
    "-device",
    "virtio-serial-pci,id=serial,bus=pcie.0,addr=01.0,max_ports=3,disable-legacy=on,"
    "iommu_platform=on,romfile=",
    "-chardev",
    "socket,id=control,fd=3",
    "-device",
    "virtserialport,bus=serial.0,nr=1,chardev=control,name=org.glovebox.control"};
const Arguments kTee = {"-chardev", "socket,id=tee,fd=5", "-device",
                        "virtserialport,bus=serial.0,nr=2,chardev=tee,name=org.glovebox.tee"};
const Arguments kVolume = {
    "-blockdev",
    R"({"driver":"nbd","export":"volume","node-name":"volume","read-only":true,)"
    R"("server":{"str":"4","type":"fd"}})",
    "-device",
    "virtio-blk-pci,drive=volume,bus=pcie.0,addr=02.0,num-queues=1,rerror=report,"
    "logical_block_size=4096,physical_block_size=4096,disable-legacy=on,iommu_platform=on,"
    "romfile="};

Arguments joined(std::initializer_list<Arguments> parts) {
  Arguments out;
  for (const Arguments& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

void expect_arguments(const LaunchDescription& d, const Arguments& golden) {
  const auto made = qemu_arguments(d);
  ASSERT_TRUE(made.ok()) << made.error().line();
  EXPECT_EQ(*made, golden);
}

TEST(Launch, EmulationIsThisCommandLine) {
  LaunchDescription d = sample(Platform::kEmulation);
  d.tee_fd = 5;
  expect_arguments(d, joined({kHead,
                              {"-machine", kMachine, "-global", kApic, "-accel",
                               "tcg,thread=multi,tb-size=128", "-cpu", "max,-cx16,-erms,-fsrm"},
                              kSize,
                              kBoot,
                              kSerial,
                              kTee,
                              kVolume}));
}

TEST(Launch, KvmIsThisCommandLine) {
  LaunchDescription d = sample(Platform::kKvm);
  d.tee_fd = 5;
  expect_arguments(
      d, joined({kHead,
                 {"-machine", kMachine, "-global", kApic, "-accel", "kvm", "-cpu", "host"},
                 kSize,
                 kBoot,
                 kSerial,
                 kTee,
                 kVolume}));
}

TEST(Launch, TdxIsThisCommandLine) {
  LaunchDescription d = sample(Platform::kTdx);
  // 32 bytes and 16 zeros; the alphabet is that of RFC 4648 section 4.
  const std::string id = "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/sAAAAAAAAAAAAAAAAAAAAA";
  const Arguments machine = {"-machine", kMachine + ",confidential-guest-support=tee",
                             "-global",  kApic,
                             "-accel",   "kvm,kernel-irqchip=split",
                             "-cpu",     "host"};
  const auto golden = [&](const std::string& socket) {
    const std::string object = R"({"id":"tee","mrconfigid":")" + id + R"(","qom-type":"tdx-guest")";
    return joined(
        {kHead, machine, kSize, {"-object", object + socket + "}"}, kBoot, kSerial, kVolume});
  };
  expect_arguments(d, golden(""));
  d.quote_service = VsockAddress{};
  expect_arguments(
      d, golden(R"(,"quote-generation-socket":{"cid":"2","port":"4050","type":"vsock"})"));
  d.quote_service = UnixAddress{"/run/a,b=\"c\""};
  expect_arguments(d,
                   golden(R"(,"quote-generation-socket":{"path":"/run/a,b=\"c\"","type":"unix"})"));
}

TEST(Launch, SnpIsThisCommandLine) {
  expect_arguments(
      sample(Platform::kSnp),
      joined({kHead,
              {"-machine", kMachine + ",confidential-guest-support=tee,memory-backend=ram",
               "-global", kApic, "-accel", "kvm", "-cpu", "EPYC-v4"},
              kSize,
              {"-object",
               R"({"id":"ram","qom-type":"memory-backend-memfd","share":true,"size":2147483648})",
               "-object",
               R"({"cbitpos":51,"host-data":"+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=",)"
               R"("id":"tee","kernel-hashes":true,"policy":196608,"qom-type":"sev-snp-guest",)"
               R"("reduced-phys-bits":1})"},
              kBoot,
              kSerial,
              kVolume}));
}

// Options by which a machine could get what no job needs.
TEST(Launch, NoPlatformHasAWayOutOrALookIn) {
  for (const Platform platform : kPlatforms) {
    const auto argv = qemu_arguments(sample(platform));
    ASSERT_TRUE(argv.ok());
    for (const std::string& word : *argv) {
      for (const char* never :
           {"netdev", "virtio-net", "vhost", "ivshmem", "virtiofs", "9p", "fsdev", "qmp", "gdb",
            "spice", "vnc", "vsock", "debugcon", "fw_cfg", "hostfwd", "vfio", "pmem"}) {
        EXPECT_EQ(word.find(never), std::string::npos) << word;
      }
    }
    for (const char* never : {"-nic", "-net", "-s", "-S", "-mon", "-qmp", "-fw_cfg", "-snapshot"}) {
      EXPECT_EQ(std::count(argv->begin(), argv->end(), never), 0) << never;
    }
    EXPECT_EQ(std::count(argv->begin(), argv->end(), "-device"), 3);
    EXPECT_EQ(std::count(argv->begin(), argv->end(), "-blockdev"), 1);
    EXPECT_EQ(std::count(argv->begin(), argv->end(), "-chardev"), 1);
  }
}

void expect_refused(Reason reason, const std::function<void(LaunchDescription&)>& change,
                    Platform platform = Platform::kEmulation) {
  LaunchDescription d = sample(platform);
  change(d);
  const auto made = qemu_arguments(d);
  EXPECT_FALSE(made.ok());
  EXPECT_EQ(made.reason(), reason) << made.error().line();
}

TEST(Launch, WhatIsOutOfBoundsIsRefused) {
  using D = LaunchDescription;
  expect_refused(Reason::kBadValue, [](D& d) { d.cpus = 0; });
  expect_refused(Reason::kTooLarge, [](D& d) { d.cpus = kMaxCpus + 1; });
  expect_refused(Reason::kBadValue, [](D& d) { d.memory_bytes = kMinMemoryBytes - kMemoryUnit; });
  expect_refused(Reason::kTooLarge, [](D& d) { d.memory_bytes = kMaxMemoryBytes + kMemoryUnit; });
  expect_refused(Reason::kBadValue, [](D& d) { d.memory_bytes += 4096; });
  expect_refused(Reason::kTooLarge, [](D& d) { d.command_line = std::string(2048, 'a'); });
  expect_refused(Reason::kBadValue, [](D& d) { d.command_line = "a\nb"; });
  expect_refused(Reason::kBadValue, [](D& d) { d.command_line = std::string("a\0b", 3); });
  expect_refused(Reason::kBadValue, [](D& d) { d.firmware.clear(); });
  expect_refused(Reason::kBadValue, [](D& d) { d.kernel = "kernel"; });
  expect_refused(Reason::kBadValue, [](D& d) { d.initrd = "-S"; });
  expect_refused(Reason::kBadValue, [](D& d) { d.initrd = "/a\nb"; });
  expect_refused(Reason::kTooLarge, [](D& d) { d.initrd = "/" + std::string(kMaxPath, 'a'); });
  expect_refused(Reason::kBadValue, [](D& d) { d.qemu = "qemu-system-x86_64"; });
}

TEST(Launch, WhatThePlatformHasNotIsRefused) {
  using D = LaunchDescription;
  for (const Platform platform : {Platform::kTdx, Platform::kSnp}) {
    expect_refused(
        Reason::kUnsupported, [](D& d) { d.tee_fd = 5; }, platform);
  }
  expect_refused(Reason::kUnsupported, [](D& d) { d.quote_service = VsockAddress{}; });
  expect_refused(
      Reason::kUnsupported, [](D& d) { d.quote_service = VsockAddress{}; }, Platform::kSnp);
  expect_refused(
      Reason::kBadValue, [](D& d) { d.quote_service = UnixAddress{"qgs"}; }, Platform::kTdx);
}

TEST(Launch, DescriptorsAreEachAnotherAndNoneIsAStandardOne) {
  using D = LaunchDescription;
  expect_refused(Reason::kBadValue, [](D& d) { d.control_fd = -1; });
  expect_refused(Reason::kBadValue, [](D& d) { d.volume_fd = 2; });
  expect_refused(Reason::kBadValue, [](D& d) { d.volume_fd = d.control_fd; });
  expect_refused(Reason::kBadValue, [](D& d) { d.tee_fd = d.volume_fd; });
}

TEST(Launch, AHostThatIsTooSmallRefusesBeforeAnythingStarts) {
  const HostRoom room{2, std::int64_t{3} << 30};
  LaunchDescription d = sample(Platform::kEmulation);
  d.cpus = 2;
  EXPECT_TRUE(check_fits(d, room).ok());
  d.cpus = 64;
  const Status cpus = check_fits(d, room);
  EXPECT_EQ(cpus.reason(), Reason::kNoCapacity);
  EXPECT_EQ(cpus.error().actual, "64");
  d.cpus = 1;
  d.memory_bytes = std::int64_t{4} << 40;
  EXPECT_TRUE(check_launch(d).ok());
  EXPECT_EQ(check_fits(d, room).reason(), Reason::kNoCapacity);
  d.memory_bytes = room.memory_bytes - kHostOverheadBytes;
  EXPECT_TRUE(check_fits(d, room).ok());
  d.memory_bytes += kMemoryUnit;
  EXPECT_EQ(check_fits(d, room).reason(), Reason::kNoCapacity);
  const auto here = host_room();
  ASSERT_TRUE(here.ok()) << here.error().line();
  EXPECT_GE(here->cpus, 1);
  EXPECT_GT(here->memory_bytes, 1 << 20);
}

#define NEEDS_QEMU() \
  if (!path_exists(LaunchDescription{}.qemu)) GTEST_SKIP() << "QEMU is not installed"

TEST(Qemu, TheInstalledOneHasWhatEmulationAndKvmAsk) {
  NEEDS_QEMU();
  const auto report = check_qemu(LaunchDescription{}.qemu);
  ASSERT_TRUE(report.ok()) << report.error().line();
  EXPECT_TRUE(report->version.starts_with("QEMU emulator version ")) << report->version;
  for (const QemuLack& lack : report->lacks) {
    EXPECT_TRUE(lack.platform == Platform::kTdx || lack.platform == Platform::kSnp)
        << platform_name(lack.platform) << " lacks " << lack.what;
  }
  EXPECT_TRUE(report->serves(Platform::kEmulation));
  EXPECT_TRUE(report->serves(Platform::kKvm));
}

// A QEMU whose help is what the test says.
QemuReport report_of(const std::string& help) {
  std::string path = "/tmp/gbx-qemu-XXXXXX";
  const Fd file(mkstemp(path.data()));
  const std::string script =
      "#!/bin/sh\nif [ \"$1\" = --version ]; then echo QEMU emulator version 0; exit; fi\n" + help;
  EXPECT_TRUE(write_file_atomic(path, as_bytes(script), 0755).ok());
  auto report = check_qemu(path);
  EXPECT_TRUE(remove_tree(path).ok());
  EXPECT_TRUE(report.ok()) << report.error().line();
  return report.ok() ? *report : QemuReport{};
}

bool lacks(const QemuReport& report, Platform platform, const std::string& what,
           const std::string& needs) {
  return std::any_of(report.lacks.begin(), report.lacks.end(), [&](const QemuLack& lack) {
    return lack.platform == platform && lack.what == what &&
           lack.needs.find(needs) != std::string::npos;
  });
}

TEST(Qemu, WhatAnOlderOneLacksIsNamedWithWhatHasIt) {
  NEEDS_QEMU();
  // The real help without three lines of it.
  const QemuReport report = report_of(
      "/usr/bin/qemu-system-x86_64 \"$@\" 2>/dev/null | grep -vE '^ +(tdx-guest|sev-snp-guest)$|"
      "iommu_platform=|hpet=|^x86 EPYC-v4 '");
  EXPECT_FALSE(report.serves(Platform::kEmulation));
  EXPECT_TRUE(lacks(report, Platform::kTdx, "object tdx-guest", "QEMU 10.1"));
  EXPECT_TRUE(lacks(report, Platform::kSnp, "object sev-snp-guest", "QEMU 9.1"));
  EXPECT_TRUE(lacks(report, Platform::kSnp, "processor EPYC-v4", "QEMU 8.1"));
  EXPECT_FALSE(lacks(report, Platform::kTdx, "object sev-snp-guest", ""));
  EXPECT_TRUE(
      lacks(report, Platform::kKvm, "property iommu_platform of device virtio-blk-pci", "has it"));
  EXPECT_TRUE(lacks(report, Platform::kEmulation, "property hpet of machine q35", "has it"));
}

TEST(Qemu, OneThatSaysNothingServesNothing) {
  const QemuReport report = report_of("exit 1");
  for (const Platform platform : kPlatforms) EXPECT_FALSE(report.serves(platform));
  EXPECT_EQ(check_qemu("/nowhere/qemu").reason(), Reason::kNotFound);
  EXPECT_EQ(check_qemu("/bin/true").reason(), Reason::kUnsupported);
}

}  // namespace
}  // namespace gbx::vm
