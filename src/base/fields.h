// One description of a record serves writing, strict reading and its published schema:
//
//   struct Lease {
//     std::string consumer_id; std::int64_t jobs = 0;
//     template <class F> void fields(F& f) { f("consumerId", consumer_id, Bound{1, 64}); f("jobs",
//     jobs, Bound{1, 1000}); }
//   };
//   Json j = to_json(lease);   Result<Lease> l = from_json<Lease>(j);
//
// Reading refuses unknown and missing members, wrong kinds, and values outside their Bound
// (numbers: value; strings and bytes: length; lists and maps: count, and each text in them; any
// JSON: bytes of its canonical form). std::optional members may be absent, never null.
// FixedBytes<N> are lower-case hex, Bytes are base64url, enums are the names that enum_names(E)
// lists.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/json.h"

namespace gbx {

struct Bound {
  std::int64_t min = 0;
  std::int64_t max = kMaxJsonInteger;
  // bytes of one text in a list, of one key and of one value in a map
  std::int64_t each = kMaxJsonInteger;
};

template <class E>
struct EnumName {
  E value;
  const char* name;
};
// Specialise by overloading in the enum's namespace:
//   inline std::span<const EnumName<Kind>> enum_names(Kind) { static constexpr EnumName<Kind> k[] =
//   {…}; return k; }
template <class E>
std::string_view enum_name(E e) {
  for (const auto& n : enum_names(e)) {
    if (n.value == e) return n.name;
  }
  return "?";
}
template <class E>
Result<E> enum_from(std::string_view name) {
  std::string known;
  for (const auto& n : enum_names(E{})) {
    if (name == n.name) return n.value;
    known += (known.empty() ? "" : ", ") + std::string(n.name);
  }
  return fail(Reason::kBadValue, "unknown word")
      .with("one of " + known, std::string(name.substr(0, 64)));
}

// "a string", "a list" and the like, for messages.
const char* json_kind(const Json& value);
// `inner` below `outer`: "spec.outputs[0]" and "schema" or "[1].name".
std::string join_path(const std::string& outer, const std::string& inner);

namespace fields_detail {

template <class T>
inline constexpr bool is_fixed = false;
template <std::size_t N>
inline constexpr bool is_fixed<FixedBytes<N>> = true;
template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;
template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;
template <class T>
inline constexpr bool is_map = false;
template <class T>
inline constexpr bool is_map<std::map<std::string, T>> = true;

Status check_bound(std::int64_t v, Bound b, const char* unit);
// Of the canonical form.
Status check_json_bound(const Json& j, Bound b);

// Names what may stand there, for the person who mistyped it.
Error unknown_field(const std::string& name, const std::set<std::string_view>& known);

struct Writer;
struct Reader;

template <class T>
Json write_value(const T& v);
template <class T>
Status read_value(const Json& j, T& v, Bound b);

struct Writer {
  JsonObject out;
  template <class T>
  void operator()(const char* name, T& v, Bound = {}) {
    if constexpr (is_optional<T>) {
      if (v) out.emplace(name, write_value(*v));
    } else {
      out.emplace(name, write_value(v));
    }
  }
};

struct Reader {
  const JsonObject& in;
  std::set<std::string_view> known;
  Status status = ok_status();

  template <class T>
  void operator()(const char* name, T& v, Bound b = {}) {
    known.insert(name);
    if (!status.ok()) return;
    const auto it = in.find(std::string_view(name));
    if (it == in.end()) {
      if constexpr (is_optional<T>) {
        v.reset();
      } else {
        status = fail(Reason::kMissingField, name).with("a value", "nothing");
      }
      return;
    }
    if constexpr (is_optional<T>) {
      v.emplace();
      status = read_value(it->second, *v, b);
    } else {
      status = read_value(it->second, v, b);
    }
    if (!status.ok()) {
      std::string& what = status.error().what;
      const bool nested = what.empty() || what[0] == '.' || what[0] == '[';
      what = std::string(name) + (nested ? what : ": " + what);
    }
  }
  Status finish() {
    if (!status.ok()) return status;
    for (const auto& [k, unused] : in) {
      if (known.find(k) == known.end()) return unknown_field(k, known);
    }
    return ok_status();
  }
};

template <class T>
Json write_value(const T& v) {
  if constexpr (std::is_same_v<T, Json>) {
    return v;
  } else if constexpr (std::is_same_v<T, bool>) {
    return Json(v);
  } else if constexpr (std::is_same_v<T, std::int64_t>) {
    return Json(v);
  } else if constexpr (std::is_same_v<T, std::string>) {
    return Json(v);
  } else if constexpr (std::is_same_v<T, Bytes>) {
    return Json(to_base64url(v));
  } else if constexpr (is_fixed<T>) {
    return Json(to_hex(v));
  } else if constexpr (std::is_enum_v<T>) {
    return Json(enum_name(v));
  } else if constexpr (is_vector<T>) {
    JsonArray a;
    for (const auto& e : v) a.push_back(write_value(e));
    return Json(std::move(a));
  } else if constexpr (is_map<T>) {
    JsonObject o;
    for (const auto& [k, e] : v) o.emplace(k, write_value(e));
    return Json(std::move(o));
  } else {
    Writer w;
    // fields() is one template for reading and writing; a Writer only reads the members.
    const_cast<T&>(v).fields(w);
    return Json(std::move(w.out));
  }
}

Error kind_error(const char* expected, const Json& actual);
// Text that is not what it encodes.
Error encoding_error(Error error, const std::string& expected, std::string_view text);

// What a list's or map's bound says of its members: texts are bounded by it, records by their own
// fields.
template <class T>
Bound bound_of_each(Bound b) {
  constexpr bool text =
      std::is_same_v<T, std::string> || std::is_same_v<T, Bytes> || std::is_same_v<T, Json>;
  return text ? Bound{0, b.each} : Bound{};
}

template <class T>
Status read_list(const Json& j, T& v, Bound b) {
  const JsonArray* a = j.array();
  if (a == nullptr) return kind_error("a list", j);
  GBX_TRY(check_bound(static_cast<std::int64_t>(a->size()), b, "entries"));
  v.clear();
  for (std::size_t i = 0; i < a->size(); ++i) {
    v.emplace_back();
    Status s = read_value((*a)[i], v.back(), bound_of_each<typename T::value_type>(b));
    if (!s.ok()) {
      std::string& what = s.error().what;
      const bool nested = !what.empty() && (what[0] == '.' || what[0] == '[');
      what = "[" + std::to_string(i) + "]" + (nested || what.empty() ? "" : ": ") + what;
      return s;
    }
  }
  return ok_status();
}

template <class T>
Status read_value(const Json& j, T& v, Bound b) {
  if constexpr (std::is_same_v<T, Json>) {
    v = j;
    return check_json_bound(v, b);
  } else if constexpr (std::is_same_v<T, bool>) {
    const bool* x = j.boolean();
    if (x == nullptr) return kind_error("true or false", j);
    v = *x;
    return ok_status();
  } else if constexpr (std::is_same_v<T, std::int64_t>) {
    const std::int64_t* x = j.integer();
    if (x == nullptr) return kind_error("an integer", j);
    v = *x;
    return check_bound(v, b, "");
  } else if constexpr (std::is_same_v<T, std::string>) {
    const std::string* x = j.string();
    if (x == nullptr) return kind_error("a string", j);
    v = *x;
    return check_bound(static_cast<std::int64_t>(v.size()), b, "bytes long");
  } else if constexpr (std::is_same_v<T, Bytes>) {
    const std::string* x = j.string();
    if (x == nullptr) return kind_error("base64url text", j);
    auto bytes = from_base64url(*x);
    if (!bytes.ok()) return encoding_error(std::move(bytes.error()), "base64url text", *x);
    v = std::move(*bytes);
    return check_bound(static_cast<std::int64_t>(v.size()), b, "bytes long");
  } else if constexpr (is_fixed<T>) {
    const std::string* x = j.string();
    if (x == nullptr) return kind_error("hex text", j);
    auto bytes = fixed_from_hex<std::tuple_size_v<T>>(*x);
    if (!bytes.ok()) {
      const std::string digits =
          std::to_string(2 * std::tuple_size_v<T>) + " lower-case hex digits";
      return encoding_error(std::move(bytes.error()), digits, *x);
    }
    v = *bytes;
    return ok_status();
  } else if constexpr (std::is_enum_v<T>) {
    const std::string* x = j.string();
    if (x == nullptr) return kind_error("a word", j);
    GBX_ASSIGN(v, enum_from<T>(*x));
    return ok_status();
  } else if constexpr (is_vector<T>) {
    return read_list(j, v, b);
  } else if constexpr (is_map<T>) {
    const JsonObject* o = j.object();
    if (o == nullptr) return kind_error("a map", j);
    GBX_TRY(check_bound(static_cast<std::int64_t>(o->size()), b, "entries"));
    v.clear();
    for (const auto& [k, e] : *o) {
      GBX_TRY(
          check_bound(static_cast<std::int64_t>(k.size()), Bound{0, b.each}, "bytes long (a key)"));
      Status s = read_value(e, v[k], bound_of_each<typename T::mapped_type>(b));
      if (!s.ok()) return s.error().at("." + k.substr(0, 64));
    }
    return ok_status();
  } else {
    const JsonObject* o = j.object();
    if (o == nullptr) return kind_error("an object", j);
    Reader r{*o, {}, ok_status()};
    v.fields(r);
    Status s = r.finish();
    if (!s.ok()) s.error().what = "." + s.error().what;
    return s;
  }
}

}  // namespace fields_detail

template <class T>
Json to_json(const T& v) {
  return fields_detail::write_value(v);
}
// Errors: kMissingField, kUnknownField, kBadValue, kBadEncoding; `what` is the path of the member.
template <class T>
Result<T> from_json(const Json& j) {
  T v{};
  Status s = fields_detail::read_value(j, v, Bound{});
  if (!s.ok()) {
    std::string& what = s.error().what;
    if (!what.empty() && what[0] == '.') what.erase(0, 1);
    return s.error();
  }
  return v;
}
template <class T>
Result<T> from_json_text(std::string_view text, JsonLimits limits = {}) {
  GBX_ASSIGN(Json j, parse_json(text, limits));
  return from_json<T>(j);
}

}  // namespace gbx
