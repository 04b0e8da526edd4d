// Every single change of a message that this file can think of: a member left out, doubled, of
// another type, of another value, exchanged for one that was seen elsewhere; a record in the place
// of another of its type; the text cut off or longer. For tests of whoever reads the message.
// GBX_LIES=all takes all of them, GBX_LIES=<number> those of that seed. Not part of any program.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/seams.h"

namespace gbx::hostile {

struct Lie {
  std::string at;  // "body.policies[1].body.serial"
  std::string how;
  Json body;
  std::string text;  // as it travels; that of `body`, or of what is no JSON value
  // Of the type that the reader expects: only what binds the member tells it from the truth.
  bool reads_well = false;
  std::string what() const { return at + " " + how; }
  // The same for every element of a list.
  std::string place() const {
    std::string out;
    bool index = false;
    for (const char c : at) {
      if (c == ']') index = false;
      if (!index) out += c;
      if (c == '[') index = true;
    }
    return out;
  }
};

// What a liar finds at hand: texts of the same length, objects with the same members.
class Pool {
 public:
  void collect(const Json& j) {
    const std::string* text = j.string();
    if (text != nullptr && text->size() >= 8) texts_[text->size()].insert(*text);
    for (const auto& e : j.array() != nullptr ? *j.array() : JsonArray{}) collect(e);
    if (j.object() == nullptr) return;
    if (!j.object()->empty()) objects_[shape(*j.object())].emplace(canonical(j), j);
    for (const auto& [k, v] : *j.object()) collect(v);
  }
  std::vector<Json> like(const std::string& text) const {
    std::vector<Json> out;
    const auto same = texts_.find(text.size());
    if (same == texts_.end()) return out;
    for (const std::string& other : same->second) {
      if (other != text && out.size() < kMost) out.emplace_back(other);
    }
    return out;
  }
  std::vector<Json> like(const JsonObject& members) const {
    std::vector<Json> out;
    const auto same = objects_.find(shape(members));
    if (same == objects_.end()) return out;
    const Json own(members);
    for (const auto& [text, other] : same->second) {
      if (other != own && out.size() < kMost) out.push_back(other);
    }
    return out;
  }

 private:
  static constexpr std::size_t kMost = 6;
  // A signed record says its type: another with that type is the better lie.
  static std::string shape(const JsonObject& members) {
    std::string out;
    for (const auto& [name, value] : members) out += name + ",";
    const auto type = members.find("type");
    if (type != members.end() && type->second.string() != nullptr) out += *type->second.string();
    return out;
  }
  std::map<std::size_t, std::set<std::string>> texts_;
  std::map<std::string, std::map<std::string, Json>> objects_;
};

class Liar {
 public:
  Liar(const Pool& pool, Json truth) : pool_(pool), truth_(std::move(truth)) {
    walk(truth_, "body", [](const Json& v) { return v; });
    broken_texts();
  }
  std::vector<Lie> lies() && { return std::move(lies_); }

 private:
  using Put = std::function<Json(const Json&)>;
  static std::string one_other_letter(std::string s) {
    char& c = s[s.size() / 2];
    c = c == '0' ? '1' : c == 'a' ? 'b' : c >= '1' && c <= '9' ? '0' : 'a';
    return s;
  }
  enum class Reads { kWell, kBadly };
  void add(const std::string& at, const std::string& how, const Put& put, const Json& v,
           Reads reads = Reads::kBadly) {
    Json body = put(v);
    if (body == truth_) return;
    std::string text = canonical(body);
    lies_.push_back({at, how, std::move(body), std::move(text), reads == Reads::kWell});
  }
  void add_text(const std::string& at, const std::string& how, std::string text) {
    lies_.push_back({at, how, Json(), std::move(text), false});
  }
  void broken_texts() {
    const std::string whole = canonical(truth_);
    for (const std::size_t keep : {std::size_t{0}, whole.size() / 2, whole.size() - 1}) {
      if (keep < whole.size()) add_text("body", "cut off", whole.substr(0, keep));
    }
    for (const std::string& more : {std::string("}"), std::string(" {}"), std::string(1, '\0'),
                                    std::string(","), std::string("\xff")}) {
      add_text("body", "longer", whole + more);
    }
  }
  void texts(const std::string& s, const std::string& at, const Put& put) {
    if (!s.empty()) {
      add(at, "changed", put, Json(one_other_letter(s)), Reads::kWell);
      add(at, "empty", put, Json(""));
      add(at, "cut off", put, Json(s.substr(0, s.size() - 1)));
    }
    add(at, "longer", put, Json(s + "0"));
    add(at, "moves a terminal", put, Json("\x1b[2J\nnothing waits\xe2\x80\xae\xe2\x80\x8b"));
    add(at, "a number", put, Json(1));
    for (const Json& other : pool_.like(s)) {
      add(at, "as elsewhere", put, other, Reads::kWell);
    }
  }
  void numbers(std::int64_t v, const std::string& at, const Put& put) {
    for (const std::int64_t other :
         {v + 1, v - 1, -v - 1, std::int64_t{0}, kMaxJsonInteger, -kMaxJsonInteger}) {
      const bool near = other == v + 1 || other == v - 1;
      add(at, "= " + std::to_string(other), put, Json(other), near ? Reads::kWell : Reads::kBadly);
    }
    add(at, "a text", put, Json(std::to_string(v)));
  }
  void lists(const JsonArray& list, const std::string& at, const Put& put) {
    if (!list.empty()) {
      add(at, "empty", put, Json(JsonArray{}), Reads::kWell);
      add(at, "reversed", put, Json(JsonArray(list.rbegin(), list.rend())), Reads::kWell);
      add(at, "without the first", put, Json(JsonArray(list.begin() + 1, list.end())),
          Reads::kWell);
      JsonArray twice = list;
      twice.push_back(list.front());
      add(at, "with one twice", put, Json(std::move(twice)));
    }
    for (std::size_t i = 0; i < list.size(); ++i) {
      walk(list[i], at + "[" + std::to_string(i) + "]", [&, i](const Json& v) {
        JsonArray whole = list;
        whole[i] = v;
        return put(Json(std::move(whole)));
      });
    }
  }
  // A value cannot hold a member twice: a mark is put in the place of the object, and the text of
  // one with a member twice in the place of the mark.
  void doubled(const JsonObject& members, const std::string& at, const Put& put) {
    if (members.empty()) return;
    const std::string mark = "the place of an object";
    std::string text = canonical(put(Json(mark)));
    const std::string whole = canonical(Json(members));
    const std::string first =
        canonical(Json(members.begin()->first)) + ":" + canonical(members.begin()->second);
    const std::string quoted = "\"" + mark + "\"";
    text.replace(text.find(quoted), quoted.size(), "{" + first + "," + whole.substr(1));
    add_text(at + "." + members.begin()->first, "twice", std::move(text));
  }
  void objects(const JsonObject& members, const std::string& at, const Put& put) {
    JsonObject more = members;
    more["unknownMember"] = Json(1);
    add(at, "with an unknown member", put, Json(std::move(more)));
    doubled(members, at, put);
    for (const Json& other : pool_.like(members)) {
      add(at, "as elsewhere", put, other, Reads::kWell);
    }
    for (const auto& [name, value] : members) {
      JsonObject less = members;
      less.erase(name);
      add(at + "." + name, "left out", put, Json(std::move(less)));
      walk(value, at + "." + name, [&, key = name](const Json& v) {
        JsonObject whole = members;
        whole[key] = v;
        return put(Json(std::move(whole)));
      });
    }
  }
  void walk(const Json& v, const std::string& at, const Put& put) {
    add(at, "null", put, Json());
    if (v.string() != nullptr) texts(*v.string(), at, put);
    if (v.integer() != nullptr) numbers(*v.integer(), at, put);
    if (v.boolean() != nullptr) {
      add(at, "the opposite", put, Json(!*v.boolean()), Reads::kWell);
    }
    if (v.array() != nullptr) lists(*v.array(), at, put);
    if (v.object() != nullptr) objects(*v.object(), at, put);
  }

  const Pool& pool_;
  const Json truth_;
  std::vector<Lie> lies_;
};

inline std::vector<Lie> lies_about(const Pool& pool, Json truth) {
  return Liar(pool, std::move(truth)).lies();
}

// Which lies a run of a test tells. Of every place in a message it tells some, so that no member is
// left out, and first one that reads well: whatever the reader refuses for its type shows nothing
// of what binds it.
class Choice {
 public:
  explicit Choice(std::uint64_t seed = 1) : seed_(seed), random_(seed) {
    const char* asked = std::getenv("GBX_LIES");
    const std::string word = asked == nullptr ? "" : asked;
    all_ = word == "all";
    if (!all_ && !word.empty()) seed_ = std::strtoull(word.c_str(), nullptr, 10);
    random_ = SeededRandom(seed_);
  }
  bool all() const { return all_; }
  std::string text() const { return all_ ? "all" : std::to_string(seed_); }
  std::vector<Lie> some(const std::vector<Lie>& lies, std::size_t of_each_place) {
    if (all_) return lies;
    std::map<std::string, std::vector<const Lie*>> places;
    for (const Lie& lie : lies) places[lie.place()].push_back(&lie);
    std::vector<Lie> out;
    for (auto& [place, there] : places) {
      const auto well = std::stable_partition(there.begin(), there.end(),
                                              [](const Lie* lie) { return lie->reads_well; });
      auto among = static_cast<std::size_t>(well - there.begin());
      for (std::size_t n = 0; n < of_each_place && !there.empty(); ++n) {
        if (n > 0 || among == 0) among = there.size();
        const auto at = static_cast<std::ptrdiff_t>(random_.below(among));
        out.push_back(*there[static_cast<std::size_t>(at)]);
        there.erase(there.begin() + at);
      }
    }
    return out;
  }

 private:
  std::uint64_t seed_;
  SeededRandom random_;
  bool all_ = false;
};

// Members whose change is taken, each with why that harms nobody. A lie that was taken must have
// its line here; so a new member that nothing binds is found.
class Harmless {
 public:
  // `place` as Lie::place() says it, or with a '*' at its end for all that begins so.
  struct Line {
    std::string place;
    std::string why;
  };
  Harmless(std::initializer_list<Line> lines) : lines_(lines) {}
  bool covers(const std::string& place) {
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      const std::string& p = lines_[i].place;
      const bool begins = !p.empty() && p.back() == '*';
      if (begins ? place.compare(0, p.size() - 1, p, 0, p.size() - 1) == 0 : place == p) {
        used_.insert(i);
        return true;
      }
    }
    return false;
  }
  // Lines that no lie was taken for: nothing is to be excused there.
  std::vector<std::string> unused() const {
    std::vector<std::string> out;
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      if (used_.count(i) == 0) out.push_back(lines_[i].place);
    }
    return out;
  }

 private:
  std::vector<Line> lines_;
  std::set<std::size_t> used_;
};

}  // namespace gbx::hostile
