#include "base/log.h"

#include <unistd.h>

#include "base/os.h"

namespace gbx {

namespace {

// How many bytes a character takes at `i` of valid UTF-8 that moves a terminal, ends a line or
// turns it round (U+061C, U+200E/F, U+2028..202E, U+2066..2069); 0 for all others.
std::size_t moves(std::string_view text, std::size_t i) {
  const auto at = [&](std::size_t k) {
    return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0U;
  };
  if (at(0) < 0x20 || at(0) == 0x7f) return 1;
  if (at(0) == 0xc2 && at(1) < 0xa0) return 2;
  if (at(0) == 0xd8 && at(1) == 0x9c) return 2;
  if (at(0) != 0xe2) return 0;
  const bool general = at(1) == 0x80 && (at(2) == 0x8e || at(2) == 0x8f || at(2) >= 0xa8);
  const bool turns = general && at(2) <= 0xae;
  return turns || (at(1) == 0x81 && at(2) >= 0xa6 && at(2) <= 0xa9) ? 3 : 0;
}

// Canonical JSON with such characters as \u....: in it they stand in texts only, and every reader
// gets the same value.
std::string harmless(const std::string& json) {
  std::string out;
  for (std::size_t i = 0; i < json.size();) {
    const std::size_t n = moves(json, i);
    if (n == 0) {
      out.push_back(json[i++]);
      continue;
    }
    const auto at = [&](std::size_t k) { return static_cast<unsigned char>(json[i + k]); };
    const unsigned point = n == 1 ? at(0)
                           : n == 2
                               ? (at(0) & 0x1fU) << 6 | (at(1) & 0x3fU)
                               : (at(0) & 0x0fU) << 12 | (at(1) & 0x3fU) << 6 | (at(2) & 0x3fU);
    static constexpr char kHex[] = "0123456789abcdef";
    out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out.push_back(kHex[point >> shift & 15]);
    i += n;
  }
  return out;
}

}  // namespace

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
  const std::string line = harmless(canonical(j)) + "\n";
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
    const std::size_t n = utf8 ? moves(text, i) : u < 0x20 || u >= 0x7f ? 1 : 0;
    if (n > 0) {
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
