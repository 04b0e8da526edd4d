#include "gate/analysers.h"

#include <unistd.h>

#include <algorithm>

#include "base/os.h"
#include "gate/copies.h"
#include "gate/release.h"
#include "gate/schema.h"

namespace gbx::gate {
namespace {

AnalyserResult one(RuleId rule, RuleStatus status, GateReason reason,
                   const std::string& output = {}) {
  AnalyserResult r{rule, status, reason, {}};
  if (!output.empty()) r.evidence.push_back({output, -1, -1});
  return r;
}
std::vector<AnalyserResult> not_applicable(RuleId rule, GateReason why) {
  return {one(rule, RuleStatus::kNotApplicable, why)};
}
// `pass` when nothing was found.
std::vector<AnalyserResult> or_pass(RuleId rule, std::vector<AnalyserResult> results) {
  if (results.empty()) results.push_back(one(rule, RuleStatus::kPass, GateReason::kNone));
  return results;
}

// At most `limit` bytes from the start of a log; a log that cannot be read is an empty log.
Bytes read_log(int fd, std::size_t limit) {
  Bytes out(limit);
  std::size_t have = 0;
  while (have < limit) {
    const ssize_t n = pread(fd, out.data() + have, limit - have, static_cast<off_t>(have));
    if (n <= 0) break;
    have += static_cast<std::size_t>(n);
  }
  out.resize(have);
  return out;
}

bool allowed_type(const GateRequest& r, OutputType type) {
  const auto& types = r.policy.allowedTypes;
  return std::find(types.begin(), types.end(), type) != types.end();
}

void index_outputs(const GateView& view, CopyDetector& detector) {
  for (std::size_t i = 0; i < view.outputs.size(); ++i) {
    const OutputView& o = view.outputs[i];
    if (!o.file.found || o.file.bytes.empty()) continue;
    if (o.verified) continue;  // nothing in it is the container's choice
    const bool typed = o.bounded && o.canonical.ok();
    detector.add_bytes(i, o.file.bytes, typed);
    if (typed) {
      detector.add_cells(i, o.canonical.cells);
    } else {
      detector.add_lines(i, o.file.bytes);
    }
  }
  if (!view.log.empty()) {
    detector.add_bytes(view.outputs.size(), view.log, false);
    detector.add_lines(view.outputs.size(), view.log);
  }
  detector.prepare();
}

}  // namespace

GateView load_view(const GateRequest& request) {
  GateView view{request, ok_status(), {}, {}, {}, 0};
  if (request.logs.fd) {
    const int fd = static_cast<int>(*request.logs.fd);
    const auto limit = static_cast<std::size_t>(consumer_log_bytes(request));
    view.log = clean_log(read_log(fd, limit), limit);
  }
  if (request.exitClass != RunExit::kOk) return view;
  Result<LoadedFolder> folder =
      load_outputs(static_cast<int>(request.outFd), request.outputs, request.policy.maxOutputBytes);
  if (!folder.ok()) {
    view.scan = folder.error();
    return view;
  }
  view.findings = std::move(folder->findings);
  for (std::size_t i = 0; i < request.outputs.size(); ++i) {
    OutputView o;
    o.file = std::move(folder->files[i]);
    Result<Schema> schema = parse_schema(request.outputs[i]);
    if (schema.ok()) {
      o.bounded = schema->bounded;
      o.explained = explained_by(*schema, request.inputs);
      o.schema = std::move(*schema);
    }
    const CanonicalLimits limits{request.policy.maxOutputBytes, request.policy.maxRows};
    o.canonical = canonicalise(request.outputs[i], o.file.bytes, limits);
    view.outputs.push_back(std::move(o));
  }
  return view;
}

std::vector<AnalyserResult> analyse_structure(GateView& view) {
  if (view.request.exitClass != RunExit::kOk) {
    return not_applicable(RuleId::kStructure, GateReason::kRunNotOk);
  }
  if (!view.scan.ok()) {
    return {one(RuleId::kStructure, RuleStatus::kError, GateReason::kUnreadable)};
  }
  std::vector<AnalyserResult> out;
  for (const auto& f : view.findings) {
    out.push_back(one(RuleId::kStructure, RuleStatus::kFail, f.reason, f.output));
  }
  return or_pass(RuleId::kStructure, std::move(out));
}

std::vector<AnalyserResult> analyse_format(GateView& view) {
  if (view.request.exitClass != RunExit::kOk) {
    return not_applicable(RuleId::kFormat, GateReason::kRunNotOk);
  }
  if (!view.scan.ok()) return {one(RuleId::kFormat, RuleStatus::kError, GateReason::kUnreadable)};
  std::vector<AnalyserResult> out;
  for (std::size_t i = 0; i < view.outputs.size(); ++i) {
    const OutputDeclaration& d = view.request.outputs[i];
    const OutputView& o = view.outputs[i];
    if (!allowed_type(view.request, d.type)) {
      out.push_back(one(RuleId::kFormat, RuleStatus::kFail, GateReason::kTypeNotAllowed, d.name));
    } else if (!o.canonical.ok() &&
               (o.file.found || o.canonical.failure == GateReason::kBadDeclaration)) {
      AnalyserResult r = one(RuleId::kFormat, RuleStatus::kFail, o.canonical.failure);
      r.evidence.push_back(o.canonical.where);
      out.push_back(std::move(r));
    }
  }
  return or_pass(RuleId::kFormat, std::move(out));
}

std::vector<AnalyserResult> analyse_copies(GateView& view) {
  const GateRequest& r = view.request;
  if (!r.policy.copyCheck) return not_applicable(RuleId::kCopies, GateReason::kCopyCheckOff);
  if (!view.scan.ok()) return {one(RuleId::kCopies, RuleStatus::kError, GateReason::kUnreadable)};
  CopyDetector detector;
  index_outputs(view, detector);
  const FileSink sink{[&] { detector.begin_file(); }, [&](ByteView b) { detector.feed(b); },
                      [&] { detector.end_file(); }};
  for (const auto& input : r.inputs) {
    if (!stream_files(static_cast<int>(input.fd), sink).ok()) {
      return {one(RuleId::kCopies, RuleStatus::kError, GateReason::kInputUnreadable)};
    }
  }
  const Result<std::vector<CopyFinding>> findings = detector.finish();
  if (!findings.ok()) return {one(RuleId::kCopies, RuleStatus::kError, GateReason::kAnalyserError)};
  view.near_copy_percent = detector.nearest_percent();
  std::vector<AnalyserResult> out;
  for (const CopyFinding& f : *findings) {
    AnalyserResult a = one(RuleId::kCopies, RuleStatus::kFail, f.reason);
    const bool log = f.output >= view.outputs.size();
    a.evidence.push_back({log ? "log" : r.outputs[f.output].name, f.row, f.column});
    out.push_back(std::move(a));
  }
  return or_pass(RuleId::kCopies, std::move(out));
}

std::vector<AnalyserResult> analyse_opaque(GateView& view) {
  if (view.request.exitClass != RunExit::kOk) {
    return not_applicable(RuleId::kOpaque, GateReason::kRunNotOk);
  }
  std::vector<AnalyserResult> out;
  for (std::size_t i = 0; i < view.outputs.size(); ++i) {
    const OutputDeclaration& d = view.request.outputs[i];
    if (view.outputs[i].bounded) continue;
    const GateReason why =
        d.type == OutputType::kText ? GateReason::kUnboundedText : GateReason::kOpaqueOutput;
    out.push_back(one(RuleId::kOpaque, RuleStatus::kFail, why, d.name));
  }
  return or_pass(RuleId::kOpaque, std::move(out));
}

std::vector<AnalyserResult> analyse_capacity(GateView& view) {
  const Result<Charge> charge = release_charge(view.request);
  if (!charge.ok()) return {one(RuleId::kCapacity, RuleStatus::kFail, GateReason::kBadDeclaration)};
  std::vector<AnalyserResult> out;
  if (charge->freeBits > view.request.policy.autoClearFreeBits) {
    out.push_back(one(RuleId::kCapacity, RuleStatus::kFail, GateReason::kOverFreeBits));
  }
  if (charge->verifiedBits > view.request.policy.autoClearVerifiedBits) {
    out.push_back(one(RuleId::kCapacity, RuleStatus::kFail, GateReason::kOverVerifiedBits));
  }
  return or_pass(RuleId::kCapacity, std::move(out));
}

std::vector<AnalyserResult> analyse_logs(GateView& view) {
  const GateLogs& logs = view.request.logs;
  if (logs.visibility == LogVisibility::kNone) {
    return not_applicable(RuleId::kLogs, GateReason::kNone);
  }
  if (consumer_log_bytes(view.request) == 0) {
    return not_applicable(RuleId::kLogs, GateReason::kLogsNotAllowed);
  }
  return or_pass(RuleId::kLogs, {});
}

std::span<const NamedAnalyser> all_analysers() {
  static constexpr NamedAnalyser k[] = {
      {RuleId::kStructure, analyse_structure}, {RuleId::kFormat, analyse_format},
      {RuleId::kRecipe, analyse_recipe},       {RuleId::kCells, analyse_cells},
      {RuleId::kGroups, analyse_groups},       {RuleId::kDifferences, analyse_differences},
      {RuleId::kCopies, analyse_copies},       {RuleId::kOpaque, analyse_opaque},
      {RuleId::kCapacity, analyse_capacity},   {RuleId::kLogs, analyse_logs},
  };
  return k;
}

}  // namespace gbx::gate
