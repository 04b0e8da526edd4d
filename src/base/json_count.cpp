#include "base/json_count.h"

namespace gbx {

std::size_t value_count(const Json& value) {
  std::size_t count = 0;
  std::vector<const Json*> left{&value};
  while (!left.empty()) {
    const Json* next = left.back();
    left.pop_back();
    ++count;
    if (const JsonArray* a = next->array()) {
      for (const Json& e : *a) left.push_back(&e);
    } else if (const JsonObject* o = next->object()) {
      for (const auto& [name, member] : *o) left.push_back(&member);
    }
  }
  return count;
}

}  // namespace gbx
