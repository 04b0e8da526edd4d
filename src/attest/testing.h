// For tests of this folder. Not part of any program.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>

#include "base/os.h"

namespace gbx::attest::testing {

// The folder of published evidence: GBX_VECTORS, or beside the source tree.
inline std::string vectors_dir() {
  if (const char* set = std::getenv("GBX_VECTORS")) return set;
  const char* source = std::getenv("GBX_SOURCE_DIR");
  return std::string(source != nullptr ? source : ".") + "/../shared/vectors";
}
inline bool have_vectors() { return path_exists(vectors_dir() + "/attestation/tdx"); }
inline Bytes vector_file(const std::string& name) {
  return read_file(vectors_dir() + "/attestation/" + name, 1U << 20).value();
}

inline Bytes changed(ByteView bytes, std::size_t at, unsigned bit = 0) {
  Bytes out = to_bytes(bytes);
  out[at] = static_cast<std::uint8_t>(out[at] ^ (1U << bit));
  return out;
}

template <class R>
::testing::AssertionResult fails_with(const R& result, Reason reason, std::string_view text = {}) {
  if (result.ok()) return ::testing::AssertionFailure() << "succeeded";
  const std::string line = result.error().line();
  if (result.reason() == reason && line.find(text) != std::string::npos) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << line;
}

}  // namespace gbx::attest::testing

#define GBX_NEEDS_VECTORS()                    \
  if (!::gbx::attest::testing::have_vectors()) \
  GTEST_SKIP() << "the published evidence is not here: set GBX_VECTORS"
