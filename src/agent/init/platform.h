// Which platform a confidential VM runs on, and so how it gets its evidence: from hardware through
// the kernel's configfs-tsm, or from what plays the platform, over a port. A guest of hardware
// whose evidence cannot be had ends; it never takes somebody else's. Input: sysfs and /proc, of
// which the host chooses what the processor does not prove. Pure over folders.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"

namespace gbx::agent {

enum class Tee { kTsm, kSim };

// The kernel has found itself to be a guest of TDX or SEV-SNP. A host may say so of a machine that
// is none: it then has no evidence. `sys` is "/sys", `proc` is "/proc".
Result<bool> is_hardware_guest(const std::string& sys, const std::string& proc);

// `report` is what came of opening the kernel's report, empty where it has no configfs-tsm.
// kUnsupported in it says that no platform's driver stands behind that. kEvidenceMissing where
// evidence should be there and is not.
Result<Tee> choose_tee(bool hardware, const std::optional<Status>& report);

}  // namespace gbx::agent
