// Ids, figures and times as every command writes them for people.
#pragma once

#include <string>

#include "base/bytes.h"

namespace gbx::cli {

std::string short_id(const Hash32& id);        // its first 16 digits
std::string grouped(std::int64_t n);           // "1,234,567"
std::string rough_time(std::int64_t seconds);  // "40 s", "5 min", "30 h", "14 days"; none below 0
// "1 job", "1,200 jobs"
std::string counted(std::int64_t n, const std::string& one);

}  // namespace gbx::cli
