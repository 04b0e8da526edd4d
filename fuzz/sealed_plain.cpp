// What stands inside sealed messages whose sealer may lie: '0' a review of an environment, '1' a
// bundle of keys.
#include "crypto/testing.h"
#include "fuzz/fuzz.h"
#include "records/sealing.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;

void review(ByteView plain) {
  const auto read = records::parse_review(plain);
  if (!read.ok()) return;
  const std::string json = canonical(to_json(*read));
  ByteWriter again;
  again.bytes32(as_bytes(json));
  require(records::parse_review(again.bytes()).ok());
}

void key_bundle(ByteView plain) {
  SeededRandom random(1);
  static const auto own = crypto::HpkeKeyPair::generate(random);
  require(own.ok());
  const records::KeyContext context;
  const auto sealed =
      crypto::hpke_seal(own->public_key(), records::hash_of(context), plain, random);
  require(sealed.ok());
  const auto keys = records::open_key_bundle(*own, context, *sealed);
  require(keys.ok() == (plain.size() % 64 == 0 && plain.size() <= std::size_t{64} * 33));
  if (keys.ok()) require(keys->size() == plain.size() / 64);
  // Of another context nothing is read.
  records::KeyContext other;
  other.seq = 2;
  require(!records::open_key_bundle(*own, other, *sealed).ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 2);
  if (in.choice == 0) {
    review(in.bytes);
  } else {
    key_bundle(in.bytes);
  }
  return 0;
}
