// Cursors of listings come back from whoever got them: what is taken is written the same way.
#include "fuzz/fuzz.h"
#include "plane/core/cursor.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gbx;
  const std::string text(as_text(ByteView(data, size)));
  const auto read = plane::parse_cursor(text);
  if (!read.ok()) return 0;
  fuzz::require(read->has_value() != text.empty());
  if (*read) fuzz::require(plane::make_cursor((*read)->first, (*read)->second) == text);
  return 0;
}
