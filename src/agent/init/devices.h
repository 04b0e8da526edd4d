// The device filter of a confidential VM. Whoever runs the host can plug any device into it, and a
// driver that speaks to one is a door; so the guest refuses to work unless its devices are exactly
// those of the one machine type that releases are made for (docs/guest.md). Input: sysfs, whose
// contents the host chooses. Pure over a folder, so that tests lay out machines that no host has.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace gbx::agent {

struct PciDevice {
  std::string id;          // "1af4:1042", vendor and device
  std::string class_code;  // "0x010000"
};
struct VirtioDevice {
  std::string device;    // "0x0002"
  std::string features;  // a '0' or '1' for each feature bit, bit 0 first
};
struct Devices {
  std::vector<PciDevice> pci;
  std::vector<VirtioDevice> virtio;
  std::vector<std::string> blocks;      // names of disks
  std::vector<std::string> interfaces;  // of the network, beside loopback
  std::vector<std::string> others;      // "usb: 1-1": of buses that have no device here
  std::vector<std::string> tables;      // of ACPI, by signature
};

// `sys` is "/sys".
Result<Devices> read_devices(const std::string& sys);
// kUnexpectedDevice names the first that is not of the machine type, or that is there twice, lacks
// a feature, or is missing.
Status check_devices(const Devices& devices);

}  // namespace gbx::agent
