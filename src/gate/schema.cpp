#include "gate/schema.h"

#include <algorithm>
#include <set>

#include "base/printable.h"

namespace gbx::gate {
namespace {

constexpr int kMaxDepth = 8;
constexpr std::size_t kMaxMembers = 256;
constexpr std::size_t kMaxWords = 4096;
constexpr std::size_t kMaxLeaves = 4096;
constexpr std::size_t kMaxAllWords = 20'000;
constexpr std::int64_t kMaxBits = std::int64_t{1} << 40;
constexpr const char* kTypes = "integer, decimal, text, boolean, object or array";

// Errors name the member by its path below the schema: "columns[2].minimum".
Error below(Error e, const std::string& outer) {
  e.what = join_path(outer, e.what);
  return e;
}
std::string entry(const char* list, std::size_t i) {
  return std::string(list) + "[" + std::to_string(i) + "]";
}
std::string shown(const Json& j) {
  return j.string() != nullptr ? j.string()->substr(0, 64) : json_kind(j);
}

Status only(const JsonObject& o, std::initializer_list<std::string_view> known) {
  for (const auto& [k, unused] : o) {
    if (std::find(known.begin(), known.end(), k) != known.end()) continue;
    std::string list;
    for (const auto word : known) list += (list.empty() ? "" : ", ") + std::string(word);
    const std::string bounded = k.substr(0, 64);
    return fail(Reason::kUnknownField, bounded)
        .with(list.empty() ? "no members" : "one of " + list, bounded);
  }
  return ok_status();
}
Error missing(const char* name, const std::string& expected) {
  return fail(Reason::kMissingField, name).with(expected, "nothing");
}

Result<std::int64_t> integer(const JsonObject& o, const char* name, std::int64_t least,
                             std::int64_t most, std::optional<std::int64_t> otherwise = {}) {
  const std::string range =
      "an integer from " + std::to_string(least) + " to " + std::to_string(most);
  const auto it = o.find(std::string_view(name));
  if (it == o.end()) {
    if (otherwise) return *otherwise;
    return missing(name, range);
  }
  const std::int64_t* v = it->second.integer();
  if (v == nullptr) return fail(Reason::kBadValue, name).with(range, json_kind(it->second));
  if (*v < least || *v > most) return fail(Reason::kBadValue, name).with(range, std::to_string(*v));
  return *v;
}

// Text that a header, a key or a word may hold: valid UTF-8, nothing that is not seen, no space at
// its ends.
bool plain_text(const std::string& s, std::size_t limit) {
  if (s.empty() || s.size() > limit || !valid_utf8(s)) return false;
  if (s.front() == ' ' || s.back() == ' ') return false;
  return printable_whole(s) == s;
}

enum class Allowed { kAnything, kScalars, kNumbers };

class SchemaParser {
 public:
  Result<Node> node(const Json& j, int depth, bool named) {
    const JsonObject* o = j.object();
    if (o == nullptr) return fail(Reason::kBadValue).with("an object with a type", json_kind(j));
    if (depth > kMaxDepth) {
      return fail(Reason::kTooLarge)
          .with("at most " + std::to_string(kMaxDepth) + " levels", "more");
    }
    const Json* type = j.find("type");
    if (type == nullptr) return missing("type", kTypes);
    const std::string* t = type->string();
    if (t == nullptr) return fail(Reason::kBadValue, "type").with(kTypes, json_kind(*type));
    if (*t == "integer" || *t == "decimal") return number(*o, *t == "integer", named);
    if (*t == "text") return text(*o, named);
    if (*t == "boolean") return boolean(*o, named);
    if (*t == "object") return object(*o, depth, named);
    if (*t == "array") return array(*o, depth, named);
    return fail(Reason::kBadValue, "type").with(kTypes, t->substr(0, 32));
  }

  Result<std::vector<std::string>> words(const JsonObject& o) {
    const std::string wanted = "a list of 1 to " + std::to_string(kMaxWords) + " words";
    const auto it = o.find(std::string_view("enum"));
    if (it == o.end()) return missing("enum", wanted);
    const JsonArray* a = it->second.array();
    if (a == nullptr) return fail(Reason::kBadValue, "enum").with(wanted, json_kind(it->second));
    if (a->empty() || a->size() > kMaxWords) {
      return fail(Reason::kBadValue, "enum").with(wanted, std::to_string(a->size()) + " words");
    }
    std::vector<std::string> out;
    std::set<std::string> seen;
    for (std::size_t i = 0; i < a->size(); ++i) {
      const Json& w = (*a)[i];
      const std::string* s = w.string();
      if (s == nullptr || !plain_text(*s, 256)) {
        return fail(Reason::kBadValue, entry("enum", i))
            .with("1 to 256 bytes of plain text without spaces at its ends", shown(w));
      }
      if (!seen.insert(*s).second) {
        return fail(Reason::kBadValue, entry("enum", i)).with("a word not used before", *s);
      }
      out.push_back(*s);
    }
    all_words_ += out.size();
    if (all_words_ > kMaxAllWords) {
      return fail(Reason::kTooLarge, "enum")
          .with("at most " + std::to_string(kMaxAllWords) + " words in the whole schema",
                std::to_string(all_words_));
    }
    return out;
  }

  // The members of `o`'s list `key`, each an object with a name and a node.
  Result<Node> members(const JsonObject& o, const char* key, int depth, Allowed allowed) {
    const std::string wanted =
        "a list of 1 to " + std::to_string(kMaxMembers) + " objects with name and type";
    const auto it = o.find(std::string_view(key));
    if (it == o.end()) return missing(key, wanted);
    const JsonArray* a = it->second.array();
    if (a == nullptr) return fail(Reason::kBadValue, key).with(wanted, json_kind(it->second));
    if (a->empty() || a->size() > kMaxMembers) {
      return fail(Reason::kBadValue, key).with(wanted, std::to_string(a->size()) + " of them");
    }
    Node out;
    out.kind = NodeKind::kObject;
    std::set<std::string> seen;
    for (std::size_t i = 0; i < a->size(); ++i) {
      auto m = member((*a)[i], depth, allowed, seen);
      if (!m.ok()) return below(m.error(), entry(key, i));
      out.names.push_back(std::move(m->first));
      out.children.push_back(std::move(m->second));
    }
    return out;
  }

 private:
  Result<std::pair<std::string, Node>> member(const Json& m, int depth, Allowed allowed,
                                              std::set<std::string>& seen) {
    if (m.object() == nullptr) {
      return fail(Reason::kBadValue).with("an object with name and type", json_kind(m));
    }
    const char* wanted = "1 to 128 bytes of plain text without spaces at its ends";
    const Json* name = m.find("name");
    if (name == nullptr) return missing("name", wanted);
    const std::string* s = name->string();
    if (s == nullptr || !plain_text(*s, 128)) {
      return fail(Reason::kBadValue, "name").with(wanted, shown(*name));
    }
    if (!seen.insert(*s).second) {
      return fail(Reason::kBadValue, "name").with("a name not used before", *s);
    }
    GBX_ASSIGN(Node child, node(m, depth + 1, true));
    const NodeKind k = child.kind;
    const bool is_number = k == NodeKind::kInteger || k == NodeKind::kDecimal;
    const bool fits = allowed == Allowed::kAnything || is_number ||
                      (allowed == Allowed::kScalars && k == NodeKind::kText);
    if (!fits) {
      return fail(Reason::kBadValue, "type")
          .with(allowed == Allowed::kNumbers ? "integer or decimal" : "integer, decimal or text",
                m.find("type")->string()->substr(0, 32));
    }
    return std::pair<std::string, Node>(*s, std::move(child));
  }
  Status leaf(Node& n) {
    n.leaf = leaves_++;
    if (n.leaf >= static_cast<std::int64_t>(kMaxLeaves)) {
      return fail(Reason::kTooLarge)
          .with("at most " + std::to_string(kMaxLeaves) + " values in a schema", "more");
    }
    return ok_status();
  }
  Result<Node> number(const JsonObject& o, bool is_integer, bool named) {
    if (is_integer) {
      GBX_TRY(only(o, {"type", named ? "name" : "type", "minimum", "maximum", "digits"}));
    } else {
      GBX_TRY(only(o, {"type", named ? "name" : "type", "minimum", "maximum", "digits", "scale"}));
    }
    Node n;
    n.kind = is_integer ? NodeKind::kInteger : NodeKind::kDecimal;
    n.number.integer = is_integer;
    GBX_ASSIGN(n.number.minimum, integer(o, "minimum", -kMaxJsonInteger, kMaxJsonInteger));
    GBX_ASSIGN(n.number.maximum, integer(o, "maximum", n.number.minimum, kMaxJsonInteger));
    // An integer's range is its declaration of digits; a decimal keeps three unless more are
    // declared.
    GBX_ASSIGN(const std::int64_t digits, integer(o, "digits", 1, 15, is_integer ? 0 : 3));
    GBX_ASSIGN(const std::int64_t scale, integer(o, "scale", 0, 9, is_integer ? 0 : 3));
    n.number.digits = static_cast<int>(digits);
    n.number.scale = static_cast<int>(scale);
    GBX_TRY(leaf(n));
    return n;
  }
  Result<Node> text(const JsonObject& o, bool named) {
    GBX_TRY(only(o, {"type", named ? "name" : "type", "enum"}));
    Node n;
    n.kind = NodeKind::kText;
    GBX_ASSIGN(n.words, words(o));
    GBX_TRY(leaf(n));
    return n;
  }
  Result<Node> boolean(const JsonObject& o, bool named) {
    GBX_TRY(only(o, {"type", named ? "name" : "type"}));
    Node n;
    GBX_TRY(leaf(n));
    return n;
  }
  Result<Node> object(const JsonObject& o, int depth, bool named) {
    GBX_TRY(only(o, {"type", named ? "name" : "type", "members"}));
    return members(o, "members", depth, Allowed::kAnything);
  }
  Result<Node> array(const JsonObject& o, int depth, bool named) {
    GBX_TRY(only(o, {"type", named ? "name" : "type", "items", "maxItems"}));
    Node n;
    n.kind = NodeKind::kArray;
    GBX_ASSIGN(n.max_items, integer(o, "maxItems", 0, kHardMaxRows));
    const auto it = o.find(std::string_view("items"));
    if (it == o.end()) return missing("items", "an object with a type");
    auto item = node(it->second, depth + 1, false);
    if (!item.ok()) return below(item.error(), "items");
    n.children.push_back(std::move(*item));
    return n;
  }

  std::int64_t leaves_ = 0;
  std::size_t all_words_ = 0;
};

// Bits in units of 2^-32, at most kMaxBits.
Result<UWide> checked(UWide q32) {
  if ((q32 >> 32) > static_cast<UWide>(kMaxBits)) {
    return fail(Reason::kTooLarge, "the schema admits too many values")
        .with("at most " + std::to_string(kMaxBits) + " bits", "more");
  }
  return q32;
}

Result<UWide> node_bits(const Node& n) {
  switch (n.kind) {
    case NodeKind::kInteger:
    case NodeKind::kDecimal: {
      const UWide size = alphabet_size(n.number);
      if (size == 0) {
        return fail(Reason::kBadValue, "no value lies between minimum and maximum")
            .with("a range with a value of so many digits",
                  std::to_string(n.number.minimum) + " to " + std::to_string(n.number.maximum));
      }
      return UWide{log2_upper_q32(size)};
    }
    case NodeKind::kText:
      return UWide{log2_upper_q32(n.words.size())};
    case NodeKind::kBoolean:
      return UWide{1} << 32;
    case NodeKind::kObject: {
      UWide sum = 0;
      for (const Node& c : n.children) {
        GBX_ASSIGN(const UWide b, node_bits(c));
        GBX_ASSIGN(sum, checked(sum + b));
      }
      return sum;
    }
    case NodeKind::kArray: {
      GBX_ASSIGN(const UWide item, node_bits(n.children[0]));
      const auto items = static_cast<UWide>(n.max_items);
      return checked(log2_upper_q32(items + 1) + items * item);
    }
  }
  return fail(Reason::kInternal, "schema node");
}

std::int64_t ceil_bits(UWide q32) { return static_cast<std::int64_t>((q32 + 0xffffffffU) >> 32); }

}  // namespace

std::uint64_t log2_upper_q32(UWide n) {
  int length = 0;
  for (UWide v = n; v > 1; v >>= 1) ++length;
  // The mantissa in [1, 2) as Q63, every step rounded up.
  UWide y = 0;
  if (length <= 63) {
    y = n << (63 - length);
  } else {
    const int drop = length - 63;
    y = (n + ((UWide{1} << drop) - 1)) >> drop;
  }
  const UWide one = UWide{1} << 63;
  if (y >= 2 * one) {  // rounded up to the next power of two
    y = one;
    ++length;
  }
  std::uint64_t fraction = 0;
  for (int i = 0; i < 32; ++i) {
    // y < 2 holds throughout: (2 - 2^-63)^2 / 2, rounded up, is 2 - 2^-63 again.
    fraction <<= 1;
    y = (y * y + (one - 1)) >> 63;
    if (y >= 2 * one) {
      fraction |= 1;
      y = (y + 1) >> 1;
    }
  }
  return (static_cast<std::uint64_t>(length) << 32) + fraction + (y == one ? 0 : 1);
}

Result<Schema> parse_schema(const OutputDeclaration& d) {
  Schema s;
  s.type = d.type;
  const JsonObject* o = d.schema.object();
  if (o == nullptr) return fail(Reason::kBadValue).with("an object", json_kind(d.schema));
  SchemaParser parser;
  switch (d.type) {
    case OutputType::kTable: {
      GBX_TRY(only(*o, {"columns", "maxRows", "recipe"}));
      GBX_ASSIGN(s.max_rows, integer(*o, "maxRows", 0, kHardMaxRows));
      GBX_ASSIGN(s.root, parser.members(*o, "columns", 1, Allowed::kScalars));
      s.bounded = true;
      if (const Json* recipe = d.schema.find("recipe"); recipe != nullptr) {
        auto bound = parse_recipe(*recipe, s);
        if (!bound.ok()) return below(bound.error(), "recipe");
        s.recipe = std::move(*bound);
      }
      return s;
    }
    case OutputType::kMetrics: {
      GBX_TRY(only(*o, {"fields"}));
      GBX_ASSIGN(s.root, parser.members(*o, "fields", 1, Allowed::kNumbers));
      s.bounded = true;
      return s;
    }
    case OutputType::kJson: {
      GBX_ASSIGN(s.root, parser.node(d.schema, 1, false));
      s.bounded = true;
      return s;
    }
    case OutputType::kText: {
      if (o->empty()) return s;
      GBX_TRY(only(*o, {"enum", "maxLines"}));
      GBX_ASSIGN(s.max_rows, integer(*o, "maxLines", 0, kHardMaxRows));
      s.root.kind = NodeKind::kText;
      s.root.leaf = 0;
      GBX_ASSIGN(s.root.words, parser.words(*o));
      s.bounded = true;
      return s;
    }
    case OutputType::kOpaque:
      GBX_TRY(only(*o, {}));
      return s;
  }
  return fail(Reason::kInternal, "output type");
}

namespace {

Result<Capacity> capacity_of(const Schema& s, const OutputDeclaration& d) {
  Capacity c;
  if (!s.bounded) {
    c.bits = 8 * d.maxBytes + ceil_bits(log2_upper_q32(static_cast<UWide>(d.maxBytes) + 1));
    return c;
  }
  GBX_ASSIGN(const UWide one, node_bits(s.root));
  UWide all = one;
  if (s.type == OutputType::kTable || s.type == OutputType::kText) {
    const auto rows = static_cast<UWide>(s.max_rows);
    // Fixed length, so self-delimiting: the number of rows, then every row. Sorting is not
    // subtracted.
    GBX_ASSIGN(all, checked(log2_upper_q32(rows + 1) + rows * one));
  }
  c.bits = ceil_bits(all);
  return c;
}

}  // namespace

Result<Capacity> capacity(const OutputDeclaration& d) {
  GBX_ASSIGN(const Schema s, parse_schema(d));
  return capacity_of(s, d);
}

std::int64_t consumer_log_bytes(const GateRequest& r) {
  if (r.logs.visibility != LogVisibility::kConsumer) return 0;
  return std::min(r.logs.maxBytes, r.policy.maxConsumerLogBytes);
}

std::optional<Explained> explained_by(const Schema& s, const std::vector<GateInput>& inputs) {
  if (!s.recipe) return std::nullopt;
  for (const GateInput& i : inputs) {
    if (i.name != s.recipe->recipe.input) continue;
    for (const GateTable& t : i.tables) {
      if (t.file == s.recipe->recipe.file) return Explained{&i, &t};
    }
  }
  return std::nullopt;
}

namespace {

// By the column that names them, a filter or a group could pick subjects one by one.
Status check_recipe(const Recipe& r, const std::vector<GateInput>& inputs,
                    const std::optional<Explained>& by) {
  const bool known = std::any_of(inputs.begin(), inputs.end(),
                                 [&](const GateInput& i) { return i.name == r.input; });
  if (!known) {
    return fail(Reason::kBadValue, "schema.recipe.input").with("the name of an input", r.input);
  }
  if (!by) return ok_status();
  bool read = false;
  for (const auto& f : r.filter.value_or(std::vector<RecipeFilter>{})) {
    read = read || f.column == by->table->subject;
  }
  for (const auto& g : r.group_by.value_or(std::vector<RecipeGroup>{})) {
    read = read || g.column == by->table->subject;
  }
  for (const auto& m : r.measures) read = read || m.column == by->table->subject;
  if (!read) return ok_status();
  return fail(Reason::kBadValue, "schema.recipe")
      .with("no use of the column that names subjects, but to count them", by->table->subject);
}

// The rules between tables compare what is in one file of one input. Two files of an asset, or one
// under two inputs, or two of its versions, can be the same people in tables that nobody compares.
Status one_file_of_each_asset(const std::vector<Explained>& read) {
  for (const Explained& a : read) {
    for (const Explained& b : read) {
      const bool one_input = a.input->name == b.input->name;
      if (a.table == b.table) continue;
      if (!one_input && (a.input->assetId.empty() || a.input->assetId != b.input->assetId)) {
        continue;
      }
      return fail(Reason::kBadValue, "schema.recipe.input, schema.recipe.file")
          .with("one file of each asset that recipes read",
                a.input->name + "/" + a.table->file + ", " + b.input->name + "/" + b.table->file);
    }
  }
  return ok_status();
}

}  // namespace

Result<Charge> job_charge(const std::vector<OutputDeclaration>& outputs,
                          const std::vector<GateInput>& inputs, std::int64_t log_bytes) {
  const std::int64_t log = std::clamp<std::int64_t>(log_bytes, 0, kHardMaxLogBytes);
  Charge c;
  c.freeBits = kControlBits;
  if (log > 0) c.freeBits += 8 * log + ceil_bits(log2_upper_q32(static_cast<UWide>(log) + 1));
  std::vector<Explained> read;  // by the recipes of tables that are computed
  for (const auto& o : outputs) {
    const Result<Schema> schema = parse_schema(o);
    const Result<Capacity> cap =
        schema.ok() ? capacity_of(*schema, o) : Result<Capacity>(schema.error());
    if (!cap.ok()) return Error(cap.error()).at("output " + o.name);
    const auto by = explained_by(*schema, inputs);
    if (schema->recipe) {
      const Status fits = check_recipe(schema->recipe->recipe, inputs, by);
      if (!fits.ok()) return Error(fits.error()).at("output " + o.name);
    }
    if (by) read.push_back(*by);
    (by ? c.verifiedBits : c.freeBits) += cap->bits;
    c.code = cap->code;
  }
  GBX_TRY(one_file_of_each_asset(read));
  return c;
}

Result<Charge> release_charge(const GateRequest& r) {
  static const std::vector<OutputDeclaration> kNone;
  return job_charge(r.exitClass == RunExit::kOk ? r.outputs : kNone, r.inputs,
                    consumer_log_bytes(r));
}

}  // namespace gbx::gate
