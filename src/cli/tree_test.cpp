// The command tree: parsing, help, completions, manual pages, and the documents made from it.
#include <gtest/gtest.h>

#include "base/os.h"
#include "cli/commands.h"
#include "cli/shell.h"
#include "cli/watch.h"

namespace gbx::cli {
namespace {

using Words = std::vector<std::string>;

std::string source_path(const std::string& name) {
  const char* root = std::getenv("GBX_SOURCE_DIR");
  return std::string(root == nullptr ? "." : root) + "/" + name;
}
struct TempDir {
  std::string path;
  TempDir() {
    char name[] = "/tmp/gbx-cli-XXXXXX";
    path = mkdtemp(name);
  }
  ~TempDir() { (void)remove_tree(path); }
};
void each_command(const Command& c, Words path, const std::function<void(const Words&, const Command&)>& visit) {
  visit(path, c);
  for (const auto& k : c.children) {
    Words below = path;
    below.push_back(k.name);
    each_command(k, below, visit);
  }
}
bool installed(const std::string& program) {
  ProcessOptions p;
  p.argv = {"/bin/sh", "-c", "command -v " + program};
  p.env = {{"PATH", "/usr/sbin:/usr/bin:/sbin:/bin"}};
  const auto r = run_command(p);
  return r.ok() && r->status.exited && r->status.code == 0;
}
Result<RunOutput> run(Words argv) {
  ProcessOptions p;
  p.argv = {"/usr/bin/env"};
  p.argv.insert(p.argv.end(), argv.begin(), argv.end());
  p.env = {{"PATH", "/usr/sbin:/usr/bin:/sbin:/bin"}, {"LC_ALL", "C.UTF-8"}, {"MANWIDTH", "80"}, {"MANROFFOPT", "-ww"}};
  return run_command(p);
}

TEST(Tree, EveryCommandHasASummaryAndRunsOrHasChildren) {
  const CommandTree tree = make_tree();
  each_command(tree.root(), {}, [](const Words& path, const Command& c) {
    const std::string name = path.empty() ? "root" : path.back();
    EXPECT_FALSE(c.summary.empty()) << name;
    EXPECT_NE(static_cast<bool>(c.run), !c.children.empty()) << name;
    for (const auto& o : c.options) {
      EXPECT_EQ(o.kind == ArgKind::kFlag, o.value.empty()) << name << " --" << o.name;
      EXPECT_EQ(o.kind == ArgKind::kChoice, !o.choices.empty()) << name << " --" << o.name;
      EXPECT_FALSE(o.help.empty()) << name << " --" << o.name;
    }
  });
}

TEST(Tree, ParsesOptionsBeforeAndAfterTheCommand) {
  const CommandTree tree = make_tree();
  for (const Words& words : {Words{"-o", "json", "--home", "/h", "job", "submit", "job.yaml", "--wait"},
                             Words{"job", "submit", "--wait", "job.yaml", "--output", "json", "--home=/h"}}) {
    const auto p = parse_command_line(tree, words);
    ASSERT_TRUE(p.ok()) << p.error().line();
    EXPECT_EQ(p->path, (Words{"job", "submit"}));
    EXPECT_EQ(p->invocation.text("file"), "job.yaml");
    EXPECT_EQ(p->invocation.text("output"), "json");
    EXPECT_EQ(p->invocation.text("home"), "/h");
    EXPECT_TRUE(p->invocation.has("wait"));
    EXPECT_FALSE(p->invocation.has("idempotency-key"));
  }
}

TEST(Tree, RepeatableOptionsKeepTheirOrderAndAwkwardValues) {
  const CommandTree tree = make_tree();
  const auto p = parse_command_line(
      tree, {"policy", "new", "--purpose", "a, b", "--purpose", "*", "--command", R"(["/bin/x","--y"])"});
  ASSERT_TRUE(p.ok()) << p.error().line();
  EXPECT_EQ(p->invocation.list("purpose"), (Words{"a, b", "*"}));
  EXPECT_EQ(p->invocation.text("command"), R"(["/bin/x","--y"])");
}

TEST(Tree, WrongWordsAreUsageErrorsWithTheHelpThatMendsThem) {
  const CommandTree tree = make_tree();
  const Words cases[] = {{"job"},
                         {"nothing"},
                         {"job", "nothing"},
                         {"job", "submit"},
                         {"job", "submit", "a", "b"},
                         {"job", "get", "abcd", "--wait"},
                         {"init", "--plane", "h:1"},
                         {"-o", "xml", "job", "list"},
                         {"job", "list", "--state", "Sleeping"},
                         {"job", "submit", "a", "--idempotency-key", "x", "--idempotency-key", "y"}};
  for (const auto& words : cases) {
    const auto p = parse_command_line(tree, words);
    ASSERT_FALSE(p.ok()) << words[0];
    EXPECT_EQ(p.reason(), Reason::kUsage);
    EXPECT_EQ(p.error().next.substr(0, 9), "glovebox ") << p.error().next;
    EXPECT_NE(p.error().next.find("--help"), std::string::npos);
  }
}

TEST(Tree, HelpIsForTheCommandThatWasNamed) {
  const CommandTree tree = make_tree();
  for (const Words& words : {Words{}, Words{"--help"}, Words{"job", "--help"}, Words{"job", "submit", "--help"},
                             Words{"job", "submit", "f", "-h"}}) {
    const auto p = parse_command_line(tree, words);
    ASSERT_TRUE(p.ok()) << p.error().line();
    EXPECT_TRUE(p->help);
  }
  const auto p = parse_command_line(tree, {"job", "submit", "--help"});
  const std::string text = help_text(tree, *p->command, p->path);
  EXPECT_EQ(text.substr(0, 27), "usage: glovebox job submit ") << text;
  EXPECT_NE(text.find("--idempotency-key KEY"), std::string::npos);
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = text.find('\n', at);
    EXPECT_LE(end - at, 110U) << text.substr(at, end - at);
    at = end + 1;
  }
}

TEST(Tree, IntegersAreBounded) {
  Invocation in;
  in.add("n", "12");
  EXPECT_EQ(*in.integer("n", 0, Bound{1, 12}), 12);
  EXPECT_EQ(*in.integer("absent", 7, Bound{1, 12}), 7);
  for (const char* bad : {"13", "0", "-1", "1x", "", "99999999999999999999", "+1"}) {
    Invocation other;
    other.add("n", bad);
    EXPECT_EQ(other.integer("n", 0, Bound{1, 12}).reason(), Reason::kUsage) << bad;
  }
}

TEST(Tree, NoHelpTextSharesStorageWithItself) {
  EXPECT_EQ(wrap("one two three", 2, 8), "  one\n  two\n  three\n");
  EXPECT_EQ(wrap("", 2, 8), "  \n");
  EXPECT_EQ(wrap("a\n\nb", 0, 8), "a\n\nb\n");
}

TEST(Completion, BashScriptParsesAndCompletes) {
  const TempDir dir;
  const auto script = completion_script(make_tree(), "bash");
  ASSERT_TRUE(script.ok());
  const std::string file = dir.path + "/glovebox.bash";
  ASSERT_TRUE(write_file_atomic(file, as_bytes(*script), 0644).ok());
  if (!installed("bash")) GTEST_SKIP() << "bash is not installed";
  const auto parsed = run({"/bin/bash", "-n", file});
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->status.code, 0) << parsed->err;
  const auto complete = [&](const std::string& line, const std::string& expected) {
    std::string words;
    int count = 0;
    std::size_t at = 0;
    while (at <= line.size()) {
      const std::size_t end = std::min(line.find(' ', at), line.size());
      words += "'" + line.substr(at, end - at) + "' ";
      ++count;
      at = end + 1;
    }
    const auto r = run({"/bin/bash", "-c",
                        ". " + file + "; COMP_WORDS=(" + words + "); COMP_CWORD=" + std::to_string(count - 1) +
                            "; _glovebox; echo \"${COMPREPLY[@]}\""});
    ASSERT_TRUE(r.ok());
    EXPECT_EQ(r->err, "") << line;
    EXPECT_NE((" " + r->out).find(" " + expected), std::string::npos) << line << " -> " << r->out;
  };
  complete("glovebox jo", "job");
  complete("glovebox job su", "submit");
  complete("glovebox -o json job submit --wa", "--wait");
  complete("glovebox --home /x job list --state Comp", "Completed");
  complete("glovebox -o y", "yaml");
  complete("glovebox completion f", "fish");
}

TEST(Completion, OtherShellsParseWhereTheyAreInstalled) {
  const TempDir dir;
  std::string skipped;
  for (const std::string shell : {"zsh", "fish"}) {
    const auto script = completion_script(make_tree(), shell);
    ASSERT_TRUE(script.ok());
    EXPECT_NE(script->find("submit"), std::string::npos);
    const std::string file = dir.path + "/" + shell;
    ASSERT_TRUE(write_file_atomic(file, as_bytes(*script), 0644).ok());
    if (!installed(shell)) {
      skipped += shell + " ";
      continue;
    }
    const auto parsed = run({shell, "-n", file});
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(parsed->status.code, 0) << parsed->err;
  }
  EXPECT_EQ(completion_script(make_tree(), "tcsh").reason(), Reason::kUsage);
  if (!skipped.empty()) GTEST_SKIP() << "not installed: " << skipped;
}

TEST(Manual, EveryPageRendersWithoutWarnings) {
  const CommandTree tree = make_tree();
  const auto pages = manual_pages(tree, "0.1.0", "2026-01-31");
  std::size_t commands = 0;
  each_command(tree.root(), {}, [&](const Words&, const Command&) { ++commands; });
  EXPECT_EQ(pages.size(), commands);
  EXPECT_TRUE(pages.contains("glovebox-job-submit.1"));
  for (const auto& [name, text] : pages) {
    for (const char* section : {".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH EXIT STATUS"})
      EXPECT_NE(text.find(section), std::string::npos) << name;
    for (const char c : text)
      ASSERT_EQ(static_cast<unsigned char>(c) & 0x80U, 0U) << name << " holds bytes that are not ASCII";
  }
  if (!installed("man")) GTEST_SKIP() << "man is not installed";
  const TempDir dir;
  for (const auto& [name, text] : pages) {
    const std::string file = dir.path + "/" + name;
    ASSERT_TRUE(write_file_atomic(file, as_bytes(text), 0644).ok());
    const auto r = run({"man", "--warnings=w", "-l", file});
    ASSERT_TRUE(r.ok());
    EXPECT_EQ(r->status.code, 0) << name;
    EXPECT_EQ(r->err, "") << name;
    EXPECT_GT(r->out.size(), 200U) << name;
  }
}

// Set GBX_UPDATE_DOCS to write the documents anew.
void hold_equal(const std::string& path, const std::string& generated) {
  if (std::getenv("GBX_UPDATE_DOCS") != nullptr) {
    ASSERT_TRUE(write_file_atomic(path, as_bytes(generated), 0644).ok());
  }
  const auto there = read_text_file(path, 1U << 20);
  ASSERT_TRUE(there.ok()) << there.error().line();
  EXPECT_TRUE(*there == generated) << path << " is out of date: GBX_UPDATE_DOCS=1 ctest -R cli_test";
}

TEST(Documents, TheSchemaOfJobSpecsIsTheOneOfTheReader) {
  hold_equal(source_path("docs/jobspec.schema.json"), pretty(job_spec_schema()) + "\n");
}

TEST(Documents, TheCommandReferenceIsTheTree) {
  static constexpr std::string_view kMark = "<!-- generated from the command tree -->\n";
  const auto there = read_text_file(source_path("docs/cli.md"), 1U << 20);
  ASSERT_TRUE(there.ok()) << there.error().line();
  const std::size_t at = there->find(kMark);
  ASSERT_NE(at, std::string::npos);
  hold_equal(source_path("docs/cli.md"), there->substr(0, at + kMark.size()) + markdown_reference(make_tree()));
}

TEST(Documents, EveryMemberOfTheSpecIsDescribed) {
  const auto page = read_text_file(source_path("docs/jobspec.md"), 1U << 20);
  ASSERT_TRUE(page.ok()) << page.error().line();
  const std::function<void(const Json&)> visit = [&](const Json& schema) {
    const Json* properties = schema.find("properties");
    if (properties != nullptr) {
      for (const auto& [name, inner] : *properties->object()) {
        EXPECT_NE(page->find("`" + name + "`"), std::string::npos) << name;
        visit(inner);
      }
    }
    if (const Json* items = schema.find("items"); items != nullptr) visit(*items);
  };
  visit(job_spec_schema());
}

}  // namespace
}  // namespace gbx::cli
