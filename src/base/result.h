// Result<T>: a value or an Error. A default-constructed Result is a failure, so that a forgotten
// assignment denies. Reading the value of a failure aborts: assertions stay on.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <utility>

#include "base/error.h"

namespace gbx {

struct Unit {
  bool operator==(const Unit&) const = default;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result() = default;
  Result(T value) : value_(std::move(value)) {}      // NOLINT: implicit on purpose
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit on purpose

  bool ok() const { return value_.has_value(); }
  explicit operator bool() const { return ok(); }
  T& value() & { return require(); }
  const T& value() const& { return const_cast<Result*>(this)->require(); }
  T&& value() && { return std::move(require()); }
  T& operator*() & { return require(); }
  const T& operator*() const& { return const_cast<Result*>(this)->require(); }
  T&& operator*() && { return std::move(require()); }
  T* operator->() { return &require(); }
  const T* operator->() const { return &const_cast<Result*>(this)->require(); }
  // Only meaningful when !ok().
  const Error& error() const { return error_; }
  Error& error() { return error_; }
  Reason reason() const { return error_.reason; }

 private:
  T& require() {
    if (!value_) {
      std::fprintf(stderr, "Result read without a value: %s\n", error_.line().c_str());
      std::abort();
    }
    return *value_;
  }
  std::optional<T> value_;
  Error error_;
};

using Status = Result<Unit>;
inline Status ok_status() { return Status(Unit{}); }
inline Error fail(Reason r, std::string what = {}) { return Error(r, std::move(what)); }

}  // namespace gbx

#define GBX_CONCAT_(a, b) a##b
#define GBX_CONCAT(a, b) GBX_CONCAT_(a, b)
// GBX_TRY(expr): returns the error of a failed Result from the enclosing function.
#define GBX_TRY(expr)                                       \
  do {                                                      \
    auto gbx_try_ = (expr);                                 \
    if (!gbx_try_.ok()) return std::move(gbx_try_.error()); \
  } while (0)
// GBX_ASSIGN(auto x, expr): declares or assigns x from the value, or returns the error.
#define GBX_ASSIGN(lhs, expr) GBX_ASSIGN_(GBX_CONCAT(gbx_res_, __LINE__), lhs, expr)
#define GBX_ASSIGN_(tmp, lhs, expr)             \
  auto tmp = (expr);                            \
  if (!tmp.ok()) return std::move(tmp.error()); \
  lhs = std::move(tmp).value()
