#include "plane/api/openapi.h"

#include "httpsig/request_signing.h"

namespace gbx::plane::api {
namespace {

constexpr char kErrorSchema[] = "Error";

Json reference(std::string_view schema) {
  Json j;
  j["$ref"] = "#/components/schemas/" + std::string(schema);
  return j;
}

Json error_schema() {
  JsonArray codes;
#define X(name, code, cls) codes.push_back(Json(code));
  GBX_REASONS(X)
#undef X
  Json properties;
  JsonArray required;
  for (const char* name : {"reason", "what", "expected", "actual", "next"}) {
    properties[name]["type"] = "string";
    required.push_back(Json(name));
  }
  properties["reason"]["enum"] = Json(std::move(codes));
  properties["what"]["description"] = "the check that failed";
  properties["next"]["description"] = "what to do about it";
  Json s;
  s["type"] = "object";
  s["additionalProperties"] = false;
  s["properties"] = properties;
  s["required"] = Json(std::move(required));
  return s;
}

Json text_parameter(std::string_view name, const char* place, bool required,
                    std::string_view summary) {
  Json p;
  p["name"] = name;
  p["in"] = place;
  p["required"] = required;
  if (!summary.empty()) p["description"] = summary;
  p["schema"]["type"] = "string";
  return p;
}

Json parameters_of(const RouteInfo& route) {
  JsonArray out;
  std::string_view rest = route.path;
  for (std::size_t open = rest.find('{'); open != std::string_view::npos; open = rest.find('{')) {
    const std::size_t end = rest.find('}', open);
    Json p = text_parameter(rest.substr(open + 1, end - open - 1), "path", true, {});
    p["schema"]["minLength"] = 1;
    out.push_back(std::move(p));
    rest.remove_prefix(end);
  }
  for (const QueryParameter& q : route.query) {
    Json p = text_parameter(q.name, "query", false, q.summary);
    if (q.kind == ParameterKind::kInteger) {
      p["schema"]["type"] = "integer";
      p["schema"]["minimum"] = 0;
      p["schema"]["maximum"] = q.max;
    } else {
      p["schema"]["maxLength"] = q.max;
      if (q.kind == ParameterKind::kHex) p["schema"]["pattern"] = "^(?:[0-9a-f]{2})*$";
    }
    out.push_back(std::move(p));
  }
  for (const HeaderParameter& h : route.headers) {
    Json p = text_parameter(h.name, "header", false, h.summary);
    p["schema"]["minLength"] = 1;
    p["schema"]["maxLength"] = h.max;
    out.push_back(std::move(p));
  }
  return Json(std::move(out));
}

Json request_body_of(const RouteInfo& route) {
  Json body;
  body["required"] = true;
  if (route.body == BodyKind::kJson) {
    body["content"]["application/json"]["schema"] = reference(route.request_schema);
  } else {
    body["content"]["application/octet-stream"] = Json(JsonObject{});
  }
  return body;
}

Json responses_of(const RouteInfo& route) {
  Json ok;
  ok["description"] = "done";
  if (!route.response_schema.empty()) {
    ok["content"]["application/json"]["schema"] = reference(route.response_schema);
  } else if (route.response_type != "application/json") {
    ok["content"][route.response_type] = Json(JsonObject{});
  }
  Json error;
  error["$ref"] = "#/components/responses/Error";
  Json out;
  out[std::to_string(route.success)] = ok;
  if (route.also != 0) {
    out[std::to_string(route.also)] = ok;
    out[std::to_string(route.also)]["description"] = "not now; the body says why";
  }
  out["default"] = error;
  return out;
}

Json operation_of(const RouteInfo& route) {
  Json op;
  op["operationId"] = route.operation_id;
  op["summary"] = route.summary;
  op["parameters"] = parameters_of(route);
  op["responses"] = responses_of(route);
  if (route.body != BodyKind::kNone) {
    op["requestBody"] = request_body_of(route);
    op["x-glovebox-max-body"] =
        static_cast<std::int64_t>(route.max_body != 0 ? route.max_body : 4U << 20);
  }
  JsonArray roles;
  for (const std::string_view r : role_names(route.roles)) roles.push_back(Json(r));
  op["x-glovebox-roles"] = Json(std::move(roles));
  JsonArray security;
  if (route.signed_too) security.push_back(Json(JsonObject{}));  // or not
  if (route.roles != kPublic || route.signed_too) {
    Json needed;
    needed["signedRequest"] = Json(JsonArray{});
    security.push_back(std::move(needed));
  }
  if (route.bearer) {
    Json needed;
    needed["bearerToken"] = Json(JsonArray{});
    security.push_back(std::move(needed));
  }
  op["security"] = Json(std::move(security));
  return op;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

Json components_of(const Schemas& schemas) {
  Json out;
  out["schemas"] = Json(schemas.all());
  out["schemas"][kErrorSchema] = error_schema();
  Json& error = out["responses"]["Error"];
  error["description"] =
      "refused or failed: 400, 401, 403, 404, 405, 409, 411, 413, 415, 422, 429, 500 or 503";
  error["content"]["application/json"]["schema"] = reference(kErrorSchema);
  Json& scheme = out["securitySchemes"]["signedRequest"];
  scheme["type"] = "apiKey";
  scheme["in"] = "header";
  scheme["name"] = httpsig::kSignatureHeader;
  scheme["description"] =
      "Every request is signed by the caller's identity key over method, target, body hash, time "
      "and nonce; the six glovebox-* headers are described in docs/api.md.";
  Json& bearer = out["securitySchemes"]["bearerToken"];
  bearer["type"] = "http";
  bearer["scheme"] = "bearer";
  bearer["description"] =
      "The token in the file metrics-token of the plane's state folder, for Prometheus.";
  return out;
}

}  // namespace

Result<Json> openapi_document(const ApiTitle& title, const std::vector<RouteInfo>& routes,
                              const Schemas& schemas) {
  GBX_TRY(Router(routes).check());
  Json doc;
  doc["openapi"] = "3.1.0";
  doc["jsonSchemaDialect"] = "https://json-schema.org/draft/2020-12/schema";
  doc["info"]["title"] = title.title;
  doc["info"]["version"] = title.version;
  doc["info"]["summary"] = title.summary;
  doc["paths"] = Json(JsonObject{});
  for (const RouteInfo& route : routes) {
    for (const std::string_view name : {route.request_schema, route.response_schema}) {
      if (!name.empty() && name != kErrorSchema && !schemas.all().contains(name)) {
        return fail(Reason::kInternal,
                    std::string(route.operation_id) +
                        " names a schema that is not there: " + std::string(name));
      }
    }
    doc["paths"][route.path][lower(route.method)] = operation_of(route);
  }
  doc["components"] = components_of(schemas);
  return doc;
}

}  // namespace gbx::plane::api
