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
// - where both add up the same (rows, or one column): one to least - 1 subjects add other rows, or
//   the difference of the two sums is dominated by one or two subjects (cells.h), or is nobody's?
// True, too, when `steps` do not suffice to know.
bool differ_by_few(const RecomputedTable& a, const RecomputedTable& b, std::int64_t least,
                   DifferenceSteps& steps);

}  // namespace gbx::gate
