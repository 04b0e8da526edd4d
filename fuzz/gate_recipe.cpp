// Recipes and the inputs that they are computed from: a line of JSON with the declaration, then the
// input's bytes. Whatever is computed is the same however the bytes arrive, and fits its own table
// or is none.
#include <algorithm>

#include "fuzz/fuzz.h"
#include "gate/differences.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;
using namespace gbx::gate;

RecomputedTable compute(const Schema& s, ByteView input, std::size_t chunk) {
  constexpr CellLimits kLimits{.rows = 2000,
                               .line_bytes = 4096,
                               .columns = 64,
                               .subjects = 500,
                               .subject_bytes = 10'000,
                               .subject_cells = 1000};
  CellCounter counter({{&*s.recipe, &s, "who", 3}}, kLimits);
  for (std::size_t at = 0; at < input.size(); at += chunk) {
    counter.feed(input.subspan(at, std::min(chunk, input.size() - at)));
  }
  auto tables = counter.finish();
  require(tables.size() == 1);
  return std::move(tables[0]);
}

void check_facts(const Schema& s, const RecomputedTable& t) {
  require(t.cells.size() == s.recipe->cell_count);
  for (std::size_t n = 0; n < t.cells.size(); ++n) {
    const CellFacts& c = t.cells[n];
    require(c.subjects.empty() == (c.rows == 0) && c.subjects.size() <= c.rows);
    require(std::is_sorted(c.subjects.begin(), c.subjects.end()));
    require(c.left_out <= 3);
    require(!s.recipe->structural_zeros[n] || c.rows == 0);
  }
  DifferenceSteps steps;
  require(!differ_by_few(t, t, 3, steps) || t.cells.size() > 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 1);
  const std::size_t line = in.text().find('\n');
  if (line == std::string_view::npos) return 0;
  const auto declaration = from_json_text<OutputDeclaration>(in.text().substr(0, line));
  if (!declaration.ok()) return 0;
  const auto schema = parse_schema(*declaration);
  if (!schema.ok() || !schema->recipe) return 0;
  if (schema->recipe->cell_count > 500) return 0;
  const ByteView input = in.bytes.subspan(line + 1);
  const RecomputedTable t = compute(*schema, input, input.size() + 1);
  const RecomputedTable again = compute(*schema, input, 5);
  require(t.failure == again.failure && t.csv == again.csv);
  if (!t.ok()) return 0;
  check_facts(*schema, t);
  const Canonical first = canonicalise(*declaration, t.csv);
  if (!first.ok()) return 0;
  const Canonical second = canonicalise(*declaration, first.bytes);
  require(second.ok() && second.bytes == first.bytes);
  return 0;
}
