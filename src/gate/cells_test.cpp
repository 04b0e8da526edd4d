// Tables by recipe: what the gate computes from the inputs, against a count in memory, and what the
// rules make of it.
#include "gate/cells.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <set>

#include "base/seams.h"
#include "gate/csv.h"

namespace gbx::gate {
namespace {

// Sites a to c, ages in three ranges, a cost; the column `who` names subjects.
constexpr const char* kColumns = R"([
    {"name":"site","type":"text","enum":["a","b","c"]},
    {"name":"age","type":"text","enum":["young","middle","old"]},
    {"name":"people","type":"integer","minimum":0,"maximum":100000},
    {"name":"visits","type":"integer","minimum":0,"maximum":100000},
    {"name":"cost","type":"decimal","minimum":-1000000,"maximum":1000000,"digits":15,"scale":9}])";
constexpr const char* kRecipe = R"({"input":"visits","file":"visits.csv",
    "filter":[{"column":"kept","is":"equals","value":"yes"},
              {"column":"cost","is":"at-least","value":"-50.5"}],
    "groupBy":[{"name":"site","column":"site"},
               {"name":"age","column":"years","cuts":["30","60.5"]}],
    "measures":[{"name":"people","of":"subjects"},{"name":"visits","of":"rows"},
                {"name":"cost","of":"sum","column":"cost"}],
    "roundTo":5})";

OutputDeclaration declaration(const std::string& columns, const std::string& recipe,
                              std::int64_t max_rows = 9) {
  OutputDeclaration d;
  d.name = "table";
  d.path = "table.csv";
  d.type = OutputType::kTable;
  d.maxBytes = 1 << 16;
  d.schema["maxRows"] = max_rows;
  d.schema["columns"] = *parse_json(columns);
  d.schema["recipe"] = *parse_json(recipe);
  return d;
}
Schema schema_of(const OutputDeclaration& d) {
  auto s = parse_schema(d);
  EXPECT_TRUE(s.ok()) << s.error().line();
  return std::move(*s);
}

struct Row {
  std::string who, site, kept;
  int years_tenths = 0;
  int cost_cents = 0;
};
std::string fixed(int value, int places) {
  std::string digits = std::to_string(std::abs(value));
  const auto n = static_cast<std::size_t>(places);
  if (digits.size() <= n) digits.insert(0, n + 1 - digits.size(), '0');
  digits.insert(digits.size() - n, ".");
  return (value < 0 ? "-" : "") + digits;
}
std::string csv_of(const std::vector<Row>& rows, const char* end = "\n") {
  std::string s = std::string("years,who,kept,cost,site") + end;
  for (const auto& r : rows) {
    s += fixed(r.years_tenths, 1) + "," + r.who + "," + r.kept + "," + fixed(r.cost_cents, 2) +
         "," + r.site + end;
  }
  return s;
}
std::vector<Row> rows_of(std::uint64_t seed, std::size_t count) {
  SeededRandom dice(seed);
  std::vector<Row> rows;
  for (std::size_t i = 0; i < count; ++i) {
    Row r;
    r.who = "s" + std::to_string(dice.below(1 + count / 2));
    r.site = std::string(1, static_cast<char>('a' + dice.below(3)));
    r.kept = dice.below(4) == 0 ? "no" : "yes";
    r.years_tenths = static_cast<int>(dice.below(4)) * 300 + static_cast<int>(dice.below(3)) * 5;
    r.cost_cents = static_cast<int>(dice.below(20'000)) - 6'000;
    rows.push_back(std::move(r));
  }
  return rows;
}

RecomputedTable compute(const Schema& s, const std::string& input, CellLimits limits = {},
                        std::size_t chunk = 7) {
  CellCounter counter({{&*s.recipe, &s, "who", 10}}, limits);
  for (std::size_t at = 0; at < input.size(); at += chunk) {
    counter.feed(as_bytes(std::string_view(input).substr(at, chunk)));
  }
  return std::move(counter.finish().at(0));
}

// The same table by the plainest means: integers in memory.
std::string naive(const std::vector<Row>& rows) {
  struct Count {
    std::set<std::string> people;
    int visits = 0;
    std::int64_t cents = 0;
  };
  std::map<std::pair<int, int>, Count> cells;
  for (const auto& r : rows) {
    if (r.kept != "yes" || r.cost_cents < -5050) continue;
    const int age = r.years_tenths < 300 ? 0 : r.years_tenths < 605 ? 1 : 2;
    Count& c = cells[{r.site[0] - 'a', age}];
    c.people.insert(r.who);
    ++c.visits;
    c.cents += r.cost_cents;
  }
  const auto five = [](std::size_t n) { return std::to_string((n + 2) / 5 * 5); };
  std::string s = "site,age,people,visits,cost\n";
  static const char* const kAges[] = {"young", "middle", "old"};
  for (int site = 0; site < 3; ++site) {
    for (int age = 0; age < 3; ++age) {
      const Count& c = cells[{site, age}];
      s += std::string(1, static_cast<char>('a' + site)) + "," + kAges[age] + "," +
           five(c.people.size()) + "," + five(static_cast<std::size_t>(c.visits)) + "," +
           fixed(static_cast<int>(c.cents), 2) + "\n";
    }
  }
  return s;
}
Bytes canonical_of(const OutputDeclaration& d, ByteView raw) {
  const Canonical c = canonicalise(d, raw);
  EXPECT_TRUE(c.ok()) << enum_name(c.failure) << "\n" << as_text(raw);
  return c.bytes;
}

TEST(Cells, EqualACountInMemoryForAnyRowsInAnyOrder) {
  const OutputDeclaration d = declaration(kColumns, kRecipe);
  const Schema s = schema_of(d);
  EXPECT_TRUE(rc::check([&](std::uint64_t seed, bool crlf) {
    const auto count = static_cast<std::size_t>(*rc::gen::inRange(0, 400));
    const std::size_t chunk = *rc::gen::element<std::size_t>(1, 3, 64, 4096);
    std::vector<Row> rows = rows_of(seed, count);
    const RecomputedTable t = compute(s, csv_of(rows, crlf ? "\r\n" : "\n"), {}, chunk);
    RC_ASSERT(t.ok());
    const Bytes due = canonical_of(d, t.csv);
    RC_ASSERT(due == canonical_of(d, as_bytes(naive(rows))));
    std::mt19937_64 order(seed);
    std::shuffle(rows.begin(), rows.end(), order);
    const RecomputedTable again = compute(s, csv_of(rows));
    RC_ASSERT(again.csv == t.csv);
    for (std::size_t c = 0; c < t.cells.size(); ++c) {
      RC_ASSERT(again.cells[c].subjects.size() == t.cells[c].subjects.size());
      RC_ASSERT(again.cells[c].dominated == t.cells[c].dominated);
      RC_ASSERT(again.cells[c].left_out == t.cells[c].left_out);
    }
  }));
}

TEST(Cells, FactsAreOfSubjectsAndNotOfRows) {
  const Schema s = schema_of(declaration(kColumns, kRecipe));
  std::vector<Row> rows;
  // One person thirty times, nine others once: enough rows, too few people, too much of one.
  for (int i = 0; i < 30; ++i) rows.push_back({"p", "a", "yes", 100, 10'000 + i});
  for (int i = 0; i < 9; ++i) rows.push_back({"q" + std::to_string(i), "a", "yes", 100, 100});
  // Twelve people, alike.
  for (int i = 0; i < 12; ++i) rows.push_back({"r" + std::to_string(i), "b", "yes", 400, 700});
  // Left out by the filter: three people, one of them twice; and one whose site is in no list.
  for (const char* who : {"x", "y", "z", "z"}) rows.push_back({who, "b", "no", 400, 1});
  rows.push_back({"w", "elsewhere", "no", 400, 1});
  const RecomputedTable t = compute(s, csv_of(rows));
  ASSERT_TRUE(t.ok());
  EXPECT_EQ(t.cells[0].subjects.size(), 10U);
  EXPECT_EQ(t.cells[0].rows, 39U);
  EXPECT_TRUE(t.cells[0].dominated);
  EXPECT_FALSE(t.cells[0].all_same);
  EXPECT_EQ(t.cells[4].subjects.size(), 12U);
  EXPECT_FALSE(t.cells[4].dominated);
  EXPECT_TRUE(t.cells[4].all_same);
  EXPECT_EQ(t.cells[4].left_out, 3U);
  EXPECT_EQ(t.cells[4].gone, 3U);
  EXPECT_EQ(t.cells[0].left_out, 0U);
}

// Thirty people have rows that the filter keeps out, all but one of them others in the cell: a
// count without the filter differs by that one.
TEST(Cells, WhoIsOnlyInWhatAFilterLeavesOutIsCounted) {
  const Schema s = schema_of(declaration(kColumns, kRecipe));
  std::vector<Row> rows;
  for (int i = 0; i < 99; ++i) rows.push_back({"p" + std::to_string(i), "a", "yes", 100, 100 + i});
  for (int i = 70; i < 100; ++i) rows.push_back({"p" + std::to_string(i), "a", "no", 100, 100});
  const RecomputedTable t = compute(s, csv_of(rows));
  EXPECT_EQ(t.cells[0].left_out, 30U);
  EXPECT_EQ(t.cells[0].gone, 1U);
  CellLimits limits;
  limits.subject_cells = 99 * 3 + 29;
  EXPECT_EQ(compute(s, csv_of(rows), limits).failure, GateReason::kRecipeTooLarge);
  limits.subject_cells = 99 * 3 + 30;
  EXPECT_TRUE(compute(s, csv_of(rows), limits).ok());
}

TEST(Cells, DominanceFailsClosed) {
  EXPECT_TRUE(dominated(0, 0, 0));  // a sum of zeros has no share that could be small
  EXPECT_TRUE(dominated(51, 1, 100));
  EXPECT_FALSE(dominated(50, 16, 100));
  EXPECT_TRUE(dominated(40, 27, 100));
  EXPECT_FALSE(dominated(33, 33, 99));
  // Values of both signs that cancel: shares are of absolute values.
  const Schema s = schema_of(declaration(kColumns, kRecipe));
  std::vector<Row> rows;
  for (int i = 0; i < 20; ++i) {
    rows.push_back({"p" + std::to_string(i), "a", "yes", 100, i % 2 == 0 ? 500 : -500});
  }
  EXPECT_FALSE(compute(s, csv_of(rows)).cells[0].dominated);
  // Of nothing there are no shares: it is everybody's own, which holds as such.
  for (auto& r : rows) r.cost_cents = 0;
  EXPECT_FALSE(compute(s, csv_of(rows)).cells[0].dominated);
  EXPECT_TRUE(compute(s, csv_of(rows)).cells[0].all_same);
}

// One cell of a hundred people, p0 to p99, with two columns.
RecomputedTable of_hundred(const char* measures, const std::function<std::string(int)>& values,
                           const std::string& more = "") {
  const std::string columns =
      R"([{"name":"a","type":"decimal","minimum":-1000000,"maximum":1000000,"digits":9},
          {"name":"b","type":"decimal","minimum":-1000000,"maximum":1000000,"digits":9}])";
  const std::string recipe = R"({"input":"i","file":"f","measures":)" + std::string(measures) + "}";
  const Schema s = schema_of(declaration(columns, recipe, 1));
  std::string csv = "who,x,y\n";
  for (int i = 0; i < 100; ++i) csv += "p" + std::to_string(i) + "," + values(i) + "\n";
  RecomputedTable t = compute(s, csv + more);
  t.recipe = nullptr;
  return t;
}

// Whoever knows what is usual has the rest: the ones among zeros, the zeros among ones, who has
// another number than all the others.
TEST(Cells, FewWhoAreNotLikeTheOthersAreFew) {
  const char* sums =
      R"([{"name":"a","of":"sum","column":"x"},{"name":"b","of":"mean","column":"x"}])";
  const auto facts = [&](const std::function<int(int)>& x, const std::string& more = "") {
    return of_hundred(
               sums, [&](int i) { return std::to_string(x(i)) + ",0"; }, more)
        .cells.at(0);
  };
  for (const int few : {1, 3, 9}) {
    EXPECT_TRUE(facts([&](int i) { return i < few ? 1 : 0; }).few_unusual) << few;
    EXPECT_TRUE(facts([&](int i) { return i < few ? 0 : 1; }).few_unusual) << few;
    EXPECT_TRUE(facts([&](int i) { return i < few ? 7000 + 431 * i : 7010; }).few_unusual) << few;
  }
  for (const int enough : {10, 50}) {
    EXPECT_FALSE(facts([&](int i) { return i < enough ? 1 : 0; }).few_unusual) << enough;
  }
  EXPECT_FALSE(facts([](int i) { return 100 + i; }).few_unusual);
  EXPECT_FALSE(facts([](int i) { return 100 + i; }).unusual_alone);
  // Nearly alike but for one: no single share is large, what is off the usual one is.
  const CellFacts one = facts([](int i) { return i == 5 ? 7431 : 7000 + i % 3; });
  EXPECT_FALSE(one.few_unusual || one.dominated);
  EXPECT_TRUE(one.unusual_alone);
  // Some have two rows, with what is usual in each; one has not.
  std::string again;
  for (int i = 0; i < 40; ++i) again += "p" + std::to_string(i) + ",7000,0\n";
  EXPECT_FALSE(facts([](int) { return 7000; }, again).few_unusual);
  EXPECT_TRUE(facts([](int i) { return i == 5 ? 7431 : 7000; }, again).few_unusual);
}

// Shares of a dozen people: of two kinds, both are few; of many kinds, nobody is told apart.
TEST(Shares, AreOfFewWhereTheOthersAreAlike) {
  const auto few = [](std::vector<Wide> shares) { return unusual(shares, 10).few; };
  EXPECT_TRUE(few({0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1}));
  EXPECT_TRUE(few({1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0}));
  EXPECT_FALSE(few({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
  const auto half = [](std::vector<Wide> shares) { return unusual(shares, 10).half; };
  EXPECT_FALSE(few({7, 7, 7, 7, 7, 7, 7, 1, 2, 3, 4, 5}));
  EXPECT_TRUE(half({7, 7, 7, 7, 7, 7, 7, 1, 2, 3, 4, 5}));
  EXPECT_TRUE(half({7, 7, 7, 7, 7, 7, 1, 2, 3, 4, 5, 6}));
  EXPECT_FALSE(half({7, 7, 7, 7, 7, 1, 2, 3, 4, 5, 6, 8}));
  EXPECT_FALSE(few({4, 4, 4}) || half({4, 4, 4}));
  EXPECT_FALSE(few({}));
  std::vector<Wide> twenty(20);
  for (std::size_t i = 0; i < 10; ++i) twenty[i] = 1;
  EXPECT_FALSE(few(twenty));
  twenty.pop_back();
  EXPECT_TRUE(few(twenty));
  std::vector<Wide> mixed = {3, 1, 3, 2, 3, 1};
  EXPECT_EQ(most_alike(mixed), 3U);
  std::vector<Wide> none;
  EXPECT_EQ(most_alike(none), 0U);
}

// Of thirteen people four have costs, each another one: their sum is a cell of four.
TEST(Shares, OfFewWhoAddAnything) {
  const std::vector<Wide> four = {1000, 1100, 900, 1050, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  EXPECT_TRUE(few_add(four, 10));
  EXPECT_FALSE(few_add(four, 4));
  EXPECT_FALSE(few_add({0, 0, 0}, 10)) << "nobody is not few";
  EXPECT_FALSE(few_add({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0}, 10));
  std::vector<Wide> shares = four;
  EXPECT_TRUE(of_few(shares, 10));
  // Also where what is usual is something: nine of eighteen have nothing, the others what they do.
  std::vector<Wide> nine(18);
  for (std::size_t i = 0; i < 9; ++i) nine[i] = 500 + 11 * static_cast<Wide>(i);
  EXPECT_TRUE(few_add(nine, 10));

  const Schema s = schema_of(declaration(
      R"([{"name":"s","type":"decimal","minimum":0,"maximum":1000000,"digits":9}])",
      R"({"input":"i","file":"f","measures":[{"name":"s","of":"sum","column":"x"}]})", 1));
  const auto judged = [&](const std::function<int(int)>& x) {
    std::string csv = "who,x\n";
    for (int i = 0; i < 13; ++i) csv += "p" + std::to_string(i) + "," + std::to_string(x(i)) + "\n";
    return compute(s, csv).cells.at(0);
  };
  EXPECT_TRUE(judged([](int i) { return i < 4 ? 900 + 50 * i : 0; }).few_unusual);
  EXPECT_TRUE(judged([](int i) { return i < 9 ? 900 + 50 * i : 0; }).few_unusual);
  EXPECT_FALSE(judged([](int i) { return i < 10 ? 900 + 50 * i : 0; }).few_unusual);
  EXPECT_TRUE(judged([](int i) { return i < 4 ? 7900 + 50 * i : 7000; }).few_perhaps);
  const CellFacts varied = judged([](int i) { return 900 + 50 * i; });
  EXPECT_FALSE(varied.few_unusual || varied.few_perhaps);
}

// A third of a flag in each row, whatever a third is rounded to: four people have one flag more.
TEST(Cells, WhatIsUsualInARowIsNotRounded) {
  const Schema s = schema_of(declaration(
      R"([{"name":"r","type":"integer","minimum":0,"maximum":10000},
          {"name":"s","type":"integer","minimum":0,"maximum":10000}])",
      R"({"input":"i","file":"f","measures":[{"name":"r","of":"rows"},
          {"name":"s","of":"sum","column":"flag"}]})",
      1));
  for (const int more : {0, 4, 40}) {
    std::string csv = "who,flag\n";
    for (int i = 0; i < 100; ++i) {
      const int rows = 3 * (1 + i % 3);
      for (int k = 0; k < rows; ++k) {
        const bool flag = k < rows / 3 + (i < more ? 1 : 0);
        csv += "p" + std::to_string(i) + (flag ? ",1\n" : ",0\n");
      }
    }
    EXPECT_EQ(compute(s, csv).cells.at(0).few_unusual, more == 4) << more;
  }
}

// Two sums of one cell are a third one: what one has and the other has not.
TEST(Cells, TwoColumnsTellTheirDifference) {
  const char* sums =
      R"([{"name":"a","of":"sum","column":"x"},{"name":"b","of":"sum","column":"y"}])";
  const auto between = [&](const std::function<int(int)>& more) {
    return of_hundred(sums,
                      [&](int i) {
                        return std::to_string(1000 + i + more(i)) + "," + std::to_string(1000 + i);
                      })
        .cells.at(0)
        .between_columns;
  };
  EXPECT_TRUE(between([](int i) { return i == 4 ? 50 : 0; }));
  EXPECT_TRUE(between([](int i) { return i < 9 ? 50 + i : 0; }));
  EXPECT_TRUE(between([](int i) { return i == 4 ? 5000 : 10 + i % 5; }));
  EXPECT_FALSE(between([](int i) { return 50 + i % 30; }));
  EXPECT_FALSE(between([](int) { return 0; })) << "the same column under two names";
  // Of rows beside a sum of ones: those who have a zero.
  const char* rows =
      R"([{"name":"a","of":"sum","column":"x"},{"name":"b","of":"mean","column":"x"}])";
  const RecomputedTable t = of_hundred(rows, [](int i) { return std::to_string(i) + ",0"; });
  EXPECT_EQ(t.adds, (std::vector<std::string>{"x", "x", ""})) << "a sum and its mean tell rows";
  // One has come twice.
  EXPECT_TRUE(of_hundred(
                  rows, [](int i) { return std::to_string(i) + ",0"; }, "p7,1,0\n")
                  .cells.at(0)
                  .few_perhaps);
}

// Columns of which everybody has one: who has none is what is left of all.
TEST(Cells, ColumnsOfOneAndAnotherTellWhoHasNeither) {
  const char* sums =
      R"([{"name":"a","of":"sum","column":"x"},{"name":"b","of":"sum","column":"y"}])";
  const auto tell = [&](int dead, int lost) {
    return of_hundred(sums,
                      [&](int i) {
                        const bool is_dead = i < dead;
                        const bool is_lost = i >= dead && i < dead + lost;
                        return std::string(!is_dead && !is_lost ? "1," : "0,") +
                               (is_dead ? "1" : "0");
                      })
        .cells.at(0)
        .between_columns;
  };
  EXPECT_TRUE(tell(37, 3));
  EXPECT_FALSE(tell(37, 0));
  EXPECT_FALSE(tell(37, 20));
}

// A sum or mean is exact; a column of whole numbers has it rounded, half to even.
TEST(Cells, SumsFitColumnsOfWholeNumbers) {
  const auto d = declaration(
      R"([{"name":"s","type":"integer","minimum":-100000,"maximum":100000},
          {"name":"m","type":"integer","minimum":-100000,"maximum":100000}])",
      R"({"input":"i","file":"f","measures":[{"name":"s","of":"sum","column":"x"},
          {"name":"m","of":"mean","column":"x"}]})",
      1);
  const Schema s = schema_of(d);
  const auto table = [&](const std::string& rows) {
    return std::string(as_text(canonical_of(d, compute(s, "who,x\n" + rows).csv)));
  };
  EXPECT_EQ(table("p,14949\nq,1\n"), "s,m\n14950,7475\n");
  EXPECT_EQ(table("p,1.5\nq,1\n"), "s,m\n2,1\n");
  EXPECT_EQ(table("p,2\nq,3\n"), "s,m\n5,2\n");
  EXPECT_EQ(table("p,-2\nq,-3.5\n"), "s,m\n-6,-3\n");
}

TEST(Cells, WhatCannotBeComputedIsNoTable) {
  const Schema s = schema_of(declaration(kColumns, kRecipe));
  const std::string head = "years,who,kept,cost,site\n";
  const auto why = [&](const std::string& input, CellLimits limits = {}) {
    return compute(s, input, limits).failure;
  };
  EXPECT_EQ(why(head), GateReason::kNone);
  EXPECT_EQ(why(""), GateReason::kRecipeInput);
  EXPECT_EQ(why(head + "\n"), GateReason::kRecipeInput);
  EXPECT_EQ(why(head + "1,p,yes,1\n"), GateReason::kRecipeInput);
  EXPECT_EQ(why(head + "1,p,yes,1,a\r\r\n"), GateReason::kRecipeInput);
  EXPECT_EQ(why(head + "1,\"p,yes,1,a\n"), GateReason::kRecipeInput);
  EXPECT_EQ(why("years,kept,cost,site\n"), GateReason::kRecipeColumn);
  EXPECT_EQ(why("years,who,kept,cost,site,site\n"), GateReason::kRecipeColumn);
  EXPECT_EQ(why("years,who,who,kept,cost,site\n"), GateReason::kRecipeColumn);
  for (const char* number :
       {"NaN", "inf", "", "1e400", "+1", " 1", "0x1", "1.0000000000001", "10000000000000001"}) {
    EXPECT_EQ(why(head + "1,p,yes," + number + ",a\n"), GateReason::kRecipeValue) << number;
  }
  EXPECT_EQ(why(head + "NaN,p,yes,1,a\n"), GateReason::kRecipeValue);
  EXPECT_EQ(why(head + "1,,yes,1,a\n"), GateReason::kRecipeValue);  // about whom?
  EXPECT_EQ(why(head + "1,p,yes,1,d\n"), GateReason::kRecipeDomain);
  // An earlier filter keeps it from being read.
  EXPECT_EQ(why(head + "NaN,p,no,NaN,d\n"), GateReason::kNone);
  const std::string two = head + "1,p,yes,1,a\n1,q,yes,1,a\n";
  EXPECT_EQ(why(two), GateReason::kNone);
  CellLimits limits;
  limits.rows = 1;
  EXPECT_EQ(why(two, limits), GateReason::kRecipeTooLarge);
  limits = {};
  limits.subjects = 1;
  EXPECT_EQ(why(two, limits), GateReason::kRecipeTooLarge);
  limits = {};
  limits.subject_bytes = 1;
  EXPECT_EQ(why(two, limits), GateReason::kRecipeTooLarge);
  limits = {};
  limits.subject_cells = 1;
  EXPECT_EQ(why(two, limits), GateReason::kRecipeTooLarge);
  limits = {};
  limits.line_bytes = 23;
  EXPECT_EQ(why(two, limits), GateReason::kRecipeTooLarge);
  limits = {};
  limits.columns = 4;
  EXPECT_EQ(why(two, limits), GateReason::kRecipeInput);
}

TEST(Cells, MeansAreTheExactQuotientRoundedOnce) {
  EXPECT_EQ(quotient_text(10, 4, 0).substr(0, 5), "2.500");
  EXPECT_EQ(quotient_text(-1, 8, 1).substr(0, 8), "-0.01250");
  const auto mean = [](Wide sum, std::uint64_t count, int scale, int digits) {
    return to_text(round_decimal(*parse_decimal(quotient_text(sum, count, scale)), digits, 9));
  };
  EXPECT_EQ(mean(15, 10, 1, 1), "0.2");  // a tie, to even
  EXPECT_EQ(mean(25, 10, 1, 1), "0.2");  // a tie, to even
  EXPECT_EQ(mean(25000001, 10000000, 1, 1), "0.3");
  EXPECT_EQ(mean(2, 3, 0, 3), "0.667");
  const auto d = declaration(R"([{"name":"m","type":"decimal","minimum":0,"maximum":100}])",
                             R"({"input":"i","file":"f","measures":[
                                 {"name":"m","of":"mean","column":"cost"}]})",
                             1);
  const Schema s = schema_of(d);
  const RecomputedTable t = compute(s, "who,cost\np,1\nq,1\nr,0\n");
  ASSERT_TRUE(t.ok());
  EXPECT_EQ(as_text(canonical_of(d, t.csv)), "m\n0.667\n");
  EXPECT_EQ(compute(s, "who,cost\n").failure, GateReason::kRecipeNoValue);
}

TEST(Cells, StructuralZerosHaveNoRowAndMayNotOccur) {
  const auto d = declaration(
      R"([{"name":"sex","type":"text","enum":["f","m"]},{"name":"pregnant","type":"text","enum":["n","y"]},
          {"name":"n","type":"integer","minimum":0,"maximum":1000}])",
      R"({"input":"i","file":"f","groupBy":[{"name":"sex","column":"sex"},{"name":"pregnant","column":"p"}],
          "measures":[{"name":"n","of":"subjects"}],"structuralZeros":[{"words":["m","y"]}]})",
      3);
  const Schema s = schema_of(d);
  const RecomputedTable t = compute(s, "who,sex,p\n1,f,n\n2,f,y\n3,m,n\n");
  ASSERT_TRUE(t.ok());
  EXPECT_EQ(as_text(canonical_of(d, t.csv)), "sex,pregnant,n\nf,n,1\nf,y,1\nm,n,1\n");
  EXPECT_EQ(compute(s, "who,sex,p\n1,m,y\n").failure, GateReason::kRecipeDomain);
}

struct BadRecipe {
  const char* from;
  const char* to;
  const char* where;
};
TEST(RecipeParser, RefusesWhatDoesNotFitItsTable) {
  ASSERT_TRUE(parse_schema(declaration(kColumns, kRecipe)).ok());
  const BadRecipe cases[] = {
      {R"("roundTo":5)", R"("roundTo":0)", "roundTo"},
      {R"("roundTo":5)", R"("roundTo":5,"more":1)", "more"},
      {R"("input":"visits",)", "", "input"},
      {R"("is":"equals")", R"("is":"like")", "filter[0].is"},
      {R"("value":"-50.5")", R"("value":"-50,5")", "filter[1].value"},
      {R"("cuts":["30","60.5"])", R"("cuts":["30"])", "groupBy[1].cuts"},
      {R"("cuts":["30","60.5"])", R"("cuts":["30","30.0"])", "groupBy[1].cuts"},
      {R"("cuts":["30","60.5"])", R"("cuts":["30","x"])", "groupBy[1].cuts"},
      {R"({"name":"site","column":"site"})", R"({"name":"cost","column":"site"})",
       "groupBy[0].name"},
      {R"({"name":"site","column":"site"})", R"({"name":"age","column":"site"})",
       "groupBy[1].name"},
      {R"({"name":"people","of":"subjects"},)", "", "measures"},
      {R"("of":"subjects")", R"("of":"subjects","column":"who")", "measures[0].column"},
      {R"("of":"sum","column":"cost")", R"("of":"sum")", "measures[2].column"},
      {R"({"name":"cost","of":"sum","column":"cost"})", R"({"name":"cost","of":"rows"})",
       "measures[2].name"},
      {R"("name":"people")", R"("name":"persons")", "measures[0].name"},
      {R"("roundTo":5)", R"("structuralZeros":[{"words":["a"]}])", "structuralZeros[0].words"},
      {R"("roundTo":5)", R"("structuralZeros":[{"words":["a","ancient"]}])",
       "structuralZeros[0].words"},
      {R"("roundTo":5)", R"("structuralZeros":[{"words":["a","old"]},{"words":["a","old"]}])",
       "structuralZeros[1].words"}};
  for (const auto& c : cases) {
    std::string recipe = kRecipe;
    const auto at = recipe.find(c.from);
    ASSERT_NE(at, std::string::npos) << c.from;
    recipe.replace(at, std::string(c.from).size(), c.to);
    const auto s = parse_schema(declaration(kColumns, recipe));
    ASSERT_FALSE(s.ok()) << c.to;
    EXPECT_EQ(s.error().what.rfind(std::string("recipe.") + c.where, 0), 0U) << s.error().line();
  }
  const auto s = parse_schema(declaration(kColumns, kRecipe, 8));
  ASSERT_FALSE(s.ok());
  EXPECT_EQ(s.error().what, "recipe.maxRows");
}

TEST(RecipeParser, DecimalsCompareExactly) {
  const char* const rising[] = {"-1e20", "-3", "-2.51", "-2.5", "0",   "0.001",
                                "0.01",  "9",  "10",    "99",   "1e2", "100.0000000000000000001",
                                "1e300"};
  for (std::size_t i = 0; i < std::size(rising); ++i) {
    for (std::size_t k = 0; k < std::size(rising); ++k) {
      const int c = compare(*parse_decimal(rising[i]), *parse_decimal(rising[k]));
      EXPECT_EQ(c, i < k ? -1 : i > k ? 1 : 0) << rising[i] << " " << rising[k];
    }
  }
}

}  // namespace
}  // namespace gbx::gate
