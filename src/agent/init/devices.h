// The device filter of a confidential VM. Whoever runs the host can plug any device into it, and a
// driver that speaks to one is a door; so the guest refuses to work unless its devices are exactly
// those of the one machine type that releases are made for (docs/vm.md, docs/guest.md). Input:
// sysfs, whose contents the host chooses. Pure over a folder, so that tests lay out machines that
// no host has.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace gbx::agent {

// Names of the virtio-serial ports (src/vm).
inline constexpr char kControlPort[] = "org.glovebox.control";  // to the node
inline constexpr char kTeePort[] = "org.glovebox.tee";  // to what plays the platform, if anything

struct PciDevice {
  std::string slot;        // "0000:00:02.0"
  std::string id;          // "1af4:1042", vendor and device
  std::string class_code;  // "0x010000": drivers are chosen by it, too
};
struct VirtioDevice {
  std::string device;               // "0x0002"
  std::string features;             // a '0' or '1' for each feature bit, bit 0 first
  std::vector<std::string> blocks;  // the disks that it is
};
struct Port {
  std::string device;  // "vport0p1"
  std::string name;    // empty where the host gave none, or none yet
};
struct Devices {
  std::vector<PciDevice> pci;
  std::vector<VirtioDevice> virtio;
  std::vector<Port> ports;
  std::vector<std::string> blocks;      // names of disks
  std::vector<std::string> partitions;  // that the kernel found on them
  std::vector<std::string> interfaces;  // of the network, beside loopback
  std::vector<std::string> others;      // "usb: 1-1": of buses that have no device here
  std::vector<std::string> tables;      // of ACPI, by signature; "data/CCEL" for what one points to
  std::vector<std::string> acpi;        // hardware ids of what the tables describe
  std::string cpus_present;             // "0-1"
  std::string cpus_possible;
};

// `sys` is "/sys".
Result<Devices> read_devices(const std::string& sys);
// kUnexpectedDevice names the first that is not of the machine type, or that is there twice, lacks
// a feature, or is missing. Ports aside.
Status check_devices(const Devices& devices);
// Exactly the port to the node, and on a simulated platform the one to that. kUnexpectedDevice.
Status check_ports(const Devices& devices, bool simulated);
// Whether the host has named every port that it has announced, and the node's is among them: it
// does so some time after the machine has started.
bool ports_are_named(const Devices& devices);
// Below /dev. Of devices that were checked.
std::string volume_device(const Devices& devices);
Result<std::string> port_device(const Devices& devices, const std::string& name);  // kNotFound

}  // namespace gbx::agent
