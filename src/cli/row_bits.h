// How many bits one row of somebody's data holds, so that bits that leave can be shown as rows. The
// files are the owner's own and are read here, before anything is encrypted.
#pragma once

#include <string>

#include "base/result.h"

namespace gbx::cli {

struct RowBits {
  std::string file;          // the largest CSV file, relative to the folder
  std::int64_t rows = 0;     // that were looked at
  std::int64_t bits = 0;     // the least of the three, at least 1
  std::int64_t columns = 0;  // by each column's alphabet
  std::int64_t zlib = 0;     // by compressing the rows
  std::int64_t xz = 0;       // the same with what remembers more of them, for the first 8 MiB
};
// Rounded down: a row that holds less makes more rows of the bits that leave. kNotFound where no
// file ends in .csv; kBadValue where the largest one is no CSV file with a row, or has a line break
// in a cell. At most its first 64 MiB are looked at.
Result<RowBits> measure_row_bits(const std::string& folder);
// The same of one file's bytes.
Result<RowBits> row_bits_of(std::string_view csv);

}  // namespace gbx::cli
