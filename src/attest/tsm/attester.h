// Quotes of TDX and SEV-SNP hardware through the kernel's configfs-tsm (Linux,
// Documentation/ABI/testing/configfs-tsm-report). UNTESTED ON HARDWARE. What the host's quoting
// service answers is untrusted.
#pragma once

#include <memory>
#include <string>

#include "attest/attester.h"

namespace gbx::attest::tsm {

// One report of configfs: a folder of attributes. Tests stand in the kernel's place.
class Report {
 public:
  virtual ~Report() = default;
  virtual Result<Bytes> read(const std::string& attribute, std::size_t limit) = 0;
  virtual Status write(const std::string& attribute, ByteView value) = 0;
};
// Makes `root`/`name` (the kernel fills it with attributes), or takes the one that is there.
// kUnsupported where no driver of a platform has registered, kIo.
Result<std::unique_ptr<Report>> open_report(const std::string& root, const std::string& name);

inline constexpr const char* kReportRoot = "/sys/kernel/config/tsm/report";
inline constexpr const char* kEventLogTable = "/sys/firmware/acpi/tables/data/CCEL";

class TsmAttester final : public Attester {
 public:
  // `event_log` is the path of the firmware's log. Errors: kUnsupported for a provider that is
  // neither tdx_guest nor sev_guest, and what the report says.
  static Result<std::unique_ptr<TsmAttester>> create(std::unique_ptr<Report> report,
                                                     std::string event_log);
  records::Technology technology() const override { return technology_; }
  Result<Quoted> quote(const FixedBytes<64>& report_data) override;

 private:
  TsmAttester(std::unique_ptr<Report> report, std::string event_log, records::Technology technology)
      : report_(std::move(report)), event_log_(std::move(event_log)), technology_(technology) {}
  Result<std::uint64_t> generation();
  // Empty when somebody else wrote to the report meanwhile.
  Result<std::optional<Bytes>> try_once(const FixedBytes<64>& report_data);

  const std::unique_ptr<Report> report_;
  const std::string event_log_;
  const records::Technology technology_;
};

}  // namespace gbx::attest::tsm
