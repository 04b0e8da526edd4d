// The launch bundle: a node that changes anything in it gets a refusal with its reason. And the
// packets between the halves.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "agent/bundle_check.h"
#include "agent/ipc.h"
#include "agent/memory_bound.h"
#include "agent/worker.h"
#include "asset/prefetch.h"
#include "gate/records.h"
#include "policy/policy.h"
#include "policy/testing.h"
#include "sandbox/sandbox.h"

namespace gbx::agent {
namespace {

using namespace records;
using testing::kImageDigest;
using testing::kNow;
using testing::must;

struct World {
  SeededRandom random{7};
  testing::KeySet set = testing::make_key_set(random);
  testing::Person owner = testing::make_person(random);
  testing::Person consumer = testing::make_person(random);
  testing::Person stranger = testing::make_person(random);
  crypto::SigningKey node =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
  testing::Asset data = testing::make_asset(testing::make_person(random), AssetKind::kDataset,
                                            testing::make_clauses(node.public_key(), {}), random);
  testing::Asset image = testing::make_asset(testing::make_person(random), AssetKind::kImage,
                                             testing::make_clauses(node.public_key(), {}), random);
  Submission submission;
  RunPlan plan;
  Credential credential;

  World() {
    submission.spec = testing::make_spec(true);
    submission.assets = {
        {submission.spec.spec.inputs[0].name, data.record.asset_id, data.version_id()},
        {"image", image.record.asset_id, image.version_id()}};
    submission.image_digest = kImageDigest;
    submission.result_keys = {{"primary", consumer.hpke.public_key().text()}};
    submission.consumer_id = consumer.id();
    submission.not_after = kNow + 1000;
    plan.policies = {{data.version_id(), data.owner.id(), hash_of(data.policy), 1},
                     {image.version_id(), image.owner.id(), hash_of(image.policy), 1}};
    plan.rollback = "unprotected";
    plan.tee = data.policy.clauses.tee;
    credential.expires = kNow + 300;
  }

  LaunchBundle bundle() {
    LaunchBundle b;
    b.set = set.chain;
    b.launch_config = {set.id(), set.set_key.public_key().text()};
    b.submission.consumer = consumer.chain;
    b.submission.submission = must(sign(set.id(), submission, consumer.key));
    plan.job_id = submission.job_id();
    b.plan = must(sign(set.id(), plan, set.signing));
    credential.job_id = plan.job_id;
    credential.plan_hash = b.plan.hash();
    b.credential = must(sign(set.id(), credential, set.signing));
    b.owners = {data.owner.chain, image.owner.chain};
    b.versions = {must(sign(set.id(), data.record, data.owner.key)),
                  must(sign(set.id(), image.record, image.owner.key))};
    b.policies = {must(sign(set.id(), data.policy, data.owner.key)),
                  must(sign(set.id(), image.policy, image.owner.key))};
    return b;
  }
};

TEST(BundleCheck, AcceptsWhatIsWhole) {
  World w;
  auto job = check_bundle(w.bundle(), kNow);
  ASSERT_TRUE(job.ok()) << job.error().line();
  EXPECT_EQ(job->job_id, w.submission.job_id());
  EXPECT_EQ(job->image, 1u);
  EXPECT_EQ(job->inputs, std::vector<std::size_t>{0});
  EXPECT_EQ(job->result_keys.size(), 1u);
}

template <class Change>
Reason refused(Change change) {
  World w;
  LaunchBundle b = w.bundle();
  change(w, b);
  auto r = check_bundle(std::move(b), kNow);
  return r.ok() ? Reason::kUninitialised : r.error().reason;
}

TEST(BundleCheck, RefusesEveryLieOfTheNodeWithItsReason) {
  EXPECT_EQ(refused([](World&, LaunchBundle& b) { b.launch_config.set_id[0] ^= 1; }),
            Reason::kWrongSet);
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              b.launch_config.set_key = w.stranger.key.public_key().text();
            }),
            Reason::kWrongSet);
  EXPECT_EQ(refused([](World&, LaunchBundle& b) {
              b.submission.submission.body.spec.spec.command = {"/bin/sh"};
            }),
            Reason::kBadSignature);
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) { b.submission.consumer = w.stranger.chain; }),
            Reason::kSpecMismatch);
  EXPECT_EQ(refused([](World&, LaunchBundle& b) { b.plan.body.controls.mandatory.push_back("x"); }),
            Reason::kBadSignature);
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              w.plan.job_id[0] ^= 1;
              b.plan = must(sign(w.set.id(), w.plan, w.set.signing));
            }),
            Reason::kPlanMismatch);
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              b.plan = must(sign(w.set.id(), w.plan, w.stranger.key));
            }),
            Reason::kBadSignature);
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              w.credential.job_id[0] ^= 1;
              b.credential = must(sign(w.set.id(), w.credential, w.set.signing));
            }),
            Reason::kCredentialForeign);
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              w.credential.expires = kNow;
              b.credential = must(sign(w.set.id(), w.credential, w.set.signing));
            }),
            Reason::kCredentialExpired);
}

// Signed by its consumer and authorised by its broker, and still no job that may run here.
TEST(BundleCheck, RefusesASpecThatIsNotValid) {
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              w.submission.spec.spec.command = {"bin/study"};
              b = w.bundle();
            }),
            Reason::kBadValue);
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              w.submission.spec.spec.inputs[0].mount = "/data/../etc";
              b = w.bundle();
            }),
            Reason::kBadValue);
}

TEST(BundleCheck, RefusesOtherPoliciesVersionsAndImages) {
  EXPECT_EQ(refused([](World&, LaunchBundle& b) { b.policies.pop_back(); }),
            Reason::kPolicyMismatch);
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              Policy weaker = w.data.policy;
              weaker.clauses.any_command = true;
              b.policies[0] = must(sign(w.set.id(), weaker, w.data.owner.key));
            }),
            Reason::kPolicyMismatch);
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              b.policies[0] = must(sign(w.set.id(), w.data.policy, w.stranger.key));
            }),
            Reason::kBadSignature);
  EXPECT_EQ(refused([](World&, LaunchBundle& b) { b.versions[0].body.root_hash[0] ^= 1; }),
            Reason::kWrongVersion);
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              b.versions[0] = must(sign(w.set.id(), w.data.record, w.stranger.key));
            }),
            Reason::kBadSignature);
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              w.submission.image_digest = "sha256:" + std::string(64, 'b');
              b = w.bundle();
            }),
            Reason::kImageDigestMismatch);
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              w.submission.assets[0].version_id[0] ^= 1;
              b = w.bundle();
            }),
            Reason::kWrongVersion);
}

TEST(BundleCheck, RefusesACredentialThatTheSetDidNotSign) {
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              b.credential = must(sign(w.set.id(), w.credential, w.stranger.key));
            }),
            Reason::kBadSignature);
  EXPECT_EQ(refused([](World&, LaunchBundle& b) { ++b.credential.body.expires; }),
            Reason::kBadSignature);
}

// A policy that the plan names and its owner signed, about another asset, key or owner than the
// record's.
TEST(BundleCheck, RefusesPolicyAndRecordThatDisagree) {
  const auto disagree = [](auto change) {
    World w;
    change(w);
    w.plan.policies[0].policy_hash = hash_of(w.data.policy);
    LaunchBundle b = w.bundle();
    b.policies[0] = must(
        sign(w.set.id(), w.data.policy,
             w.data.policy.owner_id == w.image.owner.id() ? w.image.owner.key : w.data.owner.key));
    const auto r = check_bundle(std::move(b), kNow);
    return r.ok() ? std::string("accepted") : r.error().what;
  };
  EXPECT_EQ(disagree([](World&) {}), "accepted");
  EXPECT_EQ(disagree([](World& w) { w.data.policy.asset_id[0] ^= 1; }),
            "policy and version record disagree");
  EXPECT_EQ(disagree([](World& w) { w.data.policy.commit_dk[0] ^= 1; }),
            "policy and version record disagree");
  EXPECT_EQ(disagree([](World& w) { w.data.policy.owner_id = w.image.owner.id(); }),
            "policy and version record disagree");
}

TEST(BundleCheck, RefusesBindingsThatThePlanDoesNotCover) {
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              w.submission.assets[0].asset_id[0] ^= 1;
              b = w.bundle();
            }),
            Reason::kWrongAsset);
  // A record comes along, but the plan rests on no policy for it.
  EXPECT_EQ(refused([](World& w, LaunchBundle& b) {
              w.plan.policies.erase(w.plan.policies.begin());
              b = w.bundle();
              b.policies.erase(b.policies.begin());
            }),
            Reason::kPolicyMissing);
}

// The words in which the gate names a code are those in which owners' ledgers keep it.
TEST(Charges, GateAndPolicyNameOneCode) {
  EXPECT_EQ(enum_name(gate::CodeId::kSchema), policy::kSchemaCode);
  EXPECT_EQ(enum_name(gate::CodeId::kControlOnly), policy::kControlCode);
}

TEST(MemoryBound, ReadsWhatTheKernelSays) {
  auto facts = parse_memory_facts(
      "MemTotal:       24684148 kB\nMemFree:  1 kB\nMemAvailable:   23693312 kB\n");
  ASSERT_TRUE(facts.ok()) << facts.error().line();
  EXPECT_EQ(facts->total_bytes, 24684148ull * 1024);
  EXPECT_EQ(facts->available_bytes, 23693312ull * 1024);
  EXPECT_TRUE(parse_memory_facts("A: 1 kB\nMemAvailable: 2 kB\nMemTotal: 3 kB").ok());
  for (const char* bad :
       {"", "MemTotal: 1 kB\n", "MemAvailable: 1 kB\n", "MemTotal: kB\nMemAvailable: 1 kB\n",
        "MemTotal: -1 kB\nMemAvailable: 1 kB\n",
        "MemTotal: 99999999999999 kB\nMemAvailable: 1 kB\n",
        "xMemTotal: 1 kB\nMemAvailable: 1 kB\n"}) {
    EXPECT_EQ(parse_memory_facts(bad).reason(), Reason::kBadStructure) << bad;
  }
  auto real = memory_facts();
  ASSERT_TRUE(real.ok()) << real.error().line();
  EXPECT_GE(real->total_bytes, real->available_bytes);
}

TEST(MemoryBound, AContainerGetsNoMoreThanTheMachineLends) {
  const std::uint64_t gib = std::uint64_t{1} << 30;
  PlanControls c;
  c.memory_bytes = std::int64_t{512} << 20;
  c.scratch_bytes = std::int64_t{64} << 20;
  EXPECT_TRUE(check_controls({gib, gib}, c).ok());
  const auto refused = [&](auto change) {
    PlanControls bad = c;
    change(bad);
    return check_controls({gib, gib}, bad).reason();
  };
  EXPECT_EQ(refused([](PlanControls& p) { p.scratch_bytes = std::int64_t{1024} << 30; }),
            Reason::kNoCapacity);
  // 80 % with scratch
  EXPECT_EQ(refused([](PlanControls& p) { p.memory_bytes = std::int64_t{757} << 20; }),
            Reason::kNoCapacity);
  EXPECT_EQ(refused([](PlanControls& p) { p.memory_bytes = kMaxJsonInteger; }),
            Reason::kNoCapacity);
  EXPECT_EQ(refused([](PlanControls& p) { p.memory_bytes = 0; }), Reason::kNoCapacity);
  EXPECT_EQ(refused([](PlanControls& p) { p.scratch_bytes = -1; }), Reason::kNoCapacity);
  EXPECT_EQ(refused([](PlanControls& p) { p.image_bytes = -1; }), Reason::kNoCapacity);
  // beside the others
  EXPECT_EQ(refused([](PlanControls& p) { p.image_bytes = std::int64_t{512} << 20; }),
            Reason::kNoCapacity);
  EXPECT_EQ(refused([](PlanControls& p) { p.pids = kMaxPids + 1; }), Reason::kNoCapacity);
  EXPECT_EQ(refused([](PlanControls& p) { p.pids = 0; }), Reason::kNoCapacity);
  EXPECT_EQ(check_controls({0, 0}, c).reason(), Reason::kNoCapacity);
}

TEST(MemoryBound, LeavesRoomForTheContainer) {
  PlanControls c;
  c.memory_bytes = 300;
  c.scratch_bytes = 60;
  c.image_bytes = 40;
  EXPECT_EQ(prefetch_bound({1000, 1000}, c), 500u);
  EXPECT_EQ(prefetch_bound({1000, 700}, c), 300u);
  EXPECT_EQ(prefetch_bound({1000, 400}, c), 0u);
  EXPECT_EQ(prefetch_bound({1000, 350}, c), 0u);
  c.memory_bytes = -1;
  EXPECT_EQ(prefetch_bound({1000, 300}, c), 200u);
}

TEST(MemoryBound, RefusesAssetsThatDoNotFitTogether) {
  World w;
  const LaunchBundle b = w.bundle();
  const std::uint64_t data = asset::prefetch_bytes(b.versions[0].body);
  const std::uint64_t image = asset::prefetch_bytes(b.versions[1].body);
  EXPECT_TRUE(check_prefetch(b, 1, {0}, data + image).ok());
  const Status refused = check_prefetch(b, 1, {0}, data + image - 1);
  EXPECT_EQ(refused.reason(), Reason::kTooLarge);
  EXPECT_NE(refused.error().next.find("access: direct"), std::string::npos);
  // An asset that two inputs name is held twice.
  EXPECT_EQ(check_prefetch(b, 1, {0, 0}, data + image).reason(), Reason::kTooLarge);
  LaunchBundle vast = b;
  vast.versions[0].body.ciphertext_bytes = -1;
  EXPECT_EQ(check_prefetch(vast, 1, {0, 0}, ~std::uint64_t{0} - 1).reason(), Reason::kTooLarge);
}

// An owner may have rotated the key between the record and the policy, or after both.
TEST(BundleCheck, RecordsOfEarlierKeysStayGood) {
  World w;
  const auto newer =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, w.random));
  LaunchBundle b = w.bundle();
  b.owners[0].rotations = {
      must(sign(w.set.id(), Rotation{w.data.owner.id(), 1, newer.public_key().text()},
                w.data.owner.recovery))};
  EXPECT_TRUE(check_bundle(b, kNow).ok());
  b.policies[0] = must(sign(w.set.id(), w.data.policy, newer));
  EXPECT_TRUE(check_bundle(b, kNow).ok());
  b.policies[0] = must(sign(w.set.id(), w.data.policy, w.stranger.key));
  EXPECT_EQ(check_bundle(b, kNow).reason(), Reason::kBadSignature);
}

TEST(KeyRelease, MustBeForThisRequestAndUnderThePlansPolicies) {
  World w;
  const CheckedJob job = must(check_bundle(w.bundle(), kNow));
  KeyRequest request;
  request.stage = 2;
  request.seq = 2;
  const Hash32 evidence{3};
  KeyContext good;
  good.credential = job.bundle.credential.hash();
  good.evidence = evidence;
  good.stage = 2;
  good.seq = 2;
  good.policy_serials = {1, 1};
  EXPECT_TRUE(check_key_context(job, evidence, request, good).ok());
  const auto refused = [&](auto change) {
    KeyContext c = good;
    change(c);
    return check_key_context(job, evidence, request, c).reason();
  };
  EXPECT_EQ(refused([](KeyContext& c) { c.credential[0] ^= 1; }), Reason::kBrokerUntrusted);
  EXPECT_EQ(refused([](KeyContext& c) { c.evidence[0] ^= 1; }), Reason::kBrokerUntrusted);
  EXPECT_EQ(refused([](KeyContext& c) { c.stage = 1; }), Reason::kBrokerUntrusted);
  EXPECT_EQ(refused([](KeyContext& c) { c.seq = 1; }), Reason::kBrokerUntrusted);
  EXPECT_EQ(refused([](KeyContext& c) { c.policy_serials = {1, 2}; }), Reason::kPolicyMismatch);
  EXPECT_EQ(refused([](KeyContext& c) { c.policy_serials = {1}; }), Reason::kPolicyMismatch);
  EXPECT_EQ(refused([](KeyContext& c) { c.policy_serials.clear(); }), Reason::kPolicyMismatch);
}

TEST(Controls, TheSandboxReadsBackEveryOneThatPlansDemandAndAMissingOneIsFatal) {
  PlanControls plan;
  plan.mandatory = policy::mandatory_controls();
  ASSERT_FALSE(plan.mandatory.empty());
  const auto in_force = sandbox::control_names();
  EXPECT_TRUE(require_controls(plan, in_force).ok());
  for (const auto& control : plan.mandatory) {
    auto fewer = in_force;
    std::erase(fewer, control);
    const Status s = require_controls(plan, fewer);
    EXPECT_EQ(s.reason(), Reason::kSandboxSetup);
    EXPECT_EQ(s.error().expected, control);
  }
  EXPECT_EQ(require_controls(plan, {}).reason(), Reason::kSandboxSetup);
}

TEST(Ipc, CarriesADescriptorAndAnError) {
  auto pair = must(make_packet_pair());
  Fd pipe = must(pipe_with(as_bytes("secret")));
  Json j;
  j["op"] = "x";
  ASSERT_TRUE(send_packet(pair.first.get(), j, pipe.get()).ok());
  auto got = must(receive_packet(pair.second.get()));
  ASSERT_TRUE(got.has_value());
  ASSERT_TRUE(got->fd.valid());
  EXPECT_EQ(as_text(must(read_all(got->fd.get(), 100))), "secret");
  Json e;
  e["error"]["reason"] = "bad-tag";
  e["error"]["what"] = "chunk 3";
  ASSERT_TRUE(send_packet(pair.second.get(), e).ok());
  auto r = call(pair.first.get(), "y", Json(JsonObject{}));
  EXPECT_EQ(r.reason(), Reason::kBadTag);
  EXPECT_EQ(r.error().what, "chunk 3");
  pair.second.reset();
  EXPECT_FALSE(call(pair.first.get(), "y", Json(JsonObject{})).ok());
}

// Schemas and arguments together come near the limit of a submission's message.
TEST(Ipc, CarriesTheLargestRequestThatASubmissionAllows) {
  auto pair = must(make_packet_pair());
  Json j;
  j["text"] = std::string(static_cast<std::size_t>(records::kMaxRequestBytes) + (64 << 10), 'x');
  ASSERT_TRUE(send_packet(pair.first.get(), j).ok());
  const auto got = must(receive_packet(pair.second.get()));
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(canonical(got->body), canonical(j));
}

TEST(Ipc, MemoryFilesCannotBeChanged) {
  Fd fd = must(memory_file(as_bytes("output")));
  EXPECT_EQ(as_text(must(read_all(fd.get(), 100))), "output");
  EXPECT_FALSE(write_all(fd.get(), as_bytes("x")).ok());
  EXPECT_NE(ftruncate(fd.get(), 1), 0);
  EXPECT_EQ(pipe_with(Bytes(5000)).reason(), Reason::kTooLarge);
}

}  // namespace
}  // namespace gbx::agent
