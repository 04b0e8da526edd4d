// The OpenAPI document, the router and a live server agree, and requests made from the schemas to
// be refused are.
#include <gtest/gtest.h>

#include <atomic>

#include "base/seams.h"
#include "crypto/keys.h"
#include "httpsig/error_body.h"
#include "plane/api/negatives.h"
#include "plane/api/openapi.h"
#include "plane/api/routes.h"
#include "plane/http/raw_client.h"

namespace gbx::plane::api {
namespace api_test {

enum class Kind { kA, kB };
inline std::span<const EnumName<Kind>> enum_names(Kind) {
  static constexpr EnumName<Kind> k[] = {{Kind::kA, "a"}, {Kind::kB, "b"}};
  return k;
}
struct Part {
  std::string name;
  std::int64_t count = 0;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 32});
    f("count", count, Bound{0, 5});
  }
};
struct Thing {
  std::string name;
  Hash32 hash{};
  Bytes blob;
  Kind kind = Kind::kA;
  bool flag = false;
  std::vector<Part> parts;
  std::optional<Part> more;
  std::map<std::string, std::string> labels;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{2, 32});
    f("hash", hash);
    f("blob", blob, Bound{1, 64});
    f("kind", kind);
    f("flag", flag);
    f("parts", parts, Bound{1, 8});
    f("more", more);
    f("labels", labels, Bound{0, 8});
  }
};

struct Api {
  std::atomic<int> created{0};
  http::Response list(const Call& call) {
    return http::json_response(200, Json(call.query_integer("limit", 20)));
  }
  http::Response create(const Call& call) {
    const Result<Thing> thing = read_json_body<Thing>(call);
    if (!thing.ok()) return http::error_response(thing.error());
    ++created;
    return reply(201, *thing);
  }
  http::Response get(const Call& call) {
    return http::json_response(200, Json(call.parameter("id")));
  }
  http::Response special(const Call&) { return http::json_response(200, Json("special")); }
  http::Response put_object(const Call& call) {
    Bytes piece(1024);
    for (;;) {
      const auto n = call.request.stream->read(piece);
      if (!n.ok()) return http::error_response(n.error());
      if (*n == 0) break;
    }
    http::Response r;
    r.status = 204;
    return r;
  }
  http::Response health(const Call&) { return http::json_response(200, Json(true)); }
};

constexpr QueryParameter kListQuery[] = {{"limit", "how many", ParameterKind::kInteger, 100},
                                         {"after", "where to go on", ParameterKind::kHex, 64}};
constexpr HeaderParameter kHealthHeaders[] = {{"x-why", "for the log", 8}};
const Route<Api> kRoutes[] = {
    {{.method = "GET",
      .path = "/v1/things",
      .operation_id = "listThings",
      .summary = "All",
      .roles = kOwner | kConsumer,
      .response_schema = "Number",
      .query = kListQuery},
     &Api::list},
    {{.method = "POST",
      .path = "/v1/things",
      .operation_id = "createThing",
      .summary = "Make one",
      .roles = kOwner,
      .request_schema = "Thing",
      .response_schema = "Thing",
      .body = BodyKind::kJson,
      .max_body = 64U << 10,
      .success = 201},
     &Api::create},
    {{.method = "GET",
      .path = "/v1/things/{id}",
      .operation_id = "getThing",
      .summary = "One",
      .roles = kAnyRole,
      .response_schema = "Text"},
     &Api::get},
    {{.method = "GET",
      .path = "/v1/things/special",
      .operation_id = "getSpecial",
      .summary = "S",
      .roles = kAnyRole,
      .response_schema = "Text"},
     &Api::special},
    {{.method = "PUT",
      .path = "/v1/things/{id}/object",
      .operation_id = "putObject",
      .summary = "Bytes",
      .roles = kNode | kOwner,
      .body = BodyKind::kStream,
      .max_body = 1U << 20,
      .success = 204},
     &Api::put_object},
    {{.method = "GET",
      .path = "/health",
      .operation_id = "health",
      .summary = "Alive?",
      .response_schema = "Flag",
      .headers = kHealthHeaders,
      .also = 503},
     &Api::health},
};

// The caller says who it is; the signature has its own tests.
Result<Caller> authenticate(const http::Request& r) {
  const auto it = r.headers.find("x-role");
  if (it == r.headers.end()) return fail(Reason::kUnauthenticated, "nobody");
  if (it->second == "replay") return fail(Reason::kReplayed, "again");
  if (it->second == "busy") return fail(Reason::kRateLimited, "slow down");
  GBX_ASSIGN(const RoleSet role, role_from_name(it->second));
  return Caller{Hash32{1}, role};
}

class ApiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SystemRandom random;
    const auto key =
        crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEcdsaP256, random).value();
    http::ServerOptions o;
    o.certificate_der = crypto::self_signed_certificate(key).value();
    o.key_pkcs8_der = key.pkcs8_der(SecretAccess{});
    o.planner = dispatcher_.planner();
    server_ = http::Server::start(std::move(o), dispatcher_.handler()).value();
    schemas_.add<Thing>("Thing")
        .add("Number", json_schema<std::int64_t>())
        .add("Text", json_schema<std::string>());
    schemas_.add("Flag", json_schema<bool>());
    document_ =
        openapi_document({"Test", "1", "s"}, dispatcher_.router().routes(), schemas_).value();
  }
  http::RawAnswer call(const std::string& method, const std::string& target,
                       const std::string& body, const std::string& type,
                       const std::string& role = "owner", const std::string& more = {}) {
    if (!client_) client_ = http::RawClient::connect(server_->port());
    std::string text = method + " " + target + " HTTP/1.1\r\nhost: a\r\n" + more;
    if (!role.empty()) text += "x-role: " + role + "\r\n";
    if (!type.empty()) {
      text +=
          "content-type: " + type + "\r\ncontent-length: " + std::to_string(body.size()) + "\r\n";
    }
    client_->send(text + "\r\n" + body);
    const auto a = client_->read();
    if (!a || a->head.find("connection: close") != std::string::npos) client_.reset();
    EXPECT_TRUE(a) << method << " " << target;
    return a.value_or(http::RawAnswer{});
  }
  std::string body_of(const Json& operation) {
    const Json* content = operation.find("requestBody");
    if (content == nullptr) return "";
    const Json* json = content->find("content")->find("application/json");
    if (json == nullptr) return "some bytes";
    const std::string ref = *json->find("schema")->find("$ref")->string();
    return canonical(sample_of(
        *document_.find("components")->find("schemas")->find(ref.substr(ref.rfind('/') + 1))));
  }
  static std::string type_of(const Json& operation) {
    const Json* body = operation.find("requestBody");
    return body == nullptr ? "" : body->find("content")->object()->begin()->first;
  }

  Api api_;
  Dispatcher<Api> dispatcher_{kRoutes, api_, authenticate};
  Schemas schemas_;
  Json document_;
  std::unique_ptr<http::Server> server_;
  std::unique_ptr<http::RawClient> client_;
};

TEST_F(ApiTest, EveryDocumentedOperationAnswersAsDocumented) {
  int operations = 0;
  for (const auto& [path, methods] : *document_.find("paths")->object()) {
    std::string target = path;
    if (const std::size_t at = target.find("{id}"); at != std::string::npos) {
      target.replace(at, 4, "x%20y");
    }
    for (const auto& [method, operation] : *methods.object()) {
      std::string upper = method;
      for (char& c : upper) c = static_cast<char>(c - 'a' + 'A');
      const auto a = call(upper, target, body_of(operation), type_of(operation));
      EXPECT_EQ(std::to_string(a.status), operation.find("responses")->object()->begin()->first)
          << upper << " " << path << a.body;
      ++operations;
    }
  }
  EXPECT_EQ(operations, static_cast<int>(std::size(kRoutes)));
  EXPECT_EQ(call("GET", "/v1/things/x%20y", "", "").body, "\"x y\"");
  EXPECT_EQ(call("GET", "/v1/things/special", "", "").body, "\"special\"");
}

TEST_F(ApiTest, WhatIsNotDocumentedIs404AndOtherMethodsAre405) {
  for (const char* path :
       {"/", "/v1", "/v2/things", "/v1/things/", "/v1/things/a/b", "/v1/things/a/object/x",
        "/V1/things", "/health/x", "/v1/thing", "/openapi.yaml"}) {
    EXPECT_EQ(call("GET", path, "", "").status, 404) << path;
    EXPECT_EQ(call("POST", path, "{}", "application/json").status, 404) << path;
  }
  for (const auto& [path, methods] : *document_.find("paths")->object()) {
    std::string target = path;
    if (const std::size_t at = target.find("{id}"); at != std::string::npos) {
      target.replace(at, 4, "x");
    }
    for (const char* method : {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"}) {
      std::string lower = method;
      for (char& c : lower) c = static_cast<char>(c - 'A' + 'a');
      if (methods.find(lower) != nullptr) continue;
      const auto a = call(method, target, "", "");
      EXPECT_EQ(a.status, 405) << method << " " << path;
      const auto e = httpsig::error_from_json_text(a.body);
      EXPECT_TRUE(e && !e->next.empty()) << method << " " << path;
      EXPECT_NE(a.head.find("allow: "), std::string::npos);
    }
  }
}

TEST_F(ApiTest, GeneratedNegativesAreRefusedWithAReasonAndNeverBreakTheServer) {
  const Json& schema = *document_.find("components")->find("schemas")->find("Thing");
  Json sample = sample_of(schema);
  sample["more"] = sample_of(*schema.find("properties")->find("more"));
  ASSERT_EQ(call("POST", "/v1/things", canonical(sample), "application/json").status, 201);
  const std::vector<Negative> negatives = negatives_of(schema, sample);
  EXPECT_GT(negatives.size(), 50U);
  for (const Negative& n : negatives) {
    const auto a = call("POST", "/v1/things", canonical(n.document), "application/json");
    EXPECT_TRUE(a.status >= 400 && a.status < 500)
        << n.name << " " << a.status << " " << canonical(n.document);
    const auto e = httpsig::error_from_json_text(a.body);
    ASSERT_TRUE(e) << n.name;
    EXPECT_FALSE(e->what.empty() && e->expected.empty()) << n.name;
  }
  for (const char* text :
       {"", "{", "[]", "null", "{\"name\":1,\"name\":2}", "{\"name\":1.5}", "\xff"}) {
    EXPECT_EQ(call("POST", "/v1/things", text, "application/json").status / 100, 4) << text;
  }
  EXPECT_EQ(api_.created, 1);
}

TEST_F(ApiTest, BodiesQueriesAndRolesAreHeldToTheTable) {
  EXPECT_EQ(call("POST", "/v1/things", "{}", "text/plain").status, 415);
  EXPECT_EQ(call("POST", "/v1/things", "", "").status, 411);
  EXPECT_EQ(call("POST", "/v1/things", std::string(65537, ' '), "application/json").status, 413);
  EXPECT_EQ(call("GET", "/v1/things", "{}", "application/json").status, 413);
  EXPECT_EQ(call("PUT", "/v1/things/a/object", std::string((1U << 20) + 1, 'x'),
                 "application/octet-stream")
                .status,
            413);
  EXPECT_EQ(call("GET", "/v1/things?limit=7&after=00ff", "", "").body, "7");
  for (const char* q : {"limit=-1", "limit=x", "limit=", "limit=101", "limit=07", "after=0",
                        "after=FF", "other=1", "limit=99999999999999999999"}) {
    const auto a = call("GET", std::string("/v1/things?") + q, "", "");
    EXPECT_EQ(a.status, 422) << q;
    EXPECT_NE(a.body.find("openapi.json"), std::string::npos) << q;
  }
  EXPECT_EQ(call("GET", "/v1/things", "", "", "").status, 401);
  EXPECT_EQ(call("GET", "/v1/things", "", "", "replay").status, 401);
  EXPECT_EQ(call("GET", "/v1/things", "", "", "busy").status, 429);
  const auto denied = call("GET", "/v1/things", "", "", "node");
  EXPECT_EQ(denied.status, 403);
  const auto e = httpsig::error_from_json_text(denied.body);
  ASSERT_TRUE(e);
  EXPECT_EQ(e->reason, Reason::kWrongRole);
  EXPECT_EQ(e->expected, "owner or consumer");
  EXPECT_EQ(e->actual, "node");
  EXPECT_EQ(call("GET", "/health", "", "", "").status, 200);
  EXPECT_EQ(call("GET", "/health", "", "", "", "x-why: nothing\r\n").status, 200);
  EXPECT_EQ(call("GET", "/health", "", "", "", "x-why: \r\n").status, 422);
  EXPECT_EQ(call("GET", "/health", "", "", "", "x-why: too long a\r\n").status, 422);
}

TEST(Router, ATableThatContradictsItselfIsRefused) {
  const RouteInfo good{.method = "GET",
                       .path = "/a/{x}",
                       .operation_id = "a",
                       .summary = "s",
                       .response_schema = "A"};
  EXPECT_TRUE(Router({good}).check().ok());
  RouteInfo twin = good;
  twin.path = "/a/{y}";
  twin.operation_id = "b";
  EXPECT_FALSE(Router({good, twin}).check().ok());
  RouteInfo same_id = good;
  same_id.path = "/b";
  EXPECT_FALSE(Router({good, same_id}).check().ok());
  RouteInfo body = good;
  body.body = BodyKind::kJson;
  EXPECT_FALSE(Router({body}).check().ok());
  RouteInfo silent = good;
  silent.response_schema = {};
  EXPECT_FALSE(Router({silent}).check().ok()) << "a JSON answer that no schema describes";
  silent.response_type = "text/plain";
  EXPECT_TRUE(Router({silent}).check().ok());
  RouteInfo dangling = good;
  dangling.response_schema = "Nowhere";
  EXPECT_EQ(openapi_document({"t", "1", "s"}, {dangling}, Schemas()).reason(), Reason::kInternal);
}

TEST_F(ApiTest, TheDocumentIsOpenApi31) {
  EXPECT_EQ(*document_.find("openapi"), Json("3.1.0"));
  const Json& post = *document_.find("paths")->find("/v1/things")->find("post");
  EXPECT_EQ(canonical(*post.find("x-glovebox-roles")), R"(["owner"])");
  EXPECT_EQ(canonical(*post.find("security")), R"([{"signedRequest":[]}])");
  EXPECT_EQ(canonical(*document_.find("paths")->find("/health")->find("get")->find("security")),
            "[]");
  const Json& health = *document_.find("paths")->find("/health")->find("get");
  EXPECT_EQ(
      canonical(*health.find("parameters")),
      R"([{"description":"for the log","in":"header","name":"x-why","required":false,"schema":{"maxLength":8,"minLength":1,"type":"string"}}])");
  EXPECT_NE(health.find("responses")->find("503"), nullptr);
  const Json& get = *document_.find("paths")->find("/v1/things/{id}")->find("get");
  EXPECT_EQ(
      canonical(*get.find("parameters")),
      R"([{"in":"path","name":"id","required":true,"schema":{"minLength":1,"type":"string"}}])");
}

}  // namespace api_test
}  // namespace gbx::plane::api
