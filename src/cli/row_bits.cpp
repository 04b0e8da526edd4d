#include "cli/row_bits.h"

#include <lzma.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <unordered_set>

#include "cli/csv_rows.h"
#include "gate/schema.h"

namespace gbx::cli {
namespace {

constexpr std::size_t kMostBytes = 64U << 20;
constexpr std::size_t kMostXzBytes = 8U << 20;  // it is slow
constexpr std::size_t kMostWords = 100'000;     // more are as good as all different
constexpr int kMostDecimals = 9;

// What is seen of one column, which is enough to say how many values it has room for.
class Column {
 public:
  void see(const std::string& cell) {
    if (words_.size() < kMostWords) words_.insert(cell);
    if (!numbers_) return;
    if (cell.empty()) {
      empty_ = true;
      return;
    }
    const auto number = gate::parse_decimal(cell);
    const double value = std::strtod(cell.c_str(), nullptr);
    numbers_ = number.ok() && number->exponent >= -kMostDecimals && std::isfinite(value);
    if (!numbers_) return;
    least_ = seen_ ? std::min(least_, value) : value;
    most_ = seen_ ? std::max(most_, value) : value;
    decimals_ = std::max(decimals_, -number->exponent);
    seen_ = true;
  }
  // log2 of the numbers from the least to the most with so many decimals, or of the words.
  double bits() const {
    const double words = std::log2(static_cast<double>(std::max<std::size_t>(words_.size(), 1)));
    if (!numbers_ || !seen_) return words;
    const double values = (most_ - least_) * std::pow(10.0, decimals_) + 1 + (empty_ ? 1 : 0);
    if (!std::isfinite(values)) return words;  // more room than a double can say
    // Few numbers that recur, such as codes, are words.
    return words_.size() * 20 < count_ ? std::min(words, std::log2(values)) : std::log2(values);
  }
  void count() { ++count_; }

 private:
  std::unordered_set<std::string> words_;
  std::size_t count_ = 0;
  bool numbers_ = true;
  bool seen_ = false;
  bool empty_ = false;
  double least_ = 0;
  double most_ = 0;
  int decimals_ = 0;
};

// A double that no integer holds must not be made one.
std::int64_t per_row(double bits) {
  return std::isfinite(bits) ? static_cast<std::int64_t>(std::clamp(bits, 1.0, 1e9)) : 1;
}

// How many bytes a compressor makes of the rows.
Result<std::size_t> zlib_bytes(std::string_view rows) {
  uLongf packed = compressBound(rows.size());
  Bytes buffer(packed);
  // SAFETY: zlib reads rows.size() bytes and writes at most `packed`, the size of the buffer.
  const int done = compress2(buffer.data(), &packed, reinterpret_cast<const Bytef*>(rows.data()),
                             rows.size(), Z_BEST_COMPRESSION);
  if (done != Z_OK) return fail(Reason::kInternal, "zlib");
  return packed;
}
Result<std::size_t> xz_bytes(std::string_view rows) {
  Bytes buffer(lzma_stream_buffer_bound(rows.size()));
  std::size_t packed = 0;
  // A window of 8 MiB, as large as what is looked at; the larger ones take half a gigabyte.
  constexpr std::uint32_t kPreset = 6 | LZMA_PRESET_EXTREME;
  // SAFETY: liblzma reads rows.size() bytes and writes at most buffer.size() of them.
  const lzma_ret done = lzma_easy_buffer_encode(kPreset, LZMA_CHECK_NONE, nullptr,
                                                reinterpret_cast<const std::uint8_t*>(rows.data()),
                                                rows.size(), buffer.data(), &packed, buffer.size());
  if (done != LZMA_OK) return fail(Reason::kInternal, "liblzma");
  return packed;
}
// What the first rows hold each, in so many bytes at most.
Result<std::int64_t> first_rows(std::string_view rows) {
  if (rows.size() > kMostXzBytes) rows = rows.substr(0, rows.rfind('\n', kMostXzBytes) + 1);
  if (rows.empty()) return per_row(1e9);  // one row longer than all that
  const auto lines = std::count(rows.begin(), rows.end(), '\n') + (rows.back() == '\n' ? 0 : 1);
  GBX_ASSIGN(const std::size_t packed, xz_bytes(rows));
  return per_row(8.0 * static_cast<double>(packed) / static_cast<double>(lines));
}

Error no_csv(const std::string& what, const std::string& actual) {
  return fail(Reason::kBadValue, what)
      .with("a CSV file with a header and rows, without line breaks in cells", actual)
      .hint("write rowBits into the policy by hand: docs/policy.md");
}

}  // namespace

Result<RowBits> row_bits_of(std::string_view csv) {
  std::vector<Column> columns;
  RowBits out;
  std::size_t body = 0;
  for (std::size_t at = 0; at < csv.size();) {
    std::vector<std::string> cells;
    const bool read = next_csv_row(csv, at, cells);
    const bool header = columns.empty();
    if (!read || (!header && cells.size() != columns.size())) {
      return no_csv("line " + std::to_string(out.rows + 1), "another one");
    }
    if (header) {
      columns.resize(cells.size());
      body = at;
      continue;
    }
    ++out.rows;
    for (std::size_t c = 0; c < cells.size(); ++c) {
      columns[c].count();
      columns[c].see(cells[c]);
    }
  }
  if (out.rows == 0) return no_csv("rows", "none");
  double bits = 0;
  for (const Column& c : columns) bits += c.bits();
  const std::string_view rows = csv.substr(body);
  GBX_ASSIGN(const std::size_t packed, zlib_bytes(rows));
  out.columns = per_row(bits);
  out.zlib = per_row(8.0 * static_cast<double>(packed) / static_cast<double>(out.rows));
  GBX_ASSIGN(out.xz, first_rows(rows));
  out.bits = std::min({out.columns, out.zlib, out.xz});
  return out;
}

Result<RowBits> measure_row_bits(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path largest;
  std::uintmax_t size = 0;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code unreadable;
    if (!it->is_regular_file(unreadable) || it->is_symlink(unreadable)) continue;
    if (it->path().extension() != ".csv") continue;
    const std::uintmax_t n = it->file_size(unreadable);
    if (unreadable || (!largest.empty() && (n < size || (n == size && it->path() > largest)))) {
      continue;
    }
    largest = it->path();
    size = n;
  }
  if (error) return fail(Reason::kIo, folder).with("a folder", error.message());
  if (largest.empty()) {
    return fail(Reason::kNotFound, folder)
        .with("a file whose name ends in .csv", "none")
        .hint("write rowBits into the policy by hand: docs/policy.md");
  }
  std::ifstream in(largest, std::ios::binary);
  std::string text(static_cast<std::size_t>(std::min<std::uintmax_t>(size, kMostBytes)), '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!in) return fail(Reason::kIo, largest.string());
  if (text.size() < size) text.resize(text.rfind('\n') + 1);  // whole lines
  Result<RowBits> out = row_bits_of(text);
  if (!out.ok()) return out.error().at(largest.string());
  out->file = fs::relative(largest, folder, error).string();
  return out;
}

}  // namespace gbx::cli
