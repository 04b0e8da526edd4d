// A user's document in YAML or JSON: what is accepted means the same as JSON.
#include "cli/yaml.h"

#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gbx;
  using namespace gbx::fuzz;
  const std::string_view text = as_text(ByteView(data, size));
  const auto value = cli::parse_document(text);
  if (!value.ok()) return 0;
  require_json_round_trip(*value);
  return 0;
}
