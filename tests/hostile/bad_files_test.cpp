// Files that people write, broken in one place each, as the published schemas have them: refused by
// the member's name, and nothing of them is taken for something else.
#include <gtest/gtest.h>

#include "base/os.h"
#include "base/schema.h"
#include "broker/testing.h"
#include "cli/policy_file.h"
#include "cli/submission.h"
#include "cli/watch.h"
#include "cli/yaml.h"
#include "plane/api/negatives.h"
#include "records/job.h"

namespace gbx::hostile {
namespace {

using plane::api::Negative;
using plane::api::negatives_of;
using testing::must;

void expect_refused(const Status& s, const std::string& what) {
  ASSERT_FALSE(s.ok()) << what;
  EXPECT_EQ(exit_class(s.reason()), ExitClass::kUsage) << what << ": " << s.error().line();
}

TEST(BadFiles, JobSpecs) {
  const Json schema = cli::job_spec_schema();
  const Json sample = must(cli::parse_document(must(read_text_file(
      std::string(std::getenv("GBX_SOURCE_DIR")) + "/examples/breast-cancer/job.yaml", 1U << 20))));
  std::size_t count = 0;
  for (const Negative& bad : negatives_of(schema, sample)) {
    SCOPED_TRACE(bad.name);
    const auto spec = cli::parse_job_spec(canonical(bad.document));
    expect_refused(spec.ok() ? ok_status() : Status(spec.error()), bad.name);
    ++count;
  }
  EXPECT_GT(count, 100U);
}

// What is not said has a careful value, so nothing is missing but the end.
TEST(BadFiles, Policies) {
  const testing::BrokerWorld w(7);
  const Json clauses = to_json(w.data.policy.clauses);
  const auto file = [](const Json& of) {
    Json document;
    document["apiVersion"] = "glovebox/v1";
    document["kind"] = "ReleasePolicy";
    document["clauses"] = of;
    return cli::parse_policy(canonical(document));
  };
  ASSERT_TRUE(file(clauses).ok()) << file(clauses).error().line();
  std::size_t count = 0;
  for (const Negative& bad : negatives_of(json_schema<records::Clauses>(), clauses)) {
    if (bad.name.starts_with("missing")) continue;
    SCOPED_TRACE(bad.name);
    const auto policy = file(bad.document);
    expect_refused(policy.ok() ? ok_status() : Status(policy.error()), bad.name);
    ++count;
  }
  EXPECT_GT(count, 50U);
}

}  // namespace
}  // namespace gbx::hostile
