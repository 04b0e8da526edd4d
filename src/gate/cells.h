// The gate's own count of a declared table: streams the input that the recipe names, once, and
// computes every cell with whom it is about. What the container printed is never looked at here.
// Memory is bounded by the limits below, not by the input. The input is the owner's, but in a job
// of several owners each is a stranger to the others, so it is parsed like hostile bytes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gate/canonical.h"
#include "gate/folder.h"

namespace gbx::gate {

struct CellLimits {
  std::uint64_t rows = 100'000'000;
  std::size_t line_bytes = 1U << 20;
  std::size_t columns = 4096;
  std::size_t subjects = 2'000'000;        // of one input file
  std::size_t subject_bytes = 256U << 20;  // of all their names together
  // Of all tables of one pass: pairs of a subject with a cell, and with each measure in it that
  // adds something up. Some hundred bytes each, of which all must fit the gate's memory.
  std::size_t subject_cells = 12'000'000;
};

// What is true of one cell. Subjects are numbered within the input file.
struct CellFacts {
  std::vector<std::uint32_t> subjects;  // rising
  std::uint64_t rows = 0;
  // For every measure that adds something up: does one subject, or do two, make up too much of it?
  bool dominated = false;
  bool all_same = false;  // every row adds the same value, so a mean or sum is everybody's own
  // Subjects with rows that the filter leaves out of this cell: counted up to `least`.
  std::size_t left_out = 0;
  // For each of `subjects`: a mark of which rows of the file are in the cell (equal for equal
  // rows), and what they add to each of RecomputedTable::adds, 10^-12 the unit of columns.
  std::vector<std::uint64_t> row_marks = {};
  std::vector<Wide> added = {};
};

struct RecomputedTable {
  GateReason failure = GateReason::kAnalyserError;  // kNone when the rest counts
  std::vector<CellFacts> cells;                     // as BoundRecipe numbers them
  std::vector<std::string> adds;  // what measures add up: a column, or "" for rows
  Bytes csv;                      // every number exact; not yet canonical
  bool ok() const { return failure == GateReason::kNone; }
};

// One table to compute; `subject` is the column that the owner's policy names, `least` the fewest
// subjects of a cell.
struct TableTask {
  const BoundRecipe* recipe = nullptr;
  const Schema* schema = nullptr;
  std::string subject;
  std::int64_t least = 0;
};

// Feeds the chunks of one file; the chunks' borders mean nothing. Several tables share the pass.
// `salt` is in the marks of rows: who chooses recipes does not know it, so cannot choose rows whose
// marks are equal.
class CellCounter {
 public:
  explicit CellCounter(std::vector<TableTask> tasks, CellLimits limits = {},
                       const Hash32& salt = {});
  ~CellCounter();
  CellCounter(CellCounter&&) = delete;
  CellCounter& operator=(CellCounter&&) = delete;
  void feed(ByteView chunk);
  // One for each task.
  std::vector<RecomputedTable> finish();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

inline UWide magnitude(Wide v) { return static_cast<UWide>(v < 0 ? -v : v); }

// (1, 50 %) and (2, 67 %) on absolute values: true when the largest contributor has more than half
// of the total, or the two largest more than two thirds; true of a total of zero, too.
bool dominated(UWide largest, UWide second, UWide total);

// sum ÷ (count × 10^scale) in decimal, long enough that rounding it to any declared place is
// rounding the exact quotient. count > 0.
std::string quotient_text(Wide sum, std::uint64_t count, int scale);

}  // namespace gbx::gate
