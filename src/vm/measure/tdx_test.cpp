#include "vm/measure/tdx.h"

#include <gtest/gtest.h>

#include <map>

#include "attest/tdx/event_log.h"
#include "attest/testing.h"
#include "crypto/crypto.h"
#include "vm/measure/testing.h"

namespace gbx::vm::measure {
namespace {

using attest::tdx::Event;
using attest::tdx::log_without_padding;
using attest::tdx::parse_event_log;
using testing::FirmwareMaker;
using testing::KernelMaker;

constexpr std::int64_t kGiB = std::int64_t{1} << 30;
constexpr Guid kGlobal = guid("8be4df61-93ca-11d2-aa0d-00e098032b8c");
constexpr Guid kSecurity = guid("d719b2cb-3d3a-4596-a3bc-dad00e67656f");

Firmware made(const FirmwareMaker& m) { return Firmware::parse(m.build()).value(); }

Bytes command(std::uint32_t which, std::string_view file) {
  ByteWriter w;
  w.u32(which).text(file).zeros(128 - 4 - file.size());
  return w.take();
}
AcpiTables tables() {
  AcpiTables a;
  a.loader = concat({command(1, "etc/acpi/rsdp"), command(1, "etc/acpi/tables"),
                     command(3, "etc/acpi/tables"), command(2, "etc/acpi/rsdp"), Bytes(128)});
  a.files = {{"etc/acpi/rsdp", testing::pattern(20, 1)},
             {"etc/acpi/tables", testing::pattern(3000, 2)}};
  return a;
}
struct World {
  Bytes kernel = KernelMaker().build();
  Bytes initrd = testing::pattern(5000, 9);
  Firmware firmware = made({});
  TdxLaunch launch() const { return {{kernel, initrd, "quiet"}, 2 * kGiB, tables()}; }
};

std::string hex_of(const Result<std::vector<Measured>>& all, std::size_t i) {
  EXPECT_TRUE(all.ok()) << all.error().line();
  return to_hex((*all)[i].value);
}

// ---- values that others published ----

// The empty variable store of edk2's 4 MiB layout, as OvmfPkg/Include/Fdf/VarStore.fdf.inc has it.
Bytes empty_variable_store() {
  ByteWriter w;
  w.zeros(16).raw(guid("fff12b8d-7696-4c8b-a985-2747075b4f50")).u64(0x84000).text("_FVH");
  w.u32(0x0004feff).u16(0x48).u16(0xb8af).u16(0).u8(0).u8(2).u32(0x84).u32(0x1000).zeros(8);
  w.raw(guid("aaf32c78-947b-439a-a180-2e144ec37792")).u32(0x3ffb8).u8(0x5a).u8(0xfe).zeros(6);
  Bytes out(0x84000, 0xff);
  std::copy(w.bytes().begin(), w.bytes().end(), out.begin());
  ByteWriter spare;
  spare.raw(guid("9e58292b-7c68-497d-a0ce-6500fd9f1b95")).u32(0x642caf2c);
  spare.u32(0xfffffffe).u64(0xfe0);
  std::copy(spare.bytes().begin(), spare.bytes().end(), out.begin() + 0x41000);
  return out;
}

TEST(TdxPublished, TheEmptyConfigurationVolumeIsTheOneOfRealGuests) {
  FirmwareMaker m;
  m.size = 0x84000 + 0x4000;
  m.measures = false;
  m.tdvf[0] = {0x84000, 0x4000, 0xffffc000, 0x4000, 0, 1};
  m.tdvf[1] = {0, 0x84000, 0xfff78000, 0x84000, 1, 0};
  Bytes image = m.build();
  const Bytes store = empty_variable_store();
  std::copy(store.begin(), store.end(), image.begin());
  const World w;
  // As Dstack's verifier (dstack-mr, tdvf.rs) expects it of every guest on edk2-stable202502.
  EXPECT_EQ(
      to_hex(rtmr0(Firmware::parse(image).value(), w.launch()).value().steps.at(1).digest),
      "344bc51c980ba621aaa00da3ed7436f7d6e549197dfe699515dfa2c6583d95e6412af21c097d473155875ffd"
      "561d6790");
}

Register reg(const char* hex) { return fixed_from_hex<48>(hex).value(); }

// From event logs of running TDX guests that their operators published with quotes (Dstack on edk2
// before 202505, direct kernel boot): machines of 2, 4 and 64 GiB. The firmware's work memory is
// where testing.h has it.
TEST(TdxPublished, TheTdHobIsTheOneOfRealGuests) {
  const World w;
  const auto hob = [&](std::uint64_t gib) {
    return to_hex(crypto::sha384(td_hob(w.firmware, gib << 30).value()));
  };
  EXPECT_EQ(hob(2),
            "0e35f1b315ba6c912cf791e5c79dd9d3a2b8704516aa27d4e5aa78fb09ede04aef2bbd02ac7a8734c48562"
            "b9c26ba35d");
  EXPECT_EQ(hob(4),
            "02a008e63d55a77823c04a5513a5810d4e592dc41bf2596267c09eae5d4b4e3b329ae614973fb192297d88"
            "33d37a08fd");
  EXPECT_EQ(hob(64),
            "519245d8b6b54b48b57143e6647d41e5e6f3b4ef10a73c95be4d9a9c0f54115b707e7af5e38f7be6852229"
            "b18573690d");
}

// One of them whole. Its ACPI tables, kernel, command line and initrd are not published, only their
// digests: these take the place of ours, everything else is computed, and so are the registers.
TEST(TdxPublished, TheRegistersOfARealGuestAreTheFoldOfOurSteps) {
  const World w;
  TdxLaunch l = w.launch();
  l.memory = 4 * kGiB;
  const auto folded = [](const Measured& ours, const std::map<std::size_t, Register>& theirs) {
    Measured m;
    for (std::size_t i = 0; i < ours.steps.size(); ++i) {
      const auto given = theirs.find(i);
      extend(m, "", "", given == theirs.end() ? ours.steps[i].digest : given->second);
    }
    return to_hex(m.value);
  };
  EXPECT_EQ(
      folded(
          rtmr0(w.firmware, l).value(),
          {{1, reg("344bc51c980ba621aaa00da3ed7436f7d6e549197dfe699515dfa2c6583d95e6412af21c097d4"
                   "73155875ffd561d6790")},
           {8, reg("142aa9710a7187d649bfafab0a4226e554859c7fb0cd3e6707f31291e332e399b4ae8f851876e"
                   "f0af8e607a59b60cc8e")},
           {9, reg("07d867a2ead8d8e3b1240f17e461089b819ab63ac34eff3b29459445c67409c2342dfdc9335d2"
                   "335a5aaf591fe1483e1")},
           {10, reg("da8447b3b4ae0110934f6b7fb9cb017962243eb62e3a971243fde4fd878f26f6ead8e59eba4a1"
                    "a5b2211a5073cd66506")}}),
      "79207fa707c5bbf697d579bbd44c2ba14f8565d528aff0de407c58fd34815b67a35cfbb0a0d996b1c7b911a2c8ae"
      "806c");
  EXPECT_EQ(
      folded(rtmr1(l).value(),
             {{0, reg("b8420535898e24a6abef877153ac1103a695ed07ab9c6c74182d865a560b3b587a34d4bf"
                      "dc671a505def683cc7bc7596")}}),
      "154e08f5c1f7b1fce4cbfe1c14f3ba67b70044ede2751487279cd1f2e4239dee99a6d45e24ebde6b6a6f5a"
      "e49878e0e6");
  EXPECT_EQ(
      folded(rtmr2(l).value(),
             {{0, reg("a68ac6d65dd62f392826c2ae44f6846363ced3418c96574b3e168de9205c8553b8198c3b"
                      "9d206bc432d70a923c25b098")},
              {1, reg("41ee4a6d142b51085c720bad4170207359538d9785391ce10b17536153ea5ba49edaa5a8"
                      "c36f9f081fdf1b7aeb0ce3f0")}}),
      "9edcd363660e85b71c318324996dda756c372d9f6960edbfa863b1e684822eb48dd95e218ae2b78e51ef97"
      "f3b8f5c9dc");
}

class CosLog : public ::testing::Test {
 protected:
  void SetUp() override {
    GBX_NEEDS_VECTORS();
    const Bytes table = attest::testing::vector_file("tdx/tdx-cos113.ccel.bin");
    const auto log = parse_event_log(log_without_padding(table).value());
    ASSERT_TRUE(log.ok()) << log.error().line();
    events_ = log->events;
    quote_ = attest::testing::vector_file("tdx/tdx-cos113.quote.bin");
    ASSERT_EQ(events_.size(), 43U);
  }
  std::vector<Event> events_;
  Bytes quote_;
};

// TCG event types.
constexpr std::uint32_t kVariableConfig = 0x80000001;
constexpr std::uint32_t kVariableBoot = 0x80000002;
constexpr std::uint32_t kVariableAuthority = 0x800000e0;
constexpr std::uint32_t kAction = 0x80000007;
constexpr std::uint32_t kGpt = 0x80000006;
constexpr std::uint32_t kIpl = 0xd;
constexpr std::uint32_t kSeparatorEvent = 4;

struct Variable {
  Guid which{};
  std::string name;
  Bytes data;
};
Variable variable_of(ByteView event) {
  Variable v;
  ByteReader r(event);
  v.which = r.fixed<16>().value();
  const std::uint64_t letters = r.u64().value();
  const std::uint64_t size = r.u64().value();
  for (std::uint64_t i = 0; i < letters; ++i) {
    v.name += static_cast<char>(r.u16().value());
  }
  v.data = to_bytes(r.take(size).value());
  EXPECT_TRUE(r.finish().ok());
  return v;
}

TEST_F(CosLog, TheLogReplaysToTheRegistersOfTheQuote) {
  Measured rtmr[4];
  for (const auto& e : events_) {
    ASSERT_GE(e.index, 1U);
    ASSERT_LE(e.index, 4U);
    extend(rtmr[e.index - 1], "", "", e.digest);
  }
  // RTMR0 begins 376 bytes into a quote of version 4: 48 of header, 328 of the report's body.
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(to_hex(rtmr[i].value), to_hex(ByteView(quote_).subspan(376 + 48 * i, 48))) << i;
  }
}

TEST_F(CosLog, EveryEventWhoseContentIsInTheLogHasTheDigestOfThatContent) {
  int computed = 0;
  for (std::size_t i = 0; i < events_.size(); ++i) {
    const Event& e = events_[i];
    Register ours{};
    if (e.type == kVariableConfig || e.type == kVariableAuthority) {
      const Variable v = variable_of(e.data);
      ours = variable_digest(v.which, v.name, v.data);
    } else if (e.type == kVariableBoot) {
      ours = crypto::sha384(variable_of(e.data).data);
    } else if (e.type == kAction || e.type == kSeparatorEvent || e.type == kGpt) {
      ours = crypto::sha384(e.data);
    } else if (e.type == kIpl) {
      // GRUB measures a text with or without its label and NUL; a file's event holds its name only.
      const std::string text(as_text(e.data).substr(0, e.data.size() - 1));
      const std::size_t label = text.find(": ");
      if (label == std::string::npos) continue;
      ours = crypto::sha384(as_bytes(text.substr(label + 2)));
    } else {
      continue;  // of memory or files that are not in the log
    }
    ++computed;
    EXPECT_EQ(to_hex(ours), to_hex(e.digest)) << "event " << i;
  }
  EXPECT_EQ(computed, 31);
}

TEST_F(CosLog, OurOwnStepsAreThoseOfTheLog) {
  const World w;
  const Measured r0 = rtmr0(w.firmware, w.launch()).value();
  const Measured r1 = rtmr1(w.launch()).value();
  EXPECT_EQ(r0.steps.at(7).digest, events_[7].digest);    // separator
  EXPECT_EQ(r0.steps.at(12).digest, events_[13].digest);  // Boot0000: UiApp
  EXPECT_EQ(setup_load_option(), variable_of(events_[13].data).data);
  EXPECT_EQ(r1.steps.at(1).digest, events_[14].digest);  // Calling EFI Application …
  EXPECT_EQ(r1.steps.at(2).digest, events_[15].digest);
  EXPECT_EQ(r1.steps.at(3).digest, events_[41].digest);  // Exit Boot Services …
  EXPECT_EQ(r1.steps.at(4).digest, events_[42].digest);
}

// ---- by another computation of the same rules ----

TEST(Tdx, AgreesWithGoldenValuesOfAnotherComputation) {
  const World w;
  EXPECT_EQ(to_hex(mrtd(w.firmware).value),
            "76f23a237aec68297d4bf599f1949be823cab21fe27e6f242d374023d8b6936e080c1883e061f6831b1597"
            "a87928dd53");
  const auto hob = [&](std::int64_t memory) {
    return to_hex(crypto::sha384(td_hob(w.firmware, static_cast<std::uint64_t>(memory)).value()));
  };
  EXPECT_EQ(hob(kGiB),
            "2b630fa1d8fa9b6e8c6507d2256803ed227888f7d1f62ca5cfbddfe495338b1c6a0fc339ea64700f0835c0"
            "897a662789");
  EXPECT_EQ(hob(2 * kGiB),
            "0e35f1b315ba6c912cf791e5c79dd9d3a2b8704516aa27d4e5aa78fb09ede04aef2bbd02ac7a8734c48562"
            "b9c26ba35d");
  EXPECT_EQ(hob(4 * kGiB),
            "02a008e63d55a77823c04a5513a5810d4e592dc41bf2596267c09eae5d4b4e3b329ae614973fb192297d88"
            "33d37a08fd");
  EXPECT_EQ(hob(0xafe00000),
            "0bd69fe5e774ac3fffa83d9e42f32576085fe91644a78ed2640aa2bca863789b76c3776e2c811b61c8563d"
            "4230c4f40e");
  EXPECT_EQ(hob(0xb0000000),
            "3d4bd514230f69783c7318328fb67e634a5e765235761ca199ff128ef1431b7d0140b08a659f8234e26ccf"
            "804bf22538");
}

TEST(Tdx, RegistersAreTheFoldOfTheirSteps) {
  const World w;
  const auto all = tdx_registers(w.firmware, w.launch());
  ASSERT_TRUE(all.ok()) << all.error().line();
  ASSERT_EQ(all->size(), 4U);
  const char* const names[] = {"MRTD", "RTMR0", "RTMR1", "RTMR2"};
  const std::size_t steps[] = {1, 13, 5, 2};
  for (std::size_t i = 0; i < 4; ++i) {
    const Measured& m = (*all)[i];
    EXPECT_EQ(m.name, names[i]);
    EXPECT_EQ(m.steps.size(), steps[i]);
    Register value{};
    for (const auto& s : m.steps) value = crypto::sha384(concat({value, s.digest}));
    if (i > 0) {
      EXPECT_EQ(to_hex(m.value), to_hex(value));
    }
  }
}

TEST(Tdx, EachInputMovesItsRegistersAndNoOther) {
  const World w;
  const auto base = tdx_registers(w.firmware, w.launch());
  const auto moved = [&](const Firmware& f, const TdxLaunch& l) {
    std::string which;
    const auto now = tdx_registers(f, l);
    for (std::size_t i = 0; i < 4; ++i) which += hex_of(now, i) == hex_of(base, i) ? '-' : 'x';
    return which;
  };
  EXPECT_EQ(moved(w.firmware, w.launch()), "----");
  Bytes image = FirmwareMaker().build();
  image[0x2000] ^= 1;
  EXPECT_EQ(moved(Firmware::parse(image).value(), w.launch()), "x---");
  image = FirmwareMaker().build();
  image[0x20] ^= 1;  // in the configuration volume, which MRTD leaves out
  EXPECT_EQ(moved(Firmware::parse(image).value(), w.launch()), "-x--");
  TdxLaunch l = w.launch();
  l.memory = 4 * kGiB;
  EXPECT_EQ(moved(w.firmware, l), "-x--");
  l = w.launch();
  l.acpi.files["etc/acpi/tables"][5] ^= 1;
  EXPECT_EQ(moved(w.firmware, l), "-x--");
  World other;
  other.kernel[0x600] ^= 1;
  EXPECT_EQ(moved(w.firmware, other.launch()), "--x-");
  other = World();
  other.initrd[7] ^= 1;
  EXPECT_EQ(moved(w.firmware, other.launch()), "---x");
  l = w.launch();
  l.boot.cmdline += " debug";
  EXPECT_EQ(moved(w.firmware, l), "---x");
}

TEST(Tdx, APatchedKernelDependsOnMemoryAndInitrd) {
  World w;
  TdxLaunch l = w.launch();
  l.hand_over = KernelHandOver::kPatched;
  const auto value = [&] { return to_hex(rtmr1(l).value().value); };
  const std::string before = value();
  EXPECT_NE(before, to_hex(rtmr1(w.launch()).value().value));
  EXPECT_EQ(rtmr1(l).value().steps[0].digest,
            pe_digest(with_qemu_header(l.boot, 2U << 30).value()).value());
  l.memory = kGiB;
  EXPECT_NE(value(), before);
  l.memory = 4 * kGiB;
  EXPECT_EQ(value(), before);
  w.initrd.resize(9000);
  l.boot.initrd = w.initrd;
  EXPECT_NE(value(), before);
}

TEST(Tdx, TheCommandLineIsMeasuredAsTheKernelGetsIt) {
  const World w;
  TdxLaunch l = w.launch();
  l.boot.cmdline = "a";
  const auto text = [](std::string_view s) {
    Bytes wide;
    for (const char c : s) wide.insert(wide.end(), {static_cast<std::uint8_t>(c), 0});
    wide.insert(wide.end(), {0, 0});
    return to_hex(crypto::sha384(wide));
  };
  EXPECT_EQ(to_hex(rtmr2(l).value().steps.at(0).digest), text("a initrd=initrd"));
  EXPECT_EQ(to_hex(rtmr2(l).value().steps.at(1).digest), to_hex(crypto::sha384(w.initrd)));
  l.boot.initrd = {};
  EXPECT_EQ(to_hex(rtmr2(l).value().steps.at(0).digest), text("a"));
  EXPECT_EQ(rtmr2(l).value().steps.size(), 1U);
  l.boot.cmdline.clear();
  EXPECT_EQ(rtmr2(l).value().value, Register{});
}

// ---- refusals ----

TEST(TdxAcpi, TheScriptSaysWhichFilesAreFetchedAndInWhichOrder) {
  const auto steps = acpi_steps(tables()).value();
  ASSERT_EQ(steps.size(), 3U);
  EXPECT_EQ(steps[0].what, "etc/table-loader");
  EXPECT_EQ(steps[1].what, "etc/acpi/rsdp");
  EXPECT_EQ(steps[2].what, "etc/acpi/tables");
  AcpiTables turned = tables();
  turned.loader = concat({command(1, "etc/acpi/tables"), command(1, "etc/acpi/rsdp")});
  EXPECT_EQ(acpi_steps(turned).value()[1].what, "etc/acpi/tables");
}

TEST(TdxAcpi, AScriptThatIsNoneIsRefused) {
  const auto reason = [](Bytes loader) {
    AcpiTables a = tables();
    a.loader = std::move(loader);
    return acpi_steps(a).reason();
  };
  EXPECT_EQ(reason({}), Reason::kBadStructure);
  EXPECT_EQ(reason(Bytes(127)), Reason::kBadStructure);
  EXPECT_EQ(reason(Bytes(128 * 513)), Reason::kBadStructure);
  EXPECT_EQ(reason(command(5, "x")), Reason::kUnsupported);
  EXPECT_EQ(reason(command(1, "")), Reason::kBadStructure);
  EXPECT_EQ(reason(command(1, std::string(60, 'a'))), Reason::kBadStructure);
  EXPECT_EQ(reason(command(1, "a\nb")), Reason::kBadStructure);
  EXPECT_EQ(reason(command(1, std::string_view("a\0b", 3))), Reason::kBadStructure);
  EXPECT_EQ(reason(concat({command(1, "etc/acpi/rsdp"), command(1, "etc/acpi/rsdp")})),
            Reason::kBadStructure);
  EXPECT_EQ(reason(command(1, "etc/acpi/rsdp")), Reason::kUnknownField);
  EXPECT_EQ(reason(concat({tables().loader, command(1, "etc/tpm/log")})), Reason::kMissingField);
}

TEST(Tdx, MemoryThatDoesNotHoldTheFirmwaresSectionsIsRefused) {
  FirmwareMaker m;
  m.tdvf[2].address = 0x80000000;
  EXPECT_EQ(td_hob(made(m), std::uint64_t{2} << 30).reason(), Reason::kBadStructure);
  EXPECT_EQ(td_hob(made(m), std::uint64_t{8} << 30).reason(), Reason::kBadStructure);
  m = {};
  m.tdvf[2].address = 0x7fff8000;  // across the end of the lower block
  EXPECT_EQ(td_hob(made(m), std::uint64_t{2} << 30).reason(), Reason::kBadStructure);
}

TEST(Tdx, TheHobMustFitIntoItsMemory) {
  FirmwareMaker m;
  m.tdvf[4].size = 0x1000;
  const std::uint64_t far = 0x1000000;
  for (std::uint64_t i = 0; i < 40; ++i) {
    m.tdvf.push_back({0, 0, far + i * 0x10000, 0x1000, 3, 0});
  }
  m.size = 8 * kPageSize;
  EXPECT_EQ(td_hob(made(m), std::uint64_t{2} << 30).reason(), Reason::kBadStructure);
}

TEST(Tdx, FirmwareThatDoesNotMeasureIsRefusedWithTheOneThatDoes) {
  World w;
  FirmwareMaker m;
  m.measures = false;
  w.firmware = made(m);
  const auto r = tdx_registers(w.firmware, w.launch());
  EXPECT_EQ(r.reason(), Reason::kUnsupported);
  EXPECT_NE(r.error().next.find("Debian 13"), std::string::npos);
  m = {};
  m.more = {{guid("d27fed59-abb4-4fed-bead-2a878c7e4a7e"), Bytes(4)}};  // SmbiosMeasurementDxe
  w.firmware = made(m);
  EXPECT_EQ(tdx_registers(w.firmware, w.launch()).reason(), Reason::kUnsupported);
}

TEST(Tdx, OddMachinesAreRefused) {
  const World w;
  const auto reason = [&](auto change) {
    TdxLaunch l = w.launch();
    change(l);
    return tdx_registers(w.firmware, l).reason();
  };
  EXPECT_EQ(reason([](auto& l) { l.memory = 0; }), Reason::kBadValue);
  EXPECT_EQ(reason([](auto& l) { l.memory = 2 * kGiB + 1; }), Reason::kBadValue);
  EXPECT_EQ(reason([](auto& l) { l.memory = -2 * kGiB; }), Reason::kBadValue);
  EXPECT_EQ(reason([](auto& l) { l.memory = std::int64_t{1} << 45; }), Reason::kBadValue);
  EXPECT_EQ(reason([](auto& l) { l.boot.cmdline = "a\tb"; }), Reason::kBadValue);
  EXPECT_EQ(reason([](auto& l) { l.boot.kernel = {}; }), Reason::kBadMagic);
}

}  // namespace
}  // namespace gbx::vm::measure
