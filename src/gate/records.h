// What the gate is asked and what it answers. Both cross a process boundary as canonical JSON, so
// both are described once, with fields(). The request is the immutable submission of docs/gate.md:
// the gate reads nothing else. The answer holds facts and closed codes, never plaintext: its reader
// is the agent, which does not trust it (see spawn.h).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bundle_size.h"
#include "base/fields.h"

namespace gbx::gate {

enum class OutputType { kTable, kJson, kMetrics, kText, kOpaque };
inline std::span<const EnumName<OutputType>> enum_names(OutputType) {
  static constexpr EnumName<OutputType> k[] = {{OutputType::kTable, "table"},
                                               {OutputType::kJson, "json"},
                                               {OutputType::kMetrics, "metrics"},
                                               {OutputType::kText, "text"},
                                               {OutputType::kOpaque, "opaque"}};
  return k;
}

// How the container ended: all that is ever told of its exit status (2 bits).
enum class RunExit { kOk, kFailed, kKilled, kTimeout };
inline std::span<const EnumName<RunExit>> enum_names(RunExit) {
  static constexpr EnumName<RunExit> k[] = {{RunExit::kOk, "ok"},
                                            {RunExit::kFailed, "failed"},
                                            {RunExit::kKilled, "killed"},
                                            {RunExit::kTimeout, "timeout"}};
  return k;
}

enum class LogVisibility { kNone, kConsumer };
inline std::span<const EnumName<LogVisibility>> enum_names(LogVisibility) {
  static constexpr EnumName<LogVisibility> k[] = {{LogVisibility::kNone, "none"},
                                                  {LogVisibility::kConsumer, "consumer"}};
  return k;
}

enum class RuleId {
  kStructure,
  kFormat,
  kRecipe,
  kCells,
  kGroups,
  kDifferences,
  kCopies,
  kOpaque,
  kCapacity,
  kLogs,
  kGate
};
inline std::span<const EnumName<RuleId>> enum_names(RuleId) {
  static constexpr EnumName<RuleId> k[] = {{RuleId::kStructure, "structure"},
                                           {RuleId::kFormat, "format"},
                                           {RuleId::kRecipe, "recipe"},
                                           {RuleId::kCells, "cells"},
                                           {RuleId::kGroups, "groups"},
                                           {RuleId::kDifferences, "differences"},
                                           {RuleId::kCopies, "copies"},
                                           {RuleId::kOpaque, "opaque"},
                                           {RuleId::kCapacity, "capacity"},
                                           {RuleId::kLogs, "logs"},
                                           {RuleId::kGate, "gate"}};
  return k;
}

enum class RuleStatus { kError, kFail, kNotApplicable, kPass };
inline std::span<const EnumName<RuleStatus>> enum_names(RuleStatus) {
  static constexpr EnumName<RuleStatus> k[] = {{RuleStatus::kError, "error"},
                                               {RuleStatus::kFail, "fail"},
                                               {RuleStatus::kNotApplicable, "not_applicable"},
                                               {RuleStatus::kPass, "pass"}};
  return k;
}

// The closed list of the gate's reasons. X(name, "code").
#define GBX_GATE_REASONS(X)                  \
  X(kNone, "none")                           \
  /* structure of the output folder */       \
  X(kUndeclaredFile, "undeclared-file")      \
  X(kMissingFile, "missing-file")            \
  X(kSymlink, "symlink")                     \
  X(kHardlink, "hardlink")                   \
  X(kFifo, "fifo")                           \
  X(kSocket, "socket")                       \
  X(kDevice, "device")                       \
  X(kDirectory, "directory")                 \
  X(kSparseFile, "sparse-file")              \
  X(kTooManyFiles, "too-many-files")         \
  X(kOddName, "odd-name")                    \
  X(kTooLarge, "too-large")                  \
  X(kUnreadable, "unreadable")               \
  /* format */                               \
  X(kBadDeclaration, "bad-declaration")      \
  X(kTypeNotAllowed, "type-not-allowed")     \
  X(kBadEncoding, "bad-encoding")            \
  X(kBadCsv, "bad-csv")                      \
  X(kBadJson, "bad-json")                    \
  X(kDuplicateKey, "duplicate-key")          \
  X(kWrongColumns, "wrong-columns")          \
  X(kWrongMembers, "wrong-members")          \
  X(kWrongShape, "wrong-shape")              \
  X(kTooManyRows, "too-many-rows")           \
  X(kNotANumber, "not-a-number")             \
  X(kNotAnInteger, "not-an-integer")         \
  X(kOutOfRange, "out-of-range")             \
  X(kNotInList, "not-in-list")               \
  /* tables that recipes explain */          \
  X(kNoRecipe, "no-recipe")                  \
  X(kRecipeMismatch, "recipe-mismatch")      \
  X(kRecipeInput, "recipe-input")            \
  X(kRecipeColumn, "recipe-column")          \
  X(kRecipeValue, "recipe-value")            \
  X(kRecipeDomain, "recipe-domain")          \
  X(kRecipeNoValue, "recipe-no-value")       \
  X(kRecipeTooLarge, "recipe-too-large")     \
  X(kRecipeTable, "recipe-table")            \
  X(kNotRecomputed, "not-recomputed")        \
  X(kSmallCell, "small-cell")                \
  X(kDominatedCell, "dominated-cell")        \
  X(kEmptyCell, "empty-cell")                \
  X(kGroupDisclosed, "group-disclosed")      \
  X(kSameValues, "same-values")              \
  X(kFewLeftOut, "few-left-out")             \
  X(kFewDiffer, "few-differ")                \
  /* copies of the inputs */                 \
  X(kCopiedBytes, "copied-bytes")            \
  X(kCopiedEncoded, "copied-encoded")        \
  X(kCopiedReversed, "copied-reversed")      \
  X(kCopiedRows, "copied-rows")              \
  X(kCopiedColumn, "copied-column")          \
  X(kInputUnreadable, "input-unreadable")    \
  /* held */                                 \
  X(kOpaqueOutput, "opaque-output")          \
  X(kUnboundedText, "unbounded-text")        \
  X(kOverFreeBits, "over-free-bits")         \
  X(kOverVerifiedBits, "over-verified-bits") \
  X(kOverScore, "over-score")                \
  X(kLogsNotAllowed, "logs-not-allowed")     \
  X(kRunNotOk, "run-not-ok")                 \
  X(kCopyCheckOff, "copy-check-off")         \
  /* the gate itself */                      \
  X(kAnalyserError, "analyser-error")        \
  X(kGateCrashed, "gate-crashed")            \
  X(kGateTimedOut, "gate-timed-out")         \
  X(kGateGarbage, "gate-garbage")

enum class GateReason {
#define X(name, code) name,
  GBX_GATE_REASONS(X)
#undef X
};
inline std::span<const EnumName<GateReason>> enum_names(GateReason) {
  static constexpr EnumName<GateReason> k[] = {
#define X(name, code) {GateReason::name, code},
      GBX_GATE_REASONS(X)
#undef X
  };
  return k;
}

enum class Recommendation { kReject, kHold, kRelease };
inline std::span<const EnumName<Recommendation>> enum_names(Recommendation) {
  static constexpr EnumName<Recommendation> k[] = {{Recommendation::kReject, "reject"},
                                                   {Recommendation::kHold, "hold"},
                                                   {Recommendation::kRelease, "release"}};
  return k;
}

// How a charge was reckoned. Both codes are fixed before the data was seen.
enum class CodeId { kControlOnly, kSchema };
inline std::span<const EnumName<CodeId>> enum_names(CodeId) {
  static constexpr EnumName<CodeId> k[] = {{CodeId::kControlOnly, "control-1"},
                                           {CodeId::kSchema, "schema-1"}};
  return k;
}

inline constexpr std::int64_t kHardMaxOutputBytes = kMaxBundleBytes;
inline constexpr std::int64_t kHardMaxLogBytes = kMaxConsumerLogBytes;
inline constexpr std::int64_t kHardMaxRows = 100'000;
inline constexpr std::int64_t kMaxOutputs = 32;
inline constexpr std::int64_t kMaxInputs = 64;

// One file that the job promises to write. `path` is relative to the output folder.
struct OutputDeclaration {
  std::string name;
  std::string path;
  OutputType type = OutputType::kOpaque;
  Json schema = JsonObject{};
  std::int64_t maxBytes = 0;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 64});
    f("path", path, Bound{1, 255});
    f("type", type);
    f("schema", schema);
    f("maxBytes", maxBytes, Bound{1, kHardMaxOutputBytes});
  }
};

// No row of a file has all of these words, each in its column (records::StructuralZero).
struct GateZero {
  std::vector<std::string> columns;
  std::vector<std::string> words;
  template <class F>
  void fields(F& f) {
    f("columns", columns, Bound{1, 8, 128});
    f("words", words, Bound{1, 8, 256});
  }
};
// A file of an input that recipes may read, the column that says whom a row is about, and what
// cannot occur in it: the owner's word (records::TableRule).
struct GateTable {
  std::string file;
  std::string subject;
  std::vector<GateZero> structuralZeros = {};
  template <class F>
  void fields(F& f) {
    f("file", file, Bound{1, 200});
    f("subject", subject, Bound{1, 128});
    f("structuralZeros", structuralZeros, Bound{0, 64});
  }
};

// An input of the job: `mount` as the container saw it, `fd` the number of a directory descriptor
// of this process.
struct GateInput {
  std::string name;
  std::string mount;
  std::string versionId;
  std::int64_t fd = -1;
  std::vector<GateTable> tables = {};
  // Of all its versions; empty: not known, as before the run.
  std::string assetId = {};
  template <class F>
  void fields(F& f) {
    f("assetId", assetId, Bound{0, 64});
    f("name", name, Bound{1, 64});
    f("mount", mount, Bound{1, 255});
    f("versionId", versionId, Bound{0, 128});
    f("fd", fd, Bound{3, 1023});
    f("tables", tables, Bound{0, 64});
  }
};

// The owner's rules, or the strictest of several owners' (docs/gate.md has the defaults).
struct GatePolicy {
  std::int64_t autoClearFreeBits = 2048;
  std::int64_t autoClearVerifiedBits = 65536;
  std::int64_t maxOutputBytes = kHardMaxOutputBytes;
  std::int64_t maxRows = 5000;
  std::int64_t maxConsumerLogBytes = 0;
  std::int64_t scoreThreshold = 60;
  std::vector<OutputType> allowedTypes = {OutputType::kTable, OutputType::kJson,
                                          OutputType::kMetrics, OutputType::kText,
                                          OutputType::kOpaque};
  bool copyCheck = true;
  std::int64_t cellSubjects = 10;  // the fewest subjects of a verified cell
  template <class F>
  void fields(F& f) {
    f("autoClearFreeBits", autoClearFreeBits);
    f("autoClearVerifiedBits", autoClearVerifiedBits);
    f("maxOutputBytes", maxOutputBytes, Bound{0, kHardMaxOutputBytes});
    f("maxRows", maxRows, Bound{0, kHardMaxRows});
    f("maxConsumerLogBytes", maxConsumerLogBytes, Bound{0, kHardMaxLogBytes});
    f("scoreThreshold", scoreThreshold, Bound{0, 101});
    f("allowedTypes", allowedTypes, Bound{0, 5});
    f("copyCheck", copyCheck);
    f("cellSubjects", cellSubjects, Bound{1, 1'000'000});
  }
};

struct GateLogs {
  LogVisibility visibility = LogVisibility::kNone;
  std::int64_t maxBytes = 0;
  std::optional<std::int64_t> fd;
  template <class F>
  void fields(F& f) {
    f("visibility", visibility);
    f("maxBytes", maxBytes, Bound{0, kHardMaxLogBytes});
    f("fd", fd, Bound{3, 1023});
  }
};

struct GateRequest {
  std::int64_t version = 1;
  std::string jobId;
  std::int64_t attempt = 1;
  Hash32 planHash{};  // binds purpose, image digest, policies: what the owners agreed to
  std::string purpose;
  std::string imageDigest;
  Hash32 salt{};  // fresh per attempt; secret until release, so that digests tell nothing
  std::vector<OutputDeclaration> outputs;
  std::vector<GateInput> inputs;
  std::int64_t outFd = 3;
  GatePolicy policy;
  RunExit exitClass = RunExit::kOk;
  std::int64_t durationSeconds = 0;
  GateLogs logs;
  template <class F>
  void fields(F& f) {
    f("version", version, Bound{1, 1});
    f("jobId", jobId, Bound{1, 128});
    f("attempt", attempt, Bound{1, 1'000'000});
    f("planHash", planHash);
    f("purpose", purpose, Bound{0, 1024});
    f("imageDigest", imageDigest, Bound{0, 128});
    f("salt", salt);
    f("outputs", outputs, Bound{0, kMaxOutputs});
    f("inputs", inputs, Bound{0, kMaxInputs});
    f("outFd", outFd, Bound{3, 1023});
    f("policy", policy);
    f("exitClass", exitClass);
    f("durationSeconds", durationSeconds);
    f("logs", logs);
  }
};

// Where in an output a rule found something: positions only. -1 means the whole file.
struct EvidenceRef {
  std::string output;
  std::int64_t row = -1;
  std::int64_t column = -1;
  template <class F>
  void fields(F& f) {
    f("output", output, Bound{0, 64});
    f("row", row, Bound{-1, kMaxJsonInteger});
    f("column", column, Bound{-1, 1 << 20});
  }
  bool operator==(const EvidenceRef&) const = default;
};

struct AnalyserResult {
  RuleId rule = RuleId::kGate;
  RuleStatus status = RuleStatus::kError;
  GateReason reason = GateReason::kAnalyserError;
  std::vector<EvidenceRef> evidence;
  template <class F>
  void fields(F& f) {
    f("rule", rule);
    f("status", status);
    f("reason", reason);
    f("evidence", evidence, Bound{0, 16});
  }
};

// Free bits: chosen by code that nobody trusts. Verified bits: of tables that the gate computed
// from the inputs itself, by a recipe that was fixed before the data was seen. The value depends on
// the declaration and the decision only, so that it tells nothing about the content.
struct Charge {
  std::int64_t freeBits = 0;
  std::int64_t verifiedBits = 0;
  std::int64_t zcdpMicro = 0;
  CodeId code = CodeId::kControlOnly;
  template <class F>
  void fields(F& f) {
    f("freeBits", freeBits);
    f("verifiedBits", verifiedBits);
    f("zcdpMicro", zcdpMicro);
    f("code", code);
  }
  bool operator==(const Charge&) const = default;
};

struct ScoreReason {
  GateReason reason = GateReason::kNone;
  std::int64_t points = 0;
  template <class F>
  void fields(F& f) {
    f("reason", reason);
    f("points", points, Bound{0, 100});
  }
};

// One per released cell (row and column of the canonical file), or per file where row is -1;
// recipeHash where a recipe explains it. Sketch and count are empty in v1; they are here because
// history cannot be rebuilt once the inputs are gone.
struct ReleaseRecord {
  std::string output;
  std::int64_t row = -1;
  std::int64_t column = -1;
  FixedBytes<16> digest{};
  std::optional<Hash32> recipeHash;
  std::optional<Bytes> sketch;
  std::optional<std::int64_t> count;
  template <class F>
  void fields(F& f) {
    f("output", output, Bound{1, 64});
    f("row", row, Bound{-1, kMaxJsonInteger});
    f("column", column, Bound{-1, 1 << 20});
    f("digest", digest);
    f("recipeHash", recipeHash);
    f("sketch", sketch, Bound{0, 1024});
    f("count", count);
  }
};
inline constexpr std::size_t kMaxCellRecords = 20'000;

struct ManifestEntry {
  std::string name;
  std::string path;
  Hash32 digest{};  // salted: see output_digest()
  std::int64_t bytes = 0;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 64});
    f("path", path, Bound{1, 255});
    f("digest", digest);
    f("bytes", bytes, Bound{0, kHardMaxOutputBytes});
  }
};

// What held the gate while it worked.
struct Confinement {
  bool noNewPrivs = false;
  bool seccomp = false;
  std::int64_t landlockAbi = 0;
  template <class F>
  void fields(F& f) {
    f("noNewPrivs", noNewPrivs);
    f("seccomp", seccomp);
    f("landlockAbi", landlockAbi, Bound{0, 1000});
  }
};

struct GateResult {
  std::int64_t version = 1;
  std::string jobId;
  std::int64_t attempt = 1;
  Hash32 requestDigest{};  // SHA-256 of the canonical request
  Hash32 policyHash{};
  Hash32 bundleDigest{};  // salted digest of the whole bundle
  std::vector<AnalyserResult> analysers;
  RuleStatus verdict = RuleStatus::kError;  // the worst of them
  Charge charge;
  std::int64_t score = 100;
  std::vector<ScoreReason> scoreReasons;
  std::vector<ManifestEntry> manifest;
  std::vector<ReleaseRecord> releaseRecords;
  RunExit exitClass = RunExit::kKilled;
  std::int64_t durationBucket = 0;
  Recommendation recommendation = Recommendation::kHold;
  Confinement confinement;
  template <class F>
  void fields(F& f) {
    f("version", version, Bound{1, 1});
    f("jobId", jobId, Bound{1, 128});
    f("attempt", attempt, Bound{1, 1'000'000});
    f("requestDigest", requestDigest);
    f("policyHash", policyHash);
    f("bundleDigest", bundleDigest);
    f("analysers", analysers, Bound{0, 1024});
    f("verdict", verdict);
    f("charge", charge);
    f("score", score, Bound{0, 100});
    f("scoreReasons", scoreReasons, Bound{0, 64});
    f("manifest", manifest, Bound{0, kMaxOutputs});
    f("releaseRecords", releaseRecords, Bound{0, kMaxCellRecords + kMaxOutputs});
    f("exitClass", exitClass);
    f("durationBucket", durationBucket, Bound{0, 15});
    f("recommendation", recommendation);
    f("confinement", confinement);
  }
};

// Checks what the fields cannot: names and paths plain (base/names.h) and unique, no path inside
// another, the padded bundle within kMaxBundleBytes, descriptors distinct.
Status check_request(const GateRequest& request);

// SHA-256 of the canonical form, with a label each.
Hash32 request_digest(const GateRequest& request);
Hash32 policy_hash(const GatePolicy& policy);
// SHA-256("gbx/1/output" ‖ 0 ‖ salt ‖ name ‖ 0 ‖ content).
Hash32 output_digest(const Hash32& salt, std::string_view name, ByteView content);

// What a duration becomes: 0 for under a second, then one bucket per doubling, 15 at most (4 bits).
std::int64_t duration_bucket(std::int64_t seconds);

}  // namespace gbx::gate
