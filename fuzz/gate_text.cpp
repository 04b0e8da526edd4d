// What containers write and jobs declare: CSV, JSON, decimals, schemas, and the canonical form that
// may leave.
#include "fuzz/fuzz.h"
#include "gate/canonical.h"
#include "gate/csv.h"
#include "gate/json_text.h"
#include "gate/tokens.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;
using namespace gbx::gate;

void csv(ByteView bytes) {
  constexpr CsvLimits kLimits{.max_rows = 1000, .max_columns = 64, .max_cell = 256};
  const CsvFile file = parse_csv(bytes, kLimits);
  if (file.failure != GateReason::kNone) return;
  require(file.rows.size() <= kLimits.max_rows);
  std::string written;
  for (const auto& row : file.rows) {
    require(row.size() == file.rows.front().size() && row.size() <= kLimits.max_columns);
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) written += ',';
      append_csv_cell(written, row[i]);
    }
    written += '\n';
  }
  const CsvFile again = parse_csv(as_bytes(written), kLimits);
  // A row of one empty cell is an empty line, which has no other way to be written.
  if (again.failure == GateReason::kNone) require(again.rows == file.rows);
}

void json(ByteView bytes) {
  constexpr JsonTextLimits kLimits{.max_depth = 8, .max_values = 10'000};
  const JsonTextFile file = parse_json_text(bytes, kLimits);
  // Whatever the stricter parser of records takes, this one takes too.
  const auto strict = parse_json(
      as_text(bytes), JsonLimits{.max_bytes = 1U << 20, .max_depth = 8, .max_values = 10'000});
  if (strict.ok()) require(file.failure == GateReason::kNone);
}

void decimal(std::string_view text) {
  const auto value = parse_decimal(text);
  (void)number_key(text);
  if (!value.ok()) return;
  const auto again = parse_decimal(to_text(*value));
  if (again.ok()) require(*again == *value);  // plain notation can be too long to be read back
  for (const int digits : {0, 3, 15}) {
    const Decimal rounded = round_decimal(*value, digits, 3);
    require(round_decimal(rounded, digits, 3) == rounded);
  }
}

// A line of JSON with the declaration, then the container's bytes.
void declared(const Input& in) {
  const std::size_t line = in.text().find('\n');
  if (line == std::string_view::npos) return;
  const auto declaration = from_json_text<OutputDeclaration>(in.text().substr(0, line));
  if (!declaration.ok() || !parse_schema(*declaration).ok()) return;
  const auto bits = capacity(*declaration);
  require(!bits.ok() || bits->bits >= 0);
  constexpr CanonicalLimits kLimits{.max_bytes = 1 << 16, .max_rows = 1000};
  const Canonical first = canonicalise(*declaration, in.bytes.subspan(line + 1), kLimits);
  if (!first.ok()) return;
  const Canonical second = canonicalise(*declaration, first.bytes, kLimits);
  require(second.ok() && second.bytes == first.bytes && second.cells.size() == first.cells.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 4);
  switch (in.choice) {
    case 0:
      csv(in.bytes);
      break;
    case 1:
      json(in.bytes);
      break;
    case 2:
      decimal(in.text());
      break;
    default:
      declared(in);
      break;
  }
  return 0;
}
