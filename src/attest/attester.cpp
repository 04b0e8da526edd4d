#include "attest/attester.h"

#include <algorithm>

#include "attest/rejected.h"
#include "attest/tdx/quote.h"

namespace gbx::attest {

namespace {

using records::Technology;

// AMD SEV-SNP ABI, section 7.3, ATTESTATION_REPORT. UNTESTED ON HARDWARE.
constexpr std::size_t kSnpReportSize = 1184;
constexpr std::size_t kSnpReportData = 0x50;
constexpr std::size_t kSnpHostData = 0xc0;

struct OwnQuote {
  FixedBytes<64> report_data{};
  Hash32 launch{};
};

Result<OwnQuote> read_td(ByteView bytes) {
  auto quote = tdx::parse_quote(bytes);
  if (!quote.ok()) return rejected("own quote", quote.error());
  const tdx::Register& config = quote->body.mr_config_id;
  OwnQuote out;
  out.report_data = quote->body.report_data;
  const auto hash_end = config.begin() + out.launch.size();
  std::copy(config.begin(), hash_end, out.launch.begin());
  if (std::any_of(hash_end, config.end(), [](std::uint8_t b) { return b != 0; })) {
    return fail(Reason::kLaunchConfigMismatch, "MRCONFIGID")
        .with("a SHA-256 and 16 zeros", to_hex(config))
        .hint("the host has to start the guest with the hash of its launch configuration");
  }
  return out;
}

Result<OwnQuote> read_snp(ByteView bytes) {
  if (bytes.size() != kSnpReportSize) {
    return fail(Reason::kEvidenceRejected, "own SEV-SNP report")
        .with(std::to_string(kSnpReportSize) + " bytes", std::to_string(bytes.size()));
  }
  OwnQuote out;
  ByteReader in(bytes);
  GBX_TRY(in.take(kSnpReportData));
  GBX_ASSIGN(out.report_data, in.fixed<64>());
  GBX_TRY(in.take(kSnpHostData - in.position()));
  GBX_ASSIGN(out.launch, in.fixed<32>());
  return out;
}

Result<OwnQuote> read_own(Technology technology, ByteView bytes) {
  switch (technology) {
    case Technology::kSim:
    case Technology::kTdx:
      return read_td(bytes);
    case Technology::kSnp:
      return read_snp(bytes);
    case Technology::kNone:
    case Technology::kSgx:
    case Technology::kCca:
    case Technology::kNitro:
    case Technology::kTrustZone:
      break;
  }
  return fail(Reason::kEvidenceRejected, "no quotes of this technology are known")
      .with("sim, tdx or snp", std::string(enum_name(technology)));
}

}  // namespace

Result<Hash32> own_launch_hash(Technology technology, ByteView quote) {
  GBX_ASSIGN(const OwnQuote own, read_own(technology, quote));
  return own.launch;
}

Status check_own_quote(Technology technology, ByteView quote, const FixedBytes<64>& report_data) {
  const auto own = read_own(technology, quote);
  if (!own.ok()) return own.error();
  if (own->report_data != report_data) {
    return fail(Reason::kEvidenceRejected, "the platform's quote is over other report data")
        .with(to_hex(report_data), to_hex(own->report_data));
  }
  return ok_status();
}

}  // namespace gbx::attest
