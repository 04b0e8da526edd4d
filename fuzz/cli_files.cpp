// Files and words that people give to the command line: '0' a policy, '1' a certificate, '2' an
// address, '3' a date.
#include "cli/home.h"
#include "cli/policy_file.h"
#include "fuzz/fuzz.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;

void policy(std::string_view text) {
  const auto file = cli::parse_policy(text);
  if (!file.ok()) return;
  // Read without an error is within every bound.
  require(from_json<records::Clauses>(to_json(file->clauses)).ok());
  for (const auto kind : {records::AssetKind::kDataset, records::AssetKind::kImage}) {
    (void)cli::check_kind(*file, kind);
    (void)cli::warnings(file->clauses, kind);
    (void)cli::exposure(file->clauses, kind);
  }
}

void certificate(ByteView bytes) {
  const auto der = cli::parse_certificate(bytes);
  if (!der.ok()) return;
  require(cli::parse_certificate(*der).ok());
}

void address(const std::string& text) {
  const auto a = cli::parse_address(text);
  if (!a.ok()) return;
  require(!a->host.empty() && a->port != 0);
  const bool v6 = a->host.find(':') != std::string::npos;
  const std::string again = (v6 ? "[" + a->host + "]" : a->host) + ":" + std::to_string(a->port);
  const auto b = cli::parse_address(again);
  require(b.ok() && b->host == a->host && b->port == a->port);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 4);
  switch (in.choice) {
    case 0:
      policy(in.text());
      break;
    case 1:
      certificate(in.bytes);
      break;
    case 2:
      address(std::string(in.text()));
      break;
    default:
      (void)cli::parse_date(std::string(in.text()));
      break;
  }
  return 0;
}
