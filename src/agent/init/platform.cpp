#include "agent/init/platform.h"

#include <sstream>

#include "base/os.h"

namespace gbx::agent {

namespace {
// One line for each processor, of some 2 KiB.
constexpr std::size_t kMaxCpuInfo = std::size_t{4} << 20;
}  // namespace

Result<bool> is_hardware_guest(const std::string& sys, const std::string& proc) {
  // Made by the kernel where it runs under SEV-SNP, and by the driver of TDX, in this order of
  // time.
  for (const char* sign :
       {"/bus/platform/devices/sev-guest", "/class/misc/sev-guest", "/class/misc/tdx_guest"}) {
    if (path_exists(sys + sign)) return true;
  }
  GBX_ASSIGN(const std::string info, read_text_file(proc + "/cpuinfo", kMaxCpuInfo));
  std::istringstream words(info);
  for (std::string word; words >> word;) {
    if (word == "tdx_guest") return true;
  }
  return false;
}

Result<Tee> choose_tee(bool hardware, const std::optional<Status>& report) {
  if (report && report->ok()) return Tee::kTsm;
  const bool no_driver = !report || report->reason() == Reason::kUnsupported;
  if (!hardware && no_driver) return Tee::kSim;
  return fail(Reason::kEvidenceMissing, "evidence of this machine's hardware")
      .with("a report of configfs-tsm", report ? report->error().line() : "no configfs-tsm")
      .hint("start the machine on a host whose platform gives quotes, see docs/hardware.md");
}

}  // namespace gbx::agent
