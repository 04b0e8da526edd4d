// Firmware and kernel images for tests and fuzz seeds: small, made here, and with everything in
// them that a measurement looks at. Every member may be spoilt before build().
#pragma once

#include <cstring>

#include "vm/measure/guid.h"
#include "vm/measure/ovmf.h"

namespace gbx::vm::measure::testing {

inline constexpr Guid kTableGuid = guid("96b582de-1fb2-45f7-baea-a366c55a082d");
inline constexpr Guid kTdvfGuid = guid("e47a6535-984a-4798-865e-4685a7bf8ec2");
inline constexpr Guid kSevGuid = guid("dc886566-984a-4798-a75e-5585a7bf67cc");
inline constexpr Guid kHashTableGuid = guid("7255371f-3a3b-4b04-927b-1da6efa8d454");
inline constexpr Guid kResetGuid = guid("00f771de-1a7e-4fcb-890e-68c77e2fb44e");
inline constexpr Guid kTdTcg2DxeGuid = guid("f062221e-c607-44c2-b0b4-c3886331d351");

struct RawTdvf {
  std::uint32_t offset, data_size;
  std::uint64_t address, size;
  std::uint32_t kind, attributes;
};
struct RawSev {
  std::uint32_t address, size, kind;
};
struct Entry {
  Guid which;
  Bytes data;
};

// Bytes that look like nothing else.
inline Bytes pattern(std::size_t size, std::uint32_t seed) {
  Bytes out(size);
  for (auto& b : out) {
    seed = seed * 1664525 + 1013904223;
    b = static_cast<std::uint8_t>(seed >> 24);
  }
  return out;
}

struct FirmwareMaker {
  std::size_t size = 4 * kPageSize;
  std::uint32_t reset = 0x80b004;
  std::uint32_t hash_table = 0x810c00;
  std::uint32_t hash_table_size = 0x400;
  std::string tdvf_signature = "TDVF";
  std::string sev_signature = "ASEV";
  std::uint32_t tdvf_version = 1;
  std::uint32_t sev_version = 1;
  std::int64_t tdvf_count = -1;  // -1: as many as there are
  std::int64_t sev_count = -1;
  std::uint32_t tdvf_length_more = 0;
  std::uint32_t tdvf_offset_more = 0;
  std::uint32_t sev_offset_more = 0;
  bool measures = true;  // holds the module that measures under TDX
  std::vector<RawTdvf> tdvf = {{0x1000, 0x3000, 0xffffd000, 0x3000, 0, 1},
                               {0, 0x1000, 0xffffc000, 0x1000, 1, 0},
                               {0, 0, 0x811000, 0xf000, 3, 0},
                               {0, 0, 0x80b000, 0x2000, 3, 0},
                               {0, 0, 0x809000, 0x2000, 2, 0},
                               {0, 0, 0x800000, 0x6000, 3, 0}};
  std::vector<RawSev> sev = {{0x800000, 0x9000, 1},   {0x80a000, 0x3000, 1}, {0x80d000, 0x1000, 2},
                             {0x80e000, 0x1000, 3},   {0x80f000, 0x1000, 4}, {0x811000, 0xf000, 1},
                             {0x810000, 0x1000, 0x10}};
  std::vector<Entry> more;  // behind the entries above

  static FirmwareMaker without_hashes() {
    FirmwareMaker m;
    m.hash_table = m.hash_table_size = 0;
    m.sev.pop_back();
    return m;
  }

  Bytes build() const {
    Bytes image = pattern(size, 1);
    const auto number = [](std::uint32_t n) { return ByteWriter().u32(n).take(); };
    const std::uint32_t tdvf_from_end = 0x1800;
    const std::uint32_t sev_from_end = 0x600;
    std::vector<Entry> entries = {
        {kResetGuid, number(reset)},
        {kHashTableGuid, ByteWriter().u32(hash_table).u32(hash_table_size).take()},
        {kSevGuid, number(sev_from_end + sev_offset_more)},
        {kTdvfGuid, number(tdvf_from_end + tdvf_offset_more)}};
    entries.insert(entries.end(), more.begin(), more.end());
    place(image, size - tdvf_from_end, tdvf_bytes());
    place(image, size - sev_from_end, sev_bytes());
    if (measures) place(image, 0x1000, kTdTcg2DxeGuid);
    Bytes table;
    for (const auto& e : entries) {
      append(table, e.data);
      append(table,
             ByteWriter().u16(static_cast<std::uint16_t>(e.data.size() + 18)).raw(e.which).bytes());
    }
    append(table,
           ByteWriter().u16(static_cast<std::uint16_t>(table.size() + 18)).raw(kTableGuid).bytes());
    place(image, size - 32 - table.size(), table);
    return image;
  }

 private:
  static void place(Bytes& image, std::size_t at, ByteView what) {
    std::memcpy(image.data() + at, what.data(), what.size());
  }
  Bytes tdvf_bytes() const {
    const auto count = tdvf_count < 0 ? tdvf.size() : static_cast<std::size_t>(tdvf_count);
    ByteWriter w;
    w.text(tdvf_signature).u32(static_cast<std::uint32_t>(16 + 32 * count) + tdvf_length_more);
    w.u32(tdvf_version).u32(static_cast<std::uint32_t>(count));
    for (const auto& s : tdvf) {
      w.u32(s.offset).u32(s.data_size).u64(s.address).u64(s.size).u32(s.kind).u32(s.attributes);
    }
    return w.take();
  }
  Bytes sev_bytes() const {
    const auto count = sev_count < 0 ? sev.size() : static_cast<std::size_t>(sev_count);
    ByteWriter w;
    w.text(sev_signature).u32(static_cast<std::uint32_t>(16 + 12 * count));
    w.u32(sev_version).u32(static_cast<std::uint32_t>(count));
    for (const auto& s : sev) w.u32(s.address).u32(s.size).u32(s.kind);
    return w.take();
  }
};

// A compressed section as a firmware volume has one, in LZMA's oldest form: "glovebox " eight
// times.
inline Bytes compressed_volume() {
  static constexpr std::uint8_t kStream[] = {0x5d, 0x00, 0x00, 0x04, 0x00, 0xff, 0xff, 0xff, 0xff,
                                             0xff, 0xff, 0xff, 0xff, 0x00, 0x33, 0x9b, 0x0a, 0x43,
                                             0xd6, 0xba, 0x00, 0xb8, 0x34, 0x5d, 0xf9, 0x14, 0xe0,
                                             0xbb, 0x43, 0xff, 0xff, 0xf4, 0x1b, 0xc0, 0x00};
  constexpr std::uint32_t kSize = 24 + sizeof(kStream);
  ByteWriter w;
  w.zeros(8).u8(kSize & 0xff).u8(kSize >> 8).u8(0).u8(2);
  w.raw(guid("ee4e5898-3914-4259-9d6e-dc7bd79403cf")).u16(24).u16(1).raw(kStream).zeros(8);
  return w.take();
}

// A bzImage with the PE headers of a kernel with an EFI stub: two sections, no certificates.
struct KernelMaker {
  std::uint16_t protocol = 0x20f;
  std::uint8_t load_flags = 0x01;
  std::uint16_t extended_flags = 0x7f;
  std::uint8_t setup_sectors = 3;
  std::uint16_t sections = 2;
  std::uint32_t headers = 0x400;
  std::uint32_t certificates = 0;
  std::uint32_t directories = 6;
  std::uint32_t pe_offset = 0x80;
  std::uint16_t magic = 0x20b;
  std::uint32_t second_section = 0x1000;  // its size
  std::size_t size = 0x3000;

  Bytes build() const {
    Bytes k = pattern(size, 7);
    std::fill(k.begin(), k.begin() + 0x400, std::uint8_t{0});
    const auto put = [&k](std::size_t at, ByteView what) {
      std::memcpy(k.data() + at, what.data(), what.size());
    };
    put(0, as_bytes("MZ"));
    put(0x3c, ByteWriter().u32(pe_offset).bytes());
    k[0x1f1] = setup_sectors;
    put(0x202, as_bytes("HdrS"));
    put(0x206, ByteWriter().u16(protocol).bytes());
    k[0x211] = load_flags;
    put(0x22c, ByteWriter().u32(0x7fffffff).bytes());
    put(0x236, ByteWriter().u16(extended_flags).bytes());
    const std::size_t directory_bytes = 8 * directories;
    ByteWriter pe;
    pe.text("PE").u16(0).u16(0x8664).u16(sections).zeros(12);
    pe.u16(static_cast<std::uint16_t>(112 + directory_bytes)).u16(0x206);
    pe.u16(magic).zeros(58).u32(headers).u32(0x1234).zeros(40).u32(directories);
    for (std::uint32_t i = 0; i < directories; ++i) {
      pe.u32(i == 4 && certificates > 0 ? static_cast<std::uint32_t>(size) - certificates : 0);
      pe.u32(i == 4 ? certificates : 0);
    }
    // In the file's order they are the other way round.
    const auto section = [&pe](std::string_view name, std::uint32_t bytes, std::uint32_t at) {
      pe.text(name).zeros(8 - name.size()).u32(bytes).u32(at).u32(bytes).u32(at).zeros(16);
    };
    section(".text", second_section, 0x1400);
    section(".setup", 0x1000, 0x400);
    if (pe_offset + pe.bytes().size() <= 0x1f0) put(pe_offset, pe.bytes());
    return k;
  }
};

}  // namespace gbx::vm::measure::testing
