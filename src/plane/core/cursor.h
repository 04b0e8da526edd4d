// Where the next page of a listing begins: "<number>.<id>". Callers bring it back, so it is
// untrusted. One position has one text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "base/result.h"

namespace gbx::plane {

// Empty text is the beginning. kBadValue for what make_cursor never wrote.
Result<std::optional<std::pair<std::int64_t, std::string>>> parse_cursor(const std::string& text);
std::string make_cursor(std::int64_t order, const std::string& id);

}  // namespace gbx::plane
