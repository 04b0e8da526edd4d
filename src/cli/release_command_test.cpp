// `glovebox release key|make|show` as a shell sees them, over a made-up guest.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "base/json.h"
#include "base/os.h"
#include "records/release.h"
#include "vm/measure/measure.h"
#include "vm/measure/testing.h"

namespace gbx::cli {
namespace {

namespace m = vm::measure;
using records::Technology;
using Release = records::Signed<records::GuestRelease>;
using Words = std::vector<std::string>;

class ReleaseCommand : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/gbx-release-XXXXXX";
    folder_ = mkdtemp(name);
    for (const char* part : {"guest", "acpi/2-2GiB", "acpi/4-8GiB"}) {
      ASSERT_TRUE(make_dirs(at(part), 0700).ok());
    }
    put("guest/firmware.fd", m::testing::pattern(8192, 3));
    put("guest/firmware-tdx.fd", m::testing::FirmwareMaker().build());
    put("guest/firmware-snp.fd", m::testing::FirmwareMaker().build());
    put("guest/kernel", m::testing::KernelMaker().build());
    put("guest/initrd", m::testing::pattern(5000, 9));
    put("guest/cmdline", to_bytes(as_bytes("quiet\n")));
    put("guest/lock", to_bytes(as_bytes("lock\n")));
    ByteWriter script;
    for (const std::string_view file : {"etc/acpi/rsdp", "etc/acpi/tables"}) {
      script.u32(1).text(file).zeros(124 - file.size());
    }
    for (const char* size : {"acpi/2-2GiB/", "acpi/4-8GiB/"}) {
      put(std::string(size) + "table-loader", script.bytes());
      put(std::string(size) + "rsdp", Bytes(20));
      put(std::string(size) + "tables", Bytes(200, static_cast<std::uint8_t>(size[5])));
    }
  }
  void TearDown() override { EXPECT_TRUE(remove_tree(folder_).ok()); }

  std::string at(const std::string& name) const { return folder_ + "/" + name; }
  void put(const std::string& name, const Bytes& content) {
    ASSERT_TRUE(write_file_atomic(at(name), content, 0600).ok());
  }
  RunOutput run(const Words& words, const std::string& format = "json") {
    const char* bin = std::getenv("GBX_BIN_DIR");
    ProcessOptions o;
    o.argv = {std::string(bin == nullptr ? "." : bin) + "/glovebox",
              "--home",
              at("home"),
              "-o",
              format,
              "release"};
    o.argv.insert(o.argv.end(), words.begin(), words.end());
    return run_command(std::move(o)).value();
  }
  RunOutput make(const Words& more = {}) {
    Words words = {"make",    "--guest", at("guest"), "--key",
                   at("key"), "--out",   at("out"),   "--force"};
    words.insert(words.end(), more.begin(), more.end());
    return run(words);
  }
  Release made(const Words& more = {}) {
    const RunOutput r = make(more);
    EXPECT_EQ(r.status.code, 0) << r.err;
    auto release = from_json_text<Release>(read_text_file(at("out"), 1 << 20).value());
    EXPECT_TRUE(release.ok()) << release.error().line();
    return release.ok() ? *release : Release{};
  }
  static const records::PlatformMeasurements* platform(const Release& r, Technology t) {
    for (const auto& p : r.body.platforms) {
      if (p.technology == t) return &p;
    }
    return nullptr;
  }
  // One machine's measurement, recomputed by the library.
  m::LaunchMeasurement measured(Technology t, std::int64_t cpus, std::int64_t gib) {
    m::LaunchFiles files;
    const bool tdx = t == Technology::kTdx;
    files.firmware =
        read_file(at(tdx ? "guest/firmware-tdx.fd" : "guest/firmware-snp.fd"), 1 << 20).value();
    files.kernel = read_file(at("guest/kernel"), 1 << 20).value();
    files.initrd = read_file(at("guest/initrd"), 1 << 20).value();
    if (tdx) {
      const std::string acpi =
          at("acpi/" + std::to_string(cpus) + "-" + std::to_string(gib) + "GiB/");
      files.acpi.loader = read_file(acpi + "table-loader", 1 << 20).value();
      files.acpi.files["etc/acpi/rsdp"] = read_file(acpi + "rsdp", 1 << 20).value();
      files.acpi.files["etc/acpi/tables"] = read_file(acpi + "tables", 1 << 20).value();
    }
    m::LaunchPlan plan;
    plan.technology = t;
    plan.cmdline = "quiet";
    plan.cpus = cpus;
    plan.memory_bytes = gib << 30;
    return m::measure_launch(files, plan).value();
  }
  std::string folder_;
};

TEST_F(ReleaseCommand, AKeyIsMadeOnlyWhenThatIsAsked) {
  EXPECT_NE(run({"key", "--key", at("key")}).status.code, 0);
  EXPECT_FALSE(path_exists(at("key")));
  const RunOutput fresh = run({"key", "--key", at("key"), "--new"});
  ASSERT_EQ(fresh.status.code, 0) << fresh.err;
  EXPECT_EQ(run({"key", "--key", at("key")}).out, fresh.out);
  EXPECT_NE(make({"--key", at("other")}).status.code, 0);
}

TEST_F(ReleaseCommand, ListsEveryPlatformThatItsFilesAreFor) {
  ASSERT_EQ(run({"key", "--key", at("key"), "--new"}).status.code, 0);
  const Release r = made({"--acpi", at("acpi")});
  ASSERT_EQ(r.body.platforms.size(), 3U);
  const auto* snp = platform(r, Technology::kSnp);
  ASSERT_NE(snp, nullptr);
  EXPECT_FALSE(snp->parts);
  EXPECT_EQ(snp->machines.size(), platform(r, Technology::kSim)->machines.size());
  for (const auto& machine : snp->machines) {
    if (machine.cpus != 4) continue;
    EXPECT_EQ(machine.measurement,
              measured(Technology::kSnp, 4, 1).platform.machines.front().measurement);
  }
  const auto* tdx = platform(r, Technology::kTdx);
  ASSERT_NE(tdx, nullptr);
  ASSERT_EQ(tdx->machines.size(), 2U);
  for (const auto& machine : tdx->machines) {
    const auto whole = measured(Technology::kTdx, machine.cpus, machine.memory_bytes >> 30);
    EXPECT_EQ(machine.measurement, whole.platform.machines.front().measurement);
    EXPECT_EQ(tdx->parts->firmware, whole.platform.parts->firmware);
    EXPECT_EQ(tdx->parts->rtmr1, whole.platform.parts->rtmr1);
    EXPECT_EQ(tdx->parts->rtmr2, whole.platform.parts->rtmr2);
  }
  EXPECT_NE(tdx->machines[0].measurement, tdx->machines[1].measurement);
  std::vector<std::string> names;
  for (const auto& f : r.body.files) names.push_back(f.name);
  EXPECT_EQ(names, (std::vector<std::string>{"firmware", "kernel", "initrd", "firmware-tdx",
                                             "firmware-snp"}));
}

TEST_F(ReleaseCommand, WithoutTheirFirmwareOnlyTheSimIsListedUnderAnotherName) {
  ASSERT_EQ(run({"key", "--key", at("key"), "--new"}).status.code, 0);
  const std::string whole = made().body.name;
  ASSERT_TRUE(remove_tree(at("guest/firmware-snp.fd")).ok());
  const Release r = made();
  ASSERT_EQ(r.body.platforms.size(), 1U);
  EXPECT_EQ(r.body.platforms[0].technology, Technology::kSim);
  EXPECT_NE(r.body.name, whole);
  ASSERT_TRUE(remove_tree(at("guest/firmware-tdx.fd")).ok());
  EXPECT_NE(made().body.name, r.body.name);
  const RunOutput none = make({"--acpi", at("acpi")});
  EXPECT_EQ(none.status.code, 2);
  EXPECT_NE(none.err.find("guest/build --platforms tdx"), std::string::npos) << none.err;
}

TEST_F(ReleaseCommand, AFirmwareThatDoesNotMeasureIsRefused) {
  ASSERT_EQ(run({"key", "--key", at("key"), "--new"}).status.code, 0);
  struct Case {
    const char* part;
    Bytes content;
    const char* says;
  };
  m::testing::FirmwareMaker silent;
  silent.measures = false;
  const Case cases[] = {
      {"guest/firmware-tdx.fd", silent.build(), "TdTcg2Dxe"},
      {"guest/firmware-snp.fd", m::testing::FirmwareMaker::without_hashes().build(), "ovmf-amdsev"},
      {"guest/firmware-snp.fd", m::testing::pattern(8192, 3), "ovmf-amdsev"},
      {"guest/firmware-tdx.fd", Bytes(100), "firmware"},
      {"guest/kernel", m::testing::pattern(8192, 3), "PE image"},
      {"acpi/2-2GiB/tables", {}, "acpi"}};
  for (const Case& c : cases) {
    const Bytes before = read_file(at(c.part), 1 << 20).value();
    put(c.part, c.content);
    if (c.content.empty()) {
      ASSERT_TRUE(remove_tree(at(c.part)).ok());
    }
    const RunOutput r = make({"--acpi", at("acpi")});
    EXPECT_NE(r.status.code, 0) << c.part;
    EXPECT_NE(r.err.find(c.says), std::string::npos) << c.part << ": " << r.err;
    EXPECT_FALSE(path_exists(at("out"))) << c.part;
    put(c.part, before);
  }
  const RunOutput empty = make({"--acpi", at("guest")});
  EXPECT_NE(empty.err.find("2-2GiB"), std::string::npos) << empty.err;
}

TEST_F(ReleaseCommand, ShowsWhatIsSignedAndNothingElse) {
  ASSERT_EQ(run({"key", "--key", at("key"), "--new"}).status.code, 0);
  const Release r = made({"--acpi", at("acpi")});
  const RunOutput shown = run({"show", at("out")}, "table");
  ASSERT_EQ(shown.status.code, 0) << shown.err;
  for (const std::string& part :
       {r.body.name, r.key, std::string("tdx: UNTESTED ON HARDWARE, 2 sizes"),
        std::string("sim: SIMULATED"), to_hex(platform(r, Technology::kTdx)->parts->firmware)}) {
    EXPECT_NE(shown.out.find(part), std::string::npos) << part;
  }
  std::string text = read_text_file(at("out"), 1 << 20).value();
  text.replace(text.find("quiet"), 5, "loud!");
  put("out", to_bytes(as_bytes(text)));
  const RunOutput lie = run({"show", at("out")});
  EXPECT_EQ(lie.status.code, 7);
  EXPECT_EQ(lie.out, "");
  EXPECT_NE(lie.err.find("bad-signature"), std::string::npos) << lie.err;
}

}  // namespace
}  // namespace gbx::cli
