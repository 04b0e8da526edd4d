// Declared tables as the gate judges them: a real confined process over real folders. Numbers of
// attacks (A) and of honest results (B) are of the kit that gate_test.cpp begins.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/os.h"
#include "base/seams.h"
#include "gate/csv.h"
#include "gate/schema.h"
#include "gate/spawn.h"

namespace gbx::gate {
namespace {

constexpr const char* kSchema = R"({"maxRows":4,"columns":[
    {"name":"site","type":"text","enum":["north","south"]},
    {"name":"arm","type":"text","enum":["drug","none"]},
    {"name":"n","type":"integer","minimum":0,"maximum":1000},
    {"name":"cost","type":"decimal","minimum":0,"maximum":1000000,"digits":6,"scale":2}],
    "recipe":{"input":"visits","file":"visits.csv",
      "groupBy":[{"name":"site","column":"site"},{"name":"arm","column":"arm"}],
      "measures":[{"name":"n","of":"subjects"},{"name":"cost","of":"mean","column":"cost"}]}})";

struct Visit {
  std::string who, site, arm, cost;
};
std::vector<Visit> visits(int each = 12) {
  std::vector<Visit> out;
  int id = 0;
  for (const char* site : {"north", "south"}) {
    for (const char* arm : {"drug", "none"}) {
      for (int i = 0; i < each; ++i) {
        const std::string who = "person-" + std::to_string(7919 * ++id);
        out.push_back({who, site, arm, std::to_string(100 + i) + ".25"});
      }
    }
  }
  return out;
}
std::string csv_of(const std::vector<Visit>& rows) {
  std::string s = "who,site,arm,cost\n";
  for (const auto& v : rows) s += v.who + "," + v.site + "," + v.arm + "," + v.cost + "\n";
  return s;
}

class Tables : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/gbx-tables-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    ASSERT_EQ(chmod(root_.c_str(), 0755), 0);
    for (const char* d : {"/out", "/in"}) ASSERT_EQ(mkdir((root_ + d).c_str(), 0755), 0);
    request_.jobId = "job-1";
    request_.salt[0] = 9;
    request_.policy.scoreThreshold = 50;
    request_.inputs.push_back({"visits", "/data/visits", "", 4, {{"visits.csv", "who"}}});
    declare("table", kSchema);
    input(visits());
    honest();
  }
  void TearDown() override { EXPECT_TRUE(remove_tree(root_).ok()); }

  void declare(const std::string& name, const std::string& schema) {
    request_.outputs.push_back(
        {name, name + ".csv", OutputType::kTable, *parse_json(schema), 1 << 14});
  }
  void write(const std::string& path, std::string_view content) {
    ASSERT_TRUE(write_file_atomic(root_ + "/" + path, as_bytes(content), 0644).ok());
  }
  void input(const std::vector<Visit>& rows) { write("in/visits.csv", csv_of(rows)); }
  // Writes what a container that follows its recipes writes.
  void honest() {
    Result<Bytes> file = read_file(root_ + "/in/visits.csv", 1 << 20);
    ASSERT_TRUE(file.ok());
    for (const auto& d : request_.outputs) {
      Result<Schema> s = parse_schema(d);
      ASSERT_TRUE(s.ok()) << s.error().line();
      if (!s->recipe) continue;
      CellCounter counter({{&*s->recipe, &*s, "who", 10}});
      counter.feed(*file);
      const auto tables = counter.finish();
      ASSERT_TRUE(tables[0].ok()) << enum_name(tables[0].failure);
      write("out/" + d.path, as_text(canonicalise(d, tables[0].csv).bytes));
    }
  }
  GateOutcome run() {
    GateSpawn s;
    const char* dir = std::getenv("GBX_BIN_DIR");
    s.program = (dir == nullptr ? program_dir() : std::string(dir)) + "/glovebox-gate";
    if (geteuid() == 0) s.uid = 65534;
    const Fd out = std::move(*open_dir(root_ + "/out"));
    const Fd in = std::move(*open_dir(root_ + "/in"));
    s.out_fd = out.get();
    s.input_fds = {in.get()};
    s.request = request_;
    Result<GateOutcome> o = run_gate(std::move(s), clock_);
    EXPECT_TRUE(o.ok()) << o.error().line();
    EXPECT_TRUE(o.ok() && o->completed);
    return o.ok() ? std::move(*o) : GateOutcome{};
  }
  // In this process, which is quicker.
  Evaluation evaluate() {
    const Fd out = std::move(*open_dir(root_ + "/out"));
    const Fd in = std::move(*open_dir(root_ + "/in"));
    request_.outFd = out.get();
    for (GateInput& i : request_.inputs) i.fd = in.get();
    return Gate::evaluate(request_, {});
  }
  static std::string told(const GateResult& r) {
    std::string s(enum_name(r.recommendation));
    for (const auto& a : r.analysers) {
      if (a.status == RuleStatus::kPass || a.reason == GateReason::kNone) continue;
      s += " " + std::string(enum_name(a.rule)) + ":" + std::string(enum_name(a.status)) + ":" +
           std::string(enum_name(a.reason));
    }
    return s;
  }

  std::string root_;
  GateRequest request_;
  SystemClock clock_;
};

TEST_F(Tables, ATableThatTheInputsGiveIsReleasedAsVerifiedBits) {
  const GateOutcome o = run();
  EXPECT_EQ(told(o.result), "release");
  // 4 rows of two words, 1,001 counts and as many means as have six digits; and how many rows.
  EXPECT_EQ(o.result.charge.freeBits, kControlBits);
  EXPECT_GT(o.result.charge.verifiedBits, 4 * (2 + 9));
  EXPECT_EQ(o.result.charge.verifiedBits, capacity(request_.outputs[0])->bits);
  ASSERT_EQ(o.result.releaseRecords.size(), 16U);
  for (const auto& r : o.result.releaseRecords) {
    EXPECT_EQ(r.recipeHash, parse_schema(request_.outputs[0])->recipe->hash);
  }
  ASSERT_TRUE(o.channel);
  EXPECT_EQ(as_text(o.channel->entries()[0].content),
            "site,arm,n,cost\nnorth,drug,12,105.75\nnorth,none,12,105.75\nsouth,drug,12,105.75\n"
            "south,none,12,105.75\n");
}

TEST_F(Tables, RowsInAnyOrderAndUnroundedNumbersAreTheSameTable) {
  write("out/table.csv",
        "cost,n,arm,site\n105.750000001,12,none,south\n105.75,12,none,north\n105.75,12,drug,south\n"
        "1.05750e2,12,drug,north\n");
  EXPECT_EQ(told(run().result), "release");
}

TEST_F(Tables, EveryOneCellAlterationIsFound) {
  const std::string honest_table = std::string(as_text(*read_file(root_ + "/out/table.csv", 4096)));
  const CsvFile table = parse_csv(as_bytes(honest_table), {100});
  ASSERT_EQ(table.failure, GateReason::kNone);
  EXPECT_TRUE(rc::check([&] {
    auto rows = table.rows;
    const std::size_t row = 1 + *rc::gen::inRange<std::size_t>(0, rows.size() - 1);
    const std::size_t column = *rc::gen::inRange<std::size_t>(0, rows[0].size());
    std::string& cell = rows[row][column];
    const std::string before = cell;
    if (column == 0) cell = cell == "north" ? "south" : "north";
    if (column == 1) cell = cell == "drug" ? "none" : "drug";
    if (column == 2) cell = std::to_string(*rc::gen::inRange(0, 1001));
    if (column == 3) {
      cell = std::to_string(*rc::gen::inRange(0, 1000)) + "." +
             *rc::gen::element<std::string>("25", "7", "76");
    }
    RC_PRE(cell != before);
    std::string text;
    for (const auto& r : rows) text += r[0] + "," + r[1] + "," + r[2] + "," + r[3] + "\n";
    write("out/table.csv", text);
    const Evaluation e = evaluate();
    RC_ASSERT(e.result.recommendation == Recommendation::kReject);
    RC_ASSERT(told(e.result) == "reject recipe:fail:recipe-mismatch");
    RC_ASSERT(!e.channel);
    RC_ASSERT(e.result.charge.freeBits == kControlBits && e.result.charge.verifiedBits == 0);
  }));
  for (const char* wrong : {"site,arm,n,cost\n", "site,arm,n,cost\nnorth,drug,12,105.75\n"}) {
    write("out/table.csv", wrong);
    EXPECT_EQ(told(evaluate().result), "reject recipe:fail:recipe-mismatch");
  }
}

TEST_F(Tables, A39SmallCellsAreCountedOnTheInputs) {
  auto rows = visits();
  rows.resize(rows.size() - 7);  // five people are left in the last cell
  input(rows);
  honest();
  EXPECT_EQ(told(run().result), "reject cells:fail:small-cell");
  // Whatever the container prints beside it: five thousand, or what it was before.
  input(visits());
  honest();
  input(rows);
  EXPECT_EQ(told(run().result), "reject recipe:fail:recipe-mismatch cells:fail:small-cell");
  // Rows are not people: the same five, again and again.
  for (int i = 0; i < 10; ++i) rows.push_back(rows[rows.size() - 5]);
  input(rows);
  honest();
  EXPECT_EQ(told(run().result), "reject cells:fail:small-cell");
  // The owner may ask for fewer, or for more.
  request_.policy.cellSubjects = 5;
  EXPECT_EQ(told(run().result), "release");
  input(visits());
  honest();
  request_.policy.cellSubjects = 13;
  EXPECT_EQ(told(run().result), "reject cells:fail:small-cell");
}

TEST_F(Tables, A40DominatedCellsReject) {
  auto rows = visits();
  rows[0].cost = "30000";
  input(rows);
  honest();
  EXPECT_EQ(told(run().result), "reject cells:fail:dominated-cell");
  // Zeros have no shares at all: they are all the same.
  rows = visits();
  for (int i = 0; i < 12; ++i) rows[static_cast<std::size_t>(i)].cost = "0";
  input(rows);
  honest();
  EXPECT_EQ(told(run().result), "hold groups:fail:same-values");
}

TEST_F(Tables, A41TwoTablesThatDifferByOnePersonHold) {
  std::string all = kSchema;
  const std::string filter =
      R"("filter":[{"column":"cost","is":"differs","value":"111.25"},{"column":"cost","is":"at-least","value":"0"}],"groupBy")";
  std::string less = all;
  less.replace(less.find("\"groupBy\""), 9, filter);
  declare("less", less);
  honest();
  // One in each cell is left out: seen within the second table, and between the two.
  const GateOutcome o = run();
  EXPECT_EQ(told(o.result), "hold differences:fail:few-left-out differences:fail:few-differ");
  ASSERT_TRUE(o.channel);
  EXPECT_EQ(o.result.charge.freeBits, kControlBits);
  // Without the first table the filter alone shows it, for that one may have been another job's.
  request_.outputs.erase(request_.outputs.begin());
  ASSERT_EQ(unlink((root_ + "/out/table.csv").c_str()), 0);
  EXPECT_EQ(told(run().result), "hold differences:fail:few-left-out");
}

// Everybody is in both tables; of one person, the second has a visit more. The difference of the
// two sums is what that visit cost.
TEST_F(Tables, A41TwoTablesOfTheSamePeopleThatDifferByOnesRowsHold) {
  std::vector<Visit> rows;
  for (const char* arm : {"drug", "none"}) {
    for (const auto& v : visits()) rows.push_back({v.who, v.site, arm, v.cost});
  }
  rows.push_back({rows[5].who, "north", "drug", "9.75"});
  input(rows);
  request_.outputs.clear();
  ASSERT_EQ(unlink((root_ + "/out/table.csv").c_str()), 0);
  const auto sum = [](const std::string& least) {
    return R"({"maxRows":1,"columns":[{"name":"cost","type":"decimal","minimum":0,"maximum":1000000,
                 "digits":12,"scale":2}],
               "recipe":{"input":"visits","file":"visits.csv",
                 "filter":[{"column":"cost","is":"at-least","value":")" +
           least + R"("}],"measures":[{"name":"cost","of":"sum","column":"cost"}]}})";
  };
  declare("all", sum("9.75"));
  declare("less", sum("9.76"));
  honest();
  // The lower threshold keeps nobody out: everybody's visits are above it.
  EXPECT_EQ(told(run().result),
            "hold groups:fail:group-disclosed differences:fail:few-left-out "
            "differences:fail:few-differ");
  // With a visit of everybody's under the threshold no filter tells of few any more.
  for (const auto& v : visits()) rows.push_back({v.who, "north", "drug", "9.5"});
  input(rows);
  honest();
  EXPECT_EQ(told(run().result), "hold differences:fail:few-differ");
  request_.outputs.pop_back();
  ASSERT_EQ(unlink((root_ + "/out/less.csv").c_str()), 0);
  EXPECT_EQ(told(run().result), "release");
}

// One person more in each cell: over one input it holds. Over two mounts of one version, or of two
// versions of one asset, or two of its files, nobody would compare them, so neither plan nor gate
// takes such a job.
TEST_F(Tables, TablesAboutOneAssetAreOfOneFile) {
  input(visits(24));
  const auto below = [](const std::string& threshold, const std::string& input) {
    std::string s = kSchema;
    s.replace(s.find("\"visits\""), 8, "\"" + input + "\"");
    s.replace(
        s.find("\"groupBy\""), 9,
        R"("filter":[{"column":"cost","is":"below","value":")" + threshold + R"("}],"groupBy")");
    return *parse_json(s);
  };
  request_.outputs[0].schema = below("112", "visits");
  declare("more", kSchema);
  request_.outputs[1].schema = below("113", "visits");
  honest();
  EXPECT_EQ(told(evaluate().result), "hold differences:fail:few-differ");
  request_.outputs[1].schema = below("113", "again");
  request_.inputs[0].assetId = "a1";
  request_.inputs[0].versionId = "v1";
  request_.inputs.push_back(request_.inputs[0]);
  request_.inputs[1].name = "again";
  request_.inputs[1].mount = "/data/again";
  for (const char* version : {"v1", "v2"}) {
    request_.inputs[1].versionId = version;
    const auto charge = job_charge(request_.outputs, request_.inputs, 0);
    EXPECT_EQ(charge.reason(), Reason::kBadValue) << version;
    const Evaluation e = evaluate();
    EXPECT_EQ(e.result.recommendation, Recommendation::kHold) << told(e.result);
    EXPECT_FALSE(e.channel);
  }
  request_.inputs[1].assetId = "a2";
  EXPECT_TRUE(job_charge(request_.outputs, request_.inputs, 0).ok());
  // Nor of two files of one input.
  request_.outputs[1].schema = below("113", "visits");
  request_.outputs[1].schema["recipe"]["file"] = "patients.csv";
  EXPECT_TRUE(job_charge(request_.outputs, request_.inputs, 0).ok()) << "all of it is free bits";
  request_.inputs[0].tables.push_back({"patients.csv", "who"});
  EXPECT_EQ(job_charge(request_.outputs, request_.inputs, 0).reason(), Reason::kBadValue);
  EXPECT_FALSE(evaluate().channel);
  request_.inputs[0].tables.pop_back();
  request_.outputs[1].schema = below("113", "again");
  request_.inputs[1].assetId = "a1";
  request_.outputs.pop_back();
  EXPECT_TRUE(job_charge(request_.outputs, request_.inputs, 0).ok());
}

TEST_F(Tables, A45AWholeGroupInOneCellHolds) {
  auto rows = visits();
  for (auto& v : rows) {
    if (v.site == "north") v.arm = "drug";
  }
  input(rows);
  // A mean of nobody is no number, so this table counts only.
  request_.outputs.clear();
  declare("table", R"({"maxRows":4,"columns":[
      {"name":"site","type":"text","enum":["north","south"]},
      {"name":"arm","type":"text","enum":["drug","none"]},
      {"name":"n","type":"integer","minimum":0,"maximum":1000}],
      "recipe":{"input":"visits","file":"visits.csv",
        "groupBy":[{"name":"site","column":"site"},{"name":"arm","column":"arm"}],
        "measures":[{"name":"n","of":"subjects"}]}})");
  honest();
  EXPECT_EQ(told(run().result), "hold groups:fail:empty-cell groups:fail:group-disclosed");
  // B20: where it cannot be otherwise nobody learns anything. Who says so is the owner: said by the
  // consumer it would be a question.
  Json& recipe = request_.outputs[0].schema["recipe"];
  recipe["structuralZeros"] = *parse_json(R"([{"words":["north","none"]}])");
  honest();
  EXPECT_EQ(told(run().result), "hold groups:fail:empty-cell groups:fail:group-disclosed");
  auto& known = request_.inputs[0].tables[0].structuralZeros;
  known = {{{"site", "arm"}, {"north", "none"}}};
  EXPECT_EQ(told(run().result), "release");
  known = {{{"arm"}, {"none"}}, {{"site", "arm", "cost"}, {"north", "none", "1"}}, {{}, {}}};
  EXPECT_EQ(told(evaluate().result), "release") << "more is said than is asked";
  known.erase(known.begin());
  EXPECT_EQ(told(evaluate().result), "hold groups:fail:empty-cell groups:fail:group-disclosed");
}

// The owner says that no man is pregnant: then a table by both and one by one of them have the same
// people, and tell nothing by it. A word that the recipe does not list is asked for by its absence.
TEST_F(Tables, WhatFollowsFromTheOwnersWordIsNotTold) {
  std::vector<Visit> rows = visits(24);
  for (Visit& v : rows) {
    if (v.site == "south") v.arm = "none";
  }
  input(rows);
  const auto counts = [](const std::string& groups, const std::string& columns,
                         const std::string& more) {
    return R"({"maxRows":4,"columns":[)" + columns +
           R"({"name":"n","type":"integer","minimum":0,"maximum":1000}],
              "recipe":{"input":"visits","file":"visits.csv",)" +
           more + R"("groupBy":[)" + groups + R"(],"measures":[{"name":"n","of":"subjects"}]}})";
  };
  const std::string site = R"({"name":"site","column":"site"})";
  const std::string arm = R"({"name":"arm","column":"arm"})";
  const std::string sites = R"({"name":"site","type":"text","enum":["north","south"]},)";
  const std::string arms = R"({"name":"arm","type":"text","enum":["drug","none"]},)";
  request_.outputs.clear();
  declare("table", counts(site + "," + arm, sites + arms,
                          R"("structuralZeros":[{"words":["south","drug"]}],)"));
  declare("margin", counts(site, sites, ""));
  write("out/table.csv", "site,arm,n\nnorth,drug,24\nnorth,none,24\nsouth,none,48\n");
  write("out/margin.csv", "site,n\nnorth,48\nsouth,48\n");
  auto& known = request_.inputs[0].tables[0].structuralZeros;
  EXPECT_EQ(told(evaluate().result),
            "hold groups:fail:empty-cell groups:fail:group-disclosed differences:fail:few-differ");
  known = {{{"site", "arm"}, {"south", "drug"}}};
  EXPECT_EQ(told(evaluate().result), "release");
  known.clear();
  // All of the south have the only word that is listed.
  const std::string south = R"("filter":[{"column":"site","is":"equals","value":"south"}],)";
  request_.outputs.clear();
  ASSERT_EQ(unlink((root_ + "/out/margin.csv").c_str()), 0);
  declare("table", counts(arm, R"({"name":"arm","type":"text","enum":["none"]},)", south));
  write("out/table.csv", "arm,n\nnone,48\n");
  EXPECT_EQ(told(evaluate().result), "hold groups:fail:group-disclosed");
  // A filter on the word itself asks nothing of others.
  const std::string none = R"("filter":[{"column":"arm","is":"equals","value":"none"}],)";
  request_.outputs.clear();
  declare("table", counts(site, sites, none));
  write("out/table.csv", "site,n\nnorth,24\nsouth,48\n");
  EXPECT_EQ(told(evaluate().result), "hold groups:fail:group-disclosed") << "all of the south";
}

// The same three people counted by a group, by a sum of ones, and by what a sum lacks. Each table
// is written here as a container would.
TEST_F(Tables, FewPeopleAreFewWhateverCountsThem) {
  std::vector<Visit> rows = visits();
  const auto with = [&](int ones) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i].cost = static_cast<int>(i) < ones ? "1" : "0";
    }
    input(rows);
  };
  const auto only = [&](const std::string& columns, const std::string& recipe,
                        const std::string& container) {
    request_.outputs.clear();
    declare("table", R"({"maxRows":2,"columns":[)" + columns +
                         R"({"name":"n","type":"integer","minimum":0,"maximum":1000}],
                         "recipe":{"input":"visits","file":"visits.csv",)" +
                         recipe + "}}");
    write("out/table.csv", container);
    return told(evaluate().result);
  };
  const auto counted = [&](const std::string& container) {
    return only(R"({"name":"is","type":"text","enum":["0","1"]},)",
                R"("groupBy":[{"name":"is","column":"cost"}],
                   "measures":[{"name":"n","of":"subjects"}])",
                container);
  };
  const auto summed = [&](const std::string& container) {
    return only("", R"("measures":[{"name":"n","of":"sum","column":"cost"}])", container);
  };
  with(3);
  EXPECT_EQ(counted("is,n\n0,45\n1,3\n"), "reject cells:fail:small-cell");
  EXPECT_EQ(summed("n\n3\n"), "reject cells:fail:small-cell");
  with(45);
  EXPECT_EQ(counted("is,n\n0,3\n1,45\n"), "reject cells:fail:small-cell");
  EXPECT_EQ(summed("n\n45\n"), "reject cells:fail:small-cell");
  with(20);
  EXPECT_EQ(counted("is,n\n0,28\n1,20\n"), "release");
  EXPECT_EQ(summed("n\n20\n"), "release");
  EXPECT_EQ(summed("n\n21\n"), "reject recipe:fail:recipe-mismatch");
}

// That all of a group are one thing is told by a cell with nobody; also by a filter that keeps
// nobody out, and by two tables of the same people.
TEST_F(Tables, AGroupThatIsAllOneThingHolds) {
  const auto counts = [](const std::string& filter) {
    return R"({"maxRows":2,"columns":[{"name":"site","type":"text","enum":["north","south"]},
                 {"name":"n","type":"integer","minimum":0,"maximum":1000}],
               "recipe":{"input":"visits","file":"visits.csv",)" +
           filter +
           R"("groupBy":[{"name":"site","column":"site"}],
              "measures":[{"name":"n","of":"subjects"}]}})";
  };
  const std::string drug = R"("filter":[{"column":"arm","is":"equals","value":"drug"}],)";
  request_.outputs.clear();
  declare("table", counts(drug));
  declare("all", counts(""));
  write("out/table.csv", "site,n\nnorth,12\nsouth,12\n");
  write("out/all.csv", "site,n\nnorth,24\nsouth,24\n");
  EXPECT_EQ(told(evaluate().result), "release");
  std::vector<Visit> rows = visits();
  for (Visit& v : rows) {
    if (v.site == "north") v.arm = "drug";
  }
  input(rows);
  write("out/table.csv", "site,n\nnorth,24\nsouth,12\n");
  EXPECT_EQ(told(evaluate().result),
            "hold groups:fail:group-disclosed differences:fail:few-differ");
  request_.outputs.pop_back();
  ASSERT_EQ(unlink((root_ + "/out/all.csv").c_str()), 0);
  EXPECT_EQ(told(evaluate().result), "hold groups:fail:group-disclosed");
}

// That all from 40 on are something is told by a filter that asks for it, however it says from 40
// on, and by cells that are together from 40 on.
TEST_F(Tables, AFilterThatAsksForMoreInOtherWordsHolds) {
  std::vector<Visit> rows;
  for (int i = 0; i < 200; ++i) {
    const int age = 20 + i % 60;
    rows.push_back({"p" + std::to_string(i), i % 2 == 0 ? "north" : "south",
                    age >= 40 || i % 3 == 0 ? "drug" : "none", std::to_string(age)});
  }
  input(rows);
  const std::string n = R"("measures":[{"name":"n","of":"subjects"}]}})";
  const std::string head = R"({"maxRows":3,"columns":[)";
  const std::string tail = R"({"name":"n","type":"integer","minimum":0,"maximum":1000}],
      "recipe":{"input":"visits","file":"visits.csv",)";
  const auto filter = [](const std::string& age, const std::string& more) {
    return R"("filter":[{"column":"cost",)" + age + "}" + more + "],";
  };
  const std::string drug = R"(,{"column":"arm","is":"equals","value":"drug"})";
  const std::string from = R"("is":"at-least","value":"40")";
  const std::string above = R"("is":"above","value":"39")";
  const std::string ages = R"("groupBy":[{"name":"g","column":"cost","cuts":["40","60"]}],)";
  const std::string words = R"({"name":"g","type":"text","enum":["a","b","c"]},)";
  const auto told_of = [&](const std::string& one, const std::string& other) {
    request_.outputs.clear();
    declare("table", one);
    declare("other", other);
    honest();
    return told(evaluate().result);
  };
  const std::string held = "hold differences:fail:few-differ";
  const std::string asked = head + tail + filter(above, drug) + n;
  EXPECT_EQ(told_of(head + tail + filter(from, "") + n, asked), held);
  EXPECT_EQ(told_of(head + words + tail + ages + n, asked), held);
  EXPECT_EQ(told_of(head + words + tail + ages + n, head + tail + filter(above, "") + n),
            "release");
}

// A filter on the column that the table groups by: that it keeps nobody out of a cell which its
// words make so is no news. Of the cell that they do not make so it is.
TEST_F(Tables, AFilterThatTheWordsOfACellImplyTellsNothing) {
  std::vector<Visit> rows;
  for (int i = 0; i < 200; ++i) {
    rows.push_back({"p" + std::to_string(i),
                    i % 3 == 0   ? "north"
                    : i % 3 == 1 ? "south"
                                 : "none",
                    "drug", std::to_string(20 + i % 40)});
  }
  input(rows);
  const auto told_of = [&](const std::string& words, const std::string& group,
                           const std::string& filter) {
    request_.outputs.clear();
    declare("table", R"({"maxRows":3,"columns":[{"name":"g","type":"text","enum":[)" + words +
                         R"(]},{"name":"n","type":"integer","minimum":0,"maximum":1000}],
                       "recipe":{"input":"visits","file":"visits.csv","filter":[)" +
                         filter + R"(],"groupBy":[{"name":"g",)" + group +
                         R"(}],"measures":[{"name":"n","of":"subjects"}]}})");
    honest();
    return told(evaluate().result);
  };
  const std::string ages = R"("column":"cost","cuts":["40","50"])";
  const std::string adults = R"({"column":"cost","is":"at-least","value":"30"})";
  const std::string drug = R"({"column":"arm","is":"equals","value":"drug"})";
  const std::string known = R"({"column":"site","is":"differs","value":"none"})";
  const std::string north = R"({"column":"site","is":"equals","value":"north"})";
  EXPECT_EQ(told_of(R"("30s","40s","50s")", ages, adults), "release");
  EXPECT_EQ(told_of(R"("north","south")", R"("column":"site")", known), "release");
  EXPECT_EQ(told_of(R"("north")", R"("column":"site")", north), "release");
  // Of another filter beside it, and of words that the filter does not ask for, it is news.
  const std::string held = "hold groups:fail:group-disclosed";
  EXPECT_EQ(told_of(R"("30s","40s","50s")", ages, adults + "," + drug), held);
  EXPECT_EQ(
      told_of(R"("30s","40s","50s")", ages, R"({"column":"cost","is":"at-least","value":"20"})"),
      held)
      << "nobody is younger";
  EXPECT_EQ(told_of(R"("drug")", R"("column":"arm")", known), held) << "nobody has another arm";
}

// Who has no number is told as who has no such word.
TEST_F(Tables, NumbersThatAreMissingOutsideOfAFilterAreTold) {
  std::vector<Visit> rows;
  const auto rows_where = [&](const std::string& in_the_south) {
    rows.clear();
    for (int i = 0; i < 100; ++i) {
      const bool north = i < 30;
      rows.push_back({"p" + std::to_string(i), north ? "north" : "south", "drug",
                      north || i % 2 == 0 ? std::to_string(100 + i % 30) : in_the_south});
    }
    input(rows);
  };
  const std::string north = R"({"column":"site","is":"equals","value":"north"})";
  const auto told_of = [&](const std::string& columns, const std::string& recipe,
                           const std::string& filter) {
    request_.outputs.clear();
    declare("table", R"({"maxRows":2,"columns":[)" + columns +
                         R"({"name":"n","type":"integer","minimum":0,"maximum":1000}],
                       "recipe":{"input":"visits","file":"visits.csv","filter":[)" +
                         north + filter + "]," + recipe + R"({"name":"n","of":"subjects"}]}})");
    honest();
    return told(evaluate().result);
  };
  const std::string cuts =
      R"("groupBy":[{"name":"g","column":"cost","cuts":["115"]}],"measures":[)";
  const std::string mean = R"("measures":[{"name":"m","of":"mean","column":"cost"},)";
  const std::string g = R"({"name":"g","type":"text","enum":["low","high"]},)";
  const std::string m = R"({"name":"m","type":"decimal","minimum":0,"maximum":1000,"digits":9},)";
  const std::string positive = R"(,{"column":"cost","is":"above","value":"1"})";
  const std::string there = R"(,{"column":"cost","is":"differs","value":""})";
  rows_where("7");
  EXPECT_EQ(told_of(g, cuts, ""), "release");
  EXPECT_EQ(told_of(m, mean, ""), "release");
  rows_where("");
  const std::string held = "hold groups:fail:group-disclosed";
  EXPECT_EQ(told_of(g, cuts, ""), held);
  EXPECT_EQ(told_of(m, mean, ""), held);
  EXPECT_EQ(told_of("", R"("measures":[)", positive), held);
  // Who says that rows without a number are not asked for learns nothing by their being away.
  EXPECT_EQ(told_of(g, cuts, there), "release");
  EXPECT_EQ(told_of(m, mean, there), "release");
}

TEST_F(Tables, WhatCannotBeComputedHoldsWithoutAnOutput) {
  auto rows = visits();
  rows[5].cost = "NaN";
  input(rows);
  request_.outputs.push_back(
      {"word", "word.txt", OutputType::kText, *parse_json(R"({"enum":["yes"],"maxLines":1})"), 16});
  write("out/word.txt", "yes\n");
  const GateOutcome o = run();
  EXPECT_EQ(told(o.result),
            "hold recipe:error:recipe-value cells:error:not-recomputed "
            "groups:error:not-recomputed differences:error:not-recomputed");
  ASSERT_TRUE(o.channel);
  EXPECT_TRUE(o.channel->entries().empty());
  EXPECT_TRUE(o.result.manifest.empty());
  ASSERT_EQ(unlink((root_ + "/in/visits.csv").c_str()), 0);
  EXPECT_EQ(told(run().result).find("hold recipe:error:recipe-input"), 0U);
  ASSERT_EQ(symlink("/etc/passwd", (root_ + "/in/visits.csv").c_str()), 0);
  EXPECT_EQ(told(run().result).find("hold recipe:error:recipe-input"), 0U);
}

// Nothing that a policy allows says what these numbers are: every bit of them is the container's
// choice, and no rule about cells can be asked. That alone holds nothing.
TEST_F(Tables, WithoutTheOwnersRuleOrARecipeAllBitsAreFree) {
  const std::int64_t bits = capacity(request_.outputs[0])->bits;
  write("out/table.csv", "site,arm,n,cost\nnorth,drug,3,1\n");  // no such table follows
  const auto free = [&] {
    const GateOutcome o = run();
    EXPECT_EQ(o.result.recommendation, Recommendation::kRelease) << told(o.result);
    EXPECT_EQ(o.result.charge.freeBits, kControlBits + bits);
    EXPECT_EQ(o.result.charge.verifiedBits, 0);
    for (const RuleId rule :
         {RuleId::kRecipe, RuleId::kCells, RuleId::kGroups, RuleId::kDifferences}) {
      const auto it = std::find_if(o.result.analysers.begin(), o.result.analysers.end(),
                                   [&](const auto& a) { return a.rule == rule; });
      ASSERT_NE(it, o.result.analysers.end());
      EXPECT_EQ(it->status, RuleStatus::kNotApplicable);
      EXPECT_EQ(it->reason, GateReason::kNoRecipe);
    }
  };
  request_.inputs[0].tables = {{"others.csv", "who"}};
  free();
  request_.inputs[0].tables.clear();
  free();
  Json without;
  without["maxRows"] = 4;
  without["columns"] = *request_.outputs[0].schema.find("columns");
  request_.outputs[0].schema = without;
  request_.inputs[0].tables = {{"visits.csv", "who"}};
  free();
}

TEST_F(Tables, TheColumnThatNamesSubjectsIsOnlyCounted) {
  const auto refused = [&](const char* from, const char* to) {
    std::string schema = kSchema;
    schema.replace(schema.find(from), std::string(from).size(), to);
    std::vector<OutputDeclaration> outputs = request_.outputs;
    outputs[0].schema = *parse_json(schema);
    return job_charge(outputs, request_.inputs, 0).reason() == Reason::kBadValue;
  };
  EXPECT_TRUE(job_charge(request_.outputs, request_.inputs, 0).ok());
  EXPECT_TRUE(refused(R"("column":"site")", R"("column":"who")"));
  EXPECT_TRUE(refused(R"("column":"cost")", R"("column":"who")"));
  EXPECT_TRUE(refused(R"("groupBy")",
                      R"("filter":[{"column":"who","is":"differs","value":"7"}],"groupBy")"));
  EXPECT_TRUE(refused(R"("input":"visits")", R"("input":"others")"));
}

// B01: ten by twelve counts, rounded to five.
TEST_F(Tables, B01ATableOfCountsIsWithinTheVerifiedBits) {
  std::vector<Visit> rows;
  std::string sites;
  std::string arms;
  for (int i = 0; i < 12; ++i) sites += (i > 0 ? ",\"s" : "\"s") + std::to_string(i) + "\"";
  for (int k = 0; k < 10; ++k) arms += (k > 0 ? ",\"a" : "\"a") + std::to_string(k) + "\"";
  int id = 0;
  for (int i = 0; i < 12; ++i) {
    for (int k = 0; k < 10; ++k) {
      for (int n = 0; n < 10 + (i * k) % 7; ++n) {
        rows.push_back(
            {"p" + std::to_string(++id), "s" + std::to_string(i), "a" + std::to_string(k), "1"});
      }
    }
  }
  input(rows);
  request_.outputs.clear();
  declare("table", R"({"maxRows":120,"columns":[
      {"name":"site","type":"text","enum":[)" +
                       sites + R"(]},
      {"name":"arm","type":"text","enum":[)" +
                       arms + R"(]},
      {"name":"n","type":"integer","minimum":0,"maximum":1000}],
      "recipe":{"input":"visits","file":"visits.csv","roundTo":5,
        "groupBy":[{"name":"site","column":"site"},{"name":"arm","column":"arm"}],
        "measures":[{"name":"n","of":"subjects"}]}})");
  honest();
  const GateOutcome o = run();
  EXPECT_EQ(told(o.result), "release");
  EXPECT_GT(o.result.charge.verifiedBits, 2000);
  EXPECT_LT(o.result.charge.verifiedBits, 2113);
}

// A gate that was taken over can say that a table is the inputs'. It cannot say so of a table that
// has no recipe, or whose owner allows none: the charge follows from the request.
TEST_F(Tables, AGateCannotCallFreeBitsVerified) {
  const Evaluation honest_answer = evaluate();
  ASSERT_TRUE(check_answer(request_, encode_answer(honest_answer)).ok());
  Evaluation forged = honest_answer;
  std::swap(forged.result.charge.freeBits, forged.result.charge.verifiedBits);
  EXPECT_FALSE(check_answer(request_, encode_answer(forged)).ok());
  GateRequest without = request_;
  without.inputs[0].tables.clear();
  forged = honest_answer;
  forged.result.requestDigest = request_digest(without);
  const auto seen = check_answer(without, encode_answer(forged));
  ASSERT_FALSE(seen.ok());
  EXPECT_EQ(seen.error().what, "gate answer: charge");
  // Nor release one after a rule about it failed, or did not speak.
  forged = honest_answer;
  for (auto& a : forged.result.analysers) {
    if (a.rule == RuleId::kCells) a.status = RuleStatus::kFail;
  }
  forged.result.verdict = worst_status(forged.result.analysers);
  EXPECT_FALSE(check_answer(request_, encode_answer(forged)).ok());
  forged = honest_answer;
  std::erase_if(forged.result.analysers, [](const auto& a) { return a.rule == RuleId::kRecipe; });
  forged.result.verdict = worst_status(forged.result.analysers);
  EXPECT_FALSE(check_answer(request_, encode_answer(forged)).ok());
}

TEST_F(Tables, MoreVerifiedBitsThanThePolicyClearsHold) {
  request_.policy.autoClearVerifiedBits = 10;
  const GateOutcome o = run();
  EXPECT_EQ(told(o.result), "hold capacity:fail:over-verified-bits");
  ASSERT_TRUE(o.channel);
  Evaluation forged = evaluate();
  for (auto& a : forged.result.analysers) {
    if (a.rule == RuleId::kCapacity) a = {a.rule, RuleStatus::kPass, GateReason::kNone, {}};
  }
  forged.result.verdict = worst_status(forged.result.analysers);
  forged.result.recommendation = Recommendation::kRelease;
  forged.result.score = 0;
  const auto seen = check_answer(request_, encode_answer(forged));
  ASSERT_FALSE(seen.ok());
  EXPECT_EQ(seen.error().what, "gate answer: releases more than the policy clears");
}

TEST_F(Tables, NoPlaintextIsInAReason) {
  auto rows = visits();
  rows.resize(rows.size() - 9);
  rows[3].cost = "SECRETWORD";
  input(rows);
  const GateOutcome o = run();
  const std::string text = canonical(to_json(o.result));
  EXPECT_EQ(text.find("SECRETWORD"), std::string::npos);
  EXPECT_EQ(text.find("person-"), std::string::npos);
}

}  // namespace
}  // namespace gbx::gate
