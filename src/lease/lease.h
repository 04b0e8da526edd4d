// Leases: who has rented an asset. A lease counts only when its owner, or an issuer whom the
// owner's policy names, signed it for this key set; the plane cannot make one. How often one was
// used is in the broker's log.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "records/job.h"

namespace gbx::lease {

// Which of the owner's keys may have signed. kStanding, for whatever is decided now: the newest
// one, for a key that was rotated away may be a thief's. kEver, for checking again what was decided
// when an older key stood.
enum class Signer { kStanding, kEver };

struct LeaseQuery {
  records::SetId set_id{};
  Id16 asset_id{};
  Hash32 consumer_id{};
  const records::IdentityChain* owner = nullptr;      // with all rotations
  const std::vector<std::string>* issuers = nullptr;  // public keys, from the policy
  std::int64_t now = 0;
  Signer signer = Signer::kStanding;
};

class LeaseBook {
 public:
  virtual ~LeaseBook() = default;
  // A lease that covers one more job. Errors, of the lease that came nearest: kLeaseMissing,
  // kLeaseExpired, kLeaseExhausted.
  virtual Result<Id16> find(const LeaseQuery& query) const = 0;
};

// Signed by the owner or an issuer, for exactly this set, asset and consumer, not expired.
// kLeaseMissing, kLeaseExpired.
Status verify_lease(const records::Signed<records::Lease>& lease, const LeaseQuery& query);

// The leases that travel with one submission and that the consumer named when signing it.
class SignedLeases final : public LeaseBook {
 public:
  // jobs that have used it, this one not counted
  using Uses = std::function<std::int64_t(const records::Lease&)>;
  // References must outlive the book.
  SignedLeases(const records::SignedSubmission& submission, Uses uses)
      : submission_(submission), uses_(std::move(uses)) {}
  Result<Id16> find(const LeaseQuery& query) const override;

 private:
  const records::SignedSubmission& submission_;
  Uses uses_;
};

}  // namespace gbx::lease
