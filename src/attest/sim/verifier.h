// The simulated platform's evidence, under the root whose certificate is in it: which installation
// that is, the verdict's `root` says, and a policy has to name it (docs/formats/sim-v1.md).
#pragma once

#include "attest/verifier.h"

namespace gbx::attest::sim {

class SimVerifier final : public Verifier {
 public:
  records::Technology technology() const override { return records::Technology::kSim; }
  Result<records::Verdict> verify(const records::Evidence& evidence,
                                  const Expected& expected) const override;
};

}  // namespace gbx::attest::sim
