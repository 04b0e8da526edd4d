// For tests: from a published schema, a document that it accepts and documents that break it in one
// place each. The same schema that callers read thus tests the server. Not linked into any program.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"

namespace gbx::plane::api {

// The smallest document that satisfies a schema made by base/schema.h.
Json sample_of(const Json& schema);

struct Negative {
  std::string name;  // "missing spec.image", for messages
  Json document;
};
// Unknown member, every required member missing, every member of a wrong type, too long, too short,
// out of range, no word of the list, no hex. `sample` satisfies the schema.
std::vector<Negative> negatives_of(const Json& schema, const Json& sample);

}  // namespace gbx::plane::api
