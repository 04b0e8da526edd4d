#include "cli/capacity.h"

#include "gate/schema.h"

namespace gbx::cli {

Result<gate::OutputDeclaration> declaration_of(const records::SpecOutput& o) {
  gate::OutputDeclaration d;
  d.name = o.name;
  d.path = o.path;
  GBX_ASSIGN(d.type, enum_from<gate::OutputType>(enum_name(o.type)));
  if (o.schema) d.schema = *o.schema;
  d.maxBytes = o.max_bytes;
  return d;
}

policy::Capacity gate_capacity() {
  return [](const records::SpecOutput& o) -> Result<std::int64_t> {
    GBX_ASSIGN(gate::OutputDeclaration d, declaration_of(o));
    GBX_ASSIGN(gate::Capacity c, gate::capacity(d));
    return c.bits;
  };
}

}  // namespace gbx::cli
