// YAML in its JSON subset, tables and errors.
#include "cli/yaml.h"

#include <gtest/gtest.h>

#include "base/os.h"
#include "cli/output.h"
#include "cli/submission.h"

namespace gbx::cli {
namespace {

struct Refusal {
  const char* name;
  const char* text;
  Reason reason;
};

TEST(Yaml, RefusesWhatJsonCannotSay) {
  const Refusal cases[] = {
      {"anchor", "a: &x 1\nb: 2\n", Reason::kBadJson},
      {"alias", "a: &x [1]\nb: *x\n", Reason::kBadJson},
      {"tag", "a: !!str 1\n", Reason::kBadJson},
      {"custom tag", "!secret a\n", Reason::kBadJson},
      {"merge key", "<<: {a: 1}\n", Reason::kBadJson},
      {"duplicate key", "a: 1\na: 2\n", Reason::kDuplicateKey},
      {"duplicate nested key", "x: {b: 1, b: 2}\n", Reason::kDuplicateKey},
      {"two documents", "a: 1\n---\nb: 2\n", Reason::kBadJson},
      {"no document", "# nothing\n", Reason::kBadJson},
      {"float", "a: 1.5\n", Reason::kBadValue},
      {"exponent", "a: 1e3\n", Reason::kBadValue},
      {"leading zero", "a: 010\n", Reason::kBadValue},
      {"yes", "a: yes\n", Reason::kBadValue},
      {"off", "a: off\n", Reason::kBadValue},
      {"tilde", "a: ~\n", Reason::kBadValue},
      {"too large a number", "a: 9007199254740992\n", Reason::kBadValue},
      {"list as a key", "? [a]\n: 1\n", Reason::kBadJson},
      {"tab indent", "a:\n\tb: 1\n", Reason::kBadJson},
      {"not UTF-8", "a: \"\xff\"\n", Reason::kBadJson},
      {"unclosed", "a: [1, 2\n", Reason::kBadJson},
  };
  for (const auto& c : cases) {
    const auto r = parse_yaml(c.text);
    ASSERT_FALSE(r.ok()) << c.name;
    EXPECT_EQ(r.reason(), c.reason) << c.name << ": " << r.error().line();
  }
}

TEST(Yaml, RefusesDepthAndSize) {
  EXPECT_EQ(parse_yaml(std::string(40, '[') + std::string(40, ']')).reason(), Reason::kTooLarge);
  EXPECT_EQ(parse_yaml(std::string(5U << 20, ' ')).reason(), Reason::kTooLarge);
}

TEST(Yaml, ScalarsMeanWhatTheyMeanInJson) {
  const auto j = parse_yaml(
      "a: true\nb: null\nc: -7\nd: \"true\"\ne: 'x'\nf: 512MiB\ng: 1_000\nh: 2027-01-31\ni: "
      "0x10\nj: |\n  two\n  "
      "lines\nk:\n");
  ASSERT_TRUE(j.ok()) << j.error().line();
  EXPECT_EQ(
      canonical(*j),
      R"({"a":true,"b":null,"c":-7,"d":"true","e":"x","f":"512MiB","g":"1_000","h":"2027-01-31","i":"0x10","j":"two\nlines\n","k":null})");
}

TEST(Yaml, ReadsBackWhatItWrites) {
  const auto j = parse_json(
      R"({"a":[],"b":{},"c":[{"x":1,"y":["z",null,true]},"plain","- odd: text",""],"":"empty key",)"
      R"("odd \u2028 key":"a\u0085b\u2029c\ufeffd\u007fe\ufffff\ud83d\ude00\u00e9","yes":"no","d e":-3,)"
      R"("n":{"m":[[1],[2,3]]}})");
  ASSERT_TRUE(j.ok());
  const std::string text = to_yaml(*j);
  const auto back = parse_yaml(text);
  ASSERT_TRUE(back.ok()) << back.error().line() << "\n" << text;
  EXPECT_EQ(canonical(*back), canonical(*j)) << text;
}

std::string source_file(const std::string& name) {
  const char* root = std::getenv("GBX_SOURCE_DIR");
  auto text = read_text_file(std::string(root == nullptr ? "." : root) + "/" + name, 1U << 20);
  return text.ok() ? *text : std::string();
}

TEST(Yaml, OneSpecInYamlAndJsonHasTheSameHash) {
  const std::string text = source_file("examples/breast-cancer/job.yaml");
  ASSERT_FALSE(text.empty());
  const auto from_yaml = parse_job_spec(text);
  ASSERT_TRUE(from_yaml.ok()) << from_yaml.error().line();
  const auto document = parse_yaml(text);
  ASSERT_TRUE(document.ok());
  for (const std::string& json : {canonical(*document), pretty(*document)}) {
    const auto from_json = parse_job_spec(json);
    ASSERT_TRUE(from_json.ok()) << from_json.error().line();
    EXPECT_EQ(canonical(to_json(*from_json)), canonical(to_json(*from_yaml)));
  }
}

TEST(JobSpec, NamesTheMemberThatIsWrong) {
  const auto document = parse_yaml(source_file("examples/breast-cancer/job.yaml"));
  ASSERT_TRUE(document.ok());
  struct Case {
    std::function<void(Json&)> change;
    Reason reason;
    const char* what;
  };
  const Case cases[] = {
      {[](Json& j) { j["spec"]["gpus"] = 1; }, Reason::kUnknownField, "spec.gpus"},
      {[](Json& j) { j["spec"].object()->erase("purpose"); }, Reason::kMissingField,
       "spec.purpose"},
      {[](Json& j) { j["apiVersion"] = "glovebox/v2"; }, Reason::kBadValue, "apiVersion"},
      {[](Json& j) { j["spec"]["attempts"] = 0; }, Reason::kBadValue, "spec.attempts"},
      {[](Json& j) { j["spec"]["resources"]["memory"] = "512MB"; }, Reason::kBadValue,
       "spec.resources"},
      {[](Json& j) { (*j["spec"]["inputs"].array())[0]["mount"] = "/data/../etc"; },
       Reason::kBadValue, "spec.inputs[0].mount"},
      {[](Json& j) { (*j["spec"]["outputs"].array())[0]["schema"]["maxRows"] = -1; },
       Reason::kBadValue, "spec.outputs[0]"},
      {[](Json& j) { (*j["spec"]["tee"]["anyOf"].array())[0] = Json("magic"); }, Reason::kBadValue,
       "spec.tee.anyOf"},
  };
  for (const auto& c : cases) {
    Json j = *document;
    c.change(j);
    const auto r = parse_job_spec(canonical(j));
    ASSERT_FALSE(r.ok()) << c.what;
    EXPECT_EQ(r.reason(), c.reason) << r.error().line();
    EXPECT_NE(r.error().what.find(c.what), std::string::npos) << r.error().line();
  }
}

TEST(Output, TablesAlignAndTameControlCharacters) {
  const auto rows = parse_json(
      R"([{"a":"x","b":{"c":12}},{"a":"längeres","b":{"c":null}},{"a":"\u001b[2Jevil"}])");
  ASSERT_TRUE(rows.ok());
  const std::string t = table({{"NAME", "a"}, {"N", "b.c"}}, *rows->array(), "none");
  EXPECT_EQ(t.find('\x1b'), std::string::npos);
  EXPECT_EQ(t.substr(0, t.find('\n')).find('N', 4), t.substr(t.find('\n') + 1).find("12")) << t;
  EXPECT_EQ(table({{"NAME", "a"}}, {}, "no things"), "no things\n");
}

TEST(Output, ErrorsHoldReasonCheckAndNextStepInEveryFormat) {
  const Error e =
      fail(Reason::kLeaseMissing, "no lease").with("one", "none").hint("glovebox lease grant");
  const std::string text = render_error(Format::kTable, e);
  for (const char* part : {"lease-missing", "no lease", "one", "none", "glovebox lease grant"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part;
  }
  const auto json = parse_json(render_error(Format::kJson, e));
  const auto yaml = parse_yaml(render_error(Format::kYaml, e));
  ASSERT_TRUE(json.ok() && yaml.ok());
  EXPECT_EQ(canonical(*json), canonical(*yaml));
  EXPECT_EQ(*json->find("error")->find("reason"), Json("lease-missing"));
}

TEST(Output, ProgressBarsNeverOverflow) {
  EXPECT_EQ(progress_bar(5, 0), "5 B");
  EXPECT_NE(progress_bar(50, 100).find(" 50 %"), std::string::npos);
  EXPECT_NE(progress_bar(100, 100).find("100 %"), std::string::npos);
  EXPECT_LT(progress_bar(300, 100).size(), 80U);
}

}  // namespace
}  // namespace gbx::cli
