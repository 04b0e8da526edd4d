// What evidence is held against, and the function that does it: whoever verifies (broker, command
// line) is given one, so that decisions and receipts do not depend on how a platform's evidence is
// read (src/attest).
#pragma once

#include <functional>

#include "records/evidence.h"

namespace gbx::records {

struct ExpectedEvidence {
  SetId set_id{};
  ReportData report;
  LaunchConfig launch;
  Charter charter;  // says who signs releases
  std::int64_t now_seconds = 0;
};
// Empty where only technology `none` is taken.
using EvidenceCheck = std::function<Result<Verdict>(const Evidence&, const ExpectedEvidence&)>;

// By `check`, or as technology `none` where there is no check.
inline Result<Verdict> check_evidence(const EvidenceCheck& check, const Evidence& evidence,
                                      const ExpectedEvidence& expected) {
  if (check) return check(evidence, expected);
  return verify_none(expected.set_id, evidence, expected.report.digest(), expected.launch);
}

}  // namespace gbx::records
