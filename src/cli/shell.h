// Shell completions and manual pages, generated from the command tree.
#pragma once

#include <map>
#include <string>

#include "cli/tree.h"

namespace gbx::cli {

// What could stand where a command line ends: the scripts of the shells ask the program for it.
struct Completion {
  struct Word {
    std::string word;
    std::string help;
  };
  enum class Files { kNone, kAny, kDirectories };
  std::vector<Word> words;
  Files files = Files::kNone;
  // "word TAB help" each, and ":files" or ":dirs" where a path may stand.
  std::string lines() const;
};
// `words` without the program's name; the last one is being typed and may be empty.
Completion complete(const CommandTree& tree, const std::vector<std::string>& words);
// What the scripts call; no command, and in no help text.
inline constexpr const char* kCompleteWord = "__complete";
// For "bash", "zsh" or "fish". kUsage for another.
Result<std::string> completion_script(const std::string& shell);
// File name ("glovebox-job-submit.1") to troff. `date` is "2026-01-31".
std::map<std::string, std::string> manual_pages(const CommandTree& tree, const std::string& version,
                                                const std::string& date);
// docs/cli.md: every command, from the same tree.
std::string markdown_reference(const CommandTree& tree);

}  // namespace gbx::cli
