// The request target: "/v1/jobs/7f?limit=10" → decoded segments and query. Untrusted input, strict:
// what two parsers could read differently is refused (empty and dot segments, control characters,
// repeated keys).
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace gbx::plane::http {

inline constexpr std::size_t kMaxTargetBytes = 4096;
inline constexpr std::size_t kMaxSegments = 16;
inline constexpr std::size_t kMaxQueryParameters = 32;

struct Target {
  std::vector<std::string> path;
  std::map<std::string, std::string> query;
};
// Errors: kUsage (malformed), kNotFound (an empty segment: no route has one), kTooLarge.
Result<Target> parse_target(std::string_view raw);
// %XX only; "+" stays "+". Errors: kUsage (bad escape, control character, not UTF-8).
Result<std::string> percent_decode(std::string_view text);

}  // namespace gbx::plane::http
