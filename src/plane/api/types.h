// Requests and responses of the plane's HTTPS API that are not signed records themselves (those are
// in records/). What a client sends is untrusted; what it reads here from the plane is, too:
// everything that matters is signed inside.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "records/messages.h"

namespace gbx::plane {

enum class Role { kOwner, kConsumer, kReviewer, kNode, kOperator, kAuditor };
inline std::span<const EnumName<Role>> enum_names(Role) {
  static constexpr EnumName<Role> k[] = {
      {Role::kOwner, "owner"}, {Role::kConsumer, "consumer"}, {Role::kReviewer, "reviewer"},
      {Role::kNode, "node"},   {Role::kOperator, "operator"}, {Role::kAuditor, "auditor"}};
  return k;
}

}  // namespace gbx::plane

namespace gbx::plane::api {

struct InfoView {
  std::string version;
  std::string api;  // "v1"
  records::SetId set_id{};
  records::SetChain set;
  // certificate of the plane's own authority, DER in base64url; empty: none
  std::string ca;
  std::int64_t time = 0;
  bool broker_connected = false;
  std::string broker_trouble;  // why not, where more is known
  template <class F>
  void fields(F& f) {
    f("version", version, Bound{1, 64});
    f("api", api, Bound{1, 16});
    f("setId", set_id);
    f("set", set);
    f("ca", ca, Bound{0, 8192});
    f("time", time);
    f("brokerConnected", broker_connected);
    f("brokerTrouble", broker_trouble, Bound{0, 512});
  }
};

struct HealthView {
  std::string status = "ok";
  template <class F>
  void fields(F& f) {
    f("status", status, Bound{1, 16});
  }
};
// Both true: 200; else 503.
struct ReadinessView {
  bool store = false;
  bool broker = false;
  std::string trouble;  // with the broker, where more is known
  template <class F>
  void fields(F& f) {
    f("store", store);
    f("broker", broker);
    f("trouble", trouble, Bound{0, 512});
  }
};

// An identity enrols itself (with an invite) or an operator enrols it. Enrolling again with the
// same roles is idempotent.
struct EnrolRequest {
  records::IdentityChain chain;
  std::string name;
  std::vector<Role> roles;
  std::optional<std::string> invite;
  template <class F>
  void fields(F& f) {
    f("chain", chain);
    f("name", name, Bound{1, 63});
    f("roles", roles, Bound{1, 6});
    f("invite", invite, Bound{1, 128});
  }
};
struct IdentityView {
  Hash32 identity_id{};
  std::string name;
  std::vector<Role> roles;
  records::IdentityChain chain;
  std::int64_t created_ms = 0;
  template <class F>
  void fields(F& f) {
    f("identityId", identity_id);
    f("name", name, Bound{1, 63});
    f("roles", roles, Bound{1, 6});
    f("chain", chain);
    f("createdMs", created_ms);
  }
};
struct IdentityList {
  std::vector<IdentityView> items;
  std::string next;
  template <class F>
  void fields(F& f) {
    f("items", items, Bound{0, 1000});
    f("next", next, Bound{0, 256});
  }
};
struct InviteRequest {
  std::vector<Role> roles;
  std::int64_t uses = 1;
  std::int64_t not_after = 0;  // unix seconds
  template <class F>
  void fields(F& f) {
    f("roles", roles, Bound{1, 6});
    f("uses", uses, Bound{1, 1000});
    f("notAfter", not_after);
  }
};
struct InviteView {
  std::string token;
  template <class F>
  void fields(F& f) {
    f("token", token, Bound{1, 128});
  }
};

// An owner's latest word that a policy still stands, and the set's that it is in the log.
struct BeaconView {
  records::BeaconRequest request;
  records::Signed<records::BeaconAck> ack;
  template <class F>
  void fields(F& f) {
    f("request", request);
    f("ack", ack);
  }
};
struct AssetView {
  Hash32 version_id{};
  records::Signed<records::VersionRecord> record;
  records::IdentityChain owner;
  records::Signed<records::Policy> policy;  // the latest
  Hash32 policy_hash{};
  records::Signed<records::PublishAck> ack;
  bool delisted = false;
  std::int64_t created_ms = 0;
  std::optional<BeaconView> beacon = {};  // for this policy
  template <class F>
  void fields(F& f) {
    f("versionId", version_id);
    f("record", record);
    f("owner", owner);
    f("policy", policy);
    f("policyHash", policy_hash);
    f("ack", ack);
    f("delisted", delisted);
    f("createdMs", created_ms);
    f("beacon", beacon);
  }
};
struct AssetList {
  std::vector<AssetView> items;
  std::string next;  // cursor of the next page; empty at the end
  template <class F>
  void fields(F& f) {
    f("items", items, Bound{0, 1000});
    f("next", next, Bound{0, 256});
  }
};
struct PolicyView {
  Hash32 policy_hash{};
  records::Signed<records::Policy> policy;
  records::Signed<records::PublishAck> ack;
  std::optional<BeaconView> beacon = {};
  template <class F>
  void fields(F& f) {
    f("policyHash", policy_hash);
    f("policy", policy);
    f("ack", ack);
    f("beacon", beacon);
  }
};
struct PolicyList {
  std::vector<PolicyView> items;
  std::string next;
  template <class F>
  void fields(F& f) {
    f("items", items, Bound{0, 1000});
    f("next", next, Bound{0, 256});
  }
};
struct LeaseView {
  records::Signed<records::Lease> lease;
  Hash32 posted_by{};
  template <class F>
  void fields(F& f) {
    f("lease", lease);
    f("postedBy", posted_by);
  }
};
struct LeaseList {
  std::vector<LeaseView> items;
  std::string next;
  template <class F>
  void fields(F& f) {
    f("items", items, Bound{0, 1000});
    f("next", next, Bound{0, 256});
  }
};
struct ObjectView {
  std::string name;
  std::int64_t size_bytes = 0;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 64});
    f("sizeBytes", size_bytes);
  }
};

// Why a job is where it is; all empty while nothing went wrong.
struct Outcome {
  std::string reason;  // reason code
  std::string what;
  std::string expected;
  std::string actual;
  std::string next;
  template <class F>
  void fields(F& f) {
    f("reason", reason, Bound{0, 64});
    f("what", what, Bound{0, 4096});
    f("expected", expected, Bound{0, 4096});
    f("actual", actual, Bound{0, 4096});
    f("next", next, Bound{0, 4096});
  }
};
struct EnvironmentView {
  std::int64_t attempt = 0;
  std::string state;
  std::string node;
  std::string reason;
  std::string detail;
  bool destroyed_claim = false;
  template <class F>
  void fields(F& f) {
    f("attempt", attempt);
    f("state", state, Bound{1, 32});
    f("node", node, Bound{0, 63});
    f("reason", reason, Bound{0, 64});
    f("detail", detail, Bound{0, 500});
    f("destroyedClaim", destroyed_claim);
  }
};
struct OutputView {
  std::string state;
  std::int64_t attempt = 0;
  std::int64_t decide_at = 0;  // unix seconds; 0: not known
  std::int64_t size_bytes = 0;
  template <class F>
  void fields(F& f) {
    f("state", state, Bound{1, 32});
    f("attempt", attempt);
    f("decideAt", decide_at);
    f("sizeBytes", size_bytes);
  }
};
struct JobView {
  Hash32 job_id{};
  std::string name;
  Hash32 consumer_id{};
  std::string state;  // of the job machine: "Submitted", …
  bool ended = false;
  Outcome outcome;
  std::vector<EnvironmentView> environments;
  std::optional<OutputView> output;
  std::int64_t created_ms = 0;
  std::int64_t updated_ms = 0;
  std::int64_t version = 0;  // rises with every transition: pass it as `after` to wait for the next
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("name", name, Bound{1, 63});
    f("consumerId", consumer_id);
    f("state", state, Bound{1, 32});
    f("ended", ended);
    f("outcome", outcome);
    f("environments", environments, Bound{0, 1000});
    f("output", output);
    f("createdMs", created_ms);
    f("updatedMs", updated_ms);
    f("version", version);
  }
};
struct JobList {
  std::vector<JobView> items;
  std::string next;
  template <class F>
  void fields(F& f) {
    f("items", items, Bound{0, 1000});
    f("next", next, Bound{0, 256});
  }
};
// One transition of one of the job's machines; `hash` covers everything before it in that machine.
struct EventView {
  std::string machine;
  std::int64_t seq = 0;
  std::int64_t time_ms = 0;
  std::string from;
  std::string event;
  std::string to;
  std::string reason;
  std::string detail;
  Hash32 prev{};
  Hash32 hash{};
  template <class F>
  void fields(F& f) {
    f("machine", machine, Bound{1, 128});
    f("seq", seq);
    f("timeMs", time_ms);
    f("from", from, Bound{0, 32});
    f("event", event, Bound{1, 32});
    f("to", to, Bound{1, 32});
    f("reason", reason, Bound{0, 64});
    f("detail", detail, Bound{0, 1024});
    f("prev", prev);
    f("hash", hash);
  }
};
struct JobEvents {
  JobView job;
  std::vector<EventView> events;  // all of them, oldest first
  template <class F>
  void fields(F& f) {
    f("job", job);
    f("events", events, Bound{0, 10000});
  }
};
struct JobDetail {
  JobView job;
  records::SignedSubmission submission;
  std::optional<records::Signed<records::RunPlan>> plan;
  template <class F>
  void fields(F& f) {
    f("job", job);
    f("submission", submission);
    f("plan", plan);
  }
};
struct JobResult {
  records::SealedOutput output;
  records::Release release;
  records::Signed<records::RunStatement> run_statement;
  template <class F>
  void fields(F& f) {
    f("output", output);
    f("release", release);
    f("runStatement", run_statement);
  }
};

struct NodeEnrolRequest {
  std::string name;
  std::string key;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 63});
    f("key", key, Bound{1, 256});
  }
};
struct NodeView {
  std::string name;
  std::string key;
  std::optional<records::NodeInfo> info;  // once it registered
  // For operators and auditors: when a node is at work tells of runs whose end is not told yet.
  std::optional<bool> alive;
  std::optional<std::int64_t> last_seen_ms;
  std::optional<std::int64_t> running;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 63});
    f("key", key, Bound{1, 256});
    f("info", info);
    f("alive", alive);
    f("lastSeenMs", last_seen_ms);
    f("running", running);
  }
};
struct NodeList {
  std::vector<NodeView> items;
  std::string next;
  template <class F>
  void fields(F& f) {
    f("items", items, Bound{0, 1000});
    f("next", next, Bound{0, 256});
  }
};
// A ruling as its reviewer sent it. Not taken: the broker has not answered yet, or its answer was
// lost; the same may be sent again.
struct KeptRuling {
  Hash32 reviewer{};
  bool taken = false;
  records::Signed<records::Ruling> ruling;
  template <class F>
  void fields(F& f) {
    f("reviewer", reviewer);
    f("taken", taken);
    f("ruling", ruling);
  }
};
// How far the rulings under one owner's policy have come.
struct ReviewTally {
  Hash32 policy_hash{};
  Hash32 owner_id{};
  std::int64_t reviewers = 0;  // who may rule under it
  std::int64_t needed = 0;
  std::int64_t approved = 0;
  std::int64_t declined = 0;
  bool mine = false;                     // the caller may rule under it
  bool ruled = false;                    // and has
  std::optional<std::int64_t> row_bits;  // of the owner's data, as the policy says
  template <class F>
  void fields(F& f) {
    f("policyHash", policy_hash);
    f("ownerId", owner_id);
    f("reviewers", reviewers);
    f("needed", needed);
    f("approved", approved);
    f("declined", declined);
    f("mine", mine);
    f("ruled", ruled);
    f("rowBits", row_bits, Bound{1, 1'000'000'000});
  }
};
// What one line of a reviewer's desk says; the plane's words, but for the notice.
struct ReviewView {
  Hash32 job_id{};
  std::string name;
  Hash32 consumer_id{};
  records::Signed<records::HoldNotice> hold_notice;
  std::vector<std::string> reasons;  // docs/broker.md
  std::int64_t free_bits = 0;        // that a release would be charged to each owner
  std::int64_t verified_bits = 0;
  std::vector<ReviewTally> policies;  // those that ask for rulings
  std::int64_t held_since_ms = 0;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("name", name, Bound{1, 63});
    f("consumerId", consumer_id);
    f("holdNotice", hold_notice);
    f("reasons", reasons, Bound{0, 16, 64});
    f("freeBits", free_bits);
    f("verifiedBits", verified_bits);
    f("policies", policies, Bound{0, records::kMaxAssets});
    f("heldSinceMs", held_since_ms);
  }
};
// Everything that a reviewer needs to open a held output and to check whose it is and what was
// asked for, all of it signed by others.
struct ReviewDetail {
  ReviewView review;
  records::SignedSubmission submission;  // without leases, which are between owner and consumer
  records::Signed<records::RunPlan> plan;
  std::vector<records::IdentityChain> owners;
  std::vector<records::Signed<records::VersionRecord>> versions;
  std::vector<records::Signed<records::Policy>> policies;
  records::Signed<records::RunStatement> run_statement;
  std::vector<KeptRuling> rulings;
  // E(the caller, aad = H(HoldNotice), Kp), for each of the caller's places among the plan's
  // reviewers: one, or more where policies name different keys of his.
  std::vector<Bytes> preview_keys;
  records::SealedOutput output;
  template <class F>
  void fields(F& f) {
    f("review", review);
    f("submission", submission);
    f("plan", plan);
    f("owners", owners, Bound{1, records::kMaxAssets});
    f("versions", versions, Bound{1, records::kMaxAssets});
    f("policies", policies, Bound{1, records::kMaxAssets});
    f("runStatement", run_statement);
    f("rulings", rulings, Bound{0, records::kMaxRulings});
    f("previewKeys", preview_keys, Bound{1, records::kMaxReviewers, 512});
    f("output", output);
  }
};
struct ReviewList {
  std::vector<ReviewView> items;
  std::string next;
  template <class F>
  void fields(F& f) {
    f("items", items, Bound{0, 1000});
    f("next", next, Bound{0, 256});
  }
};

}  // namespace gbx::plane::api
