// What jobs have told of one asset, or one consumer's jobs of it, kept added up beside the ledger's
// lines, from which it follows: with many jobs none of the broker's answers walks them all. Not
// thread-safe.
#pragma once

#include <ext/pb_ds/assoc_container.hpp>
#include <ext/pb_ds/tree_policy.hpp>
#include <map>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace gbx::broker {

// Numbers by their second, and what came since a time. Of a million seconds it looks at those of
// one hour, the hours of one day, and the days.
class SumsByTime {
 public:
  void add(std::int64_t time, std::int64_t number);
  std::int64_t since(std::int64_t time) const;

 private:
  using Sums = std::map<std::int64_t, std::int64_t>;  // those that are not 0
  Sums seconds_;
  Sums hours_;
  Sums days_;
};

struct SumsLine {
  Hash32 job_id{};
  std::int64_t told = 0;  // when the ledger says that it was
  std::int64_t time = 0;  // when it was charged, for which it counts
  std::int64_t free_bits = 0;
  std::int64_t verified_bits = 0;
};

class LedgerSums {
 public:
  void add(const SumsLine& line);
  void remove(const SumsLine& line);  // one that was added
  std::int64_t count() const { return static_cast<std::int64_t>(order_.size()); }
  std::int64_t free_bits() const { return free_bits_; }
  std::int64_t verified_bits() const { return verified_bits_; }
  std::int64_t free_bits_since(std::int64_t time) const { return by_time_.since(time); }
  // The jobs in the order in which they were told, `limit` at most, without the first `after`.
  std::vector<Hash32> page(std::int64_t after, std::int64_t limit) const;

 private:
  void change(const SumsLine& line, std::int64_t sign);
  // Finds its n-th without a walk, which std::set cannot.
  using Order =
      __gnu_pbds::tree<std::pair<std::int64_t, Hash32>, __gnu_pbds::null_type,
                       std::less<std::pair<std::int64_t, Hash32>>, __gnu_pbds::rb_tree_tag,
                       __gnu_pbds::tree_order_statistics_node_update>;
  Order order_;  // told, job
  SumsByTime by_time_;
  std::int64_t free_bits_ = 0;
  std::int64_t verified_bits_ = 0;
};

}  // namespace gbx::broker
