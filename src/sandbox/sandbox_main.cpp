// glovebox-sandbox: supervises one container (sandbox.h); started by run_container(), which passes
// the descriptors that supervise.h lists. Runs as root. Ends when the container and all traces of
// it are gone.
#include <signal.h>
#include <unistd.h>

#include "base/inner_program.h"
#include "base/os.h"
#include "base/seams.h"
#include "sandbox/supervise.h"

namespace {

using namespace gbx;

Result<sandbox::ContainerSpec> read_spec() {
  GBX_TRY(harden_process());  // what a container printed passes through here
  GBX_ASSIGN(const Bytes text, read_all(sandbox::kSpecFd, 4U << 20));
  GBX_ASSIGN(sandbox::ContainerSpec spec, from_json_text<sandbox::ContainerSpec>(as_text(text)));
  GBX_TRY(sandbox::check_spec(spec));
  return spec;
}

}  // namespace

int main(int argc, char** argv) {
  int status = 0;
  const char* what = "glovebox-sandbox supervises one container; the agent starts it";
  if (answered_person(argc, argv, what, &status)) return status;
  signal(SIGPIPE, SIG_IGN);
  const SystemClock clock;
  sandbox::Report report;
  auto spec = read_spec();
  if (spec.ok()) {
    report = sandbox::supervise(*spec, clock);
  } else {
    report.error = spec.error().line().substr(0, 4000);
  }
  return write_all(sandbox::kReportFd, as_bytes(canonical(to_json(report)))).ok() ? 0 : 1;
}
