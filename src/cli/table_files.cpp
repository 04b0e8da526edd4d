#include "cli/table_files.h"

#include <algorithm>
#include <fstream>

#include "base/log.h"
#include "base/os.h"
#include "cli/csv_rows.h"
#include "cli/output.h"

namespace gbx::cli {
namespace {

Result<std::vector<std::string>> columns_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text(kMostCsvLine, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad() || (!in && !in.eof())) return fail(Reason::kIo, path);
  text.resize(static_cast<std::size_t>(in.gcount()));
  std::vector<std::string> columns;
  std::size_t at = 0;
  if (!next_csv_row(text, at, columns)) {
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
      return fail(Reason::kBadValue, "table of the policy: " + printable(t.file))
          .with("one of its columns: " + printable(joined(there, ", "), 400), printable(column));
    }
  }
  return ok_status();
}

}  // namespace gbx::cli
