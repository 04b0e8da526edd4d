// Declared schemas of outputs, and how many bits an output of that shape can carry. A schema is
// part of the signed job: it is public and was written before the data was seen, but it is still
// input, so limits apply.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "gate/recipe.h"
#include "gate/records.h"

namespace gbx::gate {

enum class NodeKind { kInteger, kDecimal, kText, kBoolean, kObject, kArray };

// A value's shape. Leaves are numbered in declaration order: `leaf` is the column that evidence and
// records name.
struct Node {
  NodeKind kind = NodeKind::kBoolean;
  NumberType number;               // kInteger, kDecimal
  std::vector<std::string> words;  // kText: the closed list
  std::vector<std::string> names;  // kObject: member names, beside children
  std::vector<Node> children;      // kObject: members; kArray: exactly one
  std::int64_t max_items = 0;      // kArray
  std::int64_t leaf = -1;
};

struct Schema {
  OutputType type = OutputType::kOpaque;
  bool bounded = false;  // false: opaque, or text without a word list; always held
  // table: an object, one row; text: the word list of a line; json, metrics: the value
  Node root;
  std::int64_t max_rows = 0;          // table, text
  std::optional<BoundRecipe> recipe;  // table
};

// Error: kBadValue, kUnknownField, kMissingField, kTooLarge, with the path of the member.
Result<Schema> parse_schema(const OutputDeclaration& declaration);

struct Capacity {
  std::int64_t bits = 0;
  CodeId code = CodeId::kSchema;
};
// An upper bound, in whole bits, on log2 of how many different canonical outputs the declaration
// admits. Needs no data.
Result<Capacity> capacity(const OutputDeclaration& declaration);
// Control channel: exit class 2, decision 2, duration bucket 4.
inline constexpr std::int64_t kControlBits = 8;
// What a job can tell when it is released: control, every output, log bytes that may reach the
// consumer (kHardMaxLogBytes at most). The broker reserves by it before the run, the gate charges
// by it after; the same whatever the container writes.
// A table counts as verified where explained_by() says so, every other output as free. kBadValue,
// too, for a recipe that names no input of the job, or reads the column that names subjects, and
// for two that read two files of one asset, or one through two inputs.
Result<Charge> job_charge(const std::vector<OutputDeclaration>& outputs,
                          const std::vector<GateInput>& inputs, std::int64_t log_bytes);
// The same of the job that a request describes; a run that was not ok delivers no outputs.
Result<Charge> release_charge(const GateRequest& request);
// The input, and the owner's rule for its file, by which the gate computes the table itself;
// nothing where it has no recipe, or its input's owner allows none for that file.
struct Explained {
  const GateInput* input = nullptr;
  const GateTable* table = nullptr;
};
std::optional<Explained> explained_by(const Schema& schema, const std::vector<GateInput>& inputs);
// Bytes of log that may reach the consumer under request and policy.
std::int64_t consumer_log_bytes(const GateRequest& request);

// An upper bound on 2^32 × log2(n), by less than 2; exact for powers of two. n >= 1.
std::uint64_t log2_upper_q32(UWide n);

}  // namespace gbx::gate
