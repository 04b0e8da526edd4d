#include "attest/sim/service.h"

#include "channel/rpc.h"

namespace gbx::attest::sim {

namespace {

// A guest asks once for each connection to the broker, and then not until it needs another.
constexpr std::uint64_t kMaxQuotes = 10'000;
constexpr std::int64_t kIdleMs = std::int64_t{30} * 24 * 3600 * 1000;

}  // namespace

Result<Json> QuoteService::dispatch(std::string_view method, const Json& body) const {
  if (method != kQuoteMethod) {
    return fail(Reason::kNotFound, "method").with(std::string(kQuoteMethod), std::string(method));
  }
  GBX_ASSIGN(const auto request, from_json<TeeQuoteRequest>(body));
  TeeQuoteReply reply;
  GBX_ASSIGN(reply.quote, platform_.quote(measured_, request.report_data));
  reply.event_log = event_log_;
  return to_json(reply);
}

Status serve_quotes(channel::ByteStream& stream, const QuoteService& service, const Clock& clock) {
  channel::ServeLimits limits;
  limits.max_frame_bytes = kMaxTeeFrame;
  limits.max_frames = kMaxQuotes;
  limits.idle_ms = kIdleMs;
  const auto dispatch = [&service](std::string_view method, const Json& body) {
    return service.dispatch(method, body);
  };
  return channel::serve(stream, dispatch, limits, clock);
}

}  // namespace gbx::attest::sim
