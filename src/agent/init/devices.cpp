#include "agent/init/devices.h"

#include <dirent.h>
#include <errno.h>

#include <algorithm>
#include <map>

#include "base/log.h"
#include "base/os.h"

namespace gbx::agent {

namespace {

constexpr std::size_t kMaxAttribute = 4096;
constexpr std::size_t kMaxEntries = 256;

// How often each may be there.
struct Allowed {
  std::size_t least;
  std::size_t most;
};
// virtio 1.2, 4.1.2.1: 1040 and the device id are the modern ones; the transitional ones, 1000 to
// 103f, are not taken.
const std::map<std::string, Allowed>& allowed_pci() {
  static const std::map<std::string, Allowed> kAllowed = {
      {"8086:29c0", {1, 1}},  // host bridge of q35
      {"8086:2918", {1, 1}},  // its LPC bridge, which cannot be switched off
      {"1af4:1043", {1, 1}},  // virtio console: the ports to node and platform
      {"1af4:1042", {1, 2}},  // virtio block: the volume, and scratch where a policy asks for it
  };
  return kAllowed;
}
const std::map<std::string, Allowed>& allowed_virtio() {
  static const std::map<std::string, Allowed> kAllowed = {{"0x0003", {1, 1}}, {"0x0002", {1, 2}}};
  return kAllowed;
}
// Buses on which this machine type has nothing.
constexpr const char* kEmptyBuses[] = {"usb", "scsi", "hid", "serio",    "i2c",         "spi",
                                       "nd",  "cxl",  "mmc", "ieee1394", "thunderbolt", "rapidio"};
// What QEMU's q35 gives, and what the firmware of a confidential VM adds: the event log of TDX. The
// only ones with AML are DSDT and SSDT; TDX measures them, see docs/threat-model.md for the others.
constexpr const char* kTables[] = {"DSDT", "FACP", "FACS", "APIC", "MCFG", "WAET",
                                   "HPET", "BGRT", "CCEL", "SSDT", "TDEL", "UEFI"};
// virtio 1.2, 6 and 5.2.3
constexpr std::size_t kFeatureReadOnly = 5;  // of a block device
constexpr std::size_t kFeatureVersion1 = 32;
constexpr std::size_t kFeatureAccessPlatform = 33;

Error unexpected(const std::string& what, const std::string& expected, const std::string& actual) {
  return fail(Reason::kUnexpectedDevice, what).with(expected, printable(actual, 64));
}

// Empty where the folder is not there: a bus that this kernel does not have.
Result<std::vector<std::string>> entries(const std::string& path) {
  std::vector<std::string> out;
  DIR* d = opendir(path.c_str());
  if (d == nullptr && errno == ENOENT) return out;
  if (d == nullptr) return io_error(path, errno);
  while (const dirent* e = readdir(d)) {
    const std::string name(e->d_name);
    if (name == "." || name == "..") continue;
    out.push_back(name);
    if (out.size() > kMaxEntries) break;
  }
  closedir(d);
  if (out.size() > kMaxEntries) {
    return unexpected(path, std::to_string(kMaxEntries) + " entries at most", "more");
  }
  std::sort(out.begin(), out.end());
  return out;
}

Result<std::string> attribute(const std::string& path) {
  GBX_ASSIGN(std::string text, read_text_file(path, kMaxAttribute));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}
// "0x1af4" as "1af4"
std::string bare(const std::string& hex) { return hex.rfind("0x", 0) == 0 ? hex.substr(2) : hex; }

Result<std::vector<PciDevice>> read_pci(const std::string& at) {
  std::vector<PciDevice> out;
  GBX_ASSIGN(const auto names, entries(at));
  for (const auto& name : names) {
    PciDevice& d = out.emplace_back();
    GBX_ASSIGN(const std::string vendor, attribute(at + "/" + name + "/vendor"));
    GBX_ASSIGN(const std::string device, attribute(at + "/" + name + "/device"));
    GBX_ASSIGN(d.class_code, attribute(at + "/" + name + "/class"));
    d.id = bare(vendor) + ":" + bare(device);
  }
  return out;
}

Result<std::vector<VirtioDevice>> read_virtio(const std::string& at) {
  std::vector<VirtioDevice> out;
  GBX_ASSIGN(const auto names, entries(at));
  for (const auto& name : names) {
    VirtioDevice& d = out.emplace_back();
    GBX_ASSIGN(d.device, attribute(at + "/" + name + "/device"));
    GBX_ASSIGN(d.features, attribute(at + "/" + name + "/features"));
  }
  return out;
}

Status check_counts(const std::string& bus, const std::vector<std::string>& found,
                    const std::map<std::string, Allowed>& allowed) {
  for (const auto& id : found) {
    if (allowed.count(id) == 0) return unexpected(bus + " device", "none but the machine's", id);
  }
  for (const auto& [id, count] : allowed) {
    const auto n = static_cast<std::size_t>(std::count(found.begin(), found.end(), id));
    if (n >= count.least && n <= count.most) continue;
    return unexpected(bus + " device " + id,
                      std::to_string(count.least) + " to " + std::to_string(count.most),
                      std::to_string(n));
  }
  return ok_status();
}

bool offers(const VirtioDevice& d, std::size_t bit) {
  return bit < d.features.size() && d.features[bit] == '1';
}

Status check_features(const std::vector<VirtioDevice>& devices) {
  std::size_t writable = 0;
  for (const auto& d : devices) {
    if (!offers(d, kFeatureVersion1) || !offers(d, kFeatureAccessPlatform)) {
      return unexpected("virtio device " + d.device, "features 32 and 33", "without them");
    }
    if (d.device == "0x0002" && !offers(d, kFeatureReadOnly)) ++writable;
  }
  // The volume is read-only; scratch, where there is one, is not.
  const auto blocks = static_cast<std::size_t>(std::count_if(
      devices.begin(), devices.end(), [](const auto& d) { return d.device == "0x0002"; }));
  if (writable + 1 != blocks) {
    return unexpected("virtio block devices", "exactly one that is read-only",
                      std::to_string(blocks - writable));
  }
  return ok_status();
}

}  // namespace

Result<Devices> read_devices(const std::string& sys) {
  Devices out;
  GBX_ASSIGN(out.pci, read_pci(sys + "/bus/pci/devices"));
  GBX_ASSIGN(out.virtio, read_virtio(sys + "/bus/virtio/devices"));
  GBX_ASSIGN(out.blocks, entries(sys + "/block"));
  GBX_ASSIGN(const auto interfaces, entries(sys + "/class/net"));
  for (const auto& name : interfaces) {
    if (name != "lo") out.interfaces.push_back(name);
  }
  for (const char* bus : kEmptyBuses) {
    GBX_ASSIGN(const auto there, entries(sys + "/bus/" + bus + "/devices"));
    for (const auto& name : there) out.others.push_back(std::string(bus) + ": " + name);
  }
  GBX_ASSIGN(const auto tables, entries(sys + "/firmware/acpi/tables"));
  for (const auto& name : tables) {
    if (name != "data" && name != "dynamic") out.tables.push_back(name);
  }
  return out;
}

Status check_devices(const Devices& devices) {
  std::vector<std::string> pci;
  for (const auto& d : devices.pci) pci.push_back(d.id);
  GBX_TRY(check_counts("PCI", pci, allowed_pci()));
  std::vector<std::string> virtio;
  for (const auto& d : devices.virtio) virtio.push_back(d.device);
  GBX_TRY(check_counts("virtio", virtio, allowed_virtio()));
  GBX_TRY(check_features(devices.virtio));
  for (const auto& name : devices.blocks) {
    if (name.rfind("vd", 0) != 0) return unexpected("disk", "virtio block devices only", name);
  }
  for (const auto& name : devices.interfaces) return unexpected("network interface", "none", name);
  for (const auto& name : devices.others) return unexpected("device", "none on this bus", name);
  for (const auto& name : devices.tables) {
    const bool known = std::any_of(std::begin(kTables), std::end(kTables),
                                   [&](const char* t) { return name == t; });
    if (!known) return unexpected("ACPI table", "those of the machine type", name);
  }
  return ok_status();
}

}  // namespace gbx::agent
