#include "base/fields.h"

namespace gbx {

const char* json_kind(const Json& v) {
  return v.is_null()   ? "null"
         : v.boolean() ? "true or false"
         : v.integer() ? "an integer"
         : v.string()  ? "a string"
         : v.array()   ? "a list"
                       : "an object";
}

std::string join_path(const std::string& outer, const std::string& inner) {
  if (inner.empty() || outer.empty()) return outer + inner;
  return outer + (inner[0] == '[' || inner[0] == '.' ? "" : ".") + inner;
}

}  // namespace gbx

namespace gbx::fields_detail {

Status check_bound(std::int64_t v, Bound b, const char* unit) {
  if (v >= b.min && v <= b.max) return ok_status();
  const std::string suffix = *unit != '\0' ? std::string(" ") + unit : std::string();
  const std::string range =
      b.min == b.max ? "exactly " + std::to_string(b.min)
                     : "between " + std::to_string(b.min) + " and " + std::to_string(b.max);
  return fail(Reason::kBadValue).with(range + suffix, std::to_string(v));
}

Error unknown_field(const std::string& name, const std::set<std::string_view>& known) {
  constexpr std::size_t kEnough = 400;
  std::string list;
  for (const auto k : known) {
    if (list.size() > kEnough) break;
    list += (list.empty() ? "" : ", ") + std::string(k);
  }
  const std::string bounded = name.substr(0, 64);
  return fail(Reason::kUnknownField, bounded)
      .with(known.empty() ? "no members" : "one of " + list, bounded);
}

Status check_json_bound(const Json& j, Bound b) {
  // its canonical form costs something
  if (b.min <= 0 && b.max == kMaxJsonInteger) return ok_status();
  return check_bound(static_cast<std::int64_t>(canonical(j).size()), b, "bytes long");
}

Error kind_error(const char* expected, const Json& actual) {
  return fail(Reason::kBadValue).with(expected, json_kind(actual));
}

// The text itself is not shown: it may be a key in the wrong place.
Error encoding_error(Error e, const std::string& expected, std::string_view text) {
  e.what.clear();
  return e.with(expected, "text of " + std::to_string(text.size()) + " characters");
}

}  // namespace gbx::fields_detail
