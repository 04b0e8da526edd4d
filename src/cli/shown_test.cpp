// What a home remembers of the outputs that it showed.
#include "cli/shown.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "base/os.h"
#include "base/seams.h"
#include "policy/testing.h"

namespace gbx::cli {
namespace {

using testing::must;

struct Shown : ::testing::Test {
  Shown() {
    char name[] = "/tmp/gbx-shown-XXXXXX";
    home.emplace(mkdtemp(name));
  }
  ~Shown() override { (void)remove_tree(home->path()); }
  static ShownOutput output(std::uint8_t job, std::uint8_t manifest, std::int64_t expires = 100) {
    ShownOutput o;
    o.job_id.fill(job);
    o.manifest.fill(manifest);
    o.expires = expires;
    return o;
  }
  ShownOutputs of(std::uint8_t set, std::uint8_t reviewer) const {
    records::SetId s{};
    Hash32 r{};
    s.fill(set);
    r.fill(reviewer);
    return {*home, s, r};
  }
  std::optional<Home> home;
};

TEST_F(Shown, IsKeptForEachReviewerAndInstallation) {
  EXPECT_TRUE(must(of(1, 1).all(0)).empty());
  must(of(1, 1).add(output(0xaa, 1), 0));
  EXPECT_EQ(must(of(1, 1).all(0)).size(), 1U);
  EXPECT_TRUE(must(of(1, 2).all(0)).empty());
  EXPECT_TRUE(must(of(2, 1).all(0)).empty());
}

// Each writes the whole file: without a lock one of them writes over what the other just added.
TEST_F(Shown, TwoCommandsAtOnceLoseNothing) {
  constexpr std::uint8_t kEach = 50;
  const auto show = [this](std::uint8_t from) {
    const Home own(home->path());
    const ShownOutputs mine(own, {}, {});
    for (std::uint8_t n = 0; n < kEach; ++n) {
      EXPECT_TRUE(mine.add(output(static_cast<std::uint8_t>(from + n), 1), 0).ok());
    }
  };
  std::thread other(show, kEach);
  show(0);
  other.join();
  EXPECT_EQ(must(ShownOutputs(*home, {}, {}).all(0)).size(), 2U * kEach);
}

TEST_F(Shown, TheLatestCountsUntilItsHoldIsOver) {
  const ShownOutputs mine = of(1, 1);
  must(mine.add(output(0xaa, 1, 50), 0));
  must(mine.add(output(0xbb, 1), 0));
  must(mine.add(output(0xaa, 2, 50), 0));
  EXPECT_EQ(must(mine.all(50)).size(), 2U);
  EXPECT_TRUE(check_shown(output(0xaa, 2), must(mine.all(50))).ok());
  EXPECT_EQ(check_shown(output(0xaa, 1), must(mine.all(50))).reason(), Reason::kBadHash);
  EXPECT_TRUE(check_shown(output(0xcc, 1), must(mine.all(50))).ok()) << "another machine's";
  EXPECT_EQ(must(mine.all(51)).size(), 1U);
  must(mine.add(output(0xcc, 1), 51));
  EXPECT_EQ(must(mine.all(0)).size(), 2U) << "what is over is not kept";
}

TEST_F(Shown, ABeginningIsOfOneThatWasShown) {
  std::vector<ShownOutput> shown{output(0xaa, 1), output(0xab, 1)};
  EXPECT_EQ(must(choose_shown("aaaa", shown)), output(0xaa, 1).job_id);
  EXPECT_EQ(choose_shown("bbbb", shown).reason(), Reason::kUsage);
  EXPECT_NE(choose_shown("bbbb", shown).error().next.find("review show bbbb"), std::string::npos);
  shown[1].job_id = shown[0].job_id;
  shown[1].job_id[31] = 0;
  EXPECT_EQ(choose_shown("aaaaaaaaaaaaaaaa", shown).reason(), Reason::kConflict);
  EXPECT_EQ(must(choose_shown(to_hex(shown[1].job_id), shown)), shown[1].job_id);
}

TEST_F(Shown, AFileOfAnotherFormIsNamed) {
  const ShownOutputs mine = of(1, 1);
  must(mine.add(output(0xaa, 1), 0));
  const std::string path =
      home->file("shown") + "/" +
      std::filesystem::directory_iterator(home->file("shown"))->path().filename().string();
  must(write_file_atomic(path, as_bytes("{}"), 0600));
  EXPECT_FALSE(mine.all(0).ok());
  EXPECT_NE(mine.all(0).error().next.find("remove it"), std::string::npos);
  EXPECT_FALSE(mine.add(output(0xaa, 1), 0).ok()) << "nothing is forgotten silently";
}

}  // namespace
}  // namespace gbx::cli
