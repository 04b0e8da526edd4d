#include "vm/measure/measure.h"

#include <gtest/gtest.h>

#include "attest/sim/events.h"
#include "crypto/crypto.h"
#include "vm/launch.h"
#include "vm/measure/testing.h"

namespace gbx::vm::measure {
namespace {

using records::Technology;

LaunchFiles files() {
  LaunchFiles f;
  f.firmware = testing::FirmwareMaker().build();
  f.kernel = testing::KernelMaker().build();
  f.initrd = testing::pattern(5000, 9);
  ByteWriter script;
  for (const std::string_view file : {"etc/acpi/rsdp", "etc/acpi/tables"}) {
    script.u32(1).text(file).zeros(124 - file.size());
  }
  f.acpi.loader = script.bytes();
  f.acpi.files = {{"etc/acpi/rsdp", Bytes(20)}, {"etc/acpi/tables", Bytes(200)}};
  return f;
}
LaunchPlan plan(Technology t) {
  LaunchPlan p;
  p.technology = t;
  p.cmdline = "quiet";
  p.cpus = 2;
  p.memory_bytes = std::int64_t{1} << 31;
  return p;
}
LaunchMeasurement measured(Technology t) {
  auto m = measure_launch(files(), plan(t));
  EXPECT_TRUE(m.ok()) << m.error().line();
  return std::move(m).value();
}

TEST(MeasureLaunch, AReleaseListsWhatTheRegistersAre) {
  const LaunchMeasurement tdx = measured(Technology::kTdx);
  ASSERT_EQ(tdx.registers.size(), 4U);
  ASSERT_TRUE(tdx.platform.parts);
  EXPECT_EQ(tdx.platform.parts->firmware, tdx.registers[0].value);
  EXPECT_EQ(tdx.platform.machines.at(0).measurement, tdx.registers[1].value);
  EXPECT_EQ(tdx.platform.parts->kernel, pe_digest(files().kernel).value());
  EXPECT_EQ(tdx.platform.parts->initrd, crypto::sha384(files().initrd));
  EXPECT_EQ(tdx.platform.parts->cmdline, tdx.registers[3].steps[0].digest);
  EXPECT_EQ(tdx.platform.parts->rtmr1, tdx.registers[2].value);
  EXPECT_EQ(tdx.platform.parts->rtmr2, tdx.registers[3].value);
  const LaunchMeasurement snp = measured(Technology::kSnp);
  ASSERT_EQ(snp.registers.size(), 1U);
  EXPECT_FALSE(snp.platform.parts);
  EXPECT_EQ(snp.platform.machines.at(0).measurement, snp.registers[0].value);
  EXPECT_EQ(snp.platform.machines.at(0).cpus, 2);
}

TEST(MeasureLaunch, TheSimIsWhatItsEventsSay) {
  const LaunchFiles f = files();
  attest::sim::SimLaunch launch;
  launch.firmware = crypto::sha384(f.firmware);
  launch.machine = machine_description(2, std::int64_t{1} << 31).value();
  launch.kernel = crypto::sha384(f.kernel);
  launch.cmdline = "quiet";
  launch.initrd = crypto::sha384(f.initrd);
  const auto events = attest::sim::sim_events(launch);
  const LaunchMeasurement sim = measured(Technology::kSim);
  EXPECT_EQ(sim.registers[0].value, events.measured.mrtd);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(sim.registers[i + 1].value, events.measured.rtmr[i]);
  }
  EXPECT_EQ(to_json(*sim.platform.parts), to_json(events.parts));
}

TEST(MeasureLaunch, TheMachinesDescriptionIsItsDevices) {
  EXPECT_EQ(machine_description(2, std::int64_t{1} << 31).value(),
            R"({"cpus":2,"devices":["virtio-serial-pci,id=serial,bus=pcie.0,addr=01.0,max_ports=3,)"
            R"(disable-legacy=on,iommu_platform=on,romfile=",)"
            R"("virtserialport,bus=serial.0,nr=1,chardev=control,name=org.glovebox.control",)"
            R"("virtserialport,bus=serial.0,nr=2,chardev=tee,name=org.glovebox.tee",)"
            R"("virtio-blk-pci,drive=volume,bus=pcie.0,addr=02.0,num-queues=1,rerror=report,)"
            R"(logical_block_size=4096,physical_block_size=4096,disable-legacy=on,)"
            R"(iommu_platform=on,romfile="],"machine":"q35,sata=off,smbus=off,usb=off,hpet=off,)"
            R"(vmport=off,i8042=off,graphics=off,smm=off,dump-guest-core=off",)"
            R"("memoryBytes":2147483648})");
  // KVM's machine has the same.
  LaunchDescription d;
  d.firmware = d.kernel = d.initrd = "/f";
  d.memory_bytes = std::int64_t{1} << 31;
  d.control_fd = 3;
  d.volume_fd = 4;
  d.tee_fd = 5;
  d.platform = Platform::kKvm;
  const auto arguments = qemu_arguments(d);
  ASSERT_TRUE(arguments.ok()) << arguments.error().line();
  const std::string text = machine_description(1, std::int64_t{1} << 31).value();
  int devices = 0;
  for (std::size_t i = 0; i + 1 < arguments->size(); ++i) {
    if ((*arguments)[i] != "-device") continue;
    ++devices;
    EXPECT_NE(text.find("\"" + (*arguments)[i + 1] + "\""), std::string::npos);
  }
  EXPECT_EQ(devices, 4);
}

TEST(MeasureLaunch, TheProcessorIsTheOneThatIsLaunched) {
  EXPECT_EQ(LaunchPlan{}.vcpu_type, cpu_model(Platform::kSnp));
}

TEST(MeasureLaunch, WrongInputIsRefusedForEveryTechnology) {
  for (const auto t : {Technology::kSim, Technology::kTdx, Technology::kSnp}) {
    LaunchPlan p = plan(t);
    p.cpus = 0;
    EXPECT_EQ(measure_launch(files(), p).reason(), Reason::kBadValue);
    p = plan(t);
    p.memory_bytes = 4096;
    EXPECT_EQ(measure_launch(files(), p).reason(), Reason::kBadValue);
    p = plan(t);
    p.cmdline = "a\n";
    EXPECT_EQ(measure_launch(files(), p).reason(), Reason::kBadValue);
    LaunchFiles f = files();
    f.kernel = Bytes(4096);
    EXPECT_EQ(measure_launch(f, plan(t)).reason(), Reason::kBadMagic);
  }
  EXPECT_EQ(measure_launch(files(), plan(Technology::kNone)).reason(), Reason::kUnsupported);
  LaunchPlan p = plan(Technology::kSnp);
  p.vcpu_type = "host";
  EXPECT_EQ(measure_launch(files(), p).reason(), Reason::kBadValue);
}

}  // namespace
}  // namespace gbx::vm::measure
