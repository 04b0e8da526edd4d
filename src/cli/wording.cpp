#include "cli/wording.h"

#include <algorithm>

namespace gbx::cli {

std::string short_id(const Hash32& id) { return to_hex(id).substr(0, 16); }

std::string rough_time(std::int64_t seconds) {
  if (seconds < 120) return std::to_string(std::max<std::int64_t>(seconds, 0)) + " s";
  if (seconds < 2 * 3600) return std::to_string(seconds / 60) + " min";
  if (seconds < 2 * 86400) return std::to_string(seconds / 3600) + " h";
  return std::to_string(seconds / 86400) + " days";
}

}  // namespace gbx::cli
