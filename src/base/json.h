// JSON values as Glovebox signs them: RFC 8785 canonical form, integers within ±(2^53-1), no
// floats, no duplicate keys, bounded depth and size. Parsing is strict; input is untrusted.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"

namespace gbx {

inline constexpr std::int64_t kMaxJsonInteger = (std::int64_t{1} << 53) - 1;

class Json;
// Orders keys by UTF-16 code units (RFC 8785 section 3.2.3), which differs from byte order where
// supplementary characters meet U+E000..U+FFFF.
struct Utf16Less {
  using is_transparent = void;
  bool operator()(std::string_view a, std::string_view b) const;
};
using JsonArray = std::vector<Json>;
using JsonObject = std::map<std::string, Json, Utf16Less>;

class Json {
 public:
  Json() : v_(nullptr) {}
  Json(std::nullptr_t) : v_(nullptr) {}             // NOLINT
  Json(bool b) : v_(b) {}                           // NOLINT
  Json(std::int64_t i) : v_(i) {}                   // NOLINT
  Json(int i) : v_(std::int64_t{i}) {}              // NOLINT
  Json(std::string s) : v_(std::move(s)) {}         // NOLINT
  Json(std::string_view s) : v_(std::string(s)) {}  // NOLINT
  Json(const char* s) : v_(std::string(s)) {}       // NOLINT
  Json(JsonArray a) : v_(std::move(a)) {}           // NOLINT
  Json(JsonObject o) : v_(std::move(o)) {}          // NOLINT

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(v_); }
  const bool* boolean() const { return std::get_if<bool>(&v_); }
  const std::int64_t* integer() const { return std::get_if<std::int64_t>(&v_); }
  const std::string* string() const { return std::get_if<std::string>(&v_); }
  const JsonArray* array() const { return std::get_if<JsonArray>(&v_); }
  const JsonObject* object() const { return std::get_if<JsonObject>(&v_); }
  JsonArray* array() { return std::get_if<JsonArray>(&v_); }
  JsonObject* object() { return std::get_if<JsonObject>(&v_); }
  // Member of an object, or nullptr.
  const Json* find(std::string_view key) const;
  // For building: turns a null into an object.
  Json& operator[](std::string_view key);
  void push_back(Json v);

  bool operator==(const Json&) const = default;

 private:
  std::variant<std::nullptr_t, bool, std::int64_t, std::string, JsonArray, JsonObject> v_;
};

struct JsonLimits {
  std::size_t max_bytes = 4U << 20;
  std::size_t max_depth = 32;
  std::size_t max_values = 200'000;
};
// Errors: kBadJson, kDuplicateKey, kTooLarge, kBadValue (a float or an integer out of range).
Result<Json> parse_json(std::string_view text, JsonLimits limits = {});
// RFC 8785. Strings that are not valid UTF-8 never get into a parsed Json; values built in code
// must be valid.
std::string canonical(const Json& value);
// Two-space indentation, same key order: for people.
std::string pretty(const Json& value);
bool valid_utf8(std::string_view text);

}  // namespace gbx
