// The simulated platform as its guest sees it: asked over a byte stream. Answers are the host's.
#pragma once

#include "attest/attester.h"
#include "channel/rpc.h"

namespace gbx::attest::sim {

class SimAttester final : public Attester {
 public:
  // Both must outlive it.
  SimAttester(channel::ByteStream& stream, const Clock& clock);
  records::Technology technology() const override { return records::Technology::kSim; }
  Result<Quoted> quote(const FixedBytes<64>& report_data) override;

 private:
  channel::RpcClient client_;
};

}  // namespace gbx::attest::sim
