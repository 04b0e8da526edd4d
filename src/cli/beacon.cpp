#include "cli/beacon.h"

#include <algorithm>

#include "cli/output.h"
#include "cli/wording.h"

namespace gbx::cli {

namespace {

bool asks(const api::AssetView& v) {
  return !v.policy.body.revoked && v.policy.body.clauses.fresh_for_seconds > 0;
}

// What NAME means: every version whose policy asks; of one that was named, that one.
Result<std::vector<api::AssetView>> meant(Session& s, const std::string& text) {
  GBX_ASSIGN(OwnVersions own, resolve_own(s, text));
  const api::AssetView chosen = own.all[own.chosen];
  if (own.one) own.all = {chosen};
  std::erase_if(own.all, [](const auto& v) { return !asks(v); });
  if (!own.all.empty()) return std::move(own.all);
  const bool revoked = chosen.policy.body.revoked;
  return fail(revoked ? Reason::kPolicyRevoked : Reason::kWrongState,
              version_label(chosen) + " needs no beacon")
      .with("a policy in force with freshForSeconds above 0",
            revoked ? "a revoked one" : "freshForSeconds 0")
      .hint("glovebox policy explain " + version_label(chosen));
}

Result<Json> confirm(Session& s, const Keys& keys, const api::AssetView& v) {
  GBX_ASSIGN(records::SetChain::Keys set, s.set());
  GBX_ASSIGN(Plane * plane, s.plane());
  const records::OwnerBeacon body{keys.id, v.version_id, v.policy_hash, s.now()};
  api::BeaconView sent;
  sent.request.owner = keys.file.chain;
  GBX_ASSIGN(sent.request.beacon, records::sign(set.set_id, body, *keys.signing));
  GBX_ASSIGN(sent.ack, plane->beacon(sent.request));
  GBX_TRY(verify_beacon(set, v.policy, v.ack.body.time, sent));
  Json j;
  j["name"] = v.record.body.name;
  j["version"] = v.record.body.version;
  j["versionId"] = to_hex(v.version_id);
  j["policySerial"] = v.policy.body.serial;
  j["confirmed"] = format_time(body.time);
  j["freshUntil"] = format_time(sent.ack.body.fresh_until);
  return j;
}

}  // namespace

Freshness freshness(const api::AssetView& v, std::int64_t now) {
  Freshness f;
  if (!asks(v)) return f;
  const std::int64_t published = v.ack.body.time;
  const bool by_beacon = v.beacon && v.beacon->request.beacon.body.time > published;
  const std::int64_t last = by_beacon ? v.beacon->request.beacon.body.time : published;
  const std::int64_t until = last + v.policy.body.clauses.fresh_for_seconds;
  const bool fresh = now <= until;
  f.json["confirmed"] = format_time(last);
  f.json["by"] = by_beacon ? "beacon" : "publication";
  f.json["freshUntil"] = format_time(until);
  f.json["fresh"] = fresh;
  f.text = std::string(fresh ? "Fresh" : "NOT FRESH, no key leaves") +
           ": its owner last stood by it " + rough_time(now - last) + " ago (" +
           (by_beacon ? "beacon" : "publication") + " of " + format_time(last) +
           "), which counts " + (fresh ? "until " : "no longer since ") + format_time(until) + ".";
  return f;
}

Status policy_beacon(Session& s, const Invocation& in) {
  GBX_ASSIGN(Keys * keys, s.keys());
  std::vector<api::AssetView> versions;
  for (const auto& text : in.list("asset")) {
    auto more = meant(s, text);
    if (!more.ok()) return more.error();
    for (auto& v : *more) {
      const auto same = [&v](const auto& known) { return known.version_id == v.version_id; };
      if (std::none_of(versions.begin(), versions.end(), same)) versions.push_back(std::move(v));
    }
  }
  JsonArray items;
  std::string text;
  Status result = ok_status();
  for (const auto& v : versions) {
    auto j = confirm(s, *keys, v);
    if (!j.ok()) {  // the others are confirmed all the same
      if (result.ok()) result = Error(j.error()).at(version_label(v));
      continue;
    }
    text += "confirmed " + version_label(v) + ", policy serial " +
            std::to_string(v.policy.body.serial) + ": fresh until " +
            *j->find("freshUntil")->string() +
            ", accepted by the broker and in its log (proof checked)\n";
    items.push_back(std::move(*j));
  }
  Json j;
  j["items"] = Json(std::move(items));
  if (!text.empty()) s.print(j, text);
  return result;
}

}  // namespace gbx::cli
