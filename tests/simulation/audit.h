// Reads the broker's log from its first entry, knowing nothing of the broker's own fold, and holds
// it against what the protocol promises about attempts and charges.
#pragma once

#include <map>
#include <string>

#include "broker/state.h"
#include "broker/store.h"

namespace gbx::simulation {

// Empty, or the promise that an entry breaks: attempts in sequence, each one dead before the next
// has a credential; keys, evidence and seals of the live attempt only; one seal, after both keys;
// one decision, after the seal.
std::string audit_log(const broker::LogStore& log);

// Empty, or where a charge is lost, made twice or of another amount: every reservation and decision
// charges each owner of the job once with what is due by docs/gate.md, and the ledger that the
// broker keeps has these lines, no others, and their sums. `lines` counts them by state.
std::string audit_ledger(const broker::LogStore& log, const broker::State& state,
                         std::map<std::string, std::size_t>& lines);

}  // namespace gbx::simulation
