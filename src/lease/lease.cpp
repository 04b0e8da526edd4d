#include "lease/lease.h"

#include <algorithm>

namespace gbx::lease {

namespace {

Status verify_signer(const records::Signed<records::Lease>& lease, const LeaseQuery& q) {
  GBX_ASSIGN(crypto::PublicKey standing, q.owner->current_key(q.set_id));
  std::vector<std::string> keys{standing.text()};
  if (q.signer == Signer::kEver) {
    keys.push_back(q.owner->identity.genesis_key);
    for (const auto& r : q.owner->rotations) keys.push_back(r.body.new_key);
  }
  keys.insert(keys.end(), q.issuers->begin(), q.issuers->end());
  if (std::find(keys.begin(), keys.end(), lease.key) == keys.end()) {
    return fail(Reason::kLeaseMissing,
                "the lease is signed neither by the owner's present key nor by an issuer whom the "
                "policy names")
        .with(keys.front(), lease.key)
        .hint("ask the owner for a new lease");
  }
  GBX_ASSIGN(crypto::PublicKey signer, crypto::PublicKey::from_text(lease.key));
  return lease.verify(q.set_id, signer);
}

}  // namespace

Status verify_lease(const records::Signed<records::Lease>& lease, const LeaseQuery& q) {
  const auto& l = lease.body;
  if (l.set_id != q.set_id) {
    return fail(Reason::kLeaseMissing, "the lease is for another key set")
        .with(to_hex(q.set_id), to_hex(l.set_id));
  }
  if (l.asset_id != q.asset_id) {
    return fail(Reason::kLeaseMissing, "the lease is for another asset")
        .with(to_hex(q.asset_id), to_hex(l.asset_id));
  }
  if (l.consumer_id != q.consumer_id) {
    return fail(Reason::kLeaseMissing, "the lease is for another consumer")
        .with(to_hex(q.consumer_id), to_hex(l.consumer_id));
  }
  GBX_TRY(verify_signer(lease, q));
  if (q.now > l.not_after) {
    return fail(Reason::kLeaseExpired, "lease")
        .with("before " + format_time(l.not_after), format_time(q.now))
        .hint("rent the asset again");
  }
  return ok_status();
}

Result<Id16> SignedLeases::find(const LeaseQuery& q) const {
  Error nearest = fail(Reason::kLeaseMissing, "a lease for this asset")
                      .with("one for " + to_hex(q.asset_id), "none");
  // The consumer signed which leases this job may use up, and in which order they are tried.
  for (const Id16& id : submission_.submission.body.leases) {
    for (const auto& lease : submission_.leases) {
      if (lease.body.lease_id != id || lease.body.asset_id != q.asset_id) continue;
      const Status s = verify_lease(lease, q);
      if (!s.ok()) {
        nearest = s.error();
        continue;
      }
      const std::int64_t used = uses_(lease.body);
      if (used < lease.body.jobs) return id;
      nearest = fail(Reason::kLeaseExhausted, "jobs of this lease")
                    .with(std::to_string(lease.body.jobs), std::to_string(used) + " used");
    }
  }
  return nearest;
}

}  // namespace gbx::lease
