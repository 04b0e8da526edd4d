// Volumes as they are written and, byte by byte, as nobody writes them.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "storage/volume_store.h"

namespace gbx::storage {
namespace {

constexpr std::uint64_t kBytes = 1 << 20;

Bytes content_of(const ObjectSize& o) {
  Bytes out(o.size);
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<std::uint8_t>(i + static_cast<std::size_t>(o.name[0]));
  }
  return out;
}
const std::vector<ObjectSize> kObjects = {
    {"c", 4096}, {"a", 0}, {"list-b", 5000}, {std::string(64, 'z'), 1}, {"a0", 8193}};

// A file without a name that holds this.
Fd file_of(ByteView content) {
  Fd fd(memfd_create("volume", MFD_CLOEXEC));
  EXPECT_TRUE(write_all(fd.get(), content).ok());
  return fd;
}
Bytes volume_of(const std::vector<ObjectSize>& objects, std::uint64_t bytes = kBytes) {
  const VolumeLayout layout = lay_out_volume(objects, bytes).value();
  Bytes out(bytes);
  std::copy(layout.front.begin(), layout.front.end(), out.begin());
  for (const VolumeObject& o : layout.objects) {
    const Bytes content = content_of({o.name(), o.size});
    std::copy(content.begin(), content.end(), out.begin() + static_cast<std::ptrdiff_t>(o.offset));
  }
  return out;
}

TEST(Volume, WhatIsWrittenIsRead) {
  const auto store = VolumeStore::open(file_of(volume_of(kObjects)));
  ASSERT_TRUE(store.ok()) << store.error().line();
  for (const ObjectSize& o : kObjects) {
    EXPECT_EQ(*(*store)->size(o.name), o.size);
    EXPECT_EQ(*(*store)->get_all(o.name, 10'000), content_of(o));
  }
  std::vector<std::string> names;
  ASSERT_TRUE((*store)
                  ->list([&](const std::string& name) {
                    names.push_back(name);
                    return ok_status();
                  })
                  .ok());
  EXPECT_EQ(names, (std::vector<std::string>{"a", "a0", "c", "list-b", std::string(64, 'z')}));
  Bytes two(2);
  ASSERT_TRUE((*store)->get("list-b", 4998, two).ok());
  EXPECT_EQ(two[1], content_of({"list-b", 5000})[4999]);
  // Not what lies behind an object, though the volume goes on.
  EXPECT_EQ((*store)->get("list-b", 4999, two).reason(), Reason::kTruncated);
  EXPECT_EQ((*store)->get("list-b", ~std::uint64_t{0}, two).reason(), Reason::kTruncated);
  EXPECT_EQ((*store)->get("a", 0, two).reason(), Reason::kTruncated);
  EXPECT_EQ((*store)->size("b").reason(), Reason::kNotFound);
  EXPECT_EQ((*store)->size("../b").reason(), Reason::kBadValue);
}

TEST(Volume, NobodyWritesIt) {
  const auto store = VolumeStore::open(file_of(volume_of(kObjects))).value();
  EXPECT_EQ(store->put("new", as_bytes("x")).reason(), Reason::kUnsupported);
  EXPECT_EQ(store->remove("c").reason(), Reason::kUnsupported);
}

TEST(Volume, AnEmptyOneIsOne) {
  const auto store = VolumeStore::open(file_of(volume_of({})));
  ASSERT_TRUE(store.ok()) << store.error().line();
  EXPECT_EQ((*store)->size("a").reason(), Reason::kNotFound);
}

TEST(Volume, TensOfThousandsOfObjectsAreFound) {
  std::vector<ObjectSize> objects;
  for (std::uint32_t i = 0; i < 40'000; ++i) objects.push_back({"o" + std::to_string(i), i % 3});
  const auto layout = lay_out_volume(objects);
  ASSERT_TRUE(layout.ok()) << layout.error().line();
  // Sparse, of its true size: nothing of it but its front lies anywhere.
  const Fd file = file_of(layout->front);
  ASSERT_EQ(ftruncate(file.get(), static_cast<off_t>(kVolumeBytes)), 0);
  const auto store = VolumeStore::open(Fd(dup(file.get())));
  ASSERT_TRUE(store.ok()) << store.error().line();
  for (const ObjectSize& o : objects) ASSERT_EQ(*(*store)->size(o.name), o.size);
}

TEST(Volume, WhatDoesNotFitIsNotWritten) {
  EXPECT_EQ(lay_out_volume({{"a", 1}, {"a", 2}}).reason(), Reason::kBadValue);
  EXPECT_EQ(lay_out_volume({{"A", 1}}).reason(), Reason::kBadValue);
  EXPECT_EQ(lay_out_volume({}, 4095).reason(), Reason::kBadValue);
  EXPECT_EQ(lay_out_volume({}, kVolumeBytes + 4096).reason(), Reason::kBadValue);
  EXPECT_EQ(lay_out_volume({{"a", 4097}}, 12288).reason(), Reason::kTooLarge);
  EXPECT_TRUE(lay_out_volume({{"a", 4096}}, 12288).ok());
  EXPECT_EQ(lay_out_volume({{"a", ~std::uint64_t{0}}}).reason(), Reason::kTooLarge);
  std::vector<ObjectSize> many;
  for (std::uint32_t i = 0; i <= kMaxVolumeObjects; ++i) many.push_back({std::to_string(i), 0});
  EXPECT_EQ(lay_out_volume(many).reason(), Reason::kTooLarge);
  many.pop_back();
  EXPECT_TRUE(lay_out_volume(many).ok());
  EXPECT_EQ(lay_out_volume(many, kBytes).reason(), Reason::kTooLarge);
}

// How a volume is refused of which the bytes at `offset` are changed.
Reason refused(std::size_t offset, ByteView bytes,
               const std::vector<ObjectSize>& objects = kObjects) {
  Bytes volume = volume_of(objects);
  std::copy(bytes.begin(), bytes.end(), volume.begin() + static_cast<std::ptrdiff_t>(offset));
  const auto store = VolumeStore::open(file_of(volume));
  return store.ok() ? Reason::kUninitialised : store.reason();
}
Bytes le(std::uint64_t value) { return ByteWriter().u64(value).take(); }
Bytes le32(std::uint32_t value) { return ByteWriter().u32(value).take(); }

constexpr std::size_t kIndex = 4096;
constexpr std::size_t entry(std::size_t i) { return kIndex + i * kVolumeEntryBytes; }

TEST(Volume, ALyingHeadIsRefused) {
  EXPECT_EQ(refused(0, {}), Reason::kUninitialised);
  EXPECT_EQ(refused(0, as_bytes("X")), Reason::kBadMagic);
  EXPECT_EQ(refused(0, Bytes(8)), Reason::kBadMagic) << "a volume that has no job yet";
  EXPECT_EQ(refused(8, le32(2)), Reason::kBadVersion);
  EXPECT_EQ(refused(8, le32(0)), Reason::kBadVersion);
  EXPECT_EQ(refused(12, le32(kMaxVolumeObjects + 1)), Reason::kTooLarge);
  EXPECT_EQ(refused(12, le32(~0U)), Reason::kTooLarge);
  EXPECT_EQ(refused(12, le32(kMaxVolumeObjects)), Reason::kBadStructure) << "no room for them";
  EXPECT_EQ(refused(12, le32(6)), Reason::kBadStructure) << "one more than there are";
  EXPECT_EQ(refused(12, le32(4)), Reason::kBadStructure) << "one less";
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{4096}, kBytes + 1,
                                   kVolumeBytes + 4096, ~std::uint64_t{0}}) {
    EXPECT_EQ(refused(16, le(size)), Reason::kBadStructure) << size;
  }
  EXPECT_EQ(refused(16, le(kBytes + 4096)), Reason::kTruncated);
  EXPECT_EQ(refused(16, le(kBytes - 4096)), Reason::kBadStructure) << "a device with more";
  for (const std::size_t at : {std::size_t{24}, std::size_t{510}, std::size_t{4095}}) {
    EXPECT_EQ(refused(at, as_bytes("\1")), Reason::kBadStructure) << at;
  }
}

TEST(Volume, ALyingIndexIsRefused) {
  const Bytes good = volume_of(kObjects);
  const auto name_at = [&](std::size_t i) {
    return to_bytes(ByteView(good).subspan(entry(i), kMaxObjectName));
  };
  EXPECT_EQ(refused(entry(1), name_at(0)), Reason::kBadStructure) << "a doubled name";
  EXPECT_EQ(refused(entry(1), name_at(4)), Reason::kBadStructure) << "out of order";
  EXPECT_EQ(refused(entry(0), Bytes(64)), Reason::kBadStructure) << "no name";
  EXPECT_EQ(refused(entry(2), as_bytes("C")), Reason::kBadStructure);
  EXPECT_EQ(refused(entry(2), as_bytes("c/")), Reason::kBadStructure);
  EXPECT_EQ(refused(entry(2) + 5, as_bytes("x")), Reason::kBadStructure) << "behind its zeros";
  const auto offset_of = [&](std::size_t i) {
    return ByteReader(ByteView(good).subspan(entry(i) + 64, 8)).u64().value();
  };
  const std::uint64_t second = offset_of(2);
  for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{4096}, second - 4096,
                                     second + 1, second + 4096, kBytes, ~std::uint64_t{0}}) {
    EXPECT_EQ(refused(entry(2) + 64, le(offset)), Reason::kBadStructure) << offset;
  }
  for (const std::uint64_t size :
       {std::uint64_t{4097}, std::uint64_t{1} << 43, ~std::uint64_t{0}, ~std::uint64_t{4095}}) {
    EXPECT_EQ(refused(entry(2) + 72, le(size)), Reason::kBadStructure) << size;
  }
  EXPECT_EQ(refused(entry(4) + 72, le(kBytes - offset_of(4) + 1)), Reason::kBadStructure)
      << "the last one beyond the end";
  EXPECT_EQ(refused(entry(4) + 72, le(~std::uint64_t{0})), Reason::kBadStructure);
  EXPECT_EQ(refused(entry(5), as_bytes("a")), Reason::kBadStructure) << "behind the index";
  EXPECT_EQ(refused(kIndex + 4095, as_bytes("a")), Reason::kBadStructure);
}

TEST(Volume, ATruncatedOneIsRefusedWhereverItEnds) {
  const Bytes volume = volume_of(kObjects);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{8}, std::size_t{4095}, std::size_t{4096}, std::size_t{8191},
        std::size_t{8192}, std::size_t{20'000}, volume.size() - 1}) {
    const auto store = VolumeStore::open(file_of(ByteView(volume).first(size)));
    EXPECT_EQ(store.reason(), Reason::kTruncated) << size;
  }
  EXPECT_EQ(VolumeStore::open(std::move(make_pipe().value().first)).reason(),
            Reason::kBadStructure);
}

// What is cut off after it was opened is an error of each read, and nothing else.
TEST(Volume, OneThatIsCutWhileItIsReadGivesErrors) {
  const Fd file = file_of(volume_of(kObjects));
  const auto store = VolumeStore::open(Fd(dup(file.get()))).value();
  ASSERT_EQ(ftruncate(file.get(), 8192), 0);
  EXPECT_EQ(store->get_all("c", 10'000).reason(), Reason::kTruncated);
  EXPECT_TRUE(store->get_all("a", 10'000).ok()) << "it has no bytes";
}

}  // namespace
}  // namespace gbx::storage
