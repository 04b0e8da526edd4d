// What an environment shows before it gets a key: launch configuration, agent keys, report data,
// evidence.
#pragma once

#include "records/job.h"
#include "records/release.h"

namespace gbx::records {

// Unmeasured input to the environment; the agent requires its hash in MRCONFIGID / HOST_DATA where
// there is hardware.
struct LaunchConfig {
  static constexpr std::string_view kType = "launch-config";
  static constexpr bool kBindsSet = false;
  SetId set_id{};
  std::string set_key;
  template <class F>
  void fields(F& f) {
    f("setId", set_id);
    f("setKey", set_key, Bound{1, 256});
  }
};
// Made inside the environment, for one attempt.
struct AgentKeys {
  static constexpr std::string_view kType = "agent-keys";
  static constexpr bool kBindsSet = false;
  std::string tls;
  std::string hpke;
  std::string sig;
  template <class F>
  void fields(F& f) {
    f("tls", tls, Bound{1, 256});
    f("hpke", hpke, Bound{1, 256});
    f("sig", sig, Bound{1, 256});
  }
};
// Its SHA-512 is the 64 bytes of report data.
struct ReportData {
  std::string label = "gbx/1/report-data";
  SetId set_id{};
  Nonce32 nonce{};
  Hash32 job_id{};
  std::int64_t attempt = 1;
  Hash32 credential{};  // hash of the Credential
  Hash32 plan_hash{};
  Hash32 agent_keys{};  // hash of AgentKeys
  Hash32 exporter{};    // RFC 8446 exporter of this TLS connection
  template <class F>
  void fields(F& f) {
    f("label", label, Bound{1, 32});
    f("setId", set_id);
    f("nonce", nonce);
    f("jobId", job_id);
    f("attempt", attempt, Bound{1, kMaxAttempt});
    f("credential", credential);
    f("planHash", plan_hash);
    f("agentKeys", agent_keys);
    f("exporter", exporter);
  }
  FixedBytes<64> digest() const { return crypto::sha512(as_bytes(canonical(to_json(*this)))); }
};
inline constexpr std::string_view kExporterLabel = "EXPORTER-gbx/1/attest";

// Technology `none`: the node vouches for the agent's key with its own; nothing is measured.
struct NodeIntroduction {
  static constexpr std::string_view kType = "node-introduction";
  static constexpr bool kBindsSet = true;
  FixedBytes<64> report_data{};
  Hash32 launch_config{};  // hash of LaunchConfig
  Hash32 job_id{};
  std::int64_t attempt = 1;
  std::int64_t time = 0;
  template <class F>
  void fields(F& f) {
    f("reportData", report_data);
    f("launchConfig", launch_config);
    f("jobId", job_id);
    f("attempt", attempt, Bound{1, kMaxAttempt});
    f("time", time);
  }
};
struct Evidence {
  static constexpr std::string_view kType = "evidence";
  static constexpr bool kBindsSet = false;
  Technology technology = Technology::kNone;
  std::optional<Signed<NodeIntroduction>> node;  // none
  std::optional<Bytes> quote;                    // hardware and sim, as the platform made it
  std::vector<Collateral> collateral;            // for the quote; empty for none
  LaunchConfig launch_config;
  std::string release;  // name of the guest release; empty for none
  // what the quote's report data is the digest of, so that a refusal says which member differs;
  // absent for none
  std::optional<ReportData> report_data;
  template <class F>
  void fields(F& f) {
    f("technology", technology);
    f("node", node);
    f("quote", quote, Bound{1, 65536});
    f("collateral", collateral, Bound{0, 16});
    f("launchConfig", launch_config);
    f("release", release, Bound{0, 64});
    f("reportData", report_data);
  }
};

// What a verifier concluded. Default: deny, nothing checked.
enum class Check { kNotChecked, kPass, kFail };
std::span<const EnumName<Check>> enum_names(Check);
struct Verdict {
  Technology technology = Technology::kNone;
  std::string root;  // "none:<node key hash>"
  std::string release;
  Check binding = Check::kNotChecked;      // report data is what it must be
  Check signature = Check::kNotChecked;    // evidence chains to `root`
  Check measurement = Check::kNotChecked;  // nothing is measured for none
  Check debug_off = Check::kNotChecked;
  std::int64_t svn = 0;
  template <class F>
  void fields(F& f) {
    f("technology", technology);
    f("root", root, Bound{0, 80});
    f("release", release, Bound{0, 64});
    f("binding", binding);
    f("signature", signature);
    f("measurement", measurement);
    f("debugOff", debug_off);
    f("svn", svn);
  }
};
// `none` evidence: signature by the node's key and the expected report data. Errors:
// kEvidenceMissing, kEvidenceRejected.
Result<Verdict> verify_none(const SetId& set_id, const Evidence& evidence,
                            const FixedBytes<64>& expected_report_data,
                            const LaunchConfig& expected_launch);

// Requests of one attempt after it attested; a chain by seq and prev. Signed by agentKeys.sig.
struct KeyRequest {
  static constexpr std::string_view kType = "key-request";
  static constexpr bool kBindsSet = true;
  Hash32 job_id{};
  std::int64_t attempt = 1;
  std::int64_t stage = 1;  // 1: image key; 2: data keys
  std::int64_t seq = 1;
  Hash32 prev{};                             // hash of the request before, zeros for the first
  Hash32 evidence{};                         // hash of the attempt's first evidence
  std::optional<std::string> image_digest;   // stage 2
  std::optional<Hash32> unpacked_root_hash;  // stage 2
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("attempt", attempt, Bound{1, kMaxAttempt});
    f("stage", stage, Bound{1, 2});
    f("seq", seq, Bound{1, 1000});
    f("prev", prev);
    f("evidence", evidence);
    f("imageDigest", image_digest, Bound{71, 71});
    f("unpackedRootHash", unpacked_root_hash);
  }
};
// Associated data of a key release; `sealed` = E(agent.hpke, aad = hash of this, KeyBundle).
struct KeyContext {
  static constexpr std::string_view kType = "key-context";
  static constexpr bool kBindsSet = true;
  Hash32 credential{};
  Hash32 evidence{};
  std::int64_t stage = 1;
  std::int64_t seq = 1;
  std::vector<std::int64_t> policy_serials;
  template <class F>
  void fields(F& f) {
    f("credential", credential);
    f("evidence", evidence);
    f("stage", stage, Bound{1, 2});
    f("seq", seq, Bound{1, 1000});
    f("policySerials", policy_serials, Bound{0, kMaxAssets});
  }
};
// KeyBundle, the sealed plaintext: for each asset version 32 bytes of its id and 32 bytes of its
// key. No JSON: keys never enter strings.

}  // namespace gbx::records
