#include "cli/host_checks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "base/os.h"
#include "base/printable.h"
#include "base/uids.h"
#include "channel/net.h"
#include "cli/guest_folder.h"
#include "cli/output.h"
#include "cli/uids.h"
#include "vm/measure/ovmf.h"
#include "vm/measure/snp.h"
#include "vm/measure/tdx.h"

namespace gbx::cli {

namespace {

using records::Technology;

constexpr std::size_t kMaxText = std::size_t{64} << 10;
constexpr std::size_t kMaxNames = 256;
constexpr std::size_t kMaxDetail = 160;
constexpr std::int64_t kConnectMs = 3000;
constexpr const char* kOk = "ok";
constexpr const char* kMissing = "missing";
constexpr const char* kWarning = "warning";
constexpr const char* kUnknown = "cannot tell";

using Words = std::set<std::string, std::less<>>;

Words words_of(std::string_view text) {
  Words out;
  std::size_t at = 0;
  while ((at = text.find_first_not_of(" \t\n", at)) != std::string_view::npos) {
    const std::size_t end = std::min(text.find_first_of(" \t\n", at), text.size());
    out.emplace(text.substr(at, end - at));
    at = end;
  }
  return out;
}

// What stands behind "name" and `mark` on a line of its own; the first such line counts.
std::string value_of(std::string_view text, std::string_view name, char mark) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t colon = line.find(mark);
    if (colon == std::string_view::npos) continue;
    std::string_view key = line.substr(0, colon);
    while (!key.empty() && (key.back() == ' ' || key.back() == '\t')) key.remove_suffix(1);
    while (!key.empty() && key.front() == ' ') key.remove_prefix(1);
    if (key != name) continue;
    std::string_view value = line.substr(colon + 1);
    while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
    while (!value.empty() && value.back() == ' ') value.remove_suffix(1);
    return std::string(value);
  }
  return {};
}

struct Processor {
  std::string vendor;
  std::string model;
  Words flags;
};
Processor processor_of(const HostFiles& files) {
  const std::string text = files.text("/proc/cpuinfo").value_or("");
  return {value_of(text, "vendor_id", ':'), value_of(text, "model name", ':'),
          words_of(value_of(text, "flags", ':'))};
}

// "6.16.3-amd64" as 6 and 16.
std::optional<std::pair<int, int>> version_of(std::string_view text) {
  std::pair<int, int> v;
  const char* const end = text.data() + text.size();
  const auto major = std::from_chars(text.data(), end, v.first);
  if (major.ec != std::errc{} || major.ptr == end || *major.ptr != '.') return {};
  const auto minor = std::from_chars(major.ptr + 1, end, v.second);
  if (minor.ec != std::errc{}) return {};
  return v;
}

// The steps of one host, in the order of docs/hardware.md.
class HostChecker {
 public:
  HostChecker(const HostFiles& files, const HostAnswers& answers, HostQuestion question)
      : files_(files),
        answers_(answers),
        question_(std::move(question)),
        processor_(processor_of(files)) {}

  Findings run() {
    const Technology technology = check_processor();
    if (technology == Technology::kTdx) check_tdx();
    if (technology == Technology::kSnp) check_snp();
    check_kvm();
    const bool tdx = technology == Technology::kTdx;
    if (tdx || technology == Technology::kSnp) {
      out_.push_back(
          check_qemu_for(answers_.qemu(), tdx ? vm::Platform::kTdx : vm::Platform::kSnp));
      check_firmware(tdx);
    } else {
      out_.push_back(check_qemu_for(answers_.qemu(), vm::Platform::kKvm));
    }
    out_.push_back(check_guest_folder(question_.guest));
    check_memory();
    check_control_groups();
    check_ids();
    return std::move(out_);
  }

 private:
  void say(const char* check, const char* result, const std::string& detail,
           const std::string& next = {}) {
    out_.push_back({check, result, printable(detail, kMaxDetail), result == kOk ? "" : next});
  }

  // What this host is to be, by its processor or because somebody says so.
  Technology check_processor() {
    const bool intel = processor_.vendor == "GenuineIntel";
    const bool amd = processor_.vendor == "AuthenticAMD";
    const Technology by_maker = intel ? Technology::kTdx
                                : amd ? Technology::kSnp
                                      : Technology::kNone;
    const Technology asked = question_.technology.value_or(by_maker);
    const std::string what = processor_.model + " (" + processor_.vendor + ")";
    if (processor_.vendor.empty()) {
      say("processor", kUnknown, "/proc/cpuinfo names no maker", "mount proc at /proc");
    } else if (asked == Technology::kNone || asked != by_maker) {
      say("processor", kMissing, what,
          "TDX needs an Intel Xeon of the fifth generation or later, SEV-SNP an AMD EPYC 7003 or "
          "later");
    } else if (processor_.flags.contains("hypervisor")) {
      say("processor", kWarning, what + ", of a virtual machine",
          "look at the host below it: machines within machines are not confidential");
    } else {
      say("processor", kOk, what);
    }
    return asked;
  }

  void check_kernel(int major, int minor, const std::string& next) {
    const std::string release = files_.line("/proc/sys/kernel/osrelease");
    const auto v = version_of(release);
    if (!v) {
      say("kernel", kUnknown, "/proc/sys/kernel/osrelease says \"" + release + "\"", next);
    } else {
      say("kernel", *v >= std::pair(major, minor) ? kOk : kMissing, release, next);
    }
  }

  // A parameter of a kernel module that must be on.
  void check_parameter(const std::string& module, const std::string& name,
                       const std::string& next) {
    const std::string check = module + "." + name;
    const std::string value = files_.line("/sys/module/" + module + "/parameters/" + name);
    if (!files_.there("/sys/module/" + module)) {
      say(check.c_str(), kMissing, "the module " + module + " is not loaded", "modprobe " + module);
    } else if (value.empty()) {
      say(check.c_str(), kMissing, "this kernel's " + module + " has no such parameter", next);
    } else {
      say(check.c_str(), value == "Y" || value == "1" ? kOk : kMissing, value, next);
    }
  }

  void check_flags(const char* check, const std::vector<std::string>& flags,
                   const std::string& next) {
    std::string lacks;
    std::string has;
    for (const std::string& flag : flags) {
      std::string& into = processor_.flags.contains(flag) ? has : lacks;
      into += (into.empty() ? "" : " ") + flag;
    }
    say(check, lacks.empty() ? kOk : kMissing,
        lacks.empty() ? has : "/proc/cpuinfo has no flag " + lacks, next);
  }

  void check_tdx() {
    check_flags(
        "TDX in the BIOS", {"tdx_host_platform"},
        "BIOS: switch on memory encryption (TME, TME-MT), TDX, the SEAM loader, and leave "
        "keys to TDX; kernel built with CONFIG_INTEL_TDX_HOST, and started with nohibernate");
    check_kernel(6, 16, "Linux 6.16 or later runs TDX machines under KVM");
    check_hibernation();
    check_parameter("kvm_intel", "tdx",
                    "kvm_intel.tdx=1 on the kernel's command line; if that stands there, the "
                    "kernel's log says why it was switched off (journalctl -k | grep -i tdx)");
    check_parameter("kvm_intel", "ept", "EPT is what TDX builds on: take kvm_intel.ept=0 away");
    check_parameter("kvm", "tdp_mmu", "take kvm.tdp_mmu=0 away");
    check_parameter("kvm", "mmio_caching", "take kvm.mmio_caching=0 away");
    check_module_version();
    check_flags("SGX", {"sgx"}, "BIOS: switch on SGX: quotes are signed in an enclave");
    const bool provision = files_.there("/dev/sgx_provision");
    say("SGX provisioning", provision ? kOk : kMissing,
        provision ? "/dev/sgx_provision" : "there is no /dev/sgx_provision",
        "kernel built with CONFIG_X86_SGX, SGX on in the BIOS");
    check_quote_service();
    check_pck_service();
  }

  void check_hibernation() {
    // The kernel says "[disabled]" when nobody can switch it on any more.
    const std::string disk = files_.line("/sys/power/disk");
    const bool off = !files_.there("/sys/power/disk") || disk == "[disabled]" ||
                     words_of(files_.text("/proc/cmdline").value_or("")).contains("nohibernate");
    say("hibernation", off ? kOk : kMissing, off ? "off" : "on: " + disk,
        "nohibernate on the kernel's command line: the kernel leaves TDX off where it might "
        "hibernate");
  }

  // Newer kernels tell it in a file, older ones in their log only.
  void check_module_version() {
    const std::string version = files_.line("/sys/devices/faux/tdx_host/version");
    say("TDX module", version.empty() ? kUnknown : kOk,
        version.empty() ? "this kernel tells the module's version in its log only" : version,
        "journalctl -k | grep virt/tdx; the TCB level that a quote shows says whether it is "
        "current");
  }

  void check_quote_service() {
    const std::string conf = files_.text("/etc/qgs.conf").value_or("");
    const std::string port = value_of(conf, "port", '=');
    const std::string next =
        "install Intel's tdx-qgs and start qgsd; QEMU reaches it at the port in /etc/qgs.conf "
        "(4050), or at its socket";
    const vm::UnixAddress socket{"/var/run/tdx-qgs/qgs.socket"};
    std::uint32_t number = 0;
    if (port.empty() || port == "0") {
      const Status s = answers_.unix_socket({files_.at(socket.path)});
      say("quote service", s.ok() ? kOk : kMissing,
          s.ok() ? socket.path : socket.path + ": " + s.error().detail(), next);
      return;
    }
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (error != std::errc{} || end != port.data() + port.size() || number > 65535) {
      say("quote service", kMissing, "/etc/qgs.conf has port = " + port, "port = 4050");
      return;
    }
    const Status s = answers_.vsock({vm::VsockAddress{}.cid, number});
    const std::string where = "vsock port " + std::to_string(number);
    // Without a loopback the host itself cannot ask; guests can.
    const bool asked = s.ok() || s.reason() != Reason::kUnsupported;
    say("quote service",
        s.ok()  ? kOk
        : asked ? kMissing
                : kUnknown,
        s.ok() ? where : where + ": " + s.error().detail(),
        asked ? next : "modprobe vsock_loopback lets this check reach it");
  }

  void check_pck_service() {
    const std::string path = "/etc/sgx_default_qcnl.conf";
    const std::string conf = files_.text(path).value_or("");
    const std::string next =
        "install sgx-pck-id-retrieval-tool or let the BIOS register the platform, run a PCK "
        "caching service, and name it as pccs_url in " +
        path;
    // JSON with comments: the member is looked up by its name on a line of its own.
    std::string url = value_of(conf, "\"pccs_url\"", ':');
    while (!url.empty() && (url.back() == ',' || url.back() == '"')) url.pop_back();
    if (!url.empty() && url.front() == '"') url.erase(0, 1);
    const std::string scheme = "https://";
    if (url.rfind(scheme, 0) != 0) {
      say("PCK certificates", kMissing,
          conf.empty() ? "there is no " + path : path + " has pccs_url " + url, next);
      return;
    }
    std::string host = url.substr(scheme.size(), url.find('/', scheme.size()) - scheme.size());
    const std::size_t bracket = host.rfind(']');  // of a literal IPv6 address
    const std::size_t name_end = bracket == std::string::npos ? 0 : bracket;
    if (host.find(':', name_end) == std::string::npos) host += ":443";
    const Status s = answers_.tcp(host);
    say("PCK certificates", s.ok() ? kOk : kMissing,
        s.ok() ? "a service at " + host : host + ": " + s.error().detail(), next);
  }

  void check_snp() {
    check_flags(
        "SNP in the BIOS", {"sme", "sev", "sev_es", "sev_snp"},
        "BIOS: SMEE on, SEV-ES ASID space limit above 1, SNP memory coverage (RMP table) on, "
        "SEV-SNP support on");
    check_kernel(6, 11, "Linux 6.11 or later runs SEV-SNP machines under KVM");
    check_iommu();
    for (const char* name : {"sev", "sev_es", "sev_snp"}) {
      check_parameter("kvm_amd", name,
                      "kvm_amd.sev_snp=1 on the kernel's command line; if that stands there, the "
                      "kernel's log says why it was switched off (journalctl -k | grep -i sev)");
    }
    const bool device = files_.there("/dev/sev");
    say("secure processor", device ? kOk : kMissing, device ? "/dev/sev" : "there is no /dev/sev",
        "modprobe ccp; current firmware in /lib/firmware/amd (amd_sev_*.sbin)");
    check_sev_firmware();
  }

  // SNP is switched off where the IOMMU is off, or passes addresses through.
  void check_iommu() {
    const std::string next =
        "BIOS: IOMMU on; take iommu=pt, iommu=off, iommu.passthrough=1 and amd_iommu=off from the "
        "kernel's command line";
    const Words words = words_of(files_.text("/proc/cmdline").value_or(""));
    for (const char* bad : {"iommu=pt", "iommu=off", "iommu.passthrough=1", "iommu.passthrough=on",
                            "amd_iommu=off"}) {
      if (!words.contains(bad)) continue;
      say("IOMMU", kMissing, std::string("the kernel was started with ") + bad, next);
      return;
    }
    std::size_t count = 0;
    for (const auto& name : files_.names("/sys/class/iommu")) count += name.rfind("ivhd", 0) == 0;
    say("IOMMU", count > 0 ? kOk : kMissing, std::to_string(count) + " in /sys/class/iommu", next);
  }

  void check_sev_firmware() {
    std::string version;
    for (const auto& device : files_.names("/sys/bus/pci/drivers/ccp")) {
      if (device.find(':') == std::string::npos) continue;
      const std::string v =
          files_.line("/sys/bus/pci/drivers/ccp/" + device + "/bootloader_version");
      if (!v.empty()) version = v;
    }
    say("SEV firmware", version.empty() ? kUnknown : kOk,
        version.empty() ? "this kernel tells its version in its log only"
                        : "boot loader of the secure processor " + version,
        "journalctl -k | grep 'SEV-SNP API'; snphost show tcb. Owners' policies set the lowest "
        "TCB");
  }

  void check_kvm() {
    const std::string path = files_.at("/dev/kvm");
    const bool there = path_exists(path);
    const bool usable = there && access(path.c_str(), R_OK | W_OK) == 0;
    say("KVM", usable ? kOk : kMissing,
        usable  ? "/dev/kvm"
        : there ? "/dev/kvm cannot be opened by this account"
                : "there is no /dev/kvm",
        "BIOS: virtualisation on; modprobe kvm_intel or kvm_amd; run as root");
  }

  void check_firmware(bool tdx) {
    const std::string name = tdx ? "firmware-tdx.fd" : "firmware-snp.fd";
    const std::string path = question_.guest + "/" + name;
    const std::string next =
        tdx ? "Debian 13's ovmf (2025.02) has OVMF.fd with what TDX needs"
            : "Debian's ovmf-amdsev (after Debian 13) has OVMF.amdsev.fd with what SEV-SNP needs";
    auto image = read_file(path, vm::measure::kMaxFirmwareSize);
    if (!image.ok()) {
      say("firmware", kMissing, image.error().detail(), "guest/build makes it; " + next);
      return;
    }
    const auto firmware = vm::measure::Firmware::parse(std::move(*image));
    const Status fit = !firmware.ok() ? Status(firmware.error())
                       : tdx          ? vm::measure::check_tdx_firmware(*firmware)
                                      : vm::measure::check_snp_firmware(*firmware);
    say("firmware", fit.ok() ? kOk : kMissing, fit.ok() ? name : fit.error().detail(), next);
  }

  void check_memory() {
    const std::string text = files_.text("/proc/meminfo").value_or("");
    const std::string total = value_of(text, "MemTotal", ':');
    std::uint64_t kib = 0;
    const auto [end, error] = std::from_chars(total.data(), total.data() + total.size(), kib);
    std::size_t nodes = 0;
    for (const auto& name : files_.names("/sys/devices/system/node")) {
      nodes += name.size() > 4 && name.rfind("node", 0) == 0 && name[4] >= '0' && name[4] <= '9';
    }
    if (error != std::errc{} || kib > (std::uint64_t{1} << 50)) {
      say("memory", kUnknown, "/proc/meminfo has no MemTotal", "mount proc at /proc");
      return;
    }
    constexpr std::uint64_t kEnough = std::uint64_t{8} << 20;
    say("memory", kib >= kEnough ? kOk : kWarning,
        human_bytes(kib << 10) + ", " + std::to_string(nodes) + " NUMA nodes",
        "each machine's memory is taken whole when it starts: 8 GiB is little");
  }

  void check_control_groups() {
    const std::string groups = files_.line("/sys/fs/cgroup/cgroup.controllers");
    const bool unified = files_.there("/sys/fs/cgroup/cgroup.controllers");
    say("control groups", unified ? kOk : kMissing,
        unified ? "version 2: " + groups : "not version 2",
        "start the kernel with systemd.unified_cgroup_hierarchy=1");
  }

  void check_ids() {
    const Status free = check_uids_free(uids_needed(kDefaultUidBase, 1), files_.at("/etc"));
    say("user ids", free.ok() ? kOk : kMissing,
        free.ok() ? "from " + std::to_string(kDefaultUidBase) + " nobody has any"
                  : free.error().detail(),
        free.ok() ? "" : printable(free.error().next, kMaxDetail));
  }

  const HostFiles& files_;
  const HostAnswers& answers_;
  const HostQuestion question_;
  const Processor processor_;
  Findings out_;
};

// kUnsupported when this host cannot reach its own vsock.
Status ask_socket(int family, const sockaddr* address, socklen_t size) {
  const Fd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail(Reason::kUnsupported, "this kernel has no such sockets");
  const timeval patience{kConnectMs / 1000, 0};
  (void)setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  // Of vsock only: how long a connection may take (vsock(7)).
  (void)setsockopt(fd.get(), AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof patience);
  if (connect(fd.get(), address, size) == 0) return ok_status();
  if (family == AF_VSOCK && (errno == ENODEV || errno == EADDRNOTAVAIL || errno == ENETUNREACH)) {
    return fail(Reason::kUnsupported, "this host cannot reach its own vsock");
  }
  return io_error("connect", errno);
}

}  // namespace

HostFiles::HostFiles(std::string root) : root_(std::move(root)) {}

std::string HostFiles::at(const std::string& path) const {
  return root_ == "/" ? path : root_ + path;
}

std::optional<std::string> HostFiles::text(const std::string& path) const {
  // Not to wait for whoever holds the other end, should it be a pipe.
  const Fd fd(open(at(path).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat st {};
  if (!fd.valid() || fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode)) return {};
  std::string out(kMaxText, '\0');
  std::size_t have = 0;
  while (have < out.size()) {
    const ssize_t n = read(fd.get(), out.data() + have, out.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return {};
    if (n == 0) break;
    have += static_cast<std::size_t>(n);
  }
  out.resize(have);
  return out;
}

std::string HostFiles::line(const std::string& path) const {
  const std::string all = text(path).value_or("");
  return printable(std::string_view(all).substr(0, all.find('\n')), kMaxDetail);
}

bool HostFiles::there(const std::string& path) const { return path_exists(at(path)); }

std::vector<std::string> HostFiles::names(const std::string& path) const {
  std::vector<std::string> out;
  DIR* folder = opendir(at(path).c_str());
  if (folder == nullptr) return out;
  while (const dirent* entry = out.size() < kMaxNames ? readdir(folder) : nullptr) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") out.push_back(name);
  }
  closedir(folder);
  std::sort(out.begin(), out.end());
  return out;
}

HostAnswers answers_of_this_host(const std::string& qemu, const Clock& clock) {
  HostAnswers out;
  out.qemu = [qemu] { return vm::check_qemu(qemu); };
  out.vsock = [](const vm::VsockAddress& where) {
    sockaddr_vm address{};
    address.svm_family = AF_VSOCK;
    address.svm_cid = VMADDR_CID_LOCAL;
    address.svm_port = where.port;
    // SAFETY: the sockets API takes every kind of address through this type.
    return ask_socket(AF_VSOCK, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  };
  out.unix_socket = [](const vm::UnixAddress& where) -> Status {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (where.path.size() >= sizeof address.sun_path) return fail(Reason::kTooLarge, "the path");
    where.path.copy(address.sun_path, where.path.size());
    // SAFETY: as above.
    return ask_socket(AF_UNIX, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  };
  out.tcp = [&clock](const std::string& where) -> Status {
    GBX_ASSIGN(const auto address, channel::TcpAddress::from_text(where));
    GBX_TRY(channel::connect_tcp(address, channel::Deadline::after_ms(clock, kConnectMs)));
    return ok_status();
  };
  return out;
}

Finding check_qemu_for(const Result<vm::QemuReport>& report, vm::Platform platform) {
  const std::string who(vm::platform_name(platform));
  if (!report.ok()) return {"QEMU", kMissing, report.error().detail(), report.error().next};
  std::string lacks;
  std::string needs;
  for (const auto& lack : report->lacks) {
    if (lack.platform != platform) continue;
    lacks += (lacks.empty() ? "" : ", ") + lack.what;
    if (needs.find(lack.needs) == std::string::npos) {
      needs += (needs.empty() ? "" : ", ") + lack.needs;
    }
  }
  if (report->serves(platform)) return {"QEMU", kOk, report->version + ", for " + who, ""};
  return {
      "QEMU", kMissing,
      report->version + (lacks.empty() ? "" : ", has for " + who + " no " + printable(lacks, 300)),
      needs.empty() ? "install QEMU" : "install " + needs};
}

Finding check_guest_folder(const std::string& guest) {
  const std::string lacks = missing_of_guest(guest);
  if (!lacks.empty()) return {"guest", kMissing, "no " + lacks, "guest/build makes it"};
  // A remark of guest/build for people: what a guest is called is computed from its files.
  const std::string name = HostFiles(guest).line("/name");
  return {"guest", kOk, (name.empty() ? "a guest" : name) + " in " + guest, ""};
}

Findings check_host(const HostFiles& files, const HostAnswers& answers,
                    const HostQuestion& question) {
  return HostChecker(files, answers, question).run();
}

}  // namespace gbx::cli
