// The broker's log: one kind of entry for each thing that it ever decided. State is the fold of
// these entries and nothing else, so their meaning never changes; a new rule gets a new kind. An
// entry is the canonical JSON of
// {"kind","time","body"}; its leaf in the tree is SHA-256(0x00 ‖ salt ‖ entry).
#pragma once

#include "records/messages.h"

namespace gbx::broker {

struct LogEntry {
  std::string kind;
  std::int64_t time = 0;  // unix seconds, never falling
  Json body;
  template <class F>
  void fields(F& f) {
    f("kind", kind, Bound{1, 32});
    f("time", time);
    f("body", body);
  }
};
template <class Body>
LogEntry make_entry(std::int64_t time, const Body& body) {
  return {std::string(Body::kKind), time, to_json(body)};
}

// A start of the program: two copies of it make two different boots after the same entry.
struct BootEntry {
  static constexpr std::string_view kKind = "boot";
  records::SetId set_id{};
  std::int64_t epoch = 0;
  Nonce32 nonce{};
  template <class F>
  void fields(F& f) {
    f("setId", set_id);
    f("epoch", epoch);
    f("nonce", nonce);
  }
};
struct PublishEntry {
  static constexpr std::string_view kKind = "publish";
  records::Publish publish;
  template <class F>
  void fields(F& f) {
    f("publish", publish);
  }
};
struct RotateEntry {
  static constexpr std::string_view kKind = "rotate";
  records::Identity identity;
  records::Signed<records::Rotation> rotation;
  template <class F>
  void fields(F& f) {
    f("identity", identity);
    f("rotation", rotation);
  }
};
struct AuthoriseEntry {
  static constexpr std::string_view kKind = "authorise";
  records::SignedSubmission submission;
  records::Signed<records::RunPlan> plan;
  template <class F>
  void fields(F& f) {
    f("submission", submission);
    f("plan", plan);
  }
};
struct LeaseUseEntry {
  static constexpr std::string_view kKind = "lease-use";
  Hash32 job_id{};
  Id16 lease_id{};
  Id16 asset_id{};
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("leaseId", lease_id);
    f("assetId", asset_id);
  }
};
struct CredentialEntry {
  static constexpr std::string_view kKind = "credential";
  records::Signed<records::Credential> credential;
  template <class F>
  void fields(F& f) {
    f("credential", credential);
  }
};
// The attempt gets nothing more and its seal is refused.
struct TombstoneEntry {
  static constexpr std::string_view kKind = "tombstone";
  Hash32 job_id{};
  std::int64_t attempt = 1;
  std::string reason;  // reason code
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("attempt", attempt);
    f("reason", reason, Bound{1, 64});
  }
};
// The first evidence of an attempt binds it to its keys.
struct AttestEntry {
  static constexpr std::string_view kKind = "attest";
  Hash32 job_id{};
  std::int64_t attempt = 1;
  Nonce32 nonce{};
  Hash32 exporter{};
  records::AgentKeys agent_keys;
  records::Evidence evidence;
  records::Verdict verdict;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("attempt", attempt);
    f("nonce", nonce);
    f("exporter", exporter);
    f("agentKeys", agent_keys);
    f("evidence", evidence);
    f("verdict", verdict);
  }
};
// A key release. Stage 2 also reserves what the job may cost; the reservation replaces that of an
// earlier attempt.
struct KeyEntry {
  records::Signed<records::KeyRequest> request;
  records::KeyReply reply;
  std::vector<records::PlanCharge> reserved;
  template <class F>
  void fields(F& f) {
    f("request", request);
    f("reply", reply);
    f("reserved", reserved, Bound{0, records::kMaxAssets});
  }
};
struct Key1Entry : KeyEntry {
  static constexpr std::string_view kKind = "key1";
};
struct Key2Entry : KeyEntry {
  static constexpr std::string_view kKind = "key2";
};
struct SealEntry {
  static constexpr std::string_view kKind = "seal";
  records::Seal seal;
  records::Signed<records::SealAck> ack;
  template <class F>
  void fields(F& f) {
    f("seal", seal);
    f("ack", ack);
  }
};
// What the owners' gate clauses say about a sealed output; `outcome` is a Recommendation.
struct JudgeEntry {
  static constexpr std::string_view kKind = "judge";
  Hash32 job_id{};
  records::Recommendation outcome = records::Recommendation::kReject;
  std::vector<std::string> reasons;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("outcome", outcome);
    f("reasons", reasons, Bound{0, 16, 64});
  }
};
struct HoldEntry {
  static constexpr std::string_view kKind = "hold";
  Hash32 job_id{};
  records::Signed<records::HoldNotice> notice;
  std::vector<Bytes> preview_keys;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("notice", notice);
    f("previewKeys", preview_keys, Bound{0, records::kMaxReviewers, 512});
  }
};
struct RulingEntry {
  static constexpr std::string_view kKind = "ruling";
  Hash32 job_id{};
  records::RulingRequest request;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("request", request);
  }
};
// Commits the decision and its charges. It is the entry that the release statement proves, so it
// holds what that says and no key.
struct ReleaseEntry {
  static constexpr std::string_view kKind = "release";
  Hash32 job_id{};
  Hash32 run_statement{};
  Hash32 manifest{};
  records::GateVerdict verdict;
  records::ReleaseDecision decision = records::ReleaseDecision::kReject;
  std::vector<std::string> reasons;
  Hash32 hold_notice{};  // zeros when it was never held
  std::vector<Hash32> rulings;
  std::vector<records::PlanCharge> charges;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("runStatement", run_statement);
    f("manifest", manifest);
    f("verdict", verdict);
    f("decision", decision);
    f("reasons", reasons, Bound{0, 16, 64});
    f("holdNotice", hold_notice);
    f("rulings", rulings, Bound{0, records::kMaxRulings});
    f("charges", charges, Bound{0, records::kMaxAssets});
  }
};
struct DeliverEntry {
  static constexpr std::string_view kKind = "deliver";
  Hash32 job_id{};
  std::vector<Bytes> outer_keys;
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("outerKeys", outer_keys, Bound{0, 8, 512});
  }
};
// The owner stands by the policy in force still.
struct BeaconEntry {
  static constexpr std::string_view kKind = "beacon";
  records::BeaconRequest request;
  template <class F>
  void fields(F& f) {
    f("request", request);
  }
};
// Commits what a job costs that has had data keys, in place of its reservation; nothing for any
// other.
struct CancelEntry {
  static constexpr std::string_view kKind = "cancel";
  records::CancelRequest request;
  std::vector<records::PlanCharge> charges;
  template <class F>
  void fields(F& f) {
    f("request", request);
    f("charges", charges, Bound{0, records::kMaxAssets});
  }
};

}  // namespace gbx::broker
