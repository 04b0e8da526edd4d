#include "base/error.h"

namespace gbx {

std::string_view reason_code(Reason reason) {
  switch (reason) {
#define X(name, code, cls) \
  case Reason::name:       \
    return code;
    GBX_REASONS(X)
#undef X
  }
  return "internal";
}

ExitClass exit_class(Reason reason) {
  switch (reason) {
#define X(name, code, cls) \
  case Reason::name:       \
    return ExitClass::cls;
    GBX_REASONS(X)
#undef X
  }
  return ExitClass::kInternal;
}

bool reason_from_code(std::string_view code, Reason* out) {
#define X(name, text, cls) \
  if (code == text) {      \
    *out = Reason::name;   \
    return true;           \
  }
  GBX_REASONS(X)
#undef X
  return false;
}

std::string Error::line() const {
  const std::string rest = detail();
  return std::string(reason_code(reason)) + (what.empty() || rest.empty() ? "" : ":") +
         (rest.empty() ? "" : " ") + rest;
}
std::string Error::detail() const {
  std::string s = what;
  if (!expected.empty() || !actual.empty()) {
    s += (s.empty() ? "(expected " : " (expected ") +
         (expected.empty() ? std::string("nothing") : expected) + ", actual " +
         (actual.empty() ? std::string("nothing") : actual) + ")";
  }
  return s;
}

}  // namespace gbx
