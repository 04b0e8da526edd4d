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
void each_command(const Command& c, Words path,
                  const std::function<void(const Words&, const Command&)>& visit) {
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
  p.env = {{"PATH", "/usr/sbin:/usr/bin:/sbin:/bin"},
           {"LC_ALL", "C.UTF-8"},
           {"MANWIDTH", "80"},
           {"MANROFFOPT", "-ww"}};
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
      const bool chosen = o.kind == ArgKind::kChoice || o.kind == ArgKind::kChoices;
      EXPECT_EQ(chosen, !o.choices.empty()) << name << " --" << o.name;
      EXPECT_FALSE(o.help.empty()) << name << " --" << o.name;
    }
  });
}

TEST(Tree, ParsesOptionsBeforeAndAfterTheCommand) {
  const CommandTree tree = make_tree();
  for (const Words& words :
       {Words{"-o", "json", "--home", "/h", "job", "submit", "job.yaml", "--wait"},
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
  const auto p = parse_command_line(tree, {"policy", "new", "--purpose", "a, b", "--purpose", "*",
                                           "--command", R"(["/bin/x","--y"])"});
  ASSERT_TRUE(p.ok()) << p.error().line();
  EXPECT_EQ(p->invocation.list("purpose"), (Words{"a, b", "*"}));
  EXPECT_EQ(p->invocation.text("command"), R"(["/bin/x","--y"])");
}

TEST(Tree, WrongWordsAreUsageErrorsWithTheHelpThatMendsThem) {
  const CommandTree tree = make_tree();
  const Words cases[] = {
      {"job"},
      {"nothing"},
      {"job", "nothing"},
      {"job", "submit"},
      {"job", "submit", "a", "b"},
      {"job", "get", "abcd", "--wait"},
      {"init", "--plane", "h:1"},
      {"-o", "xml", "job", "list"},
      {"job", "list", "--state", "Sleeping"},
      {"job", "list", "--state"},
      {"job", "submit", "f", "--timeout", "--wait"},
      {"job", "submit", "f", "--wait=yes"},
      {"job", "submit", "f", "-x"},
      {"job", "submit", "f", "--wiat"},
      {"identity", "create", "--name", "n", "--role", "owner,king"},
      {"identity", "create", "--name", "n", "--role", "owner,"},
      {"policy", "new", "--days", "1", "--days", "2"},
      {"job", "submit", "a", "--idempotency-key", "x", "--idempotency-key", "y"}};
  for (const auto& words : cases) {
    const auto p = parse_command_line(tree, words);
    ASSERT_FALSE(p.ok()) << words[0];
    EXPECT_EQ(p.reason(), Reason::kUsage);
    EXPECT_EQ(p.error().next.substr(0, 9), "glovebox ") << p.error().next;
    EXPECT_NE(p.error().next.find("--help"), std::string::npos);
    EXPECT_FALSE(p.error().expected.empty()) << p.error().line();
    EXPECT_FALSE(p.error().actual.empty()) << p.error().line();
  }
}

TEST(Tree, NearMissesAreNamed) {
  const CommandTree tree = make_tree();
  const auto expected = [&](const Words& words) {
    return parse_command_line(tree, words).error().expected;
  };
  EXPECT_NE(expected({"job", "sumbit", "f"}).find("did you mean submit?"), std::string::npos);
  EXPECT_NE(expected({"job", "submit", "f", "--wiat"}).find("did you mean --wait?"),
            std::string::npos);
  EXPECT_NE(expected({"-o", "jsn", "job", "list"}).find("did you mean json?"), std::string::npos);
  EXPECT_EQ(expected({"job", "xyzzy"}).find("did you mean"), std::string::npos);
  EXPECT_EQ(parse_command_line(tree, {"job", "submit", "f", "--timeout", "--wait"}).error().actual,
            "the option --wait");
}

TEST(Tree, ValuesAreTakenAsTheyAre) {
  const CommandTree tree = make_tree();
  auto p = parse_command_line(
      tree, {"--home", "job", "-oyaml", "policy", "new", "--purpose", "--odd", "--free-bits=0"});
  ASSERT_TRUE(p.ok()) << p.error().line();
  EXPECT_EQ(p->invocation.text("home"), "job");
  EXPECT_EQ(p->invocation.text("output"), "yaml");
  EXPECT_EQ(p->invocation.text("purpose"), "--odd");
  EXPECT_EQ(p->invocation.text("free-bits"), "0");
  p = parse_command_line(tree, {"job", "submit", "--", "--strange.yaml"});
  ASSERT_TRUE(p.ok()) << p.error().line();
  EXPECT_EQ(p->invocation.text("file"), "--strange.yaml");
  p = parse_command_line(
      tree, {"identity", "create", "--name", "n", "--role", "owner,consumer", "--role", "owner"});
  ASSERT_TRUE(p.ok()) << p.error().line();
  EXPECT_EQ(p->invocation.list("role"), (Words{"owner", "consumer"}));
}

TEST(Tree, HelpIsForTheCommandThatWasNamed) {
  const CommandTree tree = make_tree();
  for (const Words& words : {Words{}, Words{"--help"}, Words{"job", "--help"},
                             Words{"job", "submit", "--help"}, Words{"job", "submit", "f", "-h"}}) {
    const auto p = parse_command_line(tree, words);
    ASSERT_TRUE(p.ok()) << p.error().line();
    EXPECT_TRUE(p->help);
  }
  const auto p = parse_command_line(tree, {"job", "submit", "--help"});
  const std::string text = help_text(tree, *p->command, p->path);
  EXPECT_EQ(text.substr(0, 27), "usage: glovebox job submit ") << text;
  EXPECT_NE(text.find("--idempotency-key KEY"), std::string::npos);
  EXPECT_NE(text.find("--version"), std::string::npos);
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

std::string program() {
  const char* bin = std::getenv("GBX_BIN_DIR");
  return bin == nullptr ? "." : bin;
}
std::string words_of(const Words& line) {
  std::string out;
  for (const auto& w : complete(make_tree(), line).words) out += (out.empty() ? "" : " ") + w.word;
  return out;
}

TEST(Completion, KnowsCommandsOptionsAndValues) {
  EXPECT_EQ(words_of({"jo"}), "job");
  EXPECT_EQ(words_of({"job", "s"}), "schema submit");
  EXPECT_EQ(words_of({"--home", "job", "jo"}), "job") << "a value is no command";
  EXPECT_EQ(words_of({"-o", "json", "job", "su"}), "submit");
  EXPECT_EQ(words_of({"-o", ""}), "table json yaml");
  EXPECT_EQ(words_of({"-oy"}), "-oyaml");
  EXPECT_EQ(words_of({"--output=j"}), "--output=json");
  EXPECT_EQ(words_of({"job", "list", "--state", "Comp"}), "Completed");
  EXPECT_EQ(words_of({"job", "list", "--state=Comp"}), "--state=Completed");
  EXPECT_EQ(words_of({"completion", ""}), "bash zsh fish");
  EXPECT_EQ(words_of({"identity", "create", "--role", "o"}), "owner operator");
  EXPECT_EQ(words_of({"identity", "create", "--role", "owner,o"}), "owner,operator");
  EXPECT_EQ(words_of({"identity", "create", "--role=owner,co"}), "--role=owner,consumer");
  EXPECT_EQ(words_of({"asset", "publish", "x", "--kind", ""}), "dataset model");
  EXPECT_EQ(words_of({"job", "submit", "--wa"}), "--wait");
  EXPECT_EQ(words_of({"job", "submit", "--wait", "--wa"}), "") << "given already";
  EXPECT_EQ(words_of({"policy", "new", "--purpose", "x", "--purp"}), "--purpose")
      << "may be repeated";
  EXPECT_EQ(words_of({"job", "submit", "--", "--wa"}), "");
  EXPECT_EQ(words_of({"--ver"}), "--version");
  EXPECT_EQ(complete(make_tree(), {"job", "submit", ""}).files, Completion::Files::kAny);
  EXPECT_EQ(complete(make_tree(), {"job", "submit", "a", ""}).files, Completion::Files::kNone);
  EXPECT_EQ(complete(make_tree(), {"--home", ""}).files, Completion::Files::kDirectories);
  EXPECT_EQ(complete(make_tree(), {"--home=/x"}).files, Completion::Files::kDirectories);
  EXPECT_EQ(complete(make_tree(), {}).words.size(), make_tree().root().children.size());
}

// Where each shell is asked to complete the same lines: the line, and what has to come.
struct Asked {
  std::string line;
  std::string expected;
};
const std::vector<Asked> kAsked = {{"glovebox jo", "job"},
                                   {"glovebox job su", "submit"},
                                   {"glovebox --home /x job su", "submit"},
                                   {"glovebox -o json job su", "submit"},
                                   {"glovebox -o json job submit --wa", "--wait"},
                                   {"glovebox -o y", "yaml"},
                                   {"glovebox --home /x job list --state Compl", "Completed"},
                                   {"glovebox --output=y", "yaml"},
                                   {"glovebox identity create --role cons", "consumer"},
                                   {"glovebox identity create --role owner,cons", "owner,consumer"},
                                   {"glovebox asset list --kind mod", "model"},
                                   {"glovebox completion f", "fish"},
                                   {"glovebox job submit DIR/spe", "DIR/spec.yaml"},
                                   {"glovebox --home=DIR/sub", "DIR/subfolder"}};

class InShell : public ::testing::Test {
 protected:
  // Skips where the shell is absent.
  void with(const std::string& shell) {
    const auto script = completion_script(shell);
    ASSERT_TRUE(script.ok());
    file = dir.path + "/glovebox." + shell;
    ASSERT_TRUE(write_file_atomic(file, as_bytes(*script), 0644).ok());
    ASSERT_TRUE(write_file_atomic(dir.path + "/spec.yaml", {}, 0644).ok());
    ASSERT_TRUE(make_dirs(dir.path + "/subfolder", 0755).ok());
    if (!installed(shell)) GTEST_SKIP() << shell << " is not installed";
    ASSERT_TRUE(path_exists(program() + "/glovebox")) << "the scripts ask the program";
    const auto parsed = run({shell, "-n", file});
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(parsed->status.code, 0) << parsed->err;
    ready = true;
  }
  std::string here(std::string text) const {
    for (std::size_t at = text.find("DIR"); at != std::string::npos; at = text.find("DIR", at)) {
      text.replace(at, 3, dir.path);
    }
    return text;
  }
  TempDir dir;
  std::string file;
  bool ready = false;
};

TEST_F(InShell, Bash) {
  with("bash");
  if (!ready) return;
  for (const auto& asked : kAsked) {
    // Words as bash makes them: taken apart at = and :
    std::string script = ". " + file + "; PATH=" + program() + ":$PATH; COMP_WORDS=(";
    int count = 0;
    std::string word;
    const std::string line = here(asked.line) + " ";
    for (const char c : line) {
      if (c == ' ' || c == '=') {
        if (!word.empty() || c == ' ') script += "'" + word + "' ", ++count;
        if (c == '=') script += "= ", ++count;
        word.clear();
      } else {
        word += c;
      }
    }
    script +=
        "); COMP_CWORD=" + std::to_string(count - 1) + "; _glovebox; echo \"${COMPREPLY[@]}\"";
    const auto r = run({"/bin/bash", "-c", script});
    ASSERT_TRUE(r.ok());
    EXPECT_EQ(r->err, "") << line;
    EXPECT_EQ(r->out, here(asked.expected) + "\n") << line;
  }
}

TEST_F(InShell, Fish) {
  with("fish");
  if (!ready) return;
  std::string script = "source " + file + "; set -x PATH " + program() + " $PATH\n";
  for (const auto& asked : kAsked) script += "complete -C '" + here(asked.line) + "'; echo ---\n";
  ASSERT_TRUE(make_dirs(dir.path + "/home", 0700).ok());
  const auto r = run({"env", "HOME=" + dir.path + "/home", "fish", "--no-config", "-c", script});
  ASSERT_TRUE(r.ok()) << r.error().line();
  EXPECT_EQ(r->status.code, 0) << r->err;
  std::size_t at = 0;
  for (const auto& asked : kAsked) {
    const std::size_t end = std::min(r->out.find("---\n", at), r->out.size());
    const std::string got = r->out.substr(at, end - at);
    EXPECT_NE(got.find(here(asked.expected)), std::string::npos) << asked.line << " -> " << got;
    EXPECT_EQ(std::count(got.begin(), got.end(), '\n'), 1) << asked.line << " -> " << got;
    at = end + 4;
  }
}

// A real line editor on a pseudo-terminal: types the line and a tab, and waits until the line reads
// as expected.
TEST_F(InShell, Zsh) {
  with("zsh");
  if (!ready) return;
  static constexpr const char* kDriver = R"(zmodload zsh/zpty zsh/datetime || exit 9
zpty z zsh -f -i
say() { zpty -w z "$1" }
await() {  # the pattern, within 20 s
  local seen='' piece end=$(( EPOCHREALTIME + 20 ))
  while (( EPOCHREALTIME < end )); do
    if zpty -rt z piece 2>/dev/null; then seen+="$piece"; else sleep 0.05; fi
    [[ "${seen//[^[:print:]]/}" == *"$1"* ]] && return 0
  done
  print -r -- "no '$1' after: ${(V)seen}"
  return 1
}
say "PS1= PS2= RPS1=; unsetopt zle_bracketed_paste; stty -echo cols 200; path=($1 \$path); autoload -Uz compinit; compinit -u -D"
say "source $2; print REA''DY"
await READY || exit 1
while IFS= read -r line && IFS= read -r expected; do
  zpty -w -n z "$line"$'\t'
  await "$expected" || { print -r -- "line: $line"; exit 1; }
  zpty -w -n z $'\x15'  # ^U
done <$3
)";
  std::string lines;
  for (const auto& asked : kAsked) {
    // What the line reads as afterwards, from the last word on.
    const std::string line = here(asked.line);
    const bool attached = line.find('=') != std::string::npos;
    const std::string before = line.substr(0, line.rfind(attached ? '=' : ' ') + 1);
    lines += line + "\n" + before + here(asked.expected) + "\n";
  }
  ASSERT_TRUE(write_file_atomic(dir.path + "/driver", as_bytes(kDriver), 0644).ok());
  ASSERT_TRUE(write_file_atomic(dir.path + "/lines", as_bytes(lines), 0644).ok());
  const auto r = run({"zsh", "-f", dir.path + "/driver", program(), file, dir.path + "/lines"});
  ASSERT_TRUE(r.ok()) << r.error().line();
  EXPECT_EQ(r->status.code, 0) << r->out << r->err;
}

TEST(Completion, OnlyThreeShells) { EXPECT_EQ(completion_script("tcsh").reason(), Reason::kUsage); }

TEST(Manual, EveryPageRendersWithoutWarnings) {
  const CommandTree tree = make_tree();
  const auto pages = manual_pages(tree, "0.1.0", "2026-01-31");
  std::size_t commands = 0;
  each_command(tree.root(), {}, [&](const Words&, const Command&) { ++commands; });
  EXPECT_EQ(pages.size(), commands);
  EXPECT_TRUE(pages.contains("glovebox-job-submit.1"));
  for (const auto& [name, text] : pages) {
    EXPECT_EQ(text.substr(0, 5), ".TH \"") << name;
    const std::string version = "print the version";
    EXPECT_EQ(text.find(version), text.rfind(version)) << name;
    for (const char* section :
         {".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH EXIT STATUS"}) {
      EXPECT_NE(text.find(section), std::string::npos) << name;
    }
    for (const char c : text) {
      ASSERT_EQ(static_cast<unsigned char>(c) & 0x80U, 0U)
          << name << " holds bytes that are not ASCII";
    }
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
  EXPECT_TRUE(*there == generated)
      << path << " is out of date: GBX_UPDATE_DOCS=1 ctest -R cli_test";
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
  hold_equal(source_path("docs/cli.md"),
             there->substr(0, at + kMark.size()) + markdown_reference(make_tree()));
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
