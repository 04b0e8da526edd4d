// receipt
#include "attest/verifier.h"
#include "base/log.h"
#include "base/os.h"
#include "capacity/capacity.h"
#include "cli/catalogue.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/texts.h"
#include "policy/receipt_verify.h"

namespace gbx::cli {

namespace {

Status receipt_get(Session& s, const Invocation& in) {
  GBX_ASSIGN(const Hash32 id, resolve_job(s, in.text("id")));
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(records::Receipt r, plane->receipt(id));
  if (r.submission.body.job_id() != id) {
    return fail(Reason::kBadHash, "the receipt is another job's");
  }
  // What is kept here under a job's name is believed later, by others too: nothing false is. Times
  // ahead of this machine's clock make nothing false, and `receipt verify` says them.
  GBX_ASSIGN(const Context* context, s.context());
  const policy::ReceiptReport report = policy::verify_receipt(
      r, context->set_id,
      policy::ReceiptOptions{std::nullopt, capacity::of_spec, attest::verify_evidence});
  if (!report.valid) {
    return report.first_failure().at("receipt").hint(
        "the plane served a receipt that does not hold, and nothing was written: tell the "
        "operator and the owners");
  }
  const Json document = to_json(r);
  if (!in.has("out")) {
    s.print(document, pretty(document));
    return ok_status();
  }
  GBX_TRY(may_write(in, "out"));
  const std::string path = in.text("out");
  GBX_TRY(write_file_atomic(path, as_bytes(canonical(document) + "\n"), 0644));
  Json j;
  j["file"] = path;
  j["jobId"] = to_hex(id);
  j["setId"] = to_hex(r.set.charter.set_id());
  s.print(j, "wrote " + path + "\n");
  return ok_status();
}

constexpr std::size_t kMaxReceipt = 64U << 20;
constexpr const char* kOtherSet =
    "compare the set id with whoever gave it to you: --set SETID holds the receipt against another "
    "one";
constexpr const char* kDistrust =
    "do not rely on this receipt; ask whoever gave it to you for the whole one";

void add_lines(std::string& out, const std::vector<policy::ReceiptCheck>& checks,
               std::size_t indent) {
  for (const auto& c : checks) {
    const char* word = c.state == policy::ClaimState::kProved    ? "proved "
                       : c.state == policy::ClaimState::kClaimed ? "CLAIMED"
                                                                 : "FAILED ";
    std::string line = std::string(indent, ' ') + word + " " + printable(c.claim, 300);
    if (!c.detail.empty()) line += " (" + printable(c.detail, 500) + ")";
    if (!c.expected.empty() || !c.actual.empty()) {
      line +=
          " (expected " + printable(c.expected, 500) + ", actual " + printable(c.actual, 500) + ")";
    }
    out += line + "\n";
    add_lines(out, c.parts, indent + 2);
  }
}
void add_list(std::string& out, const std::string& title, const std::vector<std::string>& lines) {
  if (lines.empty()) return;
  out += "\n" + title + "\n";
  for (const auto& l : lines) out += bullet("  - ", l);
}

}  // namespace

std::string report_text(const policy::ReceiptReport& r) {
  // Of a receipt that does not hold, nothing stands alone as if it were so.
  const std::string unverified = r.valid ? "" : "UNVERIFIED, only what this receipt says: ";
  std::string out =
      unverified + "job " + to_hex(r.job_id) + ", decision: " + printable(r.decision, 32) + "\n\n";
  add_lines(out, r.checks, 0);
  add_list(out, unverified + "claimed, not proved (somebody's word):", r.claims);
  add_list(out,
           unverified + "channels that remain (what somebody outside could still learn or signal):",
           r.residual_channels);
  out += "\n" + wrap(printable(r.protection, 1000), 0, 100);
  out += r.valid ? "VALID: nothing failed. What is claimed above is as good as who says it.\n"
                 : "NOT VALID.\n";
  return out;
}

namespace {

Result<records::SetId> pinned_set(const Session& s, const Invocation& in) {
  if (in.has("set")) {
    auto id = fixed_from_hex<32>(in.text("set"));
    if (!id.ok()) {
      return fail(Reason::kUsage, "--set").with("64 hex digits", in.text("set").substr(0, 80));
    }
    return id;
  }
  auto context = s.home().context();
  if (!context.ok()) {
    return fail(Reason::kUsage, "no key set to hold the receipt against")
        .hint("add --set SETID, from somebody you trust");
  }
  return context->set_id;
}

Status receipt_verify(Session& s, const Invocation& in) {
  GBX_ASSIGN(const records::SetId pinned, pinned_set(s, in));
  const std::string path = in.text("file");
  GBX_ASSIGN(std::string text, read_text_file(path, kMaxReceipt));
  JsonLimits limits;
  limits.max_bytes = kMaxReceipt;
  Result<records::Receipt> receipt = from_json_text<records::Receipt>(text, limits);
  // One answer to every receipt that does not hold, whether a member is missing, too many or
  // changed.
  s.exit_as(ExitClass::kIntegrity);
  if (!receipt.ok()) {
    Json j;
    j["valid"] = false;
    s.print(j, "NOT VALID.\n");
    return fail(Reason::kBadStructure, path + ": " + receipt.error().what)
        .with(receipt.error().expected, receipt.error().actual)
        .hint(kDistrust);
  }
  const policy::ReceiptReport report = policy::verify_receipt(
      *receipt, pinned,
      policy::ReceiptOptions{s.now(), capacity::of_spec, attest::verify_evidence});
  s.print(to_json(report), report_text(report));
  if (report.valid) return ok_status();
  Error e = report.first_failure();
  if (exit_class(e.reason) == ExitClass::kAttestation) s.exit_as(ExitClass::kAttestation);
  const bool other_set = e.reason == Reason::kWrongSet;
  return e.at(path).hint(other_set ? kOtherSet : kDistrust);
}

}  // namespace

void add_receipts(CommandTree& t) {
  t.add({"receipt", "proof of what ran and what was released", "", {}, {}, {}, {}, {}});
  t.add("receipt", {"get",
                    "fetch the receipt of a job",
                    "Nothing is written or printed unless it holds under your pinned key set, as "
                    "`receipt verify` checks it.",
                    {positional("id", "job id, or its first 4 or more digits")},
                    {option("out", "FILE", "write here instead of standard output", ArgKind::kFile),
                     flag("force", "replace the file")},
                    {{"glovebox receipt get 3f9a --out receipt.json", "keep a receipt"}},
                    receipt_get,
                    {}});
  t.add(
      "receipt",
      {"verify",
       "repeat every check of a receipt, offline",
       "Starts from the set id that you pinned and repeats the protocol: what is signed and hashed "
       "is proved; what only somebody's word stands for is printed as claimed; and the channels "
       "that remain are named. It talks to nobody. Exit status 0 only when nothing failed.",
       {positional("file", "receipt (glovebox receipt get)", ArgKind::kFile)},
       {option("set", "SETID",
               "pinned key set, 64 hex digits; without it, the one of `glovebox init`")},
       {{"glovebox receipt verify receipt.json --set 5f0c…", "as an auditor, without any account"}},
       receipt_verify,
       {}});
}

}  // namespace gbx::cli
