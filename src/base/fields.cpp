#include "base/fields.h"

namespace gbx::fields_detail {

Status check_bound(std::int64_t v, Bound b, const char* unit) {
  if (v >= b.min && v <= b.max) return ok_status();
  const std::string suffix = *unit != '\0' ? std::string(" ") + unit : std::string();
  return fail(Reason::kBadValue)
      .with("between " + std::to_string(b.min) + " and " + std::to_string(b.max) + suffix, std::to_string(v));
}

Status check_json_bound(const Json& j, Bound b) {
  if (b.min <= 0 && b.max == kMaxJsonInteger) return ok_status();  // its canonical form costs something
  return check_bound(static_cast<std::int64_t>(canonical(j).size()), b, "bytes long");
}

Error kind_error(const char* expected, const Json& actual) {
  const char* kind = actual.is_null()     ? "null"
                     : actual.boolean()   ? "true or false"
                     : actual.integer()   ? "an integer"
                     : actual.string()    ? "a string"
                     : actual.array()     ? "a list"
                                          : "an object";
  return fail(Reason::kBadValue).with(expected, kind);
}

}  // namespace gbx::fields_detail
