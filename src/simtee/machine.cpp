#include "simtee/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "attest/sim/service.h"
#include "channel/stream.h"
#include "simtee/confine.h"
#include "simtee/watch.h"
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
// From the end of its streams to the end of the process.
constexpr std::int64_t kEndMs = 30'000;

std::string inherited(int number) { return "/proc/self/fd/" + std::to_string(number); }

struct Files {
  SealedFile firmware;
  SealedFile kernel;
  SealedFile initrd;
};

Status check(const SealedFile& file, const Hash32& expected, const std::string& path,
             Reason mismatch) {
  if (file.sha256 == expected) return ok_status();
  return fail(mismatch, path)
      .with("the release's, " + to_hex(expected), to_hex(file.sha256))
      .hint("give the node the guest that its release was made of, or make a release of this one");
}

// A guest that is not the release's would boot, and no broker would give it a key.
Result<Files> copy_files(const vm::LaunchDescription& d, const ExpectedFiles& expected) {
  Files f;
  GBX_ASSIGN(f.firmware, sealed_copy(d.firmware, kMaxFirmwareBytes));
  GBX_ASSIGN(f.kernel, sealed_copy(d.kernel, kMaxKernelBytes));
  GBX_ASSIGN(f.initrd, sealed_copy(d.initrd, kMaxInitrdBytes));
  GBX_TRY(check(f.firmware, expected.firmware, d.firmware, Reason::kFirmwareMismatch));
  GBX_TRY(check(f.kernel, expected.kernel, d.kernel, Reason::kKernelMismatch));
  GBX_TRY(check(f.initrd, expected.initrd, d.initrd, Reason::kInitrdMismatch));
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

struct Qemu {
  Process process;
  Fd pidfd;  // by which alone it is waited for and killed
  Fd tee;    // our end of the stream to the guest's agent
  std::unique_ptr<Watch> watch;
};

Result<Process> spawn_qemu(const MachineOptions& o, const Files& files, int tee, int complaints) {
  vm::LaunchDescription d = o.machine;
  ProcessOptions p;
  p.descriptors = {{2, complaints},
                   {kControl, d.control_fd},
                   {kVolume, d.volume_fd},
                   {kTee, tee},
                   {kFirmware, files.firmware.fd.get()},
                   {kKernel, files.kernel.fd.get()},
                   {kInitrd, files.initrd.fd.get()}};
  d.control_fd = kControl;
  d.volume_fd = kVolume;
  d.tee_fd = kTee;
  d.firmware = inherited(kFirmware);
  d.kernel = inherited(kKernel);
  d.initrd = inherited(kInitrd);
  GBX_ASSIGN(p.argv, vm::qemu_arguments(d));
  p.env = {{"PATH", "/usr/bin:/bin"}};
  p.uid = o.qemu_uid;
  p.gid = static_cast<gid_t>(o.qemu_uid);
  return spawn(p);
}

// Ends QEMU at the node's or the limit's word from here on; this process has given up what it can.
Result<Qemu> start_qemu(const MachineOptions& o, const Files& files, const Logger& log) {
  const bool kvm = o.machine.platform == vm::Platform::kKvm;
  GBX_TRY(enter_cell({o.machine.qemu, kvm, o.qemu_uid}, log));
  GBX_ASSIGN(auto tee, make_socket_pair());
  GBX_ASSIGN(auto complaints, make_pipe());
  Qemu q;
  GBX_ASSIGN(q.process, spawn_qemu(o, files, tee.second.get(), complaints.second.get()));
  q.tee = std::move(tee.first);
  Watched watched;
  // SAFETY: pidfd_open takes a pid and flags; the descriptor closes itself.
  q.pidfd = Fd(static_cast<int>(syscall(SYS_pidfd_open, q.process.pid(), 0)));
  if (!q.pidfd.valid()) return io_error("pidfd of QEMU", errno);
  watched.qemu = q.pidfd.get();
  watched.complaints = std::move(complaints.first);
  watched.node_fd = o.node_fd;
  watched.life_ms = o.life_ms;
  GBX_TRY(drop_ids(o.own_uid));
  GBX_ASSIGN(q.watch, Watch::start(std::move(watched), log));
  // QEMU has them now: when it ends, so do the streams.
  close(o.machine.control_fd);
  close(o.machine.volume_fd);
  return q;
}

// False after `ms`, which are for ever when negative, and when it cannot be waited for.
bool ends_within(int pidfd, std::int64_t ms, const Clock& clock) {
  const std::int64_t until = clock.steady_ms() + std::max<std::int64_t>(ms, 0);
  for (;;) {
    pollfd p{pidfd, POLLIN, 0};
    const std::int64_t left = std::max<std::int64_t>(until - clock.steady_ms(), 0);
    const int n = poll(&p, 1, ms < 0 ? -1 : static_cast<int>(left));
    if (n >= 0 || errno != EINTR) return n > 0;
  }
}

Status how_it_ended(const std::optional<ExitStatus>& end, const Watch& watch) {
  if (watch.ended()) return *watch.ended();
  const Error failed =
      fail(Reason::kBootFailed, "QEMU")
          .hint("look at the node's log for what QEMU says; `glovebox doctor` checks this host");
  if (!end) return Error(failed).with("its end with its streams", "it went on");
  if (end->exited && end->code == 0) return ok_status();
  const std::string how = end->exited ? "exit code " + std::to_string(end->code)
                                      : "signal " + std::to_string(end->code);
  return Error(failed).with("exit code 0",
                            how + (watch.last_words().empty() ? "" : ": ") + watch.last_words());
}

}  // namespace

Result<SealedFile> sealed_copy(const std::string& path, std::int64_t limit) {
  const Fd from(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!from.valid()) return io_error(path, errno);
  SealedFile out;
  out.fd = Fd(memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!out.fd.valid()) return io_error("memory file", errno);
  crypto::Sha384 hash;
  crypto::Sha256 plain;
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
    plain.update(piece);
    GBX_TRY(write_all(out.fd.get(), piece));
  }
  if (size == 0) return fail(Reason::kBadValue, path).with("a file with content", "an empty one");
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
  if (fcntl(out.fd.get(), F_ADD_SEALS, kSeals) != 0) return io_error("seals", errno);
  out.sha384 = hash.finish();
  out.sha256 = plain.finish();
  return out;
}

Status run_machine(const attest::sim::SimPlatform& platform, const MachineOptions& o,
                   const Clock& clock, const Logger& log) {
  if (o.qemu_uid == 0 || o.own_uid == 0 || o.qemu_uid == o.own_uid) {
    return fail(Reason::kBadValue, "ids of QEMU and of simtee").with("two, not root's", "others");
  }
  if (o.memory_cgroup >= 0) GBX_TRY(write_all(o.memory_cgroup, as_bytes("0")));
  GBX_TRY(vm::check_launch(o.machine));
  GBX_ASSIGN(const Files files, copy_files(o.machine, o.expected));
  GBX_ASSIGN(attest::sim::SimEvents events, measure(o.machine, files));
  const attest::sim::QuoteService service(platform, events.measured, std::move(events.log));
  // What signing needs of the host's files is read now.
  GBX_TRY(platform.quote(events.measured, {}));
  GBX_ASSIGN(Qemu qemu, start_qemu(o, files, log));
  GBX_ASSIGN(auto stream, channel::FdStream::create(std::move(qemu.tee)));
  GBX_TRY(filter_calls(qemu.pidfd.get()));
  // A guest that breaks the protocol gets no further quote, and goes on without.
  const Status served = attest::sim::serve_quotes(*stream, service, clock);
  if (!served.ok()) log.warn("tee-stream", {{"what", served.error().line()}});
  const bool in_time = ends_within(qemu.pidfd.get(), served.ok() ? kEndMs : -1, clock);
  if (!in_time) kill_by(qemu.pidfd.get());
  GBX_ASSIGN(const auto end, qemu.process.wait(-1));
  qemu.watch->stop();
  return how_it_ended(in_time ? end : std::nullopt, *qemu.watch);
}

}  // namespace gbx::simtee
