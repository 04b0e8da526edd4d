#include "cli/up_environment.h"

#include <unistd.h>

#include "base/json.h"
#include "base/os.h"
#include "cli/guest_folder.h"
#include "cli/up.h"

namespace gbx::cli {

namespace {

constexpr std::size_t kMostFacts = std::size_t{1} << 16;
constexpr const char* kMachines = "vm";
constexpr const char* kLocal = "local";

}  // namespace

Result<std::optional<bool>> installed_with_machines(const std::string& installation_file) {
  std::optional<bool> out;
  if (!path_exists(installation_file)) return out;
  GBX_ASSIGN(const std::string text, read_text_file(installation_file, kMostFacts));
  auto facts = parse_json(text);
  if (!facts.ok()) {
    return facts.error().at(installation_file).hint("name what jobs run in: --environment");
  }
  const Json* usual = facts->find("usualEnvironment");
  const std::string* said = usual == nullptr ? nullptr : usual->string();
  if (said != nullptr && (*said == kMachines || *said == kLocal)) {
    out = *said == kMachines;
    return out;
  }
  // One of an older version says what its last start had, or nothing: then it had no machines.
  const Json* release = facts->find("release");
  out = release != nullptr && release->string() != nullptr && !release->string()->empty();
  return out;
}

std::string usual_environment(const std::optional<bool>& installed, const UpEnvironment& now) {
  return installed.value_or(now.machines) ? kMachines : kLocal;
}

Result<UpEnvironment> choose_environment(const UpOptions& o, const std::optional<bool>& installed) {
  UpEnvironment e;
  const bool wanted = o.environment == UpOptions::Where::kMachines ||
                      (o.environment == UpOptions::Where::kUnsaid && installed.value_or(false));
  if (!wanted && (o.environment == UpOptions::Where::kLocal || installed.has_value())) return e;
  e.guest = o.guest.empty() ? usual_guest(o.programs) : o.guest;
  const std::string guest_lacks = missing_of_guest(e.guest);
  const bool qemu = access(o.qemu.c_str(), X_OK) == 0;
  e.machines = qemu && guest_lacks.empty();
  if (e.machines) return e;
  const std::string lacks = qemu ? guest_lacks : o.qemu;
  const std::string next = qemu ? "guest/build makes a guest" : "scripts/setup run installs QEMU";
  if (wanted || !o.guest.empty()) {
    return fail(Reason::kNotFound, "what jobs in machines of their own need")
        .with(lacks, "nothing there")
        .hint(next + "; --environment local runs jobs on this host instead");
  }
  e.because = lacks + " is not there (" + next + ")";
  return e;
}

}  // namespace gbx::cli
