#include "cli/catalogue.h"

#include <algorithm>

#include "base/log.h"
#include "policy/policy.h"
#include "translog/translog.h"

namespace gbx::cli {

namespace {

constexpr std::size_t kShortestPrefix = 8;

bool is_hex(std::string_view s) {
  return !s.empty() && s.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}
bool starts(const std::string& whole, const std::string& prefix) {
  return whole.rfind(prefix, 0) == 0;
}

}  // namespace

Status verify_asset_view(const records::SetChain::Keys& set, const api::AssetView& v) {
  const policy::AssetFacts facts{v.owner, v.record, v.policy, v.ack.body.time};
  GBX_TRY(policy::verify_asset(set.set_id, facts));
  if (v.version_id != v.record.body.id()) {
    return fail(Reason::kWrongVersion, "the plane names another version than the signed record")
        .with(to_hex(v.record.body.id()), to_hex(v.version_id));
  }
  const Hash32 policy_hash = v.policy.hash();
  if (v.policy_hash != policy_hash) {
    return fail(Reason::kBadHash, "hash of the policy")
        .with(to_hex(policy_hash), to_hex(v.policy_hash));
  }
  GBX_TRY(v.ack.verify(set.set_id, set.signing));
  if (v.ack.body.policy_hash != policy_hash || v.ack.body.asset_version_id != v.version_id ||
      v.ack.body.serial != v.policy.body.serial) {
    return fail(Reason::kPolicyMismatch, "the broker's acknowledgement is about another policy")
        .with(to_hex(policy_hash), to_hex(v.ack.body.policy_hash));
  }
  return v.beacon ? verify_beacon(set, v.policy, v.ack.body.time, *v.beacon) : ok_status();
}

Status verify_publish_ack(const records::SetChain::Keys& set, const records::Publish& publish,
                          const records::Signed<records::PublishAck>& ack) {
  GBX_TRY(ack.verify(set.set_id, set.signing));
  const auto& a = ack.body;
  const Hash32 policy_hash = publish.policy.hash();
  if (a.policy_hash != policy_hash) {
    return fail(Reason::kPolicyMismatch, "acknowledged policy")
        .with(to_hex(policy_hash), to_hex(a.policy_hash));
  }
  if (a.asset_version_id != publish.record.body.id() || a.serial != publish.policy.body.serial) {
    return fail(Reason::kWrongVersion, "acknowledged version")
        .with(to_hex(publish.record.body.id()), to_hex(a.asset_version_id));
  }
  // The broker's log entry, as docs/protocol.md defines it.
  Json entry;
  entry["kind"] = "publish";
  entry["time"] = a.time;
  entry["body"]["publish"] = to_json(publish);
  return translog::verify(a.inclusion, as_bytes(canonical(entry)));
}

Status verify_beacon(const records::SetChain::Keys& set,
                     const records::Signed<records::Policy>& policy, std::int64_t published,
                     const api::BeaconView& beacon) {
  const records::OwnerBeacon& b = beacon.request.beacon.body;
  const records::Policy& p = policy.body;
  if (b.owner_id != p.owner_id || beacon.request.owner.id() != p.owner_id) {
    return fail(Reason::kWrongOwner, "beacon").with(to_hex(p.owner_id), to_hex(b.owner_id));
  }
  if (b.policy_hash != policy.hash() || b.asset_version_id != p.asset_version_id) {
    return fail(Reason::kPolicyMismatch, "policy of the beacon")
        .with(to_hex(policy.hash()), to_hex(b.policy_hash));
  }
  GBX_TRY(records::verify_by_identity(set.set_id, beacon.request.owner, beacon.request.beacon));
  GBX_TRY(beacon.ack.verify(set.set_id, set.signing));
  const records::BeaconAck& a = beacon.ack.body;
  if (a.beacon != beacon.request.beacon.hash() || a.policy_hash != b.policy_hash) {
    return fail(Reason::kPolicyMismatch, "acknowledged beacon")
        .with(to_hex(beacon.request.beacon.hash()), to_hex(a.beacon));
  }
  const std::int64_t until = std::max(published, b.time) + p.clauses.fresh_for_seconds;
  if (a.fresh_until != until) {
    return fail(Reason::kBadValue, "until when the beacon counts")
        .with(format_time(until), format_time(a.fresh_until));
  }
  Json entry;
  entry["kind"] = "beacon";
  entry["time"] = a.time;
  entry["body"]["request"] = to_json(beacon.request);
  return translog::verify(a.inclusion, as_bytes(canonical(entry)));
}

Result<AssetName> parse_asset_name(const std::string& text) {
  AssetName n;
  const Error bad =
      fail(Reason::kUsage, "name of an asset")
          .with("NAME, NAME@VERSION, OWNER/NAME or the version id", printable(text, 128));
  if (text.empty() || text.size() > 200) return bad;
  if (is_hex(text) && text.size() >= kShortestPrefix && text.size() <= 64) n.id_prefix = text;
  std::string rest = text;
  if (const auto slash = rest.find('/'); slash != std::string::npos) {
    n.owner_prefix = rest.substr(0, slash);
    rest = rest.substr(slash + 1);
    if (!is_hex(n.owner_prefix) || n.owner_prefix.size() < kShortestPrefix ||
        n.owner_prefix.size() > 64) {
      return bad;
    }
  }
  if (const auto at = rest.rfind('@'); at != std::string::npos) {
    const std::string number = rest.substr(at + 1);
    if (number.empty() || number.size() > 9 ||
        number.find_first_not_of("0123456789") != std::string::npos) {
      return bad;
    }
    n.version = std::stoll(number);
    if (n.version < 1) return bad;
    rest = rest.substr(0, at);
  }
  if (rest.empty()) return bad;
  n.name = rest;
  return n;
}

Status check_new_name(const std::string& name) {
  // As a record will be judged that bears it: before anything is packed, or a key made.
  const bool shown_as_it_is = printable(name, 8 * name.size() + 1) == name;
  const bool plain =
      shown_as_it_is && valid_utf8(name) && std::all_of(name.begin(), name.end(), [](char c) {
        return static_cast<unsigned char>(c) > 0x20 && c != '/' && c != '@';
      });
  if (plain && !name.empty() && name.size() <= 64) return ok_status();
  return fail(Reason::kUsage, "--name")
      .with("1 to 64 bytes of UTF-8 without blanks, control characters, / and @",
            name.empty() ? "nothing" : printable(name, 100));
}

Result<const api::AssetView*> choose_asset(const AssetName& n,
                                           const std::vector<api::AssetView>& candidates) {
  std::vector<const api::AssetView*> by_id;
  std::vector<const api::AssetView*> by_name;
  for (const auto& v : candidates) {
    const auto& r = v.record.body;
    if (!n.id_prefix.empty() && starts(to_hex(v.version_id), n.id_prefix)) by_id.push_back(&v);
    const bool named = r.name == n.name && starts(to_hex(r.owner_id), n.owner_prefix);
    if (named && (n.version == 0 || r.version == n.version)) by_name.push_back(&v);
  }
  const std::string list = "glovebox asset list";
  if (by_name.empty()) {
    if (by_id.size() == 1) return by_id[0];
    if (by_id.size() > 1) {
      return fail(Reason::kConflict, "several versions begin with " + n.id_prefix)
          .hint("write more digits");
    }
    return fail(Reason::kNotFound, "asset")
        .with(n.name + (n.version > 0 ? "@" + std::to_string(n.version) : ""),
              "nothing of this name")
        .hint(list);
  }
  // Never the one that the plane lists first: which owner is meant is the user's to say.
  const api::AssetView* best = by_name[0];
  for (const auto* v : by_name) {
    if (v->record.body.asset_id != best->record.body.asset_id) {
      const std::string first = to_hex(best->record.body.owner_id).substr(0, 12) + "/" + n.name;
      const std::string other = to_hex(v->record.body.owner_id).substr(0, 12) + "/" + n.name;
      if (first != other) {
        return fail(Reason::kConflict, "several owners use the name " + n.name)
            .with("OWNER/NAME", first + " or " + other)
            .hint("write one of them");
      }
      return fail(Reason::kConflict, "several assets have the name " + n.name)
          .hint("write the version id; " + list);
    }
    if (v->record.body.version > best->record.body.version) best = v;
  }
  if (!by_id.empty() && by_id[0]->version_id != best->version_id) {
    return fail(Reason::kConflict, n.name + " is a name and the beginning of a version id")
        .hint("write the whole version id, or OWNER/NAME");
  }
  return best;
}

Result<const api::AssetView*> choose_image(const std::string& name, const Hash32& own,
                                           const std::vector<api::AssetView>& images) {
  std::vector<const api::AssetView*> left;
  for (const auto& v : images) left.push_back(&v);
  const auto narrow = [&left](const auto& fits) {
    std::vector<const api::AssetView*> fitting;
    std::copy_if(left.begin(), left.end(), std::back_inserter(fitting), fits);
    if (!fitting.empty()) left = std::move(fitting);
  };
  if (const auto wanted = parse_asset_name(name); wanted.ok()) {
    narrow([&](const auto* v) {
      return v->record.body.name == wanted->name &&
             starts(to_hex(v->record.body.owner_id), wanted->owner_prefix);
    });
  }
  narrow([&](const auto* v) { return v->record.body.owner_id == own; });
  if (left.empty()) return fail(Reason::kNotFound, "image");
  const api::AssetView* best = left[0];
  for (const auto* v : left) {
    if (v->record.body.asset_id != best->record.body.asset_id) {
      return fail(Reason::kConflict, "several published assets hold this image")
          .with("spec.image.asset with one of the version ids",
                to_hex(best->version_id).substr(0, 16) + " or " +
                    to_hex(v->version_id).substr(0, 16));
    }
    if (v->record.body.version > best->record.body.version) best = v;
  }
  return best;
}

Result<api::AssetView> resolve_asset(Session& session, const std::string& text, Listed listed) {
  GBX_ASSIGN(AssetName name, parse_asset_name(text));
  GBX_ASSIGN(Plane * plane, session.plane());
  GBX_ASSIGN(records::SetChain::Keys set, session.set());
  std::vector<api::AssetView> candidates;
  if (name.id_prefix.size() == 64) {
    GBX_ASSIGN(const Hash32 id, fixed_from_hex<32>(name.id_prefix));
    GBX_ASSIGN(api::AssetView v, plane->asset(id));
    candidates.push_back(std::move(v));
  } else {
    Plane::AssetFilter filter;
    filter.delisted = listed == Listed::kAll;
    if (name.id_prefix.empty()) filter.name = name.name;
    // Whole bytes of it: what others published under the name is neither sent nor read.
    filter.owner = name.owner_prefix.substr(0, name.owner_prefix.size() / 2 * 2);
    GBX_ASSIGN(candidates, plane->assets(filter));
  }
  GBX_ASSIGN(const api::AssetView* chosen, choose_asset(name, candidates));
  GBX_TRY(verify_asset_view(set, *chosen));
  return *chosen;
}

std::string version_label(const api::AssetView& v) {
  return printable(v.record.body.name) + "@" + std::to_string(v.record.body.version);
}

Result<OwnVersions> choose_own(const AssetName& name, std::vector<api::AssetView> own) {
  OwnVersions out;
  GBX_ASSIGN(const api::AssetView* chosen, choose_asset(name, own));
  const auto& record = chosen->record.body;
  const Hash32 id = chosen->version_id;
  const Id16 asset = record.asset_id;
  out.one = name.version != 0 || record.name != name.name;
  std::erase_if(own, [&](const auto& v) { return v.record.body.asset_id != asset; });
  std::sort(own.begin(), own.end(), [](const auto& a, const auto& b) {
    return a.record.body.version < b.record.body.version;
  });
  while (own[out.chosen].version_id != id) ++out.chosen;
  out.all = std::move(own);
  return out;
}

Result<OwnVersions> resolve_own(Session& session, const std::string& text) {
  GBX_ASSIGN(AssetName name, parse_asset_name(text));
  GBX_ASSIGN(Keys * keys, session.keys());
  GBX_ASSIGN(Plane * plane, session.plane());
  GBX_ASSIGN(records::SetChain::Keys set, session.set());
  Plane::AssetFilter filter;
  filter.owner = to_hex(keys->id);
  filter.delisted = true;
  GBX_ASSIGN(std::vector<api::AssetView> own, plane->assets(filter));
  std::erase_if(own, [&](const auto& v) {
    return v.record.body.owner_id != keys->id || !verify_asset_view(set, v).ok();
  });
  auto out = choose_own(name, std::move(own));
  if (out.ok() || out.reason() != Reason::kNotFound) return out;
  const auto other = resolve_asset(session, text, Listed::kAll);
  if (!other.ok()) return out;
  return fail(Reason::kWrongOwner, "a policy is signed by the asset's owner")
      .with(to_hex(other->record.body.owner_id), to_hex(keys->id));
}

Result<Hash32> choose_id(const std::string& prefix, const std::vector<Hash32>& ids,
                         const char* what, const char* list_command) {
  const Hash32* found = nullptr;
  for (const auto& id : ids) {
    if (!starts(to_hex(id), prefix)) continue;
    if (found != nullptr && *found != id) {
      return fail(Reason::kConflict, std::string("several ids begin with ") + prefix)
          .hint("write more digits");
    }
    found = &id;
  }
  if (found == nullptr) {
    return fail(Reason::kNotFound, what).with(prefix, "none begins so").hint(list_command);
  }
  return *found;
}

Result<Hash32> resolve_job(Session& session, const std::string& text) {
  if (!is_hex(text) || text.size() < 4 || text.size() > 64) {
    return fail(Reason::kUsage, "job id")
        .with("4 to 64 hex digits, a to f in small letters", printable(text, 80))
        .hint("glovebox job list");
  }
  if (text.size() == 64) return fixed_from_hex<32>(text);
  GBX_ASSIGN(Plane * plane, session.plane());
  GBX_ASSIGN(std::vector<api::JobView> jobs, plane->jobs("", 2000));
  std::vector<Hash32> ids;
  for (const auto& j : jobs) ids.push_back(j.job_id);
  return choose_id(text, ids, "job", "glovebox job list");
}

}  // namespace gbx::cli
