#include "capacity/capacity.h"

#include "gate/schema.h"
#include "gate/spawn.h"

namespace gbx::capacity {

// Policy cannot link the gate; both say the same.
static_assert(policy::kControlBits == gate::kControlBits);
static_assert(policy::kGateSeconds * 1000 == gate::kTimeoutMs);

Result<gate::OutputDeclaration> declaration_of(const records::SpecOutput& o) {
  gate::OutputDeclaration d;
  d.name = o.name;
  d.path = o.path;
  GBX_ASSIGN(d.type, enum_from<gate::OutputType>(enum_name(o.type)));
  if (o.schema) d.schema = *o.schema;
  d.maxBytes = o.max_bytes;
  return d;
}

Result<policy::JobBits> of_spec(const records::SpecBody& spec, const policy::InputTables& tables) {
  std::vector<gate::OutputDeclaration> outputs;
  for (const auto& o : spec.outputs) {
    GBX_ASSIGN(gate::OutputDeclaration d, declaration_of(o));
    outputs.push_back(std::move(d));
  }
  const bool logs = spec.logs.visibility == records::LogVisibility::kConsumer;
  std::vector<gate::GateInput> inputs;
  for (const auto& i : spec.inputs) {
    inputs.push_back({i.name, i.mount, "", -1, {}});
    const auto known = tables.find(i.name);
    if (known == tables.end()) continue;
    for (const auto& t : known->second) inputs.back().tables.push_back({t.file, t.subject});
  }
  GBX_ASSIGN(gate::Charge c, gate::job_charge(outputs, inputs, logs ? spec.logs.max_bytes : 0));
  return policy::JobBits{c.freeBits, c.verifiedBits};
}

}  // namespace gbx::capacity
