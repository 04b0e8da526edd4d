// What the gate's process hands to the agent, and the bundle that a consumer opens: one encoding
// each.
#include "fuzz/fuzz.h"
#include "gate/gate.h"
#include "gate/release.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;
using namespace gbx::gate;

void bundle(ByteView bytes) {
  const auto b = decode_bundle(bytes);
  if (!b.ok()) return;
  const auto again = encode_bundle(*b, bytes.size());
  require(again.ok() && equal(*again, bytes));
  const auto channel = ReleaseChannel::decode(bytes);
  require(channel.ok() && equal(channel->bytes(), bytes) && channel->entries() == b->entries);
}

// Short inputs get the zeros that a bundle ends with.
void padded_bundle(ByteView bytes) {
  Bytes padded = to_bytes(bytes);
  std::size_t size = kMinBundleBytes;
  while (size < padded.size()) size *= 2;
  padded.resize(size);
  bundle(padded);
}

void answer(ByteView bytes) {
  const auto a = decode_answer(bytes);
  if (!a.ok()) return;
  const auto again = from_json<GateResult>(to_json(a->result));
  require(again.ok() && canonical(to_json(*again)) == canonical(to_json(a->result)));
}

void request(std::string_view text) {
  const auto r = from_json_text<GateRequest>(text);
  if (!r.ok() || !check_request(*r).ok()) return;
  (void)release_charge(*r);
  require(padded_bundle_size(*r) >= kMinBundleBytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 4);
  switch (in.choice) {
    case 0:
      bundle(in.bytes);
      break;
    case 1:
      padded_bundle(in.bytes);
      break;
    case 2:
      answer(in.bytes);
      break;
    default:
      request(in.text());
      break;
  }
  return 0;
}
