#include "channel/shares.h"

#include <algorithm>

namespace gbx::channel {
namespace {

constexpr std::int64_t kThousandths = 1000;

}  // namespace

void Shares::refill(Share& share, std::int64_t now_ms) const {
  // a thousandth of a token for each millisecond and token a second
  const std::int64_t full = limits_.burst * kThousandths;
  const std::int64_t passed =
      std::clamp<std::int64_t>(now_ms - share.at_ms, 0, full / limits_.per_second + 1);
  share.level = std::min(full, share.level + passed * limits_.per_second);
  share.at_ms = std::max(share.at_ms, now_ms);
}

void Shares::forget_idle(std::int64_t now_ms) {
  for (auto it = shares_.begin(); it != shares_.end();) {
    refill(it->second, now_ms);
    const bool idle = it->second.calls == 0 && it->second.level == limits_.burst * kThousandths;
    it = idle ? shares_.erase(it) : std::next(it);
  }
}

Result<std::shared_ptr<Shares::Ticket>> Shares::enter(const Hash32& caller, std::int64_t tokens,
                                                      std::int64_t now_ms) {
  const std::lock_guard lock(mutex_);
  auto found = shares_.find(caller);
  if (found == shares_.end()) {
    if (shares_.size() >= limits_.callers) forget_idle(now_ms);
    if (shares_.size() >= limits_.callers) {
      return fail(Reason::kUnavailable, "too many callers at one time");
    }
    found = shares_.emplace(caller, Share{limits_.burst * kThousandths, now_ms, 0}).first;
  }
  Share& share = found->second;
  refill(share, now_ms);
  if (share.calls >= limits_.at_one_time) {
    return fail(Reason::kRateLimited, "requests of one identity at one time")
        .with("at most " + std::to_string(limits_.at_one_time), "one more")
        .hint("wait for one to end");
  }
  const std::int64_t cost = tokens * kThousandths;
  if (share.level < cost) {
    const std::int64_t rate = limits_.per_second * kThousandths;
    const std::int64_t seconds = std::max<std::int64_t>(1, (cost - share.level + rate - 1) / rate);
    return fail(Reason::kRateLimited, "requests of one identity")
        .with("at most " + std::to_string(limits_.burst) + " at once and " +
                  std::to_string(limits_.per_second) + " a second after that",
              "more")
        .hint("wait " + std::to_string(seconds) + " s");
  }
  share.level -= cost;
  // The ticket first: where there is no memory for it, no place is taken.
  auto ticket = std::make_shared<Ticket>(*this, caller);
  ++share.calls;
  return ticket;
}

void Shares::leave(const Hash32& caller) {
  const std::lock_guard lock(mutex_);
  const auto found = shares_.find(caller);
  if (found != shares_.end() && found->second.calls > 0) --found->second.calls;
}

std::size_t Shares::size() const {
  const std::lock_guard lock(mutex_);
  return shares_.size();
}

}  // namespace gbx::channel
