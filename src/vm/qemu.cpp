#include "vm/qemu.h"

#include <map>
#include <set>
#include <span>

#include "base/json.h"
#include "base/os.h"
#include "base/printable.h"

namespace gbx::vm {

namespace {

constexpr std::size_t kMostHelp = std::size_t{1} << 20;
constexpr std::int64_t kHelpMs = 60'000;

using Words = std::set<std::string, std::less<>>;

// The first word of each line, up to '=': names of properties, devices, processors, objects.
Words first_words(std::string_view text) {
  Words out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.starts_with("x86 ")) line.remove_prefix(4);
    const std::size_t from = line.find_first_not_of(' ');
    if (from == std::string_view::npos) continue;
    line.remove_prefix(from);
    out.emplace(line.substr(0, std::min(line.find_first_of(" ="), line.size())));
  }
  return out;
}

// Questions to one QEMU; each is asked once.
class Help {
 public:
  explicit Help(const std::string& qemu) : qemu_(qemu) {}
  Result<const Words*> ask(const std::string& option, const std::string& of) {
    const auto known = known_.find(option + " " + of);
    if (known != known_.end()) return &known->second;
    ProcessOptions p;
    p.argv = {qemu_, option, of};
    GBX_ASSIGN(const RunOutput said, run_command(p, kMostHelp, kHelpMs));
    // A type that it does not know has no list: it says so elsewhere and ends, with or without an
    // error.
    return &known_.emplace(option + " " + of, first_words(said.out)).first->second;
  }

 private:
  const std::string qemu_;
  std::map<std::string, Words> known_;
};

struct Since {
  std::string_view what;
  std::string_view needs;
};
constexpr Since kSince[] = {{"object tdx-guest", "QEMU 10.1 or later"},
                            {"object sev-snp-guest", "QEMU 9.1 or later"},
                            {"processor EPYC-v4", "QEMU 8.1 or later"}};

class Checker {
 public:
  Checker(Help& help, QemuReport& report) : help_(help), report_(report) {}

  Status check(Platform platform, const std::vector<std::string>& argv) {
    platform_ = platform;
    for (std::size_t i = 1; i + 1 < argv.size(); ++i) {
      GBX_TRY(check_option(argv[i], argv[i + 1]));
    }
    return ok_status();
  }

 private:
  Status check_option(const std::string& option, const std::string& value) {
    const std::string name = value.substr(0, value.find(','));
    if (option == "-machine") {
      GBX_TRY(listed(option, "help", "machine", name));
      return properties(option, name, "machine", keys_of(value));
    }
    if (option == "-device") return properties(option, name, "device", keys_of(value));
    if (option == "-accel") return listed(option, "help", "accelerator", name);
    // `host` is in the list of every QEMU with KVM.
    if (option == "-cpu") return listed(option, "help", "processor", name);
    if (option != "-object") return ok_status();
    GBX_ASSIGN(const Json object, parse_json(value));
    const Json* type = object.find("qom-type");
    if (type == nullptr || type->string() == nullptr) return fail(Reason::kInternal, "an object");
    std::vector<std::string> keys;
    for (const auto& [key, unused] : *object.object()) {
      if (key != "qom-type" && key != "id") keys.push_back(key);
    }
    bool there = false;
    GBX_TRY(listed(option, "help", "object", *type->string(), &there));
    return there ? properties(option, *type->string(), "object", keys) : ok_status();
  }

  // "type,a=b,c=d" without what belongs to every device.
  static std::vector<std::string> keys_of(std::string_view value) {
    std::vector<std::string> out;
    for (std::size_t at = value.find(','); at != std::string_view::npos; at = value.find(',', at)) {
      ++at;
      const std::string key(value.substr(at, value.find('=', at) - at));
      if (key != "id" && key != "bus") out.push_back(key);
    }
    return out;
  }

  Status listed(const std::string& option, const std::string& of, const std::string& kind,
                const std::string& name, bool* there = nullptr) {
    GBX_ASSIGN(const Words* words, help_.ask(option, of));
    const bool found = words->contains(name);
    if (there != nullptr) *there = found;
    if (!found) lack(kind + " " + name);
    return ok_status();
  }

  Status properties(const std::string& option, const std::string& type, const std::string& kind,
                    const std::vector<std::string>& keys) {
    GBX_ASSIGN(const Words* words, help_.ask(option, type + ",help"));
    if (words->empty()) {
      lack(kind + " " + type);
      return ok_status();
    }
    for (const std::string& key : keys) {
      if (!words->contains(key)) lack("property " + key + " of " + kind + " " + type);
    }
    return ok_status();
  }

  void lack(const std::string& what) {
    std::string needs = "a QEMU that has it; Debian 12's 7.2 has";
    for (const Since& since : kSince) {
      if (since.what == what) needs = since.needs;
    }
    report_.lacks.push_back({platform_, what, needs});
  }

  Help& help_;
  QemuReport& report_;
  Platform platform_ = Platform::kEmulation;
};

// Every option that a platform's description can lead to.
LaunchDescription everything_of(Platform platform, const std::string& qemu) {
  LaunchDescription d;
  d.platform = platform;
  d.qemu = qemu;
  d.firmware = d.kernel = d.initrd = "/";
  d.control_fd = 3;
  d.volume_fd = 4;
  if (platform == Platform::kEmulation || platform == Platform::kKvm) d.tee_fd = 5;
  if (platform == Platform::kTdx) d.quote_service = VsockAddress{};
  return d;
}

}  // namespace

bool QemuReport::serves(Platform platform) const {
  if (version.empty()) return false;
  for (const QemuLack& lack : lacks) {
    if (lack.platform == platform) return false;
  }
  return true;
}

Result<std::string> qemu_version(const std::string& qemu) {
  if (!path_exists(qemu)) {
    return fail(Reason::kNotFound, "QEMU at " + qemu).hint("scripts/setup run installs it");
  }
  ProcessOptions p;
  p.argv = {qemu, "--version"};
  GBX_ASSIGN(const RunOutput said, run_command(p, kMostHelp, kHelpMs));
  const std::string line = said.out.substr(0, said.out.find('\n'));
  if (!said.status.exited || said.status.code != 0 || !line.starts_with("QEMU emulator version ")) {
    return fail(Reason::kUnsupported, "the program " + qemu)
        .with("QEMU", printable(line.empty() ? said.err : line));
  }
  return printable(line);
}

namespace {

Result<QemuReport> check_for(const std::string& qemu, std::span<const Platform> platforms) {
  QemuReport report;
  GBX_ASSIGN(report.version, qemu_version(qemu));
  Help help(qemu);
  Checker checker(help, report);
  for (const Platform platform : platforms) {
    GBX_ASSIGN(const auto argv, qemu_arguments(everything_of(platform, qemu)));
    GBX_TRY(checker.check(platform, argv));
  }
  return report;
}

}  // namespace

Result<QemuReport> check_qemu(const std::string& qemu) { return check_for(qemu, kPlatforms); }
Result<QemuReport> check_qemu(const std::string& qemu, Platform platform) {
  return check_for(qemu, {&platform, 1});
}

}  // namespace gbx::vm
