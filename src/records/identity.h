// Who somebody is: an identity is named by the hash of its first two public keys and lives through
// key rotations.
#pragma once

#include <vector>

#include "records/signed.h"

namespace gbx::records {

struct Identity {
  static constexpr std::string_view kType = "identity";
  static constexpr bool kBindsSet = false;
  std::string genesis_key;   // public key text
  std::string recovery_key;  // public key text; its private half is kept away from daily use
  template <class F>
  void fields(F& f) {
    f("genesisKey", genesis_key, Bound{1, 256});
    f("recoveryKey", recovery_key, Bound{1, 256});
  }
  Hash32 id() const { return hash_of(*this); }
};

// Signed by the current key or by the recovery key; serial rises by one.
struct Rotation {
  static constexpr std::string_view kType = "rotation";
  static constexpr bool kBindsSet = true;
  Hash32 identity_id{};
  std::int64_t serial = 0;
  std::string new_key;
  template <class F>
  void fields(F& f) {
    f("identityId", identity_id);
    f("serial", serial, Bound{1, 1'000'000});
    f("newKey", new_key, Bound{1, 256});
  }
};

struct IdentityChain {
  Identity identity;
  std::vector<Signed<Rotation>> rotations;
  template <class F>
  void fields(F& f) {
    f("identity", identity);
    f("rotations", rotations, Bound{0, 64});
  }
  Hash32 id() const { return identity.id(); }
  // Replays the rotations. Errors: kChainBroken, kBadSignature, kBadEncoding.
  Result<crypto::PublicKey> current_key(const SetId& set_id) const;
};

// Signed by the genesis key or by a key of a rotation of `chain`: for what somebody accepted when
// that key stood. What is decided now takes current_key() alone.
template <class Body>
Status verify_by_identity(const SetId& set_id, const IdentityChain& chain,
                          const Signed<Body>& record) {
  GBX_TRY(chain.current_key(set_id));
  std::vector<std::string> keys{chain.identity.genesis_key};
  for (const auto& r : chain.rotations) keys.push_back(r.body.new_key);
  for (const auto& text : keys) {
    if (text != record.key) continue;
    GBX_ASSIGN(crypto::PublicKey key, crypto::PublicKey::from_text(text));
    return record.verify(set_id, key);
  }
  return fail(Reason::kBadSignature,
              std::string(Body::kType) + " is signed by a key that the identity never had")
      .with(keys.back(), record.key);
}

}  // namespace gbx::records
