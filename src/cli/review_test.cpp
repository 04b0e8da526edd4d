// A held output as its reviewer opens it: a genuine one from a real broker; every lie of the plane
// is named, and nothing is signed about other bytes.
#include "cli/review.h"

#include <gtest/gtest.h>

#include <sstream>

#include "base/figures.h"
#include "cli/testing.h"
#include "policy/decision.h"

namespace gbx::cli {
namespace {

using gbx::testing::BrokerWorld;
using gbx::testing::Content;
using gbx::testing::must;
using records::RulingDecision;

struct Held {
  explicit Held(const std::function<void(Content&)>& change = {},
                const std::function<void(BrokerWorld&)>& before = {}) {
    for (auto* a : {&world.data, &world.image}) a->policy.clauses.row_bits = 116;
    if (before) before(world);
    world.start_and_publish();
    auto verdict = gbx::testing::clean_verdict();
    verdict.recommendation = records::Recommendation::kHold;
    job = gbx::testing::seal_a_job(world, verdict, change);
    const auto judged = must(world.judge(job->run.job_id()));
    api::ReviewDetail d;
    d.review.job_id = job->run.job_id();
    d.review.hold_notice = *judged.hold_notice;
    d.submission = job->run.submission;
    d.plan = job->run.plan;
    d.owners = {world.owner.chain};
    for (const auto& named : d.plan.body.policies) {
      const auto& asset =
          named.asset_version_id == world.data.version_id() ? world.data : world.image;
      const auto publish = gbx::testing::make_publish(world.set, asset, world.random);
      d.versions.push_back(publish.record);
      d.policies.push_back(publish.policy);
    }
    d.run_statement = *judged.run_statement;
    for (std::size_t i = 0; i < d.plan.body.reviewers.size(); ++i) {
      if (d.plan.body.reviewers[i].identity_id != world.reviewer.id()) continue;
      d.preview_keys.push_back(judged.preview_keys.at(i));
    }
    d.output = job->output;
    const Nonce32 nonce{3};
    input.emplace(ReviewInput{must(world.set.chain.verify(world.set.id())), job->run.job_id(),
                              world.reviewer.id(), world.reviewer.key.public_key(), std::move(d),
                              nonce, ledger(job->run.job_id(), nonce),
                              world.clock.now().seconds()});
  }
  records::Signed<records::HeldLedgerStatement> ledger(const Hash32& id, const Nonce32& nonce) {
    return must(world.call<records::Signed<records::HeldLedgerStatement>>(
        records::method::kHeldLedger, records::HeldLedgerRequest{id, world.reviewer.id(), nonce}));
  }
  // As the set would say it.
  records::Signed<records::HeldLedgerStatement> say(records::HeldLedgerStatement s) {
    return must(records::sign(world.set.id(), std::move(s), world.set.signing));
  }
  Result<OpenedReview> open() { return open_review(*input, world.reviewer.hpke); }
  Reason with(const std::function<void(ReviewInput&)>& change) {
    ReviewInput in = *input;
    change(in);
    const auto opened = open_review(in, world.reviewer.hpke);
    return opened.ok() ? Reason::kUninitialised : opened.reason();
  }
  records::Signed<records::Ruling> ruling(std::size_t policy, RulingDecision decision) {
    return must(records::sign(
        world.set.id(),
        make_ruling(*input, input->detail.plan.body.policies[policy].policy_hash, {decision, {}}),
        world.reviewer.key));
  }
  BrokerWorld world{71};
  std::optional<gbx::testing::SealedJob> job;
  std::optional<ReviewInput> input;
};

TEST(Review, AGenuineOutputOpensAndItsRulingIsTaken) {
  Held h;
  const auto r = h.open();
  ASSERT_TRUE(r.ok()) << r.error().line();
  ASSERT_EQ(r->content.files.size(), 1U);
  EXPECT_EQ(as_text(r->content.files[0].content), "{\"auc\":\"0.99\"}");
  EXPECT_EQ(r->review.score, 60);
  EXPECT_EQ(r->checked.reasons, std::vector<std::string>{"gate-holds"});
  ASSERT_EQ(r->checked.policies.size(), 2U);
  for (const auto& p : r->checked.policies) EXPECT_TRUE(p.mine && p.asks && !p.own);
  const std::string text = review_text(*h.input, *r);
  for (const char* said :
       {"gate-holds", "metrics.json (metrics, 14 bytes)", "| {\"auc\"", "0 of 1 approvals",
        "score     60 of 100", "a release costs 608 free bits (5.3 rows)",
        "by this consumer in 30 days: 0 (0.0 rows) now, 608 (5.3 rows) after a release, "
        "of 16,384 (141.3 rows) free bits\n",
        "by all consumers for ever: 0 (0.0 rows) now, "}) {
    EXPECT_NE(text.find(said), std::string::npos) << said << "\n" << text;
  }
  // The rulings that this input makes are those that the broker takes.
  records::Judgement last;
  for (std::size_t i = 0; i < 2; ++i) {
    last = must(h.world.call<records::Judgement>(
        records::method::kRuling,
        records::RulingRequest{h.world.reviewer.chain, h.ruling(i, RulingDecision::kApprove)}));
  }
  EXPECT_EQ(last.state, records::JudgementState::kReleased);
}

// A broker whose clock was set forward gives notices of days to come, for its time never falls.
TEST(Review, ANoticeOfAClockAheadCanBeRuledUpon) {
  Held h;
  h.input->now -= 3 * 86400;
  const auto r = h.open();
  ASSERT_TRUE(r.ok()) << r.error().line();
  for (std::size_t i = 0; i < 2; ++i) {
    const records::RulingRequest request{h.world.reviewer.chain,
                                         h.ruling(i, RulingDecision::kApprove)};
    must(h.world.call<records::Judgement>(records::method::kRuling, request));
  }
  EXPECT_GT(h.ruling(0, RulingDecision::kApprove).body.time, h.input->now);
}

// A metrics file is one line, however long: a reviewer sees all of it, or how much is not shown.
TEST(Review, NothingOfALongLineIsHiddenInSilence) {
  Held h;
  const auto opened = h.open();
  ASSERT_TRUE(opened.ok()) << opened.error().line();
  OpenedReview long_line = *opened;
  long_line.content.log.reset();
  std::string metrics;
  for (int i = 0; i < 40; ++i) metrics += "{\"größe\":" + std::to_string(i) + "},";
  const auto shown = [&](const std::string& content) {
    long_line.content.files.at(0).content.assign(content.begin(), content.end());
    return review_text(*h.input, long_line);
  };
  std::string text = shown(metrics);
  std::string joined;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("  | ", 0) == 0 || line.rfind("  + ", 0) == 0) joined += line.substr(4);
  }
  EXPECT_EQ(joined, metrics);
  EXPECT_EQ(text.find("more byte"), std::string::npos);
  EXPECT_NE(shown(metrics + "\n" + "x").find("  | x\n"), std::string::npos);
  EXPECT_NE(shown(std::string(60 * 120 + 7, 'x')).find("  … 7 more bytes: --out DIR"),
            std::string::npos);
}

TEST(Review, EveryLieOfThePlaneIsNamed) {
  Held h;
  EXPECT_EQ(h.with([](auto& in) { in.job_id[0] ^= 1; }), Reason::kBadHash);
  EXPECT_EQ(h.with([](auto& in) { in.detail.submission.submission.body.spec.spec.purpose += "!"; }),
            Reason::kBadHash);
  EXPECT_EQ(h.with([](auto& in) { in.detail.submission.submission.signature[0] ^= 1; }),
            Reason::kBadSignature);
  EXPECT_EQ(h.with([&](auto& in) { in.detail.submission.consumer = h.world.owner.chain; }),
            Reason::kBadHash);
  EXPECT_EQ(h.with([](auto& in) { in.detail.plan.body.reviewers_needed = 2; }),
            Reason::kBadSignature);
  EXPECT_EQ(h.with([](auto& in) { in.detail.review.hold_notice.body.expires += 1; }),
            Reason::kBadSignature);
  EXPECT_EQ(h.with([](auto& in) { in.detail.run_statement.body.manifest.context.attempt = 2; }),
            Reason::kBadHash);
  EXPECT_EQ(h.with([](auto& in) { in.detail.output.ciphertext[20] ^= 1; }), Reason::kBadHash);
  EXPECT_EQ(h.with([](auto& in) { in.detail.output.wrapped_preview[0][5] ^= 1; }),
            Reason::kBadHash);
  EXPECT_EQ(h.with([](auto& in) { (*in.detail.output.review)[5] ^= 1; }), Reason::kBadHash);
  EXPECT_EQ(h.with([](auto& in) { in.detail.preview_keys[0][40] ^= 1; }), Reason::kBadTag);
  EXPECT_EQ(h.with([](auto& in) { in.detail.policies[0].body.clauses.attempts = 9; }),
            Reason::kBadHash);
  EXPECT_EQ(h.with([](auto& in) { std::swap(in.detail.policies[0], in.detail.policies[1]); }),
            Reason::kBadHash);
  EXPECT_EQ(h.with([](auto& in) { in.detail.policies.pop_back(); }), Reason::kPlanMismatch);
  // A consumer's file names are paths of the reviewer's machine: no broker's word stands for them.
  EXPECT_EQ(h.with([&](auto& in) {
    auto& s = in.detail.submission.submission;
    s.body.spec.spec.outputs[0].path = "../../.ssh/authorized_keys";
    s = must(records::sign(h.world.set.id(), s.body, h.world.consumer.key));
    in.job_id = s.body.job_id();
  }),
            Reason::kBadValue);
  EXPECT_EQ(h.with([](auto& in) { in.detail.owners.clear(); }), Reason::kWrongOwner);
  EXPECT_EQ(h.with([](auto& in) { in.ledger.body.budgets[0].total_free_bits = 0; }),
            Reason::kUninitialised)
      << "control: it was 0";
  EXPECT_EQ(h.with([](auto& in) { in.ledger.body.budgets[0].release_free_bits -= 1; }),
            Reason::kBadSignature);
  EXPECT_EQ(h.with([](auto& in) { in.nonce[0] ^= 1; }), Reason::kNonceMismatch) << "an older one";
}

// Signed by the set, and about something else all the same.
TEST(Review, AnotherAnswerAboutTheBudgetsIsRefused) {
  Held h;
  using Statement = records::HeldLedgerStatement;
  const auto said = [&](const std::function<void(Statement&)>& change) {
    return h.with([&](auto& in) {
      Statement s = in.ledger.body;
      change(s);
      in.ledger = h.say(std::move(s));
    });
  };
  EXPECT_EQ(said([](auto&) {}), Reason::kUninitialised);
  EXPECT_EQ(said([](auto& s) { s.job_id[0] ^= 1; }), Reason::kBadHash);
  EXPECT_EQ(said([](auto& s) { s.hold_notice[0] ^= 1; }), Reason::kBadHash);
  EXPECT_EQ(said([&](auto& s) { s.reviewer = h.world.owner.id(); }), Reason::kWrongOwner);
  EXPECT_EQ(said([](auto& s) { s.budgets.pop_back(); }), Reason::kPlanMismatch);
  EXPECT_EQ(said([](auto& s) { std::swap(s.budgets[0], s.budgets[1]); }), Reason::kBadHash);
}

TEST(Review, ABudgetThatAReleaseWouldBreakIsNamed) {
  Held h;
  auto s = h.input->ledger.body;
  s.budgets[0].period_free_bits = 16384 - 607;
  h.input->ledger = h.say(std::move(s));
  const auto r = h.open();
  ASSERT_TRUE(r.ok()) << r.error().line();
  EXPECT_EQ(r->checked.reasons, (std::vector<std::string>{"budget", "gate-holds"}));
  const std::string text = review_text(*h.input, *r);
  EXPECT_NE(text.find("MORE THAN THE BUDGET by 1 free bit (0.1 rows)\n"), std::string::npos)
      << text;
  const Json j = review_json(*h.input, *r);
  const Json& budget = *j.find("policies")->array()->at(0).find("budget");
  EXPECT_EQ(*budget.find("period")->find("before")->integer(), 16384 - 607);
  EXPECT_EQ(*budget.find("period")->find("after")->integer(), 16385);
  EXPECT_EQ(*budget.find("period")->find("rowsAfter")->string(), "141.3 rows");
  EXPECT_EQ(*budget.find("total")->find("after")->integer(), 608);
}

// Everything of another job of the same consumer, each part as it was signed.
TEST(Review, AnotherJobsOutputIsRefused) {
  Held h;
  auto verdict = gbx::testing::clean_verdict();
  verdict.recommendation = records::Recommendation::kHold;
  const auto other = gbx::testing::seal_a_job(h.world, verdict);
  const auto judged = must(h.world.judge(other.run.job_id()));
  EXPECT_EQ(h.with([&](auto& in) { in.detail.output = other.output; }), Reason::kBadHash);
  EXPECT_EQ(h.with([&](auto& in) { in.detail.plan = other.run.plan; }), Reason::kBadHash);
  EXPECT_EQ(h.with([&](auto& in) { in.detail.run_statement = *judged.run_statement; }),
            Reason::kBadHash);
  EXPECT_EQ(h.with([&](auto& in) { in.detail.review.hold_notice = *judged.hold_notice; }),
            Reason::kBadHash);
  EXPECT_EQ(h.with([&](auto& in) {
    in.detail.review.hold_notice = *judged.hold_notice;
    in.detail.run_statement = *judged.run_statement;
    in.detail.output = other.output;
    in.detail.preview_keys = judged.preview_keys;
  }),
            Reason::kBadHash);
}

TEST(Review, IsForItsReviewersInTime) {
  Held h;
  EXPECT_EQ(h.with([&](auto& in) { in.self = h.world.owner.id(); }), Reason::kWrongRole);
  EXPECT_EQ(h.with([&](auto& in) { in.self = h.world.consumer.id(); }), Reason::kWrongRole);
  EXPECT_EQ(h.with([&](auto& in) { in.self_key = h.world.owner.key.public_key(); }),
            Reason::kWrongRole)
      << "a rotated key";
  EXPECT_EQ(open_review(*h.input, h.world.owner.hpke).reason(), Reason::kWrongRecipient);
  const std::int64_t expires = h.input->detail.review.hold_notice.body.expires;
  EXPECT_EQ(h.with([&](auto& in) { in.now = expires; }), Reason::kUninitialised);
  EXPECT_EQ(h.with([&](auto& in) { in.now = expires + 1; }), Reason::kExpired);
}

// One policy names keys that the reviewer has no more, or not yet: the preview opens at the place
// whose key is here, and rulings go to whoever names the key that signs, whichever place is first.
TEST(Review, OpensAndRulesByTheKeysOfToday) {
  for (const bool data_first : {true, false}) {
    std::optional<gbx::testing::Person> other;
    Held h({}, [&](BrokerWorld& w) {
      other.emplace(gbx::testing::make_person(w.random));
      auto& stale = (data_first ? w.data : w.image).policy.clauses.reviewers.at(0);
      stale.key = other->key.public_key().text();
      stale.hpke = other->hpke.public_key().text();
      for (auto* a : {&w.data, &w.image}) a->policy.clauses.may_preview.push_back(stale);
    });
    ASSERT_EQ(h.input->detail.preview_keys.size(), 2U);
    const auto r = h.open();
    ASSERT_TRUE(r.ok()) << r.error().line();
    EXPECT_EQ(r->review.score, 60);
    int mine = 0;
    for (std::size_t i = 0; i < 2; ++i) {
      const auto& p = r->checked.policies[i];
      const auto& names = p.policy.clauses.reviewers.at(0).key;
      EXPECT_EQ(p.mine, names == h.world.reviewer.key.public_key().text());
      if (!p.mine) continue;
      ++mine;
      const records::RulingRequest request{h.world.reviewer.chain,
                                           h.ruling(i, RulingDecision::kApprove)};
      EXPECT_EQ(must(h.world.call<records::Judgement>(records::method::kRuling, request)).state,
                records::JudgementState::kHeld);
    }
    EXPECT_EQ(mine, 1);
    EXPECT_TRUE(open_review(*h.input, other->hpke).ok())
        << "the other place is the reviewer's, too";
    EXPECT_EQ(h.with([&](ReviewInput& in) { in.detail.preview_keys.pop_back(); }),
              Reason::kPlanMismatch);
    EXPECT_EQ(h.with([&](ReviewInput& in) {
      std::swap(in.detail.preview_keys[0], in.detail.preview_keys[1]);
    }),
              Reason::kBadTag);
  }
}

TEST(Review, CountsRulingsThatHold) {
  Held h;
  const auto counted = [&](const api::KeptRuling& kept) {
    ReviewInput in = *h.input;
    in.detail.rulings = {kept};
    return must(check_review(in)).policies[0];
  };
  const api::KeptRuling good{h.world.reviewer.id(), true, h.ruling(0, RulingDecision::kApprove)};
  EXPECT_EQ(counted(good).approved, 1);
  EXPECT_TRUE(counted(good).own.has_value());
  ReviewInput twice = *h.input;
  twice.detail.rulings = {good, good};
  EXPECT_EQ(must(check_review(twice)).policies[0].approved, 1) << "one person is one";
  api::KeptRuling open = good;
  open.taken = false;
  EXPECT_EQ(counted(open).approved, 0);
  EXPECT_TRUE(counted(open).own.has_value());
  api::KeptRuling forged = good;
  forged.ruling.signature[3] ^= 1;
  EXPECT_EQ(counted(forged).approved, 0);
  api::KeptRuling by_another = good;
  by_another.ruling = must(records::sign(h.world.set.id(), good.ruling.body, h.world.owner.key));
  EXPECT_EQ(counted(by_another).approved, 0);
  api::KeptRuling of_another = good;
  of_another.ruling.body.hold_notice[0] ^= 1;
  of_another.ruling =
      must(records::sign(h.world.set.id(), of_another.ruling.body, h.world.reviewer.key));
  EXPECT_EQ(counted(of_another).approved, 0);
}

// What runs on the data is shown to its last byte, and where one word ends and the next begins.
TEST(Review, TheCommandIsShownWhole) {
  Held h;
  const auto opened = h.open();
  ASSERT_TRUE(opened.ok()) << opened.error().line();
  auto& spec = h.input->detail.submission.submission.body.spec.spec;
  const std::string end = "; curl evil";
  spec.command = {"sh", "-c", std::string(4000, 'x') + end};
  spec.args = {"a b", "it's", "\xe2\x80\x8b"};
  spec.env = {{std::string(300, 'N') + "E", std::string(4000, 'v') + end}};
  const std::string text = review_text(*h.input, *opened);
  EXPECT_NE(text.find("x" + end + "' 'a b' 'it'\\''s' '\\xe2\\x80\\x8b'\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find("NE='vv"), std::string::npos);
  EXPECT_NE(text.find("v" + end + "'\n"), std::string::npos);
}

// A study's text moves no terminal and speaks no line of this program.
TEST(Review, WhatAnOutputSaysIsEscaped) {
  Held h([](Content& c) {
    c.bundle.entries[0].content =
        to_bytes(as_bytes("\x1b[2Jx\rjob       0000\n\xe2\x80\xaescore     0 of 100\n"));
    c.digests[0].salted_digest =
        gate::output_digest(c.salt, "metrics", c.bundle.entries[0].content);
  });
  const auto r = h.open();
  ASSERT_TRUE(r.ok()) << r.error().line();
  const std::string text = review_text(*h.input, *r);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_EQ(text.find("\xe2\x80\xae"), std::string::npos);
  EXPECT_EQ(text.find("\nscore     0 "), std::string::npos) << text;
  EXPECT_NE(text.find("  | \\x1b[2Jx"), std::string::npos) << text;
}

}  // namespace
}  // namespace gbx::cli
