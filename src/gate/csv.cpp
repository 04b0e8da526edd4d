#include "gate/csv.h"

#include <algorithm>

namespace gbx::gate {

bool split_csv_line(std::string_view line, const CsvLimits& limits,
                    std::vector<std::string>& cells) {
  std::size_t i = 0;
  while (true) {
    std::string cell;
    if (i < line.size() && line[i] == '"') {
      for (++i;; ++i) {
        if (i >= line.size()) return false;
        if (line[i] == '"') {
          if (i + 1 >= line.size() || line[i + 1] != '"') break;
          ++i;
        }
        cell.push_back(line[i]);
      }
      ++i;
      if (i < line.size() && line[i] != ',') return false;
    } else {
      const std::size_t end = std::min(line.find(',', i), line.size());
      cell = line.substr(i, end - i);
      if (cell.find('"') != std::string::npos) return false;
      i = end;
    }
    if (cell.size() > limits.max_cell || cells.size() >= limits.max_columns) return false;
    cells.push_back(std::move(cell));
    if (i >= line.size()) return true;
    ++i;  // the comma
  }
}

CsvFile parse_csv(ByteView bytes, CsvLimits limits) {
  CsvFile file;
  const std::string_view text = as_text(bytes);
  const bool controls = std::any_of(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\r') || c == 0x7f;
  });
  if (controls || !valid_utf8(text)) {
    file.failure = GateReason::kBadEncoding;
    return file;
  }
  std::size_t at = 0;
  while (at < text.size()) {
    file.failed_row = static_cast<std::int64_t>(file.rows.size()) - 1;
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    if (end < text.size() && !line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty() || line.find('\r') != std::string_view::npos) return file;
    if (file.rows.size() >= limits.max_rows) {
      file.failure = GateReason::kTooManyRows;
      return file;
    }
    std::vector<std::string> cells;
    if (!split_csv_line(line, limits, cells)) return file;
    if (!file.rows.empty() && cells.size() != file.rows[0].size()) return file;
    file.rows.push_back(std::move(cells));
    at = end + 1;
  }
  if (file.rows.empty()) return file;
  file.failure = GateReason::kNone;
  file.failed_row = -1;
  return file;
}

void append_csv_cell(std::string& out, std::string_view cell) {
  if (cell.find_first_of(",\"") == std::string_view::npos) {
    out += cell;
    return;
  }
  out.push_back('"');
  for (const char c : cell) {
    if (c == '"') out.push_back('"');
    out.push_back(c);
  }
  out.push_back('"');
}

}  // namespace gbx::gate
