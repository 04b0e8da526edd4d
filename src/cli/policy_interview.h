// `policy new` for a person at a terminal: asks, in plain words, for whatever the options left out.
// What protects nobody (NO TEE, an operator's custody, an unprotected log, any command, anybody) is
// a question of its own, and only "yes" allows it.
#pragma once

#include "cli/policy_file.h"
#include "cli/session.h"
#include "cli/tree.h"

namespace gbx::cli {

// A JSON list of strings, or words between blanks; `at` names the option or question. kUsage.
Result<std::vector<std::string>> split_command(const std::string& at, const std::string& text);

// Fills `draft`. kUsage when an answer cannot be one, or the person takes an option back.
Status interview(Session& session, const Invocation& given, PolicyDraft& draft);

}  // namespace gbx::cli
