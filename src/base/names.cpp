#include "base/names.h"

namespace gbx {

bool plain_name(std::string_view name) {
  if (name.empty() || name.size() > 64 || name[0] == '.') return false;
  for (const char c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '.' || c == '_' || c == '-';
    if (!plain) return false;
  }
  return true;
}

bool plain_path(std::string_view path) {
  int parts = 0;
  while (true) {
    const auto slash = path.find('/');
    if (!plain_name(path.substr(0, slash)) || ++parts > 8) return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

}  // namespace gbx
