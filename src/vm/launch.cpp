#include "vm/launch.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "base/json.h"
#include "base/os.h"

namespace gbx::vm {

namespace {

// RFC 4648 section 4, as QEMU reads it.
std::string base64(ByteView bytes) {
  std::string out = to_base64url(bytes);
  for (char& c : out) c = c == '-' ? '+' : c == '_' ? '/' : c;
  out.append((4 - out.size() % 4) % 4, '=');
  return out;
}

bool plain_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

Status check_path(std::string_view what, const std::string& path) {
  if (path.size() > kMaxPath) {
    return fail(Reason::kTooLarge, std::string(what))
        .with("at most " + std::to_string(kMaxPath) + " bytes", std::to_string(path.size()));
  }
  if (path.empty() || path[0] != '/' || !plain_ascii(path)) {
    return fail(Reason::kBadValue, std::string(what))
        .with("an absolute path of printable ASCII", path.empty() ? "none" : "another");
  }
  return ok_status();
}

Status check_size(std::string_view what, std::int64_t value, std::int64_t least,
                  std::int64_t most) {
  if (value >= least && value <= most) return ok_status();
  return fail(value > most ? Reason::kTooLarge : Reason::kBadValue, std::string(what))
      .with(std::to_string(least) + " to " + std::to_string(most), std::to_string(value));
}

bool protects(Platform platform) {
  return platform == Platform::kTdx || platform == Platform::kSnp;
}

Status check_descriptors(const LaunchDescription& d) {
  std::vector<int> seen;
  for (const std::optional<int> fd :
       {std::optional(d.control_fd), std::optional(d.volume_fd), d.tee_fd}) {
    if (!fd) continue;
    // 0 to 2 are input, output and errors.
    if (*fd < 3 || std::find(seen.begin(), seen.end(), *fd) != seen.end()) {
      return fail(Reason::kBadValue, "a descriptor of the machine")
          .with("3 or more, each another one", std::to_string(*fd));
    }
    seen.push_back(*fd);
  }
  if (!protects(d.platform)) return ok_status();
  if (d.tee_fd) {
    return fail(Reason::kUnsupported, "a stream of simulated evidence")
        .with("emulation or kvm", std::string(platform_name(d.platform)));
  }
  return ok_status();
}

Status check_quote_service(const LaunchDescription& d) {
  if (std::holds_alternative<std::monostate>(d.quote_service)) return ok_status();
  if (d.platform != Platform::kTdx) {
    return fail(Reason::kUnsupported, "a quote generation service")
        .with("tdx", std::string(platform_name(d.platform)));
  }
  const auto* path = std::get_if<UnixAddress>(&d.quote_service);
  return path == nullptr ? ok_status() : check_path("quote generation service", path->path);
}

// Machine-wide options that a platform adds to machine_type().
std::string machine_of(const LaunchDescription& d) {
  std::string out(machine_type());
  if (protects(d.platform)) out += ",confidential-guest-support=tee";
  if (d.platform == Platform::kSnp) out += ",memory-backend=ram";
  return out;
}

Json tdx_object(const LaunchDescription& d) {
  Bytes id = to_bytes(d.launch_configuration);
  id.resize(48);  // MRCONFIGID
  Json o;
  o["qom-type"] = "tdx-guest";
  o["id"] = "tee";
  o["mrconfigid"] = base64(id);
  if (const auto* v = std::get_if<VsockAddress>(&d.quote_service)) {
    Json& s = o["quote-generation-socket"];
    s["type"] = "vsock";
    s["cid"] = std::to_string(v->cid);
    s["port"] = std::to_string(v->port);
  }
  if (const auto* u = std::get_if<UnixAddress>(&d.quote_service)) {
    Json& s = o["quote-generation-socket"];
    s["type"] = "unix";
    s["path"] = u->path;
  }
  return o;
}

Json snp_object(const LaunchDescription& d) {
  Json o;
  o["qom-type"] = "sev-snp-guest";
  o["id"] = "tee";
  // Where Milan and later keep the encryption bit.
  o["cbitpos"] = 51;
  o["reduced-phys-bits"] = 1;
  o["kernel-hashes"] = true;
  o["host-data"] = base64(d.launch_configuration);
  // Bit 17 is always set, bit 16 allows threads of one core; no debugging, no migration (SEV-SNP
  // firmware ABI, section 4.3).
  o["policy"] = 0x30000;
  return o;
}

Json memory_object(const LaunchDescription& d) {
  Json o;
  o["id"] = "ram";
  o["size"] = d.memory_bytes;
  o["share"] = true;
  o["qom-type"] = "memory-backend-memfd";
  return o;
}

using Arguments = std::vector<std::string>;

void add(Arguments& out, std::initializer_list<std::string> more) { out.insert(out.end(), more); }

void add_machine(Arguments& out, const LaunchDescription& d) {
  const std::string n = std::to_string(d.cpus);
  // Without the device by which QEMU patches guests of old.
  add(out, {"-machine", machine_of(d), "-global", "apic-common.vapic=off", "-accel",
            std::string(accelerator(d.platform)), "-cpu", std::string(cpu_model(d.platform)),
            "-smp", "cpus=" + n + ",maxcpus=" + n + ",sockets=1,dies=1,cores=" + n + ",threads=1",
            "-m", "size=" + std::to_string(d.memory_bytes >> 20) + "M"});
  if (d.platform == Platform::kSnp) add(out, {"-object", canonical(memory_object(d))});
  if (d.platform == Platform::kTdx) add(out, {"-object", canonical(tdx_object(d))});
  if (d.platform == Platform::kSnp) add(out, {"-object", canonical(snp_object(d))});
}

void add_port(Arguments& out, int fd, int number, std::string_view id, std::string_view name) {
  const std::string n = std::to_string(number);
  add(out, {"-chardev", "socket,id=" + std::string(id) + ",fd=" + std::to_string(fd), "-device",
            "virtserialport,bus=serial.0,nr=" + n + ",chardev=" + std::string(id) +
                ",name=" + std::string(name)});
}

void add_devices(Arguments& out, const LaunchDescription& d) {
  // Only the modern interface, and addresses that the guest's own memory protection translates.
  const std::string modern = ",disable-legacy=on,iommu_platform=on,romfile=";
  add(out, {"-device", "virtio-serial-pci,id=serial,bus=pcie.0,addr=01.0,max_ports=3" + modern});
  add_port(out, d.control_fd, 1, "control", kControlPort);
  if (d.tee_fd) add_port(out, *d.tee_fd, 2, "tee", kTeePort);
  Json volume;
  volume["driver"] = "nbd";
  volume["node-name"] = "volume";
  volume["read-only"] = true;
  volume["export"] = kVolumeExport;
  volume["server"]["type"] = "fd";
  volume["server"]["str"] = std::to_string(d.volume_fd);
  // A read that failed is the guest's to answer for, and does not stop the machine.
  add(out, {"-blockdev", canonical(volume), "-device",
            "virtio-blk-pci,drive=volume,bus=pcie.0,addr=02.0,num-queues=1,rerror=report,"
            "logical_block_size=4096,physical_block_size=4096" +
                modern});
}

}  // namespace

std::string_view platform_name(Platform platform) {
  switch (platform) {
    case Platform::kEmulation:
      return "emulation";
    case Platform::kKvm:
      return "kvm";
    case Platform::kTdx:
      return "tdx";
    case Platform::kSnp:
      return "snp";
  }
  return "unknown";
}

std::string_view cpu_model(Platform platform) {
  switch (platform) {
    case Platform::kEmulation:
      // QEMU before 8.0 leaves garbage in the flags after CMPXCHG16B without LOCK, and an interrupt
      // that comes there ends the guest's kernel.
      // Without fast string moves, which emulation makes a byte at a time: a kernel that zeroes
      // what it frees would do little else while it boots.
      return "max,-cx16,-erms,-fsrm";
    case Platform::kKvm:
    case Platform::kTdx:
      return "host";
    case Platform::kSnp:
      return "EPYC-v4";  // the launch digest covers its registers
  }
  return "max,-cx16,-erms,-fsrm";
}

std::string_view accelerator(Platform platform) {
  switch (platform) {
    case Platform::kEmulation:
      // MiB of translated code; QEMU's own bound is a share of the host's memory.
      return "tcg,thread=multi,tb-size=128";
    case Platform::kKvm:
    case Platform::kSnp:
      return "kvm";
    case Platform::kTdx:
      return "kvm,kernel-irqchip=split";
  }
  return "tcg,thread=multi,tb-size=128";
}

std::string_view machine_type() {
  return "q35,sata=off,smbus=off,usb=off,hpet=off,vmport=off,i8042=off,graphics=off,smm=off,"
         "dump-guest-core=off";
}

const std::vector<std::string>& hardening() {
  static const std::vector<std::string> options = {
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
  return options;
}

Status check_launch(const LaunchDescription& d) {
  GBX_TRY(check_path("path of QEMU", d.qemu));
  GBX_TRY(check_path("path of the firmware", d.firmware));
  GBX_TRY(check_path("path of the kernel", d.kernel));
  GBX_TRY(check_path("path of the initrd", d.initrd));
  if (d.command_line.size() > kMaxCommandLine) {
    return fail(Reason::kTooLarge, "command line of the kernel")
        .with("at most " + std::to_string(kMaxCommandLine) + " bytes",
              std::to_string(d.command_line.size()));
  }
  if (!plain_ascii(d.command_line)) {
    return fail(Reason::kBadValue, "command line of the kernel").with("printable ASCII", "others");
  }
  GBX_TRY(check_size("processors of the machine", d.cpus, 1, kMaxCpus));
  GBX_TRY(check_size("bytes of memory of the machine", d.memory_bytes, kMinMemoryBytes,
                     kMaxMemoryBytes));
  if (d.memory_bytes % kMemoryUnit != 0) {
    return fail(Reason::kBadValue, "bytes of memory of the machine")
        .with("a multiple of 2 MiB", std::to_string(d.memory_bytes));
  }
  GBX_TRY(check_descriptors(d));
  return check_quote_service(d);
}

Result<HostRoom> host_room() {
  HostRoom room;
  room.cpus = sysconf(_SC_NPROCESSORS_ONLN);
  GBX_ASSIGN(const std::string text, read_text_file("/proc/meminfo", 65536));
  constexpr std::string_view kField = "MemAvailable:";
  const std::size_t at = text.find(kField);
  const std::size_t digits =
      at == std::string::npos ? at : text.find_first_not_of(' ', at + kField.size());
  std::int64_t kib = 0;
  if (room.cpus < 1 || digits == std::string::npos ||
      std::from_chars(text.data() + digits, text.data() + text.size(), kib).ec != std::errc{} ||
      kib < 0 || kib > (std::int64_t{1} << 50)) {
    return fail(Reason::kUnavailable, "processors and free memory of this host");
  }
  room.memory_bytes = kib << 10;
  return room;
}

Status check_fits(const LaunchDescription& d, const HostRoom& room) {
  if (d.cpus > room.cpus) {
    return fail(Reason::kNoCapacity, "processors of the machine")
        .with("at most " + std::to_string(room.cpus) + ", as this host has", std::to_string(d.cpus))
        .hint("ask for fewer, or use another node");
  }
  if (d.memory_bytes > room.memory_bytes - kHostOverheadBytes) {
    return fail(Reason::kNoCapacity, "memory of the machine")
        .with(std::to_string(kHostOverheadBytes) + " bytes less than this host has free, " +
                  std::to_string(room.memory_bytes),
              std::to_string(d.memory_bytes))
        .hint("ask for less, or use another node");
  }
  return ok_status();
}

Result<std::vector<std::string>> qemu_arguments(const LaunchDescription& d) {
  GBX_TRY(check_launch(d));
  Arguments out = {d.qemu, "-name", "glovebox"};
  out.insert(out.end(), hardening().begin(), hardening().end());
  add_machine(out, d);
  // Each a value of its own, which QEMU takes as it is.
  add(out,
      {"-bios", d.firmware, "-kernel", d.kernel, "-initrd", d.initrd, "-append", d.command_line});
  add_devices(out, d);
  return out;
}

}  // namespace gbx::vm
