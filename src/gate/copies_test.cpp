// The copy detector against a synthetic hospital table: what it must find, and what it must leave
// alone.
#include "gate/copies.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <set>

#include "gate/tokens.h"

namespace gbx::gate {
namespace {

// 569 rows of 30 correlated measurements with four or five significant digits, a patient number, a
// diagnosis.
struct Hospital {
  explicit Hospital(std::uint64_t seed, int rows = 569) : random(seed) {
    std::normal_distribution<double> normal;
    std::uniform_int_distribution<int> number(100'000, 99'999'999);
    header = "id";
    for (int c = 0; c < 30; ++c) {
      header +=
          ",measure_" + std::string(1, static_cast<char>('a' + c % 26)) + (c < 26 ? "x" : "y");
    }
    header += ",diagnosis";
    for (int r = 0; r < rows; ++r) {
      std::vector<std::string> cells{std::to_string(number(random))};
      const double common = normal(random);
      for (int c = 0; c < 30; ++c) {
        const double scale = std::pow(10.0, 2 - c % 5);
        const double v = scale * std::exp(0.4 * common + 0.2 * normal(random));
        char text[32];
        std::snprintf(text, sizeof text, "%.4g", v);
        cells.push_back(text);
      }
      cells.push_back(common > 0 ? "M" : "B");
      table.push_back(std::move(cells));
    }
  }
  std::string line(std::size_t r, char delimiter = ',') const {
    std::string s;
    for (const auto& c : table[r]) s += (s.empty() ? "" : std::string(1, delimiter)) + c;
    return s + "\n";
  }
  std::string csv() const {
    std::string s = header + "\n";
    for (std::size_t r = 0; r < table.size(); ++r) s += line(r);
    return s;
  }
  std::string rows(std::size_t from, std::size_t n, char delimiter = ',') const {
    std::string s;
    for (std::size_t r = from; r < from + n; ++r) s += line(r, delimiter);
    return s;
  }
  std::string header;
  std::vector<std::vector<std::string>> table;
  std::mt19937_64 random;
};

std::string base64(std::string_view in, const char* tail = "+/") {
  std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  alphabet += tail;
  std::string out;
  std::uint32_t bits = 0;
  int have = 0;
  for (const char c : in) {
    bits = (bits << 8) | static_cast<unsigned char>(c);
    have += 8;
    while (have >= 6) out.push_back(alphabet[(bits >> (have -= 6)) & 63]);
  }
  if (have > 0) out.push_back(alphabet[(bits << (6 - have)) & 63]);
  return out;
}
std::string wrapped(const std::string& s, std::size_t width) {
  std::string out;
  for (std::size_t i = 0; i < s.size(); i += width) out += s.substr(i, width) + "\n";
  return out;
}

struct Verdict {
  std::set<GateReason> reasons;
  int nearest = 0;
  bool clean() const { return reasons.empty(); }
  bool has(GateReason r) const { return reasons.count(r) != 0; }
};
Verdict scan(CopyDetector& d, const std::string& input) {
  d.prepare();
  d.begin_file();
  // Odd chunks: no match may depend on where a read ended.
  for (std::size_t i = 0; i < input.size(); i += 1009) {
    d.feed(as_bytes(std::string_view(input).substr(i, 1009)));
  }
  d.end_file();
  Verdict v;
  const auto findings = d.finish();
  EXPECT_TRUE(findings.ok());
  for (const auto& f : *findings) v.reasons.insert(f.reason);
  v.nearest = d.nearest_percent();
  return v;
}
Verdict scan_file(const std::string& output, const std::string& input) {
  CopyDetector d;
  d.add_bytes(0, as_bytes(output), false);
  d.add_lines(0, as_bytes(output));
  return scan(d, input);
}
Verdict scan_typed(const OutputDeclaration& declaration, const std::string& output,
                   const std::string& input) {
  CopyDetector d;
  const Canonical c = canonicalise(declaration, as_bytes(output));
  EXPECT_TRUE(c.ok()) << enum_name(c.failure) << " in " << output.substr(0, 200);
  d.add_bytes(0, as_bytes(output), true);
  d.add_cells(0, c.cells);
  return scan(d, input);
}
OutputDeclaration numbers_table(int columns, int rows, int digits) {
  OutputDeclaration d;
  d.name = "t";
  d.path = "t.csv";
  d.type = OutputType::kTable;
  d.maxBytes = 1 << 20;
  std::string list;
  for (int c = 0; c < columns; ++c) {
    list += std::string(c == 0 ? "" : ",") + R"({"name":"c)" + std::to_string(c) +
            R"(","type":"decimal","minimum":-1000000000,"maximum":1000000000,"scale":9,"digits":)" +
            std::to_string(digits) + "}";
  }
  d.schema = *parse_json(R"({"maxRows":)" + std::to_string(rows) + R"(,"columns":[)" + list + "]}");
  return d;
}

TEST(Tokens, SplitAndCompareByValue) {
  std::vector<std::string_view> t;
  split_tokens("17.99;\"10.38\"\t(+3) x_1. ", 10, t);
  EXPECT_EQ(t, (std::vector<std::string_view>{"17.99", "10.38", "3", "x_1"}));
  EXPECT_EQ(number_key("1.50"), number_key("1.5"));
  EXPECT_EQ(number_key("150e-2"), number_key("1.5"));
  EXPECT_EQ(number_key("-0.0"), number_key("0"));
  EXPECT_FALSE(number_key("abc"));
  EXPECT_FALSE(number_key("1234567890123456789"));
  EXPECT_FALSE(number_key("1-2"));
}

TEST(Copies, RecognisableFormsAreAllFound) {
  for (std::uint64_t seed = 0; seed < 25; ++seed) {
    const Hospital h(seed);
    const std::string input = h.csv();
    const std::string rows = h.rows(100 + seed, 5);
    const auto found = [&](const std::string& output, GateReason why) {
      const Verdict v = scan_file(output, input);
      EXPECT_TRUE(v.has(why)) << "seed " << seed << " " << enum_name(why) << " nearest "
                              << v.nearest;
    };
    found(rows, GateReason::kCopiedBytes);
    found(h.header + "\n" + rows, GateReason::kCopiedRows);
    found("{\"rows\":[\"" + rows + "\"]}", GateReason::kCopiedBytes);
    found(base64(rows), GateReason::kCopiedEncoded);
    found("report: " + base64(rows, "-_"), GateReason::kCopiedEncoded);
    found(wrapped(base64(rows), 76), GateReason::kCopiedEncoded);
    found("xy" + base64(rows), GateReason::kCopiedEncoded);
    found(base64(base64(base64(rows))), GateReason::kCopiedEncoded);
    found(to_hex(as_bytes(rows)), GateReason::kCopiedEncoded);
    std::string upper_hex = to_hex(as_bytes(rows));
    std::transform(upper_hex.begin(), upper_hex.end(), upper_hex.begin(),
                   [](char c) { return c >= 'a' ? static_cast<char>(c - 32) : c; });
    found(wrapped(upper_hex, 61), GateReason::kCopiedEncoded);
    found(std::string(rows.rbegin(), rows.rend()), GateReason::kCopiedReversed);
    found(h.rows(7, 5, ';'), GateReason::kCopiedBytes);
    found(h.rows(7, 5, '\t'), GateReason::kCopiedRows);
    std::string separated;
    for (std::size_t i = 0; i < rows.size(); i += 8) separated += rows.substr(i, 8) + "|";
    found(separated, GateReason::kCopiedBytes);
  }
}

TEST(Copies, ChangeOfCaseIsNoDisguise) {
  std::string input = "name,street,note\n";
  std::mt19937_64 random(5);
  const auto word = [&] {
    std::string w;
    for (int i = 0; i < 7; ++i) w.push_back(static_cast<char>('a' + random() % 26));
    return w;
  };
  std::vector<std::string> rows;
  for (int i = 0; i < 400; ++i) {
    rows.push_back(word() + "," + word() + " " + word() + "," + word() + "\n");
  }
  for (const auto& r : rows) input += r;
  std::string upper = rows[17] + rows[18];
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  EXPECT_TRUE(scan_file(upper, input).has(GateReason::kCopiedBytes));
  EXPECT_TRUE(scan_file("name,street,note\n", input).clean());  // the header is no secret
}

TEST(Copies, ColumnsAndIdentifiersAlone) {
  for (std::uint64_t seed = 0; seed < 25; ++seed) {
    const Hospital h(seed);
    const std::string input = h.csv();
    for (const std::size_t column : {std::size_t{0}, std::size_t{1}, std::size_t{5}}) {
      std::vector<std::string> values;
      for (const auto& r : h.table) values.push_back(r[column]);
      std::shuffle(values.begin(), values.end(), std::mt19937_64(seed));
      std::string output;
      for (const auto& v : values) output += v + "\n";
      EXPECT_TRUE(scan_file(output, input).has(GateReason::kCopiedColumn))
          << "seed " << seed << " column " << column;
    }
    std::string few;
    for (std::size_t r = 40; r < 60; ++r) few += h.table[r][0] + "\n";
    EXPECT_TRUE(scan_file(few, input).has(GateReason::kCopiedColumn)) << seed;
  }
}

// Rows that pass the schema: the detector compares what leaves, rounded, with the inputs rounded
// the same way.
TEST(Copies, RowsInsideATypedTable) {
  for (std::uint64_t seed = 0; seed < 25; ++seed) {
    const Hospital h(seed);
    const std::string input = h.csv();
    for (const int digits : {3, 4, 15}) {
      std::string output = "c0,c1,c2,c3,c4,c5,c6,c7,c8,c9\n";
      for (std::size_t r = 0; r < 20; ++r) {
        for (std::size_t c = 1; c <= 10; ++c) {
          output += h.table[r * 20 + seed][c] + (c == 10 ? "\n" : ",");
        }
      }
      const Verdict v = scan_typed(numbers_table(10, 20, digits), output, input);
      EXPECT_TRUE(v.has(GateReason::kCopiedRows))
          << "seed " << seed << " digits " << digits << " nearest " << v.nearest;
    }
  }
}

std::string short_number(double v, const char* format = "%.3g") {
  char text[32];
  std::snprintf(text, sizeof text, format, v);
  return text;
}

// What honest studies write from such data: coefficients, calibration, group means, quantiles,
// histograms, metrics.
TEST(Copies, HonestResultsPass) {
  int worst = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Hospital h(seed, 300 + static_cast<int>(seed % 4) * 100);
    const std::string input = h.csv();
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> unit(0, 1);
    const auto passes = [&](const char* what, const OutputDeclaration& d,
                            const std::string& output) {
      const Verdict v = scan_typed(d, output, input);
      worst = std::max(worst, v.nearest);
      EXPECT_TRUE(v.clean()) << "seed " << seed << " " << what << " "
                             << enum_name(v.clean() ? GateReason::kNone : *v.reasons.begin());
    };
    std::string coefficients = "c0,c1,c2,c3\n";
    for (int i = 0; i < 31; ++i) {
      coefficients +=
          short_number(normal(h.random)) + "," + short_number(std::exp(normal(h.random))) + "," +
          short_number(unit(h.random)) + "," + short_number(2 * normal(h.random)) + "\n";
    }
    passes("coefficients", numbers_table(4, 31, 3), coefficients);
    std::string calibration = "c0,c1,c2,c3\n";
    for (int i = 1; i <= 10; ++i) {
      calibration += std::to_string(i) + "," + std::to_string(56 + i % 2) + "," +
                     short_number((i - unit(h.random)) / 10) + "," +
                     short_number((i - unit(h.random)) / 10) + "\n";
    }
    passes("calibration", numbers_table(4, 10, 3), calibration);
    // Means and medians of all 30 columns by diagnosis, a row per measurement.
    std::string means = "c0,c1,c2,c3\n";
    std::string wide = "c0";
    for (int c = 1; c < 30; ++c) wide += ",c" + std::to_string(c);
    wide += "\n";
    std::string wide_row;
    for (std::size_t c = 1; c <= 30; ++c) {
      std::vector<double> values[2];
      for (const auto& r : h.table) values[r[31] == "M"].push_back(std::stod(r[c]));
      std::string row;
      for (auto& v : values) {
        double sum = 0;
        for (const double x : v) sum += x;
        std::sort(v.begin(), v.end());
        row += (row.empty() ? "" : ",") + short_number(sum / static_cast<double>(v.size())) + "," +
               short_number(v[v.size() / 2]);
        if (&v == &values[1]) {
          wide_row +=
              (wide_row.empty() ? "" : ",") + short_number(sum / static_cast<double>(v.size()));
        }
      }
      means += row + "\n";
    }
    passes("means by group", numbers_table(4, 30, 3), means);
    passes("one row of means", numbers_table(30, 1, 3), wide + wide_row + "\n");
    std::string counts = "c0,c1\n";
    for (int i = 0; i < 20; ++i) {
      counts += std::to_string(i * 5) + "," +
                std::to_string(10 + static_cast<int>(40 * unit(h.random))) + "\n";
    }
    passes("histogram", numbers_table(2, 20, 4), counts);
  }
  std::printf("[ figure ] 300 honest results, nearest miss %d %% of a threshold\n", worst);
}

TEST(Copies, SharedByTenPeopleIsNoFinding) {
  std::string input;
  for (int i = 0; i < 300; ++i) {
    input += "row " + std::to_string(i * 37) + " Universitaetsklinikum Heidelberg Innere Medizin\n";
  }
  EXPECT_TRUE(scan_file("site: Universitaetsklinikum Heidelberg Innere Medizin\n", input).clean());
}

TEST(Copies, LongOutputsWidenTheGuarantee) {
  CopyDetector d;
  d.add_bytes(0, as_bytes(std::string(1000, 'a')), false);
  EXPECT_EQ(d.guaranteed_run(), 32U);
  std::string big;
  std::mt19937_64 random(3);
  for (int i = 0; i < 700'000; ++i) big.push_back(static_cast<char>('a' + random() % 26));
  CopyDetector e;
  e.add_bytes(0, as_bytes(big), false);
  EXPECT_GT(e.guaranteed_run(), 32U);
  EXPECT_LT(e.guaranteed_run(), 48U);
}

TEST(Copies, NothingToCompareIsClean) {
  EXPECT_TRUE(scan_file("", "a,b\n1,2\n").clean());
  EXPECT_TRUE(scan_file("1,2\n", "").clean());
  EXPECT_TRUE(scan_file("0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0\n",
                        "x\n0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0\n1,2,3\n")
                  .clean());
}

}  // namespace
}  // namespace gbx::gate
