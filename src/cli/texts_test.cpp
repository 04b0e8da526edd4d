#include "cli/texts.h"

#include <gtest/gtest.h>

#include "broker/testing.h"
#include "cli/output.h"
#include "cli/tree.h"

namespace gbx::cli {
namespace {

// Clears the screen, forges a line of ours, turns the direction of reading, and pads so that
// wrapping would forge one, too.
const std::string kHostile = "\x1b[2J\n- Where: tdx\n  - Where: tdx\u202e" + std::string(97, 'x') +
                             " - Where: tdx, releases good";

// Nothing but our own line ends, and no line that begins as an item of ours would with what the
// hostile text says.
void expect_safe(const std::string& text, const std::vector<std::string>& marks = {"- ", "  - "}) {
  for (const char c : text) {
    EXPECT_TRUE(c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f)) << text;
  }
  EXPECT_EQ(text.find("\u202e"), std::string::npos);
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    for (const auto& mark : marks) {
      EXPECT_NE(text.substr(at, end - at).rfind(mark + "Where: tdx", 0), 0U) << text;
    }
    at = end + 1;
  }
  // shown, not hidden
  EXPECT_NE(text.find("\\x1b[2J\\x0a- Where: tdx"), std::string::npos) << text;
}

TEST(Texts, APolicyOfAnotherOwner) {
  records::Policy p;
  for (const int which : {0, 1, 2, 3, 4, 5, 6}) {
    records::Clauses c;
    c.rollback = "unprotected";
    if (which == 0) c.purposes = {kHostile};
    if (which == 1) c.lease_issuers = {kHostile};
    if (which == 2) c.images = {{kHostile, kHostile}};
    if (which == 3) c.commands = {{{"/bin/sh", kHostile}, {kHostile}}};
    if (which == 4) c.tee = {{records::Technology::kSim, kHostile, {kHostile}, 0}};
    if (which == 5) c.rollback = kHostile;
    if (which == 6) c.residual_channels = {kHostile};
    p.clauses = c;
    for (const char* mark : {"- ", "  - ", "! "}) {
      expect_safe(policy_lines(p, records::AssetKind::kDataset, mark), {mark});
    }
  }
}

TEST(Texts, AJobOfAnotherConsumer) {
  api::JobDetail d;
  auto& body = d.submission.submission.body;
  const auto reset = [&] {
    d = {};
    body.spec.spec.purpose = "study";
  };
  body.image_digest = kHostile;
  expect_safe(detail_text(d));
  reset();
  body.assets = {{kHostile, {}, {}}};
  expect_safe(detail_text(d));
  reset();
  body.spec.spec.purpose = kHostile;
  expect_safe(detail_text(d));
  reset();
  d.job.name = kHostile;
  expect_safe(detail_text(d));
  reset();
  d.plan.emplace().body.tee = {{records::Technology::kSim, kHostile, {}, 0}};
  expect_safe(detail_text(d));
  reset();
  d.job.environments.resize(1);
  d.job.environments[0].reason = "infrastructure";
  d.job.environments[0].detail = d.job.environments[0].node = kHostile;
  expect_safe(detail_text(d));
}

TEST(Texts, APlanAsItsPlaneShowsIt) {
  records::Explanation e;
  records::PlanCheck check;
  check.check = check.asset = check.what = check.reason = kHostile;
  check.expected = check.actual = kHostile;
  e.checks = {check};
  expect_safe(plan_text(e, true));
  e = {};
  e.plan.emplace().residual_channels = {kHostile};
  e.plan->rollback = kHostile;
  expect_safe(plan_text(e, true));
}

TEST(Texts, APlanForeseesWhatIsHeldOrRejected) {
  records::Explanation e;
  e.allowed = true;
  e.plan.emplace();
  e.checks.push_back({"budget", "in0", {}, true, "", "", "", "", ""});
  e.checks.push_back(
      {"clearance", "in0", {}, true, "free-bits", "is held", "at most 10", "1623", "do less"});
  e.checks.push_back({"placement", "job", {}, true, "unavailable", "silent", "", "", ""});
  std::string text = plan_text(e, false);
  const auto says = [&text](const char* part) { return text.find(part) != std::string::npos; };
  EXPECT_TRUE(says("HELD    free-bits: is held (expected at most 10, actual 1623); do less\n"))
      << text;
  EXPECT_TRUE(says("WAITS   unavailable: silent\n")) << text;
  EXPECT_TRUE(says("\n1 of 3 checks passed")) << text;
  EXPECT_TRUE(says("\nallowed. The broker would sign this plan:\n")) << text;
  e.checks.push_back({"clearance", "job", {}, true, "no-reviewer", "nobody", "some", "none", ""});
  text = plan_text(e, false);
  EXPECT_TRUE(says("REJECTED  free-bits: is held")) << text;
  EXPECT_TRUE(says("REJECTED  no-reviewer: nobody")) << text;
  EXPECT_TRUE(says("WAITS     unavailable")) << text;
  EXPECT_FALSE(says("HELD")) << text;
  EXPECT_TRUE(
      says("\nallowed, but every run that succeeds would end rejected (no-reviewer). The "
           "broker would sign this plan:\n"))
      << text;
}

TEST(Texts, AReceiptThatDoesNotHoldIsMarkedWhereverItSpeaks) {
  policy::ReceiptReport r;
  r.valid = true;
  r.decision = "release";
  r.claims = {kHostile};
  r.residual_channels = {kHostile};
  r.protection = "NO TEE";
  r.checks = {{"group", policy::ClaimState::kFailed, kHostile, "bad-hash", kHostile, kHostile, {}}};
  std::string text = report_text(r);
  expect_safe(text);
  EXPECT_NE(text.find("(expected \\x1b[2J"), std::string::npos) << text;
  EXPECT_EQ(text.find("UNVERIFIED"), std::string::npos);
  EXPECT_EQ(text.rfind("job 0000", 0), 0U);
  r.valid = false;
  text = report_text(r);
  expect_safe(text);
  EXPECT_EQ(text.rfind("UNVERIFIED, only what this receipt says: job 0000", 0), 0U) << text;
  EXPECT_NE(text.find("\nUNVERIFIED, only what this receipt says: channels that remain"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("\nUNVERIFIED, only what this receipt says: claimed"), std::string::npos)
      << text;
}

TEST(Texts, ARecordAndATable) {
  Json j;
  j["name"] = kHostile;
  expect_safe(describe(j));
  expect_safe(table({{"NAME", "name"}}, {j}, "none"));
  expect_safe(render_error(
      Format::kTable, fail(Reason::kBadValue, kHostile).with(kHostile, kHostile).hint(kHostile)));
  expect_safe(bullet("- ", kHostile), {"- "});
}

}  // namespace
}  // namespace gbx::cli
