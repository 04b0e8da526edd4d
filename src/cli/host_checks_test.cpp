// `doctor --host` over hosts that are folders: a TDX host, an SEV-SNP host, each with every step
// undone in turn, a laptop, and files that nobody would expect.
#include "cli/host_checks.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <map>

#include "base/json.h"
#include "base/os.h"
#include "base/printable.h"
#include "vm/measure/testing.h"

namespace gbx::cli {
namespace {

using records::Technology;
using Files = std::map<std::string, std::string>;

struct Folder {
  std::string path = "/tmp/gbx-host-XXXXXX";
  Folder() {
    if (mkdtemp(path.data()) == nullptr) abort();
  }
  ~Folder() { (void)remove_tree(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  void put(const std::string& name, ByteView content) const {
    const std::string file = path + "/" + name;
    ASSERT_TRUE(make_dirs(file.substr(0, file.rfind('/')), 0700).ok());
    // Not synced: hosts of twenty files each are made by the dozen.
    std::ofstream(file, std::ios::binary) << as_text(content);
  }
};

std::string cpuinfo(const std::string& vendor, const std::string& model, const std::string& flags) {
  const std::string one = "processor\t: 0\nvendor_id\t: " + vendor + "\nmodel name\t: " + model +
                          "\nflags\t\t: " + flags + "\nbugs\t\t: none\n\n";
  return one + one;
}

Files common() {
  return {{"proc/meminfo", "MemTotal:       263000000 kB\nMemFree: 1 kB\n"},
          {"proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro nohibernate\n"},
          {"dev/kvm", ""},
          {"sys/devices/system/node/node0/cpulist", "0-15\n"},
          {"sys/devices/system/node/node1/cpulist", "16-31\n"},
          {"sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n"},
          {"etc/subuid", "root:100000:65536\n"}};
}
Files tdx_host() {
  Files f = common();
  f["proc/cpuinfo"] = cpuinfo("GenuineIntel", "INTEL(R) XEON(R) PLATINUM 8580",
                              "fpu tme sgx movdir64b tdx_host_platform");
  f["proc/sys/kernel/osrelease"] = "6.18.2-host\n";
  f["sys/power/disk"] = "[disabled]\n";
  f["sys/module/kvm_intel/parameters/tdx"] = "Y\n";
  f["sys/module/kvm_intel/parameters/ept"] = "Y\n";
  f["sys/module/kvm/parameters/tdp_mmu"] = "Y\n";
  f["sys/module/kvm/parameters/mmio_caching"] = "Y\n";
  f["sys/devices/faux/tdx_host/version"] = "1.5.24\n";
  f["dev/sgx_provision"] = "";
  f["etc/qgs.conf"] = "# port of vsock\nport = 4050\nnumber_threads = 4\n";
  f["etc/sgx_default_qcnl.conf"] =
      "{\n  // the caching service\n  \"pccs_url\": "
      "\"https://localhost:8081/sgx/certification/v4/\",\n"
      "  \"use_secure_cert\": true\n}\n";
  return f;
}
Files snp_host() {
  Files f = common();
  f["proc/cpuinfo"] =
      cpuinfo("AuthenticAMD", "AMD EPYC 9354 32-Core Processor", "fpu sme sev sev_es sev_snp");
  f["proc/sys/kernel/osrelease"] = "6.12.48+deb13-amd64\n";
  for (const char* name : {"sev", "sev_es", "sev_snp"}) {
    f[std::string("sys/module/kvm_amd/parameters/") + name] = "Y\n";
  }
  f["sys/class/iommu/ivhd0/devices"] = "";
  f["dev/sev"] = "";
  f["sys/bus/pci/drivers/ccp/0000:42:00.1/bootloader_version"] = "00.2d.00.79\n";
  return f;
}

class Host : public ::testing::Test {
 protected:
  Host() {
    answers_.qemu = [this] { return qemu_; };
    answers_.vsock = [this](const vm::VsockAddress& where) {
      asked_.push_back("vsock " + std::to_string(where.port));
      return service_;
    };
    answers_.unix_socket = [this](const vm::UnixAddress& where) {
      asked_.push_back(where.path.substr(folder_.path.size()));
      return service_;
    };
    answers_.tcp = [this](const std::string& where) {
      asked_.push_back(where);
      return service_;
    };
    vm::QemuReport q;
    q.version = "QEMU emulator version 10.1.2";
    qemu_ = q;
    for (const char* name : {"firmware.fd", "kernel", "initrd", "cmdline", "lock"}) {
      guest_.put(name, as_bytes("x"));
    }
    guest_.put("name", as_bytes("glovebox-guest-1\n"));
    guest_.put("firmware-tdx.fd", vm::measure::testing::FirmwareMaker().build());
    guest_.put("firmware-snp.fd", vm::measure::testing::FirmwareMaker().build());
  }

  // The findings of a host of these files, by check.
  std::map<std::string, Finding> look(const Files& files,
                                      std::optional<Technology> technology = {}) {
    (void)remove_tree(folder_.path + "/host");
    EXPECT_TRUE(make_dirs(folder_.path + "/host", 0700).ok());
    for (const auto& [name, content] : files) folder_.put("host/" + name, as_bytes(content));
    std::map<std::string, Finding> out;
    for (auto& f :
         check_host(HostFiles(folder_.path + "/host"), answers_, {technology, guest_.path})) {
      EXPECT_EQ(out.count(f.check), 0U) << f.check;
      out[f.check] = f;
    }
    return out;
  }
  // Each that is not "ok".
  static std::string bad(const std::map<std::string, Finding>& found) {
    std::string out;
    for (const auto& [check, f] : found) {
      if (f.result == "ok") continue;
      EXPECT_NE(f.next, "") << check;
      EXPECT_NE(f.detail, "") << check;
      out += (out.empty() ? "" : ", ") + check + " " + f.result;
    }
    return out;
  }

  Folder folder_;
  Folder guest_;
  HostAnswers answers_;
  Result<vm::QemuReport> qemu_;
  Status service_ = ok_status();
  std::vector<std::string> asked_;
};

TEST_F(Host, OneThatIsSetUpLacksNothing) {
  EXPECT_EQ(bad(look(tdx_host())), "");
  EXPECT_EQ(asked_, (std::vector<std::string>{"vsock 4050", "localhost:8081"}));
  const auto snp = look(snp_host());
  EXPECT_EQ(bad(snp), "");
  EXPECT_EQ(snp.count("SGX"), 0U);
  EXPECT_NE(snp.at("memory").detail.find("2 NUMA nodes"), std::string::npos);
  EXPECT_NE(snp.at("SEV firmware").detail.find("00.2d.00.79"), std::string::npos);
}

struct Undone {
  std::string file;
  std::optional<std::string> content;  // absent: the file is not there
  std::string says;
};

void each(const Files& whole, const std::vector<Undone>& cases,
          const std::function<std::string(const Files&)>& bad) {
  for (const auto& c : cases) {
    Files f = whole;
    ASSERT_EQ(f.count(c.file), 1U) << c.file;
    if (c.content) {
      f[c.file] = *c.content;
    } else {
      f.erase(c.file);
    }
    EXPECT_EQ(bad(f), c.says) << c.file << ": " << c.content.value_or("(none)");
  }
}

TEST_F(Host, EachStepOfTdxThatIsUndoneIsNamed) {
  const std::string xeon = "INTEL(R) XEON(R)";
  each(tdx_host(),
       {{"proc/cpuinfo", cpuinfo("GenuineIntel", xeon, "sgx"), "TDX in the BIOS missing"},
        {"proc/cpuinfo", cpuinfo("GenuineIntel", xeon, "tdx_host_platform"), "SGX missing"},
        {"proc/cpuinfo", cpuinfo("GenuineIntel", xeon, "sgx tdx_host_platform hypervisor"),
         "processor warning"},
        {"proc/sys/kernel/osrelease", "6.15.9\n", "kernel missing"},
        {"proc/sys/kernel/osrelease", "5.99.9\n", "kernel missing"},
        {"proc/sys/kernel/osrelease", "7.0.0\n", ""},
        {"proc/sys/kernel/osrelease", "six\n", "kernel cannot tell"},
        {"sys/module/kvm_intel/parameters/tdx", "N\n", "kvm_intel.tdx missing"},
        {"sys/module/kvm_intel/parameters/tdx", {}, "kvm_intel.tdx missing"},
        {"sys/module/kvm_intel/parameters/ept", "N\n", "kvm_intel.ept missing"},
        {"sys/module/kvm/parameters/tdp_mmu", "N\n", "kvm.tdp_mmu missing"},
        {"sys/module/kvm/parameters/mmio_caching", "N\n", "kvm.mmio_caching missing"},
        {"sys/devices/faux/tdx_host/version", {}, "TDX module cannot tell"},
        {"dev/sgx_provision", {}, "SGX provisioning missing"},
        {"dev/kvm", {}, "KVM missing"},
        {"etc/qgs.conf", "port = many\n", "quote service missing"},
        {"etc/sgx_default_qcnl.conf", {}, "PCK certificates missing"},
        {"etc/sgx_default_qcnl.conf", "{\"pccs_url\": \"http://pccs/\"}\n",
         "PCK certificates missing"},
        {"proc/meminfo", "MemTotal: 4000000 kB\n", "memory warning"},
        {"proc/meminfo", {}, "memory cannot tell"},
        {"sys/fs/cgroup/cgroup.controllers", {}, "control groups missing"},
        {"etc/subuid", "somebody:2000000000:65536\n", "user ids missing"}},
       [this](const Files& f) { return bad(look(f)); });
  Files sleeps = tdx_host();
  sleeps["proc/cmdline"] = "ro\n";
  sleeps["sys/power/disk"] = "[platform] shutdown reboot\n";
  EXPECT_EQ(bad(look(sleeps)), "hibernation missing");
}

TEST_F(Host, EachStepOfSnpThatIsUndoneIsNamed) {
  const std::string epyc = "AMD EPYC";
  std::vector<Undone> cases = {
      {"proc/cpuinfo", cpuinfo("AuthenticAMD", epyc, "sev sev_es sev_snp"),
       "SNP in the BIOS missing"},
      {"proc/cpuinfo", cpuinfo("AuthenticAMD", epyc, "sme sev sev_es"), "SNP in the BIOS missing"},
      {"proc/sys/kernel/osrelease", "6.10.0\n", "kernel missing"},
      {"sys/module/kvm_amd/parameters/sev_snp", "N\n", "kvm_amd.sev_snp missing"},
      {"sys/module/kvm_amd/parameters/sev_es", "N\n", "kvm_amd.sev_es missing"},
      {"sys/module/kvm_amd/parameters/sev", {}, "kvm_amd.sev missing"},
      {"sys/class/iommu/ivhd0/devices", {}, "IOMMU missing"},
      {"dev/sev", {}, "secure processor missing"},
      {"sys/bus/pci/drivers/ccp/0000:42:00.1/bootloader_version", {}, "SEV firmware cannot tell"}};
  for (const char* word : {"iommu=pt", "iommu=off", "amd_iommu=off", "iommu.passthrough=1"}) {
    cases.push_back({"proc/cmdline", std::string("ro ") + word + " quiet\n", "IOMMU missing"});
  }
  each(snp_host(), cases, [this](const Files& f) { return bad(look(f)); });
}

TEST_F(Host, ServicesAreAskedWhereTheHostsFilesSayTheyAre) {
  service_ = fail(Reason::kIo, "connect");
  EXPECT_EQ(bad(look(tdx_host())), "PCK certificates missing, quote service missing");
  // Nobody can ask its own vsock: that says nothing of the service.
  service_ = fail(Reason::kUnsupported, "no loopback");
  EXPECT_EQ(look(tdx_host()).at("quote service").result, "cannot tell");
  service_ = ok_status();
  Files f = tdx_host();
  f.erase("etc/qgs.conf");
  f["etc/sgx_default_qcnl.conf"] = "\"pccs_url\": \"https://[::1]/sgx/\"\n";
  asked_.clear();
  EXPECT_EQ(bad(look(f)), "");
  EXPECT_EQ(asked_, (std::vector<std::string>{"/host/var/run/tdx-qgs/qgs.socket", "[::1]:443"}));
}

TEST_F(Host, QemuAndFirmwareAreThoseOfTheTechnology) {
  vm::QemuReport old;
  old.version = "QEMU emulator version 9.1.0";
  old.lacks = {{vm::Platform::kTdx, "object tdx-guest", "QEMU 10.1 or later"}};
  qemu_ = old;
  const Finding qemu = look(tdx_host()).at("QEMU");
  EXPECT_EQ(qemu.result, "missing");
  EXPECT_NE(qemu.detail.find("object tdx-guest"), std::string::npos) << qemu.detail;
  EXPECT_NE(qemu.next.find("QEMU 10.1"), std::string::npos) << qemu.next;
  EXPECT_EQ(bad(look(snp_host())), "");
  qemu_ = fail(Reason::kNotFound, "QEMU at /nowhere").hint("install it");
  EXPECT_EQ(bad(look(snp_host())), "QEMU missing");
  qemu_ = vm::QemuReport{"QEMU emulator version 10.1.2", {}};
  // A firmware that starts, and whose measurement says nothing of the kernel.
  vm::measure::testing::FirmwareMaker silent;
  silent.measures = false;
  guest_.put("firmware-tdx.fd", silent.build());
  const Finding tdx = look(tdx_host()).at("firmware");
  EXPECT_EQ(tdx.result, "missing");
  EXPECT_NE(tdx.detail.find("TdTcg2Dxe"), std::string::npos) << tdx.detail;
  guest_.put("firmware-snp.fd", vm::measure::testing::FirmwareMaker::without_hashes().build());
  EXPECT_EQ(bad(look(snp_host())), "firmware missing");
  guest_.put("firmware-snp.fd", Bytes(100));
  EXPECT_EQ(bad(look(snp_host())), "firmware missing");
  ASSERT_TRUE(remove_tree(guest_.path + "/firmware-snp.fd").ok());
  EXPECT_EQ(bad(look(snp_host())), "firmware missing");
  guest_.put("initrd", {});
  EXPECT_EQ(bad(look(snp_host())), "firmware missing, guest missing");
}

TEST_F(Host, ALaptopIsToldWhatItIsNot) {
  Files f = common();
  f["proc/cpuinfo"] = cpuinfo("GenuineIntel", "Intel(R) Core(TM) i7-8650U", "fpu vmx");
  f["proc/sys/kernel/osrelease"] = "6.1.0-18-amd64\n";
  f["sys/module/kvm_intel/parameters/ept"] = "Y\n";
  const auto found = look(f);
  for (const char* check : {"TDX in the BIOS", "kernel", "kvm_intel.tdx", "SGX"}) {
    EXPECT_EQ(found.at(check).result, "missing") << check;
  }
  // Somebody who insists on SEV-SNP hears why not, and its steps.
  const auto snp = look(f, Technology::kSnp);
  EXPECT_EQ(snp.at("processor").result, "missing");
  EXPECT_EQ(snp.at("kvm_amd.sev_snp").result, "missing");
  EXPECT_EQ(snp.count("kvm_intel.tdx"), 0U);
  f["proc/cpuinfo"] = "processor : 0\nCPU implementer : 0x41\n";
  EXPECT_EQ(look(f).at("processor").result, "cannot tell");
}

TEST_F(Host, ThePageOfTheOperatorNamesEachStep) {
  const char* source = std::getenv("GBX_SOURCE_DIR");
  const auto page =
      read_text_file(std::string(source == nullptr ? "." : source) + "/docs/hardware.md", 1 << 20);
  ASSERT_TRUE(page.ok()) << page.error().line();
  for (const auto& files : {tdx_host(), snp_host()}) {
    for (const auto& [check, unused] : look(files)) {
      EXPECT_NE(page->find("[" + check + "]"), std::string::npos) << check;
    }
  }
}

TEST_F(Host, HostileFilesAreALineOfPrintableCharacters) {
  Files f = tdx_host();
  std::string wild = "\x1b[2J\r\x07";
  wild += std::string(1 << 20, 'A') + "\n";
  for (auto& [name, content] : f) {
    if (name.rfind("etc/", 0) != 0) content = wild;
  }
  f["etc/qgs.conf"] = "port = \x1b]0;x\x07\nport = 4050\n";
  f["etc/sgx_default_qcnl.conf"] = "\"pccs_url\": \"\x1b[31mhttps://x\"\n";
  f["sys/module/kvm_amd/x"] = "";
  const std::string pipe = folder_.path + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const auto technology : {Technology::kTdx, Technology::kSnp}) {
    for (const auto& [check, found] : look(f, technology)) {
      for (const std::string& text : {found.detail, found.next}) {
        EXPECT_EQ(printable_json(canonical(Json(text))), canonical(Json(text))) << check;
        EXPECT_LE(text.size(), 600U) << check;
      }
    }
  }
  // A pipe that nobody writes is no file.
  const HostFiles files(folder_.path);
  EXPECT_FALSE(files.text("/pipe"));
  EXPECT_EQ(files.text("/host/proc/cpuinfo")->size(), std::size_t{65536});
  EXPECT_FALSE(files.text("/host/proc"));
}

}  // namespace
}  // namespace gbx::cli
