#include "attest/sim/verifier.h"

#include "attest/appraise.h"
#include "attest/rejected.h"

namespace gbx::attest::sim {

Result<records::Verdict> SimVerifier::verify(const records::Evidence& evidence,
                                             const Expected& expected) const {
  GBX_ASSIGN(const tdx::Quote quote, quote_of(evidence, technology()));
  GBX_ASSIGN(const Hash32 root, tdx::claimed_root(quote));
  if (root == tdx::intel_root()) {
    return rejected("a quote of TDX hardware is shown as a simulated one");
  }
  GBX_ASSIGN(const tdx::Claims claims, tdx::verify_signatures(quote, {root, expected.now_seconds}));
  GBX_ASSIGN(records::Verdict verdict, appraise_td(claims, evidence, expected));
  verdict.root = "sim:" + to_hex(root);
  return verdict;
}

}  // namespace gbx::attest::sim
