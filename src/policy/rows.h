// Bits as rows of somebody's data, which says to people what a number of bits does not.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace gbx::policy {

// "1,130.5 rows", rounded up: a leak is not made smaller than it may be, and what is left of a
// budget is what may leak still. As true as rowBits is, which is an upper bound of what a row
// holds. Empty where the policy does not say what a row holds (rowBits).
std::string equivalent_rows(std::int64_t bits, const std::optional<std::int64_t>& row_bits);

}  // namespace gbx::policy
