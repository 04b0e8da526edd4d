// How an agent gets evidence from the platform that it runs on. What the platform's host answers is
// untrusted: an attester sees to it that a quote is one and over the report data that was asked
// for; whether anybody believes it is a Verifier's to say. One thread each.
#pragma once

#include "records/evidence.h"

namespace gbx::attest {

struct Quoted {
  Bytes quote;  // without what hosts fill their buffers with
  std::vector<records::Collateral> collateral;
};

class Attester {
 public:
  virtual ~Attester() = default;
  virtual records::Technology technology() const = 0;
  // Errors: kUnavailable and what the way to the platform says; kEvidenceRejected for an answer
  // that is no quote over `report_data`.
  virtual Result<Quoted> quote(const FixedBytes<64>& report_data) = 0;
};

// The launch configuration's hash that the platform was started with, by the agent's own quote:
// MRCONFIGID or HOST_DATA. An agent that was told another configuration speaks to nobody. Errors:
// kEvidenceRejected; kLaunchConfigMismatch where it is no such hash.
Result<Hash32> own_launch_hash(records::Technology technology, ByteView quote);

// Whether `quote` is one of this technology over `report_data`. Errors: kEvidenceRejected.
Status check_own_quote(records::Technology technology, ByteView quote,
                       const FixedBytes<64>& report_data);

}  // namespace gbx::attest
