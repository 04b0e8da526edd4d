// Decimals, schemas, capacities, the three parsers and the canonical form.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>

#include "base/names.h"
#include "base/os.h"
#include "base/seams.h"
#include "gate/canonical.h"
#include "gate/csv.h"
#include "gate/json_text.h"
#include "gate/release.h"
#include "gate/tokens.h"

namespace gbx::gate {
namespace {

std::string source(const std::string& path) {
  const char* root = std::getenv("GBX_SOURCE_DIR");
  return (root == nullptr ? std::string(".") : std::string(root)) + "/" + path;
}

OutputDeclaration declare(OutputType type, const std::string& schema,
                          std::int64_t max_bytes = 65536) {
  OutputDeclaration d;
  d.name = "out";
  d.path = "out.dat";
  d.type = type;
  d.schema = *parse_json(schema);
  d.maxBytes = max_bytes;
  return d;
}
OutputDeclaration table() {
  return declare(OutputType::kTable, R"({"maxRows":4,"columns":[
      {"name":"group","type":"text","enum":["b","a","c,d"]},
      {"name":"n","type":"integer","minimum":0,"maximum":200},
      {"name":"mean","type":"decimal","minimum":-10,"maximum":10,"digits":3,"scale":3}]})");
}
std::string canon(const OutputDeclaration& d, std::string_view raw) {
  const Canonical c = canonicalise(d, as_bytes(raw));
  return c.ok() ? std::string(as_text(c.bytes)) : "!" + std::string(enum_name(c.failure));
}

TEST(Decimal, RoundsAsPythonsDecimalDoes) {
  std::ifstream in(source("src/gate/testdata/rounding.txt"));
  int lines = 0;
  std::string text;
  std::string expected;
  int digits = 0;
  int scale = 0;
  while (in >> text >> digits >> scale >> expected) {
    ++lines;
    const auto d = parse_decimal(text);
    ASSERT_TRUE(d.ok()) << text;
    EXPECT_EQ(to_text(round_decimal(*d, digits, scale)), expected)
        << text << " " << digits << " " << scale;
    // The detector's fast arithmetic agrees wherever it applies.
    if (const auto key = number_key(text)) {
      const NumberKey fast = round_key(*key, digits, scale);
      const auto slow = number_key(expected);
      if (slow) {
        EXPECT_EQ(hash_key(fast, 1), hash_key(*slow, 1)) << text << " " << digits << " " << scale;
      }
    }
  }
  EXPECT_GE(lines, 250);
}

TEST(Decimal, RefusesWhatIsNoNumber) {
  for (const char* bad :
       {"",      "-",        "+1",           "01",           "-01",   ".5",           "5.",
        "1e",    "1e+",      "NaN",          "nan",          "inf",   "-Infinity",    "0x10",
        "1_000", "1 ",       " 1",           "1,5",          "1e401", "1e9999999999", "1.2.3",
        "--1",   "\xd9\xa1", "\xef\xbc\x91", "1\xe2\x80\x8b"}) {
    EXPECT_EQ(parse_decimal(bad).reason(), Reason::kBadValue) << bad;
  }
  EXPECT_FALSE(parse_decimal(std::string(kMaxNumberText + 1, '1')).ok());
  EXPECT_EQ(to_text(*parse_decimal("-0.000e7")), "0");
}

TEST(Decimal, CountsTheAlphabetAsEnumerationDoes) {
  for (const auto& t : {NumberType{false, -10, 10, 3, 3}, NumberType{false, 0, 1, 3, 3},
                        NumberType{false, 0, 10, 3, 3}, NumberType{false, -3, 7, 1, 2},
                        NumberType{false, 2, 40, 2, 2}, NumberType{false, -40, -2, 2, 2},
                        NumberType{true, 1, 10, 0, 0}, NumberType{true, -500, 1234, 2, 0},
                        NumberType{true, 5, 5, 0, 0}}) {
    std::set<std::string> seen;
    const int unit = static_cast<int>(std::lround(std::pow(10, t.scale)));
    for (std::int64_t k = t.minimum * unit; k <= t.maximum * unit; ++k) {
      const Decimal d = round_decimal(
          *parse_decimal(std::to_string(k) + "e-" + std::to_string(t.scale)), t.digits, t.scale);
      const auto scaled = scaled_integer(d, t.scale);
      if (*scaled >= t.minimum * unit && *scaled <= t.maximum * unit) seen.insert(to_text(d));
    }
    EXPECT_EQ(static_cast<std::size_t>(alphabet_size(t)), seen.size())
        << t.minimum << ".." << t.maximum << " d" << t.digits;
  }
}

TEST(Capacity, Log2IsAnUpperBoundAndTight) {
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(log2_upper_q32(UWide{1} << i), static_cast<std::uint64_t>(i) << 32);
  }
  for (UWide n = 3; n < (UWide{1} << 100); n = n * 7 / 3 + 1) {
    const long double exact = std::log2(static_cast<long double>(n)) * 4294967296.0L;
    const auto bound = static_cast<long double>(log2_upper_q32(n));
    EXPECT_GE(bound, exact - 0.001L);
    EXPECT_LT(bound, exact + 3.0L);
  }
  EXPECT_EQ(log2_upper_q32(~std::uint64_t{0}), std::uint64_t{64} << 32);
}

TEST(Capacity, KnownAnswers) {
  const auto bits = [](OutputType t, const char* schema, std::int64_t max_bytes = 1024) {
    return capacity(declare(t, schema, max_bytes))->bits;
  };
  // One boolean; three words; an integer of one value carries nothing.
  EXPECT_EQ(bits(OutputType::kJson, R"({"type":"boolean"})"), 1);
  EXPECT_EQ(bits(OutputType::kJson, R"({"type":"text","enum":["a","b","c"]})"), 2);
  EXPECT_EQ(bits(OutputType::kMetrics,
                 R"({"fields":[{"name":"n","type":"integer","minimum":5,"maximum":5}]})"),
            0);
  EXPECT_EQ(bits(OutputType::kMetrics,
                 R"({"fields":[{"name":"n","type":"integer","minimum":0,"maximum":255}]})"),
            8);
  // log2(4) for the number of rows, 3 rows of log2(16).
  EXPECT_EQ(
      bits(OutputType::kTable,
           R"({"maxRows":3,"columns":[{"name":"x","type":"integer","minimum":1,"maximum":16}]})"),
      14);
  EXPECT_EQ(
      bits(OutputType::kTable,
           R"({"maxRows":0,"columns":[{"name":"x","type":"integer","minimum":1,"maximum":16}]})"),
      0);
  // 0 to 1 with three digits and decimals: 1001 values, 9.967 bits.
  EXPECT_EQ(bits(OutputType::kMetrics,
                 R"({"fields":[{"name":"p","type":"decimal","minimum":0,"maximum":1}]})"),
            10);
  EXPECT_EQ(bits(OutputType::kText, R"({"enum":["yes","no"],"maxLines":7})"), 10);
  EXPECT_EQ(bits(OutputType::kOpaque, "{}", 1023), 8 * 1023 + 10);
  EXPECT_EQ(bits(OutputType::kText, "{}", 1), 9);
  EXPECT_EQ(
      bits(OutputType::kJson, R"({"type":"array","maxItems":3,"items":{"type":"object","members":[
      {"name":"a","type":"boolean"},{"name":"b","type":"integer","minimum":0,"maximum":3}]}})"),
      11);
}

// What the broker reserves is what the gate charges, log bytes and all.
TEST(Capacity, OneReckoningForReservationAndCharge) {
  EXPECT_EQ(job_charge({}, {}, 0)->freeBits, kControlBits);
  EXPECT_EQ(job_charge({}, {}, 0)->code, CodeId::kControlOnly);
  EXPECT_EQ(job_charge({}, {}, 1)->freeBits, kControlBits + 8 + 1);
  EXPECT_EQ(job_charge({}, {}, 16)->freeBits, kControlBits + 8 * 16 + 5);
  // More log bytes than can reach anybody cost nothing.
  EXPECT_EQ(job_charge({}, {}, 1 << 20)->freeBits, job_charge({}, {}, kHardMaxLogBytes)->freeBits);
  EXPECT_EQ(job_charge({}, {}, kHardMaxLogBytes)->freeBits,
            kControlBits + 8 * kHardMaxLogBytes + 17);
  OutputDeclaration o;
  o.name = "x";
  o.path = "x";
  o.type = OutputType::kOpaque;
  o.schema = Json(JsonObject{});
  o.maxBytes = 100;
  GateRequest r;
  r.outputs = {o};
  r.exitClass = RunExit::kOk;
  r.logs.visibility = LogVisibility::kConsumer;
  r.logs.maxBytes = 1 << 20;
  for (const std::int64_t most : {std::int64_t{0}, std::int64_t{100}, kHardMaxLogBytes}) {
    r.policy.maxConsumerLogBytes = most;
    EXPECT_EQ(release_charge(r)->freeBits, job_charge(r.outputs, r.inputs, most)->freeBits);
  }
}

TEST(Capacity, TheSampleStudyFitsItsFreeBits) {
  // The schemas of examples/breast-cancer/job.yaml, whose comment states 961 bits for the three
  // together.
  std::string words = R"(["w0")";
  for (int i = 1; i < 31; ++i) words += ",\"w" + std::to_string(i) + "\"";
  const auto coefficients = declare(
      OutputType::kTable,
      R"({"maxRows":31,"columns":[{"name":"feature","type":"text","enum":)" + words +
          R"(]},{"name":"coefficient","type":"decimal","minimum":-10,"maximum":10,"digits":3,"scale":3}]})");
  const auto calibration =
      declare(OutputType::kTable,
              R"({"maxRows":10,"columns":[{"name":"bin","type":"integer","minimum":1,"maximum":10},
      {"name":"n","type":"integer","minimum":0,"maximum":200},{"name":"predicted","type":"decimal","minimum":0,"maximum":1,"digits":3,"scale":3},
      {"name":"observed","type":"decimal","minimum":0,"maximum":1,"digits":3,"scale":3}]})");
  std::string fields;
  const auto field = [&](const std::string& name, const std::string& rest) {
    fields += (fields.empty() ? "" : ",") + (R"({"name":")" + name + R"(",)" + rest + "}");
  };
  for (int i = 0; i < 7; ++i) {
    field("p" + std::to_string(i),
          R"("type":"decimal","minimum":0,"maximum":1,"digits":3,"scale":3)");
  }
  for (int i = 0; i < 2; ++i) {
    field("t" + std::to_string(i),
          R"("type":"decimal","minimum":0,"maximum":10,"digits":3,"scale":3)");
  }
  for (int i = 0; i < 2; ++i) {
    field("n" + std::to_string(i), R"("type":"integer","minimum":0,"maximum":1000)");
  }
  field("features", R"("type":"integer","minimum":1,"maximum":100)");
  field("folds", R"("type":"integer","minimum":2,"maximum":10)");
  const auto metrics = declare(OutputType::kMetrics, R"({"fields":[)" + fields + "]}");
  // By Python: 527.24, 312.53 and 121.30 bits; each is rounded up.
  EXPECT_EQ(capacity(coefficients)->bits, 528);
  EXPECT_EQ(capacity(calibration)->bits, 313);
  EXPECT_EQ(capacity(metrics)->bits, 122);
}

TEST(Schema, RefusesWhatItDoesNotKnow) {
  const auto reason = [](OutputType t, const char* schema) {
    return parse_schema(declare(t, schema)).reason();
  };
  EXPECT_EQ(
      reason(OutputType::kTable, R"({"columns":[{"name":"x","type":"boolean"}],"maxRows":1})"),
      Reason::kBadValue);
  EXPECT_EQ(reason(OutputType::kTable, R"({"columns":[{"name":"x","type":"text"}],"maxRows":1})"),
            Reason::kMissingField);
  EXPECT_EQ(reason(OutputType::kTable,
                   R"({"columns":[{"name":"x","type":"text","enum":["a","a"]}],"maxRows":1})"),
            Reason::kBadValue);
  EXPECT_EQ(reason(OutputType::kTable,
                   R"({"columns":[{"name":"x","type":"text","enum":["a\n"]}],"maxRows":1})"),
            Reason::kBadValue);
  EXPECT_EQ(reason(OutputType::kTable, R"({"columns":[],"maxRows":1})"), Reason::kBadValue);
  EXPECT_EQ(
      reason(OutputType::kTable,
             R"({"columns":[{"name":"x","type":"integer","minimum":2,"maximum":1}],"maxRows":1})"),
      Reason::kBadValue);
  EXPECT_EQ(
      reason(
          OutputType::kTable,
          R"({"columns":[{"name":"x","type":"integer","minimum":2,"maximum":3,"extra":1}],"maxRows":1})"),
      Reason::kUnknownField);
  EXPECT_EQ(reason(OutputType::kTable,
                   R"({"columns":[{"name":"x","type":"integer","minimum":2,"maximum":3}]})"),
            Reason::kMissingField);
  EXPECT_EQ(reason(OutputType::kMetrics, R"({"fields":[{"name":"x","type":"text","enum":["a"]}]})"),
            Reason::kBadValue);
  EXPECT_EQ(reason(OutputType::kJson, R"({"type":"array","items":{"type":"boolean"}})"),
            Reason::kMissingField);
  EXPECT_EQ(reason(OutputType::kOpaque, R"({"note":1})"), Reason::kUnknownField);
  std::string deep = R"({"type":"boolean"})";
  for (int i = 0; i < 9; ++i) deep = R"({"type":"array","maxItems":1,"items":)" + deep + "}";
  EXPECT_EQ(reason(OutputType::kJson, deep.c_str()), Reason::kTooLarge);
  std::string wide = R"({"type":"boolean"})";
  for (int i = 0; i < 7; ++i) wide = R"({"type":"array","maxItems":100000,"items":)" + wide + "}";
  EXPECT_EQ(capacity(declare(OutputType::kJson, wide)).reason(), Reason::kTooLarge);
}

TEST(Csv, StrictSubset) {
  const auto failure = [](std::string_view s) { return parse_csv(as_bytes(s), {3}).failure; };
  EXPECT_EQ(failure("a,b\n1,2\n"), GateReason::kNone);
  EXPECT_EQ(failure("a,b\r\n1,2\r\n"), GateReason::kNone);
  EXPECT_EQ(failure("a,\"b,\"\"c\"\n1,2"), GateReason::kNone);
  EXPECT_EQ(failure(""), GateReason::kBadCsv);
  EXPECT_EQ(failure("a,b\n\n1,2\n"), GateReason::kBadCsv);
  EXPECT_EQ(failure("a,b\n1\n"), GateReason::kBadCsv);
  EXPECT_EQ(failure("a,b\n1,\"2\n3\"\n"), GateReason::kBadCsv);
  EXPECT_EQ(failure("a,b\n1,2\"\n"), GateReason::kBadCsv);
  EXPECT_EQ(failure("a,b\n1,\"2\"x\n"), GateReason::kBadCsv);
  EXPECT_EQ(failure("a,b\r1,2\n"), GateReason::kBadCsv);
  EXPECT_EQ(failure("a\n1\n2\n3\n"), GateReason::kTooManyRows);
  EXPECT_EQ(failure(std::string_view("a\0b\n", 4)), GateReason::kBadEncoding);
  EXPECT_EQ(failure("a\xff\n"), GateReason::kBadEncoding);
  EXPECT_EQ(parse_csv(as_bytes("x\n\"a\"\"b\"\n"), {3}).rows[1][0], "a\"b");
}

TEST(JsonText, StrictAndKeepsNumbersAsText) {
  const auto failure = [](std::string_view s) { return parse_json_text(as_bytes(s)).failure; };
  EXPECT_EQ(failure(R"({"a":[1.50,-2e3,true,null,"\u00e9\ud83d\ude00"]})"), GateReason::kNone);
  EXPECT_EQ(parse_json_text(as_bytes("1.50")).value.text, "1.50");
  EXPECT_EQ(parse_json_text(as_bytes(R"("\ud83d\ude00")")).value.text, "\xf0\x9f\x98\x80");
  EXPECT_EQ(failure(R"({"a":1,"a":2})"), GateReason::kDuplicateKey);
  EXPECT_EQ(failure(R"({"a":1,"\u0061":2})"), GateReason::kDuplicateKey);
  EXPECT_EQ(failure("NaN"), GateReason::kNotANumber);
  EXPECT_EQ(failure("[-Infinity]"), GateReason::kNotANumber);
  for (const char* bad :
       {"", "{", "[1,]", "{\"a\":1,}", "{a:1}", "'a'", "1 2", "[1]x", "\"\\ud800\"", "\"\\udc00\"",
        "\"a\nb\"", "\"\\x\"", "tru", "\xef\xbb\xbf{}", "// c\n1", "[1,,2]", "{\"a\"}"}) {
    EXPECT_EQ(failure(bad), GateReason::kBadJson) << bad;
  }
  EXPECT_EQ(failure("\"\xff\""), GateReason::kBadEncoding);
  EXPECT_EQ(failure(std::string(17, '[') + std::string(17, ']')), GateReason::kBadJson);
  EXPECT_EQ(failure(std::string(100'000, '[')), GateReason::kBadJson);
}

TEST(Canonical, TableIsRoundedSortedAndReordered) {
  EXPECT_EQ(canon(table(), "mean,n,group\n1.23456,5,a\r\n-0.0001,7,b\n9.9996,2,\"c,d\"\n"),
            "group,n,mean\nb,7,0\na,5,1.23\n\"c,d\",2,10\n");
  EXPECT_EQ(canon(table(), "group,n,mean\n"), "group,n,mean\n");
  EXPECT_EQ(canon(table(), "group,n,mean\na,10,1e-3\na,9,5E0\n"),
            "group,n,mean\na,9,5\na,10,0.001\n");
}

TEST(Canonical, TableRefusalsNameTheirReason) {
  const auto d = table();
  EXPECT_EQ(canon(d, "group,n\na,1\n"), "!wrong-columns");
  EXPECT_EQ(canon(d, "group,n,n\na,1,1\n"), "!wrong-columns");
  EXPECT_EQ(canon(d, "group,n,mean,x\na,1,1,1\n"), "!wrong-columns");
  EXPECT_EQ(canon(d,
                  "group,n,m\xd0\xb5"
                  "an\na,1,1\n"),
            "!wrong-columns");  // a Cyrillic letter
  EXPECT_EQ(canon(d, "group,n,mean\nz,1,1\n"), "!not-in-list");
  EXPECT_EQ(canon(d, "group,n,mean\na\xe2\x80\x8b,1,1\n"), "!not-in-list");  // a zero-width space
  EXPECT_EQ(canon(d, "group,n,mean\na,1.0,1\n"), "!not-an-integer");
  EXPECT_EQ(canon(d, "group,n,mean\na,,1\n"), "!not-a-number");
  EXPECT_EQ(canon(d, "group,n,mean\na,1,NaN\n"), "!not-a-number");
  EXPECT_EQ(canon(d, "group,n,mean\na,1,inf\n"), "!not-a-number");
  EXPECT_EQ(canon(d, "group,n,mean\na,201,1\n"), "!out-of-range");
  EXPECT_EQ(canon(d, "group,n,mean\na,1,1e300\n"), "!out-of-range");
  EXPECT_EQ(canon(d, "group,n,mean\na,1,-10.1\n"), "!out-of-range");
  EXPECT_EQ(canon(d, "group,n,mean\na,1,1\na,1,1\na,1,1\na,1,1\na,1,1\n"), "!too-many-rows");
  EXPECT_EQ(canon(d, "group,n,mean\na,1,1\n\n"), "!bad-csv");
  EXPECT_EQ(canon(declare(OutputType::kTable, "{}"), "a\n"), "!bad-declaration");
  auto small = table();
  small.maxBytes = 10;
  EXPECT_EQ(canon(small, "group,n,mean\n"), "!too-large");
  EXPECT_EQ(canonicalise(d, as_bytes("group,n,mean\na,1,1\nz,1,1\n")).where,
            (EvidenceRef{"out", 1, 0}));
}

TEST(Canonical, MetricsAndJson) {
  const auto m = declare(OutputType::kMetrics,
                         R"({"fields":[{"name":"n","type":"integer","minimum":0,"maximum":1000},
      {"name":"auc","type":"decimal","minimum":0,"maximum":1}]})");
  EXPECT_EQ(canon(m, "{\"n\": 569, \"auc\": 0.99501234}\n"), "{\"auc\":0.995,\"n\":569}\n");
  EXPECT_EQ(canon(m, R"({"n":569})"), "!wrong-members");
  EXPECT_EQ(canon(m, R"({"n":569,"auc":0.9,"x":1})"), "!wrong-members");
  EXPECT_EQ(canon(m, R"({"n":569,"auc":"0.9"})"), "!wrong-shape");
  EXPECT_EQ(canon(m, R"({"n":569,"auc":null})"), "!wrong-shape");
  EXPECT_EQ(canon(m, R"({"n":569,"auc":NaN})"), "!not-a-number");
  EXPECT_EQ(canon(m, R"({"n":569,"auc":01})"), "!not-a-number");
  EXPECT_EQ(canon(m, R"({"n":569,"auc":0.9}x)"), "!bad-json");
  EXPECT_EQ(canon(m, R"({"n":569,"auc":0.9,"n":1})"), "!duplicate-key");
  const auto j = declare(OutputType::kJson, R"({"type":"object","members":[
      {"name":"z","type":"array","maxItems":2,"items":{"type":"decimal","minimum":0,"maximum":9,"scale":1}},
      {"name":"a","type":"boolean"},{"name":"w","type":"text","enum":["one","two"]}]})");
  EXPECT_EQ(canon(j, R"({"w":"two","z":[1.25,0.04],"a":true})"),
            "{\"a\":true,\"w\":\"two\",\"z\":[1.2,0]}\n");
  EXPECT_EQ(canon(j, R"({"w":"two","z":[1,2,3],"a":true})"), "!too-many-rows");
  EXPECT_EQ(canon(j, R"({"w":"six","z":[],"a":true})"), "!not-in-list");
  EXPECT_EQ(canon(j, R"({"w":"two","z":[],"a":1})"), "!wrong-shape");
  EXPECT_EQ(canon(j, R"([])"), "!wrong-shape");
}

TEST(Canonical, TextOfAClosedVocabulary) {
  const auto t =
      declare(OutputType::kText, R"({"enum":["converged","did not converge"],"maxLines":2})");
  EXPECT_EQ(canon(t, "converged\r\ndid not converge"), "converged\ndid not converge\n");
  EXPECT_EQ(canon(t, ""), "");
  EXPECT_EQ(canon(t, "converged\n\n"), "!not-in-list");
  EXPECT_EQ(canon(t, "converged\nconverged\nconverged\n"), "!too-many-rows");
  EXPECT_EQ(canon(t, "patient 842302"), "!not-in-list");
}

// Every output of a small table, and every way of writing it: at most 2^capacity canonical forms.
TEST(Canonical, DistinctFormsNeverExceedTheCapacity) {
  const auto d = declare(OutputType::kTable,
                         R"({"maxRows":3,"columns":[{"name":"w","type":"text","enum":["a","b","c"]},
      {"name":"x","type":"decimal","minimum":0,"maximum":2,"digits":1,"scale":1}]})");
  const std::vector<std::string> numbers = {"0",   "0.04", "0.1", "0.2", "0.3", "0.4",
                                            "0.5", "0.6",  "0.7", "0.8", "0.9", "1",
                                            "1.4", "1.6",  "2",   "2.04"};
  std::vector<std::string> rows;
  for (const char* w : {"a", "b", "c"}) {
    for (const auto& n : numbers) rows.push_back(std::string(w) + "," + n + "\n");
  }
  std::set<std::string> seen;
  const std::function<void(const std::string&, int)> extend = [&](const std::string& text,
                                                                  int left) {
    const std::string c = canon(d, text);
    ASSERT_NE(c[0], '!') << text << c;
    seen.insert(c);
    if (left == 0) return;
    for (const auto& r : rows) extend(text + r, left - 1);
  };
  extend("w,x\n", 2);
  const double bits = static_cast<double>(capacity(d)->bits);
  EXPECT_LE(std::log2(static_cast<double>(seen.size())), bits);
  // One column and three rows: the whole space.
  const auto small =
      declare(OutputType::kTable,
              R"({"maxRows":3,"columns":[{"name":"x","type":"integer","minimum":0,"maximum":9}]})");
  std::set<std::string> all;
  for (int a = -1; a < 10; ++a) {
    for (int b = -1; b < 10; ++b) {
      for (int c = -1; c < 10; ++c) {
        std::string text = "x\n";
        for (const int v : {a, b, c}) text += v < 0 ? "" : std::to_string(v) + "\n";
        all.insert(canon(small, text));
      }
    }
  }
  EXPECT_EQ(all.size(), 1U + 10 + 55 + 220);  // multisets: sorting left no order to write with
  EXPECT_LE(std::log2(static_cast<double>(all.size())), static_cast<double>(capacity(small)->bits));
}

TEST(Canonical, IsIdempotentOnRandomOutputs) {
  SeededRandom random(11);
  const auto j = declare(OutputType::kJson,
                         R"({"type":"array","maxItems":20,"items":{"type":"object","members":[
      {"name":"p","type":"decimal","minimum":-1000,"maximum":1000,"digits":4,"scale":6},
      {"name":"k","type":"integer","minimum":-99999,"maximum":99999,"digits":2}]}})");
  for (int round = 0; round < 500; ++round) {
    std::string csv = "n,group,mean\n";
    std::string json = "[";
    for (std::uint64_t i = random.below(5); i > 0; --i) {
      const auto digits = [&](std::uint64_t n) { return std::to_string(random.below(n)); };
      const char* words[] = {"a", "b", "\"c,d\""};
      csv += digits(201) + "," + words[random.below(3)] + "," + (random.below(2) == 0 ? "-" : "") +
             digits(10) + "." + digits(1'000'000) + (random.below(3) == 0 ? "e-2" : "") + "\n";
      json += std::string(json.size() > 1 ? "," : "") + "{\"k\":" + digits(99'000) + ",\"p\":-0." +
              digits(1'000'000'000) + "e" + digits(3) + "}";
    }
    json += "]";
    const std::string once = canon(table(), csv);
    ASSERT_NE(once[0], '!') << csv << once;
    EXPECT_EQ(canon(table(), once), once);
    const std::string tree = canon(j, json);
    ASSERT_NE(tree[0], '!') << json << tree;
    EXPECT_EQ(canon(j, tree), tree);
  }
}

Bundle sample_bundle() {
  Bundle b;
  b.status = {"job", 1, RunExit::kOk, 3};
  b.entries.push_back({EntryKind::kOutput, "a/b.csv", to_bytes(as_bytes("x\n1\n"))});
  b.entries.push_back({EntryKind::kOutput, "m.json", to_bytes(as_bytes("{}\n"))});
  b.entries.push_back({EntryKind::kLog, "log", to_bytes(as_bytes("done\n"))});
  return b;
}

TEST(Bundle, RoundTripsAndHasOneEncoding) {
  const Bundle b = sample_bundle();
  const Bytes bytes = *encode_bundle(b, 4096);
  EXPECT_EQ(bytes.size(), 4096U);
  const auto back = decode_bundle(bytes);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->entries, b.entries);
  EXPECT_EQ(back->status.exitClass, RunExit::kOk);
  EXPECT_EQ(*encode_bundle(*back, 4096), bytes);
}

// A terminal that prints it obeys nobody, whoever made the bundle.
TEST(Bundle, RefusesALogThatMovesATerminal) {
  const auto decoded = [](std::string_view log) {
    Bundle b = sample_bundle();
    std::erase_if(b.entries, [](const auto& e) { return e.kind == EntryKind::kLog; });
    b.entries.push_back({EntryKind::kLog, "log", to_bytes(as_bytes(log))});
    return decode_bundle(*encode_bundle(b, 4096)).reason();
  };
  EXPECT_EQ(decoded("a line\n\tand another\n"), Reason::kUninitialised);
  for (const char* log : {"\x1b[2J", "\x1b]0;title\x07", "over\rwritten",
                          "\x9b"
                          "31m",
                          "\b", "\x7f", "\xe2\x80\xae"}) {
    EXPECT_EQ(decoded(log), Reason::kBadStructure) << log;
  }
}

TEST(Bundle, RefusesEveryOtherEncoding) {
  const Bytes good = *encode_bundle(sample_bundle(), 4096);
  std::size_t used = good.size();
  while (good[used - 1] == 0) --used;
  for (std::size_t i = 0; i < good.size(); ++i) {
    Bytes bad = good;
    bad[i] ^= 0x01;
    const auto r = decode_bundle(bad);
    // A flip is refused, or it changed a value that re-encodes to just these bytes: content, never
    // structure.
    if (r.ok()) {
      EXPECT_EQ(*encode_bundle(*r, bad.size()), bad) << i;
      EXPECT_LE(i, used);
    }
  }
  EXPECT_EQ(decode_bundle(ByteView(good).first(4095)).reason(), Reason::kTruncated);
  EXPECT_EQ(decode_bundle(ByteView(good).first(2048)).reason(), Reason::kTruncated);
  Bytes trailing = good;
  trailing.back() = 7;
  EXPECT_EQ(decode_bundle(trailing).reason(), Reason::kBadStructure);
  Bytes magic = good;
  magic[0] = 'X';
  EXPECT_EQ(decode_bundle(magic).reason(), Reason::kBadMagic);
  Bundle wrong = sample_bundle();
  std::swap(wrong.entries[0], wrong.entries[1]);
  EXPECT_EQ(encode_bundle(wrong, 4096).reason(), Reason::kBadValue);
  wrong = sample_bundle();
  wrong.entries[0].name = "../x";
  EXPECT_EQ(encode_bundle(wrong, 4096).reason(), Reason::kBadValue);
  wrong = sample_bundle();
  wrong.entries[0].content.resize(5000);
  EXPECT_EQ(encode_bundle(wrong, 4096).reason(), Reason::kTooLarge);
  EXPECT_EQ(encode_bundle(sample_bundle(), 5000).reason(), Reason::kBadValue);
}

TEST(Records, RequestChecksAndClosedEnums) {
  GateRequest r;
  r.jobId = "job";
  r.outputs.push_back(table());
  EXPECT_TRUE(check_request(r).ok());
  const auto back = from_json_text<GateRequest>(canonical(to_json(r)));
  ASSERT_TRUE(back.ok()) << back.error().line();
  EXPECT_EQ(request_digest(*back), request_digest(r));
  r.outputs.push_back(table());
  EXPECT_EQ(check_request(r).reason(), Reason::kConflict);
  r.outputs[1].name = "two";
  r.outputs[1].path = "out.dat/inner";
  EXPECT_EQ(check_request(r).reason(), Reason::kConflict);
  for (const char* bad :
       {"", "/x", "x/", "../x", "a//b", ".hidden", "a/../b", "a b", "a\n", "a/b/c/d/e/f/g/h/i"}) {
    EXPECT_FALSE(plain_path(bad)) << bad;
  }
  EXPECT_FALSE(enum_from<GateReason>("no-such-reason").ok());
  std::set<std::string_view> codes;
  for (const auto& n : enum_names(GateReason{})) EXPECT_TRUE(codes.insert(n.name).second) << n.name;
}

// What is declared decides, to the byte; and what it decides is encoded and read again.
TEST(Records, ABundleIsRefusedBeforeItIsTooLargeToTravel) {
  GateRequest r;
  r.jobId = "job";
  r.outputs.push_back(table());
  BundleSize fixed;
  fixed.add_output(r.outputs[0].path.size(), 0);
  r.outputs[0].maxBytes = kMaxBundleBytes - fixed.bytes();
  ASSERT_TRUE(check_request(r).ok());
  EXPECT_EQ(padded_bundle_size(r), static_cast<std::size_t>(kMaxBundleBytes));
  Bundle b = sample_bundle();
  b.entries.resize(1);
  b.entries[0].name = r.outputs[0].path;
  b.entries[0].content.resize(static_cast<std::size_t>(r.outputs[0].maxBytes));
  const auto largest = encode_bundle(b, padded_bundle_size(r));
  ASSERT_TRUE(largest.ok()) << largest.error().line();
  EXPECT_TRUE(decode_bundle(*largest).ok());
  EXPECT_EQ(encode_bundle(b, 2 * padded_bundle_size(r)).reason(), Reason::kTooLarge);
  r.outputs[0].maxBytes += 1;
  EXPECT_EQ(check_request(r).reason(), Reason::kTooLarge);
}

TEST(Records, BucketsAndSlots) {
  EXPECT_EQ(duration_bucket(0), 0);
  EXPECT_EQ(duration_bucket(1), 1);
  EXPECT_EQ(duration_bucket(3), 2);
  EXPECT_EQ(duration_bucket(4), 3);
  EXPECT_EQ(duration_bucket(std::int64_t{1} << 40), 15);
  EXPECT_EQ(slot_end(1000, 0), 1000);
  EXPECT_EQ(slot_end(1000, 900), 1800);
  EXPECT_EQ(slot_end(1800, 900), 1800);
}

TEST(Release, LogsArePrintableAndBounded) {
  EXPECT_EQ(as_text(clean_log(as_bytes("ok\n\x1b[31m\xe2\x80\x8b\r"), 100)), "ok\n?[31m????");
  EXPECT_EQ(as_text(clean_log(as_bytes("abcdef"), 3)), "abc");
}

}  // namespace
}  // namespace gbx::gate
