#include "base/ready.h"

#include "base/fields.h"
#include "base/log.h"
#include "base/os.h"

namespace gbx {

namespace {

struct Told {
  std::string reason;
  std::string what;
  std::string expected;
  std::string actual;
  std::string next;
  template <class F>
  void fields(F& f) {
    f("reason", reason);
    f("what", what);
    f("expected", expected);
    f("actual", actual);
    f("next", next);
  }
};
struct Failure {
  Told error;
  template <class F>
  void fields(F& f) {
    f("error", error);
  }
};

}  // namespace

void tell_failure(int fd, const Error& e) {
  constexpr std::size_t kText = 1000;  // five of them fit into a pipe's buffer: writing never waits
  if (fd < 0) return;
  const Failure f{{std::string(reason_code(e.reason)), printable(e.what, kText),
                   printable(e.expected, kText), printable(e.actual, kText),
                   printable(e.next, kText)}};
  (void)write_all(fd, as_bytes(canonical(to_json(f)) + "\n"));
}

std::optional<Error> told_failure(std::string_view text) {
  const auto f = from_json_text<Failure>(text);
  if (!f.ok()) return std::nullopt;
  Error e(Reason::kInternal, f->error.what);
  reason_from_code(f->error.reason, &e.reason);
  e.with(f->error.expected, f->error.actual).hint(f->error.next);
  return e;
}

}  // namespace gbx
