// Core: assets, policies, leases.
#include <algorithm>

#include "plane/core/page.h"

namespace gbx::plane {

using machines::Record;
using machines::RecordQuery;
using machines::RecordWrite;

namespace {
constexpr char kPublications[] = "publications-per-day";
constexpr char kPublicationsText[] = "publications and renewals of policies per day";
constexpr char kPublicationBytes[] = "publication-bytes-per-day";
constexpr char kPublicationBytesText[] = "bytes of publications and renewals per day";
constexpr char kBeacons[] = "beacons-per-day";
constexpr char kBeaconsText[] = "beacons per day";
constexpr char kBeaconBytes[] = "beacon-bytes-per-day";
constexpr char kBeaconBytesText[] = "bytes of beacons per day";
// Beside each lease lies one record of this kind for its consumer and one for whoever posted it: a
// list is found by the index of owners, however many leases others have.
constexpr char kLeaseOf[] = "lease-of";

template <class Request>
std::int64_t size_of(const Request& r) {
  return static_cast<std::int64_t>(canonical(to_json(r)).size());
}
}  // namespace

Core::Kept Core::publications(std::int64_t bytes) const {
  const Quotas& q = config_.quotas;
  return {Daily{kPublications, kPublicationsText, q.publications_per_day},
          Daily{kPublicationBytes, kPublicationBytesText, q.publication_bytes_per_day, bytes}};
}
Core::Kept Core::beacons(std::int64_t bytes) const {
  const Quotas& q = config_.quotas;
  return {Daily{kBeacons, kBeaconsText, q.beacons_per_day},
          Daily{kBeaconBytes, kBeaconBytesText, q.beacon_bytes_per_day, bytes}};
}

Status Core::check_kept_today(const Hash32& owner, const Kept& kept) {
  for (const Daily& d : kept) {
    GBX_ASSIGN(const Record today, todays(d, owner));
    GBX_ASSIGN(const CountBody count, from_json<CountBody>(today.body));
    GBX_TRY(within(d, count.count));
  }
  return ok_status();
}

// The broker has taken it already.
Status Core::count_kept(const Hash32& owner, const Kept& kept, Transaction& t) {
  for (const Daily& d : kept) GBX_TRY(count_today(d, owner, true, t));
  return ok_status();
}

Status Core::check_publish(const Caller& who, const records::Publish& p) {
  const Hash32 owner = p.owner.id();
  if (owner != who.identity || p.record.body.owner_id != owner || p.policy.body.owner_id != owner) {
    return fail(Reason::kWrongOwner, "an asset is published by its owner")
        .with(to_hex(owner), to_hex(who.identity));
  }
  GBX_ASSIGN(crypto::PublicKey key, p.owner.current_key(config_.set_id));
  // The record of an older version may be signed by a key that was rotated away since; the broker
  // knows when.
  GBX_TRY(records::verify_by_identity(config_.set_id, p.owner, p.record));
  GBX_TRY(p.policy.verify(config_.set_id, key));
  const records::Policy& policy = p.policy.body;
  if (policy.asset_version_id != p.record.body.id() || policy.asset_id != p.record.body.asset_id) {
    return fail(Reason::kPolicyMismatch, "the policy names another version")
        .with(to_hex(p.record.body.id()), to_hex(policy.asset_version_id));
  }
  GBX_TRY(p.validate());
  if (policy.commit_dk != p.record.body.commit_dk) {
    return fail(Reason::kBadCommitment, "policy and version name different keys");
  }
  GBX_ASSIGN(std::optional<Record> known, store_.record("policy", to_hex(p.policy.hash())));
  if (known) return ok_status();  // the same once more, for its answer may have been lost
  return check_kept_today(owner, publications(size_of(p)));
}

Status Core::accept_publish(const records::Publish& p, const Signed<records::PublishAck>& ack) {
  const Lock lock(mutex_);
  GBX_TRY(ack.verify(config_.set_id, keys_.signing));
  const Hash32 policy_hash = p.policy.hash();
  if (ack.body.policy_hash != policy_hash || ack.body.asset_version_id != p.record.body.id()) {
    return fail(Reason::kBadHash, "the broker acknowledged something else");
  }
  const std::string version = to_hex(p.record.body.id());
  GBX_ASSIGN(std::optional<Record> policy, store_.record("policy", to_hex(policy_hash)));
  GBX_ASSIGN(std::optional<Record> asset, store_.record("asset", version));
  Transaction t;
  if (!policy) {
    RecordWrite w;
    w.record = {"policy",
                to_hex(policy_hash),
                version,
                "",
                p.policy.body.serial,
                0,
                to_json(PolicyBody{p.policy, ack, std::nullopt})};
    t.records.push_back(std::move(w));
    // The broker has it: whoever publishes from several places at once gets a few more through, and
    // pays for them.
    GBX_TRY(count_kept(p.owner.id(), publications(size_of(p)), t));
  }
  AssetBody body{p.record, p.owner, policy_hash, false};
  RecordWrite w;
  if (asset) {
    GBX_ASSIGN(AssetBody old, from_json<AssetBody>(asset->body));
    GBX_ASSIGN(std::optional<Record> present, store_.record("policy", to_hex(old.policy_hash)));
    // an older serial, or this one again
    if (present && present->order >= p.policy.body.serial) return commit(t);
    body.delisted = old.delisted;
    w.expected_revision = asset->revision;
    w.record = *asset;
  } else {
    w.record = {"asset", version, to_hex(p.owner.id()), p.record.body.name, now_ms(), 0, {}};
  }
  w.record.body = to_json(body);
  t.records.push_back(std::move(w));
  return commit(t);
}

Status Core::check_beacon(const Caller& who, const records::BeaconRequest& r) {
  const Hash32 owner = r.owner.id();
  if (owner != who.identity || r.beacon.body.owner_id != owner) {
    return fail(Reason::kWrongOwner, "a beacon is sent by its owner")
        .with(to_hex(owner), to_hex(who.identity));
  }
  GBX_ASSIGN(crypto::PublicKey key, r.owner.current_key(config_.set_id));
  GBX_TRY(r.beacon.verify(config_.set_id, key));
  GBX_ASSIGN(const api::PolicyView p, policy(r.beacon.body.policy_hash));
  if (p.beacon && p.beacon->request.beacon.hash() == r.beacon.hash()) return ok_status();
  return check_kept_today(owner, beacons(size_of(r)));
}

Status Core::accept_beacon(const records::BeaconRequest& r, const Signed<records::BeaconAck>& ack) {
  const Lock lock(mutex_);
  GBX_TRY(ack.verify(config_.set_id, keys_.signing));
  const records::OwnerBeacon& b = r.beacon.body;
  if (ack.body.beacon != r.beacon.hash() || ack.body.policy_hash != b.policy_hash) {
    return fail(Reason::kBadHash, "the broker acknowledged something else");
  }
  GBX_ASSIGN(std::optional<Record> record, store_.record("policy", to_hex(b.policy_hash)));
  if (!record) return fail(Reason::kNotFound, "policy").with("", to_hex(b.policy_hash));
  GBX_ASSIGN(PolicyBody body, from_json<PolicyBody>(record->body));
  // an older one, or this one again
  if (body.beacon && body.beacon->request.beacon.body.time >= b.time) return ok_status();
  body.beacon = api::BeaconView{r, ack};
  record->body = to_json(body);
  Transaction t;
  t.records.push_back({record->revision, *record});
  GBX_TRY(count_kept(b.owner_id, beacons(size_of(r)), t));
  return commit(t);
}

Result<api::AssetView> Core::asset_view(const Record& record) {
  GBX_ASSIGN(AssetBody body, from_json<AssetBody>(record.body));
  return asset_view(record, body);
}

Result<api::AssetView> Core::asset_view(const Record& record, const AssetBody& body) {
  GBX_ASSIGN(api::PolicyView p, policy(body.policy_hash));
  // With the rotations since then: a lease counts only under the owner's present key.
  GBX_ASSIGN(const records::IdentityChain owner, newest_chain(body.owner));
  return api::AssetView{
      body.record.body.id(), body.record,  owner,   p.policy, body.policy_hash, p.ack,
      body.delisted,         record.order, p.beacon};
}

Result<api::AssetView> Core::asset(const Hash32& version_id) {
  GBX_ASSIGN(std::optional<Record> record, store_.record("asset", to_hex(version_id)));
  if (!record) {
    return fail(Reason::kNotFound, "asset version")
        .with("", to_hex(version_id))
        .hint("glovebox asset list");
  }
  return asset_view(*record);
}

Result<api::AssetList> Core::assets(const AssetFilter& filter, const Page& page) {
  RecordQuery q;
  q.kind = "asset";
  q.name = filter.name;
  const std::string owner = filter.owner.value_or("");
  if (owner.size() == 2 * sizeof(Hash32)) q.owner = owner;
  q.newest_first = true;
  using View = std::optional<api::AssetView>;
  return page_of<api::AssetList>(store_, q, page, [&](const Record& row) -> Result<View> {
    // What is not asked for costs no look at its policy.
    if (row.owner.compare(0, owner.size(), owner) != 0) return View();
    GBX_ASSIGN(const AssetBody body, from_json<AssetBody>(row.body));
    const records::VersionRecord& record = body.record.body;
    if (body.delisted && !filter.delisted) return View();
    if (filter.kind && record.kind != *filter.kind) return View();
    if (filter.digest && record.content_digest != *filter.digest) return View();
    GBX_ASSIGN(api::AssetView v, asset_view(row, body));
    return View(std::move(v));
  });
}

Status Core::delist(const Caller& who, const Hash32& version_id) {
  const Lock lock(mutex_);
  GBX_ASSIGN(std::optional<Record> record, store_.record("asset", to_hex(version_id)));
  if (!record) return fail(Reason::kNotFound, "asset version");
  if (record->owner != to_hex(who.identity) && !who.has(Role::kOperator)) {
    return fail(Reason::kWrongOwner, "an asset is delisted by its owner or an operator");
  }
  GBX_ASSIGN(AssetBody body, from_json<AssetBody>(record->body));
  if (body.delisted) return ok_status();
  body.delisted = true;
  record->body = to_json(body);
  Transaction t;
  t.records.push_back({record->revision, *record});
  return commit(t);
}

Result<api::PolicyView> Core::policy(const Hash32& hash) {
  GBX_ASSIGN(std::optional<Record> record, store_.record("policy", to_hex(hash)));
  if (!record) return fail(Reason::kNotFound, "policy").with("", to_hex(hash));
  GBX_ASSIGN(PolicyBody body, from_json<PolicyBody>(record->body));
  return api::PolicyView{hash, body.policy, body.ack, body.beacon};
}

Result<api::PolicyList> Core::policies(const Hash32& version_id, const Page& page) {
  RecordQuery q;
  q.kind = "policy";
  q.owner = to_hex(version_id);
  using View = std::optional<api::PolicyView>;
  return page_of<api::PolicyList>(store_, q, page, [](const Record& row) -> Result<View> {
    GBX_ASSIGN(PolicyBody body, from_json<PolicyBody>(row.body));
    return View({body.policy.hash(), body.policy, body.ack, body.beacon});
  });
}

Status Core::add_lease(const Caller& who, const Signed<records::Lease>& lease) {
  const Lock lock(mutex_);
  GBX_ASSIGN(crypto::PublicKey signer, crypto::PublicKey::from_text(lease.key));
  GBX_TRY(lease.verify(config_.set_id, signer));
  if (lease.body.set_id != config_.set_id) {
    return fail(Reason::kWrongSet, "lease").with(to_hex(config_.set_id), to_hex(lease.body.set_id));
  }
  const std::string id = to_hex(lease.body.lease_id);
  const api::LeaseView view{lease, who.identity};
  GBX_ASSIGN(std::optional<Record> old, store_.record("lease", id));
  if (old) {
    GBX_ASSIGN(api::LeaseView stored, from_json<api::LeaseView>(old->body));
    if (stored.lease.hash() == lease.hash()) return ok_status();
    return fail(Reason::kAlreadyExists, "another lease has this id");
  }
  const std::string consumer = to_hex(lease.body.consumer_id);
  const std::int64_t now = now_ms();
  Transaction t;
  t.records.push_back(
      {0, {"lease", id, consumer, to_hex(lease.body.asset_id), now, 0, to_json(view)}});
  for (const std::string& whose : std::set<std::string>{consumer, to_hex(who.identity)}) {
    t.records.push_back({0, {kLeaseOf, id + "/" + whose, whose, id, now, 0, Json(JsonObject{})}});
  }
  GBX_TRY(count_today({"leases-per-day", "leases per day", config_.quotas.leases_per_day},
                      who.identity, false, t));
  return commit(t);
}

Result<api::LeaseList> Core::leases(const Caller& who, const Page& page) {
  using View = std::optional<api::LeaseView>;
  const auto lease_in = [](const Record& row) -> Result<View> {
    GBX_ASSIGN(api::LeaseView v, from_json<api::LeaseView>(row.body));
    return View(std::move(v));
  };
  RecordQuery q;
  q.newest_first = true;
  q.kind = "lease";
  if (sees_all(who)) return page_of<api::LeaseList>(store_, q, page, lease_in);
  q.kind = kLeaseOf;
  q.owner = to_hex(who.identity);
  return page_of<api::LeaseList>(store_, q, page, [&](const Record& row) -> Result<View> {
    GBX_ASSIGN(const std::optional<Record> lease, store_.record("lease", row.name));
    if (!lease) return fail(Reason::kInternal, "a lease that is listed is gone").at(row.name);
    return lease_in(*lease);
  });
}

}  // namespace gbx::plane
