// What commands print: one value as table, JSON or YAML, and errors with reason, check and next
// step. Text that came from elsewhere is made printable before it reaches a terminal.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"

namespace gbx::cli {

enum class Format { kTable, kJson, kYaml };

struct Column {
  std::string title;
  std::string member;  // of each row; "a.b" goes into objects
};
// Rows as an aligned table; "-" stands for what is absent. An empty list prints `none`.
std::string table(const std::vector<Column>& columns, const JsonArray& rows,
                  const std::string& none);
// One object as "name: value" lines, nested values indented.
std::string describe(const Json& value);
// `text` in the table format, else the value.
std::string render(Format format, const Json& value, const std::string& text);
// What to do next where an error does not say it.
std::string default_next(Reason reason);
// Several lines: what failed, expected, actual, next step. In JSON format: {"error": {...}}.
std::string render_error(Format format, const Error& error);

// Text from elsewhere that begins with the code that stands beside it: without that.
std::string without_code(const std::string& code, std::string text);
// An error that came as one line, "code: what (expected …, actual …)": in its members again.
Error unfolded(Error error);

std::string joined(const std::vector<std::string>& words, const char* between);
std::string upper(std::string text);  // ASCII only
// One word of a command line, quoted where a shell would take it for something else.
std::string shell_word(const std::string& word);
// How this program was called: what it prints as the next command does what it says when it is
// pasted.
struct Self {
  std::string program = "glovebox";  // as typed when that was a path
  std::string home;                  // of --home; empty when it was not given
  // "glovebox --home X job wait ID"
  std::string command(const std::vector<std::string>& words) const;
  // The same for each "glovebox COMMAND" in a text of ours.
  std::string rewrite(const std::string& text) const;
};

// "[=====>    ] 45 % 12.3 of 27.0 MiB" for a terminal of any width above 40.
std::string progress_bar(std::uint64_t done, std::uint64_t total);
std::string human_bytes(std::uint64_t n);

// To standard output, to the last byte: kIo where that is full or closed.
Status write_out(const std::string& text);

}  // namespace gbx::cli
