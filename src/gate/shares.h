// What the people of a cell have in a number that adds them up, and whether the number is about few
// of them though many are in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gate/decimal.h"

namespace gbx::gate {

inline UWide magnitude(Wide v) { return static_cast<UWide>(v < 0 ? -v : v); }

// (1, 50 %) and (2, 67 %) on absolute values: true when the largest contributor has more than half
// of the total, or the two largest more than two thirds; true of a total of zero, too.
bool dominated(UWide largest, UWide second, UWide total);

// The same of shares that come one after another.
class Dominance {
 public:
  void add(UWide share) {
    total_ += share;
    second_ = share > largest_ ? largest_ : share > second_ ? share : second_;
    largest_ = share > largest_ ? share : largest_;
  }
  UWide largest() const { return largest_; }
  UWide total() const { return total_; }
  bool dominated() const { return gate::dominated(largest_, second_, total_); }

 private:
  UWide largest_ = 0;
  UWide second_ = 0;
  UWide total_ = 0;
};

// Whoever knows what is usual takes it out of a sum, and has what those add who are not: of 99
// zeros and a one, as of 99 times 7,000 and once 7,431. Usual is the median,
// of an even number either of two.
struct Unusual {
  // All have the same share but for one to least - 1 people, and at least `least` have it; or there
  // are two shares only, and one to least - 1 people have the rarer one.
  bool few = false;
  // The same where fewer than `least` have the usual share, but half of all: of fifteen answers
  // from 1 to 5 eight are often equal, and nobody knows which, so a person decides.
  bool half = false;
  // One or two people make up what shares are off the usual one.
  bool dominated = false;
  bool few_or_half() const { return few || half; }
  bool any() const { return few || half || dominated; }
};
// `shares`, one for each person, are put in another order. Their absolute values, added up, are
// below 10^37.
Unusual unusual(std::vector<Wide>& shares, std::size_t least);

// Do one to least - 1 of these people add anything? Then a sum of them is about so few, however
// many stand beside it, and however unlike the few are.
bool few_add(const std::vector<Wide>& shares, std::size_t least);

// Is a sum of these about few people? One or two make it up, or what is off the usual, or few add
// anything or are unlike the others. Not when nobody adds anything.
bool of_few(std::vector<Wide>& shares, std::size_t least);

// How many have the most frequent of these shares, which are put in order.
std::size_t most_alike(std::vector<Wide>& shares);

}  // namespace gbx::gate
