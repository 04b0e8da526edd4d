// The rules of tables that recipes explain. All of them judge what the gate computed from the
// inputs (cells.h); the container's table is only held against it.
#include <algorithm>
#include <map>

#include "gate/analysers.h"
#include "gate/conditions.h"
#include "gate/differences.h"

namespace gbx::gate {
namespace {

constexpr std::size_t kMaxEvidence = 16;

AnalyserResult result(RuleId rule, RuleStatus status, GateReason reason) {
  return AnalyserResult{rule, status, reason, {}};
}

// Findings of one rule, one for each output and reason, with the first places.
class Findings {
 public:
  explicit Findings(RuleId rule) : rule_(rule) {}
  void add(RuleStatus status, GateReason reason, const EvidenceRef& where) {
    for (auto& r : results_) {
      if (r.reason != reason || r.evidence[0].output != where.output) continue;
      if (r.evidence.size() < kMaxEvidence) r.evidence.push_back(where);
      return;
    }
    results_.push_back(result(rule_, status, reason));
    results_.back().evidence.push_back(where);
  }
  std::vector<AnalyserResult> take() {
    if (results_.empty()) results_.push_back(result(rule_, RuleStatus::kPass, GateReason::kNone));
    return std::move(results_);
  }

 private:
  RuleId rule_;
  std::vector<AnalyserResult> results_;
};

// Which row of the canonical table stands for which cell of the recipe; -1: none does.
std::vector<std::int64_t> rows_of_cells(const BoundRecipe& r, const Canonical& table) {
  std::map<std::int64_t, std::vector<std::string>> rows;
  for (const Cell& cell : table.cells) {
    auto& words = rows[cell.row];
    words.resize(r.group_columns.size());
    for (std::size_t g = 0; g < r.group_columns.size(); ++g) {
      if (static_cast<std::size_t>(cell.column) == r.group_columns[g]) words[g] = cell.text;
    }
  }
  std::map<std::vector<std::string>, std::int64_t> by_words;
  for (auto& [row, words] : rows) by_words.emplace(std::move(words), row);
  std::vector<std::int64_t> out;
  for (std::size_t n = 0; n < r.cell_count; ++n) {
    const std::vector<std::size_t> cell = cell_words(r, n);
    std::vector<std::string> words;
    for (std::size_t g = 0; g < cell.size(); ++g) words.push_back(r.words[g][cell[g]]);
    const auto it = by_words.find(words);
    out.push_back(it == by_words.end() ? -1 : it->second);
  }
  return out;
}

// Computes all tables of one file of one input in one pass.
void recompute(GateView& view, const Explained& file) {
  std::vector<TableTask> tasks;
  std::vector<OutputView*> tables;
  for (OutputView& o : view.outputs) {
    if (!o.explained || o.explained->table != file.table) continue;
    tasks.push_back({&*o.schema.recipe, &o.schema, file.table->subject,
                     view.request.policy.cellSubjects, file.table->structuralZeros});
    tables.push_back(&o);
  }
  CellCounter counter(std::move(tasks), {}, view.request.salt);
  const Status read = stream_file(static_cast<int>(file.input->fd), file.table->file,
                                  [&](ByteView chunk) { counter.feed(chunk); });
  std::vector<RecomputedTable> found = counter.finish();
  for (std::size_t i = 0; i < tables.size(); ++i) {
    tables[i]->table = std::move(found[i]);
    if (!read.ok()) tables[i]->table.failure = GateReason::kRecipeInput;
  }
}

// Holds the container's table against the computed one, both as they would leave.
void compare_table(const GateRequest& r, const OutputDeclaration& d, OutputView& o,
                   Findings& findings) {
  EvidenceRef where{d.name, -1, -1};
  if (!o.table.ok()) {
    findings.add(RuleStatus::kError, o.table.failure, where);
    return;
  }
  const CanonicalLimits limits{r.policy.maxOutputBytes, r.policy.maxRows};
  const Canonical due = canonicalise(d, o.table.csv, limits);
  if (!due.ok()) {
    findings.add(RuleStatus::kError, GateReason::kRecipeTable, where);
    return;
  }
  o.verified = o.canonical.ok() && o.canonical.bytes == due.bytes;
  if (o.verified) return;
  const auto& theirs = o.canonical.cells;
  for (std::size_t i = 0; i < std::min(theirs.size(), due.cells.size()); ++i) {
    if (theirs[i].text == due.cells[i].text) continue;
    where.row = theirs[i].row;
    where.column = theirs[i].column;
    break;
  }
  findings.add(RuleStatus::kFail, GateReason::kRecipeMismatch, where);
}

// One rule over every table that was computed. `look` is given the place in view.outputs.
template <class Look>
std::vector<AnalyserResult> over_tables(GateView& view, RuleId rule, Look look) {
  if (view.request.exitClass != RunExit::kOk) {
    return {result(rule, RuleStatus::kNotApplicable, GateReason::kRunNotOk)};
  }
  const bool any = std::any_of(view.outputs.begin(), view.outputs.end(),
                               [](const OutputView& o) { return o.explained.has_value(); });
  // Nothing says what such numbers stand for, so no rule about people can be asked of them.
  if (!any) return {result(rule, RuleStatus::kNotApplicable, GateReason::kNoRecipe)};
  Findings findings(rule);
  for (std::size_t i = 0; i < view.outputs.size(); ++i) {
    const OutputView& o = view.outputs[i];
    if (!o.explained) continue;
    if (o.table.ok()) {
      look(i, findings);
    } else {
      findings.add(RuleStatus::kError, GateReason::kNotRecomputed,
                   {view.request.outputs[i].name, -1, -1});
    }
  }
  return findings.take();
}

// All cells of a line along group `g` are those whose other words agree, but for `impossible` ones.
std::vector<std::vector<std::size_t>> lines_along(const BoundRecipe& r, std::size_t g,
                                                  const std::vector<bool>& impossible) {
  std::map<std::vector<std::size_t>, std::vector<std::size_t>> lines;
  for (std::size_t n = 0; n < r.cell_count; ++n) {
    if (impossible[n]) continue;
    std::vector<std::size_t> others = cell_words(r, n);
    others[g] = 0;
    lines[others].push_back(n);
  }
  std::vector<std::vector<std::size_t>> out;
  for (auto& [others, cells] : lines) out.push_back(std::move(cells));
  return out;
}

// For each cell: is whoever has its words let in by all filters? Then no filter asks anything of
// it.
std::vector<bool> words_ask_what_filters_ask(const BoundRecipe& r) {
  const std::vector<Condition> filters = conditions_of(r, std::nullopt);
  std::vector<std::vector<std::uint32_t>> asked(
      r.words.size());  // of each word, a bit for a filter
  for (std::size_t g = 0; g < r.words.size(); ++g) {
    for (std::size_t w = 0; w < r.words[g].size(); ++w) {
      const std::vector<Condition> word = conditions_of_word(r, g, w);
      asked[g].push_back(0);
      for (std::size_t i = 0; i < filters.size(); ++i) {
        if (implies(word, {filters[i]})) asked[g][w] |= std::uint32_t{1} << i;
      }
    }
  }
  std::vector<bool> out;
  for (std::size_t n = 0; n < r.cell_count; ++n) {
    const std::vector<std::size_t> words = cell_words(r, n);
    std::uint32_t all = 0;
    for (std::size_t g = 0; g < words.size(); ++g) all |= asked[g][words[g]];
    out.push_back(all == (std::uint32_t{1} << filters.size()) - 1);
  }
  return out;
}
// Whoever is let in has the only word of group `g`, because the recipe says so.
bool filters_ask_word(const BoundRecipe& r, std::size_t g) {
  const std::string& column = (*r.recipe.group_by)[g].column;
  return implies(conditions_of(r, std::nullopt),
                 {{{column, Comparison::kEquals, r.words[g][0]}, {}}});
}

}  // namespace

std::vector<AnalyserResult> analyse_recipe(GateView& view) {
  if (!view.scan.ok()) {
    return {result(RuleId::kRecipe, RuleStatus::kError, GateReason::kUnreadable)};
  }
  std::vector<const GateTable*> files;
  for (const OutputView& o : view.outputs) {
    if (!o.explained) continue;
    if (std::find(files.begin(), files.end(), o.explained->table) != files.end()) continue;
    files.push_back(o.explained->table);
    const Explained file = *o.explained;
    recompute(view, file);
  }
  Findings findings(RuleId::kRecipe);
  for (std::size_t i = 0; i < view.outputs.size(); ++i) {
    if (!view.outputs[i].explained) continue;
    compare_table(view.request, view.request.outputs[i], view.outputs[i], findings);
  }
  if (!files.empty()) return findings.take();
  const bool ok = view.request.exitClass == RunExit::kOk;
  return {result(RuleId::kRecipe, RuleStatus::kNotApplicable,
                 ok ? GateReason::kNoRecipe : GateReason::kRunNotOk)};
}

std::vector<AnalyserResult> analyse_cells(GateView& view) {
  return over_tables(view, RuleId::kCells, [&](std::size_t i, Findings& findings) {
    const OutputView& o = view.outputs[i];
    const auto rows = rows_of_cells(*o.schema.recipe, o.canonical);
    const auto least = static_cast<std::size_t>(view.request.policy.cellSubjects);
    for (std::size_t n = 0; n < o.table.cells.size(); ++n) {
      const CellFacts& c = o.table.cells[n];
      if (c.subjects.empty()) continue;
      const EvidenceRef where{view.request.outputs[i].name, rows[n], -1};
      // Few are in it; or few are what it counts, as the ones of a column of zeros.
      if (c.subjects.size() < least || c.few_unusual) {
        findings.add(RuleStatus::kFail, GateReason::kSmallCell, where);
      }
      if (c.dominated) findings.add(RuleStatus::kFail, GateReason::kDominatedCell, where);
    }
  });
}

std::vector<AnalyserResult> analyse_groups(GateView& view) {
  return over_tables(view, RuleId::kGroups, [&](std::size_t i, Findings& findings) {
    const OutputView& o = view.outputs[i];
    const BoundRecipe& r = *o.schema.recipe;
    const auto rows = rows_of_cells(r, o.canonical);
    const auto found = [&](GateReason why, std::size_t n) {
      findings.add(RuleStatus::kFail, why, {view.request.outputs[i].name, rows[n], -1});
    };
    const auto empty = [&](std::size_t n) { return o.table.cells[n].subjects.empty(); };
    const std::vector<bool> asked_anyway = words_ask_what_filters_ask(r);
    std::vector<bool> impossible;
    for (std::size_t n = 0; n < r.cell_count; ++n) {
      // The consumer's own word for it would be a question: whether anybody of a group is there.
      impossible.push_back(r.structural_zeros[n] &&
                           cannot_occur(conditions_of(r, n), o.explained->table->structuralZeros));
      const CellFacts& cell = o.table.cells[n];
      if (empty(n) && !impossible[n]) found(GateReason::kEmptyCell, n);
      // What the filter asks is true of everybody who is asked; where it does not follow from the
      // cell's words.
      if (!empty(n) && cell.left_out == 0 && !asked_anyway[n]) {
        found(GateReason::kGroupDisclosed, n);
      }
      if (cell.all_same) found(GateReason::kSameValues, n);
      if (cell.few_perhaps && !cell.few_unusual) found(GateReason::kSmallCell, n);
      if (cell.unusual_alone && !cell.dominated && !cell.few_unusual && !cell.few_perhaps) {
        found(GateReason::kDominatedCell, n);
      }
    }
    if (o.table.words_left_out) {
      findings.add(RuleStatus::kFail, GateReason::kGroupDisclosed,
                   {view.request.outputs[i].name, -1, -1});
    }
    // Whoever knows all other words of somebody learns this one.
    for (std::size_t g = 0; g < r.words.size(); ++g) {
      // That the table is there tells that nobody has another word than the only one.
      const bool only_word = r.words[g].size() == 1 && r.cuts[g].empty() && !filters_ask_word(r, g);
      for (const auto& line : lines_along(r, g, impossible)) {
        const auto full =
            std::count_if(line.begin(), line.end(), [&](auto n) { return !empty(n); });
        if ((line.size() < 2 && !only_word) || full != 1) continue;
        found(GateReason::kGroupDisclosed,
              *std::find_if(line.begin(), line.end(), [&](auto n) { return !empty(n); }));
      }
    }
  });
}

std::vector<AnalyserResult> analyse_differences(GateView& view) {
  const std::int64_t least = view.request.policy.cellSubjects;
  DifferenceSteps steps;
  return over_tables(view, RuleId::kDifferences, [&](std::size_t i, Findings& findings) {
    const OutputView& o = view.outputs[i];
    const std::string& name = view.request.outputs[i].name;
    const auto rows = rows_of_cells(*o.schema.recipe, o.canonical);
    for (std::size_t n = 0; n < o.table.cells.size(); ++n) {
      const CellFacts& c = o.table.cells[n];
      const auto few = [least](std::size_t people) {
        return people > 0 && static_cast<std::int64_t>(people) < least;
      };
      const EvidenceRef where{name, rows[n], -1};
      if (few(c.left_out) || few(c.gone)) {
        findings.add(RuleStatus::kFail, GateReason::kFewLeftOut, where);
      }
      const bool told = c.dominated || c.few_unusual;
      if (c.between_columns && !told) {
        findings.add(RuleStatus::kFail, GateReason::kFewDiffer, where);
      }
    }
    if (cells_differ_by_few(o.table, least, steps)) {
      findings.add(RuleStatus::kFail, GateReason::kFewDiffer, {name, -1, -1});
    }
    for (std::size_t k = 0; k < i; ++k) {
      const OutputView& other = view.outputs[k];
      if (!other.explained || other.explained->table != o.explained->table) continue;
      if (!other.table.ok() || !differ_by_few(o.table, other.table, least, steps)) continue;
      findings.add(RuleStatus::kFail, GateReason::kFewDiffer, {name, -1, -1});
    }
  });
}

}  // namespace gbx::gate
