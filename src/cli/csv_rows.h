// The rows of a CSV file on the owner's own disk, one at a time.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "gate/csv.h"

namespace gbx::cli {

constexpr std::size_t kMostCsvLine = 1U << 20;  // bytes of a cell, and of a line that is looked at

// Appends the cells of the line that begins at `at`, which then stands behind its end; false when
// the line is not in the subset of CSV that the gate reads.
inline bool next_csv_row(std::string_view csv, std::size_t& at, std::vector<std::string>& cells) {
  const std::size_t end = std::min(csv.find('\n', at), csv.size());
  std::string_view line = csv.substr(at, end - at);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  at = std::min(end + 1, csv.size());
  return gate::split_csv_line(line, {0, 4096, kMostCsvLine}, cells);
}

}  // namespace gbx::cli
