// For tests: holds a JSON value against a schema of the plane's OpenAPI document. Knows exactly the
// keywords that the document uses; one that it does not know is a failure, so that no promise of
// the document goes unchecked.
#pragma once

#include <string>

#include "base/json.h"

namespace gbx::plane {

// Empty, or where and why `value` breaks `schema`. References are looked up in `document` (its
// root).
std::string breaks_schema(const Json& document, const Json& schema, const Json& value);

}  // namespace gbx::plane
