// One table says what the HTTPS API is: the router, the limits on bodies, the role check and the
// OpenAPI 3.1 document all come from it. A table is an array of Route<Api>, Api being the class
// whose members answer:
//
//   constexpr Route<PlaneApi> kRoutes[] = {
//       {{.method = "GET", .path = "/v1/jobs/{id}", .operation_id = "getJob", .summary = "One job",
//         .roles = kConsumer | kOwner, .response_schema = "Job"}, &PlaneApi::get_job}, …};
//
// Requests are untrusted; what reaches a handler has a known route, known query names, a body of
// the right kind and size, and a caller that `Authenticate` accepted for the route's roles.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/fields.h"
#include "plane/http/server.h"
#include "plane/http/target.h"

namespace gbx::plane::api {

// Bits of a role set. An empty set on a route means that anybody may call it, unsigned, or signed
// where the route says so.
using RoleSet = std::uint32_t;
inline constexpr RoleSet kOwner = 1;
inline constexpr RoleSet kConsumer = 2;
inline constexpr RoleSet kReviewer = 4;
inline constexpr RoleSet kNode = 8;
inline constexpr RoleSet kOperator = 16;
inline constexpr RoleSet kAuditor = 32;
inline constexpr RoleSet kPublic = 0;
inline constexpr RoleSet kAnyRole = 63;
std::vector<std::string_view> role_names(RoleSet roles);
Result<RoleSet> role_from_name(std::string_view name);

enum class BodyKind { kNone, kJson, kStream };
enum class ParameterKind { kText, kInteger, kHex };

struct QueryParameter {
  std::string_view name;
  std::string_view summary;
  ParameterKind kind = ParameterKind::kText;
  std::int64_t max = 256;  // length of text; value of an integer (from 0)
};

struct HeaderParameter {
  std::string_view name;  // lower case
  std::string_view summary;
  std::int64_t max = 256;  // its length; an empty one is refused
};

struct RouteInfo {
  std::string_view method;
  std::string_view path;  // "/v1/jobs/{id}"
  std::string_view operation_id;
  std::string_view summary;
  RoleSet roles = kPublic;
  std::string_view request_schema{};   // name of a component; only with kJson
  std::string_view response_schema{};  // empty: response_type is no JSON, or the answer has no body
  BodyKind body = BodyKind::kNone;
  std::uint64_t max_body = 0;  // 0 with kJson: 4 MiB
  int success = 200;
  std::string_view response_type = "application/json";
  std::span<const QueryParameter> query{};
  std::span<const HeaderParameter> headers{};  // optional ones that this operation looks at
  // another status that comes with the same body; 0: none
  int also = 0;
  // for programs: unsigned, with the installation's bearer token
  bool bearer = false;
  // open to anybody; whoever signs all the same is known by it, or refused as elsewhere
  bool signed_too = false;
};

struct Caller {
  Hash32 identity{};
  RoleSet roles = 0;
  bool enrolled = true;              // false: whoever just enrols
  std::shared_ptr<void> share = {};  // of the service, held until the answer is there
};
struct Call {
  const http::Request& request;
  const RouteInfo& route;
  std::map<std::string, std::string> path;  // {id} → value
  Caller caller;  // identity all zero on a public route that was not, or cannot be, signed

  const std::string& parameter(const std::string& name) const;
  std::string query(const std::string& name, std::string otherwise = {}) const;
  std::int64_t query_integer(const std::string& name, std::int64_t otherwise) const;
};

template <class Api>
struct Route {
  RouteInfo info;
  http::Response (Api::*handler)(const Call&);
};

struct Match {
  std::size_t index = 0;
  std::map<std::string, std::string> path;
};

// Matching only. The infos are copied (the text that they point to is the table's, and static).
class Router {
 public:
  explicit Router(std::vector<RouteInfo> routes);
  // Errors: kNotFound; a known path with another method is kUsage with the allowed methods in
  // `expected`. A literal segment goes before a parameter.
  Result<Match> match(const std::string& method, const std::vector<std::string>& path) const;
  const std::vector<RouteInfo>& routes() const { return routes_; }
  // Two routes that answer the same request, a path that is malformed, a body kind that does not
  // fit.
  Status check() const;

 private:
  std::vector<RouteInfo> routes_;
  std::vector<std::vector<std::string_view>> segments_;
};

// Who calls: verifies the signature (httpsig) and looks the identity's roles up. Its errors become
// 401, but kRateLimited 429 and kUnavailable 503. Called on a pool thread, never for what is open
// to anybody and not signed.
using Authenticate = std::function<Result<Caller>(const http::Request&)>;

// Everything between the server and a handler. Thread-safe.
class Gatekeeper {
 public:
  // `bearer`: SHA-256 of the token of the routes that want one; without it they answer nobody.
  Gatekeeper(std::vector<RouteInfo> routes, Authenticate authenticate,
             std::optional<Hash32> bearer = std::nullopt)
      : router_(std::move(routes)), authenticate_(std::move(authenticate)), bearer_(bearer) {}
  // From the header alone: 404, 405, 411, 415, unknown query parameters, limits.
  http::BodyPlan plan(const http::Request& request) const;
  struct Admitted {
    std::size_t index = 0;
    Call call;
    bool known_caller = false;
  };
  // Then authentication and roles. `request` must outlive the Call.
  std::variant<Admitted, http::Response> admit(const http::Request& request) const;
  const Router& router() const { return router_; }

 private:
  bool bears_token(const http::Request& request) const;

  Router router_;
  Authenticate authenticate_;
  std::optional<Hash32> bearer_;
};

// Joins a table, an object and a server. Both must outlive the server.
template <class Api>
class Dispatcher {
 public:
  Dispatcher(std::span<const Route<Api>> table, Api& api, Authenticate authenticate,
             std::optional<Hash32> bearer = std::nullopt)
      : table_(table), api_(api), gate_(infos(table), std::move(authenticate), bearer) {}
  http::Response handle(const http::Request& request) const {
    std::variant<Gatekeeper::Admitted, http::Response> admitted = gate_.admit(request);
    if (auto* refused = std::get_if<http::Response>(&admitted)) return std::move(*refused);
    const Gatekeeper::Admitted& go = std::get<Gatekeeper::Admitted>(admitted);
    http::Response r = (api_.*table_[go.index].handler)(go.call);
    r.known_caller = go.known_caller;
    return r;
  }
  http::Planner planner() const {
    return [this](const http::Request& r) { return gate_.plan(r); };
  }
  http::Handler handler() const {
    return [this](const http::Request& r) { return handle(r); };
  }
  const Router& router() const { return gate_.router(); }

 private:
  static std::vector<RouteInfo> infos(std::span<const Route<Api>> table) {
    std::vector<RouteInfo> out;
    for (const Route<Api>& r : table) out.push_back(r.info);
    return out;
  }
  std::span<const Route<Api>> table_;
  Api& api_;
  Gatekeeper gate_;
};

// The typed body of a call: strict, errors name the member.
template <class T>
Result<T> read_json_body(const Call& call) {
  JsonLimits limits;
  limits.max_bytes = call.request.body.size();
  return from_json_text<T>(as_text(call.request.body), limits);
}
template <class T>
http::Response reply(int status, const T& record) {
  return http::json_response(status, to_json(record));
}
template <class T>
http::Response reply_or_error(int status, const Result<T>& result) {
  return result.ok() ? reply(status, *result) : http::error_response(result.error());
}

}  // namespace gbx::plane::api
