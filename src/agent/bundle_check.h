// The agent believes nothing that the node hands it: every record of the launch bundle is verified
// against the key set of the launch configuration, and against one another. Pure; input untrusted.
#pragma once

#include "records/messages.h"

namespace gbx::agent {

// What the agent works from once everything was checked.
struct CheckedJob {
  records::SetChain::Keys set;
  records::LaunchBundle bundle;
  Hash32 job_id{};
  Hash32 plan_hash{};
  std::size_t image = 0;            // index into bundle.versions
  std::vector<std::size_t> inputs;  // per spec input: index into bundle.versions
  std::vector<crypto::HpkePublicKey> result_keys;
  std::vector<crypto::HpkePublicKey> reviewers;
};

// `now_seconds` is the host's clock, trusted for nothing but an early, honest refusal of an expired
// credential. Errors: kWrongSet, kBadSignature, kSpecMismatch, kPlanMismatch, kCredentialForeign,
// kCredentialExpired, kPolicyMismatch, kWrongVersion, kImageDigestMismatch.
Result<CheckedJob> check_bundle(records::LaunchBundle bundle, std::int64_t now_seconds);

// A key release is for exactly this request of this attempt, and was made under the plan's policies
// and no others. `evidence` is the hash of the attempt's first evidence. Errors: kBrokerUntrusted,
// kPolicyMismatch.
Status check_key_context(const CheckedJob& job, const Hash32& evidence,
                         const records::KeyRequest& request, const records::KeyContext& context);

}  // namespace gbx::agent
