// The program as it is started by people.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cstdlib>

#include "base/os.h"
#include "base/uids.h"

namespace gbx::node {
namespace {

RunOutput program(const std::vector<std::string>& arguments) {
  const char* bin = std::getenv("GBX_BIN_DIR");
  ProcessOptions p;
  p.argv = {std::string(bin == nullptr ? program_dir() : bin) + "/glovebox-node"};
  p.argv.insert(p.argv.end(), arguments.begin(), arguments.end());
  auto r = run_command(p);
  EXPECT_TRUE(r.ok());
  return r.ok() ? *r : RunOutput{};
}
RunOutput serve(const std::string& uid_base, const std::string& slots) {
  std::vector<std::string> arguments = {"serve"};
  for (const char* option : {"--plane", "--plane-key", "--broker", "--key", "--objects"}) {
    arguments.insert(arguments.end(), {option, "/nonexistent"});
  }
  arguments.insert(arguments.end(), {"--name", "x", "--state", "/dev/null/state", "--slots", slots,
                                     "--uid-base", uid_base});
  return program(arguments);
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

// Who has the key is the node: policies name it.
TEST(NodeProgram, TakesNoKeyThatOthersMayRead) {
  std::string folder = "/tmp/gbx-node-key-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/key";
  const auto key = [&] { return program({"key", "--key", path}); };
  const RunOutput none = key();
  EXPECT_EQ(none.status.code, static_cast<int>(exit_class(Reason::kNotFound)));
  EXPECT_NE(none.err.find("key --new"), std::string::npos) << none.err;
  EXPECT_FALSE(path_exists(path)) << "reading a key makes none";
  const RunOutput made = program({"key", "--new", "--key", path});
  EXPECT_EQ(made.status.code, 0) << made.err;
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_EQ(key().out, made.out);
  for (const mode_t mode : {0640U, 0604U}) {
    ASSERT_EQ(chmod(path.c_str(), mode), 0);
    const RunOutput refused = key();
    EXPECT_EQ(refused.status.code, static_cast<int>(ExitClass::kInfrastructure)) << mode;
    EXPECT_EQ(refused.out, "") << mode;
    EXPECT_NE(refused.err.find("io: " + path), std::string::npos) << refused.err;
    EXPECT_NE(refused.err.find("  next: chmod 600 " + path), std::string::npos) << refused.err;
  }
  EXPECT_TRUE(remove_tree(folder).ok());
}

// Programs of the local environment read a directory; a volume of a machine reads either.
TEST(NodeProgram, ReadsS3OnlyForMachinesAndOnlyWithItsFile) {
  std::string folder = "/tmp/gbx-node-s3-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string key = folder + "/key";
  std::string text = program({"key", "--new", "--key", key}).out;
  text.resize(text.find('\n'));
  const auto said = [&](const std::string& objects, const std::string& config) {
    std::vector<std::string> words = {"serve",
                                      "--name",
                                      "x",
                                      "--plane",
                                      "127.0.0.1:1",
                                      "--plane-key",
                                      text,
                                      "--broker",
                                      "127.0.0.1:2",
                                      "--key",
                                      key,
                                      "--state",
                                      folder,
                                      "--objects",
                                      objects,
                                      "--uid-base",
                                      std::to_string(kDefaultUidBase)};
    if (!config.empty()) words.insert(words.end(), {"--s3-config", config});
    const RunOutput r = program(words);
    EXPECT_EQ(r.status.code, static_cast<int>(ExitClass::kUsage)) << r.err;
    return r.err;
  };
  for (const auto& [objects, config] :
       {std::pair("s3://bucket/x", ""), std::pair("s3://bucket/x", "/f"), std::pair("/d", "/f")}) {
    EXPECT_NE(said(objects, config).find("--environment vm"), std::string::npos) << objects;
  }
  EXPECT_TRUE(remove_tree(folder).ok());
}

}  // namespace
}  // namespace gbx::node
