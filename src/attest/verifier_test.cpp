// From evidence to a verdict: one evidence that passes, and for each check one that fails only it.
#include "attest/verifier.h"

#include <functional>

#include "attest/sim/testing.h"
#include "attest/tdx/verifier.h"
#include "attest/testing.h"

namespace gbx::attest {
namespace {

using records::Check;
using records::Evidence;
using records::Technology;
using records::Verdict;
using testing::fails_with;
using testing::Forge;

Result<Verdict> verdict(const Forge& f, const Evidence& e) {
  return Verifiers::standard().verify(e, f.expected);
}
// What becomes of evidence that differs in one thing before it is made.
Result<Verdict> forged(const std::function<void(Forge&)>& change) {
  Forge f;
  change(f);
  return verdict(f, f.make());
}
// And in one thing after it.
Result<Verdict> altered(const std::function<void(Evidence&)>& change) {
  const Forge f;
  Evidence e = f.make();
  change(e);
  return verdict(f, e);
}

TEST(SimVerdict, SaysWhatWasChecked) {
  const Forge f;
  const auto v = verdict(f, f.make());
  ASSERT_TRUE(v.ok()) << v.error().line();
  EXPECT_EQ(v->technology, Technology::kSim);
  EXPECT_EQ(v->root, "sim:" + to_hex(f.platform.root().fingerprint()));
  EXPECT_EQ(v->release, "guest-1");
  EXPECT_EQ(v->svn, 7);
  EXPECT_EQ(v->binding, Check::kPass);
  EXPECT_EQ(v->signature, Check::kPass);
  EXPECT_EQ(v->measurement, Check::kPass);
  EXPECT_EQ(v->debug_off, Check::kPass);
  // It travels and stays what it is; the log is for refusals.
  const auto again = from_json_text<Evidence>(canonical(to_json(f.make())));
  ASSERT_TRUE(again.ok()) << again.error().line();
  EXPECT_TRUE(verdict(f, *again).ok());
  EXPECT_TRUE(forged([](Forge& x) { x.with_log = false; }).ok());
}

TEST(SimVerdict, NothingIsCheckedByDefault) {
  const Verdict v;
  EXPECT_EQ(v.binding, Check::kNotChecked);
  EXPECT_EQ(v.signature, Check::kNotChecked);
  EXPECT_EQ(v.measurement, Check::kNotChecked);
  EXPECT_EQ(v.debug_off, Check::kNotChecked);
  const Forge f;
  EXPECT_TRUE(fails_with(Verifiers().verify(f.make(), f.expected), Reason::kEvidenceRejected));
  for (const Technology t : {Technology::kSnp, Technology::kSgx, Technology::kCca,
                             Technology::kNitro, Technology::kTrustZone}) {
    EXPECT_TRUE(fails_with(altered([t](Evidence& e) { e.technology = t; }),
                           Reason::kEvidenceRejected, "no verifier"));
  }
}

TEST(SimVerdict, WhatIsMissingOrTooMuch) {
  const auto missing = Reason::kEvidenceMissing, no = Reason::kEvidenceRejected;
  EXPECT_TRUE(fails_with(altered([](Evidence& e) { e.quote.reset(); }), missing, "no quote"));
  EXPECT_TRUE(fails_with(altered([](Evidence& e) { e.report_data.reset(); }), missing, "members"));
  EXPECT_TRUE(fails_with(altered([](Evidence& e) { e.release.clear(); }), missing, "no release"));
  EXPECT_TRUE(fails_with(altered([](Evidence& e) { e.node.emplace(); }), no, "introduction"));
  EXPECT_TRUE(fails_with(altered([](Evidence& e) { e.quote->pop_back(); }), no, "truncated"));
  EXPECT_TRUE(fails_with(altered([](Evidence& e) { e.quote->push_back(0); }), no, "trailing"));
  const auto more = [](const char* kind) {
    return altered([kind](Evidence& e) { e.collateral.push_back({kind, Bytes(1, 1)}); });
  };
  EXPECT_TRUE(fails_with(more("vcek"), no, "unknown kind"));
  EXPECT_TRUE(fails_with(more("event-log"), no, "twice"));
  EXPECT_TRUE(fails_with(more("guest-release"), no, "twice"));
}

TEST(SimVerdict, TheQuoteIsSignedUnderItsRoot) {
  EXPECT_TRUE(fails_with(altered([](Evidence& e) { (*e.quote)[100] ^= 1; }),
                         Reason::kEvidenceRejected, "signature of the body"));
  // Somebody else's platform is somebody else's root, which the policy judges.
  const auto other =
      forged([](Forge& f) { f.platform = sim::SimPlatform::create(f.random).value(); });
  ASSERT_TRUE(other.ok());
  EXPECT_NE(other->root, verdict(Forge(), Forge().make())->root);
}

TEST(SimVerdict, EvidenceIsForThisConnectionAndNoOther) {
  const auto report = [](auto&& change) { return forged([&](Forge& f) { change(f.report); }); };
  using R = records::ReportData;
  EXPECT_TRUE(fails_with(report([](R& r) { r.label = "gbx/2"; }), Reason::kEvidenceRejected));
  EXPECT_TRUE(fails_with(report([](R& r) { r.set_id[0] ^= 1; }), Reason::kWrongSet));
  EXPECT_TRUE(fails_with(report([](R& r) { r.job_id[0] ^= 1; }), Reason::kEvidenceOtherJob));
  EXPECT_TRUE(fails_with(report([](R& r) { r.plan_hash[0] ^= 1; }), Reason::kEvidenceOtherJob));
  EXPECT_TRUE(fails_with(report([](R& r) { r.attempt = 1; }), Reason::kEvidenceOtherAttempt));
  EXPECT_TRUE(
      fails_with(report([](R& r) { r.credential[0] ^= 1; }), Reason::kEvidenceOtherAttempt));
  EXPECT_TRUE(fails_with(report([](R& r) { r.agent_keys[0] ^= 1; }), Reason::kEvidenceOtherAgent));
  EXPECT_TRUE(fails_with(report([](R& r) { r.nonce[0] ^= 1; }), Reason::kNonceMismatch));
  EXPECT_TRUE(fails_with(report([](R& r) { r.exporter[0] ^= 1; }), Reason::kEvidenceOtherAgent,
                         "another connection"));
  // Members that fit beside a quote over others.
  const Forge f;
  Forge older;
  older.report.nonce[0] ^= 1;
  Evidence e = older.make();
  e.report_data = f.report;
  EXPECT_TRUE(fails_with(verdict(f, e), Reason::kEvidenceRejected, "digest of the members"));
}

TEST(SimVerdict, TheLaunchConfigurationIsThisSets) {
  EXPECT_TRUE(fails_with(forged([](Forge& f) { f.config.set_key += "0"; }),
                         Reason::kLaunchConfigMismatch, "MRCONFIGID"));
  EXPECT_TRUE(fails_with(forged([](Forge& f) { f.config.set_id[0] ^= 1; }),
                         Reason::kLaunchConfigMismatch, "MRCONFIGID"));
  EXPECT_TRUE(fails_with(altered([](Evidence& e) { e.launch_config.set_key += "0"; }),
                         Reason::kLaunchConfigMismatch, "states another"));
  // Behind the hash are zeros.
  const Forge f;
  Evidence e = f.make();
  tdx::Quote q = tdx::parse_quote(*e.quote).value();
  q.body.mr_config_id[47] = 1;
  e.quote = tdx::serialize(f.platform.sign(q).value());
  EXPECT_TRUE(fails_with(verdict(f, e), Reason::kLaunchConfigMismatch, "MRCONFIGID"));
}

TEST(SimVerdict, AGuestThatTheHostReadsOrMovesIsRefused) {
  EXPECT_TRUE(
      fails_with(forged([](Forge& f) { f.body.td_attributes[0] = 1; }), Reason::kDebugGuest));
  EXPECT_TRUE(
      fails_with(forged([](Forge& f) { f.body.seam_attributes[0] = 1; }), Reason::kDebugGuest));
  EXPECT_TRUE(fails_with(forged([](Forge& f) { f.body.td_attributes[3] = 0x20; }),
                         Reason::kEvidenceRejected, "MIGRATABLE"));
}

TEST(SimVerdict, TheReleaseIsSignedNamedAndNotTooOld) {
  constexpr Reason kNo = Reason::kReleaseUnknown;
  EXPECT_TRUE(fails_with(altered([](Evidence& e) { e.collateral.erase(e.collateral.begin()); }),
                         kNo, "no guest release"));
  EXPECT_TRUE(fails_with(forged([](Forge& f) {
                           static auto other = crypto::SigningKey::generate(
                               crypto::SignatureAlgorithm::kEd25519, f.random);
                           f.signer = &*other;
                         }),
                         kNo, "nobody whom this set's charter names"));
  EXPECT_TRUE(fails_with(forged([](Forge& f) { f.expected.charter.release_signers.clear(); }), kNo,
                         "nobody"));
  // Someone else's signature under a signer's name.
  const Forge f;
  auto read =
      from_json_text<records::Signed<records::GuestRelease>>(as_text(f.make().collateral[0].data))
          .value();
  const auto with = [&](const std::string& text) {
    return altered([&](Evidence& e) { e.collateral[0].data = to_bytes(as_bytes(text)); });
  };
  const std::string good = canonical(to_json(read));
  EXPECT_TRUE(with(good).ok());
  read.body.svn = 8;
  EXPECT_TRUE(fails_with(with(canonical(to_json(read))), kNo, "does not verify"));
  EXPECT_TRUE(fails_with(with(good + " "), kNo));
  EXPECT_TRUE(fails_with(with(good.substr(1)), kNo));
  EXPECT_TRUE(fails_with(with(" " + good), kNo, "canonical"));
  EXPECT_TRUE(fails_with(altered([](Evidence& e) { e.release = "guest-2"; }), kNo, "another name"));
  EXPECT_TRUE(forged([](Forge& x) { x.release.svn = 5; }).ok());
  EXPECT_TRUE(fails_with(forged([](Forge& x) { x.release.svn = 4; }), kNo, "older"));
  EXPECT_TRUE(
      fails_with(forged([](Forge& x) { x.release.platforms[0].technology = Technology::kTdx; }),
                 kNo, "no measurements"));
  EXPECT_TRUE(fails_with(forged([](Forge& x) { x.release.platforms[0].parts.reset(); }), kNo,
                         "no measurements"));
}

TEST(SimVerdict, EachPartOfTheLaunchIsNamedWhenItDiffers) {
  const auto launch = [](auto&& change, bool with_log = true) {
    return forged([&](Forge& f) {
      change(f.launch);
      f.with_log = with_log;
    });
  };
  const auto firmware = [](auto& l) { l.firmware[0] ^= 1; };
  const auto machine = [](auto& l) { l.machine += " "; };
  const auto kernel = [](auto& l) { l.kernel[0] ^= 1; };
  const auto cmdline = [](auto& l) { l.cmdline += " init=/bin/sh"; };
  const auto initrd = [](auto& l) { l.initrd[0] ^= 1; };
  EXPECT_TRUE(fails_with(launch(firmware), Reason::kFirmwareMismatch));
  EXPECT_TRUE(fails_with(launch(machine), Reason::kMachineMismatch));
  EXPECT_TRUE(fails_with(launch(kernel), Reason::kKernelMismatch));
  EXPECT_TRUE(fails_with(launch(cmdline), Reason::kCmdlineMismatch));
  EXPECT_TRUE(fails_with(launch(initrd), Reason::kInitrdMismatch));
  // Without a log the register is named.
  EXPECT_TRUE(fails_with(launch(firmware, false), Reason::kFirmwareMismatch));
  EXPECT_TRUE(fails_with(launch(machine, false), Reason::kMachineMismatch));
  EXPECT_TRUE(fails_with(launch(kernel, false), Reason::kMeasurementMismatch, "RTMR1"));
  EXPECT_TRUE(fails_with(launch(cmdline, false), Reason::kMeasurementMismatch, "RTMR2"));
  EXPECT_TRUE(fails_with(launch(initrd, false), Reason::kMeasurementMismatch, "RTMR2"));
}

TEST(SimVerdict, RegistersDecideAndNotTheLog) {
  const Forge f;
  const auto with = [&](auto&& change) {
    sim::SimEvents events = sim::sim_events(f.launch);
    tdx::EventLog log = tdx::parse_event_log(events.log).value();
    change(log);
    events.log = tdx::serialize(log);
    events.measured.rtmr = tdx::replay(log);
    return f.make(events);
  };
  constexpr Reason kNo = Reason::kMeasurementMismatch;
  // All parts are there, and more was measured, or in another order.
  const auto more = [](std::uint32_t index) {
    return [index](tdx::EventLog& log) {
      log.events.push_back({index, tdx::kEventIpl, tdx::Register{1}, {}});
    };
  };
  EXPECT_TRUE(fails_with(verdict(f, with(more(1))), Reason::kMachineMismatch));
  EXPECT_TRUE(fails_with(verdict(f, with(more(2))), kNo, "RTMR1"));
  EXPECT_TRUE(fails_with(verdict(f, with(more(3))), kNo, "RTMR2"));
  EXPECT_TRUE(fails_with(verdict(f, with(more(4))), kNo, "RTMR3"));
  EXPECT_TRUE(fails_with(
      verdict(f, with([](auto& log) { std::swap(log.events[2], log.events[3]); })), kNo, "RTMR2"));
  // A log that says otherwise than the registers is refused also where these are right.
  Evidence e = f.make();
  Forge other;
  other.launch.kernel[0] ^= 1;
  e.collateral[1] = other.make().collateral[1];
  EXPECT_TRUE(fails_with(verdict(f, e), kNo, "does not replay"));
  e.collateral[1].data.pop_back();
  EXPECT_TRUE(fails_with(verdict(f, e), Reason::kEvidenceRejected, "event log"));
}

TEST(TdxVerdict, EverythingRightIsRefusedWhileCollateralIsNotVerified) {
  Forge f;
  f.release.platforms[0].technology = Technology::kTdx;
  Evidence e = f.make();
  e.technology = Technology::kTdx;
  const tdx::TdxVerifier verifier(f.platform.root().fingerprint());
  EXPECT_TRUE(fails_with(verifier.verify(e, f.expected), Reason::kEvidenceRejected,
                         "collateral is not verified yet"));
}

TEST(TdxVerdict, ARealQuoteIsForNothingElseThanItsOwnReportData) {
  GBX_NEEDS_VECTORS();
  // A real quote with everything around it as it should be, but what nobody can make.
  const Bytes file = testing::vector_file("tdx/tdx-v4.quote.bin");
  Forge f;
  f.expected.now_seconds = 1738884351 + 86400;
  Evidence e = f.make();
  e.quote = to_bytes(tdx::without_padding(file).value());
  EXPECT_TRUE(fails_with(verdict(f, e), Reason::kEvidenceRejected, "as a simulated one"));
  e.technology = Technology::kTdx;
  EXPECT_TRUE(fails_with(verdict(f, e), Reason::kEvidenceRejected, "digest of the members"));
}

TEST(TdxVerdict, ASimulatedQuoteIsNoHardware) {
  EXPECT_TRUE(fails_with(altered([](Evidence& e) { e.technology = Technology::kTdx; }),
                         Reason::kEvidenceRejected, "another root"));
}

TEST(NoneVerdict, IsTheNodesWord) {
  Forge f;
  const auto node =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, f.random).value();
  records::NodeIntroduction intro;
  intro.report_data = f.report.digest();
  intro.launch_config = hash_of(f.config);
  Evidence e;
  e.node = records::sign(f.expected.set_id, intro, node).value();
  e.launch_config = f.config;
  const auto v = verdict(f, e);
  ASSERT_TRUE(v.ok()) << v.error().line();
  EXPECT_EQ(v->root, "none:" + to_hex(node.public_key().fingerprint()));
  EXPECT_EQ(v->measurement, Check::kNotChecked);
  f.expected.report.nonce[0] ^= 1;
  EXPECT_TRUE(fails_with(verdict(f, e), Reason::kEvidenceRejected));
}

}  // namespace
}  // namespace gbx::attest
