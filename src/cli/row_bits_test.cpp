// What a row of a table holds, by three models of it.
#include "cli/row_bits.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/os.h"
#include "base/seams.h"

namespace gbx::cli {
namespace {

TEST(RowBits, AreTheLeastOfThreeModels) {
  // Independent digits: every model needs log2(10^6) + log2(10^4) = 33.2 bits, and zlib some more.
  SeededRandom dice(4);
  std::string noise = "a,b\n";
  for (int i = 0; i < 5000; ++i) {
    const auto six = std::to_string(1'000'000 + dice.below(1'000'000)).substr(1);
    const auto four = std::to_string(10'000 + dice.below(10'000)).substr(1);
    noise += "0." + six + "," + "0." + four + "\n";
  }
  const auto n = row_bits_of(noise);
  ASSERT_TRUE(n.ok()) << n.error().line();
  EXPECT_EQ(n->columns, 33);
  EXPECT_GT(n->zlib, n->columns);
  EXPECT_EQ(n->bits, 33);
  EXPECT_EQ(n->rows, 5000);
  // Columns that follow from each other: only the compressor sees it.
  std::string same = "a,b,c\n";
  for (int i = 0; i < 5000; ++i) {
    const auto x = std::to_string(dice.below(1'000'000'000));
    same += x + "," + x + "," + x + "\n";
  }
  const auto s = row_bits_of(same);
  ASSERT_TRUE(s.ok());
  EXPECT_LT(s->zlib, s->columns);
  EXPECT_EQ(s->bits, std::min(s->zlib, s->xz));
  // Visits of the same people, far apart: zlib looks back 32 KiB and has forgotten them.
  std::vector<std::string> people;
  for (int i = 0; i < 2000; ++i) {
    std::string row;
    for (int d = 0; d < 60; ++d) row += static_cast<char>('a' + dice.below(26));
    people.push_back(row + "\n");
  }
  std::string visits = "person\n";
  for (int round = 0; round < 10; ++round) {
    for (const auto& row : people) visits += row;
  }
  const auto v = row_bits_of(visits);
  ASSERT_TRUE(v.ok());
  EXPECT_LT(v->xz * 5, v->zlib);
  EXPECT_EQ(v->bits, std::min(v->columns, v->xz));
}

TEST(RowBits, WordsAndCodesAreTheOnesThatOccur) {
  std::string csv = "word,code,when\r\n";
  for (int i = 0; i < 1024; ++i) {
    csv += (i % 2 == 0 ? "yes," : "\"n,o\",") + std::string(i % 4 < 2 ? "1," : "1000000,") +
           (i % 8 < 4 ? "" : "x") + "\r\n";
  }
  const auto r = row_bits_of(csv);
  ASSERT_TRUE(r.ok()) << r.error().line();
  EXPECT_EQ(r->columns, 3);
  EXPECT_EQ(r->bits, 1);  // the rows repeat, and less than one bit is one
}

// Numbers beyond those of a double, and spans beyond them, are words that occur: 1,024 of them
// here.
TEST(RowBits, NumbersThatNoDoubleHoldsAreWords) {
  for (const char* huge : {"1e308,", "1e400,", "-1e308,"}) {
    std::string csv = "huge,other\n" + std::string(huge) + "1\n";
    csv += std::string("1e308,") + "1\n";
    for (int i = 0; i < 1024; ++i) csv += std::to_string(i) + ".5,1\n";
    const auto r = row_bits_of(csv);
    ASSERT_TRUE(r.ok()) << r.error().line();
    EXPECT_EQ(r->columns, 10) << huge;
    EXPECT_GT(r->bits, 1) << huge;
  }
}

TEST(RowBits, WhatIsNoTableIsSaid) {
  for (const char* csv : {"", "a,b\n", "a,b\n1\n", "a,b\n1,\"two\nlines\"\n"}) {
    EXPECT_EQ(row_bits_of(csv).reason(), Reason::kBadValue) << csv;
  }
  std::string folder = "/tmp/gbx-rows-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  EXPECT_EQ(measure_row_bits(folder).reason(), Reason::kNotFound);
  EXPECT_EQ(measure_row_bits(folder + "/none").reason(), Reason::kIo);
  ASSERT_TRUE(make_dirs(folder + "/deep", 0755).ok());
  ASSERT_TRUE(write_file_atomic(folder + "/small.csv", as_bytes("a\n1\n"), 0644).ok());
  ASSERT_TRUE(write_file_atomic(folder + "/deep/large.csv", as_bytes("a\n1\n2\n3\n"), 0644).ok());
  const auto r = measure_row_bits(folder);
  ASSERT_TRUE(r.ok()) << r.error().line();
  EXPECT_EQ(r->file, "deep/large.csv");
  EXPECT_EQ(r->rows, 3);
  EXPECT_TRUE(remove_tree(folder).ok());
}

}  // namespace
}  // namespace gbx::cli
