#include "base/json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace gbx {

namespace {

// Decodes one code point of valid UTF-8 and advances; on bad input consumes a byte.
std::uint32_t next_code_point(std::string_view s, std::size_t& i) {
  const auto at = [&](std::size_t k) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(s[k]));
  };
  const std::uint32_t b = at(i);
  std::size_t n = b < 0x80 ? 1 : b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : b >= 0xc0 ? 2 : 1;
  if (i + n > s.size()) n = 1;
  std::uint32_t cp = n == 1 ? b : n == 2 ? (b & 0x1f) : n == 3 ? (b & 0x0f) : (b & 0x07);
  for (std::size_t k = 1; k < n; ++k) cp = cp << 6 | (at(i + k) & 0x3f);
  i += n;
  return cp;
}

// Maps a code point to a key whose integer order is the order of its UTF-16 code units.
std::uint32_t utf16_rank(std::uint32_t cp) {
  if (cp >= 0x10000) return 0xd800U + (cp - 0x10000);  // surrogates sort from D800
  if (cp >= 0xe000) return cp + 0x100000U;             // behind every surrogate pair
  return cp;
}

}  // namespace

bool Utf16Less::operator()(std::string_view a, std::string_view b) const {
  std::size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    const std::uint32_t x = utf16_rank(next_code_point(a, i));
    const std::uint32_t y = utf16_rank(next_code_point(b, j));
    if (x != y) return x < y;
  }
  return i == a.size() && j < b.size();
}

const Json* Json::find(std::string_view key) const {
  const JsonObject* o = object();
  if (o == nullptr) return nullptr;
  const auto it = o->find(key);
  return it == o->end() ? nullptr : &it->second;
}
Json& Json::operator[](std::string_view key) {
  if (is_null()) v_ = JsonObject{};
  return std::get<JsonObject>(v_)[std::string(key)];
}
void Json::push_back(Json v) {
  if (is_null()) v_ = JsonArray{};
  std::get<JsonArray>(v_).push_back(std::move(v));
}

bool valid_utf8(std::string_view s) {
  std::size_t i = 0;
  while (i < s.size()) {
    const auto b = static_cast<unsigned char>(s[i]);
    std::size_t n = b < 0x80                  ? 1
                    : (b >= 0xc2 && b < 0xe0) ? 2
                    : (b >= 0xe0 && b < 0xf0) ? 3
                    : (b >= 0xf0 && b < 0xf5) ? 4
                                              : 0;
    if (n == 0 || i + n > s.size()) return false;
    for (std::size_t k = 1; k < n; ++k) {
      if ((static_cast<unsigned char>(s[i + k]) & 0xc0) != 0x80) return false;
    }
    std::size_t j = i;
    const std::uint32_t cp = next_code_point(s, j);
    if ((n == 3 && cp < 0x800) || (n == 4 && (cp < 0x10000 || cp > 0x10ffff)) ||
        (cp >= 0xd800 && cp < 0xe000)) {
      return false;
    }
    i += n;
  }
  return true;
}

namespace {

// Builds our value from nlohmann's SAX events: its DOM would keep the last of duplicate keys.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Builder(JsonLimits limits) : limits_(limits) {}
  bool null() override { return put(Json()); }
  bool boolean(bool v) override { return put(Json(v)); }
  bool number_integer(number_integer_t v) override {
    if (v < -kMaxJsonInteger || v > kMaxJsonInteger) {
      return stop(Reason::kBadValue, "integer beyond ±(2^53-1)");
    }
    return put(Json(static_cast<std::int64_t>(v)));
  }
  bool number_unsigned(number_unsigned_t v) override {
    if (v > static_cast<number_unsigned_t>(kMaxJsonInteger)) {
      return stop(Reason::kBadValue, "integer beyond ±(2^53-1)");
    }
    return put(Json(static_cast<std::int64_t>(v)));
  }
  bool number_float(number_float_t, const string_t&) override {
    return stop(Reason::kBadValue, "number with a fraction or exponent: only integers are signed");
  }
  bool string(string_t& v) override { return put(Json(std::move(v))); }
  bool binary(binary_t&) override { return stop(Reason::kBadJson, "binary value"); }
  bool start_object(std::size_t) override { return open(Json(JsonObject{})); }
  bool start_array(std::size_t) override { return open(Json(JsonArray{})); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& k) override {
    if (stack_.back().value.find(k) != nullptr) {
      return stop(Reason::kDuplicateKey, "key \"" + k.substr(0, 64) + "\" stands twice");
    }
    stack_.back().key = std::move(k);
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return stop(Reason::kBadJson, "not JSON at byte " + std::to_string(position));
  }
  Result<Json> result() {
    if (failed_) return error_;
    if (!done_) return fail(Reason::kBadJson, "no value");
    return std::move(root_);
  }

 private:
  struct Frame {
    Json value;
    std::string key;
  };
  bool stop(Reason r, std::string what) {
    if (!failed_) error_ = Error(r, std::move(what));
    failed_ = true;
    return false;
  }
  bool put(Json v) {
    if (++count_ > limits_.max_values) return stop(Reason::kTooLarge, "too many values");
    if (stack_.empty()) {
      root_ = std::move(v);
      done_ = true;
      return true;
    }
    Frame& top = stack_.back();
    if (auto* a = top.value.array()) {
      a->push_back(std::move(v));
    } else {
      top.value[top.key] = std::move(v);
    }
    return true;
  }
  bool open(Json v) {
    if (stack_.size() >= limits_.max_depth) return stop(Reason::kTooLarge, "nested too deeply");
    stack_.push_back({std::move(v), {}});
    return true;
  }
  bool close() {
    Json v = std::move(stack_.back().value);
    stack_.pop_back();
    return put(std::move(v));
  }
  JsonLimits limits_;
  std::vector<Frame> stack_;
  Json root_;
  Error error_;
  std::size_t count_ = 0;
  bool failed_ = false;
  bool done_ = false;
};

void quote(std::string& out, std::string_view s) {
  static constexpr char kHex[] = "0123456789abcdef";
  out.push_back('"');
  for (char c : s) {
    const auto u = static_cast<unsigned char>(c);
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (u < 0x20) {
          out += "\\u00";
          out.push_back(kHex[u >> 4]);
          out.push_back(kHex[u & 15]);
        } else {
          out.push_back(c);
        }
    }
  }
  out.push_back('"');
}

// Depth is bounded by what parse_json let in or by the code that built the value.
void write(std::string& out, const Json& v, int indent) {
  const auto newline = [&](int level) {
    if (indent >= 0) out += "\n" + std::string(static_cast<std::size_t>(level) * 2, ' ');
  };
  const int inner = indent >= 0 ? indent + 1 : -1;
  if (v.is_null()) {
    out += "null";
  } else if (const bool* b = v.boolean()) {
    out += *b ? "true" : "false";
  } else if (const std::int64_t* i = v.integer()) {
    out += std::to_string(*i);
  } else if (const std::string* s = v.string()) {
    quote(out, *s);
  } else if (const JsonArray* a = v.array()) {
    out.push_back('[');
    bool first = true;
    for (const Json& e : *a) {
      if (!first) out.push_back(',');
      first = false;
      newline(inner);
      write(out, e, inner);
    }
    if (!first) newline(indent);
    out.push_back(']');
  } else if (const JsonObject* o = v.object()) {
    out.push_back('{');
    bool first = true;
    for (const auto& [k, e] : *o) {
      if (!first) out.push_back(',');
      first = false;
      newline(inner);
      quote(out, k);
      out += indent >= 0 ? ": " : ":";
      write(out, e, inner);
    }
    if (!first) newline(indent);
    out.push_back('}');
  }
}

}  // namespace

Result<Json> parse_json(std::string_view text, JsonLimits limits) {
  if (text.size() > limits.max_bytes) {
    return fail(Reason::kTooLarge, "JSON text")
        .with("at most " + std::to_string(limits.max_bytes) + " bytes",
              std::to_string(text.size()));
  }
  if (!valid_utf8(text)) return fail(Reason::kBadJson, "text is not UTF-8");
  // nlohmann's lexer takes a NUL as the end of its input and would hide what follows; no JSON holds
  // one unescaped.
  if (text.find('\0') != std::string_view::npos) return fail(Reason::kBadJson, "text holds a NUL");
  if (text.substr(0, 3) == "\xef\xbb\xbf") {
    return fail(Reason::kBadJson, "text starts with a byte order mark");
  }
  Builder builder(limits);
  // sax_parse reports through the builder and throws nothing with this interface.
  (void)nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.result();
}

std::string canonical(const Json& value) {
  std::string out;
  write(out, value, -1);
  return out;
}
std::string pretty(const Json& value) {
  std::string out;
  write(out, value, 0);
  out.push_back('\n');
  return out;
}

}  // namespace gbx
