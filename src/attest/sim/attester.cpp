#include "attest/sim/attester.h"

#include "attest/rejected.h"
#include "attest/sim/service.h"
#include "attest/verifier.h"

namespace gbx::attest::sim {

namespace {
constexpr std::int64_t kTimeoutMs = 30'000;  // an emulated machine is slow
}

SimAttester::SimAttester(channel::ByteStream& stream, const Clock& clock)
    : client_(stream, clock, kMaxTeeFrame) {}

Result<Quoted> SimAttester::quote(const FixedBytes<64>& report_data) {
  TeeQuoteRequest request;
  request.report_data = report_data;
  GBX_ASSIGN(const Json answer, client_.call(kQuoteMethod, to_json(request), kTimeoutMs));
  auto reply = from_json<TeeQuoteReply>(answer);
  if (!reply.ok()) return rejected("answer of the platform", reply.error());
  GBX_TRY(check_own_quote(technology(), reply->quote, report_data));
  Quoted out;
  out.quote = std::move(reply->quote);
  out.collateral.push_back({std::string(kEventLogCollateral), std::move(reply->event_log)});
  return out;
}

}  // namespace gbx::attest::sim
