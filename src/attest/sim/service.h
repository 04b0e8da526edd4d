// Between the agent and the program that stands for its hardware: one method on a byte stream of
// its own (docs/formats/sim-v1.md). The serving half; its requests come from a guest that may be
// hostile, and get what any guest gets: a quote over what was really launched.
#pragma once

#include "attest/sim/platform.h"
#include "base/fields.h"
#include "base/json.h"
#include "channel/stream.h"

namespace gbx::attest::sim {

inline constexpr std::string_view kQuoteMethod = "tee.quote";
inline constexpr std::size_t kMaxTeeFrame = 256 * 1024;

struct TeeQuoteRequest {
  FixedBytes<64> report_data{};
  template <class F>
  void fields(F& f) {
    f("reportData", report_data);
  }
};
struct TeeQuoteReply {
  Bytes quote;
  Bytes event_log;
  template <class F>
  void fields(F& f) {
    f("quote", quote, Bound{1, 65536});
    f("eventLog", event_log, Bound{1, 65536});
  }
};

// One virtual machine's. The platform must outlive it.
class QuoteService {
 public:
  QuoteService(const SimPlatform& platform, const SimMeasurement& measured, Bytes event_log)
      : platform_(platform), measured_(measured), event_log_(std::move(event_log)) {}
  Result<Json> dispatch(std::string_view method, const Json& body) const;

 private:
  const SimPlatform& platform_;
  const SimMeasurement measured_;
  const Bytes event_log_;
};
// Until the guest's end of the stream closes (ok), or it breaks the protocol.
Status serve_quotes(channel::ByteStream& stream, const QuoteService& service, const Clock& clock);

}  // namespace gbx::attest::sim
