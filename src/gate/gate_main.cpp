// glovebox-gate: reads a GateRequest from descriptor 0, judges the folders whose descriptors it
// names, writes the answer to descriptor 1 and ends. It has no key, no network, no name for any
// file, and is confined before it reads one hostile byte. Status 0 with an answer; anything else is
// a hold for whoever started it.
#include <unistd.h>

#include "base/inner_program.h"
#include "base/os.h"
#include "crypto/crypto.h"
#include "gate/confine.h"
#include "gate/gate.h"

namespace gbx::gate {
namespace {

constexpr std::size_t kMaxRequest = 8U << 20;

Status work() {
  GBX_TRY(harden_process());
  GBX_ASSIGN(const Bytes input, read_all(0, kMaxRequest));
  GBX_ASSIGN(const GateRequest request,
             from_json_text<GateRequest>(as_text(input), JsonLimits{kMaxRequest, 32, 500'000}));
  GBX_TRY(check_request(request));
  // The crypto library reads its configuration at first use: before the filter.
  (void)request_digest(request);
  ConfineOptions options;
  options.folders.push_back(static_cast<int>(request.outFd));
  for (const auto& i : request.inputs) options.folders.push_back(static_cast<int>(i.fd));
  GBX_ASSIGN(const Confinement confinement, confine(options));
  return write_all(1, encode_answer(Gate::evaluate(request, confinement)));
}

}  // namespace
}  // namespace gbx::gate

int main(int argc, char** argv) {
  int status = 0;
  const char* what = "glovebox-gate judges the output of one job; the agent starts it";
  if (gbx::answered_person(argc, argv, what, &status)) return status;
  const gbx::Status s = gbx::gate::work();
  // No destructors of statics, no flushing: the filter would kill some of what they do.
  _exit(s.ok() ? 0 : 1);
}
