// Names into asset versions, and the checks that make a plane's answer about an asset believable:
// the owner's signatures on record and policy, and the broker's on the acknowledgement.
#pragma once

#include <string>
#include <vector>

#include "cli/output.h"
#include "cli/session.h"

namespace gbx::cli {

// The signatures hold under the session's pinned set. Errors: kBadSignature, kWrongOwner,
// kWrongAsset, kBadInclusion, …
Status verify_asset_view(const records::SetChain::Keys& set, const api::AssetView& view);
// The broker's word that `publish` is in its log: signature of the set, ids, and the entry's
// inclusion.
Status verify_publish_ack(const records::SetChain::Keys& set, const records::Publish& publish,
                          const records::Signed<records::PublishAck>& ack);

// An owner's beacon for this policy and the set's word that it is in the log; `published` is when
// the policy was. Errors: kWrongOwner, kPolicyMismatch, kBadSignature, kBadValue, kBadInclusion.
Status verify_beacon(const records::SetChain::Keys& set,
                     const records::Signed<records::Policy>& policy, std::int64_t published,
                     const api::BeaconView& beacon);

// How people name a version: NAME (its newest version), NAME@3, OWNER/NAME[@3] (OWNER: first 8 or
// more digits of the identity), or the version id or 8 or more of its first digits.
struct AssetName {
  std::string id_prefix;  // hex, when it can be one
  std::string owner_prefix;
  std::string name;
  std::int64_t version = 0;  // 0: newest
};
Result<AssetName> parse_asset_name(const std::string& text);
// A name that can be given to something new: 1 to 64 bytes of plain text, none of which has a
// meaning in the forms above.
Status check_new_name(const std::string& name);
// The one version that is meant. kNotFound; kConflict when several owners use the name, with what
// to write instead.
Result<const api::AssetView*> choose_asset(const AssetName& name,
                                           const std::vector<api::AssetView>& candidates);

// Which of several published images with one digest: the one of this name (NAME or OWNER/NAME),
// else one's own, else the only one; its newest version. kConflict.
Result<const api::AssetView*> choose_image(const std::string& name, const Hash32& own,
                                           const std::vector<api::AssetView>& images);

// What a name may stand for: what is offered, or also what was taken out of the catalogue (for its
// owner).
enum class Listed { kOffered, kAll };
// Asks the plane, chooses, verifies.
Result<api::AssetView> resolve_asset(Session& session, const std::string& text,
                                     Listed listed = Listed::kOffered);

// All versions of one asset of the user's own, oldest first, whatever the catalogue still offers.
struct OwnVersions {
  std::vector<api::AssetView> all;
  std::size_t chosen = 0;  // index of the one that the text means
  bool one = false;        // the text names this very version, not the asset
};
// What does not verify is left out, as are the entries of other owners. kNotFound, kConflict,
// kWrongOwner.
Result<OwnVersions> resolve_own(Session& session, const std::string& text);
// The pure part.
Result<OwnVersions> choose_own(const AssetName& name, std::vector<api::AssetView> own);
// "wdbc@2"
std::string version_label(const api::AssetView& view);

// The whole id that begins so; kNotFound, kConflict.
Result<Hash32> choose_id(const std::string& prefix, const std::vector<Hash32>& ids,
                         const char* what, const char* list_command);
Result<Hash32> resolve_job(Session& session, const std::string& text);

// A list with a job in each row: whole for programs, for people with the beginning of each id in a
// first column.
void print_jobs(Session& session, JsonArray items, std::vector<Column> columns,
                const std::string& none);

}  // namespace gbx::cli
