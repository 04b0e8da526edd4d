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
  const std::string line = canonical(j) + "\n";
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

std::string printable(std::string_view text, std::size_t limit) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  const bool utf8 = valid_utf8(text);
  for (std::size_t i = 0; i < text.size() && out.size() < limit; ++i) {
    const auto u = static_cast<unsigned char>(text[i]);
    // U+200E/F, U+202A..202E and U+2066..2069 reorder what a person reads.
    const auto at = [&](std::size_t k) { return static_cast<unsigned char>(text[i + k]); };
    const bool general = utf8 && u == 0xe2 && i + 2 < text.size();
    const bool bidi =
        general &&
        ((at(1) == 0x80 && (at(2) == 0x8e || at(2) == 0x8f || (at(2) >= 0xaa && at(2) <= 0xae))) ||
         (at(1) == 0x81 && at(2) >= 0xa6 && at(2) <= 0xa9));
    if (u < 0x20 || u == 0x7f || bidi || (!utf8 && u >= 0x80) ||
        (u == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0)) {
      const std::size_t n = bidi ? 3 : u == 0xc2 && utf8 ? 2 : 1;
      for (std::size_t k = 0; k < n; ++k) {
        const auto b = static_cast<unsigned char>(text[i + k]);
        out += "\\x";
        out.push_back(kHex[b >> 4]);
        out.push_back(kHex[b & 15]);
      }
      i += n - 1;
    } else {
      out.push_back(text[i]);
    }
  }
  while (!valid_utf8(out)) out.pop_back();  // the limit may have fallen within a character
  return out;
}

}  // namespace gbx
