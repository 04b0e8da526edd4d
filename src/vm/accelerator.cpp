#include "vm/accelerator.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/os.h"
#include "base/printable.h"
#include "crypto/crypto.h"
#include "vm/qemu.h"

namespace gbx::vm {

namespace {

constexpr std::uint8_t kSaid = 0x15;
constexpr int kExpectedExit = kSaid << 1 | 1;  // as isa-debug-exit reckons
constexpr int kInitrdFd = 3;
constexpr std::size_t kMostFirmware = std::size_t{64} << 20;
constexpr std::size_t kMostKernel = std::size_t{256} << 20;
constexpr std::size_t kMostSaid = 65536;

// The program: ioperm(0xf4, 4, 1); outb(kSaid, 0xf4); exit(1), upon which the kernel panics.
constexpr std::uint8_t kProgram[] = {0xb8, 173,   0x00, 0x00, 0x00,  // mov eax, 173 (ioperm)
                                     0xbf, 0xf4,  0x00, 0x00, 0x00,  // mov edi, 0xf4
                                     0xbe, 0x04,  0x00, 0x00, 0x00,  // mov esi, 4
                                     0xba, 0x01,  0x00, 0x00, 0x00,  // mov edx, 1
                                     0x0f, 0x05,                     // syscall
                                     0xba, 0xf4,  0x00, 0x00, 0x00,  // mov edx, 0xf4
                                     0xb0, kSaid,                    // mov al, kSaid
                                     0xee,                           // out dx, al
                                     0xb8, 60,    0x00, 0x00, 0x00,  // mov eax, 60 (exit)
                                     0xbf, 0x01,  0x00, 0x00, 0x00,  // mov edi, 1
                                     0x0f, 0x05};                    // syscall

// One segment, at 4 MiB, that is the whole file (System V ABI, chapters 4 and 5).
Bytes program_file() {
  constexpr std::uint64_t kBase = 0x400000;
  constexpr std::size_t kHeaders = 64 + 56;
  constexpr std::size_t kSize = kHeaders + sizeof kProgram;
  ByteWriter w;
  w.text("\x7f").text("ELF").u8(2).u8(1).u8(1).zeros(9);  // 64 bits, little-endian, version 1
  w.u16(2).u16(62).u32(1);                                // an executable for x86-64, version 1
  w.u64(kBase + kHeaders).u64(64).u64(0).u32(0);          // entry, program headers, no sections
  w.u16(64).u16(56).u16(1).u16(64).u16(0).u16(0);
  w.u32(1).u32(5);  // to be loaded, readable and executable
  w.u64(0).u64(kBase).u64(kBase).u64(kSize).u64(kSize).u64(4096);
  w.raw(kProgram);
  return w.take();
}

// One entry of the kernel's "newc" archive (Documentation/driver-api/early-userspace).
void add_entry(ByteWriter& w, const std::string& name, std::uint32_t mode, ByteView content) {
  const auto field = [&](std::size_t value) {
    char text[9];
    (void)snprintf(text, sizeof text, "%08zx", value);
    w.text(text);
  };
  const auto align = [&] { w.zeros((4 - w.bytes().size() % 4) % 4); };
  w.text("070701");
  // ino, mode, uid, gid, links, mtime, size, device and its node, name's size, check
  const std::size_t values[] = {1, mode, 0, 0, 1, 0, content.size(), 0, 0, 0, 0, name.size() + 1,
                                0};
  for (const std::size_t value : values) field(value);
  w.text(name).u8(0);
  align();
  w.raw(content);
  align();
}

std::vector<std::string> probe_arguments(Platform platform, const ProbeOptions& o) {
  std::vector<std::string> out = {o.qemu, "-name", "glovebox-probe"};
  out.insert(out.end(), hardening().begin(), hardening().end());
  for (const std::string_view word :
       {std::string_view("-machine"), machine_type(), std::string_view("-accel"),
        accelerator(platform), std::string_view("-cpu"), cpu_model(platform)}) {
    out.emplace_back(word);
  }
  // Two processors: that they meet is part of what may hang.
  for (const char* word :
       {"-smp", "2", "-m", "size=256M", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04",
        "-append", "quiet panic=-1 rdinit=/init", "-initrd"}) {
    out.emplace_back(word);
  }
  out.push_back("/proc/self/fd/" + std::to_string(kInitrdFd));
  out.insert(out.end(), {"-bios", o.firmware, "-kernel", o.kernel});
  return out;
}

std::string first_line(std::string_view text) { return printable(text.substr(0, text.find('\n'))); }

// What the answer depends on; another boot may be another host below.
Result<Hash32> key_of(const ProbeOptions& o, std::string_view version) {
  utsname system{};
  if (uname(&system) != 0) return io_error("uname", errno);
  GBX_ASSIGN(const std::string boot, read_text_file("/proc/sys/kernel/random/boot_id", 128));
  GBX_ASSIGN(const std::string processors, read_text_file("/proc/cpuinfo", 1 << 24));
  const std::size_t model = processors.find("model name");
  const std::string cpu =
      model == std::string::npos
          ? ""
          : processors.substr(model,
                              std::min(processors.find('\n', model), processors.size()) - model);
  GBX_ASSIGN(const Bytes firmware, read_file(o.firmware, kMostFirmware));
  GBX_ASSIGN(const Bytes kernel, read_file(o.kernel, kMostKernel));
  ByteWriter w;
  for (const std::string_view part :
       {version, std::string_view(system.release), std::string_view(cpu), std::string_view(boot)}) {
    w.bytes32(as_bytes(part));
  }
  w.raw(crypto::sha256(firmware)).raw(crypto::sha256(kernel));
  return crypto::sha256(w.bytes());
}

// The whole content of the file where `platform` was the answer for `key`. Any other content is no
// answer, so nothing of it is ever parsed.
std::string memory_of(const Hash32& key, Platform platform) {
  return to_hex(key) + "\n" + std::string(platform_name(platform)) + "\n";
}

AcceleratorFound found(Platform platform, bool remembered, const std::string& why) {
  return {platform, remembered,
          platform == Platform::kKvm
              ? "KVM boots the guest and is used" + why
              : "KVM does not boot the guest here, so software emulation is used, which is many "
                "times slower" +
                    why};
}

}  // namespace

Bytes probe_initrd() {
  ByteWriter w;
  add_entry(w, "init", 0100755, program_file());
  add_entry(w, "TRAILER!!!", 0, {});
  return w.take();
}

Status boots_guest(Platform platform, const ProbeOptions& o) {
  const Fd initrd(memfd_create("glovebox-probe", MFD_CLOEXEC));
  if (!initrd.valid()) return io_error("memfd", errno);
  GBX_TRY(write_all(initrd.get(), probe_initrd()));
  ProcessOptions p;
  p.argv = probe_arguments(platform, o);
  p.descriptors[kInitrdFd] = initrd.get();
  GBX_ASSIGN(const RunOutput ran, run_command(p, kMostSaid, o.deadline_ms));
  if (ran.status.exited && ran.status.code == kExpectedExit) return ok_status();
  const std::string how =
      (ran.status.exited ? "exit " : "signal ") + std::to_string(ran.status.code);
  return fail(Reason::kUnsupported, "booting the guest on " + std::string(platform_name(platform)))
      .with("exit " + std::to_string(kExpectedExit), how + " " + first_line(ran.err));
}

Result<AcceleratorFound> find_accelerator(const ProbeOptions& o) {
  GBX_ASSIGN(const std::string version, qemu_version(o.qemu));
  GBX_ASSIGN(const Hash32 key, key_of(o, version));
  if (access("/dev/kvm", R_OK | W_OK) != 0) {
    return found(Platform::kEmulation, false, ": there is no usable /dev/kvm");
  }
  if (!o.memory_file.empty()) {
    const auto kept = read_text_file(o.memory_file, 256);
    for (const Platform platform : {Platform::kKvm, Platform::kEmulation}) {
      if (!kept.ok() || *kept != memory_of(key, platform)) continue;
      return found(platform, true, " (remembered from an earlier try)");
    }
  }
  const Status tried = boots_guest(Platform::kKvm, o);
  const Platform platform = tried.ok() ? Platform::kKvm : Platform::kEmulation;
  std::string why = tried.ok() ? "" : ": " + tried.error().line();
  if (!o.memory_file.empty()) {
    const Status kept = write_file_atomic(o.memory_file, as_bytes(memory_of(key, platform)), 0600);
    if (!kept.ok()) why += "; to be tried again, as that was not kept: " + kept.error().line();
  }
  return found(platform, false, why);
}

}  // namespace gbx::vm
