#include "cli/shell.h"

#include <algorithm>
#include <functional>

#include "cli/output.h"

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
// ---- completion: what could stand at the end of a command line ----

class Completer {
 public:
  explicit Completer(const CommandTree& tree) : tree_(tree), command_(&tree.root()) {}

  Completion run(const std::vector<std::string>& words) {
    for (std::size_t i = 0; i + 1 < words.size(); ++i) pass(words[i]);
    const std::string current = words.empty() ? std::string() : words.back();
    if (value_of_ != nullptr) {
      values(*value_of_, "", current);
    } else if (const auto equals = current.find('=');
               options_ && current.rfind("--", 0) == 0 && equals != std::string::npos) {
      const Argument* a = find(current.substr(2, equals - 2));
      if (a != nullptr) values(*a, current.substr(0, equals + 1), current.substr(equals + 1));
    } else if (options_ && current.size() > 2 && current.rfind("-o", 0) == 0) {
      values(*find("output"), "-o", current.substr(2));
    } else if (options_ && !current.empty() && current[0] == '-') {
      option_names(current);
    } else if (!command_->children.empty()) {
      for (const auto& c : command_->children) offer(c.name, c.summary, current);
    } else if (at_ < command_->positionals.size()) {
      values(command_->positionals[at_], "", current);
    }
    return std::move(out_);
  }

 private:
  // A word that is complete.
  void pass(const std::string& w) {
    if (value_of_ != nullptr) {
      value_of_ = nullptr;
    } else if (!options_ || w.size() < 2 || w[0] != '-') {
      word(w);
    } else if (w == "--") {
      options_ = false;
    } else if (w == "-o") {
      value_of_ = find("output");
    } else if (w.rfind("--", 0) == 0) {
      const std::string name =
          w.substr(2, w.find('=') == std::string::npos ? w.npos : w.find('=') - 2);
      const Argument* a = find(name);
      if (a == nullptr) return;
      given_.push_back(name);
      if (a->kind != ArgKind::kFlag && w.find('=') == std::string::npos) value_of_ = a;
    }
  }
  void word(const std::string& w) {
    for (const auto& c : command_->children) {
      if (c.name != w) continue;
      command_ = &c;
      return;
    }
    if (at_ < command_->positionals.size() && !command_->positionals[at_].many) ++at_;
  }
  const Argument* find(const std::string& name) const {
    for (const auto* list : {&command_->options, &tree_.global()}) {
      for (const auto& a : *list) {
        if (a.name == name) return &a;
      }
    }
    return nullptr;
  }

  void offer(const std::string& w, const std::string& help, const std::string& begins) {
    if (w.rfind(begins, 0) == 0) out_.words.push_back({w, help});
  }
  void option_names(const std::string& current) {
    for (const auto* list : {&command_->options, &tree_.global()}) {
      for (const auto& a : *list) {
        const bool again =
            a.many || std::find(given_.begin(), given_.end(), a.name) == given_.end();
        if (again) offer("--" + a.name, a.help, current);
      }
    }
    offer("-o", "how to print", current);
    offer("--help", "explain the command", current);
    offer("--version", "print the version", current);
  }
  void values(const Argument& a, const std::string& before, const std::string& current) {
    switch (a.kind) {
      case ArgKind::kChoice:
        for (const auto& c : a.choices) offer(before + c, "", before + current);
        break;
      case ArgKind::kChoices: {
        const auto comma = current.rfind(',');
        const std::string first = comma == std::string::npos ? "" : current.substr(0, comma + 1);
        for (const auto& c : a.choices) {
          if (("," + first).find("," + c + ",") == std::string::npos) {
            offer(before + first + c, "", before + current);
          }
        }
        break;
      }
      case ArgKind::kFile:
        out_.files = Completion::Files::kAny;
        break;
      case ArgKind::kDirectory:
        out_.files = Completion::Files::kDirectories;
        break;
      case ArgKind::kFlag:
      case ArgKind::kText:
      case ArgKind::kInteger:
        break;
    }
  }

  const CommandTree& tree_;
  const Command* command_;
  std::size_t at_ = 0;
  bool options_ = true;
  const Argument* value_of_ = nullptr;
  std::vector<std::string> given_;
  Completion out_;
};

// The scripts ask the program, so that there is one grammar, and it is that of the installed
// version.
constexpr const char* kBash = R"(# bash completion for glovebox; made by `glovebox completion bash`
_glovebox() {
  local words=() word i line before merge=''
  # bash takes words apart at = and :
  for ((i = 1; i <= COMP_CWORD; i++)); do
    word="${COMP_WORDS[i]}"
    if [ ${#words[@]} -gt 0 ] && { [ -n "$merge" ] || [ "$word" = = ] || [ "$word" = : ]; }; then
      words[${#words[@]}-1]+="$word"
      if [ "$word" = = ] || [ "$word" = : ]; then merge=1; else merge=''; fi
    else
      words+=("$word")
    fi
  done
  word="${words[${#words[@]}-1]}"
  before="${word%"${word##*[=:]}"}"
  COMPREPLY=()
  while IFS= read -r line; do
    case "$line" in
      :files) compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -f -- "${word#"$before"}")) ;;
      :dirs) compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -d -- "${word#"$before"}")) ;;
      *) line="${line%%$'\t'*}"; COMPREPLY+=("${line#"$before"}") ;;
    esac
  done < <("${COMP_WORDS[0]/#\~/$HOME}" __complete "${words[@]}" 2>/dev/null)
}
complete -F _glovebox glovebox
)";

constexpr const char* kZsh = R"(#compdef glovebox
# zsh completion for glovebox; made by `glovebox completion zsh`
_glovebox() {
  local line
  local -a lines candidates
  lines=("${(@f)$("${(Q)words[1]/#\~/$HOME}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
  for line in $lines; do
    case $line in
      :files|:dirs)
        [[ $words[CURRENT] == --*=* ]] && compset -P '*='
        if [[ $line == :dirs ]]; then _files -/; else _files; fi
        return ;;
      *) candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
    esac
  done
  (( $#candidates )) && _describe -t words glovebox candidates
}
if [[ "${funcstack[1]}" == _glovebox ]]; then
  _glovebox "$@"
else
  compdef _glovebox glovebox
fi
)";

constexpr const char* kFish = R"(# fish completion for glovebox; made by `glovebox completion fish`
function __glovebox_complete
  set -l words (commandline -opc)
  set -l current (commandline -ct)
  set -l program $words[1]
  set -e words[1]
  set -l before (string match -r -- '^--[^=]*=' $current)
  for line in ($program __complete $words "$current" 2>/dev/null)
    switch $line
      case :files
        for path in (__fish_complete_path (string replace -- "$before" '' "$current"))
          echo -- "$before$path"
        end
      case :dirs
        for path in (__fish_complete_directories (string replace -- "$before" '' "$current") '')
          echo -- "$before$path"
        end
      case '*'
        echo -- $line
    end
  end
end
complete -c glovebox -f -a '(__glovebox_complete)'
)";

// ---- troff ----

std::string troff(const std::string& s) {
  std::string out;
  bool line_start = true;
  for (const char c : s) {
    if (line_start && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if (c == '\'') {
      out += "\\(aq";
    } else if (c == '`') {
      out += "\\(ga";
    } else if (c == '^') {
      out += "\\(ha";
    } else if (c == '~') {
      out += "\\(ti";
    } else {
      out += c;
    }
    line_start = c == '\n';
  }
  // What is not ASCII by its name, so that every locale renders it.
  static constexpr std::pair<const char*, const char*> kNames[] = {
      {"…", "..."}, {"–", "\\(en"}, {"—", "\\(em"}};
  for (const auto& [from, to] : kNames) {
    for (std::size_t at = out.find(from); at != std::string::npos; at = out.find(from, at)) {
      out.replace(at, std::string(from).size(), to);
    }
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
  o += a.name == "output" ? "\\fB\\-o\\fR, \\fB\\-\\-output\\fR"
                          : "\\fB\\-\\-" + troff(a.name) + "\\fR";
  if (!a.value.empty()) o += " \\fI" + troff(a.value) + "\\fR";
  o += "\n" + troff(a.help);
  if (!a.choices.empty()) o += " (" + troff(joined(a.choices, ", ")) + ")";
  if (a.kind == ArgKind::kChoices) o += ", several with commas";
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
      {"6", "infrastructure: not reachable, no answer in time, not installed, no room"},
      {"7", "integrity: bytes or signatures are not what they must be"},
      {"8", "the job failed, was cancelled or took too long"}};
  std::string o = ".SH EXIT STATUS\n";
  for (const auto& [number, what] : kClasses) {
    o += std::string(".TP\n") + number + "\n" + troff(what) + "\n";
  }
  return o;
}

std::string manual_page(const CommandTree& tree, const Path& path, const Command& c,
                        const std::string& version, const std::string& date) {
  const std::string name = path.empty() ? "glovebox" : "glovebox-" + joined(path, "-");
  std::string o = ".TH \"" + upper(name) + "\" 1 \"" + date + "\" \"glovebox " + version +
                  "\" \"Glovebox manual\"\n";
  o += ".SH NAME\n" + troff(name) + " \\- " + troff(c.summary) + "\n";
  o += ".SH SYNOPSIS\n\\fB" + troff(usage_line(c, path)) + "\\fR\n";
  if (!c.details.empty()) o += ".SH DESCRIPTION\n" + paragraphs(c.details);
  if (!c.children.empty()) {
    o += ".SH COMMANDS\n";
    for (const auto& k : c.children) {
      o += ".TP\n\\fB" + troff(name + "-" + k.name) + "\\fR(1)\n" + troff(k.summary) + "\n";
    }
  }
  if (!c.positionals.empty()) o += ".SH ARGUMENTS\n";
  for (const auto& a : c.positionals) {
    o += ".TP\n\\fI" + troff(upper(a.name)) + "\\fR\n" + troff(a.help) + "\n";
  }
  o += ".SH OPTIONS\n";
  for (const auto& a : c.options) o += troff_option(a);
  for (const auto& a : tree.global()) o += troff_option(a);
  o += ".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nprint help\n";
  o += ".TP\n\\fB\\-\\-version\\fR\nprint the version\n";
  if (!c.examples.empty()) o += ".SH EXAMPLES\n";
  for (const auto& e : c.examples) {
    o += ".TP\n\\fB" + troff(e.line) + "\\fR\n" + troff(e.what) + "\n";
  }
  o += exit_status();
  if (!path.empty()) {
    Path above(path.begin(), path.end() - 1);
    o += ".SH SEE ALSO\n\\fB" +
         troff(above.empty() ? "glovebox" : "glovebox-" + joined(above, "-")) + "\\fR(1)\n";
  }
  return o;
}

}  // namespace

Completion complete(const CommandTree& tree, const std::vector<std::string>& words) {
  return Completer(tree).run(words);
}
std::string Completion::lines() const {
  std::string out;
  for (const auto& w : words) out += w.word + "\t" + w.help + "\n";
  if (files == Files::kAny) out += ":files\n";
  if (files == Files::kDirectories) out += ":dirs\n";
  return out;
}

Result<std::string> completion_script(const std::string& shell) {
  if (shell == "bash") return std::string(kBash);
  if (shell == "zsh") return std::string(kZsh);
  if (shell == "fish") return std::string(kFish);
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
    o += std::string(path.size() == 1 ? "\n## " : "\n### ") + "`glovebox " + joined(path, " ") +
         "`\n\n" + c.summary + "\n";
    if (!c.children.empty()) return;
    o += "\n```\n" + usage_line(c, path) + "\n```\n";
    if (!c.details.empty()) o += "\n" + wrap(c.details, 0, 120);
    if (!c.positionals.empty() || !c.options.empty()) o += "\n| argument | meaning |\n|---|---|\n";
    const auto row = [&](const std::string& name, const Argument& a) {
      std::string text = a.help;
      if (!a.choices.empty()) text += " (" + joined(a.choices, ", ") + ")";
      if (a.kind == ArgKind::kChoices) text += ", several with commas";
      if (!a.standard.empty()) text += " [" + a.standard + "]";
      if (a.required && !a.value.empty()) text += " (required)";
      if (a.many) text += "; may be repeated";
      o += "| `" + name + "` | " + text + " |\n";
    };
    for (const auto& a : c.positionals) row(upper(a.name), a);
    for (const auto& a : c.options) row("--" + a.name + (a.value.empty() ? "" : " " + a.value), a);
    for (const auto& e : c.examples) {
      o += "\n" + wrap(e.what + ":", 0, 120) + "\n```sh\n" + e.line + "\n```\n";
    }
  });
  return o;
}

}  // namespace gbx::cli
