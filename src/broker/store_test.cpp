#include "broker/store.h"

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <stdlib.h>

#include "base/os.h"
#include "broker/custody.h"
#include "broker/testing.h"

namespace gbx::broker {
namespace {

using gbx::testing::BrokerWorld;
using gbx::testing::must;

constexpr crypto::ScryptParameters kCheap{1U << 10, 8, 1};

class Folder : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/gbx-store-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    dir_ = name;
    path_ = dir_ + "/log.db";
  }
  void TearDown() override { EXPECT_TRUE(remove_tree(dir_).ok()); }
  void change(const std::string& sql) const {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK)
        << sqlite3_errmsg(db);
    sqlite3_close(db);
  }
  std::string dir_;
  std::string path_;
};
using SqliteStore = Folder;
using CustodyFile = Folder;

TEST_F(SqliteStore, KeepsAWholeJob) {
  std::string before;
  {
    auto store = must(open_sqlite_store(path_));
    BrokerWorld w(80, store.get());
    w.start_and_publish();
    auto run = w.run_until_sealed(w.submission());
    must(w.judge(run.job_id()));
    before = canonical(w.core->state().snapshot());
    EXPECT_EQ(open_sqlite_store(path_).reason(), Reason::kConflict);  // one process at a time
  }
  auto store = must(open_sqlite_store(path_));
  SeededRandom random(1);
  auto log = must(Log::open(*store, random));
  EXPECT_EQ(canonical(log->state().snapshot()), before);
  EXPECT_EQ(store->entry(log->size()).reason(), Reason::kNotFound);
}

TEST_F(SqliteStore, EveryChangeIsSeenAtTheNextStart) {
  {
    auto store = must(open_sqlite_store(path_));
    BrokerWorld w(81, store.get());
    w.start_and_publish();
  }
  const auto reopen = [&] {
    auto store = must(open_sqlite_store(path_));
    SeededRandom random(1);
    return Log::open(*store, random).reason();
  };
  EXPECT_EQ(reopen(), Reason::kUninitialised);
  change(
      "UPDATE entry SET entry = replace(entry, '\"attempts\":3', '\"attempts\":9') WHERE seq = 1");
  EXPECT_EQ(reopen(), Reason::kBadHash);
  change(
      "UPDATE entry SET entry = replace(entry, '\"attempts\":9', '\"attempts\":3') WHERE seq = 1");
  EXPECT_EQ(reopen(), Reason::kUninitialised);
  change("UPDATE entry SET salt = randomblob(32) WHERE seq = 2");
  EXPECT_EQ(reopen(), Reason::kBadHash);
  change("UPDATE entry SET salt = x'00' WHERE seq = 2");
  EXPECT_EQ(reopen(), Reason::kDatabase);
  change("DELETE FROM entry WHERE seq = 1");
  EXPECT_EQ(reopen(), Reason::kNotFound);
  change("PRAGMA user_version = 7");
  EXPECT_EQ(open_sqlite_store(path_).reason(), Reason::kBadVersion);
}

TEST_F(SqliteStore, AnAppendIsWholeOrNothing) {
  auto store = must(open_sqlite_store(path_));
  must(store->append(0, {{{}, "a"}}, {}));
  // The second entry's number is taken: neither of the two stays.
  EXPECT_FALSE(store->append(1, {{{}, "b"}, {{}, "c"}}, {{{0, 1}, {}}, {{0, 1}, {}}}).ok());
  EXPECT_EQ(must(store->size()), 1u);
  EXPECT_FALSE(store->append(0, {{{}, "d"}}, {}).ok());
  must(store->append(1, {{{}, "b"}}, {}));
  EXPECT_EQ(must(store->entry(1)).entry, "b");
}

TEST_F(SqliteStore, ALostLogIsNoEmptyLog) {
  const auto reason = [this] { return open_sqlite_store(path_, LogFile::kMustExist).reason(); };
  EXPECT_EQ(reason(), Reason::kDatabase);
  EXPECT_FALSE(path_exists(path_));
  must(write_file_atomic(path_, {}, 0600));
  EXPECT_EQ(reason(), Reason::kDatabase);
  EXPECT_EQ(reason(), Reason::kDatabase);  // the first try made nothing of it
  ASSERT_EQ(unlink(path_.c_str()), 0);
  must(open_sqlite_store(path_));
  EXPECT_EQ(reason(), Reason::kUninitialised);
}

TEST_F(CustodyFile, OpensWithItsPassphraseOnly) {
  SeededRandom random(90);
  const auto pass = Passphrase::copy_of(as_bytes("correct horse battery"));
  const auto wrong = Passphrase::copy_of(as_bytes("correct horse batterz"));
  const auto keys = must(make_set_keys(random));
  const Bytes file = must(seal_keys(keys, pass, kCheap, random));
  auto opened = open_keys(file, keys.chain, pass);
  ASSERT_TRUE(opened.ok()) << opened.error().line();
  EXPECT_EQ(opened->signing.public_key(), keys.signing.public_key());
  EXPECT_EQ(opened->kek.public_key(), keys.kek.public_key());
  EXPECT_EQ(open_keys(file, keys.chain, wrong).reason(), Reason::kWrongPassphrase);
  const auto others = must(make_set_keys(random));
  EXPECT_EQ(open_keys(file, others.chain, pass).reason(), Reason::kWrongSet);
}

TEST_F(CustodyFile, EveryByteCounts) {
  SeededRandom random(91);
  const auto pass = Passphrase::copy_of(as_bytes("correct horse battery"));
  const auto keys = must(make_set_keys(random));
  const Bytes file = must(seal_keys(keys, pass, {2, 1, 1}, random));
  ASSERT_EQ(file.size(), 212u);  // docs/broker.md
  for (std::size_t i = 0; i < file.size(); ++i) {
    Bytes bad = file;
    bad[i] ^= 1;
    const auto r = open_keys(bad, keys.chain, pass);
    ASSERT_FALSE(r.ok()) << i;
    EXPECT_EQ(r.reason(), i < 7    ? Reason::kBadMagic
                          : i == 7 ? Reason::kBadVersion
                          : i < 24 ? r.reason()
                                   : Reason::kWrongPassphrase)
        << i;
  }
  Bytes longer = file;
  longer.push_back(0);
  EXPECT_EQ(open_keys(longer, keys.chain, pass).reason(), Reason::kTrailingBytes);
  EXPECT_EQ(open_keys(ByteView(file).first(211), keys.chain, pass).reason(), Reason::kTruncated);
  // A file cannot ask for all of the machine's memory.
  Bytes greedy = file;
  greedy[8 + 3] = 0x80;
  EXPECT_EQ(open_keys(greedy, keys.chain, pass).reason(), Reason::kBadValue);
}

TEST_F(CustodyFile, InitMakesASetOnce) {
  SeededRandom random(92);
  const auto pass = Passphrase::copy_of(as_bytes("correct horse battery"));
  const auto chain = must(init_state(dir_ + "/s", pass, random, kCheap));
  EXPECT_EQ(must(load_state(dir_ + "/s", pass)).chain.charter.set_id(), chain.charter.set_id());
  EXPECT_EQ(init_state(dir_ + "/s", pass, random, kCheap).reason(), Reason::kAlreadyExists);
  // A crash between the files left no set: init may run again.
  ASSERT_EQ(unlink((dir_ + "/s/set.json").c_str()), 0);
  EXPECT_TRUE(init_state(dir_ + "/s", pass, random, kCheap).ok());
  // But never over a set that was used: its keys would be gone.
  must(must(open_sqlite_store(dir_ + "/s/log.db"))->append(0, {{{}, "boot"}}, {}));
  ASSERT_EQ(unlink((dir_ + "/s/set.json").c_str()), 0);
  EXPECT_EQ(init_state(dir_ + "/s", pass, random, kCheap).reason(), Reason::kAlreadyExists);
}

TEST_F(CustodyFile, PassphraseFromADescriptor) {
  const auto read = [](std::string_view text) {
    auto pipe = must(make_pipe());
    must(write_all(pipe.second.get(), as_bytes(text)));
    pipe.second.reset();
    return read_passphrase(pipe.first.get());
  };
  EXPECT_EQ(must(read("eight ch\n")).size(), 8u);
  EXPECT_EQ(must(read("eight ch")).size(), 8u);
  EXPECT_EQ(read("seven c\n").reason(), Reason::kBadValue);
  EXPECT_EQ(read(std::string(1025, 'x')).reason(), Reason::kBadValue);
  EXPECT_EQ(read_passphrase(-1).reason(), Reason::kIo);
}

}  // namespace
}  // namespace gbx::broker
