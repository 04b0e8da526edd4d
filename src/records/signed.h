// How records are named, hashed and signed (docs/protocol.md, "Conventions").
//   hash of a body      = SHA-256("gbx/1/<type>" ‖ 0x00 ‖ JCS(body))
//   signed message      = "gbx/1/<type>" ‖ 0x00 ‖ setId ‖ JCS(body); a VersionRecord omits setId,
//   so that one asset
//                         can be published to several installations.
// Every record type is a struct with kType, kBindsSet and fields(F&). Reading is strict, so
// JCS(parse(x)) = x and the hash of what was parsed is the hash of what was signed. Input is
// untrusted.
#pragma once

#include <string>

#include "base/fields.h"
#include "crypto/crypto.h"
#include "crypto/keys.h"

namespace gbx::records {

using SetId = Hash32;

template <class Body>
std::string label_of() {
  return "gbx/1/" + std::string(Body::kType);
}
template <class Body>
Hash32 hash_of(const Body& body) {
  return crypto::labelled_hash(label_of<Body>(), as_bytes(canonical(to_json(body))));
}
template <class Body>
Bytes signed_message(const SetId& set_id, const Body& body) {
  ByteWriter w;
  w.text(label_of<Body>()).u8(0);
  if (Body::kBindsSet) w.raw(set_id);
  w.text(canonical(to_json(body)));
  return w.take();
}

// {"type", "body", "key", "signature"}. Another type is refused when read (kBadValue). Who signed
// is stated, and proved only by verify() against a key that the caller trusts.
template <class Body>
struct Signed {
  Body body;
  std::string key;
  Bytes signature;

  template <class F>
  void fields(F& f) {
    Type type = Type::kThis;
    f("type", type);
    f("body", body);
    f("key", key, Bound{1, 256});
    f("signature", signature, Bound{64, 64});
  }
  // Exactly `signer` signed exactly this body for exactly this set; nobody else can make another
  // signature of it, so what carries a signature has one form. Errors: kBadSignature.
  Status verify(const SetId& set_id, const crypto::PublicKey& signer) const {
    if (key != signer.text()) {
      return fail(Reason::kBadSignature, std::string(Body::kType) + " is signed by another key")
          .with(signer.text(), key);
    }
    if (!signer.verify_low_s(signed_message(set_id, body), signature)) {
      return fail(Reason::kBadSignature,
                  "signature of " + std::string(Body::kType) + " does not verify");
    }
    return ok_status();
  }
  Hash32 hash() const { return hash_of(body); }

 private:
  // A word of a list of one: reading a record of another type fails, and the published schema says
  // which word it is.
  enum class Type { kThis };
  friend std::span<const EnumName<Type>> enum_names(Type) {
    static constexpr EnumName<Type> kWords[] = {{Type::kThis, Body::kType.data()}};
    return kWords;
  }
};

template <class Body>
Result<Signed<Body>> sign(const SetId& set_id, Body body, const crypto::SigningKey& key) {
  Signed<Body> s;
  GBX_ASSIGN(s.signature, key.sign(signed_message(set_id, body)));
  s.body = std::move(body);
  s.key = key.public_key().text();
  return s;
}

}  // namespace gbx::records
