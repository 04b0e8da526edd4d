// What an S3 service answers: the first byte says how many bytes are asked for, the lines up to an
// empty one are its head, the rest is the body. What is taken for the range is the range.
#include "fuzz/fuzz.h"
#include "storage/s3/answer.h"

using namespace gbx;
using namespace gbx::storage;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  Bytes out(data[0]);
  S3Answer answer(out.empty() ? "HEAD" : "GET", 10, out);
  answer.begin();
  std::string_view rest = as_text(ByteView(data + 1, size - 1));
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.empty()) break;
    if (!answer.take_head(line)) return 0;
  }
  // In two pieces, as a network would.
  const ByteView body = as_bytes(rest);
  for (const ByteView part : {body.first(body.size() / 2), body.subspan(body.size() / 2)}) {
    if (!answer.take_body(part)) return 0;
  }
  if (answer.status() == 206 && answer.judge().ok()) {
    fuzz::require(!out.empty() && equal(out, body));
  }
  return 0;
}
