#include "gate/differences.h"

#include <algorithm>

namespace gbx::gate {
namespace {

UWide magnitude(Wide v) { return static_cast<UWide>(v < 0 ? -v : v); }

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

// A cell with somebody in it, or the whole of a table, with what it adds up over all its subjects.
struct Part {
  const CellFacts* facts = nullptr;
  std::vector<UWide> total;    // of absolute values, one for each of RecomputedTable::adds
  std::vector<UWide> largest;  // the same
};

CellFacts whole_of(const RecomputedTable& t) {
  std::vector<std::pair<std::uint32_t, std::pair<std::size_t, std::size_t>>> all;
  for (std::size_t c = 0; c < t.cells.size(); ++c) {
    for (std::size_t i = 0; i < t.cells[c].subjects.size(); ++i) {
      all.push_back({t.cells[c].subjects[i], {c, i}});
    }
  }
  std::sort(all.begin(), all.end());
  CellFacts out;
  const std::size_t width = t.adds.size();
  for (const auto& [subject, place] : all) {
    const CellFacts& cell = t.cells[place.first];
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
      if (!c.subjects.empty()) add(c);
    }
    if (parts_.size() < 2) return;
    whole_ = whole_of(t);
    add(whole_);
  }
  Side(Side&&) = delete;  // parts_ points into it
  Side& operator=(Side&&) = delete;

  const std::vector<Part>& parts() const { return parts_; }
  Wide added(const Part& p, std::size_t place, std::size_t measure) const {
    return p.facts->added[place * width_ + measure];
  }

 private:
  void add(const CellFacts& c) {
    Part p{&c, std::vector<UWide>(width_), std::vector<UWide>(width_)};
    for (std::size_t i = 0; i < c.added.size(); ++i) {
      const UWide share = magnitude(c.added[i]);
      p.total[i % width_] += share;
      p.largest[i % width_] = std::max(p.largest[i % width_], share);
    }
    parts_.push_back(std::move(p));
  }

  std::size_t width_;
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
    for (const Part& x : a_.parts()) {
      std::vector<std::size_t> touched;
      if (!meet(x, common, touched)) return true;
      for (const std::size_t y : touched) {
        if (tells(x, b_.parts()[y], common[y])) return true;
        common[y] = {};
      }
    }
    return false;
  }

 private:
  bool spend(std::size_t steps) {
    if (steps_.left < steps) return false;
    steps_.left -= steps;
    return true;
  }
  bool meet(const Part& x, std::vector<Common>& common, std::vector<std::size_t>& touched) {
    for (std::size_t i = 0; i < x.facts->subjects.size(); ++i) {
      const auto places = index_.of(x.facts->subjects[i]);
      if (!spend(1 + places.size())) return false;
      for (const auto& [part, at] : places) {
        const Part& y = b_.parts()[part];
        Common& c = common[part];
        if (c.subjects++ == 0) {
          touched.push_back(part);
          c.shared.resize(pairs_.size());
        }
        if (x.facts->row_marks[i] == y.facts->row_marks[at]) ++c.same_rows;
        for (std::size_t p = 0; p < pairs_.size(); ++p) {
          c.shared[p] +=
              magnitude(a_.added(x, i, pairs_[p].a)) + magnitude(b_.added(y, at, pairs_[p].b));
        }
      }
    }
    return true;
  }
  bool tells(const Part& x, const Part& y, const Common& c) {
    const std::size_t in_one = x.facts->subjects.size() + y.facts->subjects.size() - 2 * c.subjects;
    if (in_one > 0 && in_one < least_) return true;
    const std::size_t differ = in_one + c.subjects - c.same_rows;
    if (differ == 0 || pairs_.empty()) return false;
    if (differ < least_) return true;
    for (std::size_t p = 0; p < pairs_.size(); ++p) {
      // Those in one part alone add this much to the difference. Is no single subject large enough
      // beside it, there is nothing to look for.
      const UWide alone = x.total[pairs_[p].a] + y.total[pairs_[p].b] - c.shared[p];
      if (3 * (x.largest[pairs_[p].a] + y.largest[pairs_[p].b]) <= alone) continue;
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
      const Wide of_x = in_x ? a_.added(x, i++, p.a) : 0;
      const Wide of_y = in_y ? b_.added(y, k++, p.b) : 0;
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
};

}  // namespace

bool differ_by_few(const RecomputedTable& a, const RecomputedTable& b, std::int64_t least,
                   DifferenceSteps& steps) {
  return Differences(a, b, least, steps).few();
}

}  // namespace gbx::gate
