#include "agent/init/devices.h"

#include <dirent.h>
#include <errno.h>

#include <algorithm>
#include <span>

#include "base/log.h"
#include "base/os.h"

namespace gbx::agent {

namespace {

constexpr std::size_t kMaxAttribute = 4096;
constexpr std::size_t kMaxEntries = 256;

// Where each function of the bus is, and what: all of them. 1040 and a virtio device's number are
// the modern ones (virtio 1.2, 4.1.2.1); the transitional ones, 1000 to 103f, are not taken.
struct Function {
  const char* slot;
  const char* id;
  const char* class_code;
};
constexpr Function kFunctions[] = {
    {"0000:00:00.0", "8086:29c0", "0x060000"},  // host bridge of q35
    {"0000:00:01.0", "1af4:1043", "0x078000"},  // virtio console: the ports to node and platform
    {"0000:00:02.0", "1af4:1042", "0x010000"},  // virtio block: the volume
    {"0000:00:1f.0", "8086:2918", "0x060100"},  // LPC bridge, which cannot be switched off
};
constexpr char kConsole[] = "0x0003";
constexpr char kBlock[] = "0x0002";
// Buses of the release's kernel, and some of others, on which this machine type has nothing.
constexpr const char* kEmptyBuses[] = {
    "auxiliary", "cxl", "dax",         "hid",     "i2c",  "ieee1394",   "isa",
    "mmc",       "nd",  "pci_express", "rapidio", "scsi", "serial",     "serio",
    "spi",       "usb", "thunderbolt", "vmbus",   "xen",  "xen-backend"};
// What QEMU's q35 gives, and what the firmware of a TDX guest adds: where its event log lies. DSDT
// is the only one with AML; TDX measures it, see docs/threat-model.md for the others.
constexpr const char* kTables[] = {"APIC", "DSDT", "FACP", "FACS",
                                   "MCFG", "WAET", "CCEL", "data/CCEL"};
// What that DSDT describes: the bus with its slots (without an id), clock and firmware's
// configuration, interrupt links, processors, what reserves addresses. Memory that can be plugged
// in (PNP0C80), serial ports, TPMs, generation counters of clones and the like are not among them.
constexpr const char* kAcpiIds[] = {"",         "ACPI0010", "LNXCPU",  "LNXPWRBN", "LNXSYBUS",
                                    "LNXSYSTM", "PNP0A06",  "PNP0A08", "PNP0B00",  "PNP0C01",
                                    "PNP0C02",  "PNP0C0F",  "QEMU0002"};
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
    d.slot = name;
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
    GBX_ASSIGN(d.blocks, entries(at + "/" + name + "/block"));
  }
  return out;
}

Result<std::vector<Port>> read_ports(const std::string& at) {
  std::vector<Port> out;
  GBX_ASSIGN(const auto names, entries(at));
  for (const auto& device : names) {
    const auto name = attribute(at + "/" + device + "/name");
    out.push_back({device, name.ok() ? *name : std::string()});
  }
  return out;
}

Result<std::vector<std::string>> read_acpi(const std::string& at) {
  std::vector<std::string> out;
  GBX_ASSIGN(const auto names, entries(at));
  for (const auto& name : names) {
    const auto hid = attribute(at + "/" + name + "/hid");
    out.push_back(hid.ok() ? *hid : std::string());
  }
  return out;
}

Result<std::vector<std::string>> read_tables(const std::string& at) {
  std::vector<std::string> out;
  GBX_ASSIGN(const auto names, entries(at));
  for (const auto& name : names) {
    if (name != "data" && name != "dynamic") {
      out.push_back(name);
      continue;
    }
    GBX_ASSIGN(const auto below, entries(at + "/" + name));
    for (const auto& b : below) out.push_back(name + "/" + b);
  }
  return out;
}

Status read_disks(const std::string& sys, Devices& out) {
  GBX_ASSIGN(out.blocks, entries(sys + "/block"));
  for (const auto& disk : out.blocks) {
    GBX_ASSIGN(const auto inside, entries(sys + "/block/" + disk));
    for (const auto& name : inside) {
      if (name.rfind(disk, 0) == 0) out.partitions.push_back(name);
    }
  }
  return ok_status();
}

Status check_pci(const std::vector<PciDevice>& found) {
  for (const auto& d : found) {
    const bool known =
        std::any_of(std::begin(kFunctions), std::end(kFunctions), [&](const auto& f) {
          return d.slot == f.slot && d.id == f.id && d.class_code == f.class_code;
        });
    if (known) continue;
    return unexpected("PCI device", "none but the machine's",
                      d.slot + " " + d.id + " " + d.class_code);
  }
  // The kernel lists a slot once, so none is there twice.
  for (const auto& f : kFunctions) {
    const bool there =
        std::any_of(found.begin(), found.end(), [&](const auto& d) { return d.slot == f.slot; });
    if (!there) return unexpected("PCI device", std::string(f.slot) + " " + f.id, "none");
  }
  return ok_status();
}

bool offers(const VirtioDevice& d, std::size_t bit) {
  return bit < d.features.size() && d.features[bit] == '1';
}

Status check_virtio(const std::vector<VirtioDevice>& found) {
  for (const auto& d : found) {
    if (d.device != kConsole && d.device != kBlock) {
      return unexpected("virtio device", "a console and a disk", d.device);
    }
    if (!offers(d, kFeatureVersion1) || !offers(d, kFeatureAccessPlatform)) {
      return unexpected("virtio device " + d.device, "features 32 and 33", "without them");
    }
    if (d.device == kBlock && !offers(d, kFeatureReadOnly)) {
      return unexpected("virtio block device", "one that is read-only", "one that can be written");
    }
  }
  for (const char* device : {kConsole, kBlock}) {
    const auto n = std::count_if(found.begin(), found.end(),
                                 [&](const auto& d) { return d.device == device; });
    if (n != 1) return unexpected(std::string("virtio device ") + device, "1", std::to_string(n));
  }
  return ok_status();
}

// The one disk is the virtio device's, and nothing on it was taken for a table of partitions.
Status check_disks(const Devices& d) {
  const std::string volume = volume_device(d);
  for (const auto& name : d.blocks) {
    if (name != volume) return unexpected("disk", volume + " only", name);
  }
  if (volume.empty() || d.blocks.size() != 1) return unexpected("disk", "the volume", "none");
  for (const auto& name : d.partitions) return unexpected("partition", "none", name);
  return ok_status();
}

Status check_known(const char* what, std::span<const char* const> known,
                   const std::vector<std::string>& found) {
  for (const auto& name : found) {
    const bool is =
        std::any_of(known.begin(), known.end(), [&](const char* k) { return name == k; });
    if (!is) return unexpected(what, "those of the machine type", name);
  }
  return ok_status();
}

}  // namespace

Result<Devices> read_devices(const std::string& sys) {
  Devices out;
  GBX_ASSIGN(out.pci, read_pci(sys + "/bus/pci/devices"));
  GBX_ASSIGN(out.virtio, read_virtio(sys + "/bus/virtio/devices"));
  GBX_ASSIGN(out.ports, read_ports(sys + "/class/virtio-ports"));
  GBX_TRY(read_disks(sys, out));
  GBX_ASSIGN(const auto interfaces, entries(sys + "/class/net"));
  for (const auto& name : interfaces) {
    if (name != "lo") out.interfaces.push_back(name);
  }
  for (const char* bus : kEmptyBuses) {
    GBX_ASSIGN(const auto there, entries(sys + "/bus/" + bus + "/devices"));
    for (const auto& name : there) out.others.push_back(std::string(bus) + ": " + name);
  }
  GBX_ASSIGN(out.tables, read_tables(sys + "/firmware/acpi/tables"));
  GBX_ASSIGN(out.acpi, read_acpi(sys + "/bus/acpi/devices"));
  GBX_ASSIGN(out.cpus_present, attribute(sys + "/devices/system/cpu/present"));
  GBX_ASSIGN(out.cpus_possible, attribute(sys + "/devices/system/cpu/possible"));
  return out;
}

Status check_devices(const Devices& devices) {
  GBX_TRY(check_pci(devices.pci));
  GBX_TRY(check_virtio(devices.virtio));
  GBX_TRY(check_disks(devices));
  for (const auto& name : devices.interfaces) return unexpected("network interface", "none", name);
  for (const auto& name : devices.others) return unexpected("device", "none on this bus", name);
  GBX_TRY(check_known("ACPI table", kTables, devices.tables));
  GBX_TRY(check_known("ACPI device", kAcpiIds, devices.acpi));
  if (devices.cpus_present != devices.cpus_possible) {
    return unexpected("processors that can be plugged in", devices.cpus_present,
                      devices.cpus_possible);
  }
  return ok_status();
}

Status check_ports(const Devices& devices, bool simulated) {
  std::vector<std::string> expected = {kControlPort};
  if (simulated) expected.emplace_back(kTeePort);
  for (const auto& port : devices.ports) {
    const auto at = std::find(expected.begin(), expected.end(), port.name);
    if (at == expected.end()) {
      return unexpected("virtio-serial port",
                        simulated ? "node's and platform's" : "the node's only",
                        port.device + " " + port.name);
    }
    expected.erase(at);  // the second of a name is none that was expected
  }
  for (const auto& name : expected) return unexpected("virtio-serial port", name, "none");
  return ok_status();
}

bool ports_are_named(const Devices& devices) {
  const auto named = [](const Port& p) { return !p.name.empty(); };
  return std::all_of(devices.ports.begin(), devices.ports.end(), named) &&
         port_device(devices, kControlPort).ok();
}

std::string volume_device(const Devices& devices) {
  for (const auto& d : devices.virtio) {
    if (d.device == kBlock && d.blocks.size() == 1) return d.blocks.front();
  }
  return {};
}

Result<std::string> port_device(const Devices& devices, const std::string& name) {
  for (const auto& port : devices.ports) {
    if (port.name == name) return port.device;
  }
  return fail(Reason::kNotFound, "virtio-serial port " + name);
}

}  // namespace gbx::agent
