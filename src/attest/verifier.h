// From evidence to a verdict. Each technology has one Verifier; a Verdict is had only from one that
// passed, and says what was checked. Evidence is untrusted; what is expected of it is the caller's
// own. Const members are thread-safe.
#pragma once

#include <memory>

#include "records/evidence_check.h"

namespace gbx::attest {

// Kinds of records::Collateral. Whoever brings them: each is signed by others, or replays to what
// was.
inline constexpr std::string_view kReleaseCollateral = "guest-release";  // Signed<GuestRelease>
inline constexpr std::string_view kEventLogCollateral = "event-log";

using Expected = records::ExpectedEvidence;

class Verifier {
 public:
  virtual ~Verifier() = default;
  virtual records::Technology technology() const = 0;
  virtual Result<records::Verdict> verify(const records::Evidence& evidence,
                                          const Expected& expected) const = 0;
};

// Those that this build has, found by the technology that the evidence names. Whether a policy
// allows that technology, root or release is not asked here.
class Verifiers {
 public:
  // `none`, `sim` and `tdx`.
  static Verifiers standard();
  void add(std::unique_ptr<Verifier> verifier);
  // kEvidenceRejected for a technology without a verifier, and what the verifier says.
  Result<records::Verdict> verify(const records::Evidence& evidence,
                                  const Expected& expected) const;

 private:
  std::vector<std::unique_ptr<Verifier>> verifiers_;
};

// By the standard ones: what programs give as their records::EvidenceCheck.
Result<records::Verdict> verify_evidence(const records::Evidence& evidence,
                                         const Expected& expected);

}  // namespace gbx::attest
