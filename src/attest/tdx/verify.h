// Who signed a TDX quote: the certificate chain, the quoting enclave, the attestation key (Intel
// TDX DCAP Quoting Library API, appendix 3.8). What the registers have to be is for a Verifier to
// say. The quote is untrusted until this has passed. Thread-safe.
#pragma once

#include "attest/tdx/quote.h"
#include "records/evidence.h"

namespace gbx::attest::tdx {

// SHA-256 of the SubjectPublicKeyInfo of Intel's SGX root, which signs for TDX too.
Hash32 intel_root();
// That of the last certificate of the quote's chain, which proves nothing yet.
Result<Hash32> claimed_root(const Quote& quote);

struct Claims {
  TdBody body;
  std::optional<TdBody15> body_15;
  FixedBytes<32> qe_mr_signer{};
  std::uint16_t qe_isv_svn = 0;
  Hash32 root{};  // SHA-256 of its SubjectPublicKeyInfo
  // A bit of TD_ATTRIBUTES' "TD under debug" group, or a TDX module that is itself under debug: the
  // host reads such a guest.
  bool debug = true;
  bool migratable = true;
  // Revocation, TCB level and identity of the quoting enclave are not looked at yet.
  records::Check collateral = records::Check::kNotChecked;
};
struct SignatureOptions {
  Hash32 root{};  // the chain has to end there
  std::int64_t now_seconds = 0;
};
// Errors: kEvidenceRejected, naming the link that does not hold.
Result<Claims> verify_signatures(const Quote& quote, const SignatureOptions& options);

}  // namespace gbx::attest::tdx
