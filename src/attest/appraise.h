// What a trust domain's claims have to be, whoever's root they are under: for this job and
// connection, of this launch configuration, of a release that a signer of the set signed. The
// claims are proved, everything else in the evidence is untrusted. Thread-safe.
#pragma once

#include "attest/tdx/verify.h"
#include "attest/verifier.h"

namespace gbx::attest {

// The quote in evidence of `technology`, which has all members that such evidence has and no other.
// Errors: kEvidenceMissing, kEvidenceRejected.
Result<tdx::Quote> quote_of(const records::Evidence& evidence, records::Technology technology);

// A verdict without a root, which is the caller's to name. Errors: kEvidenceRejected; of the report
// data kWrongSet, kEvidenceOtherJob, kEvidenceOtherAttempt, kEvidenceOtherAgent, kNonceMismatch;
// kLaunchConfigMismatch; kDebugGuest; kReleaseUnknown; of the registers kFirmwareMismatch,
// kKernelMismatch, kCmdlineMismatch, kInitrdMismatch, kMachineMismatch, kMeasurementMismatch.
Result<records::Verdict> appraise_td(const tdx::Claims& claims, const records::Evidence& evidence,
                                     const Expected& expected);

}  // namespace gbx::attest
