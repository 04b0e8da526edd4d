// The simulated platform as its guest sees it: asked over a byte stream. Answers are the host's.
#pragma once

#include "attest/attester.h"
#include "channel/rpc.h"

namespace gbx::attest::sim {

class SimAttester final : public Attester {
 public:
  // Both must outlive it. After so long it says kUnavailable: asked for the same again, it waits
  // on.
  SimAttester(channel::ByteStream& stream, const Clock& clock, std::int64_t timeout_ms = 10'000);
  records::Technology technology() const override { return records::Technology::kSim; }
  Result<Quoted> quote(const FixedBytes<64>& report_data) override;

 private:
  channel::PatientClient client_;
  const std::int64_t timeout_ms_;
};

}  // namespace gbx::attest::sim
