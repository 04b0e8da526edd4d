#include "vm/measure/snp.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "base/json.h"
#include "base/os.h"
#include "vm/measure/testing.h"

namespace gbx::vm::measure {
namespace {

using testing::FirmwareMaker;
using testing::KernelMaker;

const char* const kCmdline = "console=hvc0 panic=-1";

Firmware made(const FirmwareMaker& m) { return Firmware::parse(m.build()).value(); }

struct Case {
  const char* type;
  std::int64_t cpus;
  bool boot;
  bool initrd;
  std::uint64_t features;
  const char* digest;
};
// By sev-snp-measure 0.0.13 (tests/vm/snp_oracle.py) over the firmware and kernel of testing.h.
constexpr Case kGolden[] = {
    {"EPYC", 1, false, false, 1,
     "f9e1f9049549968b6030e5aa888c1a7dc3539c4d40f84224a24fb71c981eef9a57f7b5499fbccc257e29f7337b1e0"
     "16a"},
    {"EPYC-Milan", 1, true, true, 1,
     "4c1c842c527a4b62675abb4f7f53be6c9b5735449bb5ef07cf972ad8b54ad8b96c05fa8730fa3c39152c1806d1019"
     "56e"},
    {"EPYC-Milan", 4, true, true, 1,
     "b48f5b76d0f34d941e37f13eb2599f50fb499f73ccff9e9062c79827540a8095e964e29b4abaee0d0f80dd6427588"
     "dc3"},
    {"EPYC-Rome-v2", 2, true, false, 1,
     "c4a77c3a6947b3663d516c3ae655967302ecb899a8f640b0b10f85c011a002e1529f44b076bec9ff58bd65d180446"
     "816"},
    {"EPYC-Genoa", 64, true, true, 1,
     "8c02003fd58358c0a1b2463a985c13369e988734a944bc378d5e72316ce2c6bbc3c7b52656df8be8f7e20a3f240d3"
     "38c"},
    {"EPYC-Genoa-v1", 255, true, true, 0x21,
     "4b4d1698a89c4d2b449554843836581a3ea4071f994eac136980053de49c06081c847c0ccdf7ba8e56333a0a6f4fe"
     "1ce"},
    {"EPYC-Turin", 8, true, true, 1,
     "8005a3f09edc3426108eb853be7be1ba06b4df4f2c4bd95a55075d9e3b5a1749bcafd041c3e9f6cdd7575fcca6d18"
     "d8b"},
};

SnpLaunch launch_of(const Case& c, const Bytes& kernel, const Bytes& initrd) {
  SnpLaunch l;
  if (c.boot) l.boot = Boot{kernel, c.initrd ? ByteView(initrd) : ByteView(), kCmdline};
  l.cpus = c.cpus;
  l.signature = vcpu_signature(c.type).value();
  l.guest_features = c.features;
  return l;
}

TEST(SnpDigest, AgreesWithGoldenValuesOfTheIndependentTool) {
  const Firmware f = made({});
  const Bytes kernel = KernelMaker().build();
  const Bytes initrd = testing::pattern(5000, 9);
  for (const auto& c : kGolden) {
    const auto m = snp_digest(f, launch_of(c, kernel, initrd));
    ASSERT_TRUE(m.ok()) << m.error().line();
    EXPECT_EQ(to_hex(m->value), c.digest) << c.type << " " << c.cpus;
    EXPECT_EQ(m->steps.back().digest, m->value);
  }
}

// The oracle itself, where it is installed: over what testing.h makes, and over Debian's image.
class SnpOracle : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* source = std::getenv("GBX_SOURCE_DIR");
    ASSERT_NE(source, nullptr);
    script_ = std::string(source) + "/tests/vm/snp_oracle.py";
    char folder[] = "/tmp/gbx-snp-oracle-XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
    if (ask({"--version"}).status.code == 77) {
      GTEST_SKIP() << "sev-snp-measure is not installed (scripts/setup test)";
    }
  }
  void TearDown() override { EXPECT_TRUE(remove_tree(folder_).ok()); }
  RunOutput ask(std::vector<std::string> arguments) {
    ProcessOptions o;
    o.argv = {"/usr/bin/python3", script_};
    o.argv.insert(o.argv.end(), arguments.begin(), arguments.end());
    o.env = {{"PATH", "/usr/bin:/bin"}};
    return run_command(o).value();
  }
  std::string file(const std::string& name, ByteView content) {
    const std::string path = folder_ + "/" + name;
    EXPECT_TRUE(write_file_atomic(path, content, 0600).ok());
    return path;
  }
  std::string digest(const std::string& firmware, const Case& c, const std::string& kernel,
                     const std::string& initrd) {
    std::vector<std::string> words = {firmware, c.type, std::to_string(c.cpus),
                                      std::to_string(c.features)};
    if (c.boot) words.insert(words.end(), {kernel, c.initrd ? initrd : "", kCmdline});
    const RunOutput out = ask(words);
    EXPECT_EQ(out.status.code, 0) << out.err;
    return out.out.substr(0, out.out.find('\n'));
  }

  std::string script_;
  std::string folder_;
};

TEST_F(SnpOracle, AgreesOverAGeneratedFirmware) {
  const Bytes image = FirmwareMaker().build();
  const Bytes kernel = KernelMaker().build();
  const Bytes initrd = testing::pattern(5000, 9);
  const std::string f = file("firmware", image);
  const std::string k = file("kernel", kernel);
  const std::string i = file("initrd", initrd);
  const Firmware parsed = Firmware::parse(image).value();
  for (const auto& c : kGolden) {
    EXPECT_EQ(to_hex(snp_digest(parsed, launch_of(c, kernel, initrd)).value().value),
              digest(f, c, k, i));
  }
}

TEST_F(SnpOracle, AgreesOverDebiansFirmware) {
  const std::string path = "/usr/share/ovmf/OVMF.fd";
  auto image = read_file(path, kMaxFirmwareSize);
  if (!image.ok()) GTEST_SKIP() << "QEMU is not installed (package ovmf)";
  const Firmware f = Firmware::parse(std::move(image).value()).value();
  for (const char* type :
       {"EPYC", "EPYC-v4", "EPYC-Rome", "EPYC-Milan-v2", "EPYC-Genoa", "EPYC-Turin"}) {
    for (const std::int64_t cpus : {1, 2, 7}) {
      const Case c{type, cpus, false, false, 1, nullptr};
      EXPECT_EQ(to_hex(snp_digest(f, launch_of(c, {}, {})).value().value), digest(path, c, "", ""))
          << type << " " << cpus;
    }
  }
}

// The firmware that SEV-SNP machines boot, with what they boot: where guest/build --platforms made
// it, or GBX_SNP_FIRMWARE names it.
TEST_F(SnpOracle, AgreesOverTheFirmwareOfReleases) {
  const char* named = std::getenv("GBX_SNP_FIRMWARE");
  const std::string guest = std::string(std::getenv("GBX_SOURCE_DIR")) + "/build/guest/";
  const std::string path = named != nullptr ? named : guest + "firmware-snp.fd";
  auto image = read_file(path, kMaxFirmwareSize);
  if (!image.ok()) GTEST_SKIP() << "the guest is not built for sev-snp";
  const Firmware f = Firmware::parse(std::move(image).value()).value();
  ASSERT_TRUE(check_snp_firmware(f).ok()) << check_snp_firmware(f).error().line();
  const Bytes kernel = KernelMaker().build();
  const Bytes initrd = testing::pattern(5000, 9);
  const std::string k = file("kernel", kernel);
  const std::string i = file("initrd", initrd);
  for (const std::int64_t cpus : {1, 2, 64}) {
    const Case c{"EPYC-v4", cpus, true, true, 1, nullptr};
    EXPECT_EQ(to_hex(snp_digest(f, launch_of(c, kernel, initrd)).value().value),
              digest(path, c, k, i))
        << cpus;
  }
}

TEST_F(SnpOracle, KnowsTheSameProcessors) {
  const RunOutput out = ask({"--types"});
  ASSERT_EQ(out.status.code, 0) << out.err;
  const auto all = parse_json(out.out, {});
  ASSERT_TRUE(all.ok()) << all.error().line();
  std::size_t n = 0;
  for (const auto& [name, signature] : *all->object()) {
    const auto ours = vcpu_signature(name);
    ASSERT_TRUE(ours.ok()) << name;
    EXPECT_EQ(std::int64_t{*ours}, *signature.integer()) << name;
    ++n;
  }
  EXPECT_GT(n, 10U);
}

TEST(SnpDigest, EachInputCounts) {
  const Firmware f = made({});
  const Bytes kernel = KernelMaker().build();
  const Bytes initrd = testing::pattern(5000, 9);
  const Case base{"EPYC-Milan", 2, true, true, 1, nullptr};
  std::set<std::string> seen;
  const auto add = [&](const Firmware& firmware, const SnpLaunch& l) {
    EXPECT_TRUE(seen.insert(to_hex(snp_digest(firmware, l).value().value)).second);
  };
  add(f, launch_of(base, kernel, initrd));
  Bytes other = kernel;
  other.back() ^= 1;
  add(f, launch_of(base, other, initrd));
  add(f, launch_of(base, kernel, other));
  SnpLaunch l = launch_of(base, kernel, initrd);
  l.boot->cmdline += " ";
  add(f, l);
  l = launch_of(base, kernel, initrd);
  l.cpus = 3;
  add(f, l);
  l = launch_of(base, kernel, initrd);
  l.guest_features = 0x201;
  add(f, l);
  l = launch_of(base, kernel, initrd);
  l.signature = vcpu_signature("EPYC-Genoa").value();
  add(f, l);
  FirmwareMaker m;
  m.reset += 4;
  add(made(m), launch_of(base, kernel, initrd));
}

TEST(SnpDigest, AKernelThatWouldNotBeMeasuredIsRefused) {
  const Bytes kernel = KernelMaker().build();
  const Case c{"EPYC", 1, true, false, 1, nullptr};
  const auto refused = [&](const FirmwareMaker& m) {
    const auto r = snp_digest(made(m), launch_of(c, kernel, {}));
    EXPECT_NE(r.error().next.find("amdsev"), std::string::npos);
    return r.reason();
  };
  EXPECT_EQ(refused(FirmwareMaker::without_hashes()), Reason::kUnsupported);
  FirmwareMaker no_page;
  no_page.sev.pop_back();
  EXPECT_EQ(refused(no_page), Reason::kUnsupported);
  FirmwareMaker elsewhere;
  elsewhere.hash_table = 0x820000;
  EXPECT_EQ(refused(elsewhere), Reason::kUnsupported);
  FirmwareMaker no_reset;
  no_reset.reset = 0;
  EXPECT_EQ(refused(no_reset), Reason::kUnsupported);
}

TEST(SnpDigest, OddMachinesAreRefused) {
  const Firmware f = made({});
  EXPECT_EQ(snp_digest(f, {std::nullopt, 0, 1, 1}).reason(), Reason::kBadValue);
  EXPECT_EQ(snp_digest(f, {std::nullopt, 256, 1, 1}).reason(), Reason::kBadValue);
  EXPECT_EQ(snp_digest(f, {Boot{{}, {}, "a\nb"}, 1, 1, 1}).reason(), Reason::kBadValue);
  EXPECT_EQ(snp_digest(f, {Boot{{}, {}, std::string(2048, 'a')}, 1, 1, 1}).reason(),
            Reason::kTooLarge);
  const auto unknown = vcpu_signature("Skylake-Server");
  EXPECT_EQ(unknown.reason(), Reason::kBadValue);
  EXPECT_NE(unknown.error().expected.find("EPYC-Milan"), std::string::npos);
}

TEST(SnpDigest, SignaturesAreTheProcessors) {
  // AMD 55898 (PPR): family 19h model 01h stepping 1 answers 00A00F11h.
  EXPECT_EQ(cpuid_signature(25, 1, 1), 0x00a00f11U);
  EXPECT_EQ(cpuid_signature(26, 2, 1), 0x00b00f21U);
  EXPECT_EQ(cpuid_signature(6, 0x55, 4), 0x00050654U);
}

}  // namespace
}  // namespace gbx::vm::measure
