// The program as it is started by people.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/os.h"
#include "base/uids.h"

namespace gbx::node {
namespace {

RunOutput serve(const std::string& uid_base, const std::string& slots) {
  const char* bin = std::getenv("GBX_BIN_DIR");
  ProcessOptions p;
  p.argv = {std::string(bin == nullptr ? program_dir() : bin) + "/glovebox-node", "serve"};
  for (const char* option : {"--plane", "--plane-key", "--broker", "--key", "--objects"}) {
    p.argv.insert(p.argv.end(), {option, "/nonexistent"});
  }
  p.argv.insert(p.argv.end(), {"--name", "x", "--state", "/dev/null/state", "--slots", slots,
                               "--uid-base", uid_base});
  auto r = run_command(p);
  EXPECT_TRUE(r.ok());
  return r.ok() ? *r : RunOutput{};
}

// It would register and be sent jobs, each of which fails, or run the keeper of keys as somebody.
TEST(NodeProgram, DoesNotStartWithIdsThatAreSomebodyElses) {
  const std::string most = std::to_string(kHighestUid - 2 * kUidsPerSlot + 1);
  const std::string above = std::to_string(kHighestUid - 2 * kUidsPerSlot + 2);
  for (const std::string& base : {std::string("100"), std::string("1000"), above}) {
    const RunOutput r = serve(base, "2");
    EXPECT_EQ(r.status.code, static_cast<int>(ExitClass::kUsage)) << base;
    EXPECT_NE(r.err.find("usage: --uid-base (expected 65536 to " + most + ", actual " + base + ")"),
              std::string::npos)
        << r.err;
    EXPECT_NE(r.err.find("  next: "), std::string::npos) << r.err;
  }
  // The highest that fits goes on, to the next thing that is wrong.
  EXPECT_EQ(serve(most, "2").err.find("--uid-base"), std::string::npos);
}

}  // namespace
}  // namespace gbx::node
