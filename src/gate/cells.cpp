#include "gate/cells.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <unordered_set>

#include "gate/conditions.h"
#include "gate/csv.h"
#include "gate/tokens.h"

namespace gbx::gate {
namespace {

// Sums of limits.rows values of this size, times three, fit 127 bits.
Wide largest_value() {
  Wide v = 1;
  for (int i = 0; i < 28; ++i) v *= 10;
  return v;
}

std::string wide_text(UWide v) {
  std::string out;
  do {
    out.insert(out.begin(), static_cast<char>('0' + static_cast<int>(v % 10)));
    v /= 10;
  } while (v != 0);
  return out;
}

// What one measure adds up in one cell.
struct Sum {
  Wide total = 0;
  Wide least = 0;
  Wide most = 0;
};

// What one subject adds to one measure of one cell.
struct Share {
  UWide absolute = 0;
  Wide net = 0;
};

// One table while the input goes by.
class Table {
 public:
  // `room` is what all tables of the pass have left of CellLimits::subject_cells.
  Table(TableTask task, std::size_t& room) : task_(std::move(task)), room_(&room) {
    const auto& measures = recipe().measures;
    for (std::size_t m = 0; m < measures.size(); ++m) {
      if (measures[m].of != MeasureKind::kSubjects) adding_.push_back({m, measures[m].column});
    }
    if (tells_rows_by_a_mean()) adding_.push_back({});
    const std::size_t cells = task_.recipe->cell_count;
    rows_.resize(cells);
    sums_.resize(cells * adding_.size());
    for (std::size_t i = 0; i < groups().size(); ++i) {
      words_.emplace_back();
      for (const auto& w : task_.recipe->words[i]) words_.back().emplace(w, words_.back().size());
    }
  }

  bool failed() const { return failure_ != GateReason::kNone; }
  void fail(GateReason why) {
    if (!failed()) failure_ = why;
  }
  const std::string& subject_column() const { return task_.subject; }

  // Where the recipe's columns stand; every name must be there once.
  void header(const std::vector<std::string>& names) {
    const auto find = [&](const std::string& name) {
      const auto it = std::find(names.begin(), names.end(), name);
      const bool once = it != names.end() && std::find(it + 1, names.end(), name) == names.end();
      if (!once) fail(GateReason::kRecipeColumn);
      return static_cast<std::size_t>(it - names.begin());
    };
    for (const auto& f : filters()) filter_at_.push_back(find(f.column));
    for (const auto& g : groups()) group_at_.push_back(find(g.column));
    for (const Adding& a : adding_) measure_at_.push_back(a.column ? find(*a.column) : 0);
    (void)find(task_.subject);
  }

  void row(const std::vector<std::string>& cells, std::uint32_t subject, std::uint64_t mark) {
    if (failed()) return;
    const bool inside = passes(cells);
    if (failed()) return;
    GateReason why = GateReason::kNone;
    const std::size_t cell = cell_of(cells, why);
    if (!inside) {
      // A row that belongs to no cell is in none without the filter either.
      if (why == GateReason::kNone) leave_out(cell, subject);
      words_left_out_ = words_left_out_ || only_kept_out_by_others(cells);
      return;
    }
    if (why == GateReason::kNone && task_.recipe->structural_zeros[cell]) {
      why = GateReason::kRecipeDomain;
    }
    if (why != GateReason::kNone) {
      fail(why);
      return;
    }
    count(cells, cell, subject, mark);
  }

  RecomputedTable finish() {
    RecomputedTable out;
    if (failed()) {
      out.failure = failure_;
      return out;
    }
    out.recipe = task_.recipe;
    out.impossible = task_.impossible;
    out.words_left_out = words_left_out_;
    for (const Adding& a : adding_) out.adds.push_back(a.column.value_or(""));
    out.cells.resize(rows_.size());
    std::vector<Members> of_cell(rows_.size());
    for (const auto& [key, entry] : entries_) {
      of_cell[cell_in(key)].emplace_back(static_cast<std::uint32_t>(key), entry);
    }
    for (const std::uint64_t key : left_out_) {
      ++out.cells[cell_in(key)].left_out;
      if (entries_.count(key) == 0) ++out.cells[cell_in(key)].gone;
    }
    for (std::size_t c = 0; c < rows_.size(); ++c) {
      CellFacts& facts = out.cells[c];
      std::sort(of_cell[c].begin(), of_cell[c].end());
      facts.subjects.reserve(of_cell[c].size());
      facts.row_marks.reserve(of_cell[c].size());
      facts.added.reserve(of_cell[c].size() * adding_.size());
      for (const auto& [subject, entry] : of_cell[c]) {
        facts.subjects.push_back(subject);
        facts.row_marks.push_back(people_[entry].marks);
        for (std::size_t a = 0; a < adding_.size(); ++a) {
          facts.added.push_back(in_units(entry, a));
        }
      }
      facts.rows = rows_[c];
      if (facts.rows > 0) judge(c, of_cell[c], facts);
    }
    out.failure = write(out);
    return out;
  }

 private:
  // Something that the table adds up: a column's values, or rows.
  struct Adding {
    std::optional<std::size_t> measure;  // none where others imply it
    std::optional<std::string> column;
  };
  struct Person {  // in one cell
    std::uint64_t marks = 0;
    std::uint64_t rows = 0;
  };
  using Members = std::vector<std::pair<std::uint32_t, std::size_t>>;  // subject, entry

  static std::uint64_t key_of(std::size_t cell, std::uint32_t subject) {
    return (static_cast<std::uint64_t>(cell) << 32) | subject;
  }
  static std::size_t cell_in(std::uint64_t key) { return static_cast<std::size_t>(key >> 32); }
  const Recipe& recipe() const { return task_.recipe->recipe; }
  std::size_t least() const { return static_cast<std::size_t>(task_.least); }
  const Share& share(std::size_t entry, std::size_t a) const {
    return shares_[entry * adding_.size() + a];
  }
  bool tells_rows_by_a_mean() const {
    const auto any = [this](MeasureKind kind) {
      return std::any_of(recipe().measures.begin(), recipe().measures.end(),
                         [kind](const RecipeMeasure& m) { return m.of == kind; });
    };
    return any(MeasureKind::kMean) && !any(MeasureKind::kRows);
  }
  // Of a row that is kept out: could it not be counted for what stands in one of its columns, which
  // no filter on that column keeps out? Then that there is a table tells of all others.
  bool only_kept_out_by_others(const std::vector<std::string>& cells) const {
    const auto told = [&](const std::string& column, const std::string& text) {
      for (std::size_t i = 0; i < filters().size(); ++i) {
        bool readable = true;
        const bool yes = filters()[i].column != column ||
                         holds(filters()[i], task_.recipe->filter_values[i], text, readable);
        if (readable && !yes) return false;
      }
      return true;
    };
    for (std::size_t g = 0; g < group_at_.size(); ++g) {
      const std::string& word = cells[group_at_[g]];
      const bool listed =
          task_.recipe->cuts[g].empty() ? words_[g].count(word) != 0 : parse_decimal(word).ok();
      if (!listed && told(groups()[g].column, word)) return true;
    }
    for (std::size_t a = 0; a < adding_.size(); ++a) {
      if (!adding_[a].column) continue;
      const std::string& number = cells[measure_at_[a]];
      if (!value_of(number) && told(*adding_[a].column, number)) return true;
    }
    for (std::size_t i = 0; i < filters().size(); ++i) {
      bool readable = true;
      (void)holds(filters()[i], task_.recipe->filter_values[i], cells[filter_at_[i]], readable);
      if (!readable && told(filters()[i].column, cells[filter_at_[i]])) return true;
    }
    return false;
  }
  static std::optional<Wide> value_of(const std::string& text) {
    const Result<Decimal> number = parse_decimal(text);
    if (!number.ok()) return std::nullopt;
    const Result<Wide> exact = scaled_integer(*number, kAddedScale);
    if (!exact.ok() || magnitude(*exact) > static_cast<UWide>(largest_value())) return std::nullopt;
    return *exact;
  }
  bool take_room(std::size_t units) {
    if (*room_ < units) {
      fail(GateReason::kRecipeTooLarge);
      return false;
    }
    *room_ -= units;
    return true;
  }
  const std::vector<RecipeFilter>& filters() const {
    static const std::vector<RecipeFilter> kNone;
    return recipe().filter ? *recipe().filter : kNone;
  }
  const std::vector<RecipeGroup>& groups() const {
    static const std::vector<RecipeGroup> kNone;
    return recipe().group_by ? *recipe().group_by : kNone;
  }

  // In the order of the recipe; the first one that does not hold ends it, so an earlier filter can
  // keep from a later one what is no number.
  bool passes(const std::vector<std::string>& cells) {
    for (std::size_t i = 0; i < filters().size(); ++i) {
      bool readable = true;
      const bool yes =
          holds(filters()[i], task_.recipe->filter_values[i], cells[filter_at_[i]], readable);
      if (!readable) fail(GateReason::kRecipeValue);
      if (!yes) return false;
    }
    return true;
  }
  std::size_t cell_of(const std::vector<std::string>& cells, GateReason& why) const {
    std::size_t n = 0;
    for (std::size_t g = 0; g < group_at_.size(); ++g) {
      const std::string& text = cells[group_at_[g]];
      const auto& cuts = task_.recipe->cuts[g];
      std::size_t word = 0;
      if (cuts.empty()) {
        const auto it = words_[g].find(text);
        if (it == words_[g].end()) why = GateReason::kRecipeDomain;
        if (it != words_[g].end()) word = it->second;
      } else {
        const Result<Decimal> number = parse_decimal(text);
        if (!number.ok()) {
          why = GateReason::kRecipeValue;
        } else {
          const auto below = [](const Decimal& x, const Decimal& cut) {
            return compare(x, cut) < 0;
          };
          word = static_cast<std::size_t>(
              std::upper_bound(cuts.begin(), cuts.end(), *number, below) - cuts.begin());
        }
      }
      n = n * task_.recipe->words[g].size() + word;
    }
    return n;
  }
  void leave_out(std::size_t cell, std::uint32_t subject) {
    if (left_out_.insert(key_of(cell, subject)).second) take_room(1);
  }
  // What the cell's numbers tell by how its subjects share in them.
  void judge(std::size_t c, const Members& members, CellFacts& facts) const {
    std::vector<Wide> shares;
    const auto note = [&](bool& few, const Unusual& u) {
      few = few || u.few;
      facts.few_perhaps = facts.few_perhaps || u.half;
      facts.unusual_alone = facts.unusual_alone || u.dominated;
    };
    for (std::size_t a = 0; a < adding_.size(); ++a) {
      Dominance dominance;
      for (const auto& [subject, entry] : members) dominance.add(share(entry, a).absolute);
      // Where all add nothing there is no share that could be large: they are alike (all_same).
      if (dominance.total() > 0 && dominance.dominated()) facts.dominated = true;
      bool& few = adding_[a].column ? facts.few_unusual : facts.few_perhaps;
      each(members, shares, [&](std::size_t e) { return share(e, a).net; });
      note(few, unusual(shares, least()));
      if (!adding_[a].column) continue;
      few = few || few_add(shares, least());
      const Sum& sum = sums_[c * adding_.size() + a];
      if (sum.least == sum.most) facts.all_same = true;
      if (facts.rows == members.size()) continue;
      // Some have more rows than others: off what is usual for each row.
      for (const InRows& usual : usual_in_a_row(members, a, dominance.total())) {
        each(members, shares, [&](std::size_t e) {
          return share(e, a).net * usual.rows - usual.net * static_cast<Wide>(people_[e].rows);
        });
        note(few, unusual(shares, least()));
      }
    }
    facts.between_columns = columns_tell(members, shares);
  }
  template <class ShareOf>
  static void each(const Members& members, std::vector<Wide>& shares, const ShareOf& share_of) {
    shares.clear();
    for (const auto& [subject, entry] : members) shares.push_back(share_of(entry));
  }
  // Who has two sums has their difference; and who has sums of columns of which everybody has one
  // (alive, dead) has how many have none of them.
  bool columns_tell(const Members& members, std::vector<Wide>& shares) const {
    std::vector<std::size_t> columns;  // each once
    for (std::size_t a = 0; a < adding_.size(); ++a) {
      const auto same = [&](std::size_t b) { return adding_[a].column == adding_[b].column; };
      if (std::none_of(columns.begin(), columns.end(), same)) columns.push_back(a);
    }
    for (const std::size_t a : columns) {
      for (const std::size_t b : columns) {
        if (b >= a) break;
        each(members, shares, [&](std::size_t e) { return in_units(e, a) - in_units(e, b); });
        if (of_few(shares, least())) return true;
      }
    }
    std::erase_if(columns, [&](std::size_t a) { return !adding_[a].column; });
    for (std::size_t some = 1; some < std::size_t{1} << columns.size(); ++some) {
      if ((some & (some - 1)) == 0) continue;  // one of them was looked at
      each(members, shares, [&](std::size_t e) {
        Wide sum = 0;
        for (std::size_t i = 0; i < columns.size(); ++i) {
          if ((some >> i & 1U) != 0) sum += in_units(e, columns[i]);
        }
        return sum;
      });
      if (few_add(shares, least()) || unusual(shares, least()).few_or_half()) return true;
    }
    return false;
  }
  Wide in_units(std::size_t entry, std::size_t a) const {
    return adding_[a].column ? share(entry, a).net : share(entry, a).net * kAddedOne;
  }
  struct InRows {  // what somebody adds in so many rows
    Wide net = 0;
    Wide rows = 1;
  };
  // The median of what the members add in a row of theirs; of an even number, both. A quotient is
  // rounded, so it is left a fraction, but where numbers are so large that products of them would
  // not fit: `total` is all that the members add.
  std::vector<InRows> usual_in_a_row(const Members& members, std::size_t a, UWide total) const {
    struct Ratio {
      Wide quotient;
      std::size_t entry;
    };
    std::vector<Ratio> in_a_row;
    for (const auto& [subject, e] : members) {
      in_a_row.push_back({share(e, a).net / static_cast<Wide>(people_[e].rows), e});
    }
    std::sort(in_a_row.begin(), in_a_row.end(),
              [](const Ratio& x, const Ratio& y) { return x.quotient < y.quotient; });
    std::uint64_t rows = 0;
    for (const auto& [subject, e] : members) rows += people_[e].rows;
    const auto usual = [&](const Ratio& r) {
      const auto largest = static_cast<UWide>(largest_value());
      const bool fits = total < largest && rows < 100'000'000;
      return fits ? InRows{share(r.entry, a).net, static_cast<Wide>(people_[r.entry].rows)}
                  : InRows{r.quotient, 1};
    };
    const Ratio& lower = in_a_row[(in_a_row.size() - 1) / 2];
    const Ratio& upper = in_a_row[in_a_row.size() / 2];
    if (lower.quotient == upper.quotient) return {usual(lower)};
    return {usual(lower), usual(upper)};
  }
  void count(const std::vector<std::string>& cells, std::size_t cell, std::uint32_t subject,
             std::uint64_t mark) {
    const auto [it, fresh] = entries_.emplace(key_of(cell, subject), entries_.size());
    if (fresh) {
      if (!take_room(1 + adding_.size())) return;
      shares_.resize(shares_.size() + adding_.size());
      people_.emplace_back();
    }
    people_[it->second].marks += mark;
    ++people_[it->second].rows;
    for (std::size_t a = 0; a < adding_.size(); ++a) {
      Wide value = 1;
      if (adding_[a].column) {
        const std::optional<Wide> exact = value_of(cells[measure_at_[a]]);
        if (!exact) {
          fail(GateReason::kRecipeValue);
          return;
        }
        value = *exact;
      }
      Sum& sum = sums_[cell * adding_.size() + a];
      sum.least = rows_[cell] == 0 ? value : std::min(sum.least, value);
      sum.most = rows_[cell] == 0 ? value : std::max(sum.most, value);
      sum.total += value;
      Share& share = shares_[it->second * adding_.size() + a];
      share.absolute += magnitude(value);
      share.net += value;
    }
    ++rows_[cell];
  }

  std::string measure_text(std::size_t cell, const CellFacts& facts, std::size_t m) const {
    const auto kind = recipe().measures[m].of;
    if (kind == MeasureKind::kRows || kind == MeasureKind::kSubjects) {
      const auto base = static_cast<std::uint64_t>(recipe().round_to.value_or(1));
      const std::uint64_t n = kind == MeasureKind::kRows
                                  ? facts.rows
                                  : static_cast<std::uint64_t>(facts.subjects.size());
      return std::to_string((n + base / 2) / base * base);
    }
    std::size_t a = 0;
    while (adding_[a].measure != m) ++a;
    const Sum& sum = sums_[cell * adding_.size() + a];
    const std::string exact =
        quotient_text(sum.total, kind == MeasureKind::kMean ? facts.rows : 1, kAddedScale);
    const NumberType& column = task_.schema->root.children[task_.recipe->measure_columns[m]].number;
    return column.integer ? to_text(round_decimal(*parse_decimal(exact), 0, 0)) : exact;
  }
  GateReason write(RecomputedTable& out) const {
    const BoundRecipe& r = *task_.recipe;
    std::string text;
    const auto line = [&](const auto& cell_text) {
      for (std::size_t c = 0; c < task_.schema->root.names.size(); ++c) {
        if (c != 0) text.push_back(',');
        append_csv_cell(text, cell_text(c));
      }
      text.push_back('\n');
    };
    line([&](std::size_t c) { return task_.schema->root.names[c]; });
    for (std::size_t n = 0; n < r.cell_count; ++n) {
      if (r.structural_zeros[n]) continue;
      const std::vector<std::size_t> words = cell_words(r, n);
      const CellFacts& facts = out.cells[n];
      for (const auto& m : recipe().measures) {
        if (m.of == MeasureKind::kMean && facts.rows == 0) return GateReason::kRecipeNoValue;
      }
      line([&](std::size_t c) -> std::string {
        for (std::size_t g = 0; g < r.group_columns.size(); ++g) {
          if (r.group_columns[g] == c) return r.words[g][words[g]];
        }
        for (std::size_t m = 0; m < r.measure_columns.size(); ++m) {
          if (r.measure_columns[m] == c) return measure_text(n, facts, m);
        }
        return {};
      });
    }
    out.csv = to_bytes(as_bytes(text));
    return GateReason::kNone;
  }

  TableTask task_;
  std::size_t* room_;
  GateReason failure_ = GateReason::kNone;
  std::vector<Adding> adding_;
  std::vector<std::unordered_map<std::string, std::size_t>> words_;
  std::vector<std::size_t> filter_at_;
  std::vector<std::size_t> group_at_;
  std::vector<std::size_t> measure_at_;  // as adding_
  std::vector<std::uint64_t> rows_;      // of each cell
  std::vector<Sum> sums_;                // cell × adding_
  // cell and subject -> place in shares_, which holds what the subject adds to each of adding_
  std::unordered_map<std::uint64_t, std::size_t> entries_;
  std::vector<Share> shares_;
  std::vector<Person> people_;                  // as entries_
  std::unordered_set<std::uint64_t> left_out_;  // cell and subject
  bool words_left_out_ = false;
};

}  // namespace

class CellCounter::Impl {
 public:
  Impl(std::vector<TableTask> tasks, CellLimits limits, const Hash32& salt)
      : limits_(limits), room_(limits.subject_cells) {
    std::memcpy(&salt_, salt.data(), sizeof salt_);
    for (auto& t : tasks) tables_.emplace_back(std::move(t), room_);
  }
  void feed(ByteView chunk) {
    std::string_view rest = as_text(chunk);
    while (!rest.empty() && !stopped_) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      if (line_.size() + end > limits_.line_bytes) {
        stop(GateReason::kRecipeTooLarge);
        return;
      }
      line_ += rest.substr(0, end);
      if (end == rest.size()) return;
      line();
      rest.remove_prefix(end + 1);
    }
  }
  std::vector<RecomputedTable> finish() {
    if (!line_.empty() && !stopped_) line();
    if (columns_ == 0) stop(GateReason::kRecipeInput);
    std::vector<RecomputedTable> out;
    for (auto& t : tables_) out.push_back(t.finish());
    return out;
  }

 private:
  void stop(GateReason why) {
    stopped_ = true;
    for (auto& t : tables_) t.fail(why);
  }
  void line() {
    std::string_view text = line_;
    if (!text.empty() && text.back() == '\r') text.remove_suffix(1);
    std::vector<std::string> cells;
    const CsvLimits limits{0, limits_.columns, limits_.line_bytes};
    const bool plain = !text.empty() && text.find('\r') == std::string_view::npos;
    if (!plain || !split_csv_line(text, limits, cells)) {
      stop(GateReason::kRecipeInput);
    } else if (columns_ == 0) {
      columns_ = cells.size();
      for (auto& t : tables_) t.header(cells);
      for (const auto& t : tables_) {
        const auto at = std::find(cells.begin(), cells.end(), t.subject_column());
        subject_at_.push_back(static_cast<std::size_t>(at - cells.begin()));
      }
    } else if (cells.size() != columns_) {
      stop(GateReason::kRecipeInput);
    } else if (++rows_ > limits_.rows) {
      stop(GateReason::kRecipeTooLarge);
    } else {
      row(cells);
    }
    line_.clear();
  }
  void row(const std::vector<std::string>& cells) {
    const std::uint64_t mark = mix64(mix64(rows_ ^ salt_[0]) + salt_[1]);
    for (std::size_t i = 0; i < tables_.size() && !stopped_; ++i) {
      if (tables_[i].failed()) continue;
      const std::string& name = cells[subject_at_[i]];
      // One value, one subject: rows without a value would all be one person.
      if (name.empty()) {
        tables_[i].fail(GateReason::kRecipeValue);
        continue;
      }
      const auto [it, fresh] =
          subjects_.emplace(name, static_cast<std::uint32_t>(subjects_.size()));
      if (fresh) subject_bytes_ += name.size();
      if (subjects_.size() > limits_.subjects || subject_bytes_ > limits_.subject_bytes) {
        stop(GateReason::kRecipeTooLarge);
        return;
      }
      tables_[i].row(cells, it->second, mark);
    }
  }

  CellLimits limits_;
  std::size_t room_;
  std::vector<Table> tables_;
  std::vector<std::size_t> subject_at_;
  std::string line_;
  std::size_t columns_ = 0;
  std::uint64_t rows_ = 0;
  std::uint64_t salt_[2] = {};
  bool stopped_ = false;
  std::unordered_map<std::string, std::uint32_t> subjects_;
  std::size_t subject_bytes_ = 0;
};

CellCounter::CellCounter(std::vector<TableTask> tasks, CellLimits limits, const Hash32& salt)
    : impl_(std::make_unique<Impl>(std::move(tasks), limits, salt)) {}
CellCounter::~CellCounter() = default;
void CellCounter::feed(ByteView chunk) { impl_->feed(chunk); }
std::vector<RecomputedTable> CellCounter::finish() { return impl_->finish(); }

std::string quotient_text(Wide sum, std::uint64_t count, int scale) {
  // No schema keeps more than 15 significant digits or 9 decimals, so the last of these is beyond
  // every place that is rounded at; a one there stands for whatever is left.
  constexpr int kPlaces = 40;
  const UWide all = magnitude(sum);
  std::string digits = wide_text(all / count);
  UWide rest = all % count;
  for (int i = 0; i < kPlaces; ++i) {
    rest *= 10;
    digits.push_back(static_cast<char>('0' + static_cast<int>(rest / count)));
    rest %= count;
  }
  if (rest != 0) digits.back() = digits.back() == '0' ? '1' : digits.back();
  const auto point = static_cast<std::size_t>(kPlaces + scale);
  if (digits.size() <= point) digits.insert(0, point + 1 - digits.size(), '0');
  digits.insert(digits.size() - point, ".");
  return (sum < 0 ? "-" : "") + digits;
}

}  // namespace gbx::gate
