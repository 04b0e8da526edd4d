// Limits of what is signed and logged (docs/protocol.md, "Limits"). They are part of the formats: a
// reader refuses what is beyond them, so a writer must never make it.
#pragma once

#include <cstdint>

#include "base/bundle_size.h"

namespace gbx::records {

// one argument, one variable's name or value
inline constexpr std::int64_t kMaxArgumentBytes = 4096;
// of one output, in canonical form
inline constexpr std::int64_t kMaxSchemaBytes = 128 << 10;
// of one job: 32 inputs and the image
inline constexpr std::int64_t kMaxAssets = 33;
inline constexpr std::int64_t kMaxOutputs = 32;  // of one job
// of one output; all of them fit it together
inline constexpr std::int64_t kMaxOutputBytes = kMaxBundleBytes;
// of a job's logs that may reach its consumer
inline constexpr std::int64_t kMaxLogBytes = kMaxConsumerLogBytes;
// of one policy, and of all policies of one job
inline constexpr std::int64_t kMaxReviewers = 32;
// on one output: each reviewer under each policy
inline constexpr std::int64_t kMaxRulings = kMaxAssets * kMaxReviewers;
// one charge, so that sums of a million fit
inline constexpr std::int64_t kMaxBits = std::int64_t{1} << 40;
// entries of one answer about a ledger
inline constexpr std::int64_t kMaxLedgerPage = 1000;
// A whole message to the broker in canonical form; its log entry adds what the broker says, less
// than as much again.
inline constexpr std::int64_t kMaxRequestBytes = 512 << 10;
inline constexpr std::int64_t kMaxAttempt = 1000;  // number of an attempt of one job
inline constexpr std::int64_t kMaxCpu = 1024;      // cores of one job
// of a job's memory, of its scratch and of room for its image, each
inline constexpr std::int64_t kMaxRoomBytes = std::int64_t{1} << 44;
inline constexpr std::int64_t kMaxRunSeconds = 604'800;  // a week
inline constexpr std::int64_t kMaxSerial = 1'000'000'000;
inline constexpr std::int64_t kMaxEpoch = 1'000'000;
// a node's word about itself
inline constexpr std::int64_t kMaxLentBytes = std::int64_t{1} << 50;
// in which a node has to be heard of
inline constexpr std::int64_t kMaxLeaseSeconds = 3600;
// so that a receipt with all policies fits a frame
inline constexpr std::int64_t kMaxPolicyBytes = 256 << 10;

}  // namespace gbx::records
