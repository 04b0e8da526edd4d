// What two tables over one file tell together, against the same question asked of the rows.
#include "gate/differences.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/seams.h"

namespace gbx::gate {
namespace {

struct Row {
  int who = 0;
  int day = 0;
  int cost = 0;
};
std::string csv_of(const std::vector<Row>& rows) {
  std::string s = "who,day,cost\n";
  for (const auto& r : rows) {
    s += "p" + std::to_string(r.who) + "," + std::to_string(r.day) + "," + std::to_string(r.cost) +
         "\n";
  }
  return s;
}

// A table over the days from `from` to `to`, in one cell or, with cuts, in more.
struct Question {
  int from = 0;
  int to = 1000;
  std::vector<int> cuts = {};
  bool rows = false;
  bool cost = true;
};
OutputDeclaration declaration(const Question& q) {
  const auto day = [](const char* is, int value) {
    return R"({"column":"day","is":")" + std::string(is) + R"(","value":")" +
           std::to_string(value) + R"("})";
  };
  std::string columns = R"({"name":"n","type":"integer","minimum":0,"maximum":100000})";
  std::string measures = R"({"name":"n","of":"subjects"})";
  if (q.rows) {
    columns += R"(,{"name":"rows","type":"integer","minimum":0,"maximum":100000})";
    measures += R"(,{"name":"rows","of":"rows"})";
  }
  if (q.cost) {
    columns += R"(,{"name":"sum","type":"integer","minimum":-1000000,"maximum":1000000})";
    measures += R"(,{"name":"sum","of":"sum","column":"cost"})";
  }
  std::string groups;
  if (!q.cuts.empty()) {
    std::string words = R"("w")";
    std::string cuts;
    for (const int cut : q.cuts) {
      cuts += (cuts.empty() ? "\"" : ",\"") + std::to_string(cut) + "\"";
      words += ",\"w" + std::to_string(cut) + "\"";
    }
    columns = R"({"name":"when","type":"text","enum":[)" + words + "]}," + columns;
    groups = R"("groupBy":[{"name":"when","column":"day","cuts":[)" + cuts + "]}],";
  }
  OutputDeclaration d;
  d.type = OutputType::kTable;
  d.name = d.path = "table";
  d.maxBytes = 1 << 16;
  d.schema["maxRows"] = static_cast<std::int64_t>(q.cuts.size()) + 1;
  d.schema["columns"] = *parse_json("[" + columns + "]");
  d.schema["recipe"] =
      *parse_json(R"({"input":"i","file":"f","filter":[)" + day("at-least", q.from) + "," +
                  day("at-most", q.to) + "]," + groups + R"("measures":[)" + measures + "]}");
  return d;
}

bool tell_of_few(const std::vector<Row>& rows, const Question& a, const Question& b,
                 std::int64_t least, DifferenceSteps steps = {}) {
  const auto schema_a = parse_schema(declaration(a));
  const auto schema_b = parse_schema(declaration(b));
  EXPECT_TRUE(schema_a.ok() && schema_b.ok());
  CellCounter counter({{&*schema_a->recipe, &*schema_a, "who", least},
                       {&*schema_b->recipe, &*schema_b, "who", least}});
  counter.feed(as_bytes(csv_of(rows)));
  const auto tables = counter.finish();
  EXPECT_TRUE(tables[0].ok() && tables[1].ok());
  DifferenceSteps back = steps;
  const bool few = differ_by_few(tables[0], tables[1], least, steps);
  EXPECT_EQ(differ_by_few(tables[1], tables[0], least, back), few) << "in the other order";
  return few;
}

// Twenty people with a visit on day 10 and one on day 90, of like costs.
std::vector<Row> visits() {
  std::vector<Row> rows;
  for (int i = 0; i < 20; ++i) {
    rows.push_back({i, 10, 100 + i});
    rows.push_back({i, 90, 200 + i});
  }
  return rows;
}

TEST(Differences, ByFewSubjectsOfACellOrAWhole) {
  auto rows = visits();
  rows.push_back({77, 50, 110});
  const Question below{0, 49, {}, false, false};
  const Question at_most{0, 50, {}, false, false};
  EXPECT_TRUE(tell_of_few(rows, below, at_most, 10));
  EXPECT_FALSE(tell_of_few(rows, below, at_most, 1)) << "one is as many as the owner asks for";
  EXPECT_FALSE(tell_of_few(rows, below, below, 10));
  // The whole of one table is a cell of the other but for one person.
  EXPECT_TRUE(tell_of_few(rows, {0, 1000, {51}, false, false}, below, 10));
  // Ten more are enough to hide among.
  for (int i = 0; i < 9; ++i) rows.push_back({100 + i, 50, 111 + i});
  EXPECT_FALSE(tell_of_few(rows, below, at_most, 10));
  EXPECT_TRUE(tell_of_few(rows, below, at_most, 11));
}

// Whoever sees both sums has the cost of the only visit on day 50, though all twenty are in both.
TEST(Differences, ByOnesRowsWhereThePeopleAreTheSame) {
  auto rows = visits();
  rows.push_back({7, 50, 444});
  const Question below{0, 49};
  const Question at_most{0, 50};
  EXPECT_TRUE(tell_of_few(rows, below, at_most, 10));
  EXPECT_TRUE(tell_of_few(rows, {0, 49, {}, true, false}, {0, 50, {}, true, false}, 10));
  // Who is counted once however often they come, or added up as something else, is not told of.
  EXPECT_FALSE(tell_of_few(rows, {0, 49, {}, false, false}, {0, 50, {}, false, false}, 10));
  EXPECT_FALSE(tell_of_few(rows, below, {0, 50, {}, true, false}, 10));
  // A cell and a whole, too.
  EXPECT_TRUE(tell_of_few(rows, {0, 1000, {50}}, at_most, 10));
  EXPECT_FALSE(tell_of_few(visits(), {0, 1000, {50}}, {0, 1000, {50}}, 10));
}

TEST(Differences, ThatOneOrTwoMakeUp) {
  const Question below{0, 49};
  const Question at_most{0, 50};
  const auto with = [](const std::function<int(int)>& cost) {
    auto rows = visits();
    for (int i = 0; i < 12; ++i) rows.push_back({i, 50, cost(i)});
    return rows;
  };
  EXPECT_FALSE(tell_of_few(with([](int i) { return 100 + i; }), below, at_most, 10));
  EXPECT_TRUE(tell_of_few(with([](int i) { return i == 3 ? 500 : 0; }), below, at_most, 10));
  EXPECT_TRUE(tell_of_few(with([](int i) { return i < 2 ? 500 : 30; }), below, at_most, 10));
  EXPECT_TRUE(tell_of_few(with([](int) { return 0; }), below, at_most, 10)) << "nobody adds any";
  // What a person adds and takes away again is no part in it.
  auto rows = with([](int i) { return 100 + i; });
  for (int i = 1; i < 12; ++i) rows.push_back({i, 50, -100 - i});
  EXPECT_TRUE(tell_of_few(rows, below, at_most, 10));
  // Rows against rows: twelve of them, one each.
  EXPECT_FALSE(tell_of_few(with([](int) { return 0; }), {0, 49, {}, true, false},
                           {0, 50, {}, true, false}, 10));
}

// Ages of one visit each: two cells of one table are one of the other, but for one person.
TEST(Differences, BetweenCellsThatAreTakenTogether) {
  std::vector<Row> rows;
  for (int i = 0; i < 60; ++i) rows.push_back({i, i < 20 ? 30 : i < 40 ? 45 : 60, 100 + i});
  const auto by = [](std::vector<int> cuts) { return Question{0, 1000, std::move(cuts)}; };
  EXPECT_FALSE(tell_of_few(rows, by({40, 50}), by({51}), 10)) << "nobody is 50";
  EXPECT_FALSE(tell_of_few(rows, by({40, 50}), by({20, 40}), 10));
  rows.push_back({77, 50, 444});
  EXPECT_TRUE(tell_of_few(rows, by({40, 50}), by({51}), 10));
  EXPECT_TRUE(tell_of_few(rows, by({40, 50}), by({44, 51}), 10)) << "two cells and two";
  EXPECT_TRUE(tell_of_few(rows, by({40, 50, 55}), by({51, 58}), 10));
  // As many as the owner asks for, alike; and as many, of whom one makes up the difference.
  for (int i = 0; i < 11; ++i) rows.push_back({100 + i, 50, 440 + i});
  EXPECT_FALSE(tell_of_few(rows, by({40, 50}), by({51}), 10));
  for (int i = 0; i < 11; ++i) rows[rows.size() - 1 - static_cast<std::size_t>(i)].cost = 1;
  EXPECT_TRUE(tell_of_few(rows, by({40, 50}), by({51}), 10));
}

TEST(Differences, WhatIsTooMuchToLookAtCountsAsFew) {
  const Question all;
  EXPECT_FALSE(tell_of_few(visits(), all, all, 10));
  EXPECT_TRUE(tell_of_few(visits(), all, all, 10, DifferenceSteps{.left = 10}));
}

// The same question of the rows themselves.
struct Naive {
  std::set<std::size_t> rows;
  std::set<int> people;
};
std::vector<Naive> cells_of(const std::vector<Row>& rows, const Question& q) {
  std::vector<Naive> cells(q.cuts.size() + 1);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].day < q.from || rows[i].day > q.to) continue;
    const auto above = std::upper_bound(q.cuts.begin(), q.cuts.end(), rows[i].day);
    Naive& cell = cells[static_cast<std::size_t>(above - q.cuts.begin())];
    cell.rows.insert(i);
    cell.people.insert(rows[i].who);
  }
  std::erase_if(cells, [](const Naive& c) { return c.rows.empty(); });
  return cells;
}
// At most two cells, and the whole.
std::vector<Naive> parts(const std::vector<Row>& rows, const Question& q) {
  std::vector<Naive> cells = cells_of(rows, q);
  if (cells.size() == 2) {
    Naive whole = cells[0];
    whole.rows.merge(Naive(cells[1]).rows);
    whole.people.merge(Naive(cells[1]).people);
    cells.push_back(whole);
  }
  return cells;
}
bool naive_pair(const std::vector<Row>& rows, const Naive& x, const Naive& y, bool count, bool cost,
                std::size_t least) {
  std::size_t common = 0;
  for (const int p : x.people) common += y.people.count(p);
  if (common == 0) return false;
  const std::size_t in_one = x.people.size() + y.people.size() - 2 * common;
  if (in_one > 0 && in_one < least) return true;
  std::set<int> other_rows;
  std::map<int, int> counts;
  std::map<int, int> costs;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const int sign = static_cast<int>(x.rows.count(i)) - static_cast<int>(y.rows.count(i));
    if (sign == 0) continue;
    other_rows.insert(rows[i].who);
    counts[rows[i].who] += sign;
    costs[rows[i].who] += sign * rows[i].cost;
  }
  if (other_rows.empty() || (!count && !cost)) return false;
  if (other_rows.size() < least) return true;
  const auto few = [](const std::map<int, int>& parts, bool nothing) {
    std::vector<UWide> all(2);
    UWide total = 0;
    for (const auto& [who, part] : parts) {
      all.push_back(static_cast<UWide>(std::abs(part)));
      total += all.back();
    }
    std::sort(all.rbegin(), all.rend());
    return total == 0 ? nothing : dominated(all[0], all[1], total);
  };
  return (count && few(counts, false)) || (cost && few(costs, true));
}

TEST(Differences, EqualTheSameQuestionOfTheRows) {
  int found = 0;
  int not_found = 0;
  EXPECT_TRUE(rc::check([&](std::uint64_t seed) {
    SeededRandom dice(seed);
    const auto below = [&dice](int n) {
      return static_cast<int>(dice.below(static_cast<std::uint64_t>(n)));
    };
    std::vector<Row> rows;
    const int people = 3 + below(20);
    const int many = below(80);
    for (int i = 0; i < many; ++i) rows.push_back({below(people), below(6), below(7) - 2});
    const auto question = [&] {
      Question q;
      q.from = below(2);
      q.to = 3 + below(4);
      if (below(2) == 0) q.cuts = {1 + below(4)};
      q.rows = below(2) == 0;
      q.cost = below(3) != 0;
      return q;
    };
    const Question a = question();
    const Question b = question();
    const std::size_t least = 1 + static_cast<std::size_t>(below(4));
    bool due = false;
    for (const Naive& x : parts(rows, a)) {
      for (const Naive& y : parts(rows, b)) {
        due = due || naive_pair(rows, x, y, a.rows && b.rows, a.cost && b.cost, least);
      }
    }
    RC_ASSERT(tell_of_few(rows, a, b, static_cast<std::int64_t>(least)) == due);
    ++(due ? found : not_found);
  }));
  EXPECT_GT(found, 0);
  EXPECT_GT(not_found, 0);
}

// With one row for each, every union of cells of one table beside every union of the other.
TEST(Differences, OfFewPeopleBetweenAnyUnionsAreFound) {
  int found = 0;
  EXPECT_TRUE(rc::check([&](std::uint64_t seed) {
    SeededRandom dice(seed);
    const auto below = [&dice](int n) {
      return static_cast<int>(dice.below(static_cast<std::uint64_t>(n)));
    };
    std::vector<Row> rows;
    const int people = 10 + below(30);
    for (int i = 0; i < people; ++i) rows.push_back({i, below(8), 1});
    const auto question = [&] {
      Question q;
      q.cost = false;
      for (int cut = 1; cut < 8 && q.cuts.size() < 4; ++cut) {
        if (below(3) == 0) q.cuts.push_back(cut);
      }
      return q;
    };
    const Question a = question();
    const Question b = question();
    const auto of_a = cells_of(rows, a);
    const auto of_b = cells_of(rows, b);
    const auto together = [](const std::vector<Naive>& all, unsigned some) {
      std::set<int> people_of;
      for (std::size_t i = 0; i < all.size(); ++i) {
        if ((some >> i & 1U) != 0) people_of.insert(all[i].people.begin(), all[i].people.end());
      }
      return people_of;
    };
    const std::size_t least = 2 + static_cast<std::size_t>(below(4));
    bool due = false;
    for (unsigned x = 1; x < 1U << of_a.size(); ++x) {
      for (unsigned y = 1; y < 1U << of_b.size(); ++y) {
        const auto in_a = together(of_a, x);
        const auto in_b = together(of_b, y);
        std::vector<int> apart;
        std::set_symmetric_difference(in_a.begin(), in_a.end(), in_b.begin(), in_b.end(),
                                      std::back_inserter(apart));
        const bool common = in_a.size() + in_b.size() != apart.size();
        due = due || (common && !apart.empty() && apart.size() < least);
      }
    }
    RC_ASSERT(tell_of_few(rows, a, b, static_cast<std::int64_t>(least)) == due);
    found += due ? 1 : 0;
  }));
  EXPECT_GT(found, 0);
}

}  // namespace
}  // namespace gbx::gate
