// `glovebox measure` as a shell sees it: wrong input first, then that it prints what is computed.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/json.h"
#include "base/os.h"
#include "vm/measure/measure.h"
#include "vm/measure/testing.h"

namespace gbx::cli {
namespace {

namespace m = vm::measure;
using Words = std::vector<std::string>;

class MeasureCommand : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/gbx-measure-XXXXXX";
    folder_ = mkdtemp(name);
    put("firmware", m::testing::FirmwareMaker().build());
    put("kernel", m::testing::KernelMaker().build());
    put("initrd", m::testing::pattern(5000, 9));
    ASSERT_TRUE(make_dirs(folder_ + "/acpi", 0700).ok());
    ByteWriter script;
    for (const std::string_view file : {"etc/acpi/rsdp", "etc/acpi/tables"}) {
      script.u32(1).text(file).zeros(124 - file.size());
    }
    put("acpi/table-loader", script.bytes());
    put("acpi/rsdp", Bytes(20));
    put("acpi/tables", Bytes(200));
  }
  void TearDown() override { EXPECT_TRUE(remove_tree(folder_).ok()); }

  std::string at(const std::string& name) const { return folder_ + "/" + name; }
  void put(const std::string& name, const Bytes& content) {
    ASSERT_TRUE(write_file_atomic(at(name), content, 0600).ok());
  }
  // A whole command with some options changed; "" takes one away.
  Words command(const std::string& technology, std::map<std::string, std::string> changed = {}) {
    std::map<std::string, std::string> all = {
        {"technology", technology}, {"firmware", at("firmware")}, {"kernel", at("kernel")},
        {"initrd", at("initrd")},   {"cmdline", "quiet"},         {"cpus", "2"},
        {"memory", "2GiB"}};
    if (technology == "tdx") all["acpi"] = at("acpi");
    for (const auto& [name, value] : changed) all[name] = value;
    Words words = {"measure"};
    for (const auto& [name, value] : all) {
      if (value.empty()) continue;
      words.push_back("--" + name);
      words.push_back(value);
    }
    return words;
  }
  RunOutput run(const Words& words, const std::string& format = "json") {
    const char* bin = std::getenv("GBX_BIN_DIR");
    ProcessOptions o;
    o.argv = {std::string(bin == nullptr ? "." : bin) + "/glovebox", "--home", at("home"), "-o",
              format};
    o.argv.insert(o.argv.end(), words.begin(), words.end());
    return run_command(std::move(o)).value();
  }
  // "reason: next", of the error that a command ends with.
  std::string refusal(const Words& words) {
    const RunOutput out = run(words);
    EXPECT_NE(out.status.code, 0);
    EXPECT_EQ(out.out, "");
    const auto j = parse_json(out.err);
    EXPECT_TRUE(j.ok()) << out.err;
    if (!j.ok()) return {};
    const Json* error = j->find("error");
    std::string text = *error->find("reason")->string();
    for (const char* more : {"what", "expected", "actual", "next"}) {
      const Json* v = error->find(more);
      if (v != nullptr && v->string() != nullptr) text += "; " + *v->string();
    }
    return text;
  }
  std::string folder_;
};

TEST_F(MeasureCommand, EveryWrongInputIsNamedWithWhatHelps) {
  struct Case {
    std::string technology;
    std::map<std::string, std::string> changed;
    std::vector<std::string> says;
  };
  put("empty", {});
  put("text", to_bytes(as_bytes(std::string(8192, 'a'))));
  Bytes plain = m::testing::pattern(8192, 5);
  put("no-metadata", plain);
  put("odd-size", Bytes(5000));
  put("no-hashes", m::testing::FirmwareMaker::without_hashes().build());
  m::testing::FirmwareMaker silent;
  silent.measures = false;
  put("no-events", silent.build());
  const std::vector<Case> cases = {
      {"sim", {{"firmware", at("nowhere")}}, {"not-found", "--firmware", "nowhere"}},
      {"sim", {{"kernel", at("nowhere")}}, {"not-found", "--kernel", "nowhere"}},
      {"sim", {{"initrd", at("nowhere")}}, {"not-found", "--initrd", "nowhere"}},
      {"sim", {{"initrd", folder_}}, {"bad-value", "--initrd", "a folder"}},
      {"sim", {{"initrd", at("empty")}}, {"bad-value", "an empty file"}},
      {"sim", {{"kernel", at("text")}}, {"bad-magic", "no PE image", "bzImage"}},
      {"tdx", {{"kernel", at("text")}}, {"bad-magic", "no PE image", "bzImage"}},
      {"sev-snp", {{"kernel", at("text")}}, {"bad-magic", "no PE image", "bzImage"}},
      {"tdx", {{"firmware", at("no-metadata")}}, {"unsupported", "TDX metadata", "Debian 13"}},
      {"tdx", {{"firmware", at("no-events")}}, {"unsupported", "RTMR", "Debian 13"}},
      {"sev-snp", {{"firmware", at("no-metadata")}}, {"unsupported", "SEV-SNP", "ovmf-amdsev"}},
      {"sev-snp", {{"firmware", at("no-hashes")}}, {"unsupported", "ovmf-amdsev"}},
      {"sev-snp", {{"firmware", at("odd-size")}}, {"bad-structure", "4096"}},
      {"sev-snp", {{"vcpu-type", "host"}}, {"bad-value", "EPYC-Milan", "host"}},
      {"sev-snp", {{"guest-features", "2"}}, {"usage", "--guest-features", "SNPActive"}},
      {"sev-snp", {{"guest-features", "0x"}}, {"usage", "--guest-features"}},
      {"sim", {{"memory", "2G"}}, {"usage", "--memory", "2GiB"}},
      {"sim", {{"memory", "-1GiB"}}, {"usage", "--memory"}},
      {"sim", {{"memory", "99999999999999GiB"}}, {"usage", "--memory"}},
      {"sim", {{"memory", "3MiB"}}, {"bad-value", "memory"}},
      {"sim", {{"memory", "4096GiB"}, {"cpus", "256"}}, {"bad-value", "processors", "255"}},
      {"sim", {{"memory", "32768GiB"}}, {"bad-value", "memory"}},
      {"sim", {{"cpus", "0"}}, {"usage", "cpus"}},
      {"sim", {{"cmdline", "a\nb"}}, {"bad-value", "printable ASCII"}},
      {"sim", {{"cmdline", std::string(2048, 'a')}}, {"too-large", "2047"}},
      {"tdx", {{"acpi", ""}}, {"usage", "--acpi", "guest/acpi-tables"}},
      {"tdx", {{"acpi", folder_}}, {"not-found", "--acpi", "table-loader"}},
      {"sim", {{"acpi", at("acpi")}}, {"usage", "--acpi", "tdx"}},
      {"sim", {{"vcpu-type", "EPYC"}}, {"usage", "--vcpu-type", "sev-snp"}},
      {"sgx", {}, {"usage", "--technology"}},
      {"sim", {{"kernel", ""}}, {"usage", "kernel"}},
  };
  for (const auto& c : cases) {
    const std::string text = refusal(command(c.technology, c.changed));
    for (const auto& word : c.says) EXPECT_NE(text.find(word), std::string::npos) << text;
  }
}

TEST_F(MeasureCommand, PrintsWhatIsComputed) {
  m::LaunchFiles files;
  files.firmware = read_file(at("firmware"), 1U << 20).value();
  files.kernel = read_file(at("kernel"), 1U << 20).value();
  files.initrd = read_file(at("initrd"), 1U << 20).value();
  files.acpi.loader = read_file(at("acpi/table-loader"), 1U << 20).value();
  files.acpi.files = {{"etc/acpi/rsdp", Bytes(20)}, {"etc/acpi/tables", Bytes(200)}};
  m::LaunchPlan plan;
  plan.cmdline = "quiet";
  plan.cpus = 2;
  plan.memory_bytes = std::int64_t{2} << 30;
  for (const auto& [name, technology] :
       {std::pair{"sim", records::Technology::kSim}, std::pair{"tdx", records::Technology::kTdx},
        std::pair{"sev-snp", records::Technology::kSnp}}) {
    plan.technology = technology;
    const auto expected = m::measure_launch(files, plan).value();
    const RunOutput out = run(command(name));
    ASSERT_EQ(out.status.code, 0) << out.err;
    const Json j = parse_json(out.out).value();
    EXPECT_EQ(*j.find("platform"), to_json(expected.platform));
    EXPECT_EQ(*j.find("testedOnHardware"), Json(false));
    const JsonArray& registers = *j.find("registers")->array();
    ASSERT_EQ(registers.size(), expected.registers.size());
    for (std::size_t i = 0; i < registers.size(); ++i) {
      EXPECT_EQ(*registers[i].find("name")->string(), expected.registers[i].name);
      EXPECT_EQ(*registers[i].find("value")->string(), to_hex(expected.registers[i].value));
      EXPECT_EQ(registers[i].find("steps")->array()->size(), expected.registers[i].steps.size());
    }
    const RunOutput text = run(command(name), "table");
    EXPECT_NE(text.out.find(name == std::string("sim") ? "SIMULATED" : "UNTESTED ON HARDWARE"),
              std::string::npos);
    for (const auto& r : expected.registers) {
      EXPECT_NE(text.out.find(r.name + "  " + to_hex(r.value)), std::string::npos);
    }
  }
}

TEST_F(MeasureCommand, OptionsOfOneTechnologyCount) {
  const auto first = [this](const Words& words) {
    const RunOutput out = run(words);
    EXPECT_EQ(out.status.code, 0) << out.err;
    return out.out;
  };
  EXPECT_NE(first(command("sev-snp")), first(command("sev-snp", {{"vcpu-type", "EPYC-Milan"}})));
  EXPECT_NE(first(command("sev-snp")), first(command("sev-snp", {{"guest-features", "0x21"}})));
  EXPECT_EQ(first(command("sev-snp")),
            first(command("sev-snp", {{"vcpu-type", "EPYC-v4"}, {"guest-features", "1"}})));
  EXPECT_NE(first(command("tdx")), first(command("tdx", {{"kernel-header", "patched"}})));
  EXPECT_EQ(first(command("sim", {{"memory", "2048MiB"}})),
            first(command("sim", {{"memory", "2147483648"}})));
}

}  // namespace
}  // namespace gbx::cli
