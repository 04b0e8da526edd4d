#include "attest/appraise.h"

#include <algorithm>

#include "attest/rejected.h"
#include "attest/tdx/event_log.h"

namespace gbx::attest {

namespace {

using records::Check;
using records::Evidence;
using records::GuestRelease;
using records::ReportData;

const Bytes* collateral(const Evidence& e, std::string_view kind) {
  for (const records::Collateral& c : e.collateral) {
    if (c.kind == kind) return &c.data;
  }
  return nullptr;
}

Status check_collateral(const Evidence& e) {
  for (std::size_t i = 0; i < e.collateral.size(); ++i) {
    const std::string& kind = e.collateral[i].kind;
    if (kind != kReleaseCollateral && kind != kEventLogCollateral) {
      return rejected("unknown kind of collateral")
          .with(std::string(kReleaseCollateral) + " or " + std::string(kEventLogCollateral), kind);
    }
    if (collateral(e, kind) != &e.collateral[i].data) return rejected("collateral twice: " + kind);
  }
  return ok_status();
}

template <class T>
Status same(const T& expected, const T& actual, Reason reason, const char* what) {
  if (expected == actual) return ok_status();
  if constexpr (std::is_same_v<T, std::int64_t>) {
    return fail(reason, what).with(std::to_string(expected), std::to_string(actual));
  } else if constexpr (std::is_same_v<T, std::string>) {
    return fail(reason, what).with(expected, actual);
  } else {
    return fail(reason, what).with(to_hex(expected), to_hex(actual));
  }
}

// From what is furthest away to this very connection, so that evidence of another job is called
// that, although its nonce differs too.
Status check_report(const tdx::Claims& claims, const Evidence& e, const ReportData& expected) {
  const ReportData& r = *e.report_data;
  if (claims.body.report_data != r.digest()) {
    return rejected("the quote's report data is not the digest of the members beside it")
        .with(to_hex(r.digest()), to_hex(claims.body.report_data));
  }
  GBX_TRY(same(expected.label, r.label, Reason::kEvidenceRejected, "label of the report data"));
  GBX_TRY(same(expected.set_id, r.set_id, Reason::kWrongSet, "evidence for another set"));
  GBX_TRY(same(expected.job_id, r.job_id, Reason::kEvidenceOtherJob, "evidence of another job"));
  GBX_TRY(same(expected.plan_hash, r.plan_hash, Reason::kEvidenceOtherJob,
               "evidence under another plan"));
  GBX_TRY(same(expected.attempt, r.attempt, Reason::kEvidenceOtherAttempt,
               "evidence of another attempt"));
  GBX_TRY(same(expected.credential, r.credential, Reason::kEvidenceOtherAttempt,
               "evidence under another credential"));
  GBX_TRY(same(expected.agent_keys, r.agent_keys, Reason::kEvidenceOtherAgent,
               "evidence of an agent with other keys"));
  GBX_TRY(
      same(expected.nonce, r.nonce, Reason::kNonceMismatch, "the evidence answers another nonce"));
  return same(expected.exporter, r.exporter, Reason::kEvidenceOtherAgent,
              "evidence for another connection: somebody is between agent and broker");
}

Status check_launch(const tdx::Claims& claims, const Evidence& e,
                    const records::LaunchConfig& expected) {
  const Hash32 hash = hash_of(expected);
  tdx::Register config{};
  std::copy(hash.begin(), hash.end(), config.begin());
  GBX_TRY(same(config, claims.body.mr_config_id, Reason::kLaunchConfigMismatch,
               "MRCONFIGID is not the hash of this set's launch configuration"));
  return same(hash, hash_of(e.launch_config), Reason::kLaunchConfigMismatch,
              "the evidence states another launch configuration");
}

Status check_attributes(const tdx::Claims& claims) {
  if (claims.debug) {
    return fail(Reason::kDebugGuest, "the host may read this guest: it runs under debug");
  }
  if (claims.migratable) {
    return rejected("the guest may be moved to another host: its MIGRATABLE attribute is set");
  }
  return ok_status();
}

Error unknown_release(std::string what) {
  return fail(Reason::kReleaseUnknown, std::move(what))
      .hint("use a release that a release signer of this set signed");
}

Result<GuestRelease> signed_release(const Evidence& e, const records::Charter& charter) {
  const Bytes* data = collateral(e, kReleaseCollateral);
  if (data == nullptr) return unknown_release("the evidence has no guest release with it");
  const auto read = from_json_text<records::Signed<GuestRelease>>(as_text(*data));
  if (!read.ok()) return unknown_release("guest release: " + read.error().line());
  if (canonical(to_json(*read)) != as_text(*data)) {
    return unknown_release("guest release: not in canonical form");
  }
  const auto& signers = charter.release_signers;
  if (std::find(signers.begin(), signers.end(), read->key) == signers.end()) {
    return unknown_release("the guest release is signed by nobody whom this set's charter names")
        .with("one of " + std::to_string(signers.size()) + " release signers", read->key);
  }
  const auto key = crypto::PublicKey::from_text(read->key);
  // Releases are signed for every set: the id is no part of what is signed.
  if (!key.ok() || !read->verify({}, *key).ok()) {
    return unknown_release("the guest release's signature does not verify");
  }
  return read->body;
}

Result<GuestRelease> check_release(const Evidence& e, const records::Charter& charter) {
  GBX_ASSIGN(GuestRelease release, signed_release(e, charter));
  if (release.name != e.release) {
    return unknown_release("the guest release has another name").with(e.release, release.name);
  }
  if (release.svn < charter.minimum_svn) {
    return unknown_release("the guest release is older than this set's charter asks for")
        .with("security version " + std::to_string(charter.minimum_svn) + " or above",
              std::to_string(release.svn));
  }
  return release;
}

Result<records::PlatformMeasurements> measurements(const GuestRelease& release,
                                                   records::Technology technology) {
  for (const records::PlatformMeasurements& p : release.platforms) {
    if (p.technology == technology && p.parts) return p;
  }
  return unknown_release("the guest release has no measurements of this technology")
      .with(std::string(enum_name(technology)), release.name);
}

bool has_machine(const records::PlatformMeasurements& p, const tdx::Register& rtmr0) {
  return std::any_of(p.machines.begin(), p.machines.end(),
                     [&](const auto& m) { return m.measurement == rtmr0; });
}

bool extends(const tdx::EventLog& log, std::uint32_t index, const tdx::Register& digest) {
  return std::any_of(log.events.begin(), log.events.end(), [&](const tdx::Event& e) {
    return e.index == index && e.type != tdx::kEventNoAction && e.digest == digest;
  });
}

// Empty where there is none. What does not replay to the proved registers tells nothing.
Result<std::optional<tdx::EventLog>> replayed_log(const tdx::Claims& claims, const Evidence& e) {
  const Bytes* data = collateral(e, kEventLogCollateral);
  if (data == nullptr) return std::optional<tdx::EventLog>();
  auto log = tdx::parse_event_log(*data);
  if (!log.ok()) return rejected("event log", log.error());
  if (tdx::replay(*log) != claims.body.rtmr) {
    return fail(Reason::kMeasurementMismatch,
                "the event log does not replay to the quote's registers");
  }
  return std::optional(std::move(*log));
}

Error differs(Reason reason, const char* what, ByteView expected, ByteView actual) {
  return fail(reason, what)
      .with(to_hex(expected), to_hex(actual))
      .hint("start a release that the owners' policies name, from its own files");
}

// Which part of a launch is not the release's.
Error explain(const tdx::TdBody& body, const records::PlatformMeasurements& p,
              const std::optional<tdx::EventLog>& log) {
  const records::MeasuredParts& parts = *p.parts;
  if (body.mrtd != parts.firmware) {
    return differs(Reason::kFirmwareMismatch, "the guest's firmware is not the release's",
                   parts.firmware, body.mrtd);
  }
  if (log && !extends(*log, 2, parts.kernel)) {
    return differs(Reason::kKernelMismatch, "the guest's kernel is not the release's (RTMR1)",
                   parts.rtmr1, body.rtmr[1]);
  }
  if (log && !extends(*log, 3, parts.cmdline)) {
    return differs(Reason::kCmdlineMismatch,
                   "the kernel's command line is not the release's (RTMR2)", parts.rtmr2,
                   body.rtmr[2]);
  }
  if (log && !extends(*log, 3, parts.initrd)) {
    return differs(Reason::kInitrdMismatch, "the guest's initrd is not the release's (RTMR2)",
                   parts.rtmr2, body.rtmr[2]);
  }
  if (body.rtmr[1] != parts.rtmr1) {
    return differs(Reason::kMeasurementMismatch, "RTMR1 is not the release's", parts.rtmr1,
                   body.rtmr[1]);
  }
  if (body.rtmr[2] != parts.rtmr2) {
    return differs(Reason::kMeasurementMismatch, "RTMR2 is not the release's", parts.rtmr2,
                   body.rtmr[2]);
  }
  if (!has_machine(p, body.rtmr[0])) {
    return fail(Reason::kMachineMismatch,
                "the release has no machine of this size and these devices (RTMR0)")
        .with("one of " + std::to_string(p.machines.size()), to_hex(body.rtmr[0]));
  }
  return differs(Reason::kMeasurementMismatch, "RTMR3 is extended", tdx::Register{}, body.rtmr[3]);
}

Status check_registers(const tdx::Claims& claims, const Evidence& e,
                       const records::PlatformMeasurements& p) {
  GBX_ASSIGN(const std::optional<tdx::EventLog> log, replayed_log(claims, e));
  const tdx::TdBody& b = claims.body;
  const bool match = b.mrtd == p.parts->firmware && has_machine(p, b.rtmr[0]) &&
                     b.rtmr[1] == p.parts->rtmr1 && b.rtmr[2] == p.parts->rtmr2 &&
                     b.rtmr[3] == tdx::Register{};
  return match ? ok_status() : Status(explain(b, p, log));
}

}  // namespace

Result<tdx::Quote> quote_of(const Evidence& e, records::Technology technology) {
  if (e.technology != technology) {
    return rejected("evidence of another technology")
        .with(std::string(enum_name(technology)), std::string(enum_name(e.technology)));
  }
  if (!e.quote || !e.report_data || e.release.empty()) {
    return fail(Reason::kEvidenceMissing, "a quote, its report data's members and a release")
        .with("all three", !e.quote         ? "no quote"
                           : !e.report_data ? "no members"
                                            : "no release");
  }
  if (e.node) return rejected("a node's introduction stands beside a quote");
  GBX_TRY(check_collateral(e));
  auto quote = tdx::parse_quote(*e.quote);
  if (!quote.ok()) return rejected("quote", quote.error());
  return quote;
}

Result<records::Verdict> appraise_td(const tdx::Claims& claims, const Evidence& e,
                                     const Expected& expected) {
  if (!e.report_data) return fail(Reason::kEvidenceMissing, "the report data's members");
  GBX_TRY(check_report(claims, e, expected.report));
  GBX_TRY(check_launch(claims, e, expected.launch));
  GBX_TRY(check_attributes(claims));
  GBX_ASSIGN(const GuestRelease release, check_release(e, expected.charter));
  GBX_ASSIGN(const auto platform, measurements(release, e.technology));
  GBX_TRY(check_registers(claims, e, platform));
  records::Verdict v;
  v.technology = e.technology;
  v.release = release.name;
  v.binding = Check::kPass;
  v.signature = Check::kPass;
  v.measurement = Check::kPass;
  v.debug_off = Check::kPass;
  v.svn = release.svn;
  return v;
}

}  // namespace gbx::attest
