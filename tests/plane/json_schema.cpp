#include "json_schema.h"

#include <algorithm>

#include "base/schema.h"

namespace gbx::plane {

namespace {

constexpr int kDepth = 64;

std::int64_t characters(const std::string& utf8) {
  return std::count_if(utf8.begin(), utf8.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; });
}

bool has_type(const std::string& type, const Json& value) {
  if (type == "object") return value.object() != nullptr;
  if (type == "array") return value.array() != nullptr;
  if (type == "string") return value.string() != nullptr;
  if (type == "integer") return value.integer() != nullptr;
  return type == "boolean" && value.boolean() != nullptr;
}

// The patterns that base/schema.h writes.
bool matches(const std::string& pattern, const std::string& text) {
  if (pattern == kBase64UrlPattern) {
    return std::all_of(text.begin(), text.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '-' || c == '_';
    });
  }
  const std::string hex = "^[0-9a-f]{";
  if (pattern.rfind(hex, 0) != 0 || pattern.size() < hex.size() + 3) return false;
  const std::string count = pattern.substr(hex.size(), pattern.size() - hex.size() - 2);
  return pattern == hex + count + "}$" && std::to_string(text.size()) == count &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

class Check {
 public:
  explicit Check(const Json& document) : document_(document) {}

  std::string value(const Json& schema, const Json& v, const std::string& at, int depth) const {
    if (depth > kDepth) return at + ": too deep";
    if (schema.object() == nullptr) return at + ": the schema is no object";
    for (const auto& [word, argument] : *schema.object()) {
      const std::string bad = keyword(schema, word, argument, v, at, depth);
      if (!bad.empty()) return bad;
    }
    return {};
  }

 private:
  std::string keyword(const Json& schema, const std::string& word, const Json& argument,
                      const Json& v, const std::string& at, int depth) const {
    const auto wrong = [&] {
      return at + ": " + word + " " + canonical(argument).substr(0, 200) + ", is " +
             canonical(v).substr(0, 200);
    };
    const auto unless = [&](bool holds) { return holds ? std::string() : wrong(); };
    if (word == "description" || word == "title" || word == "contentEncoding") return {};
    if (word == "$ref") return reference(*argument.string(), v, at, depth);
    if (word == "type") return unless(has_type(*argument.string(), v));
    if (word == "enum") {
      return unless(std::count(argument.array()->begin(), argument.array()->end(), v) != 0);
    }
    if (word == "required") {
      return unless(
          v.object() != nullptr &&
          std::all_of(argument.array()->begin(), argument.array()->end(),
                      [&](const Json& name) { return v.find(*name.string()) != nullptr; }));
    }
    if (word == "properties") return members(argument, v, at, depth);
    if (word == "additionalProperties") return others(schema, argument, v, at, depth);
    if (word == "propertyNames") {
      for (const auto& [name, unused] : *v.object()) {
        const std::string bad = value(argument, Json(name), at + " name", depth + 1);
        if (!bad.empty()) return bad;
      }
      return {};
    }
    if (word == "items") {
      std::string bad;
      for (std::size_t i = 0; v.array() != nullptr && i < v.array()->size() && bad.empty(); ++i) {
        bad = value(argument, (*v.array())[i], at + "[" + std::to_string(i) + "]", depth + 1);
      }
      return bad;
    }
    if (word == "pattern") {
      return unless(v.string() != nullptr && matches(*argument.string(), *v.string()));
    }
    const auto size = measured(word, v);
    if (!size || argument.integer() == nullptr) {
      return at + ": the test does not know the keyword " + word;
    }
    const bool least = word.find("min") != std::string::npos;
    return unless(least ? *size >= *argument.integer() : *size <= *argument.integer());
  }
  // What a keyword of bounds is about; empty: no such keyword, or of another type.
  static std::optional<std::int64_t> measured(const std::string& word, const Json& v) {
    if ((word == "minimum" || word == "maximum") && v.integer() != nullptr) return *v.integer();
    if ((word == "minLength" || word == "maxLength") && v.string() != nullptr) {
      return characters(*v.string());
    }
    if ((word == "minItems" || word == "maxItems") && v.array() != nullptr) {
      return static_cast<std::int64_t>(v.array()->size());
    }
    if ((word == "minProperties" || word == "maxProperties") && v.object() != nullptr) {
      return static_cast<std::int64_t>(v.object()->size());
    }
    if (word != "x-minBytes" && word != "x-maxBytes") return std::nullopt;
    return static_cast<std::int64_t>(v.string() != nullptr ? v.string()->size()
                                                           : canonical(v).size());
  }
  std::string reference(const std::string& target, const Json& v, const std::string& at,
                        int depth) const {
    const Json* found = &document_;
    for (std::size_t from = 2; found != nullptr && from <= target.size();) {
      const std::size_t slash = std::min(target.find('/', from), target.size());
      found = found->find(target.substr(from, slash - from));
      from = slash + 1;
    }
    if (target.rfind("#/", 0) != 0 || found == nullptr) {
      return at + ": " + target + " is not in the document";
    }
    return value(*found, v, at, depth + 1);
  }
  std::string members(const Json& properties, const Json& v, const std::string& at,
                      int depth) const {
    if (v.object() == nullptr) return at + ": is no object";
    for (const auto& [name, schema] : *properties.object()) {
      const Json* member = v.find(name);
      const std::string bad =
          member == nullptr ? "" : value(schema, *member, at + "." + name, depth + 1);
      if (!bad.empty()) return bad;
    }
    return {};
  }
  std::string others(const Json& schema, const Json& rule, const Json& v, const std::string& at,
                     int depth) const {
    if (v.object() == nullptr) return at + ": is no object";
    const Json* properties = schema.find("properties");
    for (const auto& [name, member] : *v.object()) {
      if (properties != nullptr && properties->find(name) != nullptr) continue;
      if (rule.boolean() != nullptr && !*rule.boolean()) {
        return at + "." + name + ": is not in the schema";
      }
      const std::string bad =
          rule.boolean() != nullptr ? "" : value(rule, member, at + "." + name, depth + 1);
      if (!bad.empty()) return bad;
    }
    return {};
  }
  const Json& document_;
};

}  // namespace

std::string breaks_schema(const Json& document, const Json& schema, const Json& value) {
  return Check(document).value(schema, value, "body", 0);
}

}  // namespace gbx::plane
