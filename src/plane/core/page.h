// How much one page of a list looks at and says. Whoever asks for more entries pays more tokens
// (plane/service/api.cpp), so what a page looks at grows with what it asks for; and what it says is
// read by programs that take JsonLimits. A page that comes to one of these ends early, with a
// cursor: it may hold fewer entries than were asked for, or none.
#pragma once

#include <cstddef>

#include "base/json_count.h"
#include "plane/core/core.h"

namespace gbx::plane {

// Of one look at the store: its documents lie in memory together.
inline constexpr std::size_t kLookBytes = 256U << 10;
inline constexpr std::size_t kLookEntries = 100;
// Of one page, beside the entries that it asks for.
inline constexpr std::size_t kPageLooks = 2;
inline constexpr std::size_t kPageEntries = 100;
// Of one answer.
inline constexpr std::size_t kPageValues = 100'000;
inline constexpr std::size_t kPageBytes = 16U << 20;

class PageBudget {
 public:
  explicit PageBudget(std::size_t asked_for)
      : looks_(kPageLooks + asked_for / 20), entries_(kPageEntries + asked_for) {}
  // One more look at the store, one more entry looked at: false when the page is to end.
  bool look() { return looks_-- > 0; }
  bool look_at_entry() { return entries_-- > 0; }
  // The first entry of a page always goes in.
  bool take(const Json& entry) {
    const std::size_t values = value_count(entry);
    const std::size_t bytes = canonical(entry).size();
    const bool fits = values_ + values <= kPageValues && bytes_ + bytes <= kPageBytes;
    if (!fits && values_ > 0) return false;
    values_ += values;
    bytes_ += bytes;
    return true;
  }

 private:
  std::size_t looks_;
  std::size_t entries_;
  std::size_t values_ = 0;
  std::size_t bytes_ = 0;
};

// The page of those records that `make` (a record -> an optional entry) makes entries of.
template <class List, class Make>
Result<List> page_of(machines::Store& store, machines::RecordQuery q, const Page& page,
                     const Make& make) {
  q.limit = kLookEntries;
  q.max_bytes = kLookBytes;
  GBX_ASSIGN(q.after, parse_cursor(page.cursor));
  List out;
  PageBudget budget(page.limit);
  const auto ends_here = [&] {
    out.next = make_cursor(q.after->first, q.after->second);
    return out;
  };
  while (budget.look()) {
    GBX_ASSIGN(const std::vector<machines::Record> rows, store.records(q));
    if (rows.empty()) return out;
    for (const machines::Record& row : rows) {
      if (!budget.look_at_entry()) return ends_here();
      GBX_ASSIGN(auto entry, make(row));
      if (entry) {
        if (out.items.size() == page.limit || !budget.take(to_json(*entry))) return ends_here();
        out.items.push_back(std::move(*entry));
      }
      q.after = std::pair(row.order, row.id);
    }
  }
  return ends_here();
}

}  // namespace gbx::plane
