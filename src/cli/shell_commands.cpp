// completion, man
#include "base/os.h"
#include "base/version.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/shell.h"

namespace gbx::cli {

namespace {

Status completion(Session& s, const Invocation& in) {
  GBX_ASSIGN(std::string script, completion_script(in.text("shell")));
  Json j;
  j["script"] = script;
  s.print(j, script);
  return ok_status();
}

// The tree that holds this command is made in main(); it makes the same one again.
Status man(Session& s, const Invocation& in) {
  const std::string dir = in.text("dir");
  GBX_TRY(make_dirs(dir, 0755));
  const auto pages = manual_pages(make_tree(), version(), format_time(s.now()).substr(0, 10));
  JsonArray files;
  for (const auto& [name, text] : pages) {
    GBX_TRY(write_file_atomic(dir + "/" + name, as_bytes(text), 0644));
    files.push_back(Json(dir + "/" + name));
  }
  Json j;
  j["files"] = Json(std::move(files));
  s.print(j, "wrote " + std::to_string(pages.size()) + " pages to " + dir + "; try: man -l " + dir +
                 "/glovebox.1\n");
  return ok_status();
}

}  // namespace

void add_shell(CommandTree& t) {
  Argument shell = positional("shell", "bash, zsh or fish", ArgKind::kChoice);
  shell.choices = {"bash", "zsh", "fish"};
  t.add({"completion",
         "print a completion script for your shell",
         "",
         {shell},
         {},
         {{"glovebox completion bash > /etc/bash_completion.d/glovebox",
           "for everybody on this machine"}},
         completion,
         {}});
  t.add({"man",
         "write the manual pages",
         "",
         {},
         {required(option("dir", "DIR", "where the pages go", ArgKind::kDirectory))},
         {{"glovebox man --dir /usr/local/share/man/man1", "for `man glovebox-job-submit`"}},
         man,
         {}});
}

}  // namespace gbx::cli
