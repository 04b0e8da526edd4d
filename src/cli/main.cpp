// glovebox: the command line.
#include <cstdio>

#include "base/os.h"
#include "cli/commands.h"
#include "cli/session.h"

#ifndef GBX_VERSION
#error "the build gives the version"
#endif

namespace {

using namespace gbx;
using namespace gbx::cli;

// The format of error messages must be known before the command line is understood.
Format guess_format(const std::vector<std::string>& words) {
  Format f = Format::kTable;
  const auto take = [&](const std::string& value) {
    if (value == "json") f = Format::kJson;
    if (value == "yaml") f = Format::kYaml;
  };
  for (std::size_t i = 0; i < words.size(); ++i) {
    if ((words[i] == "-o" || words[i] == "--output") && i + 1 < words.size()) take(words[i + 1]);
    if (words[i].rfind("-o", 0) == 0 && words[i].size() > 2) take(words[i].substr(2));
    if (words[i].rfind("--output=", 0) == 0) take(words[i].substr(9));
  }
  return f;
}

Status run(const std::vector<std::string>& words, Format format) {
  const CommandTree tree = make_tree();
  GBX_ASSIGN(Parsed parsed, parse_command_line(tree, words));
  if (parsed.help) {
    std::fputs(help_text(tree, *parsed.command, parsed.path).c_str(), stdout);
    return ok_status();
  }
  if (parsed.version) {
    std::printf("glovebox %s\n", GBX_VERSION);
    return ok_status();
  }
  const Invocation& in = parsed.invocation;
  SessionOptions options;
  options.format = format;
  options.passphrase_file = in.text("passphrase-file");
  GBX_ASSIGN(options.home, home_path(in.text("home")));
  const SystemClock clock;
  SystemRandom random;
  Session session(std::move(options), clock, random);
  return parsed.command->run(session, in);
}

}  // namespace

int main(int argc, char** argv) {
  const Status hardened = harden_process();
  const std::vector<std::string> words(argv + 1, argv + argc);
  const Format format = guess_format(words);
  Status s = hardened.ok() ? run(words, format) : hardened;
  if (s.ok()) return 0;
  std::string text = render_error(format, s.error());
  if (text.empty() || text.back() != '\n') text += '\n';
  std::fputs(text.c_str(), stderr);
  return static_cast<int>(exit_class(s.reason()));
}
