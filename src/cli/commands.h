// The commands, by group. Each function adds whole commands to the tree; what is not whole is not
// added.
#pragma once

#include "cli/tree.h"

namespace gbx::cli {

void add_setup(CommandTree& tree);     // init, identity
void add_assets(CommandTree& tree);    // asset, image
void add_policies(CommandTree& tree);  // policy, lease
void add_ledger(CommandTree& tree);    // ledger
void add_jobs(CommandTree& tree);      // job
void add_reviews(CommandTree& tree);   // review
void add_receipts(CommandTree& tree);  // receipt
void add_releases(CommandTree& tree);  // release
void add_machines(CommandTree& tree);  // node
void add_doctor(CommandTree& tree);    // doctor
void add_measure(CommandTree& tree);   // measure
void add_shell(CommandTree& tree);     // completion, man

// All of them, in the order of the help text.
CommandTree make_tree();

// Options that several commands have.
Argument flag(std::string name, std::string help);
Argument option(std::string name, std::string value, std::string help,
                ArgKind kind = ArgKind::kText);
Argument required(Argument a);
Argument many(Argument a);
Argument positional(std::string name, std::string help, ArgKind kind = ArgKind::kText);

// kAlreadyExists where the file that this option names is there and --force was not given: asked
// before anything is done.
Status may_write(const Invocation& in, const std::string& option);

}  // namespace gbx::cli
