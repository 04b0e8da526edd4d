// Keys in files: made only when that is asked for, once, whoever asks at the same time.
#include "crypto/key_file.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/os.h"

namespace gbx::crypto {
namespace {

struct Folder {
  std::string path = "/tmp/gbx-key-XXXXXX";
  Folder() {
    if (mkdtemp(path.data()) == nullptr) abort();
  }
  ~Folder() { (void)remove_tree(path); }
};

TEST(KeyFile, ReadingMakesNone) {
  const Folder folder;
  const std::string path = folder.path + "/key";
  EXPECT_EQ(read_signing_key(path).reason(), Reason::kNotFound);
  EXPECT_FALSE(path_exists(path));
  SystemRandom random;
  const auto made = signing_key_file(path, random);
  ASSERT_TRUE(made.ok()) << made.error().line();
  const auto read = read_signing_key(path);
  ASSERT_TRUE(read.ok()) << read.error().line();
  EXPECT_EQ(read->public_key().text(), made->public_key().text());
  EXPECT_EQ(signing_key_file(path, random)->public_key().text(), made->public_key().text());
  struct stat st {};
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
}

// Another process makes one after this one saw that there was none, and before it wrote its own.
TEST(KeyFile, WhoComesSecondHasTheFirstOnesKey) {
  const Folder folder;
  for (int round = 0; round < 50; ++round) {
    const std::string path = folder.path + "/" + std::to_string(round);
    std::atomic<int> waiting = 0;
    std::string keys[4];
    std::vector<std::thread> threads;
    for (std::string& key : keys) {
      threads.emplace_back([&] {
        SystemRandom random;
        ++waiting;
        while (waiting < 4) {
        }
        const auto made = signing_key_file(path, random);
        key = made.ok() ? made->public_key().text() : made.error().line();
      });
    }
    for (auto& t : threads) t.join();
    const auto kept = read_signing_key(path);
    ASSERT_TRUE(kept.ok()) << kept.error().line();
    for (const std::string& key : keys) ASSERT_EQ(key, kept->public_key().text()) << round;
  }
}

TEST(KeyFile, WhatIsNoKeyStaysAndIsRefused) {
  const Folder folder;
  const std::string path = folder.path + "/key";
  SystemRandom random;
  ASSERT_TRUE(write_file_atomic(path, Bytes(31, 1), 0600).ok());
  EXPECT_FALSE(signing_key_file(path, random).ok());
  EXPECT_EQ(*read_file(path, 100), Bytes(31, 1));
  ASSERT_EQ(unlink(path.c_str()), 0);
  ASSERT_EQ(symlink("nowhere", path.c_str()), 0);
  EXPECT_EQ(signing_key_file(path, random).reason(), Reason::kNotFound);
  EXPECT_FALSE(path_exists(folder.path + "/nowhere"));
}

}  // namespace
}  // namespace gbx::crypto
