#include "simtee/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "attest/sim/service.h"
#include "channel/stream.h"
#include "vm/measure/measure.h"

namespace gbx::simtee {

namespace {

// In the QEMU process.
constexpr int kControl = 3;
constexpr int kVolume = 4;
constexpr int kTee = 5;
constexpr int kFirmware = 6;
constexpr int kKernel = 7;
constexpr int kInitrd = 8;
constexpr int kMemory = 9;
// From the end of its streams to the end of the process.
constexpr std::int64_t kEndMs = 30'000;

std::string inherited(int number) { return "/proc/self/fd/" + std::to_string(number); }

struct Files {
  SealedFile firmware;
  SealedFile kernel;
  SealedFile initrd;
};

Result<Files> copy_files(const vm::LaunchDescription& d) {
  Files f;
  GBX_ASSIGN(f.firmware, sealed_copy(d.firmware, kMaxFirmwareBytes));
  GBX_ASSIGN(f.kernel, sealed_copy(d.kernel, kMaxKernelBytes));
  GBX_ASSIGN(f.initrd, sealed_copy(d.initrd, kMaxInitrdBytes));
  return f;
}

Result<attest::sim::SimEvents> measure(const vm::LaunchDescription& d, const Files& files) {
  attest::sim::SimLaunch launch;
  GBX_ASSIGN(launch.machine, vm::measure::machine_description(d.cpus, d.memory_bytes));
  launch.firmware = files.firmware.sha384;
  launch.kernel = files.kernel.sha384;
  launch.initrd = files.initrd.sha384;
  launch.cmdline = d.command_line;
  attest::sim::SimEvents events = attest::sim::sim_events(launch);
  events.measured.launch_config = d.launch_configuration;
  return events;
}

Result<Process> start_qemu(const MachineOptions& o, const Files& files, int tee) {
  vm::LaunchDescription d = o.machine;
  ProcessOptions p;
  p.descriptors = {{2, o.log_fd},
                   {kControl, d.control_fd},
                   {kVolume, d.volume_fd},
                   {kTee, tee},
                   {kFirmware, files.firmware.fd.get()},
                   {kKernel, files.kernel.fd.get()},
                   {kInitrd, files.initrd.fd.get()}};
  if (d.memory_fd) p.descriptors[kMemory] = *d.memory_fd;
  d.control_fd = kControl;
  d.volume_fd = kVolume;
  d.tee_fd = kTee;
  d.firmware = inherited(kFirmware);
  d.kernel = inherited(kKernel);
  d.initrd = inherited(kInitrd);
  if (d.memory_fd) d.memory_fd = kMemory;
  GBX_ASSIGN(p.argv, vm::qemu_arguments(d));
  p.env = {{"PATH", "/usr/bin:/bin"}};
  p.uid = o.uid;
  if (o.uid) p.gid = static_cast<gid_t>(*o.uid);
  return spawn(p);
}

}  // namespace

Result<SealedFile> sealed_copy(const std::string& path, std::int64_t limit) {
  const Fd from(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!from.valid()) return io_error(path, errno);
  SealedFile out;
  out.fd = Fd(memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!out.fd.valid()) return io_error("memory file", errno);
  crypto::Sha384 hash;
  Bytes block(std::size_t{1} << 20);
  std::int64_t size = 0;
  for (;;) {
    const ssize_t n = read(from.get(), block.data(), block.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error(path, errno);
    if (n == 0) break;
    const ByteView piece = ByteView(block).first(static_cast<std::size_t>(n));
    size += n;
    if (size > limit) {
      return fail(Reason::kTooLarge, path).with("at most " + std::to_string(limit), "more");
    }
    hash.update(piece);
    GBX_TRY(write_all(out.fd.get(), piece));
  }
  if (size == 0) return fail(Reason::kBadValue, path).with("a file with content", "an empty one");
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
  if (fcntl(out.fd.get(), F_ADD_SEALS, kSeals) != 0) return io_error("seals", errno);
  out.sha384 = hash.finish();
  return out;
}

Status run_machine(const attest::sim::SimPlatform& platform, const MachineOptions& o,
                   const Clock& clock, const Logger& log) {
  GBX_ASSIGN(const Files files, copy_files(o.machine));
  GBX_ASSIGN(attest::sim::SimEvents events, measure(o.machine, files));
  const attest::sim::QuoteService service(platform, events.measured, std::move(events.log));
  GBX_ASSIGN(auto tee, make_socket_pair());
  GBX_ASSIGN(Process qemu, start_qemu(o, files, tee.second.get()));
  tee.second.reset();
  // QEMU has them now: when it ends, so do the streams.
  close(o.machine.control_fd);
  close(o.machine.volume_fd);
  GBX_ASSIGN(auto stream, channel::FdStream::create(std::move(tee.first)));
  // A guest that breaks the protocol gets no further quote, and goes on without.
  const Status served = attest::sim::serve_quotes(*stream, service, clock);
  if (!served.ok()) log.warn("tee-stream", {{"what", served.error().line()}});
  GBX_ASSIGN(auto end, qemu.wait(served.ok() ? kEndMs : -1));
  if (!end) {
    qemu.kill_and_reap();
    return fail(Reason::kBootFailed, "QEMU closed its streams and went on");
  }
  if (end->exited && end->code == 0) return ok_status();
  return fail(Reason::kBootFailed, "QEMU")
      .with("exit code 0", end->exited ? "exit code " + std::to_string(end->code)
                                       : "signal " + std::to_string(end->code));
}

}  // namespace gbx::simtee
