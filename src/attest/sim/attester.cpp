#include "attest/sim/attester.h"

#include "attest/rejected.h"
#include "attest/sim/service.h"
#include "attest/verifier.h"

namespace gbx::attest::sim {

SimAttester::SimAttester(channel::ByteStream& stream, const Clock& clock, std::int64_t timeout_ms)
    : client_(stream, clock, kMaxTeeFrame), timeout_ms_(timeout_ms) {}

Result<Quoted> SimAttester::quote(const FixedBytes<64>& report_data) {
  TeeQuoteRequest request;
  request.report_data = report_data;
  const auto answer = client_.call(kQuoteMethod, to_json(request), timeout_ms_);
  if (!answer.ok() && answer.reason() == Reason::kTimedOut && !client_.broken()) {
    return fail(Reason::kUnavailable, "the platform has not answered yet").hint("ask again");
  }
  if (!answer.ok()) return answer.error();
  auto reply = from_json<TeeQuoteReply>(*answer);
  if (!reply.ok()) return rejected("answer of the platform", reply.error());
  GBX_TRY(check_own_quote(technology(), reply->quote, report_data));
  Quoted out;
  out.quote = std::move(reply->quote);
  out.collateral.push_back({std::string(kEventLogCollateral), std::move(reply->event_log)});
  return out;
}

}  // namespace gbx::attest::sim
