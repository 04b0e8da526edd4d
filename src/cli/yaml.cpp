#include "cli/yaml.h"

#include <yaml.h>

#include <algorithm>
#include <memory>

#include "base/bytes.h"
#include "base/printable.h"

namespace gbx::cli {

namespace {

constexpr std::size_t kMaxDepth = 32;
constexpr std::size_t kMaxValues = 100'000;
constexpr std::size_t kMaxBytes = 4U << 20;

struct Frame {
  Json value;
  std::string key;
  bool has_key = false;
};

std::string place(const yaml_mark_t& m) {
  return "line " + std::to_string(m.line + 1) + ", column " + std::to_string(m.column + 1);
}

bool all_digits(std::string_view s) {
  return !s.empty() && std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// An unquoted scalar by the JSON-compatible core of YAML 1.2.
Result<Json> plain_scalar(std::string_view s) {
  if (s == "true") return Json(true);
  if (s == "false") return Json(false);
  if (s == "null" || s.empty()) return Json();
  static constexpr std::string_view kAmbiguous[] = {
      "~",  "yes", "no",  "on",   "off",   "Yes",  "No",    "On",   "Off", "YES",
      "NO", "ON",  "OFF", "True", "False", "TRUE", "FALSE", "Null", "NULL"};
  if (std::find(std::begin(kAmbiguous), std::end(kAmbiguous), s) != std::end(kAmbiguous)) {
    return fail(Reason::kBadValue, "ambiguous word")
        .with("true, false, null, or a quoted string", std::string(s));
  }
  const std::string_view digits = s[0] == '-' ? s.substr(1) : s;
  if (all_digits(digits)) {
    if (digits.size() > 1 && digits[0] == '0') {
      return fail(Reason::kBadValue, "number with a leading zero")
          .with("a decimal number or a quoted string", std::string(s.substr(0, 32)));
    }
    return parse_json(s);
  }
  const bool numeric_start = (digits.size() > 1 && digits[0] == '.') ||
                             (!digits.empty() && digits[0] >= '0' && digits[0] <= '9');
  const bool float_like = numeric_start &&
                          digits.find_first_not_of("0123456789.eE+-") == std::string_view::npos &&
                          std::count(digits.begin(), digits.end(), '-') < 2 &&
                          std::count(digits.begin(), digits.end(), '.') < 2;
  if (float_like) {
    return fail(Reason::kBadValue, "number with a fraction")
        .with("an integer or a quoted string", std::string(s.substr(0, 32)));
  }
  return Json(s);
}

class Reader {
 public:
  Result<Json> run(std::string_view text) {
    yaml_parser_initialize(&parser_);
    // libyaml ends the process at a null pointer, which an empty text may have.
    if (text.data() == nullptr) text = "";
    // SAFETY: libyaml reads the text as bytes; text outlives the parser.
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()),
                                 text.size());
    auto r = loop();
    yaml_parser_delete(&parser_);
    return r;
  }

 private:
  Result<Json> loop() {
    for (;;) {
      yaml_event_t event;
      if (yaml_parser_parse(&parser_, &event) == 0) {
        return fail(Reason::kBadJson, "not YAML at " + place(parser_.problem_mark) + ": " +
                                          (parser_.problem != nullptr ? parser_.problem : "?"));
      }
      const std::unique_ptr<yaml_event_t, void (*)(yaml_event_t*)> guard(&event, yaml_event_delete);
      if (event.type == YAML_STREAM_END_EVENT) break;
      Status s = take(event);
      if (!s.ok()) return s.error().at(place(event.start_mark));
    }
    if (documents_ != 1) {
      return fail(Reason::kBadJson, "YAML").with("one document", std::to_string(documents_));
    }
    return std::move(root_);
  }

  Status take(const yaml_event_t& e) {
    switch (e.type) {
      case YAML_DOCUMENT_START_EVENT:
        ++documents_;
        return documents_ > 1 ? Status(fail(Reason::kBadJson, "more than one document"))
                              : ok_status();
      case YAML_ALIAS_EVENT:
        return fail(Reason::kBadJson, "aliases are refused");
      case YAML_SCALAR_EVENT:
        return scalar(e);
      case YAML_SEQUENCE_START_EVENT:
        if (e.data.sequence_start.anchor != nullptr || e.data.sequence_start.tag != nullptr) {
          return fail(Reason::kBadJson, "anchors and tags are refused");
        }
        return open(Json(JsonArray{}));
      case YAML_MAPPING_START_EVENT:
        if (e.data.mapping_start.anchor != nullptr || e.data.mapping_start.tag != nullptr) {
          return fail(Reason::kBadJson, "anchors and tags are refused");
        }
        return open(Json(JsonObject{}));
      case YAML_SEQUENCE_END_EVENT:
      case YAML_MAPPING_END_EVENT: {
        Json v = std::move(stack_.back().value);
        stack_.pop_back();
        return put(std::move(v));
      }
      case YAML_NO_EVENT:
      case YAML_STREAM_START_EVENT:
      case YAML_STREAM_END_EVENT:
      case YAML_DOCUMENT_END_EVENT:
        return ok_status();
    }
    return fail(Reason::kBadJson, "unknown event");
  }

  Status scalar(const yaml_event_t& e) {
    const auto& s = e.data.scalar;
    if (s.anchor != nullptr || s.tag != nullptr) {
      return fail(Reason::kBadJson, "anchors and tags are refused");
    }
    // SAFETY: libyaml gives UTF-8 bytes with their length.
    const std::string_view text(reinterpret_cast<const char*>(s.value), s.length);
    const bool key_wanted =
        !stack_.empty() && stack_.back().value.object() != nullptr && !stack_.back().has_key;
    if (key_wanted) {
      Frame& top = stack_.back();
      if (text == "<<") return fail(Reason::kBadJson, "merge keys are refused");
      if (top.value.find(text) != nullptr) {
        return fail(Reason::kDuplicateKey,
                    "key \"" + std::string(text.substr(0, 64)) + "\" stands twice");
      }
      top.key = text;
      top.has_key = true;
      return ok_status();
    }
    if (s.style != YAML_PLAIN_SCALAR_STYLE) return put(Json(text));
    GBX_ASSIGN(Json v, plain_scalar(text));
    return put(std::move(v));
  }

  Status open(Json v) {
    if (stack_.size() >= kMaxDepth) return fail(Reason::kTooLarge, "nested too deeply");
    if (!stack_.empty() && stack_.back().value.object() != nullptr && !stack_.back().has_key) {
      return fail(Reason::kBadJson, "a key must be a word");
    }
    stack_.push_back({std::move(v), {}, false});
    return ok_status();
  }

  Status put(Json v) {
    if (++count_ > kMaxValues) return fail(Reason::kTooLarge, "too many values");
    if (stack_.empty()) {
      root_ = std::move(v);
      return ok_status();
    }
    Frame& top = stack_.back();
    if (top.value.array() != nullptr) {
      top.value.push_back(std::move(v));
    } else {
      top.value[top.key] = std::move(v);
      top.has_key = false;
    }
    return ok_status();
  }

  yaml_parser_t parser_{};
  std::vector<Frame> stack_;
  Json root_;
  std::size_t count_ = 0;
  int documents_ = 0;
};

void write_yaml(std::string& out, const Json& v, int level, bool inline_start) {
  const std::string pad(static_cast<std::size_t>(level) * 2, ' ');
  if (const JsonObject* o = v.object(); o != nullptr && !o->empty()) {
    bool first = inline_start;
    for (const auto& [k, e] : *o) {
      out += first ? "" : pad;
      first = false;
      const auto word = plain_scalar(k);  // "yes" would be no word to other readers
      const bool bare =
          !k.empty() && word.ok() && word->string() != nullptr && k[0] != '-' &&
          k.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") ==
              std::string::npos;
      out += (bare ? k : canonical(Json(k))) + ":";
      const bool nested = (e.object() != nullptr && !e.object()->empty()) ||
                          (e.array() != nullptr && !e.array()->empty());
      out += nested ? "\n" : " ";
      write_yaml(out, e, level + 1, false);
    }
  } else if (const JsonArray* a = v.array(); a != nullptr && !a->empty()) {
    for (const Json& e : *a) {
      out += pad + "- ";
      // A list directly in a list is written as JSON, which is YAML too.
      if (e.array() != nullptr) {
        out += canonical(e) + "\n";
      } else {
        write_yaml(out, e, level + 1, true);
      }
    }
  } else {
    // JSON scalars, "[]" and "{}" are YAML as they stand.
    out += canonical(v) + "\n";
  }
}

// As YAML writes a character in quotes.
std::string yaml_escape(char32_t point) {
  const auto byte = [&](int shift) { return static_cast<std::uint8_t>(point >> shift); };
  const std::uint8_t four[] = {byte(24), byte(16), byte(8), byte(0)};
  return point > 0xffff ? "\\U" + to_hex(four) : "\\u" + to_hex(ByteView(four).subspan(2));
}

}  // namespace

Result<Json> parse_yaml(std::string_view text) {
  if (text.size() > kMaxBytes) return fail(Reason::kTooLarge, "YAML text");
  if (!valid_utf8(text)) return fail(Reason::kBadJson, "text is not UTF-8");
  return Reader().run(text);
}

Result<Json> parse_document(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && (text[first] == '{' || text[first] == '[')) {
    return parse_json(text);
  }
  return parse_yaml(text);
}

std::string to_yaml(const Json& value) {
  std::string out;
  write_yaml(out, value, 0, false);
  // What JSON may hold raw and YAML, or a terminal, reads otherwise: all of it stands in quotes.
  return escape_unprintable(out, yaml_escape);
}

}  // namespace gbx::cli
