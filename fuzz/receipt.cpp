// Receipts are read offline by whoever gets one. What is valid under its set is so again after
// being written, and never under another set.
#include "fuzz/fuzz.h"
#include "policy/receipt_verify.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gbx;
  const auto receipt = from_json_text<records::Receipt>(as_text(ByteView(data, size)),
                                                        JsonLimits{4U << 20, 64, 500'000});
  if (!receipt.ok()) return 0;
  records::SetId pinned = receipt->set.charter.set_id();
  const policy::ReceiptReport report = policy::verify_receipt(*receipt, pinned);
  fuzz::require(report.valid == (report.first_failure().reason == Reason::kUninitialised));
  const auto again = from_json<records::Receipt>(to_json(*receipt));
  fuzz::require(again.ok() && policy::verify_receipt(*again, pinned).valid == report.valid);
  pinned[0] ^= 1;
  fuzz::require(!policy::verify_receipt(*receipt, pinned).valid);
  return 0;
}
