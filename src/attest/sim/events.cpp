#include "attest/sim/events.h"

#include "crypto/crypto.h"

namespace gbx::attest::sim {

namespace {

tdx::Register digest_of(std::string_view text) { return crypto::sha384(as_bytes(text)); }

tdx::Event event(std::uint32_t index, const tdx::Register& digest, const std::string& data) {
  return {index, tdx::kEventIpl, digest, to_bytes(as_bytes(data))};
}

}  // namespace

SimEvents sim_events(const SimLaunch& launch) {
  SimEvents out;
  out.parts.firmware = launch.firmware;
  out.parts.kernel = launch.kernel;
  out.parts.cmdline = digest_of(launch.cmdline);
  out.parts.initrd = launch.initrd;
  tdx::EventLog log;
  log.events = {
      event(1, digest_of(launch.machine), "machine: " + launch.machine),
      event(2, out.parts.kernel, "kernel"),
      event(3, out.parts.cmdline, "cmdline: " + launch.cmdline),
      event(3, out.parts.initrd, "initrd"),
  };
  out.log = tdx::serialize(log);
  out.measured.mrtd = launch.firmware;
  out.measured.rtmr = tdx::replay(log);
  out.parts.rtmr1 = out.measured.rtmr[1];
  out.parts.rtmr2 = out.measured.rtmr[2];
  return out;
}

}  // namespace gbx::attest::sim
