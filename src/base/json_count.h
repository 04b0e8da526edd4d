// How many values a JSON value holds, itself among them, as parse_json() counts them against
// JsonLimits::max_values. A value of one or two bytes of text takes a hundred in memory: so what is
// kept is bounded by this beside its bytes.
#pragma once

#include <cstddef>

#include "base/json.h"

namespace gbx {

std::size_t value_count(const Json& value);

}  // namespace gbx
