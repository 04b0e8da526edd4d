// Public keys and certificates of strangers: a key that was accepted has one text and one DER form.
#include "crypto/keys.h"

#include "fuzz/fuzz.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;
using crypto::HpkePublicKey;
using crypto::PublicKey;

void consistent(const PublicKey& key) {
  const auto from_text = PublicKey::from_text(key.text());
  const auto from_der = PublicKey::from_spki_der(key.spki_der());
  require(from_text.ok() && *from_text == key && from_text->fingerprint() == key.fingerprint());
  require(from_der.ok() && *from_der == key);
}

void public_key_text(std::string_view text) {
  const auto key = PublicKey::from_text(text);
  if (!key.ok()) return;
  require(key->text() == text);
  consistent(*key);
}

// Key text, a line feed, then the signature: nobody signed this message.
void signature(const Input& in) {
  const std::size_t line = in.text().find('\n');
  if (line == std::string_view::npos) return;
  const auto key = PublicKey::from_text(in.text().substr(0, line));
  if (!key.ok()) return;
  (void)key->verify(as_bytes("gbx fuzz"), in.bytes.subspan(line + 1));
  require(!key->verify(as_bytes("gbx fuzz"), in.bytes.subspan(line + 1, 0)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 5);
  switch (in.choice) {
    case 0:
      public_key_text(in.text());
      break;
    case 1: {
      const auto key = PublicKey::from_spki_der(in.bytes);
      if (key.ok()) consistent(*key);
      break;
    }
    case 2: {
      const auto key = HpkePublicKey::from_text(in.text());
      require(!key.ok() || key->text() == in.text());
      break;
    }
    case 3: {
      const auto key = crypto::certificate_public_key(in.bytes);
      if (key.ok()) consistent(*key);
      break;
    }
    default:
      signature(in);
      break;
  }
  return 0;
}
