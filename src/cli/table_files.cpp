#include "cli/table_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "base/os.h"
#include "cli/csv_rows.h"
#include "cli/output.h"

namespace gbx::cli {
namespace {

// The first bytes of a file that can be published: no link, nothing that would keep us waiting.
Result<std::string> head_of(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.valid()) return io_error(path, errno);
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return io_error(path, errno);
  if (!S_ISREG(st.st_mode)) {
    return fail(Reason::kBadValue, path).with("a CSV file", "no regular file");
  }
  Bytes head(std::min(static_cast<std::size_t>(st.st_size), kMostCsvLine));
  GBX_TRY(pread_exact(fd.get(), head, 0));
  return std::string(as_text(head));
}

Result<std::vector<std::string>> columns_of(const std::string& path) {
  GBX_ASSIGN(const std::string text, head_of(path));
  std::vector<std::string> columns;
  std::size_t at = 0;
  if (!next_csv_row(text, at, columns)) {
    return fail(Reason::kBadValue, path)
        .with("a CSV file whose first line names its columns", "another file");
  }
  return columns;
}

}  // namespace

Status check_tables(const std::string& source, const std::vector<records::TableRule>& tables) {
  struct stat st {};
  const bool alone = lstat(source.c_str(), &st) == 0 && !S_ISDIR(st.st_mode);
  const std::string leaf = source.substr(source.rfind('/') + 1);
  for (const records::TableRule& t : tables) {
    const std::string path = alone && t.file == leaf ? source : source + "/" + t.file;
    if (!path_exists(path)) {
      return fail(Reason::kNotFound, "table of the policy: " + printable(t.file))
          .with("a CSV file in " + printable(source), "no such file");
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
