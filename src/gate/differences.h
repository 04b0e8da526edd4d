// What two tables over one file tell together. Each may be about many, and the difference of two of
// their numbers about one: whoever has both tables has it.
#pragma once

#include "gate/cells.h"

namespace gbx::gate {

// Steps left for the comparisons of one job, each an entry of a cell that is looked at.
struct DifferenceSteps {
  std::uint64_t left = 1'000'000'000;
};

// Is there a cell of one table and a cell of the other, or a whole table, that have people in
// common and
// - whose subjects differ by one to least - 1; or,
// - where both tables add something up: one to least - 1 subjects have not the same rows in both;
//   or,
// - where both add up the same (rows, or one column), of those who have other rows: one or two make
//   up the difference of the sums, or few stand out in it (shares.h), or it is nobody's; or,
// - of which two numbers (subjects, rows, columns' sums; of cells together, subjects counted in
// each)
//   are the same people's but for one to least - 1: all others add to both the same, or nothing;
//   or,
// - that are of the same rows and add up two columns, whose difference is few people's, or of which
//   all but few have one; or,
// - that are of the same people, though one recipe's filters ask for more than the other's, or of
//   the same rows, though filters and words do: then all of them are what is asked for; or
//   filters of one ask of a column of which the other's recipe asks nothing.
// True, too, when `steps` do not suffice to know.
bool differ_by_few(const RecomputedTable& a, const RecomputedTable& b, std::int64_t least,
                   DifferenceSteps& steps);
// Are there two cells of one table, with people in common, of which the difference of two sums of
// the same (rows, or one column) is few people's? A premium by month, that changed for one.
bool cells_differ_by_few(const RecomputedTable& t, std::int64_t least, DifferenceSteps& steps);

}  // namespace gbx::gate
