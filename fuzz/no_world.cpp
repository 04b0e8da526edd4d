// Linked into every fuzz target: a parser that asks for the time or for randomness would not repeat
// its crashes, so both abort. The linker sends here (--wrap) getrandom() and, where seeds are
// replayed, clock_gettime(); under libFuzzer, which needs the clock, the virtual table of
// SystemClock instead.
#include <sys/types.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>

namespace {
[[noreturn]] void touched(const char* what) {
  std::fprintf(stderr, "a fuzz target touched the real %s\n", what);
  std::abort();
}
[[noreturn]] void clock_touched() { touched("clock"); }
}  // namespace

extern "C" {
ssize_t __wrap_getrandom(void*, std::size_t, unsigned) { touched("random source"); }

int __wrap_clock_gettime(clockid_t, timespec*) { touched("clock"); }

// SAFETY: stands in for a virtual table (offset, type, two destructors, now, steady_ms); every
// entry that can be called aborts.
using Entry = void (*)();
extern const Entry __wrap__ZTVN3gbx11SystemClockE[6];
const Entry __wrap__ZTVN3gbx11SystemClockE[6] = {nullptr,       nullptr,       clock_touched,
                                                 clock_touched, clock_touched, clock_touched};
}
