// The OpenAPI 3.1 document of a route table. Schemas come from the records' own fields()
// (base/schema.h).
#pragma once

#include <span>
#include <string>

#include "base/schema.h"
#include "plane/api/routes.h"

namespace gbx::plane::api {

struct ApiTitle {
  std::string title;
  std::string version;
  std::string summary;
};

// Component name → schema. `add<T>("Job")` for every name that the table uses.
class Schemas {
 public:
  template <class T>
  Schemas& add(const std::string& name) {
    all_[name] = json_schema<T>();
    return *this;
  }
  // For what is no record of ours.
  Schemas& add(const std::string& name, Json schema) {
    all_[name] = std::move(schema);
    return *this;
  }
  const JsonObject& all() const { return all_; }

 private:
  JsonObject all_;
};

// Errors: kInternal when the table fails its check or names a schema that is not there.
Result<Json> openapi_document(const ApiTitle& title, const std::vector<RouteInfo>& routes,
                              const Schemas& schemas);

}  // namespace gbx::plane::api
