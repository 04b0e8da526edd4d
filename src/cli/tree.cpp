#include "cli/tree.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>

namespace gbx::cli {

namespace {

const std::string kNothing;
const std::vector<std::string> kNone;

std::string joined(const std::vector<std::string>& words, const char* between) {
  std::string out;
  for (const auto& w : words) out += (out.empty() ? "" : between) + w;
  return out;
}
std::string upper(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return s;
}

// CLI11 names: "-o,--output" where there is a short form.
std::string option_names(const Argument& a) { return a.name == "output" ? "-o,--output" : "--" + a.name; }

void add_argument(CLI::App& app, const Argument& a, bool positional, Invocation& into) {
  const std::string name = a.name;
  if (a.kind == ArgKind::kFlag) {
    app.add_flag_callback(
        option_names(a), [&into, name] { into.add(name, "true"); }, a.help);
    return;
  }
  auto* option = app.add_option_function<std::vector<std::string>>(
      positional ? name : option_names(a),
      [&into, name](const std::vector<std::string>& values) {
        for (const auto& v : values) into.add(name, v);
      },
      a.help);
  option->required(a.required);
  if (positional) {
    option->expected(a.many ? -1 : 1);
  } else {
    option->expected(1)->allow_extra_args(false);
    option->multi_option_policy(a.many ? CLI::MultiOptionPolicy::TakeAll : CLI::MultiOptionPolicy::Throw);
  }
  if (a.kind == ArgKind::kChoice) option->check(CLI::IsMember(a.choices));
}

void add_command(CLI::App& app, const Command& c, Invocation& into) {
  for (const auto& p : c.positionals) add_argument(app, p, true, into);
  for (const auto& o : c.options) add_argument(app, o, false, into);
  for (const auto& child : c.children) {
    CLI::App* sub = app.add_subcommand(child.name, child.summary);
    sub->fallthrough();
    add_command(*sub, child, into);
  }
}

const Command* child_of(const Command& c, const std::string& name) {
  const auto it = std::find_if(c.children.begin(), c.children.end(), [&](const auto& k) { return k.name == name; });
  return it == c.children.end() ? nullptr : &*it;
}

// The longest chain of commands at the beginning, for help and for hints.
void follow(const CommandTree& tree, const std::vector<std::string>& words, Parsed& out) {
  out.command = &tree.root();
  for (const auto& w : words) {
    const Command* next = child_of(*out.command, w);
    if (next == nullptr) continue;
    out.command = next;
    out.path.push_back(w);
  }
}

std::string argument_column(const Argument& a) {
  std::string s = (a.name == "output" ? "-o, --output" : "--" + a.name);
  if (!a.value.empty()) s += " " + a.value;
  return s;
}
std::string argument_help(const Argument& a) {
  std::string s = a.help;
  if (!a.choices.empty()) s += " (" + joined(a.choices, ", ") + ")";
  if (!a.standard.empty()) s += " [" + a.standard + "]";
  if (a.many) s += "; may be repeated";
  return s;
}
void help_rows(std::string& out, const std::string& title,
               const std::vector<std::pair<std::string, std::string>>& rows) {
  if (rows.empty()) return;
  std::size_t widest = 0;
  for (const auto& r : rows) widest = std::max(widest, r.first.size());
  const std::size_t column = std::min<std::size_t>(widest, 28) + 4;
  out += "\n" + title + ":\n";
  for (const auto& [name, text] : rows) {
    std::string lines = wrap(text, column, 100);
    std::string head = "  " + name;
    if (head.size() + 2 <= column) {
      lines.replace(0, head.size(), head);
    } else {
      lines = head + "\n" + lines;
    }
    out += lines;
  }
}

}  // namespace

const std::string& Invocation::text(const std::string& name) const {
  const auto it = values_.find(name);
  return it == values_.end() || it->second.empty() ? kNothing : it->second.back();
}
const std::vector<std::string>& Invocation::list(const std::string& name) const {
  const auto it = values_.find(name);
  return it == values_.end() ? kNone : it->second;
}
Result<std::int64_t> Invocation::integer(const std::string& name, std::int64_t otherwise, Bound bound) const {
  if (!has(name)) return otherwise;
  const std::string& s = text(name);
  const std::string range = std::to_string(bound.min) + " to " + std::to_string(bound.max);
  const bool digits = !s.empty() && s.size() <= 15 && s.find_first_not_of("0123456789") == std::string::npos;
  const std::int64_t v = digits ? std::stoll(s) : 0;
  if (!digits || v < bound.min || v > bound.max)
    return fail(Reason::kUsage, "--" + name).with("a number from " + range, s);
  return v;
}

CommandTree::CommandTree() {
  root_.name = "glovebox";
  root_.summary = "run other people's code on other people's data, and let out only results that were checked";
  global_ = {
      {"output", "FORMAT", "how to print", ArgKind::kChoice, false, false, {"table", "json", "yaml"}, "table"},
      {"home",
       "DIR",
       "where keys and settings lie",
       ArgKind::kDirectory,
       false,
       false,
       {},
       "$GLOVEBOX_HOME or ~/.glovebox"},
      {"passphrase-file", "FILE", "file whose first line opens protected keys", ArgKind::kFile, false, false, {}, ""},
  };
}
Command& CommandTree::add(Command command) {
  root_.children.push_back(std::move(command));
  return root_.children.back();
}
Command& CommandTree::add(const std::string& group, Command command) {
  for (auto& g : root_.children) {
    if (g.name != group) continue;
    g.children.push_back(std::move(command));
    return g.children.back();
  }
  Command made;
  made.name = group;
  add(std::move(made)).children.push_back(std::move(command));
  return root_.children.back().children.back();
}

Result<Parsed> parse_command_line(const CommandTree& tree, const std::vector<std::string>& words) {
  Parsed out;
  follow(tree, words, out);
  CLI::App app("", "glovebox");
  app.option_defaults()->always_capture_default(false);
  bool version = false;
  app.add_flag("--version", version);
  for (const auto& g : tree.global()) add_argument(app, g, false, out.invocation);
  add_command(app, tree.root(), out.invocation);
  std::vector<std::string> reversed(words.rbegin(), words.rend());
  const std::string help = "glovebox " + joined(out.path, " ") + (out.path.empty() ? "" : " ") + "--help";
  try {
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    out.help = true;
    return out;
  } catch (const CLI::ParseError& e) {
    return fail(Reason::kUsage, e.what()).hint(help);
  }
  // What CLI11 chose, which differs from follow() when a value has the name of a command.
  out.path.clear();
  out.command = &tree.root();
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    out.command = child_of(*out.command, at->get_name());
    out.path.push_back(at->get_name());
  }
  out.version = version;
  if (out.command->run || version) return out;
  if (out.path.empty() && words.empty()) {
    out.help = true;
    return out;
  }
  return fail(Reason::kUsage, "a command is missing").hint(help);
}

std::string wrap(const std::string& text, std::size_t indent, std::size_t width) {
  const std::string pad(indent, ' ');
  std::string out;
  std::string line = pad;
  bool fresh = true;
  const auto flush = [&] {
    out += line + "\n";
    line = pad;
    fresh = true;
  };
  std::size_t at = 0;
  while (at < text.size()) {
    std::size_t end = text.find_first_of(" \n", at);
    if (end == std::string::npos) end = text.size();
    const std::string word = text.substr(at, end - at);
    if (!word.empty()) {
      if (!fresh && line.size() + 1 + word.size() > width) flush();
      line += (fresh ? "" : " ") + word;
      fresh = false;
    }
    if (end < text.size() && text[end] == '\n') {
      if (fresh) {
        out += "\n";
      } else {
        flush();
      }
    }
    at = end + 1;
  }
  if (!fresh || out.empty()) flush();
  return out;
}

std::string usage_line(const Command& c, const std::vector<std::string>& path) {
  std::string s = "glovebox";
  for (const auto& p : path) s += " " + p;
  if (!c.children.empty()) return s + " COMMAND";
  for (const auto& p : c.positionals) {
    const std::string name = upper(p.name) + (p.many ? "..." : "");
    s += p.required ? " " + name : " [" + name + "]";
  }
  for (const auto& o : c.options) {
    if (o.required) s += " --" + o.name + " " + o.value;
  }
  const bool optional = std::any_of(c.options.begin(), c.options.end(), [](const auto& o) { return !o.required; });
  return s + (optional ? " [OPTIONS]" : "");
}

std::string help_text(const CommandTree& tree, const Command& c, const std::vector<std::string>& path) {
  std::string out = "usage: " + usage_line(c, path) + "\n\n" + wrap(c.summary, 0, 100);
  if (!c.details.empty()) out += "\n" + wrap(c.details, 0, 100);
  using Rows = std::vector<std::pair<std::string, std::string>>;
  Rows rows;
  for (const auto& k : c.children) rows.emplace_back(k.name, k.summary);
  help_rows(out, "commands", rows);
  rows.clear();
  for (const auto& p : c.positionals) rows.emplace_back(upper(p.name), p.help);
  help_rows(out, "arguments", rows);
  rows.clear();
  for (const auto& o : c.options)
    rows.emplace_back(argument_column(o), argument_help(o) + (o.required ? " (required)" : ""));
  help_rows(out, "options", rows);
  rows.clear();
  for (const auto& o : tree.global()) rows.emplace_back(argument_column(o), argument_help(o));
  rows.emplace_back("-h, --help", "this text");
  help_rows(out, "everywhere", rows);
  if (!c.examples.empty()) out += "\nexamples:\n";
  for (const auto& e : c.examples) out += "  " + e.line + "\n" + wrap(e.what, 6, 100);
  if (!c.children.empty()) {
    const std::string where = path.empty() ? "" : " " + joined(path, " ");
    out += "\n`glovebox" + where + " COMMAND --help` tells more.\n";
  }
  return out;
}

}  // namespace gbx::cli
