// What the fuzz targets share. The first byte of an input chooses among a target's parsers; a
// broken property aborts.
#pragma once

#include <cstdlib>
#include <string_view>

#include "base/bytes.h"
#include "base/json.h"

namespace gbx::fuzz {

inline void require(bool holds) {
  if (!holds) std::abort();
}

// Set when a target's document was read as one. A seed that is named as a valid document
// (replay.cpp) and is none any more reaches only the first refusal, and would never be missed.
inline bool document_accepted = false;

struct Input {
  unsigned choice = 0;
  ByteView bytes;
  std::string_view text() const { return as_text(bytes); }
};
// Seeds begin with a digit, so that people can write them by hand.
constexpr unsigned choice_of(std::uint8_t first, unsigned choices) {
  return (first + 256U - '0') % 256U % choices;
}
static_assert(choice_of('0', 3) == 0 && choice_of('4', 5) == 4 && choice_of('8', 9) == 8);
inline Input input_of(const std::uint8_t* data, std::size_t size, unsigned choices) {
  if (size == 0) return {};
  return {choice_of(data[0], choices), ByteView(data + 1, size - 1)};
}

// A value that was read can be written and read again, and nothing changes on the way.
inline void require_json_round_trip(const Json& value) {
  const std::string once = canonical(value);
  const auto again = parse_json(
      once, JsonLimits{.max_bytes = 64U << 20, .max_depth = 64, .max_values = 1'000'000});
  require(again.ok() && *again == value && canonical(*again) == once);
}

}  // namespace gbx::fuzz
