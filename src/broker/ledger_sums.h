// What jobs have told of one asset, or one consumer's jobs of it, kept added up beside the ledger's
// lines, from which it follows: with many jobs none of the broker's answers walks them all. Each
// job is in several of these for as long as the broker runs, so they hold little of it: numbers in
// rows, without a node of a tree around each. What comes, comes at their end or near it. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace gbx::broker {

// What a line counts for: free bits at a time, and verified ones.
struct Charged {
  std::int64_t time = 0;
  std::int64_t free_bits = 0;
  std::int64_t verified_bits = 0;
};

class ChargedSums {
 public:
  void add(const Charged& c) { change(c, 1); }
  void remove(const Charged& c) { change(c, -1); }  // one that was added
  std::int64_t free_bits() const { return free_bits_; }
  std::int64_t verified_bits() const { return verified_bits_; }
  // Of a million seconds it looks at those of one hour, the hours of one day, and the days.
  std::int64_t free_bits_since(std::int64_t time) const;

 private:
  void change(const Charged& c, std::int64_t sign);
  std::int64_t free_bits_ = 0;
  std::int64_t verified_bits_ = 0;
  // Free bits by the beginning of their second, hour and day; those that are not 0, in order.
  using Row = std::vector<std::pair<std::int64_t, std::int64_t>>;
  Row seconds_;
  Row hours_;
  Row days_;
};

// The jobs in the order in which they were told.
class ToldOrder {
 public:
  // `job` stays where it is as long as it is in here.
  void add(std::int64_t told, const Hash32& job);
  void remove(std::int64_t told, const Hash32& job);  // one that was added
  std::int64_t count() const { return static_cast<std::int64_t>(row_.size()); }
  // `limit` at most, without the first `after`.
  std::vector<Hash32> page(std::int64_t after, std::int64_t limit) const;

 private:
  std::vector<std::pair<std::int64_t, const Hash32*>> row_;
};

}  // namespace gbx::broker
