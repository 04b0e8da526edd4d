// Turns what a container wrote into what may leave: parsed against the declared schema, rounded,
// sorted, bounded, written anew. Everything in the result is a value that the declaration names;
// canonicalising it again gives the same bytes.
#pragma once

#include <string>
#include <vector>

#include "gate/schema.h"

namespace gbx::gate {

// A released value. Rows of a table count in canonical order; in other types a row is one object or
// list of values. `number` says how the text was rounded; it is absent for words and truth values,
// which the declaration already names.
struct Cell {
  std::int64_t row = 0;
  std::int64_t column = 0;  // the leaf's number in the declaration
  std::string text;
  std::optional<NumberType> number;
};

struct Canonical {
  GateReason failure = GateReason::kAnalyserError;  // kNone when `bytes` holds the canonical form
  EvidenceRef where;
  Bytes bytes;
  std::vector<Cell> cells;
  bool ok() const { return failure == GateReason::kNone; }
};

struct CanonicalLimits {
  std::int64_t max_bytes = kHardMaxOutputBytes;
  std::int64_t max_rows = kHardMaxRows;
};
// Opaque output and text without a word list pass as they are, with no cells; the opaque analyser
// holds them.
Canonical canonicalise(const OutputDeclaration& declaration, ByteView raw,
                       CanonicalLimits limits = {});

}  // namespace gbx::gate
