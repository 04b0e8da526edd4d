// From files to a published asset version: encrypt and upload, check the broker, sign record and
// policy, wrap the key, and believe nothing but the broker's signed acknowledgement with its proof.
// Every step can be repeated after a crash: what was sent is kept until it is acknowledged, and
// signed anew, too, where its owner has changed the key since.
#pragma once

#include <optional>
#include <string>

#include "cli/session.h"

namespace gbx::cli {

struct PublishRequest {
  std::string source;
  std::string name;
  records::AssetKind kind = records::AssetKind::kDataset;
  std::string content_digest;  // of an image
  records::Clauses clauses;
};
struct Published {
  records::Signed<records::VersionRecord> record;
  records::Signed<records::Policy> policy;
  records::Signed<records::PublishAck> ack;
  std::uint64_t files = 0;  // 0 when the encryption was done by an earlier run
  std::uint64_t bytes = 0;
};
Result<Published> publish_asset(Session& session, PublishRequest request);

// The next policy of a published version: serial + 1. A revocation ends only where `reinstate` says
// so: kPolicyRevoked.
struct PolicyUpdate {
  api::AssetView asset;                     // verified, one of the user's own
  std::optional<records::Clauses> clauses;  // absent: those in force
  bool revoked = false;
  bool reinstate = false;
};
Result<Published> update_policy(Session& session, PolicyUpdate update);

// Remarks on a policy before it is signed, printed and given back: what it accepts, and why no job
// could run under it. kBadValue for one that has ended.
Result<std::vector<std::string>> note_policy(Session& session, const records::Clauses& clauses,
                                             records::AssetKind kind);

// The broker's keys, fresh: evidence over our nonce, signed under the pinned set. Says what custody
// they are in.
struct BrokerCheck {
  records::SetChain::Keys keys;
  records::BrokerEvidence evidence;
};
Result<BrokerCheck> check_broker(Session& session);
// The pure part. Errors: kNonceMismatch, kBrokerUntrusted, kBadSignature.
Result<BrokerCheck> verify_broker(const records::SetChain::Keys& set,
                                  const records::Signed<records::BrokerEvidence>& evidence,
                                  const Nonce32& nonce);

}  // namespace gbx::cli
