// For tests of this folder and of those above it. Not part of any program.
#pragma once

#include "base/bytes.h"

namespace gbx::testing {

// r ‖ (n - s): P-256's other signature, which anybody can make of r ‖ s.
inline Bytes other_form(ByteView signature) {
  const Bytes order =
      from_hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551").value();
  Bytes out = to_bytes(signature);
  int borrow = 0;
  for (std::size_t i = 32; i-- > 0;) {
    const int d = int{order[i]} - int{signature[32 + i]} - borrow;
    borrow = d < 0 ? 1 : 0;
    out[32 + i] = static_cast<std::uint8_t>(d & 0xff);
  }
  return out;
}

}  // namespace gbx::testing
