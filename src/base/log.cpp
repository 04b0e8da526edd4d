#include "base/log.h"

#include <unistd.h>

#include "base/os.h"

namespace gbx {

Logger::Logger(int fd, std::string component, const Clock& clock, LogLevel least)
    : fd_(fd), component_(std::move(component)), clock_(clock), least_(least) {}

void Logger::log(LogLevel level, std::string_view event, Fields fields) const {
  if (level < least_) return;
  static constexpr const char* kNames[] = {"debug", "info", "warn", "error"};
  Json j;
  const TimeMs now = clock_.now();
  j["time"] = format_time(now.seconds());
  j["ms"] = now.ms % 1000;
  j["level"] = kNames[static_cast<int>(level)];
  j["component"] = component_;
  j["event"] = event;
  for (const auto& [k, v] : fields) j[k] = v;
  const std::string line = printable_json(canonical(j)) + "\n";
  const std::scoped_lock lock(mutex_);
  (void)write_all(fd_, as_bytes(line));
}

void Logger::error(std::string_view event, const Error& e, Fields fields) const {
  Json j;
  for (const auto& [k, v] : fields) j[k] = v;
  if (!e.next.empty()) j["next"] = printable(e.next, 500);
  log(LogLevel::kError, event,
      {{"reason", reason_code(e.reason)}, {"what", printable(e.line(), 500)}, {"fields", j}});
}

}  // namespace gbx
