// Errors for people. An Error is a closed reason code plus context; it never carries a secret.
// Every code belongs to one exit class, which is the exit status of the command line.
#pragma once

#include <string>
#include <string_view>

namespace gbx {

// The exit status of `glovebox` (stable, documented in docs/cli.md).
enum class ExitClass : int {
  kOk = 0,
  kInternal = 1,
  kUsage = 2,
  kDenied = 3,
  kAttestation = 4,
  kHeld = 5,
  kInfrastructure = 6,
  kIntegrity = 7,
  kFailed = 8,
};

// X(name, "reason-code", exit class)
#define GBX_REASONS(X)                                             \
  X(kUninitialised, "uninitialised", kInternal)                    \
  X(kInternal, "internal", kInternal)                              \
  /* input */                                                      \
  X(kUsage, "usage", kUsage)                                       \
  X(kBadEncoding, "bad-encoding", kUsage)                          \
  X(kBadJson, "bad-json", kUsage)                                  \
  X(kDuplicateKey, "duplicate-key", kUsage)                        \
  X(kUnknownField, "unknown-field", kUsage)                        \
  X(kMissingField, "missing-field", kUsage)                        \
  X(kBadValue, "bad-value", kUsage)                                \
  X(kTooLarge, "too-large", kUsage)                                \
  X(kTrailingBytes, "trailing-bytes", kUsage)                      \
  X(kTruncated, "truncated", kIntegrity)                           \
  X(kNotFound, "not-found", kUsage)                                \
  X(kAlreadyExists, "already-exists", kUsage)                      \
  X(kConflict, "conflict", kUsage)                                 \
  X(kIdempotencyMismatch, "idempotency-mismatch", kUsage)          \
  /* integrity of stored or received bytes */                      \
  X(kBadMagic, "bad-magic", kIntegrity)                            \
  X(kBadVersion, "bad-version", kIntegrity)                        \
  X(kBadSuite, "bad-suite", kIntegrity)                            \
  X(kBadTag, "bad-tag", kIntegrity)                                \
  X(kBadSignature, "bad-signature", kIntegrity)                    \
  X(kBadHash, "bad-hash", kIntegrity)                              \
  X(kBadCommitment, "bad-commitment", kIntegrity)                  \
  X(kBadStructure, "bad-structure", kIntegrity)                    \
  X(kWrongAsset, "wrong-asset", kIntegrity)                        \
  X(kWrongVersion, "wrong-version", kIntegrity)                    \
  X(kBadInclusion, "bad-inclusion", kIntegrity)                    \
  X(kLogRolledBack, "log-rolled-back", kIntegrity)                 \
  X(kChainBroken, "chain-broken", kIntegrity)                      \
  X(kImageDigestMismatch, "image-digest-mismatch", kIntegrity)     \
  X(kImageRefused, "image-refused", kIntegrity)                    \
  /* who may do what */                                            \
  X(kUnauthenticated, "unauthenticated", kDenied)                  \
  X(kWrongRole, "wrong-role", kDenied)                             \
  X(kReplayed, "replayed", kDenied)                                \
  X(kExpired, "expired", kDenied)                                  \
  X(kQuotaExceeded, "quota-exceeded", kDenied)                     \
  X(kRateLimited, "rate-limited", kDenied)                         \
  X(kPolicyMissing, "policy-missing", kDenied)                     \
  X(kPolicyStale, "policy-stale", kDenied)                         \
  X(kPolicyMismatch, "policy-mismatch", kDenied)                   \
  X(kPolicyRevoked, "policy-revoked", kDenied)                     \
  X(kPolicyExpired, "policy-expired", kDenied)                     \
  X(kPolicyNotFresh, "policy-not-fresh", kDenied)                  \
  X(kPolicyUnmergeable, "policy-unmergeable", kDenied)             \
  X(kConsumerNotAllowed, "consumer-not-allowed", kDenied)          \
  X(kPurposeNotAllowed, "purpose-not-allowed", kDenied)            \
  X(kImageNotAllowed, "image-not-allowed", kDenied)                \
  X(kCommandNotAllowed, "command-not-allowed", kDenied)            \
  X(kJoinNotAllowed, "join-not-allowed", kDenied)                  \
  X(kTeeNotAllowed, "tee-not-allowed", kDenied)                    \
  X(kCustodyNotAllowed, "custody-not-allowed", kDenied)            \
  X(kRollbackNotAllowed, "rollback-not-allowed", kDenied)          \
  X(kOutputNotAllowed, "output-not-allowed", kDenied)              \
  X(kLogsNotAllowed, "logs-not-allowed", kDenied)                  \
  X(kBudgetExceeded, "budget-exceeded", kDenied)                   \
  X(kAttemptsExceeded, "attempts-exceeded", kDenied)               \
  X(kNoCapacity, "no-capacity", kDenied)                           \
  X(kLeaseMissing, "lease-missing", kDenied)                       \
  X(kLeaseExpired, "lease-expired", kDenied)                       \
  X(kLeaseExhausted, "lease-exhausted", kDenied)                   \
  X(kWrongRecipient, "wrong-recipient", kDenied)                   \
  X(kWrongSet, "wrong-set", kDenied)                               \
  X(kWrongOwner, "wrong-owner", kDenied)                           \
  X(kWrongState, "wrong-state", kDenied)                           \
  X(kPlanMismatch, "plan-mismatch", kDenied)                       \
  X(kSpecMismatch, "spec-mismatch", kDenied)                       \
  /* attestation */                                                \
  X(kEvidenceMissing, "evidence-missing", kAttestation)            \
  X(kEvidenceRejected, "evidence-rejected", kAttestation)          \
  X(kFirmwareMismatch, "firmware-mismatch", kAttestation)          \
  X(kMachineMismatch, "machine-mismatch", kAttestation)            \
  X(kKernelMismatch, "kernel-mismatch", kAttestation)              \
  X(kCmdlineMismatch, "cmdline-mismatch", kAttestation)            \
  X(kInitrdMismatch, "initrd-mismatch", kAttestation)              \
  X(kMeasurementMismatch, "measurement-mismatch", kAttestation)    \
  X(kLaunchConfigMismatch, "launch-config-mismatch", kAttestation) \
  X(kReleaseUnknown, "release-unknown", kAttestation)              \
  X(kDebugGuest, "debug-guest", kAttestation)                      \
  X(kEvidenceOtherJob, "evidence-other-job", kAttestation)         \
  X(kEvidenceOtherAttempt, "evidence-other-attempt", kAttestation) \
  X(kEvidenceOtherAgent, "evidence-other-agent", kAttestation)     \
  X(kUnexpectedDevice, "unexpected-device", kAttestation)          \
  X(kNonceMismatch, "nonce-mismatch", kAttestation)                \
  X(kCredentialForeign, "credential-foreign", kAttestation)        \
  X(kCredentialUsed, "credential-used", kAttestation)              \
  X(kCredentialExpired, "credential-expired", kAttestation)        \
  X(kCredentialSuperseded, "credential-superseded", kAttestation)  \
  X(kAgentKeyMismatch, "agent-key-mismatch", kAttestation)         \
  X(kSequenceMismatch, "sequence-mismatch", kAttestation)          \
  X(kBrokerUntrusted, "broker-untrusted", kAttestation)            \
  X(kPlaneUntrusted, "plane-untrusted", kAttestation)              \
  /* output gate */                                                \
  X(kHeld, "held", kHeld)                                          \
  X(kRejected, "rejected", kDenied)                                \
  X(kOutputInvalid, "output-invalid", kDenied)                     \
  X(kOutputTooLarge, "output-too-large", kDenied)                  \
  X(kOutputRefused, "output-refused", kDenied)                     \
  /* jobs */                                                       \
  X(kJobFailed, "job-failed", kFailed)                             \
  X(kJobCancelled, "job-cancelled", kFailed)                       \
  X(kTimedOut, "timed-out", kFailed)                               \
  X(kLost, "lost", kFailed)                                        \
  X(kSandboxSetup, "sandbox-setup", kInfrastructure)               \
  X(kOutOfMemory, "out-of-memory", kFailed)                        \
  /* infrastructure */                                             \
  X(kBootFailed, "boot-failed", kInfrastructure)                   \
  X(kIo, "io", kInfrastructure)                                    \
  X(kUnavailable, "unavailable", kInfrastructure)                  \
  X(kConnectionClosed, "connection-closed", kInfrastructure)       \
  X(kDatabase, "database", kInfrastructure)                        \
  X(kCrypto, "crypto", kInternal)                                  \
  X(kUnsupported, "unsupported", kInfrastructure)                  \
  X(kWrongPassphrase, "wrong-passphrase", kDenied)

enum class Reason {
#define X(name, code, cls) name,
  GBX_REASONS(X)
#undef X
};

// "bad-tag" and the like: stable, shown to people and scripts, never translated.
std::string_view reason_code(Reason reason);
ExitClass exit_class(Reason reason);
// False when `code` names no reason. Used where a peer reports one.
bool reason_from_code(std::string_view code, Reason* out);

// What failed, for a person: `what` names the check, `expected`/`actual` the values where there are
// any, `next` the command or step that mends it. No field ever holds plaintext or key material.
struct Error {
  Reason reason = Reason::kUninitialised;
  std::string what;
  std::string expected;
  std::string actual;
  std::string next;

  Error() = default;
  explicit Error(Reason r, std::string w = {}) : reason(r), what(std::move(w)) {}
  Error& with(std::string expected_value, std::string actual_value) {
    expected = std::move(expected_value);
    actual = std::move(actual_value);
    return *this;
  }
  Error& hint(std::string step) {
    next = std::move(step);
    return *this;
  }
  // Puts `where` in front of `what`, for callers that know which file, record or field it was.
  Error& at(std::string_view where) {
    what = std::string(where) + (what.empty() ? "" : ": " + what);
    return *this;
  }
  // One line: "bad-tag: chunk 3 of file 7 (expected …, actual …)".
  std::string line() const;
  // The same without the code, for where that stands beside it.
  std::string detail() const;
};

}  // namespace gbx
