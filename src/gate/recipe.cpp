#include "gate/recipe.h"

#include <algorithm>
#include <set>

#include "crypto/crypto.h"
#include "gate/schema.h"

namespace gbx::gate {
namespace {

std::string entry(const char* list, std::size_t i) {
  return std::string(list) + "[" + std::to_string(i) + "]";
}

bool compares_numbers(Comparison c) {
  return c != Comparison::kEquals && c != Comparison::kDiffers;
}

// Fills a BoundRecipe member by member; every error names the member.
class Binder {
 public:
  Binder(Recipe recipe, const Schema& schema) : schema_(schema) { out_.recipe = std::move(recipe); }

  Result<BoundRecipe> run() && {
    GBX_TRY(filters());
    GBX_TRY(groups());
    GBX_TRY(measures());
    for (const auto& name : schema_.root.names) {
      if (used_.count(name) == 0) {
        return fail(Reason::kBadValue, "measures")
            .with("a group or a measure for every column", "none for " + name);
      }
    }
    GBX_TRY(cells());
    GBX_TRY(zeros());
    const auto rows = std::count(out_.structural_zeros.begin(), out_.structural_zeros.end(), false);
    if (rows > schema_.max_rows) {
      return fail(Reason::kBadValue, "maxRows")
          .with("room for every combination of the groups' words, " + std::to_string(rows),
                std::to_string(schema_.max_rows));
    }
    out_.hash = crypto::labelled_hash("gbx/1/recipe", as_bytes(canonical(to_json(out_.recipe))));
    return std::move(out_);
  }

 private:
  Status filters() {
    if (!out_.recipe.filter) return ok_status();
    for (std::size_t i = 0; i < out_.recipe.filter->size(); ++i) {
      const RecipeFilter& f = (*out_.recipe.filter)[i];
      out_.filter_values.emplace_back();
      if (!compares_numbers(f.is)) continue;
      Result<Decimal> value = parse_decimal(f.value);
      if (!value.ok()) return not_a_number(join_path(entry("filter", i), "value"), f.value);
      out_.filter_values.back() = std::move(*value);
    }
    return ok_status();
  }
  // The column of the table that has this name and was not used yet.
  Result<std::size_t> column(const std::string& name, const std::string& where) {
    const auto& names = schema_.root.names;
    const auto it = std::find(names.begin(), names.end(), name);
    if (it == names.end() || !used_.insert(name).second) {
      return fail(Reason::kBadValue, where)
          .with(
              it == names.end() ? "the name of a column of the table" : "a column not used before",
              name);
    }
    return static_cast<std::size_t>(it - names.begin());
  }
  Status groups() {
    if (!out_.recipe.group_by) return ok_status();
    for (std::size_t i = 0; i < out_.recipe.group_by->size(); ++i) {
      const RecipeGroup& g = (*out_.recipe.group_by)[i];
      const std::string at = entry("groupBy", i);
      GBX_ASSIGN(const std::size_t c, column(g.name, join_path(at, "name")));
      const Node& node = schema_.root.children[c];
      if (node.kind != NodeKind::kText) {
        return fail(Reason::kBadValue, join_path(at, "name"))
            .with("a column of type text, whose enum is the closed list of groups", g.name);
      }
      out_.group_columns.push_back(c);
      out_.words.push_back(node.words);
      GBX_TRY(cuts(g, node.words.size(), at));
    }
    return ok_status();
  }
  Status cuts(const RecipeGroup& g, std::size_t words, const std::string& at) {
    std::vector<Decimal> values;
    for (const std::string& text : g.cuts.value_or(std::vector<std::string>{})) {
      Result<Decimal> value = parse_decimal(text);
      if (!value.ok()) return not_a_number(join_path(at, "cuts"), text);
      if (!values.empty() && compare(values.back(), *value) >= 0) {
        return fail(Reason::kBadValue, join_path(at, "cuts")).with("rising numbers", text);
      }
      values.push_back(std::move(*value));
    }
    if (!values.empty() && words != values.size() + 1) {
      return fail(Reason::kBadValue, join_path(at, "cuts"))
          .with("one less than the words of the column, " + std::to_string(words),
                std::to_string(values.size()));
    }
    out_.cuts.push_back(std::move(values));
    return ok_status();
  }
  Status measures() {
    for (std::size_t i = 0; i < out_.recipe.measures.size(); ++i) {
      const RecipeMeasure& m = out_.recipe.measures[i];
      const std::string at = entry("measures", i);
      GBX_ASSIGN(const std::size_t c, column(m.name, join_path(at, "name")));
      const Node& node = schema_.root.children[c];
      const bool count = m.of == MeasureKind::kRows || m.of == MeasureKind::kSubjects;
      const bool integer = node.kind == NodeKind::kInteger;
      if (!integer && (count || node.kind != NodeKind::kDecimal)) {
        return fail(Reason::kBadValue, join_path(at, "name"))
            .with(count ? "a column of type integer" : "a column of type integer or decimal",
                  m.name);
      }
      if (count == m.column.has_value()) {
        return fail(Reason::kBadValue, join_path(at, "column"))
            .with(count ? "no column for a count" : "the input's column", count ? "one" : "none");
      }
      out_.measure_columns.push_back(c);
    }
    if (out_.measure_columns.empty()) {
      return fail(Reason::kBadValue, "measures").with("1 to 8 measures", "none");
    }
    return ok_status();
  }
  Status cells() {
    std::size_t count = 1;
    for (const auto& words : out_.words) {
      count *= words.size();  // at most 20,000 × 4,096
      if (count > static_cast<std::size_t>(kMaxRecipeCells)) {
        return fail(Reason::kTooLarge, "groupBy")
            .with("at most " + std::to_string(kMaxRecipeCells) + " combinations of words", "more");
      }
    }
    out_.cell_count = count;
    out_.structural_zeros.resize(count);
    return ok_status();
  }
  Status zeros() {
    if (!out_.recipe.structural_zeros) return ok_status();
    for (std::size_t i = 0; i < out_.recipe.structural_zeros->size(); ++i) {
      const auto& words = (*out_.recipe.structural_zeros)[i].words;
      const std::string at = join_path(entry("structuralZeros", i), "words");
      if (words.size() != out_.words.size()) {
        return fail(Reason::kBadValue, at)
            .with("one word for each group", std::to_string(words.size()) + " words");
      }
      std::size_t n = 0;
      for (std::size_t g = 0; g < words.size(); ++g) {
        const auto it = std::find(out_.words[g].begin(), out_.words[g].end(), words[g]);
        if (it == out_.words[g].end()) {
          return fail(Reason::kBadValue, at).with("a word of its column", words[g]);
        }
        n = n * out_.words[g].size() + static_cast<std::size_t>(it - out_.words[g].begin());
      }
      if (out_.structural_zeros[n]) {
        return fail(Reason::kBadValue, at).with("a combination not named before", "named twice");
      }
      out_.structural_zeros[n] = true;
    }
    return ok_status();
  }
  static Error not_a_number(const std::string& where, const std::string& text) {
    return fail(Reason::kBadValue, where).with("a number, written as text", text);
  }

  const Schema& schema_;
  std::set<std::string> used_;
  BoundRecipe out_;
};

}  // namespace

std::vector<std::size_t> cell_words(const BoundRecipe& r, std::size_t cell) {
  std::vector<std::size_t> words(r.words.size());
  for (std::size_t g = words.size(); g-- > 0;) {
    words[g] = cell % r.words[g].size();
    cell /= r.words[g].size();
  }
  return words;
}

Result<BoundRecipe> parse_recipe(const Json& json, const Schema& schema) {
  GBX_ASSIGN(Recipe recipe, from_json<Recipe>(json));
  return Binder(std::move(recipe), schema).run();
}

int compare(const Decimal& a, const Decimal& b) {
  const auto sign = [](const Decimal& d) { return d.digits.empty() ? 0 : d.negative ? -1 : 1; };
  if (sign(a) != sign(b)) return sign(a) < sign(b) ? -1 : 1;
  if (sign(a) == 0) return 0;
  // Digits have no leading zeros, so the place of the first one decides, then the digits from
  // there; no trailing zeros, so of two with a common beginning the longer is larger.
  const auto place = [](const Decimal& d) {
    return static_cast<std::int64_t>(d.digits.size()) + d.exponent;
  };
  int larger = place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : 0;
  if (larger == 0) larger = a.digits < b.digits ? -1 : a.digits > b.digits ? 1 : 0;
  return sign(a) * larger;
}

}  // namespace gbx::gate
