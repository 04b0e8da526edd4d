// Refusals of evidence. What a parser or a primitive said becomes one, and stays to be read. Pure.
#pragma once

#include "base/result.h"

namespace gbx::attest {

inline Error rejected(std::string what) { return fail(Reason::kEvidenceRejected, std::move(what)); }
// `why` with its code in the text, as the refusal has its own.
inline Error rejected(std::string_view where, const Error& why) {
  Error out = why;
  out.reason = Reason::kEvidenceRejected;
  out.what = std::string(where) + ": " + std::string(reason_code(why.reason)) +
             (why.what.empty() ? "" : ", " + why.what);
  return out;
}

}  // namespace gbx::attest
