// Core: assets, policies, leases.
#include <algorithm>

#include "plane/core/core.h"

namespace gbx::plane {

using machines::Record;
using machines::RecordQuery;
using machines::RecordWrite;

namespace {
constexpr char kPublications[] = "publications-per-day";
// A lease is listed for its consumer and for whoever posted it, each by an index: its record is the
// consumer's, and beside it lies one of this kind, which is the poster's.
constexpr char kPosted[] = "lease-posted";
constexpr char kPublicationsText[] = "publications, renewals of policies and beacons per day";
}  // namespace

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
  const Daily d{kPublications, kPublicationsText, config_.quotas.publications_per_day};
  GBX_ASSIGN(const Record today, todays(d, owner));
  GBX_ASSIGN(const CountBody count, from_json<CountBody>(today.body));
  return within(d, count.count);
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
    const Daily d{kPublications, kPublicationsText, config_.quotas.publications_per_day};
    GBX_TRY(count_today(d, p.owner.id(), true, t));
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
  const Daily d{kPublications, kPublicationsText, config_.quotas.publications_per_day};
  GBX_ASSIGN(const Record today, todays(d, owner));
  GBX_ASSIGN(const CountBody count, from_json<CountBody>(today.body));
  return within(d, count.count);
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
  const Daily d{kPublications, kPublicationsText, config_.quotas.publications_per_day};
  GBX_TRY(count_today(d, b.owner_id, true, t));
  return commit(t);
}

Result<api::AssetView> Core::asset_view(const Record& record) {
  GBX_ASSIGN(AssetBody body, from_json<AssetBody>(record.body));
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
  q.owner = filter.owner;
  q.newest_first = true;
  q.limit = 200;
  GBX_ASSIGN(q.after, parse_cursor(page.cursor));
  api::AssetList out;
  std::size_t passed = 0;
  for (;;) {
    GBX_ASSIGN(std::vector<Record> rows, store_.records(q));
    for (const Record& row : rows) {
      GBX_ASSIGN(api::AssetView v, asset_view(row));
      const bool wanted = (!v.delisted || filter.delisted) &&
                          (!filter.kind || v.record.body.kind == *filter.kind);
      if (passed == kPassesOver || (wanted && out.items.size() == page.limit)) {
        out.next = make_cursor(q.after->first, q.after->second);
        return out;
      }
      if (wanted) out.items.push_back(std::move(v));
      passed += wanted ? 0 : 1;
      q.after = std::pair(row.order, row.id);
    }
    if (rows.size() < q.limit) return out;
  }
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
  q.limit = page.limit + 1;
  GBX_ASSIGN(q.after, parse_cursor(page.cursor));
  GBX_ASSIGN(std::vector<Record> rows, store_.records(q));
  api::PolicyList out;
  for (std::size_t i = 0; i < rows.size() && i < page.limit; ++i) {
    GBX_ASSIGN(PolicyBody body, from_json<PolicyBody>(rows[i].body));
    out.items.push_back({body.policy.hash(), body.policy, body.ack, body.beacon});
  }
  if (rows.size() > page.limit) {
    out.next = make_cursor(rows[page.limit - 1].order, rows[page.limit - 1].id);
  }
  return out;
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
  RecordWrite w;
  w.record = {
      "lease", id,           to_hex(lease.body.consumer_id), to_hex(lease.body.asset_id), now_ms(),
      0,       to_json(view)};
  RecordWrite posted;
  posted.record = {kPosted, id, to_hex(who.identity), "", w.record.order, 0, Json(JsonObject{})};
  Transaction t;
  t.records.push_back(std::move(w));
  t.records.push_back(std::move(posted));
  GBX_TRY(count_today({"leases-per-day", "leases per day", config_.quotas.leases_per_day},
                      who.identity, false, t));
  return commit(t);
}

Result<api::LeaseList> Core::leases(const Caller& who, const Page& page) {
  RecordQuery q;
  q.kind = "lease";
  q.limit = page.limit + 1;
  q.newest_first = true;
  GBX_ASSIGN(q.after, parse_cursor(page.cursor));
  const bool all = who.has(Role::kOperator) || who.has(Role::kAuditor);
  if (!all) q.owner = to_hex(who.identity);
  GBX_ASSIGN(std::vector<Record> rows, store_.records(q));
  if (!all) GBX_TRY(add_posted(q, rows));
  api::LeaseList out;
  for (std::size_t i = 0; i < rows.size() && i < page.limit; ++i) {
    GBX_ASSIGN(api::LeaseView v, from_json<api::LeaseView>(rows[i].body));
    out.items.push_back(std::move(v));
  }
  if (rows.size() > page.limit) {
    out.next = make_cursor(rows[page.limit - 1].order, rows[page.limit - 1].id);
  }
  return out;
}

// Those that the caller posted for others among those for the caller: one list, the newest first.
Status Core::add_posted(RecordQuery q, std::vector<Record>& rows) {
  q.kind = kPosted;
  GBX_ASSIGN(const std::vector<Record> posted, store_.records(q));
  for (const Record& p : posted) {
    GBX_ASSIGN(std::optional<Record> lease, store_.record("lease", p.id));
    if (!lease) return fail(Reason::kInternal, "a lease that was posted is gone");
    if (lease->owner != *q.owner) rows.push_back(std::move(*lease));
  }
  std::sort(rows.begin(), rows.end(), [](const Record& a, const Record& b) {
    return std::tie(b.order, b.id) < std::tie(a.order, a.id);
  });
  if (rows.size() > q.limit) rows.resize(q.limit);
  return ok_status();
}

}  // namespace gbx::plane
