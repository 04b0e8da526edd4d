// Whatever is read has an end: every document that a fuzz target reads (tests/tidy/tidy.py holds
// those lists complete) bounds each text, list, map and number, or stands below with the reason.
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <set>
#include <string>

#include "base/schema.h"
#include "fuzz/program_documents.h"
#include "fuzz/record_documents.h"

namespace gbx::records {
namespace {

// Numbers without a bound of their own, by the end of their path, each with why no reader comes to
// harm. None of them is a size, a wait or a count of anything that is made or done.
const std::map<std::string, std::string>& free_numbers() {
  static const std::string kTime = "a time: compared, shown, and made milliseconds, which fit";
  static const std::string kShown = "shown to people, and nothing goes by it";
  static const std::string kOwners = "an owner's limit, compared with sums of bounded charges";
  static const std::map<std::string, std::string> kWhy = {
      {".time", kTime},
      {".notAfter", kTime},
      {".expires", kTime},
      {".freshUntil", kTime},
      {".decideAt", kTime},
      {"Ms", kTime},
      {".gate.autoClearFreeBits", kOwners},
      {".gate.autoClearVerifiedBits", kOwners},
      {".gate.periodFreeBits", kOwners},
      {".gate.totalFreeBits", kOwners},
      {".limits.autoClearFreeBits", kOwners},
      {".limits.autoClearVerifiedBits", kOwners},
      {".limits.periodFreeBits", kOwners},
      {".limits.totalFreeBits", kOwners},
      {"LedgerStatement.periodFreeBits", "a sum, which its reader reckons again"},
      {"LedgerStatement.totalFreeBits", "a sum, which its reader reckons again"},
      {"LedgerStatement.totalVerifiedBits", "a sum, which its reader reckons again"},
      {"LedgerStatement.count", "of entries, which its reader counts again"},
      {".budgets[].periodFreeBits", "a sum, compared and shown"},
      {".budgets[].totalFreeBits", "a sum, compared and shown"},
      {".minimumSvn", "compared"},
      {".policySerials[]", "compared with those of policies that were read"},
      {".version", "compared: the next one of an asset, or of a row that the plane changes"},
      {".ciphertextBytes", "an asset's, as large as its owner likes"},
      {".fileCount", "an asset's, as large as its owner likes"},
      {".rootPage", "a place in an asset, which its reader looks for"},
      {".environments[].attempt", kShown},
      {".output.attempt", kShown},
      {".sizeBytes", kShown},
      {".running", kShown},
      {".seq", "compared: an event's place in a history"},
      {".freeBits", kShown},
      {".verifiedBits", kShown},
      {".policies[].needed", kShown},
      {".policies[].reviewers", kShown},
      {".policies[].approved", kShown},
      {".policies[].declined", kShown},
  };
  return kWhy;
}
// The largest time, as milliseconds, and an age after it.
static_assert(kMaxJsonInteger <=
              (std::numeric_limits<std::int64_t>::max() - kMaxJsonInteger) / 1000);

// What a schema lets grow without end, by path.
class Walk {
 public:
  template <class T>
  void add(const std::string& name) {
    look(json_schema<T>(), name);
  }
  void look(const Json& schema, const std::string& path) {
    const auto has = [&](const char* word) { return schema.find(word) != nullptr; };
    const Json* type = schema.find("type");
    const std::string kind = type == nullptr ? "anything" : *type->string();
    const bool fixed = has("enum") || (has("pattern") && !has("contentEncoding"));
    if (kind == "anything" && !has("x-maxBytes")) found.insert(path);
    if (kind == "string" && !fixed && !has("maxLength")) found.insert(path);
    if (kind == "integer") number(*schema.find("maximum")->integer(), path);
    if (kind == "array") {
      if (!has("maxItems")) found.insert(path);
      look(*schema.find("items"), path + "[]");
    }
    if (kind != "object") return;
    if (const Json* more = schema.find("additionalProperties");
        more != nullptr && more->object() != nullptr) {
      if (!has("maxProperties")) found.insert(path);
      look(*more, path + ".*");
      look(*schema.find("propertyNames"), path + ".key");
    }
    if (!has("properties")) return;
    for (const auto& [name, member] : *schema.find("properties")->object()) {
      look(member, path + "." + name);
    }
  }
  std::set<std::string> found;
  std::set<std::string> excused;

 private:
  void number(std::int64_t most, const std::string& path) {
    if (most < kMaxJsonInteger) return;
    bool free = false;
    for (const auto& [end, why] : free_numbers()) {
      if (!path.ends_with(end)) continue;
      free = true;
      excused.insert(end);
    }
    if (!free) found.insert(path);
  }
};

TEST(Limits, NothingThatIsReadGrowsWithoutEnd) {
  Walk walk;
  fuzz::every_record(walk);
  fuzz::every_api_document(walk);
  for (const auto& path : walk.found) ADD_FAILURE() << path;
  for (const auto& [end, why] : free_numbers()) {
    EXPECT_EQ(walk.excused.count(end), 1U) << end << " excuses nothing";
  }
}

TEST(Limits, TheWalkSeesWhatItLooksFor) {
  struct Loose {
    std::vector<std::string> words;
    std::int64_t seconds = 0;
    std::optional<std::int64_t> more;
    std::vector<std::int64_t> numbers;
    void fields(schema_detail::SchemaWriter& f) {
      f("words", words, Bound{0, 2});
      f("seconds", seconds);
      f("more", more, Bound{1});
      f("numbers", numbers, Bound{0, 2});
    }
  };
  Walk walk;
  walk.look(json_schema<Loose>(), "$");
  EXPECT_EQ(walk.found, (std::set<std::string>{"$.words[]", "$.seconds", "$.more", "$.numbers[]"}));
}

}  // namespace
}  // namespace gbx::records
