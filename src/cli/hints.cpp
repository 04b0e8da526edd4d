// What to do next where an error does not say it itself. Every reason has one.
#include "cli/output.h"

namespace gbx::cli {

namespace {

constexpr const char* kBug =
    "this is a mistake in Glovebox: report it with this message and `glovebox --version`";
constexpr const char* kMend = "correct it at the place that is named, then repeat the command";
constexpr const char* kDistrust =
    "do not rely on it: fetch it again, and if it stays so, tell whoever made it";
constexpr const char* kAskOwner =
    "see every check with `glovebox job plan FILE`; then change the job, or ask the owner";
constexpr const char* kAskOperator = "ask the operator of this Glovebox";
constexpr const char* kLook = "see what happened: glovebox job describe ID";
constexpr const char* kNewAttempt =
    "submit the job again; if it happens again, ask the operator of this Glovebox";

}  // namespace

// One sentence for each reason, in more than 70 lines: a closed list that the compiler checks.
std::string default_next(Reason reason) {
  switch (reason) {
    case Reason::kUninitialised:
    case Reason::kInternal:
    case Reason::kCrypto:
      return kBug;
    case Reason::kUsage:
      return "glovebox --help, or --help behind the command";
    case Reason::kBadEncoding:
    case Reason::kBadJson:
    case Reason::kDuplicateKey:
    case Reason::kUnknownField:
    case Reason::kMissingField:
    case Reason::kBadValue:
    case Reason::kTrailingBytes:
      return kMend;
    case Reason::kTooLarge:
      return "make it smaller, or split it";
    case Reason::kTruncated:
    case Reason::kBadMagic:
    case Reason::kBadVersion:
    case Reason::kBadSuite:
    case Reason::kBadTag:
    case Reason::kBadSignature:
    case Reason::kBadHash:
    case Reason::kBadCommitment:
    case Reason::kBadStructure:
    case Reason::kWrongVersion:
    case Reason::kBadInclusion:
    case Reason::kChainBroken:
    case Reason::kImageDigestMismatch:
      return kDistrust;
    case Reason::kNotFound:
      return "check how it is written; glovebox asset list and glovebox job list show what there "
             "is";
    case Reason::kAlreadyExists:
      return "choose another name, or see what is there";
    case Reason::kConflict:
      return "look at what is there now, then repeat the command";
    case Reason::kIdempotencyMismatch:
      return "use another --idempotency-key for another job";
    case Reason::kWrongAsset:
      return "name another asset: glovebox asset list";
    case Reason::kImageRefused:
      return "raise spec.resources.image if it was too large, and see that it holds "
             "spec.command[0]; what it is: glovebox image inspect FOLDER. Of somebody else's image "
             "no more is told";
    case Reason::kUnauthenticated:
      return "glovebox identity show; to enrol: glovebox identity enrol --invite-file FILE";
    case Reason::kWrongRole:
      return "ask an operator for an invite, then: glovebox identity enrol --role ROLE "
             "--invite-file FILE";
    case Reason::kReplayed:
      return "check this machine's clock (glovebox doctor) and repeat the command";
    case Reason::kExpired:
      return "ask whoever gave it to you for a new one";
    case Reason::kNoCapacity:
      return "ask for less in spec.resources, or see what the nodes lend: glovebox node list";
    case Reason::kQuotaExceeded:
      return "wait until running jobs have ended, or ask an operator for more";
    case Reason::kRateLimited:
      return "wait a minute and repeat the command";
    case Reason::kPolicyMissing:
    case Reason::kPolicyStale:
    case Reason::kPolicyMismatch:
    case Reason::kPolicyRevoked:
    case Reason::kPolicyExpired:
    case Reason::kPolicyNotFresh:
    case Reason::kPolicyUnmergeable:
    case Reason::kConsumerNotAllowed:
    case Reason::kPurposeNotAllowed:
    case Reason::kImageNotAllowed:
    case Reason::kCommandNotAllowed:
    case Reason::kJoinNotAllowed:
    case Reason::kTeeNotAllowed:
    case Reason::kCustodyNotAllowed:
    case Reason::kRollbackNotAllowed:
    case Reason::kOutputNotAllowed:
    case Reason::kLogsNotAllowed:
    case Reason::kBudgetExceeded:
    case Reason::kAttemptsExceeded:
      return kAskOwner;
    case Reason::kLeaseMissing:
    case Reason::kLeaseExpired:
    case Reason::kLeaseExhausted:
      return "ask the asset's owner for a lease; glovebox lease list shows yours";
    case Reason::kWrongRecipient:
      return "use the home whose identity submitted the job, or --recovery";
    case Reason::kWrongSet:
      return "compare the set id with the one that you trust; another installation needs another "
             "--home";
    case Reason::kWrongOwner:
      return "use the home of the owner: --home DIR";
    case Reason::kWrongState:
      return kLook;
    case Reason::kPlanMismatch:
    case Reason::kSpecMismatch:
      return "glovebox job plan FILE shows every check";
    case Reason::kFirmwareMismatch:
    case Reason::kMachineMismatch:
    case Reason::kKernelMismatch:
    case Reason::kCmdlineMismatch:
    case Reason::kInitrdMismatch:
    case Reason::kMeasurementMismatch:
    case Reason::kReleaseUnknown:
      return "the node booted something else than the release that its owners allow: have its "
             "operator install that release again (glovebox measure tells what is there)";
    case Reason::kDebugGuest:
    case Reason::kLaunchConfigMismatch:
    case Reason::kUnexpectedDevice:
      return "have the node's operator look at how it starts its machines: glovebox doctor --host";
    case Reason::kBootFailed:
      return "have the node's operator look: glovebox doctor --host, and the node's log";
    case Reason::kEvidenceOtherJob:
    case Reason::kEvidenceOtherAttempt:
    case Reason::kEvidenceOtherAgent:
    case Reason::kEvidenceMissing:
    case Reason::kEvidenceRejected:
    case Reason::kNonceMismatch:
    case Reason::kCredentialForeign:
    case Reason::kCredentialUsed:
    case Reason::kCredentialExpired:
    case Reason::kCredentialSuperseded:
    case Reason::kAgentKeyMismatch:
    case Reason::kSequenceMismatch:
      return kNewAttempt;
    case Reason::kBrokerUntrusted:
    case Reason::kPlaneUntrusted:
      return "send it nothing; compare address, certificate and set id with what its operator gave "
             "you, then glovebox init";
    case Reason::kHeld:
      return "glovebox job wait ID --through-hold";
    case Reason::kOutputInvalid:
      return "nothing was let out, and what was reserved of the budgets stays spent; submit the "
             "job again, and if it happens again, have the operator read the node's log";
    case Reason::kRejected:
    case Reason::kOutputTooLarge:
    case Reason::kOutputRefused:
      return "change the study's output, or ask the owners; what is known: glovebox job describe "
             "ID";
    case Reason::kJobFailed:
    case Reason::kTimedOut:
    case Reason::kOutOfMemory:
    case Reason::kJobCancelled:
    case Reason::kLost:
      return kLook;
    case Reason::kSandboxSetup:
      return "see that spec.command is a program of the image; what the node lacks is told there "
             "by glovebox doctor";
    case Reason::kIo:
      return "check the path, who may use it, and the room on its file system";
    case Reason::kUnavailable:
    case Reason::kConnectionClosed:
      return "repeat the command; glovebox doctor checks the connection";
    case Reason::kLogRolledBack:
      return "stop this Glovebox and put the newest copy of the broker's log.db back";
    case Reason::kDatabase:
    case Reason::kUnsupported:
      return kAskOperator;
    case Reason::kWrongPassphrase:
      return "try again, or name the file that has it: --passphrase-file FILE";
  }
  return kBug;
}

}  // namespace gbx::cli
