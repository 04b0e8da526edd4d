#include "httpsig/error_body.h"

#include "base/fields.h"
#include "base/log.h"

namespace gbx::httpsig {
namespace {

constexpr std::int64_t kMaxText = 4096;
constexpr std::size_t kShownText = 1024;

struct ErrorBody {
  std::string reason, what, expected, actual, next;
  template <class F>
  void fields(F& f) {
    f("reason", reason, Bound{1, 64});
    f("what", what, Bound{0, kMaxText});
    f("expected", expected, Bound{0, kMaxText});
    f("actual", actual, Bound{0, kMaxText});
    f("next", next, Bound{0, kMaxText});
  }
};

// Cuts at a character boundary; what is not UTF-8 never reaches a Json.
std::string bounded(const std::string& text) {
  if (!valid_utf8(text)) return printable(text, kShownText);
  if (text.size() <= kShownText) return text;
  std::size_t n = kShownText;
  while (n > 0 && (static_cast<unsigned char>(text[n]) & 0xC0U) == 0x80U) --n;
  return text.substr(0, n);
}

}  // namespace

Json error_to_json(const Error& error) {
  ErrorBody body;
  body.reason = std::string(reason_code(error.reason));
  body.what = bounded(error.what);
  body.expected = bounded(error.expected);
  body.actual = bounded(error.actual);
  body.next = bounded(error.next);
  return to_json(body);
}

std::optional<Error> error_from_json_text(std::string_view text) {
  const Result<ErrorBody> read = from_json_text<ErrorBody>(text, JsonLimits{64U << 10, 4, 16});
  if (!read.ok()) return std::nullopt;
  const ErrorBody& body = *read;
  Error error;
  error.what = printable(body.what, kShownText);
  if (!reason_from_code(body.reason, &error.reason)) {
    error.reason = Reason::kInternal;
    error.at("unknown reason \"" + printable(body.reason, 64) + "\"");
  }
  error.expected = printable(body.expected, kShownText);
  error.actual = printable(body.actual, kShownText);
  error.next = printable(body.next, kShownText);
  return error;
}

}  // namespace gbx::httpsig
