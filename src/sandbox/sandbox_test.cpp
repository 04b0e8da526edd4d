#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/oci_config.h"
#include "sandbox/seccomp_profile.h"
#include "sandbox/testing.h"

namespace gbx::sandbox {
namespace {

using testing::outside;
using testing::probe_spec;
using testing::run;
using testing::TestRoot;

class Sandbox : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string why = testing::cannot_run(GetParam());
    if (!why.empty()) GTEST_SKIP() << why;
  }
  ContainerSpec spec(std::vector<std::string> arguments) { return probe_spec(root_, std::move(arguments), GetParam()); }
  RunResult probe(std::vector<std::string> arguments) { return run(spec(std::move(arguments))); }
  TestRoot root_;
};

TEST_P(Sandbox, RunsAProgramAndSaysHowItEnded) {
  RunResult r = probe({"do", "true"});
  EXPECT_EQ(r.outcome, Outcome::kExited) << r.error;
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(r.out.text, "ok\n");
  EXPECT_EQ(r.err.text, "");
  r = probe({"exit", "37"});
  EXPECT_EQ(r.outcome, Outcome::kExited);
  EXPECT_EQ(r.code, 37);
  // The exit code that a shell uses for SIGKILL is not a signal here.
  r = probe({"exit", "137"});
  EXPECT_EQ(r.outcome, Outcome::kExited);
  EXPECT_EQ(r.code, 137);
}

INSTANTIATE_TEST_SUITE_P(Runtimes, Sandbox, ::testing::Values("crun", "runc"),
                         [](const auto& i) { return std::string(i.param); });

}  // namespace
}  // namespace gbx::sandbox
