// User ids of `up` and of a node: nobody else's, or they do not start.
#include "base/uids.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <limits>

#include "base/os.h"

namespace gbx {
namespace {

// A range as `up` takes one by default.
UidRange range_of(std::int64_t slots) { return {kDefaultUidBase, 100 + kUidsPerSlot * slots}; }

struct Etc {
  std::string path;
  Etc() {
    char name[] = "/tmp/gbx-etc-XXXXXX";
    path = mkdtemp(name);
    put("passwd",
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/"
        "nologin\n");
    put("group", "root:x:0:\nusers:x:100:anna,bert\n");
    put("subuid", "anna:100000:65536\n");
    put("subgid", "anna:100000:65536\n");
  }
  ~Etc() { (void)remove_tree(path); }
  void put(const std::string& name, const std::string& text) const {
    EXPECT_TRUE(write_file_atomic(path + "/" + name, as_bytes(text), 0644).ok());
  }
};

TEST(Uids, TheDefaultLiesAboveEverythingThatIsGivenAway) {
  const Etc etc;
  const UidRange most = range_of(64);
  EXPECT_GT(most.first, 1'879'048'191);
  EXPECT_LT(most.last(), (std::int64_t{1} << 31) - 1);
  EXPECT_TRUE(check_uids_free(most, etc.path).ok());
  EXPECT_TRUE(check_uids_free(range_of(1)).ok()) << "this machine's own files";
}

TEST(Uids, SubordinateRangesAreRefusedWhereverTheyTouch) {
  const Etc etc;
  // Debian gives 65,536 ids to each account from 100000 on: 190000 is the second one's.
  etc.put("subuid", "anna:100000:65536\nbert:165536:65536\n");
  const Status s = check_uids_free({190'000, kUidsPerSlot}, etc.path);
  ASSERT_FALSE(s.ok());
  EXPECT_EQ(s.reason(), Reason::kConflict);
  EXPECT_EQ(s.error().actual, etc.path + "/subuid line 2 gives 165536 to 231071 to bert");
  EXPECT_NE(s.error().next.find("--uid-base"), std::string::npos);
  // Exactly beside it is free; one id less is not.
  EXPECT_TRUE(check_uids_free({231'072, 10}, etc.path).ok());
  EXPECT_EQ(check_uids_free({231'071, 10}, etc.path).reason(), Reason::kConflict);
  EXPECT_TRUE(check_uids_free({99'990, 10}, etc.path).ok());
  EXPECT_EQ(check_uids_free({99'991, 10}, etc.path).reason(), Reason::kConflict);
  // A range around the other one.
  EXPECT_EQ(check_uids_free({90'000, 400'000}, etc.path).reason(), Reason::kConflict);
}

TEST(Uids, GroupsAndAccountsCountToo) {
  const Etc etc;
  const UidRange range = range_of(1);
  etc.put("subgid", "carl:2000000050:1\n");
  EXPECT_EQ(check_uids_free(range, etc.path).error().actual,
            etc.path + "/subgid line 1 gives 2000000050 to carl");
  etc.put("subgid", "");
  etc.put("passwd", "root:x:0:0:::\ndora:x:2000000001:100:::\n");
  EXPECT_EQ(check_uids_free(range, etc.path).error().actual,
            etc.path + "/passwd line 2 gives 2000000001 to dora");
  etc.put("passwd", "dora:x:1000:2000000001:::\n");
  EXPECT_EQ(check_uids_free(range, etc.path).reason(), Reason::kConflict);
  etc.put("passwd", "dora:x:1000:1000:::\n");
  etc.put("group", "staff:x:2000140099:\n");
  EXPECT_EQ(check_uids_free(range, etc.path).error().actual,
            etc.path + "/group line 1 gives 2000140099 to staff");
  etc.put("group", "staff:x:2000140100:\n");
  EXPECT_TRUE(check_uids_free(range, etc.path).ok());
}

TEST(Uids, LinesThatSayNothingGiveNothing) {
  const Etc etc;
  etc.put("subuid", "# comment\n\nanna\nanna:x:y\nanna:2000000000:0\nanna:99999999999999:5\n:::\n");
  EXPECT_TRUE(check_uids_free(range_of(1), etc.path).ok());
  (void)unlink((etc.path + "/subgid").c_str());
  EXPECT_TRUE(check_uids_free(range_of(1), etc.path).ok());
  // What cannot be read is not taken for empty.
  (void)unlink((etc.path + "/subuid").c_str());
  ASSERT_EQ(mkdir((etc.path + "/subuid").c_str(), 0755), 0);
  EXPECT_FALSE(check_uids_free(range_of(1), etc.path).ok());
}

TEST(Uids, RangesThatReachReservedIdsAreWrong) {
  for (const UidRange& r :
       {UidRange{1000, 10}, UidRange{65'534, 5}, UidRange{2'147'483'640, 10}, UidRange{-1, 10},
        UidRange{std::numeric_limits<std::int64_t>::max(), 10}}) {
    const Status s = check_uids_free(r);
    ASSERT_EQ(s.reason(), Reason::kUsage) << r.first;
    EXPECT_EQ(s.error().actual, std::to_string(r.first));
    EXPECT_EQ(s.error().expected, "65536 to " + std::to_string(2'147'483'647 - r.count));
    EXPECT_FALSE(s.error().next.empty());
  }
}

}  // namespace
}  // namespace gbx
