#include "policy/policy.h"

#include <gtest/gtest.h>

#include <set>

#include "base/schema.h"
#include "policy/decision.h"
#include "policy/rows.h"
#include "policy/testing.h"

namespace gbx::policy {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::Asset;
using gbx::testing::copy;
using gbx::testing::kImageDigest;
using gbx::testing::kNow;
using gbx::testing::make_asset;
using gbx::testing::make_clauses;
using gbx::testing::make_person;
using gbx::testing::must;
using gbx::testing::Person;

// Two owners' assets and an image; inputs are judged as a broker would with an empty log.
class Judging : public ::testing::Test {
 protected:
  Judging()
      : set(gbx::testing::make_key_set(random)),
        hospital(make_person(random)),
        registry(make_person(random)),
        consumer(make_person(random)),
        reviewer(make_person(random)),
        node(must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random))) {
    Clauses c = make_clauses(node.public_key(), {&reviewer});
    c.consumers = {consumer.id()};
    assets.push_back(make_asset(copy(hospital), AssetKind::kDataset, c, random));
    assets.push_back(make_asset(copy(registry), AssetKind::kDataset, c, random));
    clauses(0).join_owners = {registry.id()};
    clauses(1).join_assets = {assets[0].record.asset_id};
    // The image is the consumer's own.
    Clauses image = c;
    image.images.clear();
    image.commands.clear();
    image.join_owners = {hospital.id(), registry.id()};
    assets.push_back(make_asset(copy(consumer), AssetKind::kImage, image, random));
    spec = gbx::testing::make_spec(false);
  }
  Clauses& clauses(std::size_t i) { return assets[i].policy.clauses; }

  Explanation judge_job() {
    gbx::testing::SubmissionParts parts{spec, {}, &assets.back(), {}};
    for (std::size_t i = 0; i < inputs; ++i) parts.inputs.push_back(&assets[i]);
    parts.spec.spec.inputs = gbx::testing::make_spec(false, inputs).spec.inputs;
    PolicyInputs in;
    in.set_id = set.id();
    in.now = kNow;
    in.submission = gbx::testing::make_submission(set.id(), consumer, parts, random);
    if (change) change(in.submission);
    in.asset = [this](const Hash32& id) -> std::optional<AssetFacts> {
      for (const auto& a : assets) {
        if (a.version_id() != id) continue;
        return AssetFacts{a.owner.chain, must(sign(set.id(), a.record, a.owner.key)),
                          must(sign(set.id(), a.policy, a.owner.key)), confirmed_at};
      }
      return std::nullopt;
    };
    in.lease = [this](const AssetFacts&) -> Result<Id16> {
      if (lease) return *lease;
      return fail(Reason::kLeaseMissing, "no lease");
    };
    in.spent = [this](const AssetFacts&) { return spent; };
    in.current_key = [this](const IdentityChain& c) { return c.current_key(set.id()); };
    in.capacity = [this](const SpecBody&, const InputTables& tables) {
      return Result<JobBits>(JobBits{capacity, tables.empty() ? 0 : verified});
    };
    return explain(in);
  }
  // The checks that deny, as "check:reason"; each owner's side of a merge once for all.
  std::string denied() {
    const auto e = judge_job();
    std::string out;
    for (const auto& c : e.checks) {
      if (c.check == "merge" && out.find("merge:") != std::string::npos) continue;
      if (!c.allowed) out += (out.empty() ? "" : " ") + c.check + ":" + c.reason;
    }
    EXPECT_EQ(e.allowed, out.empty());
    EXPECT_EQ(e.plan.has_value(), e.allowed);
    EXPECT_EQ(denial(e).ok(), e.allowed);
    return out;
  }

  SeededRandom random{5};
  gbx::testing::KeySet set;
  Person hospital;
  Person registry;
  Person consumer;
  Person reviewer;
  crypto::SigningKey node;
  std::vector<Asset> assets;
  JobSpec spec;
  std::size_t inputs = 1;
  std::int64_t confirmed_at = kNow;
  std::int64_t capacity = 608;
  std::int64_t verified = 0;  // where a policy lets recipes read something
  Spent spent;
  std::optional<Id16> lease;  // the one that covers every asset
  std::function<void(SignedSubmission&)> change;
};

TEST_F(Judging, AllowsWhatEveryPolicyAllows) {
  EXPECT_EQ(denied(), "");
  inputs = 2;
  EXPECT_EQ(denied(), "");
  spec.spec.image = {"study-image", std::nullopt};
  EXPECT_EQ(denied(), "");
  const auto plan = *judge_job().plan;
  EXPECT_EQ(plan.policies.size(), 3u);
  EXPECT_EQ(plan.charges.size(), 3u);
  EXPECT_EQ(plan.controls.mandatory, mandatory_controls());
  EXPECT_EQ(plan.controls.memory_bytes, 512 << 20);
  EXPECT_EQ(plan.rollback, "unprotected");
}

struct DenyCase {
  const char* expected;
  void (*change)(Clauses&);
};
TEST_F(Judging, EveryClauseDeniesByItself) {
  const DenyCase cases[] = {
      {"consumer:lease-missing", [](Clauses& c) { c.consumers.clear(); }},
      {"consumer:consumer-not-allowed",
       [](Clauses& c) {
         c.consumers = {Hash32{1}};
         c.lease_required = false;
       }},
      {"purpose:purpose-not-allowed", [](Clauses& c) { c.purposes = {"audit"}; }},
      {"purpose:purpose-not-allowed", [](Clauses& c) { c.purposes.clear(); }},
      {"image:image-not-allowed",
       [](Clauses& c) { c.images[0].digest = "sha256:" + std::string(64, 'b'); }},
      {"image:image-not-allowed",
       [](Clauses& c) {
         c.images = {{std::nullopt, std::nullopt}};
       }},
      {"image:image-not-allowed",
       [](Clauses& c) { c.images[0].signer = "ed25519:" + std::string(64, '0'); }},
      {"image:image-not-allowed", [](Clauses& c) { c.images.clear(); }},
      {"command:command-not-allowed", [](Clauses& c) { c.commands[0].argv.push_back("--all"); }},
      {"command:command-not-allowed", [](Clauses& c) { c.commands.clear(); }},
      {"tee:tee-not-allowed", [](Clauses& c) { c.tee.clear(); }},
      {"tee:tee-not-allowed", [](Clauses& c) { c.tee[0].root = ""; }},
      {"tee:tee-not-allowed", [](Clauses& c) { c.tee[0].technology = Technology::kTdx; }},
      {"custody:custody-not-allowed", [](Clauses& c) { c.custody = {Custody::kTee}; }},
      {"rollback:rollback-not-allowed", [](Clauses& c) { c.rollback = "witnessed"; }},
      {"rollback:rollback-not-allowed", [](Clauses& c) { c.rollback = "whatever"; }},
      {"outputs:output-not-allowed",
       [](Clauses& c) { c.gate.output_types = {OutputType::kTable}; }},
      {"outputs:output-too-large", [](Clauses& c) { c.gate.max_output_bytes = 1023; }},
      {"attempts:attempts-exceeded", [](Clauses& c) { c.attempts = 2; }},
      {"budget:budget-exceeded", [](Clauses& c) { c.gate.period_free_bits = 609; }},
      {"budget:budget-exceeded", [](Clauses& c) { c.gate.total_free_bits = 609; }},
      {"in-force:policy-expired", [](Clauses& c) { c.not_after = kNow - 1; }},
      {"in-force:policy-not-fresh", [](Clauses& c) { c.fresh_for_seconds = 59; }}};
  confirmed_at = kNow - 60;
  for (const auto& c : cases) {
    const Clauses before = clauses(0);
    c.change(clauses(0));
    EXPECT_EQ(denied(), c.expected);
    clauses(0) = before;
  }
  EXPECT_EQ(denied(), "");
  assets[0].policy.revoked = true;
  EXPECT_EQ(denied(), "in-force:policy-revoked");
}

TEST_F(Judging, TheSubmissionDeniesByItself) {
  const auto with = [&](std::function<void(Submission&)> f) {
    change = [this, f](SignedSubmission& s) {
      f(s.submission.body);
      resign(s, set.id(), consumer);
    };
    return denied();
  };
  EXPECT_EQ(with([](Submission& s) { s.not_after = kNow - 1; }), "expiry:expired");
  EXPECT_EQ(with([](Submission& s) { s.spec.spec.env["LD_PRELOAD"] = "/data/x"; }),
            "command:command-not-allowed");
  EXPECT_EQ(with([](Submission& s) { s.spec.spec.env["SEED"] = "1"; }), "");
  EXPECT_EQ(with([](Submission& s) {
              s.spec.spec.logs = {LogVisibility::kConsumer, 100};
            }),
            "logs:logs-not-allowed logs:logs-not-allowed");  // the image's owner is asked, too
  EXPECT_EQ(with([](Submission& s) { s.image_digest = "sha256:" + std::string(64, 'b'); }),
            "assets:spec-mismatch");
  EXPECT_EQ(with([](Submission& s) { s.assets.clear(); }), "assets:spec-mismatch");
  // the image's
  EXPECT_EQ(with([](Submission& s) { s.assets.pop_back(); }), "assets:spec-mismatch");
  EXPECT_EQ(with([](Submission& s) {
              s.assets.push_back({"more", {}, {}});
            }),
            "assets:spec-mismatch");
  EXPECT_EQ(with([](Submission& s) { s.assets[0].asset_id = Id16{1}; }), "published:wrong-asset");
  EXPECT_EQ(with([](Submission& s) { s.assets[0].version_id = Hash32{1}; }),
            "published:policy-missing");
  EXPECT_EQ(with([](Submission& s) { s.spec.spec.tee.any_of = {Technology::kTdx}; }),
            "tee:tee-not-allowed tee:tee-not-allowed");
  EXPECT_EQ(with([](Submission& s) { s.consumer_id = Hash32{1}; }), "submission:spec-mismatch");
  EXPECT_EQ(with([](Submission& s) { s.spec.spec.command = {"study"}; }), "submission:bad-value");
  // not signed again
  change = [](SignedSubmission& s) { s.submission.body.spec.spec.args = {"x"}; };
  EXPECT_EQ(denied(), "submission:bad-signature");
}

TEST_F(Judging, JoinedInputsMustBeNamedByBothSides) {
  inputs = 2;
  clauses(1).join_assets.clear();
  EXPECT_EQ(denied(), "join:join-not-allowed");
  clauses(0).join_owners.clear();
  EXPECT_EQ(denied(), "join:join-not-allowed join:join-not-allowed");
  inputs = 1;
  EXPECT_EQ(denied(), "");
  // A data owner's image clause speaks for the image, but the image's owner says where it may run.
  spec.spec.image = {"study-image", std::nullopt};
  EXPECT_EQ(denied(), "");
  clauses(2).join_owners.clear();
  EXPECT_EQ(denied(), "join:join-not-allowed");
}

TEST_F(Judging, ASignedImage) {
  clauses(0).images = {{std::nullopt, consumer.key.public_key().text()}};
  EXPECT_EQ(denied(), "");  // named by its digest
  spec.spec.image = {"study-image", std::nullopt};
  EXPECT_EQ(denied(), "");
  clauses(0).images[0].signer = hospital.key.public_key().text();
  EXPECT_EQ(denied(), "image:image-not-allowed");
  assets[2].record.content_digest = "sha256:" + std::string(64, 'c');
  assets[2].policy.asset_version_id = assets[2].record.id();
  clauses(0).images = {{kImageDigest, std::nullopt}};
  EXPECT_EQ(denied(), "published:image-digest-mismatch");
}

TEST_F(Judging, OneLeaseIdForTwoAssetsIsDenied) {
  inputs = 2;
  lease = Id16{7};
  clauses(0).consumers.clear();
  EXPECT_EQ(denied(), "");
  clauses(1).consumers.clear();
  EXPECT_EQ(denied(), "merge:lease-missing");
}

TEST_F(Judging, WhatMustBeHeldIsForeseen) {
  // "asset:reason", of an allowed job
  const auto foreseen = [this] {
    const Explanation e = judge_job();
    EXPECT_TRUE(e.allowed);
    std::string out;
    for (const auto& c : e.checks) {
      if (c.reason.empty()) continue;
      EXPECT_TRUE(c.allowed && c.check == "clearance") << c.check;
      EXPECT_FALSE(c.what.empty() || c.expected.empty() || c.actual.empty() || c.next.empty());
      EXPECT_EQ(c.what.find("rejected") != std::string::npos, clauses(0).reviewers.empty());
      out += (out.empty() ? "" : " ") + c.asset + ":" + c.reason;
    }
    return out;
  };
  EXPECT_EQ(foreseen(), "");
  // one attempt is certain, the choice among three is not
  clauses(0).gate.auto_clear_free_bits = capacity;
  EXPECT_EQ(foreseen(), "");
  --clauses(0).gate.auto_clear_free_bits;
  EXPECT_EQ(foreseen(), "in0:free-bits");
  clauses(0).reviewers.clear();
  EXPECT_EQ(foreseen(), "in0:free-bits job:no-reviewer");
  clauses(0) = clauses(1);
  for (const std::size_t i : {0U, 2U}) clauses(i).gate.output_types.push_back(OutputType::kOpaque);
  spec.spec.outputs[0].type = OutputType::kOpaque;
  spec.spec.outputs[0].schema.reset();
  EXPECT_EQ(foreseen(), "job:opaque-output");
  for (const std::size_t i : {0U, 2U}) clauses(i).gate.output_types.push_back(OutputType::kText);
  spec.spec.outputs[0].type = OutputType::kText;
  spec.spec.outputs[0].schema = Json(JsonObject{});
  EXPECT_EQ(foreseen(), "job:gate-holds");
  // nobody but the consumer would be asked, and he has agreed
  assets[0].owner = copy(consumer);
  assets[0].record.owner_id = consumer.id();
  assets[0].policy.owner_id = consumer.id();
  assets[0].policy.asset_version_id = assets[0].record.id();
  clauses(2).join_owners.push_back(consumer.id());
  EXPECT_EQ(foreseen(), "");
}

// Nobody allows anything to this consumer, who names any assets that he likes.
TEST_F(Judging, SlotsWithoutACommonOneAreDenied) {
  Clauses c = clauses(0);
  c.consumers = {reviewer.id()};
  for (const std::int64_t slot : {86399, 86398, 86397, 86395, 86389}) {
    c.gate.release_slot_seconds = slot;
    assets.insert(assets.begin(), make_asset(copy(hospital), AssetKind::kDataset, c, random));
  }
  inputs = 5;
  EXPECT_NE(denied().find("consumer:"), std::string::npos);
}

// The common slot is what is told, and every owner is charged for it.
TEST_F(Judging, SlotsAreCharged) {
  inputs = 2;
  clauses(0).gate.release_slot_seconds = 900;
  clauses(1).gate.release_slot_seconds = 600;
  spec.spec.timeouts.run = 86400;
  EXPECT_EQ(slot_bits({86400, 1800}), 6);
  for (const std::int64_t attempts : {1, 3}) {
    spec.spec.attempts = attempts;
    const std::int64_t charge = capacity + attempt_bits(attempts) + attempts * 6;
    const auto plan = *judge_job().plan;
    for (const auto& c : plan.charges) EXPECT_EQ(c.free_bits, charge);
    clauses(1).gate.total_free_bits = charge - 1;
    EXPECT_EQ(denied(), "budget:budget-exceeded");
    clauses(1).gate.total_free_bits = charge;
    EXPECT_EQ(denied(), "");
    clauses(1).gate.total_free_bits = clauses(0).gate.total_free_bits;
  }
  // of one attempt, when it is asked whether a person must rule
  clauses(0).gate.auto_clear_free_bits = capacity + 6;
  EXPECT_EQ(judge_job().checks.back().check, "merge");
  --clauses(0).gate.auto_clear_free_bits;
  EXPECT_EQ(judge_job().checks.back().reason, reason::kFreeBits);
}

// Verified bits are planned, and foreseen to hold, only where an owner lets recipes read a file.
TEST_F(Judging, VerifiedBitsNeedAnOwnersRule) {
  verified = 70'000;
  EXPECT_EQ(judge_job().plan->charges[0].verified_bits, 0);
  clauses(0).tables = std::vector<records::TableRule>{{"visits.csv", "patient"}};
  const auto held = judge_job();
  ASSERT_TRUE(held.allowed);
  for (const auto& c : held.plan->charges) EXPECT_EQ(c.verified_bits, verified);
  EXPECT_TRUE(std::any_of(held.checks.begin(), held.checks.end(), [](const auto& c) {
    return c.check == "clearance" && c.reason == reason::kVerifiedBits;
  }));
  verified = 65536;
  for (const auto& c : judge_job().checks) EXPECT_NE(c.check, "clearance") << c.reason;
  verified = records::kMaxBits;
  EXPECT_EQ(denied(), "capacity:output-too-large");
}

TEST_F(Judging, AnImageIsAnImageAndADatasetIsNot) {
  const auto as_kind = [](Asset& a, AssetKind kind) {
    a.record.kind = kind;
    a.record.content_digest = kImageDigest;  // so that nothing but the kind is wrong
    a.policy.asset_version_id = a.record.id();
  };
  spec = gbx::testing::make_spec(true);
  clauses(0).join_owners.push_back(consumer.id());
  EXPECT_EQ(denied(), "");
  as_kind(assets[2], AssetKind::kDataset);
  EXPECT_EQ(denied(), "published:wrong-asset");
  as_kind(assets[2], AssetKind::kImage);
  EXPECT_EQ(denied(), "");
  // decrypted where the program reads, under the rules for what it is run from
  as_kind(assets[0], AssetKind::kImage);
  EXPECT_EQ(denied(), "published:wrong-asset");
}

// One asset under two inputs, two of its versions, or two of its files would be the same people in
// tables that nobody compares.
TEST_F(Judging, RecipesReadOneFileOfEachAsset) {
  inputs = 2;
  const auto reads = [](const std::string& input, const std::string& file = "visits.csv") {
    return must(parse_json(R"({"maxRows":1,"columns":[],"recipe":{"input":")" + input +
                           R"(","file":")" + file + R"("}})"));
  };
  spec.spec.outputs[0].schema = reads("in0");
  spec.spec.outputs.push_back(spec.spec.outputs[0]);
  spec.spec.outputs[1].name = "second";
  spec.spec.outputs[1].path = "second.csv";
  spec.spec.outputs[1].schema = reads("in1");
  for (auto& o : spec.spec.outputs) o.type = records::OutputType::kTable;
  for (const std::size_t i : {0U, 1U}) {
    clauses(i).tables =
        std::vector<records::TableRule>{{"visits.csv", "patient"}, {"patients.csv", "patient"}};
  }
  EXPECT_EQ(denied(), "") << "two assets";
  spec.spec.outputs[1].schema = reads("in0", "patients.csv");
  EXPECT_EQ(denied(), "capacity:output-not-allowed") << "two files";
  spec.spec.outputs[1].schema = reads("in0", "notes.csv");
  EXPECT_EQ(denied(), "") << "a file that no recipe may read: all of it is free bits";
  spec.spec.outputs[1].schema = reads("in1");
  for (const bool same_version : {true, false}) {
    assets[1].owner = copy(hospital);
    assets[1].record = assets[0].record;
    assets[1].policy = assets[0].policy;
    if (!same_version) {
      assets[1].record.version = 2;
      assets[1].record.root_hash = random.fixed<32>();
      assets[1].policy.asset_version_id = assets[1].version_id();
    }
    EXPECT_EQ(denied(), "capacity:output-not-allowed") << same_version;
    spec.spec.outputs[1].schema = reads("in0");
    EXPECT_EQ(denied(), "") << "both by one input";
    spec.spec.outputs[1].schema = reads("in1");
  }
  // of which the owner lets recipes read nothing: then all of it is free bits
  assets[1].policy.clauses.tables.reset();
  EXPECT_EQ(denied(), "");
}

// Others' jobs are the owner's to know: a consumer is told that not enough is left, and whoever may
// not ask at all is told nothing of it.
TEST_F(Judging, WhatOthersSpentIsNotTold) {
  spent = {0, 131'072 - 77};
  const auto lines = [&] {
    std::string out;
    for (const auto& c : judge_job().checks) {
      if (c.check != "budget") continue;
      out += c.asset + " " + c.what + " " + c.expected + " " + c.actual + " " + c.next + "\n";
    }
    return out;
  };
  const std::string told = lines();
  EXPECT_EQ(denied(), "budget:budget-exceeded budget:budget-exceeded");
  EXPECT_NE(told.find("not enough left"), std::string::npos) << told;
  for (const std::int64_t other : {131'072 - 609, 131'072, 200'000}) {
    spent.total_free_bits = other;
    EXPECT_EQ(lines(), told);
  }
  // by the data's owner; by the image's he may
  clauses(0).consumers = {Hash32{1}};
  clauses(0).lease_required = false;
  EXPECT_EQ(denied(), "consumer:consumer-not-allowed budget:budget-exceeded");
  EXPECT_EQ(lines().find("in0"), std::string::npos) << lines();
}

TEST_F(Judging, WhatOwnersSpentCounts) {
  spent.period_free_bits = 16384 - 610;
  EXPECT_EQ(denied(), "");
  ++spent.period_free_bits;
  // of the data and of the image
  EXPECT_EQ(denied(), "budget:budget-exceeded budget:budget-exceeded");
  spent = {0, 131072};
  EXPECT_EQ(denied(), "budget:budget-exceeded budget:budget-exceeded");
  spent = {};
  for (const std::int64_t bits : {kMaxBits, kControlBits - 1}) {
    capacity = bits;
    EXPECT_EQ(denied(), "capacity:output-too-large");
  }
}

// A policy's author says which keys a reviewer has, and could say his own: an output would be
// sealed to it. So a reviewer is one with these keys only where every owner says the same.
TEST_F(Judging, NobodyPutsAnotherKeyUnderAReviewersId) {
  inputs = 2;
  const Reviewer honest = as_reviewer(reviewer);
  for (const std::size_t liar : {std::size_t{0}, std::size_t{1}}) {
    for (std::string Reviewer::*part : {&Reviewer::key, &Reviewer::hpke}) {
      for (std::size_t a = 0; a < 2; ++a) {
        clauses(a).reviewers = {honest};
        clauses(a).may_preview = {honest};
      }
      Reviewer forged = honest;
      forged.*part = to_hex(random.fixed<32>());
      // Beside the one whom everybody names, it is nobody's.
      clauses(liar).reviewers = {forged};
      EXPECT_EQ(judge_job().plan.value().reviewers, std::vector<Reviewer>{honest});
      // In the place of it, nobody is left.
      clauses(liar).may_preview = {forged};
      EXPECT_TRUE(judge_job().plan.value().reviewers.empty());
      EXPECT_TRUE(judge_job().plan.value().may_preview.empty());
    }
  }
}
// Whoever submits has agreed for his own assets: he names no reviewer of the others' data and keeps
// none from it.
TEST_F(Judging, TheConsumersOwnPolicyHasNoPartInReviews) {
  const Reviewer honest = as_reviewer(reviewer);
  Reviewer forged = honest;
  forged.hpke = to_hex(random.fixed<32>());
  clauses(0).reviewers = clauses(0).may_preview = {honest};
  clauses(2).reviewers_needed = 2;
  for (const auto& lets : {std::vector<Reviewer>{forged}, std::vector<Reviewer>{}}) {
    clauses(2).reviewers = lets;
    clauses(2).may_preview = lets;
    const RunPlan plan = judge_job().plan.value();
    EXPECT_EQ(plan.reviewers, std::vector<Reviewer>{honest});
    EXPECT_EQ(plan.reviewers_needed, 1);
  }
}

// Three owners, each of whom allows the job alone: nobody's clause is wrong, so each is shown.
TEST_F(Judging, WhatCannotBeMergedIsDeniedWithEachOwnersSide) {
  inputs = 2;
  clauses(0).gate.output_types = {OutputType::kMetrics};
  clauses(0).gate.release_slot_seconds = 86399;
  clauses(1).gate.release_slot_seconds = 86398;
  EXPECT_EQ(denied(), "merge:policy-unmergeable");
  std::map<std::string, std::string> sides;
  for (const auto& c : judge_job().checks) {
    if (!c.allowed) sides[c.asset] = c.actual;
  }
  ASSERT_EQ(sides.size(), 4u);  // the job, two inputs, the image
  EXPECT_NE(sides["in0"].find("releaseSlotSeconds 86399"), std::string::npos) << sides["in0"];
  EXPECT_NE(sides["in1"].find("releaseSlotSeconds 86398"), std::string::npos) << sides["in1"];
  EXPECT_NE(sides["image"].find("releaseSlotSeconds 0"), std::string::npos) << sides["image"];
}

TEST_F(Judging, TextsOfChecksAreBoundedAndWhole) {
  // 64 bytes cut the 33rd character of two bytes.
  std::string name = "x";
  for (int i = 0; i < 63; ++i) name += "\xc3\xa4";
  spec.spec.env[name] = "1";
  EXPECT_EQ(denied(), "command:command-not-allowed");
  clauses(0).purposes.assign(64, std::string(200, 'p'));
  const Explanation e = judge_job();
  for (const auto& c : e.checks) {
    for (const std::string* text : {&c.what, &c.expected, &c.actual, &c.next}) {
      EXPECT_TRUE(valid_utf8(*text)) << c.check;
    }
  }
  EXPECT_TRUE(from_json_text<Explanation>(canonical(to_json(e))).ok());
}

TEST_F(Judging, ForgedRecordsAndPolicies) {
  const Asset good{copy(assets[0].owner), assets[0].key.clone(), assets[0].record,
                   assets[0].policy};
  assets[0].owner = copy(registry);  // signed by somebody else
  EXPECT_EQ(denied(), "published:wrong-owner");
  assets[0].owner = copy(good.owner);
  assets[0].policy.commit_dk = Hash32{1};
  EXPECT_EQ(denied(), "published:bad-commitment");
  assets[0].policy = good.policy;
  assets[0].policy.asset_version_id = Hash32{1};
  EXPECT_EQ(denied(), "published:wrong-asset");
}

TEST_F(Judging, TheStrictestValueOfAllOwners) {
  inputs = 2;
  clauses(0).gate.release_slot_seconds = 600;
  clauses(1).gate.release_slot_seconds = 900;
  clauses(0).gate.auto_clear_free_bits = 100;
  clauses(1).gate.hold_score = 20;
  clauses(1).gate.output_types = {OutputType::kMetrics};
  clauses(1).gate.copy_check = false;
  clauses(1).access = Access::kDirect;
  clauses(1).reviewers_needed = 2;
  clauses(0).residual_channels = {"power"};
  auto plan = *judge_job().plan;
  EXPECT_EQ(plan.gate.release_slot_seconds, 1800);
  EXPECT_EQ(plan.gate.auto_clear_free_bits, 100);
  EXPECT_EQ(plan.gate.hold_score, 20);
  EXPECT_EQ(plan.gate.output_types, std::vector<OutputType>{OutputType::kMetrics});
  EXPECT_TRUE(plan.gate.copy_check);
  EXPECT_EQ(plan.controls.access, Access::kPrefetch);
  EXPECT_EQ(plan.reviewers_needed, 2);
  EXPECT_EQ(plan.reviewers.size(), 1u);
  EXPECT_NE(std::find(plan.residual_channels.begin(), plan.residual_channels.end(), "power"),
            plan.residual_channels.end());
  // Nobody is let in by one owner only.
  clauses(1).may_preview.clear();
  EXPECT_TRUE(judge_job().plan->reviewers.empty());
  const auto other =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
  clauses(1).tee[0].root = "none:" + to_hex(other.public_key().fingerprint());
  EXPECT_EQ(denied(), "merge:policy-unmergeable");
}

// Taking a right away from any policy never allows more.
TEST_F(Judging, StricterPoliciesNeverAllowMore) {
  inputs = 2;
  SeededRandom dice(77);
  const std::function<void(Clauses&)> tighten[] = {
      [](Clauses& c) { c.consumers.clear(); },
      [](Clauses& c) { c.gate.period_free_bits -= 1000; },
      [](Clauses& c) { c.gate.auto_clear_free_bits /= 2; },
      [](Clauses& c) { c.gate.hold_score -= 10; },
      [](Clauses& c) { c.attempts = std::max<std::int64_t>(1, c.attempts - 1); },
      [](Clauses& c) {
        if (c.gate.output_types.size() > 1) c.gate.output_types.pop_back();
      },
      [](Clauses& c) { c.may_preview.clear(); },
      [](Clauses& c) { c.gate.max_output_bytes /= 4; },
      [](Clauses& c) {
        c.join_owners.clear();
        c.join_assets.clear();
      },
      [](Clauses& c) { c.tee.clear(); }};
  for (int round = 0; round < 20; ++round) {
    const Clauses saved[] = {clauses(0), clauses(1)};
    Explanation before = judge_job();
    ASSERT_TRUE(before.allowed);
    for (int step = 0; step < 6; ++step) {
      tighten[dice.below(std::size(tighten))](clauses(dice.below(2)));
      const Explanation after = judge_job();
      EXPECT_TRUE(before.allowed || !after.allowed);
      if (before.allowed && after.allowed) {
        EXPECT_LE(after.plan->gate.auto_clear_free_bits, before.plan->gate.auto_clear_free_bits);
        EXPECT_LE(after.plan->gate.hold_score, before.plan->gate.hold_score);
        EXPECT_LE(after.plan->gate.output_types.size(), before.plan->gate.output_types.size());
        EXPECT_LE(after.plan->reviewers.size(), before.plan->reviewers.size());
      }
      before = after;
    }
    clauses(0) = saved[0];
    clauses(1) = saved[1];
  }
}

TEST(Verdict, UncheckedIsNotAllowed) {
  PlatformRule none{Technology::kNone, "none:aa", {}, 0};
  Verdict v;
  v.root = "none:aa";
  EXPECT_EQ(verdict_allowed({none}, v).reason(), Reason::kTeeNotAllowed);  // nothing was checked
  v.binding = v.signature = Check::kPass;
  EXPECT_TRUE(verdict_allowed({none}, v).ok());
  EXPECT_FALSE(verdict_allowed({}, v).ok());
  v.root = "none:bb";
  EXPECT_FALSE(verdict_allowed({none}, v).ok());
  none.root.clear();
  v.root.clear();
  EXPECT_FALSE(verdict_allowed({none}, v).ok());  // by name only
  PlatformRule tdx{Technology::kTdx, "", {"guest-1"}, 3};
  v.technology = Technology::kTdx;
  v.release = "guest-1";
  v.svn = 3;
  EXPECT_FALSE(verdict_allowed({tdx}, v).ok());  // measurement not checked
  v.measurement = Check::kPass;
  EXPECT_FALSE(verdict_allowed({tdx}, v).ok());  // debug not checked
  v.debug_off = Check::kPass;
  EXPECT_TRUE(verdict_allowed({tdx}, v).ok());
  for (Check* c : {&v.binding, &v.signature, &v.measurement, &v.debug_off}) {
    for (const Check bad : {Check::kFail, Check::kNotChecked}) {
      *c = bad;
      EXPECT_FALSE(verdict_allowed({tdx}, v).ok());
    }
    *c = Check::kPass;
  }
  v.svn = 2;
  EXPECT_FALSE(verdict_allowed({tdx}, v).ok());
  v.svn = 3;
  v.release = "guest-2";
  EXPECT_FALSE(verdict_allowed({tdx}, v).ok());
}

TEST(Merge, GatesAndSlots) {
  GateClause a;
  a.output_types = {OutputType::kTable};
  GateClause b = a;
  b.output_types = {OutputType::kMetrics};
  EXPECT_EQ(merge_gates({a, b}).reason(), Reason::kPolicyUnmergeable);
  EXPECT_EQ(merge_gates({}).reason(), Reason::kPolicyMissing);
  b = a;
  a.release_slot_seconds = 86399;
  b.release_slot_seconds = 86400;
  EXPECT_EQ(merge_gates({a, b}).reason(), Reason::kPolicyUnmergeable);
  a.release_slot_seconds = 0;
  EXPECT_EQ(merge_gates({a, b})->release_slot_seconds, 86400);
  // Their least common multiple has 80 bits.
  std::vector<GateClause> many(5, b);
  for (std::size_t i = 0; i < many.size(); ++i) {
    many[i].release_slot_seconds = std::vector<std::int64_t>{86399, 86398, 86397, 86395, 86389}[i];
  }
  EXPECT_EQ(merge_gates(many).reason(), Reason::kPolicyUnmergeable);
}

struct GateCase {
  const char* member;
  void (*strict)(GateClause&);
  void (*loose)(GateClause&);
};
// Whichever owner comes first, each member is the stricter one's.
TEST(Merge, EveryMemberOfTheGateIsTheStrictest) {
  const GateCase cases[] = {
      {"autoClearFreeBits", [](GateClause& g) { g.auto_clear_free_bits = 1; },
       [](GateClause& g) { g.auto_clear_free_bits = 2; }},
      {"autoClearVerifiedBits", [](GateClause& g) { g.auto_clear_verified_bits = 1; },
       [](GateClause& g) { g.auto_clear_verified_bits = 2; }},
      {"periodFreeBits", [](GateClause& g) { g.period_free_bits = 1; },
       [](GateClause& g) { g.period_free_bits = 2; }},
      {"periodDays", [](GateClause& g) { g.period_days = 60; },
       [](GateClause& g) { g.period_days = 30; }},
      {"totalFreeBits", [](GateClause& g) { g.total_free_bits = 1; },
       [](GateClause& g) { g.total_free_bits = 2; }},
      {"maxOutputBytes", [](GateClause& g) { g.max_output_bytes = 1; },
       [](GateClause& g) { g.max_output_bytes = 2; }},
      {"maxRows", [](GateClause& g) { g.max_rows = 1; }, [](GateClause& g) { g.max_rows = 2; }},
      {"holdScore", [](GateClause& g) { g.hold_score = 1; },
       [](GateClause& g) { g.hold_score = 2; }},
      {"outputTypes", [](GateClause& g) { g.output_types = {OutputType::kMetrics}; },
       [](GateClause& g) {
         g.output_types = {OutputType::kTable, OutputType::kMetrics};
       }},
      {"copyCheck", [](GateClause& g) { g.copy_check = true; },
       [](GateClause& g) { g.copy_check = false; }},
      {"releaseSlotSeconds", [](GateClause& g) { g.release_slot_seconds = 900; },
       [](GateClause& g) { g.release_slot_seconds = 450; }},
      {"logs", [](GateClause& g) { g.logs = LogVisibility::kNone; },
       [](GateClause& g) { g.logs = LogVisibility::kConsumer; }},
      {"logBytes", [](GateClause& g) { g.log_bytes = 1; }, [](GateClause& g) { g.log_bytes = 2; }},
      {"cellSubjects", [](GateClause& g) { g.cell_subjects = 12; },
       [](GateClause& g) { g.cell_subjects = 11; }}};
  GateClause base;
  base.output_types = {OutputType::kText};
  std::set<std::string> held;
  for (const auto& c : cases) {
    GateClause strict = base, loose = base;
    c.strict(strict);
    c.loose(loose);
    const std::string expected = canonical(to_json(strict));
    ASSERT_NE(canonical(to_json(loose)), expected);
    EXPECT_EQ(canonical(to_json(*merge_gates({strict, loose}))), expected) << c.member;
    EXPECT_EQ(canonical(to_json(*merge_gates({loose, strict}))), expected) << c.member;
    held.insert(c.member);
  }
  // Those that a policy may leave out, too.
  const Json members = json_schema<GateClause>();
  for (const auto& [name, unused] : *members.find("properties")->object()) {
    EXPECT_EQ(held.count(name), 1u) << name;
  }
}

// An owner who says nothing asks for ten subjects, and never for fewer than others do.
TEST(Merge, WhoSaysNothingOfCellsAsksForTen) {
  GateClause base;
  base.output_types = {OutputType::kTable};
  const auto merged = [&](std::optional<std::int64_t> a, std::optional<std::int64_t> b) {
    GateClause one = base, other = base;
    one.cell_subjects = a;
    other.cell_subjects = b;
    const auto both = merge_gates({one, other});
    EXPECT_EQ(both->cell_subjects, merge_gates({other, one})->cell_subjects);
    return both->cell_subjects;
  };
  EXPECT_EQ(merged({}, 5), 10);
  EXPECT_EQ(merged({}, 20), 20);
  EXPECT_EQ(merged(5, 20), 20);
  EXPECT_EQ(merged(3, 5), 5);
  EXPECT_EQ(merged({}, {}), std::nullopt);
}

TEST(Merge, PlatformsAreThoseOfBoth) {
  const PlatformRule a{Technology::kTdx, "", {"guest-1", "guest-2"}, 3};
  const PlatformRule b{Technology::kTdx, "", {"guest-2", "guest-3"}, 5};
  for (const auto& merged : {merge_platforms({a}, {b}), merge_platforms({b}, {a})}) {
    ASSERT_EQ(merged.size(), 1u);
    EXPECT_EQ(merged[0].releases, std::vector<std::string>{"guest-2"});
    EXPECT_EQ(merged[0].minimum_svn, 5);
  }
  const auto none = [](const PlatformRule& x, const PlatformRule& y) {
    return merge_platforms({x}, {y}).empty() && merge_platforms({y}, {x}).empty();
  };
  EXPECT_TRUE(none(a, {Technology::kTdx, "", {"guest-3"}, 0}));  // no release that both name
  EXPECT_TRUE(none(a, {Technology::kSnp, "", {"guest-1"}, 0}));
  const PlatformRule sim{Technology::kSim, "sim:aa", {"guest-1"}, 0};
  EXPECT_TRUE(none(sim, {Technology::kSim, "sim:bb", {"guest-1"}, 0}));
  EXPECT_EQ(merge_platforms({{Technology::kSim, "", {"guest-1"}, 0}}, {sim})[0].root, "sim:aa");
  EXPECT_EQ(merge_platforms({{Technology::kNone, "none:aa", {}, 0}},
                            {{Technology::kNone, "none:aa", {}, 0}})
                .size(),
            1u);
}

TEST(Attempts, CostTheirChoice) {
  const std::int64_t expected[] = {0, 0, 1, 2, 2, 3, 3, 3, 3, 4};
  for (std::int64_t n = 0; n < 10; ++n) EXPECT_EQ(attempt_bits(n), expected[n]) << n;
}

TEST(Attempts, TellTheSlotInWhichTheyEnd) {
  EXPECT_EQ(slot_bits({3600, 0}), 0);  // at once: not reckoned
  EXPECT_EQ(slot_bits({3600, 86400}), 1);
  // with the times of gate and destruction one slot, or the next
  EXPECT_EQ(slot_bits({300, 1500}), 1);
  EXPECT_EQ(slot_bits({301, 1500}), 2);
  EXPECT_EQ(slot_bits({604800, 900}), 10);
  EXPECT_EQ(slot_bits({604800, 1}), 20);
  // No start of the run gives more ends than are paid for.
  for (std::int64_t slot = 1; slot < 50; ++slot) {
    const std::int64_t longest = 1 + kGateSeconds + kDestroySeconds;
    for (std::int64_t begin = 0; begin < slot; ++begin) {
      std::set<std::int64_t> ends;
      for (std::int64_t t = 0; t <= longest; ++t) ends.insert(slot_end(begin + t, slot));
      EXPECT_LE(static_cast<std::int64_t>(ends.size()), std::int64_t{1} << slot_bits({1, slot}));
    }
  }
  EXPECT_EQ(attempts_bits({604800, 900}, 3), 2 + 3 * 10);
}

TEST(Describe, BitsAsRowsAreNeverTooFew) {
  EXPECT_EQ(equivalent_rows(0, 116), "0.0 rows");
  EXPECT_EQ(equivalent_rows(1, 116), "0.1 rows");
  EXPECT_EQ(equivalent_rows(116, 116), "1.0 rows");
  EXPECT_EQ(equivalent_rows(117, 116), "1.1 rows");
  EXPECT_EQ(equivalent_rows(231, 116), "2.0 rows");  // 1.99
  EXPECT_EQ(equivalent_rows(1'160'000, 116), "10,000.0 rows");
  EXPECT_EQ(equivalent_rows(std::int64_t{1} << 62, 1), "4,611,686,018,427,387,904.0 rows");
  EXPECT_EQ(equivalent_rows(117, std::nullopt), "");
}

TEST(Describe, SaysTheDangerousThingsInPlainWords) {
  SeededRandom random(9);
  const auto node =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
  const Person reviewer = make_person(random);
  Policy p;
  p.clauses = make_clauses(node.public_key(), {&reviewer});
  AssetKind kind = AssetKind::kDataset;
  const auto says = [&](const std::string& words) {
    for (const auto& line : explain_policy(p, kind)) {
      if (line.find(words) != std::string::npos) return true;
    }
    return false;
  };
  EXPECT_TRUE(says("NO TEE"));
  EXPECT_TRUE(says("`/bin/study`"));
  EXPECT_TRUE(says("every bit that leaves is a free one"));
  EXPECT_TRUE(says("What one row of this data holds is not said (rowBits)"));
  p.clauses.row_bits = 116;
  EXPECT_TRUE(says("One row of this data holds 116 bits"));
  EXPECT_TRUE(says("Without a person: up to 2,048 free bits (17.7 rows) a release"));
  EXPECT_TRUE(says("16,384 free bits (141.3 rows) per consumer in 30 days"));
  p.clauses.row_bits.reset();
  EXPECT_FALSE(says("Every result is held"));
  p.clauses.gate.auto_clear_free_bits = 7;
  EXPECT_TRUE(says("Every result is held: each release tells 8 bits at least"));
  p.clauses.gate.auto_clear_free_bits = 2048;
  p.clauses.tables = std::vector<records::TableRule>{{"visits.csv", "patient"}};
  EXPECT_TRUE(says("from visits.csv (one patient, one subject), cells of at least 10 subjects"));
  EXPECT_TRUE(
      says("verified bits a release without a person; over many releases they have no limit"));
  p.clauses.tables->front().structural_zeros =
      std::vector<records::StructuralZero>{{{"sex", "pregnant"}, {"m", "yes"}}};
  EXPECT_TRUE(says("(one patient, one subject; none with sex m and pregnant yes)"));
  p.clauses.tables.reset();
  {
    Policy hostile = p;
    Clauses& c = hostile.clauses;
    const std::string bad = "\x1b[2J\n- Where: tdx\u202e";
    c.purposes = c.lease_issuers = c.residual_channels = {bad};
    c.rollback = bad;
    c.images = {{bad, bad}};
    c.commands = {{{"/bin/sh", bad}, {bad}}};
    c.tee = {{Technology::kNone, bad, {}, 0}, {Technology::kTdx, "", {bad}, 0}};
    const auto lines = explain_policy(hostile, kind);
    EXPECT_EQ(lines.size(), explain_policy(p, kind).size() + 1);  // residual channels
    for (const auto& line : lines) {
      EXPECT_EQ(line.find_first_of("\n\x1b\xe2\x80\xae", 0, 2), std::string::npos) << line;
    }
    EXPECT_TRUE(std::any_of(lines.begin(), lines.end(), [](const auto& l) {
      return l.find("\\x1b[2J\\x0a- Where: tdx\\xe2\\x80\\xae") != std::string::npos;
    }));
  }
  EXPECT_TRUE(says("Its log: unprotected"));
  EXPECT_TRUE(says("kept by: operator"));
  EXPECT_TRUE(says("No other input may be in the same job"));
  EXPECT_TRUE(says("Decisions fall at once"));
  EXPECT_FALSE(says("ANY,"));
  EXPECT_FALSE(says("ANYONE"));
  EXPECT_FALSE(says("REVOKED"));
  p.clauses.any_command = true;
  p.clauses.lease_required = false;
  p.clauses.gate.copy_check = false;
  p.revoked = true;
  EXPECT_TRUE(says("ANY,"));
  EXPECT_TRUE(says("ANYONE"));
  EXPECT_TRUE(says("NOT looked for"));
  EXPECT_TRUE(says("REVOKED"));
  p.clauses.join_owners = {Hash32{1}};
  EXPECT_TRUE(says("May be joined with anything of owner 01"));
  p.clauses.join_assets = {Id16{2}};
  EXPECT_TRUE(says("May be joined with asset 02"));
  EXPECT_TRUE(says(", or with anything of owner 01"));
  kind = AssetKind::kImage;
  EXPECT_TRUE(says("Runs together with asset 02"));
  EXPECT_FALSE(says("ANY,"));  // an image's own policy judges no code
}

TEST(Describe, APolicyUnderWhichNothingCanRunSaysWhichMemberIsTheReason) {
  SeededRandom random(9);
  const auto node =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
  Policy good;
  good.clauses = make_clauses(node.public_key(), {});
  const auto members = [](const Policy& p, AssetKind kind) {
    std::string out;
    for (const auto& line : dead_ends(p, kind, kNow)) {
      out += (out.empty() ? "" : " ") + line.substr(0, line.find(':'));
    }
    return out;
  };
  const auto without = [&](auto change, AssetKind kind = AssetKind::kDataset) {
    Policy p = good;
    change(p);
    return members(p, kind);
  };
  EXPECT_EQ(without([](Policy&) {}), "");
  EXPECT_EQ(without([](Policy& p) { p.revoked = true; }), "it is revoked");
  EXPECT_EQ(without([](Policy& p) { p.clauses.not_after = kNow - 1; }), "notAfter");
  EXPECT_EQ(without([](Policy& p) { p.clauses.purposes.clear(); }), "purposes");
  EXPECT_EQ(without([](Policy& p) { p.clauses.images.clear(); }), "images");
  EXPECT_EQ(without([](Policy& p) { p.clauses.commands.clear(); }), "commands");
  EXPECT_EQ(without([](Policy& p) {
              p.clauses.commands.clear();
              p.clauses.any_command = true;
            }),
            "");
  EXPECT_EQ(without([](Policy& p) { p.clauses.tee.clear(); }), "tee");
  EXPECT_EQ(without([](Policy& p) { p.clauses.tee[0].technology = Technology::kTdx; }), "tee");
  EXPECT_EQ(without([](Policy& p) { p.clauses.custody = {Custody::kTee}; }), "custody");
  EXPECT_EQ(without([](Policy& p) { p.clauses.rollback = "witnessed"; }), "rollback");
  EXPECT_EQ(without([](Policy& p) { p.clauses.gate.output_types.clear(); }), "gate");
  EXPECT_EQ(without([](Policy& p) { p.clauses.gate.total_free_bits = 7; }), "gate");
  const auto image = [](Policy& p) {
    p.clauses.images.clear(), p.clauses.commands.clear(), p.clauses.join_owners = {Hash32{1}};
  };
  EXPECT_EQ(without(image, AssetKind::kImage), "");
  EXPECT_EQ(without([](Policy& p) { p.clauses.join_owners.clear(), p.clauses.join_assets.clear(); },
                    AssetKind::kImage),
            "joinOwners");
  // What the draft of a careful owner says when it says nothing.
  Policy empty;
  empty.clauses.rollback = "witnessed";
  empty.clauses.not_after = kNow;
  EXPECT_EQ(members(empty, AssetKind::kDataset),
            "purposes images commands tee custody rollback gate");
}

// The consumer is a reviewer by identity, by signing key or by a key that opens the result: each
// alone is enough.
namespace {

NamedPolicy named(const std::string& name, const Asset& a) {
  return {name, a.record.kind, a.record.content_digest, a.owner.key.public_key().text(), a.policy};
}
std::string text_of(const std::vector<std::string>& lines) {
  std::string out;
  for (const auto& l : lines) out += l + "\n";
  return out;
}

}  // namespace

// What `policy explain A --with B` says is what the judge does with the two.
TEST_F(Judging, ExplainedTogetherIsWhatIsJudged) {
  inputs = 2;
  const auto together = [&] {
    return explain_together(
        {named("wdbc", assets[0]), named("weights", assets[1]), named("tool", assets[2])}, kNow);
  };
  ASSERT_EQ(denied(), "");
  EXPECT_TRUE(together().obstacles.empty()) << text_of(together().obstacles);
  clauses(0).not_after -= 10;
  clauses(1).gate.auto_clear_free_bits = 77;
  const std::string lines = text_of(together().lines);
  EXPECT_NE(lines.find("when the policy of wdbc ends"), std::string::npos) << lines;
  EXPECT_NE(lines.find("up to 77 free bits"), std::string::npos) << lines;
  EXPECT_NE(lines.find("count against wdbc, weights, tool"), std::string::npos) << lines;

  const auto hinders = [&](const std::string& words, const std::function<void()>& spoil) {
    const Clauses before[] = {clauses(0), clauses(1), clauses(2)};
    spoil();
    EXPECT_NE(denied(), "") << words;
    const std::string said = text_of(together().obstacles);
    EXPECT_NE(said.find(words), std::string::npos) << said;
    for (std::size_t i = 0; i < 3; ++i) clauses(i) = before[i];
    EXPECT_TRUE(together().obstacles.empty()) << text_of(together().obstacles);
  };
  hinders("wdbc may not meet weights", [&] {
    clauses(0).join_assets.clear();
    clauses(0).join_owners.clear();
  });
  hinders("no purpose is allowed by every owner. wdbc: \"other\"; weights: \"research\"",
          [&] { clauses(0).purposes = {"other"}; });
  hinders("weights does not let the image tool", [&] {
    clauses(1).images = {{"sha256:" + std::string(64, 'b'), std::nullopt}};
  });
  hinders("no command is allowed by every owner", [&] {
    clauses(1).commands = {{{"/bin/x"}, {}}};
  });
  hinders("no place is allowed by every owner. wdbc: node none:",
          [&] { clauses(1).tee[0].root = "none:" + std::string(64, '0'); });
  hinders("coincide less than once a day", [&] {
    clauses(0).gate.release_slot_seconds = 86399;
    clauses(1).gate.release_slot_seconds = 86398;
  });
  hinders("weights: notAfter: it ended", [&] { clauses(1).not_after = kNow - 1; });
}

TEST(Reviewers, AreNeverTheConsumerAndOneForEachPerson) {
  SeededRandom random(11);
  const Person consumer = make_person(random), other = make_person(random);
  Policy policy;
  SignedSubmission s;
  s.submission.key = consumer.key.public_key().text();
  s.submission.body.consumer_id = consumer.id();
  s.submission.body.result_keys = {{"primary", to_hex(Hash32{9})},
                                   {"recovery", consumer.hpke.public_key().text()}};
  const Reviewer good = gbx::testing::as_reviewer(other);
  const auto eligible = [&](auto change) {
    Reviewer r = good;
    change(r);
    policy.clauses.reviewers = {r};
    return eligible_reviewers(policy, {r}, s).size();
  };
  EXPECT_EQ(eligible([](Reviewer&) {}), 1u);
  EXPECT_EQ(eligible([&](Reviewer& r) { r.identity_id = consumer.id(); }), 0u);
  EXPECT_EQ(eligible([&](Reviewer& r) { r.key = consumer.key.public_key().text(); }), 0u);
  EXPECT_EQ(eligible([&](Reviewer& r) { r.hpke = consumer.hpke.public_key().text(); }), 0u);
  Reviewer again = good;
  again.key = other.recovery.public_key().text();
  // whom not every owner lets look, with these keys
  policy.clauses.reviewers = {good};
  EXPECT_EQ(eligible_reviewers(policy, {again}, s).size(), 0u);
  policy.clauses.reviewers = {good, again};
  EXPECT_EQ(eligible_reviewers(policy, {good, again}, s).size(), 1u);
}

TEST(Tally, KOfN) {
  SeededRandom random(10);
  const auto node =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
  const Person a = make_person(random), b = make_person(random), c = make_person(random),
               owner = make_person(random);
  Asset asset = make_asset(copy(owner), AssetKind::kDataset,
                           make_clauses(node.public_key(), {&a, &b, &c}), random);
  asset.policy.clauses.reviewers_needed = 2;
  Panel panel;
  panel.policies = {must(sign(Hash32{}, asset.policy, asset.owner.key))};
  panel.may_preview = asset.policy.clauses.may_preview;
  const auto rule = [&](RulingDecision d) {
    Ruling r;
    r.owner_policy_hash = panel.policies[0].hash();
    r.decision = d;
    panel.rulings.push_back(r);
    return tally(panel);
  };
  EXPECT_TRUE(reviewable(panel));
  EXPECT_EQ(tally(panel), Tally::kOpen);
  EXPECT_EQ(rule(RulingDecision::kApprove), Tally::kOpen);
  EXPECT_EQ(rule(RulingDecision::kReject), Tally::kOpen);
  EXPECT_EQ(rule(RulingDecision::kApprove), Tally::kApproved);
  panel.rulings.clear();
  EXPECT_EQ(rule(RulingDecision::kRequestChanges), Tally::kOpen);
  EXPECT_EQ(rule(RulingDecision::kReject), Tally::kDeclined);
  panel.rulings.clear();
  panel.may_preview.pop_back();
  panel.may_preview.pop_back();
  EXPECT_FALSE(reviewable(panel));
  // One person with two keys is one of two.
  asset.policy.clauses.reviewers = {gbx::testing::as_reviewer(a), gbx::testing::as_reviewer(a)};
  asset.policy.clauses.reviewers[1].key = a.recovery.public_key().text();
  panel.policies = {must(sign(Hash32{}, asset.policy, asset.owner.key))};
  EXPECT_FALSE(reviewable(panel));
  EXPECT_EQ(tally(panel), Tally::kDeclined);
  // The consumer's own asset asks nobody.
  panel.submission.submission.body.consumer_id = owner.id();
  EXPECT_TRUE(reviewable(panel));
  EXPECT_EQ(tally(panel), Tally::kApproved);
}

}  // namespace
}  // namespace gbx::policy
