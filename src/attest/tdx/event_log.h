// The event log of a trust domain's launch: TCG's crypto-agile format with one bank, SHA-384 (TCG
// PC Client Platform Firmware Profile, section 10.2; Guest-Host Communication Interface for TDX,
// "CCEL"). It proves nothing by itself: what it replays to has to be what a quote says. Input is
// untrusted. Values; thread-safe.
#pragma once

#include <string_view>

#include "attest/tdx/quote.h"

namespace gbx::attest::tdx {

inline constexpr std::size_t kMaxLogBytes = 256 * 1024;  // 3,970 events at most
inline constexpr std::uint32_t kEventNoAction = 3;       // extends nothing
inline constexpr std::uint32_t kEventIpl = 13;

struct Event {
  std::uint32_t index = 1;  // 0: MRTD; 1 to 4: RTMR0 to RTMR3
  std::uint32_t type = kEventIpl;
  Register digest{};
  Bytes data;
  bool operator==(const Event&) const = default;
};
struct EventLog {
  std::uint32_t header_index = 1;
  std::uint8_t errata = 0;
  std::vector<Event> events;
  bool operator==(const EventLog&) const = default;
};

// Errors: kBadMagic (no header of this format), kBadSuite (another bank, or several), kBadValue (a
// register that there is not, or MRTD extended), kTooLarge, kTruncated, kTrailingBytes. What was
// read is serialised to the same bytes.
Result<EventLog> parse_event_log(ByteView bytes);
Bytes serialize(const EventLog& log);
// Firmware leaves the rest of the table's room filled with ones, or zeros. The log without them;
// errors are as above.
Result<ByteView> log_without_padding(ByteView table);

// SHA-384(before ‖ digest).
Register extend(const Register& before, const Register& digest);
// RTMR0 to RTMR3 after all events.
std::array<Register, 4> replay(const EventLog& log);

}  // namespace gbx::attest::tdx
