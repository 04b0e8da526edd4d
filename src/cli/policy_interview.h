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

// Names the reviewer of this file in the list: the answer of `glovebox -o json identity show`; `at`
// names the option or question. kBadValue and kBadJson, kUsage for somebody who is in the list
// already, and those of reading.
Status add_reviewer(std::vector<records::Reviewer>& list, const std::string& at,
                    const std::string& path);
// "FILE=COLUMN": what recipes may read, and whom its rows are about. kUsage.
Result<records::TableRule> read_table(const std::string& at, const std::string& text);
// Measures what a row of the data in this folder holds, and says so.
Status measure_data(Session& session, const std::string& folder, PolicyDraft& draft);

// Fills `draft`; an answer that cannot be one is asked for again. kUsage when there is none, or the
// person takes an option back.
Status interview(Session& session, const Invocation& given, PolicyDraft& draft);

}  // namespace gbx::cli
