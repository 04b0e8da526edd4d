// Whatever spec the records take, the gate takes too: a job is refused before keys and charge are
// spent, or not at all.
#include <gtest/gtest.h>

#include "base/seams.h"
#include "gate/records.h"
#include "records/job.h"

namespace gbx::gate {
namespace {

// Specs that stand at the edge of the rules: odd names, paths inside paths, many outputs.
class Specs {
 public:
  explicit Specs(std::uint64_t seed) : dice_(seed) {}

  records::JobSpec next() {
    records::JobSpec s;
    s.api_version = "glovebox/v1";
    s.kind = "PrivateJob";
    s.metadata.name = "edge";
    s.spec.purpose = "study";
    s.spec.image.asset = "image";
    s.spec.command = {"/bin/study"};
    s.spec.resources = {1, "64MiB", "16MiB", 0, {}};
    s.spec.tee.any_of = {records::Technology::kNone};
    if (dice_.below(2) == 0) {
      s.spec.logs = {records::LogVisibility::kConsumer, records::kMaxLogBytes};
    }
    const std::uint64_t inputs = 1 + dice_.below(3);
    for (std::uint64_t i = 0; i < inputs; ++i) {
      s.spec.inputs.push_back({"i" + std::to_string(i), "asset", "/data/" + name()});
    }
    const std::uint64_t outputs = dice_.below(8) == 0 ? 33 : 1 + dice_.below(6);
    for (std::uint64_t i = 0; i < outputs; ++i) {
      std::string path = name();
      for (std::uint64_t more = dice_.below(4) == 0 ? dice_.below(10) : 0; more > 0; --more) {
        path += "/" + name();
      }
      static constexpr std::int64_t kSizes[] = {1, 4096, 2 << 20, 8 << 20, 16 << 20};
      s.spec.outputs.push_back({"o" + std::to_string(i),
                                path,
                                records::OutputType::kOpaque,
                                {},
                                kSizes[dice_.below(dice_.below(2) == 0 ? 2 : 5)]});
    }
    return s;
  }

 private:
  std::string name() {
    static const char* const kNames[] = {"a",   "b",        "c",  "d", "job.log", "A_1-z.csv", "-x",
                                         "..x", ".o0.json", "..", "",  "a b",     "\xc3\xa4"};
    if (dice_.below(8) != 0) return kNames[dice_.below(7)] + std::to_string(dice_.below(40));
    if (dice_.below(4) == 0) return std::string(62 + dice_.below(4), 'n');
    return kNames[dice_.below(std::size(kNames))];
  }
  SeededRandom dice_;
};

GateRequest request_of(const records::SpecBody& s) {
  GateRequest g;
  g.jobId = "job";
  g.purpose = s.purpose;
  for (const auto& o : s.outputs) {
    g.outputs.push_back({o.name, o.path, OutputType::kOpaque, JsonObject{}, o.max_bytes});
  }
  for (std::size_t i = 0; i < s.inputs.size(); ++i) {
    g.inputs.push_back(
        {s.inputs[i].name, s.inputs[i].mount, "", static_cast<std::int64_t>(4 + i), {}});
  }
  if (s.logs.visibility == records::LogVisibility::kConsumer) {
    g.logs = {LogVisibility::kConsumer, s.logs.max_bytes, {}};
  }
  return g;
}

TEST(GateSpec, EveryValidSpecIsARequestThatTheGateTakes) {
  int valid = 0;
  int refused = 0;
  for (std::uint64_t seed = 1; seed <= 3000; ++seed) {
    const records::JobSpec spec = Specs(seed).next();
    if (!spec.validate().ok() || !from_json<records::JobSpec>(to_json(spec)).ok()) {
      ++refused;
      continue;
    }
    ++valid;
    const GateRequest g = request_of(spec.spec);
    const Status taken = check_request(g);
    EXPECT_TRUE(taken.ok()) << "seed " << seed << ": " << taken.error().line();
    const auto read = from_json<GateRequest>(to_json(g));
    EXPECT_TRUE(read.ok()) << "seed " << seed << ": " << read.error().line();
  }
  EXPECT_GT(valid, 300);
  EXPECT_GT(refused, 300);
}

TEST(GateSpec, LimitsAreTheSame) {
  EXPECT_EQ(records::kMaxOutputs, kMaxOutputs);
  EXPECT_EQ(records::kMaxOutputBytes, kHardMaxOutputBytes);
  EXPECT_EQ(records::kMaxLogBytes, kHardMaxLogBytes);
}

}  // namespace
}  // namespace gbx::gate
