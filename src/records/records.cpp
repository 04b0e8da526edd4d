#include <algorithm>
#include <set>

#include "base/bundle_size.h"
#include "base/json_count.h"
#include "base/log.h"
#include "base/names.h"
#include "records/messages.h"
#include "records/value_limits.h"

namespace gbx::records {

#define GBX_ENUM(Type, ...)                              \
  std::span<const EnumName<Type>> enum_names(Type) {     \
    using E = Type;                                      \
    static constexpr EnumName<Type> k[] = {__VA_ARGS__}; \
    return k;                                            \
  }
GBX_ENUM(Custody, {E::kOperator, "operator"}, {E::kTee, "tee"})
GBX_ENUM(Technology, {E::kNone, "none"}, {E::kSim, "sim"}, {E::kTdx, "tdx"}, {E::kSnp, "sev-snp"},
         {E::kSgx, "sgx"}, {E::kCca, "cca"}, {E::kNitro, "nitro"}, {E::kTrustZone, "trustzone"})
GBX_ENUM(AssetKind, {E::kDataset, "dataset"}, {E::kModel, "model"}, {E::kImage, "image"})
GBX_ENUM(OutputType, {E::kTable, "table"}, {E::kJson, "json"}, {E::kMetrics, "metrics"},
         {E::kText, "text"}, {E::kOpaque, "opaque"})
GBX_ENUM(LogVisibility, {E::kNone, "none"}, {E::kConsumer, "consumer"})
GBX_ENUM(Access, {E::kPrefetch, "prefetch"}, {E::kDirect, "direct"})
GBX_ENUM(Check, {E::kNotChecked, "not-checked"}, {E::kPass, "pass"}, {E::kFail, "fail"})
GBX_ENUM(JobExit, {E::kOk, "ok"}, {E::kFailed, "failed"}, {E::kKilled, "killed"},
         {E::kTimeout, "timeout"})
GBX_ENUM(AnalyserStatus, {E::kPass, "pass"}, {E::kFail, "fail"},
         {E::kNotApplicable, "not-applicable"}, {E::kError, "error"})
GBX_ENUM(Recommendation, {E::kHold, "hold"}, {E::kRelease, "release"}, {E::kReject, "reject"})
GBX_ENUM(GateCause, {E::kNone, "none"}, {E::kMalformed, "malformed"}, {E::kCopies, "copies-inputs"})
GBX_ENUM(RulingDecision, {E::kReject, "reject"}, {E::kApprove, "approve"},
         {E::kRequestChanges, "request-changes"})
GBX_ENUM(ReleaseDecision, {E::kReject, "reject"}, {E::kRelease, "release"})
GBX_ENUM(JudgementState, {E::kNone, "none"}, {E::kPending, "pending"}, {E::kHeld, "held"},
         {E::kReleased, "released"}, {E::kRejected, "rejected"})
GBX_ENUM(LedgerState, {E::kReserved, "reserved"}, {E::kReleased, "released"},
         {E::kRejected, "rejected"}, {E::kCancelled, "cancelled"})
GBX_ENUM(EnvironmentPhase, {E::kRequested, "requested"}, {E::kBooting, "booting"},
         {E::kAttested, "attested"}, {E::kLoaded, "loaded"}, {E::kWorking, "working"},
         {E::kSealed, "sealed"}, {E::kDestroyed, "destroyed"}, {E::kLost, "lost"})
#undef GBX_ENUM

Result<crypto::PublicKey> IdentityChain::current_key(const SetId& set_id) const {
  GBX_ASSIGN(crypto::PublicKey current, crypto::PublicKey::from_text(identity.genesis_key));
  GBX_ASSIGN(crypto::PublicKey recovery, crypto::PublicKey::from_text(identity.recovery_key));
  const Hash32 own = id();
  std::int64_t serial = 0;
  for (const auto& r : rotations) {
    if (r.body.identity_id != own || r.body.serial != serial + 1) {
      return fail(Reason::kChainBroken, "key rotation out of order")
          .with("serial " + std::to_string(serial + 1), std::to_string(r.body.serial));
    }
    if (!r.verify(set_id, current).ok()) GBX_TRY(r.verify(set_id, recovery));
    GBX_ASSIGN(current, crypto::PublicKey::from_text(r.body.new_key));
    serial = r.body.serial;
  }
  return current;
}

Result<SetChain::Keys> SetChain::verify(const SetId& pinned) const {
  const SetId set_id = charter.set_id();
  if (set_id != pinned) {
    return fail(Reason::kWrongSet, "this key set is not the pinned one")
        .with(to_hex(pinned), to_hex(set_id));
  }
  GBX_ASSIGN(crypto::PublicKey set_key, crypto::PublicKey::from_text(charter.genesis_set_key));
  std::int64_t serial = 0;
  for (const auto& s : successors) {
    if (s.body.serial != serial + 1) {
      return fail(Reason::kChainBroken, "set key successor out of order");
    }
    GBX_TRY(s.verify(set_id, set_key));
    GBX_ASSIGN(set_key, crypto::PublicKey::from_text(s.body.new_set_key));
    serial = s.body.serial;
  }
  GBX_TRY(epoch.verify(set_id, set_key));
  GBX_ASSIGN(crypto::HpkePublicKey kek, crypto::HpkePublicKey::from_text(epoch.body.kek));
  GBX_ASSIGN(crypto::PublicKey signing, crypto::PublicKey::from_text(epoch.body.signing));
  GBX_ASSIGN(crypto::PublicKey tls, crypto::PublicKey::from_text(epoch.body.tls));
  return Keys{set_id, epoch.body.epoch,   std::move(set_key),
              kek,    std::move(signing), std::move(tls)};
}

Result<Verdict> verify_none(const SetId& set_id, const Evidence& e,
                            const FixedBytes<64>& expected_report_data,
                            const LaunchConfig& expected_launch) {
  if (e.technology != Technology::kNone) {
    return fail(Reason::kEvidenceRejected, "no verifier for this technology")
        .with("none", std::string(enum_name(e.technology)));
  }
  if (!e.node || e.quote || !e.collateral.empty() || !e.release.empty() || e.report_data) {
    return fail(
        Reason::kEvidenceMissing,
        "technology none needs the node's introduction and no quote, collateral or release");
  }
  const auto& intro = e.node->body;
  if (intro.report_data != expected_report_data) {
    return fail(Reason::kEvidenceRejected, "report data")
        .with(to_hex(expected_report_data).substr(0, 32) + "…",
              to_hex(intro.report_data).substr(0, 32) + "…");
  }
  const Hash32 launch = hash_of(expected_launch);
  if (intro.launch_config != launch || hash_of(e.launch_config) != launch) {
    return fail(Reason::kEvidenceRejected, "launch configuration")
        .with(to_hex(launch), to_hex(intro.launch_config));
  }
  GBX_ASSIGN(crypto::PublicKey node, crypto::PublicKey::from_text(e.node->key));
  Status s = e.node->verify(set_id, node);
  if (!s.ok()) return fail(Reason::kEvidenceRejected, "the node's signature does not verify");
  Verdict v;
  v.technology = Technology::kNone;
  v.root = "none:" + to_hex(node.fingerprint());
  v.binding = Check::kPass;
  v.signature = Check::kPass;
  return v;
}

Result<std::int64_t> parse_size(std::string_view text) {
  std::size_t i = 0;
  std::int64_t n = 0;
  while (i < text.size() && text[i] >= '0' && text[i] <= '9' && i < 10) {
    n = n * 10 + (text[i++] - '0');
  }
  const std::string_view unit = text.substr(i);
  const std::int64_t factor = unit == "KiB"   ? 1LL << 10
                              : unit == "MiB" ? 1LL << 20
                              : unit == "GiB" ? 1LL << 30
                                              : 0;
  if (i == 0 || factor == 0 || text[0] == '0' || n > kMaxRoomBytes / factor) {
    return fail(Reason::kBadValue, "size")
        .with("like 512MiB (KiB, MiB or GiB)", std::string(text.substr(0, 32)));
  }
  return n * factor;
}

Result<std::string> image_ref_digest(std::string_view ref) {
  constexpr std::string_view kName =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:";
  constexpr std::string_view kAlgorithm = "sha256:";
  const auto at = std::min(ref.find('@'), ref.size());
  const std::string_view digest = ref.substr(std::min(at + 1, ref.size()));
  const bool named = at > 0 && ref.substr(0, at).find_first_not_of(kName) == std::string_view::npos;
  if (!named || digest.substr(0, kAlgorithm.size()) != kAlgorithm ||
      !fixed_from_hex<32>(digest.substr(kAlgorithm.size())).ok()) {
    return fail(Reason::kBadValue, "spec.image.ref")
        .with("NAME@sha256: and 64 hex digits", std::string(ref.substr(0, 120)));
  }
  return std::string(digest);
}

std::int64_t PlanControls::footprint_bytes() const {
  // All come from JSON, whose numbers end at 2^53: their sum cannot overflow.
  return std::max<std::int64_t>(memory_bytes, 0) + std::max<std::int64_t>(scratch_bytes, 0) +
         std::max<std::int64_t>(image_bytes, 0);
}

Result<PlanControls> controls_of(const SpecBody& spec) {
  PlanControls c;
  c.cpu = spec.resources.cpu;
  GBX_ASSIGN(c.memory_bytes, parse_size(spec.resources.memory));
  GBX_ASSIGN(c.scratch_bytes, parse_size(spec.resources.scratch));
  GBX_ASSIGN(c.image_bytes,
             parse_size(spec.resources.image.value_or(std::string(kDefaultImageRoom))));
  c.pids = spec.sandbox.pids.value_or(kDefaultPids);
  c.run_seconds = spec.timeouts.run;
  return c;
}

namespace {

// Of memory, of scratch, and of room for the image. What a node lends is less; this keeps nonsense
// from everything that adds them up.
constexpr std::int64_t kLeastMemory = std::int64_t{8} << 20;
constexpr std::int64_t kMostMemory = std::int64_t{1} << 40;

bool name_ok(std::string_view s) {
  if (s.empty() || s.size() > 63 || s.front() == '-' || s.back() == '-') return false;
  return std::all_of(s.begin(), s.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}
Error bad(const std::string& path, const std::string& expected, const std::string& actual) {
  return fail(Reason::kBadValue, path).with(expected, actual.substr(0, 64));
}
// What people read of others: nothing that moves a cursor, begins a line or turns the direction of
// reading.
Status check_text(const std::string& path, const std::string& text) {
  const std::string shown = printable_whole(text);
  return shown == text ? ok_status() : Status(bad(path, "text without control characters", shown));
}
Status check_texts(const std::string& path, const std::vector<std::string>& texts) {
  for (std::size_t i = 0; i < texts.size(); ++i) {
    GBX_TRY(check_text(path + "[" + std::to_string(i) + "]", texts[i]));
  }
  return ok_status();
}
Status check_digest(const std::string& path, const std::string& digest) {
  constexpr std::string_view kAlgorithm = "sha256:";
  const bool named = digest.rfind(kAlgorithm, 0) == 0;
  if (named && fixed_from_hex<32>(std::string_view(digest).substr(kAlgorithm.size())).ok()) {
    return ok_status();
  }
  return bad(path, "sha256: and 64 lower-case hex digits", printable(digest));
}

Status check_values(const std::string& path, std::int64_t values, std::int64_t most) {
  if (values <= most) return ok_status();
  return fail(Reason::kTooLarge, path)
      .with("at most " + std::to_string(most) + " JSON values", std::to_string(values));
}

Status validate_inputs(const SpecBody& s) {
  std::set<std::string> names{"image"};
  std::set<std::string> mounts;
  for (std::size_t i = 0; i < s.inputs.size(); ++i) {
    const auto& in = s.inputs[i];
    const std::string at = "spec.inputs[" + std::to_string(i) + "].";
    if (!name_ok(in.name)) return bad(at + "name", "lower-case letters, digits, -", in.name);
    if (!names.insert(in.name).second) return bad(at + "name", "a name not used before", in.name);
    const std::string_view name =
        std::string_view(in.mount).substr(std::min<std::size_t>(6, in.mount.size()));
    // The runtime takes a leading '-' for an option.
    if (in.mount.rfind("/data/", 0) != 0 || !plain_name(name) || name[0] == '-') {
      return bad(at + "mount",
                 "/data/ and one name of letters, digits, '.', '_', '-', at most 64, no leading "
                 "'.' or '-'",
                 in.mount);
    }
    if (!mounts.insert(in.mount).second) {
      return bad(at + "mount", "a path not used before", in.mount);
    }
  }
  return ok_status();
}
Status validate_outputs(const SpecBody& s) {
  std::set<std::string> names;
  std::set<std::string> paths;
  for (std::size_t i = 0; i < s.outputs.size(); ++i) {
    const auto& o = s.outputs[i];
    const std::string at = "spec.outputs[" + std::to_string(i) + "].";
    if (!name_ok(o.name)) return bad(at + "name", "lower-case letters, digits, -", o.name);
    if (!names.insert(o.name).second) return bad(at + "name", "a name not used before", o.name);
    if (!plain_path(o.path)) {
      return bad(at + "path",
                 "up to 8 names of letters, digits, '.', '_', '-', at most 64, no leading '.', "
                 "with '/' between",
                 o.path);
    }
    if (!paths.insert(o.path).second) return bad(at + "path", "a path not used before", o.path);
    const bool log = o.path == kLogFile || o.path.rfind(std::string(kLogFile) + "/", 0) == 0;
    if (log && s.logs.visibility == LogVisibility::kConsumer) {
      return bad(at + "path", "another path than job.log, where the logs are written", o.path);
    }
    const bool typed = o.type != OutputType::kOpaque;
    if (typed && !o.schema) {
      return bad(at + "schema", "a schema for type " + std::string(enum_name(o.type)), "nothing");
    }
  }
  for (const std::string& p : paths) {
    for (auto slash = p.find('/'); slash != std::string::npos; slash = p.find('/', slash + 1)) {
      if (paths.count(p.substr(0, slash)) != 0) {
        return bad("spec.outputs", "no output below another one's path", p);
      }
    }
  }
  return ok_status();
}

Status validate_schemas(const SpecBody& s) {
  std::int64_t all = 0;
  for (std::size_t i = 0; i < s.outputs.size(); ++i) {
    if (!s.outputs[i].schema) continue;
    const auto values = static_cast<std::int64_t>(value_count(*s.outputs[i].schema));
    GBX_TRY(
        check_values("spec.outputs[" + std::to_string(i) + "].schema", values, kMaxSchemaValues));
    all += values;
  }
  return check_values("spec.outputs: all schemas together", all, kMaxSchemasValues);
}

// What may leave travels as one bundle, as large as what is declared.
Status validate_bundle(const SpecBody& s) {
  BundleSize size;
  for (const auto& o : s.outputs) size.add_output(o.path.size(), o.max_bytes);
  if (s.logs.visibility == LogVisibility::kConsumer) size.add_log(s.logs.max_bytes);
  if (size.padded() <= kMaxBundleBytes) return ok_status();
  return bad("spec.outputs: maxBytes of all together, with names and log",
             "at most " + std::to_string(kMaxBundleBytes) + " bytes", std::to_string(size.bytes()));
}

Status validate_resources(const SpecBody& s) {
  struct Size {
    const char* path;
    const std::string& text;
    std::int64_t least;
  };
  const std::string image = s.resources.image.value_or(std::string(kDefaultImageRoom));
  for (const Size& size : {Size{"spec.resources.memory", s.resources.memory, kLeastMemory},
                           Size{"spec.resources.scratch", s.resources.scratch, 1},
                           Size{"spec.resources.image", image, 1}}) {
    auto bytes = parse_size(size.text);
    if (!bytes.ok()) return bytes.error().at(size.path);
    if (*bytes < size.least) return bad(size.path, "at least 8MiB", size.text);
    if (*bytes > kMostMemory) return bad(size.path, "at most 1024GiB", size.text);
  }
  if (s.resources.gpu != 0) {
    return bad("spec.resources.gpu", "0: no node lends GPUs yet", std::to_string(s.resources.gpu));
  }
  if (s.sandbox.pids && (*s.sandbox.pids < 1 || *s.sandbox.pids > kMaxPids)) {
    return bad("spec.sandbox.pids", "1 to " + std::to_string(kMaxPids),
               std::to_string(*s.sandbox.pids));
  }
  return ok_status();
}

Status validate_texts(const JobSpec& s) {
  GBX_TRY(check_text("spec.purpose", s.spec.purpose));
  GBX_TRY(check_texts("spec.tee.releases", s.spec.tee.releases));
  if (!s.metadata.labels) return ok_status();
  for (const auto& [k, v] : *s.metadata.labels) {
    GBX_TRY(check_text("metadata.labels", k));
    GBX_TRY(check_text("metadata.labels", v));
  }
  return ok_status();
}

}  // namespace

namespace {

Status check_zeros(const std::string& path, const std::vector<StructuralZero>& zeros) {
  for (std::size_t i = 0; i < zeros.size(); ++i) {
    const StructuralZero& z = zeros[i];
    const std::string at = path + "[" + std::to_string(i) + "].";
    if (z.columns.empty() || z.words.size() != z.columns.size()) {
      return bad(at + "words", std::to_string(z.columns.size()) + ", one for each of columns",
                 std::to_string(z.words.size()));
    }
    GBX_TRY(check_texts(at + "columns", z.columns));
    GBX_TRY(check_texts(at + "words", z.words));
  }
  return ok_status();
}

}  // namespace

Status Clauses::validate() const {
  GBX_TRY(check_texts("clauses.purposes", purposes));
  GBX_TRY(check_texts("clauses.leaseIssuers", lease_issuers));
  GBX_TRY(check_text("clauses.rollback", rollback));
  GBX_TRY(check_texts("clauses.residualChannels", residual_channels));
  for (std::size_t i = 0; i < images.size(); ++i) {
    const std::string at = "clauses.images[" + std::to_string(i) + "].";
    if (images[i].digest) GBX_TRY(check_digest(at + "digest", *images[i].digest));
    if (images[i].signer) GBX_TRY(check_text(at + "signer", *images[i].signer));
  }
  for (std::size_t i = 0; i < tee.size(); ++i) {
    const std::string at = "clauses.tee[" + std::to_string(i) + "].";
    GBX_TRY(check_text(at + "root", tee[i].root));
    GBX_TRY(check_texts(at + "releases", tee[i].releases));
  }
  std::set<Hash32> people;
  for (const Reviewer& r : reviewers) {
    if (people.insert(r.identity_id).second) continue;
    return bad("clauses.reviewers", "each identity once", to_hex(r.identity_id));
  }
  std::set<std::string> files;
  for (const TableRule& t : tables.value_or(std::vector<TableRule>{})) {
    const std::string at = "clauses.tables[" + std::to_string(files.size()) + "].";
    GBX_TRY(check_text(at + "file", t.file));
    GBX_TRY(check_text(at + "subject", t.subject));
    if (!files.insert(t.file).second) return bad(at + "file", "a file not named before", t.file);
    GBX_TRY(check_zeros(at + "structuralZeros",
                        t.structural_zeros.value_or(std::vector<StructuralZero>{})));
  }
  return ok_status();
}

Status Publish::validate() const {
  // Of a revocation too: it stands in lists as every policy does.
  GBX_TRY(check_values("policy.clauses",
                       static_cast<std::int64_t>(value_count(to_json(policy.body.clauses))),
                       kMaxClausesValues));
  GBX_TRY(check_text("record.name", record.body.name));
  if (!record.body.content_digest.empty()) {
    GBX_TRY(check_digest("record.contentDigest", record.body.content_digest));
  }
  const Policy& p = policy.body;
  if (p.revoked) {
    // Its clauses are those of the policy before, whatever they were: they allow nothing any more.
    return wrapped_key ? Status(bad("wrappedKey", "nothing in a revocation", "a key"))
                       : ok_status();
  }
  if (!wrapped_key) {
    return fail(Reason::kMissingField, "wrappedKey")
        .with("the data key, wrapped for the set", "nothing");
  }
  return p.clauses.validate();
}

Status Submission::validate() const {
  GBX_TRY(spec.validate());
  GBX_TRY(check_digest("imageDigest", image_digest));
  for (std::size_t i = 0; i < assets.size(); ++i) {
    if (!name_ok(assets[i].name)) {
      return bad("assets[" + std::to_string(i) + "].name", "the name of an input, or image",
                 printable(assets[i].name));
    }
  }
  for (std::size_t i = 0; i < result_keys.size(); ++i) {
    GBX_TRY(check_text("resultKeys[" + std::to_string(i) + "].use", result_keys[i].use));
  }
  return ok_status();
}

Status JobSpec::validate() const {
  if (api_version != "glovebox/v1") return bad("apiVersion", "glovebox/v1", api_version);
  if (kind != "PrivateJob") return bad("kind", "PrivateJob", kind);
  if (!name_ok(metadata.name)) {
    return bad("metadata.name", "lower-case letters, digits, -", metadata.name);
  }
  if (spec.image.asset.has_value() == spec.image.ref.has_value()) {
    return bad("spec.image", "exactly one of asset and ref", spec.image.asset ? "both" : "neither");
  }
  if (spec.image.ref) GBX_TRY(image_ref_digest(*spec.image.ref));
  for (const auto& [k, v] : spec.env) {
    if (k.empty() || k.find('=') != std::string::npos || k.find('\0') != std::string::npos ||
        v.find('\0') != std::string::npos) {
      return bad("spec.env", "names without '=' and no NUL", k);
    }
  }
  for (const auto& list : {spec.command, spec.args}) {
    for (const auto& a : list) {
      if (a.find('\0') != std::string::npos) return bad("spec.command", "no NUL", "NUL");
    }
  }
  if (spec.command[0].empty() || spec.command[0][0] != '/') {
    return bad("spec.command[0]", "an absolute path", spec.command[0]);
  }
  GBX_TRY(validate_texts(*this));
  GBX_TRY(validate_inputs(spec));
  GBX_TRY(validate_outputs(spec));
  GBX_TRY(validate_schemas(spec));
  GBX_TRY(validate_bundle(spec));
  GBX_TRY(validate_resources(spec));
  if (spec.sandbox.runtime && *spec.sandbox.runtime != "crun" && *spec.sandbox.runtime != "runc") {
    return bad("spec.sandbox.runtime", "crun or runc", *spec.sandbox.runtime);
  }
  return ok_status();
}

}  // namespace gbx::records
