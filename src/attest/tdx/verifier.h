// Evidence of Intel TDX hardware. Revocation lists, TCB levels and the identity of the quoting
// enclave are not looked at yet, so every quote is refused after all else was checked.
#pragma once

#include "attest/verifier.h"

namespace gbx::attest::tdx {

class TdxVerifier final : public Verifier {
 public:
  // SHA-256 of the SubjectPublicKeyInfo that chains have to end at.
  explicit TdxVerifier(const Hash32& root) : root_(root) {}
  records::Technology technology() const override { return records::Technology::kTdx; }
  Result<records::Verdict> verify(const records::Evidence& evidence,
                                  const Expected& expected) const override;

 private:
  const Hash32 root_;
};

}  // namespace gbx::attest::tdx
