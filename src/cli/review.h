// A held output as its reviewer sees it: nothing is shown, and nothing is signed, unless the whole
// chain holds, from the set's notice to the bytes that a release would hand out. Everything that
// comes in is the plane's word until it was checked here.
#pragma once

#include <string>
#include <vector>

#include "cli/delivery.h"

namespace gbx::cli {

struct ReviewInput {
  records::SetChain::Keys set;
  Hash32 job_id{};             // that the reviewer asked for
  Hash32 self{};               // the reviewer
  crypto::PublicKey self_key;  // that signs
  api::ReviewDetail detail;
  Nonce32 nonce{};  // that the statement on the budgets must answer
  records::Signed<records::HeldLedgerStatement> ledger;
  std::int64_t now = 0;
};
// One owner's policy, as far as it concerns the ruling.
struct ReviewPolicy {
  Hash32 hash{};
  std::string asset;  // name@version
  records::Policy policy;
  bool asks = false;  // rulings are needed under it
  bool mine = false;  // the reviewer may rule under it
  std::int64_t reviewers = 0;
  std::int64_t approved = 0;  // by rulings whose signatures were checked
  std::int64_t declined = 0;
  std::optional<api::KeptRuling> own;
  records::HeldBudget budget;  // the set's word: what is spent, and what a release would add
};
struct CheckedReview {
  // Of the reviewer among those to whom previews are sealed: several where policies name different
  // keys.
  std::vector<std::size_t> places;
  std::vector<ReviewPolicy> policies;
  std::vector<std::string> reasons;  // why a person has to rule
  std::int64_t verified_bits = 0;
};
// Everything but decryption. Errors: kWrongRole (no reviewer, or no longer with this key; one's own
// job), kWrongRecipient, kExpired, kBadSignature, kBadHash, kPlanMismatch, …
Result<CheckedReview> check_review(const ReviewInput& in);

struct OpenedReview {
  CheckedReview checked;
  Delivered content;  // of the very ciphertext that would be released
  records::GateReview review;
};
Result<OpenedReview> open_review(const ReviewInput& in, const crypto::HpkeKeyPair& own);

// How the reviewer decides, under one policy.
struct RulingChoice {
  records::RulingDecision decision = records::RulingDecision::kReject;
  std::vector<std::string> reasons;
};
records::Ruling make_ruling(const ReviewInput& in, const Hash32& policy, const RulingChoice& how);

// What people read of it. Whatever stands in an output: no line but ours begins, and no terminal is
// moved.
std::string review_text(const ReviewInput& in, const OpenedReview& opened);
Json review_json(const ReviewInput& in, const OpenedReview& opened);

}  // namespace gbx::cli
