// The published schema of a record says what the strict reader does.
#include "base/schema.h"

#include <gtest/gtest.h>

namespace gbx {
namespace schema_test {

enum class Colour { kRed, kBlue };
inline std::span<const EnumName<Colour>> enum_names(Colour) {
  static constexpr EnumName<Colour> k[] = {{Colour::kRed, "red"}, {Colour::kBlue, "blue"}};
  return k;
}
struct Inner {
  std::int64_t count = 0;
  template <class F>
  void fields(F& f) {
    f("count", count, Bound{-1, 9});
  }
};
struct Outer {
  std::string name;
  Bytes blob;
  Hash32 hash{};
  Colour colour = Colour::kRed;
  bool flag = false;
  std::optional<std::string> note;
  std::vector<Inner> inners;
  std::map<std::string, std::string> env;
  std::vector<std::string> words;
  std::vector<Bytes> blobs;
  Json any;
  Json some;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 63});
    f("blob", blob, Bound{1, 100});
    f("hash", hash);
    f("colour", colour);
    f("flag", flag);
    f("note", note);
    f("inners", inners, Bound{1, 4});
    f("env", env, Bound{0, 3, 5});
    f("words", words, Bound{0, 2, 7});
    f("blobs", blobs, Bound{0, 2, 3});
    f("any", any);
    f("some", some, Bound{0, 12});
  }
};

TEST(Schema, DescribesEveryKindOfMember) {
  const Json s = json_schema<Outer>();
  EXPECT_EQ(
      canonical(*s.find("required")),
      R"(["name","blob","hash","colour","flag","inners","env","words","blobs","any","some"])");
  EXPECT_EQ(*s.find("additionalProperties"), Json(false));
  const Json& p = *s.find("properties");
  EXPECT_EQ(canonical(*p.find("name")),
            R"({"maxLength":63,"minLength":1,"type":"string","x-maxBytes":63,"x-minBytes":1})");
  EXPECT_EQ(*p.find("blob")->find("minLength"), Json(2));
  EXPECT_EQ(*p.find("blob")->find("maxLength"), Json(134));
  EXPECT_EQ(canonical(*p.find("hash")), R"({"pattern":"^[0-9a-f]{64}$","type":"string"})");
  EXPECT_EQ(canonical(*p.find("colour")), R"({"enum":["red","blue"],"type":"string"})");
  EXPECT_EQ(canonical(*p.find("flag")), R"({"type":"boolean"})");
  EXPECT_EQ(canonical(*p.find("note")), R"({"type":"string"})");
  EXPECT_EQ(
      canonical(*p.find("inners")),
      R"({"items":{"additionalProperties":false,"properties":{"count":{"maximum":9,"minimum":-1,"type":"integer"}},)"
      R"("required":["count"],"type":"object"},"maxItems":4,"minItems":1,"type":"array"})");
  EXPECT_EQ(
      canonical(*p.find("env")),
      R"({"additionalProperties":{"maxLength":5,"type":"string","x-maxBytes":5},"maxProperties":3,)"
      R"("propertyNames":{"maxLength":5,"type":"string","x-maxBytes":5},"type":"object"})");
  EXPECT_EQ(
      canonical(*p.find("words")),
      R"({"items":{"maxLength":7,"type":"string","x-maxBytes":7},"maxItems":2,"type":"array"})");
  EXPECT_EQ(*p.find("blobs")->find("items")->find("maxLength"), Json(4));
  EXPECT_EQ(canonical(*p.find("any")), "{}");
  EXPECT_EQ(canonical(*p.find("some")), R"({"x-maxBytes":12})");
}

struct Texts {
  std::map<std::string, std::string> env;
  std::vector<std::string> words;
  std::vector<Bytes> blobs;
  Json some;
  template <class F>
  void fields(F& f) {
    f("env", env, Bound{0, 3, 5});
    f("words", words, Bound{0, 2, 7});
    f("blobs", blobs, Bound{0, 2, 3});
    f("some", some, Bound{0, 12});
  }
};

TEST(Schema, EveryTextInAListOrMapIsBounded) {
  Texts good{{{"abcde", "12345"}}, {"1234567"}, {Bytes(3)}, Json("1234567890")};
  EXPECT_TRUE(from_json<Texts>(to_json(good)).ok());
  const auto refused = [](const Texts& t, const std::string& where) {
    const auto r = from_json<Texts>(to_json(t));
    EXPECT_EQ(r.reason(), Reason::kBadValue) << where;
    EXPECT_EQ(r.error().what.substr(0, where.size()), where);
  };
  Texts bad = good;
  bad.env = {{"abcdef", "1"}};
  refused(bad, "env");
  bad = good;
  bad.env = {{"a", "123456"}};
  refused(bad, "env.a");
  bad = good;
  bad.words = {"a", "12345678"};
  refused(bad, "words[1]");
  bad = good;
  bad.blobs = {Bytes(4)};
  refused(bad, "blobs[0]");
  bad = good;
  bad.some = Json("12345678901");
  refused(bad, "some");
}

TEST(Schema, LengthsOfBase64AreThoseOfTheWriter) {
  for (std::int64_t n = 1; n < 70; ++n) {
    const Json s = schema_detail::base64_schema(Bound{n, n});
    const auto written =
        static_cast<std::int64_t>(to_base64url(Bytes(static_cast<std::size_t>(n))).size());
    EXPECT_EQ(*s.find("minLength"), Json(written)) << n;
    EXPECT_EQ(*s.find("maxLength"), Json(written)) << n;
  }
}

TEST(Schema, ADocumentNamesItsDialect) {
  const Json s = json_schema_document<Inner>("https://glovebox.example/inner.json", "Inner");
  EXPECT_EQ(*s.find("$schema"), Json("https://json-schema.org/draft/2020-12/schema"));
  EXPECT_EQ(*s.find("title"), Json("Inner"));
}

}  // namespace schema_test
}  // namespace gbx
