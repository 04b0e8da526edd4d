// The published JSON Schema (draft 2020-12) of a record, from the same fields() that reads and
// writes it:
//
//   Json s = json_schema<JobSpec>();
//
// The schema accepts every document that the strict reader accepts. Where the two count differently
// (our string bounds are UTF-8 bytes, JSON Schema counts characters) the keyword is the widest that
// is right and "x-minBytes" / "x-maxBytes" carry the exact bound. The typed reader stays the judge;
// schemas are published and tested against it.
#pragma once

#include <string>
#include <type_traits>

#include "base/fields.h"

namespace gbx {

// Canonical base64url without padding: unused bits are zero.
inline constexpr char kBase64UrlPattern[] =
    "^(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?$";

namespace schema_detail {

template <class T>
Json schema_of(Bound b);

inline void bound_keywords(Json& s, Bound b, const char* min_word, const char* max_word) {
  if (b.min > 0) s[min_word] = b.min;
  if (b.max < kMaxJsonInteger) s[max_word] = b.max;
}

inline Json text_schema(Bound b) {
  Json s;
  s["type"] = "string";
  if (b.min > 0) {
    s["minLength"] = (b.min + 3) / 4;  // a character has at most four bytes
    s["x-minBytes"] = b.min;
  }
  if (b.max < kMaxJsonInteger) {
    s["maxLength"] = b.max;
    s["x-maxBytes"] = b.max;
  }
  return s;
}

inline Json base64_schema(Bound b) {
  Json s;
  s["type"] = "string";
  s["contentEncoding"] = "base64url";
  s["pattern"] = kBase64UrlPattern;
  const auto length = [](std::int64_t n) { return n / 3 * 4 + (n % 3 == 0 ? 0 : n % 3 + 1); };
  if (b.min > 0) s["minLength"] = length(b.min);
  if (b.max < kMaxJsonInteger) s["maxLength"] = length(b.max);
  return s;
}

// Visits fields() like fields_detail::Writer, and takes only names, types and bounds.
struct SchemaWriter {
  JsonObject properties;
  JsonArray required;
  template <class T>
  void operator()(const char* name, T&, Bound b = {}) {
    if constexpr (fields_detail::is_optional<T>) {
      properties.emplace(name, schema_of<typename T::value_type>(b));
    } else {
      properties.emplace(name, schema_of<T>(b));
      required.push_back(Json(name));
    }
  }
};

template <class T>
Json object_schema() {
  SchemaWriter w;
  T sample{};
  sample.fields(w);
  Json s;
  s["type"] = "object";
  s["additionalProperties"] = false;
  s["properties"] = Json(std::move(w.properties));
  if (!w.required.empty()) s["required"] = Json(std::move(w.required));
  return s;
}

template <class T>
Json enum_schema() {
  JsonArray names;
  for (const auto& n : enum_names(T{})) names.push_back(Json(n.name));
  Json s;
  s["type"] = "string";
  s["enum"] = Json(std::move(names));
  return s;
}

template <class T>
Json schema_of(Bound b) {
  Json s;
  if constexpr (std::is_same_v<T, Json>) {
    s = Json(JsonObject{});  // anything
    if (b.max < kMaxJsonInteger) s["x-maxBytes"] = b.max;
    return s;
  } else if constexpr (std::is_same_v<T, bool>) {
    s["type"] = "boolean";
    return s;
  } else if constexpr (std::is_same_v<T, std::int64_t>) {
    s["type"] = "integer";
    s["minimum"] = b.min;
    s["maximum"] = b.max;
    return s;
  } else if constexpr (std::is_same_v<T, std::string>) {
    return text_schema(b);
  } else if constexpr (std::is_same_v<T, Bytes>) {
    return base64_schema(b);
  } else if constexpr (fields_detail::is_fixed<T>) {
    s["type"] = "string";
    s["pattern"] = "^[0-9a-f]{" + std::to_string(2 * std::tuple_size_v<T>) + "}$";
    return s;
  } else if constexpr (std::is_enum_v<T>) {
    return enum_schema<T>();
  } else if constexpr (fields_detail::is_vector<T>) {
    s["type"] = "array";
    s["items"] =
        schema_of<typename T::value_type>(fields_detail::bound_of_each<typename T::value_type>(b));
    bound_keywords(s, b, "minItems", "maxItems");
    return s;
  } else if constexpr (fields_detail::is_map<T>) {
    s["type"] = "object";
    s["additionalProperties"] = schema_of<typename T::mapped_type>(
        fields_detail::bound_of_each<typename T::mapped_type>(b));
    if (b.each < kMaxJsonInteger) s["propertyNames"] = text_schema(Bound{0, b.each});
    bound_keywords(s, b, "minProperties", "maxProperties");
    return s;
  } else {
    return object_schema<T>();
  }
}

}  // namespace schema_detail

// Without "$schema" and "$id": as it stands inside an OpenAPI 3.1 document.
template <class T>
Json json_schema() {
  return schema_detail::schema_of<T>(Bound{});
}
// A document of its own.
template <class T>
Json json_schema_document(const std::string& id, const std::string& title) {
  Json s = json_schema<T>();
  s["$schema"] = "https://json-schema.org/draft/2020-12/schema";
  s["$id"] = id;
  s["title"] = title;
  return s;
}

}  // namespace gbx
