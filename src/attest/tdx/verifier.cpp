#include "attest/tdx/verifier.h"

#include "attest/appraise.h"
#include "attest/rejected.h"

namespace gbx::attest::tdx {

Result<records::Verdict> TdxVerifier::verify(const records::Evidence& evidence,
                                             const Expected& expected) const {
  GBX_ASSIGN(const Quote quote, quote_of(evidence, technology()));
  GBX_ASSIGN(const Claims claims, verify_signatures(quote, {root_, expected.now_seconds}));
  GBX_ASSIGN(records::Verdict verdict, appraise_td(claims, evidence, expected));
  if (claims.collateral != records::Check::kPass) {
    return rejected("TDX collateral is not verified yet")
        .with("revocation, TCB level and quoting enclave checked", "not checked")
        .hint("use technology sim or none; this version admits no TDX hardware");
  }
  verdict.root = "tdx:" + to_hex(claims.root);
  return verdict;
}

}  // namespace gbx::attest::tdx
