// JSON text to records as they arrive from strangers: what is accepted is written again byte for
// byte.
#include "fuzz/fuzz.h"
#include "records/messages.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;

template <class Record>
void round_trip(const Json& json) {
  const auto record = from_json<Record>(json);
  if (!record.ok()) return;
  require(canonical(to_json(*record)) == canonical(json));
}

void job_spec(const Json& json) {
  round_trip<records::JobSpec>(json);
  const auto spec = from_json<records::JobSpec>(json);
  if (spec.ok()) (void)spec->validate();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 8);
  const auto json = parse_json(in.text());
  if (!json.ok()) return 0;
  // JSON has no place for a NUL: what follows one would be hidden
  require(in.text().find('\0') == std::string_view::npos);
  require_json_round_trip(*json);
  const auto pretty_again = parse_json(pretty(*json));
  require(pretty_again.ok() && *pretty_again == *json);
  switch (in.choice) {
    case 0:
      round_trip<records::Submission>(*json);
      break;
    case 1:
      round_trip<records::LaunchBundle>(*json);
      break;
    case 2:
      round_trip<records::Receipt>(*json);
      break;
    case 3:
      round_trip<records::Publish>(*json);
      break;
    case 4:
      job_spec(*json);
      break;
    case 5:
      round_trip<records::SealedOutput>(*json);
      break;
    case 6:
      round_trip<records::Seal>(*json);
      break;
    default:
      round_trip<records::AttestRequest>(*json);
      break;
  }
  return 0;
}
