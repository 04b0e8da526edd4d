#include "cli/output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "base/os.h"
#include "cli/yaml.h"

namespace gbx::cli {

namespace {

std::string cell(const Json& v) {
  if (v.is_null()) return "-";
  if (const std::string* s = v.string()) return s->empty() ? "-" : printable(*s, 4000);
  if (v.array() != nullptr) {
    std::string out;
    for (const Json& e : *v.array()) out += (out.empty() ? "" : ",") + cell(e);
    return out.empty() ? "-" : out;
  }
  return canonical(v);
}

const Json* reach(const Json& row, std::string_view path) {
  const Json* v = &row;
  while (v != nullptr && !path.empty()) {
    const auto dot = path.find('.');
    v = v->find(path.substr(0, dot));
    path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
  }
  return v;
}

// Columns of a terminal; continuation bytes take none.
std::size_t width(std::string_view s) {
  return static_cast<std::size_t>(std::count_if(
      s.begin(), s.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

void describe_into(std::string& out, const Json& v, std::size_t indent) {
  const std::string pad(indent, ' ');
  if (const JsonObject* o = v.object()) {
    std::size_t longest = 0;
    for (const auto& [k, e] : *o) longest = std::max(longest, k.size());
    for (const auto& [k, e] : *o) {
      const bool nested =
          (e.object() != nullptr && !e.object()->empty()) ||
          (e.array() != nullptr && !e.array()->empty() && (*e.array())[0].object() != nullptr);
      if (nested) {
        out += pad + k + ":\n";
        describe_into(out, e, indent + 2);
      } else {
        out += pad + k + ":" + std::string(longest - k.size() + 2, ' ') + cell(e) + "\n";
      }
    }
  } else if (const JsonArray* a = v.array()) {
    for (const Json& e : *a) {
      std::string one;
      describe_into(one, e, indent + 2);
      if (one.size() > indent) one[indent] = '-';
      out += one;
    }
  } else {
    out += pad + cell(v) + "\n";
  }
}

}  // namespace

std::string table(const std::vector<Column>& columns, const JsonArray& rows,
                  const std::string& none) {
  if (rows.empty()) return none + "\n";
  std::vector<std::vector<std::string>> cells;
  std::vector<std::size_t> widths;
  for (const auto& c : columns) widths.push_back(width(c.title));
  for (const Json& r : rows) {
    std::vector<std::string> line;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const Json* v = reach(r, columns[i].member);
      line.push_back(v == nullptr ? "-" : cell(*v));
      widths[i] = std::max(widths[i], width(line.back()));
    }
    cells.push_back(std::move(line));
  }
  std::string out;
  const auto print = [&](const std::vector<std::string>& line) {
    std::string text;
    for (std::size_t i = 0; i < line.size(); ++i) {
      text += line[i];
      if (i + 1 < line.size()) text += std::string(widths[i] - width(line[i]) + 2, ' ');
    }
    out += text + "\n";
  };
  std::vector<std::string> titles;
  for (const auto& c : columns) titles.push_back(c.title);
  print(titles);
  for (const auto& l : cells) print(l);
  return out;
}

std::string describe(const Json& value) {
  std::string out;
  describe_into(out, value, 0);
  return out;
}

std::string render(Format format, const Json& value, const std::string& text) {
  switch (format) {
    case Format::kTable:
      return text;
    case Format::kJson:
      return printable_json(pretty(value));
    case Format::kYaml:
      return to_yaml(value);
  }
  return text;
}

std::string render_error(Format format, const Error& error) {
  Error e = error;
  if (e.next.empty()) e.next = default_next(e.reason);
  if (format != Format::kTable) {
    Json j;
    j["error"]["reason"] = reason_code(e.reason);
    j["error"]["what"] = printable(e.what, 2000);
    j["error"]["expected"] = printable(e.expected, 2000);
    j["error"]["actual"] = printable(e.actual, 2000);
    j["error"]["next"] = printable(e.next, 2000);
    return render(format, j, {});
  }
  std::string out = fmt::format("error: {}\n", reason_code(e.reason));
  if (!e.what.empty()) out += "  what failed: " + printable(e.what, 2000) + "\n";
  if (!e.expected.empty()) out += "  expected:    " + printable(e.expected, 2000) + "\n";
  if (!e.actual.empty()) out += "  actual:      " + printable(e.actual, 2000) + "\n";
  if (!e.next.empty()) out += "  next:        " + printable(e.next, 2000) + "\n";
  return out;
}

std::string without_code(const std::string& code, std::string text) {
  const std::string prefix = code + ": ";
  while (text.rfind(prefix, 0) == 0) text.erase(0, prefix.size());
  return text;
}

Error unfolded(Error e) {
  static constexpr std::string_view kExpected = "(expected ";
  static constexpr std::string_view kActual = ", actual ";
  e.what = without_code(std::string(reason_code(e.reason)), std::move(e.what));
  const std::size_t from = e.what.rfind(kExpected);
  if (!e.expected.empty() || !e.actual.empty() || from == std::string::npos ||
      e.what.back() != ')') {
    return e;
  }
  const std::size_t between = e.what.find(kActual, from);
  if (between == std::string::npos) return e;
  const std::size_t begin = from + kExpected.size();
  const std::size_t second = between + kActual.size();
  e.with(e.what.substr(begin, between - begin), e.what.substr(second, e.what.size() - 1 - second));
  e.what.erase(from > 0 && e.what[from - 1] == ' ' ? from - 1 : from);
  return e;
}

std::string joined(const std::vector<std::string>& words, const char* between) {
  std::string out;
  for (const auto& w : words) out += (out.empty() ? "" : between) + w;
  return out;
}
std::string upper(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return s;
}

std::string shell_word(const std::string& word) {
  static constexpr const char* kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string Self::command(const std::vector<std::string>& words) const {
  std::string out = shell_word(program);
  if (!home.empty()) out += " --home " + shell_word(home);
  for (const auto& w : words) out += " " + shell_word(w);
  return out;
}
std::string Self::rewrite(const std::string& text) const {
  static constexpr std::string_view kName = "glovebox ";
  const std::string prefix = command({}) + " ";
  std::string out;
  std::size_t at = 0;
  for (std::size_t found = text.find(kName); found != std::string::npos;
       found = text.find(kName, at)) {
    const std::size_t after = found + kName.size();
    const bool begins =
        found == 0 || std::string_view(" `\n").find(text[found - 1]) != std::string_view::npos;
    const bool command_follows =
        after < text.size() && ((text[after] >= 'a' && text[after] <= 'z') || text[after] == '-');
    out += text.substr(at, found - at) + (begins && command_follows ? prefix : std::string(kName));
    at = after;
  }
  return out + text.substr(at);
}

std::string human_bytes(std::uint64_t n) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double v = static_cast<double>(n);
  std::size_t u = 0;
  while (v >= 1024 && u + 1 < std::size(kUnits)) {
    v /= 1024;
    ++u;
  }
  return u == 0 ? fmt::format("{} B", n) : fmt::format("{:.1f} {}", v, kUnits[u]);
}

Status write_out(const std::string& text) {
  Status s = write_all(STDOUT_FILENO, as_bytes(text));
  if (!s.ok()) {
    return s.error()
        .at("standard output")
        .hint("the answer is not complete: free some room, or print it elsewhere");
  }
  return s;
}

std::string progress_bar(std::uint64_t done, std::uint64_t total) {
  if (total == 0) return human_bytes(done);
  constexpr std::uint64_t kWidth = 30;
  const std::uint64_t filled = std::min(kWidth, done * kWidth / total);
  std::string bar(filled, '=');
  if (filled < kWidth) bar += ">" + std::string(kWidth - filled - 1, ' ');
  return fmt::format("[{}] {:3d} % {} of {}", bar, done * 100 / total, human_bytes(done),
                     human_bytes(total));
}

}  // namespace gbx::cli
