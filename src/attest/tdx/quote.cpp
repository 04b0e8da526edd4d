#include "attest/tdx/quote.h"

#include <algorithm>

namespace gbx::attest::tdx {

namespace {

constexpr std::uint16_t kKeyEcdsaP256 = 2;
constexpr std::uint32_t kTeeTdx = 0x81;
constexpr FixedBytes<16> kIntelQe = {0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9,
                                     0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07};
constexpr std::uint16_t kBodyTdx10 = 2;
constexpr std::uint16_t kBodyTdx15 = 3;
constexpr std::uint32_t kSizeTdx10 = 584;
constexpr std::uint32_t kSizeTdx15 = 648;
constexpr std::uint16_t kCertPckChain = 5;
constexpr std::uint16_t kCertQeReport = 6;
constexpr std::size_t kQeReportSize = 384;

Error wrong(const char* what, std::uint64_t expected, std::uint64_t actual) {
  return fail(Reason::kBadValue, std::string("quote: ") + what)
      .with(std::to_string(expected), std::to_string(actual));
}

template <std::size_t N>
Status take(ByteReader& in, FixedBytes<N>& out) {
  GBX_ASSIGN(out, in.fixed<N>());
  return ok_status();
}

Result<QuoteHeader> parse_header(ByteReader& in) {
  QuoteHeader h;
  GBX_ASSIGN(h.version, in.u16());
  if (h.version != 4 && h.version != 5) {
    return fail(Reason::kBadVersion, "quote").with("4 or 5", std::to_string(h.version));
  }
  GBX_ASSIGN(const std::uint16_t key_type, in.u16());
  if (key_type != kKeyEcdsaP256) return wrong("attestation key type", kKeyEcdsaP256, key_type);
  GBX_ASSIGN(const std::uint32_t tee_type, in.u32());
  if (tee_type != kTeeTdx) return wrong("TEE type", kTeeTdx, tee_type);
  GBX_ASSIGN(h.qe_svn, in.u16());
  GBX_ASSIGN(h.pce_svn, in.u16());
  GBX_ASSIGN(const FixedBytes<16> vendor, in.fixed<16>());
  if (vendor != kIntelQe) {
    return fail(Reason::kBadValue, "quote: vendor of the quoting enclave")
        .with(to_hex(kIntelQe), to_hex(vendor));
  }
  GBX_TRY(take(in, h.user_data));
  return h;
}

Result<TdBody> parse_body(ByteReader& in) {
  TdBody b;
  GBX_TRY(take(in, b.tee_tcb_svn));
  GBX_TRY(take(in, b.mr_seam));
  GBX_TRY(take(in, b.mr_signer_seam));
  GBX_TRY(take(in, b.seam_attributes));
  GBX_TRY(take(in, b.td_attributes));
  GBX_TRY(take(in, b.xfam));
  GBX_TRY(take(in, b.mrtd));
  GBX_TRY(take(in, b.mr_config_id));
  GBX_TRY(take(in, b.mr_owner));
  GBX_TRY(take(in, b.mr_owner_config));
  for (Register& r : b.rtmr) GBX_TRY(take(in, r));
  GBX_TRY(take(in, b.report_data));
  return b;
}

Result<TdBody15> parse_body_15(ByteReader& in) {
  TdBody15 b;
  GBX_TRY(take(in, b.tee_tcb_svn_2));
  GBX_TRY(take(in, b.mr_service_td));
  return b;
}

Result<QeReport> parse_qe_report(ByteReader& in) {
  QeReport r;
  GBX_TRY(take(in, r.cpu_svn));
  GBX_ASSIGN(r.misc_select, in.u32());
  GBX_TRY(take(in, r.reserved_1));
  GBX_TRY(take(in, r.attributes));
  GBX_TRY(take(in, r.mr_enclave));
  GBX_TRY(take(in, r.reserved_2));
  GBX_TRY(take(in, r.mr_signer));
  GBX_TRY(take(in, r.reserved_3));
  GBX_ASSIGN(r.isv_prod_id, in.u16());
  GBX_ASSIGN(r.isv_svn, in.u16());
  GBX_TRY(take(in, r.reserved_4));
  GBX_TRY(take(in, r.report_data));
  return r;
}

// A type that has to be `type`, a length, and that many bytes.
Result<ByteView> certification_data(ByteReader& in, std::uint16_t type) {
  GBX_ASSIGN(const std::uint16_t actual, in.u16());
  if (actual != type) {
    return fail(Reason::kBadSuite, "quote: certification data")
        .with("type " + std::to_string(type), std::to_string(actual));
  }
  GBX_ASSIGN(const std::uint32_t size, in.u32());
  return in.take(size);
}

Status parse_certification(ByteView bytes, Quote& out) {
  ByteReader in(bytes);
  GBX_ASSIGN(out.qe_report, parse_qe_report(in));
  GBX_TRY(take(in, out.qe_signature));
  GBX_ASSIGN(const std::uint16_t auth_size, in.u16());
  if (auth_size > kMaxAuthBytes) {
    return fail(Reason::kTooLarge, "quote: authentication data of the quoting enclave")
        .with("at most " + std::to_string(kMaxAuthBytes) + " bytes", std::to_string(auth_size));
  }
  GBX_ASSIGN(const ByteView auth, in.take(auth_size));
  out.qe_auth = to_bytes(auth);
  GBX_ASSIGN(const ByteView chain, certification_data(in, kCertPckChain));
  if (chain.size() > kMaxChainBytes) {
    return fail(Reason::kTooLarge, "quote: PCK certificate chain")
        .with("at most " + std::to_string(kMaxChainBytes) + " bytes", std::to_string(chain.size()));
  }
  out.pck_chain = to_bytes(chain);
  return in.finish();
}

Status parse_signature_data(ByteView bytes, Quote& out) {
  ByteReader in(bytes);
  GBX_TRY(take(in, out.signature));
  GBX_TRY(take(in, out.attestation_key));
  GBX_ASSIGN(const ByteView certification, certification_data(in, kCertQeReport));
  GBX_TRY(in.finish());
  return parse_certification(certification, out);
}

// Leaves `in` behind the quote's last byte.
Status parse(ByteReader& in, Quote& out) {
  GBX_ASSIGN(out.header, parse_header(in));
  bool is_15 = false;
  if (out.header.version == 5) {
    GBX_ASSIGN(const std::uint16_t type, in.u16());
    GBX_ASSIGN(const std::uint32_t size, in.u32());
    if (type != kBodyTdx10 && type != kBodyTdx15) {
      return fail(Reason::kBadValue, "quote: body type").with("2 or 3", std::to_string(type));
    }
    is_15 = type == kBodyTdx15;
    const std::uint32_t expected = is_15 ? kSizeTdx15 : kSizeTdx10;
    if (size != expected) return wrong("size of the body", expected, size);
  }
  GBX_ASSIGN(out.body, parse_body(in));
  if (is_15) {
    GBX_ASSIGN(out.body_15, parse_body_15(in));
  }
  GBX_ASSIGN(const std::uint32_t size, in.u32());
  GBX_ASSIGN(const ByteView signature_data, in.take(size));
  return parse_signature_data(signature_data, out);
}

Status check_size(ByteView bytes) {
  if (bytes.size() <= kMaxQuoteBytes) return ok_status();
  return fail(Reason::kTooLarge, "quote")
      .with("at most " + std::to_string(kMaxQuoteBytes) + " bytes", std::to_string(bytes.size()));
}

}  // namespace

Result<Quote> parse_quote(ByteView bytes) {
  GBX_TRY(check_size(bytes));
  ByteReader in(bytes);
  Quote q;
  GBX_TRY(parse(in, q));
  GBX_TRY(in.finish());
  return q;
}

Result<ByteView> without_padding(ByteView bytes) {
  GBX_TRY(check_size(bytes));
  ByteReader in(bytes);
  Quote q;
  GBX_TRY(parse(in, q));
  const ByteView rest = bytes.subspan(in.position());
  if (std::any_of(rest.begin(), rest.end(), [](std::uint8_t b) { return b != 0; })) {
    return fail(Reason::kTrailingBytes, "quote").with("zeros after it", "other bytes");
  }
  return bytes.first(in.position());
}

Bytes signed_bytes(const Quote& q) {
  ByteWriter w;
  w.u16(q.header.version).u16(kKeyEcdsaP256).u32(kTeeTdx);
  w.u16(q.header.qe_svn).u16(q.header.pce_svn).raw(kIntelQe).raw(q.header.user_data);
  if (q.header.version == 5) {
    w.u16(q.body_15 ? kBodyTdx15 : kBodyTdx10).u32(q.body_15 ? kSizeTdx15 : kSizeTdx10);
  }
  const TdBody& b = q.body;
  w.raw(b.tee_tcb_svn).raw(b.mr_seam).raw(b.mr_signer_seam).raw(b.seam_attributes);
  w.raw(b.td_attributes).raw(b.xfam).raw(b.mrtd).raw(b.mr_config_id);
  w.raw(b.mr_owner).raw(b.mr_owner_config);
  for (const Register& r : b.rtmr) w.raw(r);
  w.raw(b.report_data);
  if (q.body_15) w.raw(q.body_15->tee_tcb_svn_2).raw(q.body_15->mr_service_td);
  return w.take();
}

Bytes serialize(const QeReport& r) {
  ByteWriter w;
  w.raw(r.cpu_svn).u32(r.misc_select).raw(r.reserved_1).raw(r.attributes).raw(r.mr_enclave);
  w.raw(r.reserved_2).raw(r.mr_signer).raw(r.reserved_3).u16(r.isv_prod_id).u16(r.isv_svn);
  w.raw(r.reserved_4).raw(r.report_data);
  return w.take();
}

Bytes serialize(const Quote& q) {
  // Sizes fit their fields: what was parsed is bounded, and what is built has a chain of this
  // program's own.
  const std::size_t certification =
      kQeReportSize + 64 + 2 + q.qe_auth.size() + 6 + q.pck_chain.size();
  ByteWriter w;
  w.raw(signed_bytes(q));
  w.u32(static_cast<std::uint32_t>(64 + 64 + 6 + certification));
  w.raw(q.signature).raw(q.attestation_key);
  w.u16(kCertQeReport).u32(static_cast<std::uint32_t>(certification));
  w.raw(serialize(q.qe_report)).raw(q.qe_signature);
  w.u16(static_cast<std::uint16_t>(q.qe_auth.size())).raw(q.qe_auth);
  w.u16(kCertPckChain).bytes32(q.pck_chain);
  return w.take();
}

}  // namespace gbx::attest::tdx
