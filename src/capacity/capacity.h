// How much a job can tell, by the gate's own reckoning, from its signed spec: the one function by
// which broker, CLI and verifiers of receipts reckon. The gate's own process links none of it,
// since it reads no records. Specs and tables were parsed and validated before. Free functions,
// safe from any thread.
#pragma once

#include "gate/records.h"
#include "policy/policy.h"

namespace gbx::capacity {

// The declaration that the gate gets for one output of a spec. kBadValue: a type that the gate does
// not know.
Result<gate::OutputDeclaration> declaration_of(const records::SpecOutput& output);

// Free and verified bits of a whole job (gate::job_charge): all outputs as declared, the log that
// the consumer sees, and the tables of the inputs by name, as the owners' policies declare them.
// Refuses a spec that the gate would refuse.
Result<policy::JobBits> of_spec(const records::SpecBody& spec, const policy::InputTables& tables);

}  // namespace gbx::capacity
