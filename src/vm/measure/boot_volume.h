// Looks into the compressed part of a firmware image: whether it measures what it boots under TDX,
// and by which rules. Many builds carry TDX metadata and measure nothing: their RTMRs stay zero for
// any kernel. Pure functions. The image is untrusted: what unpacks has a bound.
#pragma once

#include "base/bytes.h"

namespace gbx::vm::measure {

inline constexpr std::size_t kMaxUnpacked = 64U << 20;
inline constexpr std::size_t kMaxPackedSections = 16;

// Which events edk2 puts into RTMR0.
enum class TdxEvents {
  kNone,        // no TdTcg2Dxe: before edk2-stable202302, or a build without it
  kEdk2_2025,   // edk2-stable202302 to 202502
  kNewer,       // later: fw_cfg items, SMBIOS tables and another boot menu are events, too
  kSecureBoot,  // a build with Secure Boot, whose variables are events
};
// kBadStructure, kTooLarge where a compressed section does not unpack.
Result<TdxEvents> tdx_events(ByteView image);

}  // namespace gbx::vm::measure
