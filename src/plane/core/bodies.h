// What the plane keeps inside machines and records, as JSON bodies. Written and read only by Core.
#pragma once

#include "plane/api/types.h"

namespace gbx::plane {

struct JobBody {
  records::SignedSubmission submission;
  std::optional<records::Signed<records::RunPlan>> plan;
  std::optional<records::CancelRequest> cancel;
  std::int64_t attempts = 0;  // how many were begun
  // the broker has a seal; only the node that holds the output can go on
  bool awaiting_output = false;
  api::Outcome outcome;
  template <class F>
  void fields(F& f) {
    f("submission", submission);
    f("plan", plan);
    f("cancel", cancel);
    f("attempts", attempts);
    f("awaitingOutput", awaiting_output);
    f("outcome", outcome);
  }
};
struct EnvironmentBody {
  Hash32 job_id{};
  std::int64_t attempt = 1;
  std::string node_name;
  std::optional<records::Signed<records::Credential>> credential;
  std::optional<records::Signed<records::DestroyedClaim>> destroyed;
  std::string reason;
  std::string detail;
  std::optional<std::int64_t> ended_ms;  // by Core::patience_ms(), where something went wrong
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("attempt", attempt);
    f("nodeName", node_name);
    f("credential", credential);
    f("destroyed", destroyed);
    f("reason", reason);
    f("detail", detail);
    f("endedMs", ended_ms);
  }
};
struct OutputBody {
  Hash32 job_id{};
  std::int64_t attempt = 1;
  Hash32 manifest{};
  Hash32 content{};  // SHA-256 of the stored JSON of the SealedOutput
  std::int64_t size_bytes = 0;
  std::int64_t sealed_at = 0;  // as the broker acknowledged it: the end of the release slot
  std::int64_t decide_at = 0;
  std::optional<records::Signed<records::HoldNotice>> hold_notice;
  std::vector<Bytes> preview_keys;  // by the plan's reviewers
  std::optional<records::Signed<records::RunStatement>> run_statement = {};
  std::vector<api::KeptRuling> rulings;  // each reviewer's newest under each policy
  std::optional<records::Release> release;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("attempt", attempt);
    f("manifest", manifest);
    f("content", content);
    f("sizeBytes", size_bytes);
    f("sealedAt", sealed_at);
    f("decideAt", decide_at);
    f("holdNotice", hold_notice);
    f("previewKeys", preview_keys);
    f("runStatement", run_statement);
    f("rulings", rulings);
    f("release", release);
  }
};
struct IdentityBody {
  records::IdentityChain chain;
  std::vector<Role> roles;
  template <class F>
  void fields(F& f) {
    f("chain", chain);
    f("roles", roles);
  }
};
struct InviteBody {
  std::vector<Role> roles;
  std::int64_t uses = 1;
  std::int64_t not_after = 0;
  template <class F>
  void fields(F& f) {
    f("roles", roles);
    f("uses", uses);
    f("notAfter", not_after);
  }
};
struct AssetBody {
  records::Signed<records::VersionRecord> record;
  records::IdentityChain owner;
  Hash32 policy_hash{};
  bool delisted = false;
  template <class F>
  void fields(F& f) {
    f("record", record);
    f("owner", owner);
    f("policyHash", policy_hash);
    f("delisted", delisted);
  }
};
struct PolicyBody {
  records::Signed<records::Policy> policy;
  records::Signed<records::PublishAck> ack;
  std::optional<api::BeaconView> beacon;  // the latest
  template <class F>
  void fields(F& f) {
    f("policy", policy);
    f("ack", ack);
    f("beacon", beacon);
  }
};
struct NodeBody {
  std::string name;
  std::optional<records::NodeInfo> info;
  template <class F>
  void fields(F& f) {
    f("name", name);
    f("info", info);
  }
};
struct IdempotencyBody {
  Hash32 fingerprint{};
  Hash32 job_id{};
  template <class F>
  void fields(F& f) {
    f("fingerprint", fingerprint);
    f("jobId", job_id);
  }
};
// A held output on one reviewer's desk.
struct DeskBody {
  Hash32 job_id{};
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
  }
};
// How far a plane's patience had come, and what the wall clock showed.
struct PatienceBody {
  std::int64_t patience_ms = 0;
  std::int64_t wall_ms = 0;
  template <class F>
  void fields(F& f) {
    f("patienceMs", patience_ms);
    f("wallMs", wall_ms);
  }
};
struct CountBody {
  std::int64_t count = 0;
  template <class F>
  void fields(F& f) {
    f("count", count);
  }
};

}  // namespace gbx::plane
