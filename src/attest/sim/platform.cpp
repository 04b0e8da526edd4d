#include "attest/sim/platform.h"

#include <algorithm>

#include "base/new_file.h"
#include "base/private_file.h"
#include "crypto/certificates.h"
#include "crypto/crypto.h"

namespace gbx::attest::sim {

namespace {

constexpr std::size_t kKeySize = 32;
constexpr std::int64_t kLast = 253402300799;  // 9999-12-31: no clock is part of a simulation
constexpr const char* kRootName = "Glovebox SIMULATED TEE root: protects nothing";
constexpr const char* kPlatformName = "Glovebox SIMULATED TEE platform authority";
constexpr const char* kPckName = "Glovebox SIMULATED TEE PCK certificate";
constexpr std::string_view kEnclaveName = "Glovebox SIMULATED quoting enclave";

Result<crypto::SigningKey> new_key(Random& random) {
  return crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEcdsaP256, random);
}

Result<std::string> certificate(const char* subject, const crypto::PublicKey& key,
                                const char* issuer, const crypto::SigningKey& issuer_key,
                                std::optional<int> path_length) {
  crypto::CertificateRequest r;
  r.subject = subject;
  r.issuer = issuer;
  r.key = &key;
  r.issuer_key = &issuer_key;
  r.path_length = path_length;
  r.not_after_seconds = kLast;
  GBX_ASSIGN(const Bytes der, crypto::issue_certificate(r));
  return crypto::certificate_pem(der);
}

// The coordinates of a P-256 point, as quotes carry keys.
FixedBytes<64> coordinates(const crypto::PublicKey& key) {
  const Bytes spki = key.spki_der();
  FixedBytes<64> out;
  std::copy(spki.end() - 64, spki.end(), out.begin());
  return out;
}

Result<FixedBytes<64>> signature_of(const crypto::SigningKey& key, ByteView message) {
  GBX_ASSIGN(const Bytes signature, key.sign(message));
  return fixed_from<64>(signature);
}

}  // namespace

Result<SimPlatform> SimPlatform::from_root(crypto::SigningKey root, Random& random) {
  GBX_ASSIGN(const crypto::SigningKey platform, new_key(random));
  GBX_ASSIGN(crypto::SigningKey pck, new_key(random));
  GBX_ASSIGN(crypto::SigningKey attestation, new_key(random));
  SimPlatform out(std::move(root), std::move(attestation), std::move(pck));
  GBX_ASSIGN(const std::string leaf_pem,
             certificate(kPckName, out.pck_.public_key(), kPlatformName, platform, std::nullopt));
  GBX_ASSIGN(const std::string platform_pem,
             certificate(kPlatformName, platform.public_key(), kRootName, out.root_, 0));
  GBX_ASSIGN(const std::string root_pem,
             certificate(kRootName, out.root(), kRootName, out.root_, 1));
  out.chain_ = concat({as_bytes(leaf_pem), as_bytes(platform_pem), as_bytes(root_pem)});
  return out;
}

Result<SimPlatform> SimPlatform::create(Random& random) {
  GBX_ASSIGN(crypto::SigningKey root, new_key(random));
  return from_root(std::move(root), random);
}

Status SimPlatform::save(const std::string& path) const {
  const Secret<SigningKeyTag> raw = root_.private_bytes(SecretAccess{});
  return write_new_file(path, raw.view(SecretAccess{}), 0600);
}

Result<SimPlatform> SimPlatform::load(const std::string& path, Random& random) {
  GBX_ASSIGN(Bytes raw, read_private_file(path, kKeySize));
  const auto secret = Secret<SigningKeyTag>::copy_of(raw);
  cleanse(raw);
  auto root = crypto::SigningKey::from_private(crypto::SignatureAlgorithm::kEcdsaP256, secret);
  if (!root.ok()) {
    return root.error().at(path).hint(
        "restore the file; a new one is a new root, which owners have to allow");
  }
  return from_root(std::move(*root), random);
}

Result<tdx::Quote> SimPlatform::sign(tdx::Quote q) const {
  q.attestation_key = coordinates(attestation_.public_key());
  q.qe_auth = to_bytes(as_bytes(kEnclaveName));
  q.pck_chain = chain_;
  q.qe_report = {};
  q.qe_report.attributes[0] = 0x05;  // initialised, 64 bits, not under debug
  q.qe_report.isv_prod_id = 2;       // as Intel's TD quoting enclave
  const Hash32 bound = crypto::sha256({q.attestation_key, q.qe_auth});
  std::copy(bound.begin(), bound.end(), q.qe_report.report_data.begin());
  GBX_ASSIGN(q.qe_signature, signature_of(pck_, tdx::serialize(q.qe_report)));
  GBX_ASSIGN(q.signature, signature_of(attestation_, tdx::signed_bytes(q)));
  return q;
}

Result<Bytes> SimPlatform::quote(const SimMeasurement& measured,
                                 const FixedBytes<64>& report_data) const {
  tdx::Quote q;
  q.body.mrtd = measured.mrtd;
  q.body.rtmr = measured.rtmr;
  std::copy(measured.launch_config.begin(), measured.launch_config.end(),
            q.body.mr_config_id.begin());
  q.body.report_data = report_data;
  GBX_ASSIGN(const tdx::Quote made, sign(std::move(q)));
  return tdx::serialize(made);
}

}  // namespace gbx::attest::sim
