#include "gate/differences.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "gate/conditions.h"

namespace gbx::gate {
namespace {

// Groups of cells that are also looked at two and two.
constexpr std::size_t kMostPaired = 64;

// Columns of which everybody has one of two values, taken together.
constexpr std::size_t kMostOnes = 8;

// A measure of each table that add up the same.
struct Pair {
  std::size_t a = 0;
  std::size_t b = 0;
  bool rows = false;
};
std::vector<Pair> comparable(const RecomputedTable& a, const RecomputedTable& b) {
  std::vector<Pair> out;
  for (std::size_t i = 0; i < a.adds.size(); ++i) {
    for (std::size_t k = 0; k < b.adds.size(); ++k) {
      if (a.adds[i] == b.adds[k]) out.push_back({i, k, a.adds[i].empty()});
    }
  }
  return out;
}

// A cell with somebody in it, or several together, with what it adds up over all its subjects.
struct Part {
  struct Measure {  // one of RecomputedTable::adds, over all subjects
    Dominance shares;
    std::size_t some = 0;  // subjects who add anything
    std::size_t most_alike = 0;
    Wide one = 0;  // somebody's share
  };
  struct Kind {  // of a measure to which everybody adds one of two values: who adds this one
    std::size_t measure = 0;
    Wide value = 0;
    std::size_t people = 0;
  };
  // `often`: how many of the cells each of several is in.
  Part(const CellFacts& f, std::size_t width, const std::vector<Wide>* often = nullptr)
      : facts(&f), measures(width), times(often) {
    std::vector<Wide> shares(f.subjects.size());
    for (std::size_t m = 0; m < width; ++m) {
      for (std::size_t i = 0; i < shares.size(); ++i) {
        shares[i] = added(i, m);
        measures[m].shares.add(magnitude(shares[i]));
      }
      measures[m].some = shares.size() - static_cast<std::size_t>(
                                             std::count(shares.begin(), shares.end(), Wide{0}));
      if (!shares.empty()) measures[m].one = shares[0];
      measures[m].most_alike = most_alike(shares);
      add_kinds(m, shares);
    }
  }
  // Who has a one of a column of ones and twos is told by its sum, and so is who has the other. Of
  // ones and zeros the column is the one of the two. `shares` are in order.
  void add_kinds(std::size_t m, const std::vector<Wide>& shares) {
    if (shares.empty() || shares.front() == shares.back()) return;
    const auto less =
        static_cast<std::size_t>(std::count(shares.begin(), shares.end(), shares.front()));
    const auto more =
        static_cast<std::size_t>(std::count(shares.begin(), shares.end(), shares.back()));
    if (less + more != shares.size()) return;
    kinds.push_back({m, shares.front(), less});
    kinds.push_back({m, shares.back(), more});
  }
  Wide added(std::size_t place, std::size_t measure) const {
    return facts->added[place * measures.size() + measure];
  }
  // The same; of the number after the measures, each subject is one; then come `kinds`; then, of
  // cells together that somebody is in twice, one for each of them: what their counts add up to.
  std::size_t numbers() const {
    return measures.size() + 1 + kinds.size() + (times == nullptr ? 0 : 1);
  }
  bool counts_subjects(std::size_t number) const { return number == measures.size(); }
  bool counts_times(std::size_t number) const { return number > measures.size() + kinds.size(); }
  Wide share(std::size_t place, std::size_t number) const {
    if (number < measures.size()) return added(place, number);
    if (counts_subjects(number)) return kAddedOne;
    if (counts_times(number)) return (*times)[place];
    const Kind& k = kinds[number - measures.size() - 1];
    return added(place, k.measure) == k.value ? kAddedOne : 0;
  }
  std::size_t some(std::size_t number) const {
    if (number < measures.size()) return measures[number].some;
    if (counts_subjects(number) || counts_times(number)) return size();
    return kinds[number - measures.size() - 1].people;
  }
  std::size_t size() const { return facts->subjects.size(); }
  const CellFacts* facts;
  std::vector<Measure> measures;
  std::vector<Kind> kinds = {};
  const std::vector<Wide>* times;
  // Of a cell or a whole: what its recipe asks, and its filters of that. Several cells together
  // have none.
  struct Asked {
    std::vector<Condition> all;
    std::vector<Condition> by_filters;
    std::vector<Condition> known;  // all, and what follows from the owner's word
  };
  std::optional<Asked> asked = std::nullopt;
  bool is_whole() const { return asked && asked->all.size() == asked->by_filters.size(); }
};

// Several cells of one table as if they were one: anybody can add them up. `width` is how many
// measures add something up.
struct Union {
  CellFacts facts;
  std::vector<Wide> times;  // for each subject, in units; empty where nobody is in two cells
  const std::vector<Wide>* often() const { return times.empty() ? nullptr : &times; }
};
Union union_of(const std::vector<const CellFacts*>& cells, std::size_t width) {
  std::vector<std::pair<std::uint32_t, std::pair<std::size_t, std::size_t>>> all;
  for (std::size_t c = 0; c < cells.size(); ++c) {
    for (std::size_t i = 0; i < cells[c]->subjects.size(); ++i) {
      all.push_back({cells[c]->subjects[i], {c, i}});
    }
  }
  std::sort(all.begin(), all.end());
  Union both;
  CellFacts& out = both.facts;
  for (const auto& [subject, place] : all) {
    const CellFacts& cell = *cells[place.first];
    if (out.subjects.empty() || out.subjects.back() != subject) {
      out.subjects.push_back(subject);
      out.row_marks.push_back(0);
      both.times.push_back(0);
      out.added.resize(out.added.size() + width);
    }
    both.times.back() += kAddedOne;
    out.row_marks.back() += cell.row_marks[place.second];
    for (std::size_t m = 0; m < width; ++m) {
      out.added[out.added.size() - width + m] += cell.added[place.second * width + m];
    }
  }
  if (all.size() == out.subjects.size()) both.times.clear();
  return both;
}

class Side {
 public:
  Side(const RecomputedTable& t, const RecomputedTable& other)
      : width_(t.adds.size()),
        known_(asked(t, std::nullopt, other).known),
        elsewhere_(conditions_of(*t.recipe, std::nullopt)) {
    std::erase_if(elsewhere_, [&](const Condition& c) { return asks_of(other, c.is.column); });
    for (std::size_t n = 0; n < t.cells.size(); ++n) {
      if (t.cells[n].subjects.empty()) continue;
      parts_.emplace_back(t.cells[n], width_).asked = asked(t, n, other);
    }
    cells_ = parts_.size();
    if (cells_ < 2) return;
    std::vector<std::size_t> all(cells_);
    std::iota(all.begin(), all.end(), std::size_t{0});
    whole_ = together(all);
    parts_.emplace_back(whole_.facts, width_, whole_.often()).asked = asked(t, std::nullopt, other);
  }
  Side(Side&&) = delete;  // parts_ points into it
  Side& operator=(Side&&) = delete;

  // Cells first; where there is more than one, the whole comes last.
  const std::vector<Part>& parts() const { return parts_; }
  // Of the whole table: nobody is in two cells.
  bool everybody_once() const {
    std::size_t places = 0;
    for (std::size_t n = 0; n < cells_; ++n) places += parts_[n].size();
    return parts_.empty() || places == parts_.back().size();
  }
  // What is asked of all rows of the table, and follows from it.
  const std::vector<Condition>& known() const { return known_; }
  // Filters on columns of which the other table asks nothing.
  const std::vector<Condition>& elsewhere() const { return elsewhere_; }
  std::size_t cells() const { return cells_; }
  std::size_t width() const { return width_; }
  Union together(const std::vector<std::size_t>& cells) const {
    std::vector<const CellFacts*> facts;
    for (const std::size_t c : cells) facts.push_back(parts_[c].facts);
    return union_of(facts, width_);
  }

 private:
  static Part::Asked asked(const RecomputedTable& t, std::optional<std::size_t> cell,
                           const RecomputedTable& other) {
    Part::Asked out{conditions_of(*t.recipe, cell), conditions_of(*t.recipe, std::nullopt), {}};
    out.known = forced_words(out.all, *other.recipe, t.impossible);
    out.known.insert(out.known.end(), out.all.begin(), out.all.end());
    return out;
  }

  static bool asks_of(const RecomputedTable& t, const std::string& column) {
    const Recipe& r = t.recipe->recipe;
    const auto is = [&](const auto& x) { return x.column == column; };
    return (r.filter && std::any_of(r.filter->begin(), r.filter->end(), is)) ||
           (r.group_by && std::any_of(r.group_by->begin(), r.group_by->end(), is));
  }

  std::size_t width_;
  std::vector<Condition> known_;
  std::vector<Condition> elsewhere_;
  std::size_t cells_ = 0;
  Union whole_;
  std::vector<Part> parts_;
};

// In which parts of a side a subject stands.
class Index {
 public:
  struct Place {
    std::size_t part = 0;
    std::size_t at = 0;
  };
  explicit Index(const Side& side) {
    for (const auto& p : side.parts()) {
      for (const auto s : p.facts->subjects) {
        if (begins_.size() < std::size_t{s} + 2) begins_.resize(std::size_t{s} + 2);
        ++begins_[std::size_t{s} + 1];
      }
    }
    for (std::size_t s = 1; s < begins_.size(); ++s) begins_[s] += begins_[s - 1];
    places_.resize(begins_.empty() ? 0 : begins_.back());
    std::vector<std::size_t> next = begins_;
    for (std::size_t n = 0; n < side.parts().size(); ++n) {
      const auto& subjects = side.parts()[n].facts->subjects;
      for (std::size_t i = 0; i < subjects.size(); ++i) places_[next[subjects[i]]++] = {n, i};
    }
  }
  std::span<const Place> of(std::uint32_t subject) const {
    if (std::size_t{subject} + 1 >= begins_.size()) return {};
    return std::span(places_).subspan(begins_[subject], begins_[subject + 1] - begins_[subject]);
  }

 private:
  std::vector<std::size_t> begins_;  // of each subject, in places_
  std::vector<Place> places_;
};

// What a part of one table and a part of the other have in common.
struct Common {
  std::size_t subjects = 0;
  std::size_t same_rows = 0;  // of them, with the same rows in both
  std::vector<UWide> shared;  // for each pair: what the common ones add to both parts together
  // For each number of the one with each of the other (Part::share): how many of the
  // common ones add something else to the one than to the other, less those who add anything.
  std::vector<std::int64_t> apart;
};

// Cells of one table that stand beside cells of the other.
struct Group {
  std::vector<std::size_t> a;
  std::vector<std::size_t> b;
};

class Differences {
 public:
  Differences(const RecomputedTable& a, const RecomputedTable& b, std::int64_t least,
              DifferenceSteps& steps)
      : a_(a, b),
        b_(b, a),
        adds_a_(a.adds),
        adds_b_(b.adds),
        index_(b_),
        pairs_(comparable(a, b)),
        least_(static_cast<std::size_t>(least)),
        steps_(steps) {}

  bool few() {
    std::vector<Common> common(b_.parts().size());
    for (std::size_t x = 0; x < a_.parts().size(); ++x) {
      std::vector<std::size_t> touched;
      if (!meet(a_.parts()[x], common, touched)) return true;
      for (const std::size_t y : touched) {
        if (tells(a_.parts()[x], b_.parts()[y], common[y])) return true;
        if (x < a_.cells() && y < b_.cells() && !note({x, y, common[y].subjects})) return true;
        common[y] = {};
      }
    }
    return groups_tell();
  }
  // Of the cells of one table, which both sides are.
  bool few_within() {
    std::erase_if(pairs_, [this](const Pair& p) {
      const auto first = std::find(adds_a_.begin(), adds_a_.end(), adds_a_[p.a]);
      return p.a != p.b || first != adds_a_.begin() + static_cast<std::ptrdiff_t>(p.a);
    });
    if (pairs_.empty()) return false;
    std::vector<Common> common(b_.parts().size());
    for (std::size_t x = 0; x < a_.cells(); ++x) {
      std::vector<std::size_t> touched;
      if (!meet(a_.parts()[x], common, touched)) return true;
      for (const std::size_t y : touched) {
        if (y > x && y < b_.cells() && cells_tell(a_.parts()[x], b_.parts()[y], common[y])) {
          return true;
        }
        common[y] = {};
      }
    }
    return false;
  }

 private:
  struct Overlap {
    std::size_t x, y;      // cells
    std::size_t subjects;  // in both
  };

  // Those of which groups are made. Each takes memory, so it is worth many steps.
  bool note(const Overlap& o) {
    const bool joins = o.subjects >= least_ || 2 * o.subjects > a_.parts()[o.x].size() ||
                       2 * o.subjects > b_.parts()[o.y].size();
    if (!joins) return true;
    overlaps_.push_back(o);
    return spend(100);
  }
  bool spend(std::size_t steps) {
    if (steps_.left < steps) return false;
    steps_.left -= steps;
    return true;
  }
  void add(Common& c, const Part& x, std::size_t i, const Part& y, std::size_t k) const {
    if (c.subjects++ == 0) {
      c.shared.resize(pairs_.size());
      c.apart.resize(x.numbers() * y.numbers());
    }
    std::size_t place = 0;
    for (std::size_t a = 0; a < x.numbers(); ++a) {
      for (std::size_t b = 0; b < y.numbers(); ++b) {
        const Wide of_x = x.share(i, a);
        const Wide of_y = y.share(k, b);
        c.apart[place++] += (of_x != of_y ? 1 : 0) - (of_x != 0 ? 1 : 0) - (of_y != 0 ? 1 : 0);
      }
    }
    if (x.facts->row_marks[i] == y.facts->row_marks[k]) ++c.same_rows;
    for (std::size_t p = 0; p < pairs_.size(); ++p) {
      c.shared[p] += magnitude(x.added(i, pairs_[p].a)) + magnitude(y.added(k, pairs_[p].b));
    }
  }
  bool meet(const Part& x, std::vector<Common>& common, std::vector<std::size_t>& touched) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto places = index_.of(x.facts->subjects[i]);
      if (!spend(1)) return false;
      for (const auto& [part, at] : places) {
        if (!spend(1 + x.numbers() * b_.parts()[part].numbers() / 4)) return false;
        if (common[part].subjects == 0) touched.push_back(part);
        add(common[part], x, i, b_.parts()[part], at);
      }
    }
    return true;
  }

  // Cells that only many people join are taken together: what is between such a group and the rest
  // is few people, if it is anybody. A cell and those of the other table that are mostly in it,
  // too.
  bool groups_tell() {
    const std::vector<Group> apart = components();
    const bool mirrored = rest_mirrors();
    for (std::size_t i = 0; i < apart.size(); ++i) {
      if (group_tells(apart[i])) return true;
      const bool asked = !apart[i].a.empty() && !apart[i].b.empty();
      if (!(mirrored && asked) && group_tells(all_but(apart[i]))) return true;
      if (apart.size() > kMostPaired) continue;
      for (std::size_t k = 0; k < i; ++k) {
        Group both = apart[i];
        both.a.insert(both.a.end(), apart[k].a.begin(), apart[k].a.end());
        both.b.insert(both.b.end(), apart[k].b.begin(), apart[k].b.end());
        if (group_tells(both)) return true;
      }
    }
    std::vector<Group> of_x(a_.cells());
    std::vector<Group> of_y(b_.cells());
    for (std::size_t x = 0; x < of_x.size(); ++x) of_x[x].a = {x};
    for (std::size_t y = 0; y < of_y.size(); ++y) of_y[y].b = {y};
    for (const Overlap& o : overlaps_) {
      if (2 * o.subjects > a_.parts()[o.x].facts->subjects.size()) of_y[o.y].a.push_back(o.x);
      if (2 * o.subjects > b_.parts()[o.y].facts->subjects.size()) of_x[o.x].b.push_back(o.y);
    }
    const auto tells_of = [this](const Group& g) { return group_tells(g); };
    return std::any_of(of_x.begin(), of_x.end(), tells_of) ||
           std::any_of(of_y.begin(), of_y.end(), tells_of);
  }
  // Where both tables have the same rows, each person in one cell, all but some cells of them
  // differ by whom these cells differ by.
  bool rest_mirrors() const {
    if (a_.parts().empty() || b_.parts().empty()) return true;
    const CellFacts& x = *a_.parts().back().facts;
    const CellFacts& y = *b_.parts().back().facts;
    return x.subjects == y.subjects && x.row_marks == y.row_marks && a_.everybody_once() &&
           b_.everybody_once();
  }
  std::vector<Group> components() const {
    std::vector<std::size_t> parent(a_.cells() + b_.cells());
    std::iota(parent.begin(), parent.end(), std::size_t{0});
    const auto root = [&parent](std::size_t n) {
      while (parent[n] != n) n = parent[n] = parent[parent[n]];
      return n;
    };
    for (const Overlap& o : overlaps_) {
      if (o.subjects >= least_) parent[root(o.x)] = root(a_.cells() + o.y);
    }
    std::map<std::size_t, Group> groups;
    for (std::size_t n = 0; n < parent.size(); ++n) {
      Group& g = groups[root(n)];
      (n < a_.cells() ? g.a : g.b).push_back(n < a_.cells() ? n : n - a_.cells());
    }
    std::vector<Group> out;
    for (auto& [n, g] : groups) out.push_back(std::move(g));
    return out;
  }
  Group all_but(const Group& g) const {
    const auto others = [](const std::vector<std::size_t>& some, std::size_t count) {
      std::vector<bool> left(count, true);
      for (const std::size_t n : some) left[n] = false;
      std::vector<std::size_t> out;
      for (std::size_t n = 0; n < count; ++n) {
        if (left[n]) out.push_back(n);
      }
      return out;
    };
    return {others(g.a, a_.cells()), others(g.b, b_.cells())};
  }
  bool group_tells(const Group& g) {
    // One cell beside one was compared before; beside none it is a cell as such.
    if (g.a.empty() || g.b.empty() || g.a.size() + g.b.size() < 3) return false;
    std::size_t size = 0;
    for (const std::size_t n : g.a) size += a_.parts()[n].facts->subjects.size();
    for (const std::size_t n : g.b) size += b_.parts()[n].facts->subjects.size();
    if (!spend(size * (1 + a_.width() + b_.width()))) return true;
    const Union union_a = a_.together(g.a);
    const Union union_b = b_.together(g.b);
    const CellFacts& of_a = union_a.facts;
    const CellFacts& of_b = union_b.facts;
    const Part x(of_a, a_.width(), union_a.often());
    const Part y(of_b, b_.width(), union_b.often());
    Common c;
    for (std::size_t i = 0, k = 0; i < of_a.subjects.size() && k < of_b.subjects.size();) {
      if (of_a.subjects[i] == of_b.subjects[k]) {
        add(c, x, i++, y, k++);
      } else {
        ++(of_a.subjects[i] < of_b.subjects[k] ? i : k);
      }
    }
    return c.subjects > 0 && tells(x, y, c);
  }

  bool tells(const Part& x, const Part& y, const Common& c) {
    const std::size_t in_one = x.size() + y.size() - 2 * c.subjects;
    if (in_one > 0 && in_one < least_) return true;
    const std::size_t differ = in_one + c.subjects - c.same_rows;
    if (!spend(10)) return true;
    if (few_apart(x, y, c)) return true;
    const bool same_rows = differ == 0;
    if (in_one == 0 && !spend(steps_to_ask(x, y))) return true;
    if (in_one == 0 && (asks_more(x, y, same_rows) || asks_more(y, x, same_rows))) return true;
    if (in_one == 0 && (asks_else(a_, x, b_, y, same_rows) || asks_else(b_, y, a_, x, same_rows))) {
      return true;
    }
    if (same_rows) return columns_tell(x, y) || ones_tell(x, y);
    if (c.subjects == c.same_rows && rest_adds_nothing_and_tells(x, y, c)) return true;
    // Where one of the tables adds nothing up, who comes how often is in no number of it.
    if (x.measures.empty() || y.measures.empty()) return false;
    if (differ < least_) return true;
    return std::any_of(pairs_.begin(), pairs_.end(), [&](const Pair& p) {
      const UWide shared = c.shared[static_cast<std::size_t>(&p - pairs_.data())];
      return may_be_few(x, y, p, c, shared) && few_make_up(x, y, p, c.subjects > in_one);
    });
  }
  // Two cells of one table have other rows of the same people: what each adds to one and not to the
  // other. Where few are in both, only sums tell, for the others come once.
  bool cells_tell(const Part& x, const Part& y, const Common& c) {
    const bool near = c.subjects > x.size() + y.size() - 2 * c.subjects;
    return std::any_of(pairs_.begin(), pairs_.end(), [&](const Pair& p) {
      const UWide shared = c.shared[static_cast<std::size_t>(&p - pairs_.data())];
      if (p.rows && !near) return false;
      return may_be_few(x, y, p, c, shared) && few_make_up(x, y, p, near, true);
    });
  }
  // Each condition of the one is held against each of the other: texts, or a text read as a number.
  static std::size_t steps_to_ask(const Part& x, const Part& y) {
    const std::size_t of_x = x.asked ? x.asked->known.size() : 1;
    const std::size_t of_y = y.asked ? y.asked->known.size() : 1;
    return 20 * (1 + of_x) * (1 + of_y);
  }
  // The same people, though x asks for more than y: all of y are that. Words of groups are asked
  // only of the same rows: people with many rows are in many cells.
  static bool asks_more(const Part& x, const Part& y, bool same_rows) {
    if (!x.asked || !y.asked || !implies(x.asked->known, y.asked->all)) return false;
    return !implies(y.asked->known, same_rows ? x.asked->all : x.asked->by_filters);
  }
  // The same, by what x's filters ask of a column of which y's recipe asks nothing. What both ask
  // of the same columns is in the rows: from 40 on and above 39 can be the same.
  static bool asks_else(const Side& side_x, const Part& x, const Side& side_y, const Part& y,
                        bool same_rows) {
    if (side_x.elsewhere().empty() || !(same_rows || (x.is_whole() && y.is_whole()))) return false;
    const auto& known = y.asked ? y.asked->known : side_y.known();
    return !implies(known, side_x.elsewhere());
  }
  // One number of each part, of whatever they add up: all of those people but few add the same to
  // both, most of them nothing. Sixty who have an illness, and fifty-seven who have its medicine.
  bool few_apart(const Part& x, const Part& y, const Common& c) const {
    std::size_t place = 0;
    for (std::size_t a = 0; a < x.numbers(); ++a) {
      for (std::size_t b = 0; b < y.numbers(); ++b) {
        const auto apart = static_cast<std::int64_t>(x.some(a) + y.some(b)) + c.apart[place++];
        // Of cells that share people nobody prints how many people are in them together.
        const bool of_y = x.counts_times(a) && y.counts_subjects(b) && y.times != nullptr;
        const bool of_x = y.counts_times(b) && x.counts_subjects(a) && x.times != nullptr;
        if (of_x || of_y) continue;
        if (apart > 0 && apart < static_cast<std::int64_t>(least_)) return true;
      }
    }
    return false;
  }
  // Two sums of the same rows are a third one: their difference, and their sum where most have one
  // of the two.
  bool columns_tell(const Part& x, const Part& y) {
    std::vector<Wide> shares(x.size());
    std::vector<Wide> together(x.size());
    for (std::size_t a = 0; a < adds_a_.size(); ++a) {
      for (std::size_t b = 0; b < adds_b_.size(); ++b) {
        if (adds_a_[a] == adds_b_[b]) continue;
        if (!spend(x.size())) return true;
        for (std::size_t i = 0; i < x.size(); ++i) {
          const Wide of_x = x.added(i, a);
          const Wide of_y = y.added(i, b);
          shares[i] = of_x - of_y;
          together[i] = of_x + of_y;
        }
        if (of_few(shares, least_)) return true;
        const bool columns = !adds_a_[a].empty() && !adds_b_[b].empty();
        if (columns && (few_add(together, least_) || unusual(together, least_).few_or_half())) {
          return true;
        }
      }
    }
    return false;
  }
  // Columns of both tables in which people have one of two values, once each: that all but few have
  // just one of them (alive, moved away; dead) is told by all their sums together.
  bool ones_tell(const Part& x, const Part& y) {
    struct Column {
      const Part* part;
      Part::Kind kind;
    };
    std::map<std::string, Column> columns;
    // Of two kinds the second has the larger value.
    for (std::size_t k = 1; k < x.kinds.size(); k += 2) {
      columns.insert({adds_a_[x.kinds[k].measure], {&x, x.kinds[k]}});
    }
    for (std::size_t k = 1; k < y.kinds.size(); k += 2) {
      columns.insert({adds_b_[y.kinds[k].measure], {&y, y.kinds[k]}});
    }
    columns.erase("");
    if (columns.size() < 2 || columns.size() > kMostOnes) return false;
    if (!spend(x.size() << columns.size())) return true;
    std::vector<Wide> sums(x.size());
    for (std::size_t some = 1; some < std::size_t{1} << columns.size(); ++some) {
      if ((some & (some - 1)) == 0) continue;
      std::fill(sums.begin(), sums.end(), Wide{0});
      std::size_t bit = 0;
      for (const auto& [name, column] : columns) {
        if ((some >> bit++ & 1U) == 0) continue;
        for (std::size_t i = 0; i < sums.size(); ++i) {
          sums[i] += column.part->added(i, column.kind.measure) == column.kind.value ? 1 : 0;
        }
      }
      if (few_add(sums, least_) || unusual(sums, least_).few_or_half()) return true;
    }
    return false;
  }
  // Two columns over other rows, where who is in one part only adds nothing: then their difference
  // is of those in both. All costs, and those of a ward, of whoever was there.
  bool rest_adds_nothing_and_tells(const Part& x, const Part& y, const Common& c) {
    std::vector<Wide> shares;
    for (std::size_t a = 0; a < adds_a_.size(); ++a) {
      for (std::size_t b = 0; b < adds_b_.size(); ++b) {
        if (adds_a_[a] == adds_b_[b] || adds_a_[a].empty() || adds_b_[b].empty()) continue;
        if (x.some(a) > c.subjects || y.some(b) > c.subjects) continue;
        if (!spend(x.size() + y.size())) return true;
        if (only_common_add(x, a, y, b, shares) && of_few(shares, least_)) return true;
      }
    }
    return false;
  }
  static bool only_common_add(const Part& x, std::size_t a, const Part& y, std::size_t b,
                              std::vector<Wide>& shares) {
    const auto& xs = x.facts->subjects;
    const auto& ys = y.facts->subjects;
    shares.clear();
    for (std::size_t i = 0, k = 0; i < xs.size() || k < ys.size();) {
      const bool in_x = k == ys.size() || (i < xs.size() && xs[i] <= ys[k]);
      const bool in_y = i == xs.size() || (k < ys.size() && ys[k] <= xs[i]);
      const Wide of_x = in_x ? x.added(i++, a) : 0;
      const Wide of_y = in_y ? y.added(k++, b) : 0;
      if (in_x != in_y && (of_x != 0 || of_y != 0)) return false;
      shares.push_back(of_x - of_y);
    }
    return true;
  }
  // Can few_make_up() be true? Where nobody's share is large, and not enough are alike, there is
  // nothing to look for.
  bool may_be_few(const Part& x, const Part& y, const Pair& p, const Common& c,
                  UWide shared) const {
    const Part::Measure& of_x = x.measures[p.a];
    const Part::Measure& of_y = y.measures[p.b];
    const std::size_t in_one = x.size() + y.size() - 2 * c.subjects;
    const std::size_t changed = c.subjects - c.same_rows;
    // Those in one part alone add this much to the difference.
    const UWide alone = of_x.shares.total() + of_y.shares.total() - shared;
    if (3 * (of_x.shares.largest() + of_y.shares.largest()) >= alone) return true;
    if (c.subjects > in_one) return true;
    const bool all_alike = of_x.most_alike == x.size() && of_y.most_alike == y.size() &&
                           of_x.one == of_y.one && changed == 0;
    return !all_alike && of_x.most_alike + of_y.most_alike + changed + least_ > in_one + changed;
  }
  // Of the difference of the two sums: is it one's or two's, or that of few among those whose rows
  // differ? Where `near`, most people are in both parts: then what is off the usual counts, too.
  bool few_make_up(const Part& x, const Part& y, const Pair& p, bool near, bool within = false) {
    const auto& xs = x.facts->subjects;
    const auto& ys = y.facts->subjects;
    if (!spend(xs.size() + ys.size())) return true;
    Dominance dominance;
    // As if all whose rows differ stood in one cell; those who are in both parts, either way.
    std::vector<Wide> shares;
    std::vector<Wide> turned;
    std::size_t i = 0;
    std::size_t k = 0;
    while (i < xs.size() || k < ys.size()) {
      const bool in_x = k == ys.size() || (i < xs.size() && xs[i] <= ys[k]);
      const bool in_y = i == xs.size() || (k < ys.size() && ys[k] <= xs[i]);
      const bool same = in_x && in_y && x.facts->row_marks[i] == y.facts->row_marks[k];
      const Wide of_x = in_x ? x.added(i++, p.a) : 0;
      const Wide of_y = in_y ? y.added(k++, p.b) : 0;
      if (same) continue;
      const Wide part = of_x - of_y;
      dominance.add(magnitude(part));
      const bool count = p.rows && part < 0;
      shares.push_back(count ? -part : in_x ? part : of_y);
      if (!p.rows) turned.push_back(in_x && in_y ? -part : shares.back());
    }
    // Equal counts of rows say nothing about anybody; equal sums can say that all add nothing.
    // Of one table they say that nothing changed, by which nobody is told from the others.
    if (dominance.total() == 0) return !p.rows && !within;
    if (dominance.dominated()) return true;
    const auto stand_out = [&](std::vector<Wide>& all) {
      const Unusual u = unusual(all, least_);
      return u.few_or_half() || few_add(all, least_) || (near && u.dominated);
    };
    return stand_out(shares) || stand_out(turned);
  }

  Side a_;
  Side b_;
  const std::vector<std::string>& adds_a_;
  const std::vector<std::string>& adds_b_;
  Index index_;
  std::vector<Pair> pairs_;
  std::size_t least_;
  DifferenceSteps& steps_;
  std::vector<Overlap> overlaps_;
};

}  // namespace

namespace {

// Takes the steps that it costs to make a side of a table: each cell's conditions are written down
// some three times, and what its subjects add is put in order.
bool take_side(const RecomputedTable& t, DifferenceSteps& steps) {
  const Recipe& r = t.recipe->recipe;
  const std::size_t asked =
      3 * (r.filter ? r.filter->size() : 0) + 6 * (r.group_by ? r.group_by->size() : 0);
  std::uint64_t cost = 0;
  for (const CellFacts& c : t.cells) {
    if (!c.subjects.empty()) cost += 20 * (1 + asked) + c.subjects.size() * (4 + 8 * t.adds.size());
  }
  const bool enough = cost <= steps.left;
  steps.left = enough ? steps.left - cost : 0;
  return enough;
}

}  // namespace

bool differ_by_few(const RecomputedTable& a, const RecomputedTable& b, std::int64_t least,
                   DifferenceSteps& steps) {
  if (!take_side(a, steps) || !take_side(b, steps)) return true;
  return Differences(a, b, least, steps).few();
}

bool cells_differ_by_few(const RecomputedTable& t, std::int64_t least, DifferenceSteps& steps) {
  // One cell is compared with nothing, and so are counts of people.
  if (t.cells.size() < 2 || t.adds.empty()) return false;
  if (!take_side(t, steps) || !take_side(t, steps)) return true;
  return Differences(t, t, least, steps).few_within();
}

}  // namespace gbx::gate
