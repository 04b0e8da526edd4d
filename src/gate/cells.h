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
#include "gate/shares.h"

namespace gbx::gate {

struct CellLimits {
  std::uint64_t rows = 100'000'000;
  std::size_t line_bytes = 1U << 20;
  std::size_t columns = 4096;
  std::size_t subjects = 2'000'000;        // of one input file
  std::size_t subject_bytes = 256U << 20;  // of all their names together
  // Of all tables of one pass: pairs of a subject with a cell that it is in, or that a filter keeps
  // it out of, and with each measure in it that adds something up. Some hundred bytes each, of
  // which all must fit the gate's memory.
  std::size_t subject_cells = 12'000'000;
};

// One of a column, a row or a person, in the unit in which all of them are added up: 10^-12.
inline constexpr int kAddedScale = 12;
inline constexpr Wide kAddedOne = 1'000'000'000'000;

// What is true of one cell. Subjects are numbered within the input file.
struct CellFacts {
  std::vector<std::uint32_t> subjects;  // rising
  std::uint64_t rows = 0;
  // Of any measure that adds something up:
  bool dominated = false;        // one subject, or two, make up too much of it
  bool few_unusual = false;      // all add the same but for few (Unusual::few), or few add any
  bool few_perhaps = false;      // the same of rows; or only half add the same (Unusual::half)
  bool unusual_alone = false;    // what is off the usual is one's or two's (Unusual::dominated)
  bool all_same = false;         // every row adds the same value, so it is everybody's own
  bool between_columns = false;  // several such measures tell of few together
  // Of subjects with rows that the filter leaves out of this cell: all, and those with no row in
  // it.
  std::size_t left_out = 0;
  std::size_t gone = 0;
  // For each of `subjects`: a mark of which rows of the file are in the cell (equal for equal
  // rows), and what they add to each of RecomputedTable::adds, in units of 1 / kAddedOne.
  std::vector<std::uint64_t> row_marks = {};
  std::vector<Wide> added = {};
};

struct RecomputedTable {
  GateReason failure = GateReason::kAnalyserError;  // kNone when the rest counts
  std::vector<CellFacts> cells;                     // as BoundRecipe numbers them
  const BoundRecipe* recipe = nullptr;              // its task's
  std::vector<GateZero> impossible;                 // the same
  // What measures add up: a column, or "" for rows, which a mean tells, too: there are few numbers
  // by which it can be multiplied so that a sum comes out.
  std::vector<std::string> adds;
  // A row that the filter keeps out has a word of a group that the recipe does not list, or no
  // number where it asks for one, and is not kept out by a filter on that column: that the table
  // can be computed tells who else has it.
  bool words_left_out = false;
  Bytes csv;  // every number exact; not yet canonical
  bool ok() const { return failure == GateReason::kNone; }
};

// One table to compute; `subject` is the column that the owner's policy names, `least` the fewest
// subjects of a cell.
struct TableTask {
  const BoundRecipe* recipe = nullptr;
  const Schema* schema = nullptr;
  std::string subject;
  std::int64_t least = 0;
  std::vector<GateZero> impossible = {};  // what the owner says cannot be
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

// sum ÷ (count × 10^scale) in decimal, long enough that rounding it to any declared place is
// rounding the exact quotient. count > 0.
std::string quotient_text(Wide sum, std::uint64_t count, int scale);

}  // namespace gbx::gate
