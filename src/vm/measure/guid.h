// GUIDs as UEFI stores them: the first three fields little-endian (UEFI 2.10, appendix A). Pure;
// the texts are constants of ours.
#pragma once

#include <string_view>

#include "base/bytes.h"

namespace gbx::vm::measure {

using Guid = FixedBytes<16>;

// "96b582de-1fb2-45f7-baea-a366c55a082d". Does not compile where it is no GUID in lower case.
consteval Guid guid(std::string_view text) {
  Guid plain{};
  std::size_t digits = 0;
  for (const char c : text) {
    if (c == '-') continue;
    const int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
    if (value > 15 || digits == 32) throw "no GUID";
    plain[digits / 2] = static_cast<std::uint8_t>(plain[digits / 2] * 16 + value);
    ++digits;
  }
  if (digits != 32) throw "no GUID";
  return {plain[3], plain[2], plain[1],  plain[0],  plain[5],  plain[4],  plain[7],  plain[6],
          plain[8], plain[9], plain[10], plain[11], plain[12], plain[13], plain[14], plain[15]};
}

}  // namespace gbx::vm::measure
