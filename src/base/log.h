// Structured logs: one JSON object a line, with time, level, component, event and plain fields.
// Text from outside is escaped by the JSON writer, control characters and all. Never log a secret
// or plaintext.
#pragma once

#include <initializer_list>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "base/printable.h"
#include "base/seams.h"

namespace gbx {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

class Logger {
 public:
  using Fields = std::initializer_list<std::pair<std::string_view, Json>>;
  // Writes whole lines to `fd` (not owned). Thread-safe.
  Logger(int fd, std::string component, const Clock& clock, LogLevel least = LogLevel::kInfo);
  void log(LogLevel level, std::string_view event, Fields fields = {}) const;
  void info(std::string_view event, Fields fields = {}) const {
    log(LogLevel::kInfo, event, fields);
  }
  void warn(std::string_view event, Fields fields = {}) const {
    log(LogLevel::kWarn, event, fields);
  }
  void error(std::string_view event, const Error& e, Fields fields = {}) const;

 private:
  int fd_;
  std::string component_;
  const Clock& clock_;
  LogLevel least_;
  mutable std::mutex mutex_;
};

}  // namespace gbx
