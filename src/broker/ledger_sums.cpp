#include "broker/ledger_sums.h"

#include <algorithm>

namespace gbx::broker {

namespace {

constexpr std::int64_t kHour = 3'600;
constexpr std::int64_t kDay = 86'400;

// Of the unit that holds `time`, which may be negative: a period can begin before 1970.
std::int64_t begin_of(std::int64_t time, std::int64_t unit) {
  return time - ((time % unit) + unit) % unit;
}
std::int64_t next_begin(std::int64_t time, std::int64_t unit) {
  return begin_of(time + unit - 1, unit);
}

template <class Row>
auto first_since(Row& row, std::int64_t time) {
  return std::lower_bound(row.begin(), row.end(), time,
                          [](const auto& at, std::int64_t t) { return at.first < t; });
}

// Room for an eighth more, where a vector of its own accord would take as much again.
template <class Row>
void insert(Row& row, typename Row::iterator before, typename Row::value_type value) {
  const auto at = before - row.begin();
  if (row.size() == row.capacity()) row.reserve(row.size() + row.size() / 8 + 1);
  row.insert(row.begin() + at, std::move(value));
}

bool earlier(const std::pair<std::int64_t, const Hash32*>& a,
             const std::pair<std::int64_t, const Hash32*>& b) {
  return a.first != b.first ? a.first < b.first : *a.second < *b.second;
}

}  // namespace

void ChargedSums::change(const Charged& c, std::int64_t sign) {
  free_bits_ += sign * c.free_bits;
  verified_bits_ += sign * c.verified_bits;
  for (const auto& [row, unit] :
       {std::pair(&seconds_, std::int64_t{1}), {&hours_, kHour}, {&days_, kDay}}) {
    const std::int64_t begin = begin_of(c.time, unit);
    const auto at = first_since(*row, begin);
    if (at == row->end() || at->first != begin) {
      if (c.free_bits != 0) insert(*row, at, {begin, sign * c.free_bits});
      continue;
    }
    at->second += sign * c.free_bits;
    if (at->second == 0) row->erase(at);
  }
}

std::int64_t ChargedSums::free_bits_since(std::int64_t time) const {
  const std::int64_t hour = next_begin(time, kHour);
  const std::int64_t day = next_begin(hour, kDay);
  std::int64_t sum = 0;
  for (auto it = first_since(seconds_, time); it != seconds_.end() && it->first < hour; ++it) {
    sum += it->second;
  }
  for (auto it = first_since(hours_, hour); it != hours_.end() && it->first < day; ++it) {
    sum += it->second;
  }
  for (auto it = first_since(days_, day); it != days_.end(); ++it) sum += it->second;
  return sum;
}

void ToldOrder::add(std::int64_t told, const Hash32& job) {
  const std::pair value(told, &job);
  insert(row_, std::lower_bound(row_.begin(), row_.end(), value, earlier), value);
}

void ToldOrder::remove(std::int64_t told, const Hash32& job) {
  const auto at = std::lower_bound(row_.begin(), row_.end(), std::pair(told, &job), earlier);
  if (at != row_.end() && at->second == &job) row_.erase(at);
}

std::vector<Hash32> ToldOrder::page(std::int64_t after, std::int64_t limit) const {
  std::vector<Hash32> out;
  if (after < 0) return out;
  for (std::int64_t n = after; n < count() && n - after < limit; ++n) {
    out.push_back(*row_[static_cast<std::size_t>(n)].second);
  }
  return out;
}

}  // namespace gbx::broker
