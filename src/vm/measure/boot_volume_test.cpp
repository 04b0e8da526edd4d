#include "vm/measure/boot_volume.h"

#include <gtest/gtest.h>
#include <lzma.h>

#include "base/os.h"
#include "vm/measure/guid.h"
#include "vm/measure/testing.h"

namespace gbx::vm::measure {
namespace {

constexpr Guid kLzma = guid("ee4e5898-3914-4259-9d6e-dc7bd79403cf");

Bytes packed(const Bytes& plain) {
  lzma_options_lzma options;
  EXPECT_FALSE(lzma_lzma_preset(&options, 1));
  lzma_stream s = LZMA_STREAM_INIT;
  EXPECT_EQ(lzma_alone_encoder(&s, &options), LZMA_OK);
  Bytes out(plain.size() + 4096);
  s.next_in = plain.data();
  s.avail_in = plain.size();
  s.next_out = out.data();
  s.avail_out = out.size();
  EXPECT_EQ(lzma_code(&s, LZMA_FINISH), LZMA_STREAM_END);
  out.resize(out.size() - s.avail_out);
  lzma_end(&s);
  return out;
}
// As in a firmware volume: with something before and behind it.
Bytes section(const Bytes& data, std::int64_t size = -1) {
  const auto n =
      static_cast<std::uint32_t>(size < 0 ? static_cast<std::int64_t>(data.size()) + 24 : size);
  ByteWriter w;
  w.raw(testing::pattern(100, 2)).u8(n & 0xff).u8(n >> 8 & 0xff).u8(n >> 16 & 0xff).u8(2);
  w.raw(kLzma).u16(24).u16(1).raw(data).raw(testing::pattern(100, 4));
  return w.take();
}
Bytes volume(std::initializer_list<ByteView> parts) {
  Bytes all = testing::pattern(3000, 5);
  for (const ByteView p : parts) append(all, p);
  return all;
}
const Bytes kWideSwitch = [] {
  Bytes wide;
  for (const char c : std::string_view("SecureBootEnable")) {
    wide.insert(wide.end(), {static_cast<std::uint8_t>(c), 0});
  }
  return wide;
}();

TEST(BootVolume, SaysWhetherAndHowTheFirmwareMeasures) {
  const Guid& tcg = testing::kTdTcg2DxeGuid;
  const Guid smbios = guid("d27fed59-abb4-4fed-bead-2a878c7e4a7e");
  const Guid menu = guid("eec25bdc-67f2-4d95-b1d5-f81b2039d11d");
  const auto of = [](std::initializer_list<ByteView> parts) {
    return tdx_events(section(packed(volume(parts)))).value();
  };
  EXPECT_EQ(of({}), TdxEvents::kNone);
  EXPECT_EQ(of({tcg}), TdxEvents::kEdk2_2025);
  EXPECT_EQ(of({tcg, smbios}), TdxEvents::kNewer);
  EXPECT_EQ(of({tcg, menu}), TdxEvents::kNewer);
  EXPECT_EQ(of({tcg, as_bytes("QEMU FW CFG")}), TdxEvents::kNewer);
  EXPECT_EQ(of({tcg, kWideSwitch}), TdxEvents::kSecureBoot);
  EXPECT_EQ(of({smbios, kWideSwitch}), TdxEvents::kNone);
  EXPECT_EQ(tdx_events(testing::FirmwareMaker().build()).value(), TdxEvents::kEdk2_2025);
}

TEST(BootVolume, WhatDoesNotUnpackIsRefused) {
  const Bytes good = packed(volume({}));
  Bytes cut(good.begin(), good.end() - 20);
  EXPECT_EQ(tdx_events(section(cut)).reason(), Reason::kBadStructure);
  Bytes spoilt = good;
  spoilt[0] = 0xff;
  EXPECT_EQ(tdx_events(section(spoilt)).reason(), Reason::kBadStructure);
  EXPECT_EQ(tdx_events(section(good, 0xffffff)).reason(), Reason::kTruncated);
  EXPECT_EQ(tdx_events(section(good, 10)).reason(), Reason::kTruncated);
}

TEST(BootVolume, AStreamOfAnotherProgramUnpacks) {
  EXPECT_EQ(tdx_events(testing::compressed_volume()).value(), TdxEvents::kNone);
}

TEST(BootVolume, UnpackingHasABound) {
  EXPECT_EQ(tdx_events(section(packed(Bytes(kMaxUnpacked + 1)))).reason(), Reason::kTooLarge);
  Bytes many;
  for (std::size_t i = 0; i <= kMaxPackedSections; ++i) append(many, section(packed(Bytes(10))));
  EXPECT_EQ(tdx_events(many).reason(), Reason::kTooLarge);
}

// Debian 12's firmware starts a TDX guest and measures nothing that it boots: the reason why a
// guest release for TDX takes another build.
TEST(BootVolume, Debian12sFirmwareDoesNotMeasureUnderTdx) {
  const auto image = read_file("/usr/share/ovmf/OVMF.fd", kMaxFirmwareSize);
  if (!image.ok()) GTEST_SKIP() << "QEMU is not installed (package ovmf)";
  EXPECT_EQ(tdx_events(*image).value(), TdxEvents::kNone);
}

}  // namespace
}  // namespace gbx::vm::measure
