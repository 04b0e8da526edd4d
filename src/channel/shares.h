// What one caller may take of a service: so many requests over time and so many at one time, so
// that a flood by one leaves the others their share. Two bounds for each caller: a bucket of tokens
// that fills again with time, and a count of calls that are being answered. In memory only, and
// bounded: whoever has a full bucket and no call is forgotten. Thread-safe.
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "base/bytes.h"
#include "base/result.h"

namespace gbx::channel {

struct ShareLimits {
  // Of the bucket: what may come at once, and what is given back each second. Below what the memory
  // of nonces takes (4,096 in four minutes), so that it never is the first to say no.
  std::int64_t burst = 400;
  std::int64_t per_second = 15;
  int at_one_time = 8;           // calls of one caller that a thread works on
  std::size_t callers = 16'384;  // whom there is memory for
};

class Shares {
 public:
  // Gives the place among those at one time back when it is destroyed. Outlives no Shares.
  class Ticket {
   public:
    Ticket(Shares& shares, const Hash32& caller) : shares_(shares), caller_(caller) {}
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    ~Ticket() { shares_.leave(caller_); }

   private:
    Shares& shares_;
    const Hash32 caller_;
  };

  explicit Shares(ShareLimits limits) : limits_(limits) {}
  // Takes `tokens` (1 to burst) of the caller's bucket at `now_ms` of a clock that does not jump.
  // kRateLimited with the seconds to wait; kUnavailable when there is memory for nobody else.
  Result<std::shared_ptr<Ticket>> enter(const Hash32& caller, std::int64_t tokens,
                                        std::int64_t now_ms);
  std::size_t size() const;

 private:
  struct Share {
    std::int64_t level = 0;  // thousandths of a token
    std::int64_t at_ms = 0;  // when the level was that
    int calls = 0;
  };
  void refill(Share& share, std::int64_t now_ms) const;
  void forget_idle(std::int64_t now_ms);
  void leave(const Hash32& caller);

  const ShareLimits limits_;
  mutable std::mutex mutex_;
  std::map<Hash32, Share> shares_;  // guarded by mutex_
};

}  // namespace gbx::channel
