#include "attest/tdx/verify.h"

#include <algorithm>

#include "attest/rejected.h"
#include "crypto/certificates.h"

namespace gbx::attest::tdx {

namespace {

constexpr std::uint8_t kSgxDebug = 0x02;    // ATTRIBUTES.FLAGS of an SGX report
constexpr std::uint8_t kMigratable = 0x20;  // bit 29 of TD_ATTRIBUTES
constexpr std::size_t kMigratableByte = 3;
// PCK, the authority of its platforms or processors, root. The same root signs other certificates
// too, for other uses and over shorter paths.
constexpr std::size_t kChainLength = 3;

// The certificates of a quote; an enclave may have counted the zero that ends a C string.
Result<std::vector<Bytes>> certificates(const Quote& quote) {
  ByteView pem = quote.pck_chain;
  if (!pem.empty() && pem.back() == 0) pem = pem.first(pem.size() - 1);
  return crypto::certificates_of_pem(as_text(pem));
}

Result<crypto::PublicKey> p256_key(const FixedBytes<64>& point) {
  return crypto::PublicKey::from_text("p256:04" + to_hex(point));
}

// SHA-256(attestation key ‖ authentication data), then zeros.
FixedBytes<64> bound_key(const Quote& quote) {
  FixedBytes<64> out{};
  const Hash32 h = crypto::sha256({quote.attestation_key, quote.qe_auth});
  std::copy(h.begin(), h.end(), out.begin());
  return out;
}

bool any_set(ByteView bytes) {
  return std::any_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b != 0; });
}

Status check_quoting_enclave(const Quote& quote, const crypto::PublicKey& pck) {
  if (!pck.verify(serialize(quote.qe_report), quote.qe_signature)) {
    return rejected("quote: the PCK's signature of the quoting enclave does not verify");
  }
  if ((quote.qe_report.attributes[0] & kSgxDebug) != 0) {
    return rejected("quote: the quoting enclave is under debug");
  }
  const FixedBytes<64> expected = bound_key(quote);
  if (quote.qe_report.report_data != expected) {
    return rejected("quote: the quoting enclave vouches for another attestation key")
        .with(to_hex(expected), to_hex(quote.qe_report.report_data));
  }
  return ok_status();
}

}  // namespace

Hash32 intel_root() {
  // The key of "Intel SGX Root CA", as Intel publishes its certificate.
  static constexpr Hash32 kSpki = {0xa0, 0xaf, 0x03, 0x12, 0x89, 0xf5, 0xd5, 0xd4, 0x13, 0x2f, 0x91,
                                   0x86, 0x06, 0x8a, 0x7f, 0xc1, 0x36, 0x28, 0x63, 0x3b, 0xa2, 0x35,
                                   0x77, 0x74, 0x72, 0xe2, 0x9b, 0x6b, 0x6c, 0x67, 0xa4, 0x9e};
  return kSpki;
}

Result<Hash32> claimed_root(const Quote& quote) {
  const auto chain = certificates(quote);
  if (!chain.ok()) return rejected("quote: PCK certificate chain", chain.error());
  if (chain->empty()) return rejected("quote: no PCK certificate chain");
  const auto key = crypto::certificate_public_key(chain->back());
  if (!key.ok()) return rejected("quote: root certificate", key.error());
  return key->fingerprint();
}

Result<Claims> verify_signatures(const Quote& quote, const SignatureOptions& options) {
  const auto chain = certificates(quote);
  if (!chain.ok()) return rejected("quote: PCK certificate chain", chain.error());
  if (chain->size() != kChainLength) {
    return rejected("quote: certificates in the PCK certificate chain")
        .with(std::to_string(kChainLength), std::to_string(chain->size()));
  }
  const auto keys = crypto::verify_chain(*chain, options.now_seconds);
  if (!keys.ok()) return rejected("quote: PCK certificate chain", keys.error());
  const Hash32 root = keys->root.fingerprint();
  if (root != options.root) {
    return rejected("quote: PCK certificate chain ends at another root")
        .with(to_hex(options.root), to_hex(root));
  }
  GBX_TRY(check_quoting_enclave(quote, keys->leaf));
  const auto attestation_key = p256_key(quote.attestation_key);
  if (!attestation_key.ok()) return rejected("quote: attestation key", attestation_key.error());
  if (!attestation_key->verify(signed_bytes(quote), quote.signature)) {
    return rejected("quote: the attestation key's signature of the body does not verify");
  }
  Claims c;
  c.body = quote.body;
  c.body_15 = quote.body_15;
  c.qe_mr_signer = quote.qe_report.mr_signer;
  c.qe_isv_svn = quote.qe_report.isv_svn;
  c.root = root;
  c.debug = quote.body.td_attributes[0] != 0 || any_set(quote.body.seam_attributes);
  c.migratable = (quote.body.td_attributes[kMigratableByte] & kMigratable) != 0;
  return c;
}

}  // namespace gbx::attest::tdx
