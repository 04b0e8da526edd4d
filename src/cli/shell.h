// Shell completions and manual pages, generated from the command tree.
#pragma once

#include <map>
#include <string>

#include "cli/tree.h"

namespace gbx::cli {

// "bash", "zsh" or "fish". kUsage for another.
Result<std::string> completion_script(const CommandTree& tree, const std::string& shell);
// File name ("glovebox-job-submit.1") to troff. `date` is "2026-01-31".
std::map<std::string, std::string> manual_pages(const CommandTree& tree, const std::string& version,
                                                const std::string& date);
// docs/cli.md: every command, from the same tree.
std::string markdown_reference(const CommandTree& tree);

}  // namespace gbx::cli
