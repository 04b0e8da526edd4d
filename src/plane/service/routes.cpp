// The table that is the HTTPS API. docs/plane.md describes it in words; GET /openapi.json is made
// from it.
#include "plane/service/api.h"
#include "records/held_ledger.h"

namespace gbx::plane {

namespace {

using api::BodyKind;
using api::ParameterKind;
using api::QueryParameter;
using api::Route;

constexpr std::int64_t kMostEntries = 200;
constexpr std::int64_t kMostJobs = 1'000;
constexpr QueryParameter kPage[] = {
    {"limit", "entries of one page", ParameterKind::kInteger, kMostEntries},
    {"cursor", "`next` of the page before", ParameterKind::kText, 256},
};
constexpr QueryParameter kNonce[] = {
    {"nonce", "32 random bytes that the evidence must contain", ParameterKind::kHex, 64}};
constexpr QueryParameter kStatementNonce[] = {
    {"nonce", "32 random bytes that the statement must contain", ParameterKind::kHex, 64}};
constexpr QueryParameter kLedger[] = {
    kStatementNonce[0],
    {"consumer", "only what this identity's jobs cost; who does not own the asset names itself",
     ParameterKind::kHex, 64},
    {"after", "entries to leave out, the oldest first", ParameterKind::kInteger,
     records::kMaxTreeSize},
};
constexpr QueryParameter kAssets[] = {
    kPage[0],
    kPage[1],
    {"name", "public label of the version", ParameterKind::kText, 64},
    {"owner", "identity of the owner, or how it begins", ParameterKind::kHex, 64},
    {"kind", "dataset, model or image", ParameterKind::kText, 16},
    {"digest", "content of an image, as sha256:…", ParameterKind::kText, 71},
    {"delisted", "1: also what is no longer offered", ParameterKind::kInteger, 1},
};
constexpr QueryParameter kJobs[] = {
    {"limit", "jobs of one page", ParameterKind::kInteger, kMostJobs},
    kPage[1],
    {"state", "only jobs in this state", ParameterKind::kText, 16},
    {"consumer", "only jobs of this identity (operators and auditors)", ParameterKind::kHex, 64},
    {"live", "1: only jobs that have not ended; 0: only ended ones", ParameterKind::kInteger, 1},
};
constexpr QueryParameter kWait[] = {
    {"after", "wait until the job's version is above this one", ParameterKind::kInteger,
     kMaxJsonInteger},
    {"waitMs", "wait at most so long", ParameterKind::kInteger, 30'000},
};

constexpr api::HeaderParameter kIdempotency[] = {
    {"idempotency-key",
     "the same key and the same spec are the same job, however often they are sent", 128},
};

constexpr std::uint64_t kObjectBytes = std::uint64_t{128} << 20;
constexpr std::uint64_t kSmall = 64U << 10;
constexpr std::uint64_t kSigned = records::kMaxRequestBytes;  // what the broker takes

constexpr Route<PlaneApi> kRoutes[] = {
    {{.method = "GET",
      .path = "/v1/info",
      .operation_id = "getInfo",
      .summary = "Versions, key set and authority of this service",
      .response_schema = "Info"},
     &PlaneApi::info},
    {{.method = "GET",
      .path = "/v1/broker",
      .operation_id = "getBroker",
      .summary = "The broker's evidence for a nonce",
      .response_schema = "BrokerInfo",
      .query = kNonce,
      .signed_too = true},
     &PlaneApi::broker_info},
    {{.method = "GET",
      .path = "/openapi.json",
      .operation_id = "getOpenApi",
      .summary = "This document",
      .response_schema = "OpenApi"},
     &PlaneApi::openapi_json},
    {{.method = "GET",
      .path = "/healthz",
      .operation_id = "getHealth",
      .summary = "The process answers",
      .response_schema = "Health"},
     &PlaneApi::healthz},
    {{.method = "GET",
      .path = "/readyz",
      .operation_id = "getReadiness",
      .summary = "Store and broker answer",
      .response_schema = "Readiness",
      .also = 503},
     &PlaneApi::readyz},
    {{.method = "GET",
      .path = "/metrics",
      .operation_id = "getMetrics",
      .summary = "Counts for Prometheus",
      .response_type = "text/plain; version=0.0.4",
      .bearer = true},
     &PlaneApi::metrics},

    {{.method = "POST",
      .path = "/v1/identities",
      .operation_id = "enrol",
      .summary = "Enrols an identity: itself with an invite, anybody as operator",
      .roles = api::kAnyRole,
      .request_schema = "EnrolRequest",
      .response_schema = "Identity",
      .body = BodyKind::kJson,
      .max_body = kSmall,
      .success = 201},
     &PlaneApi::enrol},
    {{.method = "GET",
      .path = "/v1/identities",
      .operation_id = "listIdentities",
      .summary = "Who is enrolled",
      .roles = api::kOperator | api::kAuditor,
      .response_schema = "IdentityList",
      .query = kPage},
     &PlaneApi::identities},
    {{.method = "GET",
      .path = "/v1/identities/{id}",
      .operation_id = "getIdentity",
      .summary = "Key chain, name and roles of one identity",
      .roles = api::kAnyRole,
      .response_schema = "Identity"},
     &PlaneApi::identity},
    {{.method = "POST",
      .path = "/v1/identities/{id}/rotations",
      .operation_id = "rotateKey",
      .summary = "Passes a signed key rotation to the broker",
      .roles = api::kAnyRole,
      .request_schema = "RotateRequest",
      .response_schema = "Identity",
      .body = BodyKind::kJson,
      .max_body = kSmall},
     &PlaneApi::rotate},
    {{.method = "POST",
      .path = "/v1/invites",
      .operation_id = "createInvite",
      .summary = "A token with which identities enrol themselves",
      .roles = api::kOperator,
      .request_schema = "InviteRequest",
      .response_schema = "Invite",
      .body = BodyKind::kJson,
      .max_body = kSmall,
      .success = 201},
     &PlaneApi::invite},

    {{.method = "POST",
      .path = "/v1/assets",
      .operation_id = "publishAsset",
      .summary = "Passes a publication, or a new policy, to the broker and lists it",
      .roles = api::kOwner,
      .request_schema = "Publish",
      .response_schema = "SignedPublishAck",
      .body = BodyKind::kJson,
      .max_body = kSigned,
      .success = 201},
     &PlaneApi::publish},
    {{.method = "POST",
      .path = "/v1/beacons",
      .operation_id = "sendBeacon",
      .summary = "Passes an owner's word that a policy still stands to the broker",
      .roles = api::kOwner,
      .request_schema = "BeaconRequest",
      .response_schema = "SignedBeaconAck",
      .body = BodyKind::kJson,
      .max_body = kSmall,
      .success = 201},
     &PlaneApi::beacon},
    {{.method = "GET",
      .path = "/v1/assets",
      .operation_id = "listAssets",
      .summary = "The catalogue, newest first",
      .roles = api::kAnyRole,
      .response_schema = "AssetList",
      .query = kAssets},
     &PlaneApi::assets},
    {{.method = "GET",
      .path = "/v1/assets/{id}",
      .operation_id = "getAsset",
      .summary = "One version with its latest policy",
      .roles = api::kAnyRole,
      .response_schema = "Asset"},
     &PlaneApi::asset},
    {{.method = "POST",
      .path = "/v1/assets/{id}/delist",
      .operation_id = "delistAsset",
      .summary = "Takes a version out of the catalogue",
      .roles = api::kOwner | api::kOperator,
      .response_schema = "Empty"},
     &PlaneApi::delist},
    {{.method = "GET",
      .path = "/v1/assets/{id}/policies",
      .operation_id = "listPolicies",
      .summary = "All policies of one version",
      .roles = api::kAnyRole,
      .response_schema = "PolicyList",
      .query = kPage},
     &PlaneApi::asset_policies},
    {{.method = "GET",
      .path = "/v1/policies/{hash}",
      .operation_id = "getPolicy",
      .summary = "One signed policy",
      .roles = api::kAnyRole,
      .response_schema = "Policy"},
     &PlaneApi::policy},

    {{.method = "PUT",
      .path = "/v1/objects/{name}",
      .operation_id = "putObject",
      .summary = "Stores ciphertext under its name; the same bytes again are no error",
      .roles = api::kOwner | api::kConsumer,
      .response_schema = "Object",
      .body = BodyKind::kStream,
      .max_body = kObjectBytes,
      .success = 201},
     &PlaneApi::put_object},
    {{.method = "GET",
      .path = "/v1/objects/{name}",
      .operation_id = "getObject",
      .summary = "Ciphertext",
      .roles = api::kAnyRole,
      .response_type = "application/octet-stream"},
     &PlaneApi::get_object},
    {{.method = "HEAD",
      .path = "/v1/objects/{name}",
      .operation_id = "headObject",
      .summary = "Length of an object",
      .roles = api::kAnyRole,
      .response_type = "application/octet-stream"},
     &PlaneApi::get_object},

    {{.method = "POST",
      .path = "/v1/leases",
      .operation_id = "addLease",
      .summary = "Keeps a signed lease for its consumer",
      .roles = api::kOwner | api::kConsumer,
      .request_schema = "SignedLease",
      .response_schema = "Empty",
      .body = BodyKind::kJson,
      .max_body = kSmall,
      .success = 201},
     &PlaneApi::add_lease},
    {{.method = "GET",
      .path = "/v1/leases",
      .operation_id = "listLeases",
      .summary = "Leases of the caller, and those it gave",
      .roles = api::kAnyRole,
      .response_schema = "LeaseList",
      .query = kPage},
     &PlaneApi::leases},

    {{.method = "GET",
      .path = "/v1/ledgers/{asset}",
      .operation_id = "getLedger",
      .summary = "The broker's statement on what jobs cost an asset: its owner's, or the own part",
      .roles = api::kOwner | api::kConsumer,
      .response_schema = "SignedLedgerStatement",
      .query = kLedger},
     &PlaneApi::ledger},

    {{.method = "POST",
      .path = "/v1/jobs/plan",
      .operation_id = "planJob",
      .summary = "What would be allowed, and why; nothing is logged",
      .roles = api::kConsumer,
      .request_schema = "SignedSubmission",
      .response_schema = "Explanation",
      .body = BodyKind::kJson,
      .max_body = kSigned},
     &PlaneApi::plan},
    {{.method = "POST",
      .path = "/v1/jobs",
      .operation_id = "submitJob",
      .summary =
          "Submits a signed job; with an idempotency-key header the same spec is the same job",
      .roles = api::kConsumer,
      .request_schema = "SignedSubmission",
      .response_schema = "Job",
      .body = BodyKind::kJson,
      .max_body = kSigned,
      .success = 201,
      .headers = kIdempotency},
     &PlaneApi::submit},
    {{.method = "GET",
      .path = "/v1/jobs",
      .operation_id = "listJobs",
      .summary = "Jobs of the caller, newest first",
      .roles = api::kConsumer | api::kOperator | api::kAuditor,
      .response_schema = "JobList",
      .query = kJobs},
     &PlaneApi::jobs},
    {{.method = "GET",
      .path = "/v1/jobs/{id}",
      .operation_id = "getJob",
      .summary = "One job; waits for a change when asked to",
      .roles = api::kConsumer | api::kOperator | api::kAuditor,
      .response_schema = "Job",
      .query = kWait},
     &PlaneApi::job},
    {{.method = "GET",
      .path = "/v1/jobs/{id}/detail",
      .operation_id = "getJobDetail",
      .summary = "Submission and plan as they were signed",
      .roles = api::kConsumer | api::kOperator | api::kAuditor,
      .response_schema = "JobDetail"},
     &PlaneApi::job_detail},
    {{.method = "GET",
      .path = "/v1/jobs/{id}/events",
      .operation_id = "getJobEvents",
      .summary = "The whole hash-chained history",
      .roles = api::kConsumer | api::kOperator | api::kAuditor,
      .response_schema = "JobEvents",
      .query = kWait},
     &PlaneApi::job_events},
    {{.method = "POST",
      .path = "/v1/jobs/{id}/cancel",
      .operation_id = "cancelJob",
      .summary = "Ends a job by the signed wish of its consumer or an operator",
      .roles = api::kConsumer | api::kOperator,
      .request_schema = "CancelRequest",
      .response_schema = "Job",
      .body = BodyKind::kJson,
      .max_body = kSmall},
     &PlaneApi::cancel},
    {{.method = "GET",
      .path = "/v1/jobs/{id}/result",
      .operation_id = "getResult",
      .summary = "Sealed output and what opens it, for its consumer",
      .roles = api::kConsumer,
      .response_schema = "JobResult"},
     &PlaneApi::result},
    {{.method = "GET",
      .path = "/v1/jobs/{id}/receipt",
      .operation_id = "getReceipt",
      .summary = "What a stranger verifies offline",
      .roles = api::kConsumer | api::kOperator | api::kAuditor,
      .response_schema = "Receipt"},
     &PlaneApi::receipt},

    {{.method = "GET",
      .path = "/v1/nodes",
      .operation_id = "listNodes",
      .summary = "Enrolled nodes",
      .roles = api::kAnyRole,
      .response_schema = "NodeList",
      .query = kPage},
     &PlaneApi::nodes},
    {{.method = "POST",
      .path = "/v1/nodes",
      .operation_id = "enrolNode",
      .summary = "Lets a node with this key connect",
      .roles = api::kOperator,
      .request_schema = "NodeEnrolRequest",
      .response_schema = "Empty",
      .body = BodyKind::kJson,
      .max_body = kSmall,
      .success = 201},
     &PlaneApi::enrol_node},

    {{.method = "GET",
      .path = "/v1/reviews",
      .operation_id = "listReviews",
      .summary = "Held outputs that wait for the caller",
      .roles = api::kReviewer,
      .response_schema = "ReviewList",
      .query = kPage},
     &PlaneApi::reviews},
    {{.method = "GET",
      .path = "/v1/reviews/{id}",
      .operation_id = "getReview",
      .summary = "One held output, for its reviewers: what was signed, and what opens it",
      .roles = api::kReviewer,
      .response_schema = "ReviewDetail"},
     &PlaneApi::review},
    {{.method = "GET",
      .path = "/v1/reviews/{id}/ledger",
      .operation_id = "getReviewLedger",
      .summary = "The broker's statement on the budgets that a release would spend from",
      .roles = api::kReviewer,
      .response_schema = "SignedHeldLedgerStatement",
      .query = kStatementNonce},
     &PlaneApi::review_ledger},
    {{.method = "POST",
      .path = "/v1/reviews/{id}",
      .operation_id = "rule",
      .summary = "Passes a signed ruling to the broker",
      .roles = api::kReviewer,
      .request_schema = "RulingRequest",
      .response_schema = "Judgement",
      .body = BodyKind::kJson,
      .max_body = kSmall},
     &PlaneApi::rule},
};

// As much of an OpenAPI document as this service promises of its own.
Json document_schema() {
  Json s;
  s["type"] = "object";
  JsonArray required;
  for (const char* name : {"openapi", "info", "paths", "components"}) {
    s["properties"][name]["type"] = name == std::string_view("openapi") ? "string" : "object";
    required.push_back(Json(name));
  }
  s["properties"]["openapi"]["enum"] = JsonArray{Json("3.1.0")};
  s["required"] = Json(std::move(required));
  return s;
}

}  // namespace

std::span<const Route<PlaneApi>> PlaneApi::routes() { return kRoutes; }

const api::Schemas& PlaneApi::schemas() {
  static const api::Schemas all = [] {
    api::Schemas s;
    s.add<api::HealthView>("Health")
        .add<api::ReadinessView>("Readiness")
        .add("OpenApi", document_schema());
    s.add<api::InfoView>("Info").add<records::InfoReply>("BrokerInfo").add<records::Empty>("Empty");
    s.add<api::EnrolRequest>("EnrolRequest")
        .add<api::IdentityView>("Identity")
        .add<api::IdentityList>("IdentityList");
    s.add<records::RotateRequest>("RotateRequest")
        .add<api::InviteRequest>("InviteRequest")
        .add<api::InviteView>("Invite");
    s.add<records::Publish>("Publish").add<records::Signed<records::PublishAck>>(
        "SignedPublishAck");
    s.add<records::BeaconRequest>("BeaconRequest")
        .add<records::Signed<records::BeaconAck>>("SignedBeaconAck");
    s.add<api::AssetView>("Asset")
        .add<api::AssetList>("AssetList")
        .add<api::PolicyView>("Policy")
        .add<api::PolicyList>("PolicyList");
    s.add<records::Signed<records::LedgerStatement>>("SignedLedgerStatement");
    s.add<records::Signed<records::HeldLedgerStatement>>("SignedHeldLedgerStatement");
    s.add<api::ObjectView>("Object")
        .add<records::Signed<records::Lease>>("SignedLease")
        .add<api::LeaseList>("LeaseList");
    s.add<records::SignedSubmission>("SignedSubmission").add<records::Explanation>("Explanation");
    s.add<api::JobView>("Job")
        .add<api::JobList>("JobList")
        .add<api::JobDetail>("JobDetail")
        .add<api::JobEvents>("JobEvents");
    s.add<records::CancelRequest>("CancelRequest")
        .add<api::JobResult>("JobResult")
        .add<records::Receipt>("Receipt");
    s.add<api::NodeList>("NodeList")
        .add<api::NodeEnrolRequest>("NodeEnrolRequest")
        .add<api::ReviewList>("ReviewList")
        .add<api::ReviewDetail>("ReviewDetail");
    s.add<records::RulingRequest>("RulingRequest").add<records::Judgement>("Judgement");
    return s;
  }();
  return all;
}

Result<Json> PlaneApi::openapi(const std::string& version) {
  std::vector<api::RouteInfo> infos;
  for (const auto& r : routes()) infos.push_back(r.info);
  return api::openapi_document(
      {"Glovebox plane", version, "Jobs on data that nobody here can read"}, infos, schemas());
}

}  // namespace gbx::plane
