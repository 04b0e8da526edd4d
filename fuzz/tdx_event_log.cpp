// Event logs that a hostile host hands out: what was read is written again as it was.
#include "attest/tdx/event_log.h"
#include "fuzz/fuzz.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;
using namespace gbx::attest::tdx;

void strict(ByteView bytes) {
  const auto log = parse_event_log(bytes);
  if (!log.ok()) return;
  document_accepted = true;
  require(equal(serialize(*log), bytes));
  (void)replay(*log);
}

void padded(ByteView bytes) {
  const auto exact = log_without_padding(bytes);
  if (!exact.ok()) return;
  document_accepted = true;
  require(exact->size() <= bytes.size() && parse_event_log(*exact).ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 2);
  if (in.choice == 0) {
    strict(in.bytes);
  } else {
    padded(in.bytes);
  }
  return 0;
}
