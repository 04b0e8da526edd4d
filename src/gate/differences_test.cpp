// What two tables over one file tell together, against the same question asked of the rows.
#include "gate/differences.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <array>
#include <functional>
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
  // Also where the two add up something else.
  EXPECT_TRUE(tell_of_few(rows, {1, 49}, {0, 50, {}, true, false}, 10));
  // Who is counted once however often they come is not told of.
  EXPECT_FALSE(tell_of_few(rows, {0, 49, {}, false, false}, {1, 50, {}, false, false}, 10));
  // A cell and a whole, too.
  EXPECT_TRUE(tell_of_few(rows, {0, 1000, {50}}, at_most, 10));
  EXPECT_FALSE(tell_of_few(visits(), {0, 1000, {50}}, {0, 1000, {50}}, 10));
}

TEST(Differences, ThatOneOrTwoMakeUp) {
  const Question below{0, 49};
  const Question at_most{1, 50};  // of nobody's rows: neither asks for more
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
  // Rows against rows: twelve of them, one each; eight have none.
  EXPECT_FALSE(tell_of_few(with([](int) { return 0; }), {0, 49, {}, true, false},
                           {1, 50, {}, true, false}, 8));
  // Thirteen, one of whom comes twice.
  rows = with([](int i) { return 100 + i; });
  rows.push_back({12, 50, 110});
  rows.push_back({12, 50, 120});
  EXPECT_TRUE(tell_of_few(rows, {0, 49, {}, true, false}, {1, 50, {}, true, false}, 10));
}

// Whoever knows what is usual has the rest: the ones of a column of zeros, a diagnosis among those
// who are between two ages, one cost among many that are alike.
TEST(Differences, OfFewWhoAreNotLikeTheOthers) {
  const auto people = [](const std::function<int(int)>& between) {
    std::vector<Row> rows;
    for (int i = 0; i < 40; ++i) rows.push_back({i, 10, i % 2});
    for (int i = 40; i < 60; ++i) rows.push_back({i, 50, between(i)});
    return rows;
  };
  const auto told = [&](const std::function<int(int)>& between) {
    return tell_of_few(people(between), {0, 49}, {0, 50}, 10);
  };
  EXPECT_FALSE(told([](int i) { return i % 2; }));
  EXPECT_TRUE(told([](int i) { return i < 43 ? 1 : 0; }));
  EXPECT_TRUE(told([](int i) { return i < 43 ? 0 : 1; }));
  EXPECT_TRUE(told([](int i) { return i < 49 ? 1 : 0; }));
  EXPECT_FALSE(told([](int i) { return i < 50 ? 1 : 0; }));
  EXPECT_TRUE(told([](int i) { return i == 47 ? 7431 : 7000; }));
  // Where most are in both, what is nearly alike counts as alike.
  EXPECT_TRUE(told([](int i) { return i == 47 ? 7431 : 7000 + i % 3; }));
}

// One table counts rows and one adds up, or each adds up another column: who has both has what the
// one lacks.
TEST(Differences, OfTwoColumnsOverTheSameRows) {
  const auto told = [](const std::function<int(int)>& cost) {
    std::vector<Row> rows;
    for (int i = 0; i < 40; ++i) rows.push_back({i, 10, cost(i)});
    return tell_of_few(rows, {0, 1000, {}, true, false}, {0, 1000, {}, false, true}, 10);
  };
  EXPECT_TRUE(told([](int i) { return i < 3 ? 0 : 1; }));
  EXPECT_FALSE(told([](int) { return 1; }));
  EXPECT_FALSE(told([](int i) { return i % 2; }));
  EXPECT_FALSE(told([](int i) { return 50 + i; }));
}

// One table counts those who are something, the other adds up what most of them have: who has it
// not is told as by two counts.
TEST(Differences, OfTwoNumbersThatFewPeopleAreBetween) {
  const auto told = [](int without) {
    std::vector<Row> rows;
    for (int i = 0; i < 100; ++i) rows.push_back({i, i < 60 ? 10 : 50, i < 60 - without ? 1 : 0});
    return tell_of_few(rows, {0, 49, {}, false, false}, {1, 1000}, 10);
  };
  EXPECT_TRUE(told(3));
  EXPECT_TRUE(told(9));
  EXPECT_FALSE(told(10));
  EXPECT_FALSE(told(30));
}

// What few people are without is told as what they are with; and by twos as by ones.
TEST(Differences, OfWhoHasTheOtherOfTwoValues) {
  const auto told = [](int without, int one, int other, const Question& counted) {
    std::vector<Row> rows;
    for (int i = 0; i < 100; ++i) {
      rows.push_back({i, i < 40 - without ? 10 : 50, i < 40 ? one : other});
    }
    return tell_of_few(rows, {1, 1000}, counted, 10);
  };
  const Question with{0, 49, {}, false, false};
  const Question without{50, 1000, {}, false, false};
  for (const Question& counted : {with, without}) {
    EXPECT_TRUE(told(3, 1, 0, counted));
    EXPECT_TRUE(told(3, 2, 1, counted));
    EXPECT_TRUE(told(3, 1, 2, counted));
    EXPECT_FALSE(told(10, 2, 1, counted));
    EXPECT_FALSE(told(10, 1, 0, counted));
  }
}

// Two tables of sums over `csv`.
bool sums_tell(const std::string& csv, const std::vector<std::string>& a,
               const std::vector<std::string>& b, const std::string& filter_b = "") {
  const auto schema_of = [](const std::vector<std::string>& sums, const std::string& filter) {
    std::string columns = R"({"name":"n","type":"integer","minimum":0,"maximum":1000})";
    std::string measures = R"({"name":"n","of":"subjects"})";
    for (const auto& c : sums) {
      columns += R"(,{"name":")" + c + R"(","type":"integer","minimum":0,"maximum":1000000})";
      measures += R"(,{"name":")" + c + R"(","of":"sum","column":")" + c + "\"}";
    }
    OutputDeclaration d;
    d.type = OutputType::kTable;
    d.name = d.path = "table";
    d.maxBytes = 1 << 16;
    d.schema["maxRows"] = 1;
    d.schema["columns"] = *parse_json("[" + columns + "]");
    d.schema["recipe"] =
        *parse_json(R"({"input":"i","file":"f",)" + filter + R"("measures":[)" + measures + "]}");
    return std::move(*parse_schema(d));
  };
  const Schema schema_a = schema_of(a, "");
  const Schema schema_b = schema_of(b, filter_b);
  CellCounter counter(
      {{&*schema_a.recipe, &schema_a, "who", 10}, {&*schema_b.recipe, &schema_b, "who", 10}});
  counter.feed(as_bytes(csv));
  const auto tables = counter.finish();
  EXPECT_TRUE(tables[0].ok() && tables[1].ok());
  DifferenceSteps steps;
  DifferenceSteps back;
  const bool few = differ_by_few(tables[0], tables[1], 10, steps);
  EXPECT_EQ(differ_by_few(tables[1], tables[0], 10, back), few) << "in the other order";
  return few;
}

// Alive and moved away in one table, dead in the other: who is none of these is what is left.
TEST(Differences, OfColumnsOfWhichEverybodyHasOneInTwoTables) {
  for (const int none : {0, 3, 20}) {
    std::string csv = "who,alive,moved,dead\n";
    for (int i = 0; i < 100; ++i) {
      csv += "p" + std::to_string(i) +
             (i < 40           ? ",1,0,0\n"
              : i < 70         ? ",0,1,0\n"
              : i < 100 - none ? ",0,0,1\n"
                               : ",0,0,0\n");
    }
    EXPECT_EQ(sums_tell(csv, {"alive", "moved"}, {"dead"}), none == 3) << none;
  }
}

// All costs, and those in the hospital of whoever was there; the others had none. One had more.
TEST(Differences, OfTwoColumnsWhereTheOthersAddNothing) {
  const auto told = [](const std::function<int(int)>& more, int others) {
    std::string csv = "who,there,all,hospital\n";
    for (int i = 0; i < 100; ++i) {
      const int hospital = i < 70 ? 1000 + 7 * i : 0;
      csv += "p" + std::to_string(i) + (i < 70 ? ",yes," : ",no,") +
             std::to_string(i < 70 ? hospital + more(i) : others * i) + "," +
             std::to_string(hospital) + "\n";
    }
    return sums_tell(csv, {"all"}, {"hospital"},
                     R"("filter":[{"column":"there","is":"equals","value":"yes"}],)");
  };
  const auto one = [](int i) { return i == 5 ? 431 : i < 20 ? 1 + i % 5 : 0; };
  EXPECT_TRUE(told(one, 0));
  EXPECT_FALSE(told(one, 11)) << "hidden among what the others had";
  EXPECT_FALSE(told([](int i) { return 20 + i % 31; }, 0));
}

// The same twenty people in a table of all and in one of those who are something: all are it.
TEST(Differences, OfAGroupThatIsAllWhatAFilterAsks) {
  std::vector<Row> rows;
  for (int i = 0; i < 20; ++i) rows.push_back({i, 10, 100 + i});
  for (int i = 20; i < 40; ++i) rows.push_back({i, 50, 100 + i});
  const auto counts = [](int from, int to, std::vector<int> cuts = {}) {
    return Question{from, to, std::move(cuts), false, false};
  };
  EXPECT_TRUE(tell_of_few(rows, counts(0, 49), counts(0, 20), 10)) << "nobody came on 21 to 49";
  EXPECT_TRUE(tell_of_few(rows, counts(0, 1000, {30}), counts(0, 20), 10)) << "a cell and a whole";
  EXPECT_TRUE(tell_of_few(rows, counts(0, 1000, {30}), counts(0, 1000, {40}), 10));
  EXPECT_FALSE(tell_of_few(rows, counts(0, 49), counts(0, 49), 10));
  EXPECT_FALSE(tell_of_few(rows, counts(0, 1000, {50}), counts(50, 1000), 10))
      << "the cell of those from 50 on is what the filter asks for";
  // Ten people between are enough.
  for (int i = 60; i < 70; ++i) rows.push_back({i, 30, 100 + i});
  EXPECT_FALSE(tell_of_few(rows, counts(0, 49), counts(0, 20), 10));
}

// Ages of one visit each: two cells of one table are one of the other, but for one person.
TEST(Differences, BetweenCellsThatAreTakenTogether) {
  std::vector<Row> rows;
  for (int i = 0; i < 60; ++i) rows.push_back({i, i < 20 ? 30 : i < 40 ? 45 : 60, 100 + i});
  const auto by = [](std::vector<int> cuts) { return Question{0, 1000, std::move(cuts)}; };
  EXPECT_FALSE(tell_of_few(rows, by({40, 50}), by({50}), 10));
  EXPECT_TRUE(tell_of_few(rows, by({40, 50}), by({51}), 10)) << "that nobody is 50";
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

// Sixty-five cells, each beside its like: what is between all but one of them is what is between
// that one, and is not looked for again.
TEST(Differences, OfManyCellsAreFoundInBoundedSteps) {
  std::vector<Row> rows;
  for (int i = 0; i < 65 * 20; ++i) rows.push_back({i, i / 20, 100 + i});
  Question q{0, 1000, {}, false, false};
  for (int day = 1; day < 65; ++day) q.cuts.push_back(day);
  EXPECT_FALSE(tell_of_few(rows, q, q, 10, DifferenceSteps{.left = 200'000}));
  // Somebody who comes a second time is in two cells: then it is asked of all the others, too.
  rows.push_back({0, 30, 100});
  EXPECT_TRUE(tell_of_few(rows, q, q, 10, DifferenceSteps{.left = 200'000}));
  EXPECT_FALSE(tell_of_few(rows, q, q, 10));
}

// A premium by day, ten and ninety, of a hundred people: it changed for one, or one came later.
TEST(Differences, BetweenTwoCellsOfOneTable) {
  const auto told = [](const std::function<bool(Row&)>& change, DifferenceSteps steps = {}) {
    std::vector<Row> rows;
    for (int i = 0; i < 100; ++i) {
      for (const int day : {10, 90}) {
        Row row{i, day, 300 + 7 * i};
        if (change(row)) rows.push_back(row);
      }
    }
    const auto schema = parse_schema(declaration({0, 1000, {50}}));
    CellCounter counter({{&*schema->recipe, &*schema, "who", 10}});
    counter.feed(as_bytes(csv_of(rows)));
    return cells_differ_by_few(counter.finish().at(0), 10, steps);
  };
  const auto changed = [](Row& row, int people) {
    if (row.day == 90 && row.who < people) row.cost += 431 + row.who;
    return true;
  };
  EXPECT_FALSE(told([&](Row& row) { return changed(row, 0); }));
  EXPECT_TRUE(told([&](Row& row) { return changed(row, 1); }));
  EXPECT_TRUE(told([&](Row& row) { return changed(row, 9); }));
  EXPECT_FALSE(told([&](Row& row) { return changed(row, 10); }));
  EXPECT_TRUE(told([](const Row& row) { return row.who != 7 || row.day == 90; }));
  EXPECT_FALSE(told([](const Row& row) { return row.who % 2 == 0 || row.day == 90; }));
  EXPECT_FALSE(told([](Row& row) {
    row.cost += row.day == 90 ? row.who % 31 : 0;
    return true;
  })) << "costs that vary";
  EXPECT_TRUE(told([&](Row& row) { return changed(row, 0); }, DifferenceSteps{.left = 10}));
}

// Who is in two cells is counted twice: cells and how many people there are tell how many are.
TEST(Differences, OfWhoIsInTwoCells) {
  const auto told = [](int both, bool total) {
    std::vector<Row> rows;
    for (int i = 0; i < 100; ++i) rows.push_back({i, 10, 1});
    for (int i = 100 - both; i < 160; ++i) rows.push_back({i, 90, 1});
    for (int i = 200; i < 230; ++i) rows.push_back({i, 300, 1});
    const Question cells{0, 1000, {50, 200}, false, false};
    return tell_of_few(
        rows, cells,
        total ? Question{0, 1000, {}, false, false} : Question{0, 1000, {200}, false, false}, 10);
  };
  for (const bool total : {true, false}) {
    EXPECT_FALSE(told(0, total));
    EXPECT_TRUE(told(1, total));
    EXPECT_TRUE(told(9, total));
    EXPECT_FALSE(told(10, total));
  }
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
  std::map<int, int> cells = {};  // of a whole: in how many cells each of them is
  std::pair<int, int> filter;     // days that are asked for, doubled: below 4 is up to 7
  std::pair<int, int> asked;      // the same with the cell's words
};
std::vector<Naive> cells_of(const std::vector<Row>& rows, const Question& q) {
  std::vector<Naive> cells(q.cuts.size() + 1);
  for (std::size_t n = 0; n < cells.size(); ++n) {
    cells[n].filter = cells[n].asked = {2 * q.from, 2 * q.to};
    auto& [from, to] = cells[n].asked;
    if (n > 0) from = std::max(from, 2 * q.cuts[n - 1]);
    if (n < q.cuts.size()) to = std::min(to, 2 * q.cuts[n] - 1);
  }
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
// Cells and, where there are several, the whole.
std::vector<Naive> parts(const std::vector<Row>& rows, const Question& q) {
  std::vector<Naive> cells = cells_of(rows, q);
  if (cells.size() > 1) {
    Naive whole;
    for (const Naive& cell : cells) {
      whole.rows.insert(cell.rows.begin(), cell.rows.end());
      whole.people.insert(cell.people.begin(), cell.people.end());
      for (const int p : cell.people) ++whole.cells[p];
    }
    whole.asked = whole.filter = cells[0].filter;
    cells.push_back(whole);
  }
  return cells;
}
bool within(const std::pair<int, int>& x, const std::pair<int, int>& y) {
  return x.first >= y.first && x.second <= y.second;
}
// All of y are something that x asks for, and y does not.
bool naive_group(const Naive& x, const Naive& y) {
  if (!within(x.asked, y.asked)) return false;
  return (x.people == y.people && !within(y.asked, x.filter)) ||
         (x.rows == y.rows && !within(y.asked, x.asked));
}
// One has more than half, or two more than two thirds.
bool naive_dominated(std::vector<int> parts) {
  for (int& p : parts) p = std::abs(p);
  std::sort(parts.rbegin(), parts.rend());
  int all = 0;
  for (const int p : parts) all += p;
  return 2 * parts[0] > all || (parts.size() > 1 && 3 * (parts[0] + parts[1]) > 2 * all);
}
bool naive_off(const std::vector<int>& shares, int usual, std::size_t least, bool near) {
  std::vector<int> off;
  for (const int s : shares) {
    if (s != usual) off.push_back(s - usual);
  }
  if (off.empty()) return false;
  const std::size_t alike = shares.size() - off.size();
  const bool few = off.size() < least && (alike >= least || 2 * alike >= shares.size());
  return few || (near && naive_dominated(off));
}
bool naive_unusual(std::vector<int> shares, std::size_t least, bool near) {
  std::sort(shares.begin(), shares.end());
  const auto adding = std::count_if(shares.begin(), shares.end(), [](int s) { return s != 0; });
  if (adding > 0 && adding < static_cast<std::ptrdiff_t>(least)) return true;
  return naive_off(shares, shares[(shares.size() - 1) / 2], least, near) ||
         naive_off(shares, shares[shares.size() / 2], least, near);
}
// What each person of a part adds to each of its numbers; how many people there are is first, in
// how many cells each of them is second.
std::vector<std::map<int, int>> numbers_of(const std::vector<Row>& rows, const Naive& part,
                                           const Question& q) {
  std::vector<std::map<int, int>> out(4);
  for (const std::size_t i : part.rows) {
    out[0][rows[i].who] = 1;
    out[1][rows[i].who] = part.cells.empty() ? 1 : part.cells.at(rows[i].who);
    ++out[2][rows[i].who];
    out[3][rows[i].who] += rows[i].cost;
  }
  if (!q.cost) out.pop_back();
  if (!q.rows) out.erase(out.begin() + 2);
  // Of two values, who has which.
  for (std::size_t n = 2, all = out.size(); n < all; ++n) {
    std::set<int> values;
    for (const auto& [who, value] : out[n]) values.insert(value);
    if (values.size() != 2) continue;
    for (const int one : values) {
      std::map<int, int> kind;
      for (const auto& [who, value] : out[n]) kind[who] = value == one ? 1 : 0;
      out.push_back(kind);
    }
  }
  return out;
}
// One number of each: all but few add the same to both.
bool naive_apart(const std::vector<Row>& rows, const Naive& x, const Naive& y, const Question& a,
                 const Question& b, std::size_t least) {
  const auto often = [](const Naive& part) {
    return std::any_of(part.cells.begin(), part.cells.end(),
                       [](const auto& person) { return person.second > 1; });
  };
  const auto of = [](const std::map<int, int>& number, int who) {
    const auto it = number.find(who);
    return it == number.end() ? 0 : it->second;
  };
  std::set<int> people = x.people;
  people.insert(y.people.begin(), y.people.end());
  const auto of_x = numbers_of(rows, x, a);
  const auto of_y = numbers_of(rows, y, b);
  for (std::size_t m = 0; m < of_x.size(); ++m) {
    for (std::size_t n = 0; n < of_y.size(); ++n) {
      // How many people are in cells together is in no number where some are in two.
      if ((m == 1 && n == 0 && often(y)) || (m == 0 && n == 1 && often(x))) continue;
      const auto apart = std::count_if(people.begin(), people.end(), [&](int who) {
        return of(of_x[m], who) != of(of_y[n], who);
      });
      if (apart > 0 && apart < static_cast<std::ptrdiff_t>(least)) return true;
    }
  }
  return false;
}
bool naive_pair(const std::vector<Row>& rows, const Naive& x, const Naive& y, const Question& a,
                const Question& b, std::size_t least) {
  std::size_t common = 0;
  for (const int p : x.people) common += y.people.count(p);
  if (common == 0) return false;
  const std::size_t in_one = x.people.size() + y.people.size() - 2 * common;
  if (in_one > 0 && in_one < least) return true;
  if (naive_group(x, y) || naive_group(y, x)) return true;
  if (naive_apart(rows, x, y, a, b, least)) return true;
  std::map<int, int> counts;
  std::map<int, int> costs;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const int sign = static_cast<int>(x.rows.count(i)) - static_cast<int>(y.rows.count(i));
    if (sign == 0) continue;
    counts[rows[i].who] += sign;
    costs[rows[i].who] += sign * rows[i].cost;
  }
  if (counts.empty() || !(a.rows || a.cost) || !(b.rows || b.cost)) return false;
  if (counts.size() < least) return true;
  const auto few = [&](const std::map<int, int>& by_person, bool is_count) {
    std::vector<int> parts;
    std::vector<int> shares[2];
    for (const auto& [who, part] : by_person) {
      parts.push_back(part);
      // Everybody beside everybody, whichever of the two cells they are in.
      const bool in_both = x.people.count(who) + y.people.count(who) == 2;
      const int share = is_count ? std::abs(part) : x.people.count(who) == 0 ? -part : part;
      shares[0].push_back(share);
      shares[1].push_back(in_both && !is_count ? -share : share);
    }
    const bool nothing =
        std::all_of(parts.begin(), parts.end(), [](const int p) { return p == 0; });
    if (nothing) return !is_count;
    return naive_dominated(parts) || naive_unusual(shares[0], least, common > in_one) ||
           naive_unusual(shares[1], least, common > in_one);
  };
  return (a.rows && b.rows && few(counts, true)) || (a.cost && b.cost && few(costs, false));
}
// The same rows, counted and added up: both numbers are known of the same people.
bool naive_columns(const std::vector<Row>& rows, const Naive& x, const Naive& y, const Question& a,
                   const Question& b, std::size_t least) {
  if (x.rows != y.rows || !((a.rows && b.cost) || (a.cost && b.rows))) return false;
  std::map<int, int> apart;
  for (const std::size_t i : x.rows) apart[rows[i].who] += rows[i].cost - 1;
  std::vector<int> shares;
  for (const auto& [who, part] : apart) shares.push_back(part);
  const bool nothing =
      std::all_of(shares.begin(), shares.end(), [](const int p) { return p == 0; });
  return !nothing && (naive_dominated(shares) || naive_unusual(shares, least, true));
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
        due = due || naive_pair(rows, x, y, a, b, least) || naive_columns(rows, x, y, a, b, least);
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
    for (const Naive& x : parts(rows, a)) {
      for (const Naive& y : parts(rows, b)) due = due || naive_group(x, y) || naive_group(y, x);
    }
    RC_ASSERT(tell_of_few(rows, a, b, static_cast<std::int64_t>(least)) == due);
    found += due ? 1 : 0;
  }));
  EXPECT_GT(found, 0);
}

}  // namespace
}  // namespace gbx::gate
