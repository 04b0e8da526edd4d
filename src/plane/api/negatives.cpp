#include "plane/api/negatives.h"

#include <functional>

namespace gbx::plane::api {
namespace {

// The schemas are our own and nest a few levels: recursion is bounded by the records.
std::int64_t number(const Json& schema, const char* key, std::int64_t otherwise) {
  const Json* v = schema.find(key);
  return v != nullptr && v->integer() != nullptr ? *v->integer() : otherwise;
}

std::string text_of(const Json& schema, const char* key) {
  const Json* v = schema.find(key);
  return v != nullptr && v->string() != nullptr ? *v->string() : std::string();
}

Json sample_text(const Json& schema) {
  if (const Json* words = schema.find("enum"); words != nullptr) return words->array()->front();
  const std::string pattern = text_of(schema, "pattern");
  static constexpr std::string_view kHex = "^[0-9a-f]{";
  if (pattern.starts_with(kHex)) {
    return Json(
        std::string(static_cast<std::size_t>(std::stoul(pattern.substr(kHex.size()))), '0'));
  }
  const std::int64_t least =
      std::max(number(schema, "x-minBytes", 0), number(schema, "minLength", 0));
  return Json(std::string(static_cast<std::size_t>(least), 'A'));
}

using Replace = std::function<Json(const Json&)>;

void text_negatives(const Json& schema, const std::string& at, const Replace& put,
                    std::vector<Negative>* out) {
  const bool closed = schema.find("enum") != nullptr || schema.find("pattern") != nullptr;
  if (closed) out->push_back({"malformed " + at, put(Json("~ no such word ~"))});
  const std::int64_t most = number(schema, "maxLength", -1);
  if (most >= 0 && most < 1'000'000) {
    out->push_back(
        {"too long " + at, put(Json(std::string(static_cast<std::size_t>(most) + 4, 'A')))});
  }
  const std::int64_t least = number(schema, "minLength", 0);
  if (least > 0) out->push_back({"too short " + at, put(Json(""))});
}

void walk(const Json& schema, const Json& sample, const std::string& at, const Replace& put,
          std::vector<Negative>* out);

void object_negatives(const Json& schema, const Json& sample, const std::string& at,
                      const Replace& put, std::vector<Negative>* out) {
  const Json* closed = schema.find("additionalProperties");
  if (closed != nullptr && closed->boolean() != nullptr) {
    Json more = sample;
    more["unknownMember"] = 1;
    out->push_back({"unknown member in " + at, put(more)});
  }
  if (const Json* required = schema.find("required"); required != nullptr) {
    for (const Json& name : *required->array()) {
      JsonObject less = *sample.object();
      less.erase(*name.string());
      out->push_back({"missing " + at + "." + *name.string(), put(Json(std::move(less)))});
    }
  }
  const Json* properties = schema.find("properties");
  if (properties == nullptr) return;
  for (const auto& [name, member] : *properties->object()) {
    const Replace put_member = [&sample, &put, key = name](const Json& v) {
      Json whole = sample;
      whole[key] = v;
      return put(whole);
    };
    const Json* there = sample.find(name);
    walk(member, there != nullptr ? *there : sample_of(member), at + "." + name, put_member, out);
  }
}

void array_negatives(const Json& schema, const Json& sample, const std::string& at,
                     const Replace& put, std::vector<Negative>* out) {
  const std::int64_t most = number(schema, "maxItems", -1);
  if (most >= 0 && most <= 10'000) {
    out->push_back({"too many " + at, put(Json(JsonArray(static_cast<std::size_t>(most) + 1,
                                                         sample_of(*schema.find("items")))))});
  }
  if (number(schema, "minItems", 0) > 0) out->push_back({"too few " + at, put(Json(JsonArray{}))});
  if (sample.array()->empty()) return;
  const Replace put_first = [&sample, &put](const Json& v) {
    Json whole = sample;
    whole.array()->front() = v;
    return put(whole);
  };
  walk(*schema.find("items"), sample.array()->front(), at + "[0]", put_first, out);
}

void walk(const Json& schema, const Json& sample, const std::string& at, const Replace& put,
          std::vector<Negative>* out) {
  const std::string type = text_of(schema, "type");
  if (type.empty()) return;  // anything goes
  out->push_back({"null for " + at, put(Json())});
  out->push_back({"wrong type of " + at, put(type == "boolean" ? Json(7) : Json(true))});
  if (type == "string") text_negatives(schema, at, put, out);
  if (type == "object") object_negatives(schema, sample, at, put, out);
  if (type == "array") array_negatives(schema, sample, at, put, out);
  if (type == "integer") {
    const std::int64_t most = number(schema, "maximum", kMaxJsonInteger);
    const std::int64_t least = number(schema, "minimum", -kMaxJsonInteger);
    if (most < kMaxJsonInteger) out->push_back({"too large " + at, put(Json(most + 1))});
    if (least > -kMaxJsonInteger) out->push_back({"too small " + at, put(Json(least - 1))});
  }
}

}  // namespace

Json sample_of(const Json& schema) {
  const std::string type = text_of(schema, "type");
  if (type == "string") return sample_text(schema);
  if (type == "boolean") return Json(false);
  if (type == "integer") return Json(number(schema, "minimum", 0));
  if (type == "array") {
    const std::int64_t n = std::max<std::int64_t>(1, number(schema, "minItems", 0));
    return Json(JsonArray(static_cast<std::size_t>(n), sample_of(*schema.find("items"))));
  }
  JsonObject out;
  if (const Json* required = schema.find("required"); required != nullptr) {
    for (const Json& name : *required->array()) {
      out[*name.string()] = sample_of(*schema.find("properties")->find(*name.string()));
    }
  }
  return Json(std::move(out));
}

std::vector<Negative> negatives_of(const Json& schema, const Json& sample) {
  std::vector<Negative> out;
  walk(
      schema, sample, "body", [](const Json& v) { return v; }, &out);
  return out;
}

}  // namespace gbx::plane::api
