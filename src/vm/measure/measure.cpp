#include "vm/measure/measure.h"

#include "attest/sim/events.h"
#include "base/json.h"
#include "crypto/crypto.h"
#include "vm/launch.h"

namespace gbx::vm::measure {

namespace {

records::PlatformMeasurements platform_of(const LaunchPlan& plan, const Register& of_machine) {
  records::PlatformMeasurements p;
  p.technology = plan.technology;
  p.machines.push_back({plan.cpus, plan.memory_bytes, of_machine});
  return p;
}

// The digest of a step that may be absent, as of a kernel without an initrd.
Register digest_of(const Measured& m, std::string_view what) {
  for (const auto& s : m.steps) {
    if (s.what.substr(0, what.size()) == what) return s.digest;
  }
  return {};
}

Result<LaunchMeasurement> tdx(const LaunchFiles& files, const LaunchPlan& plan, Firmware firmware) {
  const TdxLaunch launch{
      {files.kernel, files.initrd, plan.cmdline}, plan.memory_bytes, files.acpi, plan.hand_over};
  LaunchMeasurement out;
  GBX_ASSIGN(out.registers, tdx_registers(firmware, launch));
  const Measured& rtmr1 = out.registers[2];
  const Measured& rtmr2 = out.registers[3];
  out.platform = platform_of(plan, out.registers[1].value);
  out.platform.parts = records::MeasuredParts{out.registers[0].value,
                                              digest_of(rtmr1, "kernel"),
                                              digest_of(rtmr2, "command line"),
                                              digest_of(rtmr2, "initrd"),
                                              rtmr1.value,
                                              rtmr2.value};
  return out;
}

Result<LaunchMeasurement> snp(const LaunchFiles& files, const LaunchPlan& plan, Firmware firmware) {
  SnpLaunch launch;
  launch.boot = Boot{files.kernel, files.initrd, plan.cmdline};
  launch.cpus = plan.cpus;
  launch.guest_features = plan.guest_features;
  GBX_ASSIGN(launch.signature, vcpu_signature(plan.vcpu_type));
  GBX_ASSIGN(Measured digest, snp_digest(firmware, launch));
  LaunchMeasurement out;
  out.platform = platform_of(plan, digest.value);
  out.registers.push_back(std::move(digest));
  return out;
}

Result<LaunchMeasurement> sim(const LaunchFiles& files, const LaunchPlan& plan) {
  attest::sim::SimLaunch launch;
  launch.firmware = crypto::sha384(files.firmware);
  GBX_ASSIGN(launch.machine, machine_description(plan.cpus, plan.memory_bytes));
  launch.kernel = crypto::sha384(files.kernel);
  launch.cmdline = plan.cmdline;
  launch.initrd = crypto::sha384(files.initrd);
  const attest::sim::SimEvents events = attest::sim::sim_events(launch);
  LaunchMeasurement out;
  out.registers = {{"MRTD", launch.firmware, {{"firmware", "firmware", launch.firmware}}},
                   {"RTMR0", {}, {}},
                   {"RTMR1", {}, {}},
                   {"RTMR2", {}, {}}};
  extend(out.registers[1], "description of the machine", "cpus, memory",
         crypto::sha384(as_bytes(launch.machine)));
  extend(out.registers[2], "kernel", "kernel", events.parts.kernel);
  extend(out.registers[3], "command line", "cmdline", events.parts.cmdline);
  extend(out.registers[3], "initrd", "initrd", events.parts.initrd);
  // The definition is the events'; the steps only say how it comes about.
  for (std::size_t i = 0; i < 3; ++i) {
    if (out.registers[i + 1].value != events.measured.rtmr[i]) {
      return fail(Reason::kInternal, "the sim's steps and events differ");
    }
  }
  out.platform = platform_of(plan, events.measured.rtmr[0]);
  out.platform.parts = events.parts;
  return out;
}

}  // namespace

Result<std::string> machine_description(std::int64_t cpus, std::int64_t memory_bytes) {
  // Paths and descriptors are not part of what is described.
  LaunchDescription d;
  d.firmware = d.kernel = d.initrd = "/";
  d.cpus = cpus;
  d.memory_bytes = memory_bytes;
  d.control_fd = 3;
  d.volume_fd = 4;
  d.tee_fd = 5;
  GBX_ASSIGN(const std::vector<std::string> arguments, qemu_arguments(d));
  JsonArray devices;
  for (std::size_t i = 0; i + 1 < arguments.size(); ++i) {
    if (arguments[i] == "-device") devices.push_back(Json(arguments[i + 1]));
  }
  Json j;
  j["cpus"] = cpus;
  j["memoryBytes"] = memory_bytes;
  j["machine"] = machine_type();
  j["devices"] = Json(std::move(devices));
  return canonical(j);
}

Result<LaunchMeasurement> measure_launch(const LaunchFiles& files, const LaunchPlan& plan) {
  GBX_TRY(check_cpus(plan.cpus));
  GBX_TRY(check_memory(plan.memory_bytes));
  GBX_TRY(check_cmdline(plan.cmdline));
  if (plan.technology == records::Technology::kSim) {
    // Its kernels are measured whole; one that cannot start is still refused before it is signed.
    GBX_TRY(pe_digest(files.kernel));
    return sim(files, plan);
  }
  if (plan.technology != records::Technology::kTdx &&
      plan.technology != records::Technology::kSnp) {
    return fail(Reason::kUnsupported, "measurements of this technology")
        .with("tdx, sev-snp or sim", std::string(enum_name(plan.technology)));
  }
  GBX_ASSIGN(Firmware firmware, Firmware::parse(files.firmware));
  GBX_TRY(pe_digest(files.kernel));
  return plan.technology == records::Technology::kTdx ? tdx(files, plan, std::move(firmware))
                                                      : snp(files, plan, std::move(firmware));
}

}  // namespace gbx::vm::measure
