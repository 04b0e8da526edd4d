#include "cli/commands.h"

#include "base/os.h"

#ifdef GBX_CLI_UP
#include "cli/up.h"
#endif

namespace gbx::cli {

Argument flag(std::string name, std::string help) {
  Argument a;
  a.name = std::move(name);
  a.help = std::move(help);
  a.kind = ArgKind::kFlag;
  return a;
}
Argument option(std::string name, std::string value, std::string help, ArgKind kind) {
  Argument a;
  a.name = std::move(name);
  a.value = std::move(value);
  a.help = std::move(help);
  a.kind = kind;
  return a;
}
Argument required(Argument a) {
  a.required = true;
  return a;
}
Argument many(Argument a) {
  a.many = true;
  return a;
}
Argument positional(std::string name, std::string help, ArgKind kind) {
  Argument a;
  a.name = std::move(name);
  a.help = std::move(help);
  a.kind = kind;
  a.required = true;
  return a;
}

CommandTree make_tree() {
  CommandTree tree;
#ifdef GBX_CLI_UP
  add_up(tree);
#endif
  add_setup(tree);
  add_assets(tree);
  add_policies(tree);
  add_ledger(tree);
  add_jobs(tree);
  add_reviews(tree);
  add_receipts(tree);
  add_releases(tree);
  add_machines(tree);
  add_doctor(tree);
  add_measure(tree);
  add_shell(tree);
  return tree;
}

Status may_write(const Invocation& in, const std::string& option) {
  if (in.has("force") || !path_exists(in.text(option))) return ok_status();
  return fail(Reason::kAlreadyExists, in.text(option))
      .hint("choose another --" + option + ", or add --force");
}

}  // namespace gbx::cli
