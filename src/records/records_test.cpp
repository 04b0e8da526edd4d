// Signing, chains, evidence of technology none, spec validation, and every sealed message with its
// refusals.
#include <gtest/gtest.h>

#include "base/bundle_size.h"
#include "base/json_count.h"
#include "crypto/testing.h"
#include "records/messages.h"
#include "records/sealing.h"
#include "records/value_limits.h"

namespace gbx::records {
namespace {

using crypto::HpkeKeyPair;
using crypto::SignatureAlgorithm;
using crypto::SigningKey;

SigningKey new_key(Random& r, SignatureAlgorithm a = SignatureAlgorithm::kEd25519) {
  return *SigningKey::generate(a, r);
}

Lease sample_lease(Random& r) {
  Lease l;
  l.lease_id = r.fixed<16>();
  l.asset_id = r.fixed<16>();
  l.consumer_id = r.fixed<32>();
  l.jobs = 3;
  l.not_after = 1'800'000'000;
  return l;
}

TEST(Signed, BindsTypeSetBodyAndKey) {
  SeededRandom r(1);
  for (auto a : {SignatureAlgorithm::kEd25519, SignatureAlgorithm::kEcdsaP256}) {
    const SigningKey key = new_key(r, a);
    const SigningKey other = new_key(r, a);
    const SetId set = r.fixed<32>();
    auto s = sign(set, sample_lease(r), key);
    ASSERT_TRUE(s.ok());
    EXPECT_TRUE(s->verify(set, key.public_key()).ok());
    EXPECT_EQ(s->verify(set, other.public_key()).reason(), Reason::kBadSignature);
    EXPECT_EQ(s->verify(r.fixed<32>(), key.public_key()).reason(), Reason::kBadSignature);
    auto changed = *s;
    changed.body.jobs = 4;
    EXPECT_EQ(changed.verify(set, key.public_key()).reason(), Reason::kBadSignature);
    // What was parsed is what was signed.
    auto back = from_json<Signed<Lease>>(to_json(*s));
    ASSERT_TRUE(back.ok()) << back.error().line();
    EXPECT_TRUE(back->verify(set, key.public_key()).ok());
    // Another type with the same body is not even read.
    Json j = to_json(*s);
    EXPECT_EQ(*j.find("type")->string(), "lease");
    for (const char* type : {"policy", "", "lease2"}) {
      j["type"] = type;
      const auto confused = from_json<Signed<Lease>>(j);
      EXPECT_EQ(confused.reason(), Reason::kBadValue) << type;
      EXPECT_EQ(confused.error().what, "type: unknown word");
    }
  }
}

TEST(Signed, HasOneForm) {
  SeededRandom r(10);
  const SigningKey key = new_key(r, SignatureAlgorithm::kEcdsaP256);
  const SetId set = r.fixed<32>();
  auto s = *sign(set, sample_lease(r), key);
  s.signature = testing::other_form(s.signature);
  EXPECT_TRUE(key.public_key().verify(signed_message(set, s.body), s.signature));
  EXPECT_EQ(s.verify(set, key.public_key()).reason(), Reason::kBadSignature);
}

TEST(Identity, RotationsBySelfOrRecoveryKeyOnly) {
  SeededRandom r(2);
  const SigningKey k1 = new_key(r), recovery = new_key(r), k2 = new_key(r), k3 = new_key(r),
                   thief = new_key(r);
  const SetId set = r.fixed<32>();
  IdentityChain c{{k1.public_key().text(), recovery.public_key().text()}, {}};
  EXPECT_EQ(*c.current_key(set), k1.public_key());
  c.rotations.push_back(*sign(set, Rotation{c.id(), 1, k2.public_key().text()}, k1));
  c.rotations.push_back(*sign(set, Rotation{c.id(), 2, k3.public_key().text()}, recovery));
  EXPECT_EQ(*c.current_key(set), k3.public_key());
  auto bad = c;
  bad.rotations.push_back(*sign(set, Rotation{c.id(), 3, thief.public_key().text()}, k1));
  EXPECT_EQ(bad.current_key(set).reason(), Reason::kBadSignature);
  bad = c;
  bad.rotations.push_back(*sign(set, Rotation{c.id(), 4, k1.public_key().text()}, k3));
  EXPECT_EQ(bad.current_key(set).reason(), Reason::kChainBroken);
}

TEST(SetChain, PinnedIdAndSuccessors) {
  SeededRandom r(3);
  const SigningKey genesis = new_key(r), next = new_key(r), signing = new_key(r), tls = new_key(r);
  SetChain chain;
  chain.charter.genesis_set_key = genesis.public_key().text();
  chain.charter.salt = r.fixed<32>();
  chain.charter.technologies = {Technology::kNone};
  const SetId set = chain.charter.set_id();
  const EpochKeys epoch{1, HpkeKeyPair::generate(r)->public_key().text(),
                        signing.public_key().text(), tls.public_key().text()};
  chain.epoch = *sign(set, epoch, genesis);
  auto keys = chain.verify(set);
  ASSERT_TRUE(keys.ok()) << keys.error().line();
  EXPECT_EQ(keys->signing, signing.public_key());
  EXPECT_EQ(chain.verify(r.fixed<32>()).reason(), Reason::kWrongSet);
  chain.successors.push_back(*sign(set, SetKeySuccessor{1, next.public_key().text()}, genesis));
  // the epoch is still signed by the old key
  EXPECT_EQ(chain.verify(set).reason(), Reason::kBadSignature);
  chain.epoch = *sign(set, epoch, next);
  EXPECT_TRUE(chain.verify(set).ok());
}

TEST(EvidenceNone, EveryFieldCounts) {
  SeededRandom r(4);
  const SigningKey node = new_key(r);
  const SetId set = r.fixed<32>();
  const LaunchConfig launch{set, "ed25519:x"};
  const auto report = r.fixed<64>();
  Evidence e;
  e.launch_config = launch;
  e.node = *sign(set, NodeIntroduction{report, hash_of(launch), r.fixed<32>(), 1, 0}, node);
  auto v = verify_none(set, e, report, launch);
  ASSERT_TRUE(v.ok()) << v.error().line();
  EXPECT_EQ(v->root, "none:" + to_hex(node.public_key().fingerprint()));
  EXPECT_EQ(v->measurement, Check::kNotChecked);
  EXPECT_EQ(verify_none(set, e, r.fixed<64>(), launch).reason(), Reason::kEvidenceRejected);
  EXPECT_EQ(verify_none(set, e, report, LaunchConfig{set, "ed25519:y"}).reason(),
            Reason::kEvidenceRejected);
  EXPECT_EQ(verify_none(r.fixed<32>(), e, report, launch).reason(), Reason::kEvidenceRejected);
  Evidence elsewhere = e;  // what was launched, beside an introduction that says what is expected
  elsewhere.launch_config.set_key = "ed25519:y";
  EXPECT_EQ(verify_none(set, elsewhere, report, launch).reason(), Reason::kEvidenceRejected);
  Evidence tdx = e;
  tdx.technology = Technology::kTdx;
  EXPECT_EQ(verify_none(set, tdx, report, launch).reason(), Reason::kEvidenceRejected);
  // Nothing stands beside the introduction that nobody would check.
  const auto refuse = [&](auto change) {
    Evidence other = e;
    change(other);
    EXPECT_EQ(verify_none(set, other, report, launch).reason(), Reason::kEvidenceMissing);
  };
  refuse([](Evidence& x) { x.node.reset(); });
  refuse([](Evidence& x) { x.quote = Bytes{1}; });
  refuse([](Evidence& x) { x.collateral = {{"pck-chain", Bytes{1}}}; });
  refuse([](Evidence& x) { x.release = "guest-1"; });
}

TEST(Sealing, DatasetKeyIsBoundToPolicyAndCommitment) {
  SeededRandom r(5);
  const auto kek = *HpkeKeyPair::generate(r);
  const auto dk = r.secret<DatasetKey>(32);
  Policy p;
  p.asset_id = r.fixed<16>();
  p.commit_dk = dataset_key_commitment(p.asset_id, dk);
  const Bytes w = *wrap_dataset_key(kek.public_key(), p, dk, r);
  auto opened = unwrap_dataset_key(kek, p, w);
  ASSERT_TRUE(opened.ok());
  EXPECT_TRUE(*opened == dk);
  Policy weaker = p;
  weaker.clauses.any_command = true;
  EXPECT_EQ(unwrap_dataset_key(kek, weaker, w).reason(), Reason::kBadTag);
  Policy lying = p;
  lying.commit_dk = r.fixed<32>();
  const Bytes w2 = *wrap_dataset_key(kek.public_key(), lying, dk, r);
  EXPECT_EQ(unwrap_dataset_key(kek, lying, w2).reason(), Reason::kBadCommitment);
}

TEST(Sealing, KeyBundleIsBoundToItsContext) {
  SeededRandom r(6);
  const auto agent = *HpkeKeyPair::generate(r);
  KeyContext c;
  c.credential = r.fixed<32>();
  c.policy_serials = {1, 2};
  std::vector<BundledKey> keys;
  keys.push_back({r.fixed<32>(), r.secret<DatasetKey>(32)});
  keys.push_back({r.fixed<32>(), r.secret<DatasetKey>(32)});
  const Bytes sealed = *seal_key_bundle(agent.public_key(), c, keys, r);
  auto back = open_key_bundle(agent, c, sealed);
  ASSERT_TRUE(back.ok());
  ASSERT_EQ(back->size(), 2u);
  EXPECT_TRUE((*back)[1].key == keys[1].key);
  KeyContext other = c;
  other.policy_serials = {1, 3};
  EXPECT_EQ(open_key_bundle(agent, other, sealed).reason(), Reason::kBadTag);
  EXPECT_EQ(open_key_bundle(*HpkeKeyPair::generate(r), c, sealed).reason(), Reason::kBadTag);
}

TEST(Sealing, ResultOpensOnlyForItsRecipientsAndOnlyWhole) {
  SeededRandom r(7);
  const auto kek = *HpkeKeyPair::generate(r);
  const auto consumer = *HpkeKeyPair::generate(r), recovery = *HpkeKeyPair::generate(r),
             reviewer = *HpkeKeyPair::generate(r);
  ResultInput in;
  in.job_id = r.fixed<32>();
  in.plan_hash = r.fixed<32>();
  in.bundle = as_bytes("the checked output");
  in.result_keys = {consumer.public_key(), recovery.public_key()};
  in.reviewers = {reviewer.public_key()};
  in.review = {{{"format", AnalyserStatus::kFail, "value", {"table:1119:0"}}}, 77, {{"value", 77}}};
  const auto sealed = seal_result(in, kek.public_key(), r);
  ASSERT_TRUE(sealed.ok()) << sealed.error().line();
  const Hash32 m = hash_of(sealed->manifest);
  auto keys = open_release_keys(kek, sealed->manifest, sealed->release_keys);
  ASSERT_TRUE(keys.ok());
  const Bytes outer0 = *seal_outer_key(consumer.public_key(), m, keys->result, r);
  const Bytes outer1 = *seal_outer_key(recovery.public_key(), m, keys->result, r);
  auto plain = open_result(consumer, 0, sealed->manifest, sealed->output, outer0);
  ASSERT_TRUE(plain.ok()) << plain.error().line();
  EXPECT_EQ(as_text(plain->view(SecretAccess{})), "the checked output");
  EXPECT_TRUE(open_result(recovery, 1, sealed->manifest, sealed->output, outer1).ok());
  EXPECT_EQ(open_result(recovery, 0, sealed->manifest, sealed->output, outer1).reason(),
            Reason::kBadTag);
  EXPECT_EQ(open_result(consumer, 2, sealed->manifest, sealed->output, outer0).reason(),
            Reason::kWrongRecipient);
  EXPECT_EQ(open_result(recovery, 1, sealed->manifest, sealed->output, outer0).reason(),
            Reason::kBadTag);
  const Hash32 notice = r.fixed<32>();
  const Bytes preview = *seal_outer_key(reviewer.public_key(), notice, keys->preview, r);
  const auto opened = open_preview(reviewer, 0, sealed->manifest, sealed->output, notice, preview);
  ASSERT_TRUE(opened.ok()) << opened.error().line();
  EXPECT_EQ(as_text(opened->bundle.view(SecretAccess{})), "the checked output");
  EXPECT_EQ(canonical(to_json(opened->review)), canonical(to_json(in.review)));
  EXPECT_EQ(open_preview(reviewer, 0, sealed->manifest, sealed->output, m, preview).reason(),
            Reason::kBadTag);
  auto other_review = *sealed;
  (*other_review.output.review)[20] ^= 1;
  EXPECT_EQ(open_preview(reviewer, 0, other_review.manifest, other_review.output, notice, preview)
                .reason(),
            Reason::kBadHash);
  // Kr does not open the preview, Kp does not open the result.
  const Bytes crossed = *seal_outer_key(consumer.public_key(), m, keys->preview, r);
  EXPECT_EQ(open_result(consumer, 0, sealed->manifest, sealed->output, crossed).reason(),
            Reason::kBadTag);
  auto tampered = *sealed;
  tampered.output.ciphertext[3] ^= 1;
  EXPECT_EQ(open_result(consumer, 0, tampered.manifest, tampered.output, outer0).reason(),
            Reason::kBadHash);
  tampered = *sealed;
  tampered.manifest.context.commit_cek[0] ^= 1;
  EXPECT_EQ(open_result(consumer, 0, tampered.manifest, tampered.output, outer0).reason(),
            Reason::kBadTag);
}

// Rules, positions and score are the container's words as much as the files are.
TEST(Sealing, TheReviewIsNowhereInTheClear) {
  SeededRandom r(9);
  const auto kek = *HpkeKeyPair::generate(r);
  const auto consumer = *HpkeKeyPair::generate(r), reviewer = *HpkeKeyPair::generate(r);
  ResultInput in;
  in.bundle = as_bytes("output");
  in.result_keys = {consumer.public_key()};
  in.reviewers = {reviewer.public_key()};
  const auto bare = *seal_result(in, kek.public_key(), r);
  in.review = {{{"format", AnalyserStatus::kFail, "value", {"table:1119:0", "table:2474:0"}}},
               77,
               {{"value", 77}}};
  const auto found = *seal_result(in, kek.public_key(), r);
  EXPECT_EQ(found.output.review->size(), bare.output.review->size());
  EXPECT_EQ(canonical(to_json(found.output)).size(), canonical(to_json(bare.output)).size());
  EXPECT_EQ(canonical(to_json(found.manifest.context.verdict)),
            canonical(to_json(bare.manifest.context.verdict)));
  EXPECT_EQ(canonical(to_json(found.manifest)).find("1119"), std::string::npos);
  // However much there is to find: as many findings as there can be, each at as many places.
  GateFinding finding{"differences", AnalyserStatus::kNotApplicable, "not-recomputed", {}};
  finding.refs.assign(16, std::string(63, 'n') + ":20000:4096");
  in.review.findings.assign(256, finding);
  const auto most = *seal_result(in, kek.public_key(), r);
  EXPECT_EQ(most.output.review->size(), bare.output.review->size());
  const auto keys = *open_release_keys(kek, most.manifest, most.release_keys);
  const Hash32 notice = r.fixed<32>();
  const Bytes preview = *seal_outer_key(reviewer.public_key(), notice, keys.preview, r);
  const auto shown = open_preview(reviewer, 0, most.manifest, most.output, notice, preview);
  ASSERT_TRUE(shown.ok()) << shown.error().line();
  EXPECT_EQ(shown->review.findings.size(), 256U) << "places are left out, findings are not";
  EXPECT_LT(shown->review.findings[255].refs.size(), 16U);
  in.reviewers.clear();
  const auto alone = *seal_result(in, kek.public_key(), r);
  EXPECT_FALSE(alone.output.review.has_value());
  EXPECT_FALSE(alone.manifest.context.review.has_value());
}

JobSpec good_spec() {
  auto j = parse_json(
      R"({"apiVersion":"glovebox/v1","kind":"PrivateJob","metadata":{"name":"study","labels":{}},
    "spec":{"purpose":"research","image":{"asset":"img"},"command":["/bin/study"],"args":[],"env":{},
    "inputs":[{"name":"wdbc","asset":"wdbc","mount":"/data/wdbc"}],
    "outputs":[{"name":"m","path":"metrics.json","type":"metrics","schema":{},"maxBytes":100}],
    "resources":{"cpu":1,"memory":"512MiB","scratch":"64MiB","gpu":0},"tee":{"anyOf":["none"],"releases":[]},
    "sandbox":{},"logs":{"visibility":"none","maxBytes":0},"attempts":1,"timeouts":{"queue":60,"start":60,"run":60}}})");
  return *from_json<JobSpec>(*j);
}

TEST(JobSpec, ValidateNamesTheMember) {
  ASSERT_TRUE(good_spec().validate().ok()) << good_spec().validate().error().line();
  const auto refuse = [](auto change, std::string_view path) {
    JobSpec s = good_spec();
    change(s);
    Status st = s.validate();
    ASSERT_FALSE(st.ok()) << path;
    EXPECT_EQ(st.error().what.substr(0, path.size()), path) << st.error().line();
  };
  refuse([](JobSpec& s) { s.api_version = "glovebox/v2"; }, "apiVersion");
  refuse([](JobSpec& s) { s.kind = "Pod"; }, "kind");
  refuse([](JobSpec& s) { s.metadata.name = "Bad_Name"; }, "metadata.name");
  refuse([](JobSpec& s) { s.spec.image.ref = "x"; }, "spec.image");
  for (const std::string& ref :
       {std::string("study"), "@sha256:" + std::string(64, 'a'), std::string("study@sha256:ab"),
        "study@sha256:" + std::string(64, 'A'), "study@sha512:" + std::string(64, 'a'),
        "a b@sha256:" + std::string(64, 'a'), "a@sha256:" + std::string(64, 'a') + "0"}) {
    refuse([&](JobSpec& s) { s.spec.image = {std::nullopt, ref}; }, "spec.image.ref");
  }
  refuse([](JobSpec& s) { s.spec.command[0] = "sh"; }, "spec.command[0]");
  refuse([](JobSpec& s) { s.spec.inputs[0].mount = "/data/../etc"; }, "spec.inputs[0].mount");
  refuse([](JobSpec& s) { s.spec.inputs[0].mount = "/data/a/b"; }, "spec.inputs[0].mount");
  refuse([](JobSpec& s) { s.spec.inputs[0].mount = "/etc"; }, "spec.inputs[0].mount");
  refuse([](JobSpec& s) { s.spec.inputs[0].name = "image"; }, "spec.inputs[0].name");
  refuse(
      [](JobSpec& s) {
        s.spec.inputs.push_back({"b", "b", "/data/wdbc"});
      },
      "spec.inputs[1].mount");
  refuse([](JobSpec& s) { s.spec.outputs[0].path = "../x"; }, "spec.outputs[0].path");
  refuse([](JobSpec& s) { s.spec.outputs[0].path = "/x"; }, "spec.outputs[0].path");
  // What the gate, the agent and the receiving CLI would refuse after the charge.
  refuse([](JobSpec& s) { s.spec.outputs[0].path = ".o0.json"; }, "spec.outputs[0].path");
  refuse([](JobSpec& s) { s.spec.outputs[0].path = std::string(65, 'a'); }, "spec.outputs[0].path");
  refuse([](JobSpec& s) { s.spec.outputs[0].path = "a/b/c/d/e/f/g/h/i"; }, "spec.outputs[0].path");
  const auto second = [](JobSpec& s, const std::string& path) {
    s.spec.outputs.push_back(s.spec.outputs[0]);
    s.spec.outputs[1].name = "second";
    s.spec.outputs[1].path = path;
  };
  refuse([&](JobSpec& s) { second(s, s.spec.outputs[0].path + "/x"); }, "spec.outputs");
  refuse(
      [&](JobSpec& s) {
        second(s, "job.log");
        s.spec.logs = {LogVisibility::kConsumer, 100};
      },
      "spec.outputs[1].path");
  refuse(
      [&](JobSpec& s) {
        second(s, "job.log/x");
        s.spec.logs = {LogVisibility::kConsumer, 100};
      },
      "spec.outputs[1].path");
  refuse([](JobSpec& s) { s.spec.inputs[0].mount = "/data/.i"; }, "spec.inputs[0].mount");
  refuse([](JobSpec& s) { s.spec.inputs[0].mount = "/data/-i"; }, "spec.inputs[0].mount");
  refuse([](JobSpec& s) { s.spec.inputs[0].mount = "/data/" + std::string(65, 'i'); },
         "spec.inputs[0].mount");
  // What a person reads.
  refuse([](JobSpec& s) { s.spec.purpose = "a\n- Where: tdx"; }, "spec.purpose");
  refuse([](JobSpec& s) { s.spec.purpose = "\x1b[2J"; }, "spec.purpose");
  refuse([](JobSpec& s) { s.spec.tee.releases = {"\u202e"}; }, "spec.tee.releases[0]");
  refuse([](JobSpec& s) { s.metadata.labels.emplace()["k"] = "\x7f"; }, "metadata.labels");
  refuse([](JobSpec& s) { s.spec.outputs[0].schema.reset(); }, "spec.outputs[0].schema");
  BundleSize fixed;
  fixed.add_output(good_spec().spec.outputs[0].path.size(), 0);
  const std::int64_t largest = kMaxBundleBytes - fixed.bytes();
  refuse([&](JobSpec& s) { s.spec.outputs[0].max_bytes = largest + 1; },
         "spec.outputs: maxBytes of all together");
  JobSpec large = good_spec();
  large.spec.outputs[0].max_bytes = largest;
  EXPECT_TRUE(large.validate().ok());
  refuse([](JobSpec& s) { s.spec.resources.memory = "512"; }, "spec.resources.memory");
  refuse([](JobSpec& s) { s.spec.resources.memory = "8191KiB"; }, "spec.resources.memory");
  refuse([](JobSpec& s) { s.spec.resources.memory = "1025GiB"; }, "spec.resources.memory");
  refuse([](JobSpec& s) { s.spec.resources.scratch = "1025GiB"; }, "spec.resources.scratch");
  refuse([](JobSpec& s) { s.spec.resources.gpu = 1; }, "spec.resources.gpu");
  refuse([](JobSpec& s) { s.spec.sandbox.pids = 4097; }, "spec.sandbox.pids");
  refuse([](JobSpec& s) { s.spec.sandbox.pids = 0; }, "spec.sandbox.pids");
  refuse([](JobSpec& s) { s.spec.env["A=B"] = "c"; }, "spec.env");
  refuse([](JobSpec& s) { s.spec.sandbox.runtime = "docker"; }, "spec.sandbox.runtime");
}

TEST(Submission, ADigestThatIsOneAndNamesOfInputs) {
  Submission s;
  s.spec = good_spec();
  s.image_digest = "sha256:" + std::string(64, 'a');
  s.assets = {{"data", {}, {}}};
  ASSERT_TRUE(s.validate().ok()) << s.validate().error().line();
  const auto refuse = [&](auto change, std::string_view path) {
    Submission bad = s;
    change(bad);
    const Status st = bad.validate();
    ASSERT_FALSE(st.ok()) << path;
    EXPECT_EQ(st.error().what.substr(0, path.size()), path) << st.error().line();
    EXPECT_EQ(st.error().line().find('\x1b'), std::string::npos);
  };
  refuse([](Submission& b) { b.image_digest.replace(7, 4, "\x1b[2J"); }, "imageDigest");
  refuse([](Submission& b) { b.image_digest[0] = 'x'; }, "imageDigest");
  refuse([](Submission& b) { b.assets[0].name = "\x1b[2J"; }, "assets[0].name");
  refuse([](Submission& b) { b.spec.kind = "Pod"; }, "kind");
  refuse([](Submission& b) { b.result_keys = {{"a\nb", "x"}}; }, "resultKeys[0].use");
}

TEST(Publish, AKeyExactlyWhereNothingIsRevokedAndTextsThatPeopleMayRead) {
  Publish p;
  p.record.body.name = "data";
  p.wrapped_key = Bytes(80);
  Clauses& c = p.policy.body.clauses;
  c.purposes = {"*", "study of \xc3\xa4rzte"};
  c.rollback = "unprotected";
  ASSERT_TRUE(p.validate().ok()) << p.validate().error().line();
  const auto reason = [&](auto change) -> std::optional<Reason> {
    Publish bad = p;
    change(bad);
    const Status st = bad.validate();
    if (st.ok()) return std::nullopt;
    EXPECT_EQ(st.error().line().find('\x1b'), std::string::npos) << st.error().what;
    return st.reason();
  };
  EXPECT_EQ(reason([](Publish& b) { b.wrapped_key.reset(); }), Reason::kMissingField);
  EXPECT_EQ(reason([](Publish& b) { b.policy.body.revoked = true; }), Reason::kBadValue);
  const auto hostile = [&](auto member) {
    EXPECT_EQ(reason([&](Publish& b) { member(b.policy.body.clauses) = "x\x1b[2J"; }),
              Reason::kBadValue);
    EXPECT_EQ(reason([&](Publish& b) { member(b.policy.body.clauses) = "x\n- Where: tdx"; }),
              Reason::kBadValue);
    // Who published such a thing before can still take it back.
    EXPECT_FALSE(reason([&](Publish& b) {
      member(b.policy.body.clauses) = "x\n- Where: tdx";
      b.policy.body.revoked = true;
      b.wrapped_key.reset();
    }));
  };
  const auto first = [](std::vector<std::string>& list) -> std::string& {
    return list.emplace_back();
  };
  hostile([&](Clauses& x) -> std::string& { return first(x.purposes); });
  hostile([&](Clauses& x) -> std::string& { return first(x.lease_issuers); });
  hostile([&](Clauses& x) -> std::string& { return first(x.residual_channels); });
  hostile([](Clauses& x) -> std::string& { return x.rollback; });
  hostile([](Clauses& x) -> std::string& { return x.tee.emplace_back().root; });
  hostile([&](Clauses& x) -> std::string& { return first(x.tee.emplace_back().releases); });
  hostile([](Clauses& x) -> std::string& { return x.images.emplace_back().digest.emplace(); });
  hostile([](Clauses& x) -> std::string& { return x.images.emplace_back().signer.emplace(); });
  EXPECT_EQ(reason([](Publish& b) { b.record.body.name = "\x1b[2J"; }), Reason::kBadValue);
  EXPECT_EQ(reason([](Publish& b) { b.record.body.content_digest = "\x1b[2J"; }),
            Reason::kBadValue);
}

TEST(Limits, OneTextOfAListIsRefusedAtItsLimit) {
  Clauses c;
  c.rollback = "unprotected";
  c.purposes = {std::string(200, 'p')};
  c.commands = {{{std::string(kMaxArgumentBytes, 'a')}, {std::string(128, 'e')}}};
  ASSERT_TRUE(from_json<Clauses>(to_json(c)).ok());
  const auto refused = [](Clauses bad, const std::string& where) {
    const auto r = from_json<Clauses>(to_json(bad));
    EXPECT_EQ(r.reason(), Reason::kBadValue);
    EXPECT_EQ(r.error().what.substr(0, where.size()), where) << r.error().line();
  };
  Clauses bad = c;
  bad.purposes[0] += "p";
  refused(bad, "purposes[0]");
  bad = c;
  bad.commands[0].argv[0] += "a";
  refused(bad, "commands[0].argv[0]");
  bad = c;
  bad.commands[0].env[0] += "e";
  refused(bad, "commands[0].env[0]");
  // No charge is so large that a sum of charges overflows.
  const PlanCharge most{{}, {}, kMaxBits, kMaxBits, kMaxBits, "schema-1", {}};
  EXPECT_TRUE(from_json<PlanCharge>(to_json(most)).ok());
  for (const auto member :
       {&PlanCharge::free_bits, &PlanCharge::verified_bits, &PlanCharge::zcdp_micro}) {
    PlanCharge charge = most;
    ++(charge.*member);
    EXPECT_EQ(from_json<PlanCharge>(to_json(charge)).reason(), Reason::kBadValue);
  }
  PlanCharge charge = most;
  charge.code_id.clear();  // bits that nobody says how to reckon
  EXPECT_EQ(from_json<PlanCharge>(to_json(charge)).reason(), Reason::kBadValue);
}

Json empty_values(std::int64_t count) {  // `count` values: one list of empty ones
  return JsonArray(static_cast<std::size_t>(count - 1), Json(JsonArray{}));
}
// Clauses of exactly so many values, which each take two or three bytes.
Clauses fat_clauses(std::int64_t values) {
  Clauses c;
  c.rollback = "unprotected";
  const auto count = [&] { return static_cast<std::int64_t>(value_count(to_json(c))); };
  while (count() + 260 < values) c.commands.push_back({std::vector<std::string>(256), {}});
  if (count() + 3 <= values) c.commands.push_back({{}, {}});
  while (count() < values) c.commands.back().argv.emplace_back();
  EXPECT_EQ(count(), values);
  return c;
}

TEST(Limits, ValuesOfASchemaOfAllSchemasAndOfAPolicy) {
  JobSpec s = good_spec();
  s.spec.outputs.resize(1);
  s.spec.outputs[0].schema = empty_values(kMaxSchemaValues);
  EXPECT_TRUE(s.validate().ok());
  s.spec.outputs[0].schema = empty_values(kMaxSchemaValues + 1);
  Status refused = s.validate();
  EXPECT_EQ(refused.reason(), Reason::kTooLarge);
  EXPECT_EQ(refused.error().what, "spec.outputs[0].schema");
  EXPECT_EQ(refused.error().actual, std::to_string(kMaxSchemaValues + 1));
  const std::int64_t most = kMaxSchemasValues / kMaxSchemaValues;
  s.spec.outputs[0].schema = empty_values(kMaxSchemaValues);
  for (std::int64_t i = 1; i <= most; ++i) {
    EXPECT_TRUE(s.validate().ok());
    s.spec.outputs.push_back(s.spec.outputs[0]);
    s.spec.outputs.back().name += std::to_string(i);
    s.spec.outputs.back().path += std::to_string(i);
    s.spec.outputs.back().max_bytes = 1;
  }
  refused = s.validate();
  EXPECT_EQ(refused.reason(), Reason::kTooLarge);
  EXPECT_EQ(refused.error().what, "spec.outputs: all schemas together");

  Publish p;
  p.record.body.name = "data";
  p.wrapped_key = Bytes(80);
  p.policy.body.clauses = fat_clauses(kMaxClausesValues);
  EXPECT_TRUE(p.validate().ok());
  p.policy.body.clauses = fat_clauses(kMaxClausesValues + 1);
  EXPECT_EQ(p.validate().reason(), Reason::kTooLarge);
  p.policy.body.revoked = true;
  p.wrapped_key.reset();
  EXPECT_EQ(p.validate().reason(), Reason::kTooLarge);
}

// What many hands fill together, each to its limit, is still read by everybody who has to.
TEST(Limits, TheLargestBundleAndReceiptFitEveryReader) {
  const auto times = [](std::int64_t n, auto one) {
    return std::vector<decltype(one)>(static_cast<std::size_t>(n), one);
  };
  IdentityChain chain;
  chain.rotations.resize(64);
  Signed<Policy> policy;
  policy.body.clauses = fat_clauses(kMaxClausesValues);
  Signed<Submission> submission;
  submission.body.spec = good_spec();
  SpecBody& spec = submission.body.spec.spec;
  spec.command.resize(64);
  spec.args.resize(256);
  for (int i = 0; i < 64; ++i) spec.env[std::to_string(i)] = "";
  spec.inputs = times(32, SpecInput{});
  spec.outputs = times(kMaxOutputs, SpecOutput{});
  for (std::int64_t i = 0; i < kMaxSchemasValues / kMaxSchemaValues; ++i) {
    spec.outputs[static_cast<std::size_t>(i)].schema = empty_values(kMaxSchemaValues);
  }
  submission.body.assets.resize(kMaxAssets);
  submission.body.result_keys.resize(8);
  submission.body.leases.resize(32);
  Signed<RunPlan> plan;
  plan.body.policies.resize(kMaxAssets);
  PlatformRule rule;
  rule.releases.resize(32);
  plan.body.tee = times(16, rule);
  plan.body.reviewers.resize(kMaxReviewers);
  plan.body.charges = times(kMaxAssets, PlanCharge{{}, {}, 0, 0, 0, {}, Hash32{}});
  plan.body.residual_channels.resize(32);
  plan.body.controls.mandatory.resize(64);

  LaunchBundle b;
  b.submission = {chain, submission, times(32, Signed<Lease>{})};
  b.plan = plan;
  b.owners = times(kMaxAssets, chain);
  b.versions.resize(kMaxAssets);
  b.policies = times(kMaxAssets, policy);
  Receipt r;
  r.identities = times(128, chain);
  r.versions = b.versions;
  r.policies = b.policies;
  r.beacons.resize(kMaxAssets);
  r.leases.resize(32);
  r.submission = submission;
  r.plan = plan;
  Signed<Ruling> ruling;
  ruling.body.reasons.resize(16);
  r.rulings = times(kMaxRulings, ruling);
  r.cosignatures.resize(32);
  const std::size_t slack = 10'000;  // for what few make, and what travels around it
  EXPECT_LT(value_count(to_json(b)) + slack, JsonLimits{}.max_values);
  EXPECT_LT(value_count(to_json(r)) + slack, JsonLimits{}.max_values);
}

TEST(JobSpec, SizesAndStableHash) {
  JobSpec by_digest = good_spec();
  by_digest.spec.image = {std::nullopt,
                          "registry.example:5000/study@sha256:" + std::string(64, 'a')};
  EXPECT_TRUE(by_digest.validate().ok());
  EXPECT_EQ(*image_ref_digest(*by_digest.spec.image.ref), "sha256:" + std::string(64, 'a'));
  EXPECT_EQ(*parse_size("512MiB"), 512 << 20);
  EXPECT_EQ(parse_size("0MiB").reason(), Reason::kBadValue);
  EXPECT_EQ(parse_size("1MB").reason(), Reason::kBadValue);
  EXPECT_EQ(parse_size("99999999GiB").reason(), Reason::kBadValue);
  Submission s;
  s.spec = good_spec();
  s.image_digest = "sha256:" + std::string(64, '0');
  const Hash32 id = s.job_id();
  s.nonce[0] = 1;
  EXPECT_NE(s.job_id(), id);
}

}  // namespace
}  // namespace gbx::records
