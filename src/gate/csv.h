// A strict reader of RFC 4180 in a subset, for hostile bytes: UTF-8 without control characters,
// commas, quotes only around a whole cell, no line break inside a cell, LF or CRLF, no empty line,
// every row as long as the first.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "gate/records.h"

namespace gbx::gate {

struct CsvLimits {
  std::size_t max_rows = 0;  // the header counts
  std::size_t max_columns = 256;
  std::size_t max_cell = 1024;
};
struct CsvFile {
  GateReason failure = GateReason::kBadCsv;  // kNone when the file was read
  std::int64_t failed_row = -1;
  std::vector<std::vector<std::string>> rows;
};
// Failures: kBadEncoding, kBadCsv, kTooManyRows.
CsvFile parse_csv(ByteView bytes, CsvLimits limits);
// Appends the cells of one line without its end; false when it is not in the subset.
bool split_csv_line(std::string_view line, const CsvLimits& limits,
                    std::vector<std::string>& cells);
// One cell as it is written: quoted only where it must be.
void append_csv_cell(std::string& out, std::string_view cell);

}  // namespace gbx::gate
