// How a declared table follows from an input: filter, groups and measures over columns of a CSV
// file. It is part of the signed job, so it was chosen before the data was seen; the gate computes
// the table again from it (cells.h), which leaves the container nothing to choose. It is public
// input nevertheless, so limits apply. docs/gate.md says what each member means.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fields.h"
#include "gate/decimal.h"

namespace gbx::gate {

struct Schema;

// equals and differs compare the cell's text; the others compare exact decimals.
enum class Comparison { kEquals, kDiffers, kBelow, kAtMost, kAbove, kAtLeast };
inline std::span<const EnumName<Comparison>> enum_names(Comparison) {
  static constexpr EnumName<Comparison> k[] = {
      {Comparison::kEquals, "equals"}, {Comparison::kDiffers, "differs"},
      {Comparison::kBelow, "below"},   {Comparison::kAtMost, "at-most"},
      {Comparison::kAbove, "above"},   {Comparison::kAtLeast, "at-least"}};
  return k;
}
enum class MeasureKind { kRows, kSubjects, kSum, kMean };
inline std::span<const EnumName<MeasureKind>> enum_names(MeasureKind) {
  static constexpr EnumName<MeasureKind> k[] = {{MeasureKind::kRows, "rows"},
                                                {MeasureKind::kSubjects, "subjects"},
                                                {MeasureKind::kSum, "sum"},
                                                {MeasureKind::kMean, "mean"}};
  return k;
}

inline constexpr std::size_t kMaxRecipeText = 128;
inline constexpr std::int64_t kMaxRecipeCells = 20'000;  // of one table

struct RecipeFilter {
  std::string column;
  Comparison is = Comparison::kEquals;
  std::string value;
  template <class F>
  void fields(F& f) {
    f("column", column, Bound{1, kMaxRecipeText});
    f("is", is);
    f("value", value, Bound{0, kMaxRecipeText});
  }
};
// `name` is the table's column, whose list of words is the closed domain: the words that stand in
// the input, or with `cuts` one word for each range below, between and from the cuts.
struct RecipeGroup {
  std::string name;
  std::string column;
  std::optional<std::vector<std::string>> cuts = {};
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, kMaxRecipeText});
    f("column", column, Bound{1, kMaxRecipeText});
    f("cuts", cuts, Bound{1, 64, kMaxRecipeText});
  }
};
struct RecipeMeasure {
  std::string name;
  MeasureKind of = MeasureKind::kSubjects;
  std::optional<std::string> column = {};  // of sum and mean
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, kMaxRecipeText});
    f("of", of);
    f("column", column, Bound{1, kMaxRecipeText});
  }
};
// A combination of words that cannot occur, one for each group: it has no row in the table.
struct StructuralZero {
  std::vector<std::string> words;
  template <class F>
  void fields(F& f) {
    f("words", words, Bound{1, 8, 256});
  }
};
struct Recipe {
  std::string input;                                     // a name among spec.inputs
  std::string file;                                      // beneath its mount
  std::optional<std::vector<RecipeFilter>> filter = {};  // all of them must hold
  std::optional<std::vector<RecipeGroup>> group_by = {};
  std::vector<RecipeMeasure> measures;
  std::optional<std::int64_t> round_to = {};  // counts become multiples of it; absent: 1
  std::optional<std::vector<StructuralZero>> structural_zeros = {};
  template <class F>
  void fields(F& f) {
    f("input", input, Bound{1, 63});
    f("file", file, Bound{1, 200});
    f("filter", filter, Bound{1, 16});
    f("groupBy", group_by, Bound{1, 8});
    f("measures", measures, Bound{1, 8});
    f("roundTo", round_to, Bound{1, 1000});
    f("structuralZeros", structural_zeros, Bound{1, 1024});
  }
};

// A recipe that fits its table: every column is exactly one group or measure.
struct BoundRecipe {
  Recipe recipe;
  std::vector<std::size_t> group_columns;    // of the table, one for each group
  std::vector<std::size_t> measure_columns;  // one for each measure
  std::vector<std::vector<Decimal>> cuts;    // one for each group, rising; empty: by words
  std::vector<Decimal> filter_values;        // one for each filter; zero where it compares text
  std::vector<std::vector<std::string>> words;
  // A cell is a combination of one word of each group. They are numbered with the last group's
  // words fastest; cell_words() takes a number apart.
  std::size_t cell_count = 0;
  std::vector<bool> structural_zeros;  // of each cell: it has no row in the table
  Hash32 hash{};                       // of the canonical form
};
// For each group, which of its words: an index into BoundRecipe::words.
std::vector<std::size_t> cell_words(const BoundRecipe& recipe, std::size_t cell);
// `schema` is the table's, parsed. Errors: as parse_schema(), with the path below "recipe".
Result<BoundRecipe> parse_recipe(const Json& recipe, const Schema& schema);

// Exact: -1, 0, 1.
int compare(const Decimal& a, const Decimal& b);

}  // namespace gbx::gate
