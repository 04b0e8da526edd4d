// glovebox: the command line.
#include <cstdio>

#include "base/os.h"
#include "base/version.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/shell.h"

namespace {

using namespace gbx;
using namespace gbx::cli;

// What errors need before the command line is understood.
std::string early(const std::vector<std::string>& words, const std::string& name,
                  const std::string& letter = {}) {
  std::string found;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& w = words[i];
    const bool alone = w == "--" + name || (!letter.empty() && w == letter);
    if (alone && i + 1 < words.size()) found = words[i + 1];
    if (!letter.empty() && w.rfind(letter, 0) == 0 && w.size() > 2) found = w.substr(2);
    if (w.rfind("--" + name + "=", 0) == 0) found = w.substr(name.size() + 3);
  }
  return found;
}
Format format_of(const std::string& word) {
  return word == "json" ? Format::kJson : word == "yaml" ? Format::kYaml : Format::kTable;
}

// `exit` is set where a command's exit status is documented apart from its reason's.
Status run(const std::vector<std::string>& words, Format format, const Self& self,
           std::optional<ExitClass>& exit) {
  const CommandTree tree = make_tree();
  if (!words.empty() && words[0] == kCompleteWord) {
    return write_out(complete(tree, {words.begin() + 1, words.end()}).lines());
  }
  GBX_ASSIGN(Parsed parsed, parse_command_line(tree, words));
  if (parsed.help) return write_out(help_text(tree, *parsed.command, parsed.path));
  if (parsed.version) return write_out("glovebox " + version() + "\n");
  const Invocation& in = parsed.invocation;
  SessionOptions options;
  options.format = format;
  options.self = self;
  options.passphrase_file = in.text("passphrase-file");
  GBX_ASSIGN(options.home, home_path(in.text("home")));
  const SystemClock clock;
  SystemRandom random;
  Session session(std::move(options), clock, random);
  Status s = parsed.command->run(session, in);
  if (s.reason() == Reason::kUsage && s.error().next.empty()) {
    std::string help = "glovebox";
    for (const auto& word : parsed.path) help += " " + word;
    s.error().hint(help + " --help");
  }
  if (!session.output_status().ok()) return session.output_status();
  exit = session.exit_as();
  return s;
}

}  // namespace

int main(int argc, char** argv) {
  const Status hardened = harden_process();
  const std::vector<std::string> words(argv + (argc > 0 ? 1 : 0), argv + argc);
  const Format format = format_of(early(words, "output", "-o"));
  Self self;
  if (argc > 0 && std::string(argv[0]).find('/') != std::string::npos) self.program = argv[0];
  self.home = early(words, "home");
  std::optional<ExitClass> exit;
  Status s = hardened.ok() ? run(words, format, self, exit) : hardened;
  if (s.ok()) return 0;
  Error& e = s.error();
  e.next = self.rewrite(e.next.empty() ? default_next(e.reason) : e.next);
  std::string text = render_error(format, s.error());
  if (text.empty() || text.back() != '\n') text += '\n';
  std::fputs(text.c_str(), stderr);
  return static_cast<int>(exit.value_or(exit_class(s.reason())));
}
