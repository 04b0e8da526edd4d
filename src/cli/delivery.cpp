#include "cli/delivery.h"

#include <algorithm>

#include "attest/verifier.h"
#include "base/os.h"
#include "capacity/capacity.h"
#include "cli/watch.h"
#include "gate/records.h"
#include "policy/receipt_verify.h"
#include "records/sealing.h"

namespace gbx::cli {

namespace {

constexpr SecretAccess kAccess{};
constexpr std::size_t kSaltSize = 32;

Error chain_error(Reason reason, const char* what, const Hash32& expected, const Hash32& actual) {
  return fail(reason, what).with(to_hex(expected), to_hex(actual));
}

Status check_submission(const DeliveryInput& in) {
  const auto& s = in.submission.submission;
  const Hash32 id = s.body.job_id();
  if (id != in.job_id) {
    return chain_error(Reason::kBadHash, "the plane answers with another job's submission",
                       in.job_id, id);
  }
  GBX_TRY(s.verify(in.set.set_id, in.consumer_key));
  if (in.receipt.submission.body.job_id() != id) {
    return fail(Reason::kBadHash, "the receipt is another job's");
  }
  return ok_status();
}

// What the plane delivers beside the receipt is what the receipt proves. Returns how the
// environment was protected.
Result<std::string> check_result(const DeliveryInput& in) {
  const auto& proved = in.receipt;
  const auto& release = in.result.release.statement;
  GBX_TRY(release.verify(in.set.set_id, in.set.signing));
  if (release.body.job_id != in.job_id) {
    return chain_error(Reason::kBadHash, "job of the release", in.job_id, release.body.job_id);
  }
  if (release.body.decision != records::ReleaseDecision::kRelease) {
    return fail(Reason::kRejected, "the broker did not release this result");
  }
  if (release.hash() != proved.release.hash()) {
    return chain_error(Reason::kBadHash, "release of the receipt", proved.release.hash(),
                       release.hash());
  }
  const auto& run = in.result.run_statement;
  if (run.hash() != proved.run_statement.hash()) {
    return chain_error(Reason::kBadHash, "run statement of the receipt",
                       proved.run_statement.hash(), run.hash());
  }
  const policy::ReceiptReport report = policy::verify_receipt(
      proved, in.set.set_id,
      policy::ReceiptOptions{std::nullopt, in.capacity, attest::verify_evidence});
  if (!report.valid) return report.first_failure().at("receipt");
  return report.protection;
}

}  // namespace

Status verify_job(const records::SetChain::Keys& set, const Hash32& job_id,
                  const records::SignedSubmission& submission,
                  const records::Signed<records::RunPlan>* plan) {
  const auto& s = submission.submission;
  const auto other = [](const char* what, const Hash32& expected, const Hash32& actual) {
    return chain_error(Reason::kBadHash, what, expected, actual)
        .hint("the plane served something else than what was signed: tell the operator");
  };
  if (s.body.job_id() != job_id) {
    return other("the plane answers with another job", job_id, s.body.job_id());
  }
  if (submission.consumer.id() != s.body.consumer_id) {
    return other("consumer of the job", s.body.consumer_id, submission.consumer.id());
  }
  GBX_TRY(records::verify_by_identity(set.set_id, submission.consumer, s));
  // The consumer wrote the names of the files that reviewers make with --out.
  GBX_TRY(s.body.validate());
  if (plan == nullptr) return ok_status();
  GBX_TRY(plan->verify(set.set_id, set.signing));
  if (plan->body.job_id != job_id) return other("job of the plan", job_id, plan->body.job_id);
  return ok_status();
}

Result<Delivered> take_bundle(const records::SealContext& context,
                              const std::vector<records::SpecOutput>& declared, ByteView plain) {
  if (plain.size() < kSaltSize) return fail(Reason::kTruncated, "content of the result");
  GBX_ASSIGN(const Hash32 salt, fixed_from<kSaltSize>(plain.first(kSaltSize)));
  GBX_ASSIGN(gate::Bundle bundle, gate::decode_bundle(plain.subspan(kSaltSize)));
  if (bundle.status.jobId != to_hex(context.job_id) || bundle.status.attempt != context.attempt) {
    return fail(Reason::kBadHash, "the content is of another job or attempt")
        .with(to_hex(context.job_id), bundle.status.jobId);
  }
  Delivered out;
  out.status = bundle.status;
  for (auto& e : bundle.entries) {
    if (e.kind == gate::EntryKind::kLog) {
      out.log = std::move(e.content);
      continue;
    }
    if (e.kind != gate::EntryKind::kOutput) continue;
    const auto spec = std::find_if(declared.begin(), declared.end(),
                                   [&](const auto& d) { return d.path == e.name; });
    if (spec == declared.end()) {
      return fail(Reason::kBadStructure, "the result holds a file that was not declared")
          .with("", e.name);
    }
    const auto digest = std::find_if(context.outputs.begin(), context.outputs.end(),
                                     [&](const auto& o) { return o.name == spec->name; });
    if (digest == context.outputs.end() ||
        gate::output_digest(salt, spec->name, e.content) != digest->salted_digest) {
      return fail(Reason::kBadHash,
                  "output " + spec->name + " is not the one that the environment signed");
    }
    out.files.push_back({spec->path, std::move(e.content)});
  }
  if (out.files.size() != context.outputs.size()) {
    return fail(Reason::kBadStructure, "number of outputs")
        .with(std::to_string(context.outputs.size()), std::to_string(out.files.size()));
  }
  return out;
}

Result<std::string> verify_delivery(const DeliveryInput& in) {
  GBX_TRY(check_submission(in));
  return check_result(in);
}

Result<Delivered> open_delivery(const DeliveryInput& in, const crypto::HpkeKeyPair& key) {
  GBX_ASSIGN(std::string protection, verify_delivery(in));
  const auto& recipients = in.submission.submission.body.result_keys;
  const std::string own = key.public_key().text();
  const auto mine = std::find_if(recipients.begin(), recipients.end(),
                                 [&](const auto& r) { return r.hpke == own; });
  if (mine == recipients.end()) {
    return fail(Reason::kWrongRecipient, "the result is sealed to other keys")
        .with(recipients[0].hpke, own);
  }
  const auto recipient = static_cast<std::size_t>(mine - recipients.begin());
  const auto& outer = in.result.release.outer_keys;
  if (recipient >= outer.size()) {
    return fail(Reason::kWrongRecipient, "the release holds no key for this recipient");
  }
  GBX_ASSIGN(SecretBuffer plain,
             records::open_result(key, recipient, in.result.run_statement.body.manifest,
                                  in.result.output, outer[recipient]));
  GBX_ASSIGN(Delivered out,
             take_bundle(in.result.run_statement.body.manifest.context,
                         in.submission.submission.body.spec.spec.outputs, plain.view(kAccess)));
  out.protection = std::move(protection);
  return out;
}

Result<Delivered> fetch_result(Session& session, const Hash32& job_id, bool recovery) {
  GBX_ASSIGN(Keys * keys, session.keys());
  GBX_ASSIGN(Plane * plane, session.plane());
  GBX_ASSIGN(records::SetChain::Keys set, session.set());
  GBX_ASSIGN(api::JobView job, plane->job(job_id));
  if (job.job_id != job_id) {
    return chain_error(Reason::kBadHash, "the plane answers with another job", job_id, job.job_id);
  }
  // A failed job has something to fetch too: what the gate let out of it, its logs first of all.
  if (!job.output || job.output->state != "Released") {
    const Status ended = outcome_of(job);
    if (!ended.ok()) session.exit_as(class_of_end(job));
    if (!ended.ok()) return ended.error();
  }
  GBX_ASSIGN(api::JobResult result, plane->result(job_id));
  GBX_ASSIGN(records::Receipt receipt, plane->receipt(job_id));
  GBX_ASSIGN(api::JobDetail detail, plane->job_detail(job_id));
  GBX_ASSIGN(crypto::HpkeKeyPair key, session.result_key(recovery));
  // A job signed before a rotation was signed by an older key of ours.
  std::optional<crypto::PublicKey> signer;
  std::vector<std::string> own_keys{keys->file.chain.identity.genesis_key};
  for (const auto& r : keys->file.chain.rotations) own_keys.push_back(r.body.new_key);
  for (const auto& text : own_keys) {
    if (text != detail.submission.submission.key) continue;
    GBX_ASSIGN(signer, crypto::PublicKey::from_text(text));
  }
  if (!signer) {
    return fail(Reason::kBadSignature, "the submission is not signed by a key of yours")
        .with(own_keys.back(), detail.submission.submission.key);
  }
  const DeliveryInput in{std::move(set),     job_id,
                         std::move(*signer), std::move(detail.submission),
                         std::move(receipt), std::move(result),
                         capacity::of_spec};
  return open_delivery(in, key);
}

Status write_files(const std::string& directory, const Delivered& d, bool force) {
  std::vector<const DeliveredFile*> files;
  for (const auto& f : d.files) files.push_back(&f);
  DeliveredFile log{std::string(records::kLogFile), {}};
  if (d.log) {
    log.content = *d.log;
    const bool taken = std::any_of(files.begin(), files.end(),
                                   [](const auto* f) { return f->path == records::kLogFile; });
    if (taken) {
      return fail(Reason::kConflict, "an output has the name of the log")
          .with("another path than job.log", std::string(records::kLogFile));
    }
    files.push_back(&log);
  }
  for (const auto* f : files) {
    const std::string path = directory + "/" + f->path;
    if (!force && path_exists(path)) {
      return fail(Reason::kAlreadyExists, path).hint("choose another --out, or add --force");
    }
  }
  GBX_TRY(make_dirs(directory, 0700));
  for (const auto* f : files) {
    const auto slash = f->path.rfind('/');
    if (slash != std::string::npos) {
      GBX_TRY(make_dirs(directory + "/" + f->path.substr(0, slash), 0700));
    }
    GBX_TRY(write_file_atomic(directory + "/" + f->path, f->content, 0600));
  }
  return ok_status();
}

}  // namespace gbx::cli
