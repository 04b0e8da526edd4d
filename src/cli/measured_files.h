// Files that several commands measure. The user's own, and untrusted like any file: the sizes are
// bounded here, the content is judged by vm/measure.
#pragma once

#include <string>

#include "vm/measure/tdx.h"

namespace gbx::cli {

// table-loader, rsdp and tables of a folder that guest/acpi-tables wrote.
Result<vm::measure::AcpiTables> read_acpi_tables(const std::string& folder);

}  // namespace gbx::cli
