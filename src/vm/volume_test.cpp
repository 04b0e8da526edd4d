// From a store over the protocol to a reader of the volume, as between node and machine.
#include "vm/volume.h"

#include "asset/asset_test_util.h"
#include "asset/verify.h"
#include "storage/memory_store.h"
#include "storage/testing.h"
#include "storage/volume_store.h"
#include "vm/testing.h"

namespace gbx::vm::testing {
namespace {

using storage::MemoryStore;

std::shared_ptr<MemoryStore> store_of(const std::map<std::string, std::size_t>& objects) {
  auto store = std::make_shared<MemoryStore>();
  for (const auto& [name, size] : objects) {
    Bytes content(size);
    for (std::size_t i = 0; i < size; ++i) content[i] = byte_at(i + name.size());
    EXPECT_TRUE(store->put(name, content).ok());
  }
  return store;
}
std::vector<std::string> names_of(MemoryStore& store) {
  std::vector<std::string> out;
  for (const auto& [name, content] : store.objects()) out.push_back(name);
  return out;
}

// What a volume reads as, whole, and byte for byte the same in pieces.
Bytes whole(VolumeSource& volume) {
  Bytes all(volume.size());
  EXPECT_TRUE(volume.read(0, all).ok());
  SeededRandom random(3);
  for (int i = 0; i < 300; ++i) {
    const std::uint64_t at = random.below(all.size());
    Bytes piece(static_cast<std::size_t>(
        random.below(std::min<std::uint64_t>(20'000, all.size() - at) + 1)));
    EXPECT_TRUE(volume.read(at, piece).ok());
    EXPECT_TRUE(equal(piece, ByteView(all).subspan(at, piece.size()))) << at;
  }
  return all;
}

TEST(ObjectVolume, ReadsAsItsLayoutWithZerosBetween) {
  const auto store = store_of({{"a", 0}, {"b", 1}, {"c", 4096}, {"d", 12'289}, {"e", 0}});
  const auto volume = ObjectVolume::make(store, names_of(*store), 65536).value();
  const Bytes all = whole(*volume);
  Fd file(memfd_create("volume", MFD_CLOEXEC));
  ASSERT_TRUE(write_all(file.get(), all).ok());
  const auto read = storage::VolumeStore::open(std::move(file));
  ASSERT_TRUE(read.ok()) << read.error().line();
  std::size_t objects = 8192;
  for (const auto& [name, content] : store->objects()) {
    EXPECT_EQ(*(*read)->get_all(name, 65536), content) << name;
    for (std::size_t i = objects + content.size(); i % 4096 != 0; ++i) EXPECT_EQ(all[i], 0) << i;
    objects += (content.size() + 4095) / 4096 * 4096;
  }
  Bytes one(1);
  EXPECT_EQ(volume->read(65536, one).reason(), Reason::kBadValue);
  EXPECT_EQ(volume->read(~std::uint64_t{0}, one).reason(), Reason::kBadValue);
}

TEST(ObjectVolume, ReadsOfTheStoreOnlyWhatTheMachineAsksFor) {
  const auto store = store_of({{"a", 100'000}, {"b", 100'000}});
  const auto watched = std::make_shared<storage::testing::RecordingStore>(*store);
  const auto volume = ObjectVolume::make(watched, names_of(*store)).value();
  EXPECT_EQ(watched->take_log(), (std::vector<std::string>{"size a", "size b"}));
  Bytes out(8192);
  ASSERT_TRUE(volume->read(8192 + 4096, out).ok());
  EXPECT_EQ(watched->take_log(), (std::vector<std::string>{"get a 4096 8192"}));
  ASSERT_TRUE(volume->read(8192 + 98'304, out).ok());
  EXPECT_EQ(watched->take_log(), (std::vector<std::string>{"get a 98304 1696", "get b 0 4096"}));
  ASSERT_TRUE(volume->read(0, out).ok());
  ASSERT_TRUE(volume->read(volume->size() - out.size(), out).ok());
  EXPECT_EQ(out, Bytes(out.size()));
  EXPECT_TRUE(watched->take_log().empty());
}

TEST(ObjectVolume, WhatTheStoreHasNotOrLosesIsAnError) {
  const auto store = store_of({{"a", 5000}, {"b", 1}});
  EXPECT_EQ(ObjectVolume::make(store, {"a", "absent"}).reason(), Reason::kNotFound);
  EXPECT_EQ(ObjectVolume::make(store, {"a", "a"}).reason(), Reason::kBadValue);
  const auto volume = ObjectVolume::make(store, {"a", "b"}).value();
  store->objects()["a"].resize(4000);
  Bytes out(4096);
  EXPECT_EQ(volume->read(8192, out).reason(), Reason::kTruncated);
  ASSERT_TRUE(store->remove("a").ok());
  EXPECT_EQ(volume->read(8192, out).reason(), Reason::kNotFound);
  EXPECT_TRUE(volume->read(16384, out).ok());
}

TEST(ObjectVolume, TenThousandObjectsAreCopiedByLibnbd) {
  if (!path_exists("/usr/bin/nbdcopy")) GTEST_SKIP() << "libnbd is not installed";
  std::map<std::string, std::size_t> objects;
  for (std::size_t i = 0; i < 10'000; ++i) objects["o" + std::to_string(i)] = i % 700;
  const auto store = store_of(objects);
  auto pair = make_socket_pair().value();
  auto server = NbdServer::start(std::move(pair.first),
                                 ObjectVolume::make(store, names_of(*store), 64U << 20).value())
                    .value();
  const Folder folder;
  // libnbd takes no connected descriptor: a program in front of it gives its own.
  ProcessOptions p;
  p.argv = {"/usr/bin/python3", "-c",
            "import socket,sys,threading,subprocess\n"
            "q=socket.socket(fileno=3); l=socket.socket(socket.AF_UNIX); l.bind(sys.argv[1]); "
            "l.listen()\n"
            "c=subprocess.Popen(['nbdcopy','--connections=1','nbd+unix:///"
            "?socket='+sys.argv[1],sys.argv[2]])\n"
            "s=l.accept()[0]\n"
            "def pump(a,b):\n"
            " while d:=a.recv(65536): b.sendall(d)\n"
            " b.shutdown(socket.SHUT_WR)\n"
            "t=threading.Thread(target=pump,args=(s,q)); t.start(); pump(q,s); t.join(); "
            "sys.exit(c.wait())\n",
            folder.path + "/nbd", folder.path + "/copy"};
  p.env = {{"PATH", "/usr/bin"}};
  p.descriptors[3] = pair.second.get();
  const auto copied = run_command(p);
  ASSERT_TRUE(copied.ok() && copied->status.code == 0) << (copied.ok() ? copied->err : "");
  const auto read =
      storage::VolumeStore::open(Fd(open((folder.path + "/copy").c_str(), O_RDONLY | O_CLOEXEC)));
  ASSERT_TRUE(read.ok()) << read.error().line();
  for (const auto& [name, content] : store->objects()) {
    ASSERT_EQ(*(*read)->get_all(name, 1000), content) << name;
  }
}

TEST(ObjectVolume, HoldsTheObjectsOfAJobsVersionsAndNoOthers) {
  using namespace asset::testing;
  const Folder folder;
  auto store = std::make_shared<MemoryStore>();
  std::vector<records::VersionRecord> versions;
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    const std::string source = folder.path + "/src" + std::to_string(seed);
    write_tree(source, Tree{{"f", pattern(100'000, seed)}, {"empty", ""}});
    SeededRandom random(seed);
    auto published = asset::publish(options_for(source, source + "-state"), *store, random);
    ASSERT_TRUE(published.ok()) << published.error().line();
    if (seed != 3) versions.push_back(published->record);
  }
  const auto names = objects_of(*store, {versions[0], versions[1], versions[0]});
  ASSERT_TRUE(names.ok()) << names.error().line();
  EXPECT_LT(names->size(), store->objects().size());
  const auto volume = ObjectVolume::make(store, *names, 64U << 20).value();
  Bytes all(volume->size());
  ASSERT_TRUE(volume->read(0, all).ok());
  Fd file(memfd_create("volume", MFD_CLOEXEC));
  ASSERT_TRUE(write_all(file.get(), all).ok());
  const auto read = storage::VolumeStore::open(std::move(file)).value();
  for (const records::VersionRecord& version : versions) {
    const auto verified = asset::verify(*read, version);
    EXPECT_TRUE(verified.ok()) << verified.error().line();
  }
  records::VersionRecord lost = versions[0];
  lost.objects_hash[0] ^= 1;
  EXPECT_FALSE(objects_of(*store, {lost}).ok());
}

TEST(LaterVolume, IsZerosUntilItIsGivenOneOfItsSizeOnce) {
  const auto store = store_of({{"a", 10}});
  LaterVolume later(65536);
  Bytes out(8);
  ASSERT_TRUE(later.read(0, out).ok());
  EXPECT_EQ(out, Bytes(8));
  EXPECT_EQ(later.give(ObjectVolume::make(store, {"a"}).value()).reason(), Reason::kBadValue);
  EXPECT_EQ(later.give(nullptr).reason(), Reason::kBadValue);
  ASSERT_TRUE(later.give(ObjectVolume::make(store, {"a"}, 65536).value()).ok());
  ASSERT_TRUE(later.read(0, out).ok());
  EXPECT_EQ(as_text(out), storage::kVolumeMagic);
  EXPECT_EQ(later.give(ObjectVolume::make(store, {"a"}, 65536).value()).reason(),
            Reason::kWrongState);
}

}  // namespace
}  // namespace gbx::vm::testing
