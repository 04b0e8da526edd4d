// How the input of asset_tree describes a manifest; fuzz-make-seeds writes it and the target reads
// it. Pages come children first, the last one is the root: u8 level, u8 number of entries, then per
// entry u8 key length, key and, on level 0, u8 value length and value, above it the index of a page
// that came before.
#pragma once

#include "asset/format.h"

namespace gbx::fuzz {

inline constexpr std::size_t kMostTreePages = 64;
inline const Id16 kTreeAsset = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

}  // namespace gbx::fuzz
