// A policy's tables against the files that it speaks of.
#include "cli/table_files.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace gbx::cli {
namespace {

class TableFiles : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = "/tmp/gbx-tables-XXXXXX";
    ASSERT_NE(mkdtemp(folder_.data()), nullptr);
    std::filesystem::create_directory(folder_ + "/more");
    std::ofstream(folder_ + "/patients.csv") << "patient,\"age, years\",sex\r\np1,40,f\r\n";
    std::ofstream(folder_ + "/more/visits.csv") << "visit";
    std::ofstream(folder_ + "/picture.csv") << "\"never closed";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  Status check(const std::string& file, const std::string& subject,
               const std::vector<std::string>& zero = {}) {
    records::TableRule rule{file, subject};
    if (!zero.empty()) {
      records::StructuralZero z;
      z.columns = zero;
      z.words.assign(zero.size(), "1");
      rule.structural_zeros = std::vector{z};
    }
    return check_tables(folder_, {rule});
  }
  std::string folder_;
};

TEST_F(TableFiles, NameColumnsThatAreThere) {
  EXPECT_TRUE(check("patients.csv", "patient").ok());
  EXPECT_TRUE(check("patients.csv", "patient", {"age, years", "sex"}).ok());
  EXPECT_TRUE(check("more/visits.csv", "visit").ok());
  EXPECT_TRUE(check_tables("/nowhere", {}).ok());
}

TEST_F(TableFiles, AWrongWordIsRefusedWithWhatThereIs) {
  const Status typed = check("patients.csv", "pateint");
  EXPECT_EQ(typed.reason(), Reason::kBadValue);
  EXPECT_NE(typed.error().line().find("patient, age, years, sex"), std::string::npos);
  EXPECT_NE(typed.error().line().find("pateint"), std::string::npos);
  EXPECT_EQ(check("patients.csv", "patient", {"sex", "hiv"}).reason(), Reason::kBadValue);
  EXPECT_EQ(check("nope.csv", "patient").reason(), Reason::kNotFound);
  EXPECT_EQ(check("picture.csv", "patient").reason(), Reason::kBadValue);
  EXPECT_EQ(check("more", "patient").reason(), Reason::kBadValue);
}

// As `asset publish FILE` has it: the file goes by its own name.
TEST_F(TableFiles, AreOneFileWhereOneFileIsPublished) {
  const auto at = [&](const std::string& source) {
    return check_tables(source, {records::TableRule{"patients.csv", "patient"}});
  };
  EXPECT_TRUE(at(folder_ + "/patients.csv").ok());
  std::filesystem::rename(folder_ + "/patients.csv", folder_ + "/people.csv");
  EXPECT_EQ(at(folder_ + "/people.csv").reason(), Reason::kNotFound);
}

// Nobody waits for what a pipe may say one day, and what is no file of the folder is not read.
TEST_F(TableFiles, APipeOrALinkIsRefusedAtOnce) {
  ASSERT_EQ(mkfifo((folder_ + "/pipe.csv").c_str(), 0600), 0);
  ASSERT_EQ(symlink("patients.csv", (folder_ + "/link.csv").c_str()), 0);
  EXPECT_EQ(check("pipe.csv", "patient").reason(), Reason::kBadValue);
  EXPECT_EQ(check("link.csv", "patient").reason(), Reason::kIo);
}

}  // namespace
}  // namespace gbx::cli
