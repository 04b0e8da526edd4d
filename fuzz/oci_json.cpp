// Manifest and configuration of a hostile image, and what the unpacking child says to its parent.
#include "fuzz/fuzz.h"
#include "oci/layout.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;
using namespace gbx::oci;

void manifest(std::string_view text) {
  const auto m = parse_manifest(text);
  if (!m.ok()) return;
  require(digest_hash(m->config_digest).ok());
  for (const Layer& layer : m->layers) require(digest_hash(layer.digest).ok());
}

// The first character says for how many layers the configuration has to speak.
void config(std::string_view text) {
  if (text.empty()) return;
  ImageInfo image;
  image.layers.resize(static_cast<unsigned char>(text[0]) % 4);
  if (!parse_config(text.substr(1), image).ok()) return;
  for (const Layer& layer : image.layers) require(digest_hash(layer.diff_id).ok());
  for (const std::string& e : image.env) require(e.find('\0') == std::string::npos);
}

void result(std::string_view text) {
  const auto r = result_from_json(text);
  if (!r.ok()) return;
  const auto again = result_from_json(result_to_json(r));
  require(again.ok() && again->root_hash == r->root_hash && again->image.env == r->image.env);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 3);
  switch (in.choice) {
    case 0:
      manifest(in.text());
      break;
    case 1:
      config(in.text());
      break;
    default:
      result(in.text());
      break;
  }
  return 0;
}
