// Everything that is sealed: keys to the broker and to the agent, results to the consumer, previews
// to reviewers. One function per side of each message, so that both ends agree on associated data
// and byte layout.
#pragma once

#include <vector>

#include "records/output.h"

namespace gbx::records {

// ---- dataset keys ----
// Context of the commitment to a dataset key: the asset id. VersionRecord.commitDk and
// Policy.commitDk hold it.
Hash32 dataset_key_commitment(const Id16& asset_id, const DatasetKey& key);
// Message 1: E(kek, aad = hash of the policy, DK).
Result<Bytes> wrap_dataset_key(const crypto::HpkePublicKey& kek, const Policy& policy,
                               const DatasetKey& key, Random& random);
// Broker side; also checks the commitment. Errors: kBadTag, kBadCommitment.
Result<DatasetKey> unwrap_dataset_key(const crypto::HpkeKeyPair& kek, const Policy& policy,
                                      ByteView wrapped);

struct BundledKey {
  Hash32 version_id{};
  DatasetKey key;
};
// Messages 6 and 7: E(agent.hpke, aad = hash of the context, (version id ‖ key)*).
Result<Bytes> seal_key_bundle(const crypto::HpkePublicKey& agent, const KeyContext& context,
                              const std::vector<BundledKey>& keys, Random& random);
Result<std::vector<BundledKey>> open_key_bundle(const crypto::HpkeKeyPair& agent,
                                                const KeyContext& context, ByteView sealed);

// ---- results ----
struct ResultInput {
  Hash32 job_id{};
  std::int64_t attempt = 1;
  Hash32 plan_hash{};
  std::vector<OutputDigest> outputs;
  GateVerdict verdict;
  ByteView bundle;    // canonical output of the gate
  GateReview review;  // left out where there are no reviewers
  std::vector<crypto::HpkePublicKey> result_keys;
  std::vector<crypto::HpkePublicKey> reviewers;
};
struct ResultSealed {
  SealedOutput output;
  OutputManifest manifest;
  Bytes release_keys;  // E(kek, aad = H(M), Kr ‖ Kp)
};
Result<ResultSealed> seal_result(const ResultInput& input, const crypto::HpkePublicKey& kek,
                                 Random& random);

struct ReleaseKeys {
  ReleaseKey result;   // Kr
  ReleaseKey preview;  // Kp
};
Result<ReleaseKeys> open_release_keys(const crypto::HpkeKeyPair& kek,
                                      const OutputManifest& manifest, ByteView sealed);
// Message 11, once per result key: E(resultKey, aad = H(M), Kr).
Result<Bytes> seal_outer_key(const crypto::HpkePublicKey& to, const Hash32& manifest,
                             const ReleaseKey& key, Random& random);
// Message 9, once per reviewer: E(reviewer, aad = H(HoldNotice), Kp). Same layout, other associated
// data.

// The consumer's side: checks every hash and commitment and returns the bundle. `recipient` is the
// index of the key among the submission's result keys. Errors: kBadHash, kBadTag, kBadCommitment,
// kWrongRecipient.
Result<SecretBuffer> open_result(const crypto::HpkeKeyPair& own, std::size_t recipient,
                                 const OutputManifest& manifest, const SealedOutput& output,
                                 ByteView outer_key);
// What an environment says beside its output: u32 length, JSON, zeros. It has read hostile bytes.
// Errors: kBadStructure, kTruncated and those of reading.
Result<GateReview> parse_review(ByteView plain);
struct Preview {
  SecretBuffer bundle;
  GateReview review;
};
// The reviewer's side; `context` is the hash of the HoldNotice. Errors: as above, kBadStructure.
Result<Preview> open_preview(const crypto::HpkeKeyPair& own, std::size_t reviewer,
                             const OutputManifest& manifest, const SealedOutput& output,
                             const Hash32& context, ByteView preview_key);

}  // namespace gbx::records
