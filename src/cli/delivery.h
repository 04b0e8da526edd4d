// A released result, from the plane's bytes to files: nothing is written unless the whole chain
// holds, from the user's own submission through the broker's signed and logged release to the
// content's commitments.
#pragma once

#include <string>
#include <vector>

#include "cli/session.h"
#include "gate/release.h"
#include "policy/policy.h"

namespace gbx::cli {

struct DeliveryInput {
  records::SetChain::Keys set;
  Hash32 job_id{};                 // that the user asked for
  crypto::PublicKey consumer_key;  // the user's own
  records::SignedSubmission submission;
  records::Receipt receipt;
  api::JobResult result;
  policy::Capacity capacity;  // of declared outputs: the planned charges are reckoned again
};
// Submission and plan are this job's, valid, each signed by whom it must be. Errors: kBadHash,
// kBadSignature, kBadValue.
Status verify_job(const records::SetChain::Keys& set, const Hash32& job_id,
                  const records::SignedSubmission& submission,
                  const records::Signed<records::RunPlan>* plan);
// Everything but decryption; returns how the environment was protected, in words. Checked: the
// whole receipt, and that result and submission are its own. Errors: kBadSignature, kBadHash,
// kPlanMismatch, kBadInclusion, kRejected, …
Result<std::string> verify_delivery(const DeliveryInput& in);

struct DeliveredFile {
  std::string path;  // relative, declared in the spec
  Bytes content;
};
struct Delivered {
  gate::BundleStatus status;
  std::vector<DeliveredFile> files;
  std::optional<Bytes> log;
  std::string protection;  // "NO TEE: …" in plain words
};
// What a sealed bundle holds: outputs that are exactly the manifest's, byte for byte, whose job and
// attempt the caller has checked. kBadHash, kBadStructure, kTruncated.
Result<Delivered> take_bundle(const records::SealContext& context,
                              const std::vector<records::SpecOutput>& declared, ByteView plain);
// verify_delivery(), then opens the content with `key`, which the submission names (kWrongRecipient
// otherwise), and holds every output against its signed digest.
Result<Delivered> open_delivery(const DeliveryInput& in, const crypto::HpkeKeyPair& key);

// Fetches and opens; `recovery` uses the recovery key. A job that has no result says why, as it
// ended.
Result<Delivered> fetch_result(Session& session, const Hash32& job_id, bool recovery);

// Each file whole or not at all; with `force` unset nothing is written when one of them is there
// (kAlreadyExists).
Status write_files(const std::string& directory, const Delivered& delivered, bool force);

}  // namespace gbx::cli
