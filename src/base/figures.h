// Figures in sentences for people: the same form in policies, answers and reports.
#pragma once

#include <cstdint>
#include <string>

namespace gbx {

std::string grouped(std::int64_t n);  // "1,234,567"
// "1 job", "1,200 jobs": for words whose plural has an s.
std::string counted(std::int64_t n, const std::string& one);

}  // namespace gbx
