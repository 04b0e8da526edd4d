// Reads the broker's log from its first entry, knowing nothing of the broker's own fold, and holds
// it against what the protocol promises about attempts.
#pragma once

#include <string>

#include "broker/store.h"

namespace gbx::simulation {

// Empty, or the promise that an entry breaks: attempts in sequence, each one dead before the next
// has a credential; keys, evidence and seals of the live attempt only; one seal, after both keys;
// one decision, after the seal.
std::string audit_log(const broker::LogStore& log);

}  // namespace gbx::simulation
