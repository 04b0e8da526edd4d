// What a hostile peer may send: bytes to the multiplexer, message frames, answers and errors of
// calls. The first byte of the input chooses. Time stands still; the input ends the stream, so
// nothing waits.
#include <cstdlib>

#include "channel/mux.h"
#include "channel/rpc.h"

namespace {

using namespace gbx;
using namespace gbx::channel;

void require(bool holds) {
  if (!holds) std::abort();
}

std::unique_ptr<ByteStream> stream_of(ByteView bytes, const Clock& clock) {
  auto [near, far] = make_memory_pipe(bytes.size() + (1U << 20));
  const Deadline soon = Deadline::after_ms(clock, 10'000);
  require(far->write_all(bytes, soon).ok() && far->finish(soon).ok());
  return std::move(near);  // `far` goes; what it wrote stays
}

void fuzz_mux(ByteView bytes, const Clock& clock) {
  auto stream = stream_of(bytes, clock);
  Mux mux(*stream, clock);
  const Status end = mux.wait_end(Deadline::after_ms(clock, 10'000));
  require(!end.ok() && end.reason() != Reason::kTimedOut);
  std::size_t total = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    Bytes out(kMuxWindow + 1);
    auto n = mux.stream(i).read(out, Deadline::after_ms(clock, 0));
    if (!n.ok()) continue;
    require(*n <= kMuxWindow);
    total += *n;
  }
  require(total <= bytes.size());
}

void fuzz_serve(ByteView bytes, const Clock& clock) {
  auto stream = stream_of(bytes, clock);
  // Writing fails, for the other end is gone: one request at most is served.
  const auto echo = [](std::string_view method, const Json& body) -> Result<Json> {
    require(!method.empty() && method.size() <= 64);
    return body;
  };
  (void)serve(*stream, echo, {}, clock);
}

void fuzz_json(ByteView bytes) {
  const auto json = parse_canonical(bytes);
  if (!json.ok()) return;
  require(canonical(*json) == as_text(bytes));
  const Error e = error_from_json(*json);
  // What was taken from the wire can be sent on and read again.
  require(error_from_json(error_to_json(e)).reason == e.reason);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const ManualClock clock;
  const ByteView bytes(data + 1, size - 1);
  switch (data[0] % 3) {
    case 0:
      fuzz_mux(bytes, clock);
      break;
    case 1:
      fuzz_serve(bytes, clock);
      break;
    default:
      fuzz_json(bytes);
      break;
  }
  return 0;
}
