// Test support: programs never include it.
#pragma once

#include <string>

#include "plane/core/core.h"

namespace gbx::testing {

// As people enrol: with an invite, such as the plane makes for its first ones. The same again is no
// error.
inline Status enrol(plane::Core& core, const records::IdentityChain& chain,
                    const crypto::PublicKey& key, const std::string& name, plane::Role role) {
  constexpr std::int64_t kEver = 4'000'000'000;
  GBX_TRY(core.keep_invite({{role}, 1, kEver}, name));
  GBX_TRY(core.enrol(chain.id(), key, {chain, name, {role}, name}));
  return ok_status();
}

}  // namespace gbx::testing
