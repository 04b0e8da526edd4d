// What the outside world gives a program and tests replace: time and randomness.
// Nothing else in the tree may ask the system for either (a tidy test holds it to that).
#pragma once

#include <chrono>
#include <cstdint>

#include "base/bytes.h"
#include "base/secret.h"

namespace gbx {

// Milliseconds since 1970-01-01 UTC. Records carry whole seconds.
struct TimeMs {
  std::int64_t ms = 0;
  auto operator<=>(const TimeMs&) const = default;
  std::int64_t seconds() const { return ms / 1000; }
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimeMs now() const = 0;              // wall clock
  virtual std::int64_t steady_ms() const = 0;  // monotonic, for durations
};

class Random {
 public:
  virtual ~Random() = default;
  virtual void fill(MutableByteView out) = 0;  // cryptographically strong in production

  template <std::size_t N>
  FixedBytes<N> fixed() {
    FixedBytes<N> out;
    fill(out);
    return out;
  }
  template <class SecretType>
  SecretType secret(std::size_t n) {
    SecretBuffer b(n);
    fill(b.writable(SecretAccess{}));
    return SecretType::adopt(std::move(b));
  }
  // Uniform in [0, bound), bound > 0. For scheduling and jitter.
  std::uint64_t below(std::uint64_t bound);
};

class SystemClock final : public Clock {
 public:
  TimeMs now() const override;
  std::int64_t steady_ms() const override;
};
class SystemRandom final : public Random {
 public:
  void fill(MutableByteView out) override;  // getrandom(2); aborts when the kernel refuses
};
// Repeatable bytes from a seed: SHA-256 in counter mode. For tests and vectors only.
class SeededRandom final : public Random {
 public:
  explicit SeededRandom(std::uint64_t seed) : seed_(seed) {}
  void fill(MutableByteView out) override;

 private:
  std::uint64_t seed_;
  std::uint64_t counter_ = 0;
};
class ManualClock final : public Clock {
 public:
  explicit ManualClock(std::int64_t ms = 1'700'000'000'000) : ms_(ms) {}
  TimeMs now() const override { return {ms_}; }
  std::int64_t steady_ms() const override { return ms_; }
  void advance(std::int64_t ms) { ms_ += ms; }

 private:
  std::int64_t ms_;
};

// "2026-01-31T12:00:00Z"
std::string format_time(std::int64_t seconds);
// The first multiple of `slot` that is not before `time`, in the unit of both; a slot of 0 is at
// once.
std::int64_t slot_end(std::int64_t time, std::int64_t slot);
Result<std::int64_t> parse_time(std::string_view text);

}  // namespace gbx
