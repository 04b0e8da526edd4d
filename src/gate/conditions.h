// What a recipe asks of a row before it counts the row in a cell, and what follows from that.
#pragma once

#include "gate/recipe.h"
#include "gate/records.h"

namespace gbx::gate {

struct Condition {
  RecipeFilter is;
  Decimal value = {};  // of is.value, where numbers are compared
};
// Does it hold of this cell of the input? `readable` is false where that is no number, and a number
// is asked for.
bool holds(const RecipeFilter& f, const Decimal& value, const std::string& cell, bool& readable);
// The filters, and what the words of `cell` ask; of the whole table where there is none.
std::vector<Condition> conditions_of(const BoundRecipe& recipe, std::optional<std::size_t> cell);
// What one word of a group asks.
std::vector<Condition> conditions_of_word(const BoundRecipe& recipe, std::size_t group,
                                          std::size_t word);
// Every row of which all of `a` hold is one of which all of `b` hold, as far as single conditions
// on one column show it.
bool implies(const std::vector<Condition>& a, const std::vector<Condition>& b);

// The owner says that there is no row of which all of `known` hold.
bool cannot_occur(const std::vector<Condition>& known, const std::vector<GateZero>& impossible);
// The words of `other`'s groups that are the only ones which rows of `known` can have, by what the
// owner says is impossible.
std::vector<Condition> forced_words(const std::vector<Condition>& known, const BoundRecipe& other,
                                    const std::vector<GateZero>& impossible);

}  // namespace gbx::gate
