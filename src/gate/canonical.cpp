#include "gate/canonical.h"

#include <algorithm>
#include <numeric>

#include "base/json.h"
#include "gate/csv.h"
#include "gate/json_text.h"

namespace gbx::gate {
namespace {

// One accepted scalar: its canonical text and a key that sorts values of one column as people
// expect.
struct Scalar {
  GateReason failure = GateReason::kWrongShape;
  std::string text;
  Wide key = 0;
};

Scalar refused(GateReason why) {
  Scalar s;
  s.failure = why;
  return s;
}

Scalar accept_number(const NumberType& t, std::string_view raw) {
  if (t.integer && !integer_syntax(raw)) {
    return refused(parse_decimal(raw).ok() ? GateReason::kNotAnInteger : GateReason::kNotANumber);
  }
  const Result<Decimal> exact = parse_decimal(raw);
  if (!exact.ok()) return refused(GateReason::kNotANumber);
  const Decimal rounded = round_decimal(*exact, t.digits, t.scale);
  const Result<Wide> key = scaled_integer(rounded, t.scale);
  if (!key.ok()) return refused(GateReason::kOutOfRange);
  Wide factor = 1;
  for (int i = 0; i < t.scale; ++i) factor *= 10;
  if (*key < t.minimum * factor || *key > t.maximum * factor) {
    return refused(GateReason::kOutOfRange);
  }
  Scalar s;
  s.failure = GateReason::kNone;
  s.text = to_text(rounded);
  s.key = *key;
  return s;
}

Scalar accept_word(const std::vector<std::string>& words, std::string_view raw) {
  const auto it = std::find(words.begin(), words.end(), raw);
  if (it == words.end()) return refused(GateReason::kNotInList);
  Scalar s;
  s.failure = GateReason::kNone;
  s.text = *it;
  s.key = it - words.begin();
  return s;
}

bool is_number(const Node& n) {
  return n.kind == NodeKind::kInteger || n.kind == NodeKind::kDecimal;
}

Scalar accept_scalar(const Node& n, std::string_view raw) {
  return is_number(n) ? accept_number(n.number, raw) : accept_word(n.words, raw);
}

class Canonicaliser {
 public:
  Canonicaliser(const OutputDeclaration& d, const CanonicalLimits& limits) : limits_(limits) {
    out_.where.output = d.name;
  }

  Canonical run(const Schema& s, ByteView raw) {
    switch (s.type) {
      case OutputType::kTable:
        table(s, raw);
        break;
      case OutputType::kJson:
      case OutputType::kMetrics:
        json(s, raw);
        break;
      case OutputType::kText:
      case OutputType::kOpaque:
        if (s.bounded) {
          text(s, raw);
        } else {
          done(as_text(raw));
        }
        break;
    }
    if (!out_.ok()) {
      out_.bytes.clear();
      out_.cells.clear();
    }
    return std::move(out_);
  }

 private:
  bool bad(GateReason why, std::int64_t row = -1, std::int64_t column = -1) {
    out_.failure = why;
    out_.where.row = row;
    out_.where.column = column;
    return false;
  }
  void done(std::string_view bytes) {
    if (bytes.size() > static_cast<std::size_t>(limits_.max_bytes)) {
      bad(GateReason::kTooLarge);
      return;
    }
    out_.bytes = to_bytes(as_bytes(bytes));
    out_.failure = GateReason::kNone;
  }
  void add_cell(std::int64_t row, const Node& n, const std::string& text_value) {
    Cell c{row, n.leaf, text_value, std::nullopt};
    if (is_number(n)) c.number = n.number;
    out_.cells.push_back(std::move(c));
  }

  void table(const Schema& s, ByteView raw) {
    const std::int64_t rows = std::min(s.max_rows, limits_.max_rows);
    const CsvFile file = parse_csv(raw, {static_cast<std::size_t>(rows) + 1});
    if (file.failure != GateReason::kNone) {
      bad(file.failure, file.failed_row);
      return;
    }
    // order[i] is where the i-th declared column stands in the file.
    const auto& header = file.rows[0];
    std::vector<std::size_t> order;
    for (const auto& name : s.root.names) {
      const auto it = std::find(header.begin(), header.end(), name);
      if (it != header.end()) order.push_back(static_cast<std::size_t>(it - header.begin()));
    }
    if (order.size() != header.size() || order.size() != s.root.names.size()) {
      bad(GateReason::kWrongColumns);
      return;
    }
    std::vector<std::vector<Scalar>> values;
    for (std::size_t r = 1; r < file.rows.size(); ++r) {
      values.emplace_back();
      for (std::size_t c = 0; c < order.size(); ++c) {
        values.back().push_back(accept_scalar(s.root.children[c], file.rows[r][order[c]]));
        if (const GateReason why = values.back().back().failure; why != GateReason::kNone) {
          bad(why, static_cast<std::int64_t>(r) - 1, static_cast<std::int64_t>(c));
          return;
        }
      }
    }
    std::sort(values.begin(), values.end(), [](const auto& a, const auto& b) {
      return std::lexicographical_compare(
          a.begin(), a.end(), b.begin(), b.end(),
          [](const Scalar& x, const Scalar& y) { return x.key < y.key; });
    });
    write_table(s, values);
  }
  void write_table(const Schema& s, const std::vector<std::vector<Scalar>>& values) {
    std::string text_out;
    for (std::size_t c = 0; c < s.root.names.size(); ++c) {
      if (c != 0) text_out.push_back(',');
      append_csv_cell(text_out, s.root.names[c]);
    }
    text_out.push_back('\n');
    for (std::size_t r = 0; r < values.size(); ++r) {
      for (std::size_t c = 0; c < values[r].size(); ++c) {
        if (c != 0) text_out.push_back(',');
        append_csv_cell(text_out, values[r][c].text);
        add_cell(static_cast<std::int64_t>(r), s.root.children[c], values[r][c].text);
      }
      text_out.push_back('\n');
    }
    done(text_out);
  }

  void text(const Schema& s, ByteView raw) {
    std::string_view rest = as_text(raw);
    std::string text_out;
    for (std::int64_t row = 0; !rest.empty(); ++row) {
      if (row >= std::min(s.max_rows, limits_.max_rows)) {
        bad(GateReason::kTooManyRows, row);
        return;
      }
      const auto end = std::min(rest.find('\n'), rest.size());
      std::string_view line = rest.substr(0, end);
      if (end < rest.size() && !line.empty() && line.back() == '\r') line.remove_suffix(1);
      const Scalar v = accept_word(s.root.words, line);
      if (v.failure != GateReason::kNone) {
        bad(v.failure, row);
        return;
      }
      text_out += v.text + "\n";
      add_cell(row, s.root, v.text);
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    done(text_out);
  }

  void json(const Schema& s, ByteView raw) {
    const JsonTextFile file = parse_json_text(raw);
    if (file.failure != GateReason::kNone) {
      bad(file.failure);
      return;
    }
    std::string text_out;
    if (!write_value(s.root, file.value, next_row_++, text_out)) return;
    text_out.push_back('\n');
    done(text_out);
  }
  // Recursion is bounded by the depth of the schema.
  bool write_value(const Node& n, const JsonText& v, std::int64_t row, std::string& text_out) {
    switch (n.kind) {
      case NodeKind::kInteger:
      case NodeKind::kDecimal:
      case NodeKind::kText: {
        if (v.kind != (n.kind == NodeKind::kText ? JsonKind::kString : JsonKind::kNumber)) {
          return bad(GateReason::kWrongShape, row, n.leaf);
        }
        const Scalar s = accept_scalar(n, v.text);
        if (s.failure != GateReason::kNone) return bad(s.failure, row, n.leaf);
        text_out += n.kind == NodeKind::kText ? canonical(Json(s.text)) : s.text;
        add_cell(row, n, s.text);
        return true;
      }
      case NodeKind::kBoolean: {
        if (v.kind != JsonKind::kTrue && v.kind != JsonKind::kFalse) {
          return bad(GateReason::kWrongShape, row, n.leaf);
        }
        const std::string s = v.kind == JsonKind::kTrue ? "true" : "false";
        text_out += s;
        add_cell(row, n, s);
        return true;
      }
      case NodeKind::kObject:
        return write_object(n, v, text_out);
      case NodeKind::kArray:
        return write_array(n, v, text_out);
    }
    return bad(GateReason::kAnalyserError);
  }
  bool write_object(const Node& n, const JsonText& v, std::string& text_out) {
    if (v.kind != JsonKind::kObject) return bad(GateReason::kWrongShape, -1, n.leaf);
    if (v.keys.size() != n.names.size()) return bad(GateReason::kWrongMembers);
    std::vector<std::size_t> order(n.names.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return Utf16Less{}(n.names[a], n.names[b]); });
    const std::int64_t row = next_row_++;
    text_out.push_back('{');
    for (const std::size_t i : order) {
      const auto it = std::find(v.keys.begin(), v.keys.end(), n.names[i]);
      if (it == v.keys.end()) return bad(GateReason::kWrongMembers);
      if (text_out.back() != '{') text_out.push_back(',');
      text_out += canonical(Json(n.names[i])) + ":";
      const JsonText& child = v.children[static_cast<std::size_t>(it - v.keys.begin())];
      if (!write_value(n.children[i], child, row, text_out)) return false;
    }
    text_out.push_back('}');
    return true;
  }
  bool write_array(const Node& n, const JsonText& v, std::string& text_out) {
    if (v.kind != JsonKind::kArray) return bad(GateReason::kWrongShape);
    if (v.children.size() > static_cast<std::size_t>(std::min(n.max_items, limits_.max_rows))) {
      return bad(GateReason::kTooManyRows);
    }
    const std::int64_t row = next_row_++;
    text_out.push_back('[');
    for (std::size_t i = 0; i < v.children.size(); ++i) {
      if (i != 0) text_out.push_back(',');
      if (!write_value(n.children[0], v.children[i], row, text_out)) return false;
    }
    text_out.push_back(']');
    return true;
  }

  CanonicalLimits limits_;
  Canonical out_;
  std::int64_t next_row_ = 0;
};

}  // namespace

Canonical canonicalise(const OutputDeclaration& d, ByteView raw, CanonicalLimits limits) {
  limits.max_bytes = std::min(limits.max_bytes, d.maxBytes);
  const Result<Schema> schema = parse_schema(d);
  if (!schema.ok()) {
    Canonical out;
    out.failure = GateReason::kBadDeclaration;
    out.where.output = d.name;
    return out;
  }
  if (raw.size() > static_cast<std::size_t>(limits.max_bytes)) {
    Canonical out;
    out.failure = GateReason::kTooLarge;
    out.where.output = d.name;
    return out;
  }
  return Canonicaliser(d, limits).run(*schema, raw);
}

}  // namespace gbx::gate
