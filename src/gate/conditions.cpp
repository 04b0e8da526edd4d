#include "gate/conditions.h"

#include <algorithm>
#include <set>

namespace gbx::gate {
namespace {

bool above(Comparison c) { return c == Comparison::kAbove || c == Comparison::kAtLeast; }
bool below(Comparison c) { return c == Comparison::kBelow || c == Comparison::kAtMost; }
bool without_the_border(Comparison c) { return c == Comparison::kAbove || c == Comparison::kBelow; }

bool implies(const Condition& a, const Condition& b) {
  if (a.is.column != b.is.column) return false;
  if (a.is.is == Comparison::kEquals) {
    bool readable = true;
    return holds(b.is, b.value, a.is.value, readable);
  }
  if (a.is.is == Comparison::kDiffers) {
    return b.is.is == Comparison::kDiffers && a.is.value == b.is.value;
  }
  if (!(above(a.is.is) && above(b.is.is)) && !(below(a.is.is) && below(b.is.is))) return false;
  const int c = compare(a.value, b.value);
  if (c == 0) return without_the_border(a.is.is) || !without_the_border(b.is.is);
  return above(a.is.is) ? c > 0 : c < 0;
}

// Rows of `known` have all the words that `zero` names, but perhaps for the word `but`.
bool surely_has(const std::vector<Condition>& known, const GateZero& zero,
                std::optional<std::size_t> but = std::nullopt) {
  if (zero.columns.empty() || zero.words.size() != zero.columns.size()) return false;
  for (std::size_t i = 0; i < zero.columns.size(); ++i) {
    if (i == but) continue;
    const bool has = std::any_of(known.begin(), known.end(), [&](const Condition& c) {
      return c.is.column == zero.columns[i] && c.is.is == Comparison::kEquals &&
             c.is.value == zero.words[i];
    });
    if (!has) return false;
  }
  return true;
}

}  // namespace

bool holds(const RecipeFilter& f, const Decimal& value, const std::string& cell, bool& readable) {
  if (f.is == Comparison::kEquals) return cell == f.value;
  if (f.is == Comparison::kDiffers) return cell != f.value;
  const Result<Decimal> number = parse_decimal(cell);
  readable = number.ok();
  if (!readable) return false;
  const int c = compare(*number, value);
  switch (f.is) {
    case Comparison::kBelow:
      return c < 0;
    case Comparison::kAtMost:
      return c <= 0;
    case Comparison::kAbove:
      return c > 0;
    case Comparison::kAtLeast:
      return c >= 0;
    case Comparison::kEquals:
    case Comparison::kDiffers:
      break;
  }
  return false;
}

std::vector<Condition> conditions_of(const BoundRecipe& recipe, std::optional<std::size_t> cell) {
  std::vector<Condition> out;
  const auto& filters = recipe.recipe.filter;
  for (std::size_t i = 0; filters && i < filters->size(); ++i) {
    out.push_back({(*filters)[i], recipe.filter_values[i]});
  }
  const auto& groups = recipe.recipe.group_by;
  if (!cell || !groups) return out;
  const std::vector<std::size_t> words = cell_words(recipe, *cell);
  for (std::size_t g = 0; g < groups->size(); ++g) {
    for (Condition& c : conditions_of_word(recipe, g, words[g])) out.push_back(std::move(c));
  }
  return out;
}

std::vector<Condition> conditions_of_word(const BoundRecipe& recipe, std::size_t group,
                                          std::size_t word) {
  const std::string& column = (*recipe.recipe.group_by)[group].column;
  const auto& cuts = recipe.cuts[group];
  if (cuts.empty()) return {{{column, Comparison::kEquals, recipe.words[group][word]}, {}}};
  std::vector<Condition> out;
  if (word > 0) out.push_back({{column, Comparison::kAtLeast, ""}, cuts[word - 1]});
  if (word < cuts.size()) out.push_back({{column, Comparison::kBelow, ""}, cuts[word]});
  return out;
}

bool implies(const std::vector<Condition>& a, const std::vector<Condition>& b) {
  return std::all_of(b.begin(), b.end(), [&](const Condition& due) {
    return std::any_of(a.begin(), a.end(),
                       [&](const Condition& known) { return implies(known, due); });
  });
}

bool cannot_occur(const std::vector<Condition>& known, const std::vector<GateZero>& impossible) {
  return std::any_of(impossible.begin(), impossible.end(),
                     [&](const GateZero& z) { return surely_has(known, z); });
}

std::vector<Condition> forced_words(const std::vector<Condition>& known, const BoundRecipe& other,
                                    const std::vector<GateZero>& impossible) {
  std::vector<Condition> out;
  const auto& groups = other.recipe.group_by;
  if (!groups || impossible.empty()) return out;
  for (std::size_t g = 0; g < groups->size(); ++g) {
    const std::string& column = (*groups)[g].column;
    if (!other.cuts[g].empty()) continue;
    std::set<std::string> left(other.words[g].begin(), other.words[g].end());
    for (const GateZero& z : impossible) {
      const auto at = std::find(z.columns.begin(), z.columns.end(), column);
      if (at == z.columns.end()) continue;
      const auto mine = static_cast<std::size_t>(at - z.columns.begin());
      if (surely_has(known, z, mine)) left.erase(z.words[mine]);
    }
    if (left.size() == 1) out.push_back({{column, Comparison::kEquals, *left.begin()}, {}});
  }
  return out;
}

}  // namespace gbx::gate
