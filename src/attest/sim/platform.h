// The platform that the sim stands in for: a TDX module, a quoting enclave and Intel's certificates
// in one object, with a root made at random for each installation. Its quotes are genuine TDX
// quotes, version 4, that prove nothing but which installation made them: whoever has the root's
// key signs what he likes. Every certificate says SIMULATED. Owned by src/simtee; one thread.
#pragma once

#include "attest/tdx/quote.h"
#include "crypto/keys.h"

namespace gbx::attest::sim {

// What a simulated TDX module would have measured.
struct SimMeasurement {
  tdx::Register mrtd{};
  std::array<tdx::Register, 4> rtmr{};
  Hash32 launch_config{};  // of MRCONFIGID the first 32 bytes; zeros follow
};

class SimPlatform {
 public:
  // A new installation's root.
  static Result<SimPlatform> create(Random& random);
  // The root's private key, 32 bytes in a file that only its owner may read. A file that is there
  // is never written over (kAlreadyExists). Errors of load(): kNotFound, kIo, kBadValue.
  Status save(const std::string& path) const;
  static Result<SimPlatform> load(const std::string& path, Random& random);

  const crypto::PublicKey& root() const { return root_.public_key(); }
  Result<Bytes> quote(const SimMeasurement& measured, const FixedBytes<64>& report_data) const;
  // A quote over any header and body: `quote.header`, `body` and `body_15` are taken, the rest is
  // filled in.
  Result<tdx::Quote> sign(tdx::Quote quote) const;

 private:
  SimPlatform(crypto::SigningKey root, crypto::SigningKey enclave, crypto::SigningKey pck)
      : root_(std::move(root)), attestation_(std::move(enclave)), pck_(std::move(pck)) {}
  // Everything below the root is new for each process.
  static Result<SimPlatform> from_root(crypto::SigningKey root, Random& random);

  crypto::SigningKey root_;
  crypto::SigningKey attestation_;
  crypto::SigningKey pck_;
  Bytes chain_;  // PEM
};

}  // namespace gbx::attest::sim
