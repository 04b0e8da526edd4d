// The commands of `glovebox`, described once: parsing, help, shell completion and manual pages all
// come from this tree. The tree is built in main() and constant afterwards. The command line is the
// user's own input.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/fields.h"

namespace gbx::cli {

class Session;

// What a value is, for completion and for checks before a command runs.
// kChoices: several of the choices with commas between.
enum class ArgKind { kFlag, kText, kInteger, kFile, kDirectory, kChoice, kChoices };

struct Argument {
  std::string name;   // long option without dashes, or the name of a positional
  std::string value;  // placeholder, "HOST:PORT"; empty for flags and positionals
  std::string help;
  ArgKind kind = ArgKind::kText;
  bool required = false;
  bool many = false;                 // may be given several times
  std::vector<std::string> choices;  // kChoice, kChoices
  std::string standard;              // what holds when it is absent, for help
};
struct Example {
  std::string line;
  std::string what;
};

// What the user gave to one command.
class Invocation {
 public:
  bool has(const std::string& name) const { return values_.count(name) != 0; }
  // "" when absent; the last one when given several times.
  const std::string& text(const std::string& name) const;
  const std::vector<std::string>& list(const std::string& name) const;
  // kUsage outside the bound or when it is no decimal number.
  Result<std::int64_t> integer(const std::string& name, std::int64_t otherwise, Bound bound) const;
  void add(const std::string& name, std::string value) {
    values_[name].push_back(std::move(value));
  }

 private:
  std::map<std::string, std::vector<std::string>> values_;
};

using Action = std::function<Status(Session&, const Invocation&)>;

struct Command {
  std::string name;
  std::string summary;  // one line, no full stop
  std::string details;  // paragraphs, blank lines between
  std::vector<Argument> positionals;
  std::vector<Argument> options;
  std::vector<Example> examples;
  Action run;  // empty for a group
  std::vector<Command> children;
};

class CommandTree {
 public:
  CommandTree();
  // A command of the first level, or one below a group. Groups are made before their commands.
  Command& add(Command command);
  Command& add(const std::string& group, Command command);
  const Command& root() const { return root_; }
  // -o, --home, --passphrase-file: accepted before and after every command.
  const std::vector<Argument>& global() const { return global_; }

 private:
  Command root_;
  std::vector<Argument> global_;
};

struct Parsed {
  std::vector<std::string> path;  // "job", "submit"
  const Command* command = nullptr;
  Invocation invocation;
  bool help = false;
  bool version = false;
};
// `words` without the program's name. Options stand anywhere behind their command, the global ones
// anywhere; behind
// "--" nothing is an option. Errors: kUsage, what was expected and given, and the command whose
// --help mends it.
Result<Parsed> parse_command_line(const CommandTree& tree, const std::vector<std::string>& words);
std::string help_text(const CommandTree& tree, const Command& command,
                      const std::vector<std::string>& path);
// "glovebox job submit FILE [--wait]"
std::string usage_line(const Command& command, const std::vector<std::string>& path);
// Text broken at blanks into lines of at most `width` columns, each behind `indent` blanks.
std::string wrap(const std::string& text, std::size_t indent, std::size_t width = 88);
// A text of others as one item of a list: what follows its first line stands deeper than `mark`, so
// it cannot pass for an item of its own.
std::string bullet(const std::string& mark, const std::string& text);

}  // namespace gbx::cli
