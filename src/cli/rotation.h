// Changing the signing key of an identity. The change is kept in the home before it is sent, and
// goes on where it was interrupted; no key is written over whose rotation the broker may have
// logged. What the plane says of the identity's rotations is untrusted: they count as far as they
// verify and go on from those that are known here.
#pragma once

#include "cli/session.h"

namespace gbx::cli {

enum class RotateBy { kPresentKey, kRecoveryKey };
struct Rotated {
  IdentityFile file;          // as it is from now on
  std::size_t of_others = 0;  // rotations that were not made in this home, as the plane shows them
};
// Takes Session::hold_rotation(). kConflict: another rotation of this home waits for its end.
// kChainBroken: the plane shows other rotations than those that are known here.
Result<Rotated> rotate_key(Session& session, RotateBy by);

}  // namespace gbx::cli
