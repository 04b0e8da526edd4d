#include "gate/differences.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace gbx::gate {
namespace {

// Groups of cells that are also looked at two and two.
constexpr std::size_t kMostPaired = 64;

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
  Part(const CellFacts& f, std::size_t width) : facts(&f), total(width), largest(width) {
    for (std::size_t i = 0; i < f.added.size(); ++i) {
      const UWide share = magnitude(f.added[i]);
      total[i % width] += share;
      largest[i % width] = std::max(largest[i % width], share);
    }
  }
  Wide added(std::size_t place, std::size_t measure) const {
    return facts->added[place * total.size() + measure];
  }
  const CellFacts* facts;
  std::vector<UWide> total;    // of absolute values, one for each of RecomputedTable::adds
  std::vector<UWide> largest;  // the same
};

// Several cells of one table as if they were one: anybody can add them up. `width` is how many
// measures add something up.
CellFacts union_of(const std::vector<const CellFacts*>& cells, std::size_t width) {
  std::vector<std::pair<std::uint32_t, std::pair<std::size_t, std::size_t>>> all;
  for (std::size_t c = 0; c < cells.size(); ++c) {
    for (std::size_t i = 0; i < cells[c]->subjects.size(); ++i) {
      all.push_back({cells[c]->subjects[i], {c, i}});
    }
  }
  std::sort(all.begin(), all.end());
  CellFacts out;
  for (const auto& [subject, place] : all) {
    const CellFacts& cell = *cells[place.first];
    if (out.subjects.empty() || out.subjects.back() != subject) {
      out.subjects.push_back(subject);
      out.row_marks.push_back(0);
      out.added.resize(out.added.size() + width);
    }
    out.row_marks.back() += cell.row_marks[place.second];
    for (std::size_t m = 0; m < width; ++m) {
      out.added[out.added.size() - width + m] += cell.added[place.second * width + m];
    }
  }
  return out;
}

class Side {
 public:
  explicit Side(const RecomputedTable& t) : width_(t.adds.size()) {
    for (const auto& c : t.cells) {
      if (!c.subjects.empty()) parts_.emplace_back(c, width_);
    }
    cells_ = parts_.size();
    if (cells_ < 2) return;
    std::vector<std::size_t> all(cells_);
    std::iota(all.begin(), all.end(), std::size_t{0});
    whole_ = together(all);
    parts_.emplace_back(whole_, width_);
  }
  Side(Side&&) = delete;  // parts_ points into it
  Side& operator=(Side&&) = delete;

  // Cells first; where there is more than one, the whole comes last.
  const std::vector<Part>& parts() const { return parts_; }
  std::size_t cells() const { return cells_; }
  std::size_t width() const { return width_; }
  CellFacts together(const std::vector<std::size_t>& cells) const {
    std::vector<const CellFacts*> facts;
    for (const std::size_t c : cells) facts.push_back(parts_[c].facts);
    return union_of(facts, width_);
  }

 private:
  std::size_t width_;
  std::size_t cells_ = 0;
  CellFacts whole_;
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
      : a_(a),
        b_(b),
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
        if (x < a_.cells() && y < b_.cells()) overlaps_.push_back({x, y, common[y].subjects});
        common[y] = {};
      }
    }
    return groups_tell();
  }

 private:
  struct Overlap {
    std::size_t x, y;      // cells
    std::size_t subjects;  // in both
  };

  bool spend(std::size_t steps) {
    if (steps_.left < steps) return false;
    steps_.left -= steps;
    return true;
  }
  void add(Common& c, const Part& x, std::size_t i, const Part& y, std::size_t k) const {
    if (c.subjects++ == 0) c.shared.resize(pairs_.size());
    if (x.facts->row_marks[i] == y.facts->row_marks[k]) ++c.same_rows;
    for (std::size_t p = 0; p < pairs_.size(); ++p) {
      c.shared[p] += magnitude(x.added(i, pairs_[p].a)) + magnitude(y.added(k, pairs_[p].b));
    }
  }
  bool meet(const Part& x, std::vector<Common>& common, std::vector<std::size_t>& touched) {
    for (std::size_t i = 0; i < x.facts->subjects.size(); ++i) {
      const auto places = index_.of(x.facts->subjects[i]);
      if (!spend(1 + places.size())) return false;
      for (const auto& [part, at] : places) {
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
    for (std::size_t i = 0; i < apart.size(); ++i) {
      if (group_tells(apart[i]) || group_tells(all_but(apart[i]))) return true;
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
    if (!spend(size)) return true;
    const CellFacts of_a = a_.together(g.a);
    const CellFacts of_b = b_.together(g.b);
    const Part x(of_a, a_.width());
    const Part y(of_b, b_.width());
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
    const std::size_t in_one = x.facts->subjects.size() + y.facts->subjects.size() - 2 * c.subjects;
    if (in_one > 0 && in_one < least_) return true;
    const std::size_t differ = in_one + c.subjects - c.same_rows;
    if (differ == 0 || pairs_.empty()) return false;
    if (differ < least_) return true;
    for (std::size_t p = 0; p < pairs_.size(); ++p) {
      // Those in one part alone add this much to the difference. Where nobody's part is large
      // beside it, there is nothing to look for.
      const UWide alone = x.total[pairs_[p].a] + y.total[pairs_[p].b] - c.shared[p];
      if (3 * (x.largest[pairs_[p].a] + y.largest[pairs_[p].b]) < alone) continue;
      if (few_make_up(x, y, pairs_[p])) return true;
    }
    return false;
  }
  // Of the difference of the two sums: each subject's own part in it, by absolute value.
  bool few_make_up(const Part& x, const Part& y, const Pair& p) {
    const auto& xs = x.facts->subjects;
    const auto& ys = y.facts->subjects;
    if (!spend(xs.size() + ys.size())) return true;
    UWide largest = 0;
    UWide second = 0;
    UWide total = 0;
    std::size_t i = 0;
    std::size_t k = 0;
    while (i < xs.size() || k < ys.size()) {
      const bool in_x = k == ys.size() || (i < xs.size() && xs[i] <= ys[k]);
      const bool in_y = i == xs.size() || (k < ys.size() && ys[k] <= xs[i]);
      const Wide of_x = in_x ? x.added(i++, p.a) : 0;
      const Wide of_y = in_y ? y.added(k++, p.b) : 0;
      const UWide part = magnitude(of_x - of_y);
      total += part;
      second = std::max(second, std::min(largest, part));
      largest = std::max(largest, part);
    }
    // Equal counts of rows say nothing about anybody; equal sums can say that all add nothing.
    if (total == 0) return !p.rows;
    return dominated(largest, second, total);
  }

  Side a_;
  Side b_;
  Index index_;
  std::vector<Pair> pairs_;
  std::size_t least_;
  DifferenceSteps& steps_;
  std::vector<Overlap> overlaps_;
};

}  // namespace

bool differ_by_few(const RecomputedTable& a, const RecomputedTable& b, std::int64_t least,
                   DifferenceSteps& steps) {
  return Differences(a, b, least, steps).few();
}

}  // namespace gbx::gate
