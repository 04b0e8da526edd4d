#include <openssl/pem.h>

#include <climits>

#include "crypto/certificates.h"
#include "crypto/keys.h"
#include "crypto/openssl.h"

namespace gbx::crypto {

using namespace detail;  // NOLINT: private helpers of this folder

namespace {

using OwnedNames = Owned<GENERAL_NAMES, GENERAL_NAMES_free>;
using OwnedName = Owned<GENERAL_NAME, GENERAL_NAME_free>;
using OwnedBasic = Owned<BASIC_CONSTRAINTS, BASIC_CONSTRAINTS_free>;
using OwnedBits = Owned<ASN1_BIT_STRING, ASN1_BIT_STRING_free>;
using OwnedTime = Owned<ASN1_TIME, ASN1_TIME_free>;
using OwnedOctets = Owned<ASN1_OCTET_STRING, ASN1_OCTET_STRING_free>;
using OwnedUsage = Owned<EXTENDED_KEY_USAGE, EXTENDED_KEY_USAGE_free>;

constexpr std::size_t kMaxCertificateBytes = 64 * 1024;
constexpr std::size_t kMaxNames = 64;
constexpr std::size_t kMaxDnsName = 253;
constexpr const char* kLeafName = "glovebox";
constexpr const char* kCaName = "glovebox local authority";
constexpr int kBitDigitalSignature = 0;  // RFC 5280 section 4.2.1.3
constexpr int kBitKeyCertSign = 5;

Bytes raw_key(const PublicKey& key) {
  const Bytes spki = key.spki_der();
  const std::size_t size = key.algorithm() == SignatureAlgorithm::kEd25519 ? 32 : 65;
  return to_bytes(ByteView(spki).last(size));
}
Result<OwnedPkey> pkey_of(const SigningKey& key) {
  const Secret<SigningKeyTag> raw = key.private_bytes(SecretAccess{});
  const PublicKey& pub = key.public_key();
  return private_pkey(pub.algorithm(), raw.view(SecretAccess{}), raw_key(pub));
}

// A subject of one common name, and a serial number from the key: the same key always gives the
// same fields, and two keys never share a serial.
Status set_identity(X509* x, const PublicKey& key, const char* subject, const char* issuer) {
  if (X509_set_version(x, X509_VERSION_3) != 1) return openssl_error("certificate version");
  Hash32 id = key.fingerprint();
  id[0] = static_cast<std::uint8_t>((id[0] & 0x7f) | 0x40);  // positive, and of fixed length
  const OwnedBn serial(BN_bin2bn(id.data(), 16, nullptr));
  if (!serial || BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(x)) == nullptr) {
    return openssl_error("certificate serial");
  }
  const auto set_name = [](X509_NAME* name, const char* text) {
    // SAFETY: OpenSSL reads a C string of char as bytes.
    const auto* p = reinterpret_cast<const unsigned char*>(text);
    return X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, p, -1, -1, 0) == 1;
  };
  if (!set_name(X509_get_subject_name(x), subject) || !set_name(X509_get_issuer_name(x), issuer)) {
    return openssl_error("certificate name");
  }
  GBX_ASSIGN(const OwnedPkey pkey, public_pkey(key.algorithm(), raw_key(key)));
  if (X509_set_pubkey(x, pkey.get()) != 1) return openssl_error("certificate key");
  return ok_status();
}

Status check_times(std::int64_t not_before_seconds, std::int64_t not_after_seconds) {
  constexpr std::int64_t kLast = 253402300799;  // 9999-12-31T23:59:59Z
  if (not_before_seconds < 0 || not_before_seconds >= not_after_seconds ||
      not_after_seconds > kLast) {
    return fail(Reason::kBadValue, "certificate times")
        .with("not-before below not-after, within 1970 to 9999",
              std::to_string(not_before_seconds) + " to " + std::to_string(not_after_seconds));
  }
  return ok_status();
}

Status set_validity(X509* x, const ASN1_TIME* from, const ASN1_TIME* to) {
  if (from == nullptr || to == nullptr || X509_set1_notBefore(x, from) != 1 ||
      X509_set1_notAfter(x, to) != 1) {
    return openssl_error("certificate times");
  }
  return ok_status();
}

Status add_extension(X509* x, int nid, void* value, bool critical) {
  if (X509_add1_ext_i2d(x, nid, value, critical ? 1 : 0, X509V3_ADD_DEFAULT) != 1) {
    return openssl_error("certificate extension");
  }
  return ok_status();
}

// Of an authority when there is a path length, else of a leaf.
Status add_constraints(X509* x, std::optional<int> path_length) {
  const OwnedBasic basic(BASIC_CONSTRAINTS_new());
  const OwnedBits usage(ASN1_BIT_STRING_new());
  if (!basic || !usage) return openssl_error("certificate extension");
  if (path_length) {
    basic->ca = 0xff;
    basic->pathlen = ASN1_INTEGER_new();
    if (basic->pathlen == nullptr || ASN1_INTEGER_set(basic->pathlen, *path_length) != 1) {
      return openssl_error("certificate extension");
    }
  }
  const int bit = path_length ? kBitKeyCertSign : kBitDigitalSignature;
  if (ASN1_BIT_STRING_set_bit(usage.get(), bit, 1) != 1) {
    return openssl_error("certificate extension");
  }
  GBX_TRY(add_extension(x, NID_basic_constraints, basic.get(), true));
  return add_extension(x, NID_key_usage, usage.get(), true);
}

Status add_server_usage(X509* x) {
  const OwnedUsage usage(EXTENDED_KEY_USAGE_new());
  if (!usage || sk_ASN1_OBJECT_push(usage.get(), OBJ_nid2obj(NID_server_auth)) <= 0) {
    return openssl_error("certificate extension");
  }
  return add_extension(x, NID_ext_key_usage, usage.get(), false);
}

// Subject and authority key identifiers (RFC 5280 sections 4.2.1.1 and 4.2.1.2): verifiers build
// chains by them.
Status add_key_ids(X509* x, const PublicKey& own, const PublicKey& issuer) {
  const Hash32 own_id = own.fingerprint(), issuer_id = issuer.fingerprint();
  const OwnedOctets subject(ASN1_OCTET_STRING_new());
  const Owned<AUTHORITY_KEYID, AUTHORITY_KEYID_free> authority(AUTHORITY_KEYID_new());
  if (!subject || !authority) return openssl_error("certificate extension");
  authority->keyid = ASN1_OCTET_STRING_new();
  if (authority->keyid == nullptr || ASN1_OCTET_STRING_set(subject.get(), own_id.data(), 20) != 1 ||
      ASN1_OCTET_STRING_set(authority->keyid, issuer_id.data(), 20) != 1) {
    return openssl_error("certificate extension");
  }
  GBX_TRY(add_extension(x, NID_subject_key_identifier, subject.get(), false));
  return add_extension(x, NID_authority_key_identifier, authority.get(), false);
}

bool plausible_dns_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxDnsName || name.front() == '.' || name.back() == '.') {
    return false;
  }
  for (const char c : name) {
    const bool ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
    if (!ok) return false;
  }
  return true;
}

// Built as values, not through OpenSSL's configuration text, so that a name cannot add another.
Result<OwnedName> dns_general_name(const std::string& name) {
  if (!plausible_dns_name(name)) {
    return fail(Reason::kBadValue, "DNS name")
        .with("lower-case letters, digits, '-' and '.'", name.substr(0, 64));
  }
  OwnedName out(GENERAL_NAME_new());
  Owned<ASN1_IA5STRING, ASN1_IA5STRING_free> text(ASN1_IA5STRING_new());
  if (!out || !text ||
      ASN1_STRING_set(text.get(), name.data(), static_cast<int>(name.size())) != 1) {
    return openssl_error("DNS name");
  }
  GENERAL_NAME_set0_value(out.get(), GEN_DNS, text.release());
  return out;
}
Result<OwnedName> ip_general_name(const std::string& address) {
  OwnedName out(GENERAL_NAME_new());
  OwnedOctets octets(a2i_IPADDRESS(address.c_str()));
  if (!out) return openssl_error("IP address");
  if (!octets || address.find('\0') != std::string::npos) {
    return fail(Reason::kBadValue, "IP address").with("IPv4 or IPv6", address.substr(0, 64));
  }
  GENERAL_NAME_set0_value(out.get(), GEN_IPADD, octets.release());
  return out;
}

Status add_names(X509* x, const std::vector<std::string>& dns,
                 const std::vector<std::string>& ips) {
  if (dns.size() + ips.size() > kMaxNames) return fail(Reason::kTooLarge, "certificate names");
  if (dns.empty() && ips.empty()) {
    return fail(Reason::kMissingField, "a server certificate needs a DNS name or an IP address");
  }
  const OwnedNames names(GENERAL_NAMES_new());
  if (!names) return openssl_error("certificate names");
  const auto push = [&names](OwnedName name) {
    if (sk_GENERAL_NAME_push(names.get(), name.get()) <= 0) return false;
    (void)name.release();
    return true;
  };
  for (const std::string& d : dns) {
    GBX_ASSIGN(OwnedName name, dns_general_name(d));
    if (!push(std::move(name))) return openssl_error("certificate names");
  }
  for (const std::string& ip : ips) {
    GBX_ASSIGN(OwnedName name, ip_general_name(ip));
    if (!push(std::move(name))) return openssl_error("certificate names");
  }
  return add_extension(x, NID_subject_alt_name, names.get(), false);
}

Result<Bytes> sign_and_encode(X509* x, const SigningKey& issuer) {
  GBX_ASSIGN(const OwnedPkey pkey, pkey_of(issuer));
  const bool ed = issuer.public_key().algorithm() == SignatureAlgorithm::kEd25519;
  // X509_sign gives the size of the signature, 0 on failure.
  if (X509_sign(x, pkey.get(), ed ? nullptr : sha256_md()) <= 0) {
    return openssl_error("certificate signature");
  }
  std::uint8_t* der = nullptr;
  const int n = i2d_X509(x, &der);
  if (n <= 0) return openssl_error("certificate encoding");
  Bytes out(der, der + n);
  OPENSSL_free(der);
  return out;
}

}  // namespace

Result<Bytes> self_signed_certificate(const SigningKey& key) {
  const DrainErrors drain;
  const OwnedX509 x(X509_new());
  const OwnedTime from(ASN1_TIME_new()), to(ASN1_TIME_new());
  if (!x || !from || !to) return openssl_error("certificate");
  if (ASN1_TIME_set_string_X509(from.get(), "19700101000000Z") != 1 ||
      ASN1_TIME_set_string_X509(to.get(), "99991231235959Z") != 1) {
    return openssl_error("certificate times");
  }
  GBX_TRY(set_identity(x.get(), key.public_key(), kLeafName, kLeafName));
  GBX_TRY(set_validity(x.get(), from.get(), to.get()));
  GBX_TRY(add_constraints(x.get(), std::nullopt));
  GBX_TRY(add_key_ids(x.get(), key.public_key(), key.public_key()));
  GBX_TRY(add_names(x.get(), {kLeafName}, {}));
  return sign_and_encode(x.get(), key);
}

Result<ServerCertificate> issue_server_certificate(const SigningKey& ca, const SigningKey& server,
                                                   const std::vector<std::string>& dns_names,
                                                   const std::vector<std::string>& ip_addresses,
                                                   std::int64_t not_before_seconds,
                                                   std::int64_t not_after_seconds) {
  const DrainErrors drain;
  GBX_TRY(check_times(not_before_seconds, not_after_seconds));
  const OwnedTime from(ASN1_TIME_set(nullptr, not_before_seconds));
  const OwnedTime to(ASN1_TIME_set(nullptr, not_after_seconds));
  const OwnedX509 root(X509_new()), leaf(X509_new());
  if (!root || !leaf) return openssl_error("certificate");
  GBX_TRY(set_identity(root.get(), ca.public_key(), kCaName, kCaName));
  GBX_TRY(set_validity(root.get(), from.get(), to.get()));
  GBX_TRY(add_constraints(root.get(), 0));
  GBX_TRY(add_key_ids(root.get(), ca.public_key(), ca.public_key()));
  GBX_TRY(set_identity(leaf.get(), server.public_key(), kLeafName, kCaName));
  GBX_TRY(set_validity(leaf.get(), from.get(), to.get()));
  GBX_TRY(add_constraints(leaf.get(), std::nullopt));
  GBX_TRY(add_server_usage(leaf.get()));
  GBX_TRY(add_key_ids(leaf.get(), server.public_key(), ca.public_key()));
  GBX_TRY(add_names(leaf.get(), dns_names, ip_addresses));
  ServerCertificate out;
  GBX_ASSIGN(out.ca_der, sign_and_encode(root.get(), ca));
  GBX_ASSIGN(out.server_der, sign_and_encode(leaf.get(), ca));
  return out;
}

Result<Bytes> issue_certificate(const CertificateRequest& request) {
  const DrainErrors drain;
  GBX_TRY(check_times(request.not_before_seconds, request.not_after_seconds));
  const OwnedTime from(ASN1_TIME_set(nullptr, request.not_before_seconds));
  const OwnedTime to(ASN1_TIME_set(nullptr, request.not_after_seconds));
  const OwnedX509 x(X509_new());
  if (!x) return openssl_error("certificate");
  GBX_TRY(set_identity(x.get(), *request.key, request.subject.c_str(), request.issuer.c_str()));
  GBX_TRY(set_validity(x.get(), from.get(), to.get()));
  GBX_TRY(add_constraints(x.get(), request.path_length));
  GBX_TRY(add_key_ids(x.get(), *request.key, request.issuer_key->public_key()));
  return sign_and_encode(x.get(), *request.issuer_key);
}

Result<PublicKey> certificate_public_key(ByteView certificate_der) {
  const DrainErrors drain;
  if (certificate_der.size() > kMaxCertificateBytes) {
    return fail(Reason::kTooLarge, "certificate").with("at most 64 KiB", "more");
  }
  const std::uint8_t* p = pointer(certificate_der);
  const std::uint8_t* const end = p + certificate_der.size();
  const OwnedX509 x(d2i_X509(nullptr, &p, static_cast<long>(certificate_der.size())));
  if (!x) return fail(Reason::kBadEncoding, "not the DER of a certificate");
  if (p != end) return fail(Reason::kTrailingBytes, "certificate");
  std::uint8_t* der = nullptr;
  const int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x.get()), &der);
  if (n <= 0) return openssl_error("certificate key");
  const Bytes spki(der, der + n);
  OPENSSL_free(der);
  return PublicKey::from_spki_der(spki);
}

std::string certificate_pem(ByteView certificate_der) {
  const DrainErrors drain;
  require(certificate_der.size() <= kMaxCertificateBytes, "certificate size");
  const OwnedBio bio(BIO_new(BIO_s_mem()));
  require(bio != nullptr, "memory");
  const int rc = PEM_write_bio(bio.get(), "CERTIFICATE", "", pointer(certificate_der),
                               static_cast<long>(certificate_der.size()));
  require(rc > 0, "PEM");
  char* data = nullptr;
  const long n = BIO_get_mem_data(bio.get(), &data);
  require(n > 0, "PEM");
  return std::string(data, static_cast<std::size_t>(n));
}

}  // namespace gbx::crypto
