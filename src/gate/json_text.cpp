#include "gate/json_text.h"

#include <set>

#include "base/json.h"

namespace gbx::gate {
namespace {

class JsonReader {
 public:
  JsonReader(std::string_view text, JsonTextLimits limits) : text_(text), limits_(limits) {}

  JsonTextFile read() {
    JsonTextFile file;
    if (value(file.value, 1) && finish()) {
      file.failure = GateReason::kNone;
    } else {
      file.failure = failure_;
      file.value = {};
    }
    return file;
  }

 private:
  bool bad(GateReason why = GateReason::kBadJson) {
    failure_ = why;
    return false;
  }
  void skip_space() {
    while (at_ < text_.size() &&
           std::string_view(" \n\r\t").find(text_[at_]) != std::string_view::npos) {
      ++at_;
    }
  }
  bool finish() {
    skip_space();
    return at_ == text_.size() || bad();
  }
  bool eat(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool word(std::string_view w) {
    if (text_.substr(at_, w.size()) != w) return false;
    at_ += w.size();
    return true;
  }

  // The depth limit bounds the recursion.
  bool value(JsonText& out, std::size_t depth) {
    if (depth > limits_.max_depth || ++values_ > limits_.max_values) return bad();
    skip_space();
    if (at_ >= text_.size()) return bad();
    const char c = text_[at_];
    if (c == '{') return object(out, depth);
    if (c == '[') return array(out, depth);
    if (c == '"') {
      out.kind = JsonKind::kString;
      return string(out.text);
    }
    if (c == '-' || (c >= '0' && c <= '9')) return number(out);
    if (word("true")) return literal(out, JsonKind::kTrue);
    if (word("false")) return literal(out, JsonKind::kFalse);
    if (word("null")) return literal(out, JsonKind::kNull);
    if (word("NaN") || word("Infinity")) return bad(GateReason::kNotANumber);
    return bad();
  }
  bool literal(JsonText& out, JsonKind kind) {
    out.kind = kind;
    return true;
  }
  // Takes what may belong to a number; parse_decimal holds it to the grammar.
  bool number(JsonText& out) {
    const std::size_t start = at_;
    while (at_ < text_.size() &&
           std::string_view("0123456789+-.eE").find(text_[at_]) != std::string_view::npos) {
      ++at_;
    }
    out.kind = JsonKind::kNumber;
    out.text = text_.substr(start, at_ - start);
    if (out.text == "-" && word("Infinity")) return bad(GateReason::kNotANumber);
    return true;
  }

  bool object(JsonText& out, std::size_t depth) {
    out.kind = JsonKind::kObject;
    ++at_;
    std::set<std::string> seen;
    skip_space();
    if (eat('}')) return true;
    while (true) {
      skip_space();
      std::string key;
      if (at_ >= text_.size() || text_[at_] != '"' || !string(key)) return bad();
      if (!seen.insert(key).second) return bad(GateReason::kDuplicateKey);
      skip_space();
      if (!eat(':')) return bad();
      out.keys.push_back(std::move(key));
      out.children.emplace_back();
      if (!value(out.children.back(), depth + 1)) return false;
      skip_space();
      if (eat('}')) return true;
      if (!eat(',')) return bad();
    }
  }
  bool array(JsonText& out, std::size_t depth) {
    out.kind = JsonKind::kArray;
    ++at_;
    skip_space();
    if (eat(']')) return true;
    while (true) {
      out.children.emplace_back();
      if (!value(out.children.back(), depth + 1)) return false;
      skip_space();
      if (eat(']')) return true;
      if (!eat(',')) return bad();
    }
  }

  bool string(std::string& out) {
    ++at_;
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == '"') return valid_utf8(out) || bad(GateReason::kBadEncoding);
      if (static_cast<unsigned char>(c) < 0x20) return bad();
      if (c != '\\') {
        out.push_back(c);
      } else if (!escape(out)) {
        return bad();
      }
    }
    return bad();
  }
  bool escape(std::string& out) {
    if (at_ >= text_.size()) return false;
    static constexpr std::string_view kNames = "\"\\/bfnrt";
    static constexpr std::string_view kValues = "\"\\/\b\f\n\r\t";
    const char c = text_[at_++];
    if (const auto i = kNames.find(c); i != std::string_view::npos) {
      out.push_back(kValues[i]);
      return true;
    }
    std::uint32_t code = 0;
    if (c != 'u' || !hex4(code) || (code >= 0xdc00 && code <= 0xdfff)) return false;
    if (code >= 0xd800 && code <= 0xdbff) {
      std::uint32_t low = 0;
      if (!word("\\u") || !hex4(low) || low < 0xdc00 || low > 0xdfff) return false;
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    append_utf8(out, code);
    return true;
  }
  bool hex4(std::uint32_t& code) {
    if (text_.size() - at_ < 4) return false;
    for (int i = 0; i < 4; ++i) {
      const char c = text_[at_++];
      int digit = -1;
      if (c >= '0' && c <= '9') digit = c - '0';
      if (c >= 'a' && c <= 'f') digit = c - 'a' + 10;
      if (c >= 'A' && c <= 'F') digit = c - 'A' + 10;
      if (digit < 0) return false;
      code = code * 16 + static_cast<std::uint32_t>(digit);
    }
    return true;
  }
  static void append_utf8(std::string& out, std::uint32_t c) {
    const auto put = [&](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (c < 0x80) {
      put(c);
    } else if (c < 0x800) {
      put(0xc0 | (c >> 6));
      put(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
      put(0xe0 | (c >> 12));
      put(0x80 | ((c >> 6) & 0x3f));
      put(0x80 | (c & 0x3f));
    } else {
      put(0xf0 | (c >> 18));
      put(0x80 | ((c >> 12) & 0x3f));
      put(0x80 | ((c >> 6) & 0x3f));
      put(0x80 | (c & 0x3f));
    }
  }

  std::string_view text_;
  JsonTextLimits limits_;
  std::size_t at_ = 0;
  std::size_t values_ = 0;
  GateReason failure_ = GateReason::kBadJson;
};

}  // namespace

JsonTextFile parse_json_text(ByteView bytes, JsonTextLimits limits) {
  const std::string_view text = as_text(bytes);
  if (!valid_utf8(text)) {
    JsonTextFile file;
    file.failure = GateReason::kBadEncoding;
    return file;
  }
  return JsonReader(text, limits).read();
}

}  // namespace gbx::gate
