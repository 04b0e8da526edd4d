#include "base/seams.h"

#include <openssl/evp.h>
#include <sys/random.h>
#include <time.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace gbx {

std::uint64_t Random::below(std::uint64_t bound) {
  const std::uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
  for (;;) {
    const FixedBytes<8> b = fixed<8>();
    std::uint64_t v = 0;
    for (std::uint8_t x : b) v = v << 8 | x;
    if (v < limit) return v % bound;
  }
}

TimeMs SystemClock::now() const {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return {t.tv_sec * 1000 + t.tv_nsec / 1'000'000};
}
std::int64_t SystemClock::steady_ms() const {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1'000'000;
}

void SystemRandom::fill(MutableByteView out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = getrandom(out.data() + done, out.size() - done, 0);
    if (n > 0) {
      done += static_cast<std::size_t>(n);
    } else if (errno != EINTR) {
      std::fprintf(stderr, "getrandom failed: no keys can be made\n");
      std::abort();
    }
  }
}

void SeededRandom::fill(MutableByteView out) {
  std::size_t done = 0;
  while (done < out.size()) {
    ByteWriter w;
    w.text("gbx-seeded-random").u64(seed_).u64(counter_++);
    std::uint8_t digest[32];
    unsigned n = 0;
    if (EVP_Digest(w.bytes().data(), w.bytes().size(), digest, &n, EVP_sha256(), nullptr) != 1) {
      std::abort();
    }
    const std::size_t take = std::min<std::size_t>(32, out.size() - done);
    std::memcpy(out.data() + done, digest, take);
    done += take;
  }
}

std::int64_t slot_end(std::int64_t time, std::int64_t slot) {
  return slot <= 0 ? time : (time + slot - 1) / slot * slot;
}

std::string format_time(std::int64_t seconds) {
  const time_t t = seconds;
  tm parts{};
  gmtime_r(&t, &parts);
  char buf[32];
  strftime(buf, sizeof buf, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return buf;
}

Result<std::int64_t> parse_time(std::string_view text) {
  tm parts{};
  const std::string s(text);
  const char* end = strptime(s.c_str(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  if (end == nullptr || *end != '\0' || format_time(timegm(&parts)) != text) {
    return fail(Reason::kBadValue, "time").with("like 2026-01-31T12:00:00Z", s.substr(0, 40));
  }
  return static_cast<std::int64_t>(timegm(&parts));
}

}  // namespace gbx
