#include "records/sealing.h"

#include <algorithm>

namespace gbx::records {

namespace {

constexpr SecretAccess kAccess{};

Bytes content_aad(std::string_view label, const Hash32& job_id, std::int64_t attempt,
                  const Hash32& plan_hash) {
  ByteWriter w;
  w.text(label).u8(0).raw(job_id).u64(static_cast<std::uint64_t>(attempt)).raw(plan_hash);
  return w.take();
}
// Kr and Kp each seal one short message per recipient: the nonce is the recipient's index.
Bytes index_nonce(std::size_t index) {
  ByteWriter w;
  w.u64(index).u32(0);
  return w.take();
}
template <class Tag>
AeadKey as_aead(const Secret<Tag>& key) {
  return AeadKey::copy_of(key.view(kAccess));
}
template <class Tag>
Result<Secret<Tag>> secret_of_size(SecretBuffer buffer, std::size_t size) {
  if (buffer.size() != size) {
    return fail(Reason::kBadStructure, "sealed key of wrong length")
        .with(std::to_string(size), std::to_string(buffer.size()));
  }
  return Secret<Tag>::adopt(std::move(buffer));
}

Result<std::vector<Bytes>> wrap_for(const std::vector<crypto::HpkePublicKey>& to,
                                    const ReleaseKey& outer, const Hash32& ctx,
                                    const SecretBuffer& keys, Random& random) {
  std::vector<Bytes> out;
  for (std::size_t i = 0; i < to.size(); ++i) {
    GBX_ASSIGN(Bytes inner, crypto::hpke_seal(to[i], ctx, keys.view(kAccess), random));
    GBX_ASSIGN(Bytes w, crypto::aead_seal(crypto::AeadSuite::kAes256Gcm, as_aead(outer),
                                          index_nonce(i), ctx, inner));
    out.push_back(std::move(w));
  }
  return out;
}
std::vector<Hash32> hashes(const std::vector<Bytes>& parts) {
  std::vector<Hash32> out;
  for (const auto& p : parts) out.push_back(crypto::sha256(p));
  return out;
}

SecretBuffer joined(ByteView first, ByteView second = {}) {
  SecretBuffer out(first.size() + second.size());
  MutableByteView to = out.writable(kAccess);
  if (!first.empty()) std::memcpy(to.data(), first.data(), first.size());
  if (!second.empty()) std::memcpy(to.data() + first.size(), second.data(), second.size());
  return out;
}
SecretBuffer moved_to_secret(Bytes plain) {
  SecretBuffer out = joined(plain);
  cleanse(plain);
  return out;
}

// What is wrapped under one of the outer keys for one recipient: the content key, and for reviewers
// the review's key.
struct Wrapping {
  const std::vector<Bytes>& wrapped;
  const std::vector<Hash32>& hashes;
  std::size_t index;
  std::size_t key_bytes;
};
Result<SecretBuffer> open_wrapping(const crypto::HpkeKeyPair& own, const Wrapping& w,
                                   const SealContext& c, const ReleaseKey& outer) {
  const Hash32 ctx = hash_of(c);
  if (w.index >= w.wrapped.size() || w.index >= w.hashes.size()) {
    return fail(Reason::kWrongRecipient, "this key is not among the recipients");
  }
  if (crypto::sha256(w.wrapped[w.index]) != w.hashes[w.index]) {
    return fail(Reason::kBadHash, "wrapped content key is not the signed one");
  }
  GBX_ASSIGN(Bytes inner, crypto::aead_open(crypto::AeadSuite::kAes256Gcm, as_aead(outer),
                                            index_nonce(w.index), ctx, w.wrapped[w.index]));
  GBX_ASSIGN(SecretBuffer raw, crypto::hpke_open(own, ctx, inner));
  if (raw.size() != w.key_bytes) {
    return fail(Reason::kBadStructure, "sealed key of wrong length")
        .with(std::to_string(w.key_bytes), std::to_string(raw.size()));
  }
  return raw;
}
Result<SecretBuffer> open_content(ByteView cek, const SealContext& c, const SealedOutput& output) {
  if (crypto::sha256(output.ciphertext) != c.ciphertext) {
    return fail(Reason::kBadHash, "output ciphertext is not the signed one");
  }
  const Bytes aad = content_aad("gbx/1/output", c.job_id, c.attempt, c.plan_hash);
  if (crypto::key_commitment(cek, kAccess, aad) != c.commit_cek) {
    return fail(Reason::kBadCommitment, "content key is not the committed one");
  }
  GBX_ASSIGN(Bytes plain, crypto::open_once(cek, kAccess, aad, output.ciphertext));
  return moved_to_secret(std::move(plain));
}

// u32 length, JSON, zeros. Every review has one size: plane and consumer see the size of what is
// sealed, and whoever wrote the output chooses how much there is to find in it. Of a review that is
// larger, each finding keeps its first places.
constexpr std::size_t kReviewBytes = 64U << 10;
Result<Bytes> padded_review(GateReview review) {
  for (std::size_t most = 16;; most /= 2) {
    for (auto& f : review.findings) f.refs.resize(std::min(f.refs.size(), most));
    ByteWriter w;
    w.bytes32(as_bytes(canonical(to_json(review))));
    if (w.bytes().size() <= kReviewBytes) {
      Bytes out = w.take();
      out.resize(kReviewBytes, 0);
      return out;
    }
    if (most == 0) {
      return fail(Reason::kTooLarge, "review")
          .with("at most " + std::to_string(kReviewBytes) + " bytes",
                std::to_string(w.bytes().size()));
    }
  }
}
Result<GateReview> open_review(ByteView key, const SealContext& c, const SealedOutput& output) {
  if (!c.review || !output.review) return fail(Reason::kMissingField, "review");
  if (crypto::sha256(*output.review) != *c.review) {
    return fail(Reason::kBadHash, "sealed review is not the signed one");
  }
  const Bytes aad = content_aad("gbx/1/review", c.job_id, c.attempt, c.plan_hash);
  GBX_ASSIGN(Bytes plain, crypto::open_once(key, kAccess, aad, *output.review));
  return parse_review(plain);
}

}  // namespace

Result<GateReview> parse_review(ByteView plain) {
  ByteReader r(plain);
  GBX_ASSIGN(const std::uint32_t size, r.u32());
  GBX_ASSIGN(const ByteView json, r.take(size));
  GBX_ASSIGN(const ByteView padding, r.take(r.remaining()));
  if (std::any_of(padding.begin(), padding.end(), [](auto b) { return b != 0; })) {
    return fail(Reason::kBadStructure, "padding of the review");
  }
  return from_json_text<GateReview>(as_text(json));
}

Hash32 dataset_key_commitment(const Id16& asset_id, const DatasetKey& key) {
  return crypto::key_commitment(key.view(kAccess), kAccess, asset_id);
}
Result<Bytes> wrap_dataset_key(const crypto::HpkePublicKey& kek, const Policy& policy,
                               const DatasetKey& key, Random& random) {
  return crypto::hpke_seal(kek, hash_of(policy), key.view(kAccess), random);
}
Result<DatasetKey> unwrap_dataset_key(const crypto::HpkeKeyPair& kek, const Policy& policy,
                                      ByteView wrapped) {
  GBX_ASSIGN(SecretBuffer raw, crypto::hpke_open(kek, hash_of(policy), wrapped));
  GBX_ASSIGN(DatasetKey key, secret_of_size<DatasetKeyTag>(std::move(raw), 32));
  if (dataset_key_commitment(policy.asset_id, key) != policy.commit_dk) {
    return fail(Reason::kBadCommitment,
                "the wrapped key is not the one that policy and record commit to");
  }
  return key;
}

Result<Bytes> seal_key_bundle(const crypto::HpkePublicKey& agent, const KeyContext& context,
                              const std::vector<BundledKey>& keys, Random& random) {
  SecretBuffer plain(keys.size() * 64);
  MutableByteView out = plain.writable(kAccess);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (keys[i].key.size() != 32) return fail(Reason::kInternal, "dataset key of wrong length");
    std::memcpy(out.data() + i * 64, keys[i].version_id.data(), 32);
    std::memcpy(out.data() + i * 64 + 32, keys[i].key.view(kAccess).data(), 32);
  }
  return crypto::hpke_seal(agent, hash_of(context), plain.view(kAccess), random);
}
Result<std::vector<BundledKey>> open_key_bundle(const crypto::HpkeKeyPair& agent,
                                                const KeyContext& context, ByteView sealed) {
  GBX_ASSIGN(SecretBuffer raw, crypto::hpke_open(agent, hash_of(context), sealed));
  const ByteView v = raw.view(kAccess);
  if (v.size() % 64 != 0 || v.size() > 64 * 33) {
    return fail(Reason::kBadStructure, "key bundle of wrong length");
  }
  std::vector<BundledKey> out;
  for (std::size_t i = 0; i < v.size(); i += 64) {
    BundledKey k;
    std::memcpy(k.version_id.data(), v.data() + i, 32);
    k.key = DatasetKey::copy_of(v.subspan(i + 32, 32));
    out.push_back(std::move(k));
  }
  return out;
}

Result<ResultSealed> seal_result(const ResultInput& in, const crypto::HpkePublicKey& kek,
                                 Random& random) {
  ResultSealed r;
  const auto cek = random.secret<ContentKey>(32);
  const auto kr = random.secret<ReleaseKey>(32);
  const auto kp = random.secret<ReleaseKey>(32);
  SealContext& c = r.manifest.context;
  c.job_id = in.job_id;
  c.attempt = in.attempt;
  c.plan_hash = in.plan_hash;
  c.outputs = in.outputs;
  c.verdict = in.verdict;
  const Bytes aad = content_aad("gbx/1/output", in.job_id, in.attempt, in.plan_hash);
  GBX_ASSIGN(r.output.ciphertext, crypto::seal_once(cek.view(kAccess), kAccess, aad, in.bundle));
  c.ciphertext = crypto::sha256(r.output.ciphertext);
  c.commit_cek = crypto::key_commitment(cek.view(kAccess), kAccess, aad);
  const auto review_key = random.secret<ContentKey>(32);
  if (!in.reviewers.empty()) {
    const Bytes review_aad = content_aad("gbx/1/review", in.job_id, in.attempt, in.plan_hash);
    GBX_ASSIGN(Bytes review, padded_review(in.review));
    GBX_ASSIGN(r.output.review,
               crypto::seal_once(review_key.view(kAccess), kAccess, review_aad, review));
    cleanse(review);
    c.review = crypto::sha256(*r.output.review);
  }
  const Hash32 ctx = hash_of(c);
  const SecretBuffer for_consumer = joined(cek.view(kAccess));
  const SecretBuffer for_reviewer = joined(cek.view(kAccess), review_key.view(kAccess));
  GBX_ASSIGN(r.output.wrapped_content, wrap_for(in.result_keys, kr, ctx, for_consumer, random));
  GBX_ASSIGN(r.output.wrapped_preview, wrap_for(in.reviewers, kp, ctx, for_reviewer, random));
  r.manifest.wrapped_content = hashes(r.output.wrapped_content);
  r.manifest.wrapped_preview = hashes(r.output.wrapped_preview);
  SecretBuffer both(64);
  std::memcpy(both.writable(kAccess).data(), kr.view(kAccess).data(), 32);
  std::memcpy(both.writable(kAccess).data() + 32, kp.view(kAccess).data(), 32);
  GBX_ASSIGN(r.release_keys,
             crypto::hpke_seal(kek, hash_of(r.manifest), both.view(kAccess), random));
  return r;
}

Result<ReleaseKeys> open_release_keys(const crypto::HpkeKeyPair& kek,
                                      const OutputManifest& manifest, ByteView sealed) {
  GBX_ASSIGN(SecretBuffer raw, crypto::hpke_open(kek, hash_of(manifest), sealed));
  if (raw.size() != 64) return fail(Reason::kBadStructure, "release keys of wrong length");
  const ByteView v = raw.view(kAccess);
  return ReleaseKeys{ReleaseKey::copy_of(v.first(32)), ReleaseKey::copy_of(v.subspan(32))};
}
Result<Bytes> seal_outer_key(const crypto::HpkePublicKey& to, const Hash32& manifest,
                             const ReleaseKey& key, Random& random) {
  return crypto::hpke_seal(to, manifest, key.view(kAccess), random);
}
Result<SecretBuffer> open_result(const crypto::HpkeKeyPair& own, std::size_t recipient,
                                 const OutputManifest& m, const SealedOutput& output,
                                 ByteView outer_key) {
  GBX_ASSIGN(SecretBuffer raw, crypto::hpke_open(own, hash_of(m), outer_key));
  GBX_ASSIGN(ReleaseKey kr, secret_of_size<ReleaseKeyTag>(std::move(raw), 32));
  GBX_ASSIGN(SecretBuffer cek,
             open_wrapping(own, {output.wrapped_content, m.wrapped_content, recipient, 32},
                           m.context, kr));
  return open_content(cek.view(kAccess), m.context, output);
}
Result<Preview> open_preview(const crypto::HpkeKeyPair& own, std::size_t reviewer,
                             const OutputManifest& m, const SealedOutput& output,
                             const Hash32& context, ByteView preview_key) {
  GBX_ASSIGN(SecretBuffer raw, crypto::hpke_open(own, context, preview_key));
  GBX_ASSIGN(ReleaseKey kp, secret_of_size<ReleaseKeyTag>(std::move(raw), 32));
  GBX_ASSIGN(
      SecretBuffer keys,
      open_wrapping(own, {output.wrapped_preview, m.wrapped_preview, reviewer, 64}, m.context, kp));
  Preview out;
  GBX_ASSIGN(out.bundle, open_content(keys.view(kAccess).first(32), m.context, output));
  GBX_ASSIGN(out.review, open_review(keys.view(kAccess).subspan(32), m.context, output));
  return out;
}

}  // namespace gbx::records
