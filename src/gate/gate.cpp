#include "gate/gate.h"

#include <algorithm>
#include <exception>

#include "crypto/crypto.h"
#include "gate/schema.h"

namespace gbx::gate {
namespace {

constexpr std::string_view kAnswerMagic = "GBXGATE1";

GateResult start_result(const GateRequest& r, const Confinement& confinement) {
  GateResult out;
  out.jobId = r.jobId;
  out.attempt = r.attempt;
  out.requestDigest = request_digest(r);
  out.policyHash = policy_hash(r.policy);
  out.exitClass = r.exitClass;
  out.durationBucket = duration_bucket(r.durationSeconds);
  out.confinement = confinement;
  out.charge.freeBits = kControlBits;
  return out;
}

void score_result(const GateView& view, GateResult& result) {
  const auto add = [&](GateReason reason, std::int64_t points) {
    if (points <= 0 || result.scoreReasons.size() >= 64) return;
    result.scoreReasons.push_back({reason, std::min<std::int64_t>(points, 100)});
  };
  for (const auto& a : result.analysers) {
    if (a.status == RuleStatus::kFail) {
      add(a.reason, hard_rule(a.rule) ? 100 : a.rule == RuleId::kOpaque ? 60 : 40);
    }
    if (a.status == RuleStatus::kError) add(a.reason, 80);
    if (a.status == RuleStatus::kNotApplicable && a.reason == GateReason::kCopyCheckOff) {
      add(a.reason, 10);
    }
  }
  const Result<Charge> charge = release_charge(view.request);
  const std::int64_t limit = std::max<std::int64_t>(view.request.policy.autoClearFreeBits, 1);
  if (charge.ok() && charge->freeBits <= limit) {
    add(GateReason::kOverFreeBits, 20 * charge->freeBits / limit);
  }
  if (view.near_copy_percent >= 50) {
    add(GateReason::kCopiedRows, std::min(view.near_copy_percent, 100) / 4);
  }
  if (view.request.exitClass != RunExit::kOk) add(GateReason::kRunNotOk, 5);
  std::int64_t sum = 0;
  for (const auto& s : result.scoreReasons) sum += s.points;
  result.score = std::min<std::int64_t>(sum, 100);
}

FixedBytes<16> cell_digest(const GateRequest& r, const std::string& output, const Cell& c) {
  ByteWriter w;
  w.raw(r.salt).u64(static_cast<std::uint64_t>(c.row)).u64(static_cast<std::uint64_t>(c.column));
  w.bytes32(as_bytes(output)).bytes32(as_bytes(c.text));
  const Hash32 h = crypto::labelled_hash("gbx/1/release-cell", w.bytes());
  FixedBytes<16> out{};
  std::copy_n(h.begin(), out.size(), out.begin());
  return out;
}

void add_records(const GateRequest& r, const OutputDeclaration& d, const OutputView& view,
                 std::vector<ReleaseRecord>& out) {
  const Canonical& c = view.canonical;
  std::optional<Hash32> recipe;
  if (view.verified) recipe = view.schema.recipe->hash;
  if (c.cells.empty() || out.size() + c.cells.size() > kMaxCellRecords) {
    ReleaseRecord file;
    file.output = d.name;
    file.recipeHash = recipe;
    const Hash32 h = output_digest(r.salt, d.name, c.bytes);
    std::copy_n(h.begin(), file.digest.size(), file.digest.begin());
    out.push_back(std::move(file));
    return;
  }
  for (const Cell& cell : c.cells) {
    ReleaseRecord record;
    record.output = d.name;
    record.row = cell.row;
    record.column = cell.column;
    record.digest = cell_digest(r, d.name, cell);
    record.recipeHash = recipe;
    out.push_back(std::move(record));
  }
}

}  // namespace

bool hard_rule(RuleId rule) {
  return rule == RuleId::kStructure || rule == RuleId::kFormat || rule == RuleId::kRecipe ||
         rule == RuleId::kCells || rule == RuleId::kCopies;
}

RuleStatus worst_status(const std::vector<AnalyserResult>& analysers) {
  RuleStatus worst = RuleStatus::kPass;
  if (analysers.empty()) return RuleStatus::kError;
  // error, fail, not applicable, pass
  for (const auto& a : analysers) worst = std::min(worst, a.status);
  return worst;
}

Recommendation recommend(const GateRequest& request, const std::vector<AnalyserResult>& analysers,
                         std::int64_t score) {
  Recommendation out = analysers.empty() ? Recommendation::kHold : Recommendation::kRelease;
  for (const auto& a : analysers) {
    if (a.status == RuleStatus::kFail && hard_rule(a.rule)) return Recommendation::kReject;
    if (a.status == RuleStatus::kFail || a.status == RuleStatus::kError) {
      out = Recommendation::kHold;
    }
  }
  // Every rule must have spoken.
  for (const auto& named : all_analysers()) {
    const bool spoke = std::any_of(analysers.begin(), analysers.end(),
                                   [&](const auto& a) { return a.rule == named.rule; });
    if (!spoke) out = Recommendation::kHold;
  }
  if (score >= request.policy.scoreThreshold) out = Recommendation::kHold;
  return out;
}

void Gate::judge(GateView& view, std::span<const NamedAnalyser> analysers, GateResult& result) {
  for (const NamedAnalyser& a : analysers) {
    try {
      const std::vector<AnalyserResult> found = a.run(view);
      result.analysers.insert(result.analysers.end(), found.begin(), found.end());
    } catch (const std::exception&) {  // memory, mostly; what it was stays inside
      result.analysers.push_back({a.rule, RuleStatus::kError, GateReason::kAnalyserError, {}});
    }
  }
  result.verdict = worst_status(result.analysers);
  score_result(view, result);
  result.recommendation = recommend(view.request, result.analysers, result.score);
}

Status Gate::build(const GateView& view, Evaluation& out) {
  const GateRequest& r = view.request;
  GateResult& result = out.result;
  if (result.recommendation == Recommendation::kReject) return ok_status();
  Bundle b;
  b.status = {r.jobId, r.attempt, r.exitClass, result.durationBucket};
  // A table that nobody could compute must not be released as verified by a person either; and a
  // result is delivered whole or not at all.
  const bool uncounted = std::any_of(view.outputs.begin(), view.outputs.end(),
                                     [](const auto& o) { return o.explained && !o.verified; });
  for (std::size_t i = 0; i < view.outputs.size() && !uncounted; ++i) {
    const OutputDeclaration& d = r.outputs[i];
    const OutputView& o = view.outputs[i];
    const Canonical& c = o.canonical;
    if (!c.ok()) continue;
    b.entries.push_back({EntryKind::kOutput, d.path, c.bytes});
    const Hash32 digest = output_digest(r.salt, d.name, c.bytes);
    result.manifest.push_back({d.name, d.path, digest, static_cast<std::int64_t>(c.bytes.size())});
    add_records(r, d, o, result.releaseRecords);
  }
  std::sort(b.entries.begin(), b.entries.end(),
            [](const auto& x, const auto& y) { return x.name < y.name; });
  if (!view.log.empty()) b.entries.push_back({EntryKind::kLog, "log", view.log});
  GBX_ASSIGN(out.channel, ReleaseChannel::make(std::move(b), padded_bundle_size(r)));
  result.bundleDigest = output_digest(r.salt, "", out.channel->bytes());
  GBX_ASSIGN(result.charge, release_charge(r));
  return ok_status();
}

Evaluation Gate::evaluate(const GateRequest& request, const Confinement& confinement,
                          std::span<const NamedAnalyser> analysers) {
  Evaluation out;
  try {
    out.result = start_result(request, confinement);
    GateView view = load_view(request);
    judge(view, analysers, out.result);
    if (build(view, out).ok()) return out;
  } catch (const std::exception&) {
    // Falls through: held, without content.
  }
  out = Evaluation{};
  out.result = held_result(request, GateReason::kAnalyserError);
  out.result.confinement = confinement;
  return out;
}

GateResult held_result(const GateRequest& request, GateReason why) {
  GateResult r = start_result(request, {});
  r.analysers.push_back({RuleId::kGate, RuleStatus::kError, why, {}});
  r.scoreReasons.push_back({why, 100});
  r.score = 100;
  return r;
}

Bytes encode_answer(const Evaluation& e) {
  ByteWriter w;
  w.text(kAnswerMagic).bytes32(as_bytes(canonical(to_json(e.result))));
  w.bytes32(e.channel ? ByteView(e.channel->bytes()) : ByteView());
  return w.take();
}

Result<Answer> decode_answer(ByteView bytes) {
  ByteReader r(bytes);
  GBX_ASSIGN(const ByteView magic, r.take(kAnswerMagic.size()));
  if (as_text(magic) != kAnswerMagic) return fail(Reason::kBadMagic, "gate answer");
  Answer a;
  GBX_ASSIGN(const Bytes json, r.bytes32(kMaxResultJson));
  GBX_ASSIGN(a.result,
             from_json_text<GateResult>(as_text(json), JsonLimits{kMaxResultJson, 8, 500'000}));
  GBX_ASSIGN(a.bundle, r.bytes32(static_cast<std::size_t>(kMaxBundleBytes)));
  GBX_TRY(r.finish());
  return a;
}

}  // namespace gbx::gate
