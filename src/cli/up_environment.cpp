#include "cli/up_environment.h"

#include <unistd.h>

#include "base/json.h"
#include "base/os.h"
#include "cli/up.h"

namespace gbx::cli {

namespace {

constexpr std::size_t kMostFacts = std::size_t{1} << 16;
constexpr const char* kParts[] = {"firmware.fd", "kernel", "initrd", "cmdline", "lock"};

// The first file of a guest that is not in `folder`; empty: all are.
std::string missing_of(const std::string& folder) {
  for (const char* part : kParts) {
    if (!path_exists(folder + "/" + part)) return folder + "/" + part;
  }
  return {};
}

}  // namespace

Result<std::optional<bool>> installed_with_machines(const std::string& installation_file) {
  std::optional<bool> out;
  if (!path_exists(installation_file)) return out;
  GBX_ASSIGN(const std::string text, read_text_file(installation_file, kMostFacts));
  auto facts = parse_json(text);
  if (!facts.ok()) {
    return facts.error().at(installation_file).hint("name what jobs run in: --environment");
  }
  // One of an older version does not say so: it had no machines.
  const Json* release = facts->find("release");
  out = release != nullptr && release->string() != nullptr && !release->string()->empty();
  return out;
}

std::string usual_guest(const std::string& programs) {
  const std::string installed = programs + "/../share/glovebox/guest";
  return missing_of(installed).empty() ? installed : programs + "/../../guest";
}

Result<UpEnvironment> choose_environment(const UpOptions& o, const std::optional<bool>& installed) {
  UpEnvironment e;
  const bool wanted = o.environment == UpOptions::Where::kMachines ||
                      (o.environment == UpOptions::Where::kUnsaid && installed.value_or(false));
  if (!wanted && (o.environment == UpOptions::Where::kLocal || installed.has_value())) return e;
  e.guest = o.guest.empty() ? usual_guest(o.programs) : o.guest;
  const std::string guest_lacks = missing_of(e.guest);
  const bool qemu = access(o.qemu.c_str(), X_OK) == 0;
  e.machines = qemu && guest_lacks.empty();
  if (e.machines) return e;
  const std::string lacks = qemu ? guest_lacks : o.qemu;
  if (wanted || !o.guest.empty()) {
    return fail(Reason::kNotFound, "what jobs in machines of their own need")
        .with(lacks, "nothing there")
        .hint(std::string(qemu ? "guest/build makes a guest" : "scripts/setup run installs QEMU") +
              "; --environment local runs jobs on this host instead");
  }
  e.because = lacks + " is not there";
  return e;
}

}  // namespace gbx::cli
