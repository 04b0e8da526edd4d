// Release policies as people write them: a YAML (or JSON) document whose missing members have
// careful values. What is not said is not allowed; the words for "nobody protects this" (technology
// none, custody operator, rollback unprotected, any command) have to be written. The file is the
// owner's own, read strictly.
//
//   apiVersion: glovebox/v1
//   kind: ReleasePolicy
//   for: dataset     (optional: dataset, model or image; it is then published for nothing else)
//   clauses: { … as in records::Clauses … }
//
// Beyond the record's own members: `notAfter` may be a time ("2027-01-31T00:00:00Z", "2027-01-31"),
// `tee` entries may say `node: HASH` for `root: "none:HASH"`, `freshFor`, `releaseSlot` and the
// like keep the record's names in seconds.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "records/asset.h"

namespace gbx::cli {

struct PolicyFile {
  records::Clauses clauses;
  std::optional<records::AssetKind> kind;
};
// Errors: kUnknownField, kMissingField, kBadValue with the path of the member.
Result<PolicyFile> parse_policy(std::string_view text);
Result<PolicyFile> read_policy_file(const std::string& path);
// kConflict where the file was written for data and this is an image, or the other way round.
Status check_kind(const PolicyFile& file, records::AssetKind kind);

// kBadValue about the member or option `at`.
Status check_digest(const std::string& at, const std::string& digest);  // "sha256:…"
Status check_key(const std::string& at, const std::string& key);        // a public key

// What `policy new` was told.
struct PolicyDraft {
  records::AssetKind kind = records::AssetKind::kDataset;
  std::vector<std::string> consumers;  // identities, hex: may submit without a lease
  bool lease_required = true;
  std::vector<std::string> purposes;
  std::vector<std::string> image_digests;
  std::vector<std::string> image_signers;
  std::vector<std::vector<std::string>> commands;
  bool any_command = false;
  std::vector<std::string> none_nodes;  // hashes of node keys: NO TEE
  std::vector<std::string> sim_roots;   // hashes of roots: SIMULATED TEE
  std::vector<std::string> releases;    // that may boot there
  std::vector<std::string> join_assets;
  std::vector<std::string> join_owners;
  std::vector<std::string> custody;        // "operator"
  std::string rollback;                    // "unprotected"
  std::vector<records::TableRule> tables;  // what recipes may read
  std::optional<std::int64_t> row_bits;    // what one row holds
  std::vector<std::string> output_types;
  std::int64_t release_slot = 900;
  std::int64_t attempts = 1;
  std::int64_t free_bits = 2048;
  std::int64_t verified_bits = 65536;
  std::int64_t cell_subjects = 10;
  std::vector<records::Reviewer> reviewers;
  std::int64_t reviewers_needed = 1;
  std::vector<records::Reviewer> may_preview;  // beside the reviewers
  std::string logs = "none";
  std::int64_t log_bytes = 0;
  std::string not_after;  // RFC 3339
};
// Commented YAML that parse_policy() reads back.
std::string write_policy(const PolicyDraft& draft);

// kPolicyExpired when the clauses end before `now`: nobody could do anything under them.
Status check_in_force(const records::Clauses& clauses, std::int64_t now);

// What in these clauses lets somebody read everything, in plain words; empty when nothing does.
std::vector<std::string> warnings(const records::Clauses& clauses, records::AssetKind kind);
// The same in one line of words as the file has them, for those who have read it before; empty when
// there is nothing.
std::string exposure(const records::Clauses& clauses, records::AssetKind kind);

// "2027-01-31T00:00:00Z" or "2027-01-31".
Result<std::int64_t> parse_date(const std::string& text);

}  // namespace gbx::cli
