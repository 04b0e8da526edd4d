// Quotes that a hostile host hands out: what was read is written again as it was, and none of them
// verifies under Intel's root.
#include "attest/attester.h"
#include "attest/tdx/quote.h"
#include "attest/tdx/verify.h"
#include "fuzz/fuzz.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;
using namespace gbx::attest::tdx;

// Without a signature that anybody could make: a fuzzer finds no key of Intel's.
void strict(ByteView bytes) {
  const auto quote = parse_quote(bytes);
  if (!quote.ok()) return;
  document_accepted = true;
  require(equal(serialize(*quote), bytes));
  const auto exact = without_padding(bytes);
  require(exact.ok() && equal(*exact, bytes));
  require(!verify_signatures(*quote, {intel_root(), 1'800'000'000}).ok());
  const auto root = claimed_root(*quote);
  if (root.ok()) (void)verify_signatures(*quote, {*root, 1'800'000'000});
}

void padded(ByteView bytes) {
  const auto exact = without_padding(bytes);
  if (!exact.ok()) return;
  document_accepted = true;
  require(exact->size() <= bytes.size() && parse_quote(*exact).ok());
}

// As an agent looks at its own: a TDX quote or an SEV-SNP report.
void own(ByteView bytes) {
  for (const auto technology : {records::Technology::kSim, records::Technology::kSnp}) {
    const auto launch = attest::own_launch_hash(technology, bytes);
    const auto over = attest::check_own_quote(technology, bytes, {});
    document_accepted = document_accepted || launch.ok();
    require(launch.ok() || !over.ok());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 4);
  if (in.choice == 0) {
    strict(in.bytes);
  } else if (in.choice == 1) {
    padded(in.bytes);
  } else {
    own(in.bytes);
  }
  return 0;
}
