#include "vm/measure/ovmf.h"

#include <gtest/gtest.h>

#include "base/os.h"
#include "vm/measure/testing.h"

namespace gbx::vm::measure {
namespace {

using testing::FirmwareMaker;

Firmware good(const FirmwareMaker& m) {
  auto f = Firmware::parse(m.build());
  EXPECT_TRUE(f.ok()) << f.error().line();
  return std::move(f).value();
}
Reason refusal(const FirmwareMaker& m) { return Firmware::parse(m.build()).reason(); }
template <class Change>
Reason refused(Change change) {
  FirmwareMaker m;
  change(m);
  return refusal(m);
}

TEST(Ovmf, ReadsWhatTheTableNames) {
  const Firmware f = good({});
  EXPECT_EQ(f.base(), 0xffffc000U);
  EXPECT_EQ(f.reset_address(), 0x80b004U);
  EXPECT_EQ(f.hash_table(), 0x810c00U);
  ASSERT_EQ(f.tdvf().size(), 6U);
  EXPECT_EQ(f.tdvf()[0].kind, TdvfKind::kBfv);
  EXPECT_TRUE(f.tdvf()[0].measured);
  EXPECT_FALSE(f.tdvf()[1].measured);
  EXPECT_EQ(f.find(TdvfKind::kTdHob)->address, 0x809000U);
  ASSERT_EQ(f.sev().size(), 7U);
  EXPECT_EQ(f.find(SevKind::kKernelHashes)->address, 0x810000U);
  EXPECT_TRUE(require_tdx(f).ok());
  EXPECT_TRUE(require_sev(f).ok());
}

TEST(Ovmf, FirmwareWithoutMetadataIsToldWhichBuildIsNeeded) {
  const auto f = Firmware::parse(testing::pattern(kPageSize, 3));
  ASSERT_TRUE(f.ok());
  EXPECT_EQ(require_tdx(*f).reason(), Reason::kUnsupported);
  EXPECT_NE(require_tdx(*f).error().next.find("OVMF.fd"), std::string::npos);
  EXPECT_EQ(require_sev(*f).reason(), Reason::kUnsupported);
  EXPECT_NE(require_sev(*f).error().next.find("ovmf-amdsev"), std::string::npos);
}

TEST(Ovmf, TheImageIsOfWholePagesAndBounded) {
  EXPECT_EQ(Firmware::parse({}).reason(), Reason::kBadStructure);
  EXPECT_EQ(Firmware::parse(Bytes(kPageSize + 1)).reason(), Reason::kBadStructure);
  EXPECT_EQ(Firmware::parse(Bytes(kMaxFirmwareSize + kPageSize)).reason(), Reason::kTooLarge);
}

TEST(Ovmf, TheTableIsWholeAndSaysNothingTwice) {
  const auto table = [](std::uint16_t length) {
    Bytes image = FirmwareMaker().build();
    const std::size_t at = image.size() - 32 - 18;
    image[at] = static_cast<std::uint8_t>(length);
    image[at + 1] = static_cast<std::uint8_t>(length >> 8);
    return Firmware::parse(std::move(image)).reason();
  };
  EXPECT_EQ(table(17), Reason::kBadStructure);
  EXPECT_EQ(table(0xffff), Reason::kBadStructure);
  EXPECT_EQ(table(18 + 22 + 5), Reason::kTrailingBytes);
  EXPECT_EQ(refused([](auto& m) {
              m.more = {{testing::kSevGuid, Bytes(4)}};
            }),
            Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) {
              m.more = {{Guid{1}, Bytes(8)}, {Guid{1}, Bytes(8)}};
            }),
            Reason::kBadStructure);
  EXPECT_TRUE(Firmware::parse([] {
                FirmwareMaker m;
                m.more = {{Guid{1}, Bytes(8)}};
                return m.build();
              }())
                  .ok());
}

TEST(Ovmf, EntriesThatAreCutAreRefused) {
  for (const Guid& g :
       {testing::kTdvfGuid, testing::kSevGuid, testing::kHashTableGuid, testing::kResetGuid}) {
    Bytes image = FirmwareMaker().build();
    Bytes table;
    append(table, Bytes(3));
    append(table, ByteWriter().u16(21).raw(g).bytes());
    append(table, ByteWriter().u16(39).raw(testing::kTableGuid).bytes());
    std::copy(table.begin(), table.end(),
              image.end() - 32 - static_cast<std::ptrdiff_t>(table.size()));
    EXPECT_EQ(Firmware::parse(std::move(image)).reason(), Reason::kBadStructure);
  }
}

TEST(Ovmf, TdvfMetadataMustBeWhatQemuStarts) {
  EXPECT_EQ(refused([](auto& m) { m.tdvf_signature = "TDVX"; }), Reason::kBadMagic);
  EXPECT_EQ(refused([](auto& m) { m.tdvf_version = 2; }), Reason::kBadVersion);
  EXPECT_EQ(refused([](auto& m) { m.tdvf_count = 1; }), Reason::kTooLarge);
  EXPECT_EQ(refused([](auto& m) { m.tdvf_count = 65; }), Reason::kTooLarge);
  EXPECT_EQ(refused([](auto& m) { m.tdvf_length_more = 1; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf_offset_more = 0x10000; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf_offset_more = 0U - 0x1800U + 8U; }),
            Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[3].kind = 4; }), Reason::kUnsupported);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[0].attributes = 3; }), Reason::kUnsupported);
}

TEST(Ovmf, TdvfSectionsAreWholePagesWithinTheirBounds) {
  EXPECT_EQ(refused([](auto& m) { m.tdvf[2].address += 1; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[2].size += 1; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[2].size = 0; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[2].size = std::uint64_t{1} << 40; }), Reason::kTooLarge);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[2].size = 0U - kPageSize; }), Reason::kTooLarge);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[2].address = 0U - kPageSize; }), Reason::kTooLarge);
  EXPECT_EQ(refused([](auto& m) {
              m.tdvf[2].size = 0x8000000;
              m.tdvf[2].address = 0x10000000;
              m.tdvf[3].size = 0x8000000;
              m.tdvf[3].address = 0x20000000;
            }),
            Reason::kTooLarge);
}

TEST(Ovmf, ARefusalNamesTheNumbers) {
  FirmwareMaker m;
  m.tdvf[2].address = 0x811001;
  const Error e = Firmware::parse(m.build()).error();
  EXPECT_EQ(e.actual, "0x811001, 0xf000 bytes");
  EXPECT_EQ(e.expected, "multiples of 4096");
}

TEST(Ovmf, TdvfDataIsOfTheImageAndFillsItsMemory) {
  EXPECT_EQ(refused([](auto& m) { m.tdvf[0].data_size -= 0x1000; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[0].offset += 0x1000; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[0].offset = 0xfffff000; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[2].data_size = 0x1000; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[2].attributes = 1; }), Reason::kBadStructure);
}

TEST(Ovmf, TdvfSectionsDoNotOverlapAndAreAllThere) {
  EXPECT_EQ(refused([](auto& m) { m.tdvf[3].address = 0x805000; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[1].address = 0xffffd000; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[1].offset = 0x1000; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[4].kind = 3; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf[3].kind = 2; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.tdvf.erase(m.tdvf.begin() + 1); }), Reason::kBadStructure);
}

TEST(Ovmf, SevMetadataMustBeWhatQemuStarts) {
  EXPECT_EQ(refused([](auto& m) { m.sev_signature = "ASEW"; }), Reason::kBadMagic);
  EXPECT_EQ(refused([](auto& m) { m.sev_version = 2; }), Reason::kBadVersion);
  EXPECT_EQ(refused([](auto& m) { m.sev_count = 0; }), Reason::kTooLarge);
  EXPECT_EQ(refused([](auto& m) { m.sev_count = 65; }), Reason::kTooLarge);
  EXPECT_EQ(refused([](auto& m) { m.sev_offset_more = 0x10000; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.sev[4].kind = 5; }), Reason::kUnsupported);
  EXPECT_EQ(refused([](auto& m) { m.sev[0].address += 16; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.sev[0].size += 16; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.sev[2] = {0x900000, 0x2000, 2}; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.sev[1].address = 0x808000; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.sev[4].kind = 3; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.sev[0].size = 0x20000000; }), Reason::kTooLarge);
}

TEST(Ovmf, AnSevSectionWithoutAPageIsNone) {
  FirmwareMaker m;
  m.sev[4].size = 0;
  EXPECT_EQ(good(m).sev().size(), 6U);
}

TEST(Ovmf, TheHashTableHasRoomInOnePageOrIsNotThere) {
  EXPECT_EQ(refused([](auto& m) { m.hash_table_size = 175; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.hash_table = 0x810f60; }), Reason::kBadStructure);
  EXPECT_FALSE(good(FirmwareMaker::without_hashes()).hash_table());
}

// What the page of measures says about Debian 12's package; guests on TDX and SEV-SNP need another.
TEST(Ovmf, DebiansImageHasTheMetadataAndItsHalfHasNot) {
  const auto whole = read_file("/usr/share/ovmf/OVMF.fd", kMaxFirmwareSize);
  const auto half = read_file("/usr/share/OVMF/OVMF_CODE_4M.fd", kMaxFirmwareSize);
  if (!whole.ok() || !half.ok()) GTEST_SKIP() << "QEMU is not installed (package ovmf)";
  const auto f = Firmware::parse(*whole);
  ASSERT_TRUE(f.ok()) << f.error().line();
  EXPECT_TRUE(require_tdx(*f).ok());
  EXPECT_TRUE(require_sev(*f).ok());
  EXPECT_FALSE(f->hash_table());
  const auto other = Firmware::parse(*half);
  ASSERT_TRUE(other.ok()) << other.error().line();
  EXPECT_EQ(require_tdx(*other).reason(), Reason::kUnsupported);
  EXPECT_EQ(require_sev(*other).reason(), Reason::kUnsupported);
}

}  // namespace
}  // namespace gbx::vm::measure
