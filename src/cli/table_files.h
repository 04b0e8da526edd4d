// What a policy says of CSV files, compared with the files: they are the owner's own and are read
// here, before anything is encrypted. A wrong word in it would come out when a job is refused.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "records/asset.h"

namespace gbx::cli {

// Each of these files is below the folder `source`, or is the file `source` itself, and its first
// line has the columns that are named. Errors: kNotFound, kBadValue with what there is, kIo for
// what cannot be opened, a link too.
Status check_tables(const std::string& source, const std::vector<records::TableRule>& tables);

}  // namespace gbx::cli
