// How many JSON values (as parse_json() counts them) lists may hold that their makers fill as they
// like. Bytes alone bound no memory: a value of two bytes of text takes a hundred there. Whoever
// reads a bundle or a receipt reads the submission and 33 policies in one text, whose values
// JsonLimits bounds: all of these together fit it, as a test adds up
// (Limits.TheLargestBundleAndReceiptFitEveryReader).
#pragma once

#include <cstdint>

namespace gbx::records {

inline constexpr std::int64_t kMaxSchemaValues = 4'096;    // of one output's schema
inline constexpr std::int64_t kMaxSchemasValues = 16'384;  // of all schemas of one job
inline constexpr std::int64_t kMaxClausesValues = 2'048;   // of one policy

}  // namespace gbx::records
