// Many ended jobs in a plane's database, quickly: copies of one real job's rows, of the same
// lengths, each with a submission, an id and a time of its own.
#pragma once

#include <string>

#include "base/seams.h"
#include "records/job.h"

namespace gbx::bench {

// `path` is a database that nobody has open. Leaves what is there; ends the program on an error.
void fill_plane(const std::string& path, const records::Submission& like, std::int64_t jobs,
                Random& random);

}  // namespace gbx::bench
