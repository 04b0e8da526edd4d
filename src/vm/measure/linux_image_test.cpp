#include "vm/measure/linux_image.h"

#include <gtest/gtest.h>

#include "crypto/crypto.h"
#include "vm/measure/testing.h"

namespace gbx::vm::measure {
namespace {

using testing::KernelMaker;

template <class Change>
Reason refused(Change change) {
  KernelMaker m;
  change(m);
  const Bytes k = m.build();
  return pe_digest(k).reason();
}
std::uint32_t number(const Bytes& image, std::size_t at) {
  return ByteReader(ByteView(image).subspan(at, 4)).u32().value();
}

// Independent of layout_of(): the parts that Authenticode hashes, by hand.
TEST(PeDigest, IsOverHeadersSectionsAndTheRest) {
  const Bytes k = KernelMaker().build();
  const ByteView all(k);
  const std::size_t optional = 0x80 + 24;
  const std::size_t checksum = optional + 64;
  const std::size_t security = optional + 112 + 32;
  EXPECT_EQ(to_hex(pe_digest(k).value()),
            to_hex(crypto::sha384(
                concat({all.first(checksum), all.subspan(checksum + 4, security - checksum - 4),
                        all.subspan(security + 8)}))));
}

TEST(PeDigest, ChecksumAndCertificatesDoNotCount) {
  KernelMaker m;
  m.certificates = 0x200;
  const Bytes signed_kernel = m.build();
  Bytes other = signed_kernel;
  other.back() ^= 1;           // in the certificates
  other[0x80 + 24 + 64] ^= 1;  // the checksum
  EXPECT_EQ(pe_digest(signed_kernel).value(), pe_digest(other).value());
  Bytes changed = signed_kernel;
  changed[changed.size() - 0x201] ^= 1;
  EXPECT_NE(pe_digest(signed_kernel).value(), pe_digest(changed).value());
  changed = signed_kernel;
  changed[0x500] ^= 1;
  EXPECT_NE(pe_digest(signed_kernel).value(), pe_digest(changed).value());
}

TEST(PeDigest, WithoutACertificateDirectoryEverythingCounts) {
  KernelMaker m;
  m.directories = 4;
  const Bytes k = m.build();
  const std::size_t checksum = 0x80 + 24 + 64;
  EXPECT_EQ(
      pe_digest(k).value(),
      crypto::sha384(concat({ByteView(k).first(checksum), ByteView(k).subspan(checksum + 4)})));
}

TEST(PeDigest, WhatIsNoPeImageIsRefused) {
  EXPECT_EQ(pe_digest({}).reason(), Reason::kBadMagic);
  EXPECT_EQ(pe_digest(Bytes(4096)).reason(), Reason::kBadMagic);
  EXPECT_NE(pe_digest(Bytes(4096)).error().next.find("CONFIG_EFI_STUB"), std::string::npos);
  Bytes k = KernelMaker().build();
  k[0x80] = 'X';
  EXPECT_EQ(pe_digest(k).reason(), Reason::kBadMagic);
  EXPECT_EQ(refused([](auto& m) { m.magic = 0x107; }), Reason::kBadMagic);
}

TEST(PeDigest, EveryOffsetIsBounded) {
  EXPECT_EQ(refused([](auto& m) { m.pe_offset = 0xffffffff; }), Reason::kTruncated);
  EXPECT_EQ(refused([](auto& m) { m.pe_offset = 0x2fff; }), Reason::kTruncated);
  EXPECT_EQ(refused([](auto& m) { m.second_section = 0xffffffff; }), Reason::kTruncated);
  EXPECT_EQ(refused([](auto& m) { m.second_section = 0x1c01; }), Reason::kTruncated);
  EXPECT_EQ(refused([](auto& m) { m.sections = 97; }), Reason::kTooLarge);
  EXPECT_EQ(refused([](auto& m) { m.headers = 0x100; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.headers = 0x3001; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](auto& m) { m.certificates = 0x2000; }), Reason::kBadStructure);
  const Bytes k = KernelMaker().build();
  for (std::size_t n = 0; n < k.size(); n += 7) {
    EXPECT_FALSE(pe_digest(ByteView(k).first(std::min<std::size_t>(n, 0x2400 - 1))).ok()) << n;
  }
}

// The fields and their values are those of QEMU 10.1's x86_load_linux.
TEST(QemuHeader, SaysWhereEverythingWouldLie) {
  const Bytes k = KernelMaker().build();
  const Bytes initrd(5000);
  const Bytes p = with_qemu_header({k, initrd, "quiet"}, std::uint64_t{2} << 30).value();
  EXPECT_EQ(p[0x210], 0xb0);
  EXPECT_EQ(p[0x211], 0x81);
  EXPECT_EQ(number(p, 0x228), 0x20000U);
  EXPECT_EQ(p[0x224] | p[0x225] << 8, 0xfe00);
  EXPECT_EQ(number(p, 0x21c), 5000U);
  // 2 GiB less ACPI's 160 KiB less one byte less the initrd, rounded down to a page.
  EXPECT_EQ(number(p, 0x218), (0x80000000U - 0x28000U - 1U - 5000U) & ~4095U);
  Bytes back = p;
  for (const std::size_t at : {0x210, 0x211, 0x224, 0x225}) back[at] = k[at];
  std::copy(k.begin() + 0x218, k.begin() + 0x220, back.begin() + 0x218);
  std::copy(k.begin() + 0x228, k.begin() + 0x22c, back.begin() + 0x228);
  EXPECT_EQ(back, k);
}

TEST(QemuHeader, TheInitrdLiesBelowWhatMemoryAndKernelAllow) {
  const Bytes initrd(4096);
  const auto at = [&](const KernelMaker& m, std::uint64_t memory) {
    const Bytes k = m.build();
    return number(with_qemu_header({k, initrd, ""}, memory).value(), 0x218);
  };
  const std::uint64_t gib = 1U << 30;
  EXPECT_EQ(at({}, 2 * gib), at({}, 8 * gib));  // the lower block of a large machine is of 2 GiB
  EXPECT_EQ(at({}, gib), (gib - 0x28000 - 1 - 4096) & ~4095U);
  EXPECT_EQ(at({}, 0xafe00000), (0xafe00000U - 0x28000U - 1U - 4096U) & ~4095U);
  KernelMaker old;
  old.extended_flags = 0x7d;  // not above 4 GiB: its own bound counts
  EXPECT_EQ(at(old, 0xafe00000), (0x7fffffffU - 4096U) & ~4095U);
}

TEST(QemuHeader, WithoutAnInitrdItsFieldsStay) {
  const Bytes k = KernelMaker().build();
  const Bytes p = with_qemu_header({k, {}, ""}, 1U << 30).value();
  EXPECT_EQ(number(p, 0x218), number(k, 0x218));
}

TEST(QemuHeader, WhatQemuWouldTreatInAnotherWayIsRefused) {
  const auto reason = [](const KernelMaker& m, std::size_t initrd, const char* cmdline) {
    const Bytes k = m.build();
    return with_qemu_header({k, Bytes(initrd), cmdline}, 1U << 30).reason();
  };
  EXPECT_EQ(with_qemu_header({{}, {}, ""}, 1U << 30).reason(), Reason::kBadMagic);
  EXPECT_EQ(with_qemu_header({Bytes(8192), {}, ""}, 1U << 30).reason(), Reason::kBadMagic);
  KernelMaker m;
  m.protocol = 0x205;
  EXPECT_EQ(reason(m, 0, ""), Reason::kUnsupported);
  m = {};
  m.load_flags = 0;
  EXPECT_EQ(reason(m, 0, ""), Reason::kUnsupported);
  m = {};
  m.setup_sectors = 255;
  EXPECT_EQ(reason(m, 0, ""), Reason::kTruncated);
  m = {};
  m.setup_sectors = 1;
  EXPECT_TRUE(with_qemu_header({m.build(), {}, ""}, 1U << 30).ok());
  EXPECT_EQ(reason({}, 0, "vga=ask"), Reason::kUnsupported);
  EXPECT_EQ(reason({}, (1U << 30) - 0x28000, ""), Reason::kTooLarge);
}

}  // namespace
}  // namespace gbx::vm::measure
