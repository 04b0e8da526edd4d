#include "cli/table_files.h"

#include <algorithm>
#include <fstream>

#include "base/log.h"
#include "base/os.h"
#include "gate/csv.h"

namespace gbx::cli {
namespace {

constexpr std::size_t kMostHeader = 1U << 20;  // bytes of a first line

Result<std::vector<std::string>> columns_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text(kMostHeader, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad() || (!in && !in.eof())) return fail(Reason::kIo, path);
  text.resize(static_cast<std::size_t>(in.gcount()));
  std::string_view line = std::string_view(text).substr(0, text.find('\n'));
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  std::vector<std::string> columns;
  if (!gate::split_csv_line(line, {0, 4096, kMostHeader}, columns)) {
    return fail(Reason::kBadValue, path)
        .with("a CSV file whose first line names its columns", "another file");
  }
  return columns;
}

}  // namespace

Status check_tables(const std::string& folder, const std::vector<records::TableRule>& tables) {
  for (const records::TableRule& t : tables) {
    const std::string path = folder + "/" + t.file;
    if (!path_exists(path)) {
      return fail(Reason::kNotFound, "table of the policy: " + printable(t.file))
          .with("a CSV file in " + printable(folder), "no such file");
    }
    GBX_ASSIGN(const std::vector<std::string> there, columns_of(path));
    std::vector<std::string> named{t.subject};
    for (const auto& zero : t.structural_zeros.value_or(std::vector<records::StructuralZero>{})) {
      named.insert(named.end(), zero.columns.begin(), zero.columns.end());
    }
    for (const std::string& column : named) {
      if (std::find(there.begin(), there.end(), column) != there.end()) continue;
      std::string all;
      for (const std::string& one : there) all += (all.empty() ? "" : ", ") + one;
      return fail(Reason::kBadValue, "table of the policy: " + printable(t.file))
          .with("one of its columns: " + printable(all, 400), printable(column));
    }
  }
  return ok_status();
}

}  // namespace gbx::cli
