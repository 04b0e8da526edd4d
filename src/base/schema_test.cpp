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
  Json any;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 63});
    f("blob", blob, Bound{1, 100});
    f("hash", hash);
    f("colour", colour);
    f("flag", flag);
    f("note", note);
    f("inners", inners, Bound{1, 4});
    f("env", env, Bound{0, 3});
    f("any", any);
  }
};

TEST(Schema, DescribesEveryKindOfMember) {
  const Json s = json_schema<Outer>();
  EXPECT_EQ(canonical(*s.find("required")),
            R"(["name","blob","hash","colour","flag","inners","env","any"])");
  EXPECT_EQ(*s.find("additionalProperties"), Json(false));
  const Json& p = *s.find("properties");
  EXPECT_EQ(canonical(*p.find("name")), R"({"maxLength":63,"minLength":1,"type":"string","x-maxBytes":63,"x-minBytes":1})");
  EXPECT_EQ(*p.find("blob")->find("minLength"), Json(2));
  EXPECT_EQ(*p.find("blob")->find("maxLength"), Json(134));
  EXPECT_EQ(canonical(*p.find("hash")), R"({"pattern":"^[0-9a-f]{64}$","type":"string"})");
  EXPECT_EQ(canonical(*p.find("colour")), R"({"enum":["red","blue"],"type":"string"})");
  EXPECT_EQ(canonical(*p.find("flag")), R"({"type":"boolean"})");
  EXPECT_EQ(canonical(*p.find("note")), R"({"type":"string"})");
  EXPECT_EQ(canonical(*p.find("inners")),
            R"({"items":{"additionalProperties":false,"properties":{"count":{"maximum":9,"minimum":-1,"type":"integer"}},)"
            R"("required":["count"],"type":"object"},"maxItems":4,"minItems":1,"type":"array"})");
  EXPECT_EQ(canonical(*p.find("env")), R"({"additionalProperties":{"type":"string"},"maxProperties":3,"type":"object"})");
  EXPECT_EQ(canonical(*p.find("any")), "{}");
}

TEST(Schema, LengthsOfBase64AreThoseOfTheWriter) {
  for (std::int64_t n = 1; n < 70; ++n) {
    const Json s = schema_detail::base64_schema(Bound{n, n});
    const auto written = static_cast<std::int64_t>(to_base64url(Bytes(static_cast<std::size_t>(n))).size());
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
