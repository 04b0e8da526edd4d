#include "cli/tree.h"

#include <algorithm>

#include "base/log.h"
#include "cli/output.h"

namespace gbx::cli {

namespace {

const std::string kNothing;
const std::vector<std::string> kNone;

const Command* child_of(const Command& c, const std::string& name) {
  const auto it = std::find_if(c.children.begin(), c.children.end(),
                               [&](const auto& k) { return k.name == name; });
  return it == c.children.end() ? nullptr : &*it;
}

// Letters to change, add or leave out between two words; more than `most` counts as `most` + 1.
std::size_t distance(const std::string& a, const std::string& b, std::size_t most) {
  if (a.size() > b.size() + most || b.size() > a.size() + most) return most + 1;
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row[b.size()];
}
// " (did you mean …?)" when one of the words is near.
std::string nearest(const std::string& word, const std::vector<std::string>& known) {
  std::size_t best = 3;
  const std::string* found = nullptr;
  for (const auto& k : known) {
    const std::size_t d = distance(word, k, 2);
    if (d >= best || d >= k.size()) continue;
    best = d;
    found = &k;
  }
  return found == nullptr ? "" : " (did you mean " + *found + "?)";
}

class Parser {
 public:
  explicit Parser(const CommandTree& tree) : tree_(tree) { out_.command = &tree.root(); }

  Result<Parsed> run(const std::vector<std::string>& words) {
    Status s = read(words);
    if (s.ok() && !out_.help && !out_.version) s = complete(words.empty());
    if (!s.ok()) return s.error().hint(help());
    return std::move(out_);
  }

 private:
  std::string help() const {
    return "glovebox " + joined(out_.path, " ") + (out_.path.empty() ? "" : " ") + "--help";
  }

  Status read(const std::vector<std::string>& words) {
    bool only_arguments = false;
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::string& w = words[i];
      if (only_arguments || w.size() < 2 || w[0] != '-') {
        GBX_TRY(word(w));
      } else if (w == "--") {
        only_arguments = true;
      } else if (w == "-h" || w == "--help") {
        out_.help = true;
      } else if (w == "--version") {
        out_.version = true;
      } else {
        GBX_TRY(option(words, i));
      }
    }
    return ok_status();
  }

  // A command as long as there are any, then what the command is about.
  Status word(const std::string& w) {
    if (!out_.command->children.empty()) {
      const Command* next = child_of(*out_.command, w);
      if (next == nullptr) {
        std::vector<std::string> names;
        for (const auto& c : out_.command->children) names.push_back(c.name);
        return fail(Reason::kUsage, "unknown command")
            .with("one of " + joined(names, ", ") + nearest(w, names), printable(w, 64));
      }
      out_.command = next;
      out_.path.push_back(w);
      return ok_status();
    }
    const auto& wanted = out_.command->positionals;
    if (at_ >= wanted.size()) {
      return fail(Reason::kUsage, "one word too many")
          .with(wanted.empty() ? "no further words" : std::to_string(wanted.size()) + " of them",
                printable(w, 200));
    }
    GBX_TRY(take(wanted[at_], upper(wanted[at_].name), w));
    if (!wanted[at_].many) ++at_;
    return ok_status();
  }

  const Argument* find(const std::string& name) const {
    for (const auto* list : {&out_.command->options, &tree_.global()}) {
      for (const auto& a : *list) {
        if (a.name == name) return &a;
      }
    }
    return nullptr;
  }

  // "--name value", "--name=value", "-o value", "-ovalue".
  Status option(const std::vector<std::string>& words, std::size_t& i) {
    const std::string& w = words[i];
    std::string name;
    std::optional<std::string> value;
    if (w[1] != '-') {
      if (w[1] != 'o') return unknown(w);
      name = "output";
      if (w.size() > 2) value = w.substr(w[2] == '=' ? 3 : 2);
    } else {
      const std::size_t equals = std::min(w.find('='), w.size());
      name = w.substr(2, equals - 2);
      if (equals < w.size()) value = w.substr(equals + 1);
    }
    const Argument* a = find(name);
    if (a == nullptr) return unknown(w);
    const std::string shown = "--" + name;
    if (a->kind == ArgKind::kFlag) {
      if (value) return fail(Reason::kUsage, shown).with("no value", printable(*value, 64));
      return take(*a, shown, "true");
    }
    if (!value) {
      const bool there = i + 1 < words.size();
      const bool is_option =
          there && words[i + 1].rfind("--", 0) == 0 && find(words[i + 1].substr(2)) != nullptr;
      if (!there || is_option) {
        return fail(Reason::kUsage, shown + " needs a value")
            .with(a->value, there ? "the option " + words[i + 1] : "nothing");
      }
      value = words[++i];
    }
    return take(*a, shown, *value);
  }
  Error unknown(const std::string& w) const {
    std::vector<std::string> names{"--help"};
    for (const auto* list : {&out_.command->options, &tree_.global()}) {
      for (const auto& a : *list) names.push_back("--" + a.name);
    }
    const std::string word = w.substr(0, w.find('='));
    return fail(Reason::kUsage, "unknown option")
        .with("one of " + joined(names, ", ") + nearest(word, names), printable(word, 64));
  }

  Status take(const Argument& a, const std::string& shown, const std::string& value) {
    if (!a.many && out_.invocation.has(a.name)) {
      if (a.kind == ArgKind::kFlag) return ok_status();
      return fail(Reason::kUsage, shown + " is given twice")
          .with("once",
                printable(out_.invocation.text(a.name), 64) + " and " + printable(value, 64));
    }
    if (a.kind == ArgKind::kChoice &&
        std::find(a.choices.begin(), a.choices.end(), value) == a.choices.end()) {
      return fail(Reason::kUsage, shown)
          .with("one of " + joined(a.choices, ", ") + nearest(value, a.choices),
                printable(value, 64));
    }
    if (a.kind == ArgKind::kChoices) return take_each(a, shown, value);
    out_.invocation.add(a.name, value);
    return ok_status();
  }
  Status take_each(const Argument& a, const std::string& shown, const std::string& value) {
    std::size_t at = 0;
    while (at <= value.size()) {
      const std::size_t comma = std::min(value.find(',', at), value.size());
      const std::string one = value.substr(at, comma - at);
      if (std::find(a.choices.begin(), a.choices.end(), one) == a.choices.end()) {
        return fail(Reason::kUsage, shown)
            .with("one of " + joined(a.choices, ", ") + ", or several with commas between" +
                      nearest(one, a.choices),
                  printable(value, 64));
      }
      const auto& have = out_.invocation.list(a.name);
      if (std::find(have.begin(), have.end(), one) == have.end()) out_.invocation.add(a.name, one);
      at = comma + 1;
    }
    return ok_status();
  }

  Status complete(bool nothing_said) {
    if (!out_.command->run) {
      if (nothing_said) {
        out_.help = true;
        return ok_status();
      }
      std::vector<std::string> names;
      for (const auto& c : out_.command->children) names.push_back(c.name);
      return fail(Reason::kUsage, "a command is missing")
          .with("one of " + joined(names, ", "), "nothing");
    }
    for (const auto& p : out_.command->positionals) {
      if (p.required && !out_.invocation.has(p.name)) {
        return fail(Reason::kUsage, upper(p.name) + " is missing").with(p.help, "nothing");
      }
    }
    for (const auto& o : out_.command->options) {
      if (o.required && !out_.invocation.has(o.name)) {
        return fail(Reason::kUsage, "--" + o.name + " is missing")
            .with(o.value + ": " + o.help, "nothing");
      }
    }
    return ok_status();
  }

  const CommandTree& tree_;
  Parsed out_;
  std::size_t at_ = 0;  // positional that comes next
};

std::string argument_column(const Argument& a) {
  std::string s = (a.name == "output" ? "-o, --output" : "--" + a.name);
  if (!a.value.empty()) s += " " + a.value;
  return s;
}
std::string argument_help(const Argument& a) {
  std::string s = a.help;
  if (!a.choices.empty()) s += " (" + joined(a.choices, ", ") + ")";
  if (a.kind == ArgKind::kChoices) s += ", several with commas";
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
Result<std::int64_t> Invocation::integer(const std::string& name, std::int64_t otherwise,
                                         Bound bound) const {
  if (!has(name)) return otherwise;
  const std::string& s = text(name);
  const std::string range = std::to_string(bound.min) + " to " + std::to_string(bound.max);
  const bool digits =
      !s.empty() && s.size() <= 15 && s.find_first_not_of("0123456789") == std::string::npos;
  const std::int64_t v = digits ? std::stoll(s) : 0;
  if (!digits || v < bound.min || v > bound.max) {
    return fail(Reason::kUsage, "--" + name).with("a number from " + range, s);
  }
  return v;
}

CommandTree::CommandTree() {
  root_.name = "glovebox";
  root_.summary =
      "run other people's code on other people's data, and let out only results that were checked";
  global_ = {
      {"output",
       "FORMAT",
       "how to print",
       ArgKind::kChoice,
       false,
       false,
       {"table", "json", "yaml"},
       "table"},
      {"home",
       "DIR",
       "where keys and settings lie",
       ArgKind::kDirectory,
       false,
       false,
       {},
       "$GLOVEBOX_HOME or ~/.glovebox"},
      {"passphrase-file",
       "FILE",
       "file whose first line opens protected keys",
       ArgKind::kFile,
       false,
       false,
       {},
       ""},
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
  return Parser(tree).run(words);
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

std::string bullet(const std::string& mark, const std::string& text) {
  std::string out = wrap(printable(text, 8 * text.size() + 1), mark.size(), 100);
  return out.replace(0, mark.size(), mark);
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
  const bool optional =
      std::any_of(c.options.begin(), c.options.end(), [](const auto& o) { return !o.required; });
  return s + (optional ? " [OPTIONS]" : "");
}

std::string help_text(const CommandTree& tree, const Command& c,
                      const std::vector<std::string>& path) {
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
  for (const auto& o : c.options) {
    rows.emplace_back(argument_column(o), argument_help(o) + (o.required ? " (required)" : ""));
  }
  help_rows(out, "options", rows);
  rows.clear();
  for (const auto& o : tree.global()) rows.emplace_back(argument_column(o), argument_help(o));
  rows.emplace_back("-h, --help", "this text");
  rows.emplace_back("--version", "print the version of glovebox");
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
