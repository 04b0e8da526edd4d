#include "cli/shell.h"

#include <algorithm>
#include <functional>

namespace gbx::cli {

namespace {

using Path = std::vector<std::string>;
using Visit = std::function<void(const Path&, const Command&)>;

void walk(const Command& c, const Path& path, const Visit& visit) {
  visit(path, c);
  for (const auto& k : c.children) {
    Path below = path;
    below.push_back(k.name);
    walk(k, below, visit);
  }
}
std::string joined(const Path& path, const char* between) {
  std::string out;
  for (const auto& p : path) out += (out.empty() ? "" : between) + p;
  return out;
}
std::string words(const std::vector<std::string>& list) { return joined(list, " "); }
std::string upper(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return s;
}
// Inside single quotes of a shell.
std::string quoted(const std::string& s) {
  std::string out = "'";
  for (const char c : s) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// ---- bash ----

std::string option_list(const CommandTree& tree, const Command& c) {
  std::vector<std::string> names;
  for (const auto& o : c.options) names.push_back("--" + o.name);
  for (const auto& o : tree.global()) names.push_back("--" + o.name);
  names.push_back("--help");
  return words(names);
}
// What completes the value of one option, as a bash command.
std::string bash_values(const Argument& a) {
  switch (a.kind) {
    case ArgKind::kChoice:
      return "COMPREPLY=($(compgen -W " + quoted(words(a.choices)) + " -- \"$cur\"))";
    case ArgKind::kFile:
      return "COMPREPLY=($(compgen -f -- \"$cur\"))";
    case ArgKind::kDirectory:
      return "COMPREPLY=($(compgen -d -- \"$cur\"))";
    case ArgKind::kText:
    case ArgKind::kInteger:
    case ArgKind::kFlag:
      break;
  }
  return "COMPREPLY=()";
}
std::string value_options(const CommandTree& tree) {
  std::vector<std::string> names{"-o"};
  for (const auto& o : tree.global()) names.push_back("--" + o.name);
  walk(tree.root(), {}, [&](const Path&, const Command& c) {
    for (const auto& o : c.options) {
      const std::string name = "--" + o.name;
      if (o.kind != ArgKind::kFlag && std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  });
  return joined(names, "|");
}

std::string bash_script(const CommandTree& tree) {
  std::string o =
      "# bash completion for glovebox; made by `glovebox completion bash`\n"
      "_glovebox() {\n"
      "  local cur prev path i word skip\n"
      "  cur=\"${COMP_WORDS[COMP_CWORD]}\"\n"
      "  prev=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
      "  path=''\n  skip=''\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    word=\"${COMP_WORDS[i]}\"\n"
      "    if [ -n \"$skip\" ]; then skip=''; continue; fi\n"
      "    case \"$word\" in\n"
      "      " +
      value_options(tree) +
      ") skip=1; continue ;;\n"
      "      -*) continue ;;\n"
      "    esac\n"
      "    case \"$path $word\" in\n";
  walk(tree.root(), {}, [&](const Path& path, const Command&) {
    if (path.empty()) return;
    o += "      " + quoted(" " + joined(path, " ")) + ") path=\"$path $word\" ;;\n";
  });
  o += "    esac\n  done\n  case \"$path,$prev\" in\n";
  for (const auto& g : tree.global()) {
    o += "    *," + std::string(g.name == "output" ? "-o|*,--output" : "--" + g.name) + ") " + bash_values(g) +
         "; return ;;\n";
  }
  walk(tree.root(), {}, [&](const Path& path, const Command& c) {
    for (const auto& a : c.options) {
      if (a.kind == ArgKind::kFlag) continue;
      o += "    " + quoted((path.empty() ? "" : " " + joined(path, " ")) + ",--" + a.name) + ") " + bash_values(a) +
           "; return ;;\n";
    }
  });
  o += "  esac\n  case \"$path\" in\n";
  walk(tree.root(), {}, [&](const Path& path, const Command& c) {
    o += "    " + quoted(path.empty() ? "" : " " + joined(path, " ")) + ")\n";
    std::vector<std::string> names;
    for (const auto& k : c.children) names.push_back(k.name);
    if (!names.empty()) {
      o += "      COMPREPLY=($(compgen -W " + quoted(words(names) + " --help") + " -- \"$cur\")) ;;\n";
      return;
    }
    o += "      if [[ \"$cur\" == -* ]]; then COMPREPLY=($(compgen -W " + quoted(option_list(tree, c)) +
         " -- \"$cur\"))\n";
    o += "      else " + (c.positionals.empty() ? std::string("COMPREPLY=()") : bash_values(c.positionals[0])) +
         "; fi ;;\n";
  });
  return o + "  esac\n}\ncomplete -o filenames -F _glovebox glovebox\n";
}

// ---- fish ----

std::string fish_condition(const Path& path) {
  std::string o = "__fish_glovebox_at";
  for (const auto& p : path) o += " " + p;
  return o;
}
std::string fish_values(const Argument& a) {
  switch (a.kind) {
    case ArgKind::kFlag:
      return "";
    case ArgKind::kChoice:
      return " -x -a " + quoted(words(a.choices));
    case ArgKind::kFile:
      return " -r -F";
    case ArgKind::kDirectory:
      return " -x -a '(__fish_complete_directories)'";
    case ArgKind::kText:
    case ArgKind::kInteger:
      return " -x";
  }
  return "";
}
std::string fish_script(const CommandTree& tree) {
  std::string o =
      "# fish completion for glovebox; made by `glovebox completion fish`\n"
      "function __fish_glovebox_at\n"
      "  set -l words (commandline -opc)\n"
      "  set -l found\n"
      "  for w in $words[2..-1]\n"
      "    string match -q -- '-*' $w; and continue\n"
      "    set -a found $w\n"
      "  end\n"
      "  test (count $found) -ge (count $argv); or return 1\n"
      "  test (count $argv) -eq 0; and return (test (count $found) -eq 0)\n"
      "  test \"$found[1..\"(count $argv)\"]\" = \"$argv\"\n"
      "end\n"
      "complete -c glovebox -f\n";
  for (const auto& g : tree.global()) {
    o += "complete -c glovebox" + std::string(g.name == "output" ? " -s o" : "") + " -l " + g.name + fish_values(g) +
         " -d " + quoted(g.help) + "\n";
  }
  walk(tree.root(), {}, [&](const Path& path, const Command& c) {
    for (const auto& k : c.children) {
      o += "complete -c glovebox -n " + quoted(fish_condition(path)) + " -a " + quoted(k.name) + " -d " +
           quoted(k.summary) + "\n";
    }
    for (const auto& a : c.options) {
      o += "complete -c glovebox -n " + quoted(fish_condition(path)) + " -l " + a.name + fish_values(a) + " -d " +
           quoted(a.help) + "\n";
    }
    if (!c.positionals.empty() &&
        (c.positionals[0].kind == ArgKind::kFile || c.positionals[0].kind == ArgKind::kDirectory)) {
      o += "complete -c glovebox -n " + quoted(fish_condition(path)) + " -F\n";
    }
  });
  return o;
}

// ---- zsh ----

std::string zsh_text(const std::string& s) {
  std::string out;
  for (const char c : s) {
    if (c == ':' || c == '[' || c == ']' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}
std::string zsh_values(const Argument& a) {
  const std::string label = ":" + zsh_text(a.value.empty() ? a.name : a.value) + ":";
  switch (a.kind) {
    case ArgKind::kFlag:
      return "";
    case ArgKind::kChoice:
      return label + "(" + words(a.choices) + ")";
    case ArgKind::kFile:
      return label + "_files";
    case ArgKind::kDirectory:
      return label + "_files -/";
    case ArgKind::kText:
    case ArgKind::kInteger:
      return label;
  }
  return "";
}
std::string zsh_option(const Argument& a) {
  const std::string text = "[" + zsh_text(a.help) + "]" + zsh_values(a);
  return quoted(std::string(a.many ? "*" : "") + "--" + a.name + text);
}
std::string zsh_function(const Path& path) {
  return "_glovebox" + (path.empty() ? std::string() : "_" + joined(path, "_"));
}
std::string zsh_script(const CommandTree& tree) {
  std::string o = "#compdef glovebox\n# zsh completion for glovebox; made by `glovebox completion zsh`\n";
  walk(tree.root(), {}, [&](const Path& path, const Command& c) {
    o += zsh_function(path) + "() {\n  local context state line\n  typeset -A opt_args\n";
    if (!c.children.empty()) {
      o += "  local -a commands\n  commands=(\n";
      for (const auto& k : c.children) o += "    " + quoted(zsh_text(k.name) + ":" + zsh_text(k.summary)) + "\n";
      o += "  )\n  _arguments -C '--help[show help]' '1: :->command' '*:: :->rest'\n  case $state in\n"
           "    command) _describe -t commands command commands ;;\n    rest)\n      case $words[1] in\n";
      for (const auto& k : c.children) {
        Path below = path;
        below.push_back(k.name);
        o += "        " + k.name + ") " + zsh_function(below) + " ;;\n";
      }
      o += "      esac ;;\n  esac\n}\n";
      return;
    }
    o += "  _arguments '--help[show help]'";
    for (const auto& a : tree.global()) o += " \\\n    " + zsh_option(a);
    for (const auto& a : c.options) o += " \\\n    " + zsh_option(a);
    for (const auto& a : c.positionals) o += " \\\n    " + quoted((a.many ? "*" : "1") + zsh_values(a));
    o += "\n}\n";
  });
  return o + "compdef _glovebox glovebox\n";
}

// ---- troff ----

std::string troff(const std::string& s) {
  std::string out;
  bool line_start = true;
  for (const char c : s) {
    if (line_start && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else if (c == '\'')
      out += "\\(aq";
    else if (c == '`')
      out += "\\(ga";
    else if (c == '^')
      out += "\\(ha";
    else if (c == '~')
      out += "\\(ti";
    else
      out += c;
    line_start = c == '\n';
  }
  // What is not ASCII by its name, so that every locale renders it.
  static constexpr std::pair<const char*, const char*> kNames[] = {{"…", "..."}, {"–", "\\(en"}, {"—", "\\(em"}};
  for (const auto& [from, to] : kNames) {
    for (std::size_t at = out.find(from); at != std::string::npos; at = out.find(from, at))
      out.replace(at, std::string(from).size(), to);
  }
  return out;
}
std::string paragraphs(const std::string& text) {
  std::string out;
  std::size_t at = 0;
  while (at < text.size()) {
    std::size_t end = text.find("\n\n", at);
    if (end == std::string::npos) end = text.size();
    out += ".PP\n" + troff(text.substr(at, end - at)) + "\n";
    at = end + 2;
  }
  return out;
}
std::string troff_option(const Argument& a) {
  std::string o = ".TP\n";
  o += a.name == "output" ? "\\fB\\-o\\fR, \\fB\\-\\-output\\fR" : "\\fB\\-\\-" + troff(a.name) + "\\fR";
  if (!a.value.empty()) o += " \\fI" + troff(a.value) + "\\fR";
  o += "\n" + troff(a.help);
  if (!a.choices.empty()) o += " (" + troff(joined(a.choices, ", ")) + ")";
  if (!a.standard.empty()) o += " [" + troff(a.standard) + "]";
  if (a.required) o += " (required)";
  if (a.many) o += "; may be repeated";
  return o + "\n";
}
std::string exit_status() {
  static constexpr std::pair<const char*, const char*> kClasses[] = {
      {"0", "done"},
      {"1", "internal error"},
      {"2", "usage: a wrong word, file or name"},
      {"3", "denied by a policy, a role, a quota or a reviewer"},
      {"4", "attestation: somebody is not who or what they must be"},
      {"5", "held for a reviewer"},
      {"6", "infrastructure: not reachable, not installed, no room"},
      {"7", "integrity: bytes or signatures are not what they must be"},
      {"8", "the job failed, was cancelled or took too long"}};
  std::string o = ".SH EXIT STATUS\n";
  for (const auto& [number, what] : kClasses) o += std::string(".TP\n") + number + "\n" + troff(what) + "\n";
  return o;
}

std::string manual_page(const CommandTree& tree, const Path& path, const Command& c, const std::string& version,
                        const std::string& date) {
  const std::string name = path.empty() ? "glovebox" : "glovebox-" + joined(path, "-");
  std::string o =
      ".TH " + quoted(upper(name)) + " 1 \"" + date + "\" \"glovebox " + version + "\" \"Glovebox manual\"\n";
  o += ".SH NAME\n" + troff(name) + " \\- " + troff(c.summary) + "\n";
  o += ".SH SYNOPSIS\n\\fB" + troff(usage_line(c, path)) + "\\fR\n";
  if (!c.details.empty()) o += ".SH DESCRIPTION\n" + paragraphs(c.details);
  if (!c.children.empty()) {
    o += ".SH COMMANDS\n";
    for (const auto& k : c.children)
      o += ".TP\n\\fB" + troff(name + "-" + k.name) + "\\fR(1)\n" + troff(k.summary) + "\n";
  }
  if (!c.positionals.empty()) o += ".SH ARGUMENTS\n";
  for (const auto& a : c.positionals) o += ".TP\n\\fI" + troff(upper(a.name)) + "\\fR\n" + troff(a.help) + "\n";
  o += ".SH OPTIONS\n";
  for (const auto& a : c.options) o += troff_option(a);
  for (const auto& a : tree.global()) o += troff_option(a);
  o += ".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nprint help\n";
  if (!c.examples.empty()) o += ".SH EXAMPLES\n";
  for (const auto& e : c.examples) o += ".TP\n\\fB" + troff(e.line) + "\\fR\n" + troff(e.what) + "\n";
  o += exit_status();
  if (!path.empty()) {
    Path above(path.begin(), path.end() - 1);
    o += ".SH SEE ALSO\n\\fB" + troff(above.empty() ? "glovebox" : "glovebox-" + joined(above, "-")) + "\\fR(1)\n";
  }
  return o;
}

}  // namespace

Result<std::string> completion_script(const CommandTree& tree, const std::string& shell) {
  if (shell == "bash") return bash_script(tree);
  if (shell == "zsh") return zsh_script(tree);
  if (shell == "fish") return fish_script(tree);
  return fail(Reason::kUsage, "shell").with("bash, zsh or fish", shell);
}

std::map<std::string, std::string> manual_pages(const CommandTree& tree, const std::string& version,
                                                const std::string& date) {
  std::map<std::string, std::string> out;
  walk(tree.root(), {}, [&](const Path& path, const Command& c) {
    const std::string name = path.empty() ? "glovebox" : "glovebox-" + joined(path, "-");
    out[name + ".1"] = manual_page(tree, path, c, version, date);
  });
  return out;
}

std::string markdown_reference(const CommandTree& tree) {
  std::string o;
  walk(tree.root(), {}, [&](const Path& path, const Command& c) {
    if (path.empty()) return;
    o += std::string(path.size() == 1 ? "\n## " : "\n### ") + "`glovebox " + joined(path, " ") + "`\n\n" + c.summary +
         "\n";
    if (!c.children.empty()) return;
    o += "\n```\n" + usage_line(c, path) + "\n```\n";
    if (!c.details.empty()) o += "\n" + wrap(c.details, 0, 120);
    if (!c.positionals.empty() || !c.options.empty()) o += "\n| argument | meaning |\n|---|---|\n";
    const auto row = [&](const std::string& name, const Argument& a) {
      std::string text = a.help;
      if (!a.choices.empty()) text += " (" + joined(a.choices, ", ") + ")";
      if (!a.standard.empty()) text += " [" + a.standard + "]";
      if (a.required && !a.value.empty()) text += " (required)";
      if (a.many) text += "; may be repeated";
      o += "| `" + name + "` | " + text + " |\n";
    };
    for (const auto& a : c.positionals) row(upper(a.name), a);
    for (const auto& a : c.options) row("--" + a.name + (a.value.empty() ? "" : " " + a.value), a);
    for (const auto& e : c.examples) o += "\n" + wrap(e.what + ":", 0, 120) + "\n```sh\n" + e.line + "\n```\n";
  });
  return o;
}

}  // namespace gbx::cli
