// How much a job can tell, by the gate's own reckoning.
#pragma once

#include "gate/records.h"
#include "policy/policy.h"

namespace gbx::cli {

Result<gate::OutputDeclaration> declaration_of(const records::SpecOutput& output);
policy::Capacity gate_capacity();

}  // namespace gbx::cli
