// Fixtures for tests of every folder above records: people, a signed record, policy, lease and
// submission that go together, all from a seeded source. Not part of any program.
#pragma once

#include <string>
#include <vector>

#include "policy/policy.h"
#include "records/sealing.h"

namespace gbx::testing {

inline constexpr std::int64_t kNow = 1'700'000'000;
inline const std::string kImageDigest = "sha256:" + std::string(64, 'a');

template <class T>
T must(Result<T> r) {
  if (!r.ok()) {
    std::fprintf(stderr, "fixture: %s\n", r.error().line().c_str());
    std::abort();
  }
  return std::move(r).value();
}

struct Person {
  crypto::SigningKey key;
  crypto::SigningKey recovery;
  crypto::HpkeKeyPair hpke;
  records::IdentityChain chain;
  Hash32 id() const { return chain.id(); }
};
inline Person make_person(Random& random) {
  using crypto::SignatureAlgorithm;
  Person p{must(crypto::SigningKey::generate(SignatureAlgorithm::kEd25519, random)),
           must(crypto::SigningKey::generate(SignatureAlgorithm::kEcdsaP256, random)),
           must(crypto::HpkeKeyPair::generate(random)),
           {}};
  p.chain.identity = {p.key.public_key().text(), p.recovery.public_key().text()};
  return p;
}
// Keys are move-only; a fixture may have the same person in two places.
inline Person copy(const Person& p) {
  const auto clone = [](const crypto::SigningKey& k) {
    return must(crypto::SigningKey::from_private(k.public_key().algorithm(),
                                                 k.private_bytes(SecretAccess{})));
  };
  return {clone(p.key), clone(p.recovery),
          must(crypto::HpkeKeyPair::from_private(p.hpke.private_key())), p.chain};
}
inline records::Reviewer as_reviewer(const Person& p) {
  return {p.id(), p.key.public_key().text(), p.hpke.public_key().text()};
}

// A key set as `glovebox-broker init` makes one.
struct KeySet {
  crypto::SigningKey set_key;
  crypto::SigningKey signing;
  crypto::SigningKey tls;
  crypto::HpkeKeyPair kek;
  records::SetChain chain;
  records::SetId id() const { return chain.charter.set_id(); }
};
inline KeySet make_key_set(Random& random) {
  const auto key = [&] {
    return must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
  };
  KeySet k{key(), key(), key(), must(crypto::HpkeKeyPair::generate(random)), {}};
  k.chain.charter.genesis_set_key = k.set_key.public_key().text();
  k.chain.charter.salt = random.fixed<32>();
  k.chain.charter.technologies = {records::Technology::kNone};
  records::EpochKeys epoch{1, k.kek.public_key().text(), k.signing.public_key().text(),
                           k.tls.public_key().text()};
  k.chain.epoch = must(records::sign(k.id(), epoch, k.set_key));
  return k;
}

// An asset version with its key and the policy in force.
struct Asset {
  Person owner;
  DatasetKey key;
  records::VersionRecord record;
  records::Policy policy;
  Hash32 version_id() const { return record.id(); }
};
// Allows `purpose` "research", the command {"/bin/study"} with variable SEED, image kImageDigest,
// technology none on `node`, typed outputs, and one reviewer; a lease is required.
inline records::Clauses make_clauses(const crypto::PublicKey& node,
                                     const std::vector<const Person*>& reviewers) {
  records::Clauses c;
  c.purposes = {"research"};
  c.images = {{kImageDigest, std::nullopt}};
  c.commands = {{{"/bin/study"}, {"SEED"}}};
  records::PlatformRule rule;
  rule.root = "none:" + to_hex(node.fingerprint());
  c.tee = {rule};
  c.custody = {records::Custody::kOperator};
  c.rollback = "unprotected";
  c.gate.output_types = {records::OutputType::kMetrics, records::OutputType::kTable};
  c.gate.release_slot_seconds = 0;
  for (const Person* r : reviewers) {
    c.reviewers.push_back(as_reviewer(*r));
    c.may_preview.push_back(as_reviewer(*r));
  }
  c.attempts = 3;
  c.not_after = kNow + 1'000'000;
  return c;
}
inline Asset make_asset(Person owner, records::AssetKind kind, records::Clauses clauses,
                        Random& random) {
  Asset a{std::move(owner), random.secret<DatasetKey>(32), {}, {}};
  auto& r = a.record;
  r.format = "gbx1";
  r.owner_id = a.owner.id();
  r.asset_id = random.fixed<16>();
  r.kind = kind;
  r.root_hash = random.fixed<32>();
  r.objects_hash = random.fixed<32>();
  r.object_count = 1;
  r.commit_dk = records::dataset_key_commitment(r.asset_id, a.key);
  if (kind == records::AssetKind::kImage) r.content_digest = kImageDigest;
  r.name = "asset";
  auto& p = a.policy;
  p.asset_version_id = r.id();
  p.asset_id = r.asset_id;
  p.owner_id = r.owner_id;
  p.commit_dk = r.commit_dk;
  p.clauses = std::move(clauses);
  return a;
}
inline records::Publish make_publish(const KeySet& set, const Asset& a, Random& random) {
  records::Publish p;
  p.owner = a.owner.chain;
  p.record = must(records::sign(set.id(), a.record, a.owner.key));
  p.policy = must(records::sign(set.id(), a.policy, a.owner.key));
  if (!a.policy.revoked) {
    p.wrapped_key = must(records::wrap_dataset_key(set.kek.public_key(), a.policy, a.key, random));
  }
  return p;
}
// The owner's next policy for the same version.
inline void next_policy(Asset& a) {
  a.policy.prev = records::hash_of(a.policy);
  ++a.policy.serial;
}

inline records::Signed<records::Lease> make_lease(const records::SetId& set, const Asset& a,
                                                  const Person& consumer, std::int64_t jobs,
                                                  Random& random) {
  records::Lease l;
  l.lease_id = random.fixed<16>();
  l.asset_id = a.record.asset_id;
  l.consumer_id = consumer.id();
  l.jobs = jobs;
  l.not_after = kNow + 100'000;
  l.set_id = set;
  return must(records::sign(set, l, a.owner.key));
}

inline records::JobSpec make_spec(bool image_by_name, std::size_t inputs = 1) {
  records::JobSpec s;
  s.api_version = "glovebox/v1";
  s.kind = "PrivateJob";
  s.metadata.name = "study";
  auto& b = s.spec;
  b.purpose = "research";
  if (image_by_name) {
    b.image.asset = "study-image";
  } else {
    b.image.ref = "study@" + kImageDigest;
  }
  b.command = {"/bin/study"};
  for (std::size_t i = 0; i < inputs; ++i) {
    b.inputs.push_back(
        {"in" + std::to_string(i), "asset" + std::to_string(i), "/data/in" + std::to_string(i)});
  }
  const Json schema = must(parse_json(
      R"({"fields":[{"name":"auc","type":"decimal","minimum":0,"maximum":1,"digits":3,"scale":3}]})"));
  b.outputs.push_back({"metrics", "metrics.json", records::OutputType::kMetrics, schema, 1024});
  b.resources.memory = "512MiB";
  b.resources.scratch = "64MiB";
  b.resources.image = "1MiB";
  b.tee.any_of = {records::Technology::kNone};
  b.attempts = 3;
  return s;
}
struct SubmissionParts {
  records::JobSpec spec;
  std::vector<const Asset*> inputs;
  const Asset* image = nullptr;
  std::vector<records::Signed<records::Lease>> leases;
};
inline records::SignedSubmission make_submission(const records::SetId& set, const Person& consumer,
                                                 const SubmissionParts& parts, Random& random) {
  records::SignedSubmission out;
  records::Submission s;
  s.spec = parts.spec;
  for (std::size_t i = 0; i < parts.inputs.size(); ++i) {
    s.assets.push_back({"in" + std::to_string(i), parts.inputs[i]->record.asset_id,
                        parts.inputs[i]->version_id()});
  }
  if (parts.image != nullptr) {
    s.assets.push_back({"image", parts.image->record.asset_id, parts.image->version_id()});
  }
  s.image_digest = kImageDigest;
  s.result_keys = {{"primary", consumer.hpke.public_key().text()}};
  s.consumer_id = consumer.id();
  for (const auto& l : parts.leases) s.leases.push_back(l.body.lease_id);
  s.nonce = random.fixed<32>();
  s.not_after = kNow + 10'000;
  out.consumer = consumer.chain;
  out.submission = must(records::sign(set, s, consumer.key));
  out.leases = parts.leases;
  return out;
}
// Signs the body again after a test has changed it.
inline void resign(records::SignedSubmission& s, const records::SetId& set,
                   const Person& consumer) {
  s.submission = must(records::sign(set, s.submission.body, consumer.key));
}

}  // namespace gbx::testing
