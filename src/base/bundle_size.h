// How large the one bundle is that leaves an environment (docs/gate.md). It follows from what a job
// declares, and from nothing that it writes, so a bundle that would not travel is refused before
// anything runs. Sizes in bytes.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace gbx {

inline constexpr std::int64_t kMinBundleBytes = 4096;
// padded: what outputs, logs and overhead must fit into
inline constexpr std::int64_t kMaxBundleBytes = 16 << 20;
inline constexpr std::int64_t kMaxConsumerLogBytes = 64 << 10;  // of the log, whatever was declared
// A message with a sealed bundle: base64url, and room for the wrapped keys and the review beside
// it.
inline constexpr std::size_t kSealedBundleFrameBytes = (kMaxBundleBytes / 3 + 1) * 4 + (8 << 20);

class BundleSize {
 public:
  void add_output(std::size_t path_bytes, std::int64_t max_bytes) {
    bytes_ += kEntryOverhead + static_cast<std::int64_t>(path_bytes) + max_bytes;
  }
  void add_log(std::int64_t max_bytes) { bytes_ += std::min(max_bytes, kMaxConsumerLogBytes); }
  std::int64_t bytes() const { return bytes_; }
  std::int64_t padded() const {
    return static_cast<std::int64_t>(
        std::bit_ceil(static_cast<std::uint64_t>(std::max(bytes_, kMinBundleBytes))));
  }

 private:
  // kind, length of the name, length of the content
  static constexpr std::int64_t kEntryOverhead = 1 + 2 + 4;
  static constexpr std::int64_t kHeader = 8 + 4;  // magic, number of entries
  static constexpr std::int64_t kStatusRoom = 512;
  static constexpr std::int64_t kLogName = 3;
  std::int64_t bytes_ = kHeader + kEntryOverhead + kStatusRoom + kEntryOverhead + kLogName;
};

}  // namespace gbx
