#include "base/secret_pool.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <span>

#include "base/secret.h"

#if defined(__SANITIZE_ADDRESS__)
#define GBX_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GBX_ASAN 1
#endif
#endif
#ifdef GBX_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace gbx {

namespace {

std::size_t page_size() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

// Under AddressSanitizer a free slot is out of bounds, as it would be on the heap.
void fence([[maybe_unused]] const std::uint8_t* at, [[maybe_unused]] std::size_t size) {
#ifdef GBX_ASAN
  ASAN_POISON_MEMORY_REGION(at, size);
#endif
}
void unfence([[maybe_unused]] const std::uint8_t* at, [[maybe_unused]] std::size_t size) {
#ifdef GBX_ASAN
  ASAN_UNPOISON_MEMORY_REGION(at, size);
#endif
}

}  // namespace

SecretPool::SecretPool(std::size_t most_arenas) : most_arenas_(most_arenas) {}

SecretPool::~SecretPool() {
  for (const Arena& a : arenas_) {
    unfence(a.base, kArena);
    cleanse({a.base, kArena});
    (void)munmap(a.base - page_size(), kArena + 2 * page_size());
  }
}

SecretPool& SecretPool::process() {
  constexpr std::size_t kMostArenas = 64;  // 16,384 slots in 1 MiB
  static SecretPool* const pool = new SecretPool(kMostArenas);
  return *pool;
}

bool SecretPool::grow() {
  if (arenas_.size() >= most_arenas_) return false;
  const std::size_t page = page_size();
  void* whole = mmap(nullptr, kArena + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (whole == MAP_FAILED) return false;
  // SAFETY: inside the fresh mapping; its first and last page stay inaccessible.
  auto* base = static_cast<std::uint8_t*>(whole) + page;
  if (mprotect(base, kArena, PROT_READ | PROT_WRITE) != 0) {
    (void)munmap(whole, kArena + 2 * page);
    return false;
  }
  // Locking may be refused by a resource limit, as for any SecretBuffer.
  (void)mlock(base, kArena);
  (void)madvise(base, kArena, MADV_DONTDUMP);
  Arena arena;
  arena.base = base;
  arena.free.fill(~std::uint64_t{0});
  arena.free_count = kSlots;
  arenas_.push_back(arena);
  fence(base, kArena);
  return true;
}

std::uint8_t* SecretPool::take_from(Arena& a) {
  for (std::size_t word = 0; word < a.free.size(); ++word) {
    if (a.free[word] == 0) continue;
    const auto bit = static_cast<std::size_t>(std::countr_zero(a.free[word]));
    a.free[word] &= a.free[word] - 1;
    --a.free_count;
    return a.base + (word * 64 + bit) * kSlot;
  }
  return nullptr;
}

std::uint8_t* SecretPool::take(std::size_t size) {
  if (size > kSlot) return nullptr;
  const std::lock_guard lock(mutex_);
  while (first_free_ < arenas_.size() && arenas_[first_free_].free_count == 0) ++first_free_;
  if (first_free_ == arenas_.size() && !grow()) return nullptr;
  std::uint8_t* slot = take_from(arenas_[first_free_]);
  unfence(slot, size);
  return slot;
}

void SecretPool::give_back(std::uint8_t* slot) {
  unfence(slot, kSlot);
  cleanse({slot, kSlot});
  fence(slot, kSlot);
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < arenas_.size(); ++i) {
    Arena& a = arenas_[i];
    if (slot < a.base || slot >= a.base + kArena) continue;
    const auto offset = static_cast<std::size_t>(slot - a.base);
    const std::size_t index = offset / kSlot;
    const std::uint64_t bit = std::uint64_t{1} << (index % 64);
    if (offset % kSlot != 0 || (a.free[index / 64] & bit) != 0) std::abort();
    a.free[index / 64] |= bit;
    ++a.free_count;
    first_free_ = std::min(first_free_, i);
    return;
  }
  std::abort();
}

std::size_t SecretPool::slots() const {
  const std::lock_guard lock(mutex_);
  return arenas_.size() * kSlots;
}

}  // namespace gbx
