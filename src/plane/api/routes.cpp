#include "plane/api/routes.h"

#include <set>

#include "base/secret.h"
#include "crypto/crypto.h"
#include "httpsig/request_signing.h"

namespace gbx::plane::api {
namespace {

constexpr std::uint64_t kDefaultJsonBody = 4U << 20;

constexpr std::pair<RoleSet, std::string_view> kRoleNames[] = {
    {kOwner, "owner"}, {kConsumer, "consumer"}, {kReviewer, "reviewer"},
    {kNode, "node"},   {kOperator, "operator"}, {kAuditor, "auditor"}};

std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> out;
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::size_t slash = std::min(path.find('/'), path.size());
    out.push_back(path.substr(0, slash));
    path.remove_prefix(slash);
  }
  return out;
}

bool is_parameter(std::string_view segment) {
  return segment.size() > 2 && segment.front() == '{' && segment.back() == '}';
}

// How well a path fits: -1 not at all, else one bit per literal segment, the first the heaviest.
int fit(const std::vector<std::string_view>& pattern, const std::vector<std::string>& path) {
  if (pattern.size() != path.size()) return -1;
  int score = 0;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    score *= 2;
    if (pattern[i] == path[i]) {
      ++score;
    } else if (!is_parameter(pattern[i])) {
      return -1;
    }
  }
  return score;
}

// What a caller got wrong about the API itself is in its description.
http::Response refusal(Error error, int status = 0) {
  if (error.next.empty()) error.hint("GET /openapi.json describes every request");
  return http::error_response(error, status);
}

Status check_parameter(const QueryParameter& p, const std::string& value) {
  const std::string where = "query parameter " + std::string(p.name);
  const auto bad = [&where](const char* expected) {
    return Status(fail(Reason::kBadValue, where).with(expected, "something else"));
  };
  if (p.kind == ParameterKind::kInteger) {
    if (value.empty() || value.size() > 16 || (value.size() > 1 && value[0] == '0')) {
      return bad("a decimal number");
    }
    std::int64_t v = 0;
    for (const char c : value) {
      if (c < '0' || c > '9') return bad("a decimal number");
      v = v * 10 + (c - '0');
    }
    if (v <= p.max) return ok_status();
    return fail(Reason::kBadValue, where).with("at most " + std::to_string(p.max), value);
  }
  if (value.size() > static_cast<std::size_t>(p.max)) {
    return fail(Reason::kBadValue, where)
        .with("at most " + std::to_string(p.max) + " bytes",
              std::to_string(value.size()) + " bytes");
  }
  if (p.kind == ParameterKind::kHex && !from_hex(value).ok()) return bad("lower-case hex");
  return ok_status();
}

Status check_query(const RouteInfo& route, const http::Request& request) {
  for (const auto& [name, value] : request.query) {
    const QueryParameter* known = nullptr;
    for (const QueryParameter& p : route.query) {
      if (p.name == name) known = &p;
    }
    if (known == nullptr) {
      return fail(Reason::kUnknownField, "query parameter " + printable(name, 64));
    }
    GBX_TRY(check_parameter(*known, value));
  }
  return ok_status();
}

Status check_headers(const RouteInfo& route, const http::Request& request) {
  for (const HeaderParameter& h : route.headers) {
    const auto it = request.headers.find(std::string(h.name));
    if (it == request.headers.end()) continue;
    if (!it->second.empty() && it->second.size() <= static_cast<std::size_t>(h.max)) continue;
    return fail(Reason::kBadValue, std::string(h.name))
        .with("1 to " + std::to_string(h.max) + " characters", std::to_string(it->second.size()));
  }
  return ok_status();
}

std::optional<http::Response> check_body(const RouteInfo& route, const http::Request& request) {
  if (route.body == BodyKind::kNone) return std::nullopt;  // its limit of 0 bytes says the rest
  if (!request.headers.contains("content-length")) {
    return refusal(fail(Reason::kUsage, "this request needs a body with a content-length"), 411);
  }
  const auto type = request.headers.find("content-type");
  const std::string_view wanted =
      route.body == BodyKind::kJson ? "application/json" : "application/octet-stream";
  if (type == request.headers.end() || type->second.substr(0, type->second.find(';')) != wanted) {
    const std::string actual = type == request.headers.end() ? "none" : printable(type->second, 64);
    return refusal(fail(Reason::kUsage, "content-type").with(std::string(wanted), actual), 415);
  }
  return std::nullopt;
}

}  // namespace

std::vector<std::string_view> role_names(RoleSet roles) {
  std::vector<std::string_view> out;
  for (const auto& [bit, name] : kRoleNames) {
    if ((roles & bit) != 0) out.push_back(name);
  }
  return out;
}

Result<RoleSet> role_from_name(std::string_view name) {
  for (const auto& [bit, known] : kRoleNames) {
    if (known == name) return bit;
  }
  return fail(Reason::kBadValue, "role")
      .with("owner, consumer, reviewer, node, operator or auditor", printable(name, 32));
}

const std::string& Call::parameter(const std::string& name) const { return path.at(name); }

std::string Call::query(const std::string& name, std::string otherwise) const {
  const auto it = request.query.find(name);
  return it == request.query.end() ? otherwise : it->second;
}

std::int64_t Call::query_integer(const std::string& name, std::int64_t otherwise) const {
  const auto it = request.query.find(name);
  if (it == request.query.end()) return otherwise;
  std::int64_t v = 0;
  for (const char c : it->second) v = v * 10 + (c - '0');  // plan() checked digits and size
  return v;
}

Router::Router(std::vector<RouteInfo> routes) : routes_(std::move(routes)) {
  for (const RouteInfo& r : routes_) segments_.push_back(split(r.path));
}

Result<Match> Router::match(const std::string& method, const std::vector<std::string>& path) const {
  int best = -1;
  std::size_t found = 0;
  std::set<std::string_view> allowed;
  for (std::size_t i = 0; i < routes_.size(); ++i) {
    const int score = fit(segments_[i], path);
    if (score < 0) continue;
    allowed.insert(routes_[i].method);
    if (routes_[i].method == method && score > best) {
      best = score;
      found = i;
    }
  }
  if (allowed.empty()) return fail(Reason::kNotFound, "no such path in this API");
  if (best < 0) {
    std::string list;
    for (const std::string_view m : allowed) list += (list.empty() ? "" : ", ") + std::string(m);
    return fail(Reason::kUsage, "method of this path").with(list, printable(method, 16));
  }
  Match out;
  out.index = found;
  for (std::size_t i = 0; i < path.size(); ++i) {
    const std::string_view s = segments_[found][i];
    if (is_parameter(s)) out.path[std::string(s.substr(1, s.size() - 2))] = path[i];
  }
  return out;
}

Status Router::check() const {
  std::set<std::string> shapes;
  std::set<std::string_view> operations;
  for (std::size_t i = 0; i < routes_.size(); ++i) {
    const RouteInfo& r = routes_[i];
    const std::string where = std::string(r.method) + " " + std::string(r.path);
    const auto wrong = [&where](const char* what) {
      return Status(fail(Reason::kInternal, where + ": " + what));
    };
    if (r.path.empty() || r.path[0] != '/' || segments_[i].size() > http::kMaxSegments) {
      return wrong("malformed path");
    }
    std::string shape(r.method);
    for (const std::string_view s : segments_[i]) {
      if (s.empty()) return wrong("empty segment");
      shape += "/" + std::string(is_parameter(s) ? "{}" : s);
    }
    if (!shapes.insert(shape).second) return wrong("answers the same requests as another route");
    if (r.operation_id.empty() || !operations.insert(r.operation_id).second) {
      return wrong("operation id");
    }
    if (r.summary.empty()) return wrong("no summary");
    if (r.body == BodyKind::kJson && r.request_schema.empty()) {
      return wrong("JSON body without a schema");
    }
    if (r.body != BodyKind::kJson && !r.request_schema.empty()) {
      return wrong("a schema without a JSON body");
    }
    if (r.body == BodyKind::kStream && r.max_body == 0) return wrong("a stream without a limit");
    if (r.method == "GET" && r.body != BodyKind::kNone) return wrong("GET with a body");
    if (r.bearer && r.roles != kPublic) return wrong("a token and roles");
    const bool json = r.response_type == "application/json" && r.success != 204;
    if (json == r.response_schema.empty()) {
      return wrong("a JSON answer and a schema for it come together");
    }
  }
  return ok_status();
}

http::BodyPlan Gatekeeper::plan(const http::Request& request) const {
  http::BodyPlan plan;
  const Result<Match> match = router_.match(request.method, request.path);
  if (!match.ok()) {
    plan.refuse = refusal(match.error(), match.reason() == Reason::kNotFound ? 404 : 405);
    if (match.reason() != Reason::kNotFound) plan.refuse->headers["allow"] = match.error().expected;
    return plan;
  }
  const RouteInfo& route = router_.routes()[match->index];
  if (route.body != BodyKind::kNone) {
    plan.max_bytes = route.max_body != 0 ? route.max_body : kDefaultJsonBody;
  }
  plan.streaming = route.body == BodyKind::kStream;
  Status parameters = check_query(route, request);
  if (parameters.ok()) parameters = check_headers(route, request);
  if (!parameters.ok()) {
    plan.refuse = refusal(parameters.error());
  } else {
    plan.refuse = check_body(route, request);
  }
  return plan;
}

bool Gatekeeper::bears_token(const http::Request& request) const {
  static constexpr std::string_view kScheme = "Bearer ";
  const auto header = request.headers.find("authorization");
  if (!bearer_ || header == request.headers.end() || !header->second.starts_with(kScheme)) {
    return false;
  }
  const std::string_view token = std::string_view(header->second).substr(kScheme.size());
  return constant_time_equal(crypto::sha256(as_bytes(token)), *bearer_);
}

std::variant<Gatekeeper::Admitted, http::Response> Gatekeeper::admit(
    const http::Request& request) const {
  Result<Match> match = router_.match(request.method, request.path);
  if (!match.ok()) return refusal(match.error());
  const RouteInfo& route = router_.routes()[match->index];
  Caller caller;
  bool known = route.bearer;
  if (route.bearer && !bears_token(request)) {
    http::Response r = http::error_response(
        fail(Reason::kUnauthenticated, "this needs the installation's bearer token")
            .hint("its operator has the file"),
        401);
    r.headers["www-authenticate"] = "Bearer";
    return r;
  }
  const bool identified = route.signed_too && request.headers.contains(httpsig::kSignatureHeader);
  if (route.roles != kPublic || identified) {
    const Result<Caller> authenticated = authenticate_(request);
    if (!authenticated.ok()) {
      const Reason why = authenticated.reason();
      const bool own_status = why == Reason::kRateLimited ||
                              exit_class(why) == ExitClass::kInfrastructure ||
                              exit_class(why) == ExitClass::kInternal;
      return http::error_response(authenticated.error(), own_status ? 0 : 401);
    }
    caller = *authenticated;
    known = caller.enrolled;
    if (route.roles != kPublic && (caller.roles & route.roles) == 0) {
      std::string wanted;
      for (const std::string_view r : role_names(route.roles)) {
        wanted += (wanted.empty() ? "" : " or ") + std::string(r);
      }
      std::string actual;
      for (const std::string_view r : role_names(caller.roles)) {
        actual += (actual.empty() ? "" : ", ") + std::string(r);
      }
      return http::error_response(
          fail(Reason::kWrongRole, "role of the caller")
              .with(wanted, actual.empty() ? "none" : actual)
              .hint("with an operator's invite to the role: glovebox identity enrol --role " +
                    std::string(role_names(route.roles).front()) + " --invite-file FILE"));
    }
  }
  return Admitted{match->index, Call{request, route, std::move(match->path), caller}, known};
}

}  // namespace gbx::plane::api
