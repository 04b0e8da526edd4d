// What a policy says of CSV files, compared with the files: they are the owner's own and are read
// here, before anything is encrypted. A wrong word in it would come out when a job is refused.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "records/asset.h"

namespace gbx::cli {

// Each of these files is below `folder`, and its first line has the columns that are named. Errors:
// kNotFound, kBadValue with what there is.
Status check_tables(const std::string& folder, const std::vector<records::TableRule>& tables);

}  // namespace gbx::cli
