// An Intel TDX quote, versions 4 and 5, as typed members (Intel TDX DCAP Quoting Library API,
// appendix 3: "Version 4 Quote Format", "Version 5 Quote Format"). Parsing proves nothing about
// who made it: tdx/verify.h does. Input is untrusted. Values; thread-safe.
#pragma once

#include <array>
#include <optional>

#include "base/bytes.h"

namespace gbx::attest::tdx {

inline constexpr std::size_t kMaxQuoteBytes = 64 * 1024;
inline constexpr std::size_t kMaxAuthBytes = 1024;
inline constexpr std::size_t kMaxChainBytes = 32 * 1024;

using Register = FixedBytes<48>;  // SHA-384

struct QuoteHeader {
  std::uint16_t version = 4;
  std::uint16_t qe_svn = 0;
  std::uint16_t pce_svn = 0;
  FixedBytes<20> user_data{};
  bool operator==(const QuoteHeader&) const = default;
};

// What the TDX module says of the trust domain.
struct TdBody {
  FixedBytes<16> tee_tcb_svn{};
  Register mr_seam{};
  Register mr_signer_seam{};
  FixedBytes<8> seam_attributes{};
  FixedBytes<8> td_attributes{};
  FixedBytes<8> xfam{};
  Register mrtd{};
  Register mr_config_id{};
  Register mr_owner{};
  Register mr_owner_config{};
  std::array<Register, 4> rtmr{};
  FixedBytes<64> report_data{};
  bool operator==(const TdBody&) const = default;
};
// What TDX 1.5 adds (body type 3 of version 5).
struct TdBody15 {
  FixedBytes<16> tee_tcb_svn_2{};
  Register mr_service_td{};
  bool operator==(const TdBody15&) const = default;
};

// The SGX report of the quoting enclave. Reserved members may hold anything: they are signed.
struct QeReport {
  FixedBytes<16> cpu_svn{};
  std::uint32_t misc_select = 0;
  FixedBytes<28> reserved_1{};
  FixedBytes<16> attributes{};
  FixedBytes<32> mr_enclave{};
  FixedBytes<32> reserved_2{};
  FixedBytes<32> mr_signer{};
  FixedBytes<96> reserved_3{};
  std::uint16_t isv_prod_id = 0;
  std::uint16_t isv_svn = 0;
  FixedBytes<60> reserved_4{};
  FixedBytes<64> report_data{};
  bool operator==(const QeReport&) const = default;
};

struct Quote {
  QuoteHeader header;
  TdBody body;
  std::optional<TdBody15> body_15;   // version 5 only
  FixedBytes<64> signature{};        // r ‖ s of attestation_key over signed_bytes()
  FixedBytes<64> attestation_key{};  // x ‖ y, P-256
  QeReport qe_report;
  FixedBytes<64> qe_signature{};  // r ‖ s of the PCK over qe_report
  Bytes qe_auth;
  Bytes pck_chain;  // PEM, leaf first; the quoting enclave may count a terminating zero
  bool operator==(const Quote&) const = default;
};

// Errors: kBadVersion, kBadValue (key type, TEE type, vendor, body type), kBadSuite (another kind
// of certification data), kTooLarge, kTruncated, kTrailingBytes. What was read is serialised to the
// same bytes.
Result<Quote> parse_quote(ByteView bytes);
Bytes serialize(const Quote& quote);
// Header and body: what the attestation key signs. In version 5 the type and size of the body are
// between them.
Bytes signed_bytes(const Quote& quote);
Bytes serialize(const QeReport& report);

// Hosts hand out quotes in buffers of their own size, filled with zeros. The quote without them, in
// the one form that parse_quote() takes; errors are as there.
Result<ByteView> without_padding(ByteView bytes);

}  // namespace gbx::attest::tdx
