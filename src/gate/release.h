// The one way out. Everything that a consumer (or an owner, for owner-only logs) will ever see of a
// job travels in a ReleaseChannel: content, names, size, how the container ended, how long it took,
// log lines. The gate alone makes one from plaintext; anybody else gets one by decoding, strictly,
// what the gate wrote. Its size follows from the request alone, so the size tells nothing.
// docs/gate.md describes the bytes.
#pragma once

#include <string>
#include <vector>

#include "gate/records.h"

namespace gbx::gate {

enum class EntryKind : std::uint8_t { kStatus = 0, kOutput = 1, kLog = 2 };

struct BundleEntry {
  EntryKind kind = EntryKind::kOutput;
  std::string name;  // kOutput: the declared path; kStatus: "status"; kLog: "log"
  Bytes content;
  bool operator==(const BundleEntry&) const = default;
};
struct BundleStatus {
  std::string jobId;
  std::int64_t attempt = 1;
  RunExit exitClass = RunExit::kOk;
  std::int64_t durationBucket = 0;
  template <class F>
  void fields(F& f) {
    f("jobId", jobId, Bound{1, 128});
    f("attempt", attempt, Bound{1, 1'000'000});
    f("exitClass", exitClass);
    f("durationBucket", durationBucket, Bound{0, 15});
  }
};
struct Bundle {
  BundleStatus status;
  std::vector<BundleEntry> entries;  // outputs in byte order of their paths, then at most one log
};

// Pads with zeros to `padded_size`, a power of two, kMaxBundleBytes at most. kTooLarge when it does
// not fit, kBadValue for names that decoding would refuse.
Result<Bytes> encode_bundle(const Bundle& bundle, std::size_t padded_size);
// Strict: there is exactly one encoding of a bundle at a given size. Errors: kBadMagic, kTruncated,
// kBadStructure, kTooLarge (over kMaxBundleBytes).
Result<Bundle> decode_bundle(ByteView bytes);
// Depends on declarations only.
std::size_t padded_bundle_size(const GateRequest& request);

class ReleaseChannel {
 public:
  // What is sealed to the recipients.
  const Bytes& bytes() const { return bytes_; }
  const BundleStatus& status() const { return bundle_.status; }
  const std::vector<BundleEntry>& entries() const { return bundle_.entries; }
  static Result<ReleaseChannel> decode(ByteView bytes);

 private:
  friend class Gate;
  ReleaseChannel() = default;
  static Result<ReleaseChannel> make(Bundle bundle, std::size_t padded_size);

  Bytes bytes_;
  Bundle bundle_;
};

// What leaves of a log: at most `limit` bytes, printable ASCII, tabs and line feeds; everything
// else becomes '?'.
Bytes clean_log(ByteView raw, std::size_t limit);

}  // namespace gbx::gate
