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

}  // namespace

void SumsByTime::add(std::int64_t time, std::int64_t number) {
  for (const auto& [sums, unit] :
       {std::pair(&seconds_, std::int64_t{1}), {&hours_, kHour}, {&days_, kDay}}) {
    const std::int64_t at = begin_of(time, unit);
    std::int64_t& sum = (*sums)[at];
    sum += number;
    if (sum == 0) sums->erase(at);
  }
}

std::int64_t SumsByTime::since(std::int64_t time) const {
  const std::int64_t hour = next_begin(time, kHour);
  const std::int64_t day = next_begin(hour, kDay);
  std::int64_t sum = 0;
  for (auto it = seconds_.lower_bound(time); it != seconds_.end() && it->first < hour; ++it) {
    sum += it->second;
  }
  for (auto it = hours_.lower_bound(hour); it != hours_.end() && it->first < day; ++it) {
    sum += it->second;
  }
  for (auto it = days_.lower_bound(day); it != days_.end(); ++it) sum += it->second;
  return sum;
}

void LedgerSums::change(const SumsLine& line, std::int64_t sign) {
  free_bits_ += sign * line.free_bits;
  verified_bits_ += sign * line.verified_bits;
  by_time_.add(line.time, sign * line.free_bits);
}

void LedgerSums::add(const SumsLine& line) {
  order_.insert({line.told, line.job_id});
  change(line, 1);
}

void LedgerSums::remove(const SumsLine& line) {
  order_.erase({line.told, line.job_id});
  change(line, -1);
}

std::vector<Hash32> LedgerSums::page(std::int64_t after, std::int64_t limit) const {
  std::vector<Hash32> out;
  if (after < 0 || after >= count()) return out;
  for (auto it = order_.find_by_order(static_cast<std::size_t>(after));
       it != order_.end() && static_cast<std::int64_t>(out.size()) < limit; ++it) {
    out.push_back(it->second);
  }
  return out;
}

}  // namespace gbx::broker
