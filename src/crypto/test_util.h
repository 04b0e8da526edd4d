// For the tests of src/crypto only.
#pragma once

#include <gtest/gtest.h>
#include <openssl/err.h>
#include <rapidcheck/gtest.h>  // after gtest.h, which it needs and does not include

#include <string>

#include "base/bytes.h"
#include "base/secret.h"

namespace gbx::crypto {

inline Bytes hex(std::string_view text) { return from_hex(text).value(); }

template <class SecretType>
SecretType secret(std::string_view hex_text) {
  return SecretType::copy_of(hex(hex_text));
}
inline std::string hex_of(const SecretBuffer& b) { return to_hex(b.view(SecretAccess{})); }

inline Bytes flipped(ByteView bytes, std::size_t bit) {
  Bytes out = to_bytes(bytes);
  out[bit / 8] = static_cast<std::uint8_t>(out[bit / 8] ^ (1U << (bit % 8)));
  return out;
}

template <class R>
::testing::AssertionResult fails_with(const R& result, Reason reason) {
  if (result.ok()) return ::testing::AssertionFailure() << "succeeded";
  if (result.reason() == reason) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << result.error().line();
}

// A test under this fixture also checks that nothing is left on OpenSSL's error queue.
class CleanQueue : public ::testing::Test {
 protected:
  void SetUp() override { ERR_clear_error(); }
  void TearDown() override { EXPECT_EQ(ERR_peek_error(), 0U); }
};

}  // namespace gbx::crypto
