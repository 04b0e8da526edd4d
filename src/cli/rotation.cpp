#include "cli/rotation.h"

#include <stdio.h>

#include <algorithm>

#include "base/log.h"
#include "base/os.h"

namespace gbx::cli {

namespace {

constexpr SecretAccess kAccess{};
using Chain = records::IdentityChain;
using SignedRotation = records::Signed<records::Rotation>;

// A rotation that was signed and perhaps sent; kept until it is known to hold, or to be beaten.
struct Pending {
  SignedRotation rotation;
  template <class F>
  void fields(F& f) {
    f("rotation", rotation);
  }
};

bool same(const SignedRotation& a, const SignedRotation& b) { return a.hash() == b.hash(); }
bool holds(const Chain& chain, const SignedRotation& r) {
  return std::any_of(chain.rotations.begin(), chain.rotations.end(),
                     [&](const auto& done) { return same(done, r); });
}
std::int64_t next_serial(const Chain& chain) {
  return static_cast<std::int64_t>(chain.rotations.size()) + 1;
}

class Turn {
 public:
  Turn(Session& s, IdentityFile file, const crypto::SigningKey& signer)
      : s_(s), path_(s.home().file("rotation.json")), file_(std::move(file)), signer_(signer) {}

  Result<Rotated> by_present_key() {
    GBX_ASSIGN(std::optional<SignedRotation> p, pending());
    if (p && holds(file_.chain, *p)) return done();
    if (p && p->key == file_.chain.identity.recovery_key &&
        p->body.serial >= next_serial(file_.chain)) {
      return fail(Reason::kConflict, "an interrupted rotation was signed with the recovery key")
          .with(p->key, signer_.public_key().text())
          .hint("finish it as it was begun: glovebox identity rotate --recovery");
    }
    GBX_ASSIGN(const bool goes_on, fits(p));
    if (!goes_on) {
      GBX_ASSIGN(p, begin());
    }
    GBX_TRY(carry_out(*p));
    return done();
  }

  // Whoever has the signing key may have rotated it first, and an earlier rotation of this home may
  // have been taken although its answer was lost. So it goes on from what the plane shows.
  Result<Rotated> by_recovery_key() {
    GBX_ASSIGN(std::optional<SignedRotation> p, pending());
    if (!p) GBX_TRY(settle());
    GBX_ASSIGN(Chain shown, shown_chain());
    count_others(shown, p);
    file_.chain = std::move(shown);
    // Its key, of which settle() may make the one in use, and identity.json go together.
    if (p && holds(file_.chain, *p)) GBX_TRY(s_.home().save(file_));
    // Perhaps the broker has it and the plane does not: the same again is no error.
    GBX_ASSIGN(const bool goes_on, fits(p));
    if (goes_on) GBX_TRY(carry_out(*p));
    // The key that it names may be as lost as the one before: asked for is a change by this signer.
    const bool asked_for = p && p->key == signer_.public_key().text() &&
                           !file_.chain.rotations.empty() && same(file_.chain.rotations.back(), *p);
    if (!asked_for) {
      GBX_ASSIGN(const SignedRotation next, begin());
      GBX_TRY(carry_out(next));
    }
    return done();
  }

 private:
  Result<std::optional<SignedRotation>> pending() const {
    if (!path_exists(path_)) return std::optional<SignedRotation>();
    GBX_ASSIGN(const std::string text, read_text_file(path_, 1U << 16));
    GBX_ASSIGN(Pending p, from_json_text<Pending>(text));
    return std::optional<SignedRotation>(std::move(p.rotation));
  }

  // Whether it can be the next one: not one that was beaten, or built on rotations that were.
  Result<bool> fits(const std::optional<SignedRotation>& p) const {
    if (!p) return false;
    GBX_ASSIGN(Context * context, s_.context());
    Chain next = file_.chain;
    next.rotations.push_back(*p);
    return next.current_key(context->set_id).ok();
  }

  // The recovery key asks, for the plane may know the present one no more. A plane that lies can
  // make this fail; rotations that verify can be added by nobody but a holder of a key.
  Result<Chain> shown_chain() const {
    GBX_ASSIGN(Context * context, s_.context());
    const Chain& known = file_.chain;
    GBX_ASSIGN(auto plane, s_.connect_as(known.id(), &signer_));
    GBX_ASSIGN(const Json reply, plane->identity(known.id()));
    GBX_ASSIGN(api::IdentityView view, from_json<api::IdentityView>(reply));
    const std::size_t n = known.rotations.size();
    const auto& shown = view.chain.rotations;
    if (view.identity_id != known.id() || view.chain.id() != known.id() || shown.size() < n ||
        !std::equal(known.rotations.begin(), known.rotations.end(), shown.begin(), same)) {
      return fail(Reason::kChainBroken,
                  "the plane's rotations of this identity do not go on from those known here")
          .with(std::to_string(n) + " known here", std::to_string(shown.size()) + " shown")
          .hint("nothing was signed. It may have gone back to an old copy: ask its operator");
    }
    GBX_TRY(view.chain.current_key(context->set_id));
    return std::move(view.chain);
  }

  void count_others(const Chain& shown, const std::optional<SignedRotation>& own) {
    const std::size_t more = shown.rotations.size() - file_.chain.rotations.size();
    of_others_ = more - (own && !holds(file_.chain, *own) && holds(shown, *own) ? 1 : 0);
  }

  // The key of the rotation before may be the one in use: then it goes to its place.
  Status settle() const {
    GBX_ASSIGN(Context * context, s_.context());
    GBX_ASSIGN(const crypto::PublicKey current, file_.chain.current_key(context->set_id));
    const Status settled = s_.settle_rotation(current.text());
    if (settled.ok()) return settled;
    return Error(settled.error())
        .hint(
            "nothing was changed. Whether this is the key in use cannot be told: give its "
            "passphrase, or move " +
            s_.home().next_signing_key() + " to another place and give the same command again");
  }

  // Of a rotation that was beaten, or whose rotation.json is gone: the broker may count it, or
  // come to, so it is kept under a name of its own.
  Status set_aside() const {
    const std::string next = s_.home().next_signing_key();
    if (!path_exists(next)) return ok_status();
    GBX_ASSIGN(const Bytes content, read_file(next, 1U << 16));
    const std::string aside = s_.home().file(
        "keys/signing.aside-" + to_hex(crypto::sha256(content)).substr(0, 16) + ".key");
    if (rename(next.c_str(), aside.c_str()) != 0) return io_error(aside, errno);
    return ok_status();
  }

  // Makes a key and signs the change to it; both are on the disk before anything is sent.
  Result<SignedRotation> begin() const {
    GBX_TRY(settle());
    GBX_TRY(set_aside());
    GBX_ASSIGN(Context * context, s_.context());
    GBX_ASSIGN(auto fresh,
               crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, s_.random()));
    const std::optional<Passphrase> phrase = s_.same_protection();
    GBX_TRY(s_.home().make("keys"));
    GBX_TRY(write_key_file(s_.home().next_signing_key(), KeyKind::kSigning,
                           fresh.private_bytes(kAccess).view(kAccess), kAccess,
                           phrase ? &*phrase : nullptr, s_.random()));
    const records::Rotation r{file_.chain.id(), next_serial(file_.chain),
                              fresh.public_key().text()};
    Pending p;
    GBX_ASSIGN(p.rotation, records::sign(context->set_id, r, signer_));
    GBX_TRY(write_file_atomic(path_, as_bytes(canonical(to_json(p))), 0600));
    return std::move(p.rotation);
  }

  // From here on identity.json names the new key; Session::keys() moves its file into place, now
  // or at the next command.
  Status carry_out(const SignedRotation& rotation) {
    GBX_ASSIGN(Context * context, s_.context());
    IdentityFile next = file_;
    next.chain.rotations.push_back(rotation);
    GBX_TRY(next.chain.current_key(context->set_id));
    GBX_TRY(send(next.chain, rotation));
    GBX_TRY(s_.home().save(next));
    file_ = std::move(next);
    return ok_status();
  }

  // Accepted, now or by an earlier run whose answer was lost: then the plane lets in the new key
  // only, or the recovery key.
  Status send(const Chain& next, const SignedRotation& rotation) const {
    GBX_ASSIGN(auto as_signer, s_.connect_as(next.id(), &signer_));
    const auto sent = as_signer->rotate({next.identity, rotation});
    if (sent.ok()) return ok_status();
    if (sent.reason() != Reason::kUnauthenticated) return sent.error();
    const Error beaten = Error(sent.error())
                             .hint(
                                 "if somebody else changed it: glovebox identity rotate "
                                 "--recovery, with the recovery key");
    GBX_ASSIGN(const crypto::SigningKey key, s_.next_signing_key());
    GBX_ASSIGN(auto as_new, s_.connect_as(next.id(), &key));
    return as_new->identity(next.id()).ok() ? ok_status() : Status(beaten);
  }

  Result<Rotated> done() {
    GBX_TRY(s_.home().save(file_));
    GBX_TRY(remove_tree(path_));
    return Rotated{std::move(file_), of_others_};
  }

  Session& s_;
  const std::string path_;
  IdentityFile file_;
  const crypto::SigningKey& signer_;
  std::size_t of_others_ = 0;
};

}  // namespace

Result<Rotated> rotate_key(Session& s, RotateBy by) {
  GBX_TRY(s.hold_rotation());
  if (by == RotateBy::kPresentKey) {
    GBX_ASSIGN(Keys * keys, s.keys());
    return Turn(s, keys->file, *keys->signing).by_present_key();
  }
  // The present key may be lost: nothing asks for it.
  GBX_ASSIGN(IdentityFile file, s.home().identity());
  GBX_ASSIGN(const crypto::SigningKey recovery, s.recovery_signing_key());
  return Turn(s, std::move(file), recovery).by_recovery_key();
}

}  // namespace gbx::cli
