// Signed requests and error bodies of strangers. Choice 0 is "METHOD TARGET" and a line per header;
// what verifies is exactly what the headers say.
#include "fuzz/fuzz.h"
#include "httpsig/error_body.h"
#include "httpsig/request_signing.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;
using namespace gbx::httpsig;

constexpr std::int64_t kNow = 1'700'000'000;

std::string_view take_line(std::string_view& text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

void signed_request(std::string_view text) {
  const std::string_view first = take_line(text);
  const std::size_t space = std::min(first.find(' '), first.size());
  RequestLine line{Hash32{3}, std::string(first.substr(0, space)),
                   std::string(first.substr(std::min(space + 1, first.size())))};
  std::map<std::string, std::string> headers;
  while (!text.empty() && headers.size() < 32) {
    const std::string_view h = take_line(text);
    const std::size_t colon = h.find(": ");
    if (colon != std::string_view::npos) headers.emplace(h.substr(0, colon), h.substr(colon + 2));
  }
  const auto verified = verify_signature(line, headers, kNow);
  if (!verified.ok()) return;
  require(to_hex(verified->identity) == headers[kIdentityHeader] &&
          to_hex(verified->nonce) == headers[kNonceHeader]);
  require(to_hex(verified->body_hash) == headers[kBodyHashHeader] &&
          verified->key.text() == headers[kKeyHeader]);
  require(std::to_string(verified->time_seconds) == headers[kTimeHeader]);
  ReplayCache cache;
  const KeyCheck allow = [](const Hash32&, const crypto::PublicKey&) { return ok_status(); };
  require(verify_request(line, headers, kNow, allow, cache).ok());
  require(verify_request(line, headers, kNow, allow, cache).reason() == Reason::kReplayed);
  // The signature covers the target.
  line.target += "?";
  require(verify_signature(line, headers, kNow).reason() == Reason::kBadSignature);
}

void error_body(std::string_view text) {
  const auto error = error_from_json_text(text);
  if (!error) return;
  for (const std::string* s : {&error->what, &error->expected, &error->actual, &error->next}) {
    for (const char c : *s) require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
  }
  // What was cut and escaped once stays as it is.
  require(error_from_json_text(canonical(error_to_json(*error))).has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 2);
  if (in.choice == 0) {
    signed_request(in.text());
  } else {
    error_body(in.text());
  }
  return 0;
}
