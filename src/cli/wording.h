// Ids and times as every command writes them for people.
#pragma once

#include <string>

#include "base/bytes.h"

namespace gbx::cli {

std::string short_id(const Hash32& id);        // its first 16 digits
std::string rough_time(std::int64_t seconds);  // "40 s", "5 min", "30 h", "14 days"; none below 0

}  // namespace gbx::cli
