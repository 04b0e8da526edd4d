#include "agent/bundle_check.h"

#include <algorithm>

namespace gbx::agent {

using namespace records;

namespace {

Status check_submission(const CheckedJob& job) {
  const auto& b = job.bundle;
  const Submission& s = b.submission.submission.body;
  if (b.submission.consumer.id() != s.consumer_id) {
    return fail(Reason::kSpecMismatch, "the submission names another consumer");
  }
  GBX_ASSIGN(crypto::PublicKey consumer, b.submission.consumer.current_key(job.set.set_id));
  GBX_TRY(b.submission.submission.verify(job.set.set_id, consumer));
  return s.validate();
}

Status check_plan(const CheckedJob& job, std::int64_t now) {
  const auto& b = job.bundle;
  GBX_TRY(b.plan.verify(job.set.set_id, job.set.signing));
  if (b.plan.body.job_id != job.job_id) {
    return fail(Reason::kPlanMismatch, "the plan is for another job")
        .with(to_hex(job.job_id), to_hex(b.plan.body.job_id));
  }
  GBX_TRY(b.credential.verify(job.set.set_id, job.set.signing));
  const Credential& c = b.credential.body;
  if (c.job_id != job.job_id || c.plan_hash != job.plan_hash) {
    return fail(Reason::kCredentialForeign, "the credential is for another job or plan");
  }
  if (c.expires <= now) {
    return fail(Reason::kCredentialExpired, "credential")
        .with("later than " + format_time(now), format_time(c.expires));
  }
  return ok_status();
}

const IdentityChain* owner_of(const LaunchBundle& b, const Hash32& id) {
  for (const auto& o : b.owners) {
    if (o.id() == id) return &o;
  }
  return nullptr;
}

// Every policy of the plan is here, signed by its owner, for a version record signed by the same
// owner.
Status check_assets(const CheckedJob& job) {
  const auto& b = job.bundle;
  if (b.policies.size() != b.plan.body.policies.size()) {
    return fail(Reason::kPolicyMismatch, "the plan rests on other policies");
  }
  for (const auto& p : b.policies) {
    const Hash32 hash = p.hash();
    const bool planned = std::any_of(
        b.plan.body.policies.begin(), b.plan.body.policies.end(), [&](const PlanPolicy& x) {
          return x.policy_hash == hash && x.asset_version_id == p.body.asset_version_id;
        });
    if (!planned) return fail(Reason::kPolicyMismatch, "a policy is not the one of the plan");
    const IdentityChain* owner = owner_of(b, p.body.owner_id);
    if (owner == nullptr) return fail(Reason::kPolicyMismatch, "a policy's owner is unknown");
    // The broker accepted both while the key stood; the owner may have rotated it since.
    GBX_TRY(verify_by_identity(job.set.set_id, *owner, p));
    const auto record = std::find_if(b.versions.begin(), b.versions.end(), [&](const auto& v) {
      return v.body.id() == p.body.asset_version_id;
    });
    if (record == b.versions.end()) {
      return fail(Reason::kWrongVersion, "a version record is missing");
    }
    if (record->body.owner_id != p.body.owner_id || record->body.asset_id != p.body.asset_id ||
        record->body.commit_dk != p.body.commit_dk) {
      return fail(Reason::kPolicyMismatch, "policy and version record disagree");
    }
    GBX_TRY(verify_by_identity(job.set.set_id, *owner, *record));
  }
  return ok_status();
}

Result<std::size_t> version_index(const LaunchBundle& b, std::string_view name) {
  const auto& assets = b.submission.submission.body.assets;
  const auto bound = std::find_if(assets.begin(), assets.end(),
                                  [&](const AssetBinding& a) { return a.name == name; });
  if (bound == assets.end()) {
    return fail(Reason::kSpecMismatch, "the submission binds no version to " + std::string(name));
  }
  for (std::size_t i = 0; i < b.versions.size(); ++i) {
    if (b.versions[i].body.id() != bound->version_id) continue;
    if (b.versions[i].body.asset_id != bound->asset_id) {
      return fail(Reason::kWrongAsset, std::string(name));
    }
    const bool has_policy = std::any_of(b.policies.begin(), b.policies.end(), [&](const auto& p) {
      return p.body.asset_version_id == bound->version_id;
    });
    if (!has_policy) return fail(Reason::kPolicyMissing, std::string(name));
    return i;
  }
  return fail(Reason::kWrongVersion, "no record of the version bound to " + std::string(name));
}

}  // namespace

Result<CheckedJob> check_bundle(LaunchBundle bundle, std::int64_t now) {
  GBX_ASSIGN(SetChain::Keys keys, bundle.set.verify(bundle.launch_config.set_id));
  if (bundle.launch_config.set_key != keys.set_key.text()) {
    return fail(Reason::kWrongSet, "set key of the launch configuration")
        .with(bundle.launch_config.set_key, keys.set_key.text());
  }
  CheckedJob job{std::move(keys), std::move(bundle), {}, {}, 0, {}, {}, {}};
  const Submission& s = job.bundle.submission.submission.body;
  job.job_id = s.job_id();
  job.plan_hash = job.bundle.plan.hash();
  GBX_TRY(check_submission(job));
  GBX_TRY(check_plan(job, now));
  GBX_TRY(check_assets(job));
  GBX_ASSIGN(job.image, version_index(job.bundle, "image"));
  const VersionRecord& image = job.bundle.versions[job.image].body;
  if (image.kind != AssetKind::kImage || image.content_digest != s.image_digest) {
    return fail(Reason::kImageDigestMismatch, "image asset")
        .with(s.image_digest, image.content_digest);
  }
  for (const auto& in : s.spec.spec.inputs) {
    GBX_ASSIGN(std::size_t index, version_index(job.bundle, in.name));
    job.inputs.push_back(index);
  }
  for (const auto& k : s.result_keys) {
    GBX_ASSIGN(crypto::HpkePublicKey key, crypto::HpkePublicKey::from_text(k.hpke));
    job.result_keys.push_back(key);
  }
  for (const auto& r : job.bundle.plan.body.reviewers) {
    const auto& may = job.bundle.plan.body.may_preview;
    if (std::find(may.begin(), may.end(), r) == may.end()) continue;
    GBX_ASSIGN(crypto::HpkePublicKey key, crypto::HpkePublicKey::from_text(r.hpke));
    job.reviewers.push_back(key);
  }
  return job;
}

Status check_key_context(const CheckedJob& job, const Hash32& evidence, const KeyRequest& request,
                         const KeyContext& c) {
  if (c.credential != job.bundle.credential.hash() || c.evidence != evidence ||
      c.stage != request.stage || c.seq != request.seq) {
    return fail(Reason::kBrokerUntrusted, "key release for another request");
  }
  std::vector<std::int64_t> serials;
  for (const auto& p : job.bundle.plan.body.policies) serials.push_back(p.serial);
  if (c.policy_serials != serials) {
    return fail(Reason::kPolicyMismatch,
                "the keys were released under other policies than the plan's");
  }
  return ok_status();
}

}  // namespace gbx::agent
