#include "cli/submission.h"

#include <algorithm>
#include <map>

#include "base/os.h"
#include "capacity/capacity.h"
#include "cli/catalogue.h"
#include "cli/yaml.h"
#include "gate/schema.h"
#include "lease/lease.h"
#include "policy/policy.h"

namespace gbx::cli {

namespace {

constexpr std::size_t kMaxSpec = 1U << 20;
constexpr std::size_t kLeasesPerAsset = 4;   // at a time
constexpr std::size_t kMostLeases = 32;      // of a submission
constexpr std::int64_t kSlackSeconds = 600;  // between signing and the first authorisation
constexpr const char* kRevokedHint = "ask its owner, or name another version: glovebox asset list";

// Declared schemas as the gate will read them, so that a mistake shows before anything is sent.
Status check_outputs(const records::JobSpec& spec) {
  for (std::size_t i = 0; i < spec.spec.outputs.size(); ++i) {
    GBX_ASSIGN(gate::OutputDeclaration d, capacity::declaration_of(spec.spec.outputs[i]));
    auto s = gate::capacity(d);
    if (s.ok()) continue;
    Error e = s.error();
    e.what = join_path("spec.outputs[" + std::to_string(i) + "].schema", e.what);
    return e;
  }
  // and recipes name the job's inputs
  GBX_TRY(capacity::of_spec(spec.spec, {}));
  return ok_status();
}

class Builder {
 public:
  Builder(Session& session, records::JobSpec spec) : session_(session) {
    body_.spec = std::move(spec);
  }

  Result<SignedJob> run() {
    GBX_ASSIGN(keys_, session_.keys());
    GBX_ASSIGN(set_, session_.set());
    const auto& spec = body_.spec.spec;
    for (const auto& in : spec.inputs) GBX_TRY(bind(in.name, in.asset));
    GBX_TRY(spec.image.asset ? bind("image", *spec.image.asset) : bind_ref(*spec.image.ref));
    const auto& image = out_.assets.back().record.body;
    if (image.kind != records::AssetKind::kImage) {
      return fail(Reason::kBadValue, "spec.image.asset")
          .with("an image", std::string(enum_name(image.kind)));
    }
    body_.image_digest = image.content_digest;
    body_.result_keys = {{"primary", keys_->file.result_key},
                         {"recovery", keys_->file.recovery_result_key}};
    body_.consumer_id = keys_->id;
    out_.submission.consumer = keys_->file.chain;
    for (;;) {
      GBX_TRY(choose_leases());
      GBX_TRY(sign());
      GBX_ASSIGN(const bool others, try_others());
      if (!others) return std::move(out_);
    }
  }

 private:
  Status bind(const std::string& name, const std::string& asset) {
    auto view = resolve_asset(session_, asset);
    if (!view.ok()) return view.error().at("asset of " + name);
    return bind_view(name, std::move(*view));
  }
  Status bind_view(const std::string& name, api::AssetView view) {
    if (view.policy.body.revoked) {
      return fail(Reason::kPolicyRevoked, "asset of " + name)
          .with("a policy in force", "revoked by its owner")
          .hint(kRevokedHint);
    }
    body_.assets.push_back({name, view.record.body.asset_id, view.version_id});
    out_.assets.push_back(std::move(view));
    return ok_status();
  }
  // The published image of this digest that we may use. The digest is what counts; the name chooses
  // among several.
  Status bind_ref(const std::string& ref) {
    GBX_ASSIGN(const std::string digest, records::image_ref_digest(ref));
    GBX_ASSIGN(Plane * plane, session_.plane());
    Plane::AssetFilter filter;
    filter.kind = std::string(enum_name(records::AssetKind::kImage));
    filter.digest = digest;
    GBX_ASSIGN(std::vector<api::AssetView> images, plane->assets(filter));
    std::erase_if(images, [&](const auto& v) {
      return v.record.body.content_digest != digest || !verify_asset_view(*set_, v).ok();
    });
    if (images.empty()) {
      return fail(Reason::kNotFound, "spec.image.ref")
          .with("a published image with the digest " + digest, "none")
          .hint("publish it: glovebox image import LAYOUT --name NAME --policy FILE");
    }
    Error why = fail(Reason::kPolicyRevoked, "spec.image.ref")
                    .with("an image in force", "revoked by its owner")
                    .hint(kRevokedHint);
    std::vector<api::AssetView> usable;
    for (auto& v : images) {
      if (v.policy.body.revoked) continue;
      GBX_ASSIGN(const auto leases, our_leases(v));
      const bool leased =
          std::any_of(leases.begin(), leases.end(), [&](const auto& l) { return holds(l, v); });
      if (!needs_lease(v) || leased) {
        usable.push_back(std::move(v));
      } else {
        why = fail(Reason::kLeaseMissing, "spec.image.ref")
                  .with("a lease for " + version_label(v), "none")
                  .hint("ask its owner " + to_hex(v.record.body.owner_id).substr(0, 16) +
                        "… for one");
      }
    }
    if (usable.empty()) return why;
    GBX_ASSIGN(const api::AssetView* chosen,
               choose_image(ref.substr(0, ref.find('@')), keys_->id, usable));
    return bind_view("image", *chosen);
  }

  Status sign() {
    const auto& spec = body_.spec.spec;
    const auto& t = spec.timeouts;
    body_.nonce = session_.random().fixed<32>();
    body_.not_after = session_.now() + kSlackSeconds + spec.attempts * (t.queue + t.start + t.run);
    out_.job_id = body_.job_id();
    GBX_ASSIGN(out_.submission.submission, records::sign(set_->set_id, body_, *keys_->signing));
    return ok_status();
  }

  // Leases of ours for every asset whose policy wants one, the newest first; which of them is used
  // up is the broker's to say.
  Status choose_leases() {
    std::vector<const api::AssetView*> wanted;
    for (const auto& a : out_.assets) {
      const bool known = std::any_of(wanted.begin(), wanted.end(), [&](const auto* w) {
        return w->record.body.asset_id == a.record.body.asset_id;
      });
      if (needs_lease(a) && !known) wanted.push_back(&a);
    }
    body_.leases.clear();
    out_.submission.leases.clear();
    more_.clear();
    for (const auto* a : wanted) {
      const Id16& asset = a->record.body.asset_id;
      GBX_ASSIGN(const auto leases, leases_for(*a));
      const std::size_t share = std::min(kLeasesPerAsset, kMostLeases / wanted.size());
      const std::size_t first = skipped_[asset];
      const std::size_t end = std::min(first + share, leases.size());
      for (std::size_t i = first; i < end; ++i) {
        body_.leases.push_back(leases[i].body.lease_id);
        out_.submission.leases.push_back(leases[i]);
      }
      if (end < leases.size()) more_[asset] = end;
    }
    return ok_status();
  }
  // Where leases did not fit: whether those that are named are used up, so that others take their
  // place.
  Result<bool> try_others() {
    if (more_.empty()) return false;
    GBX_ASSIGN(Plane * plane, session_.plane());
    GBX_ASSIGN(const records::Explanation e, plane->explain(out_.submission));
    bool others = false;
    for (const auto& c : e.checks) {
      if (c.allowed || c.reason != reason_code(Reason::kLeaseExhausted)) continue;
      for (const auto& binding : body_.assets) {
        const auto next = more_.find(binding.asset_id);
        if (binding.name != c.asset || next == more_.end()) continue;
        skipped_[binding.asset_id] = next->second;
        others = true;
      }
    }
    return others;
  }
  // Those that hold, in the plane's order; none where the policy asks for none. If none holds, one
  // that does not, so that the broker says why.
  Result<std::vector<records::Signed<records::Lease>>> leases_for(const api::AssetView& a) {
    std::vector<records::Signed<records::Lease>> out;
    GBX_ASSIGN(const auto ours, our_leases(a));
    for (const auto& l : ours) {
      if (holds(l, a)) out.push_back(l);
    }
    if (out.empty() && !ours.empty()) out.push_back(ours.front());
    return out;
  }
  Result<std::vector<records::Signed<records::Lease>>> our_leases(const api::AssetView& a) {
    std::vector<records::Signed<records::Lease>> out;
    if (!needs_lease(a)) return out;
    if (!leases_) {
      GBX_ASSIGN(Plane * plane, session_.plane());
      GBX_ASSIGN(leases_, plane->leases());
    }
    for (const auto& l : *leases_) {
      const records::Lease& body = l.lease.body;
      const bool ours = body.consumer_id == keys_->id && body.set_id == set_->set_id;
      if (ours && body.asset_id == a.record.body.asset_id) out.push_back(l.lease);
    }
    return out;
  }
  bool holds(const records::Signed<records::Lease>& l, const api::AssetView& a) const {
    lease::LeaseQuery q;
    q.set_id = set_->set_id;
    q.asset_id = a.record.body.asset_id;
    q.consumer_id = keys_->id;
    q.owner = &a.owner;
    q.issuers = &a.policy.body.clauses.lease_issuers;
    q.now = session_.now();
    return lease::verify_lease(l, q).ok();
  }
  bool needs_lease(const api::AssetView& a) const {
    return policy::needs_lease(a.policy.body.clauses, keys_->id);
  }

  Session& session_;
  Keys* keys_ = nullptr;
  std::optional<records::SetChain::Keys> set_;
  std::optional<std::vector<api::LeaseView>> leases_;
  std::map<Id16, std::size_t> skipped_;  // leases of an asset that the broker called used up
  std::map<Id16, std::size_t> more_;     // where those begin that did not fit
  records::Submission body_;
  SignedJob out_;
};

}  // namespace

Result<records::JobSpec> parse_job_spec(std::string_view text) {
  GBX_ASSIGN(Json document, parse_document(text));
  Result<records::JobSpec> spec = from_json<records::JobSpec>(document);
  if (!spec.ok()) {
    return spec.error().hint(
        "docs/jobspec.md describes every member; `glovebox job schema` prints the schema");
  }
  GBX_TRY(spec->validate());
  GBX_TRY(check_outputs(*spec));
  return spec;
}
Result<records::JobSpec> read_job_spec(const std::string& path) {
  GBX_ASSIGN(std::string text, read_text_file(path, kMaxSpec));
  auto spec = parse_job_spec(text);
  if (!spec.ok()) return spec.error().at(path);
  return spec;
}

Result<SignedJob> sign_job(Session& session, records::JobSpec spec) {
  return Builder(session, std::move(spec)).run();
}

}  // namespace gbx::cli
